// SPDX-License-Identifier: GPL-2.0
// See fold_choice.h.
#include "daemon/catalogue/fold_choice.h"

namespace svd {

FoldSide fold_side(const ExtentEntry &entry, const Partial *partial, uint32_t tier, bool closed)
{
	FoldSide side{tier, entry.fragments(), 0, {}, closed};
	if (partial == nullptr) {
		side.valid.word.fill(~uint64_t{0});
		return side;
	}
	side.placed = fragments_of(partial->places);
	side.valid = partial->valid;
	return side;
}

FoldChoice choose_fold(const FoldSide &child, const FoldSide &parent)
{
	const ValidBits more = without(parent.valid, child.valid);
	const uint64_t own = count(child.valid), fill = count(more);
	const uint32_t placed = child.placed | fragments_of(more);
	const bool room = !child.fragments || (std::popcount(placed) <= static_cast<int>(SV_FRAGS_MAX) &&
					       (placed == child.placed || !child.closed));
	const bool may_swap = !parent.fragments && parent.tier <= child.tier && !parent.closed;
	if (may_swap && (own < fill || !room))
		return {FoldHow::kSwap, own};
	if (room)
		return {FoldHow::kFill, fill};
	return parent.fragments && !child.closed ? FoldChoice{FoldHow::kGrow, own + fill} : FoldChoice();
}

}  // namespace svd

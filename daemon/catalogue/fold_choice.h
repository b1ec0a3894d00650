// SPDX-License-Identifier: GPL-2.0
// How a partial extent and its parent, which nothing else needs, become one. By which copies less; but an extent is not moved
// to a slower tier for that. One with fragments goes into the parent's slot, or takes over the fragments of a parent that has
// no slot either; if together they are more than such an extent may have it gets a slot. On a member that is leaving neither
// gets any space: such a pair waits until one of them has moved.
#pragma once

#include <cstdint>

#include "daemon/catalogue/pages.h"

namespace svd {

// An extent as far as that matters.
struct FoldSide {
	uint32_t tier = 0;
	bool fragments = false;
	uint32_t placed = 0;  // bits of fragments that have a place
	ValidBits valid;      // of a whole one: all
	bool closed = false;  // nothing new gets onto its member
};

// The child keeps its place, goes into the parent's slot, or gets a new slot. kNot: it is left as it is.
enum class FoldHow { kNot, kFill, kSwap, kGrow };

struct FoldChoice {
	FoldHow how = FoldHow::kNot;
	uint64_t blocks = 0;  // to be copied
};

FoldSide fold_side(const ExtentEntry &entry, const Partial *partial, uint32_t tier, bool closed = false);  // null: it is whole
FoldChoice choose_fold(const FoldSide &child, const FoldSide &parent);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Which partial extents the kernel may fold into one with their parents: where the parent is an orphan, so nothing but its
// children needs it, and has one child only. How: fold_choice.h.
//
// Where the parent is needed, and a read of a block that the extent lacks would go through more than kNear extents below it,
// the fragments in which it has others are filled: that takes no space. Fragments of 64 KiB that are written at random
// between snapshots are then found in the first extent that has any of it, or kNear below that; but where that is a volume's, or
// nothing lies over it yet.
//
// Copies must not pass for writes: `svctl diff` tells what was written. So only what nobody writes to any more is filled, and
// note_fills() keeps what was written there before the kernel is asked: whatever becomes valid then was copied. Until the
// catalogue has the last records of all snapshots that would not be true. And no extent is filled to the last block, for then it
// would lose its parent, and nobody could say what it has in common with that.
#include <bit>
#include <optional>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/fold_choice.h"

namespace svd {

namespace {

constexpr int kNear = 4;
constexpr int kFar = 256;	// longer chains are left as they are
constexpr uint64_t kFragmentCosts = 64;	// as much as so many blocks that lie together: it comes from several places

class Folder {
 public:
	Folder(Database &db, const FoldLimits &limits, const std::vector<MemberRow> &members, uint64_t leaving)
		: db_(db), pages_(db), limits_(limits), leaving_(leaving)
	{
		for (const MemberRow &m : members)
			tier_[m.member] = m.tier;
	}
	Result<FoldStep> run(uint32_t after);
	Result<FoldStep> run(std::span<const uint32_t> parents);

 private:
	struct Row {
		uint32_t extent = 0;
		Partial partial;
	};
	Result<Row> row(Query &q);
	Status family(uint32_t parent, const std::vector<Row> &children);
	Status fold(uint32_t parent, const ExtentEntry &below, const Row &child);
	Status fill(uint32_t parent, const Row &child);
	Result<uint64_t> members_of_chain(uint32_t extent);
	static uint64_t bit(uint32_t member) { return uint64_t{1} << member; }
	uint32_t asked_of(uint32_t extent) const;
	Result<std::optional<ValidBits>> near(uint32_t parent, const Row &child);
	bool enough() const
	{
		return pairs_ >= limits_.pairs || step_.blocks >= limits_.blocks || rows_ >= limits_.rows;
	}

	Database &db_;
	PageStore pages_;
	FoldLimits limits_;
	FoldStep step_;
	uint64_t rows_ = 0;
	size_t pairs_ = 0;
	std::map<uint32_t, uint32_t> tier_;  // by member
	uint64_t leaving_;
};

void add_fragments(ValidBits &bits, uint32_t fragments)
{
	for (size_t i = 0; i < SV_FRAGS; i++)
		if ((fragments >> i & 1) != 0)
			bits.word[i / 4] |= uint64_t{SV_FRAG_BITS} << (i % 4 * SV_FRAG_BLOCKS);
}

Status Folder::family(uint32_t parent, const std::vector<Row> &children)
{
	SV_ASSIGN(const ExtentEntry *below, pages_.extent(parent, false));
	if (!below->live())
		return {};
	const bool folds = children.size() == 1 && below->orphan();
	if (!limits_.filling)
		return folds ? fold(parent, *below, children.front()) : Status();
	if (folds)
		return {};
	for (const Row &child : children)
		if (!enough())
			SV_TRY(fill(parent, child));
	return {};
}

Status Folder::fold(uint32_t parent, const ExtentEntry &below, const Row &child)
{
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(child.extent, false));
	const Partial *under = nullptr;
	if (below.partial()) {
		SV_ASSIGN(under, pages_.look(parent));
	}
	const auto side = [this](const ExtentEntry &e, const Partial *partial) {
		return fold_side(e, partial, tier_.at(e.member), (leaving_ & bit(e.member)) != 0); };
	const FoldChoice choice = choose_fold(side(*entry, &child.partial), side(below, under));
	if (choice.how == FoldHow::kNot)
		return {};
	const uint32_t flags = choice.how == FoldHow::kSwap ? SV_FOLD_SWAP : choice.how == FoldHow::kGrow ? SV_FOLD_GROW : 0u;
	step_.pairs[bit(entry->member) | bit(below.member)].push_back({child.extent, parent, entry->gen, below.gen, flags});
	step_.blocks += choice.blocks;
	pairs_++;
	return {};
}

uint32_t Folder::asked_of(uint32_t extent) const
{
	const auto found = limits_.filling->find(extent);
	return found == limits_.filling->end() ? 0 : found->second;
}

// What is valid in the extent or in the next ones below it; nothing if the chain ends there.
Result<std::optional<ValidBits>> Folder::near(uint32_t parent, const Row &child)
{
	ValidBits all = child.partial.valid;
	for (int i = 0; i < kNear; i++) {
		SV_ASSIGN(const ExtentEntry *below, pages_.extent(parent, false));
		if (!below->partial())
			return std::optional<ValidBits>();
		SV_ASSIGN(const Partial *more, pages_.look(parent));
		all = both(all, more->valid);
		add_fragments(all, asked_of(parent));
		parent = more->parent;
		rows_++;
		if (parent == 0)
			return std::optional<ValidBits>();
	}
	return std::optional(all);
}

// Those that the extent and what is below it lie on; none if some is on a slower tier than the extent, or if that is far away.
// What lies there is read at that tier's pace anyway, and whoever writes to the extent would have to wait for it.
Result<uint64_t> Folder::members_of_chain(uint32_t extent)
{
	SV_ASSIGN(const ExtentEntry *top, pages_.extent(extent, false));
	const uint32_t tier = tier_.at(top->member);
	uint64_t members = 0;
	for (int i = 0; extent != 0; i++) {
		SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
		if (i == kFar || tier_.at(entry->member) > tier)
			return uint64_t{0};
		members |= bit(entry->member);
		rows_++;
		if (!entry->partial())
			break;
		SV_ASSIGN(extent, pages_.parent(extent));
	}
	return members;
}

Status Folder::fill(uint32_t parent, const Row &child)
{
	SV_ASSIGN(const std::optional<ValidBits> found, near(parent, child));
	uint32_t fragments = 0;
	ValidBits filled = child.partial.valid;
	add_fragments(filled, asked_of(child.extent));
	for (size_t i = 0; found && i < SV_FRAGS; i++) {
		const auto own = valid_in(child.partial.valid, i);
		if (own == 0 || (asked_of(child.extent) >> i & 1) != 0 || valid_in(*found, i) == SV_FRAG_BITS)
			continue;
		ValidBits more = filled;
		add_fragments(more, 1u << i);
		if (more.all())
			break;
		filled = more;
		fragments |= 1u << i;
	}
	if (fragments == 0)
		return {};
	SV_ASSIGN(const bool frozen, pages_.is_frozen(child.extent));
	if (!frozen)
		return {};
	SV_ASSIGN(const uint64_t members, members_of_chain(child.extent));
	if (members == 0)
		return {};
	(*limits_.filling)[child.extent] |= fragments;
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(child.extent, false));
	const uint16_t gen = entry->gen;
	SV_ASSIGN(const ExtentEntry *below, pages_.extent(parent, false));
	step_.pairs[members].push_back({child.extent, parent, gen, below->gen,
					SV_FOLD_FILL | fragments << SV_FOLD_FILL_SHIFT});
	step_.blocks += kFragmentCosts * static_cast<uint64_t>(std::popcount(fragments));
	pairs_++;
	return {};
}

Result<Folder::Row> Folder::row(Query &q)
{
	Row row{q.u32(1), {}};
	row.partial.parent = q.u32(0);
	SV_TRY(decode_partial(q.blob(2), q.blob(3), q.u64(1), row.partial));
	rows_++;
	return row;
}

Result<FoldStep> Folder::run(uint32_t after)
{
	SV_ASSIGN(Query q, db_.query("SELECT parent, extent, valid, places FROM partials WHERE parent > ? AND parent <> 0 "
				     "ORDER BY parent"));
	q.bind(after);
	std::vector<Row> children;
	step_.after = after;
	uint32_t parent = 0;
	while (true) {
		SV_ASSIGN(const bool more, q.step());
		if (parent != 0 && (!more || q.u32(0) != parent)) {
			SV_TRY(family(parent, children));
			children.clear();
			step_.after = parent;
		}
		step_.done = !more;
		if (!more || (children.empty() && enough()))
			return std::move(step_);
		parent = q.u32(0);
		SV_ASSIGN(const Row one, row(q));
		children.push_back(one);
	}
}

Result<FoldStep> Folder::run(std::span<const uint32_t> parents)
{
	for (const uint32_t parent : parents) {
		SV_ASSIGN(Query q, db_.query("SELECT parent, extent, valid, places FROM partials WHERE parent = ? AND parent <> 0"));
		q.bind(parent);
		std::vector<Row> children;
		while (true) {
			SV_ASSIGN(const bool more, q.step());
			if (!more)
				break;
			SV_ASSIGN(const Row one, row(q));
			children.push_back(one);
		}
		SV_TRY(family(parent, children));
	}
	step_.done = true;
	return std::move(step_);
}

}  // namespace

Result<FoldStep> Catalogue::fold_step(uint32_t after, const FoldLimits &limits)
{
	if (limits.filling) {
		SV_ASSIGN(const uint64_t to_come, impl_->db->number("SELECT EXISTS (SELECT 1 FROM snapshots WHERE state = 1 OR next_layer <> 0)"));
		if (to_come != 0) {
			FoldStep step;
			step.wait = true;
			return step;
		}
	}
	SV_ASSIGN(const std::vector<MemberRow> rows, members());
	SV_ASSIGN(const uint64_t gone, leaving());
	return Folder(*impl_->db, limits, rows, gone).run(after);
}

Status Catalogue::note_fills(std::span<const sv_fold> fills)
{
	return transaction([&]() -> Status {
		PageStore pages(*impl_->db);
		for (const sv_fold &f : fills) {
			SV_ASSIGN(const Partial *partial, pages.look(f.extent));
			if (partial->written)
				continue;
			SV_ASSIGN(std::optional<ValidBits> *written, pages.written(f.extent));
			*written = partial->valid;
		}
		return pages.flush();
	});
}

Result<FoldStep> Catalogue::fold_step(std::span<const uint32_t> parents)
{
	SV_ASSIGN(const std::vector<MemberRow> rows, members());
	SV_ASSIGN(const uint64_t gone, leaving());
	return Folder(*impl_->db, {}, rows, gone).run(parents);
}

}  // namespace svd

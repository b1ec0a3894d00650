// SPDX-License-Identifier: GPL-2.0
// See family.h.
#include "daemon/catalogue/family.h"

#include <algorithm>
#include <set>

namespace svd {

static constexpr uint64_t kFragment = uint64_t{1} << SV_FRAG_SHIFT;

static uint64_t bytes_of(const FoldSide &side)
{
	return side.fragments ? static_cast<uint64_t>(std::popcount(side.placed)) * kFragment : uint64_t{SV_EXTENT_SIZE};
}

void Family::begin(size_t layers)
{
	nodes_.clear();
	by_number_.clear();
	entries_.assign(layers, kNothing);
	space_ = 0;
	touched_.clear();
	marked_ = false;
	old_nodes_.clear();
	old_entries_.clear();
}

std::optional<int32_t> Family::find(uint32_t number) const
{
	const auto found = by_number_.find(number);
	return found == by_number_.end() ? std::nullopt : std::optional(found->second);
}

int32_t Family::add(const Extent &extent)
{
	const auto node = static_cast<int32_t>(nodes_.size());
	nodes_.push_back({extent});
	by_number_[extent.number] = node;
	space_ += bytes_of(extent.side);
	touched_.push_back(node);
	attach(node);
	return node;
}

// ---- changes that can be undone ----

Family::Node &Family::change(int32_t node)
{
	if (marked_)
		old_nodes_.emplace_back(node, nodes_[static_cast<size_t>(node)]);
	touched_.push_back(node);
	return nodes_[static_cast<size_t>(node)];
}

void Family::set_entry(size_t layer, int32_t entry)
{
	if (marked_)
		old_entries_.emplace_back(layer, entries_[layer]);
	entries_[layer] = entry;
}

void Family::mark()
{
	marked_ = true;
	marked_space_ = space_;
}

void Family::back()
{
	for (; !old_nodes_.empty(); old_nodes_.pop_back())
		nodes_[static_cast<size_t>(old_nodes_.back().first)] = old_nodes_.back().second;
	for (; !old_entries_.empty(); old_entries_.pop_back())
		entries_[old_entries_.back().first] = old_entries_.back().second;
	space_ = marked_space_;
	touched_.clear();
	marked_ = false;
}

void Family::attach(int32_t child)
{
	const int32_t parent = nodes_[static_cast<size_t>(child)].extent.parent;
	if (parent == kNothing)
		return;
	Node &node = change(parent);
	node.children++;
	node.sum ^= child;
}

void Family::detach(int32_t child)
{
	const int32_t parent = nodes_[static_cast<size_t>(child)].extent.parent;
	if (parent == kNothing)
		return;
	Node &node = change(parent);
	node.children--;
	node.sum ^= child;
}

// ---- who needs it: reclaim.h ----

void Family::let_go(int32_t node)
{
	Node &one = change(node);
	if (one.children > 0)
		one.extent.orphan = true;
	else
		free(node);
}

bool Family::is_spare(int32_t node) const
{
	if (node == kNothing)
		return false;
	const Node &one = nodes_[static_cast<size_t>(node)];
	return one.there && one.extent.orphan && one.children == 0;
}

// And those below it that only it needed.
void Family::free(int32_t node)
{
	for (bool goes = nodes_[static_cast<size_t>(node)].there; goes; goes = is_spare(node)) {
		Node &one = change(node);
		one.there = false;
		space_ -= bytes_of(one.extent.side);
		detach(node);
		node = one.extent.parent;
	}
}

// A tombstone always moves up, also where nothing is below it that it hides: to what is told here that is the same.
void Family::merge(const Merge &step)
{
	const int32_t entry = entries_[step.from];
	if (entry == kNothing)
		return;
	set_entry(step.from, kNothing);
	if (step.into && entries_[*step.into] == kNothing)
		set_entry(*step.into, entry);
	else if (entry != kHole)
		let_go(entry);
}

// ---- folding ----

bool Family::may_fold(int32_t node) const
{
	const Node &one = nodes_[static_cast<size_t>(node)];
	return one.there && one.extent.orphan && one.children == 1;
}

// The child takes over what this has. False: they are left as they are.
bool Family::fold_into(int32_t node)
{
	const Extent below = nodes_[static_cast<size_t>(node)].extent;
	const int32_t child = nodes_[static_cast<size_t>(node)].sum;
	const FoldChoice choice = choose_fold(nodes_[static_cast<size_t>(child)].extent.side, below.side);
	if (choice.how == FoldHow::kNot)
		return false;
	Node &parent = change(node);
	parent.there = false;
	detach(node);
	detach(child);
	FoldSide &side = change(child).extent.side;
	space_ -= bytes_of(side) + bytes_of(below.side);
	if (choice.how == FoldHow::kSwap)
		side.tier = below.side.tier;
	if (choice.how == FoldHow::kFill && side.fragments)
		side.placed |= fragments_of(without(below.side.valid, side.valid));
	else if (choice.how != FoldHow::kFill)
		side.fragments = false;
	side.valid = both(side.valid, below.side.valid);
	space_ += bytes_of(side);
	nodes_[static_cast<size_t>(child)].extent.parent = side.valid.all() ? kNothing : below.parent;
	attach(child);
	if (side.valid.all() && is_spare(below.parent))
		free(below.parent);
	return true;
}

// In rounds, as svd has it done: in each an extent takes part once, and those with lower numbers come first.
void Family::fold()
{
	bool folded = true;
	while (folded) {
		std::set<std::pair<uint32_t, int32_t>> ready;
		for (const int32_t node : touched_)
			for (const int32_t parent : {node, nodes_[static_cast<size_t>(node)].extent.parent})
				if (parent != kNothing && may_fold(parent))
					ready.emplace(nodes_[static_cast<size_t>(parent)].extent.number, parent);
		touched_.clear();
		folded = false;
		std::set<int32_t> busy;
		for (const auto &[number, parent] : ready) {
			const int32_t child = nodes_[static_cast<size_t>(parent)].sum;
			if (!may_fold(parent) || busy.contains(parent) || busy.contains(child)) {
				touched_.push_back(parent);
				continue;
			}
			if (!fold_into(parent))
				continue;
			busy.insert({parent, child});
			folded = true;
		}
	}
}

// ---- what views show ----

// Of each extent: the blocks that one view or more need of it, and those that more than one does. Children come before their
// parents, and hand on what they lack.
std::vector<uint64_t> Family::shown_alone(std::span<const int32_t> tops, std::span<const size_t> of) const
{
	struct Need {
		ValidBits once, twice;
		void add(const ValidBits &bits, const ValidBits &more)
		{
			for (size_t i = 0; i < once.word.size(); i++) {
				twice.word[i] |= more.word[i] | (once.word[i] & bits.word[i]);
				once.word[i] |= bits.word[i];
			}
		}
	};
	ValidBits all;
	all.word.fill(~uint64_t{0});
	std::vector<Need> need(nodes_.size());
	std::vector<uint32_t> waits(nodes_.size());
	for (const int32_t top : tops)
		if (top >= 0)
			need[static_cast<size_t>(top)].add(all, {});
	std::vector<size_t> next;
	for (size_t i = 0; i < nodes_.size(); i++) {
		waits[i] = nodes_[i].children;
		if (nodes_[i].there && waits[i] == 0)
			next.push_back(i);
	}
	for (; !next.empty();) {
		const size_t i = next.back();
		next.pop_back();
		const Extent &extent = nodes_[i].extent;
		if (extent.parent == kNothing)
			continue;
		const auto parent = static_cast<size_t>(extent.parent);
		need[parent].add(without(need[i].once, extent.side.valid), without(need[i].twice, extent.side.valid));
		if (--waits[parent] == 0)
			next.push_back(parent);
	}
	// What two need of an extent that lacks it they need of its parent, too.
	std::vector<uint64_t> alone;
	for (const size_t which : of) {
		uint64_t blocks = 0;
		ValidBits rest = all;
		for (int32_t at = tops[which]; at >= 0 && count(rest) > 0; at = nodes_[static_cast<size_t>(at)].extent.parent) {
			const FoldSide &side = nodes_[static_cast<size_t>(at)].extent.side;
			const ValidBits mine = without(rest, need[static_cast<size_t>(at)].twice);
			rest = without(mine, side.valid);
			blocks += count(mine) - count(rest);
		}
		alone.push_back(blocks);
	}
	return alone;
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// What lies at one index of layers with a common origin: entries, their extents and those below them, a copy of it in memory.
// An extent's parent is always of its own index, in a clone, too; so all that a deletion does there happens within this.
//
// Deleting does what merge.cc and reclaim.cc do to the catalogue, and folding what fold.cc proposes and the kernel does, in the
// same order: to say what space would come back, before anything is deleted.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "daemon/catalogue/fold_choice.h"

namespace svd {

class Family {
 public:
	static constexpr int32_t kNothing = -1, kHole = -2;  // instead of an extent

	struct Extent {
		uint32_t number = 0;
		bool orphan = false;
		FoldSide side;
		int32_t parent = kNothing;
	};
	// What a deleted layer has goes into the one above it, or away.
	struct Merge {
		size_t from = 0;
		std::optional<size_t> into;
	};

	void begin(size_t layers);  // forgets what was there
	std::optional<int32_t> find(uint32_t number) const;
	int32_t add(const Extent &extent);  // its parent is there; what find() then says
	void map(size_t layer, int32_t entry) { entries_[layer] = entry; }
	int32_t entry(size_t layer) const { return entries_[layer]; }
	bool is_mappable(int32_t node) const { return !nodes_[static_cast<size_t>(node)].extent.orphan; }

	void merge(const Merge &step);
	void fold();  // what there is to be folded, until nothing is
	uint64_t space() const { return space_; }  // bytes that its extents have

	// What comes after can be undone. Not twice.
	void mark();
	void back();

	// Views have these entries: how many blocks shows each of some that no other does?
	std::vector<uint64_t> shown_alone(std::span<const int32_t> tops, std::span<const size_t> of) const;

 private:
	struct Node {
		Extent extent;
		uint32_t children = 0;
		int32_t sum = 0;  // of the children, by XOR: of one, which
		bool there = true;
	};

	Node &change(int32_t node);
	void set_entry(size_t layer, int32_t entry);
	void attach(int32_t child);
	void detach(int32_t child);
	void let_go(int32_t node);
	void free(int32_t node);
	bool is_spare(int32_t node) const;
	bool may_fold(int32_t node) const;
	bool fold_into(int32_t node);

	std::vector<Node> nodes_;
	std::unordered_map<uint32_t, int32_t> by_number_;
	std::vector<int32_t> entries_;  // by layer
	uint64_t space_ = 0;
	std::vector<int32_t> touched_;  // since they were last folded
	bool marked_ = false;
	uint64_t marked_space_ = 0;
	std::vector<std::pair<int32_t, Node>> old_nodes_;
	std::vector<std::pair<size_t, int32_t>> old_entries_;
};

}  // namespace svd

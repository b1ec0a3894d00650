// SPDX-License-Identifier: GPL-2.0
// Layers with a common origin: who lies above whom, and which go when what showed them is deleted. One goes into the only one
// above it, or away if there is none; under several it waits. As merge.cc does it, in the same order: the newest first.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/catalogue/family.h"
#include "daemon/catalogue/layers.h"

namespace svd {

class LayerTree {
 public:
	// By number: those below come first.
	explicit LayerTree(std::vector<LayerRow> rows);

	size_t size() const { return rows_.size(); }
	std::vector<uint32_t> layers() const;
	std::optional<size_t> find(uint32_t layer) const;
	// Of what is marked, how much lies at each layer or above it.
	std::vector<uint32_t> count_above(const std::vector<bool> &marked) const;
	std::vector<uint64_t> sum_below(std::vector<uint64_t> values) const;  // at each layer or below it

	// What is left when all go that are not shown.
	struct Rest {
		std::vector<Family::Merge> merges;
		std::vector<bool> gone;
		std::vector<std::vector<size_t>> above;    // of those that stay
		std::vector<std::optional<size_t>> below;  // likewise
	};
	Rest settle(const std::vector<bool> &shown) const;

 private:
	std::vector<LayerRow> rows_;
	std::vector<std::optional<size_t>> parents_;
};

// What goes with one that is shown no more, after settle().
std::vector<Family::Merge> merges_without(const LayerTree::Rest &rest, const std::vector<bool> &shown, size_t at);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// See layer_tree.h.
#include "daemon/catalogue/layer_tree.h"

#include <algorithm>

namespace svd {

LayerTree::LayerTree(std::vector<LayerRow> rows) : rows_(std::move(rows))
{
	for (const LayerRow &row : rows_)
		parents_.push_back(find(row.parent));
}

std::vector<uint32_t> LayerTree::layers() const
{
	std::vector<uint32_t> layers;
	for (const LayerRow &row : rows_)
		layers.push_back(row.layer);
	return layers;
}

std::vector<uint32_t> LayerTree::count_above(const std::vector<bool> &marked) const
{
	std::vector<uint32_t> counts(size());
	for (size_t at = size(); at-- > 0;) {
		counts[at] += marked[at] ? 1 : 0;
		if (parents_[at])
			counts[*parents_[at]] += counts[at];
	}
	return counts;
}

std::vector<uint64_t> LayerTree::sum_below(std::vector<uint64_t> values) const
{
	for (size_t at = 0; at < size(); at++)
		if (parents_[at])
			values[at] += values[*parents_[at]];
	return values;
}

std::optional<size_t> LayerTree::find(uint32_t layer) const
{
	const auto found = std::ranges::lower_bound(rows_, layer, {}, &LayerRow::layer);
	if (layer == 0 || found == rows_.end() || found->layer != layer)
		return std::nullopt;
	return static_cast<size_t>(found - rows_.begin());
}

LayerTree::Rest LayerTree::settle(const std::vector<bool> &shown) const
{
	Rest rest{{}, std::vector<bool>(size()), std::vector<std::vector<size_t>>(size()), std::vector<std::optional<size_t>>(size())};
	for (size_t at = size(); at-- > 0;) {
		std::vector<size_t> &above = rest.above[at];
		std::optional<size_t> stays = at;
		if (!shown[at] && above.size() < 2) {
			stays = above.empty() ? std::nullopt : std::optional(above.front());
			rest.merges.push_back({at, stays});
			rest.gone[at] = true;
		}
		if (stays && parents_[at])
			rest.above[*parents_[at]].push_back(*stays);
	}
	for (size_t at = 0; at < size(); at++)
		for (const size_t above : rest.above[at])
			if (!rest.gone[at])
				rest.below[above] = at;
	return rest;
}

std::vector<Family::Merge> merges_without(const LayerTree::Rest &rest, const std::vector<bool> &shown, size_t at)
{
	const std::vector<size_t> &above = rest.above[at];
	if (above.size() > 1)
		return {};
	if (above.size() == 1)
		return {{at, above.front()}};
	std::vector<Family::Merge> merges = {{at, std::nullopt}};
	const std::optional<size_t> below = rest.below[at];
	if (below && !shown[*below] && rest.above[*below].size() == 2) {
		const std::vector<size_t> &both = rest.above[*below];
		merges.push_back({*below, both[0] == at ? both[1] : both[0]});
	}
	return merges;
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// See map_sources.h. What a layer has in its map is counted by reading it, so that is done for as little as is needed, once.
#include "daemon/catalogue/map_sources.h"

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "kmod/core/pool.h"

namespace svd {

static constexpr uint64_t kMostPages = 1024;  // that are counted of a layer: of some million extents more is not asked for

Result<MapSources> MapSources::open(Database &db, const std::vector<LayerRow> &layers)
{
	MapSources sources(db);
	for (const LayerRow &row : layers) {  // parents come first
		const auto parent = sources.places_.find(row.parent);
		if (row.parent != 0 && parent == sources.places_.end())
			return Error(Code::kNeedsCheck, "read", "catalogue",
				     fmt::format("layer {} is missing, or not below layer {}", row.parent, row.layer),
				     "run 'svctl check' on the pool");
		sources.places_[row.layer] = {row.parent, row.parent == 0 ? row.layer : parent->second.root};
	}
	return sources;
}

void MapSources::add(uint32_t volume, uint32_t layer, uint64_t size)
{
	candidates_[places_[layer].root].push_back({volume, layer, sv_map_depth_for(extents_in(size))});
}

// A layer has a greater number than all below it.
uint32_t MapSources::youngest_of_both(uint32_t a, uint32_t b) const
{
	while (a != b) {
		uint32_t &younger = a > b ? a : b;
		younger = places_.at(younger).parent;
	}
	return a;
}

Result<uint64_t> MapSources::pages(uint32_t layer)
{
	const auto known = pages_.find(layer);
	if (known != pages_.end())
		return known->second;
	SV_ASSIGN(Query q, db_.query("SELECT count(*) FROM (SELECT 1 FROM map_pages WHERE key >= ? AND key < ? LIMIT ?)"));
	SV_TRY(q.bind(map_key(layer, 0)).bind(map_key(layer + 1, 0)).bind(kMostPages).step());
	return pages_[layer] = q.u64(0);
}

Result<uint64_t> MapSources::pages_above(uint32_t layer, uint32_t other, uint64_t most)
{
	uint64_t sum = 0;
	for (; layer != other && sum <= most; layer = places_.at(layer).parent) {
		SV_ASSIGN(const uint64_t own, pages(layer));
		sum += own;
	}
	return sum;
}

Result<std::optional<MapSource>> MapSources::nearest(uint32_t layer, uint64_t size)
{
	std::optional<MapSource> found;
	uint64_t least = UINT64_MAX;
	const uint32_t depth = sv_map_depth_for(extents_in(size));
	for (const Candidate &candidate : candidates_[places_[layer].root]) {
		if (candidate.depth > depth)
			continue;
		const uint32_t both = youngest_of_both(layer, candidate.layer);
		SV_ASSIGN(const uint64_t theirs, pages_above(candidate.layer, both, least));
		SV_ASSIGN(const uint64_t ours, pages_above(layer, both, least));
		if (theirs + ours >= least)
			continue;
		least = theirs + ours;
		found = {candidate.volume, both};
		if (least == 0)
			break;
	}
	if (!found)
		return found;
	SV_ASSIGN(const uint64_t all, pages_above(layer, 0, least));
	return all > least || least == 0 ? found : std::nullopt;
}

}  // namespace svd

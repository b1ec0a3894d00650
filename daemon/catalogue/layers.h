// SPDX-License-Identifier: GPL-2.0
// Layers: what one volume wrote between two snapshots, each above the one that it continues. A number is greater than
// those of all layers below it [I26], so a chain has no cycle and its end is reached.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <tuple>
#include <vector>

#include "daemon/catalogue/database.h"
#include "daemon/catalogue/pages.h"

namespace svd {

struct LayerRow {
	uint32_t layer = 0;
	uint32_t volume = 0;  // that wrote it; it may be deleted since
	uint32_t parent = 0;  // 0: none
	uint32_t low = 0;     // lowest number merged into it; 0: its own
	uint32_t lowest() const { return low != 0 ? low : layer; }
};

Status insert_layer(Database &db, const LayerRow &row);
Result<LayerRow> layer_row(Database &db, uint32_t layer);   // missing: kNeedsCheck
Result<std::vector<LayerRow>> all_layers(Database &db);     // by number
Result<std::vector<uint32_t>> chain_of(Database &db, uint32_t layer);  // it and all below it, newest first; 0: none

// ---- a layer's own map ----

// Its first page; false if it has none (any more).
Result<bool> first_map_page(Database &db, uint32_t layer, uint64_t &key, MapPage &page);
Status drop_map_page(Database &db, uint64_t key);
Status each_map_page(Database &db, uint32_t layer, const std::function<Status(uint64_t key, const MapPage &)> &fn);

// ---- the maps of several layers ----

// Goes through their pages side by side: a cursor for each layer, and each page is read once.
class LayerPages {
 public:
	// `at`: which of the layers.
	using Each = std::function<Status(size_t at, const MapPage &)>;

	static Result<LayerPages> open(Database &db, const std::vector<uint32_t> &layers);
	// Those of the next indexes for which any layer has one, in the order of the layers. False: there are no more.
	Result<bool> next(uint64_t &first, const Each &each);

 private:
	struct Place {
		uint64_t first;	 // index of the cursor's page
		size_t cursor;
		bool operator>(const Place &other) const
		{
			return std::tie(first, cursor) > std::tie(other.first, other.cursor);
		}
	};
	Status advance(size_t cursor);

	std::vector<std::optional<Query>> cursors_;  // none: at its end
	std::priority_queue<Place, std::vector<Place>, std::greater<>> places_;
};

// At each index the entry of the newest layer that has one.
struct FlatPage {
	uint64_t first = 0;  // index
	MapPage map;
	std::array<uint32_t, MapPage::kEntries> layer{};
};

using Indexes = std::bitset<MapPage::kEntries>;  // of a page

// Adds what a layer has where no newer one has anything: at those that are looked for, or everywhere, and then that is looked
// for. False: nothing that is looked for is missing any more.
Result<bool> look_into(Database &db, uint32_t layer, bool everywhere, Indexes *looked_for, FlatPage *page);

// The map of a chain.
class FlatMap {
 public:
	// chain: newest first.
	static Result<FlatMap> open(Database &db, const std::vector<uint32_t> &chain);
	Result<bool> next(FlatPage &page);  // the next one that has an entry

 private:
	FlatMap(std::vector<uint32_t> chain, LayerPages pages) : chain_(std::move(chain)), pages_(std::move(pages)) {}
	std::vector<uint32_t> chain_;
	LayerPages pages_;
};

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Rows of layers, their own pages, and what a chain of them shows.
#include "daemon/catalogue/layers.h"

#include <fmt/format.h>

namespace svd {

Status insert_layer(Database &db, const LayerRow &row)
{
	SV_ASSIGN(Query q, db.query("INSERT INTO layers (layer, volume, parent, low) VALUES (?, ?, ?, ?)"));
	return q.bind(row.layer).bind(row.volume).bind(row.parent).bind(row.low).run();
}

Result<LayerRow> layer_row(Database &db, uint32_t layer)
{
	SV_ASSIGN(Query q, db.query("SELECT layer, volume, parent, low FROM layers WHERE layer = ?"));
	SV_ASSIGN(const bool row, q.bind(layer).step());
	if (!row || q.u32(2) >= layer)
		return Error(Code::kNeedsCheck, "read", "catalogue",
			     fmt::format("layer {} is missing, or not above its parent", layer),
			     "run 'svctl check' on the pool");
	return LayerRow{q.u32(0), q.u32(1), q.u32(2), q.u32(3)};
}

Result<std::vector<LayerRow>> all_layers(Database &db)
{
	SV_ASSIGN(Query q, db.query("SELECT layer, volume, parent, low FROM layers ORDER BY layer"));
	std::vector<LayerRow> rows;
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return rows;
		rows.push_back({q.u32(0), q.u32(1), q.u32(2), q.u32(3)});
	}
}

Result<std::vector<uint32_t>> chain_of(Database &db, uint32_t layer)
{
	std::vector<uint32_t> chain;
	while (layer != 0) {
		chain.push_back(layer);
		SV_ASSIGN(const LayerRow row, layer_row(db, layer));
		layer = row.parent;
	}
	return chain;
}

Result<bool> first_map_page(Database &db, uint32_t layer, uint64_t &key, MapPage &page)
{
	SV_ASSIGN(Query q, db.query("SELECT key, data FROM map_pages WHERE key >= ? AND key < ? ORDER BY key LIMIT 1"));
	SV_ASSIGN(const bool row, q.bind(map_key(layer, 0)).bind(map_key(layer + 1, 0)).step());
	if (!row)
		return false;
	key = q.u64(0);
	SV_TRY(decode_blob(q.blob(1), "map_pages", key, page));
	return true;
}

Status drop_map_page(Database &db, uint64_t key)
{
	SV_ASSIGN(Query q, db.query("DELETE FROM map_pages WHERE key = ?"));
	return q.bind(key).run();
}

static Result<Query> pages_of(Database &db, uint32_t layer)
{
	SV_ASSIGN(Query q, db.query("SELECT key, data FROM map_pages WHERE key >= ? AND key < ? ORDER BY key"));
	q.bind(map_key(layer, 0)).bind(map_key(layer + 1, 0));
	return q;
}

Status each_map_page(Database &db, uint32_t layer, const std::function<Status(uint64_t, const MapPage &)> &fn)
{
	SV_ASSIGN(Query q, pages_of(db, layer));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return {};
		MapPage page;
		SV_TRY(decode_blob(q.blob(1), "map_pages", q.u64(0), page));
		SV_TRY(fn(q.u64(0), page));
	}
}

// ---- the maps of several layers ----

// Each cursor is stepped before the next one is made: only one that stands at a row has its statement for itself.
Result<LayerPages> LayerPages::open(Database &db, const std::vector<uint32_t> &layers)
{
	LayerPages pages;
	for (const uint32_t layer : layers) {
		SV_ASSIGN(Query q, pages_of(db, layer));
		pages.cursors_.emplace_back(std::move(q));
		SV_TRY(pages.advance(pages.cursors_.size() - 1));
	}
	return pages;
}

Status LayerPages::advance(size_t cursor)
{
	SV_ASSIGN(const bool row, cursors_[cursor]->step());
	if (row)
		places_.push({first_index(cursors_[cursor]->u64(0)), cursor});
	else
		cursors_[cursor].reset();
	return {};
}

Result<bool> LayerPages::next(uint64_t &first, const Each &each)
{
	if (places_.empty())
		return false;
	first = places_.top().first;
	while (!places_.empty() && places_.top().first == first) {
		const size_t cursor = places_.top().cursor;
		places_.pop();
		MapPage page;
		SV_TRY(decode_blob(cursors_[cursor]->blob(1), "map_pages", cursors_[cursor]->u64(0), page));
		SV_TRY(each(cursor, page));
		SV_TRY(advance(cursor));
	}
	return true;
}

// ---- the map of a chain ----

Result<bool> look_into(Database &db, uint32_t layer, bool everywhere, Indexes *looked_for, FlatPage *page)
{
	SV_ASSIGN(Query q, db.query("SELECT data FROM map_pages WHERE key = ?"));
	SV_ASSIGN(const bool row, q.bind(map_key(layer, page->first)).step());
	if (!row)
		return true;
	MapPage own;
	SV_TRY(decode_blob(q.blob(0), "map_pages", map_key(layer, page->first), own));
	bool missing = false;
	for (size_t i = 0; i < MapPage::kEntries; i++) {
		if (page->map.extent[i] == 0 && own.extent[i] != 0 && (everywhere || looked_for->test(i))) {
			page->map.extent[i] = own.extent[i];
			page->layer[i] = layer;
			looked_for->set(i);
		}
		missing = missing || (looked_for->test(i) && page->map.extent[i] == 0);
	}
	return missing;
}

Result<FlatMap> FlatMap::open(Database &db, const std::vector<uint32_t> &chain)
{
	SV_ASSIGN(LayerPages pages, LayerPages::open(db, chain));
	return FlatMap(chain, std::move(pages));
}

Result<bool> FlatMap::next(FlatPage &page)
{
	page = FlatPage();
	return pages_.next(page.first, [&](size_t at, const MapPage &older) -> Status {
		for (size_t i = 0; i < MapPage::kEntries; i++) {
			if (page.map.extent[i] != 0 || older.extent[i] == 0)
				continue;
			page.map.extent[i] = older.extent[i];
			page.layer[i] = chain_[at];
		}
		return {};
	});
}

}  // namespace svd

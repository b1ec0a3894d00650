// SPDX-License-Identifier: GPL-2.0
// Reading the catalogue in the order and the form in which the kernel is loaded.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/map_sources.h"
#include "daemon/catalogue/snapshots.h"
#include "daemon/catalogue/used_slots.h"

namespace svd {

static constexpr size_t kBatch = 16384;

// Gathers elements and hands them on in batches, of a few more than kBatch where a page had more.
template <typename T>
class Batcher {
 public:
	explicit Batcher(const std::function<Status(std::span<T>)> &fn) : fn_(fn)
	{
		items_.reserve(kBatch + MapPage::kEntries);
	}

	void put(const T &item) { items_.push_back(item); }
	Status flush_if_full() { return items_.size() < kBatch ? Status() : flush(); }
	Status flush()
	{
		if (items_.empty())
			return {};
		SV_TRY(fn_(items_));
		items_.clear();
		return {};
	}

 private:
	const std::function<Status(std::span<T>)> &fn_;
	std::vector<T> items_;
};

Status each_extent_page(Database &db, const std::function<Status(uint32_t first, const ExtentPage &)> &fn)
{
	SV_ASSIGN(Query q, db.query("SELECT page, data FROM extent_pages ORDER BY page"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return {};
		ExtentPage page;
		if (q.u64(0) >= UINT32_MAX / ExtentPage::kEntries)
			return Error(Code::kNeedsCheck, "read", "catalogue", fmt::format("there can be no page {} of extents", q.u64(0)),
				     "run 'svctl check' on the pool");
		SV_TRY(decode_blob(q.blob(1), "extent_pages", q.u64(0), page));
		SV_TRY(fn(q.u32(0) * static_cast<uint32_t>(ExtentPage::kEntries), page));
	}
}

Status each_extent(Database &db, const std::function<Status(uint32_t, const ExtentEntry &)> &fn)
{
	return each_extent_page(db, [&](uint32_t first, const ExtentPage &page) -> Status {
		for (uint32_t i = 0; i < ExtentPage::kEntries; i++)
			if (page.entry[i].live())
				SV_TRY(fn(first + i, page.entry[i]));
		return {};
	});
}

static sv_extent as_loaded(uint32_t number, const ExtentEntry &e)
{
	return {number, e.slot, e.member, e.gen, (e.partial() ? SV_EXTENT_PARTIAL : 0u) | (e.fragments() ? SV_EXTENT_FRAGS : 0u)};
}

// Of a pool's activation this is a good part: there is no call for each extent.
Status Catalogue::for_each_extent(const std::function<Status(std::span<sv_extent>)> &fn)
{
	Batcher<sv_extent> batch(fn);
	SV_TRY(each_extent_page(*impl_->db, [&](uint32_t first, const ExtentPage &page) {
		for (uint32_t i = 0; i < ExtentPage::kEntries; i++)
			if (const ExtentEntry &e = page.entry[i]; e.live())
				batch.put(as_loaded(first + i, e));
		return batch.flush_if_full();
	}));
	return batch.flush();
}

Result<ExtentsOn> Catalogue::extents_on(uint64_t members, uint32_t after, size_t most)
{
	constexpr uint32_t kPages = 256;	// in one step: some milliseconds
	const uint32_t first_page = (after + 1) / ExtentPage::kEntries;
	ExtentsOn found{{}, after, false};
	SV_ASSIGN(Query q, impl_->db->query("SELECT page, data FROM extent_pages WHERE page >= ? ORDER BY page LIMIT ?"));
	q.bind(first_page).bind(kPages);
	for (uint32_t pages = 0;; pages++) {
		SV_ASSIGN(const bool row, q.step());
		if (!row) {
			found.done = pages < kPages;
			return found;
		}
		ExtentPage page;
		SV_TRY(decode_blob(q.blob(1), "extent_pages", q.u64(0), page));
		const uint32_t first = q.u32(0) * static_cast<uint32_t>(ExtentPage::kEntries);
		for (uint32_t i = 0; i < ExtentPage::kEntries; i++) {
			const ExtentEntry &e = page.entry[i];
			if (first + i <= after || !e.live() || (members >> e.member & 1) == 0)
				continue;
			if (found.extents.size() == most)
				return found;
			found.extents.push_back(as_loaded(first + i, e));
			found.after = first + i;
		}
		found.after = first + static_cast<uint32_t>(ExtentPage::kEntries) - 1;
	}
}

Status Catalogue::for_each_partial(const std::function<Status(std::span<sv_partial_bits>)> &fn)
{
	Batcher<sv_partial_bits> batch(fn);
	SV_ASSIGN(Query q, impl_->db->query("SELECT extent, parent, valid, places FROM partials ORDER BY extent"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return batch.flush();
		Partial partial;
		SV_TRY(decode_partial(q.blob(2), q.blob(3), q.u64(0), partial));
		sv_partial_bits item = {};
		item.extent = q.u32(0);
		item.parent = q.u32(1);
		std::ranges::copy(partial.valid.word, item.valid);
		std::ranges::copy(partial.places.at, item.place);
		batch.put(item);
		SV_TRY(batch.flush_if_full());
	}
}

static sv_map_entry map_entry(const FlatPage &page, uint64_t i, uint32_t volume)
{
	sv_map_entry item = {};
	item.index = page.first + i;
	item.volume = volume;
	item.extent = page.map.extent[i] == kTombstone ? 0 : page.map.extent[i];
	item.layer = page.layer[i];
	return item;
}

static Status each_entry(const FlatPage &page, uint32_t volume, uint32_t hidden_above, Batcher<sv_map_entry> &batch)
{
	for (uint64_t i = 0; i < MapPage::kEntries; i++) {
		const uint32_t extent = page.map.extent[i];
		if (extent != 0 && (extent != kTombstone || page.layer[i] > hidden_above))
			batch.put(map_entry(page, i, volume));
	}
	return batch.flush_if_full();
}

Status Catalogue::for_each_map(uint32_t id, const std::function<Status(std::span<sv_map_entry>)> &fn, Hidden hidden)
{
	SV_ASSIGN(const View view, view_of(*this, *impl_->db, id));
	SV_ASSIGN(const std::vector<uint32_t> chain, chain_of(*impl_->db, view.layer));
	SV_ASSIGN(FlatMap map, FlatMap::open(*impl_->db, chain));
	Batcher<sv_map_entry> batch(fn);
	FlatPage page;
	const uint32_t hidden_above = hidden == Hidden::kTell ? chain.back() : UINT32_MAX;	// below that there is nothing to hide
	while (true) {
		SV_ASSIGN(const bool more, map.next(page));
		if (!more)
			return batch.flush();
		SV_TRY(each_entry(page, id, hidden_above, batch));
	}
}

// ---- what differs ----

Result<MapSources> Catalogue::map_sources()
{
	SV_ASSIGN(const auto layers, all_layers(*impl_->db));
	return MapSources::open(*impl_->db, layers);
}

// Adds the pages between two indexes, by number, that any of the layers has.
static Status find_pages(Database &db, std::span<const uint32_t> layers, uint64_t from, uint64_t to, std::set<uint64_t> *pages)
{
	for (const uint32_t layer : layers) {
		SV_ASSIGN(Query q, db.query("SELECT key FROM map_pages WHERE key >= ? AND key <= ?"));
		q.bind(map_key(layer, from)).bind(map_key(layer, to - 1));
		while (true) {
			SV_ASSIGN(const bool row, q.step());
			if (!row)
				break;
			pages->insert(first_index(q.u64(0)) / MapPage::kEntries);
		}
	}
	return {};
}

// What is looked for from the whole chain, and all that its first layers have.
static Status read_page(Database &db, std::span<const uint32_t> chain, size_t own, Indexes *looked_for, FlatPage *page)
{
	bool missing = true;
	for (size_t i = 0; i < chain.size() && (missing || i < own); i++) {
		SV_ASSIGN(missing, look_into(db, chain[i], i < own, looked_for, page));
	}
	return {};
}

Status Catalogue::for_each_difference(uint32_t id, uint32_t layer, uint64_t from, uint64_t to, std::span<const uint64_t> others,
				      const std::function<Status(std::span<sv_map_entry>)> &fn)
{
	Database &db = *impl_->db;
	SV_ASSIGN(const View view, view_of(*this, db, id));
	SV_ASSIGN(const std::vector<uint32_t> chain, chain_of(db, view.layer));
	const auto both = std::ranges::find_if(chain, [layer](uint32_t at) { return at <= layer; });
	const size_t own = static_cast<size_t>(both - chain.begin());
	std::set<uint64_t> pages;
	SV_TRY(find_pages(db, std::span(chain).first(own), from, to, &pages));
	for (const uint64_t index : others)
		pages.insert(index / MapPage::kEntries);
	Batcher<sv_map_entry> batch(fn);
	auto other = others.begin();
	for (const uint64_t number : pages) {
		FlatPage page;
		Indexes told;
		page.first = number * MapPage::kEntries;
		for (; other != others.end() && *other < page.first + MapPage::kEntries; ++other)
			told.set(*other - page.first);
		SV_TRY(read_page(db, chain, own, &told, &page));
		for (uint64_t i = 0; i < MapPage::kEntries; i++)
			if (told.test(i) && page.first + i >= from && page.first + i < to)
				batch.put(map_entry(page, i, id));
		SV_TRY(batch.flush_if_full());
	}
	return batch.flush();
}

Result<uint64_t> Catalogue::mapped(uint32_t id)
{
	uint64_t count = 0;
	SV_TRY(for_each_map(id, [&](std::span<const sv_map_entry> entries) -> Status {
		count += entries.size();
		return {};
	}));
	return count;
}

Result<std::vector<FreeRange>> Catalogue::free_ranges()
{
	SV_ASSIGN(const std::vector<MemberRow> rows, members());
	UsedSlots used(rows);
	SV_TRY(for_each_extent([&](std::span<const sv_extent> some) { return used.add(some); }));
	SV_TRY(for_each_partial([&](std::span<const sv_partial_bits> some) { return used.add(some); }));
	return used.free_ranges();
}

Result<CatalogueSpace> Catalogue::space()
{
	SV_ASSIGN(const uint64_t pages, impl_->db->number("PRAGMA page_count"));
	SV_ASSIGN(const uint64_t free, impl_->db->number("PRAGMA freelist_count"));
	return CatalogueSpace{(pages - free) * kBlockSize, impl_->db->region().capacity(Region::File::kMain)};
}

void Catalogue::release_memory() { impl_->db->release_memory(); }

uint32_t Catalogue::copies_in_use() const { return impl_->db->region().in_sync(); }

Result<uint64_t> Catalogue::highest_extent()
{
	SV_ASSIGN(const uint64_t pages, impl_->db->number("SELECT coalesce(max(page) + 1, 0) FROM extent_pages"));
	return pages * ExtentPage::kEntries;
}

Result<Usage> Catalogue::usage()
{
	Usage u;
	SV_ASSIGN(const CatalogueSpace region, space());
	u.db_capacity = region.size;
	u.db_bytes = region.used;
	SV_ASSIGN(u.partials, impl_->db->number("SELECT count(*) FROM partials"));
	SV_TRY(for_each_extent([&](std::span<const sv_extent> extents) -> Status {
		u.extents += extents.size();
		return {};
	}));
	return u;
}

}  // namespace svd

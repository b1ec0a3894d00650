// SPDX-License-Identifier: GPL-2.0
// The cache of pages and the SQL that fills and empties it.
#include "daemon/catalogue/pages.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace svd {

static constexpr size_t kMaxPages = 8192;      // 32 MiB
static constexpr size_t kMaxPartials = 1 << 19;

struct PageSql {
	const char *table;
	const char *select;
	const char *store;
	const char *remove;
};

static const PageSql &sql_of(const MapPage *)
{
	static const PageSql sql = {"map_pages", "SELECT data FROM map_pages WHERE key = ?",
				    "INSERT OR REPLACE INTO map_pages VALUES (?, ?)",
				    "DELETE FROM map_pages WHERE key = ?"};
	return sql;
}

static const PageSql &sql_of(const ExtentPage *)
{
	static const PageSql sql = {"extent_pages", "SELECT data FROM extent_pages WHERE page = ?",
				    "INSERT OR REPLACE INTO extent_pages VALUES (?, ?)",
				    "DELETE FROM extent_pages WHERE page = ?"};
	return sql;
}

template <typename Page>
static std::span<const uint8_t> bytes_of(const Page &page)
{
	return {reinterpret_cast<const uint8_t *>(&page), sizeof(page)};
}

template <typename Page>
Result<PageStore::Cached<Page> *> PageStore::page(Table<Page> &table, uint64_t key)
{
	if (table.last && table.last_key == key)
		return table.last;
	auto &slot = table.pages[key];
	if (!slot) {
		auto fresh = std::make_unique<Cached<Page>>();
		const PageSql &sql = sql_of(&fresh->page);
		SV_ASSIGN(Query q, db_.query(sql.select));
		SV_ASSIGN(const bool row, q.bind(key).step());
		if (row)
			SV_TRY(decode_blob(q.blob(0), sql.table, key, fresh->page));
		slot = std::move(fresh);
	}
	table.last_key = key;
	table.last = slot.get();
	return table.last;
}

Result<uint32_t *> PageStore::map_entry(uint32_t layer, uint64_t index, bool write)
{
	SV_ASSIGN(Cached<MapPage> *cached, page(maps_, map_key(layer, index)));
	cached->dirty |= write;
	return &cached->page.extent[index % MapPage::kEntries];
}

Result<ExtentEntry *> PageStore::extent(uint32_t extent, bool write)
{
	SV_ASSIGN(Cached<ExtentPage> *cached, page(extents_, extent / ExtentPage::kEntries));
	cached->dirty |= write;
	return &cached->page.entry[extent % ExtentPage::kEntries];
}

static constexpr size_t kBytesOfFragment = 7;  // u8 number, le32 place, le16 valid blocks

Status decode_partial(std::span<const uint8_t> valid, std::span<const uint8_t> places, uint64_t extent, Partial &out)
{
	if (places.empty())
		return decode_blob(valid, "partials", extent, out.valid);
	const auto damaged = [extent] {
		return Error(Code::kNeedsCheck, "read", "catalogue", "row " + std::to_string(extent) + " of partials has impossible fragments",
			     "run 'svctl check' on the pool");
	};
	if (!valid.empty() || places.size() % kBytesOfFragment != 0)
		return damaged();
	for (; !places.empty(); places = places.subspan(kBytesOfFragment)) {
		const uint8_t number = places[0];
		if (number >= SV_FRAGS || out.places.at[number] != 0)
			return damaged();
		uint16_t blocks = 0;
		std::memcpy(&out.places.at[number], &places[1], 4);
		std::memcpy(&blocks, &places[5], 2);
		out.valid.word[number / 4] |= uint64_t{blocks} << (number % 4 * SV_FRAG_BLOCKS);
	}
	return {};
}

static std::vector<uint8_t> encode_places(const Partial &p)
{
	std::vector<uint8_t> out;
	for (uint8_t i = 0; i < SV_FRAGS; i++) {
		if (p.places.at[i] == 0)
			continue;
		const uint16_t blocks = valid_in(p.valid, i);
		uint8_t item[kBytesOfFragment] = {i};
		std::memcpy(item + 1, &p.places.at[i], 4);
		std::memcpy(item + 5, &blocks, 2);
		out.insert(out.end(), item, item + kBytesOfFragment);
	}
	return out;
}

Result<WrittenRows> WrittenRows::open(Database &db)
{
	SV_ASSIGN(Query q, db.query("SELECT extent, written FROM partials WHERE written <> x'' ORDER BY extent"));
	WrittenRows rows(std::move(q));
	SV_TRY(rows.next());
	return rows;
}

Status WrittenRows::next()
{
	SV_ASSIGN(const bool row, rows_.step());
	extent_ = row ? rows_.u64(0) : ~uint64_t{0};
	return row ? decode_blob(rows_.blob(1), "partials", extent_, bits_) : Status();
}

Result<const ValidBits *> WrittenRows::of(uint32_t extent)
{
	while (extent_ < extent)
		SV_TRY(next());
	return extent_ == extent ? &bits_ : nullptr;
}

Result<PageStore::CachedPartial *> PageStore::partial(uint32_t extent)
{
	auto it = partials_.find(extent);
	if (it == partials_.end()) {
		CachedPartial fresh;
		SV_ASSIGN(Query q, db_.query("SELECT parent, valid, places, written FROM partials WHERE extent = ?"));
		SV_ASSIGN(fresh.present, q.bind(extent).step());
		if (fresh.present) {
			fresh.partial.parent = q.u32(0);
			SV_TRY(decode_partial(q.blob(1), q.blob(2), extent, fresh.partial));
			if (!q.blob(3).empty())
				SV_TRY(decode_blob(q.blob(3), "partials", extent, fresh.partial.written.emplace()));
		}
		replace_partial(extent, fresh);
		it = partials_.find(extent);
	}
	if (!it->second.present)
		return Error(Code::kNeedsCheck, "read", "catalogue",
			     "partial extent " + std::to_string(extent) + " has no valid bits",
			     "run 'svctl check' on the pool");
	return &it->second;
}

Result<ValidBits *> PageStore::valid(uint32_t extent)
{
	SV_ASSIGN(CachedPartial *cached, partial(extent));
	cached->dirty = true;
	return &cached->partial.valid;
}

Result<Places *> PageStore::places(uint32_t extent)
{
	SV_ASSIGN(CachedPartial *cached, partial(extent));
	cached->dirty = true;
	return &cached->partial.places;
}

Result<std::optional<ValidBits> *> PageStore::written(uint32_t extent)
{
	SV_ASSIGN(CachedPartial *cached, partial(extent));
	cached->dirty = true;
	return &cached->partial.written;
}

Result<uint32_t> PageStore::parent(uint32_t extent)
{
	SV_ASSIGN(const CachedPartial *cached, partial(extent));
	return cached->partial.parent;
}

Result<const Partial *> PageStore::look(uint32_t extent)
{
	SV_ASSIGN(const CachedPartial *cached, partial(extent));
	return &cached->partial;
}

void PageStore::replace_partial(uint32_t extent, const CachedPartial &with)
{
	CachedPartial &cached = partials_[extent];
	if (const uint32_t before = cached.partial.parent; before != 0 && --children_[before] == 0)
		children_.erase(before);
	if (with.partial.parent != 0)
		children_[with.partial.parent]++;
	cached = with;
}

void PageStore::set_partial(uint32_t extent, const Partial &partial) { replace_partial(extent, {partial, true, true}); }

void PageStore::drop_partial(uint32_t extent) { replace_partial(extent, {Partial(), false, true}); }

// What is in memory counts, of the rest what is in the database.
Result<bool> PageStore::is_parent(uint32_t extent)
{
	if (children_.contains(extent))
		return true;
	SV_ASSIGN(Query q, db_.query("SELECT extent FROM partials WHERE parent = ? AND parent <> 0"));
	q.bind(extent);
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row || !partials_.contains(q.u32(0)))
			return row;
	}
}

// What lies over it was made by a newer layer. Not so what lies over an orphan: its volume's extent may have outgrown it.
Result<bool> PageStore::is_frozen(uint32_t number)
{
	SV_ASSIGN(const ExtentEntry *entry, extent(number, false));
	return entry->live() && !entry->orphan() ? is_parent(number) : Result<bool>(false);
}

template <typename Page>
Status PageStore::flush_pages(Table<Page> &table)
{
	static const Page empty{};
	std::vector<uint64_t> keys;
	for (const auto &[key, cached] : table.pages)
		if (cached && cached->dirty)
			keys.push_back(key);
	std::sort(keys.begin(), keys.end());
	const PageSql &sql = sql_of(&empty);
	SV_ASSIGN(Query store, db_.query(sql.store));
	SV_ASSIGN(Query remove, db_.query(sql.remove));
	for (const uint64_t key : keys) {
		const Page &page = table.pages[key]->page;
		if (std::ranges::equal(bytes_of(page), bytes_of(empty)))
			SV_TRY(remove.bind(key).run());
		else
			SV_TRY(store.bind(key).bind(bytes_of(page)).run());
		SV_TRY(pace_.breathe());
	}
	table = Table<Page>();
	return {};
}

Status PageStore::flush_partials()
{
	std::vector<uint32_t> keys;
	for (const auto &[extent, cached] : partials_)
		if (cached.dirty)
			keys.push_back(extent);
	std::sort(keys.begin(), keys.end());
	SV_ASSIGN(Query store, db_.query("INSERT OR REPLACE INTO partials VALUES (?, ?, ?, ?, ?)"));
	SV_ASSIGN(Query remove, db_.query("DELETE FROM partials WHERE extent = ?"));
	for (const uint32_t extent : keys) {
		const CachedPartial &cached = partials_[extent];
		const Partial &p = cached.partial;
		const std::vector<uint8_t> places = encode_places(p);
		const auto valid = places.empty() ? bytes_of(p.valid) : std::span<const uint8_t>();
		const auto written = p.written ? bytes_of(*p.written) : std::span<const uint8_t>();
		if (cached.present)
			SV_TRY(store.bind(extent).bind(p.parent).bind(valid).bind(std::span<const uint8_t>(places)).bind(written).run());
		else
			SV_TRY(remove.bind(extent).run());
		SV_TRY(pace_.breathe());
	}
	partials_.clear();
	children_.clear();
	return {};
}

Status PageStore::flush()
{
	SV_TRY(flush_pages(maps_));
	SV_TRY(flush_pages(extents_));
	return flush_partials();
}

bool PageStore::holds_much() const
{
	return maps_.pages.size() + extents_.pages.size() >= kMaxPages || partials_.size() >= kMaxPartials;
}

Status PageStore::relieve() { return holds_much() ? flush() : Status(); }

void PageStore::forget()
{
	maps_ = {};
	extents_ = {};
	partials_.clear();
	children_.clear();
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Map pages, extent pages and partial extents, as they lie in the database and gathered in memory for the length of
// a transaction: each page is read and written once however many records touch it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <unordered_map>

#include "daemon/base/pace.h"
#include "daemon/catalogue/database.h"
#include "kmod/core/format.h"

namespace svd {

inline constexpr uint32_t kTombstone = 0xffffffffu;

// Extents that a layer maps at 1008 consecutive indexes. 0: nothing; kTombstone: hides an ancestor's.
struct MapPage {
	static constexpr uint64_t kEntries = 1008;
	std::array<uint32_t, kEntries> extent{};
};

struct ExtentEntry {
	static constexpr uint8_t kLive = 1;
	static constexpr uint8_t kPartial = 2;  // has a row in partials
	static constexpr uint8_t kOrphan = 4;   // no layer maps it: it lives as parent of partial extents
	static constexpr uint8_t kFragments = 8;  // has places in partials instead of a slot, which is 0
	uint32_t slot = 0;
	uint16_t gen = 0;
	uint8_t member = 0;
	uint8_t flags = 0;  // 0, and all else 0: no such extent
	bool live() const { return (flags & kLive) != 0; }
	bool partial() const { return (flags & kPartial) != 0; }
	bool orphan() const { return (flags & kOrphan) != 0; }
	bool fragments() const { return (flags & kFragments) != 0; }
};

struct ExtentPage {
	static constexpr uint64_t kEntries = 504;
	std::array<ExtentEntry, kEntries> entry{};
};

// A row with a blob of at most 4,061 bytes takes one database page.
static_assert(sizeof(MapPage) == 4032 && sizeof(ExtentPage) == 4032 && sizeof(ExtentEntry) == 8);

inline uint64_t map_key(uint32_t layer, uint64_t index) { return uint64_t{layer} << 31 | index / MapPage::kEntries; }
inline uint32_t layer_of(uint64_t map_key) { return static_cast<uint32_t>(map_key >> 31); }
inline uint64_t first_index(uint64_t map_key) { return (map_key & 0x7fffffff) * MapPage::kEntries; }

struct ValidBits {
	std::array<uint64_t, 4> word{};
	bool all() const { return (word[0] & word[1] & word[2] & word[3]) == ~uint64_t{0}; }
};
static_assert(sizeof(ValidBits) == 32);

inline uint64_t count(const ValidBits &bits)
{
	uint64_t n = 0;
	for (const uint64_t word : bits.word)
		n += static_cast<uint64_t>(std::popcount(word));
	return n;
}

inline ValidBits without(ValidBits bits, const ValidBits &other)
{
	for (size_t i = 0; i < bits.word.size(); i++)
		bits.word[i] &= ~other.word[i];
	return bits;
}

inline ValidBits both(ValidBits bits, const ValidBits &other)
{
	for (size_t i = 0; i < bits.word.size(); i++)
		bits.word[i] |= other.word[i];
	return bits;
}

// Of each fragment of 16 blocks where it is on the extent's member, as format.h counts places; 0: nowhere.
struct Places {
	std::array<uint32_t, SV_FRAGS> at{};
	bool any() const { return std::ranges::any_of(at, [](uint32_t place) { return place != 0; }); }
	size_t count() const { return at.size() - static_cast<size_t>(std::ranges::count(at, 0u)); }
	bool operator==(const Places &) const = default;
};
static_assert(sizeof(Places) == 64);

inline uint32_t slot_of_place(uint32_t place) { return (place - 1) / SV_FRAGS; }
inline uint32_t part_of_place(uint32_t place) { return (place - 1) % SV_FRAGS; }
inline uint32_t place_of(uint32_t slot, uint32_t part) { return slot * SV_FRAGS + part + 1; }

// Of the blocks of a fragment, which are valid?
inline uint16_t valid_in(const ValidBits &valid, size_t fragment)
{
	return static_cast<uint16_t>(valid.word[fragment / 4] >> (fragment % 4 * SV_FRAG_BLOCKS));
}

// A bit for each fragment that has one.
inline uint32_t fragments_of(const ValidBits &valid)
{
	uint32_t fragments = 0;
	for (size_t i = 0; i < SV_FRAGS; i++)
		fragments |= (valid_in(valid, i) != 0 ? 1u : 0u) << i;
	return fragments;
}
inline uint32_t fragments_of(const Places &places)
{
	uint32_t fragments = 0;
	for (size_t i = 0; i < SV_FRAGS; i++)
		fragments |= (places.at[i] != 0 ? 1u : 0u) << i;
	return fragments;
}

// Are all valid blocks in fragments that have a place?
inline bool covers(const Places &places, const ValidBits &valid)
{
	for (size_t i = 0; i < places.at.size(); i++)
		if (places.at[i] == 0 && valid_in(valid, i) != 0)
			return false;
	return true;
}

struct Partial {
	uint32_t parent = 0;  // the extent that has the blocks which are not valid; 0: they are zeroes
	ValidBits valid;
	Places places;        // of an extent with fragments
	// Those of the valid blocks that have other contents than below; the others were copied from there. None: all of them. Only of
	// an extent that nobody writes to any more (fold.cc), and that has a parent.
	std::optional<ValidBits> written;
	const ValidBits &changed() const { return written ? *written : valid; }
};

// Copies a blob of exactly the right size; otherwise the database is damaged.
template <typename Page>
Status decode_blob(std::span<const uint8_t> blob, const char *table, uint64_t key, Page &out);

// Columns valid and places of partials, as a query has them. Of an extent with fragments the former is empty, and the latter
// says both.
Status decode_partial(std::span<const uint8_t> valid, std::span<const uint8_t> places, uint64_t extent, Partial &out);

// Partial::written of all extents that have it, asked for in ascending order.
class WrittenRows {
 public:
	static Result<WrittenRows> open(Database &db);
	Result<const ValidBits *> of(uint32_t extent);  // null: none; until the next one

 private:
	explicit WrittenRows(Query rows) : rows_(std::move(rows)) {}
	Status next();

	Query rows_;
	uint64_t extent_ = 0;  // of bits_
	ValidBits bits_;
};

class PageStore {
 public:
	// The pace is kept while pages are written.
	explicit PageStore(Database &db, Pace &pace = NoPace::instance()) : db_(db), pace_(pace) {}

	// The entry, in memory until flush(); to be changed only if write.
	Result<uint32_t *> map_entry(uint32_t layer, uint64_t index, bool write);
	Result<ExtentEntry *> extent(uint32_t extent, bool write);
	Result<ValidBits *> valid(uint32_t extent);  // of an existing partial extent, to be changed
	Result<Places *> places(uint32_t extent);    // likewise
	Result<std::optional<ValidBits> *> written(uint32_t extent);  // likewise
	Result<uint32_t> parent(uint32_t extent);    // likewise; 0: none
	Result<const Partial *> look(uint32_t extent);  // at all of it, not to be changed
	void set_partial(uint32_t extent, const Partial &partial);
	void drop_partial(uint32_t extent);
	Result<bool> is_parent(uint32_t extent);  // of any partial extent
	// True: no volume writes to it, until a layer is merged into that volume's. False says nothing.
	Result<bool> is_frozen(uint32_t extent);
	// Writes what changed, in key order, and forgets everything.
	Status flush();
	// The same if much has gathered. Pointers given out before are then gone.
	Status relieve();
	bool holds_much() const;
	void forget();  // what was only read: what changed would be lost

 private:
	template <typename Page>
	struct Cached {
		Page page;
		bool dirty = false;
	};
	template <typename Page>
	struct Table {
		std::unordered_map<uint64_t, std::unique_ptr<Cached<Page>>> pages;
		uint64_t last_key = ~uint64_t{0};
		Cached<Page> *last = nullptr;
	};
	struct CachedPartial {
		Partial partial;
		bool present = false;
		bool dirty = false;
	};

	template <typename Page>
	Result<Cached<Page> *> page(Table<Page> &table, uint64_t key);
	template <typename Page>
	Status flush_pages(Table<Page> &table);
	Status flush_partials();
	Result<CachedPartial *> partial(uint32_t extent);
	void replace_partial(uint32_t extent, const CachedPartial &with);

	Database &db_;
	Pace &pace_;
	Table<MapPage> maps_;
	Table<ExtentPage> extents_;
	std::unordered_map<uint32_t, CachedPartial> partials_;
	std::unordered_map<uint32_t, uint32_t> children_;  // of a parent, how many of partials_
};

template <typename Page>
Status decode_blob(std::span<const uint8_t> blob, const char *table, uint64_t key, Page &out)
{
	static_assert(std::is_trivially_copyable_v<Page>);
	if (blob.size() != sizeof(Page))
		return Error(Code::kNeedsCheck, "read", "catalogue",
			     std::string("row ") + std::to_string(key) + " of " + table + " has the wrong size",
			     "run 'svctl check' on the pool");
	std::copy(blob.begin(), blob.end(), reinterpret_cast<uint8_t *>(&out));
	return {};
}

}  // namespace svd

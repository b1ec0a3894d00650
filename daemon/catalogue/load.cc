// SPDX-License-Identifier: GPL-2.0
// Reading the catalogue in the order and the form in which the kernel is loaded.
#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/snapshots.h"

namespace svd {

static constexpr size_t kBatch = 16384;

// Gathers elements and hands them on in batches.
template <typename T>
class Batcher {
 public:
	explicit Batcher(const std::function<Status(std::span<const T>)> &fn) : fn_(fn) { items_.reserve(kBatch); }

	Status add(const T &item)
	{
		items_.push_back(item);
		return items_.size() < kBatch ? Status() : flush();
	}
	Status flush()
	{
		if (items_.empty())
			return {};
		SV_TRY(fn_(items_));
		items_.clear();
		return {};
	}

 private:
	const std::function<Status(std::span<const T>)> &fn_;
	std::vector<T> items_;
};

Status each_extent(Database &db, const std::function<Status(uint32_t, const ExtentEntry &)> &fn)
{
	SV_ASSIGN(Query q, db.query("SELECT page, data FROM extent_pages ORDER BY page"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return {};
		ExtentPage page;
		SV_TRY(decode_blob(q.blob(1), "extent_pages", q.u64(0), page));
		const uint32_t first = q.u32(0) * static_cast<uint32_t>(ExtentPage::kEntries);
		for (uint32_t i = 0; i < ExtentPage::kEntries; i++)
			if (page.entry[i].live())
				SV_TRY(fn(first + i, page.entry[i]));
	}
}

Status Catalogue::for_each_extent(const std::function<Status(std::span<const sv_extent>)> &fn)
{
	Batcher<sv_extent> batch(fn);
	SV_TRY(each_extent(*impl_->db, [&](uint32_t number, const ExtentEntry &e) {
		return batch.add({number, e.slot, e.member, e.gen,
				  (e.partial() ? SV_EXTENT_PARTIAL : 0u) | (e.fragments() ? SV_EXTENT_FRAGS : 0u)});
	}));
	return batch.flush();
}

Status Catalogue::for_each_partial(const std::function<Status(std::span<const sv_partial_bits>)> &fn)
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
		SV_TRY(batch.add(item));
	}
}

static Status each_entry(const FlatPage &page, uint32_t volume, Batcher<sv_map_entry> &batch)
{
	for (uint64_t i = 0; i < MapPage::kEntries; i++) {
		const uint32_t extent = page.map.extent[i];
		if (extent == 0 || extent == kTombstone)
			continue;
		sv_map_entry item = {};
		item.index = page.first + i;
		item.volume = volume;
		item.extent = extent;
		item.layer = page.layer[i];
		SV_TRY(batch.add(item));
	}
	return {};
}

// That a volume writes, or that a snapshot froze.
static Result<uint32_t> layer_of_view(Catalogue &catalogue, Database &db, uint32_t id)
{
	SV_ASSIGN(const auto snapshot, snapshot_row(db, id));
	if (snapshot)
		return snapshot->layer;
	SV_ASSIGN(const VolumeRow v, catalogue.volume(id));
	return v.layer;
}

Status Catalogue::for_each_map(uint32_t id, const std::function<Status(std::span<const sv_map_entry>)> &fn)
{
	SV_ASSIGN(const uint32_t layer, layer_of_view(*this, *impl_->db, id));
	SV_ASSIGN(const std::vector<uint32_t> chain, chain_of(*impl_->db, layer));
	SV_ASSIGN(FlatMap map, FlatMap::open(*impl_->db, chain));
	Batcher<sv_map_entry> batch(fn);
	FlatPage page;
	while (true) {
		SV_ASSIGN(const bool more, map.next(page));
		if (!more)
			return batch.flush();
		SV_TRY(each_entry(page, id, batch));
	}
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

static void add_free(std::vector<FreeRange> &out, uint32_t member, const std::vector<bool> &used)
{
	const auto n = static_cast<uint32_t>(used.size());
	for (uint32_t slot = 0; slot < n;) {
		if (used[slot]) {
			slot++;
			continue;
		}
		const uint32_t first = slot;
		while (slot < n && !used[slot])
			slot++;
		out.push_back({member, first, slot - first});
	}
}

namespace {

// Slots that hold extents or fragments.
class UsedSlots {
 public:
	explicit UsedSlots(const std::vector<MemberRow> &members)
	{
		for (const MemberRow &m : members)
			used_.emplace_back(m.nr_slots);
	}
	Status extent(const sv_extent &e)
	{
		if ((e.flags & SV_EXTENT_FRAGS) == 0)
			return slot(e.extent, e.member, e.slot);
		members_.resize(e.extent + 1, kNone);
		members_[e.extent] = static_cast<uint8_t>(e.member);
		return {};
	}
	Status partial(const sv_partial_bits &p)	// after its extent
	{
		for (const uint32_t place : p.place)
			if (place != 0)
				SV_TRY(slot(p.extent, p.extent < members_.size() ? members_[p.extent] : kNone, slot_of_place(place)));
		return {};
	}
	std::vector<FreeRange> rest() const
	{
		std::vector<FreeRange> ranges;
		for (uint32_t m = 0; m < used_.size(); m++)
			add_free(ranges, m, used_[m]);
		return ranges;
	}

 private:
	Status slot(uint32_t extent, uint32_t member, uint32_t slot)
	{
		if (member >= used_.size() || slot >= used_[member].size())
			return Error(Code::kNeedsCheck, "read", "catalogue",
				     fmt::format("extent {} lies in slot {} of member {}, which is not there", extent, slot, member),
				     "run 'svctl check' on the pool");
		used_[member][slot] = true;
		return {};
	}

	std::vector<std::vector<bool>> used_;
	static constexpr uint8_t kNone = 0xff;
	std::vector<uint8_t> members_;  // of extents with fragments
};

}  // namespace

Result<std::vector<FreeRange>> Catalogue::free_ranges()
{
	SV_ASSIGN(const std::vector<MemberRow> rows, members());
	UsedSlots used(rows);
	SV_TRY(for_each_extent([&](std::span<const sv_extent> extents) -> Status {
		for (const sv_extent &e : extents)
			SV_TRY(used.extent(e));
		return {};
	}));
	SV_TRY(for_each_partial([&](std::span<const sv_partial_bits> partials) -> Status {
		for (const sv_partial_bits &p : partials)
			SV_TRY(used.partial(p));
		return {};
	}));
	return used.rest();
}

Result<CatalogueSpace> Catalogue::space()
{
	SV_ASSIGN(const uint64_t pages, impl_->db->number("PRAGMA page_count"));
	SV_ASSIGN(const uint64_t free, impl_->db->number("PRAGMA freelist_count"));
	return CatalogueSpace{(pages - free) * kBlockSize, impl_->db->region().capacity(Region::File::kMain)};
}

uint32_t Catalogue::copies_in_use() const { return impl_->db->region().in_sync(); }

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

// SPDX-License-Identifier: GPL-2.0
// Reading the catalogue in the order and the form in which the kernel is loaded.
#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"

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

Status Catalogue::for_each_extent(const std::function<Status(std::span<const sv_extent>)> &fn)
{
	Batcher<sv_extent> batch(fn);
	SV_ASSIGN(Query q, impl_->db->query("SELECT page, data FROM extent_pages ORDER BY page"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return batch.flush();
		ExtentPage page;
		SV_TRY(decode_blob(q.blob(1), "extent_pages", q.u64(0), page));
		const uint32_t first = q.u32(0) * static_cast<uint32_t>(ExtentPage::kEntries);
		for (uint32_t i = 0; i < ExtentPage::kEntries; i++) {
			const ExtentEntry &e = page.entry[i];
			if (e.live())
				SV_TRY(batch.add({first + i, e.slot, e.member, e.gen,
						  e.partial() ? SV_EXTENT_PARTIAL : 0u}));
		}
	}
}

Status Catalogue::for_each_partial(const std::function<Status(std::span<const sv_partial_bits>)> &fn)
{
	Batcher<sv_partial_bits> batch(fn);
	SV_ASSIGN(Query q, impl_->db->query("SELECT extent, parent, valid FROM partials ORDER BY extent"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return batch.flush();
		ValidBits bits;
		SV_TRY(decode_blob(q.blob(2), "partials", q.u64(0), bits));
		sv_partial_bits item = {};
		item.extent = q.u32(0);
		item.parent = q.u32(1);
		std::copy(bits.word.begin(), bits.word.end(), item.valid);
		SV_TRY(batch.add(item));
	}
}

static Status each_entry(const MapPage &page, uint64_t key, uint32_t volume, Batcher<sv_map_entry> &batch)
{
	for (uint64_t i = 0; i < MapPage::kEntries; i++) {
		const uint32_t extent = page.extent[i];
		if (extent == 0)
			continue;
		sv_map_entry item = {};
		item.index = first_index(key) + i;
		item.volume = volume;
		item.extent = extent == kTombstone ? 0 : extent;
		item.layer = layer_of(key);
		SV_TRY(batch.add(item));
	}
	return {};
}

Status Catalogue::for_each_map(uint32_t id, const std::function<Status(std::span<const sv_map_entry>)> &fn)
{
	SV_ASSIGN(const VolumeRow v, volume(id));
	Batcher<sv_map_entry> batch(fn);
	SV_ASSIGN(Query q, impl_->db->query("SELECT key, data FROM map_pages WHERE key >= ? AND key < ? ORDER BY key"));
	q.bind(map_key(v.layer, 0)).bind(map_key(v.layer + 1, 0));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return batch.flush();
		MapPage page;
		SV_TRY(decode_blob(q.blob(1), "map_pages", q.u64(0), page));
		SV_TRY(each_entry(page, q.u64(0), id, batch));
	}
}

Result<uint64_t> Catalogue::mapped(uint32_t id)
{
	uint64_t count = 0;
	SV_TRY(for_each_map(id, [&](std::span<const sv_map_entry> entries) -> Status {
		for (const sv_map_entry &e : entries)
			count += e.extent != 0 ? 1 : 0;
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

Result<std::vector<FreeRange>> Catalogue::free_ranges()
{
	SV_ASSIGN(const std::vector<MemberRow> rows, members());
	std::vector<std::vector<bool>> used;
	for (const MemberRow &m : rows)
		used.emplace_back(m.nr_slots);
	SV_TRY(for_each_extent([&](std::span<const sv_extent> extents) -> Status {
		for (const sv_extent &e : extents) {
			if (e.member >= used.size() || e.slot >= used[e.member].size())
				return Error(Code::kNeedsCheck, "read", "catalogue",
					     fmt::format("extent {} lies in slot {} of member {}, which is not there",
							 e.extent, e.slot, e.member),
					     "run 'svctl check' on the pool");
			used[e.member][e.slot] = true;
		}
		return {};
	}));
	std::vector<FreeRange> ranges;
	for (uint32_t m = 0; m < used.size(); m++)
		add_free(ranges, m, used[m]);
	return ranges;
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

// SPDX-License-Identifier: GPL-2.0
// Every rule of INVARIANTS 'Space' that the catalogue alone can break [I21], and SQLite's own consistency.
#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"

namespace svd {

namespace {

class Checker {
 public:
	Checker(Catalogue &catalogue, Database &db, Pace &pace) : catalogue_(catalogue), db_(db), pace_(pace) {}
	Result<std::vector<std::string>> run();

 private:
	template <typename... Args>
	void found(fmt::format_string<Args...> f, Args &&...args)
	{
		if (lines_.size() < kMaxLines)
			lines_.push_back(fmt::format(f, std::forward<Args>(args)...));
		else
			more_++;
	}
	Status database();
	Status volumes();
	Status extents();
	void extent(const sv_extent &e);
	Status partials();
	Status maps();
	void map_entry(uint32_t layer, uint64_t index, uint64_t limit, uint32_t extent);
	void unnamed();

	static constexpr size_t kMaxLines = 10000;
	static constexpr uint8_t kLive = 1, kPartial = 2, kMapped = 4;

	uint8_t &state(uint32_t extent)
	{
		if (extent >= state_.size())
			state_.resize(extent + 1);
		return state_[extent];
	}

	Catalogue &catalogue_;
	Database &db_;
	Pace &pace_;
	std::vector<std::string> lines_;
	uint64_t more_ = 0;
	std::vector<uint8_t> state_;  // by extent number
	std::vector<std::vector<bool>> used_;
	std::unordered_map<uint32_t, uint64_t> layers_;  // layer: extents of its volume
};

Status Checker::database()
{
	SV_ASSIGN(Query q, db_.query("PRAGMA integrity_check"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return {};
		if (q.text(0) != "ok")
			found("database: {}", q.text(0));
	}
}

Status Checker::volumes()
{
	SV_ASSIGN(const std::vector<MemberRow> members, catalogue_.members());
	for (const MemberRow &m : members) {
		if (m.member != used_.size())
			found("member {}: its number is not the next one, {}", m.member, used_.size());
		used_.emplace_back(m.nr_slots);
	}
	SV_ASSIGN(const std::vector<VolumeRow> rows, catalogue_.volumes());
	for (const VolumeRow &v : rows) {
		if (Status s = check_volume_name(v.name); !s)
			found("volume {}: {}", v.id, s.error().message());
		SV_ASSIGN(Query q, db_.query("SELECT 1 FROM layers WHERE volume = ? AND layer = ?"));
		SV_ASSIGN(const bool row, q.bind(v.id).bind(v.layer).step());
		if (!row)
			found("volume {}: its head layer {} is missing", v.id, v.layer);
		if (v.owned_since > v.layer)
			found("volume {}: it owns from layer {} on, behind its head {}", v.id, v.owned_since, v.layer);
		layers_[v.layer] = extents_in(v.size);
	}
	return {};
}

void Checker::extent(const sv_extent &e)
{
	state(e.extent) |= static_cast<uint8_t>(kLive | ((e.flags & SV_EXTENT_PARTIAL) != 0 ? kPartial : 0));
	if (e.extent == 0 || e.member >= used_.size() || e.slot >= used_[e.member].size()) {
		found("extent {}: the pool has no slot {} of member {}", e.extent, e.slot, e.member);
		return;
	}
	if (used_[e.member][e.slot])
		found("extent {}: slot {} of member {} belongs to another extent too", e.extent, e.slot, e.member);
	used_[e.member][e.slot] = true;
}

Status Checker::extents()
{
	return catalogue_.for_each_extent([this](std::span<const sv_extent> batch) -> Status {
		for (const sv_extent &e : batch)
			extent(e);
		return pace_.breathe();
	});
}

Status Checker::partials()
{
	std::vector<uint32_t> with_bits;
	SV_TRY(catalogue_.for_each_partial([&](std::span<const sv_partial_bits> batch) -> Status {
		for (const sv_partial_bits &p : batch) {
			if ((state(p.extent) & kPartial) == 0)
				found("partial extent {}: it is not there, or not partial", p.extent);
			if ((p.valid[0] & p.valid[1] & p.valid[2] & p.valid[3]) == ~0ull)
				found("partial extent {}: all its blocks are valid", p.extent);
			state(p.extent) &= static_cast<uint8_t>(~kPartial);
		}
		return pace_.breathe();
	}));
	for (uint32_t e = 0; e < state_.size(); e++)
		if ((state_[e] & kPartial) != 0)
			found("extent {}: it is partial and has no valid bits", e);
	return {};
}

void Checker::map_entry(uint32_t layer, uint64_t index, uint64_t limit, uint32_t extent)
{
	if (index >= limit)
		found("layer {} index {}: behind the end of the volume", layer, index);
	if (extent == kTombstone)
		return;
	if (extent >= state_.size() || (state_[extent] & kLive) == 0) {
		found("layer {} index {}: maps to extent {}, which is not there", layer, index, extent);
		return;
	}
	if ((state_[extent] & kMapped) != 0)
		found("layer {} index {}: extent {} is mapped elsewhere too", layer, index, extent);
	state_[extent] |= kMapped;
}

Status Checker::maps()
{
	SV_ASSIGN(Query q, db_.query("SELECT key, data FROM map_pages ORDER BY key"));
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return {};
		const uint64_t key = q.u64(0);
		MapPage page;
		SV_TRY(decode_blob(q.blob(1), "map_pages", key, page));
		const auto layer = layers_.find(layer_of(key));
		if (layer == layers_.end())
			found("map page {} belongs to layer {}, which no volume has", key, layer_of(key));
		const uint64_t limit = layer == layers_.end() ? ~uint64_t{0} : layer->second;
		for (uint64_t i = 0; i < MapPage::kEntries; i++)
			if (page.extent[i] != 0)
				map_entry(layer_of(key), first_index(key) + i, limit, page.extent[i]);
		SV_TRY(pace_.breathe());
	}
}

void Checker::unnamed()
{
	for (uint32_t e = 0; e < state_.size(); e++)
		if ((state_[e] & (kLive | kMapped)) == kLive)
			found("extent {}: no volume maps it", e);
}

Result<std::vector<std::string>> Checker::run()
{
	SV_TRY(database());
	SV_TRY(volumes());
	SV_TRY(extents());
	SV_TRY(partials());
	SV_TRY(maps());
	unnamed();
	if (more_ > 0)
		lines_.push_back(fmt::format("and {} more", more_));
	return std::move(lines_);
}

}  // namespace

Result<std::vector<std::string>> Catalogue::check(Pace &pace)
{
	SV_TRY(impl_->db->region().scrub(pace));
	return Checker(*this, *impl_->db, pace).run();
}

}  // namespace svd

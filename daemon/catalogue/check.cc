// SPDX-License-Identifier: GPL-2.0
// Every rule of INVARIANTS 'Space' and 'Layers' that the catalogue alone can break [I4] [I21] [I26], and SQLite's own
// consistency. Rows of volumes, layers and snapshots: check_layers.cc.
#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/check_layers.h"

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
		findings_.add(fmt::format(f, std::forward<Args>(args)...));
	}
	Status database();
	Status members();
	Status extents();
	void extent(uint32_t number, const ExtentEntry &e);
	Status partials();
	void places(const sv_partial_bits &p);
	void place(uint32_t extent, uint32_t member, uint32_t place);
	void partial(const sv_partial_bits &p);
	void written(const sv_partial_bits &p, const ValidBits &bits);
	void circles();
	Status maps();
	void map_entry(uint32_t layer, uint64_t index, const LayerFacts &facts, uint32_t extent);
	void needed();
	Status freeing();

	static constexpr uint64_t kBreath = 16384;
	static constexpr uint8_t kLive = 1, kPartial = 2, kMapped = 4, kOrphan = 8, kParent = 16, kCopies = 32;

	uint8_t &state(uint32_t extent)
	{
		if (extent >= state_.size())
			state_.resize(extent + 1);
		return state_[extent];
	}
	bool is(uint32_t extent, uint8_t what) const { return extent < state_.size() && (state_[extent] & what) == what; }

	Catalogue &catalogue_;
	Database &db_;
	Pace &pace_;
	Findings findings_;
	std::vector<uint8_t> state_;  // by extent number
	uint64_t seen_ = 0;
	std::vector<std::vector<bool>> used_;
	static constexpr uint8_t kNone = 0xff;
	std::vector<uint8_t> fragments_;  // of extents that have them, the member
	std::map<std::pair<uint32_t, uint32_t>, uint16_t> parts_;  // by member and slot: which 16ths are fragments
	std::unordered_map<uint32_t, uint32_t> parents_;  // of partial extents that have one
	LayerTable layers_;
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

Status Checker::members()
{
	SV_ASSIGN(const std::vector<MemberRow> members, catalogue_.members());
	for (const MemberRow &m : members) {
		if (m.member != used_.size())
			found("member {}: its number is not the next one, {}", m.member, used_.size());
		used_.emplace_back(m.nr_slots);
	}
	return {};
}

void Checker::extent(uint32_t number, const ExtentEntry &e)
{
	state(number) |= static_cast<uint8_t>(kLive | (e.partial() ? kPartial : 0) | (e.orphan() ? kOrphan : 0));
	if (e.fragments() && number != 0 && e.member < used_.size() && e.slot == 0 && e.partial()) {
		fragments_.resize(number + 1, kNone);
		fragments_[number] = e.member;
		return;
	}
	if (number == 0 || e.fragments() || e.member >= used_.size() || e.slot >= used_[e.member].size()) {
		found("extent {}: the pool has no slot {} of member {}", number, e.slot, e.member);
		return;
	}
	if (used_[e.member][e.slot])
		found("extent {}: slot {} of member {} belongs to another extent too", number, e.slot, e.member);
	used_[e.member][e.slot] = true;
}

Status Checker::extents()
{
	return each_extent(db_, [this](uint32_t number, const ExtentEntry &e) -> Status {
		extent(number, e);
		return ++seen_ % kBreath == 0 ? pace_.breathe() : Status();
	});
}

// Where its fragments are: nothing else is there, and nowhere else has it valid blocks.
void Checker::places(const sv_partial_bits &p)
{
	const uint8_t member = p.extent < fragments_.size() ? fragments_[p.extent] : kNone;
	size_t count = 0;
	for (size_t i = 0; i < SV_FRAGS; i++) {
		const uint32_t place = p.place[i];
		const bool valid = (p.valid[i / 4] >> (i % 4 * SV_FRAG_BLOCKS) & SV_FRAG_BITS) != 0;
		if (member == kNone ? place != 0 : place == 0 && valid)
			found("partial extent {}: fragment {} is not as its extent says", p.extent, i);
		else if (place != 0)
			this->place(p.extent, member, place);
		count += place != 0;
	}
	if (count > SV_FRAGS_MAX)
		found("partial extent {}: it has {} fragments, more than {}", p.extent, count, SV_FRAGS_MAX);
}

void Checker::place(uint32_t extent, uint32_t member, uint32_t place)
{
	const uint32_t slot = slot_of_place(place);
	if (slot >= used_[member].size()) {
		found("partial extent {}: the pool has no slot {} of member {}", extent, slot, member);
		return;
	}
	uint16_t &parts = parts_[{member, slot}];
	const auto part = static_cast<uint16_t>(1u << part_of_place(place));
	if ((parts & part) != 0 || (parts == 0 && used_[member][slot]))
		found("partial extent {}: slot {} of member {} belongs to another extent too", extent, slot, member);
	parts |= part;
	used_[member][slot] = true;
}

void Checker::partial(const sv_partial_bits &p)
{
	if (!is(p.extent, kPartial))
		found("partial extent {}: it is not there, or not partial", p.extent);
	if ((p.valid[0] & p.valid[1] & p.valid[2] & p.valid[3]) == ~0ull)
		found("partial extent {}: all its blocks are valid", p.extent);
	places(p);
	state(p.extent) &= static_cast<uint8_t>(~kPartial);
	if (p.parent == 0)
		return;
	parents_[p.extent] = p.parent;
	if (is(p.parent, kLive))
		state(p.parent) |= kParent;
	else
		found("partial extent {}: its parent {} is not there", p.extent, p.parent);
}

void Checker::written(const sv_partial_bits &p, const ValidBits &bits)
{
	state(p.extent) |= kCopies;
	uint64_t more = 0;
	for (size_t i = 0; i < bits.word.size(); i++)
		more |= bits.word[i] & ~p.valid[i];
	if (more != 0 || p.parent == 0)
		found("partial extent {}: what was written to it is not as its valid bits and parent say", p.extent);
}

Status Checker::partials()
{
	SV_ASSIGN(WrittenRows rows, WrittenRows::open(db_));
	SV_TRY(catalogue_.for_each_partial([&](std::span<const sv_partial_bits> batch) -> Status {
		for (const sv_partial_bits &p : batch) {
			partial(p);
			SV_ASSIGN(const ValidBits *bits, rows.of(p.extent));
			if (bits != nullptr)
				written(p, *bits);
		}
		return pace_.breathe();
	}));
	for (uint32_t e = 0; e < state_.size(); e++)
		if (is(e, kPartial))
			found("extent {}: it is partial and has no valid bits", e);
	circles();
	return {};
}

// Each extent has one parent at most: going up from each, as far as no other walk came before, finds every circle.
void Checker::circles()
{
	std::unordered_map<uint32_t, uint32_t> walk;  // extent: the one that the walk began at
	for (const auto &[begin, parent] : parents_) {
		uint32_t at = begin;
		for (auto up = parents_.find(at); up != parents_.end() && !walk.contains(at); up = parents_.find(at)) {
			walk[at] = begin;
			at = up->second;
		}
		if (const auto met = walk.find(at); met != walk.end() && met->second == begin)
			found("partial extent {}: it is among its own parents", at);
	}
}

void Checker::map_entry(uint32_t layer, uint64_t index, const LayerFacts &facts, uint32_t extent)
{
	if (index >= facts.extents)
		found("layer {} index {}: behind the end of the volume", layer, index);
	if (extent == kTombstone)
		return;
	if (!is(extent, kLive)) {
		found("layer {} index {}: maps to extent {}, which is not there", layer, index, extent);
		return;
	}
	if (is(extent, kMapped))
		found("layer {} index {}: extent {} is mapped elsewhere too", layer, index, extent);
	if (facts.head && is(extent, kParent))
		found("layer {} index {}: extent {} may be written, and is a parent", layer, index, extent);
	if (facts.head && is(extent, kCopies))
		found("layer {} index {}: extent {} may be written, and has copies of what is below", layer, index, extent);
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
		const LayerFacts facts = layer == layers_.end() ? LayerFacts() : layer->second;
		for (uint64_t i = 0; i < MapPage::kEntries; i++)
			if (page.extent[i] != 0)
				map_entry(layer_of(key), first_index(key) + i, facts, page.extent[i]);
		SV_TRY(pace_.breathe());
	}
}

// A layer maps it, or a partial extent names it, and then only it is an orphan.
void Checker::needed()
{
	for (uint32_t e = 0; e < state_.size(); e++) {
		if (!is(e, kLive))
			continue;
		if (is(e, kMapped | kOrphan))
			found("extent {}: it is marked as an orphan, and a layer maps it", e);
		else if (is(e, kOrphan) && !is(e, kParent))
			found("extent {}: no layer maps it, and no partial extent has it as parent", e);
		else if (!is(e, kMapped) && !is(e, kOrphan))
			found("extent {}: no volume maps it", e);
	}
}

Status Checker::freeing()
{
	SV_ASSIGN(const std::vector<sv_freed> rows, catalogue_.freeing(UINT32_MAX));
	for (const sv_freed &f : rows)
		if (is(f.extent, kLive))
			found("extent {}: the kernel is to free it, and it is there", f.extent);
	return {};
}

Result<std::vector<std::string>> Checker::run()
{
	SV_TRY(database());
	SV_TRY(members());
	SV_ASSIGN(layers_, check_layers(catalogue_, db_, findings_));
	SV_TRY(extents());
	SV_TRY(partials());
	SV_TRY(maps());
	needed();
	SV_TRY(freeing());
	return std::move(findings_).lines();
}

}  // namespace

Result<std::vector<std::string>> Catalogue::check(Pace &pace)
{
	SV_TRY(impl_->db->region().scrub(pace));
	return Checker(*this, *impl_->db, pace).run();
}

}  // namespace svd

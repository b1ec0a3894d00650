// SPDX-License-Identifier: GPL-2.0
// The text of dump.cc becomes a catalogue again. Each line is checked as it comes; the first bad one refuses all of it.
// What gets through the kernel can be loaded with (kmod/core/cmd.c refuses it otherwise, and the pool would stay down), and
// check.cc finds nothing to complain of.
#include <fmt/format.h>

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <unordered_set>

#include "daemon/base/memory_file.h"
#include "daemon/base/schedule.h"
#include "daemon/catalogue/ancestry.h"
#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/dump.h"
#include "daemon/catalogue/dump_reader.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/snapshots.h"

namespace svd {

namespace {

class Restorer {
 public:
	Restorer(Catalogue &catalogue, Database &db, std::istream &in, Pace &pace)
		: catalogue_(catalogue), db_(db), pages_(db, pace), text_(in, pace), pace_(pace)
	{
	}
	Status run();

 private:
	struct Map {
		uint32_t layer = 0;
		uint64_t extents = 0;  // indexes
		bool head = false;     // a volume writes it
	};
	struct Layer {
		uint32_t parent = 0;
		uint64_t extents = 0;
		bool frozen = false;  // by a snapshot
	};
	// A snapshot's line says something of another one that may be yet to come.
	struct Promise {
		uint64_t line = 0;
		SnapshotRow snapshot;
		bool begun = false;  // its next layer has been made
	};

	Status check_target();
	Status line();
	Status pool();
	Status journal();
	Status next();
	Status member();
	Status snapshot();
	Status wanted();
	Status volume();
	Status volume_options(VolumeRow &v);
	Status snapshot_options(SnapshotRow &s);
	Status map();
	Status hole();
	Status orphan();
	Status fragment();
	Status partial();
	Result<ExtentEntry> space();
	Status claim_place(uint32_t member, uint32_t slot, uint32_t part);
	Status parent_of(uint32_t extent, Partial &partial);
	Result<ValidBits> bits();
	Status claim_parent(uint32_t extent, uint32_t parent);
	Status freeing();
	Status keep(const Promise &promise);
	Status end();
	Status claim_slots(uint64_t member, uint64_t first, uint64_t count);
	Status claim_numbers(uint64_t first, uint64_t count);
	Status add_layer(uint32_t id, const LayerRow &layer, uint64_t size, bool head);
	Status add_snapshot(const SnapshotRow &s, bool begun);
	Status head_of_snapshot(SnapshotRow &s);
	Result<const Map *> claim_indexes(uint64_t id, uint64_t index, uint64_t count);
	Status used(Status s);
	Error bad(std::string cause) const { return text_.bad(std::move(cause)); }

	Catalogue &catalogue_;
	Database &db_;
	PageStore pages_;
	DumpReader text_;
	Pace &pace_;
	bool end_ = false;
	std::vector<MemberRow> members_;
	std::vector<std::vector<bool>> used_;  // slots, by member
	uint64_t max_extents_ = 0;             // numbers are below it
	std::unordered_map<uint64_t, Map> maps_;     // by number of volume or snapshot
	std::unordered_map<uint32_t, Layer> layers_;
	std::unordered_set<uint32_t> active_;        // volumes that are not being deleted
	size_t volumes_ = 0;                         // with those that are
	std::vector<Promise> promises_;
	std::vector<bool> written_;                  // extents in heads
	Ancestry ancestry_;
	std::unordered_set<uint32_t> orphans_;       // without a child as yet
	std::unordered_map<uint32_t, Places> fragments_;  // of extents whose partial line has not come yet
	std::map<std::pair<uint32_t, uint32_t>, uint16_t> parts_;  // by member and slot: which 16ths are fragments
	uint64_t next_extent_ = 1;
	uint64_t next_volume_ = 1;
	uint64_t next_layer_ = 1;
};

Status Restorer::check_target()
{
	SV_ASSIGN(const uint64_t volumes, db_.number("SELECT count(*) FROM volumes"));
	SV_ASSIGN(const uint64_t pages, db_.number("SELECT count(*) FROM extent_pages"));
	if (volumes != 0 || pages != 0)
		return Error(Code::kBusy, "restore", "pool", "it already has volumes", "restore into a new pool");
	SV_ASSIGN(members_, catalogue_.members());
	uint64_t slots = 0;
	for (const MemberRow &m : members_) {
		used_.emplace_back(m.nr_slots);
		slots += m.nr_slots;
	}
	max_extents_ = sv_max_extents(slots);
	return {};
}

// Only the policies come from the text: name, uuid and incarnation belong to this pool.
Status Restorer::pool()
{
	SV_ASSIGN(PoolRow p, catalogue_.pool());
	SV_TRY(text_.word());
	SV_TRY(text_.word());
	SV_TRY(text_.number(~0ull));
	SV_TRY(text_.number(~0ull));
	SV_TRY(text_.number(~0ull));
	SV_ASSIGN(p.no_space_ms, text_.number32(SV_NO_SPACE_MS_MAX));
	SV_ASSIGN(p.commit_ms, text_.number32(SV_COMMIT_MS_MAX));
	if (p.commit_ms < SV_COMMIT_MS_MIN)
		return bad(fmt::format("commits cannot come every {} ms, but every {} or more", p.commit_ms, SV_COMMIT_MS_MIN));
	p.pass_discards = false;
	if (text_.more()) {
		SV_ASSIGN(const std::string_view discard, text_.word());
		if (discard != "pass")
			return bad(fmt::format("'{}' is not 'pass', which may stand there", discard.substr(0, 20)));
		p.pass_discards = true;
	}
	return catalogue_.set_pool(p);
}

// Means something only for the ring that it was written about. This catalogue's own position stays: what lies before it was
// trimmed, and must not be applied to what is restored. A text with more than that is of a later time than the members are.
Status Restorer::journal()
{
	SV_ASSIGN(const PoolRow p, catalogue_.pool());
	SV_ASSIGN(const uint64_t incarnation, text_.number(~0ull));
	SV_ASSIGN(const uint64_t seq, text_.number(~0ull));
	SV_ASSIGN(const uint64_t off, text_.number(~0ull));
	SV_ASSIGN(const uint64_t crc, text_.number(UINT32_MAX));
	SV_ASSIGN(const sv_ring_cursor now, catalogue_.applied());
	if (incarnation != p.incarnation || seq < now.seq || (seq == now.seq && off == now.off && crc == now.prev_crc))
		return {};
	return bad(fmt::format("this pool's journal has no such batch {}; its last one is {}", seq, now.seq));
}

Status Restorer::next()
{
	SV_ASSIGN(const uint64_t volume, text_.number(SV_VOLUME_ID_MAX + 1ull));
	SV_ASSIGN(const uint64_t layer, text_.number(kTombstone));
	next_volume_ = std::max(next_volume_, volume);
	next_layer_ = std::max(next_layer_, layer);
	return {};
}

Status Restorer::member()
{
	SV_ASSIGN(const uint64_t index, text_.number(SV_MAX_MEMBERS - 1));
	SV_TRY(text_.word());
	SV_TRY(text_.number(SV_MAX_TIERS - 1));
	SV_TRY(text_.word());
	SV_ASSIGN(const uint64_t slots, text_.number(SV_MAX_SLOTS));
	SV_TRY(text_.number(UINT32_MAX));
	if (text_.more()) {
		SV_ASSIGN(const std::string_view leaving, text_.word());
		if (leaving != "leaving")
			return bad(fmt::format("'{}' is not 'leaving', which may stand there", leaving.substr(0, 20)));
	}
	if (index >= members_.size())
		return bad(fmt::format("this pool has no member {}", index));
	if (slots > members_[index].nr_slots)
		return bad(fmt::format("member {} has {} slots here, {} are needed", index, members_[index].nr_slots,
				       slots));
	return {};
}

// A constraint of the database says so.
Status Restorer::used(Status s)
{
	return !s && s.error().code == Code::kBusy ? bad("its number, name or layer is already used") : std::move(s);
}

Status Restorer::add_layer(uint32_t id, const LayerRow &layer, uint64_t size, bool head)
{
	if (id == 0 || layer.layer == 0 || layer.low == 0 || layer.parent >= layer.low || size == 0 ||
	    size % SV_BLOCK_SIZE != 0 || size > SV_VOLUME_SIZE_MAX)
		return bad("number, layer or size are out of range");
	const auto parent = layers_.find(layer.parent);
	if (layer.parent != 0 && (parent == layers_.end() || !parent->second.frozen))
		return bad(fmt::format("there is no line before it for layer {}", layer.parent));
	if (layer.parent != 0 && parent->second.extents > extents_in(size))
		return bad(fmt::format("it is smaller than layer {}, over which it lies", layer.parent));
	if (!maps_.emplace(id, Map{layer.layer, extents_in(size), head}).second ||
	    !layers_.emplace(layer.layer, Layer{layer.parent, extents_in(size), !head}).second)
		return bad("its number, name or layer is already used");
	next_volume_ = std::max<uint64_t>(next_volume_, id + 1);
	next_layer_ = std::max<uint64_t>(next_layer_, layer.layer + 1);
	const uint32_t low = layer.low == layer.layer ? 0 : layer.low;
	return used(insert_layer(db_, {layer.layer, layer.volume, layer.parent, low}));
}

Status Restorer::head_of_snapshot(SnapshotRow &s)
{
	SV_ASSIGN(s.id, text_.number32(SV_VOLUME_ID_MAX));
	SV_ASSIGN(s.volume, text_.number32(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const std::string_view name, text_.word());
	s.name = name;
	SV_ASSIGN(s.size, text_.number(INT64_MAX));
	if (Status ok = check_name("snapshot", s.name, SV_SNAPSHOT_NAME_MAX); !ok)
		return bad(ok.error().message());
	return {};
}

Status Restorer::add_snapshot(const SnapshotRow &s, bool begun)
{
	if (s.state != SnapshotState::kDeleting || s.next_layer != 0)
		promises_.push_back({text_.line(), s, begun});
	next_volume_ = std::max<uint64_t>(next_volume_, s.id + 1);
	next_layer_ = std::max<uint64_t>(next_layer_, s.next_layer + 1);
	return used(insert_snapshot(db_, s));
}

Status Restorer::snapshot()
{
	SnapshotRow s;
	LayerRow layer;
	SV_TRY(head_of_snapshot(s));
	SV_ASSIGN(const std::string_view state, text_.word());
	SV_ASSIGN(layer.layer, text_.number32(kTombstone - 1));
	SV_ASSIGN(layer.low, text_.number32(layer.layer));
	SV_ASSIGN(layer.parent, text_.number32(layer.layer));
	SV_ASSIGN(s.next_layer, text_.number32(kTombstone - 1));
	SV_ASSIGN(s.created, text_.number(~0ull));
	SV_TRY(snapshot_options(s));
	if (state != "done" && state != "pending" && state != "deleting")
		return bad(fmt::format("'{}' is no state of a snapshot", state.substr(0, 20)));
	s.state = state == "done"      ? SnapshotState::kDone
		  : state == "pending" ? SnapshotState::kPending
				       : SnapshotState::kDeleting;
	s.layer = layer.layer;
	layer.volume = s.volume;
	SV_TRY(add_layer(s.id, layer, s.size, false));
	return add_snapshot(s, true);
}

Status Restorer::snapshot_options(SnapshotRow &s)
{
	while (text_.more()) {
		SV_ASSIGN(const std::string_view option, text_.word());
		if (option != "held" && option != "scheduled")
			return bad(fmt::format("'{}' is not 'held' or 'scheduled', which may stand there", option.substr(0, 20)));
		(option == "held" ? s.held : s.scheduled) = true;
	}
	return {};
}

Status Restorer::wanted()
{
	SnapshotRow s;
	s.state = SnapshotState::kPending;
	SV_TRY(head_of_snapshot(s));
	SV_ASSIGN(s.layer, text_.number32(kTombstone - 1));
	SV_ASSIGN(s.next_layer, text_.number32(kTombstone - 1));
	SV_ASSIGN(s.created, text_.number(~0ull));
	const auto volume = maps_.find(s.volume);
	if (volume == maps_.end() || volume->second.layer != s.layer || !volume->second.head)
		return bad(fmt::format("there is no line before it for volume {} with layer {}", s.volume, s.layer));
	if (s.next_layer <= s.layer || !maps_.emplace(s.id, Map()).second)
		return bad("its number or layer is already used");
	return add_snapshot(s, false);
}

Status Restorer::volume_options(VolumeRow &v)
{
	while (text_.more()) {
		SV_ASSIGN(const std::string_view option, text_.word());
		if (option == "manual") {
			v.autoactivate = v.active = false;
		} else if (option == "over") {
			SV_ASSIGN(v.parent_layer, text_.number32(v.layer));
		} else if (option == "schedule") {
			SV_ASSIGN(const std::string_view schedule, text_.word());
			if (const auto parsed = parse_schedule(schedule); !parsed.ok())
				return bad(parsed.error().message());
			v.schedule = schedule;
		} else {
			return bad(fmt::format("'{}' is not 'manual', 'over' or 'schedule', which may stand there",
					       option.substr(0, 20)));
		}
	}
	return {};
}

Status Restorer::volume()
{
	VolumeRow v;
	SV_ASSIGN(v.id, text_.number32(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const std::string_view name, text_.word());
	v.name = name;
	SV_ASSIGN(v.size, text_.number(INT64_MAX));
	SV_ASSIGN(const std::string_view state, text_.word());
	SV_ASSIGN(v.layer, text_.number32(kTombstone - 1));
	SV_ASSIGN(v.owned_since, text_.number32(v.layer));
	SV_ASSIGN(v.created, text_.number(~0ull));
	SV_ASSIGN(v.flags, text_.number32(UINT32_MAX));
	SV_ASSIGN(v.tiers, text_.number(~0ull));
	SV_TRY(volume_options(v));
	if (Status s = check_volume_name(v.name); !s)
		return bad(s.error().message());
	if (state != "active" && state != "deleting")
		return bad(fmt::format("'{}' is no state of a volume", state.substr(0, 20)));
	if ((v.flags & ~SV_VOLUME_READ_ONLY) != 0)
		return bad(fmt::format("{} are no flags of a volume", v.flags));
	if (++volumes_ > kMostVolumes)
		return bad(fmt::format("a pool has {} volumes at most", kMostVolumes));
	v.state = state == "active" ? VolumeState::kActive : VolumeState::kDeleting;
	SV_TRY(add_layer(v.id, {v.layer, v.id, v.parent_layer, v.owned_since}, v.size, true));
	if (v.state == VolumeState::kActive)
		active_.insert(v.id);
	return used(insert_volume(db_, v));
}

// There are as many as the kernel has words for.
Status Restorer::claim_numbers(uint64_t first, uint64_t count)
{
	if (first == 0 || count >= max_extents_ || first > max_extents_ - count)
		return bad(fmt::format("extents of this pool have numbers from 1 to {}", max_extents_ - 1));
	next_extent_ = std::max(next_extent_, first + count);
	return {};
}

Status Restorer::claim_slots(uint64_t member, uint64_t first, uint64_t count)
{
	if (member >= used_.size() || first > used_[member].size() || count > used_[member].size() - first)
		return bad(fmt::format("this pool has no such slots of member {}", member));
	for (uint64_t slot = first; slot < first + count; slot++) {
		if (used_[member][slot])
			return bad(fmt::format("slot {} of member {} is used twice", slot, member));
		used_[member][slot] = true;
	}
	return {};
}

Result<const Restorer::Map *> Restorer::claim_indexes(uint64_t id, uint64_t index, uint64_t count)
{
	const auto map = maps_.find(id);
	if (map == maps_.end() || map->second.layer == 0)
		return bad(fmt::format("there is no line before it for volume {}", id));
	if (count == 0 || index > map->second.extents || count > map->second.extents - index)
		return bad(fmt::format("volume {} ends at index {}", id, map->second.extents));
	return &map->second;
}

// MEMBER SLOT of an extent, or of the first of some. The slots are to be claimed.
Result<ExtentEntry> Restorer::space()
{
	ExtentEntry e;
	SV_ASSIGN(const uint64_t member, text_.number(SV_MAX_MEMBERS - 1));
	e.member = static_cast<uint8_t>(member);
	e.flags = ExtentEntry::kLive;
	if (text_.next_is("-")) {
		SV_TRY(text_.word());
		e.flags |= ExtentEntry::kFragments;
		if (member >= used_.size())
			return bad(fmt::format("this pool has no member {}", member));
		return e;
	}
	SV_ASSIGN(e.slot, text_.number32(SV_MAX_SLOTS));
	return e;
}

Status Restorer::map()
{
	SV_ASSIGN(const uint64_t id, text_.number(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const uint64_t index, text_.number(~0ull));
	SV_ASSIGN(const uint64_t count, text_.number(UINT32_MAX));
	SV_ASSIGN(ExtentEntry at, space());
	uint64_t extent = next_extent_;
	uint64_t gen = 1;
	if (text_.more()) {
		SV_ASSIGN(extent, text_.number(kTombstone - 1));
		SV_ASSIGN(gen, text_.number(UINT16_MAX));
	}
	SV_ASSIGN(const Map *target, claim_indexes(id, index, count));
	if (!at.fragments())
		SV_TRY(claim_slots(at.member, at.slot, count));
	SV_TRY(claim_numbers(extent, count));
	if (target->head)
		written_.resize(std::max(written_.size(), extent + count));
	for (uint64_t i = 0; i < count; i++) {
		if (i % kEntriesOfPage == kEntriesOfPage - 1)	// a line may stand for very many
			SV_TRY(pace_.breathe());
		SV_TRY(pages_.relieve());
		const auto number = static_cast<uint32_t>(extent + i);
		SV_ASSIGN(uint32_t *mapped, pages_.map_entry(target->layer, index + i, true));
		SV_ASSIGN(ExtentEntry *entry, pages_.extent(number, true));
		if (*mapped != 0 || entry->live())
			return bad(fmt::format("index {} or extent {} is mapped twice", index + i, number));
		*mapped = number;
		at.gen = static_cast<uint16_t>(gen);
		*entry = at;
		if (target->head)
			written_[number] = true;
		if (at.fragments())
			fragments_[number] = Places();
		else
			at.slot++;
	}
	return {};
}

Status Restorer::hole()
{
	SV_ASSIGN(const uint64_t id, text_.number(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const uint64_t index, text_.number(~0ull));
	SV_ASSIGN(const uint64_t count, text_.number(~0ull));
	SV_ASSIGN(const Map *target, claim_indexes(id, index, count));
	for (uint64_t i = 0; i < count; i++) {
		if (i % kEntriesOfPage == kEntriesOfPage - 1)	// a line may stand for very many
			SV_TRY(pace_.breathe());
		SV_TRY(pages_.relieve());
		SV_ASSIGN(uint32_t *mapped, pages_.map_entry(target->layer, index + i, true));
		if (*mapped != 0)
			return bad(fmt::format("index {} is mapped too", index + i));
		*mapped = kTombstone;
	}
	return {};
}

Status Restorer::orphan()
{
	SV_ASSIGN(const uint32_t extent, text_.number32(kTombstone - 1));
	SV_ASSIGN(const uint32_t gen, text_.number32(UINT16_MAX));
	SV_ASSIGN(ExtentEntry at, space());
	if (!at.fragments())
		SV_TRY(claim_slots(at.member, at.slot, 1));
	SV_TRY(claim_numbers(extent, 1));
	SV_TRY(pages_.relieve());
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(extent, true));
	if (entry->live())
		return bad(fmt::format("extent {} is there already", extent));
	at.gen = static_cast<uint16_t>(gen);
	at.flags |= ExtentEntry::kOrphan;
	*entry = at;
	orphans_.insert(extent);
	if (at.fragments())
		fragments_[extent] = Places();
	return {};
}

Status Restorer::parent_of(uint32_t extent, Partial &partial)
{
	SV_ASSIGN(partial.parent, text_.number32(kTombstone - 1));
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(partial.parent, false));
	if (!entry->live())
		return bad(fmt::format("extent {} cannot have {} as parent, which is not there", extent, partial.parent));
	if (partial.parent < written_.size() && written_[partial.parent])
		return bad(fmt::format("extent {} cannot have {} as parent, which a volume writes", extent, partial.parent));
	orphans_.erase(partial.parent);
	return {};
}

// Whoever reads what is not valid goes from parent to parent.
Status Restorer::claim_parent(uint32_t extent, uint32_t parent)
{
	if (parent == 0)
		return {};
	switch (ancestry_.add(extent, parent)) {
	case Ancestry::Answer::kCircle:
		return bad(fmt::format("extent {} would be among its own parents", extent));
	case Ancestry::Answer::kTooLong:
		return bad(fmt::format("more than {} parents would lie one above the other", SV_MAX_CHAIN));
	default:
		return {};
	}
}

Status Restorer::freeing()
{
	SV_ASSIGN(const uint32_t extent, text_.number32(kTombstone - 1));
	SV_ASSIGN(const uint32_t gen, text_.number32(UINT16_MAX));
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
	if (extent == 0 || extent >= max_extents_ || entry->live())
		return bad(fmt::format("extent {} is there, or cannot be", extent));
	SV_ASSIGN(Query q, db_.query("INSERT INTO freeing (extent, gen) VALUES (?, ?)"));
	return used(q.bind(extent).bind(gen).run());
}

Status Restorer::claim_place(uint32_t member, uint32_t slot, uint32_t part)
{
	uint16_t &parts = parts_[{member, slot}];
	if (parts == 0)
		SV_TRY(claim_slots(member, slot, 1));
	if ((parts >> part & 1) != 0)
		return bad(fmt::format("part {} of slot {} of member {} is used twice", part, slot, member));
	parts |= static_cast<uint16_t>(1u << part);
	return {};
}

Status Restorer::fragment()
{
	SV_ASSIGN(const uint32_t extent, text_.number32(kTombstone - 1));
	SV_ASSIGN(const uint32_t number, text_.number32(SV_FRAGS - 1));
	SV_ASSIGN(const uint32_t slot, text_.number32(SV_MAX_SLOTS - 1));
	SV_ASSIGN(const uint32_t part, text_.number32(SV_FRAGS - 1));
	const auto places = fragments_.find(extent);
	if (places == fragments_.end())
		return bad(fmt::format("there is no line before it for extent {} with '-' as slot, or its partial line comes before", extent));
	if (places->second.at[number] != 0 || place_of(slot, part) == 0)
		return bad(fmt::format("fragment {} of extent {} is named twice, or cannot be there", number, extent));
	SV_TRY(pages_.relieve());
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
	SV_TRY(claim_place(entry->member, slot, part));
	places->second.at[number] = place_of(slot, part);
	if (places->second.count() > SV_FRAGS_MAX)
		return bad(fmt::format("extent {} has more than {} fragments", extent, SV_FRAGS_MAX));
	return {};
}

Result<ValidBits> Restorer::bits()
{
	SV_ASSIGN(const std::string_view hex, text_.word());
	ValidBits bits;
	bool sound = hex.size() == 64;
	for (size_t w = 0; sound && w < 4; w++) {
		const char *p = hex.data() + (3 - w) * 16;
		const auto [end, ec] = std::from_chars(p, p + 16, bits.word[w], 16);
		sound = ec == std::errc() && end == p + 16;
	}
	return sound ? Result<ValidBits>(bits) : bad("its valid bits are not 64 hexadecimal digits");
}

Status Restorer::partial()
{
	SV_ASSIGN(const uint32_t extent, text_.number32(kTombstone - 1));
	Partial partial;
	SV_ASSIGN(partial.valid, bits());
	SV_TRY(pages_.relieve());
	if (text_.more())
		SV_TRY(parent_of(extent, partial));
	if (text_.more()) {
		SV_ASSIGN(partial.written, bits());
		if (count(without(*partial.written, partial.valid)) != 0)
			return bad(fmt::format("extent {} has blocks that were written and are not valid", extent));
		if (extent < written_.size() && written_[extent])
			return bad(fmt::format("a volume writes extent {}: what was copied there is not known", extent));
	}
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(extent, true));
	if (!entry->live() || entry->partial() || partial.valid.all())
		return bad(fmt::format("extent {} is not mapped, or named twice, or not partial", extent));
	if (entry->fragments()) {
		partial.places = fragments_[extent];
		fragments_.erase(extent);
		if (!covers(partial.places, partial.valid))
			return bad(fmt::format("extent {} has valid blocks in fragments that are nowhere", extent));
	}
	SV_TRY(claim_parent(extent, partial.parent));
	entry->flags |= ExtentEntry::kPartial;
	pages_.set_partial(extent, partial);
	return {};
}

// The kernel reads through a snapshot that is done, and svd finds it by its volume; one that is pending is settled by whether
// there is a layer above it.
Status Restorer::keep(const Promise &promise)
{
	const SnapshotRow &s = promise.snapshot;
	const auto next = layers_.find(s.next_layer);
	if (s.state == SnapshotState::kDone && !active_.contains(s.volume))
		return DumpReader::bad(promise.line, fmt::format("there is no line for an active volume {}", s.volume));
	if (!promise.begun && next != layers_.end())
		return DumpReader::bad(promise.line, fmt::format("layer {} is already used", s.next_layer));
	if (promise.begun && (next == layers_.end() ? s.state == SnapshotState::kPending : next->second.parent != s.layer))
		return DumpReader::bad(promise.line, fmt::format("there is no line for layer {} over layer {}", s.next_layer, s.layer));
	return {};
}

Status Restorer::end()
{
	end_ = true;
	for (const Promise &promise : promises_)
		SV_TRY(keep(promise));
	if (!orphans_.empty())
		return bad(fmt::format("no partial extent has the orphan {} as parent", *orphans_.begin()));
	if (!fragments_.empty())
		return bad(fmt::format("extent {} has '-' as slot, and no line says which blocks are valid", fragments_.begin()->first));
	return {};
}

Status Restorer::line()
{
	if (end_)
		return bad("it stands behind the line 'end'");
	SV_ASSIGN(const std::string_view what, text_.word());
	Status s = what == "map"       ? map()
		   : what == "partial" ? partial()
		   : what == "fragment" ? fragment()
		   : what == "hole"    ? hole()
		   : what == "volume"  ? volume()
		   : what == "snapshot" ? snapshot()
		   : what == "wanted"  ? wanted()
		   : what == "orphan"  ? orphan()
		   : what == "freeing" ? freeing()
		   : what == "member"  ? member()
		   : what == "pool"    ? pool()
		   : what == "journal" ? journal()
		   : what == "next"    ? next()
		   : what == "end"     ? end()
				       : Status(bad(fmt::format("'{}' is no item of a dump", what.substr(0, 40))));
	if (s && text_.more())
		return bad("it has too many words");
	return s;
}

Status Restorer::run()
{
	SV_TRY(check_target());
	while (true) {
		SV_ASSIGN(const bool more, text_.next());
		if (!more)
			break;
		SV_TRY(line());
	}
	if (!end_)
		return bad("no line 'end' follows it: the text was cut off");
	SV_TRY(pages_.flush());
	SV_ASSIGN(Query q, db_.query("UPDATE pool SET next_volume = ?, next_layer = ?"));
	return q.bind(next_volume_).bind(next_layer_).run();
}

}  // namespace

Status Catalogue::restore(std::istream &in, Pace &pace)
{
	ToTheEnd paced(pace);
	const PacedRegion region(impl_->db->region(), paced);
	return impl_->large_transaction([&] { return Restorer(*this, *impl_->db, in, pace).run(); });
}

// Into a catalogue like this one, in a memory file that has no more pages than are written to it.
Status Catalogue::try_restore(std::istream &in, Pace &pace)
{
	const uint64_t size = impl_->db->region().length();
	SV_ASSIGN(const UniqueFd memory, create_memory_file("svctl-restore"));
	if (ftruncate(memory.get(), static_cast<off_t>(size)) < 0)
		return errno_error(errno, "make a catalogue in", "memory");
	SV_ASSIGN(const auto file, BlockFile::open(fmt::format("/proc/self/fd/{}", memory.get()), BlockFile::Mode::kReadWrite));
	const CatalogueCopy copy = {file.get(), 0, size};
	SV_ASSIGN(const PoolRow row, pool());
	SV_ASSIGN(const auto rows, members());
	SV_ASSIGN(const sv_ring_cursor position, applied());
	SV_ASSIGN(const auto other, create({&copy, 1}, row, rows));
	SV_ASSIGN(const ApplyStats none, other->apply_batch({}, position));
	return other->restore(in, pace);
}

}  // namespace svd

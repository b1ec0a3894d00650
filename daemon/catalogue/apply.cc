// SPDX-License-Identifier: GPL-2.0
// Applies the journal's records. Every record but FOLD sets what it names to a value that does not depend on what was there
// (VALID and CLEAR: within one generation of an extent), so that replaying a prefix ends in the same state [I31]. FOLD
// builds on what both extents have, and is passed over where the parent is gone.
// A record that this pool cannot have written is damage and refuses the whole batch.
//
// The catalogue may be ahead of the kernel in one thing: a layer that was merged, or is just being, gave its entries to the
// layer above. So a record may find an extent there where the kernel saw none of that layer's own. A MAP with that
// extent as parent, or an UNMAP that names none, takes it out of the map: nobody else will.
#include <fmt/format.h>

#include <utility>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/reclaim.h"
#include "daemon/catalogue/snapshots.h"

namespace svd {

namespace {

class Applier {
 public:
	Applier(Catalogue &catalogue, Database &db, ApplyStats &stats)
		: catalogue_(catalogue), db_(db), pages_(db), reclaim_(db, pages_), stats_(stats)
	{
	}

	Status begin();
	Status record(const sv_rec &r);
	Status finish() { return pages_.flush(); }

 private:
	struct VolumeInfo {
		uint64_t extents = 0;
		uint32_t head = 0;
	};

	Status map(const sv_rec &r);
	Status valid(const sv_rec &r);
	Status clear(const sv_rec &r);
	Status unmap(const sv_rec &r);
	Status frag(const sv_rec &r);
	Status move(const sv_rec &r);
	Status move_fragments(const sv_rec &r, const ExtentEntry &entry);
	Status layer(const sv_rec &r);
	Status snapdone(const sv_rec &r);
	Status own(const sv_rec &r);
	Status fold(const sv_rec &r);
	Result<std::optional<ValidBits>> written_of_both(uint32_t extent, uint32_t parent);
	Status take_over(const sv_rec &r, const ExtentEntry &parent);
	Status leave_fragments(uint32_t extent, ExtentEntry &entry);
	Status set_extent(const sv_rec &r);
	Status check_parent(const sv_rec &r) const;
	Result<bool> known_volume(const sv_rec &r);
	Result<bool> known_layer(const sv_rec &r);
	Result<ExtentEntry *> current(const sv_rec &r);
	Status check_slot(const sv_rec &r) const;
	Error damage(const sv_rec &r, std::string cause) const;

	Catalogue &catalogue_;
	Database &db_;
	PageStore pages_;
	Reclaim reclaim_;
	ApplyStats &stats_;
	std::vector<uint32_t> nr_slots_;  // by member
	std::unordered_map<uint32_t, VolumeInfo> volumes_;
	std::unordered_map<uint32_t, LayerRow> layers_;
	uint64_t next_volume_ = 0;
};

Status Applier::begin()
{
	SV_ASSIGN(const std::vector<MemberRow> members, catalogue_.members());
	for (const MemberRow &m : members)
		nr_slots_.push_back(m.nr_slots);
	SV_ASSIGN(const std::vector<VolumeRow> volumes, catalogue_.volumes());
	for (const VolumeRow &v : volumes)
		volumes_[v.id] = {extents_in(v.size), v.layer};
	SV_ASSIGN(const std::vector<LayerRow> layers, all_layers(db_));
	for (const LayerRow &l : layers)
		layers_[l.layer] = l;
	SV_ASSIGN(next_volume_, db_.number("SELECT next_volume FROM pool"));
	return {};
}

Error Applier::damage(const sv_rec &r, std::string cause) const
{
	return Error(Code::kNeedsCheck, "apply", fmt::format("journal record {} (type {})", stats_.records, r.type),
		     std::move(cause), "run 'svctl check' on the pool");
}

// True: apply it. False, and counted: the volume was deleted since.
Result<bool> Applier::known_volume(const sv_rec &r)
{
	if (volumes_.contains(r.volume))
		return true;
	if (r.volume == 0 || r.volume >= next_volume_)
		return damage(r, fmt::format("there never was a volume {}", r.volume));
	stats_.ignored++;
	return false;
}

Result<bool> Applier::known_layer(const sv_rec &r)
{
	SV_ASSIGN(const bool known, known_volume(r));
	if (!known)
		return false;
	const auto layer = layers_.find(r.layer);
	if (layer == layers_.end() || layer->second.volume != r.volume)
		return damage(r, fmt::format("volume {} has no layer {}", r.volume, r.layer));
	if (r.index >= volumes_[r.volume].extents)
		return damage(r, fmt::format("index {} lies behind the end of volume {}", r.index, r.volume));
	return true;
}

Status Applier::check_slot(const sv_rec &r) const
{
	if (r.extent == 0 || r.extent == kTombstone)
		return damage(r, fmt::format("{} is no extent number", r.extent));
	if (r.member >= nr_slots_.size() || r.slot >= nr_slots_[r.member])
		return damage(r, fmt::format("the pool has no slot {} of member {}", r.slot, r.member));
	return {};
}

Status Applier::check_parent(const sv_rec &r) const
{
	const bool parent = (r.flags & SV_MAP_PARENT) != 0;
	if (parent && ((r.flags & SV_MAP_PARTIAL) == 0 || r.parent == 0 || r.parent == kTombstone || r.parent == r.extent))
		return damage(r, fmt::format("extent {} cannot have {} as parent", r.extent, r.parent));
	return {};
}

Status Applier::set_extent(const sv_rec &r)
{
	SV_TRY(reclaim_.revive(r.extent));
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(r.extent, true));
	const bool partial = (r.flags & SV_MAP_PARTIAL) != 0, fragments = (r.flags & SV_MAP_FRAGS) != 0;
	if (partial)
		pages_.set_partial(r.extent, {r.parent, ValidBits(), Places(), {}});
	else if (entry->partial())
		pages_.drop_partial(r.extent);
	entry->slot = r.slot;
	entry->member = static_cast<uint8_t>(r.member);
	entry->gen = r.gen;
	entry->flags = static_cast<uint8_t>(ExtentEntry::kLive | (partial ? ExtentEntry::kPartial : 0) |
					    (fragments ? ExtentEntry::kFragments : 0));
	return {};
}

Status Applier::map(const sv_rec &r)
{
	SV_TRY(check_slot(r));
	SV_TRY(check_parent(r));
	SV_ASSIGN(const bool known, known_layer(r));
	if (!known)
		return {};
	SV_TRY(set_extent(r));
	SV_ASSIGN(uint32_t *mapped, pages_.map_entry(r.layer, r.index, true));
	const uint32_t before = std::exchange(*mapped, r.extent);
	if (before == 0 || before != r.parent)
		return {};
	stats_.outgrown.push_back(before);
	return reclaim_.let_go(before);
}

// The extent that a record means; null, and counted, if it is gone or another one has its number now.
Result<ExtentEntry *> Applier::current(const sv_rec &r)
{
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(r.extent, false));
	if (entry->live() && entry->gen == r.gen)
		return entry;
	stats_.ignored++;
	return nullptr;
}

Status Applier::frag(const sv_rec &r)
{
	const auto place = static_cast<uint32_t>(r.arg);
	if (r.member >= nr_slots_.size() || slot_of_place(place) >= nr_slots_[r.member])
		return damage(r, fmt::format("the pool has no slot {} of member {}", slot_of_place(place), r.member));
	SV_ASSIGN(const ExtentEntry *entry, current(r));
	if (!entry)
		return {};
	if (!entry->fragments() || entry->member != r.member)
		return damage(r, fmt::format("extent {} has no fragments on member {}", r.extent, r.member));
	SV_ASSIGN(Places *places, pages_.places(r.extent));
	places->at[r.word] = place;
	return places->count() <= SV_FRAGS_MAX ? Status() : damage(r, fmt::format("extent {} has too many fragments", r.extent));
}

Status Applier::valid(const sv_rec &r)
{
	SV_ASSIGN(const ExtentEntry *entry, current(r));
	if (!entry || !entry->partial())
		return {};
	SV_ASSIGN(ValidBits *bits, pages_.valid(r.extent));
	if ((r.flags & SV_VALID_ALL) != 0)
		bits->word.fill(~uint64_t{0});
	else
		bits->word[r.word & SV_VALID_WORD] |= r.bits;
	if (entry->fragments()) {
		SV_ASSIGN(const Places *places, pages_.places(r.extent));
		return covers(*places, *bits) ? Status() : damage(r, fmt::format("extent {} has valid blocks nowhere", r.extent));
	}
	if (!bits->all())
		return {};
	SV_ASSIGN(ExtentEntry *changed, pages_.extent(r.extent, true));
	changed->flags &= static_cast<uint8_t>(~ExtentEntry::kPartial);
	return reclaim_.drop_partial(r.extent);
}

Status Applier::clear(const sv_rec &r)
{
	SV_ASSIGN(const ExtentEntry *entry, current(r));
	if (!entry)
		return {};
	if (!entry->partial()) {
		Partial full;
		full.valid.word.fill(~uint64_t{0});
		pages_.set_partial(r.extent, full);
		SV_ASSIGN(ExtentEntry *changed, pages_.extent(r.extent, true));
		changed->flags |= ExtentEntry::kPartial;
	}
	SV_ASSIGN(const uint32_t parent, pages_.parent(r.extent));
	if (parent != 0)  // its block would come back [I5]
		return damage(r, fmt::format("extent {} has a parent, and loses a block", r.extent));
	SV_ASSIGN(ValidBits *bits, pages_.valid(r.extent));
	bits->word[r.word & SV_VALID_WORD] &= ~r.bits;
	return {};
}

Status Applier::unmap(const sv_rec &r)
{
	SV_ASSIGN(const bool known, known_layer(r));
	if (!known)
		return {};
	SV_ASSIGN(uint32_t *mapped, pages_.map_entry(r.layer, r.index, true));
	const uint32_t before = std::exchange(*mapped, (r.flags & SV_UNMAP_TOMBSTONE) != 0 ? kTombstone : 0);
	if (r.extent == 0)
		return before != 0 && before != kTombstone ? reclaim_.let_go(before) : Status();
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(r.extent, false));
	if (!entry->live())
		return {};
	stats_.freed.push_back({r.extent, entry->gen, 0});
	return reclaim_.free(r.extent, Reclaim::Kernel::kKnows);
}

// The extent gets a slot.
Status Applier::leave_fragments(uint32_t extent, ExtentEntry &entry)
{
	if (!entry.fragments())
		return {};
	SV_ASSIGN(Places *places, pages_.places(extent));
	*places = Places();
	entry.flags &= static_cast<uint8_t>(~ExtentEntry::kFragments);
	return {};
}

// They lie one behind the other now. What has no valid block may be left behind, and others not.
Status Applier::move_fragments(const sv_rec &r, const ExtentEntry &entry)
{
	if (!entry.fragments())
		return damage(r, fmt::format("extent {} has no fragments to be moved", r.extent));
	SV_ASSIGN(Places *places, pages_.places(r.extent));
	*places = Places();
	uint32_t place = r.slot;
	for (uint32_t i = 0; i < SV_FRAGS; i++)
		if ((r.arg >> i & 1) != 0)
			places->at[i] = place++;
	SV_ASSIGN(const ValidBits *bits, pages_.valid(r.extent));
	return covers(*places, *bits) ? Status() : damage(r, fmt::format("extent {} has valid blocks nowhere", r.extent));
}

Status Applier::move(const sv_rec &r)
{
	sv_rec where = r;
	if (r.arg != 0)
		where.slot = slot_of_place(r.slot);
	SV_TRY(check_slot(where));
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(r.extent, true));
	if (!entry->live()) {
		stats_.ignored++;
		return {};
	}
	SV_TRY(r.arg != 0 ? move_fragments(r, *entry) : leave_fragments(r.extent, *entry));
	entry->slot = r.arg != 0 ? 0 : r.slot;
	entry->member = static_cast<uint8_t>(r.member);
	entry->gen = r.gen;
	return {};
}

// Asked for by a pending row [I26]. A volume that has the layer already has had this record, or finish_snapshots().
Status Applier::layer(const sv_rec &r)
{
	SV_ASSIGN(const bool known, known_volume(r));
	if (!known)
		return {};
	if (const auto there = layers_.find(r.layer); there != layers_.end())
		return there->second.volume == r.volume && there->second.parent == r.parent ?
			       Status() :
			       damage(r, fmt::format("layer {} is there, and is another one", r.layer));
	SV_ASSIGN(const auto s, snapshot_row(db_, static_cast<uint32_t>(std::min<uint64_t>(r.arg, UINT32_MAX))));
	if (!s || s->state != SnapshotState::kPending || s->volume != r.volume || s->layer != r.parent ||
	    s->next_layer != r.layer || volumes_[r.volume].head != r.parent)
		return damage(r, fmt::format("nobody asked for layer {} of volume {}", r.layer, r.volume));
	SV_TRY(switch_head(db_, *s));
	layers_[r.layer] = {r.layer, r.volume, r.parent, 0};
	volumes_[r.volume].head = r.layer;
	return {};
}

Status Applier::snapdone(const sv_rec &r)
{
	SV_ASSIGN(const bool known, known_volume(r));
	if (!known)
		return {};
	SV_ASSIGN(const auto s, snapshot_of_layer(db_, r.layer));
	const bool pending = s && s->state == SnapshotState::kPending;
	if (!s || s->volume != r.volume || (pending && !layers_.contains(s->next_layer)))
		return damage(r, fmt::format("layer {} of volume {} is no snapshot's", r.layer, r.volume));
	return settle_snapshot(db_, s->id, pending ? SnapshotState::kDone : s->state);
}

// Nothing to do: the kernel was told by merge_step(), which knew it first. A layer of the chain must have taken what is
// from that number on.
Status Applier::own(const sv_rec &r)
{
	SV_ASSIGN(const bool known, known_volume(r));
	if (!known)
		return {};
	for (uint32_t layer = volumes_[r.volume].head; layer >= r.layer && layer != 0;) {
		const LayerRow &row = layers_[layer];
		if (row.lowest() <= r.layer)
			return {};
		layer = row.parent;
	}
	return damage(r, fmt::format("volume {} does not own layer {}", r.volume, r.layer));
}

// Of both, as an extent over what the parent lies over: what the child has copied from the parent is what it is there.
Result<std::optional<ValidBits>> Applier::written_of_both(uint32_t extent, uint32_t parent)
{
	SV_ASSIGN(const Partial *above, pages_.look(extent));
	const std::optional<ValidBits> own = above->written;
	if (!own)
		return own;
	SV_ASSIGN(const Partial *below, pages_.look(parent));
	return std::optional(both(*own, below->changed()));
}

// The extent gets the blocks and the parent that its parent has; and its slot, if it has swapped with it.
Status Applier::take_over(const sv_rec &r, const ExtentEntry &parent)
{
	SV_ASSIGN(ExtentEntry *child, pages_.extent(r.extent, true));
	if ((r.flags & SV_FOLD_SWAPPED) != 0) {
		if (parent.fragments())
			return damage(r, fmt::format("extent {} has no slot to be swapped", r.parent));
		SV_TRY(leave_fragments(r.extent, *child));
		child->slot = parent.slot;
		child->member = parent.member;
	}
	Partial merged;
	merged.valid.word.fill(~uint64_t{0});
	if (parent.partial()) {
		SV_ASSIGN(const ValidBits *own, pages_.valid(r.extent));
		SV_ASSIGN(const ValidBits *below, pages_.valid(r.parent));
		merged.valid = both(*own, *below);
		SV_ASSIGN(merged.parent, pages_.parent(r.parent));
	}
	if (merged.parent != 0) {
		SV_ASSIGN(merged.written, written_of_both(r.extent, r.parent));
	}
	SV_ASSIGN(const Places *places, pages_.places(r.extent));
	merged.places = *places;
	if (child->fragments() && !covers(merged.places, merged.valid))
		return damage(r, fmt::format("extent {} has valid blocks nowhere", r.extent));
	if (!merged.valid.all()) {
		pages_.set_partial(r.extent, merged);
		return {};
	}
	pages_.drop_partial(r.extent);
	child->flags &= static_cast<uint8_t>(~ExtentEntry::kPartial);
	return {};
}

Status Applier::fold(const sv_rec &r)
{
	SV_ASSIGN(const ExtentEntry *entry, current(r));
	if (!entry)
		return {};
	SV_ASSIGN(ExtentEntry *parent, pages_.extent(r.parent, true));
	if (!parent->live()) {
		stats_.ignored++;
		return {};
	}
	uint32_t named = 0;
	if (entry->partial()) {
		SV_ASSIGN(named, pages_.parent(r.extent));
	}
	if (named != r.parent)
		return damage(r, fmt::format("extent {} does not have {} as parent", r.extent, r.parent));
	if (!parent->orphan())
		return damage(r, fmt::format("extent {} is freed, and a layer maps it", r.parent));
	SV_TRY(take_over(r, *parent));
	stats_.freed.push_back({r.parent, parent->gen, 0});
	return reclaim_.free(r.parent, Reclaim::Kernel::kKnows);
}

Status Applier::record(const sv_rec &r)
{
	stats_.records++;
	SV_TRY(pages_.relieve());
	switch (r.type) {
	case SV_REC_MAP:
		return map(r);
	case SV_REC_VALID:
		return valid(r);
	case SV_REC_CLEAR:
		return clear(r);
	case SV_REC_UNMAP:
		return unmap(r);
	case SV_REC_FRAG:
		return frag(r);
	case SV_REC_MOVE:
		return move(r);
	case SV_REC_LAYER:
		return layer(r);
	case SV_REC_SNAPDONE:
		return snapdone(r);
	case SV_REC_OWN:
		return own(r);
	case SV_REC_FOLD:
		return fold(r);
	default:
		return Error(Code::kMissingFeature, "apply",
			     fmt::format("journal record {} (type {})", stats_.records, r.type),
			     "this svd does not know what it means", "install the newer svctl");
	}
}

}  // namespace

Result<sv_ring_cursor> Catalogue::applied()
{
	SV_ASSIGN(Query q, impl_->db->query("SELECT applied_seq, applied_off, applied_crc FROM pool"));
	SV_ASSIGN(const bool row, q.step());
	if (!row)
		return Error(Code::kNeedsCheck, "read", "catalogue", "it has no row for the pool");
	return sv_ring_cursor{q.u64(0), q.u64(1), q.u32(2), 0};
}

Result<ApplyStats> Catalogue::apply_batch(std::span<const sv_rec> records, const sv_ring_cursor &reached)
{
	ApplyStats stats;
	SV_TRY(impl_->large_transaction([&]() -> Status {
		SV_ASSIGN(const sv_ring_cursor before, applied());
		if (reached.seq < before.seq)
			return Error(Code::kNeedsCheck, "apply", "journal",
				     fmt::format("it goes back from batch {} to {}", before.seq, reached.seq));
		Applier applier(*this, *impl_->db, stats);
		SV_TRY(applier.begin());
		for (const sv_rec &r : records)
			SV_TRY(applier.record(r));
		SV_TRY(applier.finish());
		SV_ASSIGN(Query q,
			  impl_->db->query("UPDATE pool SET applied_seq = ?, applied_off = ?, applied_crc = ?"));
		return q.bind(reached.seq).bind(reached.off).bind(reached.prev_crc).run();
	}));
	return stats;
}

}  // namespace svd

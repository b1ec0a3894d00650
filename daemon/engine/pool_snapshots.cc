// SPDX-License-Identifier: GPL-2.0
// A pool's snapshots and clones: how they come up in the kernel, and what deleted ones leave behind. See pool.h.
//
// A snapshot is asked for in the catalogue, made by the kernel in one command, and then noted as done. svd may die between any
// two of these: the next one applies the journal, which says what the kernel did, and settles what was left (resolve_snapshots).
// In the kernel a snapshot is nothing, until it is activated: then it is a read-only volume of its number, into which the
// map is loaded that its chain of layers shows. A clone is loaded likewise, and then owns what it writes.
//
// A deleted snapshot's layer is merged into the one above it, a step at a time with the checkpoints (merge_some). When that has
// reached a head the kernel is told that the head now owns what the layer had; and what nothing needs any more it is
// told to free. All of that is in the catalogue first, and told again by the next svd if this one dies.
//
// What then lives on only as the parent of a partial extent the kernel folds into that one (fold_some), in rounds through the
// catalogue: until one finds nothing. What it has done the journal says, so nothing is kept here. Rounds of another kind follow
// new snapshots: they fill fragments over long chains (catalogue/fold.cc).
#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/catalogue/map_sources.h"
#include "daemon/engine/kill_point.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr uint64_t kMergeAtOnce = 16384;	// entries of layers: some tens of milliseconds
constexpr auto kFoldFor = std::chrono::milliseconds(200);	// after a checkpoint, and the next one comes 500 ms later
constexpr auto kFoldAgain = std::chrono::seconds(30);		// at first, then twice as long each time
constexpr auto kFoldAgainAtMost = std::chrono::hours(1);
constexpr size_t kMostPutOff = 4096;

}	// namespace

// ---- what the kernel knows of them ----

VolumeSpec Pool::snapshot_spec(const VolumeRow &of, const SnapshotRow &snapshot) const
{
	return {snapshot.id, of.name + "@" + snapshot.name, snapshot.size, true};
}

std::string Pool::snapshot_path(const VolumeRow &of, const SnapshotRow &snapshot) const
{
	return channel_ ? channel_->volume_path(snapshot_spec(of, snapshot)) : "";
}

Result<std::vector<VolumeSpec>> Pool::active_snapshots()
{
	std::vector<VolumeSpec> specs;
	SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
	for (const SnapshotRow &snapshot : snapshots) {
		if (!snapshot.active)
			continue;
		SV_ASSIGN(const VolumeRow of, catalogue_->volume(snapshot.volume));
		specs.push_back(snapshot_spec(of, snapshot));
	}
	return specs;
}

Error Pool::old_module(const char *verb, const std::string &object, const char *than)
{
	return Error{Code::kMissingFeature, verb, object, std::string("the kernel module that runs is older than ") + than,
		     "restart the machine, or unload and load dm-sv while no pool is up"}.with(Id::kModuleVersion);
}

Status Pool::refuse_old_module(const std::string &object) const
{
	return (features_ & SV_FEATURE_SNAPSHOT) != 0 ? Status() : old_module("make", object, "snapshots");
}

Status Pool::refuse_old_module_for_fragments()
{
	if ((features_ & SV_FEATURE_FRAGMENTS) != 0)
		return {};
	SV_ASSIGN(const auto members, catalogue_->members());
	uint64_t slots = 0;	// an older module has a number for each of them
	for (const MemberRow &m : members)
		slots += m.nr_slots;
	bool needed = false;
	SV_TRY(catalogue_->for_each_extent([&](std::span<const sv_extent> some) -> Status {
		needed = needed || std::any_of(some.begin(), some.end(), [slots](const auto &e) {
			return (e.flags & SV_EXTENT_FRAGS) != 0 || e.extent > slots; });
		return {};
	}));
	return needed ? old_module("serve", "pool " + name_, "fragments") : Status();
}

Status Pool::refuse_old_module_for_snapshots()
{
	SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	if ((features_ & SV_FEATURE_SNAPSHOT) != 0)
		return {};
	bool needed = !snapshots.empty() || std::any_of(volumes.begin(), volumes.end(), [](const auto &v) {
		return v.parent_layer != 0; });
	SV_TRY(catalogue_->for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
		needed = needed || std::any_of(some.begin(), some.end(), [](const auto &p) { return p.parent != 0; });
		return {};
	}));
	return needed ? refuse_old_module("pool " + name_) : Status();
}

// The kernel has it without a map. Where most of that is another one's it is told what differs, and keeps the rest once.
Status Pool::load_map(const sv_volume_info &view, MapSources &sources)
{
	if (!shares_maps())
		return load_whole_map(view.id);
	SV_ASSIGN(const auto source, sources.nearest(view.layer, view.size));
	if (source) {
		const Status shared = share_map(view.id, *source);
		if (shared.ok())
			return {};
		note(shared);
		SV_TRY(drop_from_kernel(view.id));	// that frees nothing: it has not begun to be used
		SV_TRY(channel_->tell(SV_OP_VOLUME_CREATE, view));
	}
	return load_whole_map(view.id);
}

Status Pool::load_whole_map(uint32_t id)
{
	const auto hidden = shares_maps() ? Catalogue::Hidden::kTell : Catalogue::Hidden::kLeaveOut;
	return catalogue_->for_each_map(id, [&](std::span<sv_map_entry> some) -> Status {
		SV_TRY(pace_->breathe());
		return channel_->tell_all(SV_OP_MAP, some); }, hidden);
}

// What the other one has in layers that this one has not the kernel knows: it may just have been written. What this one has there,
// and in layers of its own, the catalogue knows.
Status Pool::share_map(uint32_t id, const MapSource &source)
{
	constexpr uint32_t kAtOnce = 4096;
	constexpr uint64_t kEnd = SV_VOLUME_SIZE_MAX >> SV_EXTENT_SHIFT;
	SV_TRY(channel_->tell(SV_OP_SHARE, sv_share{id, source.volume, source.layer, 0}));
	kill_point("map-shared");
	for (uint64_t from = 0, to = 0; to != kEnd; from = to) {
		SV_TRY(pace_->breathe());
		std::vector<sv_map_entry> newer(kAtOnce);
		newer[0] = {from, id, 0, source.layer, 0};
		SV_ASSIGN(const auto answer, channel_->command(SV_OP_DUMP_NEWER, newer.data(), sizeof(newer[0]), kAtOnce));
		std::vector<uint64_t> others;
		for (uint32_t i = 0; i < answer.count; i++)
			others.push_back(newer[i].index);
		to = answer.count < kAtOnce ? kEnd : others.back() + 1;
		if (!std::ranges::is_sorted(others) || to > kEnd || (!others.empty() && others.front() < from))
			return Error(Code::kFailure, "share", "map", "what the kernel tells of it makes no sense", "");
		SV_TRY(catalogue_->for_each_difference(id, source.layer, from, to, others, [&](std::span<sv_map_entry> some) {
			return channel_->tell_all(SV_OP_MAP, some); }));
	}
	return channel_->tell(SV_OP_SHARE, sv_share{id, 0, 0, 0});
}

// While others are up: they have maps already.
Status Pool::load_among_others(const sv_volume_info &view)
{
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	SV_ASSIGN(MapSources sources, catalogue_->map_sources());
	for (const VolumeRow &other : volumes)
		if (other.state == VolumeState::kActive && other.id != view.id)
			sources.add(other.id, other.layer, other.size);
	return load_map(view, sources);
}

Status Pool::drop_from_kernel(uint32_t id)
{
	sv_volume_info info{};
	info.id = id;
	const Status dropped = channel_->tell(SV_OP_VOLUME_DROP, info);
	return !dropped.ok() && dropped.error().code == Code::kNotFound ? Status() : dropped;
}

// ---- creating ----

Status Pool::take_cut(const std::vector<SnapshotRow> &rows)
{
	std::vector<sv_snapshot> cut;
	for (const SnapshotRow &row : rows)
		cut.push_back({row.volume, row.next_layer, row.id});
	const auto tell = [&]() -> Status {
		SV_TRY(channel_->command(SV_OP_SNAPSHOT, cut.data(), sizeof(cut[0]), static_cast<uint32_t>(cut.size())));
		return {};
	};
	const Status done = tell();
	if (done.ok() || done.error().code != Code::kNoSpace)
		return done;
	SV_TRY(checkpoint());	// the journal has room again
	return tell();
}

Result<std::vector<SnapshotRow>> Pool::create_snapshots(std::span<const SnapshotWanted> wanted, uint64_t now)
{
	SV_TRY(refuse_old_module("snapshots"));
	SV_ASSIGN(std::vector<SnapshotRow> rows, catalogue_->begin_snapshots(wanted, now));
	kill_point("create-snapshot-in-catalogue");
	Status done = take_cut(rows);
	kill_point("create-snapshot-in-kernel");
	std::vector<uint32_t> ids;
	for (const SnapshotRow &row : rows)
		ids.push_back(row.id);
	fill_.later = (features_ & SV_FEATURE_FILL) != 0;	// chains are longer by what was written since the last ones
	if (done.ok())
		done = catalogue_->finish_snapshots(ids);
	if (done.ok())
		return rows;
	unresolved_ = true;
	note(resolve_snapshots());
	const bool made = std::all_of(ids.begin(), ids.end(), [this](uint32_t id) {
		const auto row = catalogue_->snapshot(id);
		return row.ok() && row.value().state == SnapshotState::kDone; });
	if (made)
		return rows;
	return std::move(done).error();
}

// What is pending is what the journal says that it is, once all of it is applied. If that fails it is done after the next
// checkpoint.
Status Pool::resolve_snapshots()
{
	SV_TRY(checkpoint());
	SV_TRY(catalogue_->resolve_pending());
	unresolved_ = false;
	return find_deleted_snapshots();
}

// In the catalogue it is being deleted until its map is loaded: if svd dies before, the next one does just that.
Result<VolumeRow> Pool::begin_clone(const VolumeRow &wanted)
{
	VolumeRow row = wanted;
	row.state = VolumeState::kDeleting;
	SV_TRY(checkpoint());	// the catalogue has all that the snapshot has
	return catalogue_->create_volume(row);
}

Status Pool::load_volume(const VolumeRow &volume)
{
	const sv_volume_info info = volume_info(volume);
	SV_TRY(channel_->tell(SV_OP_VOLUME_CREATE, info));
	return load_among_others(info);
}

void Pool::give_up_clone(uint32_t id)
{
	const Status begun = catalogue_->begin_delete_volume(id);
	note(begun);
	if (!begun.ok())
		return;		// it may still be there, and then it needs what the kernel has of it
	to_drop_.insert(id);	// and the next checkpoints see to it
	note(drain_deletions());
}

Result<VolumeRow> Pool::create_clone(const std::string &name, uint64_t size, const SnapshotRow &from)
{
	SV_TRY(refuse_old_module("clone " + name));
	VolumeRow wanted;
	wanted.name = name;
	wanted.size = size;
	wanted.parent_layer = from.layer;
	SV_ASSIGN(VolumeRow volume, begin_clone(wanted));
	kill_point("create-clone-in-catalogue");
	Status done = load_volume(volume);
	kill_point("create-clone-in-kernel");
	if (done.ok())
		done = catalogue_->confirm_volume(volume.id);
	kill_point("create-clone-confirmed");
	if (done.ok())
		done = channel_->create_volume(volume_spec(volume));
	if (done.ok()) {
		volume.state = VolumeState::kActive;
		return volume;
	}
	give_up_clone(volume.id);
	return std::move(done).error();
}

// ---- rolling back ----

// A clone of the snapshot takes the volume's place, with its name, its properties and its snapshots; what the volume had of
// its own goes as that of a deleted one does. Until the catalogue says so nothing has changed but that the device was away.
Result<VolumeRow> Pool::rollback_volume(const VolumeRow &volume, const SnapshotRow &to)
{
	SV_TRY(refuse_old_module("volume " + volume.name));
	SV_TRY(refuse_open("roll back volume", volume));
	if (unresolved_)
		SV_TRY(resolve_snapshots());
	VolumeRow wanted = volume;
	wanted.parent_layer = to.layer;
	SV_ASSIGN(VolumeRow next, begin_clone(wanted));
	kill_point("rollback-in-catalogue");
	Status done = load_volume(next);
	kill_point("rollback-in-kernel");
	if (done.ok())
		done = channel_->remove_volume(volume_spec(volume));
	kill_point("rollback-device-removed");
	if (done.ok())
		done = checkpoint();	// all that was written to it is in the catalogue
	if (done.ok())
		done = catalogue_->replace_volume(volume.id, next.id);
	kill_point("rollback-replaced");
	const bool replaced = done.ok();
	next.state = VolumeState::kActive;
	if (replaced && next.active)
		done = channel_->create_volume(volume_spec(next));
	kill_point("rollback-shown");
	if (done.ok()) {
		to_drop_.insert(volume.id);
		note(drain_deletions());
		return next;
	}
	if (catalogue_is_lost())
		return unknown_outcome("roll back volume", volume, done.error());
	// Nobody has seen it: the volume is what it was.
	Status back = replaced ? channel_->remove_volume(volume_spec(next)) : Status();
	if (back.ok() && replaced)
		back = catalogue_->replace_volume(next.id, volume.id);
	const VolumeRow &stays = back.ok() ? volume : next;
	note(back);
	if (stays.active && !channel_->create_volume(volume_spec(stays)).ok())
		note(catalogue_->set_active(stays.id, false));
	give_up_clone(back.ok() ? next.id : volume.id);
	return std::move(done).error();
}

Result<HeadUse> Pool::written_since_snapshot(const VolumeRow &volume)
{
	SV_TRY(refuse_open("roll back volume", volume));
	SV_TRY(unresolved_ ? resolve_snapshots() : checkpoint());
	return catalogue_->head_use(volume.id);
}

// ---- showing ----

Status Pool::load_view(const VolumeSpec &spec, const SnapshotRow &snapshot)
{
	sv_volume_info info{};
	info.id = snapshot.id;
	info.layer = info.owned_since = snapshot.layer;
	info.flags = SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY | (shares_maps() ? SV_VOLUME_WHOLE : 0);
	info.size = snapshot.size;
	info.tiers = ~0ull;
	SV_TRY(drop_from_kernel(snapshot.id));	// what was left of an attempt before
	SV_TRY(channel_->tell(SV_OP_VOLUME_CREATE, info));
	Status loaded = load_among_others(info);
	if (loaded.ok())
		loaded = channel_->create_volume(spec);
	if (!loaded.ok())
		note(drop_from_kernel(snapshot.id));
	return loaded;
}

// As activate_volume().
Status Pool::activate_snapshot(const VolumeRow &of, const SnapshotRow &snapshot)
{
	SV_TRY(refuse_old_module(of.name + "@" + snapshot.name));
	if (state_ == PoolState::kActive)
		SV_TRY(checkpoint());	// the catalogue has all that the snapshot has
	SV_TRY(catalogue_->set_snapshot_active(snapshot.id, true));
	kill_point("activate-snapshot-in-catalogue");
	const Status done = load_view(snapshot_spec(of, snapshot), snapshot);
	if (!done.ok())
		note(catalogue_->set_snapshot_active(snapshot.id, false));
	return done;
}

Status Pool::refuse_open(const char *attempt, const VolumeRow &of, const SnapshotRow &snapshot) const
{
	const VolumeSpec spec = snapshot_spec(of, snapshot);
	return refuse_open_device(attempt, name_ + "/" + spec.name, "it", spec);
}

Status Pool::deactivate_snapshot(const VolumeRow &of, const SnapshotRow &snapshot)
{
	const VolumeSpec spec = snapshot_spec(of, snapshot);
	SV_TRY(refuse_open("deactivate snapshot", of, snapshot));
	SV_TRY(channel_->remove_volume(spec));
	kill_point("deactivate-snapshot-removed");
	SV_TRY(drop_from_kernel(snapshot.id));
	return catalogue_->set_snapshot_active(snapshot.id, false);
}

// One without a device may be loaded in part; one with a device may have that of an older name.
Status Pool::restore_view(const SnapshotRow &snapshot)
{
	SV_ASSIGN(const VolumeRow of, catalogue_->volume(snapshot.volume));
	const VolumeSpec spec = snapshot_spec(of, snapshot);
	SV_ASSIGN(const bool there, channel_->volume_exists(spec));
	return there ? channel_->create_volume(spec) : load_view(spec, snapshot);
}

// After a restart of svd. For one that cannot be shown the pool does not stay down.
void Pool::restore_views()
{
	const auto snapshots = catalogue_->snapshots();
	for (size_t i = 0; snapshots.ok() && i < snapshots.value().size(); i++) {
		const SnapshotRow &snapshot = snapshots.value()[i];
		const Status shown = snapshot.active ? restore_view(snapshot) : Status();
		note(shown);
		if (!shown.ok())
			note(catalogue_->set_snapshot_active(snapshot.id, false));
	}
}

// ---- deleting ----

Status Pool::delete_snapshot(const SnapshotRow &snapshot)
{
	SV_TRY(catalogue_->begin_delete_snapshot(snapshot.id));
	kill_point("delete-snapshot-in-catalogue");
	merging_ = true;
	return {};
}

Status Pool::find_deleted_snapshots()
{
	SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
	fold_.on = !read_only_;
	merging_ = std::any_of(snapshots.begin(), snapshots.end(), [](const auto &s) { return s.state == SnapshotState::kDeleting; });
	return {};
}

Status Pool::merge_some()
{
	if (!merging_)
		return {};
	SV_ASSIGN(const MergeProgress progress, catalogue_->merge_step(kMergeAtOnce));
	kill_point("merge-in-catalogue");
	merging_ = !progress.done;
	fold_.on = fold_.again = true;
	to_own_.insert(to_own_.end(), progress.own.begin(), progress.own.end());
	return {};
}

// Until kernel and catalogue have the same again: what is deleted is merged and freed, as far as it can be now.
Status Pool::settle_what_is_owed(Pace &pace)
{
	do {
		SV_TRY(checkpoint());
		SV_TRY(do_what_is_owed());
		SV_TRY(pace.breathe());
	} while (merging_);
	SV_TRY(checkpoint());
	return tell_freed();
}

Result<CommandResult> Pool::tell_fold(std::vector<sv_fold> &pairs)
{
	return channel_->command(SV_OP_FOLD, pairs.data(), sizeof(sv_fold), static_cast<uint32_t>(pairs.size()));
}

// Which of them the kernel has left as they were the journal says; until it is applied that may be any. A kernel that
// refuses has left them all.
Status Pool::fold_pairs(std::vector<sv_fold> pairs)
{
	const auto result = tell_fold(pairs);
	const uint64_t done = result.ok() ? result.value().done : 0;
	kill_point("folded");
	fold_.folded += done;
	asked_ = asked_ || done != 0;	// what they no longer need the next checkpoint gives back
	fold_.later = fold_.later || (!fold_.on && done != 0);	// there may be a chain
	for (const sv_fold &f : pairs) {
		if (done < pairs.size())
			put_off_fold(f.parent);
		else
			fold_.put_off.erase(f.parent);
	}
	return result.ok() ? Status() : result.error();
}

// It was being written, or a member cannot be read: each try holds writes, and may take that member long.
void Pool::put_off_fold(uint32_t parent)
{
	if (fold_.put_off.size() >= kMostPutOff && !fold_.put_off.contains(parent)) {
		fold_.later = true;
		return;
	}
	PutOff &put_off = fold_.put_off[parent];
	put_off.wait = std::clamp<Clock::duration>(2 * put_off.wait, kFoldAgain, kFoldAgainAtMost);
	put_off.due = Clock::now() + put_off.wait;
}

// Extents with fragments that had to become larger, whose children are to take over what they have.
void Pool::fold_outgrown(const std::vector<uint32_t> &parents)
{
	if (fold_.put_off.size() + parents.size() > kMostPutOff) {
		fold_.on = fold_.again = true;
		return;
	}
	for (const uint32_t parent : parents)
		fold_.put_off.insert_or_assign(parent, PutOff{Clock::now(), {}});
}

// Outgrown ones that were not tried yet: their space is on its way.
bool Pool::folds_wait() const
{
	return std::ranges::any_of(fold_.put_off, [](const auto &item) { return item.second.wait == Clock::duration(); });
}

// Goes on with the round, whatever becomes of what it finds now. A chain shrinks by a link a round.
Status Pool::fold_step()
{
	SV_ASSIGN(FoldStep step, catalogue_->fold_step(fold_.after));
	if (fold_.after == 0)
		fold_.folded = 0;
	fold_.after = step.after;
	for (auto &[members, pairs] : step.pairs) {
		std::erase_if(pairs, [this](const sv_fold &f) {
			if (fold_.put_off.contains(f.parent))
				return true;
			if (!fold_.touched.contains(f.extent) && !fold_.touched.contains(f.parent)) {
				fold_.touched.insert({f.extent, f.parent});
				return false;
			}
			return fold_.again = true; });
		if (!pairs.empty())
			SV_TRY(fold_pairs(pairs));
	}
	if (!step.done)
		return {};
	fold_.on = fold_.folded != 0;
	fold_.later = fold_.later || (!fold_.on && std::exchange(fold_.again, false));
	fold_.after = 0;
	return {};
}

// Likewise, through what is to be filled. It gives nothing back, so all that does goes before it, and what the kernel leaves as
// it was is not looked after: the round ends when none is filled.
Status Pool::fill_step()
{
	FoldLimits limits;
	limits.filling = &fill_.asked;
	SV_ASSIGN(FoldStep step, catalogue_->fold_step(fill_.after, limits));
	if (step.wait) {
		fill_.on = false;
		fill_.later = true;
		fill_.after = 0;
		return {};
	}
	if (fill_.after == 0)
		fill_.filled = 0;
	fill_.after = step.after;
	std::vector<sv_fold> all;
	for (auto &[members, pairs] : step.pairs) {
		fill_.later = std::erase_if(pairs, [this](const sv_fold &f) { return fold_.touched.contains(f.extent); }) != 0 || fill_.later;
		all.insert(all.end(), pairs.begin(), pairs.end());
	}
	if (!all.empty())
		SV_TRY(catalogue_->note_fills(all));
	kill_point("fills-in-catalogue");
	for (auto &[members, pairs] : step.pairs) {
		if (pairs.empty())
			continue;
		SV_ASSIGN(const auto result, tell_fold(pairs));
		fill_.filled += result.done;
	}
	if (!step.done)
		return {};
	fill_.on = fill_.filled != 0;
	fill_.after = 0;
	return {};
}

std::vector<uint32_t> Pool::folds_that_are_due() const
{
	std::vector<uint32_t> due;
	const auto now = Clock::now();
	for (const auto &[parent, put_off] : fold_.put_off)
		if (put_off.due <= now && due.size() < FoldLimits().pairs)
			due.push_back(parent);
	return due;
}

Status Pool::fold_again(const std::vector<uint32_t> &parents)
{
	SV_ASSIGN(const FoldStep step, catalogue_->fold_step(parents));
	std::set<uint32_t> there;
	for (const auto &[members, pairs] : step.pairs)
		for (const sv_fold &f : pairs) {
			there.insert(f.parent);
			fold_.touched.insert({f.extent, f.parent});
		}
	for (const uint32_t parent : parents)
		if (!there.contains(parent))
			fold_.put_off.erase(parent);
	Status done;
	for (const auto &[members, pairs] : step.pairs)
		if (Status one = fold_pairs(pairs); !one.ok())
			done = std::move(one);
	return done;
}

// With a catalogue that has all of the journal: it follows a checkpoint. An error is no reason to do nothing else.
void Pool::fold_some()
{
	if ((features_ & SV_FEATURE_FOLD) == 0) {
		fold_ = {};
		fill_ = {};
		return;
	}
	fold_.on = std::exchange(fold_.later, false) || fold_.on;
	fold_.touched.clear();
	fill_.on = std::exchange(fill_.later, false) || fill_.on;
	fill_.asked.clear();
	const auto until = Clock::now() + kFoldFor;
	Status done;
	for (bool more = true; done.ok() && more && Clock::now() < until;) {
		const auto due = folds_that_are_due();
		if (!due.empty())
			done = fold_again(due);
		else if (fold_.on)
			done = fold_step();
		else if (fill_.on)
			done = fill_step();
		// The next round is for when the catalogue knows of this one.
		more = !due.empty() || fold_.after != 0 || (!fold_.on && fill_.after != 0);
	}
	if (done.ok())
		return;
	fold_.later = std::exchange(fold_.on, false) || fold_.later;
	fold_.after = 0;	// what was not told of it is found again
	fold_.folded = 0;
	fill_.later = std::exchange(fill_.on, false) || fill_.later;
	fill_.after = 0;
	note(done);
}

Status Pool::tell_owned()
{
	while (!to_own_.empty()) {
		const Owned own = to_own_.front();
		const auto row = catalogue_->volume(own.volume);
		if (row.ok() && row.value().layer == own.layer)
			SV_TRY(channel_->tell(SV_OP_OWN, sv_own{own.volume, row.value().owned_since,
								row.value().parent_layer != 0 ? SV_VOLUME_CHAINED : 0u, own.layer}));
		to_own_.erase(to_own_.begin());
	}
	kill_point("merge-owned");
	return {};
}

// By merging, or by the journal: the last partial extent that named one has become whole. After volumes that are gone were
// dropped: what they had the kernel frees with them. What is freed here the next checkpoint gives back.
Status Pool::tell_freed()
{
	for (;;) {
		SV_ASSIGN(std::vector<sv_freed> some, catalogue_->freeing());
		if (some.empty())
			return {};
		SV_TRY(channel_->tell_all(SV_OP_FREE, some));
		kill_point("merge-freed");
		SV_TRY(catalogue_->freeing_told(some));
		asked_ = true;
	}
}

}	// namespace svd

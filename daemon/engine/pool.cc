// SPDX-License-Identifier: GPL-2.0
// A pool's members and volumes. See pool.h.
#include "daemon/engine/pool.h"

#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/engine/kill_point.h"
#include "daemon/kernel/partition.h"
#include "daemon/kernel/probe.h"

namespace svd {

namespace {

bool same_device(const std::string &a, const std::string &b)
{
	const auto first = device_identity(a);
	const auto second = device_identity(b);
	return a == b || (first.ok() && second.ok() && first.value() == second.value());
}

}	// namespace

const char *state_name(PoolState state)
{
	switch (state) {
	case PoolState::kActive:
		return "active";
	case PoolState::kReadOnly:
		return "read-only";
	case PoolState::kActivating:
		return "activating";
	case PoolState::kRestoring:
		return "restoring";
	default:
		return "down";
	}
}

// ---- members ----

void Pool::begin_scan()
{
	conflict_.clear();
	if (down())
		members_.clear();
}

void Pool::found(const FoundMember &member)
{
	const auto known = members_.find(member.label.member);
	if (known != members_.end() && !same_device(known->second.path, member.path)) {
		conflict_ = fmt::format("both {} and {} say that they are its member {}", known->second.path,
					member.path, member.label.member);
		return;
	}
	if (!down() || (known != members_.end() && !known->second.named.empty()))
		return;		// the same device under another name
	members_[member.label.member] = Member{member.path, member.named, member.label, member.state, nullptr};
	name_ = newest_label().pool_name;
}

uint32_t Pool::nr_members() const
{
	uint64_t generation = 0;
	uint32_t count = 0;
	for (const auto &[index, member] : members_)
		if (member.label.generation >= generation) {
			generation = member.label.generation;
			count = std::max(count, member.label.nr_members);
		}
	return count;
}

std::vector<uint32_t> Pool::missing() const
{
	std::vector<uint32_t> gone;
	for (uint32_t index = 0; index < nr_members(); index++)
		if (!members_.contains(index))
			gone.push_back(index);
	return gone;
}

std::vector<uint32_t> Pool::with_flag(uint32_t flag) const
{
	std::vector<uint32_t> indices;
	for (const auto &[index, member] : members_)
		if ((member.label.flags & flag) && !(member.label.flags & SV_LABEL_STALE))
			indices.push_back(index);
	return indices;
}

PoolSpec Pool::spec() const
{
	std::map<uint32_t, MemberSpec> all;
	for (const auto &[index, member] : members_)
		all[index] = {member.path, member.label.nr_slots};
	for (const auto &[index, row] : absent_)
		all[index] = {"", row.nr_slots};
	PoolSpec spec{name_, uuid_, {}, read_only_, 0};
	for (const auto &[index, member] : all) {
		spec.members.push_back(member);
		spec.size += static_cast<uint64_t>(member.slots) << SV_EXTENT_SHIFT;
	}
	return spec;
}

const Pool::Damage &Pool::damage(uint32_t volume) const
{
	static const Damage none;
	const auto found = damage_.find(volume);
	return found == damage_.end() ? none : found->second;
}

Status Pool::erase_labels()
{
	SV_TRY(end_discards("delete pool"));
	for (auto &[index, member] : members_) {
		const log::Scope scope({name_, "", member.path});
		SV_ASSIGN(const auto there, read_label(member.path));
		if (!there || std::memcmp(there->label.member_uuid, member.label.member_uuid, 16) != 0) {
			log::warning(Id::kMemberReused, "pool {}: {} is not its member any more: left alone", name_, member.path);
			continue;
		}
		{
			SV_ASSIGN(const auto file, BlockFile::open(member.path, BlockFile::Mode::kExclusive));
			SV_TRY(erase_label(*file, member.label));
		}
		tell_udev(member.path);
		SV_TRY(remove_partition_table(member.path));
	}
	return {};
}

void Pool::add_member(const FoundMember &added)
{
	members_[added.label.member] = Member{added.path, added.named, added.label, LabelState::kSound, nullptr, false, false};
	const Status done = admit_members();
	const log::Scope scope({name_, "", added.path});
	if (!done.ok())
		log::warning(Id::kMemberPending, "pool {}: {} is a member, but not in use yet: {}", name_, added.path, done.error().message());
}

// What a volume takes (NOWAIT, the alignment of buffers) is what all members take when its table is loaded: so before any of
// its data goes to a new one.
Status Pool::stack_volumes_again()
{
	SV_ASSIGN(const auto all, devices());
	for (const VolumeSpec &device : all) {
		SV_ASSIGN(const bool exists, channel_->volume_exists(device));
		if (exists)
			note(channel_->resize_volume(device));	// its space is not withheld from the others
	}
	return {};
}

// Catalogue, kernel and the other labels learn of members whose own label is all that they have so far.
Status Pool::admit_members()
{
	const auto all = [this](auto is) { return std::all_of(members_.begin(), members_.end(), is); };
	if (all([](const auto &item) { return item.second.admitted; }))
		return {};
	for (auto &[index, member] : members_) {
		if (member.file)
			continue;
		SV_ASSIGN(member.file, BlockFile::open(member.path, BlockFile::Mode::kReadWrite));
	}
	SV_TRY(catalogue_new_members());
	kill_point("add-device-in-catalogue");
	if (!all([](const auto &item) { return item.second.granted; })) {
		SV_TRY(channel_->reload(spec()));
		SV_TRY(stack_volumes_again());
		SV_TRY(tell_closed());
	}
	kill_point("add-device-in-kernel");
	for (auto &[index, member] : members_) {
		if (!member.granted)
			SV_TRY(channel_->tell(SV_OP_GRANT, sv_grant{index, 0, member.label.nr_slots, 0}));
		member.granted = true;
	}
	kill_point("add-device-granted");
	const sv_label newest = newest_label();
	for (auto &[index, member] : members_) {
		copy_shared(newest, &member.label);
		SV_TRY(write_label(*member.file, member.label));
		member.admitted = true;
	}
	evacuation_.try_again(Clock::now());
	return {};
}

// ---- life ----

Status Pool::refuse_open_device(const char *attempt, const std::string &object, const std::string &called,
				const VolumeSpec &device) const
{
	SV_ASSIGN(const VolumeUse use, channel_->volume_use(device));
	if (!use.in_use)
		return {};
	const std::string path = channel_->volume_path(device);
	if (use.by.empty())
		return Error{Code::kBusy, attempt, object, called + " is in use by something that cannot be seen from here",
			     fmt::format("a mount in a container, an export: lsblk {0}; lsof {0}", path)};
	return Error{Code::kBusy, attempt, object, fmt::format("{} is in use: {}", called, use.by), use.next};
}

// More than the kernel tells of could not be taken over by another svd.
Status Pool::refuse_one_more(const char *attempt, const std::string &object)
{
	SV_ASSIGN(const auto all, devices());
	if (all.size() < kMostVolumes)
		return {};
	return Error{Code::kNoSpace, attempt, name_ + "/" + object,
		     fmt::format("the pool has {} volumes and active snapshots, and can have no more", all.size()),
		     "delete some volumes, deactivate snapshots, or create another pool"};
}

Status Pool::refuse_open(const char *attempt, const VolumeRow &volume) const
{
	return refuse_open_device(attempt, name_ + "/" + volume.name, "it", volume_spec(volume));
}

Result<std::vector<VolumeSpec>> Pool::devices()
{
	SV_ASSIGN(std::vector<VolumeSpec> all, active_snapshots());
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes)
		all.push_back(volume_spec(volume));
	return all;
}

Status Pool::refuse_open_volumes(const char *attempt)
{
	SV_ASSIGN(const auto all, devices());
	for (const VolumeSpec &device : all)
		SV_TRY(refuse_open_device(attempt, name_, "volume " + device.name, device));
	return {};
}

Status Pool::deactivate()
{
	if (!up())
		return {};
	SV_TRY(refuse_open_volumes("deactivate pool"));
	SV_TRY(end_discards("deactivate pool"));
	SV_ASSIGN(const auto all, devices());
	if (state_ == PoolState::kActive)
		SV_TRY(checkpoint());
	const Status removed = remove_devices(all);
	if (!removed.ok()) {	// users find all volumes where they were
		note(create_volume_devices());
		restore_views();
		return removed;
	}
	const Status closed = catalogue_->close();
	close_all();
	log::notice("pool {} is down", name_);
	return closed;
}

Status Pool::remove_devices(const std::vector<VolumeSpec> &devices)
{
	for (const VolumeSpec &device : devices)
		SV_TRY(channel_->remove_volume(device));
	return channel_->remove();
}

void Pool::set_problem(const Status &result, Id otherwise)
{
	problem_.reset();
	if (result.ok())
		return;
	const Error &error = result.error();
	const Id kind = error.code == Code::kMissingFeature ? Id::kMissingFeature : otherwise;
	problem_ = Problem{error.own_id.value_or(kind), error.without_hint(), error.hint};
}

bool Pool::is_news(const Error &error) const
{
	return !problem_ || problem_->what != error.without_hint();
}

std::string Pool::next_step(const std::string &name) const
{
	const std::string command = "svctl " + std::string(up() ? "check " : "activate ") + name;
	const std::string first = problem_ ? problem_->next : "";
	return first.empty() || first == command || first.starts_with("run 'svctl check'") ? command : first + "; then " + command;
}

// What is only done to undo, or is repeated later.
void Pool::note(const Status &result) const
{
	if (!result.ok())
		log::error(result.error().id(), "pool {}: {}", name_, result.error().message());
}

// ---- volumes ----

VolumeSpec Pool::volume_spec(const VolumeRow &volume) const
{
	return {volume.id, volume.name, volume.size, read_only_};
}

sv_volume_info Pool::volume_info(const VolumeRow &volume) const
{
	sv_volume_info info{};
	info.id = volume.id;
	info.layer = volume.layer;
	info.owned_since = volume.owned_since;
	info.flags = volume.flags | (volume.parent_layer != 0 ? SV_VOLUME_CHAINED : 0) |
		     (shares_maps() ? SV_VOLUME_WHOLE : 0);
	info.size = volume.size;
	info.tiers = volume.tiers;
	return info;
}

std::string Pool::volume_path(const VolumeRow &volume) const
{
	return channel_ ? channel_->volume_path(volume_spec(volume)) : "";
}

Result<std::vector<sv_volume_info>> Pool::volumes_in_kernel()
{
	std::vector<sv_volume_info> all(kMostVolumesInKernel);
	SV_ASSIGN(const auto answer, channel_->command(SV_OP_VOLUMES, all.data(), sizeof(all[0]), kMostVolumesInKernel));
	all.resize(answer.count);
	return all;
}

std::map<uint32_t, uint64_t> Pool::mapped()
{
	std::map<uint32_t, uint64_t> extents;
	const auto there = volumes_in_kernel();
	const auto volumes = catalogue_->volumes();
	for (size_t i = 0; there.ok() && i < there.value().size(); i++)
		extents[there.value()[i].id] = there.value()[i].mapped;
	for (size_t i = 0; !there.ok() && volumes.ok() && i < volumes.value().size(); i++) {
		const auto mapped = catalogue_->mapped(volumes.value()[i].id);
		extents[volumes.value()[i].id] = mapped.ok() ? mapped.value() : 0;
	}
	return extents;
}

Result<std::optional<VolumeLatency>> Pool::latency(uint32_t volume)
{
	if ((features_ & SV_FEATURE_HISTOGRAMS) == 0)
		return std::optional<VolumeLatency>();
	VolumeLatency latency;
	latency.rows.resize(SV_HISTOGRAMS_MAX);
	latency.rows[0].volume = volume;
	SV_ASSIGN(const auto answer, channel_->command(SV_OP_HISTOGRAMS, latency.rows.data(), sizeof(sv_histogram),
						       SV_HISTOGRAMS_MAX));
	latency.rows.resize(answer.count);
	return std::optional<VolumeLatency>(std::move(latency));
}

std::string Pool::tier_name(uint32_t rank) const
{
	for (const auto &[index, member] : members_)
		if (member.label.tier == rank)
			return member.label.tier_name;
	for (const auto &[index, row] : absent_)
		if (row.tier == rank)
			return row.tier_name;
	return "";
}

Result<VolumeRow> Pool::create_volume(const std::string &name, uint64_t size)
{
	VolumeRow wanted;
	wanted.name = name;
	wanted.size = size;
	SV_ASSIGN(const VolumeRow volume, catalogue_->create_volume(wanted));
	kill_point("create-volume-in-catalogue");
	Status done = channel_->tell(SV_OP_VOLUME_CREATE, volume_info(volume));
	if (done.ok())
		done = channel_->create_volume(volume_spec(volume));
	if (done.ok())
		return volume;
	note(delete_volume(volume));
	return std::move(done).error();
}

// First the kernel's map, which may be larger than its volume; at last its device, when writes beyond the old size
// may come.
Status Pool::grow_volume(const VolumeRow &volume, uint64_t size)
{
	VolumeRow grown = volume;
	grown.size = size;
	SV_TRY(check_volume_size(size, volume.name));
	SV_TRY(channel_->tell(SV_OP_VOLUME_RESIZE, volume_info(grown)));
	SV_TRY(catalogue_->resize_volume(volume.id, size));
	kill_point("resize-volume-in-catalogue");
	const Status done = volume.active ? channel_->resize_volume(volume_spec(grown)) : Status();
	if (!done.ok())
		note(catalogue_->take_back_growth(volume.id, volume.size));
	return done;
}

Status Pool::rename_volume(const VolumeRow &volume, const std::string &to)
{
	SV_TRY(catalogue_->rename_volume(volume.id, to));
	kill_point("rename-volume-in-catalogue");
	const Status done = volume.active ? channel_->rename_volume(volume_spec(volume), to) : Status();
	if (!done.ok())
		note(catalogue_->rename_volume(volume.id, volume.name));
	else
		note(rename_snapshot_devices(volume, to));
	return done;
}

// The devices of its snapshots have its name, too. One that cannot be renamed is by the next svd (restore_view).
Status Pool::rename_snapshot_devices(const VolumeRow &of, const std::string &to)
{
	SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
	for (const SnapshotRow &snapshot : snapshots)
		if (snapshot.active && snapshot.volume == of.id)
			note(channel_->rename_volume(snapshot_spec(of, snapshot), to + "@" + snapshot.name));
	return {};
}

// svd may die between the two steps of these: the next one finds the volume active in the catalogue, and makes its device
// if there is none. So the first comes up, and the second, which nobody was told of, has not happened.
Status Pool::activate_volume(const VolumeRow &volume)
{
	SV_TRY(catalogue_->set_active(volume.id, true));
	kill_point("activate-volume-in-catalogue");
	const Status done = channel_->create_volume(volume_spec(volume));
	if (!done.ok())
		note(catalogue_->set_active(volume.id, false));
	return done;
}

Status Pool::deactivate_volume(const VolumeRow &volume)
{
	SV_TRY(refuse_open("deactivate volume", volume));
	SV_TRY(channel_->remove_volume(volume_spec(volume)));
	kill_point("deactivate-volume-removed");
	const Status done = catalogue_->set_active(volume.id, false);
	if (!done.ok())
		note(channel_->create_volume(volume_spec(volume)));
	return done;
}

// A transaction during which the last copy failed may be what the device shows once it works again. A volume that is deleted
// then must not be written to meanwhile: whoever gets this error leaves the device away.
bool Pool::catalogue_is_lost() const { return catalogue_->copies_in_sync() == 0; }

Error Pool::unknown_outcome(const char *attempt, const VolumeRow &volume, const Error &error) const
{
	return Error{error.code, attempt, name_ + "/" + volume.name,
		     error.without_hint() + "; whether it was done is known once the catalogue can be read again: until then the volume has "
					    "no device",
		     "replace or reattach the device, then systemctl restart svd"};
}

// The catalogue's mark is the moment of truth. What follows is repeated with the next checkpoint if it fails, and at
// the next activation if svd dies here.
Status Pool::delete_volume(const VolumeRow &volume)
{
	SV_TRY(refuse_open("delete volume", volume));
	SV_TRY(channel_->remove_volume(volume_spec(volume)));
	const Status begun = catalogue_->begin_delete_volume(volume.id);
	if (!begun.ok() && catalogue_is_lost())
		return unknown_outcome("delete volume", volume, begun.error());
	if (!begun.ok()) {
		note(volume.active ? channel_->create_volume(volume_spec(volume)) : Status());
		return begun;
	}
	kill_point("delete-volume-in-catalogue");
	to_drop_.insert(volume.id);
	note(drain_deletions());
	return {};
}

// The kernel frees a volume's extents when it drops it, and the next checkpoint lets them be used again: not before
// the catalogue is without them.
Status Pool::drain_deletions()
{
	SV_TRY(checkpoint());	// all of the volumes' records are in the catalogue
	SV_TRY(finish_deletions());
	while (!to_drop_.empty()) {
		SV_TRY(drop_from_kernel(*to_drop_.begin()));
		to_drop_.erase(to_drop_.begin());
	}
	SV_TRY(find_deleted_snapshots());	// layers that had waited for the volume
	SV_TRY(tell_freed());
	return checkpoint();
}

}	// namespace svd

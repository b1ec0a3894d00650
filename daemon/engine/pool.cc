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

namespace svd {

// ---- members ----

void Pool::found(const FoundMember &member)
{
	if (up())
		return;
	const auto known = members_.find(member.label.member);
	if (known != members_.end() && known->second.path != member.path) {
		conflict_ = fmt::format("both {} and {} say that they are its member {}", known->second.path,
					member.path, member.label.member);
		return;
	}
	if (known != members_.end() && !known->second.named.empty())
		return;		// the same device under another name
	members_[member.label.member] = Member{member.path, member.named, member.label, member.state, nullptr};
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
	for (auto &[index, member] : members_) {
		{
			SV_ASSIGN(const auto file, BlockFile::open(member.path, BlockFile::Mode::kReadWrite));
			SV_TRY(erase_label(*file, member.label));
		}
		SV_TRY(remove_partition_table(member.path));
	}
	return {};
}

// Each label in `added` is already on its device: that made it a member. The rest catches up here or at the next
// activation.
Status Pool::add_members(const std::vector<FoundMember> &added)
{
	std::vector<sv_grant> grants;
	for (const FoundMember &device : added) {
		const sv_label &label = device.label;
		Member member{device.path, device.named, label, LabelState::kSound, nullptr};
		SV_ASSIGN(member.file, BlockFile::open(device.path, BlockFile::Mode::kReadWrite));
		members_[label.member] = std::move(member);
		SV_TRY(catalogue_->add_member({label.member, Uuid::from_bytes(label.member_uuid), label.tier,
					       label.tier_name, label.nr_slots, label.flags}));
		grants.push_back({label.member, 0, label.nr_slots, 0});
	}
	SV_TRY(channel_->reload(spec()));
	SV_TRY(channel_->tell_all(SV_OP_GRANT, grants));
	for (auto &[index, member] : members_) {
		member.label.generation = added.back().label.generation;
		member.label.nr_members = added.back().label.nr_members;
		SV_TRY(write_label(*member.file, member.label));
	}
	return {};
}

// ---- life ----

Status Pool::deactivate()
{
	if (!up())
		return {};
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		SV_ASSIGN(const bool busy, channel_->volume_in_use(volume_spec(volume)));
		if (busy)
			return Error{Code::kBusy, "deactivate pool", name_,
				     fmt::format("volume {} is in use", volume.name),
				     "unmount it: findmnt " + channel_->volume_path(volume_spec(volume))};
	}
	if (state_ == PoolState::kActive)
		SV_TRY(checkpoint());
	for (const VolumeRow &volume : volumes)
		SV_TRY(channel_->remove_volume(volume_spec(volume)));
	SV_TRY(channel_->remove());
	SV_TRY(catalogue_->close());
	close_all();
	log::notice("pool {} is down", name_);
	return {};
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
	info.flags = volume.flags;
	info.size = volume.size;
	info.tiers = volume.tiers;
	return info;
}

std::string Pool::volume_path(const VolumeRow &volume) const
{
	return channel_ ? channel_->volume_path(volume_spec(volume)) : "";
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
	const Status undone = delete_volume(volume);
	if (!undone.ok())
		log::error("volume {}/{}: {}", name_, name, undone.error().message());
	return std::move(done).error();
}

Status Pool::grow_volume(const VolumeRow &volume, uint64_t size)
{
	VolumeRow grown = volume;
	grown.size = size;
	SV_TRY(catalogue_->resize_volume(volume.id, size));
	kill_point("resize-volume-in-catalogue");
	SV_TRY(channel_->tell(SV_OP_VOLUME_RESIZE, volume_info(grown)));
	return channel_->resize_volume(volume_spec(grown));
}

Status Pool::rename_volume(const VolumeRow &volume, const std::string &to)
{
	SV_TRY(catalogue_->rename_volume(volume.id, to));
	kill_point("rename-volume-in-catalogue");
	return channel_->rename_volume(volume_spec(volume), to);
}

// The catalogue's mark is the moment of truth; what follows is repeated at the next activation if svd dies here.
Status Pool::delete_volume(const VolumeRow &volume)
{
	SV_ASSIGN(const bool busy, channel_->volume_in_use(volume_spec(volume)));
	if (busy)
		return Error{Code::kBusy, "delete volume", name_ + "/" + volume.name, "it is in use",
			     "unmount it: findmnt " + volume_path(volume)};
	SV_TRY(channel_->remove_volume(volume_spec(volume)));
	SV_TRY(catalogue_->begin_delete_volume(volume.id));
	kill_point("delete-volume-in-catalogue");
	return drain_deletion(volume.id);
}

Status Pool::drain_deletion(uint32_t id)
{
	SV_TRY(checkpoint());	// all of the volume's records are in the catalogue
	for (;;) {
		SV_ASSIGN(const DeleteProgress progress, catalogue_->delete_step(id));
		if (progress.done)
			break;
	}
	sv_volume_info info{};
	info.id = id;
	const Status dropped = channel_->tell(SV_OP_VOLUME_DROP, info);
	if (!dropped.ok() && dropped.error().code != Code::kNotFound)
		return dropped;
	return checkpoint();
}

}	// namespace svd

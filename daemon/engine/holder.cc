// SPDX-License-Identifier: GPL-2.0
// Which host holds a pool, and handing it over. All labels of a pool say it, those with the highest generation are
// right (docs/format.md). So the first label that is written with a higher one hands the pool over, whatever becomes of
// the rest: svd may die, or the power go, between any two, and within one (label_io.h: its copy is written first, and
// counts where it is newer). Labels left behind are written anew by whoever acts on the pool next: the new holder when
// it brings the pool up (admit_members), or a repeated command.
#include <algorithm>
#include <cstring>

#include <fmt/core.h>

#include "daemon/engine/kill_point.h"
#include "daemon/engine/pool.h"
#include "daemon/kernel/dm_kernel.h"

namespace svd {

const sv_label &Pool::newest_label() const
{
	return std::max_element(members_.begin(), members_.end(), [](const auto &a, const auto &b) {
		return a.second.label.generation < b.second.label.generation; })->second.label;
}

Holder Pool::holder() const
{
	const sv_label &newest = newest_label();
	Holder holder{host_in(newest), {}};
	for (const auto &[index, member] : members_)
		if (member.label.generation == newest.generation && host_in(member.label).id != holder.host.id)
			holder.rival = host_in(member.label);
	return holder;
}

// What all labels of a pool share.
void copy_shared(const sv_label &from, sv_label *to)
{
	to->generation = from.generation;
	to->nr_members = from.nr_members;
	std::memcpy(to->pool_name, from.pool_name, sizeof(to->pool_name));
	set_host(to, host_in(from));
}

// Everything that could be in the way, before the first label is written.
Status Pool::refuse_hand_over(const char *attempt) const
{
	if (!conflict_.empty())
		return Error{Code::kBusy, attempt, name_, conflict_, "take one of them away"}.with(Id::kMemberDuplicate);
	const std::string gone = missing_list();
	if (!gone.empty())
		return Error{Code::kNotFound, attempt, name_, gone, "attach it and repeat the command"};
	for (const auto &[index, member] : members_) {
		if (sv_label_read_only(&member.label))
			return Error{Code::kMissingFeature, attempt, name_,
				     member.path + " was written by a newer version that this one may only read", ""};
		if (member.label_state == LabelState::kFrontBad)
			SV_TRY(refuse_reused(member));
	}
	return {};
}

Status Pool::refuse_rename(const std::string &to)
{
	return look_into_catalogue(false, [&]() -> Status {
		SV_ASSIGN(const auto volumes, catalogue_->volumes());
		SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
		std::map<uint32_t, const VolumeRow *> by_id;
		for (const VolumeRow &volume : volumes) {
			if (volume.state != VolumeState::kActive)
				continue;
			SV_TRY(check_device_name(to, volume.name));
			by_id[volume.id] = &volume;
		}
		for (const SnapshotRow &snapshot : snapshots)
			if (const auto of = by_id.find(snapshot.volume); of != by_id.end() && snapshot.state == SnapshotState::kDone)
				SV_TRY(check_device_name(to, snapshot_spec(*of->second, snapshot).name));
		return {};
	});
}

bool Pool::handed_over(const Host &to, const std::string &name) const
{
	const uint64_t newest = newest_label().generation;
	return std::all_of(members_.begin(), members_.end(), [&](const auto &item) {
		const sv_label &label = item.second.label;
		return label.generation == newest && host_in(label).id == to.id && label.pool_name == name; });
}

Status Pool::write_shared(const sv_label &shared)
{
	for (auto &[index, member] : members_) {
		if (member.file)
			continue;
		SV_ASSIGN(member.file, BlockFile::open(member.path, BlockFile::Mode::kExclusive));
	}
	for (auto &[index, member] : members_) {
		sv_label label = member.label;
		copy_shared(shared, &label);
		SV_TRY(write_label(*member.file, label));
		member.label = label;
		member.label_state = LabelState::kSound;
		kill_point(fmt::format("hand-over-{}", index).c_str());
	}
	return {};
}

Status Pool::hand_over(const Host &to, const std::string &name)
{
	if (!up())
		SV_TRY(end_discards("hand over pool", {}));
	sv_label shared = newest_label();
	shared.generation++;
	set_host(&shared, to);
	std::memset(shared.pool_name, 0, sizeof(shared.pool_name));
	std::memcpy(shared.pool_name, name.data(), std::min(name.size(), sizeof(shared.pool_name) - 1));
	const Status written = write_shared(shared);
	if (!up()) {
		name_ = newest_label().pool_name;
		close_all();
	}
	for (const auto &[index, member] : members_)
		tell_udev(member.path);
	return written.ok() ? confirm(shared) : written;
}

// Nothing keeps two hosts from taking a pool at the same moment, but they should notice.
Status Pool::confirm(const sv_label &shared)
{
	for (const auto &[index, member] : members_) {
		SV_ASSIGN(const auto there, read_label(member.path));
		if (!there || there->label.generation != shared.generation ||
		    std::memcmp(there->label.host_id, shared.host_id, sizeof(shared.host_id)) != 0)
			return Error{Code::kBusy, "take pool", name_, "another host wrote to its labels at the same moment",
				     "svctl scan says who holds it now"};
	}
	return {};
}

}	// namespace svd

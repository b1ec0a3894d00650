// SPDX-License-Identifier: GPL-2.0
// Use cases of snapshots and clones. See engine.h. A snapshot is named VOLUME@SNAPSHOT in its pool.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include <fmt/core.h>

#include "daemon/engine/engine.h"
#include "daemon/kernel/dm_kernel.h"

namespace svd {

namespace {

std::string full_name(const std::string &pool, const SnapshotName &name)
{
	return pool + "/" + name.volume + "@" + name.snapshot;
}

Status check_snapshot_name(const std::string &name) { return check_name("snapshot", name, SV_SNAPSHOT_NAME_MAX); }

// As a command would name several: the first, and how many more.
std::string names_of(const std::string &pool, const std::vector<SnapshotName> &names)
{
	std::string text = full_name(pool, names.front());
	return names.size() == 1 ? text : fmt::format("{} and {} more", text, names.size() - 1);
}

}	// namespace

Result<Engine::FoundSnapshot> Engine::find_snapshot(const std::string &pool_name, const SnapshotName &name)
{
	SV_ASSIGN(const auto found, find_volume(pool_name, name.volume));
	SV_TRY(check_snapshot_name(name.snapshot));
	SV_ASSIGN(const SnapshotRow snapshot, found.first->catalogue().snapshot(found.second.id, name.snapshot));
	return FoundSnapshot{found.first, found.second, snapshot};
}

Result<Engine::FoundSnapshot> Engine::snapshot_to_change(const std::string &pool_name, const SnapshotName &name)
{
	SV_ASSIGN(const FoundSnapshot found, find_snapshot(pool_name, name));
	SV_TRY(pool_to_change(pool_name));
	return found;
}

Result<std::vector<SnapshotRow>> Engine::snapshots_of(Pool &pool, uint32_t volume)
{
	SV_ASSIGN(std::vector<SnapshotRow> all, pool.catalogue().snapshots());
	std::erase_if(all, [volume](const SnapshotRow &s) { return s.volume != volume || s.state != SnapshotState::kDone; });
	return all;
}

// ---- create ----

// All are looked at before the first is made.
Result<std::vector<SnapshotWanted>> Engine::wanted_snapshots(const std::string &pool_name,
							     const std::vector<SnapshotName> &names)
{
	std::vector<SnapshotWanted> wanted;
	std::set<uint32_t> volumes;
	for (const SnapshotName &name : names) {
		SV_TRY(check_snapshot_name(name.snapshot));
		SV_ASSIGN(const auto found, find_volume(pool_name, name.volume));
		if (found.first->catalogue().snapshot(found.second.id, name.snapshot).ok())
			return Error{Code::kBusy, "create snapshot", full_name(pool_name, name), "it exists", "choose another name"};
		if (!volumes.insert(found.second.id).second)
			return Error{Code::kUsage, "create snapshot", full_name(pool_name, name),
				     "its volume is named twice: at one moment there is one", ""};
		SV_TRY(check_device_name(found.first->name(), name.volume + "@" + name.snapshot));
		wanted.push_back({found.second.id, name.snapshot, false});
	}
	return wanted;
}

Result<Json> Engine::create_snapshots(const std::string &pool_name, const std::vector<SnapshotName> &names, bool dry_run)
{
	if (names.empty())
		return Error{Code::kUsage, "create snapshot in pool", pool_name, "no volume is named", "POOL/VOLUME@NAME"};
	SV_ASSIGN(const auto wanted, wanted_snapshots(pool_name, names));
	SV_ASSIGN(Pool *const pool, pool_to_change(pool_name));
	if (dry_run)
		return done("dry run", fmt::format("snapshot {} would be created", names_of(pool_name, names)));
	SV_TRY(pool->create_snapshots(wanted, wall_clock()));
	return done("created", fmt::format("snapshot {} created", names_of(pool_name, names)));
}

Result<Json> Engine::create_clone(const std::string &pool_name, const std::string &volume, const SnapshotName &from,
				  std::optional<uint64_t> size, bool dry_run)
{
	SV_TRY(check_volume_name(volume));
	SV_ASSIGN(const FoundSnapshot origin, find_snapshot(pool_name, from));
	const std::string name = pool_name + "/" + volume;
	const uint64_t wanted = size ? round_up_to_blocks(*size) : origin.snapshot.size;
	const auto existing = origin.pool->catalogue().volume(volume);
	if (existing.ok() && existing.value().id != origin.volume.id && existing.value().size == wanted &&
	    existing.value().parent_layer == origin.snapshot.layer)
		return done("no change", fmt::format("volume {}: no change", name));
	if (existing.ok())
		return Error{Code::kBusy, "create volume", name, "it exists, and is not such a clone", "choose another name"};
	SV_TRY(pool_to_change(pool_name));
	SV_TRY(check_volume_size(wanted, volume));
	SV_TRY(check_device_name(origin.pool->name(), volume));
	SV_TRY(origin.pool->refuse_one_more("create volume", volume));
	if (wanted < origin.snapshot.size)
		return Error{Code::kUsage, "create volume", name,
			     fmt::format("{} is less than the snapshot's {}", format_size(Bytes(wanted)),
					 format_size(Bytes(origin.snapshot.size))), "leave --size out, or choose more"};
	if (dry_run)
		return done("dry run", fmt::format("volume {} would be created from {}", name, full_name(pool_name, from)));
	SV_ASSIGN(const VolumeRow row, origin.pool->create_clone(volume, wanted, origin.snapshot));
	Json json = volume_json(*origin.pool, row, origin.pool->mapped());
	json["result"] = "created";
	json["message"] = fmt::format("volume {} created from {}: {}", name, full_name(pool_name, from),
				      origin.pool->volume_path(row));
	return json;
}

// ---- roll back ----

Result<Json> Engine::rollback_volume(const std::string &pool_name, const SnapshotName &to, bool dry_run)
{
	SV_ASSIGN(const FoundSnapshot found, snapshot_to_change(pool_name, to));
	const std::string name = pool_name + "/" + to.volume, full = full_name(pool_name, to);
	SV_ASSIGN(const HeadUse lost, found.pool->written_since_snapshot(found.volume));
	SV_ASSIGN(const VolumeRow now, found.pool->catalogue().volume(found.volume.id));
	if (lost.extents + lost.holes == 0 && now.parent_layer == found.snapshot.layer)
		return done("no change", fmt::format("volume {} is as {} is: no change", name, full));
	if (dry_run) {
		Json json = done("dry run", fmt::format("volume {} would be as {} is; all snapshots of it stay", name, full));
		json["destroys"] = {fmt::format("what volume {} has had written since its last snapshot: {} in extents of 1 MiB, and {} unmapped",
						name, format_size(Bytes(lost.extents << SV_EXTENT_SHIFT)),
						format_size(Bytes(lost.holes << SV_EXTENT_SHIFT)))};
		return json;
	}
	SV_ASSIGN(const VolumeRow row, found.pool->rollback_volume(now, found.snapshot));
	return done("rolled back", fmt::format("volume {} is as {} is", name, full));
}

// ---- change ----

Result<Json> Engine::rename_snapshot(const std::string &pool_name, const SnapshotName &name, const std::string &to, bool dry_run)
{
	SV_TRY(check_snapshot_name(to));
	const auto target = find_snapshot(pool_name, {name.volume, to});
	const auto source = find_snapshot(pool_name, name);
	if (target.ok() && (name.snapshot == to || !source.ok()))
		return done("no change", fmt::format("snapshot {}: no change", full_name(pool_name, {name.volume, to})));
	if (!source.ok())
		return source.error();
	SV_TRY(pool_to_change(pool_name));
	if (target.ok())
		return Error{Code::kBusy, "rename snapshot", full_name(pool_name, name), to + " exists", "choose another name"};
	const FoundSnapshot &found = source.value();
	if (found.snapshot.active)
		return Error{Code::kBusy, "rename snapshot", full_name(pool_name, name), "it is active, and its device has its name",
			     "svctl deactivate " + full_name(pool_name, name)};
	SV_TRY(check_device_name(found.pool->name(), found.volume.name + "@" + to));
	if (dry_run)
		return done("dry run", fmt::format("snapshot {} would be named {}", full_name(pool_name, name), to));
	SV_TRY(found.pool->catalogue().rename_snapshot(found.snapshot.id, to));
	return done("renamed", fmt::format("snapshot {} is now {}", full_name(pool_name, name),
					   full_name(pool_name, {name.volume, to})));
}

Result<Json> Engine::hold_snapshot(const std::string &pool_name, const SnapshotName &name, bool held, bool dry_run)
{
	SV_ASSIGN(const FoundSnapshot found, snapshot_to_change(pool_name, name));
	if (found.snapshot.held == held)
		return done("no change", fmt::format("snapshot {}: no change", full_name(pool_name, name)));
	const std::string says = fmt::format("snapshot {} {}", full_name(pool_name, name), held ? "cannot be deleted" : "can be deleted");
	if (dry_run)
		return done("dry run", "from then on " + says);
	SV_TRY(found.pool->catalogue().set_held(found.snapshot.id, held));
	return done(held ? "held" : "released", "from now on " + says);
}

Result<Json> Engine::activate_snapshot(const std::string &pool_name, const SnapshotName &name, bool dry_run)
{
	SV_ASSIGN(const FoundSnapshot found, find_snapshot(pool_name, name));
	const std::string full = full_name(pool_name, name);
	if (found.snapshot.active)
		return done("no change", fmt::format("snapshot {}: no change", full));
	SV_TRY(refuse_job(*found.pool, "change"));
	SV_TRY(check_device_name(found.pool->name(), found.volume.name + "@" + found.snapshot.name));
	SV_TRY(found.pool->refuse_one_more("activate snapshot", found.volume.name + "@" + found.snapshot.name));
	if (dry_run)
		return done("dry run", fmt::format("snapshot {} would be activated, read-only", full));
	SV_TRY(found.pool->activate_snapshot(found.volume, found.snapshot));
	return done("activated", fmt::format("snapshot {} is active, read-only: {}", full,
					     found.pool->snapshot_path(found.volume, found.snapshot)));
}

Result<Json> Engine::deactivate_snapshot(const std::string &pool_name, const SnapshotName &name, bool dry_run)
{
	SV_ASSIGN(const FoundSnapshot found, find_snapshot(pool_name, name));
	const std::string full = full_name(pool_name, name);
	if (!found.snapshot.active)
		return done("no change", fmt::format("snapshot {}: no change", full));
	SV_TRY(refuse_job(*found.pool, "change"));
	if (dry_run) {
		SV_TRY(found.pool->refuse_open("deactivate snapshot", found.volume, found.snapshot));
		return done("dry run", fmt::format("snapshot {} would be deactivated", full));
	}
	SV_TRY(found.pool->deactivate_snapshot(found.volume, found.snapshot));
	return done("deactivated", fmt::format("snapshot {} is inactive", full));
}

Result<Json> Engine::delete_snapshot(const std::string &pool_name, const SnapshotName &name, bool dry_run)
{
	SV_ASSIGN(const FoundSnapshot found, snapshot_to_change(pool_name, name));
	const std::string full = full_name(pool_name, name);
	if (found.snapshot.held)
		return Error{Code::kBusy, "delete snapshot", full, "it is held", "svctl release " + full};
	if (found.snapshot.active)
		return Error{Code::kBusy, "delete snapshot", full, "it is active", "svctl deactivate " + full};
	if (dry_run) {
		Json json = done("dry run", fmt::format("snapshot {} would be deleted", full));
		json["destroys"] = {fmt::format("snapshot {}; volumes that were created from it stay", full)};
		return json;
	}
	SV_TRY(found.pool->delete_snapshot(found.snapshot));
	return done("deleted", fmt::format("snapshot {} deleted; its space comes back in the background", full));
}

Status Engine::list_snapshots(Pool &pool, const std::vector<VolumeRow> &volumes, std::vector<std::string> &names)
{
	for (const VolumeRow &volume : volumes) {
		SV_ASSIGN(const auto snapshots, snapshots_of(pool, volume.id));
		for (const SnapshotRow &snapshot : snapshots) {
			const std::string name = full_name(pool.name(), {volume.name, snapshot.name});
			if (snapshot.held)
				return Error{Code::kBusy, "delete pool", pool.name(), name + " is held", "svctl release " + name};
			names.push_back("snapshot " + name);
		}
	}
	return {};
}

// ---- reports ----

Json Engine::snapshot_json(Pool &pool, const VolumeRow &of, const SnapshotRow &row)
{
	return {{"name", row.name}, {"volume", of.name}, {"id", row.id}, {"size", row.size}, {"created", row.created}, {"held", row.held},
		{"scheduled", row.scheduled},
		{"state", row.active ? "read-only" : "inactive"}, {"device", pool.snapshot_path(of, row)}};
}

Json Engine::snapshots_json(Pool &pool, const std::vector<VolumeRow> &volumes)
{
	Json json = Json::array();
	const auto snapshots = pool.catalogue().snapshots();
	for (size_t i = 0; snapshots.ok() && i < snapshots.value().size(); i++) {
		const SnapshotRow &row = snapshots.value()[i];
		const auto of = std::find_if(volumes.begin(), volumes.end(), [&](const auto &v) { return v.id == row.volume; });
		if (row.state == SnapshotState::kDone && of != volumes.end())
			json.push_back(snapshot_json(pool, *of, row));
	}
	return json;
}

Result<Json> Engine::show_snapshot(const std::string &pool_name, const SnapshotName &name)
{
	SV_ASSIGN(const FoundSnapshot found, find_snapshot(pool_name, name));
	return snapshot_json(*found.pool, found.volume, found.snapshot);
}

// By the volumes' names, of each the oldest first.
Result<std::vector<Engine::FoundSnapshot>> Engine::chosen_snapshots(const std::string &pool_name, const std::vector<SnapshotName> &of)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	SV_ASSIGN(const std::vector<VolumeRow> volumes, pool->catalogue().volumes());
	SV_ASSIGN(const std::vector<SnapshotRow> snapshots, pool->catalogue().snapshots());
	std::set<uint32_t> whole, single;	// volumes, and snapshots
	for (const SnapshotName &name : of) {
		if (name.snapshot.empty()) {
			SV_ASSIGN(const auto found, find_volume(pool_name, name.volume));
			whole.insert(found.second.id);
		} else {
			SV_ASSIGN(const FoundSnapshot found, find_snapshot(pool_name, name));
			single.insert(found.snapshot.id);
		}
	}
	std::unordered_map<uint32_t, const VolumeRow *> volume;
	for (const VolumeRow &row : volumes)
		volume[row.id] = &row;
	std::map<std::string, std::vector<FoundSnapshot>> chosen;
	for (const SnapshotRow &row : snapshots) {
		const auto its = volume.find(row.volume);
		if (row.state == SnapshotState::kDone && its != volume.end() &&
		    (of.empty() || whole.contains(row.volume) || single.contains(row.id)))
			chosen[its->second->name].push_back({pool, *its->second, row});
	}
	std::vector<FoundSnapshot> all;
	for (const auto &[name, some] : chosen)
		all.insert(all.end(), some.begin(), some.end());
	return all;
}

Result<uint32_t> Engine::id_of(const std::string &pool, const SnapshotName &name)
{
	if (name.snapshot.empty()) {
		SV_ASSIGN(const auto volume, find_volume(pool, name.volume));
		return volume.second.id;
	}
	SV_ASSIGN(const FoundSnapshot snapshot, find_snapshot(pool, name));
	return snapshot.snapshot.id;
}

Result<Json> Engine::diff(const std::string &pool_name, const SnapshotName &from, const SnapshotName &to, Job &job)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	SV_ASSIGN(const uint32_t one, id_of(pool_name, from));
	SV_ASSIGN(const uint32_t other, id_of(pool_name, to));
	SV_TRY(refuse_job(*pool, "compare what is in"));
	const Claim claim(*pool, &job);
	SV_ASSIGN(Changes changes, pool->diff(one, other, job));
	job.file = std::move(changes.text);
	return Json{{"fd", 0}, {"ranges", changes.ranges}, {"bytes", changes.bytes}};
}

Result<Json> Engine::show_space(const std::string &pool_name, const std::vector<SnapshotName> &of, Job &job)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	SV_ASSIGN(const auto chosen, chosen_snapshots(pool_name, of));
	SV_TRY(refuse_job(*pool, "show space of"));
	const Claim claim(*pool, &job);
	std::vector<uint32_t> ids;
	for (const FoundSnapshot &one : chosen)
		ids.push_back(one.snapshot.id);
	SV_ASSIGN(const SnapshotSpaces spaces, pool->snapshot_spaces(ids, job));
	std::unordered_map<uint32_t, SnapshotSpace> space;
	for (const SnapshotSpace &one : spaces.each)
		space[one.id] = one;
	Json json = {{"snapshots", Json::array()}, {"frees", spaces.frees}};
	for (const FoundSnapshot &one : chosen) {
		const SnapshotSpace &its = space.at(one.snapshot.id);
		json["snapshots"].push_back({{"volume", one.volume.name}, {"name", one.snapshot.name}, {"used", its.shown},
					     {"exclusive", its.exclusive}, {"frees", its.frees}});
	}
	return json;
}

}	// namespace svd

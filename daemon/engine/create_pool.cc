// SPDX-License-Identifier: GPL-2.0
// create-pool, add-device and delete-pool: the use cases that touch devices which are not, or will no longer be, ours.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <set>

#include <fmt/core.h>
#include <sys/random.h>

#include "daemon/base/log.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/kill_point.h"
#include "daemon/kernel/partition.h"

namespace svd {

namespace {

template <size_t N> void copy_name(char (&to)[N], const std::string &from)
{
	std::memset(to, 0, N);
	std::memcpy(to, from.data(), std::min(from.size(), N - 1));
}

uint64_t random_incarnation()
{
	const Uuid random = Uuid::random();
	uint64_t value;
	std::memcpy(&value, random.bytes.data(), sizeof(value));
	return value | 1;
}

// A device that was in a pool before may have batches where ours will begin.
Status clear_ring_start(BlockDevice &device, const sv_label &label)
{
	AlignedBuffer zeroes(std::min<uint64_t>(label.ring_len, SV_BATCH_MAX));
	std::memset(zeroes.data(), 0, zeroes.size());
	return device.write(label.ring_off, zeroes.span());
}

// Equal for all names of a member, the disk around its partition included.
std::string identity_in_pool(const std::string &path)
{
	const auto device = member_device(path);
	const auto identity = device.ok() ? device_identity(device.value()) : device;
	return identity.ok() ? identity.value() : path;
}

Json lines(const std::vector<std::string> &all)
{
	Json json = Json::array();
	for (const std::string &line : all)
		json.push_back(line);
	return json;
}

}	// namespace

// What is on the device may be lost only if the user named it.
Status Engine::refuse_contents(const Candidate &candidate)
{
	const std::string &path = candidate.device.path;
	const auto device = member_device(path);
	if (!device.ok() && !candidate.wipe)
		return device.error();
	const auto label = read_label(device.ok() ? device.value() : path);
	if (label.ok() && label.value()) {
		const Uuid uuid = Uuid::from_bytes(label.value()->label.pool_uuid);
		const auto pool = pools_.find(uuid);
		if (pool != pools_.end() && !pool->second->down())
			return Error{Code::kBusy, "use", path, "it is a member of pool " + pool->second->name(), ""};
		const Host holder = host_in(label.value()->label);
		if (!candidate.wipe)
			return Error{Code::kBusy, "use", path,
				     fmt::format("it is a member of pool {}{}", label.value()->label.pool_name,
						 holder.id.is_zero() || holder.id == options_.host.id ? "" :
						 ", which host " + holder.str() + " holds"),
				     "to destroy that pool's data on it: --wipe " + path};
	} else if (!label.ok() && !candidate.wipe) {
		return Error{Code::kBusy, "use", path, "it has a label of svctl: " + label.error().cause,
			     "to destroy it: --wipe " + path};
	}
	if (!candidate.device.signatures.empty() && !candidate.wipe)
		return Error{Code::kBusy, "use", path, "it contains: " + candidate.device.signatures.front(),
			     "to destroy that: --wipe " + path};
	return {};
}

// By a virtual machine whose disk it is, or by another svd whose kernel does not have it yet: the disk, or what would be the member.
Status Engine::refuse_locked(const Candidate &candidate)
{
	const auto device = member_device(candidate.device.path);
	SV_TRY(BlockFile::open(candidate.device.path, BlockFile::Mode::kExclusive));
	if (device.ok() && device.value() != candidate.device.path)
		SV_TRY(BlockFile::open(device.value(), BlockFile::Mode::kExclusive));
	return {};
}

Result<std::vector<Engine::Candidate>> Engine::probe_all(const std::vector<TierRequest> &tiers,
							 const std::vector<std::string> &wipe)
{
	std::vector<Candidate> candidates;
	uint32_t rank = 0;
	for (const TierRequest &tier : tiers) {
		for (const std::string &path : tier.devices) {
			Candidate candidate;
			SV_ASSIGN(candidate.device, probe_device(path, kernel_.simulated()));
			const auto other = std::find_if(candidates.begin(), candidates.end(), [&](const Candidate &before) {
				return overlap(before.device, candidate.device); });
			if (other != candidates.end() && other->device.identity == candidate.device.identity)
				return Error{Code::kUsage, "use", path, "this device is named twice", ""};
			if (other != candidates.end())
				return Error{Code::kUsage, "use", path,
					     fmt::format("one of it and {} is a disk, and the other a partition on it", other->device.path),
					     "name only one of them"};
			candidate.tier = rank;
			candidate.tier_name = tier.name;
			candidate.wipe = std::find(wipe.begin(), wipe.end(), path) != wipe.end();
			SV_TRY(refuse_contents(candidate));
			SV_TRY(refuse_locked(candidate));
			candidates.push_back(std::move(candidate));
		}
		rank++;
	}
	for (const std::string &path : wipe)
		if (std::none_of(candidates.begin(), candidates.end(), [&](const Candidate &candidate) {
			    return candidate.device.path == path; }))
			return Error{Code::kUsage, "wipe", path, "it is not among the devices named", ""};
	return candidates;
}

// Journal on two members of the fastest tier, catalogue on the first two members, where there are two.
Result<std::vector<sv_label>> Engine::lay_out(const std::string &name, const Uuid &uuid,
					      const std::vector<Candidate> &candidates)
{
	uint64_t bytes = 0;
	for (const Candidate &candidate : candidates)
		bytes += candidate.device.size;
	const uint64_t incarnation = random_incarnation();
	std::vector<sv_label> labels;
	for (const Candidate &candidate : candidates) {
		const auto index = static_cast<uint32_t>(labels.size());
		sv_label label{};
		std::memcpy(label.pool_uuid, uuid.bytes.data(), sizeof(label.pool_uuid));
		std::memcpy(label.member_uuid, Uuid::random().bytes.data(), sizeof(label.member_uuid));
		set_host(&label, options_.host);
		copy_name(label.pool_name, name);
		copy_name(label.tier_name, candidate.tier_name);
		label.generation = 1;
		label.incarnation = incarnation;
		label.member = index;
		label.nr_members = static_cast<uint32_t>(candidates.size());
		label.tier = candidate.tier;
		uint32_t flags = index < 2 ? SV_LABEL_HAS_CATALOGUE : 0;
		if (index < 2 && candidate.tier == 0)
			flags |= SV_LABEL_HAS_RING;
		const int error = sv_label_layout(&label, candidate.device.size, flags, sv_ring_len_for(bytes),
						  sv_cat_len_for(bytes));
		if (error < 0)
			return Error{error == -ENOSPC ? Code::kNoSpace : Code::kUsage, "use", candidate.device.path,
				     fmt::format("it is too small ({})", format_size(Bytes(candidate.device.size))), ""};
		labels.push_back(label);
	}
	return labels;
}

// From here on what was on them is lost. The answer is the devices that get the labels: of whole disks, the partition.
// svd may die before they have one: then such a disk has a partition table, and needs --wipe as any other with one.
// `holds` are to be kept until the kernel has the devices (partition.h).
Result<std::vector<std::string>> Engine::take_devices(const std::vector<Candidate> &candidates, Holds &holds)
{
	std::vector<std::string> paths;
	Status result;
	for (const Candidate &candidate : candidates) {
		std::string path = candidate.device.path;
		if (candidate.wipe)
			result = wipe_signatures(path);
		if (result.ok() && candidate.device.whole_disk) {
			auto disk = partition_disk(path);
			result = disk.ok() ? Status() : disk.error();
			if (disk.ok()) {
				path = disk.value().partition;
				holds.push_back(std::move(disk.value().hold));
			}
		}
		if (!result.ok())
			break;
		paths.push_back(path);
	}
	if (result.ok())
		return paths;
	give_back(candidates, paths, holds);
	return std::move(result).error();
}

// The disks among them are blank again.
void Engine::give_back(const std::vector<Candidate> &candidates, const std::vector<std::string> &paths, Holds &holds)
{
	holds.clear();
	for (size_t i = 0; i < paths.size(); i++) {
		const Status removed = candidates[i].device.whole_disk ? remove_partition_table(paths[i]) : Status();
		if (!removed.ok())
			log::error(removed.error().id(), "{}", removed.error().message());
	}
}

Status Engine::write_pool(const PoolRow &row, const std::vector<Candidate> &candidates,
			  const std::vector<sv_label> &labels, Holds &holds)
{
	SV_ASSIGN(const auto paths, take_devices(candidates, holds));
	kill_point("create-pool-partitioned");
	const Status result = write_members(row, paths, labels);
	if (!result.ok())
		give_back(candidates, paths, holds);
	return result;
}

// Or what has one is a pool that lacks its other devices. This one may have failed for good.
static void take_back_label(const std::string &pool, BlockDevice &device, const sv_label &label)
{
	const Status copy = erase_label_at(device, label.copy_off);
	const Status front = erase_label_at(device, 0);	// also where the copy stays: one is less than two
	const Status &erased = copy.ok() ? front : copy;
	if (!erased.ok())
		log::error(Id::kLabelLeft, "{} may have a label of pool {} from now on: {}", device.name(), pool,
			   erased.error().message());
}

// The labels come last: without them there is no pool.
Status Engine::write_members(const PoolRow &row, const std::vector<std::string> &paths, const std::vector<sv_label> &labels)
{
	std::vector<std::unique_ptr<BlockFile>> files;
	std::vector<CatalogueCopy> copies;
	std::vector<MemberRow> rows;
	for (size_t i = 0; i < labels.size(); i++) {
		const sv_label &label = labels[i];
		SV_ASSIGN(auto file, BlockFile::open(paths[i], BlockFile::Mode::kExclusive));
		if (label.flags & SV_LABEL_HAS_RING)
			SV_TRY(clear_ring_start(*file, label));
		if (label.flags & SV_LABEL_HAS_CATALOGUE)
			copies.push_back({file.get(), label.cat_off, label.cat_len});
		rows.push_back({label.member, Uuid::from_bytes(label.member_uuid), label.tier, label.tier_name,
				label.nr_slots, label.flags});
		files.push_back(std::move(file));
	}
	SV_ASSIGN(const auto catalogue, Catalogue::create(copies, row, rows));
	SV_TRY(catalogue->close());
	for (size_t i = 0; i < labels.size(); i++) {
		const Status written = write_label(*files[i], labels[i]);
		if (written.ok())
			continue;
		for (size_t before = 0; before <= i; before++)
			take_back_label(row.name, *files[before], labels[before]);
		return written;
	}
	return {};
}

// Does the pool exist with exactly these devices in these tiers?
Result<bool> Engine::same_pool(const std::string &name, const std::vector<TierRequest> &tiers,
			       std::optional<bool> pass_discards)
{
	const auto found = find_pool(name);
	if (!found.ok() && found.error().code == Code::kNotFound)
		return false;
	SV_TRY(found);
	SV_TRY(refuse_holder("create pool", *found.value()));
	std::set<std::pair<std::string, std::string>> wanted;
	for (const TierRequest &tier : tiers)
		for (const std::string &device : tier.devices)
			wanted.insert({tier.name, identity_in_pool(device)});
	std::set<std::pair<std::string, std::string>> there;
	for (const auto &[index, member] : found.value()->members())
		there.insert({member.label.tier_name, identity_in_pool(member.path)});
	if (wanted != there)
		return Error{Code::kBusy, "create pool", name, "a pool of that name exists with other devices",
			     "see svctl show " + name};
	if (!pass_discards || !found.value()->up())
		return true;
	SV_ASSIGN(const PoolRow row, found.value()->catalogue().pool());
	if (row.pass_discards == *pass_discards)
		return true;
	return Error{Code::kBusy, "create pool", name, "it exists with another setting of discard", "to change it: svctl set-pool"};
}

// What a scan would leave alone for a while yet: udev may not have seen the label.
Status Engine::note_created(const std::string &path)
{
	SV_ASSIGN(const std::string device, member_device(path));
	SV_ASSIGN(const auto label, read_label(device));
	if (label)
		note_member(*label, path);
	return {};
}

Result<Json> Engine::create_pool(const std::string &name, const std::vector<TierRequest> &tiers,
				 const std::vector<std::string> &wipe, bool dry_run, std::optional<bool> pass_discards)
{
	SV_TRY(check_pool_name(name));
	if (tiers.empty() || tiers.size() > SV_MAX_TIERS)
		return Error{Code::kUsage, "create pool", name, fmt::format("it needs 1 to {} tiers", SV_MAX_TIERS), ""};
	std::set<std::string> names;
	for (const TierRequest &tier : tiers) {
		SV_TRY(check_tier_name(tier.name));
		if (tier.devices.empty())
			return Error{Code::kUsage, "create tier", tier.name, "it names no device", ""};
		if (!names.insert(tier.name).second)
			return Error{Code::kUsage, "create tier", tier.name, "this tier is named twice", ""};
	}
	rescan();	// the name may have been that of a pool whose devices have gone
	SV_ASSIGN(const bool same, same_pool(name, tiers, pass_discards));
	if (same)
		return Json{{"result", "no change"}, {"message", fmt::format("pool {}: no change", name)}};
	SV_TRY(refuse_no_host("create pool", name));
	SV_TRY(kernel_.probe());
	SV_ASSIGN(const auto candidates, probe_all(tiers, wipe));
	if (candidates.size() > SV_MAX_MEMBERS)
		return Error{Code::kUsage, "create pool", name,
			     fmt::format("a pool has at most {} devices", SV_MAX_MEMBERS), ""};
	const Uuid uuid = Uuid::random();
	SV_ASSIGN(const auto labels, lay_out(name, uuid, candidates));
	std::vector<std::string> destroys;
	for (const Candidate &candidate : candidates)
		if (candidate.wipe)
			destroys.push_back(fmt::format("everything on {} ({})", candidate.device.path,
				candidate.device.signatures.empty() ? "no known signature" :
				candidate.device.signatures.front()));
	if (dry_run)
		return Json{{"result", "dry run"}, {"destroys", lines(destroys)},
			    {"message", fmt::format("pool {} would be created of {} devices", name, candidates.size())}};

	Holds holds;
	PoolRow row;
	row.uuid = uuid;
	row.name = name;
	row.created = static_cast<uint64_t>(std::time(nullptr));
	row.incarnation = labels[0].incarnation;
	row.generation = labels[0].generation;
	row.pass_discards = pass_discards.value_or(false);
	SV_TRY(write_pool(row, candidates, labels, holds));
	for (const Candidate &candidate : candidates) {
		remember(candidate.device.path);
		SV_TRY(note_created(candidate.device.path));
	}
	note_paths();
	SV_ASSIGN(Pool *const pool, find_pool(uuid.str()));
	for (const auto &[index, member] : pool->members())
		tell_udev(member.path);
	const Status activated = pool->activate({});
	if (!activated.ok()) {
		holds.clear();
		const Status erased = pool->erase_labels();
		if (!erased.ok())
			log::error(Id::kLabelLeft, "pool {}: {}", name, erased.error().message());
		else
			pools_.erase(uuid);
		return activated.error();
	}
	return Json{{"result", "created"}, {"uuid", uuid.str()},
		    {"message", fmt::format("pool {} created of {} devices", name, candidates.size())}};
}

Result<Json> Engine::add_device(const std::string &pool_name, const TierRequest &request,
				const std::vector<std::string> &wipe, bool dry_run)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	const auto same = [&](const std::string &path) {
		return std::any_of(pool->members().begin(), pool->members().end(), [&](const auto &item) {
			return identity_in_pool(item.second.path) == identity_in_pool(path) &&
			       request.name == item.second.label.tier_name; });
	};
	if (std::all_of(request.devices.begin(), request.devices.end(), same))
		return Json{{"result", "no change"}, {"message", fmt::format("pool {}: no change", pool_name)}};
	SV_TRY(pool_to_change(pool_name));
	const auto tier = std::find_if(pool->members().begin(), pool->members().end(), [&](const auto &item) {
		return request.name == item.second.label.tier_name; });
	if (tier == pool->members().end())
		return Error{Code::kNotFound, "add to tier", request.name, "pool " + pool_name + " has no such tier", ""};
	TierRequest rest{request.name, {}};
	std::copy_if(request.devices.begin(), request.devices.end(), std::back_inserter(rest.devices), std::not_fn(same));
	std::vector<std::string> rest_of_wipe;
	std::copy_if(wipe.begin(), wipe.end(), std::back_inserter(rest_of_wipe), [&](const std::string &path) {
		return std::find(request.devices.begin(), request.devices.end(), path) == request.devices.end() || !same(path); });
	SV_ASSIGN(const auto candidates, probe_all({rest}, rest_of_wipe));
	const sv_label model = pool->members().begin()->second.label;
	const auto count = static_cast<uint32_t>(pool->members().size() + candidates.size());
	if (count > SV_MAX_MEMBERS)
		return Error{Code::kUsage, "add a device to pool", pool_name,
			     fmt::format("a pool has at most {} devices", SV_MAX_MEMBERS), ""};

	// Each makes the pool larger by one, so that svd may die between any two of them.
	std::vector<sv_label> labels;
	for (const Candidate &candidate : candidates) {
		sv_label label = model;
		std::memcpy(label.member_uuid, Uuid::random().bytes.data(), sizeof(label.member_uuid));
		copy_name(label.tier_name, request.name);
		label.tier = tier->second.label.tier;
		label.member = static_cast<uint32_t>(pool->members().size() + labels.size());
		label.nr_members = label.member + 1;
		label.generation = model.generation + labels.size() + 1;
		if (sv_label_layout(&label, candidate.device.size, 0, 0, 0) < 0)
			return Error{Code::kNoSpace, "use", candidate.device.path, "it is too small", ""};
		labels.push_back(label);
	}
	std::vector<std::string> destroys;
	for (const Candidate &candidate : candidates)
		if (candidate.wipe)
			destroys.push_back("everything on " + candidate.device.path);
	if (dry_run)
		return Json{{"result", "dry run"}, {"destroys", lines(destroys)},
			    {"message", fmt::format("{} device(s) would be added to {}", labels.size(), pool_name)}};
	for (size_t i = 0; i < labels.size(); i++) {
		Status added = add_one(*pool, candidates[i], labels[i]);
		if (!added.ok()) {
			Error error = std::move(added).error();
			if (i > 0)
				error.hint = fmt::format("{} of {} devices were added; repeat the command for the rest", i,
							 labels.size());
			return error;
		}
	}
	return Json{{"result", "added"},
		    {"message", fmt::format("{} device(s) added to pool {}", labels.size(), pool_name)}};
}

Status Engine::add_one(Pool &pool, const Candidate &candidate, const sv_label &label)
{
	Holds holds;
	SV_ASSIGN(const auto paths, take_devices({candidate}, holds));
	kill_point("add-device-partitioned");
	Status labelled;
	{
		auto file = BlockFile::open(paths[0], BlockFile::Mode::kExclusive);
		labelled = file.ok() ? write_label(*file.value(), label) : Status(std::move(file).error());
		if (!labelled.ok() && file.ok())
			take_back_label(pool.name(), *file.value(), label);
	}
	if (!labelled.ok()) {
		give_back({candidate}, paths, holds);
		return labelled;
	}
	remember(paths[0]);
	tell_udev(paths[0]);
	kill_point("add-device-labelled");
	pool.add_member({paths[0], label, LabelState::kSound, candidate.device.path});
	note_paths();
	return {};
}

Result<Json> Engine::delete_pool(const std::string &name, bool dry_run)
{
	rescan();	// what was a member of a pool that is down may be another's by now
	SV_ASSIGN(Pool *const pool, find_pool(name));
	SV_TRY(refuse_job(*pool, "delete"));
	if (pool->up())
		SV_TRY(pool_to_change(name));
	else if (hold_of(*pool) != Hold::kExported)
		SV_TRY(refuse_holder("delete pool", *pool));
	std::vector<std::string> destroys;
	if (pool->up()) {
		SV_ASSIGN(const auto volumes, pool->catalogue().volumes());
		for (const VolumeRow &volume : volumes)
			destroys.push_back(fmt::format("volume {}/{} ({})", name, volume.name,
						       format_size(Bytes(volume.size))));
		SV_TRY(list_snapshots(*pool, volumes, destroys));
	}
	for (const auto &[index, member] : pool->members())
		destroys.push_back(fmt::format("pool {}'s data on {}", name, member.path));
	if (dry_run) {
		if (pool->up())
			SV_TRY(pool->refuse_open_volumes("deactivate pool"));
		return Json{{"result", "dry run"}, {"destroys", lines(destroys)},
			    {"message", fmt::format("pool {} would be deleted", name)}};
	}
	SV_TRY(pool->deactivate());
	SV_TRY(pool->erase_labels());
	keep_down(pool->uuid(), false);
	forget_paths(pool->uuid());
	pools_.erase(Uuid(pool->uuid()));
	log::notice("pool {} deleted", name);
	return Json{{"result", "deleted"}, {"message", fmt::format("pool {} deleted", name)}};
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// The life of pools, volumes, and what is reported of them. See engine.h; find_pools.cc, create_pool.cc and
// import_pool.cc have the rest.
#include "daemon/engine/engine.h"

#include <algorithm>
#include <filesystem>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/base/memory_file.h"
#include "daemon/base/schedule.h"
#include "daemon/kernel/dm_kernel.h"
#include "kmod/core/latency.h"

namespace svd {

namespace {

const char *mode_name(uint32_t mode)
{
	static const char *const kNames[] = {"write", "out-of-space", "read-only", "fail"};
	return mode < std::size(kNames) ? kNames[mode] : "unknown";
}

}	// namespace

uint64_t round_up_to_blocks(uint64_t size)
{
	return (size + SV_BLOCK_SIZE - 1) / SV_BLOCK_SIZE * SV_BLOCK_SIZE;
}

Json done(const char *result, const std::string &message)
{
	return {{"result", result}, {"message", message}};
}

const char *Engine::state_of(const Pool &pool) const
{
	if (!pool.down() || hold_of(pool) == Hold::kHere)
		return state_name(pool.state());
	return hold_of(pool) == Hold::kExported ? "exported" : "foreign";
}

// ---- time ----

Pool::Clock::time_point Engine::due() const
{
	auto due = scan_due();
	for (const auto &[uuid, pool] : pools_)
		due = std::min(due, pool->due());
	return due;
}

std::vector<int> Engine::event_fds() const
{
	const auto now = Pool::Clock::now();
	std::vector<int> fds;
	if (kernel_.device_fd() >= 0)
		fds.push_back(kernel_.device_fd());
	for (const auto &[uuid, pool] : pools_)
		for (const int fd : {pool->event_fd(now), pool->discards_fd()})
			if (fd >= 0)
				fds.push_back(fd);
	return fds;
}

void Engine::tick()
{
	const auto now = Pool::Clock::now();
	came_ = kernel_.devices_came() || came_;
	if (scan_due() <= now) {
		rescan();
		activate_complete(false);
	}
	for (auto &[uuid, pool] : pools_) {
		pool->tick(now);
		if (pool->look_due() <= now)
			look(*pool, now);
	}
}

bool Engine::fail_kernel_call(uint64_t n)
{
	const bool waiting = kernel_.fail_call(0);
	if (n == 0)
		return waiting;
	for (auto &[uuid, pool] : pools_) {
		pool->tick_with_checkpoint();
		if (pool->up())
			look(*pool, Pool::Clock::now());
	}
	kernel_.fail_call(static_cast<uint32_t>(n));
	return waiting;
}

void Engine::shut_down()
{
	note_paths();
	for (auto &[uuid, pool] : pools_) {
		if (pool->state() != PoolState::kActive)
			continue;
		const log::Scope scope({pool->name()});
		pool->stop_discards();
		const Status result = pool->checkpoint();
		if (!result.ok())
			log::error(Id::kCheckpointFailed, "pool {}: last checkpoint: {}", pool->name(), result.error().message());
	}
}

// ---- pools and volumes that commands name ----

Result<Pool *> Engine::pool_that_is_up(const std::string &name)
{
	SV_ASSIGN(Pool *const pool, find_pool(name));
	if (!pool->up() && !pool->down())
		SV_TRY(refuse_job(*pool, "use"));
	if (pool->up())
		return pool;
	SV_TRY(refuse_holder("use pool", *pool));
	return Error{pool->missing().empty() ? Code::kBusy : Code::kNotFound, "use pool", name,
		     pool->problem() ? pool->problem()->what : "it is down", pool->next_step(name)};
}

Result<Pool *> Engine::pool_to_change(const std::string &name)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(name));
	if (pool->state() == PoolState::kReadOnly)
		return Error{Code::kPermission, "change pool", name, "it is read-only",
			     fmt::format("with all its members: svctl deactivate {0}; svctl activate {0}", name)}
			.with(Id::kPoolReadOnly);
	SV_TRY(refuse_job(*pool, "change"));
	return pool;
}

Status Engine::refuse_job(const Pool &pool, const std::string &attempted) const
{
	const Job *const job = pool.job();
	if (job == nullptr)
		return {};
	return Error{Code::kBusy, attempted + " pool", pool.name(),
		     fmt::format("job {} ({}) runs on it", job->id(), job->spec().what),
		     fmt::format("repeat the command after: svctl wait {}", job->id())};
}

Result<std::pair<Pool *, VolumeRow>> Engine::volume_to_change(const std::string &pool_name, const std::string &volume)
{
	SV_ASSIGN(const auto found, find_volume(pool_name, volume));
	SV_TRY(pool_to_change(pool_name));
	return found;
}

Result<std::pair<Pool *, VolumeRow>> Engine::find_volume(const std::string &pool_name, const std::string &volume)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	SV_TRY(check_volume_name(volume));
	SV_ASSIGN(const VolumeRow row, pool->catalogue().volume(volume));
	return std::pair<Pool *, VolumeRow>(pool, row);
}

// ---- life ----

Result<Json> Engine::activate(const std::string &name, bool read_only, bool missing, bool dry_run, Job *job)
{
	if (missing && !read_only)
		return Error{Code::kUsage, "activate pool", name, "it can be written to only with all its members",
			     "--missing goes with --read-only"};
	rescan();
	SV_ASSIGN(Pool *const pool, find_pool(name));
	if (pool->up()) {
		if (read_only && !missing && !pool->absent().empty())
			return Error{Code::kNotFound, "activate pool", name, "it is up without members that are missing",
				     fmt::format("attach them, then: svctl deactivate {0}; svctl activate {0} --read-only", name)}
				.with(Id::kMemberMissing);
		const bool same = (pool->state() == PoolState::kReadOnly) == read_only;
		if (!same)
			return Error{Code::kBusy, "activate pool", name,
				     fmt::format("it is up, {}", state_name(pool->state())),
				     "svctl deactivate " + name + " first"};
		return done("no change", fmt::format("pool {}: no change", name));
	}
	SV_TRY(refuse_job(*pool, "activate"));
	// Reading does no harm, whoever holds it: what it cannot show right, the problems say.
	if (!read_only)
		SV_TRY(refuse_holder("activate pool", *pool));
	if (const Pool *const other = namesake(*pool); other != nullptr && other->up())
		SV_TRY(refuse_name("activate pool", *pool, pool->name()));
	if (dry_run) {
		SV_TRY(pool->refuse_activation({read_only, missing}));
		return done("dry run", fmt::format("pool {} would be activated", name));
	}
	SV_TRY(no_longer_down(*pool, [&] {
		const Claim claim(*pool, job);
		return pool->activate({read_only, missing}, pace_of(job));
	}));
	std::string message = fmt::format("pool {} is {}", name, state_name(pool->state()));
	for (const Json &problem : problems_json(*pool))
		message += "\n" + problem["what"].get<std::string>();
	return done("activated", message);
}

Result<Json> Engine::deactivate(const std::string &name, bool dry_run)
{
	SV_ASSIGN(Pool *const pool, find_pool(name));
	SV_TRY(refuse_job(*pool, "deactivate"));
	const bool was_up = pool->up();
	if (dry_run && was_up)
		SV_TRY(pool->refuse_open_volumes("deactivate pool"));
	if (dry_run)
		return done("dry run", fmt::format("pool {} would {}", name, was_up ? "be taken down" : "stay down"));
	const Status down = pool->deactivate();
	if (!pool->up())
		keep_down(pool->uuid(), true);
	SV_TRY(down);
	return was_up ? done("deactivated", fmt::format("pool {} is down", name)) :
			done("no change", fmt::format("pool {}: no change", name));
}

// ---- volumes ----

Result<Json> Engine::create_volume(const std::string &pool_name, const std::string &volume, uint64_t size, bool dry_run)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(pool_name));
	SV_TRY(check_volume_name(volume));
	const uint64_t rounded = round_up_to_blocks(size);
	const auto existing = pool->catalogue().volume(volume);
	if (existing.ok() && existing.value().size == rounded)
		return done("no change", fmt::format("volume {}/{}: no change", pool_name, volume));
	if (existing.ok())
		return Error{Code::kBusy, "create volume", pool_name + "/" + volume,
			     fmt::format("it exists with {}", format_size(Bytes(existing.value().size))),
			     "to grow it: svctl resize-volume"};
	SV_TRY(pool_to_change(pool_name));
	SV_TRY(check_volume_size(rounded, volume));
	SV_TRY(check_device_name(pool->name(), volume));
	SV_TRY(pool->refuse_one_more("create volume", volume));
	if (dry_run)
		return done("dry run", fmt::format("volume {}/{} of {} would be created", pool_name, volume,
						   format_size(Bytes(rounded))));
	SV_ASSIGN(const VolumeRow row, pool->create_volume(volume, rounded));
	Json json = volume_json(*pool, row, {});
	json["result"] = "created";
	json["message"] = fmt::format("volume {}/{} created: {}", pool_name, volume, pool->volume_path(row));
	return json;
}

Result<Json> Engine::resize_volume(const std::string &pool_name, const std::string &volume, uint64_t size, bool dry_run)
{
	SV_ASSIGN(const auto found, volume_to_change(pool_name, volume));
	const auto &[pool, row] = found;
	const uint64_t rounded = round_up_to_blocks(size);
	const std::string name = pool_name + "/" + volume;
	if (rounded == row.size)
		return done("no change", fmt::format("volume {}: no change", name));
	if (rounded < row.size)
		return Error{Code::kUsage, "resize volume", name,
			     fmt::format("it has {}: volumes do not shrink", format_size(Bytes(row.size))), ""};
	SV_TRY(check_volume_size(rounded, row.name));
	if (dry_run)
		return done("dry run", fmt::format("volume {} would grow to {}", name, format_size(Bytes(rounded))));
	SV_TRY(pool->grow_volume(row, rounded));
	return done("resized", fmt::format("volume {} has {}", name, format_size(Bytes(rounded))));
}

// Those of its snapshots, too.
Status Engine::refuse_device_names(Pool &pool, const VolumeRow &volume, const std::string &to)
{
	SV_TRY(check_device_name(pool.name(), to));
	SV_ASSIGN(const auto snapshots, snapshots_of(pool, volume.id));
	for (const SnapshotRow &snapshot : snapshots)
		SV_TRY(check_device_name(pool.name(), to + "@" + snapshot.name));
	return volume.schedule == "none" ? Status() : check_device_name(pool.name(), to + "@" + scheduled_name(wall_clock()));
}

// systemd ends what /etc/fstab and /etc/crypttab began by a name that goes. Those of its snapshots go, too.
Status Engine::refuse_names_in_use(Pool &pool, const VolumeRow &volume)
{
	SV_TRY(pool.refuse_open("rename volume", volume));
	SV_ASSIGN(const auto snapshots, snapshots_of(pool, volume.id));
	for (const SnapshotRow &snapshot : snapshots)
		if (snapshot.active)
			SV_TRY(pool.refuse_open("rename the volume of", volume, snapshot));
	return {};
}

Result<Json> Engine::rename_volume(const std::string &pool_name, const std::string &volume, const std::string &to,
				   bool dry_run)
{
	SV_TRY(check_volume_name(to));
	const auto target = find_volume(pool_name, to);
	const auto source = find_volume(pool_name, volume);
	if (target.ok() && (volume == to || !source.ok()))
		return done("no change", fmt::format("volume {}/{}: no change", pool_name, to));
	if (!source.ok())
		return source.error();
	SV_TRY(pool_to_change(pool_name));
	if (target.ok())
		return Error{Code::kBusy, "rename volume", pool_name + "/" + volume, to + " exists", ""};
	SV_TRY(refuse_device_names(*source.value().first, source.value().second, to));
	SV_TRY(refuse_names_in_use(*source.value().first, source.value().second));
	if (dry_run)
		return done("dry run", fmt::format("volume {}/{} would be named {}", pool_name, volume, to));
	SV_TRY(source.value().first->rename_volume(source.value().second, to));
	return done("renamed", fmt::format("volume {0}/{1} is now {0}/{2}", pool_name, volume, to));
}

Result<Json> Engine::delete_volume(const std::string &pool_name, const std::string &volume, bool dry_run,
				   std::optional<uint64_t> id)
{
	SV_ASSIGN(const auto found, volume_to_change(pool_name, volume));
	const auto &[pool, row] = found;
	const std::string name = pool_name + "/" + volume;
	if (id && *id != row.id)
		return Error{Code::kNotFound, "delete volume", name, fmt::format("it is another one, with number {}", row.id)};
	SV_ASSIGN(const auto snapshots, snapshots_of(*pool, row.id));
	if (!snapshots.empty())
		return Error{Code::kBusy, "delete volume", name,
			     fmt::format("it has {} snapshot(s), {}@{} for one", snapshots.size(), volume, snapshots[0].name),
			     fmt::format("{}svctl list -t snapshot {}; svctl delete-snapshot for each",
					 row.schedule == "none" ? "" : fmt::format("svctl set-volume {} --schedule none; ", name), name)};
	if (dry_run) {
		SV_TRY(pool->refuse_open("delete volume", row));
		SV_ASSIGN(const uint64_t mapped, pool->catalogue().mapped(row.id));
		Json json = done("dry run", fmt::format("volume {} would be deleted", name));
		json["destroys"] = {fmt::format("volume {} ({}, {} written)", name, format_size(Bytes(row.size)),
						format_size(Bytes(mapped << SV_EXTENT_SHIFT)))};
		return json;
	}
	SV_TRY(pool->delete_volume(row));
	return done("deleted", fmt::format("volume {} deleted", name));
}

Result<Json> Engine::activate_volume(const std::string &pool_name, const std::string &volume, bool dry_run)
{
	SV_ASSIGN(const auto found, find_volume(pool_name, volume));
	const auto &[pool, row] = found;
	const std::string name = pool_name + "/" + volume;
	if (row.active)
		return done("no change", fmt::format("volume {}: no change", name));
	SV_TRY(refuse_job(*pool, "change"));
	SV_TRY(check_device_name(pool->name(), row.name));
	if (dry_run)
		return done("dry run", fmt::format("volume {} would be activated", name));
	SV_TRY(pool->activate_volume(row));
	return done("activated", fmt::format("volume {} is active: {}", name, pool->volume_path(row)));
}

Result<Json> Engine::deactivate_volume(const std::string &pool_name, const std::string &volume, bool dry_run)
{
	SV_ASSIGN(const auto found, find_volume(pool_name, volume));
	const auto &[pool, row] = found;
	const std::string name = pool_name + "/" + volume;
	if (!row.active)
		return done("no change", fmt::format("volume {}: no change", name));
	SV_TRY(refuse_job(*pool, "change"));
	if (dry_run) {
		SV_TRY(pool->refuse_open("deactivate volume", row));
		return done("dry run", fmt::format("volume {} would be deactivated", name));
	}
	SV_TRY(pool->deactivate_volume(row));
	return done("deactivated", fmt::format("volume {} is inactive{}", name, row.autoactivate ?
					       ", until its pool comes up the next time" : ""));
}

namespace {

// "comes up with its pool, and gets snapshots by schedule 1h:1d"; empty: nothing changes.
std::string changes_of(const VolumeRow &row, const VolumeSettings &wanted)
{
	std::string text;
	if (wanted.autoactivate && *wanted.autoactivate != row.autoactivate)
		text = *wanted.autoactivate ? "comes up with its pool" : "does not come up with its pool";
	if (!wanted.schedule || *wanted.schedule == row.schedule)
		return text;
	text += text.empty() ? "" : ", and ";
	return text + (*wanted.schedule == "none" ? "gets no snapshots by schedule; those that it has stay" :
						    "gets snapshots by schedule " + *wanted.schedule);
}

}	// namespace

Result<Json> Engine::set_volume(const std::string &pool_name, const std::string &volume, const VolumeSettings &settings,
				bool dry_run)
{
	VolumeSettings wanted = settings;
	Schedule schedule;
	if (wanted.schedule) {
		SV_ASSIGN(schedule, parse_schedule(*wanted.schedule));
		wanted.schedule = format_schedule(schedule);
	}
	SV_ASSIGN(const auto found, volume_to_change(pool_name, volume));
	const auto &[pool, row] = found;
	const std::string name = pool_name + "/" + volume;
	if (!wanted.autoactivate && !wanted.schedule)
		return Error{Code::kUsage, "set volume", name, "nothing is to be set", "svctl set-volume --help says what there is"};
	const std::string changes = changes_of(row, wanted);
	if (changes.empty())
		return done("no change", fmt::format("volume {}: no change", name));
	if (!schedule.empty())
		SV_TRY(check_device_name(pool->name(), volume + "@" + scheduled_name(wall_clock())));
	if (dry_run) {
		Json json = done("dry run", fmt::format("from then on volume {} {}", name, changes));
		SV_ASSIGN(json["destroys"], lost_by_schedule(*pool, row, schedule));
		return json;
	}
	if (wanted.schedule)
		SV_TRY(pool->catalogue().set_schedule(row.id, *wanted.schedule));
	if (wanted.autoactivate)
		SV_TRY(pool->catalogue().set_autoactivate(row.id, *wanted.autoactivate));
	return done("set", fmt::format("from now on volume {} {}", name, changes));
}

Result<Json> Engine::set_pool(const std::string &name, std::optional<bool> pass_discards, bool dry_run)
{
	SV_ASSIGN(Pool *const pool, pool_to_change(name));
	if (!pass_discards)
		return Error{Code::kUsage, "set pool", name, "nothing is to be set", "svctl set-pool --help says what there is"};
	SV_ASSIGN(PoolRow row, pool->catalogue().pool());
	if (*pass_discards == row.pass_discards)
		return done("no change", fmt::format("pool {}: no change", name));
	row.pass_discards = *pass_discards;
	const std::string does = fmt::format("pool {} {}", name, *pass_discards ? "passes discards down to its devices" :
									      "passes no discards down to its devices");
	if (dry_run)
		return done("dry run", "from then on " + does);
	SV_TRY(pool->catalogue().set_pool(row));
	return done("set", "from now on " + does);
}

// By the path that the pool uses, by that which create-pool was given, or by any other one of the same device.
static Result<uint32_t> member_named(const Pool &pool, const std::string &device)
{
	for (const auto &[index, member] : pool.members()) {
		std::error_code ignored;
		if (device == member.named || device == member.path ||
		    std::filesystem::equivalent(device, member.path, ignored))
			return index;
	}
	return Error{Code::kNotFound, "find device", device, "pool " + pool.name() + " has no such device",
		     "svctl show " + pool.name() + " lists them"};
}

Result<Json> Engine::evacuate_device(const std::string &name, const std::string &device, bool undo, bool dry_run)
{
	SV_ASSIGN(Pool *const pool, pool_to_change(name));
	SV_ASSIGN(const uint32_t member, member_named(*pool, device));
	const std::string &path = pool->members().at(member).path;
	if (pool->is_leaving(member) != undo)
		return done("no change", fmt::format("{}: no change", path));
	if (dry_run && !undo)
		SV_TRY(pool->refuse_evacuation(member));
	const std::string what = undo ? fmt::format("{} is used as before", path) :
					fmt::format("nothing new is put on {}, and what lies there moves off", path);
	if (dry_run)
		return done("dry run", "from then on " + what);
	SV_TRY(pool->evacuate(member, !undo));
	return done(undo ? "undone" : "begun", "from now on " + what);
}

// ---- reports ----

Json Engine::volume_json(Pool &pool, const VolumeRow &row, const std::map<uint32_t, uint64_t> &mapped)
{
	const auto extents = mapped.find(row.id);
	Json json = {{"name", row.name}, {"id", row.id}, {"size", row.size},
		     {"used", (extents == mapped.end() ? 0 : extents->second) << SV_EXTENT_SHIFT},
		     {"state", row.state != VolumeState::kActive ? "deleting" : row.active ? state_name(pool.state()) : "inactive"},
		     {"autoactivate", row.autoactivate}, {"schedule", row.schedule}, {"device", pool.volume_path(row)}};
	if (!pool.absent().empty())
		json["damaged_extents"] = pool.damage(row.id).extents;
	return json;
}

namespace {

Json missing_json(const Pool &pool, uint32_t index)
{
	Json json = {{"member", index}, {"missing", true}, {"tier", ""}, {"size", 0u}};
	if (const MemberRow *const row = pool.missing_row(index)) {
		json["tier"] = row->tier_name;
		json["size"] = static_cast<uint64_t>(row->nr_slots) << SV_EXTENT_SHIFT;
		json["uuid"] = row->uuid.str();
	}
	if (const std::string path = pool.last_path(index); !path.empty())
		json["path"] = path;
	return json;
}

}	// namespace

Json Engine::pool_json(Pool &pool, bool with_volumes)
{
	Json json = {{"name", pool.name()}, {"uuid", pool.uuid().str()}, {"state", state_of(pool)},
		     {"problems", problems_json(pool)}, {"tiers", Json::array()}, {"devices", Json::array()}};
	MemberStates states = pool.member_states();
	std::map<uint32_t, Json> tiers;
	uint64_t size = 0;
	uint64_t free_bytes = 0;
	for (const auto &[index, member] : pool.members()) {
		const uint64_t bytes = static_cast<uint64_t>(member.label.nr_slots) << SV_EXTENT_SHIFT;
		const uint64_t unused = static_cast<uint64_t>(states[index].free_slots) << SV_EXTENT_SHIFT;
		const bool leaving = pool.up() && pool.is_leaving(index);	// the space that it still has is nobody's
		const uint64_t counted = leaving ? bytes - unused : bytes;
		Json &tier = tiers[member.label.tier];
		if (tier.is_null())
			tier = {{"name", member.label.tier_name}, {"members", 0}, {"size", 0u}, {"free", 0u}, {"used", 0u}};
		tier["members"] = tier["members"].get<int>() + 1;
		tier["size"] = tier["size"].get<uint64_t>() + counted;
		json["devices"].push_back({{"member", index}, {"path", member.named}, {"device", member.path}, {"tier", member.label.tier_name},
					   {"size", bytes}, {"journal", (member.label.flags & SV_LABEL_HAS_RING) != 0},
					   {"catalogue", (member.label.flags & SV_LABEL_HAS_CATALOGUE) != 0}});
		size += counted;
		free_bytes += leaving ? 0 : unused;
		if (pool.up()) {
			json["devices"].back()["errors"] = states[index].errors;
			json["devices"].back()["used"] = bytes - unused;
			json["devices"].back()["leaving"] = leaving;
			tier["free"] = tier["free"].get<uint64_t>() + (leaving ? 0 : unused);
			tier["used"] = tier["size"].get<uint64_t>() - tier["free"].get<uint64_t>();
		}
	}
	for (const uint32_t index : pool.missing())
		json["devices"].push_back(missing_json(pool, index));
	for (auto &[rank, tier] : tiers)
		json["tiers"].push_back(tier);
	json["size"] = size;
	if (!pool.up())
		return json;
	json["free"] = free_bytes;
	json["used"] = size - free_bytes;
	json["volumes"] = Json::array();
	const auto volumes = pool.catalogue().volumes();
	const auto mapped = with_volumes ? pool.mapped() : std::map<uint32_t, uint64_t>();
	for (size_t i = 0; with_volumes && volumes.ok() && i < volumes.value().size(); i++)
		json["volumes"].push_back(volume_json(pool, volumes.value()[i], mapped));
	if (with_volumes && volumes.ok())
		json["snapshots"] = snapshots_json(pool, volumes.value());
	return json;
}

Result<Json> Engine::list()
{
	Json json = {{"pools", Json::array()}};
	for (auto &[uuid, pool] : pools_)
		json["pools"].push_back(pool_json(*pool, true));
	return json;
}

namespace {

Json buckets_json(const sv_histogram &h)
{
	Json buckets = Json::array();
	for (uint32_t i = 0; i < SV_HISTOGRAM_BUCKETS; i++) {
		if (h.buckets[i] == 0)
			continue;
		Json bucket = {{"from_ns", i == 0 ? 0 : sv_latency_below(i - 1)}, {"ios", h.buckets[i]}};
		if (i < SV_HISTOGRAM_BUCKETS - 1)
			bucket["below_ns"] = sv_latency_below(i);
		buckets.push_back(bucket);
	}
	return buckets;
}

Json summary_json(const sv_histogram &h)
{
	Json json = {{"class", io_class_name(h.io_class)}, {"ios", h.ios}};
	for (const auto &[name, per_mille] : {std::pair("p50_below_ns", 500), {"p99_below_ns", 990},
					      {"p999_below_ns", 999}, {"all_below_ns", 1000}})
		if (const auto below = latency_below(h, per_mille))
			json[name] = *below;
	return json;
}

}	// namespace

Status Engine::add_latency(Pool &pool, uint32_t volume, Json &json)
{
	SV_ASSIGN(const auto latency, pool.latency(volume));
	if (!latency)
		return {};
	json["latency"] = Json::array();
	json["histograms"] = Json::array();
	for (const sv_io_class kind : {SV_IO_READ, SV_IO_WRITE, SV_IO_DISCARD, SV_IO_FLUSH})
		if (const sv_histogram all = latency->total(kind); all.ios > 0)
			json["latency"].push_back(summary_json(all));
	for (const sv_histogram &row : latency->rows) {
		Json histogram = {{"class", io_class_name(row.io_class)}, {"ios", row.ios}, {"bytes", row.bytes},
				  {"errors", row.errors}, {"total_ns", row.ns}, {"buckets", buckets_json(row)}};
		if (row.tier != SV_TIER_NONE)
			histogram["tier"] = pool.tier_name(row.tier);
		json["histograms"].push_back(histogram);
	}
	return {};
}

Result<Json> Engine::show_volume(const std::string &pool_name, const std::string &volume)
{
	SV_ASSIGN(const auto found, find_volume(pool_name, volume));
	Json json = volume_json(*found.first, found.second, found.first->mapped());
	for (const auto &[index, count] : found.first->damage(found.second.id).ranges)
		json["damaged"].push_back({{"offset", index << SV_EXTENT_SHIFT}, {"length", count << SV_EXTENT_SHIFT}});
	SV_TRY(add_latency(*found.first, found.second.id, json));
	return json;
}

Result<Json> Engine::show_pool(const std::string &pool_name)
{
	SV_ASSIGN(Pool *const pool, find_pool(pool_name));
	Json json = pool_json(*pool, true);
	if (!pool->up())
		return json;
	SV_ASSIGN(const auto state, pool->kernel().ask<sv_state>(SV_OP_STATE));
	SV_ASSIGN(const auto usage, pool->catalogue().usage());
	SV_ASSIGN(const PoolRow row, pool->catalogue().pool());
	json["discard"] = row.pass_discards ? "pass" : "keep";
	if (pool->discarding() > 0)
		json["discarding_bytes"] = pool->discarding();
	json["mode"] = mode_name(state.mode);
	json["journal"] = {{"size", state.ring_bytes}, {"used", state.ring_used}, {"committed_seq", state.committed_seq},
			   {"tail_seq", state.tail_seq}, {"commits", state.commits}, {"records", state.records}};
	json["kernel_memory_bytes"] = state.memory;
	json["partial_extents"] = state.partials;
	json["catalogue"] = {{"used", usage.db_bytes}, {"size", usage.db_capacity}, {"extents", usage.extents}};
	return json;
}

// ---- check, dump, restore ----

Result<Json> Engine::check(const std::string &name, Job &job)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(name));
	SV_TRY(refuse_job(*pool, "check"));
	const Claim claim(*pool, &job);
	SV_ASSIGN(const auto problems, pool->check(job));
	if (problems.empty())
		return done("sound", fmt::format("pool {}: kernel and catalogue agree", name));
	std::string first = problems[0];
	if (problems.size() > 1)
		first += fmt::format(" (and {} more)", problems.size() - 1);
	return Error{Code::kNeedsCheck, "find sound pool", name, first, ""}.with(Id::kStateDiffers);
}

Result<Json> Engine::dump(const std::string &name, Job &job)
{
	SV_ASSIGN(Pool *const pool, pool_that_is_up(name));
	SV_TRY(refuse_job(*pool, "dump"));
	const Claim claim(*pool, &job);
	SV_ASSIGN(job.file, pool->dump(job));
	return Json{{"fd", 0}};
}

Result<Json> Engine::restore(const std::string &name, int text, bool dry_run, Job &job)
{
	if (!is_sealed_memory_file(text))
		return Error{Code::kUsage, "restore pool", name, "the text did not come in a sealed memory file",
			     "use svctl restore"};
	SV_ASSIGN(Pool *const pool, pool_to_change(name));
	SV_ASSIGN(const auto volumes, pool->catalogue().volumes());
	SV_ASSIGN(const auto snapshots, pool->catalogue().snapshots());
	if (!volumes.empty() || !snapshots.empty())
		return Error{Code::kBusy, "restore pool", name, volumes.empty() ? "its snapshots are still being deleted" : "it has volumes",
			     "restore into a pool just created"};
	const Claim claim(*pool, &job);
	if (dry_run) {
		SV_TRY(pool->try_restore(text, job));
		return done("dry run", fmt::format("pool {} would be restored", name));
	}
	SV_TRY(pool->restore(text, job));
	if (!pool->up())
		return done("restored", fmt::format("pool {} restored; it is not up yet: {}; svd tries again: svctl status", name,
						    pool->problem() ? pool->problem()->what : ""));
	return done("restored", fmt::format("pool {} restored", name));
}

}	// namespace svd

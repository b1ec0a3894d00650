// SPDX-License-Identifier: GPL-2.0
// Snapshots by schedule. See engine.h, and base/schedule.h for what a schedule wants. A systemd timer has them made (systemd/);
// whether it does watch.cc looks after.
//
// A snapshot goes only once the one that takes its place is there. Those of a pool's volumes that are due at one time are made
// at one moment.
#include <algorithm>
#include <ctime>

#include <fmt/format.h>

#include "daemon/base/log.h"
#include "daemon/base/schedule.h"
#include "daemon/engine/engine.h"
#include "daemon/kernel/dm_kernel.h"

namespace svd {

namespace {

constexpr int kMostOfOneSecond = 99;
constexpr size_t kMostDeletedAtOnce = 64;		// of a volume; the next turn takes more

// Held and active ones stay.
std::vector<SnapshotRow> surplus_of(const Schedule &schedule, const std::vector<ScheduledSnapshot> &planned,
				    const std::vector<SnapshotRow> &rows)
{
	const std::vector<uint32_t> gone = not_kept(schedule, planned);
	std::vector<SnapshotRow> surplus;
	for (const SnapshotRow &row : rows)
		if (!row.held && !row.active && std::find(gone.begin(), gone.end(), row.id) != gone.end())
			surplus.push_back(row);
	return surplus;
}

}	// namespace

// What is to be done for one volume.
struct Engine::DueSnapshot {
	VolumeRow volume;
	bool due = false;			// still
	std::string name;			// of the new one; empty: there is none to be made
	std::vector<SnapshotRow> surplus;	// once that one is there
	std::vector<std::string> deleted;
};

// What came of a turn: of all pools.
struct Engine::ScheduleTurn {
	uint64_t now = 0;
	bool dry_run = false;
	Json created = Json::array();
	Json deleted = Json::array();
	std::optional<Error> failed;	// the first one, but that a job runs is the least of them
	size_t failures = 0;

	void fail(Error error)
	{
		if (failures++ == 0 || failed->code == Code::kBusy)
			failed = std::move(error);
	}
};

// Kept is what its own schedule keeps; one that cannot be read is an error of that volume's.
Result<std::vector<Engine::DueSnapshot>> Engine::due_snapshots(Pool &pool, ScheduleTurn &turn)
{
	SV_ASSIGN(const auto volumes, pool.catalogue().volumes_with_schedule());
	std::vector<DueSnapshot> all;
	if (volumes.empty())
		return all;
	SV_ASSIGN(SnapshotsByVolume taken, pool.scheduled_snapshots());
	for (const VolumeRow &volume : volumes) {
		auto schedule = parse_schedule(volume.schedule);
		if (!schedule.ok()) {
			turn.fail(std::move(schedule).error());
			continue;
		}
		const std::vector<SnapshotRow> &rows = taken[volume.id];
		std::vector<ScheduledSnapshot> planned = as_planned(rows);
		DueSnapshot one{volume, is_due(schedule.value(), planned, turn.now), {}, {}, {}};
		if (one.due)
			planned.push_back({0, turn.now});
		one.surplus = surplus_of(schedule.value(), planned, rows);
		all.push_back(std::move(one));
	}
	return all;
}

// Where a clock was set back that time may have come before.
Result<std::string> Engine::scheduled_name_for(Pool &pool, const VolumeRow &volume, uint64_t now)
{
	const std::string plain = scheduled_name(now);
	for (int i = 1; i <= kMostOfOneSecond; i++) {
		const std::string name = i == 1 ? plain : fmt::format("{}-{}", plain, i);
		if (pool.catalogue().snapshot(volume.id, name).ok())
			continue;
		SV_TRY(check_device_name(pool.name(), volume.name + "@" + name));
		return name;
	}
	return Error{Code::kBusy, "create snapshot", pool.name() + "/" + volume.name + "@" + plain, "there are many of that name"};
}

uint64_t Engine::wall_clock() const { return static_cast<uint64_t>(std::time(nullptr) + clock_moved_); }

void Engine::name_scheduled(Pool &pool, std::vector<DueSnapshot> &all, ScheduleTurn &turn)
{
	for (DueSnapshot &one : all) {
		auto name = one.due ? scheduled_name_for(pool, one.volume, turn.now) : Result<std::string>(std::string());
		if (name.ok())
			one.name = std::move(name).value();
		else
			turn.fail(std::move(name).error());
	}
}

// At one moment. Where that fails, each for itself: one volume that cannot have its snapshot, for a member that fails, does not
// keep the others from theirs.
void Engine::create_scheduled(Pool &pool, std::vector<DueSnapshot> &all, ScheduleTurn &turn)
{
	std::vector<SnapshotWanted> wanted;
	for (const DueSnapshot &one : all)
		if (!one.name.empty())
			wanted.push_back({one.volume.id, one.name, true});
	const bool together = turn.dry_run || wanted.empty() || pool.create_snapshots(wanted, turn.now).ok();
	for (DueSnapshot &one : all) {
		if (one.name.empty())
			continue;
		const SnapshotWanted alone{one.volume.id, one.name, true};
		if (!together)
			if (auto made = pool.create_snapshots(std::span(&alone, 1), turn.now); !made.ok()) {
				turn.fail(std::move(made).error());
				continue;
			}
		turn.created.push_back(fmt::format("{}/{}@{}", pool.name(), one.volume.name, one.name));
		one.due = false;
	}
}

void Engine::delete_surplus(Pool &pool, DueSnapshot &one, ScheduleTurn &turn)
{
	for (size_t i = 0; i < std::min(one.surplus.size(), kMostDeletedAtOnce); i++) {
		const SnapshotRow &row = one.surplus[i];
		const Status gone = turn.dry_run ? Status() : pool.delete_snapshot(row);
		if (!gone.ok())
			return turn.fail(gone.error());
		turn.deleted.push_back(fmt::format("{}/{}@{}", pool.name(), one.volume.name, row.name));
		one.deleted.push_back(row.name);
	}
}

Status Engine::run_schedules_of(Pool &pool, ScheduleTurn &turn)
{
	SV_ASSIGN(std::vector<DueSnapshot> all, due_snapshots(pool, turn));
	if (std::all_of(all.begin(), all.end(), [](const auto &one) { return !one.due && one.surplus.empty(); }))
		return {};
	SV_TRY(refuse_job(pool, "make scheduled snapshots of"));
	name_scheduled(pool, all, turn);
	create_scheduled(pool, all, turn);
	for (DueSnapshot &one : all) {
		if (one.due)
			continue;	// it has none that takes the place of others
		delete_surplus(pool, one, turn);
		if (turn.dry_run || (one.name.empty() && one.deleted.empty()))
			continue;
		const log::Scope scope({pool.name(), one.volume.name, ""});
		log::notice("volume {}/{}: by its schedule {}{}{}{}", pool.name(), one.volume.name,
			    one.name.empty() ? "" : "snapshot " + one.name + " created",
			    one.name.empty() || one.deleted.empty() ? "" : ", ", one.deleted.empty() ? "" : "deleted: ",
			    fmt::join(one.deleted, ", "));
	}
	return {};
}

Result<Json> Engine::run_schedules(bool dry_run)
{
	ScheduleTurn turn;
	turn.now = wall_clock();
	turn.dry_run = dry_run;
	for (auto &[uuid, pool] : pools_) {
		if (pool->state() != PoolState::kActive)
			continue;
		const log::Scope scope({pool->name(), "", ""});
		if (const Status ran = run_schedules_of(*pool, turn); !ran.ok())
			turn.fail(ran.error());
	}
	if (turn.failures > 1)
		turn.failed->cause += fmt::format(" (and {} more failed)", turn.failures - 1);
	if (turn.failed)
		return *std::move(turn.failed);
	const bool nothing = turn.created.empty() && turn.deleted.empty();
	Json json = done(dry_run ? "dry run" : nothing ? "no change" : "done",
			 nothing ? "no snapshot is due" :
				   fmt::format("snapshots by schedule: {} {}created, {} {}deleted", turn.created.size(),
					       dry_run ? "would be " : "", turn.deleted.size(), dry_run ? "would be " : ""));
	json["created"] = turn.created;
	json["deleted"] = turn.deleted;
	return json;
}

// By another schedule than it has had. Without one all stay.
Result<Json> Engine::lost_by_schedule(Pool &pool, const VolumeRow &volume, const Schedule &schedule)
{
	SV_ASSIGN(SnapshotsByVolume taken, pool.scheduled_snapshots());
	const std::vector<SnapshotRow> &rows = taken[volume.id];
	Json names = Json::array();
	for (const SnapshotRow &row : surplus_of(schedule, as_planned(rows), rows))
		names.push_back(fmt::format("snapshot {}/{}@{}, which the new schedule does not keep", pool.name(), volume.name, row.name));
	return names;
}

}	// namespace svd

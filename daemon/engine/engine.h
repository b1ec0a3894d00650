// SPDX-License-Identifier: GPL-2.0
// svd's use cases: each checks its request, then makes one transaction and its kernel calls. Owns the pools. The API
// calls it (api/commands.cc) and main.cc turns its clock; all from one thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "daemon/engine/facts.h"
#include "daemon/engine/job.h"
#include "daemon/engine/pool.h"
#include "daemon/engine/problem.h"
#include "daemon/kernel/probe.h"

namespace svd {

using Json = nlohmann::json;

struct EngineOptions {
	std::string state_dir;			// small things that may be lost: known device names, pools to keep down
	std::vector<std::string> devices;	// look for members here only; empty: all block devices
	Host host;				// this one
	LowSpace low_space = {};
};

struct TierRequest {
	std::string name;
	std::vector<std::string> devices;
};

// What is empty stays as it is.
struct VolumeSettings {
	std::optional<bool> autoactivate;
	std::optional<std::string> schedule;	// base/schedule.h
};

struct SnapshotName {
	std::string volume;
	std::string snapshot;
};

inline Pace &pace_of(Job *job) { return job != nullptr ? static_cast<Pace &>(*job) : NoPace::instance(); }

// For as long as it lives the job has its place on the pool.
class Claim {
public:
	Claim(Pool &pool, const Job *job) : pool_(pool) { pool_.set_job(job); }
	~Claim()
	{
		pool_.set_job(nullptr);
		if (pool_.up())
			pool_.catalogue().release_memory();	// it has read, or written, all of it
	}
	Claim(const Claim &) = delete;
	Claim &operator=(const Claim &) = delete;

private:
	Pool &pool_;
};

Json done(const char *result, const std::string &message);	// what a command answers
uint64_t round_up_to_blocks(uint64_t size);

class Engine {
public:
	Engine(Kernel &kernel, EngineOptions options);

	// Every use case answers with the parameters of its reply.
	Result<Json> create_pool(const std::string &name, const std::vector<TierRequest> &tiers,
				 const std::vector<std::string> &wipe, bool dry_run, std::optional<bool> pass_discards = {});
	Result<Json> add_device(const std::string &pool, const TierRequest &request,
				const std::vector<std::string> &wipe, bool dry_run);
	Result<Json> delete_pool(const std::string &pool, bool dry_run);
	Result<Json> deactivate(const std::string &pool, bool dry_run);
	Result<Json> export_pool(const std::string &pool, bool dry_run);
	Result<Json> create_volume(const std::string &pool, const std::string &volume, uint64_t size, bool dry_run);
	Result<Json> resize_volume(const std::string &pool, const std::string &volume, uint64_t size, bool dry_run);
	Result<Json> rename_volume(const std::string &pool, const std::string &volume, const std::string &to,
				   bool dry_run);
	// With an id: only if the volume of that name still has it.
	Result<Json> delete_volume(const std::string &pool, const std::string &volume, bool dry_run, std::optional<uint64_t> id = {});
	// Of a pool that is up; until it is taken down.
	Result<Json> activate_volume(const std::string &pool, const std::string &volume, bool dry_run);
	Result<Json> deactivate_volume(const std::string &pool, const std::string &volume, bool dry_run);
	Result<Json> set_volume(const std::string &pool, const std::string &volume, const VolumeSettings &wanted, bool dry_run);
	Result<Json> set_pool(const std::string &pool, std::optional<bool> pass_discards, bool dry_run);
	// snapshots.cc. Of several volumes at one moment.
	Result<Json> create_snapshots(const std::string &pool, const std::vector<SnapshotName> &names, bool dry_run);
	Result<Json> create_clone(const std::string &pool, const std::string &volume, const SnapshotName &from,
				  std::optional<uint64_t> size, bool dry_run);
	Result<Json> rollback_volume(const std::string &pool, const SnapshotName &to, bool dry_run);
	Result<Json> rename_snapshot(const std::string &pool, const SnapshotName &name, const std::string &to, bool dry_run);
	Result<Json> hold_snapshot(const std::string &pool, const SnapshotName &name, bool held, bool dry_run);
	Result<Json> activate_snapshot(const std::string &pool, const SnapshotName &name, bool dry_run);
	Result<Json> deactivate_snapshot(const std::string &pool, const SnapshotName &name, bool dry_run);
	Result<Json> delete_snapshot(const std::string &pool, const SnapshotName &name, bool dry_run);
	Result<Json> show_snapshot(const std::string &pool, const SnapshotName &name);
	// Of these snapshots; of all of a volume where none is named, of all in the pool where nothing is.
	// Snapshots, or volumes as they are.
	Result<Json> diff(const std::string &pool, const SnapshotName &from, const SnapshotName &to, Job &job);
	Result<Json> show_space(const std::string &pool, const std::vector<SnapshotName> &of, Job &job);
	// schedules.cc. Of all pools: makes the snapshots that are due, and deletes those that are no longer kept.
	Result<Json> run_schedules(bool dry_run);
	// Nothing new is put on it, and what lies there moves to the others; or, with `undo`, it is used again.
	Result<Json> evacuate_device(const std::string &pool, const std::string &device, bool undo, bool dry_run);
	Result<Json> list();
	Result<Json> show_pool(const std::string &pool);
	Result<Json> show_volume(const std::string &pool, const std::string &volume);
	Result<Json> status();
	Result<Json> scan();			// now, and activate what is complete
	// Long: the work of jobs. Without one they are done in one go.
	Result<Json> activate(const std::string &pool, bool read_only, bool missing, bool dry_run, Job *job = nullptr);
	// Under another name unless `rename` is empty; `force`: also one that another host holds.
	Result<Json> import_pool(const std::string &pool, const std::string &rename, bool force, bool dry_run,
				 Job *job = nullptr);
	// Of jobs alone.
	Result<Json> check(const std::string &pool, Job &job);
	Result<Json> dump(const std::string &pool, Job &job);	// into a sealed memory file, the job's
	Result<Json> restore(const std::string &pool, int text, bool dry_run, Job &job);	// of such a file

	std::vector<Problem> problems();	// of all pools and devices, now; what status says

	// Of all pools, now. What two pools of one name are called tells them apart.
	EngineFacts facts(bool with_latency);

	// A volume of a pool that is up; for the simulation's debugging I/O too.
	Result<std::pair<Pool *, VolumeRow>> find_volume(const std::string &pool, const std::string &volume);
	struct FoundSnapshot {
		Pool *pool = nullptr;
		VolumeRow volume;	// that it is of
		SnapshotRow snapshot;
	};
	Result<FoundSnapshot> find_snapshot(const std::string &pool, const SnapshotName &name);

	bool fail_kernel_call(uint64_t n);	// from now on; what the clock would soon ask of the kernel it asks before that
	void look_ahead(std::chrono::seconds time);	// for alerts, as if it had gone by
	void move_clock(int64_t seconds) { clock_moved_ += seconds; }	// the wall's, for tests

	void tick();				// what is due; also when one of event_fds() is readable
	Pool::Clock::time_point due() const;	// of the next tick
	std::vector<int> event_fds() const;
	void shut_down();			// checkpoints; leaves pools up in the kernel

private:
	struct Candidate {			// a device on its way into a pool
		ProbedDevice device;
		uint32_t tier = 0;
		std::string tier_name;
		bool wipe = false;
	};

	// find_pools.cc. Pools are named by name or UUID.
	enum class Hold { kHere, kExported, kElsewhere, kDisputed };	// which host holds it
	Hold hold_of(const Pool &pool) const;
	Status refuse_holder(const char *attempt, const Pool &pool);	// unless it is this one
	std::string held_by(const Pool &pool) const;
	std::string how_to_take(const Pool &pool) const;
	std::string reference(const Pool &pool) const;
	const Pool *namesake(const Pool &pool, const std::string &name) const;
	const Pool *namesake(const Pool &pool) const { return namesake(pool, pool.name()); }
	bool may_come_up(const Pool &pool);	// by itself
	void tell_left_down(const Pool &pool);	// that it may not
	bool kept_down(const Pool &pool) const { return kept_down_.contains(pool.uuid()); }
	void keep_down(const Uuid &pool, bool down);
	// A command that brings it up: before it begins the pool is one to come up, for an svd that dies in between must serve
	// what the kernel serves. One that fails changes nothing of that.
	template <typename BringUp> auto no_longer_down(const Pool &pool, BringUp bring_up)
	{
		const bool kept = kept_down(pool);
		keep_down(pool.uuid(), false);
		auto up = bring_up();
		if (!up.ok() && kept)
			keep_down(pool.uuid(), true);
		return up;
	}
	std::vector<Pool *> pools_named(const std::string &name, const std::function<bool(const Pool &)> &wanted) const;
	Result<Pool *> choose_pool(const std::string &name, std::vector<Pool *> all) const;
	Status refuse_job(const Pool &pool, const std::string &attempted) const;	// if one runs on it
	Result<Pool *> find_pool(const std::string &name);
	// import_pool.cc
	Status refuse_no_host(const char *attempt, const std::string &name) const;
	Status refuse_import(const Pool &pool, const std::string &to, bool force) const;
	Status refuse_name(const char *attempt, const Pool &pool, const std::string &name) const;
	Result<Pool *> find_to_import(const std::string &name, const std::string &rename);
	Result<Json> take_pool(Pool &pool, const std::string &name, Job *job);
	void give_pool_back(Pool &pool, const Host &host, const std::string &name);

	Result<Pool *> pool_that_is_up(const std::string &name);
	Result<Pool *> pool_to_change(const std::string &name);	// up, and not read-only
	Result<std::pair<Pool *, VolumeRow>> volume_to_change(const std::string &pool, const std::string &volume);
	Status refuse_device_names(Pool &pool, const VolumeRow &volume, const std::string &to);
	Status refuse_names_in_use(Pool &pool, const VolumeRow &volume);
	// snapshots.cc
	Result<FoundSnapshot> snapshot_to_change(const std::string &pool, const SnapshotName &name);
	Result<uint32_t> id_of(const std::string &pool, const SnapshotName &name);	// the snapshot may be empty: the volume's
	Result<std::vector<FoundSnapshot>> chosen_snapshots(const std::string &pool, const std::vector<SnapshotName> &of);
	Result<std::vector<SnapshotRow>> snapshots_of(Pool &pool, uint32_t volume);	// that are done
	Result<std::vector<SnapshotWanted>> wanted_snapshots(const std::string &pool, const std::vector<SnapshotName> &names);
	// "snapshot tank/v@one"; a held one: kBusy.
	Status list_snapshots(Pool &pool, const std::vector<VolumeRow> &volumes, std::vector<std::string> &names);
	Json snapshot_json(Pool &pool, const VolumeRow &of, const SnapshotRow &row);
	Json snapshots_json(Pool &pool, const std::vector<VolumeRow> &volumes);

	// schedules.cc
	struct DueSnapshot;
	struct ScheduleTurn;
	Result<std::vector<DueSnapshot>> due_snapshots(Pool &pool, ScheduleTurn &turn);
	Result<std::string> scheduled_name_for(Pool &pool, const VolumeRow &volume, uint64_t now);
	void name_scheduled(Pool &pool, std::vector<DueSnapshot> &all, ScheduleTurn &turn);
	void create_scheduled(Pool &pool, std::vector<DueSnapshot> &all, ScheduleTurn &turn);
	void delete_surplus(Pool &pool, DueSnapshot &one, ScheduleTurn &turn);
	Status run_schedules_of(Pool &pool, ScheduleTurn &turn);
	Result<Json> lost_by_schedule(Pool &pool, const VolumeRow &volume, const Schedule &schedule);
	uint64_t wall_clock() const;	// seconds since the epoch

	Result<std::vector<Candidate>> probe_all(const std::vector<TierRequest> &tiers,
						 const std::vector<std::string> &wipe);
	Status refuse_contents(const Candidate &candidate);
	static Status refuse_locked(const Candidate &candidate);
	Result<bool> same_pool(const std::string &name, const std::vector<TierRequest> &tiers,
			       std::optional<bool> pass_discards);
	using Holds = std::vector<UniqueFd>;	// of whole disks on their way into a pool
	Result<std::vector<std::string>> take_devices(const std::vector<Candidate> &candidates, Holds &holds);
	Status add_one(Pool &pool, const Candidate &candidate, const sv_label &label);
	void give_back(const std::vector<Candidate> &candidates, const std::vector<std::string> &paths, Holds &holds);
	Result<std::vector<sv_label>> lay_out(const std::string &name, const Uuid &uuid,
					      const std::vector<Candidate> &candidates);
	Status write_pool(const PoolRow &row, const std::vector<Candidate> &candidates, const std::vector<sv_label> &labels,
			  Holds &holds);
	Status write_members(const PoolRow &row, const std::vector<std::string> &paths, const std::vector<sv_label> &labels);
	void rescan();
	void note_label(const std::string &path);	// as named by the user or a scan
	void note_member(FoundMember member, const std::string &named);
	Status note_created(const std::string &path);
	void activate_complete(bool all);
	Pool::Clock::time_point scan_due() const;
	bool wants_scan() const;
	std::vector<std::string> places() const;
	void remember(const std::string &path);
	void read_paths();
	void note_paths();
	void write_paths() const;
	void forget_paths(const Uuid &pool);
	Json pool_json(Pool &pool, bool with_volumes);
	Json volume_json(Pool &pool, const VolumeRow &row, const std::map<uint32_t, uint64_t> &mapped);
	Status add_latency(Pool &pool, uint32_t volume, Json &json);
	void look(Pool &pool, Pool::Clock::time_point now);
	std::vector<Problem> problems_of(Pool &pool);
	void machine_problems(std::vector<Problem> &problems, std::chrono::seconds modules_age);
	void holder_problems(const Pool &pool, std::vector<Problem> &problems);
	Json problems_json(Pool &pool);
	const char *state_of(const Pool &pool) const;

	Kernel &kernel_;
	EngineOptions options_;
	std::map<Uuid, std::unique_ptr<Pool>> pools_;
	std::map<std::string, std::string> bad_labels_;	// path -> why
	std::map<Uuid, std::map<uint32_t, std::string>> paths_;	// of members, where they were last: for one that is missing
	std::set<Uuid> kept_down_;	// deactivated by command: until they are activated, or the machine is started anew
	std::map<Uuid, std::set<std::string>> left_down_;	// why, as told
	std::vector<MissingModule> missing_modules_;
	Pool::Clock::time_point looked_for_modules_{};
	Pool::Clock::time_point last_scan_{};
	bool came_ = false;	// a member, since the last scan
	int64_t clock_moved_ = 0;			// seconds
	Pool::Clock::time_point looked_ahead_{};	// until then
};

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// One pool as svd knows it: its members as far as they were found, and, while it is up, its catalogue and its control
// channel. Split by use: pool.cc (members, volumes), recovery.cc (bringing it up), checkpoint.cc (journal into
// catalogue), check.cc (kernel against catalogue). The engine owns pools and is the only caller.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/base/pace.h"
#include "daemon/base/schedule.h"
#include "daemon/base/unique_fd.h"
#include "daemon/catalogue/catalogue.h"
#include "daemon/engine/discards.h"
#include "daemon/engine/evacuation.h"
#include "daemon/engine/host.h"
#include "daemon/engine/label_io.h"
#include "daemon/engine/latency.h"
#include "daemon/engine/problem.h"
#include "daemon/engine/watch.h"
#include "daemon/kernel/kernel.h"

namespace svd {

// kActivating, kRestoring: a job has it to itself, and nobody else may look into its catalogue or speak to its kernel.
enum class PoolState { kDown, kActivating, kActive, kReadOnly, kRestoring };
const char *state_name(PoolState state);

// Which host holds a pool, as its labels say. No host: it was exported.
struct Holder {
	Host host;
	std::optional<Host> rival;	// the labels name two: both took it at the same moment
};

// A sealed memory file: a line for each range, as io.svctl.Diff says.
struct Changes {
	UniqueFd text;
	uint64_t ranges = 0;
	uint64_t bytes = 0;
};
class Job;
class MapSources;
struct MapSource;
class UsedSlots;

using MemberStates = std::map<uint32_t, sv_member_state>;	// by member
using SnapshotsByVolume = std::map<uint32_t, std::vector<SnapshotRow>>;	// by volume, the oldest first
std::vector<ScheduledSnapshot> as_planned(const std::vector<SnapshotRow> &rows);	// as base/schedule.h takes them

class Pool {
public:
	using Clock = std::chrono::steady_clock;

	struct Member {
		std::string path;
		std::string named;	// by the user; for show
		sv_label label;
		LabelState label_state = LabelState::kSound;
		std::unique_ptr<BlockFile> file;	// while the pool is up
		bool granted = true;	// the kernel has it, and its slots
		bool admitted = true;	// and all labels count it
	};

	Pool(Kernel &kernel, const Uuid &uuid, std::string name) : kernel_(kernel), uuid_(uuid), name_(std::move(name)) {}

	// ---- members ----
	void found(const FoundMember &member);		// by a scan; while the pool is up only duplicates are noted
	void begin_scan();				// forgets them, unless the pool is up
	uint32_t nr_members() const;			// by the labels found
	std::vector<uint32_t> missing() const;
	// Of one that is missing: what the catalogue says, once it was read, and by which path it was found the last time.
	const MemberRow *missing_row(uint32_t index) const;
	std::string last_path(uint32_t index) const;
	std::string missing_text(uint32_t index) const;	// "member 1 of 3 is missing (tier slow, last seen as /dev/sdc)"
	void set_last_paths(std::map<uint32_t, std::string> paths) { last_paths_ = std::move(paths); }
	const std::map<uint32_t, Member> &members() const { return members_; }
	const std::string &conflict() const { return conflict_; }

	// ---- who holds it (holder.cc); the pool has members ----
	Holder holder() const;
	Status refuse_hand_over(const char *attempt) const;	// members are missing, or not what they were
	bool handed_over(const Host &to, const std::string &name) const;	// do all labels say so?
	// Can all its volumes and snapshots have devices under that name? The pool is down.
	Status refuse_rename(const std::string &to);
	// Writes host and name to all labels. While the pool is up the name must stay what it is.
	Status hand_over(const Host &to, const std::string &name);

	// ---- life ----
	struct How {
		bool read_only = false;			// nothing is written to members; the journal is applied in memory
		bool missing = false;			// read_only: go on without members; what lies on them is EIO
	};
	Status refuse_activation(How how);		// as far as that shows before anything is opened; the pool is down
	bool worth_a_try(Clock::time_point now) const;	// not if it just failed with the same members
	Status activate(How how, Pace &pace = NoPace::instance());	// kNeedsCheck, kNotFound (a member is missing) ...
	Status refuse_open_volumes(const char *attempt);	// nor snapshots; the pool is up
	Status refuse_one_more(const char *attempt, const std::string &object);	// volume or active snapshot; likewise
	Status refuse_open(const char *attempt, const VolumeRow &volume) const;
	Status refuse_open(const char *attempt, const VolumeRow &of, const SnapshotRow &snapshot) const;
	Status deactivate();				// kBusy: a volume is open, nothing changed
	Status erase_labels();				// delete-pool; the pool is down
	// Its label is on the device: that made it a member. What else is to do is repeated if it fails.
	void add_member(const FoundMember &added);

	// ---- members that are to be emptied (pool_evacuation.cc); the pool is up, and not read-only ----
	Status refuse_evacuation(uint32_t member);	// kNoSpace: the others do not take what lies on it
	// Nothing new gets onto it, and what lies there moves off in the background; or, not `leaves`, it is as it was before.
	Status evacuate(uint32_t member, bool leaves);
	bool is_leaving(uint32_t member) const;

	// ---- volumes; the pool is up ----
	Result<VolumeRow> create_volume(const std::string &name, uint64_t size);
	Status grow_volume(const VolumeRow &volume, uint64_t size);
	Status rename_volume(const VolumeRow &volume, const std::string &to);
	Status delete_volume(const VolumeRow &volume);
	Status activate_volume(const VolumeRow &volume);
	Status deactivate_volume(const VolumeRow &volume);	// kBusy: it is open, nothing changed
	std::string volume_path(const VolumeRow &volume) const;

	// ---- snapshots (pool_snapshots.cc); the pool is up ----
	// At one moment. What the error says has not been made; the rest of a cut goes too.
	Result<std::vector<SnapshotRow>> create_snapshots(std::span<const SnapshotWanted> wanted, uint64_t now);
	Result<VolumeRow> create_clone(const std::string &name, uint64_t size, const SnapshotRow &from);
	// The volume is what the snapshot is; its number is another one. kBusy: it is open, nothing changed.
	Result<VolumeRow> rollback_volume(const VolumeRow &volume, const SnapshotRow &to);
	Result<HeadUse> written_since_snapshot(const VolumeRow &volume);
	Status activate_snapshot(const VolumeRow &of, const SnapshotRow &snapshot);	// gives it a read-only device
	Status deactivate_snapshot(const VolumeRow &of, const SnapshotRow &snapshot);	// kBusy: it is open, nothing changed
	Status delete_snapshot(const SnapshotRow &snapshot);	// not active. Its space comes back in the background
	std::string snapshot_path(const VolumeRow &of, const SnapshotRow &snapshot) const;
	Result<SnapshotsByVolume> scheduled_snapshots();	// made by a schedule
	// Nothing: the module is older than its histograms.
	Result<std::optional<VolumeLatency>> latency(uint32_t volume);
	std::string tier_name(uint32_t rank) const;	// empty: no member is of it
	std::map<uint32_t, uint64_t> mapped();	// extents of each volume; of the last checkpoint where the kernel does not say

	// ---- checkpoint ----
	Status checkpoint();
	void tick(Clock::time_point now);		// events, and a checkpoint when it is due; logs its failure
	void tick_with_checkpoint();			// as if one were due
	Clock::time_point due() const;			// of the next tick; max() where only events call for one
	int event_fd(Clock::time_point now) const;	// readable: tick; negative: none, or not before due()
	int discards_fd() const;			// likewise
	static constexpr auto kDiscardEnds = std::chrono::seconds(10);
	uint64_t discarding() const { return discards_.slots() << SV_EXTENT_SHIFT; }	// bytes
	Status end_discards(const char *attempt, Clock::duration longest = kDiscardEnds);	// kBusy: a member did not answer
	void stop_discards() { discards_.close(); }	// of an svd that ends; does not wait

	// ---- what is known of it, and its alerts (facts.cc) ----
	MemberStates member_states();	// none while the kernel does not say
	PoolFacts facts(const std::string &name);		// as commands call it; without volumes
	std::vector<VolumeFacts> volume_facts(bool with_latency);
	// Logs what began or ended. wall_clock: seconds since the epoch.
	void look(const std::string &name, const SpaceLimits &limits, Clock::time_point now, uint64_t wall_clock);
	Clock::time_point look_due() const;			// max() while it is down
	std::vector<Problem> alerts() const { return watch_.problems(); }

	// ---- check, dump, restore: long ----
	Status restore(int text, Pace &pace);	// a file; into a pool without volumes; goes down and up again
	Status try_restore(int text, Pace &pace);	// what that would say of the text; changes nothing
	Result<std::vector<std::string>> check(Pace &pace);	// what is wrong, a line each
	Result<UniqueFd> dump(Pace &pace);	// a sealed memory file
	Result<SnapshotSpaces> snapshot_spaces(std::span<const uint32_t> ids, Pace &pace);
	Result<Changes> diff(uint32_t from, uint32_t to, Pace &pace);	// ids of volumes or snapshots
	const Job *job() const { return job_; }		// that runs on it
	void set_job(const Job *job) { job_ = job; }

	const Uuid &uuid() const { return uuid_; }
	const std::string &name() const { return name_; }
	PoolState state() const { return state_; }
	bool up() const { return state_ == PoolState::kActive || state_ == PoolState::kReadOnly; }
	bool down() const { return state_ == PoolState::kDown; }
	// Of a pool that is up without all members: those, and what of volumes lies on them.
	struct Damage {
		void add(uint64_t index);	// ascending
		uint64_t extents = 0;
		uint64_t mapped = 0;		// of the volume, whole ones too; nothing changes while they are missing
		std::vector<std::pair<uint64_t, uint64_t>> ranges;	// index and count of the first kMostRanges
	};
	static constexpr size_t kMostRanges = 1000;
	const std::map<uint32_t, MemberRow> &absent() const { return absent_; }
	const Damage &damage(uint32_t volume) const;
	Catalogue &catalogue() { return *catalogue_; }
	KernelPool &kernel() { return *channel_; }
	const std::optional<Problem> &problem() const { return problem_; }	// why the last activation or checkpoint failed
	void clear_problem() { problem_.reset(); }
	bool is_news(const Error &error) const;		// and not what failed the last time, too
	std::string next_step(const std::string &name) const;	// what to type then; `name` is what commands call the pool

private:
	friend class Still;

	// check.cc
	Result<std::vector<std::string>> differences(Pace &pace);
	Status compare_volumes(const std::vector<VolumeRow> &volumes, const std::vector<VolumeSpec> &snapshots,
			       std::vector<std::string> *problems);
	Status compare_space(std::vector<std::string> *problems);
	Status once_still(Pace &pace, const std::function<Status(Pace &)> &work);

	Status refuse_open_device(const char *attempt, const std::string &object, const std::string &called,
				  const VolumeSpec &device) const;

	// pool_snapshots.cc
	VolumeSpec snapshot_spec(const VolumeRow &of, const SnapshotRow &snapshot) const;
	Result<std::vector<VolumeSpec>> active_snapshots();
	static Error old_module(const char *verb, const std::string &object, const char *than);
	Status refuse_old_module(const std::string &object) const;
	Status refuse_old_module_for_fragments();	// if any extent has them
	Status refuse_old_module_for_snapshots();	// if there are any, or clones
	Status take_cut(const std::vector<SnapshotRow> &rows);
	Status resolve_snapshots();
	bool shares_maps() const { return (features_ & SV_FEATURE_SHARE) != 0; }
	Status load_map(const sv_volume_info &view, MapSources &sources);
	Status load_whole_map(uint32_t id);
	Status share_map(uint32_t id, const MapSource &source);
	Status load_among_others(const sv_volume_info &view);
	Result<VolumeRow> begin_clone(const VolumeRow &wanted);
	Status load_volume(const VolumeRow &volume);
	void give_up_clone(uint32_t id);
	bool catalogue_is_lost() const;
	Error unknown_outcome(const char *attempt, const VolumeRow &volume, const Error &error) const;
	Status load_view(const VolumeSpec &spec, const SnapshotRow &snapshot);
	void restore_views();
	Status restore_view(const SnapshotRow &snapshot);
	Status drop_from_kernel(uint32_t id);	// success if it is not there
	Status find_deleted_snapshots();
	Status merge_some();
	Status settle_what_is_owed(Pace &pace);
	void fold_some();
	Status fold_step();
	Status fill_step();
	Result<CommandResult> tell_fold(std::vector<sv_fold> &pairs);
	Status fold_again(const std::vector<uint32_t> &parents);
	Status fold_pairs(std::vector<sv_fold> pairs);
	void put_off_fold(uint32_t parent);
	std::vector<uint32_t> folds_that_are_due() const;
	Status tell_owned();
	Status tell_freed();
	Status rename_snapshot_devices(const VolumeRow &of, const std::string &to);

	Result<MemberStates> members_in_kernel();

	// pool_evacuation.cc
	Status refuse_old_module_for_evacuation() const;
	Result<std::vector<MemberSpace>> room_elsewhere();
	Status tell_closed();
	Status set_leaving(uint64_t members);
	Status find_leaving();
	Status move_some();
	void evacuate_some(Clock::time_point now);

	// recovery.cc
	Status refuse_activation(How how, const RunningPool &running) const;
	Status bring_up(How how);
	void take_back_devices();
	std::string missing_list() const;
	void learn_of_missing();
	Status look_into_catalogue(bool allow_missing, const std::function<Status()> &look);	// of a pool that is down
	Status refuse_missing() const;
	Status find_damage();
	Status find_lost_parents(std::vector<bool> &lost);
	Status refuse_reused(const Member &member) const;
	Status open_members();
	Status open_catalogue(bool missing);
	Status compare_members(bool missing);
	Status recover_journal();
	Result<uint64_t> choose_copies(const sv_ring_cursor &cursor, std::vector<uint32_t> *order);
	Status replay(const std::vector<uint32_t> &copies, uint64_t last_seq, sv_ring_cursor *cursor);
	Status finish_deletions();
	Status load_kernel(bool existed);
	Status catch_up();
	Status reopen_channel();
	Status load_volumes();
	Result<std::vector<sv_volume_info>> volumes_in_kernel();
	Status reconcile_volumes();
	Status load_maps(UsedSlots *used);
	Status load_grants(const UsedSlots &used);
	Status create_volume_devices();
	Status find_active_volumes();
	Status find_unadmitted();
	Status catalogue_new_members();
	Status catalogue_name();
	void close_all();

	// holder.cc
	const sv_label &newest_label() const;
	Status write_shared(const sv_label &shared);
	Status confirm(const sv_label &shared);

	// checkpoint.cc
	Status apply_journal(uint64_t committed_seq);
	Clock::time_point checkpoint_due() const;
	Status checkpoint_now();
	void note_events(const sv_event &event);
	bool journal_is_half_full();
	Status say_whether_full();
	Status tell_policy();
	struct Freed {
		std::vector<sv_freed> at_once;		// to be recycled
		std::vector<FreedSlot> to_discard;	// before that
		std::map<uint32_t, uint64_t> slots;	// of those, by member
	};
	Result<Freed> list_freed();
	Status sort_freed(std::vector<sv_freed> some, bool discard, Freed *all);
	void fold_outgrown(const std::vector<uint32_t> &parents);
	bool folds_wait() const;
	Result<bool> may_use_fragments();
	Status find_slots(std::span<const sv_freed> some, std::vector<FreedSlot> *slots, std::vector<sv_freed> *without);
	Status give_back(Freed freed);
	Status give_back_discarded();
	bool begin_discard(const DiscardRun &run);
	void note_discard(const Discards::Done &done);
	Status drain_deletions();
	Status admit_members();
	Status stack_volumes_again();
	bool owes() const;		// work that a command left behind
	Status do_what_is_owed();

	Result<std::vector<VolumeSpec>> devices();	// of volumes and active snapshots
	Status remove_devices(const std::vector<VolumeSpec> &devices);
	void set_problem(const Status &result, Id otherwise);	// the code, if the error has none of its own
	void tell_mode(uint32_t mode) const;
	void note(const Status &result) const;	// logs a failure
	void tell(const std::vector<Watch::Change> &changes) const;
	Result<std::vector<ScheduleFacts>> schedules(uint64_t wall_clock);
	PoolSpec spec() const;
	VolumeSpec volume_spec(const VolumeRow &volume) const;
	sv_volume_info volume_info(const VolumeRow &volume) const;
	std::vector<uint32_t> with_flag(uint32_t flag) const;	// members

	Kernel &kernel_;
	Uuid uuid_;
	std::string name_;
	std::map<uint32_t, Member> members_;
	std::string conflict_;
	PoolState state_ = PoolState::kDown;
	bool read_only_ = false;
	bool made_device_ = false;	// by this activation; otherwise the kernel had it from an earlier svd
	bool found_up_ = false;		// so it was, and this svd has not looked at it yet
	std::map<uint32_t, MemberRow> absent_;
	std::map<uint32_t, MemberRow> known_;	// of members, as the catalogue told when one was missing
	std::map<uint32_t, std::string> last_paths_;
	std::map<uint32_t, Damage> damage_;	// by volume
	bool said_full_ = false;  // to the kernel, in this session
	std::optional<Problem> problem_;
	uint64_t features_ = 0;			// SV_FEATURE_*, since this activation, as the kernel told
	Watch watch_;
	Clock::time_point look_due_{};
	CheckpointFacts checkpoints_;
	std::unique_ptr<Catalogue> catalogue_;
	std::unique_ptr<KernelPool> channel_;
	Clock::time_point tried_{};	// to activate
	size_t tried_with_ = 0;		// members
	Clock::time_point last_checkpoint_{};
	Clock::time_point last_tick_{};
	bool asked_ = false;	// by the kernel, for a checkpoint
	bool still_ = false;	// no checkpoint now (Still)
	bool disturbed_ = false;	// and what stands still must give way
	const Job *job_ = nullptr;
	Pace *pace_ = &NoPace::instance();	// of the activation under way
	std::set<uint32_t> to_drop_;	// volumes that were deleted, and that the kernel still has
	bool merging_ = false;		// there may be layers of deleted snapshots
	bool unresolved_ = false;	// a snapshot may be pending of which the journal has all to say
	std::vector<Owned> to_own_;	// what it is to be told of heads
	struct PutOff {
		Clock::time_point due{};
		Clock::duration wait{};
	};
	struct {
		bool on = false;	// a round is under way
		bool later = false;	// one is to begin with the next checkpoint that comes by its clock
		bool again = false;	// so it is when this one ends: what the journal has not told yet may add some
		uint32_t after = 0;	// where the round is
		uint64_t folded = 0;	// in this round, or in the last one before the next begins
		std::set<uint32_t> touched;	// since the last checkpoint: the catalogue does not know what they are now
		std::map<uint32_t, PutOff> put_off;	// by parent: what the kernel left as it was
	} fold_;
	struct {
		bool on = false;	// as above
		bool later = false;
		uint32_t after = 0;
		uint64_t filled = 0;
		std::map<uint32_t, uint32_t> asked;	// FoldLimits::filling, since the last checkpoint
	} fill_;
	bool fragments_ = false;	// the kernel may use them
	Evacuation evacuation_;
	Discards discards_;
	bool trimmed_ = false;		// since LIST_FREED: RECYCLE may come
	bool left_freed_ = false;	// for want of room among the discards
	std::map<uint32_t, int> discard_errors_;	// that were told, by member
};

// Generation, number of members, name and host: what the labels of a pool share.
void copy_shared(const sv_label &from, sv_label *to);

// The ring of one member as kmod/core reads it.
class RingReader {
public:
	RingReader(BlockFile &file, const sv_label &label, uint64_t last_seq);
	// 1: *batch; 0: end; negative: damage, and why.
	int next(sv_ring_cursor *cursor, const void **batch, const char **why);
	// 1: the batch that the cursor stands behind is there; 0: not, the ring was lost.
	int holds(const sv_ring_cursor &cursor, const char **why) { return sv_ring_holds(&ring_, &cursor, why); }
	bool torn() const { return ring_.torn; }		// the end was a torn batch
	uint64_t later_seq() const { return ring_.later_seq; }	// last whole batch behind the damage

private:
	static int read(void *context, u64 offset, void *buffer, u32 length);

	BlockFile &file_;
	uint64_t offset_;
	AlignedBuffer buffer_;
	sv_ring ring_{};
};

// Collects the records of many batches and applies them in few transactions.
class BatchApplier {
public:
	explicit BatchApplier(Catalogue &catalogue) : catalogue_(catalogue) {}
	Status add(const void *batch, const sv_ring_cursor &reached);
	Status finish();
	uint64_t batches() const { return batches_; }
	const std::vector<uint32_t> &outgrown() const { return outgrown_; }	// ApplyStats

private:
	Catalogue &catalogue_;
	std::vector<uint32_t> outgrown_;
	std::vector<sv_rec> records_;
	sv_ring_cursor reached_{};
	uint64_t batches_ = 0;
	bool pending_ = false;
};

}	// namespace svd

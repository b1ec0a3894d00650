// SPDX-License-Identifier: GPL-2.0
// The catalogue: what must last of a pool, in an SQLite database on the pool's own members (docs/format-catalogue.md).
// It owns every SQL statement. The engine calls it, one use case = one transaction; it knows neither kernel nor labels.
//
// One thread at a time. Every changing call outside transaction() is a transaction of its own; when it has returned,
// its effect is on all in-sync copies of the region (synchronous=FULL). A failed call has changed nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/base/block_file.h"
#include "daemon/base/pace.h"
#include "daemon/base/result.h"
#include "daemon/base/uuid.h"
#include "kmod/core/journal.h"
#include "kmod/uapi/sv.h"

namespace svd {

class Region;

// One of the (at most two) places that hold the catalogue: [offset, offset + length) of a device, 4 KiB aligned.
// The device must outlive the Catalogue.
struct CatalogueCopy {
	BlockDevice *device = nullptr;
	uint64_t offset = 0;
	uint64_t length = 0;
};

struct PoolRow {
	Uuid uuid;
	std::string name;
	uint64_t created = 0;      // seconds since the epoch
	uint64_t incarnation = 0;  // of the journal ring
	uint64_t generation = 0;   // of the member list, as in the labels
	uint32_t no_space_ms = 60000;  // sv_policy: writes wait this long for space that svd may free
	uint32_t commit_ms = 1000;
	bool pass_discards = false;  // down to members, once slots are freed
	bool operator==(const PoolRow&) const = default;
};

struct MemberRow {
	uint32_t member = 0;  // index, dense from 0
	Uuid uuid;
	uint32_t tier = 0;  // rank, 0 is the fastest
	std::string tier_name;
	uint32_t nr_slots = 0;
	uint32_t flags = 0;  // SV_LABEL_*
	bool operator==(const MemberRow&) const = default;
};

enum class VolumeState : int { kActive = 0, kDeleting = 1 };

struct VolumeRow {
	uint32_t id = 0;
	std::string name;
	uint64_t size = 0;  // bytes
	VolumeState state = VolumeState::kActive;
	uint32_t layer = 0;  // head
	uint32_t owned_since = 0;
	uint32_t parent_layer = 0;  // below the head; 0: none
	uint64_t created = 0;
	uint32_t flags = 0;       // SV_VOLUME_*
	uint64_t tiers = ~0ull;   // as in sv_volume_info
	bool autoactivate = true;  // comes up with its pool
	bool active = true;        // has a device, now that the pool is up
	std::string schedule = "none";  // of snapshots: base/schedule.h
	bool operator==(const VolumeRow&) const = default;
};

// Done: it is there. Pending: asked for, and not there until the kernel's SNAPDONE. Deleting: its name is free again, and its
// layer is merged away.
enum class SnapshotState : int { kDone = 0, kPending = 1, kDeleting = 2 };

struct SnapshotRow {
	uint32_t id = 0;      // no volume has it: the kernel shows the snapshot as a volume of this number
	uint32_t volume = 0;  // that it is of
	std::string name;
	uint64_t size = 0;    // bytes
	SnapshotState state = SnapshotState::kDone;
	uint32_t layer = 0;       // that it froze
	uint32_t next_layer = 0;  // the volume's new head; 0 once the journal is applied beyond SNAPDONE
	uint64_t created = 0;
	bool held = false;    // not to be deleted
	bool active = false;  // has a device
	bool scheduled = false;  // by the volume's schedule, which takes it away again
	bool operator==(const SnapshotRow&) const = default;
};

struct SnapshotWanted {
	uint32_t volume = 0;
	std::string name;
	bool scheduled = false;
};

struct FreeRange {
	uint32_t member = 0;
	uint32_t first = 0;
	uint32_t count = 0;
	bool operator==(const FreeRange&) const = default;
};

struct ApplyStats {
	uint64_t records = 0;
	uint64_t ignored = 0;         // VALID, CLEAR, MOVE and FOLD of extents that are gone, records of deleted volumes
	std::vector<sv_freed> freed;  // by UNMAP and FOLD; gen as it was
	std::vector<uint32_t> outgrown;  // extents for which a child in their own layer was made: they may be folded
};

// What a volume has written since its last snapshot, as far as it is applied.
struct HeadUse {
	uint64_t extents = 0;
	uint64_t holes = 0;  // extents of its snapshots that it has unmapped
};

struct DeleteProgress {
	bool done = false;            // the volume's row is gone
	std::vector<sv_freed> freed;  // in this step, of what the volume wrote; what freeing() tells may be among it
};

struct Owned {
	uint32_t volume = 0;
	uint32_t layer = 0;  // head: of another one this is not true
	uint32_t owned_since = 0;
	bool operator==(const Owned&) const = default;
};

struct MergeProgress {
	bool done = false;       // nothing is left to do now; what waits may go on after a change of volumes or snapshots
	uint64_t freed = 0;      // extents, in this step; freeing() tells which
	std::vector<Owned> own;  // of heads into which a layer went: in the catalogue, to be told to the kernel
};

// Pairs for FOLD: partial extents whose parents nothing else needs; or to FILL. A command for each set of members, since all
// that is folded by one waits for the members of all of it.
struct FoldStep {
	std::map<uint64_t, std::vector<sv_fold>> pairs;  // by the members, a bit for each
	uint64_t blocks = 0;  // that are to be copied for them, or cost as much
	uint32_t after = 0;   // where the next step goes on
	bool done = false;    // that was the last one
	bool wait = false;    // nothing can be filled before the next checkpoint
};

// Of a step, each up to one family more.
struct FoldLimits {
	size_t pairs = 64;
	uint64_t blocks = 4096;  // of 4 KiB, to be copied
	uint64_t rows = 16384;   // looked at
	// Not null: only what is to be filled; else only what is to be folded. Fragments that the kernel was asked to fill and of
	// which the catalogue does not know yet, by extent; steps add to it.
	std::map<uint32_t, uint32_t> *filling = nullptr;
};

// Of one that is done; bytes.
struct SnapshotSpace {
	uint32_t id = 0;
	uint64_t shown = 0;      // of the extents that it shows, whole ones: as Catalogue::mapped()
	uint64_t exclusive = 0;  // of blocks that it shows and no other snapshot or volume does
	uint64_t frees = 0;      // of the pool's space, that its deletion would bring back
};

// Of a volume, in bytes.
struct ChangedRange {
	uint64_t offset = 0;
	uint64_t length = 0;
	bool data = false;	// false: nothing is there now, which is read as zeroes
};

struct SnapshotSpaces {
	std::vector<SnapshotSpace> each;
	uint64_t frees = 0;      // if all of them are deleted: more than their sum where several share what nothing else has
};

// With active snapshots: that the kernel tells of in one answer.
constexpr uint32_t kMostVolumesInKernel = 16384;
constexpr size_t kMostVolumes = 16000;	// some are on their way out, or take another's place

// Extents that lie on some members.
struct ExtentsOn {
	std::vector<sv_extent> extents;	// ascending; there may be none in this step
	uint32_t after = 0;		// where to go on
	bool done = false;		// there are no more
};

struct Usage {
	uint64_t db_bytes = 0;      // of the main database
	uint64_t db_capacity = 0;   // bytes that the region has for it
	uint64_t extents = 0;       // live
	uint64_t partials = 0;
};

// Of its region; bytes.
struct CatalogueSpace {
	uint64_t used = 0;
	uint64_t size = 0;
};

// Rules of names (pools 31, volumes 47, snapshots and tiers 31 and 15 bytes; [A-Za-z0-9_.+-], not beginning with '-'
// or '.'). The error says which rule was broken. what is "pool", "volume" ...
Status check_name(std::string_view what, std::string_view name, size_t max);
Status check_pool_name(std::string_view name);
Status check_volume_name(std::string_view name);
Status check_tier_name(std::string_view name);
Status check_volume_size(uint64_t size, std::string_view name);	// bytes

class MapSources;

class Catalogue {
 public:
	struct OpenOptions {
		bool read_only = false;      // nothing is written, not even a repair: changes stay in memory
		bool allow_missing = false;  // one copy of two may be absent (read-only use); otherwise refused
	};

	// Formats the region's copies and writes pool and members. What was there before is lost.
	static Result<std::unique_ptr<Catalogue>> create(std::span<const CatalogueCopy> copies, const PoolRow &pool,
							 std::span<const MemberRow> members);
	// Picks the newest valid copy and brings the other up to it first. kNeedsCheck: damaged in all copies.
	static Result<std::unique_ptr<Catalogue>> open(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid,
						       const OpenOptions &options);
	static Result<std::unique_ptr<Catalogue>> open(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid)
	{
		return open(copies, pool_uuid, OpenOptions());
	}
	~Catalogue();
	Catalogue(const Catalogue&) = delete;
	Catalogue &operator=(const Catalogue&) = delete;

	Status close(Pace &pace = NoPace::instance());  // checkpoints the WAL; the destructor does not
	Status keep_repairs();        // makes durable what reading has repaired from the other copy
	uint32_t copies_in_sync() const;  // as a bit mask of the copies given to open()

	// Runs fn; commits if it succeeds, otherwise rolls back and returns its error. Does not nest.
	Status transaction(const std::function<Status()> &fn);

	// --- pool and members ---
	Result<PoolRow> pool();
	Status set_pool(const PoolRow &pool);  // name, generation, incarnation, policies; uuid and created stay
	Result<std::vector<MemberRow>> members();
	Status add_member(const MemberRow &member);
	Status update_member(const MemberRow &member);
	Result<uint64_t> leaving();		// members that are to be emptied, a bit for each
	Status set_leaving(uint64_t members);

	// --- volumes ---
	// Gives id and layer (never used before) and returns the row. Name taken: kBusy; size not a multiple of 4096
	// or 0 or beyond 2^40 extents: kUsage. With a parent_layer it is a clone of the snapshot that has this layer: none,
	// or not done: kNotFound; smaller than that: kUsage.
	// One that is wanted in state deleting is there only when it is confirmed; otherwise finished deletions take it away.
	Result<VolumeRow> create_volume(const VolumeRow &wanted);
	Status confirm_volume(uint32_t id);  // name taken meanwhile: kBusy
	// The second one, which was wanted in state deleting with the name of the first, takes its place and its snapshots; the
	// first is being deleted. Only when all of the first one's records are applied.
	Status replace_volume(uint32_t id, uint32_t by);
	Result<HeadUse> head_use(uint32_t id);  // of a volume
	Result<std::vector<VolumeRow>> volumes();  // by id, those being deleted too
	Result<std::vector<VolumeRow>> volumes_with_schedule();  // active ones
	Result<VolumeRow> volume(std::string_view name);  // active ones only; kNotFound
	Result<VolumeRow> volume(uint32_t id);
	Status rename_volume(uint32_t id, std::string_view name);
	Status resize_volume(uint32_t id, uint64_t size);  // smaller: kUsage
	// To what it had before a growth that came to nothing: nobody has written there.
	Status take_back_growth(uint32_t id, uint64_t size);
	Status set_volume_flags(uint32_t id, uint32_t flags);
	Status set_autoactivate(uint32_t id, bool on);
	// Not one: kUsage. With none, what one made is the user's.
	Status set_schedule(uint32_t id, std::string_view schedule);
	Status set_active(uint32_t id, bool on);
	Status begin_session();  // the pool comes up: active are the volumes that come up with it, and no snapshot
	Status begin_delete_volume(uint32_t id);  // state deleting: its name is free again
	// A bounded step; repeat until done. The volume must be deleting, and all its records applied. Only what its head has
	// goes; layers below are those of snapshots.
	Result<DeleteProgress> delete_step(uint32_t id, uint32_t max_extents = 65536);

	// --- snapshots ---
	// Rows in state pending, to be made by the kernel at one moment. A volume not active or not there: kNotFound; a
	// name that a snapshot of that volume has, or another snapshot of it pending: kBusy.
	Result<std::vector<SnapshotRow>> begin_snapshots(std::span<const SnapshotWanted> wanted, uint64_t created);
	// The kernel has made them: they are done, and the volumes have their new heads. The journal says so again.
	Status finish_snapshots(std::span<const uint32_t> ids);
	// Pending ones: not begun: as if never asked for; begun and not done: deleting. Only when everything committed is
	// applied, and the kernel makes no snapshot: what it says of them later is damage.
	Status resolve_pending();
	// In every state, by layer: of a volume the oldest first, and those before that others lie over. Numbers come again.
	Result<std::vector<SnapshotRow>> snapshots();
	Result<SnapshotRow> snapshot(uint32_t id);     // likewise
	Result<SnapshotRow> snapshot(uint32_t volume, std::string_view name);  // done ones only, as all below; kNotFound
	// Name taken: kBusy. One of a schedule's is that no more.
	Status rename_snapshot(uint32_t id, std::string_view name);
	Status set_held(uint32_t id, bool on);
	Status set_snapshot_active(uint32_t id, bool on);
	Status begin_delete_snapshot(uint32_t id);  // held or active or not: the caller knows

	// --- what deleted snapshots leave ---
	// A bounded step: so many entries of layers, up to a page more. Any time, repeat until done.
	Result<MergeProgress> merge_step(uint64_t max = 65536);
	// Extents freed by svd's decision, which the kernel still has: it is to be told, and then they are to be taken from
	// this list. It may have freed one already, and may have given its number to another, of another generation. Volumes
	// that delete_step() has finished must be dropped there first.
	Result<std::vector<sv_freed>> freeing(uint32_t max = 8192);  // a partial one before its parent
	Status freeing_told(std::span<const sv_freed> told);
	Status clear_freeing();  // a kernel that is loaded anew never had them

	// What may be folded, from the family of the parent after this one on, in its order; 0: from the first. True of what is applied, once
	// freeing() has been told: the kernel leaves alone what has changed since, and what it has done the journal says.
	Result<FoldStep> fold_step(uint32_t after, const FoldLimits &limits = FoldLimits());
	Result<FoldStep> fold_step(std::span<const uint32_t> parents);	// of these, as many as they are
	Status note_fills(std::span<const sv_fold> fills);	// before the kernel is asked for them

	// What is applied, as if what is being deleted were gone, merged and folded. Long; at its steps others may read this
	// catalogue, and nobody may change it.
	Result<SnapshotSpaces> snapshot_spaces(std::span<const uint32_t> ids, Pace &pace = NoPace::instance());

	// What a volume or snapshot had written or discarded where another one has it not, or the other way round: in blocks, merged,
	// in order, up to the larger one's end. They need not be of one volume. A block may have been written with what was there.
	// Long, as snapshot_spaces().
	Status for_each_change(uint32_t from, uint32_t to, const std::function<Status(const ChangedRange &)> &fn,
			       Pace &pace = NoPace::instance());

	// --- journal ---
	Result<sv_ring_cursor> applied();  // behind the last applied batch
	// One transaction that applies the records and stores the position: each once. [I31]
	Result<ApplyStats> apply_batch(std::span<const sv_rec> records, const sv_ring_cursor &reached);

	// --- loading the kernel: each is called with batches in ascending order until the end or an error ---
	enum class Hidden { kLeaveOut, kTell };  // entries of extent 0: where a layer hides what older ones have
	Status for_each_extent(const std::function<Status(std::span<sv_extent>)> &fn);
	Status for_each_partial(const std::function<Status(std::span<sv_partial_bits>)> &fn);
	// What a volume or snapshot sees: of each index the newest entry of its chain of layers, and which one has it.
	Status for_each_map(uint32_t id, const std::function<Status(std::span<sv_map_entry>)> &fn, Hidden hidden = Hidden::kLeaveOut);
	// Between the indexes [from, to), what a volume or snapshot has in layers above this one of its chain, and whatever it has at
	// the indexes `others`, which ascend: extent 0 where that is nothing, layer 0 where no layer hides anything.
	Status for_each_difference(uint32_t id, uint32_t layer, uint64_t from, uint64_t to, std::span<const uint64_t> others,
				   const std::function<Status(std::span<sv_map_entry>)> &fn);
	Result<MapSources> map_sources();  // none yet; for as long as no layer is made or goes
	Result<std::vector<FreeRange>> free_ranges();  // derived: all slots but those of live extents
	Result<uint64_t> mapped(uint32_t id);          // extents that for_each_map() tells
	Result<uint64_t> highest_extent();             // number of a page's last one; what for_each_extent() goes up to
	// Those behind extent `after`, `most` of them: a bounded step.
	Result<ExtentsOn> extents_on(uint64_t members, uint32_t after, size_t most);
	Result<Usage> usage();  // reads all of it
	Result<CatalogueSpace> space();
	void release_memory();  // what was kept in case it is read again
	uint32_t copies_in_use() const;  // mask of the copies as open() got them

	// --- check, dump, restore ---
	// Long. At a step of check and dump others may read this catalogue, and nobody may change it; at one of restore
	// nobody else may use it at all.
	Result<std::vector<std::string>> check(Pace &pace = NoPace::instance());  // every inconsistency, a line; empty: sound
	Status dump(std::ostream &out, Pace &pace = NoPace::instance());  // versioned text, deterministic, an item a line
	// Its steps count bytes. Into a catalogue just created (no volumes); pool and members of the text must fit those that are there:
	// member sizes at least those named. uuids and incarnation of this catalogue stay.
	Status restore(std::istream &in, Pace &pace = NoPace::instance());
	// What restore() would say of it. Others may use this catalogue at its steps. Takes as much memory as the text's catalogue.
	Status try_restore(std::istream &in, Pace &pace = NoPace::instance());

 private:
	class Impl;
	explicit Catalogue(std::unique_ptr<Impl> impl);
	std::unique_ptr<Impl> impl_;
};

}  // namespace svd

/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The control channel of a pool: /dev/svctl-<pool uuid>, opened by svd (CAP_SYS_ADMIN; one opener for writing).
 *
 * One request is a struct sv_cmd. It comes by ioctl(fd, SV_IOC_CMD, &cmd) or as IORING_OP_URING_CMD with cmd_op
 * SV_IOC_CMD and the address of the struct in sqe->addr; both reach the same dispatch function (core/cmd.c), which
 * the simulated kernel calls too. The payload at cmd.addr is an array of cmd.count elements of cmd.size bytes, of
 * the type that the op names; size lets both sides differ in age (missing tail: zero; unknown non-zero tail:
 * E2BIG). At most SV_CMD_MAX bytes by the caller's size, and SV_CMD_GROWTH times that by the kernel's. It is copied
 * once, checked as if hostile, then applied; an op that fails has changed nothing, unless cmd.done says how many
 * elements were applied.
 *
 * Ages. Either side may be the newer one as long as HELLO says the same SV_ABI_VERSION. So: fields are appended to
 * structs and zero means what was before, no struct grows past SV_CMD_GROWTH times its first size, and op numbers and
 * flags are never reused. svd uses what came after ABI version 1 began (an op, a flag, a field that it sets or relies
 * upon) only if the feature bit that came with it is in HELLO, and does without otherwise.
 *
 * Session: HELLO, ATTACH (returns the epoch that all later commands carry; an older one gets ESTALE). A pool that
 * was just created is loading: JOURNAL, EXTENTS, PARTIALS, VOLUME_CREATE, MAP, GRANT, then ACTIVATE. After a
 * restart of svd the pool is already active and ATTACH says so: nothing is loaded again; svd reads the journal up
 * to committed_seq, applies, trims, and asks LIST_FREED.
 *
 * Errors: EINVAL malformed or out of range; ENOENT no such volume or extent; EEXIST already there; EBUSY in use
 * or wrong state; ESTALE session; ENOMEM; ENOSPC; EIO pool failed; EROFS pool read-only; EOPNOTSUPP unknown op.
 */
#ifndef SV_UAPI_H
#define SV_UAPI_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define SV_ABI_VERSION	1
#define SV_CMD_MAX	(1u << 20)
#define SV_CMD_GROWTH	4u

/* Feature bits of HELLO. */
#define SV_FEATURE_URING	(1ull << 0)
#define SV_FEATURE_SNAPSHOT	(1ull << 1)	/* there are SNAPSHOT, OWN, FREE and what belongs to them */
#define SV_FEATURE_MOVE		(1ull << 2)	/* there is MOVE */
#define SV_FEATURE_HEAT		(1ull << 3)	/* reserved */
#define SV_FEATURE_KNOWN	(1ull << 4)	/* MEMBERS tells SV_MEMBER_KNOWN */
#define SV_FEATURE_HISTOGRAMS	(1ull << 5)	/* there is HISTOGRAMS */
#define SV_FEATURE_FOLD		(1ull << 6)	/* there is FOLD, and its records */
#define SV_FEATURE_FRAGMENTS	(1ull << 7)	/* extents may have fragments, and there are FRAG records */
#define SV_FEATURE_FILL		(1ull << 8)	/* FOLD knows SV_FOLD_FILL */
#define SV_FEATURE_SHARE	(1ull << 9)	/* there are SHARE and DUMP_NEWER */
#define SV_FEATURE_CLOSE	(1ull << 10)	/* there are CLOSE, SV_MEMBER_CLOSED and SV_MOVE_FRAGS */

struct sv_cmd {
	__u32	op;
	__u32	size;		/* of one element */
	__u32	count;		/* in: elements at addr (room, where the op answers); out: elements written there */
	__u32	done;		/* out: elements applied before an error */
	__u64	epoch;
	__u64	addr;
	__u64	flags;		/* must be 0 */
	__u64	reserved;	/* must be 0 */
};

#define SV_IOC_CMD	_IOWR(0xb5, 1, struct sv_cmd)

enum sv_op {
	SV_OP_HELLO = 1,	/* out sv_hello */
	SV_OP_ATTACH,		/* out sv_attach; commits first */
	SV_OP_STATE,		/* out sv_state */
	SV_OP_MEMBERS,		/* out sv_member_state[] */
	SV_OP_JOURNAL,		/* in sv_journal_pos; loading */
	SV_OP_EXTENTS,		/* in sv_extent[]; loading */
	SV_OP_PARTIALS,		/* in sv_partial_bits[]; loading, after EXTENTS */
	SV_OP_VOLUME_CREATE,	/* in sv_volume_info[] */
	SV_OP_VOLUME_RESIZE,	/* in sv_volume_info[]: id, size that it has at least from now on */
	SV_OP_VOLUME_DROP,	/* in sv_volume_info[]: id; not while its dm device exists: EBUSY */
	SV_OP_VOLUMES,		/* out sv_volume_info[] */
	SV_OP_MAP,		/* in sv_map_entry[]; of a volume without a device; loading, or SV_FEATURE_SNAPSHOT */
	SV_OP_GRANT,		/* in sv_grant[]; loading, or slots of a new member */
	SV_OP_ACTIVATE,		/* loading -> write (or read-only, flags in sv_activate) */
	SV_OP_COMMIT,		/* out sv_state; commits everything first */
	SV_OP_TRIM,		/* in sv_trim */
	SV_OP_LIST_FREED,	/* in first element's extent as start, out sv_freed[]: freed, not yet recycled */
	/*
	 * In sv_freed[], each listed before; waits for the grace periods, then they are free space. EBUSY: what was
	 * committed since the last LIST_FREED, and all of before, is not trimmed yet. [I20]
	 */
	SV_OP_RECYCLE,
	SV_OP_POLICY,		/* in sv_policy */
	SV_OP_WAIT,		/* out sv_event; waits (ioctl: up to sv_event.timeout_ms in) */
	SV_OP_DUMP_EXTENTS,	/* in first element's extent as start, out sv_extent[] of live extents */
	SV_OP_DUMP_PARTIALS,	/* likewise, sv_partial_bits[] */
	SV_OP_DUMP_MAP,		/* in first element's volume and index as start, out sv_map_entry[] */
	SV_OP_HISTOGRAMS,	/* in first element's volume, out sv_histogram[] of it: SV_HISTOGRAMS_MAX at most */
	/*
	 * In sv_snapshot[]: what these volumes have at one moment is frozen; nobody waits for it but for a grace period
	 * where there are several. Answered when it is durable. EIO: it is not, though volumes may write to their new
	 * layers already, which is for the journal to tell. ENOSPC: the journal has no room.
	 */
	SV_OP_SNAPSHOT,
	SV_OP_OWN,		/* in sv_own[]: older layers have become part of a volume's head */
	SV_OP_FREE,		/* in sv_freed[]: extents that nothing names any more; but those that are gone */
	/*
	 * In sv_fold[]: partial extents take over what their parents have; waits for the copies, and so for all
	 * members that these extents are on. Writes to them wait meanwhile, and no others. done says how many have:
	 * what is written to just now, is not as the caller believes, or could not be copied, is as it was; and the
	 * journal tells which.
	 */
	SV_OP_FOLD,
	/*
	 * In sv_share[]: a volume without a map has what another one has, in the same memory until either changes
	 * it. Until that ends, by source 0, it cannot be opened, and MAP, in the order of indices, replaces what
	 * is there: to be told is all that either has in layers newer than the one that both have. EINVAL: a
	 * larger source, perhaps, or one that is not SV_VOLUME_WHOLE. EUCLEAN: there is something of newer layers
	 * that was not told.
	 */
	SV_OP_SHARE,
	/*
	 * In first element's volume, index as start, and layer; out sv_map_entry[] of what is of newer layers, extent 0
	 * where it hides older ones; beyond the volume's size, too.
	 */
	SV_OP_DUMP_NEWER,
	/*
	 * In sv_move[]: extents get slots of other members; waits for the copies, and so for all members that these
	 * extents are on. done says how many have: what is written to meanwhile, is not as the caller believes, or
	 * could not be copied, is where it was; and the journal tells which.
	 */
	SV_OP_MOVE,
	/*
	 * In sv_close[]: nothing new is put on a member, by whatever means, until it is open again. What lies there
	 * stays, and is overwritten in place. Its free slots count neither as free nor as slots of the pool.
	 */
	SV_OP_CLOSE,
};

struct sv_hello {
	__u32	abi;
	__u32	pad;
	__u64	features;
	__u8	pool_uuid[16];
};

enum sv_pool_state { SV_STATE_LOADING = 0, SV_STATE_ACTIVE = 1 };
/* Ordered by degradation. */
enum sv_mode { SV_MODE_WRITE = 0, SV_MODE_OUT_OF_SPACE, SV_MODE_READ_ONLY, SV_MODE_FAIL };

struct sv_attach {
	__u64	epoch;
	__u64	committed_seq;
	__u32	state;
	__u32	mode;
};

struct sv_state {
	__u64	committed_seq;
	__u64	tail_seq;	/* oldest untrimmed */
	__u64	ring_bytes;
	__u64	ring_used;	/* with what is reserved */
	__u64	ring_reserved;
	__u64	total_slots;	/* data slots of all members that are not closed */
	__u64	free_slots;	/* likewise */
	__u64	freed_extents;	/* unmapped, not yet recycled */
	__u64	partials;
	__u64	commits;
	__u64	records;
	__u64	journal_bytes;
	__u64	events;		/* SV_EVENT_* pending */
	__u64	memory;		/* bytes held for map, extents, partials, bitmaps */
	__u32	state;
	__u32	mode;
};

struct sv_member_state {
	__u32	member;
	__u32	tier;
	__u32	nr_slots;
	__u32	free_slots;
	__u64	errors;
	__u64	flags;		/* SV_LABEL_* of its label, SV_MEMBER_* */
};

#define SV_MEMBER_RING_LOST	(1ull << 32)	/* its journal copy was dropped */
#define SV_MEMBER_KNOWN		(1ull << 33)	/* slots of it were granted or loaded with extents */
#define SV_MEMBER_CLOSED	(1ull << 34)

struct sv_journal_pos {
	__u64	next_seq;
	__u64	next_off;	/* byte offset in the ring */
	__u32	prev_crc;
	__u32	pad;
};

struct sv_extent {
	__u32	extent;		/* from 1 */
	__u32	slot;
	__u16	member;
	__u16	gen;
	__u32	flags;		/* SV_EXTENT_PARTIAL; others must be 0 */
};

#define SV_EXTENT_PARTIAL	(1u << 0)
#define SV_EXTENT_FREED		(1u << 1)	/* DUMP only */
#define SV_EXTENT_FRAGS		(1u << 2)	/* with PARTIAL: it has fragments instead of a slot, which is 0 */

struct sv_partial_bits {
	__u32	extent;
	__u32	parent;		/* extent with the blocks that are not valid here; 0: they are zeroes */
	__u64	valid[4];
	__u32	place[16];	/* SV_EXTENT_FRAGS: of each fragment, as in FRAG records; 0: it has none */
};

struct sv_volume_info {
	__u32	id;		/* 1 to 2^24 - 1, never reused */
	__u32	layer;		/* head */
	__u32	owned_since;
	__u32	flags;		/* SV_VOLUME_* */
	__u64	size;		/* bytes, a multiple of 4096 */
	__u64	mapped;		/* out: extents mapped */
	__u64	tiers;		/* first writes: one tier rank a byte, first choice lowest, 0xff ends; ~0: by rank */
};

#define SV_VOLUME_READ_ONLY	(1u << 0)
/* Of SV_FEATURE_SNAPSHOT: */
#define SV_VOLUME_CHAINED	(1u << 1)	/* has layers below its head, which what it unmaps must hide */
#define SV_VOLUME_SNAPSHOT	(1u << 2)	/* a frozen layer: owns nothing; READ_ONLY, layer = owned_since */
/* Of SV_FEATURE_SHARE: */
#define SV_VOLUME_SHARING	(1u << 3)	/* out: between SHARE and its end */
#define SV_VOLUME_WHOLE		(1u << 4)	/* MAP tells which layers hide something, too */

struct sv_map_entry {
	__u64	index;
	__u32	volume;
	/* 0: nothing. Of SV_FEATURE_SHARE: this layer hides what older ones have; or, of layer 0, none has anything */
	__u32	extent;
	__u32	layer;
	__u32	pad;
};

struct sv_snapshot {
	__u32	volume;
	__u32	layer;		/* its new head, higher than any layer that it has */
	__u64	job;		/* goes into the journal's record */
};

struct sv_share {
	__u32	volume;
	__u32	source;		/* 0: the end */
	__u32	layer;		/* the newest that both have, below what the volume owns; of the end 0 */
	__u32	pad;
};

struct sv_own {
	__u32	volume;
	__u32	owned_since;	/* lower than it was, or the same */
	__u32	flags;		/* SV_VOLUME_CHAINED if there still are layers below; others must be 0 */
	__u32	layer;		/* the head that this is true of; EINVAL if it is another one */
};

struct sv_fold {
	__u32	extent;		/* a partial one */
	__u32	parent;		/* of it */
	__u16	gen;
	__u16	parent_gen;
	__u32	flags;		/* SV_FOLD_*: one of the low ones at most */
};

/*
 * Without a flag the blocks of the parent that the extent lacks are copied, and the parent is freed: that nothing else
 * needs it is for the caller to know.
 */
#define SV_FOLD_SWAP	(1u << 0)	/* the extent's blocks are copied to the parent, whose place it takes */
/*
 * Of SV_FEATURE_FILL: the parent stays. In fragments in which the extent has any blocks, those that it lacks are copied
 * from whichever of its ancestors has them. Which fragments the flags say, from SV_FOLD_FILL_SHIFT on: one or more.
 */
#define SV_FOLD_FILL		(1u << 1)
#define SV_FOLD_FILL_SHIFT	16
/* Of SV_FEATURE_FRAGMENTS: what both have is copied to a new slot, as more than 8 fragments are too many. */
#define SV_FOLD_GROW	(1u << 2)

struct sv_move {
	__u32	extent;
	__u16	gen;
	__u8	member;		/* that it is to lie on */
	__u8	flags;		/* SV_MOVE_* */
};

#define SV_MOVES_MAX	256		/* in one command: while it runs they have two places */
#define SV_MOVE_HOLD	(1u << 0)	/* writes to it wait, from before the copy until its end */
#define SV_MOVE_FRAGS	(1u << 1)	/* of SV_FEATURE_CLOSE: one that has fragments keeps them, and gets no slot */

struct sv_close {
	__u32	member;
	__u32	closed;		/* 1, or 0: it is open, as at first */
};

struct sv_grant {
	__u32	member;
	__u32	first;
	__u32	count;
	__u32	pad;
};

struct sv_activate {
	__u32	read_only;
	__u32	pad;
};

struct sv_trim {
	__u64	seq;		/* this and all before are in the catalogue */
};

struct sv_freed {
	__u32	extent;
	__u16	gen;
	__u16	pad;
};

struct sv_policy {
	__u32	no_space_ms;	/* how long a write waits for space before ENOSPC, up to SV_NO_SPACE_MS_MAX */
	__u32	commit_ms;	/* commit by itself after this long, SV_COMMIT_MS_MIN to SV_COMMIT_MS_MAX */
	__u32	flags;		/* SV_POLICY_* */
	__u32	pad;
};

#define SV_NO_SPACE_MS_MAX	86400000u
#define SV_COMMIT_MS_MIN	100u
#define SV_COMMIT_MS_MAX	60000u
#define SV_POLICY_FRAGMENTS	(1u << 0)	/* small writes may take fragments of SV_FEATURE_FRAGMENTS */

#define SV_EVENT_RING		(1ull << 0)	/* a quarter of the ring is used: checkpoint */
#define SV_EVENT_SPACE		(1ull << 1)	/* a write found no space */
#define SV_EVENT_MODE		(1ull << 2)
#define SV_EVENT_FREED		(1ull << 3)	/* many freed extents wait */
#define SV_EVENT_COPY_LOST	(1ull << 4)

struct sv_event {
	__u64	events;
	__u32	timeout_ms;
	__u32	mode;
};

enum sv_io_class { SV_IO_READ = 0, SV_IO_WRITE, SV_IO_DISCARD /* and WRITE_ZEROES */, SV_IO_FLUSH, SV_IO_CLASSES };

#define SV_TIER_NONE		0xffu	/* no member served it: a read of what was never written, a flush */
#define SV_HISTOGRAM_BUCKETS	54u	/* their bounds: core/latency.h */
#define SV_HISTOGRAMS_MAX	20u	/* of a volume: reads and writes by tier or none, discards, flushes */

/*
 * I/O of a volume since its device was made, counted as it ends: never reset, gone with the device. Latency is from
 * device-mapper handing the I/O in until it is handed back, with all waiting for space, memory and commits. An I/O
 * that device-mapper splits counts as its parts; a write with PREFLUSH as a flush and a write. What comes again (a
 * NOWAIT that would have waited, or a suspend) is not counted. Only what counted something is answered, ordered by
 * class and tier.
 */
struct sv_histogram {
	__u32	volume;
	__u8	io_class;	/* enum sv_io_class */
	__u8	tier;		/* rank of the tier that its last part went to, or SV_TIER_NONE */
	__u16	pad;
	__u64	ios;		/* the sum of buckets */
	__u64	bytes;		/* of those that succeeded */
	__u64	ns;		/* the sum of latencies */
	__u64	errors;		/* of ios, those that failed */
	__u64	buckets[SV_HISTOGRAM_BUCKETS];
};

#endif

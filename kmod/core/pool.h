/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pool in memory: members and their free slots, extents, the volumes' maps, the record stream and the commit
 * that makes it durable. Everything here is driven from outside: dm-sv, the simulated kernel and the explorers call
 * the same functions, do the I/O that these ask for, and say how it ended. Nothing here sleeps or does I/O.
 *
 * Locking. pool->lock (irq-safe) guards: map installs, extent words, partials' allocation, slot bitmaps, record
 * stream, tickets. It is the one critical section of [I7]: entry change and record append are made under it, so
 * that record order is change order. Reads and owned writes take no lock: they run in an RCU read section, in
 * which the caller also takes the member's SRCU before leaving it [I2]. A member's list of dirty partials has a small
 * lock of its own, taken by completions, and inside pool->lock.
 */
#ifndef SV_CORE_POOL_H
#define SV_CORE_POOL_H

#include "format.h"
#include "../uapi/sv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- extent word: the one u64 of [I1] ---- */
#define SV_XW_LIVE	(1ull << 0)
#define SV_XW_PARTIAL	(1ull << 1)	/* where = partial index, not slot */
#define SV_XW_MOVING	(1ull << 2)	/* MOVE copies it: who writes there takes the flag off */
#define SV_XW_SHARED	(1ull << 3)
#define SV_XW_HOLD	(1ull << 4)
#define SV_XW_FREED	(1ull << 5)	/* unmapped; number and slot not yet recycled */
#define SV_XW_MAPPED	(1ull << 6)	/* some map names it */
#define SV_XW_LISTED	(1ull << 7)	/* of a FREED word: LIST_FREED has shown it */
#define SV_XW_FRAGS	(1ull << 8)	/* with PARTIAL: it has fragments instead of a slot: frag.c */
#define SV_XW_OUTGROWN	(1ull << 9)	/* its only child is of the same layer, and in the map instead: frag.c */
#define SV_XW_GEN_SHIFT	12
#define SV_XW_MEMBER_SHIFT 28
#define SV_XW_WHERE_SHIFT 36
#define SV_XW_WHERE_MAX	(1ull << (64 - SV_XW_WHERE_SHIFT))	/* slots of a member, and partials, are fewer */

static_assert(SV_MAX_SLOTS <= SV_XW_WHERE_MAX, "a slot fits the word");

static inline u32 sv_xw_where(u64 w) { return (u32)(w >> SV_XW_WHERE_SHIFT); }
static inline u32 sv_xw_member(u64 w) { return (u32)(w >> SV_XW_MEMBER_SHIFT) & 0xff; }
static inline u16 sv_xw_gen(u64 w) { return (u16)(w >> SV_XW_GEN_SHIFT); }
static inline u64 sv_xw_make(u32 where, u32 member, u16 gen, u64 flags)
{
	return (u64)where << SV_XW_WHERE_SHIFT | (u64)member << SV_XW_MEMBER_SHIFT |
	       (u64)gen << SV_XW_GEN_SHIFT | flags;
}

/*
 * An extent of which only some blocks are valid. valid is written by completions (irq context, atomic or) and read
 * by anyone; dirty says which words changed since they were last put into the record stream. 64 bytes.
 */
struct sv_partial {
	atomic64_t valid[SV_VALID_WORDS];
	atomic64_t dirty;		/* SV_DIRTY_* of internal.h */
	u32 link;			/* while LISTED the next one on the dirty list; otherwise its own index */
	u32 parent;			/* extent with the blocks that are not valid here; 0: they are zeroes */
	u32 extent;
	u32 slot;			/* FRAGS: the index of its places */
	/* Stream position behind its last VALID, or of its bits in a round; once dead a list's link. pool->lock */
	u64 pos;
};

static_assert(sizeof(struct sv_partial) == 64, "64 bytes a partial extent");

struct sv_pool;
struct sv_volume;

/* Where a run of blocks goes. */
enum sv_plan {
	SV_PLAN_REMAP = 0,	/* to member at sector */
	SV_PLAN_ZERO,		/* reads as zeroes; a discard or WRITE_ZEROES of it is done */
	SV_PLAN_DEFER,		/* memory or stream room is missing: sv_pool_refill(), commit, then plan again */
	SV_PLAN_HELD,		/* the extent is being folded, which ends by itself: plan again then */
	SV_PLAN_RING,		/* it is full, or promised to writes under way: commit, plan again soon */
	SV_PLAN_NOSPC,		/* no slot, or no ring room, for this class of write: wait for space or ENOSPC */
	SV_PLAN_IOERR,		/* pool failed */
	SV_PLAN_ROFS,		/* pool or volume read-only */
};

enum sv_write_class { SV_WRITE_NORMAL = 0, SV_WRITE_FUA, SV_WRITE_META };

struct sv_piece {
	u64 sector;		/* on the member, in 512 B */
	u32 blocks;		/* this piece's length; may be less than asked, never 0 except for errors */
	u8 member;
	u8 first;		/* block within the extent, of the first block */
	u16 resv;		/* units of ring space that this write holds until sv_write_done() */
	struct sv_partial *partial; /* of a write's extent, if it has one; resv != 0: bits to set at completion */
};

/* A FLUSH, a FUA write or a COMMIT that waits. The pool's from when it is added until sv_commit_done() returns it. */
struct sv_ticket {
	struct sv_ticket *next;
	struct sv_volume *volume;	/* NULL: of the pool */
	u64 need;			/* members of which a round must begin */
	u64 riding;			/* members whose round under way must end */
	u64 pos;			/* after both: stream position that must be durable */
	bool flush;			/* of volume: clears what it is owed */
	int error;			/* 0 or -EIO */
};

/* A batch of the journal. One at a time. [I17] */
struct sv_commit {
	void *buf;			/* write this ... */
	u32 len;			/* ... multiple of 4096 ... */
	u32 used;			/* of it; zeroes follow ... */
	u64 off;			/* ... at this offset of the ring, FUA */
	u64 batch_pos;			/* internal from here on */
	u64 batch_next;
	u32 batch_crc;
};

/* --- pool.c: life and memory --- */
struct sv_member_geometry {
	u64 slot_off;		/* bytes */
	u32 nr_slots;
	u32 tier;
	u32 flags;		/* SV_LABEL_* */
	u64 ring_off;
	u64 ring_len;
};

struct sv_pool *sv_pool_new(const u8 uuid[16], u64 incarnation, u32 nr_members,
			    const struct sv_member_geometry *g);	/* may sleep; NULL: no memory */
int sv_pool_add_member(struct sv_pool *p, const struct sv_member_geometry *g);	/* may sleep */
void sv_pool_free(struct sv_pool *p);		/* nothing else may use it any more */
bool sv_pool_wants_refill(const struct sv_pool *p);
int sv_pool_refill(struct sv_pool *p);		/* may sleep: tops up reserves; -ENOMEM */
enum sv_mode sv_pool_mode(const struct sv_pool *p);
enum sv_mode sv_pool_degrade(struct sv_pool *p, enum sv_mode m);	/* the one function into a worse mode */
u64 sv_pool_events(struct sv_pool *p);		/* take pending SV_EVENT_* */
bool sv_pool_has_events(const struct sv_pool *p);	/* any context */
void sv_pool_raise(struct sv_pool *p, u64 events);
u32 sv_pool_no_space_ms(const struct sv_pool *p);
u32 sv_pool_commit_ms(const struct sv_pool *p);
const u8 *sv_pool_uuid(const struct sv_pool *p);
u32 sv_pool_nr_members(const struct sv_pool *p);
u64 sv_pool_ring_members(const struct sv_pool *p);	/* mask of members whose ring copy is in use */

/* Of so many slots those that only writes with FUA or of metadata may take. */
u64 sv_reserve_for(u64 slots);

/* --- volumes --- */
struct sv_volume *sv_volume_find(struct sv_pool *p, u32 id);
/*
 * By a table's constructor and destructor, and not while sv_cmd() runs; may sleep. -EBUSY: pool not active, or between
 * SHARE and its end; -ENOMEM.
 * Histograms are counted from the first open to the last close.
 */
int sv_volume_open(struct sv_volume *v);
void sv_volume_close(struct sv_volume *v);
void sv_volume_get_info(struct sv_volume *v, struct sv_volume_info *info);
u64 sv_volume_size(const struct sv_volume *v);	/* bytes */
u32 sv_map_depth_for(u64 extents);		/* of a map of so many; who shares it has one that is no less deep */

/* --- plan.c: called in an RCU read section --- */
enum sv_plan sv_plan_read(struct sv_volume *v, u64 block, u32 blocks, struct sv_piece *out);
enum sv_plan sv_plan_write(struct sv_volume *v, u64 block, u32 blocks, enum sv_write_class c, struct sv_piece *out);
/* REMAP is never answered for discard; for zeroes it means: write zeroes there (then sv_write_done). */
enum sv_plan sv_plan_discard(struct sv_volume *v, u64 block, u32 blocks, bool zeroes, struct sv_piece *out);
/*
 * A planned write has ended (any context). Sets valid bits, marks the member as owed a flush to the volume, gives
 * back reserved ring space. Must be called before the bio completes upward. [I3] [I11]
 */
void sv_write_done(struct sv_volume *v, const struct sv_piece *piece, bool ok);

/* --- commit.c: the caller does the I/O and may have all of it under way at once --- */
/* A FLUSH of v: false if nothing is owed and nothing in flight (complete it at once), else the ticket is queued. */
bool sv_flush_ticket(struct sv_volume *v, struct sv_ticket *t);
/*
 * The same. Where nobody else waits, and this one for a round of one member only, which may begin, that has begun: the
 * caller flushes *@member and sees to it that sv_commit_flushed() follows. Otherwise *@member is SV_MAX_MEMBERS.
 */
bool sv_flush_ticket_begin(struct sv_volume *v, struct sv_ticket *t, u32 *member);
/* Must a FUA write that just ended (after sv_write_done) wait? If so the ticket is queued. */
bool sv_fua_ticket(struct sv_volume *v, const struct sv_piece *piece, struct sv_ticket *t);
/* Everything: records, and with @bits what has become valid. Queued in any case. */
void sv_ticket_add(struct sv_pool *p, struct sv_ticket *t, bool bits);
void sv_commit_all(struct sv_pool *p);		/* the same without a ticket: the periodic commit */
bool sv_commit_idle(struct sv_pool *p);		/* no record, no dirty bit, no ticket */
/*
 * To be called, for every member, after tickets were queued and whenever one of these I/Os has ended; by one thread
 * at a time. True: flush this member, then say how that ended. The flush must begin after this returned. [I12]
 */
bool sv_commit_round(struct sv_pool *p, u32 member);
void sv_commit_flushed(struct sv_pool *p, u32 member, bool failed);
/* Likewise, after the rounds. True: write c->buf to all ring copies, then say which hold it. */
bool sv_commit_batch(struct sv_pool *p, struct sv_commit *c);
/* ok_mask: ring copies that hold the batch. 0: pool fails. Fewer than in use: the others are dropped. */
void sv_commit_written(struct sv_pool *p, struct sv_commit *c, u64 ok_mask);
/* After all of these: tickets to complete. */
struct sv_ticket *sv_commit_done(struct sv_pool *p);

/* --- cmd.c: the control channel. Payload already in kernel memory, checked here. --- */
/*
 * in/out: count elements of the op's type (sv_op_size()). Returns 0 or -errno; *count becomes the elements written
 * (answering ops), *done those applied. May sleep. RECYCLE is in two steps around the caller's grace periods:
 * sv_cmd(RECYCLE) marks and sets *members; the caller waits (RCU, then SRCU of those members), then calls
 * sv_recycle_finish(). COMMIT, ATTACH and WAIT: the caller commits or waits first.
 */
u32 sv_op_size(u32 op);				/* of an element; 0: unknown op */
bool sv_op_answers(u32 op);
int sv_cmd(struct sv_pool *p, u32 op, u64 epoch, void *payload, u32 *count, u32 *done, u64 *members);
int sv_recycle_finish(struct sv_pool *p);
/*
 * SNAPSHOT, in steps around the caller's waits, and one at a time. sv_cmd(SNAPSHOT) checks, and gates the volumes if
 * there are several: then the caller waits for RCU. sv_snapshot_switch(), -EAGAIN: commit, then again; -EIO: nothing
 * has changed, finish. Then the caller waits for RCU and for the SRCU of *members, flushes each volume
 * (sv_flush_ticket()), calls sv_snapshot_finish(), which says -EAGAIN likewise, and commits.
 */
int sv_snapshot_switch(struct sv_pool *p, u64 *members);
struct sv_volume *sv_snapshot_volume(const struct sv_pool *p, u32 i);	/* NULL: there are no more */
int sv_snapshot_finish(struct sv_pool *p, bool done);	/* !done: the volumes could not be flushed */
/*
 * FOLD and MOVE, likewise, one of them at a time, with slots not recycled meanwhile. The caller commits, then sv_cmd()
 * checks, and holds or marks the extents. *members not 0: the caller waits for RCU and for the SRCU of these. Then it
 * copies what next() names, all at once if it likes, says which failed(), and flushes the members that targets() tells.
 * It calls hold(), if there is that, and waits as before for the members that this answers; and finish(), which
 * says -EAGAIN: commit, then again. It commits, waits for RCU, and calls end(): the number of extents done.
 */
struct sv_copy_run {
	u32 of;			/* which one it is for: for failed() */
	u32 blocks;
	bool zero;		/* nobody has them: zeroes are to be written */
	u8 from, to;		/* members */
	u64 from_sector;	/* in 512 B */
	u64 to_sector;
};

struct sv_relocation {
	bool (*next)(struct sv_pool *p, struct sv_copy_run *c);	/* false: there are no more */
	void (*failed)(struct sv_pool *p, u32 of);		/* any context */
	u64 (*targets)(const struct sv_pool *p);		/* members that were copied to */
	u64 (*hold)(struct sv_pool *p);				/* mask of members; may be NULL */
	int (*finish)(struct sv_pool *p, u64 not_flushed);	/* mask of members */
	u32 (*end)(struct sv_pool *p);
};

extern const struct sv_relocation sv_fold_steps, sv_move_steps;
/* After FREE of these: the caller waits for the SRCU of these members. */
u64 sv_freed_members(const struct sv_pool *p, const struct sv_freed *x, u32 count);
/* Partials and slots set aside by the data path itself wait for the same grace periods: true if there are any. */
bool sv_reclaim_wanted(const struct sv_pool *p);	/* any context; who sets something aside sees it */
bool sv_reclaim_begin(struct sv_pool *p, u64 *members);
void sv_reclaim_finish(struct sv_pool *p);

#ifdef __cplusplus
}
#endif

#endif

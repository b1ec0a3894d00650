/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The pool's structures, for the files of kmod/core alone. pool.h has the contract and the locking rule; what is
 * said here is who may touch which field.
 */
#ifndef SV_CORE_INTERNAL_H
#define SV_CORE_INTERNAL_H

#include "journal.h"
#include "latency.h"
#include "pool.h"

#define SV_NODE_SHIFT		9
#define SV_NODE_ENTRIES		(1u << SV_NODE_SHIFT)
#define SV_MAX_DEPTH		4u		/* 2^36 extents: 64 PiB */
#define SV_NODE_RESERVE		64u		/* map nodes kept ready */
#define SV_PARTIAL_CHUNK	64u		/* partials in a 4 KiB page */
#define SV_PT_PAGE		512u		/* such pages in one of the directory */
#define SV_PT_TOP		(SV_XW_WHERE_MAX / SV_PARTIAL_CHUNK / SV_PT_PAGE)
#define SV_NUMBER_RESERVE	2048u		/* extent numbers kept ready beyond one for each free slot */
#define SV_PARTIAL_RESERVE	2048u		/* free partials kept ready */
#define SV_STREAM_BYTES		(4u << 20)	/* records waiting for a commit */
#define SV_VALID_REC		16u
#define SV_DIRTY_WORDS		0xfull		/* partial.dirty: words that changed */
#define SV_DIRTY_LISTED		(1ull << 8)	/* on its member's dirty list */
#define SV_DIRTY_RESV		16		/* bits 16 to 39: VALID records that have ring space reserved */
#define SV_DIRTY_RESV_MAX	0xffffffull
#define SV_DIRTY_INFLIGHT	40		/* from this bit: writes to blocks that are not valid yet */
#define SV_DIRTY_TAKE		((1ull << SV_DIRTY_INFLIGHT) - 1)
#define SV_RESV_UNIT		16u		/* of piece.resv, bytes */
#define SV_RESV_WRITE		((SV_BATCH_ALIGN + SV_VALID_WORDS * SV_VALID_REC) / SV_RESV_UNIT)
#define SV_FREED_WAIT_MS	10000u
#define SV_RESV_VALID		(SV_VALID_REC * 5 / 4)	/* of a VALID to come: with its share of its batch's padding */
/* What one flush of a member can publish. All members together take half of the stream, so the rest always moves. */
#define SV_TAKEN_BYTES		(SV_STREAM_BYTES / 2 / SV_MAX_MEMBERS)
#define SV_TAKEN_MAX		(SV_TAKEN_BYTES / SV_VALID_REC)
#define SV_POS_TAKEN		(1ull << 63)	/* in partial.pos: taken by the round of a member, as number n of it */
#define SV_POS_FRAGS		(1ull << 62)	/* of a dead partial: its places go with it */

#define SV_FRAGGED		(SV_NODE_ENTRIES * 4)

/* Which 16ths of a slot are fragments, 0: it holds none. Such pages come from the reserve of nodes, and stay. */
struct sv_fragged {
	u16 of[SV_FRAGGED];
};

/* One radix node. Leaves hold entries {extent, layer << 32}, extent 0: nothing; the others pointers. map.c */
struct sv_node {
	union {
		u64 entry[SV_NODE_ENTRIES];
		struct sv_node *child[SV_NODE_ENTRIES];
		struct sv_node *next_free;
		struct sv_fragged fragged;
	};
};

/* Of a node's word (sv_page_word()); its upper half is the newest layer. map.c */
#define SV_NODE_FROZEN	(1ull << 31)
#define SV_NODE_OTHERS	(SV_NODE_FROZEN - 1)

/* A root with its depth, so that a reader sees both in one load; replaced when the volume grows. */
struct sv_root {
	struct sv_node *node;
	u32 depth;			/* 1: node is a leaf */
	struct sv_root *older;		/* freed with the volume */
};

struct sv_volume {
	struct sv_pool *pool;
	struct sv_volume *next;		/* pool's list: RCU readers by sv_volume_find under pool->lock */
	struct sv_root *root;		/* READ_ONCE / release under pool->lock */
	struct sv_latency latency;	/* without rows while it is not open; the session's exclusivity */
	u64 size;			/* bytes */
	u32 id;
	u32 flags;			/* SV_VOLUME_*; CHAINED comes under pool->lock */
	u64 view;			/* sv_view_make(); READ_ONCE, written under pool->lock [I8] */
	u64 tiers;
	u32 opens;			/* tables that name it: two during a reload */
	u64 mapped;
	u64 rec_pos;			/* stream position behind the volume's last record; pool->lock */
	atomic64_t owed;		/* members that completed a write since their last flush for us [I11] */
	u64 owned_on;			/* members that may have extents of its own; pool->lock */
	bool snapshotting;		/* must not be dropped; the session's exclusivity */
	bool sharing;			/* between SHARE and its end; likewise, as the next three */
	u32 both;			/* the newest layer that the source has, too */
	u64 told_to;			/* MAP goes on from this index */
	u64 told_newer;			/* entries of newer layers that MAP has told since */
	u64 flushing;			/* owed, and rounds of these members are under way for it; pool->lock */
	u64 stream_index;		/* logical extent expected next by a sequential writer */
	u32 stream_member;
	u32 stream_slot;		/* SV_NO_SLOT: none */
};

#define SV_NO_SLOT	(~0u)

/* Where the fragments of an extent are, 0: it has no such one. A cell among the partials: frag.c. */
struct sv_places {
	u32 at[SV_FRAGS];
};

union sv_cell {
	struct sv_partial partial;
	struct sv_places places;
};

static_assert(sizeof(union sv_cell) == sizeof(struct sv_partial), "a cell is a partial or its places");

/* New bits of a partial as they were before its member's flush began: VALID records once that has succeeded. */
struct sv_taken {
	u64 bits[SV_VALID_WORDS];
	u32 partial;			/* index; it is still ours iff its pos says so */
	u32 words;			/* that are new */
	u32 resv;			/* VALID records that it has ring space for */
};

struct sv_member {
	struct sv_member_geometry g;
	u64 *used;			/* 1: not grantable; pool->lock */
	u64 *live;			/* 1: an extent lies here (live or freed, not yet recycled); pool->lock */
	u64 *room;			/* summary: 1: this word of used has a zero bit; pool->lock */
	struct sv_fragged **frags;	/* by slot / SV_FRAGGED; NULL: none of these holds fragments; pool->lock */
	u64 *gaps;			/* 1: some of a slot's 16ths are fragments and some are free; pool->lock */
	u64 *gap_words;			/* summary of that; pool->lock */
	u32 nr_gaps;
	u32 gap_hint;			/* no word of gap_words before it has a bit set */
	u32 run_slot;			/* the last one that was taken for several fragments of one extent */
	u32 free;
	bool closed;			/* none of it may be taken; pool->lock */
	bool known;			/* what of it is free was granted; pool->lock */
	u32 rotor;			/* word where the next search for an empty word starts */
	u32 dirty;			/* first of the partials with new valid bits here, 0: none; listing */
	sv_lock_t listing;		/* whoever finds a partial LISTED finds it on the list; leaf, any context */
	u64 errors;

	/* Its round, see commit.c; pool->lock. */
	bool flushing;			/* a flush is under way */
	bool more;			/* the round needs another one */
	bool fresh;			/* todo is what was dirty when this round began */
	u32 todo;			/* partials off the dirty list, not yet taken */
	struct sv_taken *taken;		/* by the flush under way */
	u32 nr_taken;
	u32 taken_bytes;		/* of stream that their records may need */
};

struct sv_pool {
	sv_lock_t lock;
	u8 uuid[16];
	u64 incarnation;
	u32 state;			/* enum sv_pool_state; pool->lock */
	u32 mode;			/* enum sv_mode; READ_ONCE, written under pool->lock, only upward */
	u64 epoch;
	atomic64_t events;
	u32 no_space_ms;
	u32 commit_ms;

	u32 nr_members;
	struct sv_member *members[SV_MAX_MEMBERS];
	u64 total_slots;
	u64 free_slots;
	u64 open_slots;			/* of all slots those on members that are not closed; pool->lock */
	u64 room;			/* likewise of the free ones; READ_ONCE */
	u64 reserve;			/* slots that NORMAL writes may not take */
	bool fragments;			/* small writes may take fragments: svd knows them; READ_ONCE */

	/* Extent table: chunks, so that adding a member never moves a word under a reader. */
	u64 **xt;			/* xt[extent >> SV_XT_SHIFT][extent & SV_XT_MASK] */
	u64 ***xt_old;			/* directories outgrown, for readers; freed with the pool */
	u32 nr_xt_old;
	u32 nr_extents;			/* numbers 1 .. nr_extents - 1 */
	u32 max_extents;		/* that there may be */
	u32 xt_chunks;
	u64 **numbers;			/* by page of words, 1: in use; pool->lock */
	u32 numbers_free;		/* of nr_extents */
	u32 number_hint;		/* word of numbers where the next search begins */
	u64 freed;			/* words with FREED */

	/* Partials and places, by index: pages of chunks of SV_PARTIAL_CHUNK. */
	union sv_cell ***pt;
	u32 pt_chunks;
	/*
	 * Lists by index (0 ends): free ones, and those that no word names any more but a bio may still hold. The
	 * link is in pos, since node may at any moment put such a partial on a dirty list.
	 */
	u32 pt_free, pt_nfree;
	u64 pt_live;
	u32 quarantine;
	u64 quarantine_members;
	u32 grace;			/* of the quarantine, what is waiting for its grace periods */

	struct sv_node *nodes;		/* reserve */
	u32 nr_nodes;
	u64 node_count;

	struct sv_volume *volumes;
	atomic64_t latency_bytes;	/* of open volumes */

	/* Record stream: a byte ring; [durable, head) is not yet acknowledged. pool->lock */
	u8 *stream;
	u64 head;
	u64 durable;
	u64 held;			/* bytes of it promised to bits taken by rounds */
	u64 wanted;			/* the journal is to be written up to here */

	/* Journal ring. Virtual offsets grow for ever; the physical one is modulo ring_len. */
	u64 ring_len;
	u64 ring_copies;		/* mask of members whose copy is in use */
	bool crowded;			/* the last tickets that were through were several */
	bool copy_lost;			/* to be recorded in the next batch [I32] */
	u64 ring_head;
	u64 ring_tail;
	u64 next_seq;
	u64 tail_seq;
	u32 prev_crc;
	u32 *batch_end;			/* by seq % nr_blocks: physical end in 4 KiB */
	u32 ring_blocks;
	u32 batch_max;
	u64 ring_slack;			/* never promised: padding, wraps, batches of single members */
	atomic64_t resv;		/* bytes of ring reserved by obligations [I16] */
	u8 *batch;			/* SV_BATCH_MAX, the one batch in flight */
	u32 batch_used;			/* of it, so far: zeroes follow */

	struct sv_ticket *tickets;	/* all that wait; pool->lock */
	struct sv_ticket **tickets_end;
	struct sv_ticket all;		/* the periodic commit's own */
	bool all_waits;			/* it is among them */
	u64 need;			/* members of which some ticket waits for a round to begin */
	bool writing;			/* a batch is on its way */

	/*
	 * [I20] What freed the words that bear LISTED lies in the stream before listed_pos, and so in the batch
	 * listed_seq or an earlier one, once that is known. Trimmed means that the catalogue has it. pool->lock
	 */
	u64 listed_pos;
	u64 listed_seq;
	/* SNAPSHOT: volumes between its first step and its last; the session's exclusivity. */
	struct sv_cut *cuts;
	u32 nr_cuts;
	/* RECYCLE: extents between its two steps; pool->lock held by the session's exclusivity. */
	struct sv_freed *recycling;
	u32 nr_recycling;
	/* FOLD or MOVE: extents between its first step and its last; the caller's, who does one at a time. */
	struct sv_folding *folds;
	u32 nr_folds;
	u32 fold_at;			/* of the step under way */
	struct sv_moving *moves;
	u32 nr_moves;
	u32 move_at;

	u64 commits, records, journal_bytes;
};

#define SV_SEQ_UNKNOWN	(~0ull)
#define SV_XW_RECYCLING	SV_XW_HOLD	/* of a FREED word: between the two steps of RECYCLE */
/* Of a live word SV_XW_HOLD: writes wait. In the lock, where a discard looks for writers; or for a FOLD. */
#define SV_XT_SHIFT	9		/* a page of words, so that a reserve of them can be filled at any time */
#define SV_XT_CHUNK	(1u << SV_XT_SHIFT)

static_assert(SV_MAX_EXTENTS <= ~0u - SV_XT_CHUNK, "words, in whole pages, are counted in 32 bits");

/* The word of an extent, or NULL where there is no such number. */
static inline bool sv_xt_has(const struct sv_pool *p, u32 extent)
{
	/* Pairs with the store that follows the making of the chunks. */
	return extent && extent < smp_load_acquire(&p->nr_extents);
}

static inline u64 *sv_xt_at(const struct sv_pool *p, u32 extent)
{
	/* An older directory has all that was there when nr_extents was read. Pairs with replace_directory(). */
	return &READ_ONCE(p->xt)[extent >> SV_XT_SHIFT][extent & (SV_XT_CHUNK - 1)];
}

static inline u64 *sv_xt_word(const struct sv_pool *p, u32 extent)
{
	return sv_xt_has(p, extent) ? sv_xt_at(p, extent) : NULL;
}

/* Whoever has an index has it from where it was stored after the chunk had come. */
static inline union sv_cell *sv_cell_at(const struct sv_pool *p, u32 i)
{
	return &p->pt[i / SV_PARTIAL_CHUNK / SV_PT_PAGE][i / SV_PARTIAL_CHUNK % SV_PT_PAGE][i % SV_PARTIAL_CHUNK];
}

static inline struct sv_partial *sv_partial_at(const struct sv_pool *p, u32 i)
{
	return &sv_cell_at(p, i)->partial;
}

/* On the member, in 512 B. */
static inline u64 sv_sector_of(const struct sv_pool *p, u32 member, u32 slot, u32 block)
{
	return (p->members[member]->g.slot_off >> 9) + ((u64)slot << (SV_EXTENT_SHIFT - 9)) +
	       (u64)block * (SV_BLOCK_SIZE / 512);
}

/* Likewise, of a block of the fragment that has this place. */
static inline u64 sv_sector_in_place(const struct sv_pool *p, u32 member, u32 place, u32 block)
{
	u32 part = (place - 1) % SV_FRAGS;

	return sv_sector_of(p, member, (place - 1) / SV_FRAGS, part * SV_FRAG_BLOCKS + block % SV_FRAG_BLOCKS);
}

/* Of a partial extent whose word says FRAGS. */
static inline struct sv_places *sv_places_of(const struct sv_pool *p, const struct sv_partial *pt)
{
	return &sv_cell_at(p, pt->slot)->places;
}

/* What a volume writes to, its head layer, and from which layer on extents are its own: one load says both. [I8] */
#define SV_OWNS_NOTHING		(~0u)
static inline u64 sv_view_make(u32 head, u32 owned_since) { return (u64)head << 32 | owned_since; }
#define SV_VIEW_GATED		((u64)SV_OWNS_NOTHING)	/* writes wait: snapshot.c */
static inline u32 sv_view_head(u64 view) { return (u32)(view >> 32); }
static inline u32 sv_view_owned_since(u64 view) { return (u32)view; }

static inline u32 sv_entry_extent(u64 e) { return (u32)e; }
static inline u32 sv_entry_layer(u64 e) { return (u32)(e >> 32); }
/* May what has this view write in place there? [I4] */
static inline bool sv_owns(u64 view, u64 entry) { return (u32)(entry >> 32) >= sv_view_owned_since(view); }
static inline u64 sv_entry_make(u32 extent, u32 layer) { return (u64)layer << 32 | extent; }

/* bitmap helpers: atomicity comes from pool->lock */
static inline bool sv_bit(const u64 *m, u32 i) { return m[i / 64] >> (i % 64) & 1; }
static inline void sv_bit_set(u64 *m, u32 i) { m[i / 64] |= 1ull << (i % 64); }
static inline void sv_bit_clear(u64 *m, u32 i) { m[i / 64] &= ~(1ull << (i % 64)); }

#define SV_NUMBER_WORDS	(SV_XT_CHUNK / 64)

static inline u64 *sv_numbers_at(const struct sv_pool *p, u32 extent) { return p->numbers[extent >> SV_XT_SHIFT]; }
static inline bool sv_number_used(const struct sv_pool *p, u32 extent)
{
	return sv_bit(sv_numbers_at(p, extent), extent & (SV_XT_CHUNK - 1));
}

/* map.c */
#define SV_MAP_END	(~0ull)
static inline u32 sv_node_slot(u64 index, u32 level)
{
	return (u32)(index >> (level * SV_NODE_SHIFT)) & (SV_NODE_ENTRIES - 1);
}

/* The entry, or 0. RCU or lock. Inline: a plan that calls nothing saves no registers. */
static inline u64 sv_map_lookup(const struct sv_volume *v, u64 index)
{
	const struct sv_root *r = smp_load_acquire(&v->root);	/* pairs with sv_map_grow() */
	const struct sv_node *n = smp_load_acquire(&r->node);	/* pairs with sv_map_install() */
	u32 level = r->depth;

	if (index >> (level * SV_NODE_SHIFT))
		return 0;
	while (n && --level)
		n = smp_load_acquire(&n->child[sv_node_slot(index, level)]);	/* likewise */
	return n ? smp_load_acquire(&n->entry[sv_node_slot(index, 0)]) : 0;	/* likewise */
}

/*
 * The first entry from there on that is of a layer newer than @above. False: there is none before the new *index, from
 * which to go on, or SV_MAP_END. Bounded. RCU or lock, or nobody writes to the volume.
 */
bool sv_map_next(const struct sv_volume *v, u64 *index, u32 above);
u32 sv_node_newest(const struct sv_node *n);				/* no entry below it is of a newer layer */
u32 sv_map_nodes_needed(const struct sv_volume *v, u64 index);		/* lock */
struct sv_node *sv_node_take(struct sv_pool *p);				/* lock; one is in the reserve */
struct sv_node *sv_map_leaf(struct sv_volume *v, u64 index, u32 layer);	/* lock; nodes are in the reserve */
void sv_map_share(struct sv_volume *v, const struct sv_volume *source);	/* likewise; v's is empty, and no less deep */
void sv_map_install(struct sv_volume *v, u64 index, u64 entry);		/* likewise */
int sv_map_grow(struct sv_volume *v, u64 size);				/* may sleep; no lock */
void sv_map_free(struct sv_volume *v);

/* share.c */
int sv_share_step(struct sv_pool *p, const struct sv_share *s);		/* may sleep */
void sv_share_undo(struct sv_volume *v);				/* likewise; of one that is being dropped */
int sv_map_told(struct sv_pool *p, const struct sv_map_entry *e, u32 count, u32 *done);	/* likewise */
int sv_map_dump(struct sv_pool *p, struct sv_map_entry *out, u32 *count, bool newer);

/* snapshot.c */
int sv_snapshot_begin(struct sv_pool *p, const struct sv_snapshot *s, u32 count);
int sv_volume_own(struct sv_pool *p, const struct sv_own *o);

/* fold.c */
int sv_fold_begin(struct sv_pool *p, const struct sv_fold *f, u32 count, u32 *done, u64 *members);
int sv_move_begin(struct sv_pool *p, const struct sv_move *m, u32 count, u32 *done, u64 *members);
/* Something is about to be written in an extent with MOVING, which is to be looked up again then. Not in the lock. */
void sv_move_spoil(struct sv_pool *p, u32 extent);

/* alloc.c: all under pool->lock */
bool sv_alloc_slot(struct sv_volume *v, u64 index, enum sv_write_class c, u32 *member, u32 *slot);
void sv_slot_take(struct sv_pool *p, u32 member, u32 slot);
void sv_slot_release(struct sv_pool *p, u32 member, u32 slot);
void sv_slot_grant(struct sv_pool *p, u32 member, u32 slot);
/* Of the 64 of the word these, one at least. */
void sv_slots_grant(struct sv_pool *p, u32 member, u32 word, u64 slots);
bool sv_slot_on(struct sv_pool *p, u32 member, enum sv_write_class c, u32 *slot);	/* any one, of this member */
bool sv_slots_left(const struct sv_pool *p, enum sv_write_class c);
bool sv_tier_of_choice(const struct sv_volume *v, u32 i, u32 *tier);	/* the i-th; false: there are no more */
u32 sv_alloc_number(struct sv_pool *p);					/* 0: none */
void sv_number_take(struct sv_pool *p, u32 extent);			/* it is free */
void sv_number_release(struct sv_pool *p, u32 extent);
void sv_member_close(struct sv_pool *p, u32 member, bool closed);

/* pool.c: words for extents numbers up to @extent, which there may be; may sleep; -ENOMEM */
int sv_pool_have_number(struct sv_pool *p, u32 extent);
bool sv_pool_more_numbers(const struct sv_pool *p);			/* a refill may bring some */
bool sv_pool_spare_cells(const struct sv_pool *p);			/* beyond one for each free slot */

#define SV_FREED_MANY	64u		/* freed extents that make svd look before its usual time */

/* Under pool->lock: one more that waits for RECYCLE. */
static inline void sv_count_freed(struct sv_pool *p)
{
	if (++p->freed >= SV_FREED_MANY)
		sv_pool_raise(p, SV_EVENT_FREED);
}

/* frag.c: places, under pool->lock */
u32 sv_frag_member(struct sv_volume *v, enum sv_write_class c);		/* for a new extent; SV_MAX_MEMBERS: none */
/* @n places on it, one behind the other, SV_FRAGS_MAX at most: the first one; 0: none, or no node. */
u32 sv_frags_take(struct sv_pool *p, u32 member, enum sv_write_class c, u32 n);
bool sv_frag_is_free(const struct sv_pool *p, u32 member, u32 place);	/* of a pool that is being loaded */
void sv_frag_claim(struct sv_pool *p, u32 member, u32 place);		/* it is; takes a node at most */
void sv_frag_release(struct sv_pool *p, u32 member, u32 place);
void sv_frags_release(struct sv_pool *p, u32 member, const struct sv_places *places);
u32 sv_places_count(const struct sv_places *places);
void sv_frag_append(struct sv_pool *p, u32 extent, u16 gen, u32 member, u32 frag, u32 place);
void sv_frags_free(struct sv_member *m);
int sv_frags_init(struct sv_member *m);					/* may sleep; -ENOMEM */
/* Blocks from @first on, @n at most, that lie one behind the other; the first one has a place: *@sector. */
u32 sv_frags_run(const struct sv_pool *p, u32 member, const struct sv_partial *pt, u32 first, u32 n, u64 *sector);

/* partial.c: all under pool->lock but where said */
u32 sv_partial_new(struct sv_pool *p, u32 extent, u32 slot, u32 parent, u64 valid);	/* index; 0: none free */
u32 sv_places_new(struct sv_pool *p);					/* likewise, a cell for places: all 0 */
/* By the word that named it: what is in it stays as it is until the grace periods are over. */
void sv_partial_quarantine(struct sv_pool *p, u64 word);
bool sv_partial_is_live(const struct sv_pool *p, const struct sv_partial *pt);
bool sv_partial_all_valid(const struct sv_partial *pt);
bool sv_partial_none_valid(const struct sv_partial *pt);
void sv_partial_mark(struct sv_pool *p, struct sv_partial *pt, u32 member, u64 words, u32 resv); /* any context */
/* Any context. How many VALID records that makes: of the caller's ring space, what they take is theirs from now on. */
u32 sv_partial_set_valid(struct sv_pool *p, struct sv_partial *pt, u32 member, u32 first, u32 n);
u32 sv_partials_listed(struct sv_member *m);				/* off the list; the first one */
bool sv_partial_take(struct sv_pool *p, u32 member, struct sv_partial *pt);	/* false: no room */
void sv_partials_publish(struct sv_pool *p, u32 member);		/* what was taken, into the stream */
void sv_partials_put_back(struct sv_pool *p, u32 member);		/* what was taken is dirty again */
void sv_partial_forget(struct sv_pool *p, struct sv_partial *pt, u32 word, u64 bits);
void sv_partial_settle(struct sv_pool *p, u32 extent, u16 gen);

/* latency.c: with the session's exclusivity */
int sv_latency_open(struct sv_volume *v);				/* may sleep; -ENOMEM */
void sv_latency_close(struct sv_volume *v);
u32 sv_volume_histograms(const struct sv_volume *v, struct sv_histogram *out, u32 room);

/* stream.c: records on their way to the ring, and its space; under pool->lock but where said */
bool sv_stream_room(const struct sv_pool *p, u32 bytes);
void sv_stream_append(struct sv_pool *p, const void *rec, u32 bytes);
bool sv_ring_reserve(struct sv_pool *p, u64 bytes);			/* any context */
int sv_ring_reserve_command(struct sv_pool *p, u64 bytes);		/* -ENOSPC; -EROFS or -EIO by the pool's mode */
void sv_ring_unreserve(struct sv_pool *p, u64 bytes);			/* any context */
u64 sv_ring_free(const struct sv_pool *p);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * What must this bio do: one question for reads, one for writes; unmap.c answers for discard and WRITE_ZEROES. Called
 * in an RCU read section by whoever has a bio; answers with one piece at a time. Reads and writes to what is mapped
 * take no lock. A first write takes pool->lock once: entry, number, slot, partial and record change together [I7].
 *
 * A write to what an older layer owns makes an extent, too, one that names the older one as its parent: redirect on
 * write. What is not valid in it is read from the parent, in which no write is planned any more, and from its parent.
 * Whose an entry is follows from the volume's view, of which a write loads one [I8]. Between the load and the write's
 * end the view may change (snapshot.c): then the write is still the old layer's, whose snapshot waits for it. Where it
 * comes to the lock, the view under the lock counts.
 *
 * A write to blocks that are not valid yet counts itself in partial->dirty (IN FLIGHT) and then looks at the word
 * again, while discard that would free an emptied extent first sets HOLD in the word and then looks at the count:
 * one of the two sees the other (full barriers on both sides), so no extent is freed under such a write.
 */
#include "plan.h"

#define OWNS_ALL	0ull		/* the view of who reads: owned_since 0 */

/* As many of the blocks as lie one behind the other. */
static void to_fragments(const struct sv_pool *p, u32 member, const struct sv_partial *pt, u32 first, u32 n,
			 struct sv_piece *out)
{
	out->member = (u8)member;
	out->first = (u8)first;
	out->blocks = sv_frags_run(p, member, pt, first, n, &out->sector);
	out->partial = NULL;
	out->resv = 0;
}

static void to_slot(const struct sv_pool *p, u32 member, u32 slot, u32 first, u32 blocks, struct sv_piece *out)
{
	out->member = (u8)member;
	out->first = (u8)first;
	out->blocks = blocks;
	out->sector = sv_sector_of(p, out->member, slot, first);
	out->partial = NULL;
	out->resv = 0;
}

static void to_partial(const struct sv_pool *p, u64 word, const struct sv_partial *pt, u32 first, u32 n,
		       struct sv_piece *out)
{
	smp_rmb();	/* bits, then places: pairs with the barrier in first_write_done() */
	if (word & SV_XW_FRAGS)
		to_fragments(p, sv_xw_member(word), pt, first, n, out);
	else
		to_slot(p, sv_xw_member(word), pt->slot, first, n, out);
}

/*
 * Go on across extents while their slots follow each other on one member. Called only where there is more, and, as all
 * that is not the usual case, not inline: the usual one then needs neither stack nor saved registers.
 */
static noinline void extend(const struct sv_volume *v, u64 block, u32 blocks, u64 view, u32 slot, struct sv_piece *out)
{
	while (out->blocks < blocks) {
		u32 more = min_t(u32, blocks - out->blocks, SV_EXTENT_BLOCKS);
		u64 entry, word = sv_look_up(v, (block + out->blocks) / SV_EXTENT_BLOCKS, &entry);

		if (!word || (word & (SV_XW_PARTIAL | SV_XW_HOLD | SV_XW_MOVING)) ||
		    sv_xw_member(word) != out->member || sv_xw_where(word) != ++slot ||
		    !sv_owns(view, entry))
			return;
		out->blocks += more;
	}
}

static bool bit_valid(const struct sv_partial *pt, u32 b)
{
	return (u64)atomic64_read(&pt->valid[b / 64]) >> (b % 64) & 1;
}

/* Length of the run from b, at most n, of blocks that are valid (or not) as b is. */
static u32 run_of(const struct sv_partial *pt, u32 b, u32 n, bool valid)
{
	u32 i = 1;

	while (i < n && bit_valid(pt, b + i) == valid)
		i++;
	return i;
}

static noinline enum sv_plan read_unmapped(const struct sv_volume *v, u64 block, u32 blocks, struct sv_piece *out)
{
	u32 n = min_t(u32, blocks, SV_EXTENT_BLOCKS - (u32)(block % SV_EXTENT_BLOCKS));
	u64 entry;

	while (n < blocks && !sv_look_up(v, (block + n) / SV_EXTENT_BLOCKS, &entry))
		n += min_t(u32, blocks - n, SV_EXTENT_BLOCKS);
	sv_zero_piece(out, n);
	return SV_PLAN_ZERO;
}

/*
 * The blocks come from the extent, or from the nearest of its ancestors in which they are valid, as far as that is one.
 * An ancestor may be freed meanwhile, once its child has become whole: its word then still says where it lies, and slot
 * and partial stay what they are until we are gone (cmd.c:recycle_one).
 */
noinline enum sv_plan sv_plan_read_partial(const struct sv_pool *p, u64 word, u32 first, u32 n, struct sv_piece *out)
{
	u32 hops = 0;

	while (word & SV_XW_PARTIAL) {
		const struct sv_partial *pt = sv_partial_at(p, sv_xw_where(word));
		bool valid = bit_valid(pt, first);

		n = run_of(pt, first, n, valid);
		if (valid) {
			to_partial(p, word, pt, first, n, out);
			return SV_PLAN_REMAP;
		}
		if (!pt->parent) {
			sv_zero_piece(out, n);
			return SV_PLAN_ZERO;
		}
		word = smp_load_acquire(sv_xt_at(p, pt->parent));	/* as in sv_look_up() */
		if (!(word & SV_XW_LIVE) || ++hops > SV_MAX_CHAIN)
			return SV_PLAN_IOERR;		/* svd freed what was needed */
	}
	to_slot(p, sv_xw_member(word), sv_xw_where(word), first, n, out);
	return SV_PLAN_REMAP;
}

enum sv_plan sv_plan_read(struct sv_volume *v, u64 block, u32 blocks, struct sv_piece *out)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS), n = min_t(u32, blocks, SV_EXTENT_BLOCKS - first);
	u64 entry, word;

	if (unlikely(READ_ONCE(v->pool->mode) == SV_MODE_FAIL))
		return SV_PLAN_IOERR;
	word = sv_look_up(v, block / SV_EXTENT_BLOCKS, &entry);
	if (!word)
		return read_unmapped(v, block, blocks, out);
	if (word & SV_XW_PARTIAL)
		return sv_plan_read_partial(v->pool, word, first, n, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (n < blocks)
		extend(v, block, blocks, OWNS_ALL, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

/* ---- to what is there ---- */

static bool range_valid(const struct sv_partial *pt, u32 first, u32 n)
{
	return bit_valid(pt, first) && run_of(pt, first, n, true) == n;
}

/* Ring space for a write that will make blocks valid, and its count in the partial. */
static bool begin_write(struct sv_pool *p, struct sv_partial *pt, struct sv_piece *out)
{
	if (!sv_ring_reserve(p, (u64)SV_RESV_WRITE * SV_RESV_UNIT))
		return false;
	out->partial = pt;
	out->resv = SV_RESV_WRITE;
	(void)atomic64_add_return((s64)(1ull << SV_DIRTY_INFLIGHT), &pt->dirty);	/* full barrier */
	return true;
}

static void undo_write(struct sv_pool *p, struct sv_piece *out)
{
	(void)atomic64_add_return(-(s64)(1ull << SV_DIRTY_INFLIGHT), &out->partial->dirty);
	sv_ring_unreserve(p, (u64)out->resv * SV_RESV_UNIT);
	out->resv = 0;
	out->partial = NULL;
}

static enum sv_plan write_there(struct sv_pool *p, u32 extent, u64 word, struct sv_partial *pt, struct sv_piece *out)
{
	if (range_valid(pt, out->first, out->blocks)) {
		out->partial = pt;
		return SV_PLAN_REMAP;
	}
	if (!begin_write(p, pt, out))
		return sv_no_ring(p);
	if (smp_load_acquire(sv_xt_word(p, extent)) == word)	/* as in sv_look_up() */
		return SV_PLAN_REMAP;
	undo_write(p, out);			/* it changed: settled, freed, or about to be */
	return SV_PLAN_DEFER;
}

/* Has the extent below, which this one has outgrown, the blocks? Of as many as are alike: *@n. */
static bool is_below(const struct sv_pool *p, const struct sv_partial *pt, u64 below, u32 first, u32 *n)
{
	const struct sv_partial *old;

	if ((below & (SV_XW_OUTGROWN | SV_XW_LIVE | SV_XW_FREED)) != (SV_XW_OUTGROWN | SV_XW_LIVE) ||
	    bit_valid(pt, first))
		return false;
	*n = run_of(pt, first, *n, false);
	if (!(below & SV_XW_PARTIAL))
		return true;
	old = sv_partial_at(p, sv_xw_where(below));
	if (!bit_valid(old, first))
		return false;
	*n = run_of(old, first, *n, true);
	return true;
}

/* What writes there asks again, at once. */
static enum sv_plan spoil(struct sv_pool *p, u32 extent)
{
	sv_move_spoil(p, extent);
	return SV_PLAN_DEFER;
}

/* It is overwritten there until it is folded: an overwrite needs nothing of space or ring. */
static enum sv_plan write_below(struct sv_pool *p, u32 parent, u64 below, u32 first, u32 n, struct sv_piece *out)
{
	if (below & SV_XW_HOLD)
		return SV_PLAN_HELD;
	if (below & SV_XW_MOVING)
		return spoil(p, parent);
	if (below & SV_XW_PARTIAL) {
		to_partial(p, below, sv_partial_at(p, sv_xw_where(below)), first, n, out);
		out->partial = sv_partial_at(p, sv_xw_where(below));
	} else {
		to_slot(p, sv_xw_member(below), sv_xw_where(below), first, n, out);
	}
	return SV_PLAN_REMAP;
}

/* ---- first writes, all in pool->lock ---- */

#define WHOLE_BLOCKS	64u	/* a write of 256 KiB takes a slot */
#define RECORDS		(sizeof(struct sv_rec_map) + (SV_FRAGS_MAX + 1) * sizeof(struct sv_rec_small))

static bool have_memory(struct sv_volume *v, u64 index)
{
	const struct sv_pool *p = v->pool;

	return p->pt_nfree >= 2 && sv_map_nodes_needed(v, index) <= p->nr_nodes && sv_stream_room(p, RECORDS);
}

static void append_map(struct sv_volume *v, u64 index, u32 extent, u64 word, u32 parent, u32 slot)
{
	u8 rec[sizeof(struct sv_rec_map)];
	u8 flags = SV_MAP_PARTIAL | (parent ? SV_MAP_PARENT : 0) | (word & SV_XW_FRAGS ? SV_MAP_FRAGS : 0);

	sv_put_map(rec, flags, sv_xw_gen(word), extent, v->id, index, sv_view_head(v->view), parent,
		   sv_xw_member(word), slot);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
}

/* The piece is the first write to blocks of it. After this nothing can fail. */
static void count_write(struct sv_partial *pt, struct sv_piece *out)
{
	out->partial = pt;
	out->resv = SV_RESV_WRITE;
	atomic64_add((s64)(1ull << SV_DIRTY_INFLIGHT), &pt->dirty);
}

/* An extent that has nothing yet, which the map names from now on. Its number was asked for before. */
static struct sv_partial *install(struct sv_volume *v, u64 index, u32 parent, u32 extent, u32 member, u32 where,
				  u64 flags)
{
	struct sv_pool *p = v->pool;
	u32 i = sv_partial_new(p, extent, where, parent, 0);
	u16 gen = (u16)(sv_xw_gen(*sv_xt_word(p, extent)) + 1);
	u64 word = sv_xw_make(i, member, gen, SV_XW_LIVE | SV_XW_PARTIAL | SV_XW_MAPPED | flags);

	smp_store_release(sv_xt_word(p, extent), word);		/* pairs with sv_look_up() */
	append_map(v, index, extent, word, parent, flags & SV_XW_FRAGS ? 0 : where);
	sv_map_install(v, index, sv_entry_make(extent, sv_view_head(v->view)));
	v->mapped += !parent;
	v->owned_on |= 1ull << member;
	return sv_partial_at(p, i);
}

/* Places for what the write begins with and what lies behind it, while they follow each other. */
static bool add_places(struct sv_volume *v, u32 extent, u64 word, struct sv_partial *pt, enum sv_write_class c,
		       u32 first, u32 n, struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	struct sv_places *places = sv_places_of(p, pt);
	u32 frag = first / SV_FRAG_BLOCKS, last = (first + n - 1) / SV_FRAG_BLOCKS, member = sv_xw_member(word), before;

	for (before = 0; frag <= last && !places->at[frag]; frag++) {
		u32 place = sv_places_count(places) < SV_FRAGS_MAX ? sv_frags_take(p, member, c, 1) : 0;

		if (!place || (before && place != before + 1)) {
			if (place)
				sv_frag_release(p, member, place);
			break;
		}
		WRITE_ONCE(places->at[frag], place);
		sv_frag_append(p, extent, sv_xw_gen(word), member, frag, place);
		before = place;
	}
	if (!before)
		return false;
	v->rec_pos = p->head;
	to_fragments(p, member, pt, first, n, out);
	count_write(pt, out);
	return true;
}

/* A node for the map's and one for the places: all of a write lie in slots with room, and one empty slot at most. */
static bool may_take_fragments(const struct sv_volume *v, u64 index, u32 first, u32 n)
{
	const struct sv_pool *p = v->pool;
	bool stream = v->stream_slot != SV_NO_SLOT && index == v->stream_index && !first;

	return p->fragments && n < WHOLE_BLOCKS && !stream && p->numbers_free > p->free_slots &&
	       sv_pool_spare_cells(p) && sv_map_nodes_needed(v, index) < p->nr_nodes;
}

static enum sv_plan new_fragments(struct sv_volume *v, u64 index, u32 parent, enum sv_write_class c, u32 first, u32 n,
				  struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	u32 member = sv_frag_member(v, c), extent;
	struct sv_partial *pt;

	extent = member < SV_MAX_MEMBERS ? sv_alloc_number(p) : 0;
	if (!extent)
		return SV_PLAN_NOSPC;
	pt = install(v, index, parent, extent, member, sv_places_new(p), SV_XW_FRAGS);
	/* sv_frag_member() has found room. */
	WARN_ON_ONCE(!add_places(v, extent, *sv_xt_word(p, extent), pt, c, first, n, out));
	return SV_PLAN_REMAP;
}

static enum sv_plan new_slot(struct sv_volume *v, u64 index, u32 parent, enum sv_write_class c, u32 first, u32 n,
			     struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	u32 extent, member, slot;

	if (!sv_alloc_slot(v, index, c, &member, &slot))
		return SV_PLAN_NOSPC;
	extent = sv_alloc_number(p);
	if (!extent) {
		sv_slot_release(p, member, slot);
		return sv_pool_more_numbers(p) ? SV_PLAN_DEFER : SV_PLAN_NOSPC;
	}
	to_slot(p, member, slot, first, n, out);
	count_write(install(v, index, parent, extent, member, slot, 0), out);
	return SV_PLAN_REMAP;
}

/* @entry and @word: what is there. DEFER: somebody was faster, or writes wait for a snapshot. */
static enum sv_plan take_space(struct sv_volume *v, u64 index, u64 entry, u64 word, enum sv_write_class c, u32 first,
			       u32 n, struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	u32 parent = word ? sv_entry_extent(entry) : 0;
	bool own = word && sv_owns(v->view, entry), fragments = true;
	enum sv_plan plan;

	if (own) {
		struct sv_partial *pt;

		/* MOVING: it was another's when the write looked it up, which then did not take that off. */
		if (!(word & SV_XW_FRAGS) || (word & (SV_XW_HOLD | SV_XW_MOVING)))
			return SV_PLAN_DEFER;
		pt = sv_partial_at(p, sv_xw_where(word));	/* of another word it may be a slot */
		if (sv_places_of(p, pt)->at[first / SV_FRAG_BLOCKS])
			return SV_PLAN_DEFER;
		if (add_places(v, parent, word, pt, c, first, n, out))
			return SV_PLAN_REMAP;
		fragments = sv_places_count(sv_places_of(p, pt)) < SV_FRAGS_MAX;
	}
	if (fragments && may_take_fragments(v, index, first, n))
		plan = new_fragments(v, index, parent, c, first, n, out);
	else
		plan = new_slot(v, index, parent, c, first, n, out);
	if (plan == SV_PLAN_REMAP && own)
		/* pairs with sv_look_up() */
		smp_store_release(sv_xt_word(p, parent), (word & ~SV_XW_MAPPED) | SV_XW_OUTGROWN);
	return plan;
}

/* A first write, the first one since a snapshot, or the first one to a fragment. */
static noinline enum sv_plan first_write(struct sv_volume *v, u64 index, enum sv_write_class c, u32 first, u32 n,
					 struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	enum sv_plan plan = SV_PLAN_DEFER;
	u64 resv = (u64)SV_RESV_WRITE * SV_RESV_UNIT, entry, word;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	word = sv_look_up(v, index, &entry);
	if (v->view == SV_VIEW_GATED || !have_memory(v, index)) {
		sv_unlock(&p->lock, f);		/* plan again, after a refill if need be */
		return SV_PLAN_DEFER;
	}
	if (!sv_ring_reserve(p, resv)) {
		plan = sv_no_ring(p);
	} else {
		plan = take_space(v, index, entry, word, c, first, n, out);
		if (plan != SV_PLAN_REMAP)
			sv_ring_unreserve(p, resv);
		if (plan == SV_PLAN_NOSPC)
			sv_pool_raise(p, SV_EVENT_SPACE);
	}
	sv_unlock(&p->lock, f);
	return plan;
}

/* ---- writes ---- */

static noinline enum sv_plan write_partial(struct sv_volume *v, u64 block, u64 entry, u64 word, u32 n,
					   enum sv_write_class c, struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	struct sv_partial *pt = sv_partial_at(p, sv_xw_where(word));
	u32 first = (u32)(block % SV_EXTENT_BLOCKS), old = n;
	u64 below = pt->parent ? smp_load_acquire(sv_xt_at(p, pt->parent)) : 0;	/* as in sv_look_up() */

	if (is_below(p, pt, below, first, &old))
		return write_below(p, pt->parent, below, first, old, out);
	if ((word & SV_XW_FRAGS) && !READ_ONCE(sv_places_of(p, pt)->at[first / SV_FRAG_BLOCKS]))
		return first_write(v, block / SV_EXTENT_BLOCKS, c, first, n, out);
	to_partial(p, word, pt, first, n, out);
	return write_there(p, sv_entry_extent(entry), word, pt, out);
}

static noinline enum sv_plan write_any(struct sv_volume *v, u64 block, u32 blocks, enum sv_write_class c,
				       struct sv_piece *out)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS), n = min_t(u32, blocks, SV_EXTENT_BLOCKS - first);
	u64 index = block / SV_EXTENT_BLOCKS;
	enum sv_plan plan = sv_may_write(v);
	u64 entry, word, view;

	if (plan != SV_PLAN_REMAP)
		return plan;
	word = sv_look_up(v, index, &entry);
	view = READ_ONCE(v->view);	/* the one load of [I8] */
	if (!word || !sv_owns(view, entry))
		return first_write(v, index, c, first, n, out);
	if (word & SV_XW_HOLD)
		return SV_PLAN_HELD;
	if (word & SV_XW_MOVING)
		return spoil(v->pool, sv_entry_extent(entry));
	if (word & SV_XW_PARTIAL)
		return write_partial(v, block, entry, word, n, c, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (out->blocks < blocks)
		extend(v, block, blocks, view, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

/* The usual overwrite: within an extent of the volume's own that is whole. All else is asked anew. */
enum sv_plan sv_plan_write(struct sv_volume *v, u64 block, u32 blocks, enum sv_write_class c, struct sv_piece *out)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS);
	u64 entry, word;

	if (unlikely(sv_may_write(v) != SV_PLAN_REMAP || first + blocks > SV_EXTENT_BLOCKS))
		return write_any(v, block, blocks, c, out);
	word = sv_look_up(v, block / SV_EXTENT_BLOCKS, &entry);
	/* The one load of [I8]. */
	if (!word || (word & (SV_XW_HOLD | SV_XW_PARTIAL | SV_XW_MOVING)) || !sv_owns(READ_ONCE(v->view), entry))
		return write_any(v, block, blocks, c, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, blocks, out);
	return SV_PLAN_REMAP;
}

/*
 * After the bits are marked, since a flush that finds nothing owed looks no further. The commit clears in the same
 * order, owed first, so whoever is seen here as owed already will be asked for the bits too. [I11]
 */
static void owe(struct sv_volume *v, u32 member)
{
	smp_mb();	/* pairs with begin_round() */
	if (!((u64)atomic64_read(&v->owed) & 1ull << member))
		atomic64_or((s64)(1ull << member), &v->owed);
}

/* Of a write that was to make blocks valid. */
static noinline void first_write_done(struct sv_volume *v, const struct sv_piece *piece, bool ok)
{
	struct sv_partial *pt = piece->partial;
	u32 resv = 0;

	if (ok) {
		smp_mb();	/* the places that are written to, then the bits: pairs with to_partial() */
		resv = sv_partial_set_valid(v->pool, pt, piece->member, piece->first, piece->blocks);
		owe(v, piece->member);
	}
	sv_ring_unreserve(v->pool, (u64)piece->resv * SV_RESV_UNIT - (u64)resv * SV_RESV_VALID);
	(void)atomic64_add_return(-(s64)(1ull << SV_DIRTY_INFLIGHT), &pt->dirty);	/* full barrier */
}

void sv_write_done(struct sv_volume *v, const struct sv_piece *piece, bool ok)
{
	if (piece->resv)
		first_write_done(v, piece, ok);
	else if (ok)
		owe(v, piece->member);
}

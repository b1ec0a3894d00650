// SPDX-License-Identifier: GPL-2.0
/*
 * Discard and WRITE_ZEROES: what is mapped no more. In pool->lock, many extents at a time. How a discard keeps off an
 * extent that is being written is said in plan.c.
 */
#include "plan.h"

#define SV_UNMAP_MAX	64u		/* extents that one discard unmaps under one hold of the lock */
#define SV_DISCARD_MAX	4096u		/* extents that one discard looks at under one hold of the lock */

struct target {				/* a live extent */
	u32 extent;
	u64 word;
};

/*
 * The entry goes. @extent is the volume's own that was there, or 0. Whether an older layer has something at that index
 * is not known here, so where there are older layers the record says that it is hidden [I6]. The map keeps which layer
 * that was, for those that will share it.
 */
static void drop_entry(struct sv_volume *v, u64 index, u32 extent)
{
	u8 rec[sizeof(struct sv_rec_unmap)], flags = v->flags & SV_VOLUME_CHAINED ? SV_UNMAP_TOMBSTONE : 0;

	sv_put_unmap(rec, flags, v->id, index, sv_view_head(v->view), extent);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
	sv_map_install(v, index, sv_entry_make(0, sv_view_head(v->view)));
	v->mapped--;
}

static bool have_nodes(const struct sv_volume *v, u64 index)
{
	return sv_map_nodes_needed(v, index) <= v->pool->nr_nodes;
}

static bool may_drop(const struct sv_volume *v, u64 index)
{
	return sv_stream_room(v->pool, sizeof(struct sv_rec_unmap)) && have_nodes(v, index);
}

/* Word of a live extent to FREED; the entry is gone. The partial stays with it until RECYCLE. */
static void unmap(struct sv_volume *v, u64 index, const struct target *t)
{
	drop_entry(v, index, t->extent);
	/* pairs with sv_look_up() */
	smp_store_release(sv_xt_word(v->pool, t->extent), (t->word & ~(SV_XW_HOLD | SV_XW_MAPPED)) | SV_XW_FREED);
	sv_count_freed(v->pool);
}

/* Has a write on its way, or one that has ended, something in an extent that has just got HOLD? */
static bool in_use(const struct sv_partial *pt)
{
	u64 writes = (u64)atomic64_read(&pt->dirty) >> SV_DIRTY_INFLIGHT;

	smp_rmb();	/* the count, then the bits: pairs with the full barrier that ends sv_write_done() */
	return writes || !sv_partial_none_valid(pt);
}

/* An extent without a valid block, and without a write on its way to make one, is unmapped. */
static void unmap_if_empty(struct sv_volume *v, u64 index, struct target *t, struct sv_partial *pt)
{
	u64 *w = sv_xt_word(v->pool, t->extent);

	if (!sv_partial_none_valid(pt) || !may_drop(v, index) || !sv_ring_free(v->pool))
		return;
	smp_store_release(w, t->word | SV_XW_HOLD);	/* pairs with sv_look_up() */
	smp_mb();				/* pairs with the atomic in begin_write() */
	if (in_use(pt))
		smp_store_release(w, t->word);	/* pairs with sv_look_up() */
	else
		unmap(v, index, t);
}

static void clear_word(struct sv_volume *v, const struct target *t, struct sv_partial *pt, u32 w, u64 bits)
{
	u8 rec[SV_VALID_REC];

	if (!((u64)atomic64_read(&pt->valid[w]) & bits))
		return;
	atomic64_andnot((s64)bits, &pt->valid[w]);
	sv_partial_forget(v->pool, pt, w, bits);
	sv_put_clear(rec, sv_xw_gen(t->word), t->extent, w, bits);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
}

static bool make_partial(struct sv_pool *p, struct target *t)
{
	u32 i;

	if (t->word & SV_XW_PARTIAL)
		return true;
	i = sv_partial_new(p, t->extent, sv_xw_where(t->word), 0, ~0ull);
	if (!i)
		return false;
	t->word = sv_xw_make(i, sv_xw_member(t->word), sv_xw_gen(t->word), (t->word & 0xfff) | SV_XW_PARTIAL);
	smp_store_release(sv_xt_word(p, t->extent), t->word);	/* pairs with sv_look_up() */
	return true;
}

/* A MOVE of it comes to nothing. */
static void spoil(struct sv_pool *p, struct target *t)
{
	t->word &= ~SV_XW_MOVING;
	smp_store_release(sv_xt_word(p, t->extent), t->word);	/* pairs with sv_look_up() */
}

static enum sv_plan clear_part(struct sv_volume *v, u64 index, struct target *t, u32 first, u32 n)
{
	struct sv_partial *pt;
	u32 w;

	if (!sv_stream_room(v->pool, SV_VALID_WORDS * SV_VALID_REC) || !have_nodes(v, index) ||
	    !make_partial(v->pool, t))
		return SV_PLAN_DEFER;
	pt = sv_partial_at(v->pool, sv_xw_where(t->word));
	for (w = first / 64; w <= (first + n - 1) / 64; w++)
		clear_word(v, t, pt, w, sv_word_bits(w, first, n));
	unmap_if_empty(v, index, t, pt);
	return SV_PLAN_ZERO;
}

static bool has_parent(const struct sv_pool *p, u64 word)
{
	return (word & SV_XW_PARTIAL) && sv_partial_at(p, sv_xw_where(word))->parent;
}

/* Part of an extent below which another one shows through: to lose its bits would bring back older data. [I5] */
static enum sv_plan keep_part(bool zeroes)
{
	return zeroes ? SV_PLAN_REMAP : SV_PLAN_ZERO;
}

static enum sv_plan unmap_whole(struct sv_volume *v, u64 index, const struct target *t, bool own)
{
	if (!may_drop(v, index))
		return SV_PLAN_DEFER;
	if (own)
		unmap(v, index, t);
	else
		drop_entry(v, index, 0);
	return SV_PLAN_ZERO;
}

/* One logical extent's share of a discard. REMAP: zeroes are to be written there. */
static enum sv_plan discard_one(struct sv_volume *v, u64 block, u32 n, bool zeroes, bool *mapped)
{
	u64 index = block / SV_EXTENT_BLOCKS, entry, word = sv_look_up(v, index, &entry);
	struct target t = { sv_entry_extent(entry), word };
	bool own = sv_owns(v->view, entry);

	*mapped = word != 0;
	if (!word)
		return SV_PLAN_ZERO;
	if (v->view == SV_VIEW_GATED)
		return SV_PLAN_DEFER;
	if (own && (word & SV_XW_HOLD))
		return SV_PLAN_HELD;
	if (!sv_ring_free(v->pool))
		return sv_no_ring(v->pool);
	if (own)
		spoil(v->pool, &t);
	if (n == SV_EXTENT_BLOCKS)
		return unmap_whole(v, index, &t, own);
	if (!own || has_parent(v->pool, word))
		return keep_part(zeroes);
	return clear_part(v, index, &t, (u32)(block % SV_EXTENT_BLOCKS), n);
}

/*
 * discard and WRITE_ZEROES are alike but for parts of extents that have something below them, where a discard is
 * ignored and zeroes are written: as a write that comes after what was unmapped before.
 */
enum sv_plan sv_plan_discard(struct sv_volume *v, u64 block, u32 blocks, bool zeroes, struct sv_piece *out)
{
	enum sv_plan plan = sv_may_write(v);
	u32 n = 0, mapped = 0, seen = 0, len = 0;
	sv_lock_flags_t f;

	if (plan != SV_PLAN_REMAP)
		return plan;
	sv_lock(&v->pool->lock, f);
	while (n < blocks && mapped < SV_UNMAP_MAX && seen++ < SV_DISCARD_MAX) {
		bool was;

		len = min_t(u32, blocks - n, SV_EXTENT_BLOCKS - (u32)((block + n) % SV_EXTENT_BLOCKS));
		plan = discard_one(v, block + n, len, zeroes, &was);
		if (plan != SV_PLAN_ZERO)
			break;
		mapped += was;
		n += len;
	}
	sv_unlock(&v->pool->lock, f);
	if (n) {
		sv_zero_piece(out, n);
		return SV_PLAN_ZERO;
	}
	return plan == SV_PLAN_REMAP ? sv_plan_write(v, block, len, SV_WRITE_NORMAL, out) : plan;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Discard and WRITE_ZEROES: what is mapped no more. In pool->lock, many extents at a time. How a discard keeps off an
 * extent that is being written is said in plan.c.
 */
#include "plan.h"

#define SV_UNMAP_MAX	64u		/* extents that one discard unmaps under one hold of the lock */
#define SV_FREED_MANY	64u		/* freed extents that make svd look before its usual time */
#define SV_DISCARD_MAX	4096u		/* extents that one discard looks at under one hold of the lock */

struct target {				/* a live extent */
	u32 extent;
	u64 word;
};

/* Word of a live extent to FREED; the entry is gone. The partial stays with it until RECYCLE. */
static void unmap(struct sv_volume *v, u64 index, const struct target *t)
{
	u8 rec[sizeof(struct sv_rec_unmap)];

	sv_put_unmap(rec, 0, v->id, index, v->layer, t->extent);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
	sv_map_install(v, index, 0);
	/* pairs with sv_look_up() */
	smp_store_release(sv_xt_word(v->pool, t->extent), (t->word & ~(SV_XW_HOLD | SV_XW_MAPPED)) | SV_XW_FREED);
	v->mapped--;
	if (++v->pool->freed >= SV_FREED_MANY)
		sv_pool_raise(v->pool, SV_EVENT_FREED);
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

	if (!sv_partial_none_valid(pt) || !sv_stream_room(v->pool, sizeof(struct sv_rec_unmap)) ||
	    !sv_ring_free(v->pool))
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
	i = sv_partial_new(p, t->extent, sv_xw_where(t->word), ~0ull);
	if (!i)
		return false;
	t->word = sv_xw_make(i, sv_xw_member(t->word), sv_xw_gen(t->word), (t->word & 0xfff) | SV_XW_PARTIAL);
	smp_store_release(sv_xt_word(p, t->extent), t->word);	/* pairs with sv_look_up() */
	return true;
}

static enum sv_plan clear_part(struct sv_volume *v, u64 index, struct target *t, u32 first, u32 n)
{
	struct sv_partial *pt;
	u32 w;

	if (!sv_stream_room(v->pool, SV_VALID_WORDS * SV_VALID_REC) || !make_partial(v->pool, t))
		return SV_PLAN_DEFER;
	pt = sv_partial_at(v->pool, sv_xw_where(t->word));
	for (w = first / 64; w <= (first + n - 1) / 64; w++)
		clear_word(v, t, pt, w, sv_word_bits(w, first, n));
	unmap_if_empty(v, index, t, pt);
	return SV_PLAN_ZERO;
}

/* One logical extent's share of a discard. */
static enum sv_plan discard_one(struct sv_volume *v, u64 block, u32 n, bool *mapped)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS);
	u64 entry, word = sv_look_up(v, block / SV_EXTENT_BLOCKS, &entry);
	struct target t = { sv_entry_extent(entry), word };

	*mapped = word != 0;
	if (!word)
		return SV_PLAN_ZERO;
	if (WARN_ON_ONCE(!sv_owns(v, entry)))
		return SV_PLAN_IOERR;
	if (!sv_ring_free(v->pool)) {
		sv_no_ring(v->pool);
		return SV_PLAN_NOSPC;
	}
	if (n < SV_EXTENT_BLOCKS)
		return clear_part(v, block / SV_EXTENT_BLOCKS, &t, first, n);
	if (!sv_stream_room(v->pool, sizeof(struct sv_rec_unmap)))
		return SV_PLAN_DEFER;
	unmap(v, block / SV_EXTENT_BLOCKS, &t);
	return SV_PLAN_ZERO;
}

/*
 * discard and WRITE_ZEROES are alike while no extent has a parent: whole extents are unmapped, blocks of others
 * lose their bit. What a snapshot will still need is refused by sv_owns() above.
 */
enum sv_plan sv_plan_discard(struct sv_volume *v, u64 block, u32 blocks, bool zeroes, struct sv_piece *out)
{
	enum sv_plan plan = sv_may_write(v);
	u32 n = 0, mapped = 0, seen = 0;
	sv_lock_flags_t f;

	(void)zeroes;
	if (plan != SV_PLAN_REMAP)
		return plan;
	sv_lock(&v->pool->lock, f);
	while (n < blocks && mapped < SV_UNMAP_MAX && seen++ < SV_DISCARD_MAX) {
		u32 rest = SV_EXTENT_BLOCKS - (u32)((block + n) % SV_EXTENT_BLOCKS);
		u32 len = min_t(u32, blocks - n, rest);
		bool was;

		plan = discard_one(v, block + n, len, &was);
		if (plan != SV_PLAN_ZERO)
			break;
		mapped += was;
		n += len;
	}
	sv_unlock(&v->pool->lock, f);
	if (!n)
		return plan;
	sv_zero_piece(out, n);
	return SV_PLAN_ZERO;
}

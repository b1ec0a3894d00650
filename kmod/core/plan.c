// SPDX-License-Identifier: GPL-2.0
/*
 * What must this bio do: one question for reads, one for writes, one for discard and WRITE_ZEROES. Called in an RCU
 * read section by whoever has a bio; answers with one piece at a time. Reads and writes to what is mapped take no
 * lock. A first write takes pool->lock once: entry, number, slot, partial and record change together [I7].
 *
 * A write to blocks that are not valid yet counts itself in partial->dirty (IN FLIGHT) and then looks at the word
 * again, while discard that would free an emptied extent first sets HOLD in the word and then looks at the count:
 * one of the two sees the other (full barriers on both sides), so no extent is freed under such a write.
 */
#include "internal.h"

#define SV_UNMAP_MAX	64u		/* extents that one discard unmaps under one hold of the lock */
#define SV_FREED_MANY	64u		/* freed extents that make svd look before its usual time */
#define SV_DISCARD_MAX	4096u		/* extents that one discard looks at under one hold of the lock */
#define SV_SECTORS_PER_BLOCK (SV_BLOCK_SIZE / 512)

/*
 * The word of the live extent that is mapped there, or 0. A freed extent is as good as unmapped: its entry is gone, and
 * who found that before must not follow the word, which RECYCLE makes one without PARTIAL while blocks of the slot may
 * never have been valid.
 */
static __always_inline u64 look_up(const struct sv_volume *v, u64 index, u64 *entry)
{
	const struct sv_pool *p = v->pool;
	u32 extent;
	u64 word;

	*entry = sv_map_lookup(v, index);
	extent = sv_entry_extent(*entry);
	if (!sv_xt_has(p, extent))
		return 0;
	word = smp_load_acquire(sv_xt_at(p, extent));		/* pairs with each release of a word */
	return (word & (SV_XW_LIVE | SV_XW_FREED)) == SV_XW_LIVE ? word : 0;
}

static u64 sector_of(const struct sv_pool *p, u32 member, u32 slot, u32 block)
{
	return (p->members[member]->g.slot_off >> 9) + ((u64)slot << (SV_EXTENT_SHIFT - 9)) +
	       (u64)block * SV_SECTORS_PER_BLOCK;
}

static bool owned(const struct sv_volume *v, u64 entry)
{
	return sv_entry_layer(entry) >= v->owned_since;		/* [I4] */
}

static void to_slot(const struct sv_pool *p, u32 member, u32 slot, u32 first, u32 blocks, struct sv_piece *out)
{
	out->member = (u8)member;
	out->first = (u8)first;
	out->blocks = blocks;
	out->sector = sector_of(p, out->member, slot, first);
	out->partial = NULL;
	out->resv = 0;
}

/*
 * Go on across extents while their slots follow each other on one member. Called only where there is more, and, as all
 * that is not the usual case, not inline: the usual one then needs neither stack nor saved registers.
 */
static noinline void extend(const struct sv_volume *v, u64 block, u32 blocks, bool write, u32 slot,
			    struct sv_piece *out)
{
	while (out->blocks < blocks) {
		u32 more = min_t(u32, blocks - out->blocks, SV_EXTENT_BLOCKS);
		u64 entry, word = look_up(v, (block + out->blocks) / SV_EXTENT_BLOCKS, &entry);

		if (!word || (word & (SV_XW_PARTIAL | SV_XW_HOLD)) ||
		    sv_xw_member(word) != out->member || sv_xw_where(word) != ++slot ||
		    (write && !owned(v, entry)))
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

static void zero_piece(struct sv_piece *out, u32 blocks)
{
	memset(out, 0, sizeof(*out));
	out->blocks = blocks;
}

static noinline enum sv_plan read_unmapped(const struct sv_volume *v, u64 block, u32 blocks, struct sv_piece *out)
{
	u32 n = min_t(u32, blocks, SV_EXTENT_BLOCKS - (u32)(block % SV_EXTENT_BLOCKS));
	u64 entry;

	while (n < blocks && !look_up(v, (block + n) / SV_EXTENT_BLOCKS, &entry))
		n += min_t(u32, blocks - n, SV_EXTENT_BLOCKS);
	zero_piece(out, n);
	return SV_PLAN_ZERO;
}

static noinline enum sv_plan read_partial(const struct sv_volume *v, u64 word, u32 first, u32 n, struct sv_piece *out)
{
	const struct sv_partial *pt = sv_partial_at(v->pool, sv_xw_where(word));
	bool valid = bit_valid(pt, first);

	n = run_of(pt, first, n, valid);
	if (!valid) {
		zero_piece(out, n);
		return SV_PLAN_ZERO;
	}
	to_slot(v->pool, sv_xw_member(word), pt->slot, first, n, out);
	return SV_PLAN_REMAP;
}

enum sv_plan sv_plan_read(struct sv_volume *v, u64 block, u32 blocks, struct sv_piece *out)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS), n = min_t(u32, blocks, SV_EXTENT_BLOCKS - first);
	u64 entry, word;

	if (unlikely(READ_ONCE(v->pool->mode) == SV_MODE_FAIL))
		return SV_PLAN_IOERR;
	word = look_up(v, block / SV_EXTENT_BLOCKS, &entry);
	if (!word)
		return read_unmapped(v, block, blocks, out);
	if (word & SV_XW_PARTIAL)
		return read_partial(v, word, first, n, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (n < blocks)
		extend(v, block, blocks, false, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

/* ---- writes ---- */

static bool range_valid(const struct sv_partial *pt, u32 first, u32 n)
{
	return bit_valid(pt, first) && run_of(pt, first, n, true) == n;
}

static bool no_ring(struct sv_pool *p)
{
	sv_pool_raise(p, SV_EVENT_RING);
	return false;
}

/* Ring space for a write that will make blocks valid, and its count in the partial. */
static bool begin_write(struct sv_pool *p, struct sv_partial *pt, struct sv_piece *out)
{
	if (!sv_ring_reserve(p, (u64)SV_RESV_WRITE * SV_RESV_UNIT))
		return no_ring(p);
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

static noinline enum sv_plan write_partial(struct sv_volume *v, u32 extent, u64 word, u32 first, u32 n,
					   struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	struct sv_partial *pt = sv_partial_at(p, sv_xw_where(word));

	to_slot(p, sv_xw_member(word), pt->slot, first, n, out);
	if (range_valid(pt, first, n)) {
		out->partial = pt;
		return SV_PLAN_REMAP;
	}
	if (!begin_write(p, pt, out))
		return SV_PLAN_NOSPC;
	if (smp_load_acquire(sv_xt_word(p, extent)) == word)	/* as in look_up() */
		return SV_PLAN_REMAP;
	undo_write(p, out);			/* it changed: settled, freed, or about to be */
	return SV_PLAN_DEFER;
}

static bool have_memory(struct sv_volume *v, u64 index)
{
	const struct sv_pool *p = v->pool;

	return p->pt_nfree && sv_map_nodes_needed(v, index) <= p->nr_nodes &&
	       sv_stream_room(p, sizeof(struct sv_rec_map));
}

static void append_map(struct sv_volume *v, u64 index, u32 extent, u16 gen, u32 member, u32 slot)
{
	u8 rec[sizeof(struct sv_rec_map)];

	sv_put_map(rec, SV_MAP_PARTIAL, gen, extent, v->id, index, v->layer, 0, member, slot);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
}

/* Everything is there but the slot and the number, which are asked for here; after them nothing can fail. */
static enum sv_plan install(struct sv_volume *v, u64 index, enum sv_write_class c, u32 first, u32 n,
			    struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	u32 extent, member, slot, i;
	u64 word;
	u16 gen;

	if (!sv_alloc_slot(v, index, c, &member, &slot))
		return SV_PLAN_NOSPC;
	extent = sv_alloc_number(p);
	if (!extent) {
		sv_slot_release(p, member, slot);
		return SV_PLAN_NOSPC;
	}
	i = sv_partial_new(p, extent, slot, 0);
	gen = (u16)(sv_xw_gen(*sv_xt_word(p, extent)) + 1);
	word = sv_xw_make(i, member, gen, SV_XW_LIVE | SV_XW_PARTIAL | SV_XW_MAPPED);
	to_slot(p, member, slot, first, n, out);
	out->partial = sv_partial_at(p, i);
	out->resv = SV_RESV_WRITE;
	atomic64_add((s64)(1ull << SV_DIRTY_INFLIGHT), &out->partial->dirty);
	smp_store_release(sv_xt_word(p, extent), word);		/* pairs with look_up() */
	append_map(v, index, extent, gen, member, slot);
	sv_map_install(v, index, sv_entry_make(extent, v->layer));
	v->mapped++;
	return SV_PLAN_REMAP;
}

static noinline enum sv_plan first_write(struct sv_volume *v, u64 index, enum sv_write_class c, u32 first, u32 n,
					 struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	enum sv_plan plan = SV_PLAN_DEFER;
	u64 resv = (u64)SV_RESV_WRITE * SV_RESV_UNIT;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	if (sv_entry_extent(sv_map_lookup(v, index)) || !have_memory(v, index)) {
		sv_unlock(&p->lock, f);		/* somebody was faster, or refill: plan again */
		return SV_PLAN_DEFER;
	}
	if (!sv_ring_reserve(p, resv)) {
		no_ring(p);
		plan = SV_PLAN_NOSPC;
	} else {
		plan = install(v, index, c, first, n, out);
		if (plan != SV_PLAN_REMAP) {
			sv_ring_unreserve(p, resv);
			sv_pool_raise(p, SV_EVENT_SPACE);
		}
	}
	sv_unlock(&p->lock, f);
	return plan;
}

static enum sv_plan may_write(const struct sv_volume *v)
{
	u32 mode = READ_ONCE(v->pool->mode);

	if (unlikely(mode >= SV_MODE_READ_ONLY || (v->flags & SV_VOLUME_READ_ONLY)))
		return mode == SV_MODE_FAIL ? SV_PLAN_IOERR : SV_PLAN_ROFS;
	return SV_PLAN_REMAP;
}

enum sv_plan sv_plan_write(struct sv_volume *v, u64 block, u32 blocks, enum sv_write_class c, struct sv_piece *out)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS), n = min_t(u32, blocks, SV_EXTENT_BLOCKS - first);
	u64 index = block / SV_EXTENT_BLOCKS;
	enum sv_plan plan = may_write(v);
	u64 entry, word;

	if (plan != SV_PLAN_REMAP)
		return plan;
	word = look_up(v, index, &entry);
	if (!word)
		return first_write(v, index, c, first, n, out);
	if (WARN_ON_ONCE(!owned(v, entry)))
		return SV_PLAN_IOERR;
	if (word & SV_XW_HOLD)
		return SV_PLAN_DEFER;
	if (word & SV_XW_PARTIAL)
		return write_partial(v, sv_entry_extent(entry), word, first, n, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (out->blocks < blocks)
		extend(v, block, blocks, true, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

/* Bits of word w that the blocks [first, first + n) have in it; they reach into it. */
static u64 word_bits(u32 w, u32 first, u32 n)
{
	u32 from = w * 64 > first ? 0 : first % 64;
	u32 to = (w + 1) * 64 <= first + n ? 64 : (first + n) % 64;

	return (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
}

static u64 set_valid(struct sv_partial *pt, u32 first, u32 n)
{
	u64 words = 0;
	u32 w;

	for (w = first / 64; w <= (first + n - 1) / 64; w++) {
		atomic64_or((s64)word_bits(w, first, n), &pt->valid[w]);
		words |= 1ull << w;
	}
	return words;
}

/*
 * After the bits are marked, since a flush that finds nothing owed looks no further. The commit clears in the same
 * order, owed first, so whoever is seen here as owed already will be asked for the bits too. [I11]
 */
static void owe(struct sv_volume *v, u32 member)
{
	smp_mb();	/* pairs with sv_commit_round() */
	if (!((u64)atomic64_read(&v->owed) & 1ull << member))
		atomic64_or((s64)(1ull << member), &v->owed);
}

/* Of a write that was to make blocks valid. */
static noinline void first_write_done(struct sv_volume *v, const struct sv_piece *piece, bool ok)
{
	struct sv_partial *pt = piece->partial;
	u32 resv = 0;

	if (ok) {
		u64 words = set_valid(pt, piece->first, piece->blocks);

		resv = (u32)hweight64(words);
		sv_partial_mark(v->pool, pt, piece->member, words, resv);
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

/* ---- discard and WRITE_ZEROES ---- */

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
	/* pairs with look_up() */
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
	smp_store_release(w, t->word | SV_XW_HOLD);	/* pairs with look_up() */
	smp_mb();				/* pairs with the atomic in begin_write() */
	if (in_use(pt))
		smp_store_release(w, t->word);	/* pairs with look_up() */
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
	smp_store_release(sv_xt_word(p, t->extent), t->word);	/* pairs with look_up() */
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
		clear_word(v, t, pt, w, word_bits(w, first, n));
	unmap_if_empty(v, index, t, pt);
	return SV_PLAN_ZERO;
}

/* One logical extent's share of a discard. */
static enum sv_plan discard_one(struct sv_volume *v, u64 block, u32 n, bool *mapped)
{
	u32 first = (u32)(block % SV_EXTENT_BLOCKS);
	u64 entry, word = look_up(v, block / SV_EXTENT_BLOCKS, &entry);
	struct target t = { sv_entry_extent(entry), word };

	*mapped = word != 0;
	if (!word)
		return SV_PLAN_ZERO;
	if (WARN_ON_ONCE(!owned(v, entry)))
		return SV_PLAN_IOERR;
	if (!sv_ring_free(v->pool)) {
		no_ring(v->pool);
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
 * lose their bit. What a snapshot will still need is refused by owned() above.
 */
enum sv_plan sv_plan_discard(struct sv_volume *v, u64 block, u32 blocks, bool zeroes, struct sv_piece *out)
{
	enum sv_plan plan = may_write(v);
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
	zero_piece(out, n);
	return SV_PLAN_ZERO;
}

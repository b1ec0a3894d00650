// SPDX-License-Identifier: GPL-2.0
/*
 * What must this bio do: one question for reads, one for writes; unmap.c answers for discard and WRITE_ZEROES. Called
 * in an RCU read section by whoever has a bio; answers with one piece at a time. Reads and writes to what is mapped
 * take no lock. A first write takes pool->lock once: entry, number, slot, partial and record change together [I7].
 *
 * A write to what an older layer owns makes an extent, too, one that names the older one as its parent: redirect on
 * write. What is not valid in it is read from the parent, which nobody writes any more, and from the parent's parent.
 * Whose an entry is follows from the volume's view, of which a write loads one [I8]. Between the load and the write's
 * end the view may change (snapshot.c): then the write is still the old layer's, whose snapshot waits for it. Where it
 * comes to the lock, the view under the lock counts.
 *
 * A write to blocks that are not valid yet counts itself in partial->dirty (IN FLIGHT) and then looks at the word
 * again, while discard that would free an emptied extent first sets HOLD in the word and then looks at the count:
 * one of the two sees the other (full barriers on both sides), so no extent is freed under such a write.
 */
#include "plan.h"

#define SV_SECTORS_PER_BLOCK (SV_BLOCK_SIZE / 512)
#define OWNS_ALL	0ull		/* the view of who reads: owned_since 0 */

static u64 sector_of(const struct sv_pool *p, u32 member, u32 slot, u32 block)
{
	return (p->members[member]->g.slot_off >> 9) + ((u64)slot << (SV_EXTENT_SHIFT - 9)) +
	       (u64)block * SV_SECTORS_PER_BLOCK;
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
static noinline void extend(const struct sv_volume *v, u64 block, u32 blocks, u64 view, u32 slot, struct sv_piece *out)
{
	while (out->blocks < blocks) {
		u32 more = min_t(u32, blocks - out->blocks, SV_EXTENT_BLOCKS);
		u64 entry, word = sv_look_up(v, (block + out->blocks) / SV_EXTENT_BLOCKS, &entry);

		if (!word || (word & (SV_XW_PARTIAL | SV_XW_HOLD)) ||
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
static noinline enum sv_plan read_partial(const struct sv_volume *v, u64 word, u32 first, u32 n, struct sv_piece *out)
{
	const struct sv_pool *p = v->pool;
	u32 hops = 0;

	while (word & SV_XW_PARTIAL) {
		const struct sv_partial *pt = sv_partial_at(p, sv_xw_where(word));
		bool valid = bit_valid(pt, first);

		n = run_of(pt, first, n, valid);
		if (valid) {
			to_slot(p, sv_xw_member(word), pt->slot, first, n, out);
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
		return read_partial(v, word, first, n, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (n < blocks)
		extend(v, block, blocks, OWNS_ALL, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

/* ---- writes ---- */

static bool range_valid(const struct sv_partial *pt, u32 first, u32 n)
{
	return bit_valid(pt, first) && run_of(pt, first, n, true) == n;
}

/* Ring space for a write that will make blocks valid, and its count in the partial. */
static bool begin_write(struct sv_pool *p, struct sv_partial *pt, struct sv_piece *out)
{
	if (!sv_ring_reserve(p, (u64)SV_RESV_WRITE * SV_RESV_UNIT))
		return sv_no_ring(p);
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
	if (smp_load_acquire(sv_xt_word(p, extent)) == word)	/* as in sv_look_up() */
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

static void append_map(struct sv_volume *v, u64 index, u32 extent, u16 gen, u32 parent, u32 member, u32 slot)
{
	u8 rec[sizeof(struct sv_rec_map)], flags = SV_MAP_PARTIAL | (parent ? SV_MAP_PARENT : 0);

	sv_put_map(rec, flags, gen, extent, v->id, index, sv_view_head(v->view), parent, member, slot);
	sv_stream_append(v->pool, rec, sizeof(rec));
	v->rec_pos = v->pool->head;
}

/* Everything is there but the slot and the number, which are asked for here; after them nothing can fail. */
static enum sv_plan install(struct sv_volume *v, u64 index, u32 parent, enum sv_write_class c, u32 first, u32 n,
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
	i = sv_partial_new(p, extent, slot, parent, 0);
	gen = (u16)(sv_xw_gen(*sv_xt_word(p, extent)) + 1);
	word = sv_xw_make(i, member, gen, SV_XW_LIVE | SV_XW_PARTIAL | SV_XW_MAPPED);
	to_slot(p, member, slot, first, n, out);
	out->partial = sv_partial_at(p, i);
	out->resv = SV_RESV_WRITE;
	atomic64_add((s64)(1ull << SV_DIRTY_INFLIGHT), &out->partial->dirty);
	smp_store_release(sv_xt_word(p, extent), word);		/* pairs with sv_look_up() */
	append_map(v, index, extent, gen, parent, member, slot);
	sv_map_install(v, index, sv_entry_make(extent, sv_view_head(v->view)));
	v->mapped += !parent;
	v->owned_on |= 1ull << member;
	return SV_PLAN_REMAP;
}

/* False: somebody was faster, or writes wait for a snapshot. Otherwise *@parent is what lies there, or 0. */
static bool needs_extent(const struct sv_volume *v, u64 index, u32 *parent)
{
	u64 entry, word = sv_look_up(v, index, &entry);

	*parent = word ? sv_entry_extent(entry) : 0;
	return v->view != SV_VIEW_GATED && !(word && sv_owns(v->view, entry));
}

/* A first write, or the first one since a snapshot. */
static noinline enum sv_plan first_write(struct sv_volume *v, u64 index, enum sv_write_class c, u32 first, u32 n,
					 struct sv_piece *out)
{
	struct sv_pool *p = v->pool;
	enum sv_plan plan = SV_PLAN_DEFER;
	u64 resv = (u64)SV_RESV_WRITE * SV_RESV_UNIT;
	sv_lock_flags_t f;
	u32 parent;

	sv_lock(&p->lock, f);
	if (!needs_extent(v, index, &parent) || !have_memory(v, index)) {
		sv_unlock(&p->lock, f);		/* plan again, after a refill if need be */
		return SV_PLAN_DEFER;
	}
	if (!sv_ring_reserve(p, resv)) {
		sv_no_ring(p);
		plan = SV_PLAN_NOSPC;
	} else {
		plan = install(v, index, parent, c, first, n, out);
		if (plan != SV_PLAN_REMAP) {
			sv_ring_unreserve(p, resv);
			sv_pool_raise(p, SV_EVENT_SPACE);
		}
	}
	sv_unlock(&p->lock, f);
	return plan;
}

enum sv_plan sv_plan_write(struct sv_volume *v, u64 block, u32 blocks, enum sv_write_class c, struct sv_piece *out)
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
	if (word & SV_XW_PARTIAL)
		return write_partial(v, sv_entry_extent(entry), word, first, n, out);
	to_slot(v->pool, sv_xw_member(word), sv_xw_where(word), first, n, out);
	if (out->blocks < blocks)
		extend(v, block, blocks, view, sv_xw_where(word), out);
	return SV_PLAN_REMAP;
}

static u64 set_valid(struct sv_partial *pt, u32 first, u32 n)
{
	u64 words = 0;
	u32 w;

	for (w = first / 64; w <= (first + n - 1) / 64; w++) {
		atomic64_or((s64)sv_word_bits(w, first, n), &pt->valid[w]);
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

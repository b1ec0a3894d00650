// SPDX-License-Identifier: GPL-2.0
/*
 * FOLD: a partial extent takes over what its parent has, and so becomes whole, or the grandparent's child. That is how
 * extents of deleted snapshots go, which live on only because a partial one names them, and how chains stay short.
 * svd chooses the pairs; one that is not as it believes is left alone.
 *
 *	begin	checks, and holds writes to the extents: HOLD in their words
 *	copy	once no I/O that was planned before is under way, what one of the two lacks is copied into its slot
 *	finish	once that is flushed: a record for each, and its word says how it is now; still held
 *	end	once the records are durable and no reader uses an older word: the parents are freed, writes go on
 *
 * Which side. The blocks that the extent has may be copied over the parent's (SWAP), after which it lives in the
 * parent's slot and the parent has the other one; or those that it lacks from the parent into its own slot. The result
 * is the same but for the place, and svd takes what copies less. SWAP overwrites only blocks of the parent that nobody
 * reads, since this child, which has them itself, is all that needs the parent.
 *
 * Readers take no notice. Who goes by the old word reads a block where it was, in the one slot or the other, and all
 * blocks that are read there keep their bytes. Who goes by the new one finds the same bytes. The parent's word is
 * changed a grace period after the extent's, so that nobody gets to the old slot by way of the parent. (A read that was
 * planned before the extent had a block, and is still under way when that is copied over the parent's, would be one
 * that a write overtook; begin's caller waits for these too.)
 *
 * Writes. Those of the extent must not be planned between the look at its bits and the record, nor be acknowledged
 * before the record is durable: else a crash would leave them in a place that the catalogue does not know. So they
 * wait, from begin to end, and nothing else does. If the extent has bits that are not durable yet, or is all valid by
 * then, it is left for another time, so that the record may say all of it without naming a block. A parent's bits are
 * durable and never change: its layer is a snapshot's. All extents of one command wait for the members of all of them:
 * svd asks for those of one pair of members at a time.
 *
 * Crashes. Before the record is durable the copy is in a slot where nobody looks, or in blocks of the parent's where
 * nobody does. After it the catalogue's extent has all blocks of both, which were flushed before the record was
 * appended. A flush or a copy that fails leaves the extent as it was.
 *
 * The caller keeps slots from being recycled from begin to end: copies may still write to those of an extent that is
 * freed meanwhile.
 */
#include "internal.h"

struct sv_folding {
	struct sv_fold f;
	u64 child, parent;		/* their words since begin; of the child since finish */
	u32 slot, member;		/* SWAP, after finish: the place that the parent gets */
	u32 pos;			/* block where the next run is looked for */
	bool held;			/* the child; and the parent, unless that is kept */
	bool off;			/* it comes to nothing */
	bool folded;
};

static u64 bits_of(const struct sv_pool *p, u64 word, u32 w)
{
	return word & SV_XW_PARTIAL ? (u64)atomic64_read(&sv_partial_at(p, sv_xw_where(word))->valid[w]) : ~0ull;
}

static u32 slot_of(const struct sv_pool *p, u64 word)
{
	return word & SV_XW_PARTIAL ? sv_partial_at(p, sv_xw_where(word))->slot : sv_xw_where(word);
}

static void let_go(u64 *word)
{
	if ((*word & (SV_XW_LIVE | SV_XW_FREED)) == SV_XW_LIVE)
		smp_store_release(word, *word & ~SV_XW_HOLD);	/* pairs with sv_look_up() */
}

static void let_both_go(struct sv_pool *p, const struct sv_folding *x)
{
	let_go(sv_xt_word(p, x->f.extent));
	if (!(x->f.flags & SV_FOLD_KEEP))
		let_go(sv_xt_word(p, x->f.parent));
}

static void give_up(struct sv_pool *p, struct sv_folding *x)
{
	x->held = false;
	WRITE_ONCE(x->off, true);
	let_both_go(p, x);
}

/* ---- begin ---- */

/* Where no write is under way: is all that its bits say in the journal, too? */
static bool is_clean(const struct sv_pool *p, u64 word)
{
	const struct sv_partial *pt;

	if (!(word & SV_XW_PARTIAL))
		return true;
	pt = sv_partial_at(p, sv_xw_where(word));
	return !atomic64_read(&pt->dirty) && pt->pos <= p->durable;
}

static bool makes_sense(const struct sv_pool *p, const struct sv_fold *f)
{
	return f->extent != f->parent && sv_xt_has(p, f->extent) && sv_xt_has(p, f->parent) &&
	       f->flags <= SV_FOLD_KEEP;
}

static bool is_free_to_fold(u64 word, u16 gen)
{
	return (word & (SV_XW_LIVE | SV_XW_FREED | SV_XW_HOLD)) == SV_XW_LIVE && sv_xw_gen(word) == gen;
}

static void hold(struct sv_pool *p, struct sv_folding *x, u64 *members)
{
	u64 *child = sv_xt_word(p, x->f.extent), *parent = sv_xt_word(p, x->f.parent);

	if (!is_free_to_fold(*child, x->f.gen) || !is_free_to_fold(*parent, x->f.parent_gen) ||
	    !(*child & SV_XW_PARTIAL) || sv_partial_at(p, sv_xw_where(*child))->parent != x->f.parent ||
	    !is_clean(p, *child))
		return;		/* the last one: it would be held for nothing */
	x->held = true;
	/* Pair with sv_look_up(). The parent's keeps other pairs off it. */
	smp_store_release(child, *child | SV_XW_HOLD);
	if (!(x->f.flags & SV_FOLD_KEEP))
		smp_store_release(parent, *parent | SV_XW_HOLD);	/* likewise */
	x->child = *child;
	x->parent = *parent;
	*members |= 1ull << sv_xw_member(*child) | 1ull << sv_xw_member(*parent);
}

static u64 reserved(const struct sv_pool *p)
{
	return p->nr_folds * (u64)sizeof(struct sv_rec_small) * 5 / 4 + 2 * SV_BATCH_ALIGN;
}

static void forget(struct sv_pool *p)
{
	sv_free(p->folds);
	p->folds = NULL;
	p->nr_folds = 0;
	p->fold_at = 0;
}

int sv_fold_begin(struct sv_pool *p, const struct sv_fold *f, u32 count, u32 *done, u64 *members)
{
	sv_lock_flags_t flags;
	int r = 0;
	u32 i;

	*done = 0;
	if (p->folds)
		return -EBUSY;
	for (i = 0; i < count; i++)
		if (!makes_sense(p, &f[i]))
			return -EINVAL;
	if (sv_pool_refill(p))		/* for what cannot fail later */
		return -ENOMEM;
	p->folds = sv_zalloc((size_t)count * sizeof(*p->folds));
	if (!p->folds)
		return -ENOMEM;
	p->nr_folds = count;
	r = sv_ring_reserve_command(p, reserved(p));
	if (r) {
		forget(p);
		return r;
	}
	for (i = 0; i < count; i++) {
		p->folds[i].f = f[i];
		sv_lock(&p->lock, flags);
		hold(p, &p->folds[i], members);
		sv_unlock(&p->lock, flags);
		p->folds[i].off = !p->folds[i].held;
	}
	return 0;
}

/* ---- copy ---- */

static bool unchanged(const struct sv_pool *p, const struct sv_folding *x)
{
	return *sv_xt_word(p, x->f.extent) == x->child && *sv_xt_word(p, x->f.parent) == x->parent;
}

static bool is_ready(const struct sv_pool *p, const struct sv_folding *x)
{
	return unchanged(p, x) && is_clean(p, x->child) && is_clean(p, x->parent) &&
	       !sv_partial_all_valid(sv_partial_at(p, sv_xw_where(x->child)));
}

/* Is the block to be copied? */
static bool is_due(const struct sv_pool *p, const struct sv_folding *x, u32 block)
{
	u64 own = bits_of(p, x->child, block / 64), below = bits_of(p, x->parent, block / 64);
	u64 due = x->f.flags & SV_FOLD_SWAP ? own : below & ~own;

	return due >> (block % 64) & 1;
}

static bool next_run(const struct sv_pool *p, struct sv_folding *x, u32 *first, u32 *blocks)
{
	u32 b = x->pos;

	while (b < SV_EXTENT_BLOCKS && !is_due(p, x, b))
		b++;
	*first = b;
	while (b < SV_EXTENT_BLOCKS && is_due(p, x, b))
		b++;
	*blocks = b - *first;
	x->pos = b;
	return *blocks;
}

static u64 sector_in(const struct sv_pool *p, u64 word, u32 block)
{
	return (p->members[sv_xw_member(word)]->g.slot_off >> 9) + ((u64)slot_of(p, word) << (SV_EXTENT_SHIFT - 9)) +
	       (u64)block * (SV_BLOCK_SIZE / 512);
}

/* In the lock: what it looks at is there as long as the words are what they were. */
static bool next_copy(struct sv_pool *p, struct sv_folding *x, struct sv_fold_copy *c)
{
	bool swap = x->f.flags & SV_FOLD_SWAP;
	u64 from = swap ? x->child : x->parent, to = swap ? x->parent : x->child;
	u32 first;

	if (!x->held)
		return false;
	if (READ_ONCE(x->off) || (x->pos ? !unchanged(p, x) : !is_ready(p, x))) {
		if (!x->pos)
			give_up(p, x);	/* no copy is under way */
		WRITE_ONCE(x->off, true);
		return false;
	}
	if (!next_run(p, x, &first, &c->blocks))
		return false;
	c->from = (u8)sv_xw_member(from);
	c->to = (u8)sv_xw_member(to);
	c->from_sector = sector_in(p, from, first);
	c->to_sector = sector_in(p, to, first);
	return true;
}

bool sv_fold_next(struct sv_pool *p, struct sv_fold_copy *c)
{
	sv_lock_flags_t f;
	bool more;

	for (; p->fold_at < p->nr_folds; p->fold_at++) {
		sv_lock(&p->lock, f);
		more = next_copy(p, &p->folds[p->fold_at], c);
		sv_unlock(&p->lock, f);
		if (!more)
			continue;
		c->fold = p->fold_at;
		return true;
	}
	p->fold_at = 0;
	return false;
}

void sv_fold_failed(struct sv_pool *p, u32 fold)
{
	WRITE_ONCE(p->folds[fold].off, true);
}

static u32 target_of(const struct sv_folding *x)
{
	return sv_xw_member(x->f.flags & SV_FOLD_SWAP ? x->parent : x->child);
}

u64 sv_fold_targets(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_folds; i++)
		if (!READ_ONCE(p->folds[i].off))
			mask |= 1ull << target_of(&p->folds[i]);
	return mask;
}

/* ---- finish ---- */

static void append_fold(struct sv_pool *p, const struct sv_folding *x)
{
	u8 rec[sizeof(struct sv_rec_small)], flags = 0;

	if (x->f.flags & SV_FOLD_SWAP)
		flags = SV_FOLD_SWAPPED;
	else if (x->f.flags & SV_FOLD_KEEP)
		flags = SV_FOLD_KEPT;
	sv_put_small(rec, SV_REC_FOLD, flags, x->f.gen, x->f.extent, x->f.parent);
	sv_stream_append(p, rec, sizeof(rec));
}

/* Whose extent it is nobody asked: a snapshot of any volume waits for writes to that member, too. */
static void may_be_owned_on(struct sv_pool *p, u32 member)
{
	struct sv_volume *v;

	for (v = p->volumes; v; v = v->next)
		v->owned_on |= 1ull << member;
}

/* A new partial rather than the old one: who has found the old one goes on by what it said. 0: none is free. */
static u32 partial_of_both(struct sv_pool *p, const struct sv_folding *x, u32 slot, const u64 *bits)
{
	u32 parent = x->parent & SV_XW_PARTIAL ? sv_partial_at(p, sv_xw_where(x->parent))->parent : 0;
	u32 i = sv_partial_new(p, x->f.extent, slot, parent, 0), w;

	for (w = 0; i && w < SV_VALID_WORDS; w++)
		atomic64_set(&sv_partial_at(p, i)->valid[w], (s64)bits[w]);
	return i;
}

static void fold(struct sv_pool *p, struct sv_folding *x)
{
	u64 home = x->f.flags & SV_FOLD_SWAP ? x->parent : x->child, flags = x->child & 0xfff & ~SV_XW_PARTIAL;
	u64 bits[SV_VALID_WORDS], all = ~0ull, old = x->child;
	u32 where = slot_of(p, home), w;

	for (w = 0; w < SV_VALID_WORDS; w++) {
		bits[w] = bits_of(p, x->child, w) | bits_of(p, x->parent, w);
		all &= bits[w];
	}
	if (~all) {
		where = partial_of_both(p, x, where, bits);
		flags |= SV_XW_PARTIAL;
		if (!where)
			return;
	}
	x->slot = slot_of(p, old);
	x->member = sv_xw_member(old);
	x->child = sv_xw_make(where, sv_xw_member(home), x->f.gen, flags);
	x->folded = true;
	may_be_owned_on(p, sv_xw_member(home));
	smp_store_release(sv_xt_word(p, x->f.extent), x->child);	/* pairs with sv_look_up() */
	append_fold(p, x);
	sv_partial_quarantine(p, sv_xw_where(old), x->member);
}

int sv_fold_finish(struct sv_pool *p, u64 not_flushed)
{
	sv_lock_flags_t f;
	int r = 0;

	for (; !r && p->fold_at < p->nr_folds; p->fold_at += !r) {
		struct sv_folding *x = &p->folds[p->fold_at];

		sv_lock(&p->lock, f);
		if (!x->off && unchanged(p, x) && !(not_flushed >> target_of(x) & 1) && p->mode < SV_MODE_READ_ONLY) {
			if (sv_stream_room(p, sizeof(struct sv_rec_small)))
				fold(p, x);
			else
				r = -EAGAIN;
		}
		sv_unlock(&p->lock, f);
	}
	return r;
}

/* ---- end ---- */

/* It may have been freed meanwhile, which changes nothing about where it is now. */
static void free_parent(struct sv_pool *p, const struct sv_folding *x)
{
	u64 *word = sv_xt_word(p, x->f.parent), w = *word;
	u64 flags = (w & 0xfff & ~(SV_XW_HOLD | SV_XW_MAPPED)) | SV_XW_FREED;
	u32 where = sv_xw_where(w), member = sv_xw_member(w);

	p->freed += !(w & SV_XW_FREED);
	if (x->f.flags & SV_FOLD_SWAP) {
		member = x->member;
		if (w & SV_XW_PARTIAL)
			sv_partial_at(p, where)->slot = x->slot;
		else
			where = x->slot;
	}
	smp_store_release(word, sv_xw_make(where, member, sv_xw_gen(w), flags));	/* pairs with sv_look_up() */
}

static void end_one(struct sv_pool *p, const struct sv_folding *x)
{
	if (x->folded && !(x->f.flags & SV_FOLD_KEEP))
		free_parent(p, x);
	let_both_go(p, x);
}

u32 sv_fold_end(struct sv_pool *p)
{
	u32 i, folded = 0;
	sv_lock_flags_t f;

	for (i = 0; i < p->nr_folds; i++) {
		if (!p->folds[i].held)
			continue;
		sv_lock(&p->lock, f);
		end_one(p, &p->folds[i]);
		sv_unlock(&p->lock, f);
		folded += p->folds[i].folded;
	}
	sv_ring_unreserve(p, reserved(p));	/* what was appended counts by itself */
	forget(p);
	return folded;
}

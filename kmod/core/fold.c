// SPDX-License-Identifier: GPL-2.0
/*
 * FOLD: a partial extent takes over what its parent has, and so becomes whole, or the grandparent's child. That is how
 * extents of deleted snapshots go, which live on only because a partial one names them. svd chooses the pairs; one that
 * is not as it believes is left alone.
 *
 *	begin	checks, and holds writes to the extents: HOLD in their words
 *	copy	once no I/O that was planned before is under way, what one of the two lacks is copied into its slot
 *	finish	once that is flushed: a record for each, and its word says how it is now; still held
 *	end	once the records are durable and no reader uses an older word: the parents are freed, writes go on
 *
 * Which side. The blocks that the extent has may be copied over the parent's (SWAP), after which it lives in the
 * parent's slot and the parent has what was the extent's; or those that it lacks from the parent into its own slot. The
 * result is the same but for the place, and svd takes what copies less. SWAP overwrites only blocks of the parent that
 * nobody reads, since this child, which has them itself, is all that needs the parent.
 *
 * An extent with fragments gets places for those that it lacks and the parent has, if that makes not more than such an
 * extent may have (frag.c); FRAG records before the FOLD say which. A parent with fragments has no slot to swap. If
 * both together have too many, what both have is copied into a new slot (GROW): a MOVE before the FOLD says where, true
 * by itself. The places that the extent had are then freed with a number that nothing else names, so that svd gives
 * them back as it does all space.
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
 * then, it is left for another time, so that the record may say all of it without naming a block. So it is if a
 * parent's are not: it may have been outgrown a moment ago, and what is written in such a one waits for its child's
 * HOLD (frag.c). All extents of one command wait for the members of all of them: svd asks for those of one pair of
 * members at a time.
 *
 * FILL keeps the parent, which something else needs, and shortens the way that reads take: in some of the fragments in
 * which the extent has blocks those that it lacks are copied from whichever ancestor has them, or zeroed. That is a
 * write of ours: the copies' ends set the bits, and these become durable as those of any write, without a record of
 * FOLD's. Both places have the same bytes, so it is all the same which of them a crash leaves; an overwrite in the new
 * place finds the bit listed, and a flush after it makes both durable. Ancestors may be held by other folds of the
 * command: they keep their bytes where they are until the end.
 *
 * Crashes. Before the record is durable the copy is in a slot where nobody looks, or in blocks of the parent's where
 * nobody does. After it the catalogue's extent has all blocks of both, which were flushed before the record was
 * appended. A flush or a copy that fails leaves the extent as it was.
 *
 * The caller keeps slots from being recycled from begin to end: copies may still write to those of an extent that is
 * freed meanwhile.
 */
#include "relocate.h"

struct sv_folding {
	struct sv_fold f;
	u64 child, parent;		/* their words since begin; of the child since finish */
	u64 old;			/* after finish: the child's word before */
	struct sv_places places;	/* of a child with fragments, once copies have begun */
	u32 fresh;			/* which of them are new */
	u32 slot;			/* GROW, once copies have begun: the new one; SV_NO_SLOT */
	u32 pos;			/* block where the next run is looked for */
	bool held;			/* the child; and the parent, unless that stays */
	bool begun;			/* copies have */
	bool off;			/* it comes to nothing */
	bool folded;
};

static bool is_fill(const struct sv_folding *x)
{
	return x->f.flags & SV_FOLD_FILL;
}

static void let_both_go(struct sv_pool *p, const struct sv_folding *x)
{
	sv_let_go(sv_xt_word(p, x->f.extent));
	if (!is_fill(x))
		sv_let_go(sv_xt_word(p, x->f.parent));
}

static void give_up(struct sv_pool *p, struct sv_folding *x)
{
	x->held = false;
	WRITE_ONCE(x->off, true);
	let_both_go(p, x);
}

/* ---- begin ---- */

static bool makes_sense(const struct sv_pool *p, const struct sv_fold *f)
{
	u32 how = f->flags & ((1u << SV_FOLD_FILL_SHIFT) - 1), frags = f->flags >> SV_FOLD_FILL_SHIFT;

	return f->extent != f->parent && sv_xt_has(p, f->extent) && sv_xt_has(p, f->parent) &&
	       (how <= SV_FOLD_FILL || how == SV_FOLD_GROW) && (how == SV_FOLD_FILL) == (frags != 0);
}

static bool is_there(u64 word, u16 gen)
{
	return (word & (SV_XW_LIVE | SV_XW_FREED)) == SV_XW_LIVE && sv_xw_gen(word) == gen;
}

static bool is_free_to_fold(u64 word, u16 gen)
{
	return is_there(word, gen) && !(word & SV_XW_HOLD);
}

/* Has it a slot where it must have one, or fragments? */
static bool fits(const struct sv_fold *f, u64 child, u64 parent)
{
	if (f->flags & SV_FOLD_SWAP)
		return !(parent & SV_XW_FRAGS);
	return !(f->flags & SV_FOLD_GROW) || (child & SV_XW_FRAGS);
}

static void hold(struct sv_pool *p, struct sv_folding *x, u64 *members)
{
	u64 *child = sv_xt_word(p, x->f.extent), *parent = sv_xt_word(p, x->f.parent);

	if (!is_free_to_fold(*child, x->f.gen) || !(*child & SV_XW_PARTIAL) ||
	    sv_partial_at(p, sv_xw_where(*child))->parent != x->f.parent)
		return;
	/* What has an outgrown parent is to be folded; and others may write there by way of what is above. */
	if (is_fill(x) ? !is_there(*parent, x->f.parent_gen) || (*parent & SV_XW_OUTGROWN) :
	    !is_free_to_fold(*parent, x->f.parent_gen) || !fits(&x->f, *child, *parent) || !sv_is_clean(p, *child))
		return;		/* the last one: it would be held for nothing */
	x->held = true;
	/* Pair with sv_look_up(). The parent's keeps other pairs off it. */
	smp_store_release(child, *child | SV_XW_HOLD);
	if (!is_fill(x))
		smp_store_release(parent, *parent | SV_XW_HOLD);	/* likewise */
	x->child = *child;
	x->parent = *parent;
	*members |= 1ull << sv_xw_member(*child) | 1ull << sv_xw_member(*parent);
}

#define RECORDS	((1 + SV_FRAGS_MAX) * (u32)sizeof(struct sv_rec_small))	/* of one */

static u64 reserved(const struct sv_pool *p)
{
	return p->nr_folds * (u64)RECORDS * 5 / 4 + 2 * SV_BATCH_ALIGN;
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
	if (p->folds || p->moves)
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
		p->folds[i].slot = SV_NO_SLOT;
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
	return *sv_xt_word(p, x->f.extent) == x->child && (is_fill(x) || *sv_xt_word(p, x->f.parent) == x->parent);
}

static bool is_ready(const struct sv_pool *p, const struct sv_folding *x)
{
	return unchanged(p, x) && (is_fill(x) || (sv_is_clean(p, x->child) && sv_is_clean(p, x->parent))) &&
	       !sv_partial_all_valid(sv_partial_at(p, sv_xw_where(x->child)));
}

/* FILL, of a word of valid bits: those that are to be added. */
static u64 to_fill(const struct sv_folding *x, u64 bits, u32 w)
{
	u32 frags = x->f.flags >> SV_FOLD_FILL_SHIFT >> (w * 64 / SV_FRAG_BLOCKS), i;
	u64 whole = 0;

	for (i = 0; i < 64 / SV_FRAG_BLOCKS; i++)
		if ((frags >> i & 1) && (bits >> (i * SV_FRAG_BLOCKS) & SV_FRAG_BITS))
			whole |= SV_FRAG_BITS << (i * SV_FRAG_BLOCKS);
	return whole & ~bits;
}

static bool is_own(const struct sv_pool *p, const struct sv_folding *x, u32 block)
{
	return sv_bits_of(p, x->child, block / 64) >> (block % 64) & 1;
}

/* Is the block to be copied? */
static bool is_due(const struct sv_pool *p, const struct sv_folding *x, u32 block)
{
	u64 own = sv_bits_of(p, x->child, block / 64), below = sv_bits_of(p, x->parent, block / 64);
	u64 due = below & ~own;

	if (x->f.flags & SV_FOLD_SWAP)
		due = own;
	else if (x->f.flags & SV_FOLD_GROW)
		due = own | below;
	else if (is_fill(x))
		due = to_fill(x, own, block / 64);
	return due >> (block % 64) & 1;
}

/* @first's run, of blocks that lie one behind the other in the one that they come from and where they go to. */
static u32 run_of(const struct sv_pool *p, const struct sv_folding *x, u32 first)
{
	u32 n = 1, limit = SV_EXTENT_BLOCKS - first;
	bool own = is_own(p, x, first);

	if ((x->child | x->parent) & SV_XW_FRAGS)
		limit = SV_FRAG_BLOCKS - first % SV_FRAG_BLOCKS;
	while (n < limit && is_due(p, x, first + n) && is_own(p, x, first + n) == own)
		n++;
	return n;
}

static bool next_run(const struct sv_pool *p, struct sv_folding *x, u32 *first, u32 *blocks)
{
	while (x->pos < SV_EXTENT_BLOCKS && !is_due(p, x, x->pos))
		x->pos++;
	*first = x->pos;
	*blocks = x->pos < SV_EXTENT_BLOCKS ? run_of(p, x, x->pos) : 0;
	x->pos += *blocks;
	return *blocks;
}

static bool is_fragment_due(const struct sv_pool *p, const struct sv_folding *x, u32 frag)
{
	u32 b;

	for (b = frag * SV_FRAG_BLOCKS; b < (frag + 1) * SV_FRAG_BLOCKS; b++)
		if (is_due(p, x, b))
			return true;
	return false;
}

static bool add_slot(struct sv_pool *p, struct sv_folding *x)
{
	return sv_slot_on(p, sv_xw_member(x->child), SV_WRITE_NORMAL, &x->slot);
}

/* Places for what is to be copied. False: there is no room, or there would be too many. */
static bool add_places(struct sv_pool *p, struct sv_folding *x)
{
	u32 member = sv_xw_member(x->child), have, i;

	if (!(x->child & SV_XW_FRAGS) || (x->f.flags & SV_FOLD_SWAP))
		return true;
	x->places = *sv_word_places(p, x->child);
	if (is_fill(x))
		return true;
	have = sv_places_count(&x->places);
	for (i = 0; i < SV_FRAGS; i++) {
		if (x->places.at[i] || !is_fragment_due(p, x, i))
			continue;
		if (have++ >= SV_FRAGS_MAX)
			return false;
		x->places.at[i] = sv_frags_take(p, member, SV_WRITE_NORMAL, 1);
		if (!x->places.at[i])
			return false;
		x->fresh |= 1u << i;
	}
	return true;
}

static void drop_space(struct sv_pool *p, struct sv_folding *x)
{
	u32 i;

	if (x->slot != SV_NO_SLOT)
		sv_slot_release(p, sv_xw_member(x->child), x->slot);
	x->slot = SV_NO_SLOT;
	for (i = 0; i < SV_FRAGS; i++)
		if (x->fresh >> i & 1)
			sv_frag_release(p, sv_xw_member(x->child), x->places.at[i]);
	x->fresh = 0;
}

static u32 target_of(const struct sv_folding *x)
{
	return sv_xw_member(x->f.flags & SV_FOLD_SWAP ? x->parent : x->child);
}

/* Nothing new gets onto a closed member, also if it was closed since begin. */
static bool is_shut_out(const struct sv_pool *p, const struct sv_folding *x)
{
	return p->members[target_of(x)]->closed && ((x->f.flags & SV_FOLD_SWAP) || x->slot != SV_NO_SLOT || x->fresh);
}

static bool begin_copy(struct sv_pool *p, struct sv_folding *x)
{
	bool grow = x->f.flags & SV_FOLD_GROW;

	if (!READ_ONCE(x->off) && is_ready(p, x) && !is_shut_out(p, x) && (grow ? add_slot(p, x) : add_places(p, x))) {
		x->begun = true;
		return true;
	}
	drop_space(p, x);
	give_up(p, x);		/* no copy is under way */
	return false;
}

/* As many of the blocks as come from one place. */
static bool next_fill(struct sv_pool *p, struct sv_folding *x, u32 first, u32 n, struct sv_copy_run *c)
{
	struct sv_piece piece;
	enum sv_plan plan = sv_plan_read_partial(p, x->child, first, n, &piece);

	c->zero = plan == SV_PLAN_ZERO;
	if (!c->zero && plan != SV_PLAN_REMAP) {
		WRITE_ONCE(x->off, true);
		return false;
	}
	c->blocks = piece.blocks;
	x->pos = first + c->blocks;
	c->to = (u8)sv_xw_member(x->child);
	c->to_sector = sv_sector_in(p, x->child, &x->places, first);
	c->from = piece.member;
	c->from_sector = piece.sector;
	return true;
}

/* In the lock: what it looks at is there as long as the words are what they were. */
static bool next_copy(struct sv_pool *p, struct sv_folding *x, struct sv_copy_run *c)
{
	bool swap = x->f.flags & SV_FOLD_SWAP;
	u64 from, to = swap ? x->parent : x->child;
	u32 first;

	if (!x->held || (!x->begun && !begin_copy(p, x)))
		return false;
	if (READ_ONCE(x->off) || !unchanged(p, x)) {
		WRITE_ONCE(x->off, true);
		return false;
	}
	if (!next_run(p, x, &first, &c->blocks))
		return false;
	if (is_fill(x))
		return next_fill(p, x, first, c->blocks, c);
	c->zero = false;
	from = is_own(p, x, first) ? x->child : x->parent;
	c->from = (u8)sv_xw_member(from);
	c->to = (u8)sv_xw_member(to);
	c->from_sector = sv_sector_in(p, from, sv_word_places(p, from), first);
	if (x->f.flags & SV_FOLD_GROW)
		c->to_sector = sv_sector_of(p, c->to, x->slot, first);
	else
		c->to_sector = sv_sector_in(p, to, &x->places, first);
	return true;
}

static bool fold_next(struct sv_pool *p, struct sv_copy_run *c)
{
	sv_lock_flags_t f;
	bool more;

	for (; p->fold_at < p->nr_folds; p->fold_at++) {
		sv_lock(&p->lock, f);
		more = next_copy(p, &p->folds[p->fold_at], c);
		sv_unlock(&p->lock, f);
		if (!more)
			continue;
		c->of = p->fold_at;
		return true;
	}
	p->fold_at = 0;
	return false;
}

static void fold_failed(struct sv_pool *p, u32 of)
{
	WRITE_ONCE(p->folds[of].off, true);
}

static u64 fold_targets(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_folds; i++)
		if (!READ_ONCE(p->folds[i].off) && !is_fill(&p->folds[i]))
			mask |= 1ull << target_of(&p->folds[i]);
	return mask;
}

/* ---- finish ---- */

static void append_fold(struct sv_pool *p, const struct sv_folding *x)
{
	u8 rec[sizeof(struct sv_rec_move)], flags = x->f.flags & SV_FOLD_SWAP ? SV_FOLD_SWAPPED : 0;
	u32 i;

	if (x->f.flags & SV_FOLD_GROW)
		sv_stream_append(p, rec, sv_put_move(rec, x->f.gen, x->f.extent, sv_xw_member(x->child), x->slot, 0));
	for (i = 0; i < SV_FRAGS; i++)
		if (x->fresh >> i & 1)
			sv_frag_append(p, x->f.extent, x->f.gen, sv_xw_member(x->child), i, x->places.at[i]);
	sv_stream_append(p, rec, sv_put_small(rec, SV_REC_FOLD, flags, x->f.gen, x->f.extent, x->f.parent));
}

/* Where the extent is then: a slot, or a new cell with its places. */
static u32 space_of_both(struct sv_pool *p, const struct sv_folding *x, u64 home)
{
	u32 i;

	if (x->f.flags & SV_FOLD_GROW)
		return x->slot;
	if (!(home & SV_XW_FRAGS))
		return sv_slot_of(p, home);
	i = sv_places_new(p);
	sv_cell_at(p, i)->places = x->places;
	return i;
}

static void fold(struct sv_pool *p, struct sv_folding *x)
{
	bool swap = x->f.flags & SV_FOLD_SWAP, grow = x->f.flags & SV_FOLD_GROW;
	u64 home = swap ? x->parent : x->child, flags = x->child & 0xfff & ~(SV_XW_PARTIAL | SV_XW_FRAGS);
	u32 below = x->parent & SV_XW_PARTIAL ? sv_partial_at(p, sv_xw_where(x->parent))->parent : 0, where, w;
	u64 bits[SV_VALID_WORDS], all = ~0ull;

	if (p->pt_nfree < 2 || (grow && !p->numbers_free))
		return;
	for (w = 0; w < SV_VALID_WORDS; w++) {
		bits[w] = sv_bits_of(p, x->child, w) | sv_bits_of(p, x->parent, w);
		all &= bits[w];
	}
	where = space_of_both(p, x, home);
	if (~all) {
		where = sv_partial_instead(p, x->f.extent, where, below, bits);
		flags |= SV_XW_PARTIAL | (grow ? 0 : home & SV_XW_FRAGS);
	}
	append_fold(p, x);
	x->old = x->child;
	x->child = sv_xw_make(where, sv_xw_member(home), x->f.gen, flags);
	x->folded = true;
	sv_may_be_owned_on(p, sv_xw_member(home));
	if (below)		/* outgrown, it is overwritten where it is: plan.c:write_below() */
		sv_may_be_owned_on(p, sv_xw_member(*sv_xt_word(p, below)));
	smp_store_release(sv_xt_word(p, x->f.extent), x->child);	/* pairs with sv_look_up() */
	if (grow)
		sv_set_aside(p, x->old);
	else if (!swap)
		sv_partial_quarantine(p, x->old);
}

/* As plan.c:first_write_done() does. */
static void fill(struct sv_pool *p, struct sv_folding *x)
{
	struct sv_partial *pt = sv_partial_at(p, sv_xw_where(x->child));
	u64 more[SV_VALID_WORDS], words = 0;
	u32 resv, w;

	for (w = 0; w < SV_VALID_WORDS; w++) {
		more[w] = to_fill(x, (u64)atomic64_read(&pt->valid[w]), w);
		words |= (u64)!!more[w] << w;
	}
	resv = (u32)hweight64(words);
	if (!sv_ring_reserve(p, (u64)resv * SV_RESV_VALID)) {
		sv_no_ring(p);
		return;
	}
	smp_mb();	/* the places, which are from long ago, then the bits: pairs with plan.c:to_partial() */
	for (w = 0; w < SV_VALID_WORDS; w++)
		atomic64_or((s64)more[w], &pt->valid[w]);
	sv_partial_mark(p, pt, sv_xw_member(x->child), words, resv);
	x->folded = true;
}

static int fold_finish(struct sv_pool *p, u64 not_flushed)
{
	sv_lock_flags_t f;
	int r = 0;

	for (; !r && p->fold_at < p->nr_folds; p->fold_at += !r) {
		struct sv_folding *x = &p->folds[p->fold_at];

		sv_lock(&p->lock, f);
		if (!x->off && unchanged(p, x) && !is_shut_out(p, x) && !(not_flushed >> target_of(x) & 1) &&
		    p->mode < SV_MODE_READ_ONLY) {
			if (is_fill(x))
				fill(p, x);
			else if (sv_stream_room(p, RECORDS))
				fold(p, x);
			else
				r = -EAGAIN;
		}
		sv_unlock(&p->lock, f);
	}
	return r;
}

/* ---- end ---- */

/*
 * It may have been freed meanwhile, which changes nothing about where it is now. SWAP: it gets the partial that was the
 * child's, with the space that this names.
 */
static void free_parent(struct sv_pool *p, const struct sv_folding *x)
{
	u64 *word = sv_xt_word(p, x->f.parent), w = *word;
	u64 space = x->f.flags & SV_FOLD_SWAP ? x->old : w;
	u64 flags = w & 0xfff & ~(SV_XW_HOLD | SV_XW_MAPPED | SV_XW_PARTIAL | SV_XW_FRAGS);

	p->freed += !(w & SV_XW_FREED);
	flags |= (space & (SV_XW_PARTIAL | SV_XW_FRAGS)) | SV_XW_FREED;
	/* pairs with sv_look_up() */
	smp_store_release(word, sv_xw_make(sv_xw_where(space), sv_xw_member(space), sv_xw_gen(w), flags));
	if (space != w && (w & SV_XW_PARTIAL))
		sv_partial_quarantine(p, w);
}

static void end_one(struct sv_pool *p, struct sv_folding *x)
{
	if (x->folded && !is_fill(x))
		free_parent(p, x);
	if (!x->folded)
		drop_space(p, x);
	let_both_go(p, x);
}

static u32 fold_end(struct sv_pool *p)
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

const struct sv_relocation sv_fold_steps = {
	.next = fold_next,
	.failed = fold_failed,
	.targets = fold_targets,
	.finish = fold_finish,
	.end = fold_end,
};

// SPDX-License-Identifier: GPL-2.0
/*
 * MOVE: an extent gets a slot of another member, with all that is valid in it, under live I/O. svd chooses the extents;
 * one that is not as it believes, or is written to meanwhile, is left where it is.
 *
 *	begin	the word gets MOVING; the caller waits until no I/O that was planned before is under way
 *	copy	what is valid is copied into the new slot
 *	hold	once that is flushed: writes wait (HOLD), and the caller until none is under way any more
 *	finish	where nothing was written since begin: a record, and the word says the new slot; still held
 *	end	once the records are durable and nobody uses an older word: writes go on
 *
 * How a write is noticed. Whoever plans one in an extent with MOVING takes the flag off, in pool->lock, and looks at
 * the word again (sv_move_spoil()). So do discards of parts. All that is in the read section in which the word was
 * looked up, and the write's member is held from then until it ends. A write that saw the word before it had MOVING has
 * ended before anything is copied, as begin's caller waits for it; one that saw it without HOLD has taken MOVING off,
 * if it was there, before finish, as hold's caller waits. So if finish finds the word that begin left, with HOLD,
 * nothing was written since begin, and what was copied is what is there. Nobody counts writers, and a write pays once.
 *
 * An extent that is written to all the time is never moved like that: with SV_MOVE_HOLD its writes wait from begin to
 * end. svd asks for that at the third attempt.
 *
 * HOLD lasts until the records are durable [I14] [I15]: a FUA or a flush after a write to the new slot would promise
 * what a crash leaves in a slot that the catalogue does not know. An extent that has bits which are not durable yet is
 * left alone, so that no VALID of the old place is under way.
 *
 * Readers go by the word that they found; the old slot keeps its bytes until RECYCLE has waited for them. What was
 * there, slot or fragments, is freed under a number of its own that nothing else names, as FOLD does with GROW.
 *
 * An extent with fragments has a slot from then on; or, with SV_MOVE_FRAGS, fragments on the other member. They lie one
 * behind the other there, in one slot, so that one record says where, and no crash can come between two of them.
 *
 * Crashes. Before the record is durable the copy is in a slot where nobody looks. After it the catalogue's extent lies
 * in the new slot, which was flushed before the record was appended; what its volume was told is durable in the old
 * place is so in the new one. A flush or a copy that fails leaves the extent where it was.
 *
 * The caller keeps slots from being recycled from begin to end: copies may still read what is freed meanwhile.
 */
#include "relocate.h"

struct sv_moving {
	struct sv_move m;
	u64 word;		/* as it must still be; after finish the new one */
	u32 slot;		/* the new one, once copies have begun; SV_NO_SLOT */
	struct sv_places places;	/* or these, then slot is the first one */
	u16 frags;		/* which it has of them; 0: it gets a slot */
	u32 pos;		/* block where the next run is looked for */
	bool marked;		/* by begin */
	bool off;		/* it comes to nothing */
	bool moved;
};

void sv_move_spoil(struct sv_pool *p, u32 extent)
{
	u64 *word = sv_xt_word(p, extent);
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	/* pairs with sv_look_up() */
	smp_store_release(word, *word & ~SV_XW_MOVING);
	sv_unlock(&p->lock, f);
}

/* ---- begin ---- */

static bool makes_sense(const struct sv_pool *p, const struct sv_move *m)
{
	return sv_xt_has(p, m->extent) && m->member < p->nr_members && !(m->flags & ~(SV_MOVE_HOLD | SV_MOVE_FRAGS));
}

static u64 reserved(const struct sv_pool *p)
{
	return p->nr_moves * (u64)sizeof(struct sv_rec_move) * 5 / 4 + 2 * SV_BATCH_ALIGN;
}

static void forget(struct sv_pool *p)
{
	sv_free(p->moves);
	p->moves = NULL;
	p->nr_moves = 0;
	p->move_at = 0;
}

static void mark(struct sv_pool *p, struct sv_moving *x, u64 *members)
{
	u64 *word = sv_xt_word(p, x->m.extent);

	if ((*word & (SV_XW_LIVE | SV_XW_FREED | SV_XW_HOLD | SV_XW_MOVING)) != SV_XW_LIVE ||
	    sv_xw_gen(*word) != x->m.gen)
		return;
	x->word = *word | SV_XW_MOVING | (x->m.flags & SV_MOVE_HOLD ? SV_XW_HOLD : 0);
	smp_store_release(word, x->word);	/* pairs with sv_look_up() */
	x->marked = true;
	*members |= 1ull << sv_xw_member(x->word);
}

int sv_move_begin(struct sv_pool *p, const struct sv_move *m, u32 count, u32 *done, u64 *members)
{
	sv_lock_flags_t f;
	u32 i;
	int r;

	*done = 0;
	if (p->moves || p->folds)
		return -EBUSY;
	if (count > SV_MOVES_MAX)
		return -EINVAL;
	for (i = 0; i < count; i++)
		if (!makes_sense(p, &m[i]))
			return -EINVAL;
	if (sv_pool_refill(p))		/* for what cannot fail later */
		return -ENOMEM;
	p->moves = sv_zalloc((size_t)count * sizeof(*p->moves));
	if (!p->moves)
		return -ENOMEM;
	p->nr_moves = count;
	r = sv_ring_reserve_command(p, reserved(p));
	if (r) {
		forget(p);
		return r;
	}
	for (i = 0; i < count; i++) {
		p->moves[i].m = m[i];
		p->moves[i].slot = SV_NO_SLOT;
		sv_lock(&p->lock, f);
		mark(p, &p->moves[i], members);
		sv_unlock(&p->lock, f);
	}
	return 0;
}

/* ---- copy ---- */

/* In the lock: is it still to be moved? */
static bool is_on(const struct sv_pool *p, const struct sv_moving *x)
{
	return x->marked && !READ_ONCE(x->off) && *sv_xt_word(p, x->m.extent) == x->word &&
	       !p->members[x->m.member]->closed;
}

static bool is_valid(const struct sv_pool *p, u64 word, u32 block)
{
	return sv_bits_of(p, word, block / 64) >> (block % 64) & 1;
}

/* Valid blocks that lie one behind the other. */
static bool next_run(const struct sv_pool *p, struct sv_moving *x, u32 *first, u32 *blocks)
{
	u32 limit;

	while (x->pos < SV_EXTENT_BLOCKS && !is_valid(p, x->word, x->pos))
		x->pos++;
	*first = x->pos;
	limit = x->word & SV_XW_FRAGS ? *first - *first % SV_FRAG_BLOCKS + SV_FRAG_BLOCKS : SV_EXTENT_BLOCKS;
	while (x->pos < limit && x->pos < SV_EXTENT_BLOCKS && is_valid(p, x->word, x->pos))
		x->pos++;
	*blocks = x->pos - *first;
	return *blocks;
}

static u16 fragments_of(const struct sv_pool *p, u64 word)
{
	const struct sv_places *places = sv_word_places(p, word);
	u16 mask = 0;
	u32 i;

	for (i = 0; places && i < SV_FRAGS; i++)
		if (places->at[i])
			mask |= (u16)(1u << i);
	return mask;
}

static bool take_places(struct sv_pool *p, struct sv_moving *x)
{
	u32 n = (u32)hweight64((u64)x->frags), i;
	u32 first = sv_frags_take(p, x->m.member, SV_WRITE_NORMAL, n);

	if (!first)
		return false;
	x->slot = first;
	for (i = 0; i < SV_FRAGS; i++)
		if (x->frags >> i & 1)
			x->places.at[i] = first++;
	return true;
}

/*
 * Until RECYCLE an extent that was moved takes two slots. The last ones, as many again as are kept back for FUA and
 * metadata, are for first writes alone, which would have to wait for it.
 */
static bool take_space(struct sv_pool *p, struct sv_moving *x)
{
	if (p->room <= 2 * p->reserve)
		return false;
	if (x->m.flags & SV_MOVE_FRAGS)
		x->frags = fragments_of(p, x->word);
	return x->frags ? take_places(p, x) : sv_slot_on(p, x->m.member, SV_WRITE_NORMAL, &x->slot);
}

static void drop_space(struct sv_pool *p, struct sv_moving *x)
{
	if (x->slot == SV_NO_SLOT)
		return;
	if (x->frags)
		sv_frags_release(p, x->m.member, &x->places);
	else
		sv_slot_release(p, x->m.member, x->slot);
}

static bool next_copy(struct sv_pool *p, struct sv_moving *x, struct sv_copy_run *c)
{
	u32 first;

	/* For good: a word may become again what it was. */
	if (!is_on(p, x) || (x->slot == SV_NO_SLOT && !take_space(p, x))) {
		WRITE_ONCE(x->off, true);
		return false;
	}
	if (!next_run(p, x, &first, &c->blocks))
		return false;
	c->zero = false;
	c->from = (u8)sv_xw_member(x->word);
	c->from_sector = sv_sector_in(p, x->word, sv_word_places(p, x->word), first);
	c->to = x->m.member;
	c->to_sector = x->frags ? sv_sector_in_place(p, c->to, x->places.at[first / SV_FRAG_BLOCKS], first) :
				  sv_sector_of(p, c->to, x->slot, first);
	return true;
}

static bool move_next(struct sv_pool *p, struct sv_copy_run *c)
{
	sv_lock_flags_t f;
	bool more;

	for (; p->move_at < p->nr_moves; p->move_at++) {
		sv_lock(&p->lock, f);
		more = next_copy(p, &p->moves[p->move_at], c);
		sv_unlock(&p->lock, f);
		if (!more)
			continue;
		c->of = p->move_at;
		return true;
	}
	p->move_at = 0;
	return false;
}

static void move_failed(struct sv_pool *p, u32 of)
{
	WRITE_ONCE(p->moves[of].off, true);
}

static u64 move_targets(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_moves; i++)
		if (!READ_ONCE(p->moves[i].off) && p->moves[i].slot != SV_NO_SLOT)
			mask |= 1ull << p->moves[i].m.member;
	return mask;
}

/* ---- hold ---- */

static u64 move_hold(struct sv_pool *p)
{
	sv_lock_flags_t f;
	u64 members = 0;
	u32 i;

	for (i = 0; i < p->nr_moves; i++) {
		struct sv_moving *x = &p->moves[i];

		sv_lock(&p->lock, f);
		if (is_on(p, x) && !(x->word & SV_XW_HOLD)) {
			x->word |= SV_XW_HOLD;
			smp_store_release(sv_xt_word(p, x->m.extent), x->word);	/* pairs with sv_look_up() */
			members |= 1ull << sv_xw_member(x->word);
		}
		sv_unlock(&p->lock, f);
	}
	return members;
}

/* ---- finish ---- */

static void move(struct sv_pool *p, struct sv_moving *x)
{
	u64 old = x->word, flags = old & 0xfff & ~(SV_XW_PARTIAL | SV_XW_FRAGS | SV_XW_MOVING);
	u64 bits[SV_VALID_WORDS], all = ~0ull;
	u8 rec[sizeof(struct sv_rec_move)];
	u32 where = x->slot, below, w;

	/* Cells come back with what is set aside, by svd: first writes are not to wait for that [I9]. */
	if (p->pt_nfree < SV_PARTIAL_RESERVE / 2 || !p->numbers_free)
		return;
	/* Nor for the number, and the cells, that each free slot is owed: this may have taken none. */
	if (x->frags && (p->numbers_free <= p->free_slots || !sv_pool_spare_cells(p)))
		return;
	for (w = 0; w < SV_VALID_WORDS; w++) {
		bits[w] = sv_bits_of(p, old, w);
		all &= bits[w];
	}
	if (x->frags) {
		where = sv_places_new(p);
		sv_cell_at(p, where)->places = x->places;
		flags |= SV_XW_FRAGS;
	}
	if (~all) {
		below = sv_partial_at(p, sv_xw_where(old))->parent;
		where = sv_partial_instead(p, x->m.extent, where, below, bits);
		flags |= SV_XW_PARTIAL;
	}
	sv_stream_append(p, rec, sv_put_move(rec, x->m.gen, x->m.extent, x->m.member, x->slot, x->frags));
	x->word = sv_xw_make(where, x->m.member, x->m.gen, flags);
	x->moved = true;
	sv_may_be_owned_on(p, x->m.member);
	smp_store_release(sv_xt_word(p, x->m.extent), x->word);		/* pairs with sv_look_up() */
	sv_set_aside(p, old);
}

static int move_finish(struct sv_pool *p, u64 not_flushed)
{
	sv_lock_flags_t f;
	int r = 0;

	for (; !r && p->move_at < p->nr_moves; p->move_at += !r) {
		struct sv_moving *x = &p->moves[p->move_at];

		sv_lock(&p->lock, f);
		if (is_on(p, x) && (x->word & SV_XW_HOLD) && x->slot != SV_NO_SLOT && sv_is_clean(p, x->word) &&
		    !(not_flushed >> x->m.member & 1) && p->mode < SV_MODE_READ_ONLY) {
			if (sv_stream_room(p, sizeof(struct sv_rec_move)))
				move(p, x);
			else
				r = -EAGAIN;
		}
		sv_unlock(&p->lock, f);
	}
	return r;
}

/* ---- end ---- */

static u32 move_end(struct sv_pool *p)
{
	u32 i, moved = 0;
	sv_lock_flags_t f;

	for (i = 0; i < p->nr_moves; i++) {
		struct sv_moving *x = &p->moves[i];

		if (!x->marked)
			continue;
		sv_lock(&p->lock, f);
		if (!x->moved)
			drop_space(p, x);
		sv_let_go(sv_xt_word(p, x->m.extent));
		sv_unlock(&p->lock, f);
		moved += x->moved;
	}
	sv_ring_unreserve(p, reserved(p));	/* what was appended counts by itself */
	forget(p);
	return moved;
}

const struct sv_relocation sv_move_steps = {
	.next = move_next,
	.failed = move_failed,
	.targets = move_targets,
	.hold = move_hold,
	.finish = move_finish,
	.end = move_end,
};

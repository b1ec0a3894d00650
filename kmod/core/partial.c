// SPDX-License-Identifier: GPL-2.0
/*
 * Partial extents. valid is set by completions in any context; all else is under pool->lock.
 *
 * Which order makes a bit durable neither too early nor never [I10] [I12]: a completion first sets valid, then (one
 * full barrier, the atomic itself) marks the word dirty and, if nobody had, puts the partial on its member's dirty
 * list. A round takes the list before it flushes the member, clears the dirty mark (full barrier), then reads
 * valid. So a bit that is read had its write completed before the flush began; a bit set after the read finds the
 * mark clear and lists the partial again, for the next round.
 *
 * Records: what was read waits beside the stream, in member->taken, until the flush has ended. If well, it becomes
 * VALID records; if not, it is dirty again and the stream knows nothing of it. Meanwhile partial->pos says where it
 * waits, so that CLEAR takes its bits out there too: a VALID never follows a CLEAR that came after the write, nor does
 * it bring a bit that was cleared and set again before that write was flushed [I7]. An extent unmapped meanwhile is
 * not live any more, and a partial used anew has another pos: both are passed over. MAP comes before any write.
 *
 * Death: once every block is valid and that is durable, the extent's word names the slot itself and the partial
 * goes to quarantine. Bios that planned with it may still set its bits and list it; that is harmless, since
 * sv_partial_take() passes over a partial that no word names, and it is reused only after RCU and the SRCU of its
 * member, and once it is on no list.
 */
#include "plan.h"

static u32 take_cell(struct sv_pool *p)
{
	u32 i = p->pt_free;

	sv_lock_assert(&p->lock);
	if (i) {
		p->pt_free = (u32)sv_partial_at(p, i)->pos;
		p->pt_nfree--;
	}
	return i;
}

static void release_cell(struct sv_pool *p, u32 i)
{
	struct sv_partial *pt = sv_partial_at(p, i);

	pt->link = i;
	pt->pos = p->pt_free;
	p->pt_free = i;
	p->pt_nfree++;
}

u32 sv_places_new(struct sv_pool *p)
{
	u32 i = take_cell(p);

	if (i)
		memset(&sv_cell_at(p, i)->places, 0, sizeof(struct sv_places));
	return i;
}

u32 sv_partial_new(struct sv_pool *p, u32 extent, u32 slot, u32 parent, u64 valid)
{
	u32 i = take_cell(p), w;
	struct sv_partial *pt;

	if (!i)
		return 0;
	pt = sv_partial_at(p, i);
	p->pt_live++;
	for (w = 0; w < SV_VALID_WORDS; w++)
		atomic64_set(&pt->valid[w], (s64)valid);
	atomic64_set(&pt->dirty, 0);
	pt->extent = extent;
	pt->slot = slot;
	pt->parent = parent;
	pt->pos = 0;
	return i;
}

bool sv_partial_is_live(const struct sv_pool *p, const struct sv_partial *pt)
{
	const u64 *w = sv_xt_word(p, pt->extent);

	return w && (*w & SV_XW_LIVE) && (*w & SV_XW_PARTIAL) && !(*w & SV_XW_FREED) &&
	       sv_partial_at(p, sv_xw_where(*w)) == pt;
}

bool sv_partial_all_valid(const struct sv_partial *pt)
{
	u32 w;

	for (w = 0; w < SV_VALID_WORDS; w++)
		if (~(u64)atomic64_read(&pt->valid[w]))
			return false;
	return true;
}

bool sv_partial_none_valid(const struct sv_partial *pt)
{
	u32 w;

	for (w = 0; w < SV_VALID_WORDS; w++)
		if (atomic64_read(&pt->valid[w]))
			return false;
	return true;
}

void sv_partial_quarantine(struct sv_pool *p, u64 word)
{
	u32 i = sv_xw_where(word);

	sv_lock_assert(&p->lock);
	sv_partial_at(p, i)->pos = p->quarantine | (word & SV_XW_FRAGS ? SV_POS_FRAGS : 0);
	p->quarantine = i;
	p->quarantine_members |= 1ull << sv_xw_member(word);
	p->pt_live--;
}

/*
 * words changed; resv VALID records have ring space. The space is added before the mark: a commit between the two
 * then gives it back early, and the record that follows uses slack (at most one such write per CPU at a time).
 *
 * Mark and list entry are one step for others that mark the same partial: a write that found it marked but not yet
 * listed would end upward, and the flush after it would miss its bit.
 */
static void mark(struct sv_member *m, struct sv_partial *pt, u64 words)
{
	u64 old = (u64)atomic64_fetch_or((s64)(words | SV_DIRTY_LISTED), &pt->dirty);

	sv_lock_assert(&m->listing);
	if (!(old & SV_DIRTY_LISTED)) {
		u32 self = pt->link;

		pt->link = m->dirty;
		WRITE_ONCE(m->dirty, self);
	}
}

void sv_partial_mark(struct sv_pool *p, struct sv_partial *pt, u32 member, u64 words, u32 resv)
{
	struct sv_member *m = p->members[member];
	sv_lock_flags_t f;

	atomic64_add((s64)((u64)resv << SV_DIRTY_RESV), &pt->dirty);
	sv_lock(&m->listing, f);
	mark(m, pt, words);
	sv_unlock(&m->listing, f);
}

/*
 * Bits and mark are one step for a round, which takes the list under the same lock, and for FUA
 * (commit.c:is_marked()): another write to these blocks that finds them valid makes no mark of its own, and the flush
 * after it needs this one. [I13]
 */
u32 sv_partial_set_valid(struct sv_pool *p, struct sv_partial *pt, u32 member, u32 first, u32 n)
{
	u32 w, from = first / 64, to = (first + n - 1) / 64, resv = to - from + 1;
	struct sv_member *m = p->members[member];
	sv_lock_flags_t f;
	u64 words = 0;

	atomic64_add((s64)((u64)resv << SV_DIRTY_RESV), &pt->dirty);
	sv_lock(&m->listing, f);
	for (w = from; w <= to; w++) {
		atomic64_or((s64)sv_word_bits(w, first, n), &pt->valid[w]);
		words |= 1ull << w;
	}
	mark(m, pt, words);
	sv_unlock(&m->listing, f);
	return resv;
}

u32 sv_partials_listed(struct sv_member *m)
{
	sv_lock_flags_t f;
	u32 first;

	sv_lock(&m->listing, f);
	first = m->dirty;
	WRITE_ONCE(m->dirty, 0);
	sv_unlock(&m->listing, f);
	return first;
}

static u64 taken_pos(u32 member, u32 n)
{
	return SV_POS_TAKEN | (u64)member << 32 | n;
}

bool sv_partial_take(struct sv_pool *p, u32 member, struct sv_partial *pt)
{
	struct sv_member *m = p->members[member];
	struct sv_taken *t = &m->taken[m->nr_taken];
	u32 w, bytes;
	u64 old;

	sv_lock_assert(&p->lock);
	if (m->nr_taken == SV_TAKEN_MAX || m->taken_bytes + SV_VALID_WORDS * SV_VALID_REC > SV_TAKEN_BYTES ||
	    !sv_stream_room(p, SV_VALID_WORDS * SV_VALID_REC))
		return false;
	old = (u64)atomic64_fetch_andnot((s64)SV_DIRTY_TAKE, &pt->dirty);
	t->resv = (u32)(old >> SV_DIRTY_RESV & SV_DIRTY_RESV_MAX);
	if (!sv_partial_is_live(p, pt)) {
		sv_ring_unreserve(p, (u64)t->resv * SV_RESV_VALID);
		return true;
	}
	t->partial = sv_xw_where(*sv_xt_word(p, pt->extent));
	t->words = (u32)(old & SV_DIRTY_WORDS);
	bytes = (u32)hweight64(old & SV_DIRTY_WORDS) * SV_VALID_REC;
	for (w = 0; w < SV_VALID_WORDS; w++)
		t->bits[w] = (u64)atomic64_read(&pt->valid[w]);
	pt->pos = taken_pos(member, m->nr_taken++);
	m->taken_bytes += bytes;
	p->held += bytes;
	return true;
}

/* These bits are cleared: a flush under way must not make them valid. */
void sv_partial_forget(struct sv_pool *p, struct sv_partial *pt, u32 word, u64 bits)
{
	sv_lock_assert(&p->lock);
	if (pt->pos & SV_POS_TAKEN)
		p->members[pt->pos >> 32 & 0xff]->taken[(u32)pt->pos].bits[word] &= ~bits;
}

static void append_valid(struct sv_pool *p, const struct sv_partial *pt, u32 word, u64 bits)
{
	u8 rec[SV_VALID_REC];
	u16 gen = sv_xw_gen(*sv_xt_word(p, pt->extent));

	if (word == SV_VALID_WORDS)
		sv_put_valid_all(rec, gen, pt->extent);
	else
		sv_put_valid(rec, gen, pt->extent, word, bits);
	sv_stream_append(p, rec, sizeof(rec));
}

static void publish(struct sv_pool *p, const struct sv_partial *pt, const struct sv_taken *t)
{
	u64 all = ~0ull;
	u32 w;

	for (w = 0; w < SV_VALID_WORDS; w++)
		all &= t->bits[w];
	if (!~all) {
		append_valid(p, pt, SV_VALID_WORDS, all);
		return;
	}
	for (w = 0; w < SV_VALID_WORDS; w++)
		if ((t->words >> w & 1) && t->bits[w])
			append_valid(p, pt, w, t->bits[w]);
}

/* Partial of taken number n, or NULL if its extent was unmapped meanwhile. */
static struct sv_partial *still_taken(const struct sv_pool *p, u32 member, u32 n)
{
	struct sv_partial *pt = sv_partial_at(p, p->members[member]->taken[n].partial);

	return pt->pos == taken_pos(member, n) && sv_partial_is_live(p, pt) ? pt : NULL;
}

static void none_taken(struct sv_pool *p, struct sv_member *m)
{
	p->held -= m->taken_bytes;
	m->taken_bytes = 0;
	m->nr_taken = 0;
}

void sv_partials_publish(struct sv_pool *p, u32 member)
{
	struct sv_member *m = p->members[member];
	u64 resv = 0;
	u32 n;

	sv_lock_assert(&p->lock);
	for (n = 0; n < m->nr_taken; n++) {
		struct sv_partial *pt = still_taken(p, member, n);

		resv += m->taken[n].resv;
		if (!pt)
			continue;
		publish(p, pt, &m->taken[n]);
		pt->pos = p->head;
	}
	none_taken(p, m);
	sv_ring_unreserve(p, resv * SV_RESV_VALID);	/* what was appended counts by itself */
}

void sv_partials_put_back(struct sv_pool *p, u32 member)
{
	struct sv_member *m = p->members[member];
	u32 n;

	sv_lock_assert(&p->lock);
	for (n = 0; n < m->nr_taken; n++) {
		const struct sv_taken *t = &m->taken[n];
		struct sv_partial *pt = still_taken(p, member, n);

		if (!pt) {
			sv_ring_unreserve(p, (u64)t->resv * SV_RESV_VALID);
			continue;
		}
		pt->pos = p->head;	/* an earlier VALID may still be in the stream */
		sv_partial_mark(p, pt, member, t->words, t->resv);
	}
	none_taken(p, m);
}

/* A VALID of all its blocks has become durable: if that is still all there is to say, it needs no bits any more. */
void sv_partial_settle(struct sv_pool *p, u32 extent, u16 gen)
{
	u64 *w = sv_xt_word(p, extent), old = *w;
	struct sv_partial *pt;

	sv_lock_assert(&p->lock);
	if (!(old & SV_XW_PARTIAL) || (old & (SV_XW_FREED | SV_XW_FRAGS)) || sv_xw_gen(old) != gen)
		return;
	pt = sv_partial_at(p, sv_xw_where(old));
	if (pt->pos > p->durable || !sv_partial_all_valid(pt))
		return;
	/*
	 * A bit may be newer than this VALID, cleared since and set again by a write that has not listed the partial
	 * yet. Whoever set a bit seen here still counts as in flight, or has listed it: the bits are read before that.
	 */
	smp_rmb();	/* pairs with plan.c: the barrier in begin_write(), and sv_write_done()'s order */
	if ((u64)atomic64_read(&pt->dirty) & (SV_DIRTY_LISTED | ~SV_DIRTY_TAKE))
		return;		/* the VALID of all that follows settles it, unless that write fails */
	/* Pairs with the load of the word: who sees no PARTIAL sees all that was written. */
	smp_store_release(w, sv_xw_make(pt->slot, sv_xw_member(old), gen, old & 0xfff & ~SV_XW_PARTIAL));
	sv_partial_quarantine(p, old);
}

bool sv_reclaim_wanted(const struct sv_pool *p)
{
	return READ_ONCE(p->quarantine) || READ_ONCE(p->grace);
}

bool sv_reclaim_begin(struct sv_pool *p, u64 *members)
{
	sv_lock_flags_t f;
	bool any;

	sv_lock(&p->lock, f);
	if (!p->grace) {
		p->grace = p->quarantine;
		p->quarantine = 0;
	}
	*members = p->quarantine_members;
	p->quarantine_members = 0;
	any = p->grace != 0;
	sv_unlock(&p->lock, f);
	return any;
}

void sv_reclaim_finish(struct sv_pool *p)
{
	sv_lock_flags_t f;
	u32 i;

	sv_lock(&p->lock, f);
	while ((i = p->grace)) {
		struct sv_partial *pt = sv_partial_at(p, i);

		p->grace = (u32)pt->pos;
		if (atomic64_read(&pt->dirty) & SV_DIRTY_LISTED) {
			pt->pos = p->quarantine | (pt->pos & SV_POS_FRAGS);
			p->quarantine = i;
			continue;
		}
		if (pt->pos & SV_POS_FRAGS)
			release_cell(p, pt->slot);
		release_cell(p, i);
	}
	sv_unlock(&p->lock, f);
}

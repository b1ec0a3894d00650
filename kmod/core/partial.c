// SPDX-License-Identifier: GPL-2.0
/*
 * Partial extents. valid is set by completions in any context; all else is under pool->lock.
 *
 * Which order makes a bit durable neither too early nor never [I10] [I12]: a completion first sets valid, then (one
 * full barrier, the atomic itself) marks the word dirty and, if nobody had, puts the partial on its member's dirty
 * list. A commit takes the list before it flushes the member, clears the dirty mark (full barrier), then reads
 * valid. So a bit that is read had its write completed before the flush began; a bit set after the read finds the
 * mark clear and lists the partial again, for the next commit.
 *
 * Records: the reads happen under pool->lock and go straight into the stream, where MAP, CLEAR and UNMAP of the
 * extent go under the same lock. A VALID therefore never precedes its MAP, and never follows a CLEAR that came
 * after the write [I7].
 *
 * Death: once every block is valid and that is durable, the extent's word names the slot itself and the partial
 * goes to quarantine. Bios that planned with it may still set its bits and list it; that is harmless, since
 * sv_partial_emit() passes over a partial that no word names, and it is reused only after RCU and the SRCU of its
 * member, and once it is on no list.
 */
#include "internal.h"

u32 sv_partial_new(struct sv_pool *p, u32 extent, u32 slot, u64 valid)
{
	u32 i = p->pt_free, w;
	struct sv_partial *pt;

	sv_lock_assert(&p->lock);
	if (!i)
		return 0;
	pt = sv_partial_at(p, i);
	p->pt_free = (u32)pt->pos;
	p->pt_nfree--;
	p->pt_live++;
	for (w = 0; w < SV_VALID_WORDS; w++)
		atomic64_set(&pt->valid[w], (s64)valid);
	atomic64_set(&pt->dirty, 0);
	pt->extent = extent;
	pt->slot = slot;
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

void sv_partial_quarantine(struct sv_pool *p, u32 index, u32 member)
{
	sv_lock_assert(&p->lock);
	sv_partial_at(p, index)->pos = p->quarantine;
	p->quarantine = index;
	p->quarantine_members |= 1ull << member;
	p->pt_live--;
}

/*
 * words changed; resv VALID records have ring space. The space is added before the mark: a commit between the two
 * then gives it back early, and the record that follows uses slack (at most one such write per CPU at a time).
 *
 * Mark and list entry are one step for others that mark the same partial: a write that found it marked but not yet
 * listed would end upward, and the flush after it would miss its bit.
 */
void sv_partial_mark(struct sv_pool *p, struct sv_partial *pt, u32 member, u64 words, u32 resv)
{
	struct sv_member *m = p->members[member];
	sv_lock_flags_t f;
	u64 old;

	atomic64_add((s64)((u64)resv << SV_DIRTY_RESV), &pt->dirty);
	sv_lock(&m->listing, f);
	old = (u64)atomic64_fetch_or((s64)(words | SV_DIRTY_LISTED), &pt->dirty);
	if (!(old & SV_DIRTY_LISTED))
		llist_add(&pt->node, &m->dirty);
	sv_unlock(&m->listing, f);
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

static void emit_words(struct sv_pool *p, const struct sv_partial *pt, u64 words)
{
	u32 w;

	for (w = 0; w < SV_VALID_WORDS; w++) {
		u64 bits = (u64)atomic64_read(&pt->valid[w]);

		if ((words >> w & 1) && bits)
			append_valid(p, pt, w, bits);
	}
}

bool sv_partial_emit(struct sv_pool *p, struct sv_partial *pt)
{
	u64 old;

	sv_lock_assert(&p->lock);
	if (!sv_stream_room(p, SV_VALID_WORDS * SV_VALID_REC) || p->nr_settle == SV_SETTLE_MAX)
		return false;
	old = (u64)atomic64_fetch_andnot((s64)SV_DIRTY_TAKE, &pt->dirty);
	sv_ring_unreserve(p, (old >> SV_DIRTY_RESV & SV_DIRTY_RESV_MAX) * SV_VALID_REC);
	if (!sv_partial_is_live(p, pt))
		return true;
	if (sv_partial_all_valid(pt)) {
		append_valid(p, pt, SV_VALID_WORDS, ~0ull);
		p->settle[p->nr_settle++] = sv_xw_where(*sv_xt_word(p, pt->extent));
	} else {
		emit_words(p, pt, old & SV_DIRTY_WORDS);
	}
	pt->pos = p->head;
	return true;
}

/* After a commit: what is durable in full needs no bits any more. */
void sv_partial_settle(struct sv_pool *p)
{
	u32 i;

	sv_lock_assert(&p->lock);
	for (i = 0; i < p->nr_settle; i++) {
		struct sv_partial *pt = sv_partial_at(p, p->settle[i]);
		u64 *w = sv_xt_word(p, pt->extent), old;

		if (!sv_partial_is_live(p, pt) || pt->pos > p->durable || !sv_partial_all_valid(pt) ||
		    (atomic64_read(&pt->dirty) & SV_DIRTY_LISTED))
			continue;
		old = *w;
		smp_store_release(w, sv_xw_make(pt->slot, sv_xw_member(old), sv_xw_gen(old),
						old & 0xfff & ~SV_XW_PARTIAL));
		sv_partial_quarantine(p, p->settle[i], sv_xw_member(old));
	}
	p->nr_settle = 0;
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
			pt->pos = p->quarantine;
			p->quarantine = i;
			continue;
		}
		pt->pos = p->pt_free;
		p->pt_free = i;
		p->pt_nfree++;
	}
	sv_unlock(&p->lock, f);
}

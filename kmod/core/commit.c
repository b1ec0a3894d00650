// SPDX-License-Identifier: GPL-2.0
/*
 * The commit: what makes promises true. In steps, with the caller's I/O between them:
 *
 *	take	tickets; what their volumes are owed; the dirty bits of those members into the stream. All that is
 *		acknowledged by this commit is now below c->pos.			[I10]
 *	flush	the members (begun after the take, so it covers every write whose bit was read)	[I12]
 *	batch	records up to c->pos, in batches, PREFLUSH where the ring's only member is itself owed a flush, FUA
 *	finish	tickets are handed back; full partials settle
 *
 * One runs at a time. A ticket that comes meanwhile waits for the next one: it never skips [I14]. A member whose
 * flush failed owes it still: its volumes' owed bits are set again, its VALIDs are taken back out of the stream
 * (made empty, in place: positions do not move) and its partials are dirty again [I11] [I12].
 */
#include "internal.h"

static bool any_dirty(const struct sv_pool *p, u32 i)
{
	return p->members[i]->todo || !llist_empty(&p->members[i]->dirty);
}

static u64 dirty_members(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_members; i++)
		if (any_dirty(p, i))
			mask |= 1ull << i;
	return mask;
}

static void queue(struct sv_pool *p, struct sv_ticket *t)
{
	t->next = NULL;
	*p->tickets_end = t;
	p->tickets_end = &t->next;
}

void sv_ticket_add(struct sv_pool *p, struct sv_ticket *t)
{
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	t->error = 0;
	queue(p, t);
	sv_unlock(&p->lock, f);
}

bool sv_flush_ticket(struct sv_volume *v, struct sv_ticket *t)
{
	struct sv_pool *p = v->pool;
	sv_lock_flags_t f;
	bool wait;

	memset(t, 0, sizeof(*t));
	t->volume = v;
	t->flush = true;
	sv_lock(&p->lock, f);
	wait = p->committing || p->tickets || atomic64_read(&v->owed) || v->rec_pos > p->durable;
	if (wait)
		queue(p, t);
	sv_unlock(&p->lock, f);
	return wait;
}

bool sv_commit_idle(struct sv_pool *p)
{
	sv_lock_flags_t f;
	bool idle;

	sv_lock(&p->lock, f);
	idle = !p->tickets && (p->mode == SV_MODE_FAIL ||
			       (p->head == p->durable && !dirty_members(p) && !p->copy_lost));
	sv_unlock(&p->lock, f);
	return idle;
}

/* The member's dirty partials into the stream, as many as there is room for. False: some are left. */
static bool drain(struct sv_pool *p, u32 i)
{
	struct sv_member *m = p->members[i];
	bool fresh = false;

	for (;;) {
		struct sv_partial *pt = m->todo;
		struct llist_node *next;

		if (!pt) {
			/* Once only: what is listed after this is the next commit's. */
			next = fresh ? NULL : llist_del_all(&m->dirty);
			if (!next)
				return true;
			fresh = true;
			m->todo = pt = llist_entry(next, struct sv_partial, node);
		}
		/* Once the mark is cleared a completion may reuse the link: read it before. */
		next = pt->node.next;
		if (!sv_partial_emit(p, pt))
			return false;
		m->todo = next ? llist_entry(next, struct sv_partial, node) : NULL;
	}
}

static u64 take_tickets(struct sv_pool *p, struct sv_commit *c)
{
	u64 mask = 0;
	struct sv_ticket *t;

	c->taken = p->tickets;
	p->tickets = NULL;
	p->tickets_end = &p->tickets;
	/* All flushes of one volume are owed the same: if one of them fails, so do the others. */
	for (t = c->taken; t; t = t->next)
		if (t->flush)
			t->volume->taking |= (u64)atomic64_xchg(&t->volume->owed, 0);
	for (t = c->taken; t; t = t->next) {
		if (t->flush)
			t->mask |= t->volume->taking;
		else if (!t->volume)
			t->mask |= dirty_members(p);
		mask |= t->mask;
	}
	for (t = c->taken; t; t = t->next)
		if (t->flush)
			t->volume->taking = 0;
	return mask;
}

/* A ticket some of whose bits did not fit waits for the next commit too. */
static void put_back(struct sv_pool *p, struct sv_commit *c, u64 left)
{
	struct sv_ticket **at = &c->taken, *t;

	while ((t = *at)) {
		if (!(t->mask & left)) {
			t->pos = c->pos;
			at = &t->next;
			continue;
		}
		*at = t->next;
		queue(p, t);
	}
}

bool sv_commit_take(struct sv_pool *p, struct sv_commit *c, bool all)
{
	sv_lock_flags_t f;
	u64 left = 0;
	bool work;
	u32 i;

	memset(c, 0, sizeof(*c));
	sv_lock(&p->lock, f);
	if (WARN_ON_ONCE(p->committing)) {
		sv_unlock(&p->lock, f);
		return false;
	}
	c->flush_mask = take_tickets(p, c);
	if (all)
		c->flush_mask |= dirty_members(p);
	smp_mb();
	for (i = 0; i < p->nr_members; i++)
		if ((c->flush_mask >> i & 1) && !drain(p, i))
			left |= 1ull << i;
	c->pos = p->head;
	put_back(p, c, left);
	if (p->head != p->durable && (c->flush_mask & p->ring_copies) && !(p->ring_copies & (p->ring_copies - 1))) {
		c->own_mask = p->ring_copies;
		c->flush_mask &= ~p->ring_copies;
	}
	work = c->taken;
	if (p->mode < SV_MODE_FAIL)	/* nothing becomes durable any more: tickets only learn so */
		work = work || c->flush_mask || p->head != p->durable || p->copy_lost;
	p->committing = work;
	sv_unlock(&p->lock, f);
	return work;
}

/* VALIDs of members whose flush failed, between durable and pos, are emptied and their partials listed again. */
static void take_back(struct sv_pool *p, struct sv_commit *c, u64 failed)
{
	u64 at = p->durable;

	while (at < c->pos) {
		u32 i = (u32)(at % SV_STREAM_BYTES), w;
		u8 *rec = p->stream + i;
		u32 extent = le32_to_cpu(((struct sv_rec_head *)rec)->extent);
		const u64 *x = sv_xt_word(p, extent);

		if (rec[0] == SV_REC_VALID && x && (failed >> sv_xw_member(*x) & 1)) {
			/* Its two halves: the stream's end may lie between them. */
			((struct sv_rec_head *)rec)->flags = 0;
			memset(p->stream + (at + sizeof(struct sv_rec_head)) % SV_STREAM_BYTES, 0, sizeof(__le64));
			w = sv_xw_where(*x);
			/* Promised without asking: the place of the emptied record is slack that it gives back. */
			if (*x & SV_XW_PARTIAL) {
				atomic64_add(SV_VALID_WORDS * SV_VALID_REC, &p->resv);
				sv_partial_mark(p, sv_partial_at(p, w), sv_xw_member(*x), SV_DIRTY_WORDS,
						SV_VALID_WORDS);
			}
		}
		at += sv_rec_size(rec[0]);
	}
	p->nr_settle = 0;
}

void sv_commit_flushed(struct sv_pool *p, struct sv_commit *c, u64 failed)
{
	struct sv_ticket *t;
	sv_lock_flags_t f;
	u32 i;

	if (!failed)
		return;
	sv_lock(&p->lock, f);
	for (t = c->taken; t; t = t->next) {
		if (!(t->mask & failed))
			continue;
		t->error = -EIO;
		if (t->volume)
			atomic64_or((s64)(t->mask & failed), &t->volume->owed);
	}
	for (i = 0; i < p->nr_members; i++)
		if (failed >> i & 1)
			p->members[i]->errors++;
	take_back(p, c, failed);
	sv_unlock(&p->lock, f);
}

static void copy_stream(const struct sv_pool *p, u64 from, void *to, u32 bytes)
{
	u32 at = (u32)(from % SV_STREAM_BYTES), n = min_t(u32, bytes, SV_STREAM_BYTES - at);

	memcpy(to, p->stream + at, n);
	memcpy((u8 *)to + n, p->stream, bytes - n);
}

/* Whole records from durable up to c->pos that fit into one batch. */
static u32 gather(const struct sv_pool *p, const struct sv_commit *c, u32 *records)
{
	u64 at = p->durable;
	u32 bytes = 0;

	*records = 0;
	while (at < c->pos) {
		u32 n = sv_rec_size(p->stream[at % SV_STREAM_BYTES]);

		if (bytes + n > p->batch_max - SV_BATCH_HEAD)
			break;
		bytes += n;
		at += n;
		(*records)++;
	}
	copy_stream(p, p->durable, p->batch + SV_BATCH_HEAD, bytes);
	return bytes;
}

/* Virtual offset where len bytes go without crossing the ring's end. */
static u64 place(const struct sv_pool *p, u32 len)
{
	u64 at = p->ring_head, phys = at % p->ring_len;

	return phys + len <= p->ring_len ? at : at + (p->ring_len - phys);
}

bool sv_commit_batch(struct sv_pool *p, struct sv_commit *c)
{
	sv_lock_flags_t f;
	u32 records, bytes;
	u64 at;

	sv_lock(&p->lock, f);
	if (p->mode >= SV_MODE_FAIL || (p->durable >= c->pos && !p->copy_lost)) {
		sv_unlock(&p->lock, f);
		return false;
	}
	bytes = gather(p, c, &records) + SV_BATCH_HEAD;
	c->len = ALIGN(bytes, SV_BATCH_ALIGN);
	at = place(p, c->len);
	c->batch_pos = p->durable + bytes - SV_BATCH_HEAD;
	c->batch_next = at + c->len;
	c->off = at % p->ring_len;
	c->preflush = c->own_mask != 0;
	c->buf = p->batch;
	if (WARN_ON_ONCE(c->batch_next - p->ring_tail > p->ring_len)) {	/* [I16] broken */
		p->mode = SV_MODE_FAIL;
		sv_unlock(&p->lock, f);
		return false;
	}
	c->batch_crc = sv_batch_seal(p->batch, bytes, records, p->next_seq, p->incarnation, p->prev_crc,
				     p->copy_lost ? SV_BATCH_COPY_LOST : 0, p->tail_seq, c->off);
	sv_unlock(&p->lock, f);
	return true;
}

void sv_commit_written(struct sv_pool *p, struct sv_commit *c, u64 ok_mask)
{
	sv_lock_flags_t f;

	ok_mask &= p->ring_copies;
	if (!ok_mask) {
		sv_pool_degrade(p, SV_MODE_FAIL);
		return;
	}
	sv_lock(&p->lock, f);
	/* A copy that was lost is written down, in a batch on the other, before anything is acknowledged. [I32] */
	p->copy_lost = ok_mask != p->ring_copies;
	if (p->copy_lost)
		atomic64_or(SV_EVENT_COPY_LOST, &p->events);
	p->ring_copies = ok_mask;
	p->batch_end[p->next_seq % p->ring_blocks] = (u32)((c->off + c->len) / SV_BATCH_ALIGN);
	p->next_seq++;
	p->prev_crc = c->batch_crc;
	p->journal_bytes += c->len;
	WRITE_ONCE(p->ring_head, c->batch_next);
	WRITE_ONCE(p->durable, c->batch_pos);
	c->own_mask = 0;		/* flushed by this batch */
	sv_unlock(&p->lock, f);
}

void sv_commit_finish(struct sv_pool *p, struct sv_commit *c)
{
	struct sv_ticket *t;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	for (t = c->taken; t; t = t->next)
		if (t->pos > p->durable || p->mode == SV_MODE_FAIL)
			t->error = -EIO;
	sv_partial_settle(p);
	c->tickets = c->taken;
	c->taken = NULL;
	p->committing = false;
	p->commits++;
	if ((p->ring_head - p->ring_tail) * 4 > p->ring_len)
		atomic64_or(SV_EVENT_RING, &p->events);
	sv_unlock(&p->lock, f);
}

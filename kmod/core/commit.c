// SPDX-License-Identifier: GPL-2.0
/*
 * The commit: what makes promises true. Two kinds of state machine, which the caller drives and does the I/O for:
 *
 *	a round of a member	take its new valid bits aside (partial.c), flush it, publish them as VALID records.
 *				A round that has more than one flush can publish takes several.
 *	the journal writer	the stream's records up to its head, as a batch with FUA to every copy of the ring
 *
 * Rounds of different members, and the writer, know nothing of each other: a slow or hung member holds up only who
 * must have it. A ticket waits for the members in need and riding, then for the stream as it is then (pos).
 *
 * A round serves the tickets that were there when it began. Beginning, in this order: tickets board it, what their
 * volumes are owed is cleared, the bits are taken, and then the flush is issued [I10] [I11]. So
 *	- a write that completed before the ticket came was completed before the flush [I12], and its bit is taken by
 *	  this round or was by an earlier one, whose records are in the stream, below pos;
 *	- a ticket that comes while a round is under way needs the next one if its volume is owed that member again
 *	  [I14]. If it is not, then all that the volume wrote there completed before this round began, and the ticket
 *	  rides along: volume->flushing. It may not pass: its volume's bits are in neither stream nor journal yet;
 *	- when the round has ended, volume->rec_pos covers what it published, for flushes that come later still.
 *
 * A failed flush: the bits are dirty again, the volumes are owed the member again, the tickets aboard fail. Nothing
 * has to be taken back, for a VALID is in the stream only if its member was flushed. Bits that were not reached in
 * this round stay on todo, which the next round takes before anything else.
 *
 * No round starves a ticket: it takes what was dirty when it began, once, however much comes meanwhile (fresh).
 * None blocks the stream: all that rounds can hold is half of it (SV_TAKEN_BYTES), and what lacks room for a single
 * partial has the journal written first.
 *
 * Group commit: tickets that wait for one member board together and cost one flush; those whose rounds are over
 * share one batch. The periodic commit is a ticket of our own (all), so that it shares them too. Who comes alone, after
 * one that came alone, begins his round himself (sv_flush_ticket_begin()); where several come the worker's turn, until
 * which they gather, is worth more than the time that it takes.
 *
 * Crashes. Before a round's flush has ended nothing of it is in the stream. Between that and the batch the data is
 * there and not its bits: it was not promised. A torn batch is not valid [I18], so its records are as if not
 * written. After the batch all is there, on every copy in use; a copy that failed is recorded on the others, by a
 * batch of its own if need be, before any ticket passes [I32].
 *
 * If no copy can be written nothing becomes durable any more: mode FAIL, and all tickets, also those to come, fail at
 * once. Flushes that are under way then end whenever they end.
 *
 * Tickets come from any context, and so does a round that begins with one (sv_flush_ticket_begin()), since all of
 * that is in the lock. All other functions are for one thread at a time.
 */
#include "internal.h"

static bool is_dirty(const struct sv_member *m)
{
	return m->todo || READ_ONCE(m->dirty);
}

static u64 dirty_members(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_members; i++)
		if (is_dirty(p->members[i]))
			mask |= 1ull << i;
	return mask;
}

/* Members whose rounds under way hold bits. */
static u64 taken_members(const struct sv_pool *p)
{
	u64 mask = 0;
	u32 i;

	for (i = 0; i < p->nr_members; i++)
		if (p->members[i]->nr_taken)
			mask |= 1ull << i;
	return mask;
}

/* ---- tickets ---- */

static void want_journal(struct sv_pool *p)
{
	p->wanted = p->head;
}

/* What is left for it to wait for is the journal. */
static void rounds_are_over(struct sv_pool *p, struct sv_ticket *t)
{
	t->pos = p->head;
	want_journal(p);
}

static void queue(struct sv_pool *p, struct sv_ticket *t)
{
	t->next = NULL;
	*p->tickets_end = t;
	p->tickets_end = &t->next;
	p->need |= t->need;
	if (!(t->need | t->riding))
		rounds_are_over(p, t);
}

static bool flush_ticket(struct sv_volume *v, struct sv_ticket *t)
{
	struct sv_pool *p = v->pool;
	bool wait;

	memset(t, 0, sizeof(*t));
	t->volume = v;
	t->flush = true;
	t->need = (u64)atomic64_read(&v->owed);
	t->riding = v->flushing & ~t->need;
	wait = t->need || t->riding || v->rec_pos > p->durable || p->copy_lost || p->mode == SV_MODE_FAIL;
	if (wait)
		queue(p, t);
	return wait;
}

bool sv_flush_ticket(struct sv_volume *v, struct sv_ticket *t)
{
	sv_lock_flags_t f;
	bool wait;

	sv_lock(&v->pool->lock, f);
	wait = flush_ticket(v, t);
	sv_unlock(&v->pool->lock, f);
	return wait;
}

/* Another write may just be setting the bit that this one found: until it has marked it, too. */
static bool is_marked(const struct sv_pool *p, const struct sv_piece *piece)
{
	struct sv_member *m = p->members[piece->member];
	u64 dirty = (u64)atomic64_read(&piece->partial->dirty);
	sv_lock_flags_t f;

	if (dirty && !(dirty & (SV_DIRTY_WORDS | SV_DIRTY_LISTED))) {
		sv_lock(&m->listing, f);
		dirty = (u64)atomic64_read(&piece->partial->dirty);
		sv_unlock(&m->listing, f);
	}
	return dirty & (SV_DIRTY_WORDS | SV_DIRTY_LISTED);
}

/* The write's own bit: still to be taken, taken by a round under way, or in the stream. */
static bool own_bit_waits(const struct sv_pool *p, const struct sv_piece *piece, struct sv_ticket *t)
{
	const struct sv_partial *pt = piece->partial;

	if (!pt)
		return false;
	if (is_marked(p, piece))
		t->need = 1ull << piece->member;
	else if (!sv_partial_is_live(p, pt) || pt->pos <= p->durable)
		return false;
	else if (pt->pos & SV_POS_TAKEN)
		t->riding = 1ull << piece->member;
	return true;
}

bool sv_fua_ticket(struct sv_volume *v, const struct sv_piece *piece, struct sv_ticket *t)
{
	struct sv_pool *p = v->pool;
	sv_lock_flags_t f;
	bool wait;

	memset(t, 0, sizeof(*t));
	t->volume = v;
	sv_lock(&p->lock, f);
	wait = own_bit_waits(p, piece, t) || v->rec_pos > p->durable || p->copy_lost || p->mode == SV_MODE_FAIL;
	if (wait)
		queue(p, t);
	sv_unlock(&p->lock, f);
	return wait;
}

void sv_ticket_add(struct sv_pool *p, struct sv_ticket *t, bool bits)
{
	sv_lock_flags_t f;

	memset(t, 0, sizeof(*t));
	sv_lock(&p->lock, f);
	if (bits) {
		t->need = dirty_members(p);
		t->riding = taken_members(p) & ~t->need;
	}
	queue(p, t);
	sv_unlock(&p->lock, f);
}

/* If the one before still waits, for some member, it waits for what is dirty now too, and the others are written. */
void sv_commit_all(struct sv_pool *p)
{
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	if (p->all_waits) {
		p->all.need |= dirty_members(p) & ~p->all.riding;
		p->need |= p->all.need;
		want_journal(p);
	} else {
		memset(&p->all, 0, sizeof(p->all));
		p->all.need = dirty_members(p);
		p->all_waits = true;
		queue(p, &p->all);
	}
	sv_unlock(&p->lock, f);
}

static bool passes(const struct sv_pool *p, struct sv_ticket *t)
{
	if (p->mode == SV_MODE_FAIL) {
		t->error = -EIO;
		return true;
	}
	return !(t->need | t->riding) && t->pos <= p->durable && !p->copy_lost;
}

struct sv_ticket *sv_commit_done(struct sv_pool *p)
{
	struct sv_ticket *done = NULL, **end = &done, **at, *t;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	for (at = &p->tickets; (t = *at);) {
		if (!passes(p, t)) {
			at = &t->next;
			continue;
		}
		*at = t->next;
		if (t == &p->all) {
			p->all_waits = false;
			continue;
		}
		*end = t;
		end = &t->next;
	}
	*end = NULL;
	p->tickets_end = at;
	if (done)
		p->crowded = done->next;
	sv_unlock(&p->lock, f);
	return done;
}

bool sv_commit_idle(struct sv_pool *p)
{
	sv_lock_flags_t f;
	bool idle;

	sv_lock(&p->lock, f);
	idle = !p->tickets && (p->mode == SV_MODE_FAIL ||
			       (p->head == p->durable && !dirty_members(p) && !taken_members(p) && !p->copy_lost));
	sv_unlock(&p->lock, f);
	return idle;
}

/* ---- rounds ---- */

static void board(struct sv_pool *p, u32 i)
{
	u64 bit = 1ull << i;
	struct sv_ticket *t;

	for (t = p->tickets; t; t = t->next) {
		if (!(t->need & bit))
			continue;
		t->need &= ~bit;
		t->riding |= bit;
		if (t->flush) {
			atomic64_andnot((s64)bit, &t->volume->owed);
			t->volume->flushing |= bit;
		}
	}
	p->need &= ~bit;
}

static void alight(struct sv_pool *p, u32 i, bool failed)
{
	u64 bit = 1ull << i;
	struct sv_ticket *t;

	for (t = p->tickets; t; t = t->next) {
		if (!(t->riding & bit))
			continue;
		t->riding &= ~bit;
		if (t->flush) {
			t->volume->flushing &= ~bit;
			t->volume->rec_pos = p->head;
		}
		if (failed) {
			t->error = -EIO;
			if (t->flush)
				atomic64_or((s64)bit, &t->volume->owed);
		}
		if (!(t->need | t->riding))
			rounds_are_over(p, t);
	}
}

/* Dirty partials that one flush can publish. True: some are left for another flush of this round. */
static bool take(struct sv_pool *p, u32 i)
{
	struct sv_member *m = p->members[i];

	for (;;) {
		struct sv_partial *pt;
		u32 next;

		if (!m->todo) {
			/* Once only: what is listed after this is the next round's. */
			m->todo = m->fresh ? 0 : sv_partials_listed(m);
			if (!m->todo)
				return false;
			m->fresh = true;
		}
		pt = sv_partial_at(p, m->todo);
		next = pt->link;
		pt->link = m->todo;	/* once the mark is cleared a completion may list it again, by its own index */
		if (!sv_partial_take(p, i, pt)) {
			pt->link = next;
			return true;
		}
		m->todo = next;
	}
}

static bool may_begin(struct sv_pool *p, u32 i)
{
	struct sv_member *m = p->members[i];

	if (m->flushing || p->mode == SV_MODE_FAIL || !(m->more || (p->need >> i & 1)))
		return false;
	if (!is_dirty(m) || sv_stream_room(p, SV_VALID_WORDS * SV_VALID_REC))
		return true;
	want_journal(p);
	return false;
}

static bool begin_round(struct sv_pool *p, u32 i)
{
	struct sv_member *m;

	if (!may_begin(p, i))
		return false;
	m = p->members[i];
	if (!m->more) {
		board(p, i);
		m->fresh = false;
	}
	smp_mb();		/* pairs with the one in plan.c:owe() */
	m->more = take(p, i);
	m->flushing = true;
	return true;
}

bool sv_commit_round(struct sv_pool *p, u32 i)
{
	sv_lock_flags_t f;
	bool begin;

	sv_lock(&p->lock, f);
	begin = i < p->nr_members && begin_round(p, i);
	sv_unlock(&p->lock, f);
	return begin;
}

bool sv_flush_ticket_begin(struct sv_volume *v, struct sv_ticket *t, u32 *member)
{
	struct sv_pool *p = v->pool;
	bool wait, alone;
	sv_lock_flags_t f;

	*member = SV_MAX_MEMBERS;
	sv_lock(&p->lock, f);
	alone = !p->tickets && !p->crowded;
	wait = flush_ticket(v, t);
	if (alone && hweight64(t->need) == 1 && !t->riding) {
		u32 i = (u32)__ffs64(t->need);

		if (begin_round(p, i))
			*member = i;
	}
	sv_unlock(&p->lock, f);
	return wait;
}

void sv_commit_flushed(struct sv_pool *p, u32 i, bool failed)
{
	struct sv_member *m = p->members[i];
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	m->flushing = false;
	if (failed) {
		m->errors++;
		m->more = false;
		sv_partials_put_back(p, i);
	} else {
		sv_partials_publish(p, i);
	}
	if (!m->more)
		alight(p, i, failed);
	sv_unlock(&p->lock, f);
}

/* ---- the journal writer ---- */

static void copy_stream(const struct sv_pool *p, u64 from, void *to, u32 bytes)
{
	u32 at = (u32)(from % SV_STREAM_BYTES), n = min_t(u32, bytes, SV_STREAM_BYTES - at);

	memcpy(to, p->stream + at, n);
	memcpy((u8 *)to + n, p->stream, bytes - n);
}

/* Whole records from durable up to pos that fit into one batch. Nobody changes them, so no lock is held. */
static u32 gather(const struct sv_pool *p, u64 pos, u32 *records, u32 *flags)
{
	u64 at = p->durable;
	u32 bytes = 0;

	*records = 0;
	while (at < pos) {
		u8 type = p->stream[at % SV_STREAM_BYTES];
		u32 n = sv_rec_size(type);

		if (bytes + n > p->batch_max - SV_BATCH_HEAD)
			break;
		bytes += n;
		at += n;
		(*records)++;
		if (type == SV_REC_FOLD)
			*flags |= SV_BATCH_FOLDS;
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

/* Only what the batches before have left there. */
static void pad(struct sv_pool *p, u32 bytes)
{
	if (p->batch_used > bytes)
		memset(p->batch + bytes, 0, p->batch_used - bytes);
	p->batch_used = bytes;
}

bool sv_commit_batch(struct sv_pool *p, struct sv_commit *c)
{
	u32 records, bytes, flags;
	sv_lock_flags_t f;
	u64 head, tail;
	bool begin;

	sv_lock(&p->lock, f);
	begin = !p->writing && p->mode < SV_MODE_FAIL && (p->wanted > p->durable || p->copy_lost);
	p->writing |= begin;
	head = p->head;
	tail = p->tail_seq;
	flags = p->copy_lost ? SV_BATCH_COPY_LOST : 0;
	sv_unlock(&p->lock, f);
	if (!begin)
		return false;
	bytes = gather(p, head, &records, &flags);
	c->batch_pos = p->durable + bytes;
	bytes += SV_BATCH_HEAD;
	c->used = bytes;
	c->len = ALIGN(bytes, SV_BATCH_ALIGN);
	pad(p, bytes);
	c->batch_next = place(p, c->len) + c->len;
	c->off = (c->batch_next - c->len) % p->ring_len;
	c->buf = p->batch;
	if (WARN_ON_ONCE(c->batch_next - READ_ONCE(p->ring_tail) > p->ring_len)) {	/* [I16] broken */
		sv_pool_degrade(p, SV_MODE_FAIL);
		return false;
	}
	c->batch_crc = sv_batch_seal(p->batch, bytes, records, p->next_seq, p->incarnation, p->prev_crc, flags, tail,
				     c->off);
	return true;
}

static void settle(struct sv_pool *p, const struct sv_commit *c, u64 from)
{
	u32 at = SV_BATCH_HEAD, end = SV_BATCH_HEAD + (u32)(c->batch_pos - from);
	sv_lock_flags_t f;

	while (at < end) {
		const struct sv_rec_head *h = (const struct sv_rec_head *)(p->batch + at);

		if (h->type == SV_REC_VALID && (h->flags & SV_VALID_ALL)) {
			sv_lock(&p->lock, f);
			sv_partial_settle(p, le32_to_cpu(h->extent), le16_to_cpu(h->gen));
			sv_unlock(&p->lock, f);
		}
		at += sv_rec_size(h->type);
	}
}

void sv_commit_written(struct sv_pool *p, struct sv_commit *c, u64 ok_mask)
{
	sv_lock_flags_t f;
	u64 from;

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
	p->commits++;
	from = p->durable;
	WRITE_ONCE(p->ring_head, c->batch_next);
	WRITE_ONCE(p->durable, c->batch_pos);
	if (p->listed_seq == SV_SEQ_UNKNOWN && p->durable >= p->listed_pos)
		p->listed_seq = p->next_seq - 1;
	if ((p->ring_head - p->ring_tail) * 4 > p->ring_len)
		atomic64_or(SV_EVENT_RING, &p->events);
	p->writing = false;
	sv_unlock(&p->lock, f);
	settle(p, c, from);
}

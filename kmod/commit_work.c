// SPDX-License-Identifier: GPL-2.0
/*
 * The commit's I/O: flushes of members and writes of batches, as core/commit.c asks for them. One ordered worker per
 * pool drives it and never waits: it takes what has ended, begins what may begin, and hands back tickets. Each I/O
 * is submitted by a work item of its own, since even submitting may block on a device that hangs, and its end
 * queues the worker again. So no member is waited for by those who do not need it.
 *
 * Bios lie in the members themselves and their vectors were allocated with them: a commit allocates nothing [I9].
 */
#include <linux/device-mapper.h>
#include <linux/highmem.h>
#include <linux/sched/mm.h>

#include "sv.h"
#include "trace.h"

#define SV_BATCH_TRIES	3	/* of one journal write, always the same bytes [I17] */

struct sv_sync {
	struct sv_waiter waiter;
	struct completion done;
};

/* ---- I/O: begun by a work item, ended in any context ---- */

static void sv_io_ended(struct sv_disk *d, struct bio *bio, struct sv_io_masks *m)
{
	u64 bit = 1ull << d->index;

	if (bio->bi_status) {
		atomic64_inc(&d->errors);
		atomic64_or((s64)bit, &m->failed);
	}
	(void)atomic64_fetch_or((s64)bit, &m->ended);	/* full barrier: failed is seen before ended */
	sv_commit_queue(d->pool);
}

/* Members whose I/O has ended since the last call. */
static u64 sv_take_ended(struct sv_io_masks *m, u64 *failed)
{
	u64 ended = (u64)atomic64_xchg(&m->ended, 0);

	*failed = (u64)atomic64_fetch_andnot((s64)ended, &m->failed) & ended;
	return ended;
}

static void sv_flush_end_io(struct bio *bio)
{
	struct sv_disk *d = bio->bi_private;

	sv_io_ended(d, bio, &d->pool->flushes);
}

static void sv_flush_work(struct work_struct *work)
{
	struct sv_disk *d = container_of(work, struct sv_disk, flush_work);
	unsigned int noio = memalloc_noio_save();

	bio_init(&d->flush_bio, d->dev.bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	d->flush_bio.bi_end_io = sv_flush_end_io;
	d->flush_bio.bi_private = d;
	submit_bio(&d->flush_bio);
	memalloc_noio_restore(noio);
}

/* The batch lies in kmalloc or vmalloc memory. */
static void sv_bio_add_buf(struct bio *bio, void *buf, u32 len)
{
	while (len) {
		u32 n = min_t(u32, len, PAGE_SIZE - offset_in_page(buf));
		struct page *page = is_vmalloc_addr(buf) ? vmalloc_to_page(buf) : virt_to_page(buf);

		__bio_add_page(bio, page, n, offset_in_page(buf));
		buf += n;
		len -= n;
	}
}

static void sv_ring_end_io(struct bio *bio)
{
	struct sv_disk *d = bio->bi_private;

	sv_io_ended(d, bio, &d->pool->writes);
}

static void sv_ring_work(struct work_struct *work)
{
	struct sv_disk *d = container_of(to_delayed_work(work), struct sv_disk, ring_work);
	const struct sv_commit *c = &d->pool->batch;
	unsigned int noio = memalloc_noio_save();

	bio_init(&d->ring_bio, d->dev.bdev, d->ring_vecs, SV_BATCH_MAX / PAGE_SIZE + 1,
		 REQ_OP_WRITE | REQ_SYNC | REQ_META | REQ_FUA);
	d->ring_bio.bi_iter.bi_sector = (d->ring_off + c->off) >> SECTOR_SHIFT;
	d->ring_bio.bi_end_io = sv_ring_end_io;
	d->ring_bio.bi_private = d;
	sv_bio_add_buf(&d->ring_bio, c->buf, c->len);
	submit_bio(&d->ring_bio);
	memalloc_noio_restore(noio);
}

void sv_commit_init_disk(struct sv_disk *d)
{
	INIT_WORK(&d->flush_work, sv_flush_work);
	INIT_DELAYED_WORK(&d->ring_work, sv_ring_work);
}

/* ---- the worker: rounds ---- */

static void sv_end_flushes(struct sv_kpool *kp)
{
	u64 failed, ended = sv_take_ended(&kp->flushes, &failed);
	u32 i;

	if (failed)
		DMERR_LIMIT("pool %pUb: flush failed on members %#llx", &kp->uuid, failed);
	for (i = 0; ended >> i; i++)
		if (ended >> i & 1) {
			trace_sv_flush(i, failed >> i & 1);
			sv_commit_flushed(kp->core, i, failed >> i & 1);
		}
	WRITE_ONCE(kp->flushing, kp->flushing & ~ended);
}

static void sv_begin_flushes(struct sv_kpool *kp)
{
	u32 i, nr = smp_load_acquire(&kp->nr_disks);

	for (i = 0; i < nr; i++)
		if (sv_commit_round(kp->core, i)) {
			WRITE_ONCE(kp->flushing, kp->flushing | 1ull << i);
			queue_work(kp->wq, &kp->disks[i]->flush_work);
		}
}

/* ---- the worker: the journal ---- */

static void sv_write_copy(struct sv_kpool *kp, u32 i, unsigned long delay)
{
	kp->disks[i]->ring_tries++;
	queue_delayed_work(kp->wq, &kp->disks[i]->ring_work, delay);
}

static void sv_begin_batch(struct sv_kpool *kp)
{
	struct sv_commit *c = &kp->batch;
	u32 i;

	if (!sv_commit_batch(kp->core, c))
		return;
	if (is_vmalloc_addr(c->buf))
		flush_kernel_vmap_range(c->buf, c->len);
	kp->copies_ok = 0;
	kp->copies_lost = 0;
	WRITE_ONCE(kp->copies, sv_pool_ring_members(kp->core));
	for (i = 0; i < kp->nr_disks; i++)
		if (kp->copies >> i & 1) {
			kp->disks[i]->ring_tries = 0;
			sv_write_copy(kp, i, 0);
		}
}

/* Writes that failed are repeated; a copy that keeps failing is lost. True: the fate of every copy is known. */
static bool sv_collect_copies(struct sv_kpool *kp)
{
	u64 failed, ended = sv_take_ended(&kp->writes, &failed);
	u32 i;

	kp->copies_ok |= ended & ~failed;
	for (i = 0; failed >> i; i++) {
		if (!(failed >> i & 1))
			continue;
		if (kp->disks[i]->ring_tries < SV_BATCH_TRIES)
			sv_write_copy(kp, i, msecs_to_jiffies(20 << kp->disks[i]->ring_tries));
		else
			kp->copies_lost |= 1ull << i;
	}
	return ended && (kp->copies_ok | kp->copies_lost) == kp->copies;
}

static void sv_end_batch(struct sv_kpool *kp)
{
	if (!sv_collect_copies(kp))
		return;
	if (kp->copies_lost)
		DMERR("pool %pUb: journal write failed on members %#llx", &kp->uuid, kp->copies_lost);
	trace_sv_batch(kp->batch.off, kp->batch.len, kp->copies_ok);
	sv_commit_written(kp->core, &kp->batch, kp->copies_ok);
	WRITE_ONCE(kp->copies, 0);
}

/* ---- the worker ---- */

static void sv_complete_tickets(struct sv_ticket *t)
{
	while (t) {
		struct sv_ticket *next = t->next;
		struct sv_waiter *w = container_of(t, struct sv_waiter, ticket);

		w->done(w);
		t = next;
	}
}

static bool sv_commit_quiet(struct sv_kpool *kp)
{
	return !READ_ONCE(kp->flushing) && !READ_ONCE(kp->copies);
}

static void sv_commit_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(work, struct sv_kpool, commit_work);

	sv_end_flushes(kp);
	sv_end_batch(kp);
	sv_begin_flushes(kp);
	sv_begin_batch(kp);
	sv_kpool_check_mode(kp);
	sv_complete_tickets(sv_commit_done(kp->core));
	sv_defer_reclaim(kp);
	if (wq_has_sleeper(&kp->events_wait))
		wake_up_interruptible(&kp->events_wait);
	if (sv_commit_quiet(kp))
		wake_up(&kp->quiet_wait);
	if (!sv_commit_idle(kp->core))
		sv_commit_arm(kp);
}

static void sv_commit_tick(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(to_delayed_work(work), struct sv_kpool, tick);

	clear_bit(SV_KP_TICK_ARMED, &kp->flags);
	smp_mb__after_atomic();		/* pairs with the barrier in sv_commit_arm() */
	if (sv_commit_idle(kp->core))
		return;
	sv_commit_all(kp->core);
	sv_commit_queue(kp);
}

/* Something happened that a commit should make durable soon. Any context; an idle pool has no timer. */
void sv_commit_arm(struct sv_kpool *kp)
{
	smp_mb();			/* what happened is seen before the timer is seen unarmed */
	if (READ_ONCE(kp->dead))
		return;			/* sv_commit_stop() makes the last commit */
	if (test_bit(SV_KP_TICK_ARMED, &kp->flags) || test_and_set_bit(SV_KP_TICK_ARMED, &kp->flags))
		return;
	queue_delayed_work(kp->commit_wq, &kp->tick, msecs_to_jiffies(sv_pool_commit_ms(kp->core)));
}

/* A ticket waits, or an I/O has ended. Any context. */
void sv_commit_queue(struct sv_kpool *kp)
{
	queue_work(kp->commit_wq, &kp->commit_work);
}

static void sv_sync_done(struct sv_waiter *w)
{
	complete(&container_of(w, struct sv_sync, waiter)->done);
}

static int sv_commit_sync(struct sv_kpool *kp, bool bits)
{
	struct sv_sync s = { .waiter.done = sv_sync_done };

	init_completion(&s.done);
	sv_ticket_add(kp->core, &s.waiter.ticket, bits);
	sv_commit_queue(kp);
	wait_for_completion_io(&s.done);
	return s.waiter.ticket.error;
}

/* Commits everything and waits for it. */
int sv_commit_wait(struct sv_kpool *kp)
{
	return sv_commit_sync(kp, true);
}

/* Begins to commit everything and waits for the records that there are, so for the journal and no other device. */
void sv_commit_make_room(struct sv_kpool *kp)
{
	sv_commit_all(kp->core);
	sv_commit_sync(kp, false);
}

void sv_commit_init(struct sv_kpool *kp)
{
	INIT_WORK(&kp->commit_work, sv_commit_work);
	INIT_DELAYED_WORK(&kp->tick, sv_commit_tick);
	init_waitqueue_head(&kp->quiet_wait);
}

/* The last commit; nothing writes any more. */
void sv_commit_stop(struct sv_kpool *kp)
{
	if (!sv_commit_idle(kp->core))
		sv_commit_wait(kp);
	/* Tickets of a failed pool do not wait for flushes, but these use what is freed now. */
	wait_event(kp->quiet_wait, sv_commit_quiet(kp));
	/* A commit that began before kp->dead was set may still arm the timer, one that the timer queues may not. */
	flush_work(&kp->commit_work);
	cancel_delayed_work_sync(&kp->tick);
	cancel_work_sync(&kp->commit_work);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The commit's I/O: flushes of members and writes of batches, as core/commit.c asks for them. One ordered worker per
 * pool, so one commit at a time. Its bios lie in the members themselves and their vectors were allocated with them:
 * a commit allocates nothing [I9]. Waits for hardware only.
 */
#include <linux/delay.h>
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

/* ---- one bio to each of several members, and wait ---- */

static void sv_io_put(struct sv_kpool *kp)
{
	if (atomic_dec_and_test(&kp->io_pending))
		complete(&kp->io_done);
}

static void sv_commit_end_io(struct bio *bio)
{
	struct sv_disk *d = bio->bi_private;

	if (bio->bi_status) {
		atomic64_inc(&d->errors);
		atomic64_or((s64)(1ull << d->index), &d->pool->io_failed);
	}
	sv_io_put(d->pool);
}

static void sv_io_begin(struct sv_kpool *kp)
{
	atomic_set(&kp->io_pending, 1);
	atomic64_set(&kp->io_failed, 0);
	reinit_completion(&kp->io_done);
}

static void sv_io_submit(struct sv_disk *d)
{
	d->bio.bi_end_io = sv_commit_end_io;
	d->bio.bi_private = d;
	atomic_inc(&d->pool->io_pending);
	submit_bio(&d->bio);
}

/* Returns the mask of members that failed. */
static u64 sv_io_finish(struct sv_kpool *kp)
{
	sv_io_put(kp);
	wait_for_completion_io(&kp->io_done);
	return (u64)atomic64_read(&kp->io_failed);
}

static u64 sv_flush_members(struct sv_kpool *kp, u64 mask)
{
	u32 i;

	if (!mask)
		return 0;
	sv_io_begin(kp);
	for (i = 0; i < kp->nr_disks; i++)
		if (mask >> i & 1) {
			struct sv_disk *d = kp->disks[i];

			bio_init(&d->bio, d->dev.bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
			sv_io_submit(d);
		}
	return sv_io_finish(kp);
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

static void sv_write_copy(struct sv_disk *d, const struct sv_commit *c)
{
	blk_opf_t opf = REQ_OP_WRITE | REQ_SYNC | REQ_META | REQ_FUA | (c->preflush ? REQ_PREFLUSH : 0);

	bio_init(&d->bio, d->dev.bdev, d->ring_vecs, SV_BATCH_MAX / PAGE_SIZE + 1, opf);
	d->bio.bi_iter.bi_sector = (d->ring_off + c->off) >> SECTOR_SHIFT;
	sv_bio_add_buf(&d->bio, c->buf, c->len);
	sv_io_submit(d);
}

/* Returns the mask of copies that hold the batch. */
static u64 sv_write_batch(struct sv_kpool *kp, const struct sv_commit *c)
{
	u64 want = sv_pool_ring_members(kp->core), ok = 0;
	int tries;
	u32 i;

	if (is_vmalloc_addr(c->buf))
		flush_kernel_vmap_range(c->buf, c->len);
	for (tries = 0; tries < SV_BATCH_TRIES && ok != want; tries++) {
		if (tries)
			msleep(20 << tries);
		sv_io_begin(kp);
		for (i = 0; i < kp->nr_disks; i++)
			if ((want & ~ok) >> i & 1 && kp->disks[i]->ring_vecs)
				sv_write_copy(kp->disks[i], c);
		ok = want & ~sv_io_finish(kp);
	}
	if (ok != want)
		DMERR("pool %pUb: journal write failed on members %#llx", &kp->uuid, want & ~ok);
	trace_sv_batch(c->off, c->len, c->preflush, ok);
	return ok;
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

static bool sv_commit_once(struct sv_kpool *kp, bool all)
{
	struct sv_commit c;
	u64 failed;

	if (!sv_commit_take(kp->core, &c, all))
		return false;
	failed = sv_flush_members(kp, c.flush_mask);
	if (failed)
		DMERR_LIMIT("pool %pUb: flush failed on members %#llx", &kp->uuid, failed);
	trace_sv_commit(c.flush_mask, failed, all);
	sv_commit_flushed(kp->core, &c, failed);
	while (sv_commit_batch(kp->core, &c))
		sv_commit_written(kp->core, &c, sv_write_batch(kp, &c));
	sv_commit_finish(kp->core, &c);
	sv_kpool_check_mode(kp);
	sv_complete_tickets(c.tickets);
	return true;
}

static void sv_commit_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(work, struct sv_kpool, commit_work);
	unsigned int noio = memalloc_noio_save();

	while (sv_commit_once(kp, test_and_clear_bit(SV_KP_COMMIT_ALL, &kp->flags)))
		cond_resched();
	memalloc_noio_restore(noio);
	sv_defer_reclaim(kp);
	if (wq_has_sleeper(&kp->events_wait))
		wake_up_interruptible(&kp->events_wait);
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
	set_bit(SV_KP_COMMIT_ALL, &kp->flags);
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

/* A ticket waits. Any context. */
void sv_commit_queue(struct sv_kpool *kp)
{
	queue_work(kp->commit_wq, &kp->commit_work);
}

static void sv_sync_done(struct sv_waiter *w)
{
	complete(&container_of(w, struct sv_sync, waiter)->done);
}

/* Commits everything and waits for it. */
int sv_commit_wait(struct sv_kpool *kp)
{
	struct sv_sync s = { .waiter.done = sv_sync_done };

	init_completion(&s.done);
	set_bit(SV_KP_COMMIT_ALL, &kp->flags);
	sv_ticket_add(kp->core, &s.waiter.ticket);
	sv_commit_queue(kp);
	wait_for_completion_io(&s.done);
	return s.waiter.ticket.error;
}

void sv_commit_init(struct sv_kpool *kp)
{
	INIT_WORK(&kp->commit_work, sv_commit_work);
	INIT_DELAYED_WORK(&kp->tick, sv_commit_tick);
	init_completion(&kp->io_done);
}

/* The last commit; nothing writes any more. */
void sv_commit_stop(struct sv_kpool *kp)
{
	if (!sv_commit_idle(kp->core))
		sv_commit_wait(kp);
	/* A commit that began before kp->dead was set may still arm the timer, one that the timer queues may not. */
	flush_work(&kp->commit_work);
	cancel_delayed_work_sync(&kp->tick);
	cancel_work_sync(&kp->commit_work);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The commit's I/O: flushes of members and writes of batches, as core/commit.c asks for them. One worker per pool
 * drives it and never waits: it takes what has ended, begins what may begin, and hands back tickets. Each I/O is
 * submitted by a work item of its own, since even submitting may block on a device that hangs, and its end queues
 * the worker again. So no member is waited for by those who do not need it. Who comes alone and needs a flush of one
 * member only submits it himself (sv_map_flush()), which saves him a worker's turn.
 *
 * Bios lie in the members themselves and in ring.c's structures: a commit allocates nothing [I9].
 */
#include <linux/blk-cgroup.h>
#include <linux/device-mapper.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>

#include "sv.h"
#include "trace.h"

#define SV_BATCH_TRIES	3	/* of one journal write, always the same bytes [I17] */

/* At least 100; a copy is given up only where another one holds the batch. */
static unsigned int sv_journal_timeout_ms = 30000;
module_param_named(journal_timeout_ms, sv_journal_timeout_ms, uint, 0644);
MODULE_PARM_DESC(journal_timeout_ms, "Milliseconds after which a journal copy that hangs is given up (30000)");

struct sv_sync {
	struct sv_waiter waiter;
	struct completion done;
};

/* ---- I/O: begun by a work item, ended in any context ---- */

/* Once ended is seen the pool may be stopped: the RCU section keeps it, see sv_commit_stop(). */
static void sv_io_ended(struct sv_disk *d, blk_status_t status, struct sv_io_masks *m)
{
	u64 bit = 1ull << d->index;

	rcu_read_lock();
	if (status) {
		atomic64_inc(&d->errors);
		atomic64_or((s64)bit, &m->failed);
	}
	(void)atomic64_fetch_or((s64)bit, &m->ended);	/* full barrier: failed is seen before ended */
	sv_commit_queue(d->pool);
	rcu_read_unlock();
}

void sv_commit_ring_ended(struct sv_disk *d, blk_status_t status)
{
	sv_io_ended(d, status, &d->pool->writes);
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

	sv_io_ended(d, bio->bi_status, &d->pool->flushes);
}

static void sv_flush_submit(struct sv_disk *d)
{
	unsigned int noio = memalloc_noio_save();

	bio_init(&d->flush_bio, d->dev.bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	/* Others wait for it, too: it must not wait among what the cgroup of who happens to submit it may write. */
	bio_associate_blkg_from_css(&d->flush_bio, blkcg_root_css);
	d->flush_bio.bi_end_io = sv_flush_end_io;
	d->flush_bio.bi_private = d;
	submit_bio(&d->flush_bio);
	memalloc_noio_restore(noio);
}

static void sv_flush_work(struct work_struct *work)
{
	sv_flush_submit(container_of(work, struct sv_disk, flush_work));
}

/* Of a round that has begun. */
void sv_commit_flush(struct sv_disk *d)
{
	atomic64_or((s64)(1ull << d->index), &d->pool->flushing);
	sv_flush_submit(d);
}

void sv_commit_init_disk(struct sv_disk *d)
{
	INIT_WORK(&d->flush_work, sv_flush_work);
}

/* ---- the worker: rounds ---- */

static void sv_end_flushes(struct sv_kpool *kp)
{
	u64 failed, ended = sv_take_ended(&kp->flushes, &failed), todo = ended;

	if (failed)
		DMERR_LIMIT("pool %pUb: flush failed on members %#llx", &kp->uuid, failed);
	atomic64_andnot((s64)ended, &kp->flushing);	/* before anybody may begin the next */
	while (todo) {
		u32 i = sv_take_member(&todo);

		trace_sv_flush(i, failed >> i & 1);
		sv_commit_flushed(kp->core, i, failed >> i & 1);
	}
}

static void sv_begin_flushes(struct sv_kpool *kp)
{
	u32 nr = smp_load_acquire(&kp->nr_disks);	/* with the disks below it */
	u32 i;

	for (i = 0; i < nr; i++)
		if (sv_commit_round(kp->core, i)) {
			atomic64_or((s64)(1ull << i), &kp->flushing);
			queue_work(kp->flush_wq, &kp->disks[i]->flush_work);
		}
}

/* ---- the worker: the journal ---- */

static unsigned long sv_journal_timeout(void)
{
	return msecs_to_jiffies(max(READ_ONCE(sv_journal_timeout_ms), 100u));
}

static void sv_begin_batch(struct sv_kpool *kp)
{
	u32 i;

	if (!sv_commit_batch(kp->core, &kp->batch))
		return;
	kp->copies_ok = 0;
	kp->copies_lost = 0;
	kp->batch_since = jiffies;
	WRITE_ONCE(kp->copies, sv_pool_ring_members(kp->core));
	for (i = 0; i < kp->nr_disks; i++)
		if (kp->copies >> i & 1) {
			kp->disks[i]->ring_tries = 1;
			sv_ring_write(kp->disks[i]->ring, &kp->batch);
		}
	/* Armed once for many batches: it looks how old the one on its way is. */
	if (hweight64(kp->copies) > 1)
		queue_delayed_work(kp->commit_wq, &kp->ring_watch, sv_journal_timeout());
}

/* Writes that failed are repeated; a copy that keeps failing is lost. */
static void sv_collect_copies(struct sv_kpool *kp)
{
	u64 failed, ended = sv_take_ended(&kp->writes, &failed);

	kp->copies_ok |= ended & ~failed;
	while (failed) {
		u32 i = sv_take_member(&failed);
		struct sv_disk *d = kp->disks[i];

		if (d->ring_tries++ < SV_BATCH_TRIES)
			sv_ring_write_again(d->ring, msecs_to_jiffies(20 << (d->ring_tries - 1)));
		else
			kp->copies_lost |= 1ull << i;
	}
}

static void sv_end_batch(struct sv_kpool *kp)
{
	sv_collect_copies(kp);
	if (!kp->copies || (kp->copies_ok | kp->copies_lost) != kp->copies)
		return;
	if (kp->copies_lost)
		DMERR("pool %pUb: journal copies lost: members %#llx", &kp->uuid, kp->copies_lost);
	trace_sv_batch(kp->batch.off, kp->batch.len, kp->copies_ok);
	sv_commit_written(kp->core, &kp->batch, kp->copies_ok);
	WRITE_ONCE(kp->copies, 0);
}

/* The batch lies on another copy: those that have not answered are lost, and their writes left to themselves. */
static void sv_give_up_copies(struct sv_kpool *kp, u64 hung)
{
	while (hung) {
		u32 i = sv_take_member(&hung);
		struct sv_disk *d = kp->disks[i];

		if (!sv_ring_leave(d->ring))
			continue;
		DMERR("pool %pUb: journal write on %pg hangs, its copy is given up", &kp->uuid, d->dev.bdev);
		d->ring = NULL;
		atomic64_inc(&d->errors);
		kp->copies_lost |= 1ull << i;
	}
}

static void sv_watch_copies(struct sv_kpool *kp)
{
	unsigned long due = kp->batch_since + sv_journal_timeout(), delay = HZ / 10;
	u64 hung = kp->copies & ~(kp->copies_ok | kp->copies_lost);

	if (!hung)
		return;			/* the next batch sets the watch again */
	if (time_before(jiffies, due))
		delay = due - jiffies;
	else if (kp->copies_ok)
		sv_give_up_copies(kp, hung);
	queue_delayed_work(kp->commit_wq, &kp->ring_watch, delay);
}

static void sv_ring_watch(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(to_delayed_work(work), struct sv_kpool, ring_watch);

	set_bit(SV_KP_WATCH_DUE, &kp->flags);
	sv_commit_queue(kp);
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
	return !atomic64_read(&kp->flushing) && !READ_ONCE(kp->copies);
}

static void sv_commit_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(work, struct sv_kpool, commit_work);

	sv_end_flushes(kp);
	if (test_and_clear_bit(SV_KP_WATCH_DUE, &kp->flags))
		sv_watch_copies(kp);
	sv_end_batch(kp);
	sv_begin_flushes(kp);
	sv_begin_batch(kp);
	sv_kpool_check_mode(kp);
	sv_complete_tickets(sv_commit_done(kp->core));
	if (sv_reclaim_wanted(kp->core))
		sv_defer_reclaim(kp);
	sv_kpool_tell(kp);
	if (sv_commit_quiet(kp))
		wake_up(&kp->quiet_wait);
	if (!sv_commit_idle(kp->core))
		sv_commit_arm(kp);
}

/* Of everything, and waits for nothing. */
void sv_commit_begin(struct sv_kpool *kp)
{
	if (sv_commit_idle(kp->core))
		return;
	sv_commit_all(kp->core);
	sv_commit_queue(kp);
}

static void sv_commit_tick(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(to_delayed_work(work), struct sv_kpool, tick);

	clear_bit(SV_KP_TICK_ARMED, &kp->flags);
	smp_mb__after_atomic();		/* pairs with the barrier in sv_commit_arm() */
	sv_commit_begin(kp);
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

/* Waits for the records that there are, so for the journal and no other device. */
int sv_commit_records(struct sv_kpool *kp)
{
	return sv_commit_sync(kp, false);
}

/* The same, and begins to commit everything. */
void sv_commit_make_room(struct sv_kpool *kp)
{
	sv_commit_all(kp->core);
	sv_commit_records(kp);
}

/* As a FLUSH of each volume of the snapshot under way, all at once. */
int sv_commit_flush_cut(struct sv_kpool *kp)
{
	struct sv_sync *syncs;
	u32 i, n = 0;
	int ret = 0;

	while (sv_snapshot_volume(kp->core, n))
		n++;
	syncs = kvcalloc(n, sizeof(*syncs), GFP_KERNEL);
	if (!syncs)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		syncs[i].waiter.done = sv_sync_done;
		init_completion(&syncs[i].done);
		if (!sv_flush_ticket(sv_snapshot_volume(kp->core, i), &syncs[i].waiter.ticket))
			complete(&syncs[i].done);
	}
	sv_commit_queue(kp);
	for (i = 0; i < n; i++) {
		wait_for_completion_io(&syncs[i].done);
		ret = ret ? ret : syncs[i].waiter.ticket.error;
	}
	kvfree(syncs);
	return ret;
}

void sv_commit_init(struct sv_kpool *kp)
{
	INIT_WORK(&kp->commit_work, sv_commit_work);
	INIT_DELAYED_WORK(&kp->tick, sv_commit_tick);
	INIT_DELAYED_WORK(&kp->ring_watch, sv_ring_watch);
	init_waitqueue_head(&kp->quiet_wait);
}

/* The last commit; nothing writes any more. */
void sv_commit_stop(struct sv_kpool *kp)
{
	/*
	 * A commit that began before kp->dead was set may still arm the timer, one that the timer queues may not. After
	 * the last commit, which may have failed and left bits to be flushed, nobody may begin another.
	 */
	flush_work(&kp->commit_work);
	cancel_delayed_work_sync(&kp->tick);
	if (!sv_commit_idle(kp->core))
		sv_commit_wait(kp);
	/* Tickets of a failed pool do not wait for flushes, but these use what is freed now. */
	wait_event(kp->quiet_wait, sv_commit_quiet(kp));
	/*
	 * Who handed over the last I/O or bio may not have queued the worker yet: sv_io_ended(), sv_io_flush_ended(),
	 * sv_io_fua_ended(), sv_defer_io().
	 */
	synchronize_rcu();
	flush_work(&kp->commit_work);
	cancel_delayed_work_sync(&kp->ring_watch);
	cancel_work_sync(&kp->commit_work);
}

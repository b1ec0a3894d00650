// SPDX-License-Identifier: GPL-2.0
/*
 * Bios that map() could not answer at once, and the upkeep that lets it answer: refilling reserves, and reclaiming
 * what only a grace period still holds. remap.c hands bios in, from any context. One worker per pool runs them.
 * Each of them ends without user space: DEFER by a refill and a commit, HELD with the command that holds it, NOSPC by
 * its deadline, and RING by one, too: the writes under way that have the ring may be of a member that hangs [I30].
 */
#include <linux/device-mapper.h>
#include <linux/sched/mm.h>

#include "sv.h"

#define SV_SPACE_POLL	(HZ / 10)	/* bios that wait for space look again this often, besides when kicked */
#define SV_RING_MS	60000		/* so long at least the ring is waited for */

void sv_defer_io(struct sv_kpool *kp, struct sv_io *io)
{
	unsigned long flags;

	rcu_read_lock();	/* once listed, io may be gone, and the pool be stopped: see sv_commit_stop() */
	spin_lock_irqsave(&kp->defer_lock, flags);
	list_add_tail(&io->list, &kp->deferred);
	spin_unlock_irqrestore(&kp->defer_lock, flags);
	mod_delayed_work(kp->wq, &kp->defer_work, 0);
	rcu_read_unlock();
}

/* Space or memory has come, or a target suspends: look again. */
void sv_defer_kick(struct sv_kpool *kp)
{
	if (!list_empty_careful(&kp->deferred))
		mod_delayed_work(kp->wq, &kp->defer_work, 0);
}

void sv_defer_refill(struct sv_kpool *kp)
{
	if (unlikely(sv_pool_wants_refill(kp->core)))
		queue_work(kp->wq, &kp->refill_work);
}

void sv_defer_reclaim(struct sv_kpool *kp)
{
	queue_work(kp->wq, &kp->reclaim_work);
}

/* Fails where memory is short, and is tried again: see core/pool.c. [I9] */
static int sv_refill(struct sv_kpool *kp)
{
	int ret;

	mutex_lock(&kp->refill_lock);
	ret = sv_pool_refill(kp->core);
	mutex_unlock(&kp->refill_lock);
	return ret;
}

static void sv_refill_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(work, struct sv_kpool, refill_work);

	if (!sv_refill(kp))
		sv_defer_kick(kp);
}

static void sv_reclaim_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(work, struct sv_kpool, reclaim_work);
	u64 members;

	if (!sv_reclaim_begin(kp->core, &members))
		return;
	sv_kpool_wait_readers(kp, members);
	sv_reclaim_finish(kp->core);
	sv_defer_kick(kp);
}

/* True: the bio has ended, for it has waited for space long enough, @least_ms at least. */
static bool sv_give_up(struct sv_kpool *kp, struct sv_io *io, u32 least_ms)
{
	struct sv_vtarget *t = io->target;
	bool suspending = smp_load_acquire(&t->suspending);	/* pairs with sv_volume_presuspend() */

	if (!io->waits) {
		io->waits = true;
		io->since = jiffies;
	}
	if (!suspending &&
	    time_before(jiffies, io->since + msecs_to_jiffies(max(least_ms, sv_pool_no_space_ms(kp->core)))))
		return false;
	sv_io_end(io, suspending && t->requeue ? BLK_STS_DM_REQUEUE : BLK_STS_NOSPC);
	return true;
}

/* What some of the bios lack that must wait. */
struct sv_lack {
	bool memory;		/* or room in the stream */
	bool ring;
	bool moment;		/* nothing is to be done but to look again soon */
};

/* Runs the bios of @list; those that must wait stay on it. */
static struct sv_lack sv_run_list(struct sv_kpool *kp, struct list_head *list)
{
	struct sv_lack lack = { false };
	struct sv_io *io, *next;

	list_for_each_entry_safe(io, next, list, list) {
		list_del(&io->list);
		switch (sv_io_run(io)) {
		case SV_RUN_GONE:
			continue;
		case SV_RUN_DEFER:
			lack.memory = true;
			break;
		case SV_RUN_HELD:
			lack.moment = true;
			break;
		case SV_RUN_RING:
			if (sv_give_up(kp, io, SV_RING_MS))
				continue;
			lack.ring = true;
			break;
		case SV_RUN_NOSPC:
			if (sv_give_up(kp, io, 0))
				continue;
			break;
		}
		list_add_tail(&io->list, &next->list);
	}
	return lack;
}

static void sv_defer_work(struct work_struct *work)
{
	struct sv_kpool *kp = container_of(to_delayed_work(work), struct sv_kpool, defer_work);
	unsigned int noio = memalloc_noio_save();
	unsigned long delay = SV_SPACE_POLL;
	struct sv_lack lack;
	LIST_HEAD(list);

	spin_lock_irq(&kp->defer_lock);
	list_splice_init(&kp->deferred, &list);
	spin_unlock_irq(&kp->defer_lock);

	sv_defer_refill(kp);
	lack = sv_run_list(kp, &list);
	if (lack.memory) {
		delay = sv_refill(kp) ? HZ / 50 : 1;
		sv_commit_make_room(kp);
		sv_defer_reclaim(kp);
	} else if (lack.ring || lack.moment) {
		delay = HZ / 50;	/* whoever lets go kicks, but may have found the list empty just now */
	}
	if (lack.ring)
		sv_commit_begin(kp);	/* of what has ended it takes less than was promised */
	if (!list_empty(&list)) {
		sv_kpool_tell(kp);
		spin_lock_irq(&kp->defer_lock);
		list_splice(&list, &kp->deferred);
		spin_unlock_irq(&kp->defer_lock);
		queue_delayed_work(kp->wq, &kp->defer_work, delay);
	}
	memalloc_noio_restore(noio);
}

/* ---- bios of the worker on their way to a member ---- */

/* Submitting, or zeroing by hand, may block on a member that hangs, and must not keep the worker from others' bios. */
void sv_defer_send(struct sv_disk *d, struct bio *bio)
{
	spin_lock(&d->sends_lock);
	bio_list_add(&d->sends, bio);
	spin_unlock(&d->sends_lock);
	queue_work(d->pool->wq, &d->send_work);
}

static struct bio *sv_next_send(struct sv_disk *d)
{
	struct bio *bio;

	spin_lock(&d->sends_lock);
	bio = bio_list_pop(&d->sends);
	spin_unlock(&d->sends_lock);
	return bio;
}

static void sv_send_work(struct work_struct *work)
{
	struct sv_disk *d = container_of(work, struct sv_disk, send_work);
	unsigned int noio = memalloc_noio_save();
	struct bio *bio;

	while ((bio = sv_next_send(d))) {
		sv_io_submit(bio);
		cond_resched();
	}
	memalloc_noio_restore(noio);
}

void sv_defer_init_disk(struct sv_disk *d)
{
	spin_lock_init(&d->sends_lock);
	bio_list_init(&d->sends);
	INIT_WORK(&d->send_work, sv_send_work);
}

void sv_defer_init(struct sv_kpool *kp)
{
	spin_lock_init(&kp->defer_lock);
	INIT_LIST_HEAD(&kp->deferred);
	INIT_DELAYED_WORK(&kp->defer_work, sv_defer_work);
	INIT_WORK(&kp->refill_work, sv_refill_work);
	INIT_WORK(&kp->reclaim_work, sv_reclaim_work);
	mutex_init(&kp->refill_lock);
}

/* No volume is open any more, so no bio is left. */
void sv_defer_stop(struct sv_kpool *kp)
{
	cancel_delayed_work_sync(&kp->defer_work);
	cancel_work_sync(&kp->refill_work);
	cancel_work_sync(&kp->reclaim_work);
}

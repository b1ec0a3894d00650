// SPDX-License-Identifier: GPL-2.0
/*
 * I/O of FOLD and MOVE: the steps are the core's (core/fold.c, move.c), the copies dm-kcopyd's, the waits between them
 * ours. Called by one command at a time, with the pool's recycle_lock. Between its first step and its last some writes
 * are held: so nothing that is allocated there waits for writeback, and what is waited for are the members that are
 * copied from and to, and the journal.
 */
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/device-mapper.h>
#include <linux/dm-kcopyd.h>
#include <linux/sched/mm.h>

#include "sv.h"
#include "trace.h"

/* One command's copies. */
struct sv_copies {
	struct sv_kpool *kp;
	const struct sv_relocation *steps;
	atomic_t left;			/* and one for who starts them */
	atomic_t failed;
	struct completion done;
};

struct sv_copy {
	struct sv_copies *all;
	u32 of;
	u8 from, to;
};

/* Before anything is held. */
int sv_copy_prepare(struct sv_kpool *kp)
{
	int ret = sv_commit_wait(kp);	/* so that few extents have bits that are not durable */

	if (ret || kp->copier)
		return ret;
	kp->copier = dm_kcopyd_client_create(NULL);
	if (IS_ERR(kp->copier)) {
		ret = PTR_ERR(kp->copier);
		kp->copier = NULL;
	}
	return ret;
}

void sv_copy_stop(struct sv_kpool *kp)
{
	if (kp->copier)
		dm_kcopyd_client_destroy(kp->copier);
}

static void sv_copy_put(struct sv_copies *all)
{
	if (atomic_dec_and_test(&all->left))
		complete(&all->done);
}

static void sv_copy_failed(struct sv_copies *all, u32 of)
{
	atomic_inc(&all->failed);
	all->steps->failed(all->kp->core, of);
}

static void sv_copied(int read_error, unsigned long write_error, void *context)
{
	struct sv_copy *copy = context;
	struct sv_disk **disks = copy->all->kp->disks;

	if (read_error)
		atomic64_inc(&disks[copy->from]->errors);
	if (write_error)
		atomic64_inc(&disks[copy->to]->errors);
	if (read_error || write_error)
		sv_copy_failed(copy->all, copy->of);
	sv_copy_put(copy->all);
	kfree(copy);
}

static struct dm_io_region sv_region(struct sv_kpool *kp, u32 member, u64 sector, u32 blocks)
{
	return (struct dm_io_region){
		.bdev = kp->disks[member]->dev.bdev,
		.sector = sector,
		.count = (sector_t)blocks * SV_BLOCK_SECTORS,
	};
}

/* Few are: where a file system has holes. Not kcopyd's, which takes a member's refusal of WRITE_ZEROES for an error. */
static void sv_zero_one(struct sv_copies *all, const struct sv_copy_run *c)
{
	struct sv_disk *d = all->kp->disks[c->to];

	if (!blkdev_issue_zeroout(d->dev.bdev, c->to_sector, (sector_t)c->blocks * SV_BLOCK_SECTORS, GFP_NOIO,
				  BLKDEV_ZERO_NOUNMAP))
		return;
	atomic64_inc(&d->errors);
	sv_copy_failed(all, c->of);
}

static void sv_copy_one(struct sv_copies *all, const struct sv_copy_run *c)
{
	struct sv_kpool *kp = all->kp;
	struct dm_io_region from = sv_region(kp, c->from, c->from_sector, c->blocks);
	struct dm_io_region to = sv_region(kp, c->to, c->to_sector, c->blocks);
	struct sv_copy *copy = kmalloc(sizeof(*copy), GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);

	if (!copy) {
		sv_copy_failed(all, c->of);
		return;
	}
	*copy = (struct sv_copy){ .all = all, .of = c->of, .from = c->from, .to = c->to };
	atomic_inc(&all->left);
	dm_kcopyd_copy(kp->copier, &from, 1, &to, 0, sv_copied, copy);
}

/* The number of copies that failed. */
static u32 sv_copy_all(struct sv_kpool *kp, const struct sv_relocation *steps)
{
	struct sv_copies all = { .kp = kp, .steps = steps, .left = ATOMIC_INIT(1) };
	struct sv_copy_run c;

	init_completion(&all.done);
	while (steps->next(kp->core, &c)) {
		if (c.zero)
			sv_zero_one(&all, &c);
		else
			sv_copy_one(&all, &c);
	}
	sv_copy_put(&all);
	wait_for_completion_io(&all.done);
	return atomic_read(&all.failed);
}

/* Those of which it failed. */
static u64 sv_flush_members(struct sv_kpool *kp, u64 members)
{
	u64 failed = 0;

	while (members) {
		u32 i = sv_take_member(&members);

		if (!blkdev_issue_flush(kp->disks[i]->dev.bdev))
			continue;
		atomic64_inc(&kp->disks[i]->errors);
		failed |= 1ull << i;
	}
	return failed;
}

/* After its first step. The number of extents that it is done with; *@error only if the journal failed. */
u32 sv_relocate(struct sv_kpool *kp, const struct sv_relocation *steps, u64 members, int *error)
{
	unsigned int noio = memalloc_noio_save();
	u64 not_flushed, held;
	u32 done, failed;

	if (members)
		sv_kpool_wait_readers(kp, members);
	failed = sv_copy_all(kp, steps);
	not_flushed = sv_flush_members(kp, steps->targets(kp->core));
	held = steps->hold ? steps->hold(kp->core) : 0;
	if (held)
		sv_kpool_wait_readers(kp, held);
	while (steps->finish(kp->core, not_flushed))
		sv_commit_make_room(kp);
	*error = sv_commit_records(kp);
	synchronize_rcu();
	done = steps->end(kp->core);
	sv_defer_kick(kp);
	trace_sv_copied(steps == &sv_move_steps, done, failed, not_flushed);
	memalloc_noio_restore(noio);
	return done;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Copies of the journal's ring, one on each of at most two members: writing a batch to one of them. Called by the
 * commit's worker (commit_work.c).
 *
 * A copy that hangs must be left behind, so its write must be able to outlive the pool: struct sv_ring has all that
 * the write needs (an open of its own of the device, bio, vectors, the batch's bytes) and belongs to its member,
 * until sv_ring_leave() gives it to the write under way. Then nobody refers to it any more, and the write's end,
 * whenever that is, frees it and touches nothing else. Who of the two comes first is decided by one exchange of
 * state.
 *
 * While such a write is under way its member cannot be opened for a pool again: what the pool writes to its ring by
 * then might be overwritten. Nor can the module be unloaded.
 */
#include <linux/device-mapper.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "sv.h"

#define SV_RING_VECS	(SV_BATCH_MAX / PAGE_SIZE)

enum sv_ring_state { SV_RING_IDLE, SV_RING_BUSY, SV_RING_LEFT };

struct sv_ring {
	struct sv_disk *disk;		/* not once LEFT */
	struct sv_bdev dev;
	u64 off;			/* of the ring on the device, bytes */
	atomic_t state;			/* enum sv_ring_state */
	u64 at;				/* of the batch in the ring */
	u32 len;
	u32 used;			/* of buf; zeroes follow */
	u8 *buf;			/* the batch; SV_BATCH_MAX */
	struct bio_vec *vecs;
	struct bio bio;
	struct delayed_work submit_work;
	struct work_struct free_work;	/* of what was left */
	struct list_head list;		/* sv_rings_left */
};

/* Not a pool's: what hangs in it must not be waited for when a pool is stopped. */
static struct workqueue_struct *sv_ring_wq;
static DEFINE_MUTEX(sv_rings_lock);	/* guards sv_rings_left */
static LIST_HEAD(sv_rings_left);

static void sv_ring_free(struct sv_ring *r)
{
	if (r->dev.bdev)
		sv_bdev_close(&r->dev);
	vfree(r->buf);
	kfree(r->vecs);
	kfree(r);
}

static void sv_ring_free_work(struct work_struct *work)
{
	struct sv_ring *r = container_of(work, struct sv_ring, free_work);

	DMWARN("%pg: a journal write that had been given up has ended", r->dev.bdev);
	mutex_lock(&sv_rings_lock);
	list_del(&r->list);
	mutex_unlock(&sv_rings_lock);
	sv_ring_free(r);
	module_put(THIS_MODULE);	/* sv_ring_exit() waits for what is left of this function */
}

static void sv_ring_end_io(struct bio *bio)
{
	struct sv_ring *r = bio->bi_private;
	blk_status_t status = bio->bi_status;

	if (atomic_xchg(&r->state, SV_RING_IDLE) == SV_RING_BUSY)
		sv_commit_ring_ended(r->disk, status);
	else
		queue_work(sv_ring_wq, &r->free_work);
}

static void sv_ring_submit(struct work_struct *work)
{
	struct sv_ring *r = container_of(to_delayed_work(work), struct sv_ring, submit_work);
	unsigned int noio = memalloc_noio_save();
	u32 at;

	bio_init(&r->bio, r->dev.bdev, r->vecs, SV_RING_VECS, REQ_OP_WRITE | REQ_SYNC | REQ_META | REQ_FUA);
	r->bio.bi_iter.bi_sector = (r->off + r->at) >> SECTOR_SHIFT;
	r->bio.bi_end_io = sv_ring_end_io;
	r->bio.bi_private = r;
	for (at = 0; at < r->len; at += PAGE_SIZE)
		__bio_add_page(&r->bio, vmalloc_to_page(r->buf + at), min_t(u32, r->len - at, PAGE_SIZE), 0);
	submit_bio(&r->bio);		/* r may be gone from here on */
	memalloc_noio_restore(noio);
}

/* The batch's bytes are taken now; a repeated write has the same [I17]. sv_commit_ring_ended() says how it ended. */
void sv_ring_write(struct sv_ring *r, const struct sv_commit *c)
{
	memcpy(r->buf, c->buf, c->used);
	if (r->used > c->used)
		memset(r->buf + c->used, 0, r->used - c->used);
	flush_kernel_vmap_range(r->buf, c->len);
	r->used = c->used;
	r->at = c->off;
	r->len = c->len;
	sv_ring_write_again(r, 0);
}

void sv_ring_write_again(struct sv_ring *r, unsigned long delay)
{
	atomic_set(&r->state, SV_RING_BUSY);
	queue_delayed_work(sv_ring_wq, &r->submit_work, delay);
}

/* True: it is no longer ours, and its end will not be heard of. False: it has ended, and that will be. */
bool sv_ring_leave(struct sv_ring *r)
{
	mutex_lock(&sv_rings_lock);
	list_add(&r->list, &sv_rings_left);
	__module_get(THIS_MODULE);
	if (atomic_cmpxchg(&r->state, SV_RING_BUSY, SV_RING_LEFT) != SV_RING_BUSY) {
		list_del(&r->list);
		module_put(THIS_MODULE);
		mutex_unlock(&sv_rings_lock);
		return false;
	}
	mutex_unlock(&sv_rings_lock);
	return true;
}

bool sv_ring_was_left(dev_t dev)
{
	struct sv_ring *r;
	bool found = false;

	mutex_lock(&sv_rings_lock);
	list_for_each_entry(r, &sv_rings_left, list)
		found |= r->dev.bdev->bd_dev == dev;
	mutex_unlock(&sv_rings_lock);
	return found;
}

struct sv_ring *sv_ring_open(struct sv_disk *d, blk_mode_t mode, u64 off)
{
	struct sv_ring *r = kzalloc(sizeof(*r), GFP_KERNEL);
	int ret = -ENOMEM;

	if (!r)
		return ERR_PTR(ret);
	r->disk = d;
	r->off = off;
	INIT_DELAYED_WORK(&r->submit_work, sv_ring_submit);
	INIT_WORK(&r->free_work, sv_ring_free_work);
	r->vecs = kcalloc(SV_RING_VECS, sizeof(*r->vecs), GFP_KERNEL);
	r->buf = vzalloc(SV_BATCH_MAX);
	if (r->vecs && r->buf)
		ret = sv_bdev_open(&r->dev, d->dev.bdev->bd_dev, mode);
	if (!ret)
		return r;
	sv_ring_free(r);
	return ERR_PTR(ret);
}

/* Nothing is under way. */
void sv_ring_close(struct sv_ring *r)
{
	flush_delayed_work(&r->submit_work);	/* the end of its last write may have overtaken it */
	sv_ring_free(r);
}

int sv_ring_init(void)
{
	sv_ring_wq = alloc_workqueue("sv-ring", WQ_MEM_RECLAIM | SV_WQ_PERCPU, 0);
	return sv_ring_wq ? 0 : -ENOMEM;
}

void sv_ring_exit(void)
{
	destroy_workqueue(sv_ring_wq);
}

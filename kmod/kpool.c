// SPDX-License-Identifier: GPL-2.0
/*
 * Life of a pool in the kernel: sv.h says who holds what. Called by the targets' constructors and destructors and by
 * the control device; everything here may sleep, but sv_kpool_check_mode() does not.
 */
#include <linux/device-mapper.h>
#include <linux/slab.h>

#include "sv.h"
#include "trace.h"

/* Guards the list, and of each pool its users, members and open volumes. */
DEFINE_MUTEX(sv_kpools_lock);
static LIST_HEAD(sv_kpools);

const char *sv_mode_name(enum sv_mode mode)
{
	static const char * const names[] = { "write", "out-of-space", "read-only", "fail" };

	return (unsigned int)mode < ARRAY_SIZE(names) ? names[mode] : "unknown";
}

struct sv_kpool *sv_kpool_find(const guid_t *uuid)
{
	struct sv_kpool *kp;

	lockdep_assert_held(&sv_kpools_lock);
	list_for_each_entry(kp, &sv_kpools, list)
		if (guid_equal(&kp->uuid, uuid))
			return kp;
	return NULL;
}

static void sv_geometry_of(const struct sv_label *l, struct sv_member_geometry *g)
{
	*g = (struct sv_member_geometry){
		.slot_off = l->slot_off,
		.nr_slots = l->nr_slots,
		.tier = l->tier,
		.flags = l->flags,
		.ring_off = l->ring_off,
		.ring_len = l->ring_len,
	};
}

static void sv_kpool_close_disks(struct sv_kpool *kp)
{
	while (kp->nr_disks)
		sv_disk_close(kp->disks[--kp->nr_disks]);
}

static int sv_kpool_open_disks(struct sv_kpool *kp, u32 nr, struct dm_dev **devs, const struct sv_label *labels)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		dev_t dev = devs[i] ? devs[i]->bdev->bd_dev : 0;
		struct sv_disk *d = sv_disk_open(kp, i, dev, kp->mode, &labels[i]);

		if (IS_ERR(d)) {
			sv_kpool_close_disks(kp);
			return PTR_ERR(d);
		}
		kp->disks[kp->nr_disks++] = d;
	}
	return 0;
}

static int sv_kpool_make_core(struct sv_kpool *kp, const struct sv_label *labels)
{
	struct sv_member_geometry *g = kcalloc(kp->nr_disks, sizeof(*g), GFP_KERNEL);
	u32 i;

	if (!g)
		return -ENOMEM;
	for (i = 0; i < kp->nr_disks; i++)
		sv_geometry_of(&labels[i], &g[i]);
	kp->core = sv_pool_new(kp->uuid.b, kp->incarnation, kp->nr_disks, g);
	kfree(g);
	if (!kp->core)
		return -ENOMEM;
	if (!(kp->mode & BLK_OPEN_WRITE))
		sv_pool_degrade(kp->core, SV_MODE_READ_ONLY);
	return sv_pool_refill(kp->core);
}

/*
 * What a commit is made of is queued by itself or by the I/O that it waits for, mostly on the same CPU: one worker of
 * that CPU goes through all of it without a switch, and another one takes over where submitting blocks. A queue for
 * each of commit, flushes and ring, so that a flush that blocks the last worker that there is memory for blocks no
 * commit.
 */
static int sv_kpool_make_queues(struct sv_kpool *kp)
{
	kp->commit_wq = alloc_workqueue("sv-commit", WQ_MEM_RECLAIM | SV_WQ_PERCPU, 0);
	kp->flush_wq = alloc_workqueue("sv-flush", WQ_MEM_RECLAIM | SV_WQ_PERCPU, 0);
	kp->wq = alloc_workqueue("sv", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	return kp->commit_wq && kp->flush_wq && kp->wq ? 0 : -ENOMEM;
}

static struct sv_kpool *sv_kpool_alloc(const guid_t *uuid, blk_mode_t mode, u64 incarnation)
{
	struct sv_kpool *kp = kzalloc(sizeof(*kp), GFP_KERNEL);

	if (!kp)
		return NULL;
	kref_init(&kp->ref);
	INIT_LIST_HEAD(&kp->list);
	INIT_LIST_HEAD(&kp->volumes);
	guid_copy(&kp->uuid, uuid);
	kp->mode = mode;
	kp->incarnation = incarnation;
	init_rwsem(&kp->alive);
	mutex_init(&kp->cmd_lock);
	mutex_init(&kp->recycle_lock);
	mutex_init(&kp->snapshot_lock);
	init_waitqueue_head(&kp->events_wait);
	sv_commit_init(kp);
	sv_defer_init(kp);
	return kp;
}

/* What sv_kpool_create() made, as far as it came, but for the memory that a command may still look at. */
static void sv_kpool_unmake(struct sv_kpool *kp)
{
	sv_copy_stop(kp);
	if (kp->wq)
		destroy_workqueue(kp->wq);
	if (kp->flush_wq)
		destroy_workqueue(kp->flush_wq);
	if (kp->commit_wq)
		destroy_workqueue(kp->commit_wq);
	sv_kpool_close_disks(kp);
}

/* The pool of these members, with no user yet: sv_kpool_get_user() follows, under the same hold of the lock. */
struct sv_kpool *sv_kpool_create(const guid_t *uuid, blk_mode_t mode, u32 nr, struct dm_dev **devs,
				 const struct sv_label *labels, char **error)
{
	struct sv_kpool *kp = sv_kpool_alloc(uuid, mode, labels[0].incarnation);
	int ret;

	lockdep_assert_held(&sv_kpools_lock);
	*error = "No memory for the pool";
	if (!kp)
		return ERR_PTR(-ENOMEM);
	ret = sv_kpool_make_queues(kp);
	if (ret)
		goto fail;
	ret = sv_kpool_open_disks(kp, nr, devs, labels);
	if (ret) {
		*error = "Cannot open a member";
		goto fail;
	}
	ret = sv_kpool_make_core(kp, labels);
	if (ret)
		goto fail;
	ret = sv_cmd_dev_register(kp);
	if (ret) {
		*error = "Cannot register the control device";
		goto fail;
	}
	list_add(&kp->list, &sv_kpools);
	return kp;

fail:
	sv_kpool_unmake(kp);
	sv_kpool_put(kp);
	return ERR_PTR(ret);
}

/* A member more, while the pool works. */
int sv_kpool_add_disk(struct sv_kpool *kp, struct dm_dev *dev, const struct sv_label *l)
{
	struct sv_member_geometry g;
	struct sv_disk *d;
	int ret;

	lockdep_assert_held(&sv_kpools_lock);
	if (kp->nr_disks == SV_MAX_MEMBERS)
		return -ENOSPC;
	d = sv_disk_open(kp, kp->nr_disks, dev->bdev->bd_dev, kp->mode, l);
	if (IS_ERR(d))
		return PTR_ERR(d);
	sv_geometry_of(l, &g);
	mutex_lock(&kp->cmd_lock);
	kp->disks[kp->nr_disks] = d;
	/* The commit loops over nr_disks: it must see the disk before the core names it. */
	smp_store_release(&kp->nr_disks, kp->nr_disks + 1);
	ret = sv_pool_add_member(kp->core, &g);
	if (ret) {
		kp->nr_disks--;
		kp->disks[kp->nr_disks] = NULL;
	}
	mutex_unlock(&kp->cmd_lock);
	if (ret)
		sv_disk_close(d);
	return ret;
}

void sv_kpool_get_user(struct sv_kpool *kp)
{
	lockdep_assert_held(&sv_kpools_lock);
	kp->users++;
}

/* True: that was the last one, and sv_kpool_stop() must follow, without the lock. */
bool sv_kpool_put_user(struct sv_kpool *kp)
{
	lockdep_assert_held(&sv_kpools_lock);
	if (--kp->users)
		return false;
	kp->stopping = true;
	return true;
}

/*
 * No I/O of users is under way, and none will come. The last commit may wait for a member that hangs, so other pools
 * must not wait for this; until it is over the pool is in the list, so that nobody makes another one of its members.
 */
void sv_kpool_stop(struct sv_kpool *kp)
{
	sv_cmd_dev_unregister(kp);
	down_write(&kp->alive);
	WRITE_ONCE(kp->dead, true);
	up_write(&kp->alive);
	wake_up_all(&kp->events_wait);
	sv_commit_stop(kp);
	sv_defer_stop(kp);
	sv_kpool_unmake(kp);
	mutex_lock(&sv_kpools_lock);
	list_del(&kp->list);
	mutex_unlock(&sv_kpools_lock);
	sv_kpool_put(kp);
}

static void sv_kpool_release(struct kref *ref)
{
	struct sv_kpool *kp = container_of(ref, struct sv_kpool, ref);

	sv_pool_free(kp->core);
	kfree(kp);
}

void sv_kpool_put(struct sv_kpool *kp)
{
	kref_put(&kp->ref, sv_kpool_release);
}

/* An op that only answers, asked by ourselves. Returns the number of elements answered. */
u32 sv_kpool_query(struct sv_kpool *kp, u32 op, void *answers, u32 count)
{
	u64 members;
	u32 done;
	int ret;

	mutex_lock(&kp->cmd_lock);
	ret = sv_cmd(kp->core, op, kp->epoch, answers, &count, &done, &members);
	mutex_unlock(&kp->cmd_lock);
	return ret ? 0 : count;
}

/* Says it once when the mode has changed, and wakes whom it concerns. */
void sv_kpool_check_mode(struct sv_kpool *kp)
{
	int mode = sv_pool_mode(kp->core), last = xchg(&kp->last_mode, mode);

	if (likely(mode == last))
		return;
	trace_sv_mode(last, mode);
	if (mode > last)
		DMERR("pool %pUb: mode is now %s (was %s)", &kp->uuid, sv_mode_name(mode), sv_mode_name(last));
	sv_defer_kick(kp);
	wake_up_interruptible(&kp->events_wait);
}

/*
 * Wakes who waits for events, if there are any. What raises one without calling this is the commit's worker, which does
 * at its end, or appends a record, so that a commit follows.
 */
void sv_kpool_tell(struct sv_kpool *kp)
{
	if (sv_pool_has_events(kp->core) && wq_has_sleeper(&kp->events_wait))
		wake_up_interruptible(&kp->events_wait);
}

/* Until every bio that was planned before now and goes to one of @members has ended. */
void sv_kpool_wait_readers(struct sv_kpool *kp, u64 members)
{
	u32 i;

	synchronize_rcu();
	for (i = 0; i < kp->nr_disks; i++)
		if (members >> i & 1)
			synchronize_srcu(&kp->disks[i]->srcu);
}

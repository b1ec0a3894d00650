/* SPDX-License-Identifier: GPL-2.0 */
/*
 * dm-sv's own structures: what surrounds the portable core (core/pool.h) in the kernel. The core decides, the files
 * here do the I/O, wait and wake.
 *
 * Who holds what. A struct sv_kpool is the pool of one uuid. Each sv-pool and sv-volume target is a user of it; the
 * last user's destructor stops it, without sv_kpools_lock. So a pool device may be reloaded (a new member) or
 * removed while volumes are open, and they go on. The kpool opens the members itself, not exclusively, for as long
 * as it lives; each target also gets them by dm_get_device(), which claims them exclusively for device-mapper and
 * makes dmsetup deps show them. A volume may lie on a member that was added after its table was loaded: then the
 * pool's claim is the only exclusive one. An open control device holds only the kpool's memory (ref), and gets
 * ENODEV once it is stopped.
 *
 * Locks, in this order: sv_kpools_lock (list of pools, users, members, volumes), alive, recycle_lock or snapshot_lock,
 * cmd_lock (one call into core/cmd.c at a time), refill_lock (one refill at a time), the core's locks. defer_lock is a
 * leaf.
 *
 * A bio's way: map() in remap.c; what cannot be answered there at once goes to defer.c; completions come back to
 * remap.c; FLUSH and FUA wait for commit_work.c, which has batches written by ring.c.
 */
#ifndef SV_H
#define SV_H

#include <linux/bio.h>
#include <linux/bitops.h>
#include <linux/completion.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/uuid.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "core/label.h"
#include "core/latency.h"
#include "core/pool.h"

#define DM_MSG_PREFIX "sv"

#define SV_BLOCK_SECTORS	(SV_BLOCK_SIZE >> SECTOR_SHIFT)

/* A member as the kernel sees it. Never removed while the pool lives. */
struct sv_disk {
	struct sv_bdev dev;		/* no bdev: missing, in a read-only pool */
	struct srcu_struct srcu;	/* held by each bio from its lookup to its end [I2] */
	atomic64_t errors;
	struct sv_ring *ring;		/* a copy of the journal's ring, or NULL; commit worker */
	u32 ring_tries;			/* of the batch on its way; commit worker */
	struct work_struct flush_work;	/* submits flush_bio */
	struct bio flush_bio;
	spinlock_t sends_lock;		/* leaf; guards sends */
	struct bio_list sends;		/* from the pool's worker */
	struct work_struct send_work;	/* submits them */
	u32 index;
	u32 tier;
	struct sv_kpool *pool;
};

enum sv_kpool_flag {
	SV_KP_TICK_ARMED,		/* the periodic commit is on its way */
	SV_KP_WATCH_DUE,		/* the commit worker is to look for copies that hang */
};

/* Members whose I/O has ended, and how; set by that end, taken by the commit worker. */
struct sv_io_masks {
	atomic64_t ended;
	atomic64_t failed;
};

struct sv_ring;				/* ring.c */
struct dm_kcopyd_client;

struct sv_kpool {
	struct list_head list;
	struct kref ref;
	unsigned int users;		/* targets */
	bool stopping;			/* the last one is gone; never again false */
	unsigned int pool_targets;	/* of these, sv-pool ones */
	struct mapped_device *md;	/* the pool device, while pool_targets */
	struct list_head volumes;

	struct sv_pool *core;		/* as long as the kpool */
	struct rw_semaphore alive;	/* read: a command runs; guards dead */
	bool dead;			/* the last user is gone */
	guid_t uuid;
	u64 incarnation;
	blk_mode_t mode;
	u32 nr_disks;
	struct sv_disk *disks[SV_MAX_MEMBERS];
	unsigned long flags;		/* enum sv_kpool_flag */
	int last_mode;			/* as last reported; commit worker and cmd_lock */

	/* commit_work.c; what has no other context is the commit worker's alone */
	struct workqueue_struct *commit_wq;
	struct workqueue_struct *flush_wq;
	struct work_struct commit_work;
	struct delayed_work tick;
	struct sv_io_masks flushes;
	struct sv_io_masks writes;	/* of the batch */
	atomic64_t flushing;		/* members whose flush is under way */
	struct sv_commit batch;
	u64 copies;			/* of the batch on its way, 0: none; written with WRITE_ONCE */
	u64 copies_ok;
	u64 copies_lost;
	unsigned long batch_since;	/* jiffies */
	struct delayed_work ring_watch;	/* looks for copies that hang */
	wait_queue_head_t quiet_wait;	/* for nothing to be under way */

	/* defer.c */
	struct workqueue_struct *wq;
	spinlock_t defer_lock;		/* guards deferred */
	struct list_head deferred;	/* struct sv_io */
	struct delayed_work defer_work;
	struct work_struct refill_work;
	struct work_struct reclaim_work;
	struct mutex refill_lock;	/* one refill at a time */

	struct dm_kcopyd_client *copier;	/* made for the first FOLD; recycle_lock */

	/* cmd_dev.c */
	struct miscdevice misc;
	char misc_name[sizeof("svctl-") + UUID_STRING_LEN];
	atomic_t writers;
	struct mutex cmd_lock;		/* one call into core/cmd.c at a time; epoch */
	struct mutex recycle_lock;	/* from RECYCLE's first step to its second, and FOLD's to its last */
	struct mutex snapshot_lock;	/* likewise of SNAPSHOT */
	u64 epoch;			/* of the session */
	wait_queue_head_t events_wait;
};

/* An open volume; its old and new table share it during a reload. sv_kpools_lock. */
struct sv_kvolume {
	struct list_head list;
	struct sv_kpool *pool;
	struct sv_volume *core;
	struct sv_latency latency;	/* the core's */
	struct mapped_device *md;
	u32 id;
	unsigned int users;
};

/* ti->private of an sv-volume target. */
struct sv_vtarget {
	struct sv_kvolume *vol;
	struct sv_kpool *pool;
	struct dm_target *ti;
	u32 nr_devs;
	bool suspending;		/* bios that wait for space must end */
	bool requeue;			/* ... by going back to device-mapper */
	struct dm_dev *devs[SV_MAX_MEMBERS];
};

/* Waits for a commit. done() may free it. */
struct sv_waiter {
	struct sv_ticket ticket;
	void (*done)(struct sv_waiter *w);
};

/*
 * Per bio. A bio that map() cannot send as one piece is driven by the worker, piece by piece: iter is what is left
 * of it, addressed in the volume, and empty for all others.
 */
struct sv_io {
	struct sv_vtarget *target;
	struct bvec_iter iter;
	struct sv_piece piece;
	struct sv_waiter waiter;
	struct list_head list;		/* deferred; defer_lock */
	u64 start;			/* ktime_get_ns() when it came */
	unsigned long since;		/* jiffies; waiting for space */
	u32 bytes;			/* of it when it came, or as far as map() took it */
	int srcu_idx;
	u8 row;				/* of the volume's latency: by its class, and the tier of its last piece */
	bool planned;			/* piece and srcu_idx are held */
	bool write;			/* piece ends with sv_write_done() */
	bool fua;
	bool pieces;			/* more than one piece, or none: FUA needs a flush of the volume */
	bool committed;			/* its FLUSH or FUA is through */
	bool waits;			/* since is set */
	bool zero_by_hand;		/* the member has no WRITE_ZEROES, or refused it */
};

/* Takes the lowest member out of a mask that is not empty. Shifting a mask by i ends badly at i = 64. */
static inline u32 sv_take_member(u64 *mask)
{
	u32 i = __ffs64(*mask);

	*mask &= *mask - 1;
	return i;
}

/* kpool.c */
extern struct mutex sv_kpools_lock;
struct sv_kpool *sv_kpool_find(const guid_t *uuid);
struct sv_kpool *sv_kpool_create(const guid_t *uuid, blk_mode_t mode, u32 nr, struct dm_dev **devs,
				 const struct sv_label *labels, char **error);
int sv_kpool_add_disk(struct sv_kpool *kp, struct dm_dev *dev, const struct sv_label *l);
void sv_kpool_get_user(struct sv_kpool *kp);
bool __must_check sv_kpool_put_user(struct sv_kpool *kp);
void sv_kpool_stop(struct sv_kpool *kp);
void sv_kpool_put(struct sv_kpool *kp);
void sv_kpool_check_mode(struct sv_kpool *kp);
void sv_kpool_tell(struct sv_kpool *kp);
void sv_kpool_wait_readers(struct sv_kpool *kp, u64 members);
u32 sv_kpool_query(struct sv_kpool *kp, u32 op, void *answers, u32 count);
const char *sv_mode_name(enum sv_mode mode);

/* member.c */
int sv_disk_read_label(struct block_device *bdev, struct sv_label *l, const char **why);
struct sv_disk *sv_disk_open(struct sv_kpool *kp, u32 index, dev_t dev, blk_mode_t mode, const struct sv_label *l);
void sv_disk_close(struct sv_disk *d);

/* remap.c */
enum sv_run { SV_RUN_GONE, SV_RUN_DEFER, SV_RUN_HELD, SV_RUN_RING, SV_RUN_NOSPC };
int sv_volume_map(struct dm_target *ti, struct bio *bio);
int sv_volume_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error);
enum sv_run sv_io_run(struct sv_io *io);
void sv_io_submit(struct bio *bio);
void sv_io_end(struct sv_io *io, blk_status_t status);

/* defer.c */
void sv_defer_init(struct sv_kpool *kp);
void sv_defer_init_disk(struct sv_disk *d);
void sv_defer_io(struct sv_kpool *kp, struct sv_io *io);
void sv_defer_send(struct sv_disk *d, struct bio *bio);
void sv_defer_kick(struct sv_kpool *kp);
void sv_defer_refill(struct sv_kpool *kp);
void sv_defer_reclaim(struct sv_kpool *kp);
void sv_defer_stop(struct sv_kpool *kp);

/* commit_work.c */
void sv_commit_init(struct sv_kpool *kp);
void sv_commit_init_disk(struct sv_disk *d);
void sv_commit_flush(struct sv_disk *d);
void sv_commit_ring_ended(struct sv_disk *d, blk_status_t status);
void sv_commit_arm(struct sv_kpool *kp);
void sv_commit_queue(struct sv_kpool *kp);
int sv_commit_wait(struct sv_kpool *kp);
int sv_commit_records(struct sv_kpool *kp);
int sv_commit_flush_cut(struct sv_kpool *kp);
void sv_commit_begin(struct sv_kpool *kp);
void sv_commit_make_room(struct sv_kpool *kp);
void sv_commit_stop(struct sv_kpool *kp);

/* ring.c */
int sv_ring_init(void);
void sv_ring_exit(void);
struct sv_ring *sv_ring_open(struct sv_disk *d, blk_mode_t mode, u64 off);
void sv_ring_close(struct sv_ring *r);
void sv_ring_write(struct sv_ring *r, const struct sv_commit *c);
void sv_ring_write_again(struct sv_ring *r, unsigned long delay);
bool sv_ring_leave(struct sv_ring *r);
bool sv_ring_was_left(dev_t dev);

/* copy_work.c */
u32 sv_relocate(struct sv_kpool *kp, const struct sv_relocation *steps, u64 members, int *error);
int sv_copy_prepare(struct sv_kpool *kp);
void sv_copy_stop(struct sv_kpool *kp);

/* cmd_dev.c */
int sv_cmd_dev_register(struct sv_kpool *kp);
void sv_cmd_dev_unregister(struct sv_kpool *kp);

extern struct target_type sv_pool_target;
extern struct target_type sv_volume_target;

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between the kernels that dm-sv builds for (6.1, and 6.10 or later). Nothing else tests versions. */
#ifndef SV_COMPAT_H
#define SV_COMPAT_H

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/srcu.h>
#include <linux/version.h>
#include <linux/workqueue.h>

/* Has to be said since, and warns where it is not. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
#define SV_WQ_PERCPU	WQ_PERCPU
#else
#define SV_WQ_PERCPU	0
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
/* The same as the real ones, which only add a lockdep check. */
static inline int srcu_down_read(struct srcu_struct *ssp)
{
	return __srcu_read_lock(ssp);
}

static inline void srcu_up_read(struct srcu_struct *ssp, int idx)
{
	__srcu_read_unlock(ssp, idx);
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
typedef fmode_t blk_mode_t;
#define BLK_OPEN_READ	FMODE_READ
#define BLK_OPEN_WRITE	FMODE_WRITE

struct sv_bdev {
	struct block_device *bdev;
	blk_mode_t mode;
};

static inline int sv_bdev_open(struct sv_bdev *b, dev_t dev, blk_mode_t mode)
{
	struct block_device *bdev = blkdev_get_by_dev(dev, mode, NULL);

	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	b->bdev = bdev;
	b->mode = mode;
	return 0;
}

static inline void sv_bdev_close(struct sv_bdev *b)
{
	blkdev_put(b->bdev, b->mode);
}

static inline void sv_limits_discard(struct queue_limits *l, unsigned int sectors)
{
	l->max_discard_sectors = sectors;
	l->max_hw_discard_sectors = sectors;
}
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#include <linux/io_uring/cmd.h>
#define SV_HAVE_URING_CMD

struct sv_bdev {
	struct block_device *bdev;
	struct file *file;
};

static inline int sv_bdev_open(struct sv_bdev *b, dev_t dev, blk_mode_t mode)
{
	struct file *file = bdev_file_open_by_dev(dev, mode, NULL, NULL);

	if (IS_ERR(file))
		return PTR_ERR(file);
	b->bdev = file_bdev(file);
	b->file = file;
	return 0;
}

static inline void sv_bdev_close(struct sv_bdev *b)
{
	bdev_fput(b->file);
}

static inline void sv_limits_discard(struct queue_limits *l, unsigned int sectors)
{
	l->max_hw_discard_sectors = sectors;
}
#else
#error "dm-sv builds for Linux 6.1 to 6.4 and for 6.10 or later"
#endif

/*
 * Since 6.17 a device also says how much it zeroes fast and keeps allocated: all that it takes in one bio, or 0. What
 * the members said of themselves is neither.
 */
static inline void sv_limits_write_zeroes(struct queue_limits *l, unsigned int sectors)
{
	l->max_write_zeroes_sectors = sectors;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	l->max_hw_wzeroes_unmap_sectors = 0;
#endif
}

#endif

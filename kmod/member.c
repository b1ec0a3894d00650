// SPDX-License-Identifier: GPL-2.0
/*
 * Members: reading their label, and opening one for as long as its pool lives. Called by kpool.c and pool_target.c
 * from table constructors, so everything here may sleep.
 */
#include <linux/slab.h>

#include "sv.h"

static int sv_disk_read(struct block_device *bdev, u64 off, struct page *page)
{
	struct bio_vec vec;
	struct bio bio;
	int ret;

	bio_init(&bio, bdev, &vec, 1, REQ_OP_READ | REQ_SYNC | REQ_META);
	bio.bi_iter.bi_sector = off >> SECTOR_SHIFT;
	__bio_add_page(&bio, page, SV_LABEL_SIZE, 0);
	ret = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return ret;
}

static int sv_disk_read_label_at(struct block_device *bdev, u64 off, struct page *page, struct sv_label *l,
				 const char **why)
{
	int ret = sv_disk_read(bdev, off, page);

	if (ret) {
		*why = "cannot be read";
		return ret;
	}
	return sv_label_decode(page_address(page), l, why);
}

/* The label, or its copy where the label is damaged. One of a newer version is not looked behind. */
int sv_disk_read_label(struct block_device *bdev, struct sv_label *l, const char **why)
{
	u64 bytes = bdev_nr_bytes(bdev);
	const char *why_copy;
	struct page *page;
	int ret;

	if (bytes < 2 * SV_MIB) {
		*why = "device is too small for a pool";
		return -EINVAL;
	}
	if (bdev_logical_block_size(bdev) > SV_BLOCK_SIZE) {
		*why = "cannot be read: the device's logical blocks are larger than 4 KiB";
		return -EINVAL;
	}
	page = alloc_page(GFP_KERNEL);
	if (!page) {
		*why = "no memory";
		return -ENOMEM;
	}
	ret = sv_disk_read_label_at(bdev, 0, page, l, why);
	if (ret == -EINVAL || ret == -EIO)
		if (!sv_disk_read_label_at(bdev, sv_label_copy_off(bytes), page, l, &why_copy)) {
			DMWARN("%pg: label %s, using its copy", bdev, *why);
			ret = 0;
		}
	__free_page(page);
	if (!ret && l->size > bytes) {
		*why = "device is smaller than when it became a member";
		ret = -EINVAL;
	}
	return ret;
}

/* @dev 0: the member is missing, and has no bdev. */
struct sv_disk *sv_disk_open(struct sv_kpool *kp, u32 index, dev_t dev, blk_mode_t mode, const struct sv_label *l)
{
	struct sv_disk *d;
	int ret;

	if (sv_ring_was_left(dev)) {
		DMERR("member %u: an old journal write to it, which hung and was given up, has not ended yet", index);
		return ERR_PTR(-EBUSY);
	}
	d = kzalloc(sizeof(*d), GFP_KERNEL);
	if (!d)
		return ERR_PTR(-ENOMEM);
	d->pool = kp;
	d->index = index;
	d->tier = l->tier;
	sv_commit_init_disk(d);
	sv_defer_init_disk(d);
	ret = init_srcu_struct(&d->srcu);
	if (ret)
		goto free;
	ret = dev ? sv_bdev_open(&d->dev, dev, mode) : 0;
	if (ret)
		goto cleanup;
	if (dev && (l->flags & SV_LABEL_HAS_RING))
		d->ring = sv_ring_open(d, mode, l->ring_off);
	if (!IS_ERR(d->ring))
		return d;
	ret = PTR_ERR(d->ring);
	sv_bdev_close(&d->dev);
cleanup:
	cleanup_srcu_struct(&d->srcu);
free:
	kfree(d);
	return ERR_PTR(ret);
}

void sv_disk_close(struct sv_disk *d)
{
	if (d->ring)
		sv_ring_close(d->ring);
	if (d->dev.bdev)
		sv_bdev_close(&d->dev);
	cleanup_srcu_struct(&d->srcu);
	kfree(d);
}

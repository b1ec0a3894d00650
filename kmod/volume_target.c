// SPDX-License-Identifier: GPL-2.0
/*
 * Target "sv-volume": a volume of a running pool as a block device. The I/O is in remap.c.
 *
 *	0 SECTORS sv-volume POOL_UUID VOLUME_ID		SECTORS: at most the volume's size
 *
 * Status line: mapped extents (of 1 MiB), mode of the pool, "ro" or "rw".
 */
#include <linux/device-mapper.h>
#include <linux/slab.h>

#include "sv.h"

#define SV_IO_OPT		SV_EXTENT_SIZE
#define SV_DISCARD_SECTORS	((u32)((64ull << 30) >> SECTOR_SHIFT))	/* in one bio; a worker's time slice */

/* ---- open volumes ---- */

static struct sv_kvolume *sv_kvolume_find(struct sv_kpool *kp, u32 id)
{
	struct sv_kvolume *kv;

	list_for_each_entry(kv, &kp->volumes, list)
		if (kv->id == id)
			return kv;
	return NULL;
}

static struct sv_kvolume *sv_kvolume_open(struct sv_kpool *kp, u32 id, struct mapped_device *md, char **error)
{
	struct sv_kvolume *kv = kzalloc(sizeof(*kv), GFP_KERNEL);
	int ret;

	*error = "No memory";
	if (!kv)
		return ERR_PTR(-ENOMEM);
	/* Under cmd_lock, so that no command drops the volume between the two. */
	mutex_lock(&kp->cmd_lock);
	kv->core = sv_volume_find(kp->core, id);
	ret = kv->core ? sv_volume_open(kv->core) : -ENOENT;
	mutex_unlock(&kp->cmd_lock);
	if (ret) {
		if (ret == -ENOENT)
			*error = "No such volume in the pool";
		else if (ret != -ENOMEM)
			*error = "Pool is not active, or volume is open";
		kfree(kv);
		return ERR_PTR(ret);
	}
	kv->pool = kp;
	kv->latency = *sv_volume_latency(kv->core);
	kv->id = id;
	kv->md = md;
	list_add(&kv->list, &kp->volumes);
	return kv;
}

/* One device per volume; its next table, and the one before, share the open volume. */
static struct sv_kvolume *sv_kvolume_get(struct sv_kpool *kp, u32 id, struct mapped_device *md, char **error)
{
	struct sv_kvolume *kv = sv_kvolume_find(kp, id);

	if (!kv) {
		kv = sv_kvolume_open(kp, id, md, error);
		if (IS_ERR(kv))
			return kv;
	} else if (kv->md != md) {
		*error = "The volume already has a device";
		return ERR_PTR(-EBUSY);
	}
	kv->users++;
	sv_kpool_get_user(kp);
	return kv;
}

/* True: sv_kpool_stop() must follow. */
static bool __must_check sv_kvolume_put(struct sv_kvolume *kv)
{
	struct sv_kpool *kp = kv->pool;

	if (!--kv->users) {
		list_del(&kv->list);
		mutex_lock(&kp->cmd_lock);
		sv_volume_close(kv->core);
		mutex_unlock(&kp->cmd_lock);
		kfree(kv);
	}
	return sv_kpool_put_user(kp);
}

/* ---- constructor ---- */

static int sv_vtarget_get_devices(struct sv_vtarget *t)
{
	blk_mode_t mode = dm_table_get_mode(t->ti->table) & t->pool->mode;
	char name[16];
	u32 i;

	for (i = 0; i < t->pool->nr_disks; i++) {
		int ret;

		if (!t->pool->disks[i]->dev.bdev)
			continue;
		format_dev_t(name, t->pool->disks[i]->dev.bdev->bd_dev);
		ret = dm_get_device(t->ti, name, mode, &t->devs[t->nr_devs]);
		if (ret) {
			t->ti->error = "Cannot open a member";
			return ret;
		}
		t->nr_devs++;
	}
	return 0;
}

static void sv_vtarget_put_devices(struct sv_vtarget *t)
{
	while (t->nr_devs)
		dm_put_device(t->ti, t->devs[--t->nr_devs]);
}

static int sv_vtarget_check(struct sv_vtarget *t)
{
	u64 sectors = sv_volume_size(t->vol->core) >> SECTOR_SHIFT;

	if (t->ti->begin || t->ti->len % SV_BLOCK_SECTORS || t->ti->len > sectors) {
		t->ti->error = "Length is not a multiple of 8 sectors from 0 within the volume's size";
		return -EINVAL;
	}
	return 0;
}

/* Under sv_kpools_lock. */
static int sv_vtarget_open(struct sv_vtarget *t, const guid_t *uuid, u32 id)
{
	struct mapped_device *md = dm_table_get_md(t->ti->table);
	struct sv_kpool *kp = sv_kpool_find(uuid);
	int ret;

	if (!kp) {
		t->ti->error = "No such pool is running";
		return -ENXIO;
	}
	if (kp->stopping) {
		t->ti->error = "The pool is being stopped: try again when that is over";
		return -EBUSY;
	}
	t->vol = sv_kvolume_get(kp, id, md, &t->ti->error);
	if (IS_ERR(t->vol))
		return PTR_ERR(t->vol);
	t->pool = kp;
	ret = sv_vtarget_check(t);
	if (!ret)
		ret = sv_vtarget_get_devices(t);
	if (ret) {
		sv_vtarget_put_devices(t);
		WARN_ON_ONCE(sv_kvolume_put(t->vol));	/* the pool had users before, and has */
	}
	return ret;
}

static void sv_set_target_features(struct dm_target *ti)
{
	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	/* Whatever the members have: a flush is what makes first writes durable. */
	ti->flush_supported = true;
	ti->discards_supported = true;
	ti->per_io_data_size = sizeof(struct sv_io);
}

static int sv_volume_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct sv_vtarget *t;
	guid_t uuid;
	u32 id;
	int ret;

	if (argc != 2 || strlen(argv[0]) != UUID_STRING_LEN || uuid_parse(argv[0], (uuid_t *)&uuid) ||
	    kstrtou32(argv[1], 10, &id) || !id || id > SV_VOLUME_ID_MAX) {
		ti->error = "Arguments: pool uuid, volume id";
		return -EINVAL;
	}
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "No memory";
		return -ENOMEM;
	}
	t->ti = ti;
	mutex_lock(&sv_kpools_lock);
	ret = sv_vtarget_open(t, &uuid, id);
	mutex_unlock(&sv_kpools_lock);
	if (ret) {
		kfree(t);
		return ret;
	}
	sv_set_target_features(ti);
	ti->private = t;
	return 0;
}

static void sv_volume_dtr(struct dm_target *ti)
{
	struct sv_vtarget *t = ti->private;
	bool last;

	mutex_lock(&sv_kpools_lock);
	last = sv_kvolume_put(t->vol);
	mutex_unlock(&sv_kpools_lock);
	if (last)
		sv_kpool_stop(t->pool);
	sv_vtarget_put_devices(t);	/* at last: until the pool has stopped nobody else may claim its members */
	kfree(t);
}

/* ---- suspend: nothing may wait for user space from here on [I30] ---- */

static void sv_volume_presuspend(struct dm_target *ti)
{
	struct sv_vtarget *t = ti->private;

	t->requeue = dm_noflush_suspending(ti);
	smp_store_release(&t->suspending, true);	/* pairs with sv_give_up(): requeue is seen first */
	sv_defer_kick(t->pool);
}

static void sv_volume_resume(struct dm_target *ti)
{
	struct sv_vtarget *t = ti->private;

	WRITE_ONCE(t->suspending, false);
}

/* ---- what it says about itself ---- */

static void sv_volume_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result,
			     unsigned int maxlen)
{
	struct sv_vtarget *t = ti->private;
	struct sv_volume_info info = {};
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		sv_volume_get_info(t->vol->core, &info);
		DMEMIT("%llu %s %s", info.mapped, sv_mode_name(sv_pool_mode(t->pool->core)),
		       info.flags & SV_VOLUME_READ_ONLY ? "ro" : "rw");
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%pUb %u", &t->pool->uuid, t->vol->id);
		break;
	default:
		*result = '\0';
	}
}

static int sv_volume_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct sv_vtarget *t = ti->private;
	int ret = 0;
	u32 i;

	/* A stretch that every member has; the volume's own length says nothing about them. */
	for (i = 0; i < t->nr_devs && !ret; i++)
		ret = fn(ti, t->devs[i], 0, SV_BLOCK_SECTORS, data);
	return ret;
}

/*
 * io_min stays at a block: mkfs.xfs would make it the unit of its log, and pad each log write of an fsync to it.
 */
static void sv_volume_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->logical_block_size = SV_BLOCK_SIZE;
	limits->physical_block_size = SV_BLOCK_SIZE;
	limits->io_min = SV_BLOCK_SIZE;
	limits->io_opt = SV_IO_OPT;
	limits->alignment_offset = 0;
	limits->chunk_sectors = 0;
	limits->discard_granularity = SV_BLOCK_SIZE;
	limits->discard_alignment = 0;
	sv_limits_discard(limits, SV_DISCARD_SECTORS);
	sv_limits_write_zeroes(limits, SV_DISCARD_SECTORS);
}

struct target_type sv_volume_target = {
	.name = "sv-volume",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_SINGLETON | DM_TARGET_IMMUTABLE | DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = sv_volume_ctr,
	.dtr = sv_volume_dtr,
	.map = sv_volume_map,
	.end_io = sv_volume_end_io,
	.presuspend = sv_volume_presuspend,
	.presuspend_undo = sv_volume_resume,
	.resume = sv_volume_resume,
	.status = sv_volume_status,
	.iterate_devices = sv_volume_iterate_devices,
	.io_hints = sv_volume_io_hints,
};

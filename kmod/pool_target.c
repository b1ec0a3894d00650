// SPDX-License-Identifier: GPL-2.0
/*
 * Target "sv-pool": assembles a pool and stands for it. It does no I/O; its length means nothing (svd uses the size
 * of all slots).
 *
 *	0 LENGTH sv-pool POOL_UUID NR_MEMBERS DEVICE...		members in the order of their index
 *
 * In a read-only table "-:SLOTS" stands for a member that is not there, with so many slots: what lies on it is EIO. A
 * pool made by a read-only table is read-only for as long as it lives, and opens its members only to read.
 *
 * A table with one device more, loaded over this one, adds a member to the running pool on resume. Members are never
 * taken away so.
 *
 * Status line (dmsetup status), in this order:
 *	mode		write, out-of-space, read-only or fail
 *	state		loading (svd has not activated it yet) or active
 *	seq		of the last committed batch
 *	used/total	bytes of the journal's ring, with what is reserved
 *	free/total	slots of 1 MiB
 *	freed		extents unmapped and not yet recycled
 *	partials	extents of which only some blocks are valid
 *	nr free...	number of members, then each one's free slots
 */
#include <linux/device-mapper.h>
#include <linux/slab.h>

#include "sv.h"

struct sv_ptarget {
	struct sv_kpool *pool;
	struct sv_label *labels;	/* until the members are in the pool */
	u32 nr;
	struct dm_dev *devs[SV_MAX_MEMBERS];	/* NULL: missing */
	u32 missing_slots[SV_MAX_MEMBERS];
};

/* Is this the label of member @index of pool @uuid? Says why not. */
static int sv_check_label(const struct sv_label *l, const struct sv_label *first, const guid_t *uuid, u32 index,
			  blk_mode_t mode, const char **why)
{
	if (memcmp(l->pool_uuid, uuid->b, sizeof(l->pool_uuid)))
		*why = "belongs to another pool";
	else if (l->flags & SV_LABEL_STALE)
		*why = "was left behind by its pool (stale)";
	else if (l->member != index)
		*why = "is a member with another index: give the devices in the order of their index";
	else if (l->incarnation != first->incarnation)
		*why = "has a journal of another incarnation";
	else if (sv_label_read_only(l) && (mode & BLK_OPEN_WRITE))
		*why = "was written by a newer version: read-only tables only";
	else
		return 0;
	return -EINVAL;
}

/* A missing member's label is made up: what the pool must know of it, and the others' incarnation. */
static void sv_ptarget_fill_labels(struct sv_ptarget *t, const struct sv_label *first)
{
	u32 i;

	for (i = 0; i < t->nr; i++)
		if (!t->devs[i]) {
			t->labels[i].nr_slots = t->missing_slots[i];
			t->labels[i].incarnation = first->incarnation;
		}
}

static int sv_ptarget_read_labels(struct sv_ptarget *t, const guid_t *uuid, blk_mode_t mode)
{
	const struct sv_label *first = NULL;
	const char *why = NULL;
	u32 i;

	for (i = 0; i < t->nr; i++) {
		int ret;

		if (!t->devs[i])
			continue;
		if (!first)
			first = &t->labels[i];
		ret = sv_disk_read_label(t->devs[i]->bdev, &t->labels[i], &why);
		if (!ret)
			ret = sv_check_label(&t->labels[i], first, uuid, i, mode, &why);
		if (ret) {
			DMERR("%pg, as member %u of pool %pUb: label %s", t->devs[i]->bdev, i, uuid, why);
			return ret;
		}
	}
	if (!first) {
		DMERR("pool %pUb: every member is missing", uuid);
		return -ENODEV;
	}
	sv_ptarget_fill_labels(t, first);
	return 0;
}

/* The newest label knows how many there are. */
static int sv_ptarget_check_count(struct sv_ptarget *t)
{
	u32 i, newest = 0;

	for (i = 1; i < t->nr; i++)
		if (t->labels[i].generation > t->labels[newest].generation)
			newest = i;
	if (t->nr >= t->labels[newest].nr_members)
		return 0;
	DMERR("pool has %u members, %u given", t->labels[newest].nr_members, t->nr);
	return -ENODEV;
}

/* The running pool's members are the first ones given. */
static bool sv_ptarget_extends(struct sv_ptarget *t, struct sv_kpool *kp)
{
	u32 i;

	if (t->nr < kp->nr_disks)
		return false;
	for (i = 0; i < kp->nr_disks; i++) {
		struct block_device *bdev = kp->disks[i]->dev.bdev;

		if (!t->devs[i] != !bdev || (bdev && t->devs[i]->bdev->bd_dev != bdev->bd_dev))
			return false;
	}
	return true;
}

static int sv_ptarget_join(struct sv_ptarget *t, struct dm_target *ti, const guid_t *uuid)
{
	struct mapped_device *md = dm_table_get_md(ti->table);
	struct sv_kpool *kp;
	int ret = 0;

	mutex_lock(&sv_kpools_lock);
	kp = sv_kpool_find(uuid);
	if (!kp) {
		kp = sv_kpool_create(uuid, dm_table_get_mode(ti->table), t->nr, t->devs, t->labels, &ti->error);
		ret = PTR_ERR_OR_ZERO(kp);
	} else if (kp->stopping) {
		ti->error = "The pool is being stopped: try again when that is over";
		ret = -EBUSY;
	} else if (kp->pool_targets && kp->md != md) {
		ti->error = "The pool already has a device";
		ret = -EBUSY;
	} else if (!sv_ptarget_extends(t, kp)) {
		ti->error = "The pool is running with other members; new ones go behind those";
		ret = -EINVAL;
	}
	if (!ret) {
		sv_kpool_get_user(kp);
		kp->pool_targets++;
		kp->md = md;
		t->pool = kp;
	}
	mutex_unlock(&sv_kpools_lock);
	return ret;
}

static void sv_ptarget_free(struct dm_target *ti, struct sv_ptarget *t)
{
	u32 i;

	for (i = 0; i < t->nr; i++)
		if (t->devs[i])
			dm_put_device(ti, t->devs[i]);
	kvfree(t->labels);
	kfree(t);
}

static int sv_ptarget_parse(struct dm_target *ti, unsigned int argc, char **argv, guid_t *uuid, u32 *nr)
{
	if (argc < 3) {
		ti->error = "Arguments: pool uuid, number of members, devices";
		return -EINVAL;
	}
	if (strlen(argv[0]) != UUID_STRING_LEN || uuid_parse(argv[0], (uuid_t *)uuid)) {
		ti->error = "Malformed pool uuid";
		return -EINVAL;
	}
	if (kstrtou32(argv[1], 10, nr) || !*nr || *nr > SV_MAX_MEMBERS || *nr != argc - 2) {
		ti->error = "Number of members is not that of the devices, or not 1 to 64";
		return -EINVAL;
	}
	return 0;
}

static int sv_ptarget_parse_missing(struct dm_target *ti, const char *word, u32 *slots)
{
	if (kstrtou32(word + 2, 10, slots) || !*slots || *slots > SV_MAX_SLOTS) {
		ti->error = "Missing member: -:SLOTS";
		return -EINVAL;
	}
	if (dm_table_get_mode(ti->table) & BLK_OPEN_WRITE) {
		ti->error = "A member may be missing in a read-only table only";
		return -EINVAL;
	}
	return 0;
}

static int sv_ptarget_get_devices(struct dm_target *ti, struct sv_ptarget *t, char **paths)
{
	u32 i, k;

	for (i = 0; i < t->nr; i++) {
		int ret;

		if (!strncmp(paths[i], "-:", 2)) {
			ret = sv_ptarget_parse_missing(ti, paths[i], &t->missing_slots[i]);
			if (ret)
				return ret;
			continue;
		}
		ret = dm_get_device(ti, paths[i], dm_table_get_mode(ti->table), &t->devs[i]);
		if (ret) {
			ti->error = "Cannot open a member for device-mapper alone";
			DMERR("%s: error %d", paths[i], ret);
			return ret;
		}
		for (k = 0; k < i; k++)
			if (t->devs[k] && t->devs[k]->bdev == t->devs[i]->bdev) {
				ti->error = "A device is given twice";
				return -EINVAL;
			}
	}
	return 0;
}

static int sv_ptarget_assemble(struct dm_target *ti, struct sv_ptarget *t, const guid_t *uuid)
{
	int ret = sv_ptarget_read_labels(t, uuid, dm_table_get_mode(ti->table));

	if (ret) {
		ti->error = "A member's label does not fit (the kernel log says which and why)";
		return ret;
	}
	ret = sv_ptarget_check_count(t);
	if (ret) {
		ti->error = "A member is missing";
		return ret;
	}
	return sv_ptarget_join(t, ti, uuid);
}

static int sv_pool_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct sv_ptarget *t;
	guid_t uuid;
	u32 nr;
	int ret = sv_ptarget_parse(ti, argc, argv, &uuid, &nr);

	if (ret)
		return ret;
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t)
		goto no_memory;
	t->labels = kvcalloc(nr, sizeof(*t->labels), GFP_KERNEL);
	if (!t->labels) {
		kfree(t);
		goto no_memory;
	}
	t->nr = nr;
	ret = sv_ptarget_get_devices(ti, t, argv + 2);
	if (!ret)
		ret = sv_ptarget_assemble(ti, t, &uuid);
	if (ret) {
		sv_ptarget_free(ti, t);
		return ret;
	}
	ti->private = t;
	return 0;

no_memory:
	ti->error = "No memory";
	return -ENOMEM;
}

static void sv_pool_dtr(struct dm_target *ti)
{
	struct sv_ptarget *t = ti->private;
	bool last;

	mutex_lock(&sv_kpools_lock);
	if (!--t->pool->pool_targets)
		t->pool->md = NULL;
	last = sv_kpool_put_user(t->pool);
	mutex_unlock(&sv_kpools_lock);
	if (last)
		sv_kpool_stop(t->pool);
	sv_ptarget_free(ti, t);
}

/* The table becomes live: now the members that it adds belong to the pool. */
static int sv_pool_preresume(struct dm_target *ti)
{
	struct sv_ptarget *t = ti->private;
	struct sv_kpool *kp = t->pool;
	int ret = 0;

	mutex_lock(&sv_kpools_lock);
	while (!ret && kp->nr_disks < t->nr) {
		u32 i = kp->nr_disks;

		if (!t->devs[i]) {
			DMERR("pool %pUb: a new member cannot be missing", &kp->uuid);
			ret = -EINVAL;
			break;
		}
		ret = sv_kpool_add_disk(kp, t->devs[i], &t->labels[i]);
		if (ret)
			DMERR("pool %pUb: cannot add %pg: error %d", &kp->uuid, t->devs[i]->bdev, ret);
	}
	mutex_unlock(&sv_kpools_lock);
	return ret;
}

static int sv_pool_map(struct dm_target *ti, struct bio *bio)
{
	return DM_MAPIO_KILL;
}

static unsigned int sv_pool_emit_state(struct sv_kpool *kp, char *result, unsigned int maxlen)
{
	struct sv_state s = {};
	unsigned int sz = 0;

	sv_kpool_query(kp, SV_OP_STATE, &s, 1);
	DMEMIT("%s %s %llu %llu/%llu %llu/%llu %llu %llu", sv_mode_name(s.mode),
	       s.state == SV_STATE_ACTIVE ? "active" : "loading", s.committed_seq, s.ring_used, s.ring_bytes,
	       s.free_slots, s.total_slots, s.freed_extents, s.partials);
	return sz;
}

static unsigned int sv_pool_emit_members(struct sv_kpool *kp, char *result, unsigned int sz, unsigned int maxlen)
{
	struct sv_member_state *m = kcalloc(SV_MAX_MEMBERS, sizeof(*m), GFP_KERNEL);
	u32 i, nr;

	if (!m)
		return sz;
	nr = sv_kpool_query(kp, SV_OP_MEMBERS, m, SV_MAX_MEMBERS);
	DMEMIT(" %u", nr);
	for (i = 0; i < nr; i++)
		DMEMIT(" %u", m[i].free_slots);
	kfree(m);
	return sz;
}

static void sv_pool_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result,
			   unsigned int maxlen)
{
	struct sv_ptarget *t = ti->private;
	unsigned int sz = 0;
	u32 i;

	switch (type) {
	case STATUSTYPE_INFO:
		sz = sv_pool_emit_state(t->pool, result, maxlen);
		sz = sv_pool_emit_members(t->pool, result, sz, maxlen);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%pUb %u", &t->pool->uuid, t->nr);
		for (i = 0; i < t->nr; i++)
			if (t->devs[i])
				DMEMIT(" %s", t->devs[i]->name);
			else
				DMEMIT(" -:%u", t->missing_slots[i]);
		break;
	default:
		*result = '\0';
	}
}

static int sv_pool_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct sv_ptarget *t = ti->private;
	int ret = 0;
	u32 i;

	for (i = 0; i < t->nr && !ret; i++)
		if (t->devs[i])
			ret = fn(ti, t->devs[i], 0, SV_BLOCK_SECTORS, data);
	return ret;
}

static void sv_pool_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	sv_limits_discard(limits, 0);
}

struct target_type sv_pool_target = {
	.name = "sv-pool",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_SINGLETON | DM_TARGET_IMMUTABLE,
	.module = THIS_MODULE,
	.ctr = sv_pool_ctr,
	.dtr = sv_pool_dtr,
	.map = sv_pool_map,
	.preresume = sv_pool_preresume,
	.status = sv_pool_status,
	.iterate_devices = sv_pool_iterate_devices,
	.io_hints = sv_pool_io_hints,
};

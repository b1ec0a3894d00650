// SPDX-License-Identifier: GPL-2.0
/*
 * nbdkit plugin: a disk with a volatile write cache.
 *
 * Acknowledged writes stay in this process until a flush or FUA (or until the
 * cache is full), so killing the process is a power cut: what was not flushed
 * is gone. With early=PERCENT some writes reach the medium at once, in sectors
 * chosen by seed=, as real caches destage in any order and tear writes.
 *
 * nbdkit calls everything here from one thread at a time.
 */
#define _GNU_SOURCE /* fallocate */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
#define SECTOR 512u
#define NOT_DIRTY UINT32_MAX

static char *path;
static int fd = -1;
static int64_t size;
static unsigned int early;
static uint64_t rng = 1;
static int64_t cache_bytes = 64 << 20;

/* Dirty sectors: slot i of the cache holds sector owner[i]; where[] is the way back. */
static uint32_t *where;
static uint64_t *owner;
static unsigned char *data;
static uint32_t used, slots;

static uint32_t random_below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 16) % n;
}

static int config(const char *key, const char *value)
{
	if (!strcmp(key, "file")) {
		free(path);
		path = nbdkit_absolute_path(value);
		return path ? 0 : -1;
	}
	if (!strcmp(key, "early"))
		return nbdkit_parse_unsigned("early", value, &early);
	if (!strcmp(key, "cache")) {
		cache_bytes = nbdkit_parse_size(value);
		return cache_bytes < SECTOR ? -1 : 0;
	}
	if (!strcmp(key, "seed")) {
		if (nbdkit_parse_uint64_t("seed", value, &rng))
			return -1;
		rng = rng * 2654435761u + 88172645463325252u;
		return 0;
	}
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

static int config_complete(void)
{
	uint64_t sectors;

	if (!path) {
		nbdkit_error("file= is missing");
		return -1;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		nbdkit_error("%s: %m", path);
		return -1;
	}
	size = lseek(fd, 0, SEEK_END);
	sectors = size / SECTOR;
	slots = cache_bytes / SECTOR;
	/* where[] stores slot + 1, so that untouched pages of it cost nothing. */
	where = calloc(sectors + 1, sizeof(*where));
	owner = calloc(slots, sizeof(*owner));
	data = malloc((size_t)slots * SECTOR);
	if (!where || !owner || !data) {
		nbdkit_error("no memory");
		return -1;
	}
	return 0;
}

static uint32_t slot_of(uint64_t sector)
{
	return where[sector] ? where[sector] - 1 : NOT_DIRTY;
}

static unsigned char *slot_data(uint32_t slot)
{
	return data + (size_t)slot * SECTOR;
}

/* Writes one slot to the medium and frees it; the last slot takes its place. */
static int destage(uint32_t slot)
{
	uint32_t last = used - 1;

	if (pwrite(fd, slot_data(slot), SECTOR, owner[slot] * SECTOR) != SECTOR)
		return -1;
	where[owner[slot]] = 0;
	if (slot != last) {
		memcpy(slot_data(slot), slot_data(last), SECTOR);
		owner[slot] = owner[last];
		where[owner[slot]] = slot + 1;
	}
	used = last;
	return 0;
}

static int put_sector(uint64_t sector, const unsigned char *from)
{
	uint32_t slot = slot_of(sector);

	if (slot == NOT_DIRTY) {
		if (used == slots && destage(random_below(used)))
			return -1;
		slot = used++;
		owner[slot] = sector;
		where[sector] = slot + 1;
	}
	memcpy(slot_data(slot), from, SECTOR);
	if (early && random_below(100) < early)
		return destage(slot);
	return 0;
}

static int destage_range(uint64_t sector, uint64_t count)
{
	for (; count; sector++, count--) {
		uint32_t slot = slot_of(sector);

		if (slot != NOT_DIRTY && destage(slot))
			return -1;
	}
	return 0;
}

static void *disk_open(int readonly)
{
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t disk_size(void *handle)
{
	return size;
}

static int disk_pread(void *handle, void *buf, uint32_t count, uint64_t offset,
		      uint32_t flags)
{
	unsigned char *to = buf;
	uint64_t sector = offset / SECTOR;
	uint32_t i, slot;

	if (pread(fd, buf, count, offset) != (ssize_t)count)
		return -1;
	for (i = 0; i < count / SECTOR; i++) {
		slot = slot_of(sector + i);
		if (slot != NOT_DIRTY)
			memcpy(to + (size_t)i * SECTOR, slot_data(slot), SECTOR);
	}
	return 0;
}

static int disk_pwrite(void *handle, const void *buf, uint32_t count,
		       uint64_t offset, uint32_t flags)
{
	const unsigned char *from = buf;
	uint64_t sector = offset / SECTOR;
	uint32_t i;

	for (i = 0; i < count / SECTOR; i++)
		if (put_sector(sector + i, from + (size_t)i * SECTOR))
			return -1;
	if (flags & NBDKIT_FLAG_FUA)
		return destage_range(sector, count / SECTOR);
	return 0;
}

static int disk_flush(void *handle, uint32_t flags)
{
	while (used)
		if (destage(used - 1))
			return -1;
	return 0;
}

static int disk_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	static const unsigned char zeroes[SECTOR];
	uint64_t sector = offset / SECTOR;
	uint32_t i;

	/* A long range goes straight to the medium, as TRIM does. */
	if (count > cache_bytes / 4) {
		if (destage_range(sector, count / SECTOR))
			return -1;
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 offset, count);
	}
	for (i = 0; i < count / SECTOR; i++)
		if (put_sector(sector + i, zeroes))
			return -1;
	if (flags & NBDKIT_FLAG_FUA)
		return destage_range(sector, count / SECTOR);
	return 0;
}

static int disk_can(void *handle)
{
	return 1;
}

static int disk_can_fua(void *handle)
{
	return NBDKIT_FUA_NATIVE;
}

/* A trimmed sector reads as zeroes: the strictest disk, so also the plainest oracle. */
static int disk_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return disk_zero(handle, count, offset, flags);
}

static int disk_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			   uint32_t *maximum)
{
	*minimum = SECTOR;
	*preferred = 4096;
	*maximum = 32 << 20;
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "volatile",
	.config = config,
	.config_complete = config_complete,
	.open = disk_open,
	.get_size = disk_size,
	.block_size = disk_block_size,
	.can_flush = disk_can,
	.can_trim = disk_can,
	.can_zero = disk_can,
	.can_fua = disk_can_fua,
	.can_multi_conn = disk_can,
	.pread = disk_pread,
	.pwrite = disk_pwrite,
	.flush = disk_flush,
	.trim = disk_trim,
	.zero = disk_zero,
	.errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)

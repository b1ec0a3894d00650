// SPDX-License-Identifier: GPL-2.0
/*
 * A member's label: encoding, decoding that trusts nothing, and the layout of new members. Owns no state; called
 * from any context by dm-sv, svd and the tests. Contract: label.h.
 */
#include "label.h"
#include "refuse.h"

static const u8 zero_uuid[16];

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '.' || c == '+' || c == '-';
}

bool sv_name_ok(const char *name, u32 max)
{
	u32 i;

	if (name[0] == '-' || name[0] == '.')
		return false;
	for (i = 0; i <= max; i++) {
		if (!name[i])
			return i > 0;
		if (!name_char(name[i]))
			return false;
	}
	return false;
}

/* ---- codec ---- */

static u32 label_crc(const struct sv_label_disk *d)
{
	static const __le32 zero;
	const u8 *p = (const u8 *)d;
	u32 at = offsetof(struct sv_label_disk, crc);
	u32 crc = sv_crc32c(0, p, at);

	crc = sv_crc32c(crc, &zero, sizeof(zero));
	return sv_crc32c(crc, p + at + sizeof(zero), sizeof(*d) - at - sizeof(zero));
}

void sv_label_encode(const struct sv_label *l, struct sv_label_disk *d)
{
	memset(d, 0, sizeof(*d));
	memcpy(d->magic, SV_LABEL_MAGIC, sizeof(d->magic));
	d->version = cpu_to_le32(SV_LABEL_VERSION);
	d->compat = cpu_to_le64(l->compat);
	d->ro_compat = cpu_to_le64(l->ro_compat);
	d->incompat = cpu_to_le64(l->incompat);
	memcpy(d->pool_uuid, l->pool_uuid, sizeof(d->pool_uuid));
	memcpy(d->member_uuid, l->member_uuid, sizeof(d->member_uuid));
	memcpy(d->host_id, l->host_id, sizeof(d->host_id));
	memcpy(d->pool_name, l->pool_name, sizeof(d->pool_name));
	memcpy(d->tier_name, l->tier_name, sizeof(d->tier_name));
	memcpy(d->host_name, l->host_name, sizeof(d->host_name));
	d->generation = cpu_to_le64(l->generation);
	d->incarnation = cpu_to_le64(l->incarnation);
	d->size = cpu_to_le64(l->size);
	d->copy_off = cpu_to_le64(l->copy_off);
	d->ring_off = cpu_to_le64(l->ring_off);
	d->ring_len = cpu_to_le64(l->ring_len);
	d->cat_off = cpu_to_le64(l->cat_off);
	d->cat_len = cpu_to_le64(l->cat_len);
	d->slot_off = cpu_to_le64(l->slot_off);
	d->nr_slots = cpu_to_le32(l->nr_slots);
	d->member = cpu_to_le32(l->member);
	d->nr_members = cpu_to_le32(l->nr_members);
	d->tier = cpu_to_le32(l->tier);
	d->flags = cpu_to_le32(l->flags);
	d->extent_shift = cpu_to_le32(SV_EXTENT_SHIFT);
	d->crc = cpu_to_le32(label_crc(d));
}

static void label_read(const struct sv_label_disk *d, struct sv_label *l)
{
	l->compat = le64_to_cpu(d->compat);
	l->ro_compat = le64_to_cpu(d->ro_compat);
	l->incompat = le64_to_cpu(d->incompat);
	memcpy(l->pool_uuid, d->pool_uuid, sizeof(d->pool_uuid));
	memcpy(l->member_uuid, d->member_uuid, sizeof(d->member_uuid));
	memcpy(l->host_id, d->host_id, sizeof(d->host_id));
	memcpy(l->pool_name, d->pool_name, sizeof(d->pool_name));
	memcpy(l->tier_name, d->tier_name, sizeof(d->tier_name));
	memcpy(l->host_name, d->host_name, sizeof(d->host_name));
	l->generation = le64_to_cpu(d->generation);
	l->incarnation = le64_to_cpu(d->incarnation);
	l->size = le64_to_cpu(d->size);
	l->copy_off = le64_to_cpu(d->copy_off);
	l->ring_off = le64_to_cpu(d->ring_off);
	l->ring_len = le64_to_cpu(d->ring_len);
	l->cat_off = le64_to_cpu(d->cat_off);
	l->cat_len = le64_to_cpu(d->cat_len);
	l->slot_off = le64_to_cpu(d->slot_off);
	l->nr_slots = le32_to_cpu(d->nr_slots);
	l->member = le32_to_cpu(d->member);
	l->nr_members = le32_to_cpu(d->nr_members);
	l->tier = le32_to_cpu(d->tier);
	l->flags = le32_to_cpu(d->flags);
}

/* ---- checks: each answers what is wrong, or NULL ---- */

static const char *check_identity(const struct sv_label *l)
{
	if (!memcmp(l->pool_uuid, zero_uuid, sizeof(zero_uuid)))
		return "no pool uuid";
	if (!memcmp(l->member_uuid, zero_uuid, sizeof(zero_uuid)))
		return "no member uuid";
	if (!sv_name_ok(l->pool_name, SV_POOL_NAME_MAX))
		return "pool name is malformed";
	if (!sv_name_ok(l->tier_name, SV_TIER_NAME_MAX))
		return "tier name is malformed";
	if (l->host_name[0] && !sv_name_ok(l->host_name, SV_HOST_NAME_MAX))
		return "host name is malformed";
	if (!l->nr_members || l->nr_members > SV_MAX_MEMBERS)
		return "number of members is out of range";
	if (l->member >= l->nr_members)
		return "member index is not below the number of members";
	if (l->tier >= SV_MAX_TIERS)
		return "tier is out of range";
	return NULL;
}

static bool mib_aligned(u64 v)
{
	return !(v & (SV_MIB - 1));
}

/*
 * One region in [*pos, end): *pos moves behind it. *pos <= end throughout, so nothing here can overflow. A region
 * that the flags do not name has offset and length 0.
 */
static bool take_region(bool has, u64 off, u64 len, u64 min, u64 max, u64 end, u64 *pos)
{
	if (!has)
		return !off && !len;
	if (!mib_aligned(off) || !mib_aligned(len) || len < min || len > max)
		return false;
	if (off < *pos || off > end || len > end - off)
		return false;
	*pos = off + len;
	return true;
}

static const char *check_layout(const struct sv_label *l)
{
	u64 pos = SV_MIB, end;

	if (!l->copy_off || l->copy_off != sv_label_copy_off(l->size))
		return "copy of the label is not where the size puts it";
	end = l->copy_off & ~(SV_MIB - 1);
	if (end < pos)
		return "size leaves no room for slots";
	if (!take_region(l->flags & SV_LABEL_HAS_RING, l->ring_off, l->ring_len, SV_RING_MIN, SV_RING_MAX, end, &pos))
		return "journal ring is misplaced";
	if (!take_region(l->flags & SV_LABEL_HAS_CATALOGUE, l->cat_off, l->cat_len, SV_CATALOGUE_MIN, end, end, &pos))
		return "catalogue region is misplaced";
	if (!l->nr_slots || l->nr_slots > SV_MAX_SLOTS)
		return "number of slots is out of range";
	if (!take_region(true, l->slot_off, (u64)l->nr_slots << SV_EXTENT_SHIFT, SV_MIB, end, end, &pos))
		return "slots are misplaced";
	return NULL;
}

int sv_label_decode(const struct sv_label_disk *d, struct sv_label *l, const char **why)
{
	struct sv_label in;
	const char *wrong;

	if (memcmp(d->magic, SV_LABEL_MAGIC, sizeof(d->magic)))
		return sv_refuse(-EINVAL, why, "no svctl label here");
	if (le32_to_cpu(d->crc) != label_crc(d))
		return sv_refuse(-EINVAL, why, "checksum does not match: damaged");
	if (le32_to_cpu(d->version) > SV_LABEL_VERSION)
		return sv_refuse(-EPROTONOSUPPORT, why, "written by a newer version of svctl: use that one");
	if (le32_to_cpu(d->version) != SV_LABEL_VERSION)
		return sv_refuse(-EINVAL, why, "version is out of range");
	label_read(d, &in);
	if (in.incompat & ~SV_LABEL_INCOMPAT)
		return sv_refuse(-EPROTONOSUPPORT, why, "needs a feature that this version of svctl does not have");
	if (in.flags & ~SV_LABEL_FLAGS)
		return sv_refuse(-EPROTONOSUPPORT, why, "has a flag that this version of svctl does not know");
	if (le32_to_cpu(d->extent_shift) != SV_EXTENT_SHIFT)
		return sv_refuse(-EINVAL, why, "extent size is not 1 MiB");
	wrong = check_identity(&in);
	if (!wrong)
		wrong = check_layout(&in);
	if (wrong)
		return sv_refuse(-EINVAL, why, wrong);
	*l = in;
	return 0;
}

/* ---- layout ---- */

u64 sv_label_copy_off(u64 bytes)
{
	u64 whole = bytes & ~(SV_MIB - 1);

	return whole ? whole - SV_LABEL_SIZE : 0;
}

static bool region_len_ok(u64 len, u64 min, u64 max)
{
	return mib_aligned(len) && len >= min && len <= max;
}

int sv_label_layout(struct sv_label *l, u64 bytes, u32 flags, u64 ring_len, u64 cat_len)
{
	u64 ring = flags & SV_LABEL_HAS_RING ? ring_len : 0;
	u64 cat = flags & SV_LABEL_HAS_CATALOGUE ? cat_len : 0;
	u64 copy = sv_label_copy_off(bytes), room;

	if (flags & ~SV_LABEL_FLAGS)
		return -EINVAL;
	if ((flags & SV_LABEL_HAS_RING && !region_len_ok(ring, SV_RING_MIN, SV_RING_MAX)) ||
	    (flags & SV_LABEL_HAS_CATALOGUE && !region_len_ok(cat, SV_CATALOGUE_MIN, ~0ull >> 1)))
		return -EINVAL;
	room = copy & ~(SV_MIB - 1);		/* all but the last MiB; and less the first one, and the regions */
	if (room < SV_MIB + ring + cat + SV_MIB)
		return -ENOSPC;
	room -= SV_MIB + ring + cat;
	l->size = bytes;
	l->flags = flags;
	l->copy_off = copy;
	l->ring_off = ring ? SV_MIB : 0;
	l->ring_len = ring;
	l->cat_off = cat ? SV_MIB + ring : 0;
	l->cat_len = cat;
	l->slot_off = SV_MIB + ring + cat;
	l->nr_slots = min_t(u64, room >> SV_EXTENT_SHIFT, SV_MAX_SLOTS);
	return 0;
}

static u64 mib_floor(u64 v)
{
	return v & ~(SV_MIB - 1);
}

u64 sv_ring_len_for(u64 pool_bytes)
{
	u64 len = pool_bytes / 1024;

	len = max_t(u64, len, 256 * SV_MIB);
	len = min_t(u64, len, SV_RING_MAX);
	len = min_t(u64, len, pool_bytes / 32);
	return max_t(u64, mib_floor(len), SV_RING_MIN);
}

u64 sv_cat_len_for(u64 pool_bytes)
{
	u64 len = pool_bytes / 1024;

	len = max_t(u64, len, 32 * SV_MIB);
	len = min_t(u64, len, pool_bytes / 16);
	return max_t(u64, mib_floor(len), SV_CATALOGUE_MIN);
}

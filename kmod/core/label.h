/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A member's label: the in-core form, its codec, and the layout of a new member. Pure functions, any context.
 * Called by dm-sv when it opens members, by svd when it creates, finds and checks them, and by the tests.
 */
#ifndef SV_CORE_LABEL_H
#define SV_CORE_LABEL_H

#include "format.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SV_MIB			1048576ull
#define SV_CATALOGUE_MIN	(4 * SV_MIB)
#define SV_RING_MAX		(4096 * SV_MIB)

/* Feature bits that this code gives a meaning to. */
#define SV_LABEL_INCOMPAT	0ull
#define SV_LABEL_RO_COMPAT	0ull
#define SV_LABEL_FLAGS		(SV_LABEL_HAS_RING | SV_LABEL_HAS_CATALOGUE | SV_LABEL_STALE)

/* struct sv_label_disk in the host's byte order; names are NUL-terminated. Meaning of the fields: format.h. */
struct sv_label {
	u64 compat;
	u64 ro_compat;
	u64 incompat;
	u8 pool_uuid[16];
	u8 member_uuid[16];
	u8 host_id[16];
	char pool_name[32];
	char tier_name[16];
	char host_name[64];
	u64 generation;
	u64 incarnation;
	u64 size;
	u64 copy_off;
	u64 ring_off;
	u64 ring_len;
	u64 cat_off;
	u64 cat_len;
	u64 slot_off;
	u32 nr_slots;
	u32 member;
	u32 nr_members;
	u32 tier;
	u32 flags;
};

/* Fills all of @d, with its crc. What is in @l is written as it is: sv_label_decode() says whether it makes sense. */
void sv_label_encode(const struct sv_label *l, struct sv_label_disk *d);

/*
 * Trusts nothing. 0; -EINVAL: not a label, or a damaged one; -EPROTONOSUPPORT: written by a newer version that
 * this one must not touch. On failure *@l is unchanged and *@why (may be NULL) says what is wrong, in words that
 * fit behind "label of /dev/x: ". The caller compares @l->size with the device, and may only read a member for
 * which sv_label_read_only() holds. [I33]
 */
int __must_check sv_label_decode(const struct sv_label_disk *d, struct sv_label *l, const char **why);

static inline bool sv_label_read_only(const struct sv_label *l)
{
	return l->ro_compat & ~SV_LABEL_RO_COMPAT;
}

/* Where the copy of the label lies on a device of @bytes: the last 4 KiB of its last whole MiB. 0: no such MiB. */
u64 sv_label_copy_off(u64 bytes);

/*
 * Lays out a device of @bytes: sets size, flags, copy_off, ring_*, cat_*, slot_off and nr_slots of @l, and nothing
 * else. @ring_len and @cat_len count only with SV_LABEL_HAS_RING and SV_LABEL_HAS_CATALOGUE in @flags. 0; -ENOSPC:
 * too small for these regions and one slot; -EINVAL: a length or flag that the format does not allow. What lies
 * behind SV_MAX_SLOTS slots stays unused.
 */
int __must_check sv_label_layout(struct sv_label *l, u64 bytes, u32 flags, u64 ring_len, u64 cat_len);

/* Lengths of the regions for a pool whose members have @pool_bytes together. Multiples of 1 MiB. */
u64 sv_ring_len_for(u64 pool_bytes);
u64 sv_cat_len_for(u64 pool_bytes);

/* A name of 1 to @max characters of [A-Za-z0-9_.+-], beginning with neither '-' nor '.', and NUL within @max + 1. */
bool sv_name_ok(const char *name, u32 max);

#ifdef __cplusplus
}
#endif
#endif

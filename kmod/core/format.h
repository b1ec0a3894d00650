/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What dm-sv and svd write to members. One header, shared by the kernel module, the daemon and every test.
 *
 * A member, in this order (all offsets in bytes, all regions 1 MiB aligned unless said otherwise):
 *
 *	0		label, 4 KiB, rewritten in place; copy in the last 4 KiB of the last whole MiB
 *	ring_off	journal ring, only where SV_LABEL_HAS_RING (at most two members)
 *	cat_off		catalogue region, only where SV_LABEL_HAS_CATALOGUE (at most two members)
 *	slot_off	slots of 1 MiB each, nr_slots of them
 *	copy_off	copy of the label
 *
 * Little-endian throughout. CRC32C (Castagnoli, initial value ~0, final xor ~0) over the structure with its crc
 * field zero. Reserved fields are written as zero; a reader ignores them unless a feature bit gives them meaning.
 * compat bits may be ignored, an unknown ro_compat bit allows reading only, an unknown incompat bit nothing.
 */
#ifndef SV_CORE_FORMAT_H
#define SV_CORE_FORMAT_H

#include "port.h"

#define SV_BLOCK_SHIFT		12	/* 4 KiB: unit of validity, logical block size of volumes */
#define SV_EXTENT_SHIFT		20	/* 1 MiB: unit of mapping and placement */
#define SV_FRAG_SHIFT		16	/* 64 KiB: unit of space for redirected writes */
#define SV_BLOCK_SIZE		(1u << SV_BLOCK_SHIFT)
#define SV_EXTENT_SIZE		(1u << SV_EXTENT_SHIFT)
#define SV_EXTENT_BLOCKS	(1u << (SV_EXTENT_SHIFT - SV_BLOCK_SHIFT))	/* 256 */
#define SV_VALID_WORDS		(SV_EXTENT_BLOCKS / 64)				/* 4 */
#define SV_FRAGS		(1u << (SV_EXTENT_SHIFT - SV_FRAG_SHIFT))	/* 16 */
#define SV_FRAG_BLOCKS		(1u << (SV_FRAG_SHIFT - SV_BLOCK_SHIFT))	/* 16 */
#define SV_FRAG_BITS		((1ull << SV_FRAG_BLOCKS) - 1)	/* of a fragment's blocks */

#define SV_MAX_MEMBERS		64u
#define SV_MAX_SLOTS		(1u << 28)	/* per member: 256 TiB */
#define SV_MAX_TIERS		8u
#define SV_VOLUME_SIZE_MAX	(1ull << 56)	/* 64 PiB: 2^36 extents */
#define SV_POOL_NAME_MAX	31
#define SV_VOLUME_NAME_MAX	47
#define SV_SNAPSHOT_NAME_MAX	31
#define SV_TIER_NAME_MAX	15
#define SV_HOST_NAME_MAX	63

/* ---- label ---- */

#define SV_LABEL_MAGIC		"svctl\0\r\n"	/* 8 bytes, no terminator */
#define SV_LABEL_VERSION	1u
#define SV_LABEL_SIZE		4096u
#define SV_LABEL_HAS_RING	(1u << 0)
#define SV_LABEL_HAS_CATALOGUE	(1u << 1)
#define SV_LABEL_STALE		(1u << 2)	/* this member was left behind: nothing on it may be used */

struct sv_label_disk {
	__u8	magic[8];
	__le32	version;
	__le32	crc;
	__le64	compat;
	__le64	ro_compat;
	__le64	incompat;
	__u8	pool_uuid[16];
	__u8	member_uuid[16];
	__u8	host_id[16];		/* the host that holds the pool, zero if exported */
	char	pool_name[32];
	char	tier_name[16];
	__le64	generation;		/* of what the pool's labels share; the highest wins */
	__le64	incarnation;		/* of the journal ring: batches of another one are not ours */
	__le64	size;			/* bytes of the device that this layout covers */
	__le64	copy_off;
	__le64	ring_off;
	__le64	ring_len;
	__le64	cat_off;
	__le64	cat_len;
	__le64	slot_off;
	__le32	nr_slots;
	__le32	member;			/* index, dense from 0, never reused within a pool */
	__le32	nr_members;		/* at this generation */
	__le32	tier;			/* rank: 0 is the fastest */
	__le32	flags;
	__le32	extent_shift;		/* SV_EXTENT_SHIFT */
	char	host_name[64];		/* of the host in host_id, for messages; may be empty */
	__u8	reserved[3800];
};

/* ---- journal ---- */

#define SV_BATCH_MAGIC		0x4a765331u	/* "1SvJ" */
#define SV_BATCH_HEAD		64u
#define SV_BATCH_ALIGN		4096u
#define SV_BATCH_MAX		(1u << 20)
#define SV_RING_MIN		(1ull << 20)

/*
 * A batch: header, then records back to back, padded with zeroes to SV_BATCH_ALIGN. crc covers header (crc zero)
 * and records, prev_crc is the crc of the batch with seq - 1, so that a batch can only follow the one it followed
 * when it was written. A batch never wraps: one that does not fit before the ring's end is written at offset 0.
 * Recovery: after seq s ended at offset e, seq s + 1 is at e or at 0, or was never written. [I17] [I18]
 */
struct sv_batch_disk {
	__le32	magic;
	__le32	crc;
	__le64	seq;			/* from 1, without gaps */
	__le64	incarnation;
	__le32	bytes;			/* header and records, padding not counted */
	__le32	records;
	__le32	prev_crc;
	__le32	flags;			/* SV_BATCH_*; unknown ones: refuse */
	__le64	tail_seq;		/* oldest seq that was not trimmed when this was written */
	__le64	offset;			/* of this header in the ring */
	__le64	reserved;
};

/* This batch was acknowledged without the other copy of the ring: that copy is stale from here on. [I32] */
#define SV_BATCH_COPY_LOST	(1u << 0)
/* It has FOLD records, which a version from before them must not take for damage. */
#define SV_BATCH_FOLDS		(1u << 1)

enum sv_rec_type {
	SV_REC_MAP	= 1,	/* 32: index of a volume's layer now maps to extent in slot */
	SV_REC_FRAG	= 2,	/* 16: a fragment of an extent has a place */
	SV_REC_UNFRAG	= 3,	/* 16 */
	SV_REC_VALID	= 4,	/* 16: 64 block bits OR-ed */
	SV_REC_CLEAR	= 5,	/* 16: 64 block bits cleared; only extents without parent */
	SV_REC_UNMAP	= 6,	/* 24: index no longer maps; with flag TOMBSTONE it hides an ancestor's */
	SV_REC_MOVE	= 7,	/* 24: extent now lies in another slot */
	SV_REC_LAYER	= 8,	/* 24: volume writes to a new layer */
	SV_REC_SNAPDONE	= 9,	/* 16 */
	SV_REC_OWN	= 10,	/* 16: owned_since of a volume */
	SV_REC_FOLD	= 11,	/* 16: an extent has its parent's blocks too, and the parent's parent as parent */
};

/* Head of every record. The size follows from the type; an unknown type is damage. */
struct sv_rec_head {
	__u8	type;
	__u8	flags;
	__le16	gen;			/* generation of the extent named */
	__le32	extent;			/* LAYER, SNAPDONE, OWN, UNMAP: volume id */
};

#define SV_VALID_ALL		0x80u	/* flags of VALID: every block of the extent; bits is ~0 */
#define SV_VALID_WORD		0x03u	/* flags of VALID and CLEAR: which 64 of the 256 bits */
#define SV_UNMAP_TOMBSTONE	0x01u
#define SV_MAP_PARTIAL		0x01u	/* flags of MAP: no block is valid yet; otherwise all are */
#define SV_MAP_PARENT		0x02u	/* parent names the extent below this one */
#define SV_MAP_FRAGS		0x04u	/* with PARTIAL: FRAG records say where it is, on member; slot is 0 */
#define SV_FOLD_SWAPPED		0x01u	/* flags of FOLD: it has taken the parent's slot */

struct sv_rec_map {
	struct sv_rec_head h;
	__le64	index_volume;		/* logical extent: low 40 bits; volume id: high 24 bits */
	__le32	layer;
	__le32	parent;			/* with SV_MAP_PARENT, otherwise 0 */
	__le32	slot;			/* of member: */
	__le32	member;
};

struct sv_rec_valid {			/* VALID and CLEAR */
	struct sv_rec_head h;
	__le64	bits;
};

struct sv_rec_unmap {			/* h.extent is the volume; h.gen unused */
	struct sv_rec_head h;
	__le32	layer;
	__le32	old_extent;		/* what was mapped there, 0 if nothing of this layer's own */
	__le64	index;
};

struct sv_rec_move {
	struct sv_rec_head h;		/* gen: the new one */
	__le32	slot;
	__le32	member;
	/* 0: it has that slot. Otherwise these fragments, in one slot, and slot is the place of the first one. */
	__le64	frag_mask;
};

struct sv_rec_layer {
	struct sv_rec_head h;
	__le32	layer;
	__le32	parent;
	__le64	job;			/* row in the catalogue that this carries out */
};

struct sv_rec_small {			/* FRAG, UNFRAG, SNAPDONE, OWN, FOLD */
	struct sv_rec_head h;
	__le64	arg;			/* FOLD: the parent; FRAG: SV_FRAG_ARG_* */
};

#define SV_EXTENTS_PER_SLOT	5u	/* numbers that a pool has: what the catalogue has room for */
#define SV_MAX_EXTENTS		(~0u - 512u)	/* the kernel counts whole pages of 512 in 32 bits */

/* Numbers of extents are 1 to this - 1 in a pool of so many slots. */
static inline u32 sv_max_extents(u64 slots)
{
	return (u32)min_t(u64, slots * SV_EXTENTS_PER_SLOT + 1, SV_MAX_EXTENTS);
}

#define SV_MAX_CHAIN		65536u	/* parents, one above the other: more are taken for a circle */
#define SV_FRAGS_MAX		(SV_FRAGS / 2)	/* an extent with more of them takes a slot */

/*
 * A place is the 16th of a slot that holds a fragment: 16 times the slot, plus which one, plus 1. 0 is none, so the
 * last 16th of the last slot that a member can have holds none.
 */
#define SV_FRAG_ARG_PLACE	0xffffffffull
#define SV_FRAG_ARG_FRAG	32		/* from this bit, 8: which fragment of the extent */
#define SV_FRAG_ARG_MEMBER	40		/* from this bit, 8: the extent's */

static_assert(sizeof(struct sv_label_disk) == SV_LABEL_SIZE, "label size");
static_assert(__builtin_offsetof(struct sv_label_disk, pool_uuid) == 40, "label.pool_uuid");
static_assert(__builtin_offsetof(struct sv_label_disk, generation) == 136, "label.generation");
static_assert(__builtin_offsetof(struct sv_label_disk, host_name) == 232, "label.host_name");
static_assert(sizeof(struct sv_batch_disk) == SV_BATCH_HEAD, "batch header size");
static_assert(sizeof(struct sv_rec_head) == 8, "record head size");
static_assert(sizeof(struct sv_rec_map) == 32, "MAP size");
static_assert(sizeof(struct sv_rec_valid) == 16, "VALID size");
static_assert(sizeof(struct sv_rec_unmap) == 24, "UNMAP size");
static_assert(sizeof(struct sv_rec_move) == 24, "MOVE size");
static_assert(sizeof(struct sv_rec_layer) == 24, "LAYER size");
static_assert(sizeof(struct sv_rec_small) == 16, "small record size");

#define SV_INDEX_BITS	40
#define SV_VOLUME_ID_MAX 0xffffffu

#endif

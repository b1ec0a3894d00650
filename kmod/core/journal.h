/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The journal's bytes: records, batches, and finding the batches of a ring. Pure functions over memory, any
 * context; only sv_ring_next() does I/O, through the caller's read function, and sleeps if that does. Records are
 * made by plan.c, batches by commit.c; the ring is read by svd, at a checkpoint and in recovery alike.
 */
#ifndef SV_CORE_JOURNAL_H
#define SV_CORE_JOURNAL_H

#include "format.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- records ---- */

/* Bytes of a record of this type, a multiple of 8; 0 if there is no such type. */
u32 sv_rec_size(u8 type);

/*
 * A record in the host's byte order; which members count depends on type. What a record does not have is 0.
 *	MAP		flags gen extent volume index layer parent slot member
 *	FRAG		gen extent word (which fragment) member arg (place)
 *	UNFRAG		flags gen extent arg
 *	VALID CLEAR	flags gen extent word bits; VALID of every block: flags SV_VALID_ALL, word 0, bits ~0
 *	UNMAP		flags volume index layer extent (the old one, 0: none of this layer's own)
 *	MOVE		gen extent slot member arg (fragment mask, 0: all; otherwise slot is the place of the first one)
 *	LAYER		volume layer parent arg (job)
 *	SNAPDONE	volume layer
 *	OWN		volume layer (owned_since)
 *	FOLD		flags gen extent parent
 */
struct sv_rec {
	u8 type;
	u8 flags;		/* without the word of VALID and CLEAR */
	u16 gen;
	u32 extent;
	u32 volume;
	u32 layer;
	u32 parent;
	u32 slot;
	u32 member;
	u32 word;
	u64 index;
	u64 bits;
	u64 arg;
};

/* 0, or -EBADMSG: unknown type, cut off by @left, or a field out of its range. @rec may be unaligned. */
int __must_check sv_rec_check(const void *rec, u32 left);
/* The same, and decoded. On failure *@out is unchanged and *@why (may be NULL) says what is wrong. */
int __must_check sv_rec_decode(const void *p, u32 left, struct sv_rec *out, const char **why);

/*
 * Encoders. Each writes one record at @p (8-byte aligned) and returns its size. They check nothing: the core knows
 * what it writes.
 */
static inline void sv_put_head(struct sv_rec_head *h, u8 type, u8 flags, u16 gen, u32 extent)
{
	h->type = type;
	h->flags = flags;
	h->gen = cpu_to_le16(gen);
	h->extent = cpu_to_le32(extent);
}

static inline u32 sv_put_map(void *p, u8 flags, u16 gen, u32 extent, u32 volume, u64 index, u32 layer, u32 parent,
			     u32 member, u32 slot)
{
	struct sv_rec_map *r = (struct sv_rec_map *)p;

	sv_put_head(&r->h, SV_REC_MAP, flags, gen, extent);
	r->index_volume = cpu_to_le64((u64)volume << SV_INDEX_BITS | index);
	r->layer = cpu_to_le32(layer);
	r->parent = cpu_to_le32(parent);
	r->slot = cpu_to_le32(slot);
	r->member = cpu_to_le32(member);
	return sizeof(*r);
}

static inline u32 sv_put_bits(void *p, u8 type, u8 flags, u16 gen, u32 extent, u64 bits)
{
	struct sv_rec_valid *r = (struct sv_rec_valid *)p;

	sv_put_head(&r->h, type, flags, gen, extent);
	r->bits = cpu_to_le64(bits);
	return sizeof(*r);
}

static inline u32 sv_put_valid(void *p, u16 gen, u32 extent, u32 word, u64 bits)
{
	return sv_put_bits(p, SV_REC_VALID, word & SV_VALID_WORD, gen, extent, bits);
}

static inline u32 sv_put_valid_all(void *p, u16 gen, u32 extent)
{
	return sv_put_bits(p, SV_REC_VALID, SV_VALID_ALL, gen, extent, ~0ull);
}

static inline u32 sv_put_clear(void *p, u16 gen, u32 extent, u32 word, u64 bits)
{
	return sv_put_bits(p, SV_REC_CLEAR, word & SV_VALID_WORD, gen, extent, bits);
}

static inline u32 sv_put_unmap(void *p, u8 flags, u32 volume, u64 index, u32 layer, u32 old_extent)
{
	struct sv_rec_unmap *r = (struct sv_rec_unmap *)p;

	sv_put_head(&r->h, SV_REC_UNMAP, flags, 0, volume);
	r->layer = cpu_to_le32(layer);
	r->old_extent = cpu_to_le32(old_extent);
	r->index = cpu_to_le64(index);
	return sizeof(*r);
}

static inline u32 sv_put_move(void *p, u16 gen, u32 extent, u32 member, u32 slot, u64 frag_mask)
{
	struct sv_rec_move *r = (struct sv_rec_move *)p;

	sv_put_head(&r->h, SV_REC_MOVE, 0, gen, extent);
	r->slot = cpu_to_le32(slot);
	r->member = cpu_to_le32(member);
	r->frag_mask = cpu_to_le64(frag_mask);
	return sizeof(*r);
}

static inline u32 sv_put_layer(void *p, u32 volume, u32 layer, u32 parent, u64 job)
{
	struct sv_rec_layer *r = (struct sv_rec_layer *)p;

	sv_put_head(&r->h, SV_REC_LAYER, 0, 0, volume);
	r->layer = cpu_to_le32(layer);
	r->parent = cpu_to_le32(parent);
	r->job = cpu_to_le64(job);
	return sizeof(*r);
}

/* UNFRAG and FOLD (@name: extent), SNAPDONE and OWN (@name: volume, @arg: layer, no flags, no gen). */
static inline u32 sv_put_small(void *p, u8 type, u8 flags, u16 gen, u32 name, u64 arg)
{
	struct sv_rec_small *r = (struct sv_rec_small *)p;

	sv_put_head(&r->h, type, flags, gen, name);
	r->arg = cpu_to_le64(arg);
	return sizeof(*r);
}

static inline u32 sv_put_frag(void *p, u16 gen, u32 extent, u32 member, u32 frag, u32 place)
{
	u64 arg = (u64)member << SV_FRAG_ARG_MEMBER | (u64)frag << SV_FRAG_ARG_FRAG | place;

	return sv_put_small(p, SV_REC_FRAG, 0, gen, extent, arg);
}

/* Any decoded record back into bytes; 0 for an unknown type. For tools and tests, not for the data path. */
u32 sv_rec_encode(const struct sv_rec *r, void *p);

/* ---- batches ---- */

/*
 * Makes a batch of @records records that already lie at @buf + SV_BATCH_HEAD: @bytes is header and records together,
 * at most SV_BATCH_MAX. What follows up to a multiple of SV_BATCH_ALIGN is the caller's: zeroes. Returns the crc, which
 * is prev_crc of the next one. The first batch of an incarnation has prev_crc 0.
 */
u32 sv_batch_seal(void *buf, u32 bytes, u32 records, u64 seq, u64 incarnation, u32 prev_crc, u32 flags, u64 tail_seq,
		  u64 offset);

/*
 * Is what lies at @buf, of which @have bytes were read, the batch that these name? [I18]
 * 0: yes, and every record decodes. -EINVAL: no (or torn). -EBADMSG: it is, but its contents are damaged although
 * the crc is right. -EPROTONOSUPPORT: it is, and has a flag that this version does not know.
 */
int __must_check sv_batch_check(const void *buf, u32 have, u64 seq, u64 incarnation, u32 prev_crc, u64 offset,
				const char **why);

/* Bytes that a checked batch takes in the ring. */
static inline u32 sv_batch_len(const void *batch)
{
	return ALIGN(le32_to_cpu(((const struct sv_batch_disk *)batch)->bytes), SV_BATCH_ALIGN);
}

/*
 * The records of a checked batch, in order. Begin with *@pos = 0. 1: *@out is the next one; 0: no more; -EBADMSG.
 */
int __must_check sv_batch_next(const void *batch, u32 *pos, struct sv_rec *out, const char **why);

/* ---- ring ---- */

struct sv_ring {
	u64 len;		/* multiple of 4096, at least SV_RING_MIN */
	u64 incarnation;
	/*
	 * The seq up to which the journal is known to go (what ATTACH and COMMIT answer): it ends there without a
	 * look at the ring, and anything missing before it is damage. 0: unknown, find out (recovery); then the
	 * end costs reading 257 MiB of the ring and samples of the rest, because a later valid batch may lie anywhere.
	 */
	u64 last_seq;
	int (*read)(void *ctx, u64 off, void *buf, u32 len);	/* 0 or -errno; off within the ring */
	void *ctx;
	void *buf;		/* SV_BATCH_MAX bytes, 8-byte aligned */

	/* Set by sv_ring_next(), for the caller's judgement: */
	bool torn;		/* it answered 0, and what lies there begins like the batch sought */
	u64 later_seq;		/* it found damage, and this is the last whole batch behind it; or 0 */
};

/* Where reading stands: behind batch seq, whose crc is prev_crc. All zero: nothing applied yet. */
struct sv_ring_cursor {
	u64 seq;
	u64 off;
	u32 prev_crc;
	u32 pad;
};

/*
 * The batch after the cursor, which then stands behind it. 1: *@batch is valid until the next call. 0: the journal
 * ends here (a torn last batch is such an end). Otherwise the cursor has not moved and *@why (may be NULL) says
 * what is wrong: -EBADMSG damage; -EPROTONOSUPPORT a newer version's batch; -EINVAL ring or cursor make no sense;
 * -EIO for whatever the read function failed with. [I18] [I31]
 *
 * Torn or damaged? A sector is written whole or not at all. So a header of which one field is wrong, or a bad batch
 * that lies in one sector, is damage. A longer one with a right header may be either: it counts as torn.
 */
int __must_check sv_ring_next(struct sv_ring *ring, struct sv_ring_cursor *cur, const void **batch, const char **why);

/*
 * Does the ring still hold the batch that the cursor stands behind? Where the journal ends at the cursor it must: only
 * later batches overwrite it. If not, the ring was lost, and with it what came after. 1, 0, or -EIO and *@why.
 */
int __must_check sv_ring_holds(struct sv_ring *ring, const struct sv_ring_cursor *cur, const char **why);

#ifdef __cplusplus
}
#endif
#endif

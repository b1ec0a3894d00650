// SPDX-License-Identifier: GPL-2.0
/*
 * The journal's bytes: records, batches, and the walk along a ring. Owns no state. Contract: journal.h.
 *
 * Where the journal ends [I18]: batch s + 1 lies where batch s ended, or at 0. If neither place holds it whole, it
 * either was never completed (the end: nothing later can exist, since one batch is in flight at a time [I17]) or
 * it was and has rotted. The two differ in whether a later batch exists anywhere; that is why the end costs a scan.
 */
#include "journal.h"
#include "refuse.h"

/* ---- records ---- */

u32 sv_rec_size(u8 type)
{
	switch (type) {
	case SV_REC_MAP:
		return sizeof(struct sv_rec_map);
	case SV_REC_VALID:
	case SV_REC_CLEAR:
		return sizeof(struct sv_rec_valid);
	case SV_REC_UNMAP:
		return sizeof(struct sv_rec_unmap);
	case SV_REC_MOVE:
		return sizeof(struct sv_rec_move);
	case SV_REC_LAYER:
		return sizeof(struct sv_rec_layer);
	case SV_REC_FRAG:
	case SV_REC_UNFRAG:
	case SV_REC_SNAPDONE:
	case SV_REC_OWN:
	case SV_REC_FOLD:
		return sizeof(struct sv_rec_small);
	}
	return 0;
}

/* Each reads one record of its type, aligned and whole, into a zeroed @r; answers what is wrong, or NULL. */

static const char *check_place(const struct sv_rec *r)
{
	if (!r->extent)
		return "record names extent 0";
	if (r->member >= SV_MAX_MEMBERS)
		return "record names a member out of range";
	if (r->slot >= SV_MAX_SLOTS)
		return "record names a slot out of range";
	return NULL;
}

static const char *check_volume(const struct sv_rec *r)
{
	if (!r->volume || r->volume > SV_VOLUME_ID_MAX)
		return "record names a volume out of range";
	if (r->index >> SV_INDEX_BITS)
		return "record names an index out of range";
	return NULL;
}

static const char *read_map(const struct sv_rec_map *d, struct sv_rec *r)
{
	u64 iv = le64_to_cpu(d->index_volume);
	const char *wrong;

	r->extent = le32_to_cpu(d->h.extent);
	r->volume = iv >> SV_INDEX_BITS;
	r->index = iv & ((1ull << SV_INDEX_BITS) - 1);
	r->layer = le32_to_cpu(d->layer);
	r->parent = le32_to_cpu(d->parent);
	r->slot = le32_to_cpu(d->slot);
	r->member = le32_to_cpu(d->member);
	if (r->flags & ~(SV_MAP_PARTIAL | SV_MAP_PARENT | SV_MAP_FRAGS))
		return "MAP has an unknown flag";
	if ((r->flags & SV_MAP_FRAGS) && (!(r->flags & SV_MAP_PARTIAL) || r->slot))
		return "MAP has fragments, and a slot or all blocks";
	if (!(r->flags & SV_MAP_PARENT) != !r->parent)
		return "MAP's parent and its flag disagree";
	wrong = check_place(r);
	return wrong ? wrong : check_volume(r);
}

static const char *read_bits(const struct sv_rec_valid *d, struct sv_rec *r)
{
	r->extent = le32_to_cpu(d->h.extent);
	r->bits = le64_to_cpu(d->bits);
	if (!r->extent)
		return "record names extent 0";
	if (r->type == SV_REC_VALID && r->flags == SV_VALID_ALL)
		return ~r->bits ? "VALID of all blocks without all bits" : NULL;
	if (r->flags & ~SV_VALID_WORD)
		return "VALID or CLEAR has an unknown flag";
	r->word = r->flags;
	r->flags = 0;
	return NULL;
}

static const char *read_unmap(const struct sv_rec_unmap *d, struct sv_rec *r)
{
	r->gen = 0;
	r->volume = le32_to_cpu(d->h.extent);
	r->layer = le32_to_cpu(d->layer);
	r->extent = le32_to_cpu(d->old_extent);
	r->index = le64_to_cpu(d->index);
	if (r->flags & ~SV_UNMAP_TOMBSTONE)
		return "UNMAP has an unknown flag";
	return check_volume(r);
}

/* They lie in one slot, from this place on. */
static const char *check_fragments(const struct sv_rec *r)
{
	u32 n = (u32)hweight64(r->arg);

	if (!r->extent)
		return "record names extent 0";
	if (r->member >= SV_MAX_MEMBERS)
		return "record names a member out of range";
	if (!r->slot || n > SV_FRAGS_MAX || (r->slot - 1) % SV_FRAGS + n > SV_FRAGS)
		return "MOVE names places out of range";
	return NULL;
}

static const char *read_move(const struct sv_rec_move *d, struct sv_rec *r)
{
	r->extent = le32_to_cpu(d->h.extent);
	r->slot = le32_to_cpu(d->slot);
	r->member = le32_to_cpu(d->member);
	r->arg = le64_to_cpu(d->frag_mask);
	if (r->flags)
		return "MOVE has an unknown flag";
	if (r->arg >> SV_FRAGS)
		return "MOVE names a fragment out of range";
	return r->arg ? check_fragments(r) : check_place(r);
}

static const char *read_layer(const struct sv_rec_layer *d, struct sv_rec *r)
{
	r->gen = 0;
	r->volume = le32_to_cpu(d->h.extent);
	r->layer = le32_to_cpu(d->layer);
	r->parent = le32_to_cpu(d->parent);
	r->arg = le64_to_cpu(d->job);
	if (r->flags)
		return "LAYER has an unknown flag";
	return check_volume(r);
}

static const char *read_frag(const struct sv_rec_small *d, struct sv_rec *r)
{
	u64 arg = le64_to_cpu(d->arg);

	r->extent = le32_to_cpu(d->h.extent);
	r->arg = arg & SV_FRAG_ARG_PLACE;
	r->word = (u8)(arg >> SV_FRAG_ARG_FRAG);
	r->member = (u32)(arg >> SV_FRAG_ARG_MEMBER);
	if (r->flags)
		return "FRAG has an unknown flag";
	if (!r->extent)
		return "record names extent 0";
	if (!r->arg || r->word >= SV_FRAGS || r->member >= SV_MAX_MEMBERS)
		return "FRAG names a place out of range";
	return NULL;
}

/* Reserved: flags and arg mean nothing yet. */
static const char *read_unfrag(const struct sv_rec_small *d, struct sv_rec *r)
{
	r->extent = le32_to_cpu(d->h.extent);
	r->arg = le64_to_cpu(d->arg);
	return r->extent ? NULL : "record names extent 0";
}

/* SNAPDONE and OWN */
static const char *read_volume_layer(const struct sv_rec_small *d, struct sv_rec *r)
{
	u64 layer = le64_to_cpu(d->arg);

	r->gen = 0;
	r->volume = le32_to_cpu(d->h.extent);
	r->layer = (u32)layer;
	if (r->flags)
		return "SNAPDONE or OWN has an unknown flag";
	if (layer >> 32)
		return "record names a layer out of range";
	return check_volume(r);
}

static const char *read_fold(const struct sv_rec_small *d, struct sv_rec *r)
{
	u64 parent = le64_to_cpu(d->arg);

	r->extent = le32_to_cpu(d->h.extent);
	r->parent = (u32)parent;
	if (r->flags & ~SV_FOLD_SWAPPED)
		return "FOLD has an unknown flag";
	if (!r->extent || !parent || parent >> 32 || parent == r->extent)
		return "FOLD names extents out of range";
	return NULL;
}

union rec_buf {
	struct sv_rec_head h;
	struct sv_rec_map map;
	struct sv_rec_valid valid;
	struct sv_rec_unmap unmap;
	struct sv_rec_move move;
	struct sv_rec_layer layer;
	struct sv_rec_small small;
};

static const char *rec_read(const union rec_buf *b, struct sv_rec *r)
{
	memset(r, 0, sizeof(*r));
	r->type = b->h.type;
	r->flags = b->h.flags;
	r->gen = le16_to_cpu(b->h.gen);
	switch (r->type) {
	case SV_REC_MAP:
		return read_map(&b->map, r);
	case SV_REC_VALID:
	case SV_REC_CLEAR:
		return read_bits(&b->valid, r);
	case SV_REC_UNMAP:
		return read_unmap(&b->unmap, r);
	case SV_REC_MOVE:
		return read_move(&b->move, r);
	case SV_REC_LAYER:
		return read_layer(&b->layer, r);
	case SV_REC_FRAG:
		return read_frag(&b->small, r);
	case SV_REC_UNFRAG:
		return read_unfrag(&b->small, r);
	case SV_REC_FOLD:
		return read_fold(&b->small, r);
	default:
		return read_volume_layer(&b->small, r);
	}
}

int sv_rec_decode(const void *p, u32 left, struct sv_rec *out, const char **why)
{
	u32 size = left ? sv_rec_size(*(const u8 *)p) : 0;
	union rec_buf b;
	struct sv_rec r;
	const char *wrong;

	if (left && !size)
		return sv_refuse(-EBADMSG, why, "record of an unknown type");
	if (!left || size > left)
		return sv_refuse(-EBADMSG, why, "record is cut off");
	memcpy(&b, p, size);
	wrong = rec_read(&b, &r);
	if (wrong)
		return sv_refuse(-EBADMSG, why, wrong);
	*out = r;
	return 0;
}

int sv_rec_check(const void *rec, u32 left)
{
	struct sv_rec ignored;

	return sv_rec_decode(rec, left, &ignored, NULL);
}

u32 sv_rec_encode(const struct sv_rec *r, void *p)
{
	switch (r->type) {
	case SV_REC_MAP:
		return sv_put_map(p, r->flags, r->gen, r->extent, r->volume, r->index, r->layer, r->parent,
				  r->member, r->slot);
	case SV_REC_VALID:
	case SV_REC_CLEAR:
		return sv_put_bits(p, r->type, r->flags | r->word, r->gen, r->extent, r->bits);
	case SV_REC_UNMAP:
		return sv_put_unmap(p, r->flags, r->volume, r->index, r->layer, r->extent);
	case SV_REC_MOVE:
		return sv_put_move(p, r->gen, r->extent, r->member, r->slot, r->arg);
	case SV_REC_LAYER:
		return sv_put_layer(p, r->volume, r->layer, r->parent, r->arg);
	case SV_REC_FRAG:
		return sv_put_frag(p, r->gen, r->extent, r->member, r->word, (u32)r->arg);
	case SV_REC_UNFRAG:
		return sv_put_small(p, r->type, r->flags, r->gen, r->extent, r->arg);
	case SV_REC_SNAPDONE:
	case SV_REC_OWN:
		return sv_put_small(p, r->type, 0, 0, r->volume, r->layer);
	case SV_REC_FOLD:
		return sv_put_small(p, r->type, r->flags, r->gen, r->extent, r->parent);
	}
	return 0;
}

/* ---- batches ---- */

static u32 batch_crc(const void *buf, u32 bytes)
{
	struct sv_batch_disk head;
	u32 crc;

	memcpy(&head, buf, sizeof(head));
	head.crc = 0;
	crc = sv_crc32c(0, &head, sizeof(head));
	return sv_crc32c(crc, (const u8 *)buf + sizeof(head), bytes - sizeof(head));
}

u32 sv_batch_seal(void *buf, u32 bytes, u32 records, u64 seq, u64 incarnation, u32 prev_crc, u32 flags, u64 tail_seq,
		  u64 offset)
{
	struct sv_batch_disk *h = (struct sv_batch_disk *)buf;
	u32 crc;

	memset(h, 0, sizeof(*h));
	h->magic = cpu_to_le32(SV_BATCH_MAGIC);
	h->seq = cpu_to_le64(seq);
	h->incarnation = cpu_to_le64(incarnation);
	h->bytes = cpu_to_le32(bytes);
	h->records = cpu_to_le32(records);
	h->prev_crc = cpu_to_le32(prev_crc);
	h->flags = cpu_to_le32(flags);
	h->tail_seq = cpu_to_le64(tail_seq);
	h->offset = cpu_to_le64(offset);
	crc = batch_crc(buf, bytes);
	h->crc = cpu_to_le32(crc);
	return crc;
}

/* Does this header claim to be a batch of this incarnation at this place? Its length is then safe to use. */
static bool head_claims(const struct sv_batch_disk *h, u64 incarnation, u64 offset)
{
	u32 bytes = le32_to_cpu(h->bytes);

	return le32_to_cpu(h->magic) == SV_BATCH_MAGIC && le64_to_cpu(h->incarnation) == incarnation &&
	       le64_to_cpu(h->offset) == offset && bytes >= SV_BATCH_HEAD && bytes <= SV_BATCH_MAX;
}

static int check_records(const struct sv_batch_disk *h, const char **why)
{
	u32 pos = 0, n = 0;
	struct sv_rec r;
	int ret;

	while ((ret = sv_batch_next(h, &pos, &r, why)) > 0)
		n++;
	if (ret)
		return ret;
	if (n != le32_to_cpu(h->records))
		return sv_refuse(-EBADMSG, why, "batch holds another number of records than it says");
	return 0;
}

int sv_batch_check(const void *buf, u32 have, u64 seq, u64 incarnation, u32 prev_crc, u64 offset, const char **why)
{
	const struct sv_batch_disk *h = (const struct sv_batch_disk *)buf;

	if (have < SV_BATCH_HEAD || !head_claims(h, incarnation, offset) || le64_to_cpu(h->seq) != seq)
		return sv_refuse(-EINVAL, why, "no such batch here");
	if (le32_to_cpu(h->bytes) > have)
		return sv_refuse(-EINVAL, why, "batch is cut off");
	if (le32_to_cpu(h->crc) != batch_crc(buf, le32_to_cpu(h->bytes)))
		return sv_refuse(-EINVAL, why, "batch is torn or damaged");
	if (le32_to_cpu(h->prev_crc) != prev_crc)
		return sv_refuse(-EINVAL, why, "batch follows another one");
	if (le32_to_cpu(h->flags) & ~(SV_BATCH_COPY_LOST | SV_BATCH_FOLDS))
		return sv_refuse(-EPROTONOSUPPORT, why, "batch written by a newer version of svctl: use that one");
	if (le64_to_cpu(h->tail_seq) > seq)
		return sv_refuse(-EBADMSG, why, "batch says that later ones were trimmed");
	return check_records(h, why);
}

int sv_batch_next(const void *batch, u32 *pos, struct sv_rec *out, const char **why)
{
	u32 bytes = le32_to_cpu(((const struct sv_batch_disk *)batch)->bytes);
	int ret;

	if (!*pos)
		*pos = SV_BATCH_HEAD;
	if (*pos >= bytes)
		return 0;
	ret = sv_rec_decode((const u8 *)batch + *pos, bytes - *pos, out, why);
	if (ret)
		return ret;
	*pos += sv_rec_size(out->type);
	return 1;
}

/* ---- ring ---- */

static int ring_read(struct sv_ring *ring, u64 off, u32 len, const char **why)
{
	if (ring->read(ring->ctx, off, ring->buf, len))
		return sv_refuse(-EIO, why, "journal cannot be read");
	return 0;
}

#define ATOMIC_BYTES	512	/* what every disk writes whole or not at all */

/*
 * A header that is not the one sought, but differs from it in one field only. One of an earlier lap differs in two,
 * seq and prev_crc; so does another pool's, but for the first batch, whose prev_crc is always 0.
 */
static bool head_is_damaged(const struct sv_batch_disk *h, const struct sv_ring *ring,
			    const struct sv_ring_cursor *cur, u64 off)
{
	bool ours = le64_to_cpu(h->incarnation) == ring->incarnation;
	u32 right = (le32_to_cpu(h->magic) == SV_BATCH_MAGIC) + (le64_to_cpu(h->seq) == cur->seq + 1) + ours +
		    (le32_to_cpu(h->prev_crc) == cur->prev_crc) + (le64_to_cpu(h->offset) == off);

	return right >= 4 && (ours || cur->seq);
}

/* Batch cur->seq + 1 at @off? 1: yes, in ring->buf. 0: no. */
static int try_at(struct sv_ring *ring, const struct sv_ring_cursor *cur, u64 off, const char **why)
{
	const struct sv_batch_disk *h = (const struct sv_batch_disk *)ring->buf;
	u32 len;
	int ret;

	if (ring->len - off < SV_BATCH_ALIGN)
		return 0;
	ret = ring_read(ring, off, SV_BATCH_ALIGN, why);
	if (ret)
		return ret;
	if (!head_claims(h, ring->incarnation, off) || le64_to_cpu(h->seq) != cur->seq + 1 ||
	    le32_to_cpu(h->prev_crc) != cur->prev_crc)
		return head_is_damaged(h, ring, cur, off) ?
			sv_refuse(-EBADMSG, why, "journal is damaged: the header of a batch is wrong") : 0;
	len = sv_batch_len(h);
	if (len > ring->len - off)
		return sv_refuse(-EBADMSG, why, "journal is damaged: a batch claims to go beyond the ring");
	if (len > SV_BATCH_ALIGN) {
		ret = ring_read(ring, off, len, why);
		if (ret)
			return ret;
	}
	ret = sv_batch_check(h, len, cur->seq + 1, ring->incarnation, cur->prev_crc, off, why);
	if (ret != -EINVAL)
		return ret ? ret : 1;
	if (le32_to_cpu(h->bytes) <= ATOMIC_BYTES)
		return sv_refuse(-EBADMSG, why, "journal is damaged: a batch of one sector is wrong");
	ring->torn = true;
	return 0;
}

/* A whole batch later than @seq at @off, of which ring->buf holds @have bytes from @at on? */
static bool later_batch(const struct sv_ring *ring, u64 seq, u64 off, u32 at, u32 have)
{
	const u8 *p = (const u8 *)ring->buf + at;
	const struct sv_batch_disk *h = (const struct sv_batch_disk *)p;
	u32 bytes = le32_to_cpu(h->bytes);

	return head_claims(h, ring->incarnation, off) && le64_to_cpu(h->seq) > seq && bytes <= have &&
	       le32_to_cpu(h->crc) == batch_crc(p, bytes);
}

/* Does this header promise a later batch that goes on behind what was read? Then it must be read from its start. */
static bool cut_off(const struct sv_ring *ring, u64 seq, u64 off, u32 at, u32 have)
{
	const struct sv_batch_disk *h = (const struct sv_batch_disk *)((const u8 *)ring->buf + at);

	return at && head_claims(h, ring->incarnation, off) && le64_to_cpu(h->seq) > seq &&
	       le32_to_cpu(h->bytes) > have;
}

/*
 * Is there a whole batch later than @seq that begins in [from, to)? In big reads. 1, 0, or -EIO; the last such batch is
 * ring->later_seq.
 */
static int find_between(struct sv_ring *ring, u64 seq, u64 from, u64 to, const char **why)
{
	while (from < to) {
		u32 len = min_t(u64, SV_BATCH_MAX, ring->len - from), at;
		int ret = ring_read(ring, from, len, why);

		if (ret)
			return ret;
		for (at = 0; at < len; at += SV_BATCH_ALIGN) {
			if (cut_off(ring, seq, from + at, at, len - at))
				break;
			if (later_batch(ring, max_t(u64, seq, ring->later_seq), from + at, at, len - at))
				ring->later_seq = le64_to_cpu(((struct sv_batch_disk *)((u8 *)ring->buf + at))->seq);
		}
		from += at;
	}
	return ring->later_seq != 0;
}

/* Anywhere. */
static int find_later(struct sv_ring *ring, u64 seq, const char **why)
{
	return find_between(ring, seq, 0, ring->len, why);
}

#define NEAR	((256u << 20) + SV_BATCH_MAX)
#define STRIDE	(32u << 20)

/*
 * As find_later(), at less cost where there is none: batches lie one behind the other, so what is missing is found by
 * what is behind it, within NEAR; or in a sample of each STRIDE, in one of which begins a batch of whatever is longer
 * than STRIDE and a batch. Not found is what begins behind 256 MiB of damage or more, and is shorter than that.
 */
static int find_later_soon(struct sv_ring *ring, const struct sv_ring_cursor *cur, const char **why)
{
	u64 near = min_t(u64, NEAR, ring->len), end = cur->off + near, at;
	int ret = find_between(ring, cur->seq, cur->off, min_t(u64, end, ring->len), why);

	if (!ret && end > ring->len)
		ret = find_between(ring, cur->seq, 0, end - ring->len, why);
	for (at = 0; !ret && near < ring->len && at < ring->len; at += STRIDE)
		ret = find_between(ring, cur->seq, at, min_t(u64, at + SV_BATCH_MAX, ring->len), why);
	return ret;
}

static bool ring_ok(const struct sv_ring *ring, const struct sv_ring_cursor *cur)
{
	return ring->len >= SV_RING_MIN && !(ring->len & (SV_BATCH_ALIGN - 1)) && cur->off <= ring->len &&
	       !(cur->off & (SV_BATCH_ALIGN - 1));
}

static int ring_end(struct sv_ring *ring, const struct sv_ring_cursor *cur, const char **why)
{
	int ret = ring->last_seq ? 1 : find_later_soon(ring, cur, why);

	if (ret > 0 && !ring->last_seq)
		ret = find_later(ring, cur->seq, why);
	if (ret > 0)
		return sv_refuse(-EBADMSG, why, "journal is damaged: a batch is missing before a later one");
	return ret;
}

int sv_ring_next(struct sv_ring *ring, struct sv_ring_cursor *cur, const void **batch, const char **why)
{
	u64 off = cur->off;
	int ret;

	ring->torn = false;
	ring->later_seq = 0;
	if (!ring_ok(ring, cur))
		return sv_refuse(-EINVAL, why, "journal's length or position makes no sense");
	if (ring->last_seq && cur->seq >= ring->last_seq)
		return 0;
	ret = try_at(ring, cur, off, why);
	if (!ret && off) {
		off = 0;
		ret = try_at(ring, cur, off, why);
	}
	if (!ret)
		return ring_end(ring, cur, why);
	if (ret == -EBADMSG && !ring->last_seq && find_later(ring, cur->seq, NULL) < 0)
		ring->later_seq = ~0ull;	/* unknown: the worst */
	if (ret < 0)
		return ret;
	cur->seq++;
	cur->off = off + sv_batch_len(ring->buf);
	cur->prev_crc = le32_to_cpu(((const struct sv_batch_disk *)ring->buf)->crc);
	*batch = ring->buf;
	return 1;
}

int sv_ring_holds(struct sv_ring *ring, const struct sv_ring_cursor *cur, const char **why)
{
	u64 start = cur->off > SV_BATCH_MAX ? cur->off - SV_BATCH_MAX : 0;
	u32 len = cur->off - start, at;
	int ret;

	if (!cur->seq)
		return 1;
	if (!ring_ok(ring, cur) || !len)
		return 0;
	ret = ring_read(ring, start, len, why);
	for (at = 0; !ret && at < len; at += SV_BATCH_ALIGN) {
		const struct sv_batch_disk *h = (const struct sv_batch_disk *)((const u8 *)ring->buf + at);

		if (head_claims(h, ring->incarnation, start + at) && le64_to_cpu(h->seq) == cur->seq &&
		    le32_to_cpu(h->crc) == cur->prev_crc && sv_batch_len(h) == len - at)
			return 1;
	}
	return ret;
}

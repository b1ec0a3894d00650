// SPDX-License-Identifier: GPL-2.0
/*
 * Records between the change that made them and the ring, and the ring space promised to them [I16].
 *
 * The stream is a byte ring in memory. A record's position is the number of bytes appended before its end, for
 * ever growing; [durable, head) has not been acknowledged. What ring space an obligation can cost in the worst case
 * is set aside before it is accepted: a write to blocks that are not valid yet, its VALID records and one batch of
 * its own (4 KiB: it may be alone in a batch); a completed one, its records and a quarter more, since a full round's
 * records may be alone in a batch, padded to 4 KiB; a record in the stream, its bytes. Batches of rounds that are not
 * full are as many as there are members: ring_slack.
 */
#include "internal.h"

bool sv_stream_room(const struct sv_pool *p, u32 bytes)
{
	return p->head + p->held + bytes - p->durable <= SV_STREAM_BYTES;
}

void sv_stream_append(struct sv_pool *p, const void *rec, u32 bytes)
{
	u32 at = (u32)(p->head % SV_STREAM_BYTES), n = min_t(u32, bytes, SV_STREAM_BYTES - at);

	sv_lock_assert(&p->lock);
	memcpy(p->stream + at, rec, n);
	memcpy(p->stream, (const u8 *)rec + n, bytes - n);
	WRITE_ONCE(p->head, p->head + bytes);
	p->records++;
}

u64 sv_ring_free(const struct sv_pool *p)
{
	u64 used = READ_ONCE(p->ring_head) - READ_ONCE(p->ring_tail);
	u64 promised = (u64)max_t(s64, atomic64_read(&p->resv), 0) + READ_ONCE(p->head) - READ_ONCE(p->durable);
	u64 taken = used + promised + p->ring_slack;

	return taken < p->ring_len ? p->ring_len - taken : 0;
}

bool sv_ring_reserve(struct sv_pool *p, u64 bytes)
{
	atomic64_add((s64)bytes, &p->resv);
	if (likely(sv_ring_free(p)))
		return true;
	atomic64_sub((s64)bytes, &p->resv);
	return false;
}

int sv_ring_reserve_command(struct sv_pool *p, u64 bytes)
{
	if (p->mode >= SV_MODE_READ_ONLY)
		return p->mode == SV_MODE_FAIL ? -EIO : -EROFS;
	if (sv_ring_reserve(p, bytes))
		return 0;
	sv_pool_raise(p, SV_EVENT_RING);
	return -ENOSPC;
}

void sv_ring_unreserve(struct sv_pool *p, u64 bytes)
{
	atomic64_sub((s64)bytes, &p->resv);
}

#ifndef __KERNEL__
#include "internal_test.h"

s64 sv_test_reserved(const struct sv_pool *p)
{
	return atomic64_read(&p->resv);
}
#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* What the planners of reads and writes (plan.c), discards (unmap.c) and copies (relocate.h) share; for these alone. */
#ifndef SV_CORE_PLAN_H
#define SV_CORE_PLAN_H

#include "internal.h"

/*
 * The word of the live extent that is mapped there, or 0. A freed extent is as good as unmapped: its entry is gone, and
 * who found that before must not write there.
 */
static __always_inline u64 sv_look_up(const struct sv_volume *v, u64 index, u64 *entry)
{
	const struct sv_pool *p = v->pool;
	u32 extent;
	u64 word;

	*entry = sv_map_lookup(v, index);
	extent = sv_entry_extent(*entry);
	if (!sv_xt_has(p, extent))
		return 0;
	word = smp_load_acquire(sv_xt_at(p, extent));		/* pairs with each release of a word */
	return (word & (SV_XW_LIVE | SV_XW_FREED)) == SV_XW_LIVE ? word : 0;
}

static inline enum sv_plan sv_may_write(const struct sv_volume *v)
{
	u32 mode = READ_ONCE(v->pool->mode);

	if (unlikely(mode >= SV_MODE_READ_ONLY || (READ_ONCE(v->flags) & SV_VOLUME_READ_ONLY)))
		return mode == SV_MODE_FAIL ? SV_PLAN_IOERR : SV_PLAN_ROFS;
	return SV_PLAN_REMAP;
}

/*
 * There is no room in the ring for what is asked: it is promised to writes under way, which give most of that back as
 * they end, or written full, until svd's checkpoint. Neither says anything of the pool's space, so how long a write
 * waits for that does not count here.
 */
static inline enum sv_plan sv_no_ring(struct sv_pool *p)
{
	sv_pool_raise(p, SV_EVENT_RING);
	return SV_PLAN_RING;
}

/* In an RCU read section, or the pool's lock. REMAP, ZERO or IOERR. */
enum sv_plan sv_plan_read_partial(const struct sv_pool *p, u64 word, u32 first, u32 n, struct sv_piece *out);

static inline void sv_zero_piece(struct sv_piece *out, u32 blocks)
{
	memset(out, 0, sizeof(*out));
	out->blocks = blocks;
}

/* Bits of word w that the blocks [first, first + n) have in it; they reach into it. */
static inline u64 sv_word_bits(u32 w, u32 first, u32 n)
{
	u32 from = w * 64 > first ? 0 : first % 64;
	u32 to = (w + 1) * 64 <= first + n ? 64 : (first + n) % 64;

	return (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
}

#endif

// SPDX-License-Identifier: GPL-2.0
/* See relocate.h. */
#include "relocate.h"

bool sv_is_clean(const struct sv_pool *p, u64 word)
{
	const struct sv_partial *pt;

	if (!(word & SV_XW_PARTIAL))
		return true;
	pt = sv_partial_at(p, sv_xw_where(word));
	return !atomic64_read(&pt->dirty) && pt->pos <= p->durable;
}

void sv_let_go(u64 *word)
{
	if ((*word & (SV_XW_LIVE | SV_XW_FREED)) == SV_XW_LIVE)
		smp_store_release(word, *word & ~(SV_XW_HOLD | SV_XW_MOVING));	/* pairs with sv_look_up() */
}

void sv_may_be_owned_on(struct sv_pool *p, u32 member)
{
	struct sv_volume *v;

	for (v = p->volumes; v; v = v->next)
		v->owned_on |= 1ull << member;
}

void sv_set_aside(struct sv_pool *p, u64 old)
{
	u32 number = sv_alloc_number(p);
	u64 *word = sv_xt_word(p, number);
	u64 flags = SV_XW_LIVE | SV_XW_FREED | (old & (SV_XW_PARTIAL | SV_XW_FRAGS));

	/* pairs with sv_look_up() */
	smp_store_release(word, sv_xw_make(sv_xw_where(old), sv_xw_member(old), (u16)(sv_xw_gen(*word) + 1), flags));
	sv_count_freed(p);
}

u32 sv_partial_instead(struct sv_pool *p, u32 extent, u32 slot, u32 below, const u64 *bits)
{
	u32 i = sv_partial_new(p, extent, slot, below, 0), w;

	for (w = 0; w < SV_VALID_WORDS; w++)
		atomic64_set(&sv_partial_at(p, i)->valid[w], (s64)bits[w]);
	return i;
}

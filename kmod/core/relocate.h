/* SPDX-License-Identifier: GPL-2.0 */
/* What FOLD (fold.c) and MOVE (move.c) share, which give an extent another place; for these alone. */
#ifndef SV_CORE_RELOCATE_H
#define SV_CORE_RELOCATE_H

#include "plan.h"

/* Of a word of a live extent: its valid bits, 64 of them; its slot; where its fragments are, or NULL. */
static inline u64 sv_bits_of(const struct sv_pool *p, u64 word, u32 w)
{
	return word & SV_XW_PARTIAL ? (u64)atomic64_read(&sv_partial_at(p, sv_xw_where(word))->valid[w]) : ~0ull;
}

static inline u32 sv_slot_of(const struct sv_pool *p, u64 word)
{
	return word & SV_XW_PARTIAL ? sv_partial_at(p, sv_xw_where(word))->slot : sv_xw_where(word);
}

static inline const struct sv_places *sv_word_places(const struct sv_pool *p, u64 word)
{
	return word & SV_XW_FRAGS ? sv_places_of(p, sv_partial_at(p, sv_xw_where(word))) : NULL;
}

/* @places: where the fragments are, if it has any. */
static inline u64 sv_sector_in(const struct sv_pool *p, u64 word, const struct sv_places *places, u32 block)
{
	u32 member = sv_xw_member(word);

	if (word & SV_XW_FRAGS)
		return sv_sector_in_place(p, member, places->at[block / SV_FRAG_BLOCKS], block);
	return sv_sector_of(p, member, sv_slot_of(p, word), block);
}

/* All in pool->lock. */

/* Where no write is under way: is all that its bits say in the journal, too? */
bool sv_is_clean(const struct sv_pool *p, u64 word);
/* Writes go on, if it still lives. */
void sv_let_go(u64 *word);
/* Whose extent it is nobody asked: a snapshot of any volume waits for writes to that member, too. */
void sv_may_be_owned_on(struct sv_pool *p, u32 member);
/* A freed extent that never was one, in which what the word names waits for RECYCLE. It takes one of numbers_free. */
void sv_set_aside(struct sv_pool *p, u64 old);
/* A new partial rather than the old one, by which whoever has found it goes on. It takes one of pt_nfree. */
u32 sv_partial_instead(struct sv_pool *p, u32 extent, u32 slot, u32 below, const u64 *bits);

#endif

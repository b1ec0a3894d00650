// SPDX-License-Identifier: GPL-2.0
/*
 * Slots and extent numbers. Two bitmaps a member: used (not grantable) and live (an extent lies there, or fragments
 * of some); a slot that is used and not live was never granted. All under pool->lock. A volume's sequential first
 * writes get the slot behind the last one; everything else starts in an empty word of 64 slots, so that streams do not
 * interleave.
 */
#include "internal.h"

#define EMPTY_WORD_PROBES 64u

u64 sv_reserve_for(u64 total)
{
	return total >= 1024 ? max_t(u64, total / 200, 64) : total / 64;
}

static u32 words(const struct sv_member *m)
{
	return DIV_ROUND_UP(m->g.nr_slots, 64);
}

static u32 lowest_zero(u64 w)
{
	return (u32)__builtin_ctzll(~w);
}

/* The tail of the last word stays 1 (never granted), so that a zero bit is always a real slot. */
static void update_room(struct sv_member *m, u32 word)
{
	if (~m->used[word])
		sv_bit_set(m->room, word);
	else
		sv_bit_clear(m->room, word);
}

static void count_free(struct sv_pool *p, struct sv_member *m, s64 n)
{
	m->free += (u32)n;
	WRITE_ONCE(p->free_slots, p->free_slots + (u64)n);
	if (!m->closed)
		WRITE_ONCE(p->room, p->room + (u64)n);
}

/* Every number and cell that its free slots are owed stays theirs (pool.c, plan.c): it may be open again. */
void sv_member_close(struct sv_pool *p, u32 member, bool closed)
{
	struct sv_member *m = p->members[member];

	sv_lock_assert(&p->lock);
	if (m->closed == closed)
		return;
	m->closed = closed;
	p->open_slots += closed ? -(u64)m->g.nr_slots : m->g.nr_slots;
	WRITE_ONCE(p->room, p->room + (closed ? -(u64)m->free : m->free));
	WRITE_ONCE(p->reserve, sv_reserve_for(p->open_slots));
}

void sv_slot_take(struct sv_pool *p, u32 member, u32 slot)
{
	struct sv_member *m = p->members[member];

	sv_lock_assert(&p->lock);
	if (!sv_bit(m->used, slot)) {
		sv_bit_set(m->used, slot);
		count_free(p, m, -1);
		update_room(m, slot / 64);
	}
	sv_bit_set(m->live, slot);
}

void sv_slots_grant(struct sv_pool *p, u32 member, u32 word, u64 slots)
{
	struct sv_member *m = p->members[member];

	sv_lock_assert(&p->lock);
	m->used[word] &= ~slots;
	count_free(p, m, hweight64(slots));
	sv_bit_set(m->room, word);
}

void sv_slot_grant(struct sv_pool *p, u32 member, u32 slot)
{
	sv_slots_grant(p, member, slot / 64, 1ull << slot % 64);
}

void sv_slot_release(struct sv_pool *p, u32 member, u32 slot)
{
	sv_bit_clear(p->members[member]->live, slot);
	sv_slot_grant(p, member, slot);
}

static bool find_room(const struct sv_member *m, u32 *slot)
{
	u32 n = DIV_ROUND_UP(words(m), 64), i;

	for (i = 0; i < n; i++) {
		u32 w;

		if (!m->room[i])
			continue;
		w = i * 64 + (u32)__builtin_ctzll(m->room[i]);
		*slot = w * 64 + lowest_zero(m->used[w]);
		return true;
	}
	return false;
}

static bool find_slot(struct sv_member *m, u32 *slot)
{
	u32 n = words(m), i;

	for (i = 0; i < EMPTY_WORD_PROBES && i < n; i++) {
		u32 w = m->rotor++ % n;

		if (m->used[w] == 0) {
			*slot = w * 64;
			return true;
		}
	}
	return find_room(m, slot);
}

static bool go_on(struct sv_volume *v, u64 index, u32 tier, u32 *member, u32 *slot)
{
	struct sv_member *m;

	if (index != v->stream_index || v->stream_slot == SV_NO_SLOT)
		return false;
	m = v->pool->members[v->stream_member];
	if (m->closed || m->g.tier != tier || v->stream_slot + 1 >= m->g.nr_slots ||
	    sv_bit(m->used, v->stream_slot + 1))
		return false;
	*member = v->stream_member;
	*slot = v->stream_slot + 1;
	return true;
}

static bool in_tier(struct sv_volume *v, u64 index, u32 tier, u32 *member, u32 *slot)
{
	struct sv_pool *p = v->pool;
	u32 best = SV_MAX_MEMBERS, i;

	if (go_on(v, index, tier, member, slot))
		return true;
	for (i = 0; i < p->nr_members; i++) {
		if (p->members[i]->closed || p->members[i]->g.tier != tier || !p->members[i]->free)
			continue;
		if (best == SV_MAX_MEMBERS || p->members[i]->free > p->members[best]->free)
			best = i;
	}
	if (best == SV_MAX_MEMBERS || !find_slot(p->members[best], slot))
		return false;
	*member = best;
	return true;
}

static u64 kept_back(const struct sv_pool *p, enum sv_write_class c)
{
	switch (c) {
	case SV_WRITE_META:
		return 0;
	case SV_WRITE_FUA:
		return p->reserve - p->reserve / 4;
	default:
		return p->reserve;
	}
}

bool sv_slots_left(const struct sv_pool *p, enum sv_write_class c)
{
	return p->room > kept_back(p, c);
}

/*
 * The tiers that the volume prefers, and then all of them: a choice of tiers is no reason to fail a write while there
 * is space.
 */
bool sv_tier_of_choice(const struct sv_volume *v, u32 i, u32 *tier)
{
	*tier = v->tiers == ~0ull || i >= SV_MAX_TIERS ? i % SV_MAX_TIERS : (u32)(v->tiers >> (8 * i)) & 0xff;
	return i < 2 * SV_MAX_TIERS;
}

/* Not in an empty word, as streams are: in the lowest room that there is. */
bool sv_slot_on(struct sv_pool *p, u32 member, enum sv_write_class c, u32 *slot)
{
	struct sv_member *m = p->members[member];

	sv_lock_assert(&p->lock);
	if (m->closed || !m->free || !sv_slots_left(p, c) || !find_room(m, slot))
		return false;
	sv_slot_take(p, member, *slot);
	return true;
}

bool sv_alloc_slot(struct sv_volume *v, u64 index, enum sv_write_class c, u32 *member, u32 *slot)
{
	struct sv_pool *p = v->pool;
	bool found = false;
	u32 tier, i;

	sv_lock_assert(&p->lock);
	if (!sv_slots_left(p, c))
		return false;
	for (i = 0; !found && sv_tier_of_choice(v, i, &tier); i++)
		found = tier < SV_MAX_TIERS && in_tier(v, index, tier, member, slot);
	if (!found)
		return false;
	sv_slot_take(p, *member, *slot);
	v->stream_index = index + 1;
	v->stream_member = *member;
	v->stream_slot = *slot;
	return true;
}

/* From where the last one was found on, so that full words are passed over once a turn. */
u32 sv_alloc_number(struct sv_pool *p)
{
	u32 n = DIV_ROUND_UP(p->nr_extents, 64), x;

	sv_lock_assert(&p->lock);
	if (!p->numbers_free)
		return 0;
	for (;; p->number_hint = (p->number_hint + 1) % n) {
		u64 w = p->numbers[p->number_hint / SV_NUMBER_WORDS][p->number_hint % SV_NUMBER_WORDS];

		x = ~w ? p->number_hint * 64 + lowest_zero(w) : p->nr_extents;
		if (x < p->nr_extents)
			break;
	}
	sv_number_take(p, x);
	return x;
}

void sv_number_take(struct sv_pool *p, u32 extent)
{
	sv_lock_assert(&p->lock);
	sv_bit_set(sv_numbers_at(p, extent), extent & (SV_XT_CHUNK - 1));
	p->numbers_free--;
}

void sv_number_release(struct sv_pool *p, u32 extent)
{
	sv_lock_assert(&p->lock);
	sv_bit_clear(sv_numbers_at(p, extent), extent & (SV_XT_CHUNK - 1));
	p->numbers_free++;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Fragments: small writes take 64 KiB of space instead of a slot. An extent whose word says FRAGS has no slot; each of
 * its fragments that was written has a place, a 16th of some slot of the word's member, which holds fragments of any
 * extents and is filled in order. Places are in a cell of their own, which the partial's slot names.
 *
 * Which extents have fragments. A new one whose first write is below 256 KiB and does not continue a stream. Places are
 * added as writes come, in pool->lock, with a FRAG record each. One that would have more than half of them, or whose
 * member has no room left, is written to no more: a new extent takes its place in the map, in the same layer, and names
 * it as parent; FOLD then joins the two. So an extent with fragments is never all valid, all it has is on one member,
 * and nothing is copied while a write waits.
 *
 * What the older one has it is overwritten in, until it is folded: only that one child needs it, and whoever owns the
 * child owns it. (A kernel that was loaded meanwhile does not know that, and has it written in the child.)
 *
 * That makes a parent of an extent of the head's own layer, to which writes that were planned before may still be
 * under way. Those that a write to the new extent overtakes overlap with it in time, so either may be the one that is
 * seen: it is the new extent's. Bits that they set become durable as those of any extent. FOLD waits for them.
 *
 * Readers. A place is stored before the write goes down that first sets a bit in it, and does not change while the
 * extent lives; the word changes when FOLD moves it, and the cell stays until nobody uses the older word.
 *
 * Space comes back as slots' does: with the extent, once that is recycled. The slot is free when its last place is.
 *
 * Numbers. A pool has SV_EXTENTS_PER_SLOT of them for each slot. Words for them come from a reserve (pool.c). Where it
 * is used up small writes take slots, for each of which there always is a number, and a cell. So they do where the
 * reserve of nodes is, of which come the pages that say which 16ths are taken.
 */
#include "internal.h"

int sv_frags_init(struct sv_member *m)
{
	u32 words = DIV_ROUND_UP(m->g.nr_slots, 64) + 1;

	m->frags = sv_zalloc((size_t)(m->g.nr_slots / SV_FRAGGED + 1) * sizeof(*m->frags));
	m->gaps = sv_zalloc((size_t)words * sizeof(u64));
	m->gap_words = sv_zalloc((size_t)(words / 64 + 1) * sizeof(u64));
	return m->frags && m->gaps && m->gap_words ? 0 : -ENOMEM;
}

void sv_frags_free(struct sv_member *m)
{
	u32 i;

	for (i = 0; m->frags && i <= m->g.nr_slots / SV_FRAGGED; i++)
		sv_page_free(m->frags[i]);
	sv_free(m->frags);
	sv_free(m->gaps);
	sv_free(m->gap_words);
}

static bool is_gap(u16 frags)
{
	return frags && frags != 0xffff;
}

static u16 frags_of(const struct sv_member *m, u32 slot)
{
	const struct sv_fragged *page = m->frags[slot / SV_FRAGGED];

	return page ? page->of[slot % SV_FRAGGED] : 0;
}

static void set_frags(struct sv_pool *p, struct sv_member *m, u32 slot, u16 frags)
{
	struct sv_fragged **page = &m->frags[slot / SV_FRAGGED];
	u32 word = slot / 64;

	if (!*page)
		*page = &sv_node_take(p)->fragged;
	m->nr_gaps += (u32)is_gap(frags) - (u32)is_gap((*page)->of[slot % SV_FRAGGED]);
	(*page)->of[slot % SV_FRAGGED] = frags;
	if (is_gap(frags))
		sv_bit_set(m->gaps, slot);
	else
		sv_bit_clear(m->gaps, slot);
	if (m->gaps[word]) {
		sv_bit_set(m->gap_words, word);
		m->gap_hint = min_t(u32, m->gap_hint, word / 64);
	} else {
		sv_bit_clear(m->gap_words, word);
	}
}

/* The lowest slot with a gap; there is one. */
static u32 find_gap(struct sv_member *m)
{
	u32 word;

	while (!m->gap_words[m->gap_hint])
		m->gap_hint++;
	word = m->gap_hint * 64 + (u32)__builtin_ctzll(m->gap_words[m->gap_hint]);
	return word * 64 + (u32)__builtin_ctzll(m->gaps[word]);
}

/* One gap is left for those who may take slots of the reserve, and have opened it. */
static bool has_gap(const struct sv_member *m, bool slots_left)
{
	return !m->closed && m->nr_gaps > (slots_left ? 0 : 1);
}

static bool has_room(const struct sv_member *m, bool slots_left)
{
	return has_gap(m, slots_left) || (slots_left && !m->closed && m->free);
}

/* The one with most free slots of the first tier that has room. */
u32 sv_frag_member(struct sv_volume *v, enum sv_write_class c)
{
	struct sv_pool *p = v->pool;
	bool left = sv_slots_left(p, c);
	u32 best = SV_MAX_MEMBERS, tier, i, m;

	sv_lock_assert(&p->lock);
	for (i = 0; best == SV_MAX_MEMBERS && sv_tier_of_choice(v, i, &tier); i++) {
		for (m = 0; m < p->nr_members; m++) {
			if (p->members[m]->g.tier != tier || !has_room(p->members[m], left))
				continue;
			if (best == SV_MAX_MEMBERS || p->members[m]->free > p->members[best]->free)
				best = m;
		}
	}
	return best;
}

/* The last 16th of the last slot that may be has no place: format.h. */
static u16 never(u32 slot)
{
	return slot == SV_MAX_SLOTS - 1 ? 1u << (SV_FRAGS - 1) : 0;
}

/* Where @n free 16ths of a slot begin, or SV_FRAGS. */
static u32 find_run(u16 frags, u32 n)
{
	u32 run = (1u << n) - 1, i;

	for (i = 0; i + n <= SV_FRAGS; i++)
		if (!(frags & run << i))
			return i;
	return SV_FRAGS;
}

u32 sv_frags_take(struct sv_pool *p, u32 member, enum sv_write_class c, u32 n)
{
	struct sv_member *m = p->members[member];
	u32 slot, i = SV_FRAGS;

	sv_lock_assert(&p->lock);
	if (has_gap(m, sv_slots_left(p, c))) {
		slot = find_gap(m);
		i = find_run(frags_of(m, slot), n);
		/* What is too small for several stays for single ones, and the lowest. */
		if (i == SV_FRAGS && is_gap(frags_of(m, m->run_slot))) {
			slot = m->run_slot;
			i = find_run(frags_of(m, slot), n);
		}
	}
	if (i == SV_FRAGS) {
		if (!p->nr_nodes || !sv_slot_on(p, member, c, &slot))
			return 0;
		m->run_slot = slot;
		i = 0;
	}
	set_frags(p, m, slot, frags_of(m, slot) | (u16)(((1u << n) - 1) << i) | never(slot));
	return slot * SV_FRAGS + i + 1;
}

static bool is_fresh(const struct sv_member *m, u32 slot)
{
	return sv_bit(m->used, slot) && !sv_bit(m->live, slot);
}

bool sv_frag_is_free(const struct sv_pool *p, u32 member, u32 place)
{
	const struct sv_member *m = p->members[member];
	u32 slot = (place - 1) / SV_FRAGS;

	if (slot >= m->g.nr_slots || (never(slot) >> ((place - 1) % SV_FRAGS) & 1))
		return false;
	return frags_of(m, slot) ? !(frags_of(m, slot) >> ((place - 1) % SV_FRAGS) & 1) : is_fresh(m, slot);
}

void sv_frag_claim(struct sv_pool *p, u32 member, u32 place)
{
	struct sv_member *m = p->members[member];
	u32 slot = (place - 1) / SV_FRAGS;

	sv_lock_assert(&p->lock);
	if (!frags_of(m, slot))
		sv_slot_take(p, member, slot);
	set_frags(p, m, slot, frags_of(m, slot) | (u16)(1u << ((place - 1) % SV_FRAGS)) | never(slot));
}

void sv_frag_release(struct sv_pool *p, u32 member, u32 place)
{
	struct sv_member *m = p->members[member];
	u32 slot = (place - 1) / SV_FRAGS;
	u16 left = frags_of(m, slot) & (u16)~(1u << ((place - 1) % SV_FRAGS));

	sv_lock_assert(&p->lock);
	if (left == never(slot))
		left = 0;
	set_frags(p, m, slot, left);
	if (!left)
		sv_slot_release(p, member, slot);
}

void sv_frags_release(struct sv_pool *p, u32 member, const struct sv_places *places)
{
	u32 i;

	for (i = 0; i < SV_FRAGS; i++)
		if (places->at[i])
			sv_frag_release(p, member, places->at[i]);
}

u32 sv_places_count(const struct sv_places *places)
{
	u32 n = 0, i;

	for (i = 0; i < SV_FRAGS; i++)
		n += places->at[i] != 0;
	return n;
}

void sv_frag_append(struct sv_pool *p, u32 extent, u16 gen, u32 member, u32 frag, u32 place)
{
	u8 rec[sizeof(struct sv_rec_small)];

	sv_put_frag(rec, gen, extent, member, frag, place);
	sv_stream_append(p, rec, sizeof(rec));
}

u32 sv_frags_run(const struct sv_pool *p, u32 member, const struct sv_partial *pt, u32 first, u32 n, u64 *sector)
{
	const struct sv_places *places = sv_places_of(p, pt);
	u32 frag = first / SV_FRAG_BLOCKS, len = SV_FRAG_BLOCKS - first % SV_FRAG_BLOCKS;
	u32 place = READ_ONCE(places->at[frag]);

	*sector = sv_sector_in_place(p, member, place, first);
	while (len < n && ++place && READ_ONCE(places->at[++frag]) == place)
		len += SV_FRAG_BLOCKS;
	return min_t(u32, len, n);
}

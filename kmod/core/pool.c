// SPDX-License-Identifier: GPL-2.0
/*
 * A pool's life and memory. Tables that lock-free readers index never move under them: the extent table's directory is
 * replaced whole and the old one kept; that of partials has its top in full size and its pages as they come.
 */
#include "internal.h"

static u64 *bitmap_new(u64 bits, bool ones)
{
	u64 n = DIV_ROUND_UP(bits, 64) + 1;
	u64 *m = sv_zalloc(n * sizeof(u64));

	if (m && ones)
		memset(m, 0xff, n * sizeof(u64));
	return m;
}

static void member_free(struct sv_member *m)
{
	if (!m)
		return;
	sv_free(m->used);
	sv_free(m->live);
	sv_free(m->room);
	sv_free(m->taken);
	sv_frags_free(m);
	sv_free(m);
}

static struct sv_member *member_new(const struct sv_member_geometry *g)
{
	struct sv_member *m = sv_zalloc(sizeof(*m));

	if (!m)
		return NULL;
	m->g = *g;
	sv_lock_init(&m->listing);
	m->used = bitmap_new(g->nr_slots, true);
	m->live = bitmap_new(g->nr_slots, false);
	m->room = bitmap_new(DIV_ROUND_UP(g->nr_slots, 64), false);
	m->taken = sv_zalloc(SV_TAKEN_MAX * sizeof(*m->taken));
	if (!m->used || !m->live || !m->room || !m->taken || sv_frags_init(m)) {
		member_free(m);
		return NULL;
	}
	return m;
}

static bool geometry_ok(const struct sv_member_geometry *g)
{
	return g->nr_slots <= SV_MAX_SLOTS && g->tier < SV_MAX_TIERS && !(g->slot_off % SV_BLOCK_SIZE) &&
	       (!(g->flags & SV_LABEL_HAS_RING) || (g->ring_len >= SV_RING_MIN && !(g->ring_len % SV_EXTENT_SIZE)));
}

bool sv_pool_more_numbers(const struct sv_pool *p)
{
	return READ_ONCE(p->nr_extents) < p->max_extents;
}

/* As many numbers as there are words for. Readers see the larger count only once the words are there. */
static void count_words(struct sv_pool *p)
{
	u32 nr = min_t(u32, p->xt_chunks << SV_XT_SHIFT, p->max_extents);

	p->numbers_free += nr - p->nr_extents;
	smp_store_release(&p->nr_extents, nr);		/* pairs with sv_xt_has() */
}

/* The next page of words, with a bit for each. @zalloc: sv_zalloc or sv_zalloc_now. */
static int grow_words(struct sv_pool *p, void *(*zalloc)(size_t bytes))
{
	u64 *page = zalloc(SV_XT_CHUNK * sizeof(u64)), *bits = zalloc(SV_NUMBER_WORDS * sizeof(u64));
	bool complete = page && bits;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	if (complete && sv_pool_more_numbers(p)) {
		bits[0] = !p->xt_chunks;	/* there is no extent 0 */
		p->numbers_free -= !p->xt_chunks;
		p->numbers[p->xt_chunks] = bits;
		p->xt[p->xt_chunks++] = page;
		count_words(p);
		page = NULL;
		bits = NULL;
	}
	sv_unlock(&p->lock, f);
	sv_free(page);
	sv_free(bits);
	return complete ? 0 : -ENOMEM;
}

int sv_pool_have_number(struct sv_pool *p, u32 extent)
{
	int r = 0;

	while (!r && extent >= READ_ONCE(p->nr_extents) && extent < p->max_extents)
		r = grow_words(p, sv_zalloc);
	return r;
}

/* The last page of words may have had fewer numbers than words. */
static void replace_directory(struct sv_pool *p, u64 **dir, u64 **numbers, u64 ***keep, u32 max)
{
	if (p->xt) {
		memcpy(dir, p->xt, p->xt_chunks * sizeof(*dir));
		memcpy(numbers, p->numbers, p->xt_chunks * sizeof(*numbers));
		if (p->nr_xt_old)
			memcpy(keep, p->xt_old, p->nr_xt_old * sizeof(*keep));
		keep[p->nr_xt_old++] = p->xt;
	}
	p->xt_old = keep;
	p->numbers = numbers;
	p->max_extents = max;
	smp_store_release(&p->xt, dir);			/* pairs with sv_xt_at() */
	count_words(p);
}

/* Room for SV_EXTENTS_PER_SLOT extents a slot, and words for one each. */
static int grow_extents(struct sv_pool *p, u64 slots)
{
	u32 max = sv_max_extents(slots);
	u64 **dir, **numbers, **old_numbers, ***keep, ***old_keep;
	size_t pages = DIV_ROUND_UP((u64)max, SV_XT_CHUNK);
	sv_lock_flags_t f;

	if (slots + 1 >= max && slots)
		return -ENOSPC;
	dir = sv_zalloc(pages * sizeof(*dir));
	numbers = sv_zalloc(pages * sizeof(*numbers));
	keep = sv_zalloc((p->nr_xt_old + 1) * sizeof(*keep));
	if (!dir || !numbers || !keep) {
		sv_free(dir);
		sv_free(numbers);
		sv_free(keep);
		return -ENOMEM;
	}
	sv_lock(&p->lock, f);
	old_numbers = p->numbers;
	old_keep = p->xt_old;
	replace_directory(p, dir, numbers, keep, max);
	sv_unlock(&p->lock, f);
	sv_free(old_numbers);
	sv_free(old_keep);
	return sv_pool_have_number(p, (u32)slots);
}

static int ring_init(struct sv_pool *p, u32 nr, const struct sv_member_geometry *g)
{
	u32 i;

	for (i = 0; i < nr; i++) {
		if (!(g[i].flags & SV_LABEL_HAS_RING))
			continue;
		if (p->ring_len && p->ring_len != g[i].ring_len)
			return -EINVAL;
		p->ring_len = g[i].ring_len;
		p->ring_copies |= 1ull << i;
	}
	if (!p->ring_len)
		return -EINVAL;
	p->ring_blocks = (u32)(p->ring_len / SV_BATCH_ALIGN);
	p->batch_max = (u32)min_t(u64, SV_BATCH_MAX, p->ring_len / 16);
	/* Wrap, a partly filled last batch, one batch of its own a member, one on its way and one behind it. */
	p->ring_slack = 3ull * p->batch_max + (SV_MAX_MEMBERS + 2) * (u64)SV_BATCH_ALIGN;
	p->batch_end = sv_zalloc(p->ring_blocks * sizeof(u32));
	p->batch = sv_zalloc(SV_BATCH_MAX);
	return p->batch_end && p->batch ? 0 : -ENOMEM;
}

static int add_members(struct sv_pool *p, u32 nr, const struct sv_member_geometry *g)
{
	u64 total = p->total_slots;
	struct sv_member *m;
	sv_lock_flags_t f;
	u32 i;
	int r;

	for (i = 0; i < nr; i++) {
		if (!geometry_ok(&g[i]))
			return -EINVAL;
		total += g[i].nr_slots;
	}
	if (p->nr_members + nr > SV_MAX_MEMBERS)
		return -ENOSPC;
	r = grow_extents(p, total);
	for (i = 0; !r && i < nr; i++) {
		m = member_new(&g[i]);
		if (!m)
			return -ENOMEM;
		sv_lock(&p->lock, f);
		p->members[p->nr_members] = m;
		smp_store_release(&p->nr_members, p->nr_members + 1);	/* pairs with sv_pool_nr_members() */
		p->total_slots += g[i].nr_slots;
		p->open_slots += g[i].nr_slots;
		p->reserve = sv_reserve_for(p->open_slots);
		sv_unlock(&p->lock, f);
	}
	return r;
}

int sv_pool_add_member(struct sv_pool *p, const struct sv_member_geometry *g)
{
	if (g->flags & SV_LABEL_HAS_RING)
		return -EINVAL;
	return add_members(p, 1, g);
}

struct sv_pool *sv_pool_new(const u8 uuid[16], u64 incarnation, u32 nr, const struct sv_member_geometry *g)
{
	struct sv_pool *p = sv_zalloc(sizeof(*p));

	if (!p)
		return NULL;
	sv_lock_init(&p->lock);
	memcpy(p->uuid, uuid, 16);
	p->incarnation = incarnation;
	p->no_space_ms = 60000;
	p->commit_ms = 1000;
	p->next_seq = 1;
	p->tail_seq = 1;
	p->tickets_end = &p->tickets;
	p->stream = sv_zalloc(SV_STREAM_BYTES);
	p->pt = sv_zalloc(SV_PT_TOP * sizeof(*p->pt));
	if (!p->stream || !p->pt || ring_init(p, nr, g) || add_members(p, nr, g) ||
	    sv_pool_refill(p)) {
		sv_pool_free(p);
		return NULL;
	}
	return p;
}

static void free_partials(struct sv_pool *p)
{
	u32 i, page;

	for (i = 0; i < p->pt_chunks; i++)
		sv_free(p->pt[i / SV_PT_PAGE][i % SV_PT_PAGE]);
	for (page = 0; p->pt && page < SV_PT_TOP; page++)
		sv_free(p->pt[page]);
	sv_free(p->pt);
}

static void free_words(struct sv_pool *p)
{
	u32 i;

	for (i = 0; i < p->xt_chunks; i++) {
		sv_free(p->xt[i]);
		sv_free(p->numbers[i]);
	}
	for (i = 0; i < p->nr_xt_old; i++)
		sv_free(p->xt_old[i]);
	sv_free(p->xt_old);
	sv_free(p->xt);
	sv_free(p->numbers);
}

static void free_nodes(struct sv_pool *p)
{
	while (p->nodes) {
		struct sv_node *n = p->nodes;

		p->nodes = n->next_free;
		sv_page_free(n);
	}
}

void sv_pool_free(struct sv_pool *p)
{
	u32 i;

	if (!p)
		return;
	while (p->volumes) {
		struct sv_volume *v = p->volumes;

		p->volumes = v->next;
		sv_latency_close(v);
		sv_map_free(v);
		sv_free(v);
	}
	for (i = 0; i < p->nr_members; i++)
		member_free(p->members[i]);
	free_words(p);
	free_partials(p);
	free_nodes(p);
	sv_free(p->batch_end);
	sv_free(p->batch);
	sv_free(p->recycling);
	sv_free(p->stream);
	sv_free(p);
}

/*
 * ---- reserves: filled outside the I/O path [I9] ----
 *
 * A first write takes a partial, perhaps a cell for places, and nodes, from here; with none left it is deferred.
 * Where all memory is dirty pages of this very pool, refilling fails, but never waits (sv_zalloc_now), so the
 * worker goes on with what else was deferred, and with commits. Each write that ends gives back a page or more,
 * and takes 136 bytes of chunks at most; nodes only the first one in 512 MiB of a volume since that was made, or
 * another began to share its map: what the reserve let through frees as much memory at least as filling it takes.
 */

static bool wants_cells(const struct sv_pool *p, u32 below)
{
	return READ_ONCE(p->pt_nfree) < below && READ_ONCE(p->pt_chunks) < SV_PT_TOP * SV_PT_PAGE;
}

static bool wants_numbers(const struct sv_pool *p, u32 beyond)
{
	u64 want = READ_ONCE(p->free_slots) + (READ_ONCE(p->fragments) ? beyond : 0);

	return READ_ONCE(p->numbers_free) < want && sv_pool_more_numbers(p);
}

bool sv_pool_spare_cells(const struct sv_pool *p)
{
	u64 left = SV_XW_WHERE_MAX - (u64)p->pt_chunks * SV_PARTIAL_CHUNK + p->pt_nfree;

	return left > p->free_slots + SV_PARTIAL_RESERVE;
}

bool sv_pool_wants_refill(const struct sv_pool *p)
{
	return wants_cells(p, SV_PARTIAL_RESERVE / 2) || READ_ONCE(p->nr_nodes) < SV_NODE_RESERVE / 2 ||
	       wants_numbers(p, SV_NUMBER_RESERVE / 2);
}

static int refill_nodes(struct sv_pool *p)
{
	sv_lock_flags_t f;

	while (READ_ONCE(p->nr_nodes) < SV_NODE_RESERVE) {
		struct sv_node *n = sv_page_zalloc_now();

		if (!n)
			return -ENOMEM;
		sv_lock(&p->lock, f);
		n->next_free = p->nodes;
		p->nodes = n;
		p->nr_nodes++;
		sv_unlock(&p->lock, f);
	}
	return 0;
}

/* Index 0 ends lists, so the first cell of all is never used. */
static void add_chunk(struct sv_pool *p, union sv_cell *chunk)
{
	u32 base = p->pt_chunks * SV_PARTIAL_CHUNK, i;

	p->pt[p->pt_chunks / SV_PT_PAGE][p->pt_chunks % SV_PT_PAGE] = chunk;
	p->pt_chunks++;
	for (i = SV_PARTIAL_CHUNK; i-- > (base ? 0u : 1u);) {
		chunk[i].partial.link = base + i;
		chunk[i].partial.pos = p->pt_free;
		p->pt_free = base + i;
		p->pt_nfree++;
	}
}

/* Brings a page of the directory if the chunk is the first one in it. 0: look again whether any are missing. */
static int grow_cells(struct sv_pool *p)
{
	bool first = READ_ONCE(p->pt_chunks) % SV_PT_PAGE == 0, complete;
	union sv_cell *chunk = sv_zalloc_now(SV_PARTIAL_CHUNK * sizeof(*chunk));
	void *page = first ? sv_zalloc_now(SV_PT_PAGE * sizeof(void *)) : NULL;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	if (page && p->pt_chunks < SV_PT_TOP * SV_PT_PAGE && !p->pt[p->pt_chunks / SV_PT_PAGE]) {
		p->pt[p->pt_chunks / SV_PT_PAGE] = page;
		page = NULL;
	}
	complete = chunk && p->pt_chunks < SV_PT_TOP * SV_PT_PAGE && p->pt[p->pt_chunks / SV_PT_PAGE];
	if (complete)
		add_chunk(p, chunk);
	sv_unlock(&p->lock, f);
	sv_free(page);
	if (!complete)
		sv_free(chunk);
	return complete || (chunk && !first) ? 0 : -ENOMEM;	/* another one may have been first meanwhile */
}

int sv_pool_refill(struct sv_pool *p)
{
	int r = 0;

	while (!r && wants_cells(p, SV_PARTIAL_RESERVE))
		r = grow_cells(p);
	while (!r && wants_numbers(p, SV_NUMBER_RESERVE))
		r = grow_words(p, sv_zalloc_now);
	return r ? r : refill_nodes(p);
}

/* ---- small questions ---- */

/* Out of space is what the free count says, and ends with it; the worse modes are left by an operator only. */
enum sv_mode sv_pool_mode(const struct sv_pool *p)
{
	u32 mode = READ_ONCE(p->mode);

	if (mode == SV_MODE_WRITE && READ_ONCE(p->state) == SV_STATE_ACTIVE &&
	    READ_ONCE(p->room) <= READ_ONCE(p->reserve))
		return SV_MODE_OUT_OF_SPACE;
	return mode;
}

enum sv_mode sv_pool_degrade(struct sv_pool *p, enum sv_mode m)
{
	sv_lock_flags_t f;
	u32 now;

	sv_lock(&p->lock, f);
	if (m > p->mode) {
		WRITE_ONCE(p->mode, m);
		atomic64_or(SV_EVENT_MODE, &p->events);
	}
	now = p->mode;
	sv_unlock(&p->lock, f);
	return now;
}

u64 sv_pool_events(struct sv_pool *p)
{
	return atomic64_read(&p->events) ? (u64)atomic64_xchg(&p->events, 0) : 0;
}

bool sv_pool_has_events(const struct sv_pool *p)
{
	return atomic64_read(&p->events);
}

void sv_pool_raise(struct sv_pool *p, u64 events)
{
	if (((u64)atomic64_read(&p->events) & events) != events)
		atomic64_or((s64)events, &p->events);
}

/* svd has said "full" (0), but what was freed since is on its way back: worth a wait. [I24] */
u32 sv_pool_no_space_ms(const struct sv_pool *p)
{
	u32 ms = READ_ONCE(p->no_space_ms);

	return ms || !READ_ONCE(p->freed) ? ms : SV_FREED_WAIT_MS;
}

u32 sv_pool_commit_ms(const struct sv_pool *p)
{
	return READ_ONCE(p->commit_ms);
}

const u8 *sv_pool_uuid(const struct sv_pool *p)
{
	return p->uuid;
}

u32 sv_pool_nr_members(const struct sv_pool *p)
{
	return smp_load_acquire(&p->nr_members);	/* pairs with sv_pool_add_member() */
}

u64 sv_pool_ring_members(const struct sv_pool *p)
{
	return READ_ONCE(p->ring_copies);
}

/* ---- volumes ---- */

struct sv_volume *sv_volume_find(struct sv_pool *p, u32 id)
{
	struct sv_volume *v;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	for (v = p->volumes; v && v->id != id; v = v->next)
		;
	sv_unlock(&p->lock, f);
	return v;
}

int sv_volume_open(struct sv_volume *v)
{
	sv_lock_flags_t f;

	if (v->pool->state != SV_STATE_ACTIVE || v->sharing)
		return -EBUSY;
	if (!v->opens && sv_latency_open(v))
		return -ENOMEM;
	sv_lock(&v->pool->lock, f);
	v->opens++;
	sv_unlock(&v->pool->lock, f);
	return 0;
}

void sv_volume_close(struct sv_volume *v)
{
	sv_lock_flags_t f;

	sv_lock(&v->pool->lock, f);
	v->opens--;
	sv_unlock(&v->pool->lock, f);
	if (!v->opens)
		sv_latency_close(v);
}

void sv_volume_get_info(struct sv_volume *v, struct sv_volume_info *info)
{
	memset(info, 0, sizeof(*info));
	info->id = v->id;
	info->layer = sv_view_head(READ_ONCE(v->view));
	info->owned_since = sv_view_owned_since(READ_ONCE(v->view));
	info->flags = READ_ONCE(v->flags) | (v->sharing ? SV_VOLUME_SHARING : 0);
	info->size = READ_ONCE(v->size);
	info->mapped = READ_ONCE(v->mapped);
	info->tiers = v->tiers;
}

u64 sv_volume_size(const struct sv_volume *v)
{
	return READ_ONCE(v->size);
}

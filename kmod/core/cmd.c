// SPDX-License-Identifier: GPL-2.0
/*
 * The control channel's commands, all checked as if hostile. Called with the payload in memory that only we see, in
 * a context that may sleep, by one session at a time (the caller serialises). The kernel's character device and the
 * simulated kernel come through sv_cmd() alike.
 */
#include "internal.h"

#define CHUNK 4096u		/* slots or words handled under one hold of the lock */
#define RUN 64u			/* extents that are loaded under one */

/* In a loop over extents, of which there may be thousands of millions. */
static void breathe_at(u32 extent)
{
	if (!(extent % CHUNK))
		sv_breathe();
}

typedef int (*op_fn)(struct sv_pool *p, void *payload, u32 *count, u32 *done);

static int op_hello(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_hello *h = payload;

	memset(h, 0, sizeof(*h));
	h->abi = SV_ABI_VERSION;
	h->features = SV_FEATURE_KNOWN | SV_FEATURE_HISTOGRAMS | SV_FEATURE_SNAPSHOT | SV_FEATURE_FOLD |
		      SV_FEATURE_FRAGMENTS | SV_FEATURE_FILL | SV_FEATURE_SHARE | SV_FEATURE_MOVE |
		      SV_FEATURE_CLOSE;
	memcpy(h->pool_uuid, p->uuid, 16);
	*count = 1;
	return 0;
}

static int op_attach(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_attach *a = payload;
	sv_lock_flags_t f;

	sv_lock(&p->lock, f);
	a->epoch = ++p->epoch;
	a->committed_seq = p->next_seq - 1;
	a->state = p->state;
	a->mode = sv_pool_mode(p);
	sv_unlock(&p->lock, f);
	*count = 1;
	return 0;
}

static u64 memory_of(const struct sv_pool *p)
{
	u64 n = (p->node_count + p->nr_nodes) * sizeof(struct sv_node) + (u64)p->xt_chunks * SV_XT_CHUNK * 8 +
		(u64)p->pt_chunks * SV_PARTIAL_CHUNK * sizeof(union sv_cell) + (u64)p->xt_chunks * SV_XT_CHUNK / 8 +
		(u64)p->max_extents / SV_XT_CHUNK * 2 * sizeof(void *);

	/* the partials' directory */
	n += SV_PT_TOP * sizeof(void *) + (u64)p->pt_chunks * sizeof(void *);
	n += (u64)p->nr_members * SV_TAKEN_MAX * sizeof(struct sv_taken) +
	     (u64)atomic64_read(&p->latency_bytes);
	/* used, live and gaps */
	return n + p->total_slots * 3 / 8 + SV_STREAM_BYTES + SV_BATCH_MAX + (u64)p->ring_blocks * 4;
}

static int op_state(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_state *s = payload;
	sv_lock_flags_t f;

	memset(s, 0, sizeof(*s));
	sv_lock(&p->lock, f);
	s->committed_seq = p->next_seq - 1;
	s->tail_seq = p->tail_seq;
	s->ring_bytes = p->ring_len;
	s->ring_reserved = (u64)max_t(s64, atomic64_read(&p->resv), 0) + p->head - p->durable;
	s->ring_used = p->ring_head - p->ring_tail + s->ring_reserved;
	s->total_slots = p->open_slots;
	s->free_slots = p->room;
	s->freed_extents = p->freed;
	s->partials = p->pt_live;
	s->commits = p->commits;
	s->records = p->records;
	s->journal_bytes = p->journal_bytes;
	s->events = (u64)atomic64_read(&p->events);
	s->memory = memory_of(p);
	s->state = p->state;
	s->mode = sv_pool_mode(p);
	sv_unlock(&p->lock, f);
	*count = 1;
	return 0;
}

static int op_members(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_member_state *s = payload;
	sv_lock_flags_t f;
	u32 i;

	sv_lock(&p->lock, f);
	for (i = 0; i < *count && i < p->nr_members; i++) {
		const struct sv_member *m = p->members[i];

		memset(&s[i], 0, sizeof(s[i]));
		s[i].member = i;
		s[i].tier = m->g.tier;
		s[i].nr_slots = m->g.nr_slots;
		s[i].free_slots = m->free;
		s[i].errors = m->errors;
		s[i].flags = m->g.flags;
		if ((m->g.flags & SV_LABEL_HAS_RING) && !(p->ring_copies >> i & 1))
			s[i].flags |= SV_MEMBER_RING_LOST;
		if (m->known)
			s[i].flags |= SV_MEMBER_KNOWN;
		if (m->closed)
			s[i].flags |= SV_MEMBER_CLOSED;
	}
	sv_unlock(&p->lock, f);
	*count = i;
	return 0;
}

static int op_journal(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_journal_pos *j = payload;
	sv_lock_flags_t f;

	if (*count != 1 || !j->next_seq || j->pad || j->next_off % SV_BATCH_ALIGN || j->next_off > p->ring_len)
		return -EINVAL;
	sv_lock(&p->lock, f);
	p->next_seq = j->next_seq;
	p->tail_seq = j->next_seq;
	p->prev_crc = j->prev_crc;
	p->ring_head = j->next_off % p->ring_len;
	p->ring_tail = p->ring_head;
	sv_unlock(&p->lock, f);
	*done = 1;
	return 0;
}

static int have_partials(struct sv_pool *p)
{
	if (READ_ONCE(p->pt_nfree) >= 2)
		return 0;
	return sv_pool_refill(p);
}

static bool extent_makes_sense(const struct sv_pool *p, const struct sv_extent *x)
{
	if (!sv_xt_has(p, x->extent) || x->member >= p->nr_members ||
	    (x->flags & ~(SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS)))
		return false;
	return x->flags & SV_EXTENT_FRAGS ? (x->flags & SV_EXTENT_PARTIAL) && !x->slot :
					    x->slot < p->members[x->member]->g.nr_slots;
}

static bool is_taken(const struct sv_pool *p, const struct sv_extent *x)
{
	const struct sv_member *m = p->members[x->member];

	return sv_number_used(p, x->extent) ||
	       (!(x->flags & SV_EXTENT_FRAGS) && (sv_bit(m->live, x->slot) || !sv_bit(m->used, x->slot)));
}

/* Cells for what is not a whole extent. Its word's flags, and what it names: *@where. */
static u64 load_partial(struct sv_pool *p, const struct sv_extent *x, u32 *where)
{
	u64 flags = 0;

	if (x->flags & SV_EXTENT_FRAGS) {
		*where = sv_places_new(p);
		flags |= SV_XW_FRAGS;
	}
	if (x->flags & SV_EXTENT_PARTIAL) {
		*where = sv_partial_new(p, x->extent, *where, 0, 0);
		flags |= SV_XW_PARTIAL;
	}
	return flags;
}

static int load_extent(struct sv_pool *p, const struct sv_extent *x)
{
	struct sv_member *m;
	u64 flags = SV_XW_LIVE;
	u32 where = x->slot;

	if (!extent_makes_sense(p, x))
		return -EINVAL;
	if (is_taken(p, x))
		return -EEXIST;
	m = p->members[x->member];
	if (unlikely(x->flags)) {
		if (p->pt_nfree < (u32)hweight64((u64)x->flags))	/* a cell for PARTIAL, and one for FRAGS */
			return -ENOMEM;
		flags |= load_partial(p, x, &where);
	}
	if (!(x->flags & SV_EXTENT_FRAGS))
		sv_bit_set(m->live, x->slot);		/* it was not granted: is_taken() */
	sv_number_take(p, x->extent);
	m->known = true;
	/* pairs with sv_look_up() */
	smp_store_release(sv_xt_at(p, x->extent), sv_xw_make(where, x->member, x->gen, flags));
	return 0;
}

static int op_extents(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_extent *x = payload;
	sv_lock_flags_t f;
	int r = 0;

	while (!r && *done < *count) {
		u32 from = *done, end = min_t(u32, *count, from + RUN);

		r = sv_pool_have_number(p, x[from].extent);
		if (!r)
			r = have_partials(p);
		if (r)
			break;
		sv_lock(&p->lock, f);
		do {
			r = load_extent(p, &x[*done]);
			*done += !r;
		} while (!r && *done < end && x[*done].extent < p->nr_extents);
		sv_unlock(&p->lock, f);
		if (r == -ENOMEM && *done > from)
			r = 0;			/* of the cells that there were, some were for others */
	}
	return r;
}

/* Parents come before or after their children; whoever is the last one of a circle finds itself. */
static bool is_in_circle(const struct sv_pool *p, u32 extent, u32 parent)
{
	u32 hops = 0;

	while (parent && parent != extent && hops++ < SV_MAX_CHAIN) {
		const u64 *w = sv_xt_word(p, parent);

		parent = w && (*w & SV_XW_PARTIAL) ? sv_partial_at(p, sv_xw_where(*w))->parent : 0;
	}
	return parent;
}

static bool may_claim_all(const struct sv_pool *p, u32 member, const u32 *place)
{
	u32 i, other;

	for (i = 0; i < SV_FRAGS; i++) {
		if (place[i] && !sv_frag_is_free(p, member, place[i]))
			return false;
		for (other = 0; place[i] && other < i; other++)
			if (place[other] == place[i])
				return false;
	}
	return true;
}

static int load_places(struct sv_pool *p, u64 word, const u32 *place)
{
	struct sv_places *to = sv_places_of(p, sv_partial_at(p, sv_xw_where(word)));
	u32 i;

	if (sv_places_count(to) || !may_claim_all(p, sv_xw_member(word), place))
		return -EEXIST;
	for (i = 0; i < SV_FRAGS; i++) {
		to->at[i] = place[i];
		if (place[i])
			sv_frag_claim(p, sv_xw_member(word), place[i]);
	}
	return 0;
}

/* Valid blocks are where there is a place. */
static bool bits_make_sense(u64 word, const struct sv_partial_bits *b)
{
	u32 places = 0, i;

	static_assert(ARRAY_SIZE(b->place) == SV_FRAGS, "a place for each fragment");
	for (i = 0; i < SV_FRAGS; i++) {
		bool valid = b->valid[i / 4] >> (i % 4 * SV_FRAG_BLOCKS) & SV_FRAG_BITS;

		if (word & SV_XW_FRAGS ? valid && !b->place[i] : b->place[i])
			return false;
		places += b->place[i] != 0;
	}
	return places <= SV_FRAGS_MAX;
}

static int load_bits(struct sv_pool *p, const struct sv_partial_bits *b)
{
	const u64 *w = sv_xt_word(p, b->extent), *below = sv_xt_word(p, b->parent);
	struct sv_partial *pt;
	int r = 0;
	u32 i;

	if (!w || !(*w & SV_XW_PARTIAL) || (b->parent && (!below || !(*below & SV_XW_LIVE))) ||
	    is_in_circle(p, b->extent, b->parent) || !bits_make_sense(*w, b))
		return -EINVAL;
	if (*w & SV_XW_FRAGS)
		r = load_places(p, *w, b->place);
	if (r)
		return r;
	pt = sv_partial_at(p, sv_xw_where(*w));
	pt->parent = b->parent;
	for (i = 0; i < SV_VALID_WORDS; i++)
		atomic64_set(&pt->valid[i], (s64)b->valid[i]);
	return 0;
}

static int op_partials(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_partial_bits *b = payload;
	sv_lock_flags_t f;
	int r = 0;

	static_assert(SV_NODE_RESERVE / 2 >= SV_FRAGS_MAX, "a node for each place, of what is left above a refill");
	while (!r && *done < *count) {
		if (sv_pool_wants_refill(p) && sv_pool_refill(p))
			return -ENOMEM;
		sv_lock(&p->lock, f);
		r = load_bits(p, &b[*done]);
		*done += !r;
		sv_unlock(&p->lock, f);
	}
	return r;
}

/* ---- volumes ---- */

static bool size_ok(u64 size)
{
	static_assert(SV_VOLUME_SIZE_MAX == 1ull << (SV_EXTENT_SHIFT + SV_MAX_DEPTH * SV_NODE_SHIFT), "map's reach");

	return size && !(size % SV_BLOCK_SIZE) && size <= SV_VOLUME_SIZE_MAX;
}

static bool layers_ok(const struct sv_volume_info *i)
{
	if (!i->owned_since || i->layer < i->owned_since || i->layer == SV_OWNS_NOTHING)
		return false;
	if (i->flags & ~(SV_VOLUME_READ_ONLY | SV_VOLUME_CHAINED | SV_VOLUME_SNAPSHOT | SV_VOLUME_WHOLE))
		return false;
	return !(i->flags & SV_VOLUME_SNAPSHOT) || ((i->flags & SV_VOLUME_READ_ONLY) && i->layer == i->owned_since);
}

static int create_volume(struct sv_pool *p, const struct sv_volume_info *i)
{
	struct sv_volume *v;
	sv_lock_flags_t f;
	int r;

	if (!i->id || i->id > SV_VOLUME_ID_MAX || !size_ok(i->size) || !layers_ok(i))
		return -EINVAL;
	if (sv_volume_find(p, i->id))
		return -EEXIST;
	v = sv_zalloc(sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->pool = p;
	v->id = i->id;
	v->view = sv_view_make(i->layer, i->flags & SV_VOLUME_SNAPSHOT ? SV_OWNS_NOTHING : i->owned_since);
	v->flags = i->flags;
	v->size = i->size;
	v->tiers = i->tiers;
	v->stream_slot = SV_NO_SLOT;
	r = sv_map_grow(v, i->size);
	if (r) {
		sv_free(v);
		return r;
	}
	sv_lock(&p->lock, f);
	v->next = p->volumes;
	p->volumes = v;
	sv_unlock(&p->lock, f);
	return 0;
}

static int resize_volume(struct sv_pool *p, const struct sv_volume_info *i)
{
	struct sv_volume *v = sv_volume_find(p, i->id);
	int r;

	if (!v)
		return -ENOENT;
	if (!size_ok(i->size))
		return -EINVAL;
	if (i->size <= v->size)
		return 0;
	r = sv_map_grow(v, i->size);
	if (!r)
		WRITE_ONCE(v->size, i->size);
	return r;
}

/* Frees an extent, if it is live, by no record: what says so is in the catalogue. */
static void free_word(struct sv_pool *p, u64 *w)
{
	if ((*w & (SV_XW_LIVE | SV_XW_FREED)) != SV_XW_LIVE)
		return;
	/* A FOLD that holds it sees that and leaves it. Pairs with sv_look_up(). */
	smp_store_release(w, (*w & ~(SV_XW_MAPPED | SV_XW_HOLD)) | SV_XW_FREED);
	p->freed++;
}

/* What a leaf names, and the volume owns, becomes freed: the catalogue says durably that the volume is gone. */
static void free_leaf(struct sv_pool *p, u64 view, const struct sv_node *n)
{
	sv_lock_flags_t f;
	u32 i;

	sv_lock(&p->lock, f);
	for (i = 0; i < SV_NODE_ENTRIES; i++) {
		u64 *w = sv_xt_word(p, sv_entry_extent(n->entry[i]));

		if (w && sv_owns(view, n->entry[i]))
			free_word(p, w);
	}
	sv_unlock(&p->lock, f);
}

static void free_mapped(struct sv_pool *p, u64 view, const struct sv_node *n, u32 level)
{
	u32 i;

	if (!n || sv_node_newest(n) < sv_view_owned_since(view))
		return;
	if (level == 1) {
		free_leaf(p, view, n);
		sv_breathe();
		return;
	}
	for (i = 0; i < SV_NODE_ENTRIES; i++)
		free_mapped(p, view, n->child[i], level - 1);
}

static int drop_volume(struct sv_pool *p, const struct sv_volume_info *info)
{
	struct sv_volume **at, *v;
	sv_lock_flags_t f;
	int r = -ENOENT;

	sv_lock(&p->lock, f);
	for (at = &p->volumes; (v = *at); at = &v->next) {
		if (v->id != info->id)
			continue;
		r = v->opens || v->snapshotting ? -EBUSY : 0;
		if (!r)
			*at = v->next;
		break;
	}
	sv_unlock(&p->lock, f);
	if (r)
		return r;
	if (v->sharing)
		sv_share_undo(v);
	else
		free_mapped(p, v->view, v->root->node, v->root->depth);
	sv_map_free(v);
	sv_free(v);
	return 0;
}

static int each_volume(struct sv_pool *p, void *payload, const u32 *count, u32 *done,
		       int (*fn)(struct sv_pool *p, const struct sv_volume_info *i))
{
	const struct sv_volume_info *i = payload;
	int r = 0;

	for (; !r && *done < *count; *done += !r)
		r = fn(p, &i[*done]);
	return r;
}

static int op_create(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return each_volume(p, payload, count, done, create_volume);
}

static int op_resize(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return each_volume(p, payload, count, done, resize_volume);
}

static int op_drop(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return each_volume(p, payload, count, done, drop_volume);
}

static int op_volumes(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_volume_info *out = payload;
	struct sv_volume *v;
	sv_lock_flags_t f;
	u32 n = 0;

	sv_lock(&p->lock, f);
	for (v = p->volumes; v && n < *count; v = v->next)
		sv_volume_get_info(v, &out[n++]);
	sv_unlock(&p->lock, f);
	*count = n;
	return 0;
}

static int op_histograms(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_histogram *out = payload;
	const struct sv_volume *v = sv_volume_find(p, out[0].volume);

	if (!v)
		return -ENOENT;
	*count = sv_volume_histograms(v, out, *count);
	return 0;
}

static int op_map(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return sv_map_told(p, payload, *count, done);
}

static int op_share(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_share *s = payload;
	int r = 0;

	for (; !r && *done < *count; *done += !r)
		r = sv_share_step(p, &s[*done]);
	return r;
}

/* ---- space ---- */

/* Those of a word's 64 slots that lie in [first, end). */
static u64 slots_in(u32 word, u32 first, u32 end)
{
	u32 from = max_t(u32, first, word * 64), n = min_t(u32, end, (word + 1) * 64) - from;

	return (~0ull >> (64 - n)) << from % 64;
}

static int grant_run(struct sv_pool *p, u32 member, u32 first, u32 count, bool apply)
{
	struct sv_member *m = p->members[member];
	u32 end = first + count, w;
	sv_lock_flags_t f;
	int r = 0;

	sv_lock(&p->lock, f);
	if (apply)
		m->known = true;
	for (w = first / 64; !r && w * 64 < end; w++) {
		u64 slots = slots_in(w, first, end);

		if (apply)
			sv_slots_grant(p, member, w, slots);
		else if (~m->used[w] & slots || m->live[w] & slots)
			r = -EINVAL;		/* offered twice, or an extent lies there [I23] */
	}
	sv_unlock(&p->lock, f);
	return r;
}

static int grant(struct sv_pool *p, const struct sv_grant *g)
{
	bool apply;
	u32 at, n;
	int r = 0;

	if (g->member >= p->nr_members || g->pad || !g->count)
		return -EINVAL;
	if ((u64)g->first + g->count > p->members[g->member]->g.nr_slots)
		return -EINVAL;
	for (apply = false; !r; apply = true) {
		for (at = 0; !r && at < g->count; at += n) {
			n = min_t(u32, CHUNK, g->count - at);
			r = grant_run(p, g->member, g->first + at, n, apply);
			sv_breathe();
		}
		if (apply)
			break;
	}
	return r;
}

static int op_grant(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_grant *g = payload;
	int r = 0;

	for (; !r && *done < *count; *done += !r)
		r = grant(p, &g[*done]);
	return r;
}

static int close_member(struct sv_pool *p, const struct sv_close *c)
{
	sv_lock_flags_t f;

	if (c->member >= p->nr_members || c->closed > 1)
		return -EINVAL;
	sv_lock(&p->lock, f);
	sv_member_close(p, c->member, c->closed);
	sv_unlock(&p->lock, f);
	return 0;
}

static int op_close(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_close *c = payload;
	int r = 0;

	for (; !r && *done < *count; *done += !r)
		r = close_member(p, &c[*done]);
	return r;
}

static int op_activate(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_activate *a = payload;
	sv_lock_flags_t f;

	if (*count != 1 || a->read_only > 1 || a->pad)
		return -EINVAL;
	if (a->read_only)
		sv_pool_degrade(p, SV_MODE_READ_ONLY);
	sv_lock(&p->lock, f);
	p->state = SV_STATE_ACTIVE;
	sv_unlock(&p->lock, f);
	(void)sv_pool_refill(p);	/* as in op_policy() */
	*done = 1;
	return 0;
}

static int op_trim(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_trim *t = payload;
	sv_lock_flags_t f;
	int r = 0;

	if (*count != 1)
		return -EINVAL;
	sv_lock(&p->lock, f);
	if (t->seq >= p->next_seq) {
		r = -EINVAL;			/* not committed [I19] */
	} else if (t->seq >= p->tail_seq) {
		u64 end = (u64)p->batch_end[t->seq % p->ring_blocks] * SV_BATCH_ALIGN;
		u64 at = p->ring_tail - p->ring_tail % p->ring_len + end;

		if (at <= p->ring_tail)
			at += p->ring_len;
		p->tail_seq = t->seq + 1;
		WRITE_ONCE(p->ring_tail, at);
	}
	sv_unlock(&p->lock, f);
	*done = !r;
	return r;
}

static bool is_freed(u64 w)
{
	return (w & SV_XW_FREED) && !(w & SV_XW_RECYCLING);
}

static bool list_one(struct sv_pool *p, u32 extent, struct sv_freed *out)
{
	u64 *word = sv_xt_word(p, extent), w;
	sv_lock_flags_t f;
	bool freed;

	if (!is_freed(READ_ONCE(*word)))
		return false;
	sv_lock(&p->lock, f);
	w = *word;
	freed = is_freed(w);
	if (freed) {
		WRITE_ONCE(*word, w | SV_XW_LISTED);
		p->listed_pos = p->head;
		p->listed_seq = p->head == p->durable ? p->next_seq - 1 : SV_SEQ_UNKNOWN;
	}
	sv_unlock(&p->lock, f);
	*out = (struct sv_freed){ .extent = extent, .gen = sv_xw_gen(w) };
	return freed;
}

static int op_list_freed(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_freed *out = payload;
	u32 n = 0, x;

	if (!*count)
		return -EINVAL;
	/* Nothing is freed while svd rests, and it asks after each checkpoint. */
	for (x = max_t(u32, out[0].extent, 1); READ_ONCE(p->freed) && n < *count && x < READ_ONCE(p->nr_extents); x++) {
		n += list_one(p, x, &out[n]);
		breathe_at(x);
	}
	*count = n;
	return 0;
}

/*
 * Step one: it is listed no more. All else stays as it is until the grace periods are over, since whoever reads through
 * a child that has become whole may still find it (plan.c:sv_plan_read_partial).
 */
static int recycle_one(struct sv_pool *p, const struct sv_freed *x, u64 *members)
{
	u64 *w = sv_xt_word(p, x->extent);

	if (!w || x->pad)
		return -EINVAL;
	if (!is_freed(*w) || sv_xw_gen(*w) != x->gen)
		return -ENOENT;
	if (!(*w & SV_XW_LISTED))
		return -EBUSY;
	smp_store_release(w, *w | SV_XW_RECYCLING);	/* pairs with sv_look_up() */
	*members |= 1ull << sv_xw_member(*w);
	return 0;
}

/* Bios may still mark its partial, so that has a quarantine of its own. */
static void end_recycling(struct sv_pool *p, u32 extent)
{
	u64 *word = sv_xt_word(p, extent), w = *word;
	u32 member = sv_xw_member(w);

	if (!(w & SV_XW_PARTIAL))
		sv_slot_release(p, member, sv_xw_where(w));
	else if (!(w & SV_XW_FRAGS))
		sv_slot_release(p, member, sv_partial_at(p, sv_xw_where(w))->slot);
	else
		sv_frags_release(p, member, sv_places_of(p, sv_partial_at(p, sv_xw_where(w))));
	if (w & SV_XW_PARTIAL)
		sv_partial_quarantine(p, w);
	sv_number_release(p, extent);
	smp_store_release(word, sv_xw_make(0, 0, sv_xw_gen(w), 0));	/* pairs with sv_look_up() */
	p->freed--;
}

/* No replay of the journal will find the extents that were listed. [I20] */
static bool listed_is_trimmed(struct sv_pool *p)
{
	sv_lock_flags_t f;
	bool trimmed;

	sv_lock(&p->lock, f);
	trimmed = p->listed_seq < p->tail_seq;
	sv_unlock(&p->lock, f);
	return trimmed;
}

static int recycle(struct sv_pool *p, const struct sv_freed *x, u32 count, u32 *done, u64 *members)
{
	sv_lock_flags_t f;
	int r = 0;

	if (p->recycling || !listed_is_trimmed(p))
		return -EBUSY;
	p->recycling = sv_zalloc((size_t)(count + 1) * sizeof(*x));
	if (!p->recycling)
		return -ENOMEM;
	for (; !r && *done < count; *done += !r) {
		sv_lock(&p->lock, f);
		r = recycle_one(p, &x[*done], members);
		sv_unlock(&p->lock, f);
		p->recycling[*done] = x[*done];
	}
	p->nr_recycling = *done;
	return r;
}

int sv_recycle_finish(struct sv_pool *p)
{
	sv_lock_flags_t f;
	u32 i;

	for (i = 0; i < p->nr_recycling; i++) {
		sv_lock(&p->lock, f);
		end_recycling(p, p->recycling[i].extent);
		sv_unlock(&p->lock, f);
	}
	sv_free(p->recycling);
	p->recycling = NULL;
	p->nr_recycling = 0;
	return 0;
}

/* What no record frees: svd found that nothing needs it any more, and its catalogue says so durably. */
static int free_one(struct sv_pool *p, const struct sv_freed *x)
{
	u64 *w = sv_xt_word(p, x->extent);

	if (!w || x->pad)
		return -EINVAL;
	if (sv_xw_gen(*w) == x->gen)
		free_word(p, w);	/* if it is not live any more svd, which may have died, has said it before */
	return 0;
}

static int op_free(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_freed *x = payload;
	sv_lock_flags_t f;
	int r = 0;

	for (; !r && *done < *count; *done += !r) {
		sv_lock(&p->lock, f);
		r = free_one(p, &x[*done]);
		sv_unlock(&p->lock, f);
	}
	return r;
}

u64 sv_freed_members(const struct sv_pool *p, const struct sv_freed *x, u32 count)
{
	u64 members = 0;
	u32 i;

	for (i = 0; i < count; i++)
		members |= 1ull << sv_xw_member(READ_ONCE(*sv_xt_word(p, x[i].extent)));
	return members;
}

static int op_snapshot(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return sv_snapshot_begin(p, payload, *count);
}

static int op_own(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_own *o = payload;
	int r = 0;

	for (; !r && *done < *count; *done += !r)
		r = sv_volume_own(p, &o[*done]);
	return r;
}

static int op_policy(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	const struct sv_policy *y = payload;

	if (*count != 1 || y->commit_ms < SV_COMMIT_MS_MIN || y->commit_ms > SV_COMMIT_MS_MAX ||
	    y->no_space_ms > SV_NO_SPACE_MS_MAX || (y->flags & ~SV_POLICY_FRAGMENTS) || y->pad)
		return -EINVAL;
	WRITE_ONCE(p->no_space_ms, y->no_space_ms);
	WRITE_ONCE(p->commit_ms, y->commit_ms);
	WRITE_ONCE(p->fragments, y->flags & SV_POLICY_FRAGMENTS);
	(void)sv_pool_refill(p);	/* numbers for fragments; if not now, as first writes come */
	*done = 1;
	return 0;
}

static int op_wait(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_event *e = payload;

	if (!*count)
		return -EINVAL;
	e->events = sv_pool_events(p);
	e->mode = sv_pool_mode(p);
	*count = 1;
	return 0;
}

/* ---- dumps: the catalogue plus the journal must say the same ---- */

static int op_dump_extents(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_extent *out = payload;
	u32 n = 0, x;

	if (!*count)
		return -EINVAL;
	for (x = max_t(u32, out[0].extent, 1); n < *count && x < READ_ONCE(p->nr_extents); x++) {
		sv_lock_flags_t f;
		u64 w;

		breathe_at(x);
		if (!(READ_ONCE(*sv_xt_word(p, x)) & SV_XW_LIVE))
			continue;
		sv_lock(&p->lock, f);
		w = *sv_xt_word(p, x);
		memset(&out[n], 0, sizeof(out[n]));
		if (!(w & SV_XW_FRAGS))
			out[n].slot = w & SV_XW_PARTIAL ? sv_partial_at(p, sv_xw_where(w))->slot : sv_xw_where(w);
		sv_unlock(&p->lock, f);
		out[n].extent = x;
		out[n].member = (u16)sv_xw_member(w);
		out[n].gen = sv_xw_gen(w);
		out[n].flags = (w & SV_XW_PARTIAL ? SV_EXTENT_PARTIAL : 0) | (w & SV_XW_FREED ? SV_EXTENT_FREED : 0) |
			       (w & SV_XW_FRAGS ? SV_EXTENT_FRAGS : 0);
		n++;
	}
	*count = n;
	return 0;
}

static int op_dump_partials(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	struct sv_partial_bits *out = payload;
	u32 n = 0, x, i;

	if (!*count)
		return -EINVAL;
	for (x = max_t(u32, out[0].extent, 1); n < *count && x < READ_ONCE(p->nr_extents); x++) {
		const struct sv_partial *pt;
		sv_lock_flags_t f;
		u64 w;

		breathe_at(x);
		if (!(READ_ONCE(*sv_xt_word(p, x)) & SV_XW_PARTIAL))
			continue;
		sv_lock(&p->lock, f);
		w = *sv_xt_word(p, x);
		if ((w & SV_XW_PARTIAL) && !(w & SV_XW_FREED)) {
			pt = sv_partial_at(p, sv_xw_where(w));
			out[n].extent = x;
			out[n].parent = pt->parent;
			for (i = 0; i < SV_VALID_WORDS; i++)
				out[n].valid[i] = (u64)atomic64_read(&pt->valid[i]);
			memset(out[n].place, 0, sizeof(out[n].place));
			if (w & SV_XW_FRAGS)
				memcpy(out[n].place, sv_places_of(p, pt)->at, sizeof(out[n].place));
			n++;
		}
		sv_unlock(&p->lock, f);
	}
	*count = n;
	return 0;
}

static int op_dump_map(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return sv_map_dump(p, payload, count, false);
}

static int op_dump_newer(struct sv_pool *p, void *payload, u32 *count, u32 *done)
{
	return sv_map_dump(p, payload, count, true);
}

/* ---- dispatch ---- */

#define LOADING	(1u << SV_STATE_LOADING)
#define ACTIVE	(1u << SV_STATE_ACTIVE)
#define ANY	(LOADING | ACTIVE)

static const struct {
	u32 size;
	bool answers;
	u32 states;
	op_fn fn;
} ops[] = {
	[SV_OP_HELLO]		= { sizeof(struct sv_hello), true, ANY, op_hello },
	[SV_OP_ATTACH]		= { sizeof(struct sv_attach), true, ANY, op_attach },
	[SV_OP_STATE]		= { sizeof(struct sv_state), true, ANY, op_state },
	[SV_OP_MEMBERS]		= { sizeof(struct sv_member_state), true, ANY, op_members },
	[SV_OP_JOURNAL]		= { sizeof(struct sv_journal_pos), false, LOADING, op_journal },
	[SV_OP_EXTENTS]		= { sizeof(struct sv_extent), false, LOADING, op_extents },
	[SV_OP_PARTIALS]	= { sizeof(struct sv_partial_bits), false, LOADING, op_partials },
	[SV_OP_VOLUME_CREATE]	= { sizeof(struct sv_volume_info), false, ANY, op_create },
	[SV_OP_VOLUME_RESIZE]	= { sizeof(struct sv_volume_info), false, ANY, op_resize },
	[SV_OP_VOLUME_DROP]	= { sizeof(struct sv_volume_info), false, ANY, op_drop },
	[SV_OP_VOLUMES]		= { sizeof(struct sv_volume_info), true, ANY, op_volumes },
	[SV_OP_MAP]		= { sizeof(struct sv_map_entry), false, ANY, op_map },
	[SV_OP_GRANT]		= { sizeof(struct sv_grant), false, ANY, op_grant },
	[SV_OP_ACTIVATE]	= { sizeof(struct sv_activate), false, LOADING, op_activate },
	[SV_OP_COMMIT]		= { sizeof(struct sv_state), true, ANY, op_state },
	[SV_OP_TRIM]		= { sizeof(struct sv_trim), false, ACTIVE, op_trim },
	[SV_OP_LIST_FREED]	= { sizeof(struct sv_freed), true, ACTIVE, op_list_freed },
	[SV_OP_RECYCLE]		= { sizeof(struct sv_freed), false, ACTIVE, NULL },
	[SV_OP_POLICY]		= { sizeof(struct sv_policy), false, ANY, op_policy },
	[SV_OP_WAIT]		= { sizeof(struct sv_event), true, ANY, op_wait },
	[SV_OP_DUMP_EXTENTS]	= { sizeof(struct sv_extent), true, ANY, op_dump_extents },
	[SV_OP_DUMP_PARTIALS]	= { sizeof(struct sv_partial_bits), true, ANY, op_dump_partials },
	[SV_OP_DUMP_MAP]	= { sizeof(struct sv_map_entry), true, ANY, op_dump_map },
	[SV_OP_HISTOGRAMS]	= { sizeof(struct sv_histogram), true, ANY, op_histograms },
	[SV_OP_SNAPSHOT]	= { sizeof(struct sv_snapshot), false, ACTIVE, op_snapshot },
	[SV_OP_OWN]		= { sizeof(struct sv_own), false, ACTIVE, op_own },
	[SV_OP_FREE]		= { sizeof(struct sv_freed), false, ACTIVE, op_free },
	[SV_OP_FOLD]		= { sizeof(struct sv_fold), false, ACTIVE, NULL },
	[SV_OP_SHARE]		= { sizeof(struct sv_share), false, ANY, op_share },
	[SV_OP_DUMP_NEWER]	= { sizeof(struct sv_map_entry), true, ANY, op_dump_newer },
	[SV_OP_MOVE]		= { sizeof(struct sv_move), false, ACTIVE, NULL },
	[SV_OP_CLOSE]		= { sizeof(struct sv_close), false, ANY, op_close },
};

u32 sv_op_size(u32 op)
{
	return op < ARRAY_SIZE(ops) ? ops[op].size : 0;
}

bool sv_op_answers(u32 op)
{
	return op < ARRAY_SIZE(ops) && ops[op].answers;
}

int sv_cmd(struct sv_pool *p, u32 op, u64 epoch, void *payload, u32 *count, u32 *done, u64 *members)
{
	*done = 0;
	*members = 0;
	if (!sv_op_size(op))
		return -EOPNOTSUPP;
	if (op != SV_OP_HELLO && op != SV_OP_ATTACH && epoch != p->epoch)
		return -ESTALE;
	if (!(ops[op].states >> p->state & 1))
		return -EBUSY;
	if (!*count || (u64)*count * ops[op].size > (u64)SV_CMD_MAX * SV_CMD_GROWTH)
		return -EINVAL;
	if (op == SV_OP_RECYCLE)
		return recycle(p, payload, *count, done, members);
	if (op == SV_OP_FOLD)
		return sv_fold_begin(p, payload, *count, done, members);
	if (op == SV_OP_MOVE)
		return sv_move_begin(p, payload, *count, done, members);
	return ops[op].fn(p, payload, count, done);
}

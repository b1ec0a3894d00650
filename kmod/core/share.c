// SPDX-License-Identifier: GPL-2.0
/*
 * Loading a volume's map, and showing it. svd tells entry by entry what the catalogue says; or, where another volume's
 * map has most of them, only what differs:
 *
 *	SHARE	the volume has the other one's tree, as it is at this moment; neither writes to a node of it any more
 *	DUMP_NEWER	where that is newer than the newest layer that both have: there svd looks the entries up
 *	MAP	these, and all that the volume has in newer layers itself
 *	end	refused unless what is of newer layers now are entries that were told: what is left of the other
 *		volume's would be wrong, and if both took it for their own both would write to it [I4]
 *
 * For this each entry says of which layer it is, also where there is nothing: what hides an older extent from the other
 * volume need not hide it from this one. Volumes that an older svd has loaded lack that: they are not SV_VOLUME_WHOLE.
 *
 * svd may die in the middle. Nobody has opened the volume until then, and svd's next one finds it SHARING, or finds
 * that its catalogue does not want it, and drops it. That frees nothing, and it can be made again.
 */
#include "internal.h"

#define RUN 64u			/* entries that are loaded under one hold of the lock */

static bool has_older_layers(const struct sv_volume *v)
{
	return v->flags & (SV_VOLUME_CHAINED | SV_VOLUME_SNAPSHOT);
}

static int check_share(const struct sv_volume *v, const struct sv_volume *source, u32 both)
{
	if (!v || !source)
		return -ENOENT;
	if (v->opens || v->snapshotting || v->sharing || source->sharing)
		return -EBUSY;
	if (v->root->node)
		return -EEXIST;
	if (v == source || !has_older_layers(v) || source->root->depth > v->root->depth ||
	    !(v->flags & source->flags & SV_VOLUME_WHOLE) || !both || both >= sv_view_owned_since(v->view))
		return -EINVAL;
	return 0;
}

static int begin(struct sv_pool *p, const struct sv_share *s)
{
	struct sv_volume *v = sv_volume_find(p, s->volume), *from = sv_volume_find(p, s->source);
	sv_lock_flags_t f;
	int r = check_share(v, from, s->layer);

	if (r)
		return r;
	if (sv_pool_wants_refill(p) && sv_pool_refill(p))
		return -ENOMEM;
	sv_lock(&p->lock, f);
	if (p->nr_nodes < SV_MAX_DEPTH) {
		r = -ENOMEM;		/* first writes took them */
	} else {
		sv_map_share(v, from);
		v->mapped = from->mapped;
		v->sharing = true;
		v->both = s->layer;
		v->told_to = 0;
		v->told_newer = 0;
	}
	sv_unlock(&p->lock, f);
	return r;
}

/* The next entry of a newer layer; nobody writes to the volume. */
static bool next_newer(const struct sv_volume *v, u64 *index, u32 above)
{
	bool found = false;

	while (!found && *index != SV_MAP_END) {
		found = sv_map_next(v, index, above);
		if (!found || !(*index % SV_NODE_ENTRIES))
			sv_breathe();
	}
	return found;
}

static int end(struct sv_volume *v)
{
	u64 count = 0, index;

	if (!v)
		return -ENOENT;
	if (!v->sharing)
		return -EINVAL;
	for (index = 0; next_newer(v, &index, v->both); index++)
		count++;
	if (count != v->told_newer)
		return -EUCLEAN;
	v->sharing = false;
	return 0;
}

int sv_share_step(struct sv_pool *p, const struct sv_share *s)
{
	if (s->pad || (!s->source && s->layer))
		return -EINVAL;
	return s->source ? begin(p, s) : end(sv_volume_find(p, s->volume));
}

/* What it was told to own another one may be told to, which is then the same one again. */
void sv_share_undo(struct sv_volume *v)
{
	struct sv_pool *p = v->pool;
	sv_lock_flags_t f;
	u64 index;

	for (index = 0; next_newer(v, &index, sv_view_owned_since(v->view) - 1) && index < v->told_to; index++) {
		u64 *word = sv_xt_word(p, sv_entry_extent(sv_map_lookup(v, index)));

		sv_lock(&p->lock, f);
		if (word)
			smp_store_release(word, *word & ~(u64)SV_XW_MAPPED);	/* pairs with sv_look_up() */
		sv_unlock(&p->lock, f);
	}
}

/* ---- MAP ---- */

/* Entries come in order mostly: the leaf that the last one was in. */
struct mapping {
	struct sv_volume *v;
	u64 extents;			/* of its size */
	u64 reach;			/* of its map */
	struct sv_node *leaf;
	u64 index;
	u32 newest;			/* of the leaf */
};

static bool in_leaf(const struct mapping *m, u64 index)
{
	return m->leaf && !((m->index ^ index) >> SV_NODE_SHIFT);
}

static u64 entry_now(const struct mapping *m, u64 index)
{
	return in_leaf(m, index) ? m->leaf->entry[sv_node_slot(index, 0)] : sv_map_lookup(m->v, index);
}

/* Where the index has its entry, to be of this layer; NULL: the reserve lacks nodes. */
static u64 *entry_at(struct mapping *m, u64 index, u32 layer)
{
	if (!in_leaf(m, index) || m->newest < layer) {
		if (sv_map_nodes_needed(m->v, index) > m->v->pool->nr_nodes)
			return NULL;
		m->leaf = sv_map_leaf(m->v, index, layer);
		m->index = index;
		m->newest = sv_node_newest(m->leaf);
	}
	return &m->leaf->entry[sv_node_slot(index, 0)];
}

/* Nothing is told of an index that has nothing, but that what another volume has there is not this one's. */
static int check_entry(const struct mapping *m, const struct sv_map_entry *e)
{
	const struct sv_volume *v = m->v;
	bool cleared = v->sharing && !e->extent, own = e->layer >= sv_view_owned_since(v->view);

	if (e->pad || e->index >= (cleared ? m->reach : m->extents) || (v->sharing && e->index < v->told_to))
		return -EINVAL;
	if (!e->layer)
		return cleared ? 0 : -EINVAL;
	return e->layer <= sv_view_head(v->view) && (own || has_older_layers(v)) ? 0 : -EINVAL;
}

/* What the volume owns nobody else maps; what is older any volume may. [I4] */
static int check_extent(const struct sv_volume *v, const u64 *word, bool own)
{
	if (!word || (*word & (SV_XW_LIVE | SV_XW_FREED)) != SV_XW_LIVE)
		return -ENOENT;
	return own && (*word & SV_XW_MAPPED) ? -EEXIST : 0;
}

static int map_one(struct mapping *m, const struct sv_map_entry *e)
{
	struct sv_volume *v = m->v;
	u64 *word = sv_xt_word(v->pool, e->extent), entry = sv_entry_make(e->extent, e->layer), *at;
	bool own = e->extent && sv_owns(v->view, entry);
	int r = check_entry(m, e);

	if (!r && e->extent)
		r = check_extent(v, word, own);
	if (r)
		return r;
	if (entry_now(m, e->index) != entry) {
		at = entry_at(m, e->index, e->layer);
		if (!at)
			return -ENOMEM;
		if (*at && !v->sharing)
			return -EEXIST;
		v->mapped += (u64)!!e->extent - (u64)!!sv_entry_extent(*at);
		smp_store_release(at, entry);		/* pairs with sv_map_lookup() */
	} else if (entry && !v->sharing) {
		return -EEXIST;
	}
	if (e->extent)
		smp_store_release(word, *word | SV_XW_MAPPED);	/* pairs with sv_look_up() */
	if (own)
		v->owned_on |= 1ull << sv_xw_member(*word);
	v->told_newer += e->layer > v->both;
	v->told_to = e->index + 1;
	return 0;
}

int sv_map_told(struct sv_pool *p, const struct sv_map_entry *e, u32 count, u32 *done)
{
	struct mapping m = { NULL };
	sv_lock_flags_t f;
	int r = 0;

	while (!r && *done < count) {
		u32 end = min_t(u32, count, *done + RUN);

		if (!m.v || m.v->id != e[*done].volume)
			m = (struct mapping){ .v = sv_volume_find(p, e[*done].volume) };
		if (!m.v || m.v->opens)
			return m.v ? -EBUSY : -ENOENT;
		m.extents = DIV_ROUND_UP(m.v->size, (u64)SV_EXTENT_SIZE);
		m.reach = 1ull << (m.v->root->depth * SV_NODE_SHIFT);
		if (sv_pool_wants_refill(p) && sv_pool_refill(p))
			return -ENOMEM;
		sv_lock(&p->lock, f);
		do {
			r = map_one(&m, &e[*done]);
			*done += !r;
		} while (!r && *done < end && e[*done].volume == m.v->id && p->nr_nodes >= SV_NODE_RESERVE / 2);
		sv_unlock(&p->lock, f);
		if (r == -ENOMEM)
			r = 0;			/* first writes take nodes, too: they are refilled, or that fails */
	}
	return r;
}

/* ---- dumps ---- */

static bool next_entry(const struct sv_volume *v, u64 *index, u32 above, u64 *entry)
{
	bool found;

	sv_read_lock();
	found = sv_map_next(v, index, above);
	if (found)
		*entry = sv_map_lookup(v, *index);
	sv_read_unlock();
	if (!found || !(*index % SV_NODE_ENTRIES))
		sv_breathe();
	return found;
}

/* @newer: of layers newer than that of the first element, and where these hide something. */
int sv_map_dump(struct sv_pool *p, struct sv_map_entry *out, u32 *count, bool newer)
{
	struct sv_map_entry first;
	const struct sv_volume *v;
	u64 index, end, e;
	u32 n = 0;

	if (!*count)
		return -EINVAL;
	first = out[0];
	v = sv_volume_find(p, first.volume);
	if (!v)
		return -ENOENT;
	end = newer ? SV_MAP_END : DIV_ROUND_UP(READ_ONCE(v->size), (u64)SV_EXTENT_SIZE);
	for (index = first.index; n < *count && index < end;) {
		if (!next_entry(v, &index, newer ? first.layer : 0, &e))
			continue;
		if (index < end && (newer || sv_entry_extent(e)))
			out[n++] = (struct sv_map_entry){ .index = index, .volume = v->id, .extent = sv_entry_extent(e),
							  .layer = sv_entry_layer(e) };
		index++;
	}
	*count = n;
	return 0;
}

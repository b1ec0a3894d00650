// SPDX-License-Identifier: GPL-2.0
/*
 * A volume's map: a 512-ary radix of 4 KiB nodes, entry {u32 extent, u32 layer}. Readers (sv_map_lookup) take no
 * lock: a node is complete before it is published with a release store. Writers hold pool->lock and take nodes from
 * the pool's reserve.
 *
 * Maps that differ in little share nodes (share.c). A node's word has
 *
 *	newest	no entry at or below it is of a newer layer, so that what is newer than a layer is found without looking
 *		at the rest. It may be higher than need be: entries that were replaced do not lower it.
 *	FROZEN	it has, or had, several owners: roots, or nodes of other maps
 *	others	how many owners it has beside the first
 *
 * A frozen node is never written again, also when one owner is all that is left: a reader who came by way of
 * another one may still be in it, and would see in his volume what is written to this one. Whoever wants to write
 * there makes his own copy, from the topmost frozen node of the path on downward, since what lies below a node
 * with two owners has two itself, without being marked. The copy of a node that has other owners freezes its
 * children, which have an owner more from then on. The last owner's copy takes its place instead: its children are
 * marked if the other owners left by copying; if they were dropped they have no readers, who would be in them.
 *
 * The old node loses an owner only after the copy was published; without any it is freed when the read sections that
 * are under way have ended, since before that somebody may have gone into it, or into one above it.
 */
#include "internal.h"

#define NEWEST_SHIFT	32

static_assert(sizeof(struct sv_node) == 4096, "a node is a page");

u32 sv_node_newest(const struct sv_node *n)
{
	return (u32)(READ_ONCE(*sv_page_word(n)) >> NEWEST_SHIFT);
}

static bool is_frozen(const struct sv_node *n)
{
	return *sv_page_word(n) & SV_NODE_FROZEN;
}

/* Under the lock, before what is as new can be seen. */
static void raise_newest(struct sv_node *n, u32 layer)
{
	u64 *word = sv_page_word(n);

	if (*word >> NEWEST_SHIFT < layer)
		WRITE_ONCE(*word, (*word & ~(~0ull << NEWEST_SHIFT)) | (u64)layer << NEWEST_SHIFT);
}

static void add_owner(struct sv_node *n)
{
	u64 *word = sv_page_word(n);

	WRITE_ONCE(*word, (*word | SV_NODE_FROZEN) + 1);
}

/* False: it was the last one. */
static bool others_own(struct sv_node *n)
{
	u64 *word = sv_page_word(n);

	if (!(*word & SV_NODE_OTHERS))
		return false;
	WRITE_ONCE(*word, *word - 1);
	return true;
}

u32 sv_map_depth_for(u64 extents)
{
	u32 depth = 1;

	while (depth < SV_MAX_DEPTH && extents > 1ull << (depth * SV_NODE_SHIFT))
		depth++;
	return depth;
}

#define STEPS	(2 * SV_NODE_ENTRIES)		/* of one call of sv_map_next() */

/* Passes over whole subtrees that are not there: a volume of 64 PiB has 2^36 indices. */
bool sv_map_next(const struct sv_volume *v, u64 *index, u32 above)
{
	const struct sv_root *r = smp_load_acquire(&v->root);	/* as in sv_map_lookup() */
	u32 steps;

	for (steps = 0; steps < STEPS && !(*index >> (r->depth * SV_NODE_SHIFT)); steps++) {
		const struct sv_node *n = smp_load_acquire(&r->node);	/* likewise */
		u32 level = r->depth;
		u64 span;

		while (n && sv_node_newest(n) > above && --level)
			n = smp_load_acquire(&n->child[sv_node_slot(*index, level)]);	/* likewise */
		/* Level 0 is an entry. */
		if (!level) {
			u64 entry = smp_load_acquire(&n->entry[sv_node_slot(*index, 0)]);	/* likewise */

			if (sv_entry_layer(entry) > above)
				return true;
		}
		span = 1ull << (level * SV_NODE_SHIFT);
		*index = (*index | (span - 1)) + 1;
	}
	if (*index >> (r->depth * SV_NODE_SHIFT))
		*index = SV_MAP_END;
	return false;
}

/* From the first node on the path on that is not there, or not the volume's alone. */
u32 sv_map_nodes_needed(const struct sv_volume *v, u64 index)
{
	const struct sv_node *n = v->root->node;
	u32 level = v->root->depth;

	while (n && !is_frozen(n) && --level)
		n = n->child[sv_node_slot(index, level)];
	return level;
}

struct sv_node *sv_node_take(struct sv_pool *p)
{
	struct sv_node *n = p->nodes;

	sv_lock_assert(&p->lock);
	p->nodes = n->next_free;
	p->nr_nodes--;
	p->node_count++;
	n->next_free = NULL;
	return n;
}

/* Puts the volume's own copy in the place of one that is frozen. */
static void copy_frozen(struct sv_pool *p, struct sv_node **at, u32 level)
{
	struct sv_node *old = *at, *own = sv_node_take(p);
	bool shared = *sv_page_word(old) & SV_NODE_OTHERS;
	u32 i;

	memcpy(own, old, sizeof(*own));
	raise_newest(own, sv_node_newest(old));
	for (i = 0; shared && level > 1 && i < SV_NODE_ENTRIES; i++)
		if (own->child[i])
			add_owner(own->child[i]);
	smp_store_release(at, own);		/* pairs with sv_map_lookup() */
	if (others_own(old))
		return;
	p->node_count--;
	sv_page_retire(old);
}

/*
 * The leaf of an index, the volume's own, in which an entry of this layer may be stored: its own until another volume
 * is made to share it.
 */
struct sv_node *sv_map_leaf(struct sv_volume *v, u64 index, u32 layer)
{
	struct sv_node **at = &v->root->node;
	u32 level = v->root->depth;

	sv_lock_assert(&v->pool->lock);
	for (;;) {
		if (!*at)
			smp_store_release(at, sv_node_take(v->pool));	/* pairs with sv_map_lookup() */
		else if (is_frozen(*at))
			copy_frozen(v->pool, at, level);
		raise_newest(*at, layer);
		if (!--level)
			return *at;
		at = &(*at)->child[sv_node_slot(index, level)];
	}
}

void sv_map_install(struct sv_volume *v, u64 index, u64 entry)
{
	struct sv_node *leaf = sv_map_leaf(v, index, sv_entry_layer(entry));

	smp_store_release(&leaf->entry[sv_node_slot(index, 0)], entry);	/* pairs with sv_map_lookup() */
}

/* Of an empty map: the nodes above a tree that is less deep than it. */
static struct sv_node **place_for(struct sv_volume *v, u32 depth)
{
	struct sv_node **at = &v->root->node;
	u32 level;

	for (level = v->root->depth; level > depth; level--) {
		smp_store_release(at, sv_node_take(v->pool));	/* pairs with sv_map_lookup() */
		at = &(*at)->child[0];
	}
	return at;
}

void sv_map_share(struct sv_volume *v, const struct sv_volume *source)
{
	struct sv_node *top = source->root->node, **at, *n;
	u32 level;

	sv_lock_assert(&v->pool->lock);
	if (!top)
		return;
	at = place_for(v, source->root->depth);
	for (n = v->root->node, level = v->root->depth; level > source->root->depth; level--, n = n->child[0])
		raise_newest(n, sv_node_newest(top));
	add_owner(top);
	smp_store_release(at, top);		/* likewise */
}

/*
 * A larger volume may need a deeper tree. The new root is published whole, and the old one is kept for readers
 * that still descend from it: what they see stays true, since its top node is the new one's first child.
 */
int sv_map_grow(struct sv_volume *v, u64 size)
{
	u32 depth = sv_map_depth_for(DIV_ROUND_UP(size, (u64)SV_EXTENT_SIZE));
	struct sv_root *r, *old;
	struct sv_node *top[SV_MAX_DEPTH] = { NULL };
	sv_lock_flags_t f;
	u32 d, i;

	if (v->root && depth <= v->root->depth)
		return 0;
	r = sv_zalloc(sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->depth = depth;
	for (d = v->root ? v->root->depth : depth, i = d; i < depth; i++) {
		top[i] = sv_page_zalloc();
		if (!top[i])
			goto nomem;
	}
	sv_lock(&v->pool->lock, f);
	old = v->root;
	r->older = old;
	r->node = old ? old->node : NULL;
	for (i = d; i < depth; i++) {
		/* An empty tree grows too: its first child is then made by the first install. */
		top[i]->child[0] = r->node;
		if (r->node)
			raise_newest(top[i], sv_node_newest(r->node));
		r->node = top[i];
		v->pool->node_count++;
	}
	smp_store_release(&v->root, r);	/* pairs with sv_map_lookup() */
	sv_unlock(&v->pool->lock, f);
	return 0;
nomem:
	for (i = d; i < depth; i++)
		sv_page_free(top[i]);
	sv_free(r);
	return -ENOMEM;
}

/* The owner of a node is gone, and so are who read by way of him. Recursion is at most SV_MAX_DEPTH deep. */
static void disown(struct sv_pool *p, struct sv_node *n, u32 level)
{
	sv_lock_flags_t f;
	bool others;
	u32 i;

	if (!n)
		return;
	sv_lock(&p->lock, f);
	others = others_own(n);
	p->node_count -= !others;
	sv_unlock(&p->lock, f);
	sv_breathe();
	if (others)
		return;
	for (i = 0; level > 1 && i < SV_NODE_ENTRIES; i++)
		disown(p, n->child[i], level - 1);
	if (is_frozen(n))
		sv_page_retire(n);		/* readers of other volumes may be in it */
	else
		sv_page_free(n);
}

/* Nobody looks the volume up any more. */
void sv_map_free(struct sv_volume *v)
{
	struct sv_root *r = v->root;

	if (!r)
		return;
	disown(v->pool, r->node, r->depth);
	while (r) {
		struct sv_root *older = r->older;

		sv_free(r);
		r = older;
	}
	v->root = NULL;
}

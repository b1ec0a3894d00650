// SPDX-License-Identifier: GPL-2.0
/*
 * A volume's map: a 512-ary radix of 4 KiB nodes, entry {u32 extent, u32 layer}. Readers (sv_map_lookup) take no
 * lock: a node is complete before it is published with a release store, and none is freed while the volume lives.
 * Writers hold pool->lock and take nodes from the pool's reserve.
 */
#include "internal.h"

u32 sv_map_depth_for(u64 extents)
{
	u32 depth = 1;

	while (depth < SV_MAX_DEPTH && extents > 1ull << (depth * SV_NODE_SHIFT))
		depth++;
	return depth;
}

/* Passes over whole subtrees that are not there: a volume of 64 PiB has 2^36 indices. */
u64 sv_map_next(const struct sv_volume *v, u64 index)
{
	const struct sv_root *r = smp_load_acquire(&v->root);	/* as in sv_map_lookup() */

	while (!(index >> (r->depth * SV_NODE_SHIFT))) {
		const struct sv_node *n = smp_load_acquire(&r->node);	/* likewise */
		u32 level = r->depth;
		u64 span;

		while (n && --level)
			n = smp_load_acquire(&n->child[sv_node_slot(index, level)]);	/* likewise */
		if (n && smp_load_acquire(&n->entry[sv_node_slot(index, 0)]))	/* likewise */
			return index;
		span = n ? 1 : 1ull << (level * SV_NODE_SHIFT);
		index = (index | (span - 1)) + 1;
	}
	return SV_MAP_END;
}

u32 sv_map_nodes_needed(const struct sv_volume *v, u64 index)
{
	const struct sv_node *n = v->root->node;
	u32 level = v->root->depth;

	while (n && --level)
		n = n->child[sv_node_slot(index, level)];
	return n ? 0 : level ? level : 1;
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

/* Stays what it is as long as the volume lives. */
struct sv_node *sv_map_leaf(struct sv_volume *v, u64 index)
{
	struct sv_node **at = &v->root->node;
	u32 level = v->root->depth;

	sv_lock_assert(&v->pool->lock);
	for (;;) {
		if (!*at)
			smp_store_release(at, sv_node_take(v->pool));	/* pairs with sv_map_lookup() */
		if (!--level)
			return *at;
		at = &(*at)->child[sv_node_slot(index, level)];
	}
}

void sv_map_install(struct sv_volume *v, u64 index, u64 entry)
{
	struct sv_node *leaf = sv_map_leaf(v, index);

	smp_store_release(&leaf->entry[sv_node_slot(index, 0)], entry);	/* pairs with sv_map_lookup() */
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
		top[i] = sv_zalloc(sizeof(struct sv_node));
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
		r->node = top[i];
		v->pool->node_count++;
	}
	smp_store_release(&v->root, r);	/* pairs with sv_map_lookup() */
	sv_unlock(&v->pool->lock, f);
	return 0;
nomem:
	for (i = d; i < depth; i++)
		sv_free(top[i]);
	sv_free(r);
	return -ENOMEM;
}

static u64 free_node(struct sv_node *n, u32 level)
{
	u64 freed = 1;
	u32 i;

	if (!n)
		return 0;
	for (i = 0; level > 1 && i < SV_NODE_ENTRIES; i++)
		freed += free_node(n->child[i], level - 1);
	sv_free(n);
	sv_breathe();
	return freed;
}

/* Nobody looks the volume up any more. Recursion is at most SV_MAX_DEPTH deep. */
void sv_map_free(struct sv_volume *v)
{
	struct sv_root *r = v->root;

	if (!r)
		return;
	v->pool->node_count -= free_node(r->node, r->depth);
	while (r) {
		struct sv_root *older = r->older;

		sv_free(r);
		r = older;
	}
	v->root = NULL;
}

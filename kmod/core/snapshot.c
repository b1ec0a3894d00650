// SPDX-License-Identifier: GPL-2.0
/*
 * Snapshots: a volume's layer is frozen by giving it another one to write to. Nothing is copied, and no writer waits.
 *
 *	begin	checks, and reserves the journal's room for all that follows
 *	switch	appends LAYER and changes the view, in one critical section for all volumes of the cut
 *	finish	appends SNAPDONE, which alone makes a snapshot [I26]
 *
 * Between switch and finish the caller waits until every write planned by an old view has ended: RCU for those that
 * plan, then the SRCU of the members on which the volumes own extents, for those under way. Then it flushes the
 * volumes as their users would, so that the frozen bytes and their VALID records are durable before SNAPDONE.
 *
 * What is in a snapshot. All writes that ended before begin: they were planned by the old view. A write that is under
 * way at the switch is in the old layer or in the new one, by the view that it loaded; if it is in the old one SNAPDONE
 * waits for it, so after SNAPDONE no byte of the frozen layer changes [I27].
 *
 * Several volumes at one moment. A write to B that was submitted because one to A has ended must not be in B's snapshot
 * if A's is not in A's. Two stores to two views are seen in any order, so a write could find A's new view and, ended,
 * be followed by one that finds B's old. Hence the gate: before the switch the writes that come to any of the volumes
 * wait, and one grace period later nobody plans by an old view any more: who plans by a new one began after all had
 * changed.
 *
 * Crashes. Before LAYER is durable: as if it had not been asked for. Between that and SNAPDONE: the layers are there,
 * and svd makes one again of each pair. A flush that fails leaves the same state, without a crash.
 */
#include "internal.h"

#define CUT_BYTES	(sizeof(struct sv_rec_layer) + sizeof(struct sv_rec_small))

/* One volume of the cut. */
struct sv_cut {
	struct sv_volume *volume;
	u64 old;			/* its view before */
	u32 layer;			/* its head after */
	u64 job;
};

static int check_one(struct sv_pool *p, const struct sv_snapshot *s, struct sv_cut *cut)
{
	struct sv_volume *v = sv_volume_find(p, s->volume);

	if (!v)
		return -ENOENT;
	if (v->snapshotting)
		return -EINVAL;		/* named twice */
	if (v->sharing)
		return -EBUSY;
	if (v->flags & SV_VOLUME_READ_ONLY)
		return -EROFS;
	if (s->layer <= sv_view_head(v->view) || s->layer == SV_OWNS_NOTHING)
		return -EINVAL;
	v->snapshotting = true;
	*cut = (struct sv_cut){ .volume = v, .old = v->view, .layer = s->layer, .job = s->job };
	return 0;
}

static void forget(struct sv_pool *p)
{
	u32 i;

	for (i = 0; i < p->nr_cuts; i++)
		p->cuts[i].volume->snapshotting = false;
	sv_free(p->cuts);
	p->cuts = NULL;
	p->nr_cuts = 0;
}

static u64 reserved(const struct sv_pool *p)
{
	return p->nr_cuts * (u64)CUT_BYTES + 2 * SV_BATCH_ALIGN;	/* LAYERs and SNAPDONEs are in two batches */
}

int sv_snapshot_begin(struct sv_pool *p, const struct sv_snapshot *s, u32 count)
{
	sv_lock_flags_t f;
	int r = 0;
	u32 i;

	if (p->cuts)
		return -EBUSY;
	p->cuts = sv_zalloc((size_t)count * sizeof(*p->cuts));
	if (!p->cuts)
		return -ENOMEM;
	for (; !r && p->nr_cuts < count; p->nr_cuts += !r)
		r = check_one(p, &s[p->nr_cuts], &p->cuts[p->nr_cuts]);
	if (!r)
		r = sv_ring_reserve_command(p, reserved(p));
	if (r) {
		forget(p);
		return r;
	}
	sv_lock(&p->lock, f);
	for (i = 0; count > 1 && i < count; i++)
		WRITE_ONCE(p->cuts[i].volume->view, SV_VIEW_GATED);
	sv_unlock(&p->lock, f);
	return 0;
}

struct sv_volume *sv_snapshot_volume(const struct sv_pool *p, u32 i)
{
	return i < p->nr_cuts ? p->cuts[i].volume : NULL;
}

static void switch_view(struct sv_pool *p, const struct sv_cut *cut, u64 *members)
{
	struct sv_volume *v = cut->volume;
	u8 rec[sizeof(struct sv_rec_layer)];

	sv_put_layer(rec, v->id, cut->layer, sv_view_head(cut->old), cut->job);
	sv_stream_append(p, rec, sizeof(rec));
	v->rec_pos = p->head;
	WRITE_ONCE(v->view, sv_view_make(cut->layer, cut->layer));
	WRITE_ONCE(v->flags, v->flags | SV_VOLUME_CHAINED);
	*members |= v->owned_on;
	v->owned_on = 0;
}

int sv_snapshot_switch(struct sv_pool *p, u64 *members)
{
	sv_lock_flags_t f;
	int r = 0;
	u32 i;

	*members = 0;
	sv_lock(&p->lock, f);
	if (!sv_stream_room(p, p->nr_cuts * (u32)sizeof(struct sv_rec_layer)))
		r = p->mode == SV_MODE_FAIL ? -EIO : -EAGAIN;
	for (i = 0; i < p->nr_cuts; i++) {
		if (!r)
			switch_view(p, &p->cuts[i], members);
		else if (r == -EIO)
			WRITE_ONCE(p->cuts[i].volume->view, p->cuts[i].old);
	}
	sv_unlock(&p->lock, f);
	return r;
}

static void append_snapdone(struct sv_pool *p, const struct sv_cut *cut)
{
	u8 rec[sizeof(struct sv_rec_small)];

	sv_put_small(rec, SV_REC_SNAPDONE, 0, 0, cut->volume->id, sv_view_head(cut->old));
	sv_stream_append(p, rec, sizeof(rec));
	cut->volume->rec_pos = p->head;
}

int sv_snapshot_finish(struct sv_pool *p, bool done)
{
	sv_lock_flags_t f;
	u32 i;

	sv_lock(&p->lock, f);
	done = done && p->mode != SV_MODE_FAIL;
	if (done && !sv_stream_room(p, p->nr_cuts * (u32)sizeof(struct sv_rec_small))) {
		sv_unlock(&p->lock, f);
		return -EAGAIN;
	}
	for (i = 0; done && i < p->nr_cuts; i++)
		append_snapdone(p, &p->cuts[i]);
	sv_unlock(&p->lock, f);
	sv_ring_unreserve(p, reserved(p));	/* what was appended counts by itself */
	forget(p);
	return 0;
}

/* Layers below have become part of the head, and no snapshot has them any more, which is durable. [I28] */
int sv_volume_own(struct sv_pool *p, const struct sv_own *o)
{
	struct sv_volume *v = sv_volume_find(p, o->volume);
	u8 rec[sizeof(struct sv_rec_small)];
	sv_lock_flags_t f;
	int r = 0;

	if (!v)
		return -ENOENT;
	if (v->snapshotting || v->sharing || (v->flags & SV_VOLUME_SNAPSHOT))
		return -EBUSY;
	if ((o->flags & ~SV_VOLUME_CHAINED) || o->layer != sv_view_head(v->view) || !o->owned_since ||
	    o->owned_since > sv_view_owned_since(v->view))
		return -EINVAL;
	sv_put_small(rec, SV_REC_OWN, 0, 0, v->id, o->owned_since);
	sv_lock(&p->lock, f);
	if (!sv_ring_free(p) || !sv_stream_room(p, sizeof(rec))) {
		r = -ENOSPC;
	} else {
		sv_stream_append(p, rec, sizeof(rec));
		v->rec_pos = p->head;
		v->owned_on = ~0ull;
		WRITE_ONCE(v->flags, (v->flags & ~SV_VOLUME_CHAINED) | o->flags);
		WRITE_ONCE(v->view, sv_view_make(sv_view_head(v->view), o->owned_since));
	}
	sv_unlock(&p->lock, f);
	return r;
}

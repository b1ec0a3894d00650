// SPDX-License-Identifier: GPL-2.0
/* See latency.h. Counting is there, inline; what is here comes with the session's exclusivity. */
#include "internal.h"

/* ---- life ---- */

static u64 latency_bytes(const struct sv_latency *l)
{
	return (u64)sv_latency_nr_rows(l->tiers) * sizeof(struct sv_latency_row) * sv_nr_cpus();
}

int sv_latency_open(struct sv_volume *v)
{
	struct sv_latency *l = &v->latency;
	struct sv_pool *p = v->pool;
	sv_lock_flags_t f;
	u32 i;

	static_assert(SV_IO_CLASSES + 2 * SV_MAX_TIERS == SV_HISTOGRAMS_MAX, "rows of a volume");

	l->tiers = 0;
	for (i = 0; i < p->nr_members; i++)
		l->tiers = max_t(u32, l->tiers, p->members[i]->g.tier + 1);
	l->rows = sv_percpu_zalloc(sv_latency_nr_rows(l->tiers) * sizeof(struct sv_latency_row));
	if (!l->rows)
		return -ENOMEM;
	sv_lock(&p->lock, f);
	p->latency_bytes += latency_bytes(l);
	sv_unlock(&p->lock, f);
	return 0;
}

void sv_latency_close(struct sv_volume *v)
{
	sv_lock_flags_t f;

	if (!v->latency.rows)
		return;
	sv_lock(&v->pool->lock, f);
	v->pool->latency_bytes -= latency_bytes(&v->latency);
	sv_unlock(&v->pool->lock, f);
	sv_percpu_free(v->latency.rows);
	v->latency.rows = NULL;
}

const struct sv_latency *sv_volume_latency(const struct sv_volume *v)
{
	return &v->latency;
}

/* ---- answers ---- */

static void add_row(struct sv_histogram *to, const struct sv_latency_row *from)
{
	u32 i;

	to->bytes += READ_ONCE(from->bytes);
	to->ns += READ_ONCE(from->ns);
	to->errors += READ_ONCE(from->errors);
	for (i = 0; i < SV_HISTOGRAM_BUCKETS; i++) {
		u64 ios = READ_ONCE(from->buckets[i]);

		to->buckets[i] += ios;
		to->ios += ios;
	}
}

static void sum_up(const struct sv_volume *v, enum sv_io_class c, u32 tier, struct sv_histogram *out)
{
	u32 row = sv_latency_row_of(&v->latency, c, tier), cpu;

	memset(out, 0, sizeof(*out));
	out->volume = v->id;
	out->io_class = (u8)c;
	out->tier = (u8)tier;
	sv_for_each_cpu(cpu)
		add_row(out, sv_percpu_of(v->latency.rows + row, cpu));
}

u32 sv_volume_histograms(const struct sv_volume *v, struct sv_histogram *out, u32 room)
{
	u32 c, tier, n = 0;

	if (!v->latency.rows)
		return 0;
	for (c = 0; c < SV_IO_CLASSES; c++) {
		for (tier = 0; c < SV_IO_DISCARD && tier < v->latency.tiers && n < room; tier++) {
			sum_up(v, c, tier, &out[n]);
			n += out[n].ios > 0;
		}
		if (n < room) {
			sum_up(v, c, SV_TIER_NONE, &out[n]);
			n += out[n].ios > 0;
		}
	}
	return n;
}

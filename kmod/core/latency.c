// SPDX-License-Identifier: GPL-2.0
/* See latency.h. Counting is there, inline; what is here comes with the session's exclusivity. */
#include "internal.h"

/* ---- life ---- */

/* Of one CPU. */
static size_t rows_size(const struct sv_latency *l)
{
	return sv_latency_nr_rows(l->tiers) * sizeof(struct sv_latency_row);
}

int sv_latency_open(struct sv_volume *v)
{
	struct sv_latency *l = &v->latency;
	struct sv_pool *p = v->pool;
	u32 i;

	static_assert(SV_IO_CLASSES + 2 * SV_MAX_TIERS == SV_HISTOGRAMS_MAX, "rows of a volume");

	l->tiers = 0;
	for (i = 0; i < p->nr_members; i++)
		l->tiers = max_t(u32, l->tiers, p->members[i]->g.tier + 1);
	l->memory = &p->latency_bytes;
	l->rows = sv_zalloc(sv_nr_cpus() * sizeof(*l->rows));
	return l->rows ? 0 : -ENOMEM;
}

void sv_latency_close(struct sv_volume *v)
{
	struct sv_latency *l = &v->latency;
	u32 cpu;

	if (!l->rows)
		return;
	for (cpu = 0; cpu < sv_nr_cpus(); cpu++) {
		if (!l->rows[cpu])
			continue;
		atomic64_sub(rows_size(l), l->memory);
		sv_free(l->rows[cpu]);
	}
	sv_free(l->rows);
	l->rows = NULL;
}

/* New rows have the I/O in them when they are seen: it does not matter which CPU this runs on by then. */
void sv_latency_count_first(const struct sv_latency *l, u32 row, u64 bytes, u64 ns, bool ok)
{
	do {
		struct sv_latency_row *rows = sv_zalloc_atomic(rows_size(l));

		if (!rows)
			return;
		sv_latency_add(rows + row, bytes, ns, ok);
		if (!cmpxchg(&l->rows[sv_cpu_now()], NULL, rows)) {
			atomic64_add(rows_size(l), l->memory);
			return;
		}
		sv_free(rows);		/* an interrupt was faster */
	} while (!sv_latency_try(l, row, bytes, ns, ok));
}

const struct sv_latency *sv_volume_latency(const struct sv_volume *v)
{
	return &v->latency;
}

/* ---- answers ---- */

static void add_row(struct sv_histogram *to, const struct sv_latency_row *from)
{
	u32 i;

	to->bytes += sv_counter_read(&from->bytes);
	to->ns += sv_counter_read(&from->ns);
	to->errors += sv_counter_read(&from->errors);
	for (i = 0; i < SV_HISTOGRAM_BUCKETS; i++) {
		u64 ios = sv_counter_read(&from->buckets[i]);

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
	for (cpu = 0; cpu < sv_nr_cpus(); cpu++) {
		/* pairs with cmpxchg() in sv_latency_count_first() */
		const struct sv_latency_row *rows = smp_load_acquire(&v->latency.rows[cpu]);

		if (rows)
			add_row(out, rows + row);
	}
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

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long a volume's I/O took: histograms by class of I/O and by the tier that served it, always on. Each CPU counts
 * in rows of its own and nobody takes a lock: an I/O that ends costs a few instructions (remap.c says how many). A CPU
 * gets its rows when the first I/O of the open volume ends on it, so that a thousand clones that nobody has read from
 * yet take nothing; they go when it is closed. HISTOGRAMS sums them over the CPUs.
 *
 * Where there is no memory for them at that moment the I/O is not counted, and the next one tries again: waiting
 * would hold up I/O that may be what frees memory [I9].
 *
 * Buckets: 0 is below 1024 ns; the last is 2^36 ns (69 s) and more; those between are the halves of powers of two,
 * [2^n, 1.5 * 2^n) and [1.5 * 2^n, 2^(n + 1)).
 */
#ifndef SV_CORE_LATENCY_H
#define SV_CORE_LATENCY_H

#include "port.h"
#include "pool.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SV_LATENCY_SHIFT	9	/* the first bucket is two of these units long: 2 << 9 ns */

static_assert(sizeof(struct sv_histogram) == 472, "histogram size");
static_assert(__builtin_offsetof(struct sv_histogram, ios) == 8, "histogram.ios");
static_assert(__builtin_offsetof(struct sv_histogram, buckets) == 40, "histogram.buckets");

static inline u32 sv_latency_bucket(u64 ns)
{
	u64 units = ns >> SV_LATENCY_SHIFT;
	u32 top, bucket;

	if (units < 2)
		return 0;
	top = (u32)fls64(units) - 1;
	bucket = 2 * top - 1 + (u32)(units >> (top - 1) & 1);
	return min_t(u32, bucket, SV_HISTOGRAM_BUCKETS - 1);
}

/* What all in the bucket are below, in ns; ~0: the last has no such bound. The next bucket begins there. */
static inline u64 sv_latency_below(u32 bucket)
{
	u32 half = bucket + 2;		/* the next bucket's lower bound, counted in halves of powers of two */

	if (bucket >= SV_HISTOGRAM_BUCKETS - 1)
		return ~0ull;
	return (u64)(2 + half % 2) << (half / 2 - 1 + SV_LATENCY_SHIFT);
}

/* What one CPU counted of one class and tier. */
struct sv_latency_row {
	sv_counter_t bytes;
	sv_counter_t ns;
	sv_counter_t errors;
	sv_counter_t buckets[SV_HISTOGRAM_BUCKETS];
};

/*
 * Of an open volume, by CPU: one row for each class without a tier, then one for reads and one for writes of each tier.
 * A CPU's rows are NULL until they are set by cmpxchg(), from whatever context on that CPU comes first.
 */
struct sv_latency {
	struct sv_latency_row **rows;
	atomic64_t *memory;		/* what all rows of the pool take, in bytes */
	u32 tiers;			/* as there were when it was opened; a later one counts as none */
};

static inline u32 sv_latency_nr_rows(u32 tiers)
{
	return SV_IO_CLASSES + 2 * tiers;
}

/* Less than 256. @tier: that served it, or SV_TIER_NONE; discards and flushes count without one. */
static inline u32 sv_latency_row_of(const struct sv_latency *l, enum sv_io_class c, u32 tier)
{
	return c < SV_IO_DISCARD && tier < l->tiers ? SV_IO_CLASSES + 2 * tier + (u32)c : (u32)c;
}

static inline void sv_latency_add(struct sv_latency_row *row, u64 bytes, u64 ns, bool ok)
{
	sv_counter_add(&row->buckets[sv_latency_bucket(ns)], 1);
	sv_counter_add(&row->ns, ns);
	if (likely(ok))
		sv_counter_add(&row->bytes, bytes);
	else
		sv_counter_add(&row->errors, 1);
}

/* False: this CPU has no rows yet. */
static inline bool sv_latency_try(const struct sv_latency *l, u32 row, u64 bytes, u64 ns, bool ok)
{
	struct sv_latency_row *rows = READ_ONCE(l->rows[sv_cpu_enter()]);

	if (likely(rows))
		sv_latency_add(rows + row, bytes, ns, ok);
	sv_cpu_leave();
	return rows;
}

void sv_latency_count_first(const struct sv_latency *l, u32 row, u64 bytes, u64 ns, bool ok);

/* An I/O of @bytes has ended, @ns after it came; @row as sv_latency_row_of() says. Any context, no lock. */
static inline void sv_latency_count(const struct sv_latency *l, u32 row, u64 bytes, u64 ns, bool ok)
{
	if (unlikely(!sv_latency_try(l, row, bytes, ns, ok)))
		sv_latency_count_first(l, row, bytes, ns, ok);
}

/* Of an open volume, until it is closed. */
const struct sv_latency *sv_volume_latency(const struct sv_volume *v);

/* Adds what @from counted; whose it is stays as it is in @to. */
static inline void sv_histogram_add(struct sv_histogram *to, const struct sv_histogram *from)
{
	u32 i;

	to->ios += from->ios;
	to->bytes += from->bytes;
	to->ns += from->ns;
	to->errors += from->errors;
	for (i = 0; i < SV_HISTOGRAM_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long a volume's I/O took: histograms by class of I/O and by the tier that served it, always on. Each CPU counts
 * in rows of its own and nobody takes a lock: an I/O that ends costs a few instructions (remap.c says how many). The
 * rows exist while the volume is open; HISTOGRAMS sums them over the CPUs.
 *
 * Buckets: 0 is below 1024 ns; the last is 2^36 ns (69 s) and more; those between are the halves of powers of two,
 * [2^n, 1.5 * 2^n) and [1.5 * 2^n, 2^(n + 1)).
 */
#ifndef SV_CORE_LATENCY_H
#define SV_CORE_LATENCY_H

#include "pool.h"

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

#endif

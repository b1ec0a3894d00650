// SPDX-License-Identifier: GPL-2.0
// See latency.h.
#include "daemon/engine/latency.h"

#include <iterator>

#include "kmod/core/latency.h"

namespace svd {

const char *io_class_name(uint32_t kind)
{
	static const char *const kNames[SV_IO_CLASSES] = {"read", "write", "discard", "flush"};
	return kind < std::size(kNames) ? kNames[kind] : "?";
}

sv_histogram VolumeLatency::total(sv_io_class kind) const
{
	sv_histogram sum{};
	sum.io_class = kind;
	sum.tier = SV_TIER_NONE;
	for (const sv_histogram &row : rows) {
		if (row.io_class != kind)
			continue;
		sum.volume = row.volume;
		sv_histogram_add(&sum, &row);
	}
	return sum;
}

std::optional<uint64_t> bucket_end(uint32_t bucket)
{
	return bucket < SV_HISTOGRAM_BUCKETS - 1 ? std::optional<uint64_t>(sv_latency_below(bucket)) : std::nullopt;
}

std::optional<uint64_t> latency_below(const sv_histogram &h, uint32_t per_mille)
{
	// Rounded up, and without a product that overflows.
	const uint64_t wanted = h.ios / 1000 * per_mille + (h.ios % 1000 * per_mille + 999) / 1000;
	uint64_t seen = 0;
	for (uint32_t i = 0; i < SV_HISTOGRAM_BUCKETS - 1; i++) {
		seen += h.buckets[i];
		if (wanted > 0 && seen >= wanted)
			return sv_latency_below(i);
	}
	return std::nullopt;
}

}	// namespace svd

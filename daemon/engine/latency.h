// SPDX-License-Identifier: GPL-2.0
// How long a volume's I/O took, as the kernel counts it. Pool::latency() asks for it; what svctl show says of it
// (latency.cc) and svd's metrics are made of this type. Counters grow from when the volume's device was made and begin
// again at 0 with the next device: at an activation, not when svd is restarted.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kmod/uapi/sv.h"

namespace svd {

struct VolumeLatency {
	// A row for each class of I/O and tier that has served one, ordered by both; uapi/sv.h says what is in it, and
	// sv_latency_below() of kmod/core/latency.h where its buckets end.
	std::vector<sv_histogram> rows;

	sv_histogram total(sv_io_class kind) const;	// of all tiers; its own tier is SV_TIER_NONE
};

const char *io_class_name(uint32_t kind);	// "read", "write", "discard", "flush"

// Where a bucket ends, in ns. Nothing: it is the last one, which has no end.
std::optional<uint64_t> bucket_end(uint32_t bucket);

// What that many of 1000 stayed below, in ns: the upper bound of the bucket that the slowest of them is in. Nothing: that
// is the last bucket, which has none, or there was no I/O.
std::optional<uint64_t> latency_below(const sv_histogram &histogram, uint32_t per_mille);

}	// namespace svd

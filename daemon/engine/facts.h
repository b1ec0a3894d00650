// SPDX-License-Identifier: GPL-2.0
// What there is to know of pools at one moment, as plain values: for alerts (watch.h) and metrics (api/metrics.h).
// Gathering them asks the kernel and reads the catalogue; nothing is written anywhere.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "daemon/catalogue/catalogue.h"
#include "daemon/engine/latency.h"
#include "daemon/engine/problem.h"
#include "kmod/uapi/sv.h"

namespace svd {

// Sizes are bytes. A member that is missing has no device.
struct MemberFacts {
	uint32_t index = 0;
	std::string tier;
	std::string device;
	uint64_t size = 0;
	uint64_t free = 0;
	uint64_t errors = 0;		// of I/O, since the kernel has the pool
	bool present = true;
	bool journal = false;		// it has a copy of it
	bool journal_lost = false;	// which is not written any more
	bool catalogue = false;
	bool catalogue_lost = false;
	bool leaving = false;		// it is to be emptied
	bool stalled = false;		// and nothing could be moved for a while
};

struct VolumeFacts {
	std::string name;
	uint64_t size = 0;
	uint64_t mapped = 0;
	uint64_t unreadable = 0;	// extents that lie on missing members
	std::optional<VolumeLatency> latency = {};	// where it was asked for, and the kernel counts it
};

struct ScheduleFacts {
	uint32_t volume = 0;
	std::string name;
	std::string schedule;
	bool due = false;		// for a snapshot
};

struct CheckpointFacts {
	uint64_t done = 0;
	uint64_t failed = 0;
	double seconds = 0;		// that all of them took
	double last_seconds = 0;	// that the last one took that was done
	std::time_t last = 0;		// when that was; 0: none yet
};

struct PoolFacts {
	std::string name;		// what commands call it: no other pool has the same
	std::string uuid;
	std::string state;
	bool writable = false;
	bool found_up = false;		// svd found it up, and looks for the first time
	uint32_t nr_members = 0;
	uint32_t missing = 0;		// of those
	uint64_t size = 0;		// but for what is free on members that are leaving
	std::vector<MemberFacts> members;
	CheckpointFacts checkpoints;
	// While it is up, and the kernel answers.
	std::optional<sv_state> kernel;
	std::optional<CatalogueSpace> catalogue;
	std::optional<double> seconds_to_full;
	std::vector<VolumeFacts> volumes;
	std::vector<ScheduleFacts> schedules;	// of volumes that have one
};

struct EngineFacts {
	bool latency = false;		// of volumes was asked for
	std::vector<PoolFacts> pools;
	std::vector<Problem> problems;	// `pool` is what commands call it
};

}	// namespace svd

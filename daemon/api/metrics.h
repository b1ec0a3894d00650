// SPDX-License-Identifier: GPL-2.0
// What is known of pools and of svd itself as text in Prometheus's exposition format, 0.0.4. Pure: facts in, text out.
// Every name is in docs/operations/monitoring.md; one that was released keeps its meaning and its unit.
#pragma once

#include <cstdint>
#include <string>

#include "daemon/engine/facts.h"

namespace svd {

inline constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

struct SelfFacts {
	std::string version;
	uint64_t clients = 0;		// of the Varlink socket
	uint64_t jobs = 0;		// that run
	uint64_t dropped_lines = 0;	// of the log
	uint64_t resident = 0;		// bytes
	double cpu_seconds = 0;
};
SelfFacts self_facts();			// what the process knows of itself: not version, clients, jobs

// Families without a sample have their HELP and TYPE lines. Those of latency are left out if it was not asked for.
std::string metrics_text(const EngineFacts &engine, const SelfFacts &self);

// The value of a label as it stands between quotes. Bytes that are no UTF-8 become '?': one device's name must not make
// the whole page unreadable.
std::string label_value(const std::string &text);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// When a volume gets a snapshot by itself, and which of those it keeps. Nothing here knows a clock or a pool.
//
// Time is cut into intervals that begin at multiples of their length since 1970, UTC: hours and days at their own beginning.
// A rule wants a snapshot in each interval and keeps the newest of each of the last so many intervals that have one: by number,
// and not by age. So a clock that jumps, or a machine that was off for a month, costs what the snapshot that is then made takes
// the place of, and no more; one that is wrong at each boot costs one place; and the newest one always stays. What is newer than
// what is told by the order in which they were made, not by the clock.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/base/result.h"

namespace svd {

struct ScheduleRule {
	uint64_t every = 0;	// seconds
	uint64_t keep = 0;	// seconds; at least `every`
	uint64_t count() const { return keep / every; }	// of snapshots that are kept
	bool operator==(const ScheduleRule&) const = default;
};

using Schedule = std::vector<ScheduleRule>;	// the most frequent first; none: no snapshots

// A snapshot that a schedule made. They are told in the order in which they were made.
struct ScheduledSnapshot {
	uint32_t id = 0;
	uint64_t created = 0;	// seconds since the epoch, by the clock of then
};

// "5min:1h,1h:3d,1d:30d": one each five minutes, kept for an hour, and so on; "none". Units: min, h, d, w. Refused (kUsage):
// anything else, less than a minute, one that is kept for less than its interval or more than 1000 of them, an interval
// twice, more than 8 rules.
Result<Schedule> parse_schedule(std::string_view text);
std::string format_schedule(const Schedule &schedule);	// as parse_schedule() takes it
// Is the newest of another interval than now is, of any rule?
bool is_due(const Schedule &schedule, std::span<const ScheduledSnapshot> taken, uint64_t now);
// Those that no rule keeps. With no schedule: none, for they are the user's now.
std::vector<uint32_t> not_kept(const Schedule &schedule, std::span<const ScheduledSnapshot> taken);
std::string scheduled_name(uint64_t now);	// "auto-20261126T211500Z"

}	// namespace svd

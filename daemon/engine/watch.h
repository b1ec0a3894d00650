// SPDX-License-Identifier: GPL-2.0
// When a pool's alerts begin and end, from what is known of it at moments. Each begins at one value, ends at another,
// so that one that hovers is told once. Pure but for its memory: the caller has the clock and the facts (Pool::look).
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/engine/facts.h"

namespace svd {

// Percent of a pool that is used when SV-SPACE-LOW and SV-SPACE-CRITICAL begin.
struct SpaceLimits {
	double warning = 80;
	double critical = 95;
};

// What svd was told of them.
struct LowSpace {
	SpaceLimits all = {};
	std::map<std::string, SpaceLimits> own = {};	// by pool's name

	// Of "85,95" and "tank=90,97"; kUsage.
	static Result<LowSpace> parse(const std::vector<std::string> &options);
	const SpaceLimits &of(const std::string &pool) const;
};

// On from `begins` upwards, off below `ends`; in between as it was.
class Level {
public:
	bool update(double value, double begins, double ends)
	{
		on_ = on_ ? value >= ends : value >= begins;
		return on_;
	}

private:
	bool on_ = false;
};

// When a pool will be full, from how its used space grew.
class FillForecast {
public:
	using Clock = std::chrono::steady_clock;

	void add(Clock::time_point now, uint64_t used);		// bytes; what comes within a minute of the last is passed over
	// Nothing: it does not grow, or is not known for long enough. A burst is no growth: it must have gone on for long,
	// and go on still.
	std::optional<double> seconds_to_full(uint64_t free) const;

private:
	struct Sample {
		Clock::time_point at;
		double used;
	};
	std::optional<double> rate(Clock::duration window) const;	// bytes a second

	std::deque<Sample> samples_;
};

class Watch {
public:
	using Clock = std::chrono::steady_clock;

	struct Change {
		bool began;
		Problem problem;
	};

	// What began and ended since the last look. Of a pool that is up.
	std::vector<Change> look(const PoolFacts &facts, const SpaceLimits &limits, Clock::time_point now);
	std::vector<Change> stop();		// it is not up any more: all that was has ended
	std::vector<Problem> problems() const;	// now; what a worse one implies is left out
	std::optional<double> seconds_to_full() const { return seconds_to_full_; }

private:
	using Alerts = std::map<std::pair<Id, std::string>, Problem>;	// by code, and device or volume

	struct Errors {
		uint64_t known = 0;
		std::optional<Clock::time_point> grew;
	};

	void look_at_space(const PoolFacts &facts, const SpaceLimits &limits, Clock::time_point now, Alerts &alerts);
	void look_at_journal(const PoolFacts &facts, Clock::time_point now, Alerts &alerts);
	void look_at_member(const PoolFacts &facts, const MemberFacts &member, Clock::time_point now, Alerts &alerts);
	void look_at_schedules(const PoolFacts &facts, Clock::time_point now, Alerts &alerts);
	bool fills(Clock::time_point now);
	bool journal_presses(uint64_t used, uint64_t size, Clock::time_point now);

	Alerts alerts_;
	Level low_;
	Level critical_;
	FillForecast forecast_;
	std::optional<double> seconds_to_full_;
	bool fills_ = false;
	Clock::time_point filled_{};			// last, as far as the forecast says
	bool presses_ = false;
	std::optional<std::pair<Clock::time_point, uint64_t>> above_;	// the journal's half, since then, with so much
	std::map<uint32_t, Errors> errors_;		// by member
	std::map<uint32_t, Clock::time_point> due_since_;	// by volume: a snapshot, by its schedule
};

}	// namespace svd

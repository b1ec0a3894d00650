// SPDX-License-Identifier: GPL-2.0
// See watch.h.
#include "daemon/engine/watch.h"

#include <algorithm>
#include <charconv>

#include <fmt/core.h>

#include "daemon/base/units.h"

namespace svd {

namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr double kSpaceGap = 2;			// percent, between where an alert begins and where it ends
constexpr auto kSampleEvery = minutes(1);
constexpr auto kLongWindow = hours(2);
constexpr auto kShortWindow = minutes(15);
constexpr double kFullSoon = 24 * 3600;		// seconds: it begins
constexpr double kFullLater = 36 * 3600;	// and ends
constexpr auto kFillsNoMore = minutes(15);	// after that long
constexpr auto kPressure = minutes(1);
constexpr auto kErrorsForgotten = hours(24);
constexpr auto kSnapshotLate = minutes(10);	// several turns of the timer, and a long check of the pool

double to_seconds(std::chrono::steady_clock::duration time)
{
	return std::chrono::duration<double>(time).count();
}

std::string how_long(double seconds)
{
	const auto minutes = static_cast<uint64_t>(seconds / 60);
	return minutes < 120 ? fmt::format("{} minutes", minutes) : fmt::format("{} hours", minutes / 60);
}

}	// namespace

// ---- limits ----

namespace {

Result<SpaceLimits> parse_limits(const std::string &text, const std::string &whole)
{
	SpaceLimits limits;
	const char *const end = text.data() + text.size();
	const auto [comma, first] = std::from_chars(text.data(), end, limits.warning);
	const bool has_both = first == std::errc() && comma != end && *comma == ',';
	const auto [stop, second] = std::from_chars(has_both ? comma + 1 : end, end, limits.critical);
	if (!has_both || second != std::errc() || stop != end || !(limits.warning >= 5) ||
	    !(limits.critical > limits.warning) || !(limits.critical <= 100))
		return Error{Code::kUsage, "take --low-space", whole, "it is no two percentages from 5 to 100, the smaller one first",
			     "write --low-space 80,95 or --low-space POOL=90,97"};
	return limits;
}

}	// namespace

Result<LowSpace> LowSpace::parse(const std::vector<std::string> &options)
{
	LowSpace low;
	for (const std::string &option : options) {
		const size_t equals = option.find('=');
		SV_ASSIGN(const SpaceLimits limits, parse_limits(option.substr(equals + 1), option));
		if (equals == std::string::npos) {
			low.all = limits;
			continue;
		}
		const std::string pool = option.substr(0, equals);
		SV_TRY(check_pool_name(pool));
		low.own[pool] = limits;
	}
	return low;
}

const SpaceLimits &LowSpace::of(const std::string &pool) const
{
	const auto found = own.find(pool);
	return found == own.end() ? all : found->second;
}

// ---- when it will be full ----

void FillForecast::add(Clock::time_point now, uint64_t used)
{
	if (!samples_.empty() && now - samples_.back().at < kSampleEvery)
		return;
	samples_.push_back({now, static_cast<double>(used)});
	while (now - samples_.front().at > kLongWindow)
		samples_.pop_front();
}

// The slope of the line through the window's samples that lies nearest to all of them. Counted from the first, so that
// what does not change has none, whatever the rounding.
std::optional<double> FillForecast::rate(Clock::duration window) const
{
	const auto begin = std::find_if(samples_.begin(), samples_.end(), [&](const Sample &sample) {
		return samples_.back().at - sample.at <= window; });
	if (begin == samples_.end() || samples_.back().at - begin->at < window / 2)
		return std::nullopt;
	const auto n = static_cast<double>(samples_.end() - begin);
	double time = 0;
	double used = 0;
	for (auto sample = begin; sample != samples_.end(); sample++) {
		time += to_seconds(sample->at - begin->at) / n;
		used += (sample->used - begin->used) / n;
	}
	double both = 0;
	double square = 0;
	for (auto sample = begin; sample != samples_.end(); sample++) {
		const double away = to_seconds(sample->at - begin->at) - time;
		both += away * (sample->used - begin->used - used);
		square += away * away;
	}
	return both / square;
}

std::optional<double> FillForecast::seconds_to_full(uint64_t free) const
{
	const auto long_rate = rate(kLongWindow);
	const auto short_rate = rate(kShortWindow);
	if (!long_rate || !short_rate || *long_rate <= 0 || *short_rate <= 0)
		return std::nullopt;
	return static_cast<double>(free) / std::min(*long_rate, *short_rate);
}

// ---- space ----

bool Watch::fills(Clock::time_point now)
{
	const double left = seconds_to_full_.value_or(2 * kFullLater);
	if (left < (fills_ ? kFullLater : kFullSoon)) {
		filled_ = now;
		fills_ = true;
	}
	fills_ = fills_ && now - filled_ < kFillsNoMore;
	return fills_;
}

void Watch::look_at_space(const PoolFacts &facts, const SpaceLimits &limits, Clock::time_point now, Alerts &alerts)
{
	const uint64_t size = facts.kernel->total_slots << SV_EXTENT_SHIFT;
	const uint64_t free = facts.kernel->free_slots << SV_EXTENT_SHIFT;
	const uint64_t used = size - std::min(size, free);
	const double percent = size == 0 ? 0 : 100.0 * static_cast<double>(used) / static_cast<double>(size);
	uint64_t leaving = 0;	// what lies on members that are to be emptied comes to the others, and is no growth
	for (const MemberFacts &member : facts.members)
		leaving += member.leaving ? member.size - member.free : 0;
	forecast_.add(now, used + leaving);
	seconds_to_full_ = forecast_.seconds_to_full(free);
	const std::string what = fmt::format("{:.1f} % of its space is used, {} of {} are free", percent,
					     format_size(Bytes(free)), format_size(Bytes(size)));
	const std::string next = fmt::format("svctl add-device {} TIER=DEVICE, or delete files and fstrim", facts.name);
	if (low_.update(percent, limits.warning, limits.warning - kSpaceGap))
		alerts[{Id::kSpaceLow, ""}] = {Id::kSpaceLow, what, next};
	if (critical_.update(percent, limits.critical, limits.critical - kSpaceGap))
		alerts[{Id::kSpaceCritical, ""}] = {Id::kSpaceCritical, what, next};
	if (fills(now))
		alerts[{Id::kFullSoon, ""}] = {Id::kFullSoon, seconds_to_full_ && *seconds_to_full_ < kFullLater ?
			fmt::format("it will be full in {} if it goes on like this: {} are free", how_long(*seconds_to_full_),
				    format_size(Bytes(free))) : "it filled fast, and may go on", next};
}

// ---- journal ----

bool Watch::journal_presses(uint64_t used, uint64_t size, Clock::time_point now)
{
	if (used < size / 8 * 3)
		presses_ = false;
	if (used <= size / 2) {
		above_.reset();
		return presses_;
	}
	if (!above_)
		above_ = {now, used};
	if (now - above_->first < kPressure)
		return presses_;
	presses_ = presses_ || used >= above_->second;
	above_ = {now, used};
	return presses_;
}

void Watch::look_at_journal(const PoolFacts &facts, Clock::time_point now, Alerts &alerts)
{
	const uint64_t size = facts.kernel->ring_bytes;
	const uint64_t used = facts.kernel->ring_used;
	if (size > 0 && journal_presses(used, size, now))
		alerts[{Id::kJournalPressure, ""}] = {Id::kJournalPressure,
			fmt::format("{} % of its journal is used, and it is not emptied", used * 100 / size),
			fmt::format("svctl jobs; svctl show {}; journalctl -u svd -k", facts.name)};
}

// ---- members ----

void Watch::look_at_member(const PoolFacts &facts, const MemberFacts &member, Clock::time_point now, Alerts &alerts)
{
	const auto alert = [&](Id id, const std::string &what, const std::string &next) {
		alerts[{id, member.device}] = {id, what, next, {}, {}, member.device};
	};
	const std::string again = fmt::format("replace the device; svctl deactivate {0}; svctl activate {0}", facts.name);
	if (member.journal_lost)
		alert(Id::kJournalCopyLost, "one copy of the journal is lost: " + member.device, "journalctl -k; " + again);
	if (member.catalogue_lost)
		alert(facts.writable ? Id::kCatalogueCopyLost : Id::kCatalogueCopyStale,
		      fmt::format("one copy of the catalogue is {}: {}", facts.writable ? "lost" : "out of date", member.device),
		      facts.writable ? "journalctl -u svd -k; " + again :
				       fmt::format("svctl deactivate {0}; svctl activate {0} writes it anew", facts.name));
	if (member.stalled)
		alert(Id::kEvacuationStalled, fmt::format("{} is to be emptied, and {} cannot be moved off it", member.device,
							  format_size(Bytes(member.size - member.free))),
		      fmt::format("svctl show {0}; svctl add-device {0} TIER=DEVICE, or delete files and fstrim", facts.name));
	Errors &errors = errors_[member.index];
	if (member.errors > errors.known && !facts.found_up)	// when those were that are found there, nobody knows
		errors.grew = now;
	errors.known = member.errors;
	if (errors.grew && now - *errors.grew < kErrorsForgotten)
		alert(Id::kMemberFailing, fmt::format("{} had {} I/O errors", member.device, member.errors),
		      fmt::format("smartctl -a {}; journalctl -k", member.device));
}

// ---- schedules ----

// Who trusts in snapshots must hear that there are none: the timer does not run, or fails.
void Watch::look_at_schedules(const PoolFacts &facts, Clock::time_point now, Alerts &alerts)
{
	std::map<uint32_t, Clock::time_point> known = std::move(due_since_);
	due_since_.clear();
	for (const ScheduleFacts &one : facts.schedules) {
		if (!one.due)
			continue;
		const Clock::time_point since = known.try_emplace(one.volume, now).first->second;
		due_since_[one.volume] = since;
		if (now - since >= kSnapshotLate)
			alerts[{Id::kSnapshotLate, one.name}] = {Id::kSnapshotLate,
				fmt::format("volume {}: nobody makes the snapshots that its schedule {} wants", one.name, one.schedule),
				"svctl run-schedules; systemctl status svctl-schedule.timer", {}, one.name};
	}
}

// ---- all of it ----

std::vector<Watch::Change> Watch::look(const PoolFacts &facts, const SpaceLimits &limits, Clock::time_point now)
{
	Alerts alerts;
	if (facts.writable && facts.kernel) {
		look_at_space(facts, limits, now, alerts);
		look_at_journal(facts, now, alerts);
		look_at_schedules(facts, now, alerts);
	}
	for (const MemberFacts &member : facts.members)
		if (member.present)
			look_at_member(facts, member, now, alerts);
	std::vector<Change> changes;
	for (const auto &[key, alert] : alerts_)
		if (!alerts.contains(key))
			changes.push_back({false, alert});
	for (const auto &[key, alert] : alerts)
		if (!alerts_.contains(key))
			changes.push_back({true, alert});
	alerts_ = std::move(alerts);
	return changes;
}

std::vector<Watch::Change> Watch::stop()
{
	std::vector<Change> changes;
	for (const auto &[key, alert] : alerts_)
		changes.push_back({false, alert});
	*this = Watch();
	return changes;
}

std::vector<Problem> Watch::problems() const
{
	std::vector<Problem> all;
	for (const auto &[key, alert] : alerts_)
		if (key.first != Id::kSpaceLow || !alerts_.contains({Id::kSpaceCritical, ""}))
			all.push_back(alert);
	return all;
}

}	// namespace svd

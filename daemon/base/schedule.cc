// SPDX-License-Identifier: GPL-2.0
// See schedule.h.
#include "daemon/base/schedule.h"

#include <algorithm>
#include <charconv>
#include <set>

#include <fmt/chrono.h>
#include <fmt/format.h>

namespace svd {

namespace {

constexpr uint64_t kMinute = 60;
constexpr uint64_t kMostKept = 1000;
constexpr uint64_t kMostTime = 100 * 366 * 86400ull;
constexpr size_t kMostRules = 8;
constexpr char kExample[] = "write INTERVAL:KEEP, with a comma between two, as in 5min:1h,1h:3d,1d:30d; units are min, h, d, w";

struct Unit {
	std::string_view name;
	uint64_t seconds;
};
constexpr Unit kUnits[] = {{"w", 604800}, {"d", 86400}, {"h", 3600}, {"min", kMinute}};

Error bad_schedule(std::string_view text, std::string cause)
{
	return Error{Code::kUsage, "read schedule", fmt::format("'{}'", text.substr(0, 64)), std::move(cause), kExample};
}

Result<uint64_t> parse_time(std::string_view text)
{
	uint64_t number = 0;
	const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
	if (error != std::errc() || number == 0)
		return bad_schedule(text, "it does not begin with a number above 0");
	const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
	const auto found = std::find_if(std::begin(kUnits), std::end(kUnits), [unit](const Unit &u) { return u.name == unit; });
	if (found == std::end(kUnits))
		return bad_schedule(text, unit.empty() ? "it has no unit" : fmt::format("there is no unit '{}'", unit.substr(0, 16)));
	if (number > kMostTime / found->seconds)
		return bad_schedule(text, "it is more than 100 years");
	return number * found->seconds;
}

Result<ScheduleRule> parse_rule(std::string_view text)
{
	const size_t colon = text.find(':');
	if (colon == std::string_view::npos)
		return bad_schedule(text, "it does not say for how long each snapshot is kept");
	ScheduleRule rule;
	SV_ASSIGN(rule.every, parse_time(text.substr(0, colon)));
	SV_ASSIGN(rule.keep, parse_time(text.substr(colon + 1)));
	if (rule.keep < rule.every)
		return bad_schedule(text, "each snapshot would be gone before the next is made");
	if (rule.count() > kMostKept)
		return bad_schedule(text, fmt::format("that is {} snapshots, more than {}", rule.count(), kMostKept));
	return rule;
}

std::string format_time(uint64_t seconds)
{
	for (const Unit &unit : std::span(kUnits).subspan(1))	// "30d" is what people write
		if (seconds % unit.seconds == 0)
			return fmt::format("{}{}", seconds / unit.seconds, unit.name);
	return fmt::format("{}s", seconds);
}

void keep_of(const ScheduleRule &rule, std::span<const ScheduledSnapshot> taken, std::set<uint32_t> &kept)
{
	std::set<uint64_t> intervals;
	for (auto newest = taken.rbegin(); newest != taken.rend() && intervals.size() < rule.count(); newest++)
		if (intervals.insert(newest->created / rule.every).second)
			kept.insert(newest->id);
}

}	// namespace

Result<Schedule> parse_schedule(std::string_view text)
{
	Schedule schedule;
	if (text == "none")
		return schedule;
	for (size_t at = 0; at <= text.size();) {
		const size_t comma = std::min(text.find(',', at), text.size());
		SV_ASSIGN(const ScheduleRule rule, parse_rule(text.substr(at, comma - at)));
		schedule.push_back(rule);
		at = comma + 1;
	}
	if (schedule.size() > kMostRules)
		return bad_schedule(text, fmt::format("it has more than {} rules", kMostRules));
	std::sort(schedule.begin(), schedule.end(), [](const auto &a, const auto &b) { return a.every < b.every; });
	const auto twice = std::adjacent_find(schedule.begin(), schedule.end(), [](const auto &a, const auto &b) {
		return a.every == b.every; });
	if (twice != schedule.end())
		return bad_schedule(text, fmt::format("it has two rules for {}", format_time(twice->every)));
	return schedule;
}

std::string format_schedule(const Schedule &schedule)
{
	std::string text;
	for (const ScheduleRule &rule : schedule)
		text += fmt::format("{}{}:{}", text.empty() ? "" : ",", format_time(rule.every), format_time(rule.keep));
	return text.empty() ? "none" : text;
}

bool is_due(const Schedule &schedule, std::span<const ScheduledSnapshot> taken, uint64_t now)
{
	return std::any_of(schedule.begin(), schedule.end(), [&](const ScheduleRule &rule) {
		return taken.empty() || taken.back().created / rule.every != now / rule.every; });
}

std::vector<uint32_t> not_kept(const Schedule &schedule, std::span<const ScheduledSnapshot> taken)
{
	std::vector<uint32_t> gone;
	if (schedule.empty() || taken.empty())
		return gone;
	std::set<uint32_t> kept = {taken.back().id};
	for (const ScheduleRule &rule : schedule)
		keep_of(rule, taken, kept);
	for (const ScheduledSnapshot &snapshot : taken)
		if (!kept.contains(snapshot.id))
			gone.push_back(snapshot.id);
	return gone;
}

std::string scheduled_name(uint64_t now)
{
	return fmt::format("auto-{:%Y%m%dT%H%M%SZ}", fmt::gmtime(static_cast<std::time_t>(now)));
}

}	// namespace svd

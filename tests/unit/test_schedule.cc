// SPDX-License-Identifier: GPL-2.0
// Schedules of snapshots: what is due, what is kept; against time that runs, stands, and jumps.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "daemon/base/schedule.h"

namespace svd {
namespace {

constexpr uint64_t kHour = 3600, kDay = 86400;
constexpr uint64_t kStart = 1764547200;	// 2025-12-01T00:00:00Z

Schedule schedule_of(const char *text)
{
	auto schedule = parse_schedule(text);
	EXPECT_TRUE(schedule.ok()) << schedule.error().message();
	return std::move(schedule).value();
}

// What a turn of the timer does.
class Volume {
public:
	explicit Volume(const char *schedule) : schedule_(schedule_of(schedule)) {}

	void turn(uint64_t now)
	{
		if (is_due(schedule_, all, now))
			all.push_back({++last_, now});
		const auto gone = not_kept(schedule_, all);
		std::erase_if(all, [&](const ScheduledSnapshot &s) { return std::find(gone.begin(), gone.end(), s.id) != gone.end(); });
	}
	void run(uint64_t from, uint64_t to, uint64_t step = 60)
	{
		for (uint64_t now = from; now < to; now += step)
			turn(now);
	}
	std::vector<uint64_t> times() const
	{
		std::vector<uint64_t> all_times;
		for (const ScheduledSnapshot &s : all)
			all_times.push_back(s.created);
		return all_times;
	}

	std::vector<ScheduledSnapshot> all;

private:
	Schedule schedule_;
	uint32_t last_ = 0;
};

TEST(Schedule, reads_what_it_writes)
{
	for (const char *text : {"none", "5min:1h", "5min:1h,1h:3d,1d:30d", "1min:1min", "90min:4d"})
		EXPECT_EQ(format_schedule(schedule_of(text)), text);
	EXPECT_EQ(format_schedule(schedule_of("1w:4w,60min:2d")), "1h:2d,7d:28d");
	EXPECT_EQ(schedule_of("5min:1h")[0], (ScheduleRule{300, 3600}));
}

TEST(Schedule, refuses_the_rest)
{
	for (const char *text : {"", ",", ":", "5min", "5min:", ":1h", "5min:1h,", ",5min:1h", "5:1h", "5min:1", "5 min:1h", "-5min:1h",
				 "0min:1h", "5min:0h", "5m:1h", "5min:1month", "1h:5min", "1min:1000h", "5min:1h,300min:1d,5min:2h",
				 "5s:1h", "1h:1h:1h", "18446744073709551616min:1d", "1min:99999999999999999999d", "1h:200000d", "None", "5MIN:1h",
				 "1.5h:3h", "1min:1h,2min:2h,3min:3h,4min:4h,5min:5h,6min:6h,7min:7h,8min:8h,9min:9h"})
		EXPECT_FALSE(parse_schedule(text).ok()) << text;
	EXPECT_EQ(parse_schedule("5m:1h").error().code, Code::kUsage);
}

TEST(Schedule, keeps_what_the_issue_of_time_asks)
{
	Volume v("5min:1h,1h:3d,1d:30d");
	v.run(kStart, kStart + 40 * kDay);
	std::vector<uint64_t> wanted;
	const uint64_t end = kStart + 40 * kDay;
	for (uint64_t t = kStart; t < end; t += 300)
		if (t >= end - kHour || (t % kHour == 3300 && t >= end - 3 * kDay) || (t % kDay == 86100 && t >= end - 30 * kDay))
			wanted.push_back(t);
	EXPECT_EQ(v.times(), wanted);
	EXPECT_EQ(wanted.size(), 12u + 71 + 27);	// the last of an hour, or of a day, is counted once
}

TEST(Schedule, timer_that_comes_late_makes_one_in_each_interval)
{
	Volume v("1h:1d");
	v.run(kStart + 1234, kStart + kDay, 700);
	ASSERT_EQ(v.all.size(), 24u);
	for (size_t i = 0; i < v.all.size(); i++)
		EXPECT_EQ(v.all[i].created / kHour, kStart / kHour + i);
}

// A machine that was off: nothing is taken away but what the new ones replace.
TEST(Schedule, nothing_goes_because_time_has_gone_by)
{
	Volume v("5min:1h,1h:1d");
	v.run(kStart, kStart + 2 * kDay);
	const size_t before = v.all.size();
	v.turn(kStart + 400 * kDay);
	EXPECT_GE(v.all.size() + 1, before);
	EXPECT_EQ(v.all.back().created, kStart + 400 * kDay);
}

TEST(Schedule, clock_that_jumps_to_and_fro_costs_one_each_time)
{
	Volume v("1h:1d");
	v.run(kStart, kStart + 3 * kDay);
	const auto before = v.times();
	const uint64_t now = kStart + 3 * kDay;
	v.turn(now + 3650 * kDay);
	v.turn(now);
	v.turn(now + 60);
	ASSERT_EQ(v.all.size(), 24u);
	EXPECT_EQ(v.all[22].created, now + 3650 * kDay);
	EXPECT_EQ(v.all[23].created, now);	// newer than the one from the future, and not taken for older
	for (size_t i = 0; i < 22; i++)
		EXPECT_EQ(v.all[i].created, before[i + 2]);
	v.run(now, now + 3 * kDay);		// which goes like any other
	EXPECT_EQ(v.times().front(), now + 2 * kDay);
}

// Before the time is set, at each boot.
TEST(Schedule, clock_that_is_wrong_at_each_boot_costs_one)
{
	Volume v("1d:10d");
	for (uint64_t day = 0; day < 40; day++) {
		v.turn(1000);
		v.run(kStart + day * kDay, kStart + (day + 1) * kDay, kHour);
	}
	const auto times = v.times();
	ASSERT_EQ(times.size(), 10u);
	EXPECT_EQ(times[8], 1000u);
	for (size_t i = 0; i < 8; i++)
		EXPECT_EQ(times[i], kStart + (31 + i) * kDay);
}

// It was a day ahead: what is made anew takes the place of what was made in the same intervals.
TEST(Schedule, clock_that_was_ahead_leaves_no_hole)
{
	Volume v("1h:1d");
	v.run(kStart, kStart + 3 * kDay);
	v.run(kStart + 2 * kDay, kStart + 2 * kDay + 6 * kHour);
	ASSERT_EQ(v.all.size(), 24u);
	for (size_t i = 0; i < 24; i++)
		EXPECT_EQ(v.all[i].created, kStart + 2 * kDay + (i + 6) % 24 * kHour);
}

TEST(Schedule, newest_always_stays)
{
	std::mt19937_64 random(7);
	Volume v("1min:2min,1h:2h");
	for (int i = 0; i < 20000; i++) {
		const uint64_t now = kStart + random() % (i % 2 ? kDay : 100000 * kDay);
		const size_t before = v.all.size();
		const uint32_t newest = before == 0 ? 0 : v.all.back().id;
		v.turn(now);
		ASSERT_FALSE(v.all.empty());
		ASSERT_GE(v.all.back().id, newest);
		ASSERT_LE(v.all.size(), 4u);
	}
}

TEST(Schedule, without_one_all_stay)
{
	Volume v("1h:2h");
	v.run(kStart, kStart + kDay);
	EXPECT_EQ(v.all.size(), 2u);
	EXPECT_TRUE(not_kept(schedule_of("none"), v.all).empty());
	EXPECT_FALSE(is_due(schedule_of("none"), {}, kStart));
	EXPECT_TRUE(not_kept(schedule_of("1h:2h"), {}).empty());
}

TEST(Schedule, names_are_names)
{
	EXPECT_EQ(scheduled_name(kStart), "auto-20251201T000000Z");
}

}	// namespace
}	// namespace svd

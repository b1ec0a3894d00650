// SPDX-License-Identifier: GPL-2.0
// When alerts begin and end: tables of what is known at which minute.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "daemon/engine/watch.h"

namespace svd {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Clock = Watch::Clock;

constexpr uint64_t kSlots = 1000;
constexpr uint64_t kRing = 1 << 20;

// A pool of 1000 extents on two members, that is looked at.
class Watched : public testing::Test {
protected:
	Watched()
	{
		facts_.name = "tank";
		facts_.writable = true;
		facts_.kernel.emplace();
		facts_.kernel->total_slots = kSlots;
		facts_.kernel->free_slots = kSlots;
		facts_.kernel->ring_bytes = kRing;
		for (uint32_t i = 0; i < 2; i++) {
			facts_.members.emplace_back();
			facts_.members[i].index = i;
			facts_.members[i].device = i == 0 ? "/dev/a" : "/dev/b";
		}
	}

	void used(uint64_t slots) { facts_.kernel->free_slots = kSlots - slots; }
	void later(Clock::duration time) { now_ += time; }

	// What began (+) and ended (-), by code and device.
	std::string look()
	{
		std::string said;
		for (const auto &[began, problem] : watch_.look(facts_, limits_, now_))
			said += (said.empty() ? "" : " ") + std::string(began ? "+" : "-") + code_of(problem.id) + problem.device;
		return said;
	}

	std::string active() const
	{
		std::string said;
		for (const Problem &problem : watch_.problems())
			said += (said.empty() ? "" : " ") + std::string(code_of(problem.id)) + problem.device;
		return said;
	}

	PoolFacts facts_;
	SpaceLimits limits_;
	Watch watch_;
	Clock::time_point now_ = Clock::time_point(hours(1000));
};

TEST_F(Watched, space_alerts_begin_and_end_two_points_apart)
{
	const struct {
		uint64_t used;
		const char *said;
		const char *active;
	} steps[] = {
		{799, "", ""},
		{800, "+SV-SPACE-LOW", "SV-SPACE-LOW"},
		{799, "", "SV-SPACE-LOW"},
		{780, "", "SV-SPACE-LOW"},
		{779, "-SV-SPACE-LOW", ""},
		{799, "", ""},
		{949, "+SV-SPACE-LOW", "SV-SPACE-LOW"},
		{950, "+SV-SPACE-CRITICAL", "SV-SPACE-CRITICAL"},	// which implies the other
		{930, "", "SV-SPACE-CRITICAL"},
		{929, "-SV-SPACE-CRITICAL", "SV-SPACE-LOW"},
		{1000, "+SV-SPACE-CRITICAL", "SV-SPACE-CRITICAL"},
		{0, "-SV-SPACE-LOW -SV-SPACE-CRITICAL", ""},
	};
	for (const auto &step : steps) {
		used(step.used);
		EXPECT_EQ(look(), step.said) << step.used;
		EXPECT_EQ(active(), step.active) << step.used;
		later(seconds(10));
	}
}

TEST_F(Watched, hovering_space_is_told_once)
{
	used(800);
	EXPECT_EQ(look(), "+SV-SPACE-LOW");
	for (int i = 0; i < 100; i++) {
		later(seconds(10));
		used(i % 2 ? 785 : 815);
		EXPECT_EQ(look(), "");
	}
}

TEST_F(Watched, limits_are_the_pools)
{
	limits_ = {50, 60};
	used(499);
	EXPECT_EQ(look(), "");
	used(500);
	EXPECT_EQ(look(), "+SV-SPACE-LOW");
	used(600);
	EXPECT_EQ(look(), "+SV-SPACE-CRITICAL");
}

TEST_F(Watched, alerts_say_what_and_what_next)
{
	used(810);
	look();
	ASSERT_EQ(watch_.problems().size(), 1u);
	EXPECT_EQ(watch_.problems()[0].what, "81.0 % of its space is used, 190 MiB of 1000 MiB are free");
	EXPECT_EQ(watch_.problems()[0].next, "svctl add-device tank TIER=DEVICE, or delete files and fstrim");
	used(850);	// the words are of now
	look();
	EXPECT_EQ(watch_.problems()[0].what, "85.0 % of its space is used, 150 MiB of 1000 MiB are free");
}

TEST_F(Watched, read_only_pool_has_no_alerts_of_space_and_journal)
{
	facts_.writable = false;
	used(1000);
	facts_.kernel->ring_used = kRing;
	for (int i = 0; i < 10; i++, later(minutes(1)))
		EXPECT_EQ(look(), "");
}

// ---- members ----

TEST_F(Watched, errors_that_grow_are_a_failing_member_for_a_day)
{
	EXPECT_EQ(look(), "");
	facts_.members[1].errors = 3;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/b");
	EXPECT_EQ(watch_.problems()[0].what, "/dev/b had 3 I/O errors");
	later(hours(23));
	facts_.members[1].errors = 4;
	EXPECT_EQ(look(), "");
	later(hours(24) - seconds(1));
	EXPECT_EQ(look(), "");
	later(seconds(1));
	EXPECT_EQ(look(), "-SV-MEMBER-FAILING/dev/b");
	later(hours(1));
	EXPECT_EQ(look(), "");
	facts_.members[1].errors = 5;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/b");
}

TEST_F(Watched, errors_that_were_there_at_the_first_look_are_told)
{
	facts_.members[0].errors = 1;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/a");
}

// Each restart of svd told of errors that were long over, for a day.
TEST_F(Watched, errors_of_before_a_restart_are_none_of_now)
{
	facts_.found_up = true;
	facts_.members[0].errors = 1;
	EXPECT_EQ(look(), "");
	facts_.found_up = false;
	later(seconds(5));
	EXPECT_EQ(look(), "");
	facts_.members[0].errors = 2;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/a");
	EXPECT_EQ(watch_.problems()[0].what, "/dev/a had 2 I/O errors");
}

TEST_F(Watched, counter_that_begins_anew_is_no_error)
{
	facts_.members[0].errors = 9;
	look();
	later(hours(24));
	EXPECT_EQ(look(), "-SV-MEMBER-FAILING/dev/a");
	facts_.members[0].errors = 0;
	EXPECT_EQ(look(), "");
	facts_.members[0].errors = 1;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/a");
}

TEST_F(Watched, lost_copies_name_their_member)
{
	facts_.members[0].journal_lost = true;
	EXPECT_EQ(look(), "+SV-JOURNAL-COPY-LOST/dev/a");
	facts_.members[1].catalogue_lost = true;
	EXPECT_EQ(look(), "+SV-CATALOGUE-COPY-LOST/dev/b");
	facts_.members[0].journal_lost = false;
	facts_.members[1].catalogue_lost = false;
	EXPECT_EQ(look(), "-SV-JOURNAL-COPY-LOST/dev/a -SV-CATALOGUE-COPY-LOST/dev/b");
	facts_.writable = false;	// nothing writes the copy anew
	facts_.members[1].catalogue_lost = true;
	EXPECT_EQ(look(), "+SV-CATALOGUE-COPY-STALE/dev/b");
}

TEST_F(Watched, a_member_that_does_not_become_empty_is_told_while_that_is_so)
{
	facts_.members[1].leaving = true;
	facts_.members[1].size = 300ull << SV_EXTENT_SHIFT;
	facts_.members[1].free = 100ull << SV_EXTENT_SHIFT;
	EXPECT_EQ(look(), "");
	facts_.members[1].stalled = true;
	EXPECT_EQ(look(), "+SV-EVACUATION-STALLED/dev/b");
	EXPECT_EQ(watch_.problems().at(0).what, "/dev/b is to be emptied, and 200 MiB cannot be moved off it");
	facts_.members[1].stalled = false;
	EXPECT_EQ(look(), "-SV-EVACUATION-STALLED/dev/b");
}

// What moves from one member to the others is no growth.
TEST_F(Watched, pool_of_which_a_member_is_emptied_does_not_fill)
{
	facts_.members[1].size = 500ull << SV_EXTENT_SHIFT;
	facts_.members[1].leaving = true;
	for (uint64_t minute = 0; minute < 100; minute++, later(minutes(1))) {
		used(minute * 4);
		facts_.members[1].free = (100 + minute * 4) << SV_EXTENT_SHIFT;
		EXPECT_EQ(look(), "") << minute;
	}
	EXPECT_EQ(watch_.seconds_to_full(), std::nullopt);
}

TEST_F(Watched, missing_member_has_no_alerts)
{
	facts_.members[0].present = false;
	facts_.members[0].errors = 1;
	facts_.members[0].journal_lost = true;
	EXPECT_EQ(look(), "");
}

TEST_F(Watched, everything_ends_when_the_pool_goes_down)
{
	used(800);
	facts_.members[1].errors = 1;
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/b +SV-SPACE-LOW");
	const auto changes = watch_.stop();
	ASSERT_EQ(changes.size(), 2u);
	EXPECT_FALSE(changes[0].began);
	EXPECT_FALSE(changes[1].began);
	EXPECT_EQ(active(), "");
	EXPECT_TRUE(watch_.stop().empty());
	EXPECT_EQ(look(), "+SV-MEMBER-FAILING/dev/b +SV-SPACE-LOW");
}

// ---- journal ----

TEST_F(Watched, journal_that_stays_above_half_for_a_minute_is_pressure)
{
	const uint64_t percent = kRing / 100;
	const struct {
		int seconds;	// after the step before
		uint64_t used;
		const char *said;
	} steps[] = {
		{0, 49 * percent, ""},
		{10, 60 * percent, ""},
		{50, 60 * percent, ""},
		{9, 60 * percent, ""},
		{1, 60 * percent, "+SV-JOURNAL-PRESSURE"},
		{60, 45 * percent, ""},
		{60, 55 * percent, ""},
		{10, 38 * percent, ""},
		{10, 37 * percent, "-SV-JOURNAL-PRESSURE"},
		// It falls, if slowly: no pressure, until it does not.
		{10, 90 * percent, ""},
		{60, 85 * percent, ""},
		{60, 80 * percent, ""},
		{60, 80 * percent, "+SV-JOURNAL-PRESSURE"},
		{10, 10 * percent, "-SV-JOURNAL-PRESSURE"},
		// Half is not above half, and a short peak is none.
		{10, kRing / 2, ""},
		{90, kRing / 2, ""},
		{10, 99 * percent, ""},
		{30, 30 * percent, ""},
		{10, 99 * percent, ""},
		{50, 99 * percent, ""},
		{10, 99 * percent, "+SV-JOURNAL-PRESSURE"},
	};
	int n = 0;
	for (const auto &step : steps) {
		later(seconds(step.seconds));
		facts_.kernel->ring_used = step.used;
		EXPECT_EQ(look(), step.said) << "step " << n;
		n++;
	}
}

// ---- time to full ----

// Samples of every minute, by a function of the minute; what the forecast says then.
std::optional<double> forecast(int last_minute, uint64_t free, const std::function<uint64_t(int)> &used)
{
	FillForecast forecast;
	for (int minute = 0; minute <= last_minute; minute++)
		forecast.add(Clock::time_point(hours(5)) + minutes(minute), used(minute));
	return forecast.seconds_to_full(free);
}

TEST(FillForecast, is_free_space_by_the_rate)
{
	const auto steady = [](int minute) { return 1000u + 60u * static_cast<unsigned>(minute); };	// a byte a second
	const auto in = [&](int minute) { return forecast(minute, 5000, steady); };
	EXPECT_FALSE(in(0));
	EXPECT_FALSE(in(59));	// not known for long enough
	ASSERT_TRUE(in(60));
	EXPECT_NEAR(*in(60), 5000, 1);
	EXPECT_NEAR(*in(500), 5000, 1);
	EXPECT_NEAR(*forecast(60, 0, steady), 0, 1);
}

TEST(FillForecast, takes_the_smaller_rate_and_none_that_shrinks)
{
	EXPECT_FALSE(forecast(200, 5000, [](int) { return 7u; }));
	EXPECT_FALSE(forecast(200, 5000, [](int minute) { return 100000u - 60u * static_cast<unsigned>(minute); }));
	// A burst in the last minutes, and one that has ended.
	const auto late = forecast(200, 5000, [](int minute) { return minute < 195 ? 60u * static_cast<unsigned>(minute) :
								       60u * 195 + 6000u * static_cast<unsigned>(minute - 195); });
	ASSERT_TRUE(late);
	EXPECT_GT(*late, 5000 / 20);	// and not 5000 / 100
	EXPECT_FALSE(forecast(200, 5000, [](int minute) { return minute < 100 ? 60u * static_cast<unsigned>(minute) : 6000u; }));
	// Files that are written and deleted in turn are no growth.
	const auto waves = forecast(200, 1 << 20, [](int minute) { return 100000u + 1000u * (static_cast<unsigned>(minute) % 10); });
	EXPECT_TRUE(!waves || *waves > 36 * 3600);
}

TEST(FillForecast, what_has_stopped_growing_has_no_rate_however_it_is_rounded)
{
	for (uint64_t mib = 100; mib < 300; mib++) {
		FillForecast forecast;
		auto now = Clock::time_point(hours(5));
		for (uint64_t i = 0; i < 130; i++, now += seconds(60) + milliseconds(i * i * mib % 97))
			forecast.add(now, (mib + std::min<uint64_t>(i, 100)) << 20);
		EXPECT_EQ(forecast.seconds_to_full(5000), std::nullopt) << mib;
	}
}

TEST(FillForecast, keeps_one_sample_a_minute_and_forgets_old_ones)
{
	FillForecast often;
	for (int i = 0; i <= 3600; i++)
		often.add(Clock::time_point(seconds(i)), static_cast<uint64_t>(i));
	EXPECT_NEAR(*often.seconds_to_full(5000), 5000, 1);
	// It grew fast four hours ago, and slowly since.
	EXPECT_NEAR(*forecast(240, 7200, [](int minute) {
		return minute < 60 ? 100000u * static_cast<unsigned>(minute) : 6000000u + 60u * static_cast<unsigned>(minute);
	}), 7200, 10);
}

TEST_F(Watched, pool_that_fills_within_a_day_is_told_once)
{
	// 1000 extents; one in 5 minutes from 500 on: 500 left are 41 h, 288 are 24 h.
	std::string said;
	int began = 0;
	int minute = 0;
	for (; minute <= 60 * 20; minute++, later(minutes(1))) {
		used(500 + static_cast<uint64_t>(minute) / 5);
		const std::string now = look();
		if (!now.empty() && said.empty())
			began = minute;
		said += now;
	}
	EXPECT_EQ(said, "+SV-FULL-SOON");
	EXPECT_NEAR(began, 1060, 40);
	EXPECT_NEAR(*watch_.seconds_to_full(), (500 - 240) * 300, 6000);	// in steps of an extent in 5 minutes
	// It stops growing: over a quarter of an hour after the last that grew is out of the short window.
	for (int i = 0; i < 60 && look().empty(); i++)
		later(minutes(1)), minute++;
	EXPECT_EQ(active(), "");
	EXPECT_NEAR(minute, 60 * 20 + 30, 12);
	EXPECT_FALSE(watch_.seconds_to_full());
}

// Where it hardly grew any more, "it will be full in" some number of hours that no one will live to see.
TEST_F(Watched, full_soon_names_no_time_that_is_later_than_soon)
{
	int told = 0;
	for (int minute = 0; minute <= 60 * 20; minute++, later(minutes(1))) {
		used(minute < 60 * 18 ? 500 + static_cast<uint64_t>(minute) / 5 : 717);	// and then nothing any more
		look();
		for (const Problem &problem : watch_.problems()) {
			const bool soon = watch_.seconds_to_full() && *watch_.seconds_to_full() < 36 * 3600;
			EXPECT_EQ(problem.what.starts_with("it will be full in "), soon) << problem.what;
			told += !soon;
		}
	}
	EXPECT_GT(told, 0);
}

TEST_F(Watched, full_soon_does_not_flap)
{
	// Around 24 hours: rates of a little more and a little less in turn.
	std::string said;
	double slots = 300;
	for (int minute = 0; minute < 60 * 24; minute++, later(minutes(1))) {
		const double left = 1000 - slots;
		slots += left / (60 * (minute / 30 % 2 ? 22 : 26));
		used(static_cast<uint64_t>(slots));
		if (slots > 790)
			slots -= 400;	// deleted; what is left begins anew
		said += look();
	}
	EXPECT_LE(std::count(said.begin(), said.end(), '+'), 2) << said;
}

// ---- what svd is told ----

TEST(LowSpace, is_of_all_pools_or_of_one)
{
	const auto low = LowSpace::parse({"70,90", "tank=85.5,99"});
	ASSERT_TRUE(low.ok());
	EXPECT_EQ(low.value().of("tank").warning, 85.5);
	EXPECT_EQ(low.value().of("tank").critical, 99);
	EXPECT_EQ(low.value().of("attic").warning, 70);
	EXPECT_EQ(low.value().of("attic").critical, 90);
	EXPECT_EQ(LowSpace::parse({}).value().of("tank").warning, 80);
	EXPECT_EQ(LowSpace::parse({}).value().of("tank").critical, 95);
	EXPECT_TRUE(LowSpace::parse({"5,100"}).ok());
}

TEST(LowSpace, refuses_what_is_no_pair_of_percentages)
{
	for (const char *bad : {"", "80", "80,", ",95", "95,80", "80,80", "4,90", "80,101", "80,95,97", "80%,95%", "nan,95", "80,nan",
				"80,inf", "=80,95", "a b=80,95", "tank=", "tank=80"}) {
		const auto low = LowSpace::parse({bad});
		ASSERT_FALSE(low.ok()) << bad;
		EXPECT_EQ(low.error().code, Code::kUsage) << bad;
	}
}

}	// namespace
}	// namespace svd

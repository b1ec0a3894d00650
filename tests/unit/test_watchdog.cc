// SPDX-License-Identifier: GPL-2.0
// What the watchdog takes for a reason to start svd anew. tests/e2e/cases_watchdog.py has svd do it.
#include <gtest/gtest.h>

#include "daemon/base/watchdog.h"

namespace svd {
namespace {

using namespace std::chrono_literals;
using Clock = ThreadWatch::Clock;

constexpr Clock::time_point kBegin(1000s);

// A look every 5 s.
struct Looks {
	ThreadWatch::Verdict look(char state, Activity activity = {}, const std::string &place = "")
	{
		now += 5s;
		activity.steps = steps;
		return watch.look(activity, state, place, now);
	}
	Activity waits(const char *what = "a flush of", const char *object = "/dev/sdb") const
	{
		return {steps, Activity::Of::kDevice, what, object, kBegin};
	}

	ThreadWatch watch{kBegin};
	Clock::time_point now = kBegin;
	uint64_t steps = 0;
};

TEST(ThreadWatch, thread_that_makes_steps_or_idles_is_alive)
{
	Looks looks;
	for (int i = 0; i < 20; i++) {
		looks.steps++;
		EXPECT_TRUE(looks.look('R').alive);
	}
	Activity idle;
	idle.idle = true;
	for (int i = 0; i < 20; i++) {
		const auto verdict = looks.look('S', idle);
		EXPECT_TRUE(verdict.alive);
		EXPECT_FALSE(verdict.news);
	}
}

TEST(ThreadWatch, thread_that_runs_without_a_step_is_not_and_that_is_told)
{
	Looks looks;
	looks.steps = 7;
	EXPECT_TRUE(looks.look('R').alive);	// it came from somewhere
	EXPECT_FALSE(looks.look('R').alive);
	const auto verdict = looks.look('R');
	EXPECT_FALSE(verdict.alive);
	EXPECT_TRUE(verdict.news);
	EXPECT_EQ(verdict.status, "makes no step, and waits for nothing, since 10 s");
	EXPECT_FALSE(looks.look('R').news);
	looks.steps++;
	const auto over = looks.look('R');
	EXPECT_TRUE(over.alive);
	EXPECT_TRUE(over.over);
}

TEST(ThreadWatch, who_waits_for_a_device_lives_however_long_and_says_for_what)
{
	Looks looks;
	int told = 0;
	for (int i = 0; i < 720; i++) {	// an hour
		const auto verdict = looks.look('D', looks.waits());
		EXPECT_TRUE(verdict.alive);
		EXPECT_FALSE(verdict.over);
		told += verdict.news;
		if (verdict.news && told == 1) {
			EXPECT_EQ(verdict.status, "waits for a flush of /dev/sdb, since 10 s");
		}
	}
	EXPECT_EQ(told, 9);	// after 10 s, 20 s, 40 s ... 2560 s
	looks.steps++;
	const auto over = looks.look('S');
	EXPECT_TRUE(over.over);
	EXPECT_EQ(over.lasted, 3605s);
	EXPECT_FALSE(looks.look('S').over);
}

TEST(ThreadWatch, many_short_waits_are_no_long_one)
{
	Looks looks;
	for (int i = 0; i < 100; i++) {
		looks.steps++;
		Activity activity = looks.waits();
		activity.since = looks.now + 4s;
		EXPECT_FALSE(looks.look('D', activity).news);
	}
}

TEST(ThreadWatch, wait_that_says_not_for_what_is_seen_by_the_thread_state)
{
	Looks looks;
	looks.look('D', {}, "blkdev_get_whole");
	looks.look('D', {}, "blkdev_get_whole");
	const auto verdict = looks.look('D', {}, "blkdev_get_whole");
	EXPECT_TRUE(verdict.alive);
	EXPECT_EQ(verdict.status, "waits for the kernel (blkdev_get_whole), since 10 s");
	// And a call that computes in the kernel is one that says so.
	EXPECT_TRUE(looks.look('R', looks.waits("the kernel's COMMIT of pool", "tank")).alive);
}

TEST(ThreadWatch, thread_that_sleeps_elsewhere_than_in_poll_waits_and_that_is_told)
{
	Looks looks;
	looks.steps = 7;
	looks.look('S', {}, "pipe_read");
	EXPECT_FALSE(looks.look('S', {}, "pipe_read").news);
	const auto verdict = looks.look('S', {}, "pipe_read");
	EXPECT_TRUE(verdict.alive);
	EXPECT_TRUE(verdict.news);
	EXPECT_EQ(verdict.status, "waits for the kernel (pipe_read), since 10 s");
	Activity idle;
	idle.idle = true;
	EXPECT_TRUE(looks.look('S', idle).over);
}

TEST(ThreadWatch, thread_state_is_behind_any_name)
{
	EXPECT_EQ(thread_state("123 (svd) S 1 2 3"), 'S');
	EXPECT_EQ(thread_state("123 (a) R b) D 1 2 3"), 'D');
	EXPECT_EQ(thread_state("123 (svd)"), 0);
	EXPECT_EQ(thread_state(""), 0);
}

TEST(Waiting, inner_one_counts_until_it_ends)
{
	const uint64_t steps = activity_now().steps;
	{
		const Waiting outer("a look at", Activity::Of::kDevice, "/dev/sdb");
		{
			const Waiting inner("the kernel's COMMIT of pool", Activity::Of::kPool, "tank");
			EXPECT_EQ(activity_now().object, "tank");
			EXPECT_EQ(activity_now().of, Activity::Of::kPool);
		}
		EXPECT_EQ(activity_now().what, "a look at");
		EXPECT_EQ(activity_now().of, Activity::Of::kDevice);
	}
	EXPECT_EQ(activity_now().of, Activity::Of::kNothing);
	made_a_step();
	EXPECT_EQ(activity_now().steps, steps + 3);
}

TEST(Waiting, idling_is_said)
{
	EXPECT_FALSE(activity_now().idle);
	{
		const Idle idle;
		EXPECT_TRUE(activity_now().idle);
	}
	EXPECT_FALSE(activity_now().idle);
}

}	// namespace
}	// namespace svd

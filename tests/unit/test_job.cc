// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>

#include <thread>

#include "daemon/engine/job.h"

namespace svd {
namespace {

// Longer than a step, so that the job stops there.
Status long_step(Job &job, uint64_t done)
{
	std::this_thread::sleep_for(std::chrono::milliseconds(25));
	return job.step(done);
}

JobSpec spec(bool changes = true) { return {"restore", "tank", {}, changes, {}}; }

TEST(Fiber, stops_in_the_middle_of_calls_and_goes_on_there)
{
	std::string order;
	Fiber *self = nullptr;
	const std::function<void(int)> deep = [&](int depth) {
		std::string kept(100, static_cast<char>('a' + depth));
		if (depth > 0)
			deep(depth - 1);
		self->suspend();
		order += kept[99];
	};
	auto fiber = Fiber::create([&] { deep(2); });
	ASSERT_TRUE(fiber.ok());
	self = fiber.value().get();
	for (int i = 0; i < 3; i++) {
		self->resume();
		order += static_cast<char>('0' + i);
	}
	EXPECT_FALSE(self->ended());
	self->resume();
	EXPECT_TRUE(self->ended());
	EXPECT_EQ(order, "0a1b2c");
}

TEST(Fiber, may_throw_and_catch)
{
	std::string caught;
	Fiber *self = nullptr;
	auto fiber = Fiber::create([&] {
		try {
			self->suspend();
			throw std::runtime_error("from within");
		} catch (const std::exception &e) {
			caught = e.what();
		}
	});
	ASSERT_TRUE(fiber.ok());
	self = fiber.value().get();
	self->resume();
	self->resume();
	EXPECT_EQ(caught, "from within");
}

TEST(Jobs, what_takes_a_moment_leaves_no_trace)
{
	Jobs jobs;
	const auto job = jobs.start(spec(), [](Job &) -> Result<Json> { return Json{{"result", "done"}}; });
	ASSERT_TRUE(job.ok());
	EXPECT_TRUE(job.value()->ended());
	EXPECT_EQ(job.value()->result().value()["result"], "done");
	EXPECT_TRUE(jobs.all().empty());
	EXPECT_FALSE(jobs.turn());
}

TEST(Jobs, take_turns_and_keep_their_results)
{
	Jobs jobs;
	std::string order;
	const auto work = [&order](char name) {
		return [&order, name](Job &job) -> Result<Json> {
			job.begin({"counting", 0, 3, "things"});
			for (uint64_t i = 0; i < 3; i++) {
				order += name;
				SV_TRY(long_step(job, i + 1));
			}
			return Json{{"result", std::string(1, name)}};
		};
	};
	const uint64_t a = jobs.start(spec(), work('a')).value()->id();
	const uint64_t b = jobs.start(spec(), work('b')).value()->id();
	EXPECT_EQ(jobs.find(a)->progress().done, 1u);
	while (jobs.turn())
		;
	EXPECT_EQ(order, "ababab");
	EXPECT_EQ(jobs.find(b)->result().value()["result"], "b");
	EXPECT_EQ(jobs.find(b + 1), nullptr);
}

TEST(Jobs, cancelled_ones_end_at_their_next_step)
{
	Jobs jobs;
	bool went_on = false;
	const auto job = jobs.start(spec(false), [&](Job &self) -> Result<Json> {
		SV_TRY(long_step(self, 1));
		went_on = true;
		return Json();
	}).value();
	job->cancel("nobody wants it");
	jobs.stop_all("too late");
	ASSERT_TRUE(job->ended());
	EXPECT_EQ(job->result().error().cause, "nobody wants it");
	EXPECT_FALSE(went_on);
}

TEST(Jobs, run_to_the_end_where_they_must)
{
	Jobs jobs;
	bool went_on = false;
	const auto job = jobs.start(spec(), [&](Job &self) -> Result<Json> {
		ToTheEnd rest(self);
		std::this_thread::sleep_for(std::chrono::milliseconds(25));
		SV_TRY(rest.step(1));
		went_on = true;
		return Json{{"result", "done"}};
	}).value();
	jobs.stop_all("svd stops");
	EXPECT_TRUE(went_on && job->result().ok());
}

TEST(Jobs, exceptions_are_errors)
{
	Jobs jobs;
	const auto job = jobs.start(spec(), [](Job &) -> Result<Json> { throw std::runtime_error("oh"); }).value();
	EXPECT_EQ(job->result().error().cause, "oh");
}

TEST(Jobs, only_so_many_run)
{
	Jobs jobs;
	const auto work = [](Job &job) -> Result<Json> {
		SV_TRY(long_step(job, 1));
		return Json();
	};
	for (int i = 0; i < 16; i++)
		ASSERT_TRUE(jobs.start(spec(), work).ok());
	EXPECT_EQ(jobs.start(spec(), work).error().code, Code::kBusy);
	jobs.stop_all("enough");
	EXPECT_TRUE(jobs.start(spec(), work).ok());
	jobs.stop_all("enough");
}

}	// namespace
}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// Emptying members: where data goes, and what is asked of the kernel when.
#include <gtest/gtest.h>

#include "daemon/engine/evacuation.h"

using namespace svd;
using namespace std::chrono_literals;

namespace {

TEST(PlaceFor, prefers_its_own_tier_then_slower_ones_then_faster_ones)
{
	const std::vector<MemberSpace> all{{0, 0, 90}, {1, 1, 5}, {2, 2, 50}, {3, 2, 60}, {4, 3, 99}, {5, 4, 99}};
	EXPECT_EQ(3u, place_for(2, all));
	const auto without = [&](std::initializer_list<uint32_t> full) {
		std::vector<MemberSpace> some = all;
		for (const uint32_t m : full)
			some[m].free = 0;
		return place_for(2, some);
	};
	EXPECT_EQ(2u, without({3}));
	EXPECT_EQ(4u, without({2, 3}));
	EXPECT_EQ(5u, without({2, 3, 4}));
	EXPECT_EQ(1u, without({2, 3, 4, 5})) << "the nearest of the faster ones";
	EXPECT_EQ(0u, without({1, 2, 3, 4, 5}));
	EXPECT_EQ(std::nullopt, without({0, 1, 2, 3, 4, 5}));
	EXPECT_EQ(std::nullopt, place_for(0, {}));
}

class EvacuationTest : public testing::Test {
protected:
	void SetUp() override { e_.set(1, now_); }

	// Of what is found in a pass so many move, in steps that take so long.
	void pass(uint64_t found, uint64_t moved, Evacuation::Clock::duration took = 10ms)
	{
		ASSERT_TRUE(e_.checkpointed(now_));
		const uint32_t most = e_.at_once();
		step(static_cast<uint32_t>(std::min<uint64_t>(found, most)), moved, took);
		e_.pass_ended(now_);
	}
	void step(uint32_t found, uint64_t moved, Evacuation::Clock::duration took)
	{
		const auto began = now_;
		now_ += took;
		e_.stepped(e_.after() + found, found, moved, began, now_);
	}
	void pause() { now_ = e_.due_at(); }

	Evacuation e_;
	Evacuation::Clock::time_point now_{1h};
};

TEST_F(EvacuationTest, nothing_is_asked_while_no_member_leaves)
{
	e_.set(0, now_);
	EXPECT_FALSE(e_.wants_checkpoint(now_ + 24h));
	EXPECT_FALSE(e_.checkpointed(now_));
	EXPECT_FALSE(e_.due(now_ + 24h));
	EXPECT_EQ(Evacuation::Clock::time_point::max(), e_.due_at());
}

TEST_F(EvacuationTest, a_pass_follows_a_checkpoint_and_the_one_that_finds_nothing_is_the_last)
{
	EXPECT_FALSE(e_.due(now_)) << "the catalogue may not have all";
	EXPECT_TRUE(e_.wants_checkpoint(now_));
	pass(5, 5);
	EXPECT_FALSE(e_.empty()) << "what was asked for last may have stayed";
	EXPECT_FALSE(e_.due(now_ + 1h));
	now_ += 1s;
	EXPECT_TRUE(e_.wants_checkpoint(now_));
	pass(0, 0);
	EXPECT_TRUE(e_.empty());
	EXPECT_FALSE(e_.wants_checkpoint(now_ + 24h));
	e_.set(3, now_);
	EXPECT_FALSE(e_.empty()) << "another one leaves";
	EXPECT_TRUE(e_.wants_checkpoint(now_));
}

TEST_F(EvacuationTest, writes_wait_once_two_passes_have_left_something)
{
	EXPECT_EQ(SV_MOVE_FRAGS, e_.flags());
	pass(5, 4);
	EXPECT_EQ(SV_MOVE_FRAGS, e_.flags());
	now_ += 1s;
	pass(5, 5);
	EXPECT_EQ(SV_MOVE_FRAGS, e_.flags()) << "this one has left nothing";
	now_ += 1s;
	pass(5, 4);
	EXPECT_EQ(SV_MOVE_FRAGS | SV_MOVE_HOLD, e_.flags());
	now_ += 1s;
	pass(1, 1);
	EXPECT_FALSE(e_.stalled());
}

TEST_F(EvacuationTest, passes_in_which_nothing_moves_come_later_and_later)
{
	for (int i = 0; i < 2; i++, now_ += 1s)
		pass(5, 0);
	EXPECT_FALSE(e_.stalled()) << "nobody has had writes wait yet";
	Evacuation::Clock::duration expected = 30s;
	for (int i = 0; i < 8; i++) {
		pass(5, 0);
		EXPECT_TRUE(e_.stalled());
		EXPECT_FALSE(e_.wants_checkpoint(now_ + expected - 1s));
		EXPECT_TRUE(e_.wants_checkpoint(now_ + expected));
		now_ += expected;
		expected = std::min<Evacuation::Clock::duration>(2 * expected, 10min);
	}
	pass(5, 0);
	EXPECT_FALSE(e_.wants_checkpoint(now_ + 1s));
	e_.try_again(now_);
	EXPECT_TRUE(e_.wants_checkpoint(now_)) << "a device was added";
	ASSERT_TRUE(e_.checkpointed(now_));
	step(5, 0, 1ms);
	EXPECT_TRUE(e_.stalled());
	step(5, 1, 1ms);
	EXPECT_FALSE(e_.stalled()) << "at once";
}

TEST_F(EvacuationTest, a_failed_pass_is_begun_anew_later)
{
	const auto fail = [&](uint64_t moved) {
		ASSERT_TRUE(e_.checkpointed(now_));
		step(8, moved, 10ms);
		e_.failed(now_);
		EXPECT_FALSE(e_.due(now_ + 1h));
		EXPECT_FALSE(e_.wants_checkpoint(now_ + 29s));
		EXPECT_TRUE(e_.wants_checkpoint(now_ + 30s));
		now_ += 30s;
	};
	for (int i = 0; i < 3; i++) {
		fail(1);
		EXPECT_FALSE(e_.stalled()) << "the journal was full just then, perhaps";
	}
	fail(0);
	EXPECT_FALSE(e_.stalled());
	fail(0);
	EXPECT_TRUE(e_.stalled());
	fail(1);
	EXPECT_FALSE(e_.stalled());
	fail(0);
	pass(5, 5);
	now_ += 1s;
	fail(0);
	EXPECT_FALSE(e_.stalled()) << "the pass between them did not fail";
}

TEST_F(EvacuationTest, it_rests_as_long_as_it_worked_and_asks_for_what_takes_little_time)
{
	ASSERT_TRUE(e_.checkpointed(now_));
	const uint32_t first = e_.at_once();
	step(first, first, 40ms);
	EXPECT_FALSE(e_.due(now_ + 39ms));
	EXPECT_TRUE(e_.due(now_ + 40ms));
	EXPECT_EQ(2 * first, e_.at_once());
	for (int i = 0; i < 10; i++) {
		pause();
		step(e_.at_once(), 1, 1ms);
	}
	EXPECT_EQ(Evacuation::kMostAtOnce, e_.at_once());
	step(e_.at_once(), 1, 100ms);
	EXPECT_EQ(Evacuation::kMostAtOnce, e_.at_once());
	for (int i = 0; i < 10; i++)
		step(e_.at_once(), 1, 2s);
	EXPECT_EQ(1u, e_.at_once());
	step(0, 0, 2s);
	EXPECT_EQ(1u, e_.at_once());
	step(1, 1, 1ms);
	EXPECT_EQ(2u, e_.at_once());
}

}	// namespace

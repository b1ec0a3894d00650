// SPDX-License-Identifier: GPL-2.0
// Discards of freed slots: which slots make a call to the kernel, against a naive oracle; what is on its way, done,
// forgotten; a member that hangs.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>
#include <tuple>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/unique_fd.h"
#include "daemon/engine/discards.h"

namespace svd {
namespace {

constexpr uint64_t kMib = 1 << 20;

FreedSlot freed(uint32_t extent, uint32_t member, uint32_t slot) { return {{extent, 1, 0}, member, slot}; }

// ---- which slots make a call ----

using Place = std::tuple<uint32_t, uint32_t, uint32_t>;	// member, slot, extent

std::set<Place> places_of(const std::vector<DiscardRun> &runs)
{
	std::set<Place> places;
	for (const DiscardRun &run : runs)
		for (uint32_t i = 0; i < run.freed.size(); i++)
			EXPECT_TRUE(places.insert({run.member, run.first + i, run.freed[i].extent}).second) << "twice";
	return places;
}

// Of how many calls there must be at least: one for each slot whose neighbour below is not freed too.
size_t fewest_runs(const std::set<Place> &places)
{
	size_t runs = 0;
	size_t length = 0;
	std::pair<uint32_t, uint32_t> last{~0u, 0};
	for (const auto &[member, slot, extent] : places) {
		length = last == std::pair(member, slot - 1) && length < DiscardRun::kMostSlots ? length + 1 : 1;
		runs += length == 1;
		last = {member, slot};
	}
	return runs;
}

TEST(DiscardPlan, agrees_with_the_oracle_over_random_sets_of_slots)
{
	std::mt19937 random(7);
	for (int round = 0; round < 400; round++) {
		const uint32_t slots = 1 + random() % 1200;
		const uint32_t chance = 1 + random() % 8;	// in 8
		std::vector<FreedSlot> all;
		std::set<Place> expected;
		for (uint32_t member = 0; member < 3; member++)
			for (uint32_t slot = 0; slot < slots; slot++)
				if (random() % 8 < chance) {
					all.push_back(freed(static_cast<uint32_t>(all.size()) + 1, member, slot));
					expected.insert({member, slot, all.back().freed.extent});
				}
		std::shuffle(all.begin(), all.end(), random);
		const auto runs = plan_discards(all);
		EXPECT_EQ(expected, places_of(runs));
		EXPECT_EQ(fewest_runs(expected), runs.size());
		for (const DiscardRun &run : runs) {
			EXPECT_FALSE(run.freed.empty());
			EXPECT_LE(run.freed.size(), DiscardRun::kMostSlots);
		}
	}
	EXPECT_TRUE(plan_discards({}).empty());
}

TEST(DiscardPlan, neighbours_of_two_members_are_two_runs)
{
	const auto runs = plan_discards({freed(1, 1, 5), freed(2, 0, 4), freed(3, 1, 4)});
	ASSERT_EQ(2u, runs.size());
	EXPECT_EQ(0u, runs[0].member);
	EXPECT_EQ(4u, runs[1].first);
	EXPECT_EQ(3u, runs[1].freed[0].extent);
	EXPECT_EQ(1u, runs[1].freed[1].extent);
}

TEST(DiscardRange, frees_blocks_of_a_file)
{
	char path[] = "/tmp/svctl-discard-XXXXXX";
	const UniqueFd fd(mkstemp(path));
	unlink(path);
	const std::string data(4 * kMib, 'x');
	ASSERT_EQ(static_cast<ssize_t>(data.size()), pwrite(fd.get(), data.data(), data.size(), 0));
	ASSERT_EQ(0, discard_range(fd.get(), kMib, 2 * kMib));
	struct stat st{};
	fstat(fd.get(), &st);
	EXPECT_EQ(static_cast<off_t>(4 * kMib), st.st_size);
	EXPECT_LE(st.st_blocks * 512, static_cast<off_t>(2 * kMib + 65536));
	std::string there(data.size(), 0);
	ASSERT_EQ(static_cast<ssize_t>(there.size()), pread(fd.get(), there.data(), there.size(), 0));
	EXPECT_EQ(std::string(kMib, 'x') + std::string(2 * kMib, '\0') + std::string(kMib, 'x'), there);
	EXPECT_EQ(EBADF, discard_range(-1, 0, kMib));
}

// ---- on their way ----

// Members whose discards stop where the test says.
class Members {
public:
	int discard(int, uint64_t offset, uint64_t bytes)
	{
		std::unique_lock guard(lock_);
		begun_.push_back({offset, bytes});
		changed_.notify_all();
		changed_.wait(guard, [&] { return hung_.count(offset) == 0; });
		return error_;
	}
	void hang(uint64_t offset) { set([&] { hung_.insert(offset); }); }
	void let_go(uint64_t offset) { set([&] { hung_.erase(offset); }); }
	void fail(int error) { set([&] { error_ = error; }); }
	void wait_begun(size_t count)
	{
		std::unique_lock guard(lock_);
		changed_.wait(guard, [&] { return begun_.size() >= count; });
	}
	std::vector<std::pair<uint64_t, uint64_t>> begun()
	{
		const std::lock_guard guard(lock_);
		return begun_;
	}
	Discards::Discard function()
	{
		return [this](int fd, uint64_t offset, uint64_t bytes) { return discard(fd, offset, bytes); };
	}

private:
	template <typename Change> void set(Change change)
	{
		const std::lock_guard guard(lock_);
		change();
		changed_.notify_all();
	}

	std::mutex lock_;
	std::condition_variable changed_;
	std::vector<std::pair<uint64_t, uint64_t>> begun_;
	std::set<uint64_t> hung_;
	int error_ = 0;
};

// Sorted numbers of extents.
std::vector<uint32_t> extents(const std::vector<Discards::Done> &done)
{
	std::vector<uint32_t> all;
	for (const Discards::Done &one : done)
		for (const sv_freed &freed : one.freed)
			all.push_back(freed.extent);
	std::sort(all.begin(), all.end());
	return all;
}

// All that ends without further help.
std::vector<Discards::Done> collect(Discards &discards, size_t count)
{
	std::vector<Discards::Done> all;
	while (all.size() < count) {
		pollfd fd{discards.event_fd(), POLLIN, 0};
		EXPECT_EQ(1, poll(&fd, 1, 10000)) << "nothing was told";
		for (Discards::Done &one : discards.collect())
			all.push_back(std::move(one));
	}
	return all;
}

class DiscardsTest : public testing::Test {
protected:
	bool begin(uint32_t member, uint32_t first, std::vector<uint32_t> numbers)
	{
		DiscardRun run{member, first, {}};
		for (const uint32_t number : numbers)
			run.freed.push_back({number, 1, 0});
		return discards_.begin(run, fd_.get(), "member " + std::to_string(member), (member + 1) * 1000 * kMib);
	}

	UniqueFd fd_{open("/dev/null", O_RDWR)};
	Members members_;
	Discards discards_{members_.function()};
};

TEST_F(DiscardsTest, what_is_done_is_told_once)
{
	EXPECT_GT(0, discards_.event_fd());
	ASSERT_TRUE(begin(0, 3, {7, 9}));
	EXPECT_TRUE(discards_.has(7) && discards_.has(9));
	EXPECT_FALSE(discards_.has(8) || discards_.has(10000));
	EXPECT_EQ(2u, discards_.slots());
	const auto done = collect(discards_, 1);
	EXPECT_EQ((std::vector<uint32_t>{7, 9}), extents(done));
	EXPECT_EQ(0, done[0].error);
	EXPECT_EQ((std::vector<std::pair<uint64_t, uint64_t>>{{1003 * kMib, 2 * kMib}}), members_.begun());
	EXPECT_FALSE(discards_.has(7) || discards_.has(9));
	EXPECT_EQ(0u, discards_.slots());
	EXPECT_TRUE(discards_.collect().empty());
	// A thread for what comes later, too.
	members_.fail(EIO);
	ASSERT_TRUE(begin(0, 3, {7}));
	EXPECT_EQ(EIO, collect(discards_, 1)[0].error);
}

TEST_F(DiscardsTest, a_member_that_hangs_holds_up_no_other)
{
	members_.hang(1000 * kMib);
	ASSERT_TRUE(begin(0, 0, {1}));
	ASSERT_TRUE(begin(0, 1, {2}));
	for (uint32_t i = 0; i < 20; i++)
		ASSERT_TRUE(begin(1, i, {100 + i}));
	EXPECT_EQ(20u, extents(collect(discards_, 20)).size());
	EXPECT_TRUE(discards_.has(1) && discards_.has(2));
	EXPECT_EQ(2u, discards_.slots(0));
	EXPECT_EQ(0u, discards_.slots(1));
	EXPECT_EQ("member 0", discards_.wait(std::chrono::milliseconds(20)));
	members_.let_go(1000 * kMib);
	EXPECT_EQ((std::vector<uint32_t>{1, 2}), extents(collect(discards_, 2)));
	EXPECT_EQ("", discards_.wait(std::chrono::seconds(10)));
}

TEST_F(DiscardsTest, what_has_not_begun_is_forgotten_and_what_has_is_waited_for)
{
	members_.hang(1000 * kMib);
	ASSERT_TRUE(begin(0, 0, {1}));
	members_.wait_begun(1);
	ASSERT_TRUE(begin(0, 5, {2, 3}));
	discards_.close();
	EXPECT_FALSE(discards_.is_open());
	EXPECT_TRUE(discards_.has(1)) << "its discard may take effect at any time";
	EXPECT_FALSE(discards_.has(2) || discards_.has(3));
	EXPECT_EQ(1u, discards_.slots());
	EXPECT_EQ("member 0", discards_.wait({}));
	members_.let_go(1000 * kMib);
	EXPECT_EQ("", discards_.wait(std::chrono::seconds(10)));
	EXPECT_EQ(1u, members_.begun().size());
	EXPECT_EQ((std::vector<uint32_t>{1}), extents(discards_.collect()));
	discards_.open();
	ASSERT_TRUE(begin(0, 5, {2, 3}));
	EXPECT_EQ((std::vector<uint32_t>{2, 3}), extents(collect(discards_, 1)));
}

TEST_F(DiscardsTest, nothing_of_one_session_is_told_to_the_next)
{
	ASSERT_TRUE(begin(0, 0, {1}));
	discards_.close();
	EXPECT_EQ("", discards_.wait(std::chrono::seconds(10)));
	discards_.forget();
	discards_.open();
	EXPECT_FALSE(discards_.has(1));
	EXPECT_TRUE(discards_.collect().empty());
	EXPECT_EQ(0u, discards_.slots());
}

// Forgotten before the thread looked, or not: its descriptor, by which the member stays locked (BlockFile), is closed.
TEST_F(DiscardsTest, nothing_is_open_once_all_has_ended)
{
	char path[] = "/tmp/svctl-discards-XXXXXX";
	const UniqueFd first(mkstemp(path));
	const auto lock = [&] {
		UniqueFd fd(open(path, O_RDWR | O_CLOEXEC));
		struct flock whole{};
		whole.l_type = F_WRLCK;
		return fcntl(fd.get(), F_OFD_SETLK, &whole) == 0 ? std::move(fd) : UniqueFd();
	};
	for (int i = 0; i < 300; i++) {
		UniqueFd fd = lock();
		ASSERT_TRUE(fd) << "round " << i;
		ASSERT_TRUE(discards_.begin({0, 0, {{1, 1, 0}}}, fd.get(), path, 0));
		fd.reset();
		discards_.close();
		ASSERT_EQ("", discards_.wait(std::chrono::seconds(10)));
		discards_.forget();
		discards_.open();
	}
	unlink(path);
}

TEST_F(DiscardsTest, what_cannot_be_begun_is_the_callers)
{
	fd_.reset();
	EXPECT_FALSE(begin(0, 0, {1}));
	EXPECT_FALSE(discards_.has(1));
	EXPECT_EQ("", discards_.wait({}));
}

TEST(Discards, end_only_when_the_last_has_ended)
{
	Members members;
	members.hang(0);
	const UniqueFd fd(open("/dev/null", O_RDWR));
	std::mutex lock;
	bool ended = false;
	auto discards = std::make_unique<Discards>([&](int at, uint64_t offset, uint64_t bytes) {
		const int error = members.discard(at, offset, bytes);
		const std::lock_guard guard(lock);
		ended = true;
		return error;
	});
	ASSERT_TRUE(discards->begin({0, 0, {{1, 1, 0}}}, fd.get(), "member", 0));
	members.wait_begun(1);
	members.let_go(0);
	discards.reset();
	const std::lock_guard guard(lock);
	EXPECT_TRUE(ended);
}

}	// namespace
}	// namespace svd

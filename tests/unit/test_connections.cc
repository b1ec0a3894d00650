// SPDX-License-Identifier: GPL-2.0
// What lies below the API: descriptors that come with messages, who is at the other end, and stacks that take turns.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/base/fiber.h"
#include "daemon/base/peer.h"
#include "daemon/base/socket.h"

using namespace svd;

namespace {

class Sockets : public testing::Test {
protected:
	void SetUp() override
	{
		int ends[2];
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
		ours_ = UniqueFd(ends[0]);
		theirs_ = UniqueFd(ends[1]);
	}
	static Fds some(size_t n)
	{
		Fds fds;
		for (size_t i = 0; i < n; i++)
			fds.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
		return fds;
	}
	ssize_t send(size_t fds) { return send_with_fds(theirs_.get(), "x", some(fds)); }
	ssize_t receive() { return receive_with_fds(ours_.get(), buffer_, received_); }

	UniqueFd ours_, theirs_;
	char buffer_[16];
	Fds received_;
};

}	// namespace

TEST_F(Sockets, descriptor_comes_with_its_bytes_and_is_not_inherited)
{
	int ends[2];
	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	const UniqueFd reader(ends[0]);
	Fds writer;
	writer.emplace_back(ends[1]);
	ASSERT_EQ(5, send_with_fds(theirs_.get(), "bytes", writer));
	ASSERT_EQ(5, receive());
	EXPECT_EQ("bytes", std::string(buffer_, 5));
	ASSERT_EQ(1u, received_.size());
	EXPECT_NE(0, fcntl(received_[0].get(), F_GETFD) & FD_CLOEXEC);
	ASSERT_EQ(1, write(received_[0].get(), "y", 1));
	char c = 0;
	EXPECT_EQ(1, read(reader.get(), &c, 1));
	EXPECT_EQ('y', c);
}

TEST_F(Sockets, more_descriptors_than_fit_are_refused)
{
	EXPECT_EQ(-1, send(kMaxFds + 1));
	EXPECT_EQ(EMSGSIZE, errno);
	ASSERT_EQ(1, send(kMaxFds));
	EXPECT_EQ(1, receive());
	EXPECT_EQ(kMaxFds, received_.size());
	ASSERT_EQ(1, send(1));
	EXPECT_EQ(-1, receive()) << "with those that still wait";
	EXPECT_EQ(EMSGSIZE, errno);
}

TEST_F(Sockets, end_is_told_from_an_error)
{
	theirs_ = UniqueFd();
	EXPECT_EQ(0, receive());
	EXPECT_EQ(-1, receive_with_fds(-1, buffer_, received_));
	EXPECT_EQ(EBADF, errno);
}

TEST_F(Sockets, peer_is_who_connected)
{
	const Result<Peer> peer = peer_of(ours_.get());
	ASSERT_TRUE(peer.ok()) << peer.error().message();
	EXPECT_EQ(getuid(), peer.value().uid);
	EXPECT_EQ(getpid(), peer.value().pid);
	ASSERT_FALSE(peer.value().groups.empty());
	EXPECT_EQ(getgid(), peer.value().groups.front());
	EXPECT_EQ(static_cast<size_t>(getgroups(0, nullptr)) + 1, peer.value().groups.size());
	EXPECT_EQ("user " + std::to_string(getuid()) + ", pid " + std::to_string(getpid()), peer.value().str());
	EXPECT_FALSE(peer_of(some(1).front().get()).ok()) << "that is no socket";
}

TEST(Fibers, take_turns_and_keep_what_is_on_their_stacks)
{
	std::string seen;
	std::unique_ptr<Fiber> fibers[2];
	for (size_t n = 0; n < 2; n++) {
		auto made = Fiber::create([&, n] {
			for (int round = 0; round < 3; round++) {
				const std::string mine(round + 1, static_cast<char>('a' + n));
				fibers[n]->suspend();
				seen += mine;
			}
		});
		ASSERT_TRUE(made.ok());
		fibers[n] = std::move(made).value();
	}
	EXPECT_EQ("", seen) << "nothing runs yet";
	for (int turn = 0; turn < 4; turn++)
		for (const auto &fiber : fibers) {
			EXPECT_FALSE(fiber->ended());
			fiber->resume();
		}
	EXPECT_EQ("abaabbaaabbb", seen);
	EXPECT_TRUE(fibers[0]->ended() && fibers[1]->ended());
}

TEST(Fibers, may_go_without_having_run)
{
	bool ran = false;
	EXPECT_TRUE(Fiber::create([&] { ran = true; }).ok());
	EXPECT_FALSE(ran);
}

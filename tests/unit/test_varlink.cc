// SPDX-License-Identifier: GPL-2.0
// The server's side of a connection, turn by turn in one thread: whole, half and garbled messages, pipelined calls, calls
// that are answered later, clients that do not read, and what becomes of each when svd ends.
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "daemon/api/varlink.h"
#include "daemon/base/log_budget.h"
#include "daemon/base/waiting.h"

namespace svd {
namespace {

using std::chrono::milliseconds;

class VarlinkTest : public testing::Test {
protected:
	VarlinkTest()
	{
		path_ = "/tmp/svctl-varlink-" + std::to_string(getpid());
		VarlinkServer::Handler handler;
		handler.call = [this](Request request) -> std::optional<Reply> {
			calls_.push_back(request.call);
			fds_ = request.fds.size();
			last_ = request.client;
			served_idle_ = activity_now().idle;
			if (request.call.method == "later")
				return std::nullopt;
			if (request.call.method == "dear")
				std::this_thread::sleep_for(kTurn);
			if (request.call.method == "large")
				return Reply{"", {{"text", std::string(4 << 20, 'x')}}};
			return Reply{"", {{"echo", request.call.method}}};
		};
		handler.closed = [this](uint64_t client) { closed_.push_back(client); };
		handler.role = [this](const Peer &) { return role_; };
		server_ = std::make_unique<VarlinkServer>(VarlinkServer::listen(path_, handler).value());
	}
	~VarlinkTest() override { unlink(path_.c_str()); }

	UniqueFd connect()
	{
		sockaddr_un address{};
		address.sun_family = AF_UNIX;
		path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
		UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
		EXPECT_EQ(0, ::connect(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)));
		return fd;
	}
	void turn(int n = 4)
	{
		for (int i = 0; i < n; i++)
			server_->turn(milliseconds(0), {});
	}
	static bool send(const UniqueFd &fd, const std::string &bytes)
	{
		return ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
	}
	static std::string call(const std::string &method) { return R"({"method":")" + method + "\"}" + '\0'; }
	// What is there to be read; "closed" behind it once it is.
	static std::string read(const UniqueFd &fd)
	{
		std::string text;
		char buffer[65536];
		ssize_t n;
		while ((n = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0)
			text.append(buffer, static_cast<size_t>(n));
		return n == 0 || errno != EAGAIN ? text + "closed" : text;
	}
	static std::string echo(const std::string &method) { return R"({"parameters":{"echo":")" + method + "\"}}" + '\0'; }

	std::string path_;
	std::vector<Call> calls_;
	std::vector<uint64_t> closed_;
	uint64_t last_ = 0;
	size_t fds_ = 0;	// that came with the last call
	bool served_idle_ = true;
	Role role_ = Role::kAdminister;
	std::unique_ptr<VarlinkServer> server_;
};

TEST_F(VarlinkTest, a_message_may_come_byte_by_byte)
{
	const UniqueFd client = connect();
	for (const char byte : call("a")) {
		EXPECT_EQ("", read(client));
		EXPECT_TRUE(send(client, std::string(1, byte)));
		turn();
	}
	EXPECT_EQ(echo("a"), read(client));
}

TEST_F(VarlinkTest, pipelined_calls_are_answered_in_order_one_a_turn)
{
	const UniqueFd client = connect();
	turn(1);
	EXPECT_TRUE(send(client, call("a") + call("b") + call("c")));
	turn(1);
	EXPECT_EQ(1u, calls_.size()) << "others have their turn between two calls of a client";
	turn(8);
	EXPECT_EQ(echo("a") + echo("b") + echo("c"), read(client));
}

TEST_F(VarlinkTest, what_is_no_call_is_told_so_and_closed)
{
	for (const std::string &text : {std::string("garbage"), std::string("[]"), std::string("{}"), std::string(R"({"method":1})"),
					std::string(R"({"method":"a","parameters":7})"), std::string()}) {
		const UniqueFd client = connect();
		EXPECT_TRUE(send(client, text + '\0'));
		turn();
		const std::string answer = read(client);
		EXPECT_NE(std::string::npos, answer.find("io.svctl.BadMessage")) << text << ": " << answer;
		EXPECT_TRUE(answer.ends_with("closed")) << text;
	}
	EXPECT_TRUE(calls_.empty());
	EXPECT_EQ(0u, server_->clients());
}

// What is nested deeper than any call has it would be copied by recursion, to the end of the stack.
TEST(ParseCall, nesting_is_limited_in_pairs)
{
	const auto nested = [](size_t levels) {	// those of the message and of its parameters among them
		return R"({"method":"a","parameters":{"x":)" + std::string(levels - 2, '[') + std::string(levels - 2, ']') + "}}";
	};
	EXPECT_EQ(parse_call(nested(kMostNesting)).method, "a");
	for (const size_t levels : {kMostNesting + 1, size_t{500000}}) {
		const Call call = parse_call(nested(levels));
		EXPECT_EQ(call.method, "");
		EXPECT_NE(call.error.find("nested"), std::string::npos) << call.error;
	}
	for (const char *text : {R"("[[[[[[[[[[[[[[[[[[[[[[[[[")", R"("\"[[[[[[[[[[[[[[[[[[[[[[[[[")", R"([[],[],[],[],[],[],[],[],[],[],[],[],[]])"})
		EXPECT_EQ(parse_call(std::string(R"({"method":"a","parameters":{"x":)") + text + "}}").method, "a") << text;
	EXPECT_EQ(parse_call(R"({"method":"a","parameters":{"\\":)" + std::string(30, '[') + std::string(30, ']') + "}}").method, "");
}

TEST_F(VarlinkTest, lengths_are_limited_in_pairs)
{
	const auto padded = [](size_t length) {
		const std::string head = R"({"method":"a","parameters":{"x":")";
		return head + std::string(length - head.size() - 3, 'x') + "\"}}" + '\0';
	};
	for (const auto &[role, most] : {std::pair(Role::kAdminister, kMaxMessage), std::pair(Role::kNone, kMaxStrangersMessage)}) {
		role_ = role;
		for (const size_t length : {most, most + 1}) {
			const UniqueFd client = connect();
			const std::string message = padded(length);
			for (size_t sent = 0; sent < message.size();) {
				const ssize_t n = ::send(client.get(), &message[sent], message.size() - sent, MSG_NOSIGNAL);
				sent += n > 0 ? static_cast<size_t>(n) : 0;
				turn(1);
				if (n < 0 && errno != EAGAIN)
					break;
			}
			turn();
			EXPECT_EQ(length > most, read(client).find("longer than") != std::string::npos) << length;
		}
	}
}

TEST_F(VarlinkTest, calls_may_be_answered_later_and_in_parts)
{
	const UniqueFd client = connect();
	EXPECT_TRUE(send(client, call("later") + call("b")));
	turn();
	EXPECT_EQ("", read(client)) << "the next call waits for the answer to this one";
	EXPECT_TRUE(server_->report(last_, {{"progress", 1}}));
	EXPECT_FALSE(server_->report(last_, {{"progress", 2}})) << "before the first was read";
	turn();
	EXPECT_EQ(std::string(R"({"continues":true,"parameters":{"progress":1}})") + '\0', read(client));
	server_->answer(last_, Reply{"", {{"echo", "later"}}});
	turn();
	EXPECT_EQ(echo("later") + echo("b"), read(client));
}

TEST_F(VarlinkTest, who_leaves_before_a_late_answer_is_reported)
{
	UniqueFd client = connect();
	EXPECT_TRUE(send(client, call("later")));
	turn();
	const uint64_t id = last_;
	client = UniqueFd();
	turn();
	EXPECT_EQ(std::vector<uint64_t>{id}, closed_);
	server_->answer(id, Reply{});	// nobody is there
}

TEST_F(VarlinkTest, answers_are_sent_as_they_are_read_and_keep_no_other_client_waiting)
{
	const UniqueFd deaf = connect(), other = connect();
	EXPECT_TRUE(send(deaf, call("large")));
	turn();
	EXPECT_TRUE(send(other, call("b")));
	turn();
	EXPECT_EQ(echo("b"), read(other));
	size_t length = 0;
	for (int i = 0; i < 1000 && length < (4 << 20); i++) {
		length += read(deaf).size();
		turn(1);
	}
	EXPECT_GT(length, 4u << 20);
}

TEST_F(VarlinkTest, at_the_end_each_call_is_answered_or_refused_as_a_whole)
{
	const UniqueFd sent = connect(), half = connect(), idle = connect(), pipelined = connect();
	EXPECT_TRUE(send(half, call("h").substr(0, 5)));
	turn();
	EXPECT_EQ(4u, server_->clients());
	EXPECT_TRUE(send(sent, call("a")));	// nobody has looked at these yet
	EXPECT_TRUE(send(pipelined, call("b") + call("c")));
	server_->finish(milliseconds(1000));
	EXPECT_EQ(echo("a") + "closed", read(sent));
	EXPECT_EQ(echo("b") + echo("c") + "closed", read(pipelined));
	EXPECT_EQ("closed", read(half));
	EXPECT_FALSE(send(half, call("h").substr(5)));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_FALSE(send(idle, call("i")));
	EXPECT_EQ(EPIPE, errno);
	EXPECT_EQ(3u, calls_.size());
}

TEST_F(VarlinkTest, who_does_not_read_keeps_nobody_from_ending)
{
	const UniqueFd deaf = connect();
	turn();
	EXPECT_TRUE(send(deaf, call("large")));
	const auto begin = VarlinkServer::Clock::now();
	server_->finish(milliseconds(100));
	EXPECT_LT(VarlinkServer::Clock::now() - begin, std::chrono::seconds(10));
	EXPECT_EQ(1u, calls_.size());
}

// The watchdog goes by it.
TEST_F(VarlinkTest, idle_is_who_waits_in_poll_and_nobody_who_serves)
{
	std::atomic<bool> seen = false, over = false;
	std::thread watch([&] {
		while (!over)
			seen = seen || activity_now().idle;
	});
	server_->turn(milliseconds(300), {});
	over = true;
	watch.join();
	EXPECT_TRUE(seen);
	const UniqueFd client = connect();
	EXPECT_TRUE(send(client, call("a")));
	turn();
	EXPECT_EQ(1u, calls_.size());
	EXPECT_FALSE(served_idle_);
}

// Messages of which anybody may have as many written as he likes would have journald drop the others.
TEST_F(VarlinkTest, strangers_messages_are_told_a_few_times_and_counted)
{
	const auto told = [&](Role role, int times) {
		role_ = role;
		testing::internal::CaptureStderr();
		for (int i = 0; i < times; i++) {
			const UniqueFd client = connect();
			EXPECT_TRUE(send(client, std::string("garbage") + '\0'));
			turn(2);
		}
		const std::string text = testing::internal::GetCapturedStderr();
		return std::count(text.begin(), text.end(), '\n');
	};
	EXPECT_EQ(told(Role::kAdminister, 100), 100);
	const auto few = told(Role::kNone, 1000);
	EXPECT_GE(few, LogBudget::kMost);
	EXPECT_LE(few, LogBudget::kMost + 5);
	EXPECT_EQ(told(Role::kAdminister, 100), 100);
}

// One turn, in which each call costs what it may cost all of them together.
TEST_F(VarlinkTest, a_turn_ends_in_time_and_administrators_come_first)
{
	std::vector<UniqueFd> readers;
	role_ = Role::kRead;
	for (int i = 0; i < 5; i++)
		readers.push_back(connect());
	turn();
	role_ = Role::kAdminister;
	const UniqueFd administrator = connect();
	turn();
	for (const UniqueFd &reader : readers)
		EXPECT_TRUE(send(reader, call("dear") + call("dear")));
	EXPECT_TRUE(send(administrator, call("a")));
	turn(1);
	ASSERT_EQ(2u, calls_.size()) << "one of the others, and no more";
	EXPECT_EQ("a", calls_[0].method);
	EXPECT_TRUE(send(administrator, call("b")));
	turn(1);
	ASSERT_EQ(4u, calls_.size());
	EXPECT_EQ("b", calls_[2].method);
	turn(3);
	for (const UniqueFd &reader : readers)
		EXPECT_EQ(echo("dear"), read(reader)) << "each has had one before anybody has a second one";
	turn(5);
	for (const UniqueFd &reader : readers)
		EXPECT_EQ(echo("dear"), read(reader));
}

TEST_F(VarlinkTest, patience_counts_from_when_the_answer_began)
{
	server_->set_patience(milliseconds(500));
	const UniqueFd slow = connect();
	turn();
	EXPECT_TRUE(send(slow, call("large")));
	turn();
	char some[4096];
	for (int i = 0; i < 7; i++) {	// each time some more of the answer is sent, and at the end there is still some left
		for (int part = 0; part < 100; part++)
			recv(slow.get(), some, sizeof(some), 0);
		turn();
		std::this_thread::sleep_for(milliseconds(100));
	}
	turn();
	EXPECT_EQ(0u, server_->clients());
}

TEST_F(VarlinkTest, answers_that_wait_for_one_reader_are_limited_together)
{
	role_ = Role::kRead;
	std::vector<UniqueFd> deaf;
	for (int i = 0; i < 8; i++) {
		deaf.push_back(connect());
		EXPECT_TRUE(send(deaf.back(), call("large")));
		turn();
	}
	EXPECT_LE(calls_.size(), kMostUnread / (4 << 20) + 2);
	EXPECT_GE(calls_.size(), kMostUnread / (4 << 20));
	EXPECT_NE(std::string::npos, read(deaf.back()).find("io.svctl.Busy"));
	for (int i = 0; i < 1000 && server_->clients() > 0; i++) {	// all is read
		for (const UniqueFd &client : deaf)
			read(client);
		turn(1);
	}
	EXPECT_TRUE(send(deaf.back(), call("large")));
	turn();
	EXPECT_EQ(std::string::npos, read(deaf.back()).find("io.svctl.Busy"));
}

// Closing a file may take as long as its file system likes: svd must not have to close one of a stranger's.
TEST_F(VarlinkTest, descriptors_of_who_does_not_administer_are_never_opened)
{
	role_ = Role::kRead;
	const UniqueFd client = connect();
	Fds sent;
	sent.emplace_back(dup(STDIN_FILENO));
	const std::string message = call("a");
	ASSERT_EQ(static_cast<ssize_t>(message.size()), send_with_fds(client.get(), message, sent));
	rlimit all{};
	getrlimit(RLIMIT_NOFILE, &all);
	const int next = UniqueFd(dup(STDIN_FILENO)).get();	// which the connection gets, and nobody else one
	const rlimit one{static_cast<rlim_t>(next) + 1, all.rlim_max};
	setrlimit(RLIMIT_NOFILE, &one);
	turn();
	setrlimit(RLIMIT_NOFILE, &all);
	EXPECT_EQ(echo("a"), read(client));
	// Newer kernels do not even take them; the call is answered all the same, so that who may not make it is told so.
	EXPECT_EQ(static_cast<ssize_t>(message.size()), send_with_fds(client.get(), message, sent));
	turn();
	EXPECT_EQ(echo("a"), read(client));
}

TEST_F(VarlinkTest, descriptors_of_administrators_come_with_their_call)
{
	const UniqueFd client = connect();
	Fds sent;
	sent.emplace_back(dup(STDIN_FILENO));
	const std::string message = call("a");
	turn();
	ASSERT_EQ(static_cast<ssize_t>(message.size()), send_with_fds(client.get(), message, sent));
	turn();
	EXPECT_EQ(echo("a"), read(client));
	EXPECT_EQ(1u, fds_);
}

TEST_F(VarlinkTest, second_server_on_a_path_is_refused_and_a_dead_ones_socket_replaced)
{
	const auto second = VarlinkServer::listen(path_, {});
	ASSERT_FALSE(second.ok());
	EXPECT_EQ(Code::kBusy, second.error().code);
	server_.reset();
	EXPECT_TRUE(VarlinkServer::listen(path_, {}).ok());
	EXPECT_EQ(Code::kUsage, VarlinkServer::listen(std::string(200, 'x'), {}).error().code);
}

}	// namespace
}	// namespace svd

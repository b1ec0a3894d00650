// SPDX-License-Identifier: GPL-2.0
// What is answered to which request, how often a page is made, and who goes where there are too many;
// tests/e2e/cases_monitoring.py has the clients that misbehave.
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <unistd.h>

#include <stdexcept>

#include "daemon/api/http.h"

namespace svd {
namespace {

const std::string kHost = "Host: 127.0.0.1:9763\r\n";

TEST(Http, requests_are_answered_with_their_status)
{
	const std::string big(kMostHead, 'x');
	const struct {
		std::string request;
		int status;
	} cases[] = {
		{"GET /metrics HTTP/1.1\r\n" + kHost + "\r\n", 200},
		{"GET /metrics HTTP/1.1\n" + kHost + "\n", 200},
		{"GET /metrics?x=1 HTTP/1.1\r\n" + kHost + "Accept: */*\r\n\r\n", 200},
		{"HEAD /metrics HTTP/1.1\r\n" + kHost + "\r\n", 200},
		{"GET /metrics HTTP/1.0\r\n\r\n", 200},
		{"GET /metrics HTTP/1.1\r\n" + kHost + "\r\nand a body", 200},
		{"GET / HTTP/1.1\r\n" + kHost + "\r\n", 404},
		{"GET /metricsx HTTP/1.1\r\n" + kHost + "\r\n", 404},
		{"GET /../etc/passwd HTTP/1.1\r\n" + kHost + "\r\n", 404},
		{"POST /metrics HTTP/1.1\r\n" + kHost + "Content-Length: 4\r\n\r\nabcd", 405},
		{"get /metrics HTTP/1.1\r\n" + kHost + "\r\n", 405},
		{"GET /metrics HTTP/2.0\r\n" + kHost + "\r\n", 505},
		{"GET /metrics HTTP/1.1\r\n\r\n", 400},
		{"GET /metrics HTTP/1.1\r\n" + kHost + kHost + "\r\n", 400},
		{"GET /metrics HTTP/1.1\r\nno header\r\n" + kHost + "\r\n", 400},
		{"GET /metrics HTTP/1.1\r\n: x\r\n" + kHost + "\r\n", 400},
		{"GET /metrics\r\n\r\n", 400},
		{"GET\r\n\r\n", 400},
		{"\r\n\r\n", 400},
		{std::string("\0\1\2\3\n\n", 6), 400},
		{"GET /metrics FTP/1.1\r\n" + kHost + "\r\n", 400},
		{"", 0},
		{"GET /metrics HTTP/1.1\r\n" + kHost, 0},
		{"GET /metrics HTTP/1.1\r\n" + kHost + "\r", 0},
		{big, 0},
		{big + "x", 431},
		{"GET /metrics HTTP/1.1\r\n" + kHost + "X: " + big + "\r\n\r\n", 431},
		{"GET /" + big + " HTTP/1.1\r\n" + kHost + "\r\n", 431},
	};
	for (const auto &one : cases)
		EXPECT_EQ(parse_http(one.request).status, one.status) << one.request.substr(0, 100);
	EXPECT_TRUE(parse_http("HEAD /metrics HTTP/1.1\r\n" + kHost + "\r\n").head_only);
	EXPECT_FALSE(parse_http("GET /metrics HTTP/1.1\r\n" + kHost + "\r\n").head_only);
}

// A browser that was made to ask names the page's host.
TEST(Http, only_this_host_is_a_host)
{
	const std::pair<const char *, int> hosts[] = {
		{"127.0.0.1", 200}, {"127.0.0.1:9763", 200}, {"127.1.2.3:1", 200}, {"localhost", 200}, {"LocalHost:9763", 200},
		{"[::1]:9763", 200}, {"[::1]", 200}, {" 127.0.0.1 ", 200},
		{"example.org", 421}, {"example.org:9763", 421}, {"localhost.example.org", 421}, {"10.0.0.1", 421},
		{"128.0.0.1", 421}, {"127.0.0.1.example.org", 421}, {"[::2]", 421}, {"::1", 421}, {"[::1", 421}, {"[::1]x", 421},
		{"", 421}, {"0.0.0.0", 421}, {"[::ffff:127.0.0.1]", 421},
	};
	for (const auto &[host, status] : hosts)
		EXPECT_EQ(parse_http("GET /metrics HTTP/1.1\r\nhOsT: " + std::string(host) + "\r\n\r\n").status, status) << host;
	EXPECT_EQ(parse_http("GET /metrics HTTP/1.0\r\nHost: example.org\r\n\r\n").status, 421);
}

TEST(Http, listens_on_the_loopback_interface_only)
{
	for (const char *good : {"127.0.0.1:9763", "127.0.0.2:1", "127.255.255.255:65535", "[::1]:9763", "127.0.0.1:0"})
		EXPECT_TRUE(HttpAddress::parse(good).ok()) << good;
	for (const char *bad : {"", ":9763", "9763", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1",
				"127.0.0.1:1 ", "0.0.0.0:9763", "*:9763", "10.0.0.1:9763", "192.168.1.1:9763", "128.0.0.1:9763",
				"126.255.255.255:9763", "[::]:9763", "[fe80::1]:9763", "::1:9763", "[::1]", "[::1]9763", "[::1:9763",
				"[127.0.0.1]:9763", "localhost:9763", "example.org:9763", "on", "[::ffff:127.0.0.1]:9763"}) {
		const auto address = HttpAddress::parse(bad);
		ASSERT_FALSE(address.ok()) << bad;
		EXPECT_EQ(address.error().code, Code::kUsage) << bad;
		EXPECT_NE(address.error().message().find("--metrics 127.0.0.1:9763"), std::string::npos) << bad;
	}
}

// A server with a clock of its own, turn by turn.
class HttpServing : public testing::Test {
 protected:
	void SetUp() override { server_.serve({}, now_); }
	UniqueFd connect(int buffer = 0)
	{
		sockaddr_in address{};
		socklen_t length = sizeof(address);
		EXPECT_EQ(0, getsockname(server_.fds()[0].fd, reinterpret_cast<sockaddr *>(&address), &length));
		UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
		if (buffer > 0)
			setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
		::connect(fd.get(), reinterpret_cast<sockaddr *>(&address), length);
		return fd;
	}
	void turn(int n = 3)
	{
		for (int i = 0; i < n; i++) {
			auto fds = server_.fds();
			poll(fds.data(), fds.size(), 10);
			server_.serve(fds, now_);
		}
	}
	// What has come; a turn later there may be more.
	static std::string read(const UniqueFd &fd)
	{
		std::string text;
		char buffer[65536];
		for (ssize_t n; (n = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;)
			text.append(buffer, static_cast<size_t>(n));
		return text;
	}
	UniqueFd ask(int buffer = 0)
	{
		UniqueFd fd = connect(buffer);
		turn(1);
		const std::string request = "GET /metrics HTTP/1.1\r\n" + kHost + "\r\n";
		EXPECT_EQ(send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
		turn(2);
		return fd;
	}

	HttpServer::Clock::time_point now_ = HttpServer::Clock::now();
	int pages_ = 0;
	std::function<std::string()> page_ = [] { return std::string("a page\n"); };
	HttpServer server_{HttpAddress::parse("127.0.0.1:0").value(), "text/plain", [this] {
		pages_++;
		return page_();
	}};
};

TEST_F(HttpServing, page_that_takes_long_is_made_no_more_often_than_a_tenth_of_the_time)
{
	page_ = [] {
		usleep(300000);
		return std::string("a page\n");
	};
	EXPECT_NE(read(ask()).find("a page"), std::string::npos);
	now_ += std::chrono::milliseconds(2900);
	EXPECT_NE(read(ask()).find("a page"), std::string::npos);
	EXPECT_EQ(pages_, 1);
	now_ += std::chrono::milliseconds(2000);
	EXPECT_NE(read(ask()).find("a page"), std::string::npos);
	EXPECT_EQ(pages_, 2);
}

TEST_F(HttpServing, page_that_takes_no_time_is_made_each_second)
{
	for (int i = 0; i < 4; i++) {
		ask();
		now_ += std::chrono::milliseconds(600);
	}
	EXPECT_EQ(pages_, 2);
}

TEST_F(HttpServing, page_that_cannot_be_made_is_answered_with_500_and_tried_again)
{
	const auto good = std::exchange(page_, []() -> std::string { throw std::runtime_error("no"); });
	for (int i = 0; i < 2; i++) {
		const std::string text = read(ask());
		EXPECT_TRUE(text.starts_with("HTTP/1.1 500 ")) << text;
	}
	EXPECT_EQ(pages_, 1) << "who asks again at once does not have it tried again";
	page_ = good;
	now_ += std::chrono::milliseconds(1100);
	EXPECT_TRUE(read(ask()).starts_with("HTTP/1.1 200 "));
}

TEST_F(HttpServing, who_is_being_answered_does_not_make_room)
{
	page_ = [] { return std::string(16 << 20, 'x'); };
	const UniqueFd slow = ask(4096);
	std::vector<UniqueFd> crowd;
	for (size_t i = 0; i < 4 * kMostHttpClients; i++) {
		crowd.push_back(connect());
		turn(1);
	}
	EXPECT_EQ(server_.clients(), kMostHttpClients);
	size_t length = 0;
	for (size_t some = 1; length < 16 << 20 && some > 0;) {
		some = 0;
		for (int i = 0; i < 20 && some == 0; i++) {
			some = read(slow).size();
			turn(1);
		}
		length += some;
	}
	EXPECT_GT(length, 16u << 20);
}

TEST_F(HttpServing, who_has_been_answered_makes_room_first)
{
	UniqueFd silent = connect();
	turn(1);
	std::vector<UniqueFd> answered;
	for (size_t i = 0; i < kMostHttpClients; i++)
		answered.push_back(ask());
	const std::string request = "GET /metrics HTTP/1.1\r\n" + kHost + "\r\n";
	EXPECT_EQ(send(silent.get(), request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
	turn();
	EXPECT_NE(read(silent).find("a page"), std::string::npos);
}

// Who does not take its page makes room, where all are so; but one a turn, so that each new one has some turns to ask and be
// answered in.
TEST_F(HttpServing, crowd_that_does_not_read_keeps_nobody_out)
{
	page_ = [] { return std::string(16 << 20, 'x'); };
	std::vector<UniqueFd> deaf;
	for (size_t i = 0; i < kMostHttpClients; i++)
		deaf.push_back(ask(4096));
	const UniqueFd scraper = connect();
	for (size_t i = 0; i < 8; i++)
		deaf.push_back(connect());
	turn(1);
	const std::string request = "HEAD /metrics HTTP/1.1\r\n" + kHost + "\r\n";
	EXPECT_EQ(send(scraper.get(), request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
	turn();
	EXPECT_TRUE(read(scraper).starts_with("HTTP/1.1 200 "));
}

}	// namespace
}	// namespace svd

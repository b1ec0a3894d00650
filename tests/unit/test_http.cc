// SPDX-License-Identifier: GPL-2.0
// What is answered to which request; tests/e2e/cases_monitoring.py has the clients that misbehave.
#include <gtest/gtest.h>

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

}	// namespace
}	// namespace svd

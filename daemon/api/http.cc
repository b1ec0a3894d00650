// SPDX-License-Identifier: GPL-2.0
// See http.h.
#include "daemon/api/http.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <iterator>
#include <utility>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <unistd.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr int kMostNewOnes = 8;		// clients taken in a turn: fewer than there is room for
constexpr auto kRetry = std::chrono::seconds(5);

struct Host {
	std::string_view name;
	std::string_view port;
	bool brackets = false;
};

// "127.0.0.1:9763", "[::1]:9763", "localhost"
std::optional<Host> split_host(std::string_view text)
{
	const bool brackets = text.starts_with('[');
	const size_t end = brackets ? text.find(']') : text.find(':');
	if (brackets && end == std::string_view::npos)
		return std::nullopt;
	Host host{text.substr(brackets ? 1 : 0, brackets ? end - 1 : end), {}, brackets};
	const size_t colon = brackets ? end + 1 : end;
	if (colon >= text.size())
		return host;
	if (text[colon] != ':')
		return std::nullopt;
	host.port = text.substr(colon + 1);
	return host;
}

bool is_loopback_4(const std::string &name, in_addr *address)
{
	return inet_pton(AF_INET, name.c_str(), address) == 1 && ntohl(address->s_addr) >> 24 == 127;
}

bool is_loopback_6(const std::string &name, in6_addr *address)
{
	return inet_pton(AF_INET6, name.c_str(), address) == 1 && IN6_IS_ADDR_LOOPBACK(address);
}

std::string lower(std::string_view text)
{
	std::string out(text);
	std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return tolower(c); });
	return out;
}

bool is_here(std::string_view text)
{
	const auto host = split_host(text);
	in_addr four{};
	in6_addr six{};
	if (!host)
		return false;
	const std::string name = lower(host->name);
	return host->brackets ? is_loopback_6(name, &six) : name == "localhost" || is_loopback_4(name, &four);
}

std::string_view trimmed(std::string_view text)
{
	const size_t first = text.find_first_not_of(" \t");
	return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The next line, without its end; lines end with LF, or CR LF.
std::string_view take_line(std::string_view &text)
{
	const size_t end = text.find('\n');
	std::string_view line = text.substr(0, end);
	text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
	if (line.ends_with('\r'))
		line.remove_suffix(1);
	return line;
}

// One Host, and one that is this host's. HTTP/1.0 need not name any, and no browser speaks that.
int check_headers(std::string_view headers, bool host_needed)
{
	bool found = false;
	while (!headers.empty()) {
		const std::string_view line = take_line(headers);
		if (line.empty())
			break;
		const size_t colon = line.find(':');
		if (colon == std::string_view::npos || colon == 0)
			return 400;
		if (lower(line.substr(0, colon)) != "host")
			continue;
		if (found)
			return 400;
		found = true;
		if (!is_here(trimmed(line.substr(colon + 1))))
			return 421;
	}
	return found || !host_needed ? 200 : 400;
}

const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 408:
		return "Request Timeout";
	case 421:
		return "Misdirected Request";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Bad Request";
	}
}

bool head_is_complete(std::string_view received)
{
	return received.find("\r\n\r\n") != std::string_view::npos || received.find("\n\n") != std::string_view::npos;
}

}	// namespace

Result<HttpAddress> HttpAddress::parse(const std::string &text)
{
	const auto refuse = [&](const char *cause) {
		return Error{Code::kUsage, "serve metrics at", text, cause, "write --metrics 127.0.0.1:9763, [::1]:9763 or off"};
	};
	const auto host = split_host(text);
	uint16_t port = 0;
	if (!host || host->port.empty())
		return refuse("it is no ADDRESS:PORT");
	const char *const end = host->port.data() + host->port.size();
	if (const auto [stop, error] = std::from_chars(host->port.data(), end, port); error != std::errc() || stop != end)
		return refuse("the port is no number up to 65535");
	HttpAddress address;
	address.text = text;
	auto *const four = reinterpret_cast<sockaddr_in *>(&address.address);
	auto *const six = reinterpret_cast<sockaddr_in6 *>(&address.address);
	if (!host->brackets && is_loopback_4(std::string(host->name), &four->sin_addr)) {
		four->sin_family = AF_INET;
		four->sin_port = htons(port);
		address.length = sizeof(*four);
	} else if (host->brackets && is_loopback_6(std::string(host->name), &six->sin6_addr)) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons(port);
		address.length = sizeof(*six);
	} else {
		return refuse("metrics are served to this host only, at a loopback address: 127.0.0.0/8 or [::1]");
	}
	return address;
}

HttpRequest parse_http(std::string_view received)
{
	HttpRequest request;
	if (!head_is_complete(received)) {
		request.status = received.size() > kMostHead ? 431 : 0;
		return request;
	}
	if (received.size() > kMostHead && !head_is_complete(received.substr(0, kMostHead))) {
		request.status = 431;
		return request;
	}
	const std::string_view line = take_line(received);
	const size_t first = line.find(' ');
	const size_t second = line.find(' ', first + 1);
	request.status = 400;
	if (first == std::string_view::npos || second == std::string_view::npos || first == 0)
		return request;
	const std::string_view method = line.substr(0, first);
	const std::string_view target = line.substr(first + 1, second - first - 1);
	const std::string_view version = line.substr(second + 1);
	if (!version.starts_with("HTTP/"))
		return request;
	request.head_only = method == "HEAD";
	const int headers = check_headers(received, version != "HTTP/1.0");
	if (version != "HTTP/1.1" && version != "HTTP/1.0")
		request.status = 505;
	else if (headers != 200)
		request.status = headers;
	else if (method != "GET" && method != "HEAD")
		request.status = 405;
	else
		request.status = target.substr(0, target.find('?')) == "/metrics" ? 200 : 404;
	return request;
}

// ---- coming and going ----

Status HttpServer::listen()
{
	UniqueFd fd(socket(address_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	const int on = 1;
	if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd.get(), reinterpret_cast<const sockaddr *>(&address_.address), address_.length) < 0 ||
	    ::listen(fd.get(), SOMAXCONN) < 0)
		return errno_error(errno, "serve metrics at", address_.text, "see svctl explain metrics-unavailable");
	fd_ = std::move(fd);
	return {};
}

void HttpServer::open(Clock::time_point now)
{
	if (fd_ || paused_)
		return;
	const Status result = listen();
	if (!result.ok())
		paused_ = now + kRetry;
	if (result.ok()) {
		sockaddr_in6 bound{};	// the port is where it is in sockaddr_in
		socklen_t length = sizeof(bound);
		getsockname(fd_.get(), reinterpret_cast<sockaddr *>(&bound), &length);
		log::notice("metrics are served at {}, port {}", address_.text, ntohs(bound.sin6_port));
	} else if (!told_) {
		log::warning(Id::kMetricsUnavailable, "{}", result.error().message());
	}
	told_ = !result.ok();
}

std::vector<pollfd> HttpServer::fds() const
{
	std::vector<pollfd> fds;
	if (fd_)
		fds.push_back({fd_.get(), static_cast<short>(paused_ ? 0 : POLLIN), 0});
	for (const Client &client : clients_)
		fds.push_back({client.fd.get(), static_cast<short>(client.answered && !client.drained ? POLLOUT : POLLIN), 0});
	return fds;
}

HttpServer::Clock::time_point HttpServer::due() const
{
	auto due = paused_.value_or(Clock::time_point::max());
	for (const Client &client : clients_)
		due = std::min(due, client.until);
	return due;
}

// Who goes for the next one: who has been sent everything, then who has not asked, the oldest first; who is being sent the
// page only if there is no other, and one a turn. The `taken` last ones came in this turn, and are to have one to ask in.
// end(): nobody.
HttpServer::Clients::iterator HttpServer::who_makes_room(int taken)
{
	const auto old = std::prev(clients_.end(), taken);
	auto goes = std::find_if(clients_.begin(), old, [](const Client &client) { return client.drained; });
	if (goes == old)
		goes = std::find_if(clients_.begin(), old, [](const Client &client) { return !client.answered; });
	if (goes == old)
		goes = taken == 0 ? clients_.begin() : clients_.end();
	return goes;
}

void HttpServer::accept_clients(Clock::time_point now)
{
	for (int taken = 0; taken < kMostNewOnes; taken++) {
		const bool full = clients_.size() >= kMostHttpClients;
		const auto goes = full ? who_makes_room(taken) : clients_.end();
		if (full && goes == clients_.end())
			return;
		UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
		if (!fd && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
			paused_ = now + kPageAge;	// who waits there would be told of again at once
		if (!fd)
			return;
		if (full)
			clients_.erase(goes);
		clients_.push_back({std::move(fd), now + kRequestPatience});
	}
}

void HttpServer::serve(std::span<const pollfd> polled, Clock::time_point now)
{
	size_t i = 0;
	const bool come = fd_ && !polled.empty() && (polled[i++].revents & POLLIN) != 0;
	for (auto client = clients_.begin(); client != clients_.end(); i++) {
		const bool ready = i < polled.size() && polled[i].revents != 0;
		if (now >= client->until && !client->answered)
			answer(*client, {408, false}, now);
		const bool stays = now < client->until && (!ready || serve(*client, now));
		client = stays ? std::next(client) : clients_.erase(client);
	}
	if (paused_ && now >= *paused_)
		paused_.reset();
	if (come)
		accept_clients(now);
	open(now);
}

// ---- one of them ----

bool HttpServer::serve(Client &client, Clock::time_point now)
{
	if (!client.answered && !read_from(client, now))
		return false;
	if (client.answered && !client.drained)
		return write_to(client, now);
	char thrown_away[4096];
	if (!client.drained)
		return true;
	const ssize_t n = recv(client.fd.get(), thrown_away, sizeof(thrown_away), 0);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

bool HttpServer::read_from(Client &client, Clock::time_point now)
{
	char buffer[4096];
	const ssize_t n = recv(client.fd.get(), buffer, sizeof(buffer), 0);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	client.in.append(buffer, static_cast<size_t>(n));
	const HttpRequest request = parse_http(client.in);
	if (request.status != 0)
		answer(client, request, now);
	return true;
}

void HttpServer::make_page()
{
	try {
		text_ = std::make_shared<const std::string>(page_());
		page_failed_ = false;
	} catch (const std::exception &unexpected) {
		text_.reset();
		if (!std::exchange(page_failed_, true))
			log::error(Id::kFailure, "cannot make the page that {} serves: {}", address_.text, unexpected.what());
	}
}

// None: it cannot be made.
HttpServer::Text HttpServer::page(Clock::time_point now)
{
	if (now < stale_at_)
		return text_;
	const auto began = Clock::now();
	make_page();
	const auto took = Clock::now() - began;
	stale_at_ = now + took + std::max<Clock::duration>(kPageAge, kPageRest * took);
	return text_;
}

void HttpServer::answer(Client &client, const HttpRequest &request, Clock::time_point now)
{
	Text body = request.status == 200 ? page(now) : nullptr;
	const int status = request.status == 200 && !body ? 500 : request.status;
	if (!body)
		body = std::make_shared<const std::string>(fmt::format("{} {}\n", status, reason(status)));
	client.head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: close\r\n\r\n",
				  status, reason(status), status == 200 ? type_ : "text/plain", body->size(),
				  status == 405 ? "Allow: GET, HEAD\r\n" : "");
	if (!request.head_only)
		client.body = std::move(body);
	client.in = {};
	client.answered = true;
	client.until = now + kAnswerPatience;
}

// As much as the socket takes: the sooner all is there, the sooner the client may make room.
bool HttpServer::write_to(Client &client, Clock::time_point now)
{
	while (client.sent < client.size()) {
		const bool in_head = client.sent < client.head.size();
		const std::string &part = in_head ? client.head : *client.body;
		const size_t at = in_head ? client.sent : client.sent - client.head.size();
		const ssize_t n = send(client.fd.get(), part.data() + at, part.size() - at, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		client.sent += static_cast<size_t>(n);
	}
	client.body.reset();
	client.drained = true;
	client.until = now + kRequestPatience;
	return shutdown(client.fd.get(), SHUT_WR) == 0;
}

}	// namespace svd

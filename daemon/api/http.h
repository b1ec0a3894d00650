// SPDX-License-Identifier: GPL-2.0
// A page of metrics for who asks by HTTP on the loopback interface. It answers GET and HEAD of /metrics, one request a
// connection, within main.cc's one poll(); anybody on this host may ask, and can do no more than be answered. So all is
// bounded: clients, the head of a request, the time for both directions; where there are too many clients, one makes room
// (who_makes_room()). All clients of a second share one page, of ten times as long as it takes if that is longer.
//
// Only numeric addresses of the loopback interface are taken, and a request must name one as its Host, or localhost: a
// browser on this host can be made to ask by a page from elsewhere, but not with that.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/base/result.h"
#include "daemon/base/unique_fd.h"

namespace svd {

inline constexpr size_t kMostHttpClients = 32;
inline constexpr size_t kMostHead = 8192;	// bytes of request line and headers
inline constexpr auto kRequestPatience = std::chrono::seconds(5);	// for the whole head
inline constexpr auto kAnswerPatience = std::chrono::seconds(10);	// and for taking the answer
inline constexpr auto kPageAge = std::chrono::seconds(1);
inline constexpr int kPageRest = 10;	// times what a page took, if that is longer: else all svd does is making pages

// Where to listen. Port 0: any.
struct HttpAddress {
	sockaddr_storage address{};
	socklen_t length = 0;
	std::string text;	// as it was given

	// Of "127.0.0.1:9763" or "[::1]:9763"; kUsage unless it is a loopback address and a port.
	static Result<HttpAddress> parse(const std::string &text);
};

// What a head asks for. status 0: it is not complete; 200: the page.
struct HttpRequest {
	int status = 0;
	bool head_only = false;
};
HttpRequest parse_http(std::string_view received);

class HttpServer {
public:
	using Clock = std::chrono::steady_clock;
	using Page = std::function<std::string()>;

	HttpServer(HttpAddress address, std::string type, Page page)
		: address_(std::move(address)), type_(std::move(type)), page_(std::move(page)) {}

	// Listens unless it does already; tries again by itself while that fails, and logs that once.
	void open(Clock::time_point now);
	// What to poll for, and by when to call serve() in any case; max() where nothing is to be waited for.
	std::vector<pollfd> fds() const;
	Clock::time_point due() const;
	// `polled`: what fds() gave, with its answers.
	void serve(std::span<const pollfd> polled, Clock::time_point now);

	size_t clients() const { return clients_.size(); }

private:
	using Text = std::shared_ptr<const std::string>;

	struct Client {
		UniqueFd fd;
		Clock::time_point until;
		std::string in = {};
		std::string head = {};
		Text body = {};		// none: of the answer there is the head only
		size_t sent = 0;	// of head and body
		bool answered = false;
		bool drained = false;	// all was sent: what still comes is thrown away, so that the answer arrives

		size_t size() const { return head.size() + (body ? body->size() : 0); }
	};

	using Clients = std::list<Client>;

	Status listen();
	Clients::iterator who_makes_room(int taken);
	void accept_clients(Clock::time_point now);
	bool serve(Client &client, Clock::time_point now);	// false: close it
	bool read_from(Client &client, Clock::time_point now);
	bool write_to(Client &client, Clock::time_point now);
	void answer(Client &client, const HttpRequest &request, Clock::time_point now);
	void make_page();
	Text page(Clock::time_point now);

	HttpAddress address_;
	std::string type_;
	Page page_;
	UniqueFd fd_;
	std::optional<Clock::time_point> paused_;	// until then nobody is taken, or listened for
	bool told_ = false;			// that it cannot listen
	Clients clients_;			// the oldest first
	Text text_;				// none: it could not be made
	Clock::time_point stale_at_{};
	bool page_failed_ = false;		// and that was told
};

}	// namespace svd

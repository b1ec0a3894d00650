// SPDX-License-Identifier: GPL-2.0
// The Varlink side of svd: JSON messages, each ended by a NUL byte, over a Unix socket. This file owns the socket and
// the clients' buffers; it knows nothing of pools. main.cc creates it, commands.cc is what it calls. A client that
// sends garbage, too much, or does not read its answers is told why, if that is still possible, and closed.
//
// Nobody is kept waiting by another client: of each, a turn reads one buffer and carries out one call, and the next call
// of a client is looked at once it has read the last answer. So what a client makes svd remember is bounded, too. A turn
// ends in time however dear the calls are: who was not served comes first in the next one, and administrators before others.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <string>

#include <nlohmann/json.hpp>
#include <poll.h>

#include "daemon/api/roles.h"
#include "daemon/base/log_budget.h"
#include "daemon/base/result.h"
#include "daemon/base/socket.h"

namespace svd {

using Json = nlohmann::json;

inline constexpr size_t kMaxMessage = 1u << 20;
inline constexpr size_t kMaxStrangersMessage = 4096;	// of who has no role
inline constexpr size_t kMostNesting = 16;	// of objects and arrays in a message; the interface needs 5
inline constexpr auto kTurn = std::chrono::milliseconds(50);	// for calls: none is begun behind that, but one of each kind
inline constexpr size_t kMostUnread = 16u << 20;	// of all answers that a user who does not administer has not read
inline constexpr auto kPatienceCheck = std::chrono::seconds(1);
inline constexpr auto kClientPatience = std::chrono::seconds(30);	// for the rest of a message, or for reading ours

// What a call is answered with: parameters, or the name of an error and its parameters. Descriptors go with call and
// reply; a parameter "fd" is a position among them.
struct Reply {
	std::string error;
	Json parameters = Json::object();
	Fds fds = {};
};

// A call as the protocol has it. Empty method: not a call, and `error` says why.
struct Call {
	std::string method;
	Json parameters = Json::object();
	bool oneway = false;
	bool more = false;	// the client takes several replies
	std::string error;
};
Call parse_call(const std::string &text);

// A call and who makes it.
struct Request {
	Call call;
	Fds fds;
	Peer peer;
	Role role = Role::kNone;
	uint64_t client = 0;
};

class VarlinkServer {
public:
	// No reply: answer() will be called later. `closed`: a client that waits for that has gone.
	struct Handler {
		std::function<std::optional<Reply>(Request)> call;
		std::function<void(uint64_t client)> closed = [](uint64_t) {};
		std::function<Role(const Peer &)> role;
	};
	using Clock = std::chrono::steady_clock;

	// Listens on `path` (replacing a socket that nobody listens on), mode 0666: roles say who may do what.
	static Result<VarlinkServer> listen(const std::string &path, Handler handler);
	// Serves a socket that listens already: systemd's, where clients wait while svd is not there.
	static Result<VarlinkServer> take(UniqueFd fd, Handler handler);

	// One round of poll(): serves what is ready, waits at most `wait`. `others` are polled, too, and told what they are
	// ready for (revents).
	void turn(std::chrono::milliseconds wait, std::span<pollfd> others);

	// To a client whose call got no reply yet; nothing if it has gone. report(): more is to come. What the client has
	// not read yet is not added to: false, and nothing was sent.
	void answer(uint64_t client, Reply reply);
	bool report(uint64_t client, const Json &parameters);

	// Answers all calls that were sent, and takes no new ones: who sends one gets EPIPE, so that it knows that its call
	// was not carried out and may be repeated; who connects waits for the next svd where the socket is systemd's.
	// `patience`: for answers to be read.
	void finish(std::chrono::milliseconds patience);

	size_t clients() const { return clients_.size(); }
	void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

private:
	struct Client {
		uint64_t id = 0;
		UniqueFd fd;
		Peer peer;
		Role role = Role::kNone;
		std::string in;
		size_t searched = 0;		// of `in`, for the end of a message
		Fds in_fds;			// of who administers: came with `in`; the next message takes them
		std::string out;
		Fds out_fds;			// go with the first byte of `out` to be sent
		Clock::time_point since;	// when the message in `in`, or the answer in `out`, began
		bool pending = false;		// its call is to be answered later
		bool oneway = false;		// and that is not to be sent
		bool closing = false;		// answer, then close
		short polled = 0;		// what poll() said of it

		bool waits() const { return !out.empty() || (!pending && !in.empty()); }
		bool message_complete();
		bool ready() { return !pending && !closing && out.empty() && message_complete(); }
	};
	using Clients = std::list<Client>;

	VarlinkServer(UniqueFd fd, Handler handler) : fd_(std::move(fd)), handler_(std::move(handler)) {}

	void accept_clients();
	bool accept_one();			// false: nobody waits, or svd has no descriptor left
	void serve_clients(bool administrators, Clock::time_point end);
	bool serve(Client &client);		// false: close it
	bool read_from(Client &client);
	bool write_to(Client &client);
	bool handle_message(Client &client);
	void put(Client &client, Reply reply, bool more);
	bool refuse(Client &client, const std::string &reason);
	Clients::iterator close(Clients::iterator client);
	Client *find(uint64_t id);
	bool has_much_unread(const Client &client) const;
	void drop_slow_clients();
	void tell(const Client &client, const std::string &why);

	UniqueFd fd_;
	Handler handler_;
	Clients clients_;	// those that were served last are the last
	std::chrono::milliseconds patience_ = kClientPatience;
	uint64_t last_id_ = 0;
	uint64_t calls_ = 0;	// so far
	Clock::time_point accept_from_{};	// not before
	LogBudget budget_;	// for messages about clients that do not administer
};

}	// namespace svd

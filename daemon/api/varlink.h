// SPDX-License-Identifier: GPL-2.0
// The Varlink side of svd: JSON messages, each ended by a NUL byte, over a Unix socket. This file owns the socket and
// the clients' buffers; it knows nothing of pools. main.cc creates it, commands.cc is what it calls. A client that
// sends garbage, too much, or does not read its answers is told why, if that is still possible, and closed.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "daemon/base/result.h"
#include "daemon/base/socket.h"

namespace svd {

using Json = nlohmann::json;

inline constexpr size_t kMaxMessage = 1u << 20;
inline constexpr size_t kMaxClients = 256;
inline constexpr auto kPatienceCheck = std::chrono::seconds(1);
inline constexpr auto kClientPatience = std::chrono::seconds(30);	// for the rest of a message, or for reading ours

// What a call is answered with: parameters, or the name of an error and its parameters. Descriptors go with call and
// reply; a parameter "fd" is a position among them.
struct Reply {
	std::string error;
	Json parameters = Json::object();
	Fds fds = {};
};

class VarlinkServer {
public:
	using Handler = std::function<Reply(const std::string &method, const Json &parameters, const Fds &fds)>;
	using Clock = std::chrono::steady_clock;

	// Listens on `path` (replacing a socket that nobody listens on), mode 0600.
	static Result<VarlinkServer> listen(const std::string &path, Handler handler);
	// Serves a socket that listens already: systemd's, where clients wait while svd is not there.
	static Result<VarlinkServer> take(UniqueFd fd, Handler handler);

	// One round of poll(): serves what is ready, waits at most `wait`. True: one of `others` is readable, which ends
	// the wait as well.
	bool turn(std::chrono::milliseconds wait, std::span<const int> others);

	// Answers who has asked, and takes nobody new: those wait for the next svd where the socket is systemd's.
	void finish(std::chrono::milliseconds patience);

	size_t clients() const { return clients_.size(); }

private:
	struct Client {
		UniqueFd fd;
		std::string in;
		Fds in_fds;			// came with `in`; the next message takes them
		std::string out;
		Fds out_fds;			// go with the first byte of `out` to be sent
		Clock::time_point since;	// when the message in `in`, or the answer in `out`, began
		bool closing = false;		// answer, then close

		bool waits() const { return !in.empty() || !out.empty(); }
	};

	VarlinkServer(UniqueFd fd, Handler handler) : fd_(std::move(fd)), handler_(std::move(handler)) {}

	void accept_clients();
	bool read_from(Client &client);		// false: close it
	bool write_to(Client &client);
	void handle_messages(Client &client);	// up to one whose answer has descriptors: that goes out first
	void handle_message(Client &client, const std::string &text);
	void refuse(Client &client, const std::string &reason);
	void drop_slow_clients();

	UniqueFd fd_;
	Handler handler_;
	std::list<Client> clients_;
};

// A call as the protocol has it. Empty method: not a call, and `error` says why.
struct Call {
	std::string method;
	Json parameters = Json::object();
	bool oneway = false;
	std::string error;
};
Call parse_call(const std::string &text);

}	// namespace svd

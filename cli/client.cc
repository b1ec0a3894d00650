// SPDX-License-Identifier: GPL-2.0
// See client.h.
#include "cli/client.h"

#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/base/result.h"

namespace svctl {

namespace {

using nlohmann::json;

using Clock = std::chrono::steady_clock;
constexpr auto kPause = std::chrono::milliseconds(20);	// before a call that was not taken is repeated

class Socket {
public:
	explicit Socket(std::chrono::seconds timeout) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))
	{
		const timeval limit{static_cast<time_t>(timeout.count()), 0};
		setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	}
	~Socket() { close(fd_); }
	Socket(const Socket &) = delete;
	Socket &operator=(const Socket &) = delete;
	int fd() const { return fd_; }

private:
	int fd_;
};

Answer unreachable(const std::string &path, int error)
{
	if (error == EACCES || error == EPERM)
		return failed(kExitPermission, fmt::format("no permission to use {}: svd leaves it open to all, and somebody has "
							   "closed it, or a directory above it. Run svctl as root, or try: "
							   "systemctl restart svd.socket", path));
	return failed(kExitUnreachable, fmt::format("svd does not answer on {} ({}): is it running? "
						    "Try: systemctl start svd", path, strerror(error)));
}

bool send_all(int fd, const std::string &text, const svd::Fds &fds)
{
	size_t sent = 0;
	while (sent < text.size()) {
		const ssize_t n = svd::send_with_fds(fd, std::string_view(text).substr(sent),
						     sent == 0 ? std::span(fds) : std::span<const svd::UniqueFd>());
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		sent += static_cast<size_t>(n);
	}
	return true;
}

// One message up to its NUL; what came behind it stays in `rest`. errno says why not (0: closed).
bool receive(int fd, std::string &text, std::string &rest, svd::Fds &fds)
{
	char buffer[65536];
	size_t end;
	while ((end = rest.find('\0')) == std::string::npos) {
		const ssize_t n = svd::receive_with_fds(fd, buffer, fds);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? 0 : errno;
			return false;
		}
		rest.append(buffer, static_cast<size_t>(n));
	}
	text = rest.substr(0, end);
	rest.erase(0, end + 1);
	return true;
}

// The progress that a reply tells of, if more is to come.
json progress_of(const std::string &text)
{
	const json reply = json::parse(text, nullptr, false);
	if (!reply.is_object() || !reply.value("continues", false))
		return nullptr;
	return reply.value("parameters", json::object()).value("progress", json::object());
}

// Errors of Varlink itself: svd took the call for a mistake.
std::string protocol_error(const std::string &name, const json &parameters)
{
	const auto named = [&](const char *key) { return parameters.value(key, std::string()); };
	if (name == "org.varlink.service.InvalidParameter")
		return fmt::format("svd does not take the parameter {}, or it is missing", named("parameter"));
	if (name == "org.varlink.service.MethodNotFound" || name == "org.varlink.service.InterfaceNotFound")
		return fmt::format("svd has no {}: are svd and svctl of one version?", named("method") + named("interface"));
	return name;
}

Answer interpret(const std::string &text)
{
	const json reply = json::parse(text, nullptr, false);
	if (reply.is_discarded() || !reply.is_object())
		return failed(kExitFailure, "svd sent something that is not JSON: are svd and svctl of one version?");
	Answer answer;
	answer.parameters = reply.value("parameters", json::object());
	if (!reply.contains("error"))
		return answer;
	answer.exit = answer.parameters.value("code", static_cast<int>(kExitUsage));
	answer.id = answer.parameters.value("id", svd::code_of(svd::id_of(static_cast<svd::Code>(answer.exit))));
	answer.message = answer.parameters.value("message", protocol_error(reply["error"].get<std::string>(),
									   answer.parameters));
	return answer;
}

Answer no_answer(int error, std::chrono::seconds timeout)
{
	if (error == EAGAIN || error == EWOULDBLOCK)
		return failed(kExitTimeout, fmt::format("svd did not answer within {} s; it may still carry the command "
							"out: see svctl status", timeout.count()));
	return failed(kExitUnreachable, "svd closed the connection before it answered: see its log");
}

// Nothing: svd was on its way out and has not taken the call, so that it may be made again.
std::optional<Answer> call_once(const sockaddr_un &address, const std::string &message, const svd::Fds &fds,
				std::chrono::seconds timeout, const std::function<void(const json &progress)> &report)
{
	Socket socket(timeout);
	if (connect(socket.fd(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) < 0) {
		if (errno == EAGAIN)	// as many as the kernel keeps for it wait to be let in
			return failed(kExitTimeout, fmt::format("svd took no call within {} s, and nothing was changed: "
								"journalctl -u svd says what it waits for",
								timeout.count()));
		return unreachable(address.sun_path, errno);
	}
	std::string text, rest;
	svd::Fds received;
	const bool sent = send_all(socket.fd(), message, fds);
	const bool shut = !sent && (errno == EPIPE || errno == ECONNRESET);
	// Who is refused at the door may find it closed for its call, and why behind it.
	bool there = (sent || shut) && receive(socket.fd(), text, rest, received);
	if (!there && shut)
		return std::nullopt;
	while (there && report) {
		const json progress = progress_of(text);
		if (progress.is_null())
			break;
		report(progress);
		there = receive(socket.fd(), text, rest, received);
	}
	if (!there)
		return no_answer(errno, timeout);
	Answer answer = interpret(text);
	answer.fds = std::move(received);
	return answer;
}

}	// namespace

Answer failed(int exit, std::string message)
{
	return {exit, std::move(message), svd::code_of(svd::id_of(static_cast<svd::Code>(exit))), json::object(), {}};
}

Answer call(const std::string &socket_path, const std::string &method, const json &parameters, const svd::Fds &fds,
	    std::chrono::seconds timeout, const std::function<void(const json &progress)> &report)
{
	sockaddr_un address{};
	address.sun_family = AF_UNIX;
	if (socket_path.size() >= sizeof(address.sun_path))
		return failed(kExitUsage, fmt::format("socket path {} is too long", socket_path));
	std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);

	json request = {{"method", method}, {"parameters", parameters}};
	if (report)
		request["more"] = true;
	std::string message;
	try {
		message = request.dump();
	} catch (const json::type_error &) {
		return failed(kExitUsage, "a name or a path is not UTF-8, and svd takes no other: type it in a terminal whose "
					  "locale is UTF-8 (locale charmap); a device has other paths in /dev/disk");
	}
	message.push_back('\0');
	const auto end = Clock::now() + timeout;
	while (true) {
		if (auto answer = call_once(address, message, fds, timeout, report))
			return *std::move(answer);
		if (Clock::now() >= end)
			return no_answer(EAGAIN, timeout);
		std::this_thread::sleep_for(kPause);
	}
}

}	// namespace svctl

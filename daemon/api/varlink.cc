// SPDX-License-Identifier: GPL-2.0
// See varlink.h.
#include "daemon/api/varlink.h"

#include <cerrno>
#include <cstring>
#include <iterator>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

bool somebody_listens(const sockaddr_un &address)
{
	UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	return connect(probe.get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == 0;
}

}	// namespace

Call parse_call(const std::string &text)
{
	Call call;
	const Json json = Json::parse(text, nullptr, false);
	if (json.is_discarded() || !json.is_object()) {
		call.error = "message is not a JSON object";
		return call;
	}
	if (!json.contains("method") || !json["method"].is_string()) {
		call.error = "message has no \"method\"";
		return call;
	}
	if (json.contains("parameters") && !json["parameters"].is_object() && !json["parameters"].is_null()) {
		call.error = "\"parameters\" is not an object";
		return call;
	}
	call.method = json["method"].get<std::string>();
	if (json.contains("parameters") && json["parameters"].is_object())
		call.parameters = json["parameters"];
	call.oneway = json.contains("oneway") && json["oneway"] == true;
	return call;
}

Result<VarlinkServer> VarlinkServer::listen(const std::string &path, Handler handler)
{
	sockaddr_un address{};
	address.sun_family = AF_UNIX;
	if (path.size() >= sizeof(address.sun_path))
		return Error{Code::kUsage, "listen on", path, "the path is too long for a socket", ""};
	std::memcpy(address.sun_path, path.c_str(), path.size() + 1);

	if (somebody_listens(address))
		return Error{Code::kBusy, "listen on", path, "another svd listens there", "stop it first"};
	unlink(path.c_str());
	UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	const mode_t mask = umask(0177);
	const int bound = bind(fd.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address));
	const int error = errno;
	umask(mask);
	if (bound < 0)
		return errno_error(error, "bind", path);
	if (::listen(fd.get(), SOMAXCONN) < 0)
		return errno_error(errno, "listen on", path);
	return VarlinkServer(std::move(fd), std::move(handler));
}

Result<VarlinkServer> VarlinkServer::take(UniqueFd fd, Handler handler)
{
	const int flags = fcntl(fd.get(), F_GETFL);
	if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) < 0)
		return errno_error(errno, "take over", "systemd's socket");
	return VarlinkServer(std::move(fd), std::move(handler));
}

bool VarlinkServer::turn(std::chrono::milliseconds wait, std::span<const int> others)
{
	std::vector<pollfd> fds = {{fd_.get(), POLLIN, 0}};
	if (clients_.size() >= kMaxClients)
		fds[0].events = 0;
	if (std::any_of(clients_.begin(), clients_.end(), [](const Client &client) { return client.waits(); }))
		wait = std::min<std::chrono::milliseconds>(wait, kPatienceCheck);
	for (const Client &client : clients_) {
		short events = client.out.empty() ? POLLIN : POLLOUT;	// no new call before the last is answered
		fds.push_back({client.fd.get(), events, 0});
	}
	for (int fd : others)
		fds.push_back({fd, POLLIN, 0});
	if (poll(fds.data(), fds.size(), static_cast<int>(wait.count())) < 0)
		return false;

	size_t i = 1;
	for (auto client = clients_.begin(); client != clients_.end(); i++) {
		bool keep = true;
		if (fds[i].revents & POLLOUT)
			keep = write_to(*client);
		else if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			keep = read_from(*client);
		client = keep ? std::next(client) : clients_.erase(client);
	}
	drop_slow_clients();
	if (fds[0].revents & POLLIN)
		accept_clients();
	return std::any_of(fds.end() - static_cast<ptrdiff_t>(others.size()), fds.end(),
			   [](const pollfd &fd) { return fd.revents != 0; });
}

void VarlinkServer::finish(std::chrono::milliseconds patience)
{
	fd_.reset();	// poll() passes over it
	const auto end = Clock::now() + patience;
	while (!clients_.empty() && Clock::now() < end)
		turn(std::chrono::milliseconds(10), {});
}

void VarlinkServer::accept_clients()
{
	while (clients_.size() < kMaxClients) {
		UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
		if (!fd)
			return;
		clients_.push_back(Client{std::move(fd), {}, {}, {}, {}, Clock::now(), false});
	}
}

bool VarlinkServer::read_from(Client &client)
{
	char buffer[65536];
	const ssize_t n = receive_with_fds(client.fd.get(), buffer, client.in_fds);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		if (!client.in.empty())
			log::info("client closed in the middle of a message ({} bytes of it)", client.in.size());
		return false;
	}
	if (client.in.empty())
		client.since = Clock::now();
	client.in.append(buffer, static_cast<size_t>(n));
	handle_messages(client);
	return client.out.empty() ? !client.closing : write_to(client);
}

void VarlinkServer::handle_messages(Client &client)
{
	size_t begin = 0;
	while (!client.closing && client.out_fds.empty()) {
		const size_t end = client.in.find('\0', begin);
		if ((end == std::string::npos ? client.in.size() : end) - begin > kMaxMessage) {
			refuse(client, fmt::format("message is longer than {} bytes", kMaxMessage));
			break;
		}
		if (end == std::string::npos)
			break;
		handle_message(client, client.in.substr(begin, end - begin));
		begin = end + 1;
	}
	client.in.erase(0, begin);
	if (client.closing)
		client.in.clear();
}

void VarlinkServer::handle_message(Client &client, const std::string &text)
{
	const Call call = parse_call(text);
	if (call.method.empty()) {
		refuse(client, call.error.empty() ? "\"method\" is empty" : call.error);
		return;
	}
	Reply reply = handler_(call.method, call.parameters, std::exchange(client.in_fds, {}));
	if (call.oneway)
		return;
	std::move(reply.fds.begin(), reply.fds.end(), std::back_inserter(client.out_fds));
	Json json = {{"parameters", reply.parameters}};
	if (!reply.error.empty())
		json["error"] = reply.error;
	if (client.out.empty())
		client.since = Clock::now();
	client.out += json.dump(-1, ' ', false, Json::error_handler_t::replace);
	client.out.push_back('\0');
}

void VarlinkServer::refuse(Client &client, const std::string &reason)
{
	log::warning("closing a client: {}", reason);
	const Json json = {{"error", "io.svctl.BadMessage"},
			   {"parameters", {{"code", 2}, {"id", code_of(Id::kUsage)}, {"message", reason}, {"attempted", ""}, {"object", ""},
					   {"cause", reason}, {"hint", ""}}}};
	client.out += json.dump();
	client.out.push_back('\0');
	client.closing = true;
}

bool VarlinkServer::write_to(Client &client)
{
	const ssize_t n = send_with_fds(client.fd.get(), client.out, client.out_fds);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	client.out_fds.clear();
	client.out.erase(0, static_cast<size_t>(n));
	client.since = Clock::now();
	if (client.out.empty() && !client.closing && !client.in.empty())
		handle_messages(client);
	return !(client.out.empty() && client.closing);
}

void VarlinkServer::drop_slow_clients()
{
	const auto now = Clock::now();
	clients_.remove_if([&](const Client &client) {
		if (!client.waits() || now - client.since < kClientPatience)
			return false;
		log::warning("closing a client: {} for {} s", client.in.empty() ? "did not read its answer" :
			    "half a message", kClientPatience.count());
		return true;
	});
}

}	// namespace svd

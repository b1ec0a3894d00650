// SPDX-License-Identifier: GPL-2.0
// See varlink.h.
#include "daemon/api/varlink.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/api/errors.h"
#include "daemon/base/log.h"
#include "daemon/base/waiting.h"

namespace svd {

namespace {

constexpr int kMostNewOnes = 64;	// clients taken in a turn

bool somebody_listens(const sockaddr_un &address)
{
	UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	return connect(probe.get(), reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == 0;
}

int poll_idle(std::vector<pollfd> &fds, std::chrono::milliseconds wait)
{
	const Idle idle;
	return poll(fds.data(), fds.size(), static_cast<int>(wait.count()));
}

// How deep objects and arrays are in each other; of what is no JSON, anything.
size_t nesting(std::string_view text)
{
	size_t level = 0, deepest = 0;
	bool in_string = false;
	for (size_t i = 0; i < text.size(); i++) {
		const char c = text[i];
		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '[' || c == '{'))
			deepest = std::max(deepest, ++level);
		else if (!in_string && (c == ']' || c == '}') && level > 0)
			level--;
	}
	return deepest;
}

// Memory of svd is locked.
void free_if_empty(std::string &text)
{
	if (text.empty())
		std::string().swap(text);
}

Reply too_much_unread(const Request &request)
{
	return error_reply(Error{Code::kBusy, "carry out", request.call.method,
				 fmt::format("more than {} MiB of answers wait to be read by user {}", kMostUnread >> 20,
					     request.peer.uid), "read them, or close those connections"});
}

}	// namespace

// The parser does not recurse, but whoever copies what it has made does, a level of the stack each.
Call parse_call(const std::string &text)
{
	Call call;
	if (nesting(text) > kMostNesting) {
		call.error = fmt::format("message is nested deeper than {} levels", kMostNesting);
		return call;
	}
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
	call.more = json.contains("more") && json["more"] == true;
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
	const mode_t mask = umask(0111);
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

void VarlinkServer::turn(std::chrono::milliseconds wait, std::span<pollfd> others)
{
	std::vector<pollfd> fds = {{fd_.get(), POLLIN, 0}};
	if (accept_from_ > Clock::now()) {
		fds[0].events = 0;
		wait = std::min<std::chrono::milliseconds>(wait, kPatienceCheck);
	}
	for (Client &client : clients_) {
		short events = POLLIN;
		if (!client.out.empty())
			events = POLLOUT;
		else if (client.pending)
			events = 0;	// POLLHUP alone: it may have shut its own side only
		else if (client.ready())
			wait = std::chrono::milliseconds(0);
		if (client.waits())
			wait = std::min<std::chrono::milliseconds>(wait, kPatienceCheck);
		fds.push_back({client.fd.get(), events, 0});
	}
	fds.insert(fds.end(), others.begin(), others.end());
	const bool polled = poll_idle(fds, wait) >= 0;
	for (size_t i = 0; i < others.size(); i++)
		others[i].revents = polled ? fds[fds.size() - others.size() + i].revents : 0;
	if (!polled)
		return;

	size_t i = 1;
	for (Client &client : clients_)
		client.polled = fds[i++].revents;
	const auto end = Clock::now() + kTurn;
	serve_clients(true, end);
	serve_clients(false, end);
	if (fds[0].revents & POLLIN)
		accept_clients();
	drop_slow_clients();
}

void VarlinkServer::serve_clients(bool administrators, Clock::time_point end)
{
	bool served = false;
	auto next = clients_.begin();
	for (size_t left = clients_.size(); left > 0 && !(served && Clock::now() >= end); left--) {
		const auto client = next++;
		if ((client->role == Role::kAdminister) != administrators || (client->polled == 0 && !client->ready()))
			continue;
		served = true;
		if (serve(*client))
			clients_.splice(clients_.end(), clients_, client);
		else
			close(client);
	}
}

void VarlinkServer::finish(std::chrono::milliseconds patience)
{
	fd_ = UniqueFd();	// poll() passes over what is closed
	// Whoever sends from here on gets EPIPE; what was sent before is still there to be read, to its end.
	for (Client &client : clients_)
		shutdown(client.fd.get(), SHUT_RD);
	auto end = Clock::now() + patience;
	while (!clients_.empty() && Clock::now() < end) {
		const uint64_t before = calls_;
		turn(std::chrono::milliseconds(10), {});
		if (calls_ != before)
			end = Clock::now() + patience;
	}
}

// ---- coming and going ----

void VarlinkServer::accept_clients()
{
	for (int i = 0; i < kMostNewOnes && accept_one(); i++)
		;
}

bool VarlinkServer::accept_one()
{
	UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
	if (!fd) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log::error(Id::kClientRefused, "cannot take another client: {}", strerror(errno));
			accept_from_ = Clock::now() + kPatienceCheck;
		}
		return errno == EINTR || errno == ECONNABORTED;
	}
	auto peer = peer_of(fd.get());
	if (!peer.ok())
		return true;
	Client client;
	client.id = ++last_id_;
	client.fd = std::move(fd);
	client.peer = std::move(peer).value();
	client.role = handler_.role(client.peer);
	client.since = Clock::now();
	if (client.role != Role::kAdminister)	// no call that it may make takes any
		take_no_fds(client.fd.get());
	const auto is_like = [&](const Client &other) { return other.role == client.role; };
	const auto is_same = [&](const Client &other) { return is_like(other) && other.peer.uid == client.peer.uid; };
	const auto like = std::count_if(clients_.begin(), clients_.end(), is_like);
	const auto same = std::count_if(clients_.begin(), clients_.end(), is_same);
	if (!has_room(client.role, static_cast<size_t>(like), static_cast<size_t>(same))) {
		put(client, error_reply(Error{Code::kBusy, "serve", client.peer.str(), "too many clients are there already",
					      "repeat the command"}), false);
		write_to(client);
		return true;
	}
	clients_.push_back(std::move(client));
	return true;
}

VarlinkServer::Clients::iterator VarlinkServer::close(Clients::iterator client)
{
	if (client->pending)
		handler_.closed(client->id);
	return clients_.erase(client);
}

VarlinkServer::Client *VarlinkServer::find(uint64_t id)
{
	const auto found = std::find_if(clients_.begin(), clients_.end(), [&](const Client &c) { return c.id == id; });
	return found == clients_.end() ? nullptr : &*found;
}

void VarlinkServer::drop_slow_clients()
{
	const auto now = Clock::now();
	for (auto client = clients_.begin(); client != clients_.end();) {
		if (!client->waits() || client->ready() || now - client->since < patience_) {
			client++;
			continue;
		}
		tell(*client, fmt::format("{} for {} s", client->out.empty() ? "half a message" : "did not read its answer",
					  std::chrono::duration_cast<std::chrono::seconds>(patience_).count()));
		client = close(client);
	}
}

// Why it is closed.
void VarlinkServer::tell(const Client &client, const std::string &why)
{
	const auto left_out = client.role == Role::kAdminister ? 0 : budget_.take(Clock::now());
	if (left_out)
		log::warning(Id::kClientClosed, "closing a client ({}): {}{}", client.peer.str(), why, *left_out == 0 ? "" :
			     fmt::format("; {} more like that were not told", *left_out));
}

// ---- calls ----

bool VarlinkServer::Client::message_complete()
{
	searched = in.find('\0', searched);
	if (searched != std::string::npos)
		return true;
	searched = in.size();
	return false;
}

bool VarlinkServer::serve(Client &client)
{
	const short events = client.polled;
	if (events & POLLOUT) {
		if (!write_to(client))
			return false;
	} else if (client.pending || !client.out.empty()) {
		return (events & (POLLHUP | POLLERR)) == 0;
	} else if (!client.ready() && (events & (POLLIN | POLLHUP | POLLERR))) {
		if (!read_from(client))
			return false;
	}
	return client.ready() ? handle_message(client) : true;
}

bool VarlinkServer::read_from(Client &client)
{
	char buffer[65536];
	// Of others descriptors are not even opened: to close one may take as long as its file system likes.
	const ssize_t n = client.role == Role::kAdminister ? receive_with_fds(client.fd.get(), buffer, client.in_fds) :
							     recv(client.fd.get(), buffer, sizeof(buffer), 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		if (!client.in.empty())
			tell(client, fmt::format("it ended in the middle of a message ({} bytes of it)", client.in.size()));
		return false;
	}
	if (client.in.empty())
		client.since = Clock::now();
	client.in.append(buffer, static_cast<size_t>(n));
	const size_t most = client.role == Role::kNone ? kMaxStrangersMessage : kMaxMessage;
	const size_t length = client.message_complete() ? client.searched : client.in.size();
	return length <= most || refuse(client, fmt::format("message is longer than {} bytes", most));
}

bool VarlinkServer::handle_message(Client &client)
{
	Request request{parse_call(client.in.substr(0, client.searched)), std::exchange(client.in_fds, {}), client.peer,
			client.role, client.id};
	client.in.erase(0, client.searched + 1);
	free_if_empty(client.in);
	client.searched = 0;
	client.since = Clock::now();
	if (request.call.method.empty())
		return refuse(client, request.call.error.empty() ? "\"method\" is empty" : request.call.error);
	calls_++;
	client.oneway = request.call.oneway;
	std::optional<Reply> reply = has_much_unread(client) ? too_much_unread(request) : handler_.call(std::move(request));
	client.pending = !reply;
	if (!reply || client.oneway)
		return true;
	put(client, *std::move(reply), false);
	return write_to(client);
}

// A call without an answer adds nothing to it.
bool VarlinkServer::has_much_unread(const Client &client) const
{
	size_t unread = 0;
	for (const Client &other : clients_)
		unread += other.peer.uid == client.peer.uid ? other.out.size() : 0;
	return client.role != Role::kAdminister && !client.oneway && unread > kMostUnread;
}

void VarlinkServer::put(Client &client, Reply reply, bool more)
{
	std::move(reply.fds.begin(), reply.fds.end(), std::back_inserter(client.out_fds));
	Json json = {{"parameters", std::move(reply.parameters)}};
	if (!reply.error.empty())
		json["error"] = reply.error;
	if (more)
		json["continues"] = true;
	if (client.out.empty())
		client.since = Clock::now();
	client.out += json.dump(-1, ' ', false, Json::error_handler_t::replace);
	client.out.push_back('\0');
}

void VarlinkServer::answer(uint64_t id, Reply reply)
{
	Client *const client = find(id);
	if (client == nullptr || !client->pending)
		return;
	client->pending = false;
	if (!client->oneway)
		put(*client, std::move(reply), false);
}

bool VarlinkServer::report(uint64_t id, const Json &parameters)
{
	Client *const client = find(id);
	if (client == nullptr || !client->pending || !client->out.empty())
		return false;
	put(*client, Reply{"", parameters}, true);
	return true;
}

// True: it is still to be told why.
bool VarlinkServer::refuse(Client &client, const std::string &reason)
{
	tell(client, reason);
	Reply reply = error_reply(Error{Code::kUsage, reason});
	reply.error = "io.svctl.BadMessage";
	client.in.clear();
	client.in_fds.clear();
	client.searched = 0;
	client.closing = true;
	put(client, std::move(reply), false);
	return write_to(client);
}

bool VarlinkServer::write_to(Client &client)
{
	const ssize_t n = send_with_fds(client.fd.get(), client.out, client.out_fds);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	client.out_fds.clear();
	client.out.erase(0, static_cast<size_t>(n));
	if (!client.out.empty())
		return true;
	free_if_empty(client.out);
	client.since = Clock::now();
	return !client.closing;
}

}	// namespace svd

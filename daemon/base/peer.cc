// SPDX-License-Identifier: GPL-2.0
// See peer.h.
#include "daemon/base/peer.h"

#include <cerrno>

#include <fmt/format.h>
#include <sys/socket.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

namespace svd {

std::string Peer::str() const { return fmt::format("user {}, pid {}", uid, pid); }

static Status add_supplementary(int socket, std::vector<gid_t> &groups)
{
	std::vector<gid_t> more(64);
	for (;;) {
		socklen_t bytes = static_cast<socklen_t>(more.size() * sizeof(gid_t));
		if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, more.data(), &bytes) == 0) {
			groups.insert(groups.end(), more.begin(), more.begin() + bytes / sizeof(gid_t));
			return {};
		}
		if (errno != ERANGE || bytes <= more.size() * sizeof(gid_t))
			return errno_error(errno, "ask for the groups of", "a client");
		more.resize(bytes / sizeof(gid_t));
	}
}

Result<Peer> peer_of(int socket)
{
	ucred who{};
	socklen_t bytes = sizeof(who);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &bytes) < 0)
		return errno_error(errno, "ask who is", "a client");
	Peer peer{who.uid, who.pid, {who.gid}};
	SV_TRY(add_supplementary(socket, peer.groups));
	return peer;
}

}  // namespace svd

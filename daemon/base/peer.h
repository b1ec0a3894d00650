// SPDX-License-Identifier: GPL-2.0
// Who is at the other end of a Unix socket, as the kernel says.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "daemon/base/result.h"

namespace svd {

struct Peer {
	uid_t uid = 0;
	pid_t pid = 0;
	std::vector<gid_t> groups;  // the primary one first
	std::string str() const;    // "user 1000, pid 77"
};

// As it was when it connected.
Result<Peer> peer_of(int socket);

}  // namespace svd

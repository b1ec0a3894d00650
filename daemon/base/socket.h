// SPDX-License-Identifier: GPL-2.0
// Bytes over a Unix socket, with file descriptors beside them (SCM_RIGHTS). Used by both ends of svd's socket.
#pragma once

#include <sys/types.h>

#include <span>
#include <string_view>
#include <vector>

#include "daemon/base/unique_fd.h"

namespace svd {

using Fds = std::vector<UniqueFd>;

inline constexpr size_t kMaxFds = 4;  // that wait to be used by a message

// As send(); the descriptors, at most kMaxFds, go with the first byte. Where the other end takes none (take_no_fds()) the bytes
// go alone: it has an answer to that.
ssize_t send_with_fds(int socket, std::string_view bytes, std::span<const UniqueFd> fds);
// As recv(); appends the descriptors that came. More than kMaxFds: EMSGSIZE.
ssize_t receive_with_fds(int socket, std::span<char> buffer, Fds &fds);
// From now on who sends a descriptor there gets EPERM; kernels before 6.16 do nothing. What was sent before still comes, to who
// asks for it: recv() opens none.
void take_no_fds(int socket);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// See socket.h.
#include "daemon/base/socket.h"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace svd {

union Control {
	cmsghdr align;
	char space[CMSG_SPACE(kMaxFds * sizeof(int))];
};

static void put_fds(msghdr &message, std::span<const UniqueFd> fds)
{
	message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
	cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
	for (size_t i = 0; i < fds.size(); i++) {
		const int fd = fds[i].get();
		std::memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	}
}

static void take_fds(msghdr &message, Fds &fds)
{
	for (cmsghdr *c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;
			std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			fds.emplace_back(fd);
		}
	}
}

ssize_t send_with_fds(int socket, std::string_view bytes, std::span<const UniqueFd> fds)
{
	if (fds.size() > kMaxFds) {
		errno = EMSGSIZE;
		return -1;
	}
	Control control{};
	iovec data{const_cast<char *>(bytes.data()), bytes.size()};
	msghdr message{};
	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = control.space;
	if (!fds.empty())
		put_fds(message, fds);
	const ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL);
	if (n >= 0 || errno != EPERM || fds.empty())
		return n;
	return send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

ssize_t receive_with_fds(int socket, std::span<char> buffer, Fds &fds)
{
	Control control{};
	iovec data{buffer.data(), buffer.size()};
	msghdr message{};
	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = control.space;
	message.msg_controllen = sizeof(control.space);
	const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return n;
	take_fds(message, fds);
	if ((message.msg_flags & MSG_CTRUNC) == 0 && fds.size() <= kMaxFds)
		return n;
	errno = EMSGSIZE;
	return -1;
}

void take_no_fds(int socket)
{
	const int off = 0;
	setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

}  // namespace svd

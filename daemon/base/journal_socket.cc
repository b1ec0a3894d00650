// SPDX-License-Identifier: GPL-2.0
// See journal_socket.h.
#include "daemon/base/journal_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

namespace svd {

// "FIELD=value\n", or, where the value has lines, "FIELD\n", its length as le64, the value, "\n".
void JournalEntry::add(std::string_view field, std::string_view value)
{
	if (value.empty())
		return;
	bytes_ += field;
	if (value.find('\n') == std::string_view::npos) {
		bytes_ += '=';
	} else {
		bytes_ += '\n';
		for (int shift = 0; shift < 64; shift += 8)
			bytes_ += static_cast<char>(static_cast<uint64_t>(value.size()) >> shift);
	}
	bytes_ += value;
	bytes_ += '\n';
}

std::optional<JournalSocket> JournalSocket::open(std::string path)
{
	UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (!fd || path.size() >= sizeof(sockaddr_un::sun_path))
		return std::nullopt;
	return JournalSocket(std::move(path), std::move(fd));
}

bool JournalSocket::send(const JournalEntry &entry) const
{
	sockaddr_un address{};
	address.sun_family = AF_UNIX;
	std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
	const std::string &bytes = entry.bytes();
	return sendto(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
		      reinterpret_cast<const sockaddr *>(&address), sizeof(address)) == static_cast<ssize_t>(bytes.size());
}

bool leads_to_journal(int fd, const char *journal_stream)
{
	struct stat st {};
	return journal_stream != nullptr && fstat(fd, &st) == 0 &&
	       fmt::format("{}:{}", st.st_dev, st.st_ino) == journal_stream;
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Entries with fields for systemd's journal, by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). Not
// by sd_journal_send(): that waits while the journal's queue is full, for ever if journald has been stopped. log.cc uses it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "daemon/base/unique_fd.h"

namespace svd {

inline constexpr char kJournalSocket[] = "/run/systemd/journal/socket";

class JournalEntry {
 public:
	// Nothing where `value` is empty. Whatever is in it, it makes no other field.
	void add(std::string_view field, std::string_view value);
	const std::string &bytes() const { return bytes_; }

 private:
	std::string bytes_;
};

class JournalSocket {
 public:
	// Nothing: there is no descriptor for it, or the path is too long.
	static std::optional<JournalSocket> open(std::string path);
	// False: not taken at once.
	bool send(const JournalEntry &entry) const;

 private:
	JournalSocket(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

	std::string path_;  // found anew each time: journald may be started again
	UniqueFd fd_;
};

// Does `fd` lead to the journal? `journal_stream` is $JOURNAL_STREAM, "DEVICE:INODE" of what systemd gave to the service, or
// null: what inherited it may have its output elsewhere.
bool leads_to_journal(int fd, const char *journal_stream);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Keeps file systems frozen while a snapshot of what they lie on is made.
//
// A frozen file system outlives whoever froze it, and whoever writes to it waits. So each is frozen by a process of its own,
// which thaws it when it is told to, when the deadline is over, and when svctl has gone, however that went: it only waits on a
// pipe, and leaves signals to others. FIFREEZE itself may hang with its device; then svctl gives up at the deadline, and that
// process thaws the file system whenever FIFREEZE returns.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cli/client.h"
#include "daemon/base/mounts.h"
#include "daemon/base/socket.h"

namespace svctl {

class Freezer {
public:
	using Clock = std::chrono::steady_clock;

	explicit Freezer(Clock::time_point deadline) : deadline_(deadline) {}
	// All, side by side. If one cannot be frozen in time none is, sooner or later.
	Answer freeze(const std::vector<svd::FileSystem> &all);
	// A failure: some had been thawed before this.
	Answer thaw();

private:
	struct Guard {
		std::string path;
		svd::UniqueFd pipe;
	};
	Answer start(const svd::FileSystem &one);
	char word_of(const Guard &guard, Clock::time_point until) const;	// 0: nothing came

	Clock::time_point deadline_;
	std::vector<Guard> guards_;	// whoever closes the pipe has it thawed
};

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// Keeps file systems frozen while a snapshot of what they lie on is made.
//
// A frozen file system outlives whoever froze it, and whoever writes to it waits. So each is frozen by a process of its own, in
// a session of its own and with all signals blocked, which thaws it when it is told to, when the deadline is over, and when
// svctl has gone, however that went: it only waits for a pipe. FIFREEZE itself may hang with its device; then svctl gives up at
// the deadline, and that process thaws the file system as soon as FIFREEZE returns. Where such a process was killed svctl thaws
// itself; only who kills both, as by SIGKILL to a whole cgroup, leaves a file system frozen.
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
	// A failure: one was thawed before this, or may not be thawed yet.
	Answer thaw();

	struct Word {
		enum class What : int { kNone, kFrozen, kThawed, kTooLate, kFailed } what = What::kNone;
		int error = 0;		// of kFailed
	};

private:
	struct Guard {
		svd::FileSystem of;
		svd::UniqueFd pipe;	// whoever closes it has that thawed
		const std::string &path() const { return of.front().path; }
	};
	Answer start(const svd::FileSystem &one);
	Answer give_up(Answer refusal);
	Answer thawed(const Guard &guard);

	Clock::time_point deadline_;
	std::vector<Guard> guards_;
};

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// How far a job is, on a terminal's line of its own (standard error), and what ^C means meanwhile: it ends svctl, not
// the job. main.cc makes one for a command that may take long.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "cli/interrupt.h"

namespace svctl {

// "reading the dump: 45 % of 345M, 12 s left"
std::string progress_line(const nlohmann::json &progress);
// What svctl says when ^C ends it after such a report.
std::string farewell(const std::string &command, const nlohmann::json &progress);

class ProgressDisplay {
public:
	// at_first: what ^C says before there is a report. quiet: nothing is shown.
	ProgressDisplay(std::string command, const std::string &at_first, bool quiet);
	~ProgressDisplay();	// takes the line away
	ProgressDisplay(const ProgressDisplay &) = delete;
	ProgressDisplay &operator=(const ProgressDisplay &) = delete;

	void show(const nlohmann::json &progress);

private:
	std::string command_;
	InterruptNotice notice_;
	bool show_;
	bool shown_ = false;
};

}	// namespace svctl

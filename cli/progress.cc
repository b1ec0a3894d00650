// SPDX-License-Identifier: GPL-2.0
// See progress.h.
#include "cli/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include "cli/table.h"

namespace svctl {

using nlohmann::json;

namespace {

std::string duration(uint64_t seconds)
{
	if (seconds < 120)
		return fmt::format("{} s", seconds);
	return seconds < 7200 ? fmt::format("{} min", seconds / 60) : fmt::format("{} h", seconds / 3600);
}

}	// namespace

std::string progress_line(const json &progress)
{
	const uint64_t done = progress.value("done", uint64_t{0});
	const uint64_t total = progress.value("total", uint64_t{0});
	const std::string unit = progress.value("unit", "");
	std::string line = progress.value("what", "");
	if (total > 0)
		line += fmt::format(": {} % of {}", done * 100 / total,
				    unit == "bytes" ? human_size(total) : fmt::format("{} {}", total, unit));
	if (progress.contains("eta_s"))
		line += fmt::format(", {} left", duration(progress["eta_s"].get<uint64_t>()));
	return line;
}

std::string farewell(const std::string &command, const json &progress)
{
	if (command != "wait" && !progress.value("goes_on", false))
		return fmt::format("svctl: {}: interrupted", command);
	return fmt::format("svctl: job {0} goes on: svctl wait {0} follows it", progress.value("job", 0));
}

ProgressDisplay::ProgressDisplay(std::string command, const std::string &at_first, bool quiet)
	: command_(std::move(command)), notice_(at_first), show_(!quiet && isatty(STDERR_FILENO))
{
}

ProgressDisplay::~ProgressDisplay()
{
	if (shown_)
		fmt::print(stderr, "\r\033[K");
}

void ProgressDisplay::show(const json &progress)
{
	notice_.set(farewell(command_, progress));
	if (!show_)
		return;
	fmt::print(stderr, "\r\033[K{}", progress_line(progress));
	shown_ = true;
}

}	// namespace svctl

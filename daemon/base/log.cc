// SPDX-License-Identifier: GPL-2.0
// Writes log lines without ever waiting for whoever reads them.
#include "daemon/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <string>

namespace svd::log {

static std::atomic<int> g_level{static_cast<int>(Level::kInfo)};
static std::atomic<unsigned long> g_dropped{0};

void set_level(Level highest) { g_level = static_cast<int>(highest); }
unsigned long dropped() { return g_dropped; }

// True if a short line can be written at once. A pipe that polls writable has room for PIPE_BUF bytes.
static bool stderr_ready()
{
	pollfd p{STDERR_FILENO, POLLOUT, 0};
	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0;
}

void write(Level level, std::string_view text)
{
	if (static_cast<int>(level) > g_level)
		return;
	std::string line = fmt::format("<{}>{}", static_cast<int>(level), text.substr(0, PIPE_BUF - 8));
	for (char &c : line)
		if (c == '\n')
			c = ' ';
	line += '\n';
	if (!stderr_ready() || ::write(STDERR_FILENO, line.data(), line.size()) < 0)
		g_dropped++;
}

void write(Level level, Id id, std::string_view text)
{
	write(level, fmt::format("{} [{}]", text.substr(0, PIPE_BUF - 64), code_of(id)));
}

}  // namespace svd::log

// SPDX-License-Identifier: GPL-2.0
// Log lines to standard error with the priority prefix that journald reads ("<3>..."). Never blocks on a full pipe:
// svd must not wait for a logger that may itself wait for a volume; a line that does not fit is dropped and counted.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "daemon/base/result.h"

namespace svd::log {

enum class Level : int { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };

void set_level(Level highest);  // default kInfo
void write(Level level, std::string_view text);
void write(Level level, Id id, std::string_view text);	// "TEXT [CODE]"
unsigned long dropped();

template <typename... Args>
void error(fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kError, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kWarning, fmt::format(f, std::forward<Args>(args)...));
}
// Of what has a code.
template <typename... Args>
void error(Id id, fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kError, id, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(Id id, fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kWarning, id, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void notice(fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kNotice, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kInfo, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kDebug, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace svd::log

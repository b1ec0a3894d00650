// SPDX-License-Identifier: GPL-2.0
// Log messages: to systemd's journal with fields (journal_socket.h) where standard error leads there, else to standard
// error itself with the priority prefix of sd-daemon(3), "<3>...".
//
// No write waits: svd must not wait for a logger that may itself wait for a volume, or that somebody has stopped. What the
// journal does not take at once goes to standard error; what does not fit there either is dropped and counted, and the next
// message that gets through is followed by the count. From any thread.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

#include "daemon/base/result.h"

namespace svd::log {

enum class Level : int { kError = 3, kWarning = 4, kNotice = 5, kInfo = 6, kDebug = 7 };

// What a message is about: the journal's fields SV_POOL, SV_VOLUME and SV_DEVICE.
struct About {
	std::string pool = {};
	std::string volume = {};  // without the pool's name
	std::string device = {};
};

// All that this thread logs while it lives is about that. Of two that say something an inner one counts.
class Scope {
 public:
	explicit Scope(About about);
	~Scope();
	Scope(const Scope&) = delete;
	Scope &operator=(const Scope&) = delete;

 private:
	About outer_;
};
// For what runs by turns in one thread (fiber.h): each has its own.
About swap_about(About about);
const About &about();	// of this thread, now

void use_journal(const std::string &socket);  // from now on
void set_level(Level highest);                // default kInfo
void write(Level level, std::string_view text);         // what is no warning and no error
void write(Level level, Id id, std::string_view text);  // "TEXT [CODE]"
unsigned long dropped();

// Each of them has a code: what it is said of can be looked up.
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
void notice(Id id, fmt::format_string<Args...> f, Args&&... args)
{
	write(Level::kNotice, id, fmt::format(f, std::forward<Args>(args)...));
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

// SPDX-License-Identifier: GPL-2.0
// Writes log messages without ever waiting for whoever reads them. See log.h.
#include "daemon/base/log.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <mutex>

#include "daemon/base/journal_socket.h"

namespace svd::log {

static constexpr size_t kMost = 16384;  // bytes of a message

static std::atomic<int> g_level{static_cast<int>(Level::kInfo)};
static std::atomic<unsigned long> g_dropped{0};
static std::mutex g_lock;  // of what follows; never held while anything is waited for
static std::optional<JournalSocket> g_journal;
static unsigned long g_told;  // of those dropped
static thread_local About t_about;

void set_level(Level highest) { g_level = static_cast<int>(highest); }
unsigned long dropped() { return g_dropped; }

void use_journal(const std::string &socket)
{
	const std::lock_guard guard(g_lock);
	g_journal = JournalSocket::open(socket);
}

// ---- what messages are about ----

About swap_about(About about) { return std::exchange(t_about, std::move(about)); }

const About &about() { return t_about; }

Scope::Scope(About about) : outer_(t_about)
{
	if (!about.pool.empty())
		t_about.pool = std::move(about.pool);
	if (!about.volume.empty())
		t_about.volume = std::move(about.volume);
	if (!about.device.empty())
		t_about.device = std::move(about.device);
}

Scope::~Scope() { t_about = std::move(outer_); }

// ---- the two ways out ----

// A pipe that polls writable has room for PIPE_BUF bytes, and a stream socket for more. One that nobody reads any more
// polls writable, too, and a write to it is a SIGPIPE, which no caller need ignore.
static bool to_stderr(Level level, std::string_view text)
{
	std::string line = fmt::format("<{}>{}", static_cast<int>(level), text.substr(0, PIPE_BUF - 8));
	for (char &c : line)
		if (c == '\n')
			c = ' ';
	line += '\n';
	pollfd p{STDERR_FILENO, POLLOUT, 0};
	return poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP)) == POLLOUT &&
	       ::write(STDERR_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

static bool to_journal(Level level, const CodeText *code, std::string_view text)
{
	if (!g_journal)
		return false;
	JournalEntry entry;
	entry.add("MESSAGE", text.substr(0, kMost));
	entry.add("PRIORITY", std::to_string(static_cast<int>(level)));
	entry.add("SYSLOG_IDENTIFIER", "svd");
	entry.add("SV_POOL", t_about.pool);
	entry.add("SV_VOLUME", t_about.volume);
	entry.add("SV_DEVICE", t_about.device);
	if (code != nullptr) {
		entry.add("SV_CODE", code->code);
		entry.add("MESSAGE_ID", message_id(code->id));
	}
	return g_journal->send(entry);
}

static std::string with_code(Id id, std::string_view text)
{
	return fmt::format("{} [{}]", text.substr(0, PIPE_BUF - 64), code_of(id));
}

static bool put(Level level, const CodeText *code, std::string_view text)
{
	return to_journal(level, code, text) || to_stderr(level, text);
}

static void write(Level level, const CodeText *code, std::string_view text)
{
	if (static_cast<int>(level) > g_level)
		return;
	const std::lock_guard guard(g_lock);
	if (!put(level, code, text)) {
		g_dropped++;
		return;
	}
	const unsigned long lost = g_dropped - g_told;
	if (lost == 0)
		return;
	const About about = swap_about({});
	if (put(Level::kWarning, &code_text(Id::kLogDropped), with_code(Id::kLogDropped, fmt::format("{} earlier messages were dropped: "
								   "nobody took them", lost))))
		g_told += lost;
	swap_about(about);
}

void write(Level level, std::string_view text) { write(level, nullptr, text); }

void write(Level level, Id id, std::string_view text)
{
	write(level, &code_text(id), with_code(id, text));
}

}  // namespace svd::log

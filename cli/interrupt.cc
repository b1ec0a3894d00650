// SPDX-License-Identifier: GPL-2.0
// See interrupt.h. The handler itself writes and dies: no call that waits has to be woken, so none can be missed.
#include "cli/interrupt.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include <unistd.h>

namespace svctl {

namespace {

char g_text[512];
size_t g_length;	// written while SIGINT is blocked

// SA_RESETHAND has put the default action back; the signal is delivered again once this returns.
void say_and_die(int)
{
	if (write(STDERR_FILENO, g_text, g_length) < 0) {
		// Nobody reads it.
	}
	raise(SIGINT);
}

}	// namespace

InterruptNotice::InterruptNotice(const std::string &text)
{
	set(text);
	struct sigaction old {};
	sigaction(SIGINT, nullptr, &old);
	if (old.sa_handler == SIG_IGN)		// as nohup and a shell's & have it
		return;
	struct sigaction action {};
	action.sa_handler = say_and_die;
	action.sa_flags = static_cast<int>(SA_RESETHAND);
	sigaction(SIGINT, &action, nullptr);
}

void InterruptNotice::set(const std::string &text)
{
	sigset_t interrupt, old;
	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, &old);
	const std::string line = "\n" + text + "\n";
	g_length = std::min(line.size(), sizeof(g_text));
	std::memcpy(g_text, line.data(), g_length);
	sigprocmask(SIG_SETMASK, &old, nullptr);
}

InterruptNotice::~InterruptNotice()
{
	struct sigaction now {};
	sigaction(SIGINT, nullptr, &now);
	if (now.sa_handler == say_and_die)
		signal(SIGINT, SIG_DFL);
}

}	// namespace svctl

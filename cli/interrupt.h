// SPDX-License-Identifier: GPL-2.0
// What svctl says when ^C ends it. While a command runs in svd, only svctl ends: svd goes on with it.
#pragma once

#include <string>

namespace svctl {

// While one lives, ^C prints `text` to standard error. svctl then dies of the signal, so that a script which runs it
// ends, too: a shell sees exit code 130.
class InterruptNotice {
public:
	explicit InterruptNotice(const std::string &text);
	~InterruptNotice();
	void set(const std::string &text);	// from now on; a ^C meanwhile prints one of them
	InterruptNotice(const InterruptNotice &) = delete;
	InterruptNotice &operator=(const InterruptNotice &) = delete;
};

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// See style.h.
#include "cli/style.h"

#include <cstdlib>
#include <string_view>

#include <fmt/core.h>
#include <unistd.h>

namespace svctl {

bool colours(int fd)
{
	const char *no = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	return (no == nullptr || *no == '\0') && isatty(fd) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

std::string coloured(const std::string &text, Colour colour, bool on)
{
	static const int kCodes[] = {0, 31, 32, 33, 1};
	return on && colour != Colour::kNone ? fmt::format("\033[{}m{}\033[0m", kCodes[static_cast<int>(colour)], text) : text;
}

}	// namespace svctl

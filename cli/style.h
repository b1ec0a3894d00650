// SPDX-License-Identifier: GPL-2.0
// Colour, on a terminal only, and not where NO_COLOR is set (no-color.org).
#pragma once

#include <string>

namespace svctl {

enum class Colour { kNone, kRed, kGreen, kYellow, kBold };

bool colours(int fd);
// `text`, coloured if `on`. Its length on the terminal stays.
std::string coloured(const std::string &text, Colour colour, bool on);

}	// namespace svctl

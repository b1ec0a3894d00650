// SPDX-License-Identifier: GPL-2.0
// The sections OPTIONS and COMMANDS of a program's man page, from the table that parses its command line. What else a
// page has is in docs/man.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace svd {

std::string man_sections(const CLI::App &app);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// What svd answers to diff, for people, scripts or programs.
#pragma once

#include <ostream>
#include <streambuf>

#include <nlohmann/json.hpp>

namespace svctl {

// lines: offset, length and kind of each range, with tabs between them; however many there are, they are not kept. Throws
// std::runtime_error if not all of it can be written.
void print_diff(std::ostream &out, std::streambuf &lines, const nlohmann::json &answer, bool as_json, bool header);

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// What `svctl explain` says of codes; svd is not asked.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace svctl {

// All of them if none is named. Throws UsageError (table.h).
nlohmann::json explain(const std::vector<std::string> &codes);
std::string format_explanation(const nlohmann::json &answer);

}	// namespace svctl

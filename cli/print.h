// SPDX-License-Identifier: GPL-2.0
// Answers of svd as text for people. main.cc calls it; --json does without it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace svctl {

std::string human_size(uint64_t bytes);			// "1.5G"; powers of 1024
std::string format_answer(const std::string &command, const nlohmann::json &parameters);

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// Answers of svd as text for people. main.cc calls it; --json does without it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "cli/commands.h"

namespace svctl {

inline constexpr int kSchema = 1;	// of what --json prints

std::span<const Column> problem_columns();	// of status
std::span<const Column> scan_columns();
std::span<const Column> job_columns();
std::span<const Column> space_columns();	// of show-space
// Throws NotFoundError (list.h).
std::string format_answer(const Request &request, const nlohmann::json &parameters);

}	// namespace svctl

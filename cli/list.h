// SPDX-License-Identifier: GPL-2.0
// What `svctl list` shows: pools, their tiers, volumes and devices, a row each, all of them from svd's one answer.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/table.h"

namespace svctl {

struct Selection {
	std::vector<std::string> types;		// none: pools, tiers and volumes
	std::vector<std::string> names;		// none: all
};

struct NotFoundError : std::runtime_error {
	using std::runtime_error::runtime_error;
};

std::span<const Column> list_columns();
std::span<const char *const> list_types();
std::vector<std::string> choose_types(const std::string &list);		// throws UsageError

// With its UUID where another of `all` has the same name.
std::string pool_name(const nlohmann::json &pool, const nlohmann::json &all);

// As a tree, with short names, where nothing was selected or sorted; for scripts a name is one that svctl takes.
// Throws NotFoundError if there is nothing of a name.
std::string format_list(const nlohmann::json &answer, const View &view, const Selection &selection);

}	// namespace svctl

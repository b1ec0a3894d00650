// SPDX-License-Identifier: GPL-2.0
// Tables of answers: which columns, in which order, for people or for scripts. list.cc and print.cc have the rows.
#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace svctl {

struct UsageError : std::runtime_error {
	using std::runtime_error::runtime_error;
};

struct Column {
	enum class Kind { kText, kBytes, kNumber, kPercent };

	const char *name;	// of the rows' JSON, too; a row without it shows "-"
	Kind kind = Kind::kText;
	bool shown = true;	// if no columns are named
};

// How the command line wants a table.
struct View {
	std::vector<const Column *> columns;
	const Column *sort = nullptr;
	bool reverse = false;
	bool header = true;	// without it: tabs between columns, exact numbers
	bool bytes = false;	// exact numbers
	bool chosen = false;	// something of this was asked for
};

std::string column_names(std::span<const Column> all);		// "name, size"
// From "name,size", or "+id" for the usual ones and that. Throws UsageError.
std::vector<const Column *> choose_columns(std::span<const Column> all, const std::string &list);
const Column *find_column(std::span<const Column> all, const std::string &name);
std::vector<std::string> split(const std::string &list);	// at commas

// Sorts the rows if the view wants that.
std::string format_table(std::vector<nlohmann::json> rows, const View &view);
std::string human_size(uint64_t bytes);				// "1.5G"; powers of 1024

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// See table.h.
#include "cli/table.h"

#include <algorithm>
#include <sstream>

#include <fmt/core.h>

namespace svctl {

namespace {

using nlohmann::json;

const json *value_of(const json &row, const Column &column)
{
	const auto found = row.find(column.name);
	return found == row.end() || found->is_null() || *found == "" ? nullptr : &*found;
}

std::string exact(const json &value)
{
	std::string text = value.is_string() ? value.get<std::string>() :
			   value.dump(-1, ' ', false, json::error_handler_t::replace);
	std::replace_if(text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
	return text;
}

std::string cell(const json &row, const Column &column, const View &view)
{
	const json *value = value_of(row, column);
	if (value == nullptr)
		return "-";
	if (column.kind == Column::Kind::kBytes && value->is_number() && view.header && !view.bytes)
		return human_size(value->get<uint64_t>());
	if (column.kind == Column::Kind::kPercent && value->is_number())
		return fmt::format("{}.{}", value->get<uint64_t>() / 10, value->get<uint64_t>() % 10);
	return exact(*value);
}

// What a row lacks comes last, in either direction.
void sort_rows(std::vector<json> &rows, const View &view)
{
	const Column &by = *view.sort;
	std::stable_sort(rows.begin(), rows.end(), [&](const json &a, const json &b) {
		const json *x = value_of(a, by);
		const json *y = value_of(b, by);
		if (x == nullptr || y == nullptr)
			return x != nullptr && y == nullptr;
		return view.reverse ? *y < *x : *x < *y;
	});
}

std::string upper(std::string text)
{
	std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return toupper(c); });
	return text;
}

std::string tabbed(const std::vector<json> &rows, const View &view)
{
	std::string out;
	for (const json &row : rows)
		for (size_t i = 0; i < view.columns.size(); i++)
			out += cell(row, *view.columns[i], view) + (i + 1 < view.columns.size() ? "\t" : "\n");
	return out;
}

std::string aligned(const std::vector<std::vector<std::string>> &lines)
{
	std::vector<size_t> width(lines[0].size());
	for (const auto &line : lines)
		for (size_t i = 0; i < line.size(); i++)
			width[i] = std::max(width[i], line[i].size());
	std::string out;
	for (const auto &line : lines) {
		std::string text;
		for (size_t i = 0; i < line.size(); i++)
			text += fmt::format("{:<{}}  ", line[i], width[i]);
		text.erase(text.find_last_not_of(' ') + 1);
		out += text + "\n";
	}
	return out;
}

}	// namespace

std::vector<std::string> split(const std::string &list)
{
	std::vector<std::string> all;
	std::stringstream in(list);
	for (std::string one; std::getline(in, one, ',');)
		all.push_back(one);
	if (list.ends_with(','))	// something was to follow
		all.emplace_back();
	return all;
}

std::string column_names(std::span<const Column> all)
{
	std::string names;
	for (const Column &column : all)
		names += (names.empty() ? "" : ", ") + std::string(column.name);
	return names;
}

const Column *find_column(std::span<const Column> all, const std::string &name)
{
	for (const Column &column : all)
		if (name == column.name)
			return &column;
	throw UsageError(fmt::format("there is no column '{}'; there are {}", name, column_names(all)));
}

std::vector<const Column *> choose_columns(std::span<const Column> all, const std::string &list)
{
	std::vector<const Column *> chosen;
	const bool more = list.starts_with('+');
	for (const Column &column : all)
		if (column.shown && (list.empty() || more))
			chosen.push_back(&column);
	for (const std::string &name : split(more ? list.substr(1) : list))
		chosen.push_back(find_column(all, name));
	return chosen;
}

std::string format_table(std::vector<json> rows, const View &view)
{
	if (view.sort != nullptr)
		sort_rows(rows, view);
	if (!view.header)
		return tabbed(rows, view);
	std::vector<std::vector<std::string>> lines(1);
	for (const Column *column : view.columns)
		lines[0].push_back(upper(column->name));
	for (const json &row : rows) {
		lines.emplace_back();
		for (const Column *column : view.columns)
			lines.back().push_back(cell(row, *column, view));
	}
	return aligned(lines);
}

std::string human_size(uint64_t bytes)
{
	static const char *const kUnits[] = {"", "K", "M", "G", "T", "P", "E"};
	size_t unit = 0;
	uint64_t whole = bytes;
	uint64_t rest = 0;
	while (whole >= 1024 && unit + 1 < std::size(kUnits)) {
		rest = whole % 1024;
		whole /= 1024;
		unit++;
	}
	if (unit == 0 || whole >= 100 || rest * 10 / 1024 == 0)
		return fmt::format("{}{}", whole, unit == 0 ? "B" : kUnits[unit]);
	return fmt::format("{}.{}{}", whole, rest * 10 / 1024, kUnits[unit]);
}

}	// namespace svctl

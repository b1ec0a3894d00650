// SPDX-License-Identifier: GPL-2.0
// See print.h.
#include "cli/print.h"

#include <algorithm>
#include <vector>

#include <fmt/core.h>

namespace svctl {

namespace {

using nlohmann::json;
using Row = std::vector<std::string>;

std::string text_of(const json &object, const char *key)
{
	if (!object.contains(key) || object[key].is_null())
		return "-";
	return object[key].is_string() ? object[key].get<std::string>() : object[key].dump();
}

std::string size_of(const json &object, const char *key)
{
	if (!object.contains(key) || !object[key].is_number())
		return "-";
	return human_size(object[key].get<uint64_t>());
}

std::string table(const std::vector<Row> &rows)
{
	std::vector<size_t> width;
	for (const Row &row : rows)
		for (size_t i = 0; i < row.size(); i++) {
			if (width.size() <= i)
				width.push_back(0);
			width[i] = std::max(width[i], row[i].size());
		}
	std::string out;
	for (const Row &row : rows) {
		std::string line;
		for (size_t i = 0; i < row.size(); i++)
			line += fmt::format("{:<{}}  ", row[i], width[i]);
		line.erase(line.find_last_not_of(' ') + 1);
		out += line + "\n";
	}
	return out;
}

std::string format_list(const json &answer)
{
	std::vector<Row> rows = {{"NAME", "STATE", "SIZE", "USED", "FREE", "DEVICE"}};
	for (const json &pool : answer.value("pools", json::array())) {
		rows.push_back({text_of(pool, "name"), text_of(pool, "state"), size_of(pool, "size"),
				size_of(pool, "used"), size_of(pool, "free"), ""});
		for (const json &tier : pool.value("tiers", json::array()))
			rows.push_back({"  [" + text_of(tier, "name") + "]", fmt::format("{} device(s)",
					tier.value("members", 0)), size_of(tier, "size"), size_of(tier, "used"),
					size_of(tier, "free"), ""});
		for (const json &volume : pool.value("volumes", json::array()))
			rows.push_back({"  " + text_of(volume, "name"), text_of(volume, "state"),
					size_of(volume, "size"), size_of(volume, "used"), "",
					text_of(volume, "device")});
	}
	return rows.size() == 1 ? "no pools\n" : table(rows);
}

bool is_bytes(const std::string &key)
{
	return key == "size" || key == "used" || key == "free" || key.ends_with("_bytes");
}

void format_tree(const json &value, const std::string &indent, std::string &out)
{
	for (const auto &[key, item] : value.items()) {
		if (item.is_object()) {
			out += fmt::format("{}{}:\n", indent, key);
			format_tree(item, indent + "  ", out);
		} else if (item.is_array()) {
			out += fmt::format("{}{}:\n", indent, key);
			for (const json &element : item) {
				if (!element.is_object()) {
					out += fmt::format("{}  {}\n", indent, element.is_string() ?
							   element.get<std::string>() : element.dump());
					continue;
				}
				std::string block;
				format_tree(element, indent + "    ", block);
				if (!block.empty())
					block[indent.size() + 2] = '-';
				out += block;
			}
		} else if (item.is_number_unsigned() && is_bytes(key)) {
			out += fmt::format("{}{}: {} ({} bytes)\n", indent, key, human_size(item.get<uint64_t>()),
					   item.get<uint64_t>());
		} else {
			out += fmt::format("{}{}: {}\n", indent, key, item.is_string() ? item.get<std::string>() :
					   item.dump());
		}
	}
}

std::string format_status(const json &answer)
{
	std::string out;
	for (const json &pool : answer.value("pools", json::array())) {
		out += fmt::format("{}: {}\n", text_of(pool, "name"), text_of(pool, "state"));
		for (const json &problem : pool.value("problems", json::array()))
			out += fmt::format("  problem: {}\n  next:    {}\n", text_of(problem, "what"),
					   text_of(problem, "next"));
	}
	return out.empty() ? "no pools\n" : out;
}

}	// namespace

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

std::string format_answer(const std::string &command, const json &answer)
{
	if (command == "list")
		return format_list(answer);
	if (command == "status")
		return format_status(answer);
	if (answer.contains("message") && answer["message"].is_string())
		return answer["message"].get<std::string>() + "\n";
	std::string out;
	format_tree(answer, "", out);
	return out;
}

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// See print.h.
#include "cli/print.h"

#include <fmt/core.h>

namespace svctl {

namespace {

using nlohmann::json;

std::string text_of(const json &object, const char *key)
{
	if (!object.contains(key) || object[key].is_null())
		return "-";
	return object[key].is_string() ? object[key].get<std::string>() : object[key].dump();
}

bool is_bytes(const std::string &key)
{
	return key == "size" || key == "used" || key == "free" || key.ends_with("_bytes");
}

void format_tree(const json &value, const std::string &indent, bool exact, std::string &out)
{
	for (const auto &[key, item] : value.items()) {
		if (item.is_object()) {
			out += fmt::format("{}{}:\n", indent, key);
			format_tree(item, indent + "  ", exact, out);
		} else if (item.is_array()) {
			out += fmt::format("{}{}:\n", indent, key);
			for (const json &element : item) {
				if (!element.is_object()) {
					out += fmt::format("{}  {}\n", indent, element.is_string() ?
							   element.get<std::string>() : element.dump());
					continue;
				}
				std::string block;
				format_tree(element, indent + "    ", exact, block);
				if (!block.empty())
					block[indent.size() + 2] = '-';
				out += block;
			}
		} else if (item.is_number_unsigned() && is_bytes(key) && !exact) {
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

std::string format_answer(const Request &request, const json &answer)
{
	if (request.command == "list")
		return format_list(answer, request.view, request.selection);
	if (request.command == "status" || request.command == "scan")
		return format_status(answer);
	if (answer.contains("message") && answer["message"].is_string())
		return answer["message"].get<std::string>() + "\n";
	std::string out;
	format_tree(answer, "", request.view.bytes, out);
	return out;
}

}	// namespace svctl

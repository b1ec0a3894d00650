// SPDX-License-Identifier: GPL-2.0
// See explain.h.
#include "cli/explain.h"

#include <sstream>

#include <fmt/core.h>

#include "cli/table.h"
#include "daemon/base/codes.h"

namespace svctl {

namespace {

using nlohmann::json;

constexpr size_t kWidth = 80;
constexpr Column kColumns[] = {{"id"}, {"severity"}, {"title"}};

json json_of(const svd::CodeText &text)
{
	return {{"id", text.code}, {"severity", svd::severity_name(text.severity)}, {"title", text.title},
		{"explanation", text.explanation}, {"remedy", text.remedy}};
}

std::string wrapped(const std::string &text)
{
	std::stringstream words(text);
	std::string out;
	size_t width = 0;
	for (std::string word; words >> word; width += word.size()) {
		const bool fits = width + 1 + word.size() <= kWidth;
		out += width == 0 ? "" : fits ? " " : "\n";
		width = width == 0 || !fits ? 0 : width + 1;
		out += word;
	}
	return out + "\n";
}

std::string long_text(const json &code)
{
	return fmt::format("{} ({}): {}\n\n{}\n{}", code["id"].get<std::string>(), code["severity"].get<std::string>(),
			   code["title"].get<std::string>(), wrapped(code["explanation"].get<std::string>()),
			   wrapped("What to do: " + code["remedy"].get<std::string>()));
}

}	// namespace

json explain(const std::vector<std::string> &codes)
{
	json all = json::array();
	for (const std::string &name : codes) {
		const svd::CodeText *text = svd::find_code(name);
		if (text == nullptr)
			throw UsageError(fmt::format("there is no code '{}': svctl explain lists them", name));
		all.push_back(json_of(*text));
	}
	for (const svd::CodeText &text : svd::all_codes())
		if (codes.empty())
			all.push_back(json_of(text));
	return {{"codes", all}, {"listed", codes.empty()}};
}

std::string format_explanation(const json &answer)
{
	const std::vector<json> codes = answer["codes"];
	if (answer["listed"] == true) {
		View view;
		view.columns = choose_columns(kColumns, "");
		return format_table(codes, view);
	}
	std::string out;
	for (const json &code : codes)
		out += (out.empty() ? "" : "\n") + long_text(code);
	return out;
}

}	// namespace svctl

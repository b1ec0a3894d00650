// SPDX-License-Identifier: GPL-2.0
// See diff.h.
#include "cli/diff.h"

#include <cstdint>
#include <istream>
#include <stdexcept>
#include <string>

#include <fmt/ostream.h>

#include "cli/print.h"
#include "cli/table.h"

namespace svctl {

using nlohmann::json;

namespace {

struct Range {
	uint64_t offset = 0, length = 0;
	std::string kind;
};

void print_json(std::ostream &out, std::istream &in, const json &answer)
{
	const char *before = "";
	fmt::print(out, "{{\n  \"bytes\": {},\n  \"ranges\": [", answer.at("bytes").get<uint64_t>());
	for (Range r; in >> r.offset >> r.length >> r.kind; before = ",")
		fmt::print(out, "{}\n    {{\"kind\": {}, \"length\": {}, \"offset\": {}}}", before, json(r.kind).dump(), r.length, r.offset);
	fmt::print(out, "\n  ],\n  \"schema\": {}\n}}\n", kSchema);
}

void print_table(std::ostream &out, std::istream &in, const json &answer)
{
	const auto ranges = answer.at("ranges").get<uint64_t>();
	if (ranges == 0) {
		out << "nothing has changed\n";
		return;
	}
	fmt::print(out, "{:>16} {:>16}  {}\n", "OFFSET", "LENGTH", "KIND");
	for (Range r; in >> r.offset >> r.length >> r.kind;)
		fmt::print(out, "{:>16} {:>16}  {}\n", r.offset, r.length, r.kind);
	fmt::print(out, "{} in {} range{}\n", human_size(answer.at("bytes").get<uint64_t>()), ranges, ranges == 1 ? "" : "s");
}

}	// namespace

void print_diff(std::ostream &out, std::streambuf &lines, const json &answer, bool as_json, bool header)
{
	std::istream in(&lines);
	if (as_json)
		print_json(out, in, answer);
	else if (header)
		print_table(out, in, answer);
	else if (answer.at("ranges").get<uint64_t>() != 0)
		out << &lines;
	if (!out.flush())
		throw std::runtime_error("the answer cannot be written to standard output");
}

}	// namespace svctl

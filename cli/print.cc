// SPDX-License-Identifier: GPL-2.0
// See print.h.
#include "cli/print.h"

#include <map>

#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include "cli/explain.h"
#include "cli/progress.h"
#include "cli/style.h"

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

std::string human_time(uint64_t ns)
{
	if (ns < 1000000)
		return fmt::format("{:.3g} us", static_cast<double>(ns) / 1e3);
	if (ns < 1000000000)
		return fmt::format("{:.3g} ms", static_cast<double>(ns) / 1e6);
	return fmt::format("{:.3g} s", static_cast<double>(ns) / 1e9);
}

// "read: 1200 ios, p50 < 98.3 us, p99 < 197 us, p99.9 < 393 us, all < 1.57 ms"
std::string latency_line(const json &latency)
{
	static constexpr std::pair<const char *, const char *> kBounds[] = {{"p50", "p50_below_ns"}, {"p99", "p99_below_ns"},
		{"p99.9", "p999_below_ns"}, {"all", "all_below_ns"}};
	std::string line = fmt::format("{}: {} ios", text_of(latency, "class"), text_of(latency, "ios"));
	for (const auto &[name, key] : kBounds)
		line += latency.contains(key) ? fmt::format(", {} < {}", name, human_time(latency[key])) :
						fmt::format(", {} 69 s or more", name);
	return line;
}

// A line for each class of I/O; the histograms are for programs.
std::string format_volume(json answer, bool exact)
{
	std::string lines;
	for (const json &latency : answer.value("latency", json::array()))
		lines += "  " + latency_line(latency) + "\n";
	answer.erase("latency");
	answer.erase("histograms");
	std::string out;
	format_tree(answer, "", exact, out);
	return lines.empty() ? out : out + "latency:\n" + lines;
}

Colour colour_of(const std::string &word)
{
	static const std::map<std::string, Colour> kColours = {
		{"active", Colour::kGreen}, {"read-only", Colour::kYellow}, {"down", Colour::kRed},
		{"unusable", Colour::kRed}, {"critical", Colour::kRed}, {"warning", Colour::kYellow}};
	const auto found = kColours.find(word);
	return found == kColours.end() ? Colour::kNone : found->second;
}

std::string format_status(const json &answer)
{
	const bool colour = colours(STDOUT_FILENO);
	const auto paint = [&](const std::string &text, const std::string &word) {
		return coloured(text, colour_of(word), colour);
	};
	std::string out;
	std::string first_code;
	const auto add_problems = [&](const json &of) {
		for (const json &problem : of.value("problems", json::array())) {
			out += fmt::format("  {} {} [{}]\n  next:    {}\n", paint("problem:", text_of(problem, "severity")),
					   text_of(problem, "what"), text_of(problem, "id"), text_of(problem, "next"));
			first_code = first_code.empty() ? text_of(problem, "id") : first_code;
		}
	};
	if (!answer.value("problems", json::array()).empty())
		out += "this machine:\n";
	add_problems(answer);
	for (const json &pool : answer.value("pools", json::array())) {
		const std::string state = text_of(pool, "state");
		out += fmt::format("{}: {}\n", pool_name(pool, answer["pools"]), paint(state, state));
		add_problems(pool);
	}
	if (answer.value("pools", json::array()).empty())
		out += "no pools\n";
	if (!first_code.empty())
		out += fmt::format("\nWhat a code means: svctl explain {}\n", first_code);
	return out;
}

// A row for each problem.
std::string format_problems(const json &answer, const View &view)
{
	std::vector<json> rows = answer.value("problems", std::vector<json>());	// of the machine
	for (const json &pool : answer.value("pools", json::array()))
		for (json row : pool.value("problems", json::array())) {
			row["pool"] = pool.value("name", "");
			row["state"] = pool.value("state", "");
			rows.push_back(std::move(row));
		}
	return format_table(std::move(rows), view);
}

// With what is wrong, for people.
std::string format_scan(const json &answer, const View &view)
{
	std::vector<json> rows;
	for (const json &pool : answer.value("pools", json::array())) {
		const uint64_t members = pool.value("members", uint64_t{0});
		const size_t missing = pool.value("missing", json::array()).size();
		rows.push_back({{"name", text_of(pool, "name")}, {"state", text_of(pool, "state")},
				{"devices", members == 0 ? "-" : fmt::format("{} of {}", members - missing, members)},
				{"uuid", text_of(pool, "uuid")}, {"holder", text_of(pool, "host")}});
	}
	if (view.chosen)
		return format_table(std::move(rows), view);
	return rows.empty() ? "no pools\n" : format_table(std::move(rows), view) + "\n" + format_status(answer);
}

std::string format_jobs(const json &answer, const View &view)
{
	std::vector<json> rows = answer.value("jobs", json::array());
	for (json &row : rows) {
		row["since"] = fmt::format("{:%F %T}", fmt::localtime(row.value("since", std::time_t{0})));
		row["progress"] = row.contains("progress") ? progress_line(row["progress"]) : "";
	}
	return rows.empty() && view.header ? "no jobs\n" : format_table(std::move(rows), view);
}

// With what all of them together free.
std::string format_space(const json &answer, const Request &request)
{
	const std::string pool = request.parameters.at("pool");
	std::vector<json> rows = answer.value("snapshots", std::vector<json>());
	for (json &row : rows)
		row["name"] = fmt::format("{}/{}@{}", pool, text_of(row, "volume"), text_of(row, "name"));
	const size_t count = rows.size();
	if (!request.view.header)
		return format_table(std::move(rows), request.view);
	if (count == 0)
		return "no snapshots\n";
	const uint64_t frees = answer.value("frees", uint64_t{0});
	return format_table(std::move(rows), request.view) +
	       fmt::format("deleting {} frees {}\n", count == 1 ? "it" : fmt::format("these {}", count),
			   request.view.bytes ? std::to_string(frees) : human_size(frees));
}

}	// namespace

std::span<const Column> job_columns()
{
	static const Column kColumns[] = {{"id", Column::Kind::kNumber}, {"what"}, {"pool"}, {"state"}, {"uid"},
					  {"pid", Column::Kind::kText, false}, {"since"}, {"progress"},
					  {"message", Column::Kind::kText, false}};
	return kColumns;
}

std::span<const Column> space_columns()
{
	static const Column kColumns[] = {{"name"}, {"used", Column::Kind::kBytes}, {"exclusive", Column::Kind::kBytes},
					  {"frees", Column::Kind::kBytes}, {"volume", Column::Kind::kText, false}};
	return kColumns;
}

std::span<const Column> scan_columns()
{
	static const Column kColumns[] = {{"name"}, {"state"}, {"devices"}, {"uuid"}, {"holder"}};
	return kColumns;
}

std::span<const Column> problem_columns()
{
	static const Column kColumns[] = {{"pool"}, {"state"}, {"severity"}, {"id"}, {"what"}, {"next"},
					  {"volume", Column::Kind::kText, false}, {"device", Column::Kind::kText, false}};
	return kColumns;
}

std::string format_answer(const Request &request, const json &answer)
{
	if (request.command == "list")
		return format_list(answer, request.view, request.selection);
	if (request.command == "status" && request.view.chosen)
		return format_problems(answer, request.view);
	if (request.command == "metrics")
		return answer.at("text").get<std::string>();
	if (request.command == "scan")
		return format_scan(answer, request.view);
	if (request.command == "show-space")
		return format_space(answer, request);
	if (request.command == "status")
		return format_status(answer);
	if (request.command == "explain")
		return format_explanation(answer);
	if (request.command == "jobs")
		return format_jobs(answer, request.view);
	if (answer.contains("message") && answer["message"].is_string())
		return answer["message"].get<std::string>() + "\n";
	if (request.method == "ShowVolume")
		return format_volume(answer, request.view.bytes);
	std::string out;
	format_tree(answer, "", request.view.bytes, out);
	return out;
}

}	// namespace svctl

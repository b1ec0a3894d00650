// SPDX-License-Identifier: GPL-2.0
// See complete.h. What fits a word is told by how help calls it: POOL, DEVICE, COLUMN...
#include "cli/complete.h"

#include <algorithm>
#include <functional>
#include <map>

#include <fmt/core.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/list.h"
#include "cli/parse.h"
#include "daemon/base/codes.h"

namespace svctl {

namespace {

using nlohmann::json;

constexpr std::chrono::seconds kPatience(1);

struct Candidate {
	std::string word;
	std::string text;
};

// Where on the command line the last word stands.
struct Place {
	const CLI::App *app = nullptr;		// the command, or what it is looked for in
	const CLI::Option *value_of = nullptr;	// the last word is its value
	std::vector<std::string> given;		// the command's words before
	std::string socket;
	bool words_only = false;		// after "--"
};

bool takes_value(const CLI::Option &option) { return option.nonpositional() && option.get_items_expected_max() > 0; }

// Those of the command, then those of all commands.
std::vector<const CLI::Option *> options_at(const CLI::App *app)
{
	std::vector<const CLI::Option *> all;
	for (; app != nullptr; app = app->get_parent())
		for (const CLI::Option *option : app->get_options())
			if (option->nonpositional() &&
			    std::none_of(all.begin(), all.end(), [&](auto *known) { return known->get_name() == option->get_name(); }))
				all.push_back(option);
	return all;
}

const CLI::Option *find_option(const CLI::App *app, const std::string &name)
{
	for (const CLI::Option *option : options_at(app))
		if (option->check_name(name))
			return option;
	return nullptr;
}

const CLI::App *find_command(const CLI::App &app, const std::string &name)
{
	const auto found = app.get_subcommands([&](const CLI::App *sub) { return sub->check_name(name); });
	return found.empty() ? nullptr : found[0];
}

void step(Place &place, const std::string &word)
{
	if (place.value_of != nullptr) {
		if (place.value_of->check_name("--socket"))
			place.socket = word;
		place.value_of = nullptr;
	} else if (word == "--") {
		place.words_only = true;
	} else if (!place.words_only && word.size() > 1 && word[0] == '-') {
		const size_t equals = word.find('=');
		const CLI::Option *option = find_option(place.app, word.substr(0, equals));
		if (option != nullptr && option->check_name("--socket") && equals != std::string::npos)
			place.socket = word.substr(equals + 1);
		place.value_of = option != nullptr && takes_value(*option) && equals == std::string::npos ? option : nullptr;
	} else if (const CLI::App *command = find_command(*place.app, word)) {
		place.app = command;
	} else {
		place.given.push_back(word);
	}
}

// ---- what fits ----

// Full names of what is of these types; of one pool only, if it is named.
std::vector<Candidate> names(const Place &place, const std::vector<std::string> &types, const std::string &pool = {})
{
	const Answer answer = call(place.socket, "io.svctl.List", json::object(), {}, kPatience);
	if (answer.exit != kExitOk || !answer.parameters.contains("pools"))
		return {};
	View view;
	view.columns = choose_columns(list_columns(), "name,type");
	view.header = false;
	std::vector<Candidate> all;
	std::stringstream lines(format_list(answer.parameters, view, {types, {}}));
	for (std::string line; std::getline(lines, line);) {
		const size_t tab = line.find('\t');
		if (pool.empty() || line.starts_with(pool + ":"))
			all.push_back({line.substr(0, tab), line.substr(tab + 1)});
	}
	return all;
}

std::vector<Candidate> tiers(const Place &place, const std::string &pool)
{
	std::vector<Candidate> all = names(place, {"tier"}, pool);
	for (Candidate &tier : all)
		tier.word = tier.word.substr(pool.size() + 1) + "=";
	return all;
}

// Of a volume that is to be made only the pool is there.
std::vector<Candidate> volumes(const Place &place)
{
	if (!place.app->get_name().starts_with("create"))
		return names(place, {"volume"});
	std::vector<Candidate> pools = names(place, {"pool"});
	for (Candidate &pool : pools)
		pool.word += "/";
	return pools;
}

std::vector<Candidate> new_snapshots(const Place &place)
{
	std::vector<Candidate> all = names(place, {"volume"});
	for (Candidate &volume : all)
		volume.word += "@";
	return all;
}

// Of the pool in which the clone is to be.
std::vector<Candidate> origins(const Place &place)
{
	const std::string pool = place.given.empty() ? "" : place.given[0].substr(0, place.given[0].find('/') + 1);
	std::vector<Candidate> all;
	for (const Candidate &snapshot : names(place, {"snapshot"}))
		if (!pool.empty() && snapshot.word.starts_with(pool))
			all.push_back({snapshot.word.substr(pool.size()), snapshot.text});
	return all;
}

// "name,si": the words that may follow the last comma.
std::vector<Candidate> behind_comma(const std::string &word, const std::vector<std::string> &all)
{
	const size_t comma = word.rfind(',');
	const std::string head = comma != std::string::npos ? word.substr(0, comma + 1) : word.starts_with('+') ? "+" : "";
	std::vector<Candidate> candidates;
	for (const std::string &one : all)
		candidates.push_back({head + one, ""});
	return candidates;
}

// "jobs" is "job list", too.
const Command *command_at(const CLI::App &app)
{
	const CLI::App *noun = app.get_parent();
	return noun == nullptr ? nullptr : command_called(noun->get_parent() == nullptr ? "" : noun->get_name(), app.get_name());
}

std::vector<Candidate> columns(const Place &place, const std::string &word)
{
	std::vector<std::string> all;
	if (const Command *command = command_at(*place.app))
		for (const Column &column : command->columns)
			all.push_back(column.name);
	return behind_comma(word, all);
}

std::vector<Candidate> jobs(const Place &place)
{
	const Answer answer = call(place.socket, "io.svctl.Jobs", json::object(), {}, kPatience);
	std::vector<Candidate> all;
	for (const json &job : answer.parameters.value("jobs", json::array()))
		all.push_back({std::to_string(job.value("id", 0u)), fmt::format("{} {}", job.value("what", ""), job.value("pool", ""))});
	return all;
}

std::vector<Candidate> codes()
{
	std::vector<Candidate> all;
	for (const svd::CodeText &text : svd::all_codes())
		all.push_back({text.code, text.title});
	return all;
}

std::vector<Candidate> tier_devices(const Place &place, const std::string &word)
{
	if (word.find('=') != std::string::npos)
		return {{":list", ""}};
	return place.given.empty() ? std::vector<Candidate>() : tiers(place, place.given[0]);
}

// `what` as help has it.
std::vector<Candidate> fitting(const Place &place, const std::string &what, const std::string &word)
{
	using Fit = std::function<std::vector<Candidate>()>;
	static const std::vector<Candidate> kFiles = {{":files", ""}};
	const std::map<std::string, Fit> fits = {
		{"POOL", [&] { return names(place, {"pool"}); }},
		{"POOL|UUID", [&] { return names(place, {"pool"}); }},
		{"JOB", [&] { return jobs(place); }},
		{"POOL/VOLUME", [&] { return volumes(place); }},
		{"POOL[/VOLUME[@SNAPSHOT]]", [&] { return names(place, {"pool", "volume", "snapshot"}); }},
		{"POOL/VOLUME[@SNAPSHOT]", [&] { return names(place, {"volume", "snapshot"}); }},
		{"POOL/VOLUME@SNAPSHOT", [&] { return names(place, {"snapshot"}); }},
		{"POOL/VOLUME@NEW", [&] { return new_snapshots(place); }},
		{"VOLUME@SNAPSHOT", [&] { return origins(place); }},
		{"TIER=DEVICE", [&] { return tier_devices(place, word); }},
		{"TIER=DEVICE[,DEVICE...]", [&] { return tier_devices({}, word); }},
		{"DEVICE", [&] { return kFiles; }},
		{"FILE", [&] { return kFiles; }},
		{"PATH", [&] { return kFiles; }},
		{"COLUMN", [&] { return columns(place, word); }},
		{"COLUMN[,COLUMN...]", [&] { return columns(place, word); }},
		{"TYPE[,TYPE...]", [&] { return behind_comma(word, {list_types().begin(), list_types().end()}); }},
		{"CODE", [&] { return codes(); }},
		{"pass|keep", [&] { return std::vector<Candidate>{{"pass", ""}, {"keep", ""}}; }},
		{"SCHEDULE", [&] { return std::vector<Candidate>{{"none", ""}}; }},
		{"yes|no", [&] { return std::vector<Candidate>{{"yes", ""}, {"no", ""}}; }},
	};
	const auto fit = fits.find(what);
	return fit == fits.end() ? std::vector<Candidate>() : fit->second();
}

std::vector<Candidate> values(const Place &place, const CLI::Option &option, const std::string &word)
{
	const std::string type = option.get_type_name();	// and behind a ':' what values are allowed
	return fitting(place, type.substr(0, type.find(':')), word);
}

std::vector<Candidate> option_names(const Place &place)
{
	std::vector<Candidate> all;
	for (const CLI::Option *option : options_at(place.app)) {
		for (const std::string &name : option->get_lnames())
			all.push_back({"--" + name, option->get_description()});
		for (const std::string &name : option->get_snames())
			all.push_back({"-" + name, option->get_description()});
	}
	return all;
}

std::vector<Candidate> commands_or_words(const Place &place, const std::string &word)
{
	std::vector<Candidate> all;
	for (const CLI::App *command : place.app->get_subcommands([](const CLI::App *) { return true; }))
		all.push_back({command->get_name(), command->get_description()});
	if (!all.empty())
		return all;
	const auto positional = place.app->get_options([](const CLI::Option *option) { return option->get_positional(); });
	if (positional.empty())
		return {};
	const CLI::Option &last = *positional.back();
	if (place.given.size() >= positional.size() && last.get_expected_max() <= 1)
		return {};
	const CLI::Option &option = *positional[std::min(place.given.size(), positional.size() - 1)];
	return fitting(place, option.get_name(true), word);
}

std::vector<Candidate> candidates(const Place &place, const std::string &word)
{
	if (place.value_of != nullptr)
		return values(place, *place.value_of, word);
	if (place.words_only || !word.starts_with('-'))
		return commands_or_words(place, word);
	const size_t equals = word.find('=');
	if (equals == std::string::npos)
		return option_names(place);
	const CLI::Option *option = find_option(place.app, word.substr(0, equals));
	std::vector<Candidate> all;
	if (option != nullptr)
		all = values(place, *option, word.substr(equals + 1));
	for (Candidate &one : all)
		one.word = one.word == ":files" ? ":list" : one.word == ":list" ? ":list" : word.substr(0, equals + 1) + one.word;
	return all;
}

}	// namespace

std::string complete(const CLI::App &app, const std::vector<std::string> &words)
{
	Place place;
	place.app = &app;
	const char *socket = getenv("SVCTL_SOCKET");
	place.socket = socket != nullptr ? socket : Options().socket;
	for (size_t i = 0; i + 1 < words.size(); i++)
		step(place, words[i]);
	const std::string word = words.empty() ? "" : words.back();
	std::string out;
	for (const Candidate &one : candidates(place, word))
		if (one.word.starts_with(':') || one.word.starts_with(word))
			out += one.word + "\t" + one.text + "\n";
	return out;
}

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// See parse.h.
#include "cli/parse.h"

#include <map>
#include <regex>
#include <sstream>

#include <fmt/core.h>

namespace svctl {

namespace {

using Kind = Parameter::Kind;

constexpr const char *kNouns = "Commands by what they act on";
constexpr const char *kExits = R"(svctl COMMAND --help says more about a command.

Exit codes:
  0 ok            4 permission            8 kernel module or feature missing
  1 failure       5 busy or in conflict  20 svd cannot be reached
  2 usage         6 no space             21 svd did not answer in time
  3 not found     7 needs check         130 interrupted by ^C)";

class HelpFormatter : public CLI::Formatter {
public:
	HelpFormatter() { label("SUBCOMMAND", "COMMAND"); }

	std::string make_help(const CLI::App *app, std::string name, CLI::AppFormatMode mode) const override
	{
		static const std::regex kBlanks(" +\n");	// of what has no description
		return std::regex_replace(CLI::Formatter::make_help(app, name, mode), kBlanks, "\n");
	}

	// Without its other names: the command's own help has those.
	std::string make_subcommand(const CLI::App *sub) const override
	{
		std::stringstream out;
		CLI::detail::format_help(out, sub->get_name(), sub->get_description(), column_width_);
		return out.str();
	}
};

void add_options(CLI::App &app, Options &options)
{
	app.add_option("--socket", options.socket, "socket of svd; also SVCTL_SOCKET in the environment")
		->envname("SVCTL_SOCKET")->type_name("PATH")->capture_default_str();
	app.add_option("--timeout", options.timeout, "how long to wait for svd; 300 without it")
		->check(CLI::Range(1u, 86400u))->type_name("SECONDS");
	app.add_flag("--json", options.json, "answer in JSON, sizes as integer bytes");
	app.add_flag("--dry-run", options.dry_run, "say what would be done, change nothing");
	app.add_flag("--yes", options.yes, "do not ask before something is destroyed");
}

void add_parameter(CLI::App &app, const Parameter &parameter, Values &values)
{
	Values::Value &value = values.slot(parameter.key());
	if (parameter.kind == Kind::kFlag) {
		app.add_flag(parameter.name, value.set, parameter.text);
		return;
	}
	CLI::Option *option = parameter.kind == Kind::kOptions ?
		app.add_option(parameter.name, value.all, parameter.text)->expected(1)->take_all() :
		parameter.kind == Kind::kWords ? app.add_option(parameter.name, value.all, parameter.text) :
		app.add_option(parameter.name, value.text, parameter.text);
	if (parameter.kind == Kind::kWords)
		option->expected(-1);
	option->type_name(parameter.value)->required(parameter.required);
}

std::string footer(const Command &command)
{
	std::string also;
	for (const std::string &alias : command.aliases())
		also += (also.empty() ? "" : ", ") + alias;
	for (const std::string &noun : command.nouns)
		also += fmt::format("{}{} {}", also.empty() ? "" : ", ", noun, command.verb);
	std::string text = "Example:\n  svctl " + command.example + "\n";
	text += also.empty() ? "" : "\nAlso: " + also;
	return text + (command.exits.empty() ? "" : "\nExit codes: " + command.exits);
}

CLI::App &add_command(CLI::App &app, const std::string &name, const std::string &noun, const Command &command,
		      Values &values, Request &request)
{
	CLI::App &one = *app.add_subcommand(name, command.summary);
	for (const Parameter &parameter : command.parameters)
		add_parameter(one, parameter, values);
	one.group("Commands")->footer(footer(command));
	one.callback([&command, &values, &request, noun] { request = command.asked(values, noun); });
	return one;
}

// `svctl volume create`: each noun has its verbs.
void add_nouns(CLI::App &app, Values &values, Request &request)
{
	std::map<std::string, CLI::App *> nouns;
	for (const Command &command : commands())
		for (const std::string &noun : command.nouns) {
			CLI::App *&of = nouns[noun];
			if (of == nullptr)
				of = app.add_subcommand(noun)->group(kNouns)->footer("")->require_subcommand(1);
			of->description(of->get_description() + (of->get_description().empty() ? "" : ", ") +
					command.verb);
			add_command(*of, command.verb, noun, command, values, request);
		}
}

}	// namespace

void build_parser(CLI::App &app, Options &options, Values &values, Request &request)
{
	app.require_subcommand(1);
	app.fallthrough();
	app.formatter(std::make_shared<HelpFormatter>());
	app.footer(kExits);
	add_options(app, options);
	for (const Command &command : commands()) {
		CLI::App &one = add_command(app, command.name, "", command, values, request);
		for (const std::string &alias : command.aliases())
			one.alias(alias);
	}
	add_nouns(app, values, request);
}

}	// namespace svctl

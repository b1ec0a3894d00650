// SPDX-License-Identifier: GPL-2.0
// See man.h. roff takes '-' for a hyphen, '\' for an escape, and a line that begins with '.' or ''' for a request.
#include "daemon/base/man.h"

#include <sstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace svd {

static std::string escaped(const std::string &text)
{
	std::string out = text.starts_with('.') || text.starts_with('\'') ? "\\&" : "";
	for (const char c : text) {
		if (c == '\\')
			out += "\\e";
		else if (c == '-')
			out += "\\-";
		else
			out += c;
	}
	return out;
}

// "--size SIZE"
static std::string usage(const CLI::Option &option)
{
	const std::string type = option.get_type_name();	// and behind a ':' what values are allowed
	std::string out = fmt::format("\\fB{}\\fR", escaped(option.get_name(false, true)));
	if (option.get_items_expected_max() > 0)
		out += fmt::format(" \\fI{}\\fR", escaped(type.substr(0, type.find(':'))));
	return out;
}

static std::string described(const CLI::Option &option)
{
	return fmt::format(".TP\n{}\n{}.\n", usage(option), escaped(option.get_description()));
}

static bool shown(const CLI::Option *option) { return !option->get_group().empty(); }

// What help ends with, line for line.
static std::string footer(const CLI::App &app)
{
	std::stringstream lines(app.get_footer());
	std::string out;
	for (std::string line; std::getline(lines, line);)
		out += line.empty() ? ".sp\n" : escaped(line) + "\n";
	return out.empty() ? "" : ".PP\n.nf\n" + out + ".fi\n";
}

static std::string command(const CLI::App &app)
{
	std::string words = fmt::format("\\fB{}\\fR", escaped(app.get_name()));
	std::string list;
	for (const CLI::Option *option : app.get_options(shown)) {
		if (option->get_positional()) {
			words += fmt::format(" \\fI{}\\fR", escaped(option->get_name(true)));
			if (!option->get_description().empty())
				list += fmt::format(".TP\n\\fI{}\\fR\n{}.\n", escaped(option->get_name(true)),
						    escaped(option->get_description()));
		} else if (option != app.get_help_ptr()) {
			words += option->get_required() ? " " + usage(*option) : " [" + usage(*option) + "]";
			list += described(*option);
		}
	}
	return fmt::format(".SS \"{}\"\n{}.\n{}{}", words, escaped(app.get_description()), list, footer(app));
}

std::string man_sections(const CLI::App &app)
{
	std::string out = ".SH OPTIONS\n";
	for (const CLI::Option *option : app.get_options(shown))
		out += described(*option);
	const auto commands = app.get_subcommands([](const CLI::App *) { return true; });
	if (!commands.empty())
		out += ".SH COMMANDS\n";
	for (const CLI::App *one : commands)
		out += command(*one);
	return out;
}

}  // namespace svd

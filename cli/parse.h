// SPDX-License-Identifier: GPL-2.0
// The parser of svctl's command line, made from the table of commands. Its help texts, and what walks it (complete.h,
// man.h), know a command by all its names.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "cli/commands.h"

namespace svctl {

struct Options {
	std::string socket = "/run/svctl/svd.sock";
	unsigned timeout = 300;
	bool json = false;
	bool dry_run = false;
	bool yes = false;
};

// Whichever command is parsed fills `request`. Throws UsageError. All three must live as long as `app`.
void build_parser(CLI::App &app, Options &options, Values &values, Request &request);

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// The table of svctl's commands and options: parsing, help and the man page (man.h) come from it.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "daemon/base/socket.h"

namespace svctl {

using nlohmann::json;

struct Options {
	std::string socket = "/run/svctl/svd.sock";
	unsigned timeout = 300;
	bool json = false;
	bool dry_run = false;
	bool yes = false;
};

// What the command line asked for.
struct Request {
	std::string command;		// as typed
	std::string method;		// of io.svctl
	json parameters = json::object();
	bool destructive = false;
	svd::Fds fds = {};		// that go with it
};

struct UsageError : std::runtime_error {
	using std::runtime_error::runtime_error;
};

// Values that CLI11 fills; each command's callback turns them into a Request.
struct Arguments {
	std::string name, to, size, tier, file;
	std::vector<std::string> tiers, devices, wipe;
	bool read_only = false, missing = false;
};

void add_options(CLI::App &app, Options &options);
// Whichever command is parsed fills `request`. Throws UsageError.
void add_commands(CLI::App &app, Arguments &arguments, Request &request);

}	// namespace svctl

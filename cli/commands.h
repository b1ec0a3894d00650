// SPDX-License-Identifier: GPL-2.0
// The table of svctl's commands. Parsing and help (parse.h), completion (complete.h) and the man page (man.h) come from
// it, and so do the other names that a command has: `create-volume` is also `volume create`, and `activate`, which takes
// a pool, also `activate-pool` and `pool activate`.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/list.h"
#include "cli/table.h"
#include "daemon/base/socket.h"

namespace svctl {

using nlohmann::json;

// What the command line asked for.
struct Request {
	std::string method;		// of io.svctl
	json parameters = json::object();
	bool destructive = false;
	svd::Fds fds = {};		// that go with it
	std::string command = {};	// its name in the table
	bool changes = false;		// something, unless with --dry-run
	bool long_work = false;		// a job of svd's, if it takes long
	bool leaves_nothing = false;	// if svctl is gone: svd ends it then
	View view = {};			// of tables, and of numbers
	Selection selection = {};	// of list
	bool new_uuid = false;		// for the file system on the volume that is created
	std::vector<std::string> freeze = {};	// devices whose file systems stand still meanwhile
};

// A word or an option of a command.
struct Parameter {
	enum class Kind { kWord, kWords, kOption, kOptions, kFlag };	// kWords, kOptions: any number

	const char *name;		// "POOL", "--size", "-o,--columns"
	const char *value;		// of an option: "SIZE"; completion goes by it, and by the name of a word
	std::string text;
	Kind kind = Kind::kWord;
	bool required = true;

	std::string key() const;	// "columns"; of a word, its name
};

// What was given for a command's parameters, by key.
class Values {
public:
	struct Value {
		bool set = false;	// a flag
		std::string text;
		std::vector<std::string> all;
	};

	Value &slot(const std::string &key) { return values_[key]; }
	bool flag(const char *key) const { return values_.at(key).set; }
	const std::string &text(const char *key) const { return values_.at(key).text; }
	const std::vector<std::string> &all(const char *key) const { return values_.at(key).all; }

private:
	std::map<std::string, Value> values_;
};

struct Command {
	std::string name;			// "create-pool", "activate"
	std::string verb;			// "create", "activate"
	std::vector<std::string> nouns;		// of what: "pool"
	std::string summary;
	std::vector<Parameter> parameters;
	std::string example;			// without "svctl "
	std::string exits;			// exit codes that say something of their own here
	// Throws UsageError. `noun` is the one that was typed before the verb.
	Request (*request)(const Values &values, const std::string &noun);
	bool changes = true;
	std::span<const Column> columns = {};	// of the table that it shows

	std::vector<std::string> aliases() const;	// "activate-pool"
	Request asked(const Values &values, const std::string &noun) const;	// throws UsageError, too
};

const std::vector<Command> &commands();
const Command *command_called(const std::string &noun, const std::string &word);	// "", "create-pool"; "pool", "create"

}	// namespace svctl

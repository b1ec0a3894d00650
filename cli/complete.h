// SPDX-License-Identifier: GPL-2.0
// Completion. The shells' scripts know nothing of commands: they hand the words so far to `svctl --complete`, and what it
// answers comes from the parser, that is from the table of commands. A line each: the word, a tab, what it is; or
// ":files", the word is a path; or ":list", what follows its last '=' or ',' is one.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace svctl {

// For the last of `words`, which may be empty. Names of pools and volumes are asked of svd; without it there are none.
std::string complete(const CLI::App &app, const std::vector<std::string> &words);

// Of "bash", "zsh" or "fish"; null: no such shell.
const char *completion_script(const std::string &shell);

}	// namespace svctl

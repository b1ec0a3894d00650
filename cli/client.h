// SPDX-License-Identifier: GPL-2.0
// One Varlink call to svd. Owns the connection; main.cc calls it.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "daemon/base/socket.h"

namespace svctl {

// Fixed for ever: scripts depend on them.
enum ExitCode {
	kExitOk = 0,
	kExitFailure = 1,
	kExitUsage = 2,
	kExitNotFound = 3,
	kExitPermission = 4,
	kExitBusy = 5,
	kExitNoSpace = 6,
	kExitNeedsCheck = 7,
	kExitMissingFeature = 8,
	kExitUnreachable = 20,
	kExitTimeout = 21,
};

struct Answer {
	int exit = kExitOk;
	std::string message;	// what went wrong, if exit is not 0
	std::string id;		// and its code (codes.h)
	nlohmann::json parameters = nlohmann::json::object();
	svd::Fds fds = {};	// that came with it
};

// Of a failure that svctl itself met.
Answer failed(int exit, std::string message);
// With `report`, svd may say how far it is before it answers; timeout: from one word of it to the next.
Answer call(const std::string &socket_path, const std::string &method, const nlohmann::json &parameters,
	    const svd::Fds &fds, std::chrono::seconds timeout,
	    const std::function<void(const nlohmann::json &progress)> &report = {});

}	// namespace svctl

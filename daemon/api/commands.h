// SPDX-License-Identifier: GPL-2.0
// The interface io.svctl: one table from method names to the engine's use cases. main.cc gives dispatch() to the server.
// What methods take and answer is declared in io.svctl.varlink.
#pragma once

#include "daemon/api/varlink.h"
#include "daemon/engine/engine.h"

namespace svd {

Reply dispatch(Engine &engine, bool simulated, const std::string &method, const Json &parameters,
	       const Fds &fds);

Reply error_reply(const Error &error);	// one of io.svctl's

}	// namespace svd

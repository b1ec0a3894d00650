// SPDX-License-Identifier: GPL-2.0
// The interface io.svctl: one table from method names to the engine's use cases, and the description of it that
// Varlink clients can ask for. main.cc gives dispatch() to the server.
#pragma once

#include "daemon/api/varlink.h"
#include "daemon/engine/engine.h"

namespace svd {

Reply dispatch(Engine &engine, bool simulated, const std::string &method, const Json &parameters,
	       const Fds &fds);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// The interface io.svctl: one table from method names to the engine's use cases, and to the role that each needs. main.cc
// gives dispatch() to the server. What methods take and answer is declared in io.svctl.varlink. Who asks for a change, and
// what came of it, is logged.
#pragma once

#include "daemon/api/varlink.h"
#include "daemon/engine/engine.h"

namespace svd {

struct Service {
	Engine &engine;
	bool simulated = false;
	RoleGroups groups;
};

Reply dispatch(Service &service, const Request &request);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See kill_point.h.
#include "daemon/engine/kill_point.h"

#include <csignal>
#include <cstdlib>
#include <cstring>

namespace svd {

void kill_point(const char *name)
{
	static const char *const chosen = std::getenv("SVD_KILL_AT");
	static const char *const spins = std::getenv("SVD_SPIN_AT");
	if (chosen != nullptr && std::strcmp(chosen, name) == 0)
		std::raise(SIGKILL);
	if (spins != nullptr && std::strcmp(spins, name) == 0)
		for (volatile bool on = true; on;)
			;
}

}	// namespace svd

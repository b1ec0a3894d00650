// SPDX-License-Identifier: GPL-2.0
// Something that is wrong now, with its code: for `svctl status`, and for whoever alerts by codes.
#pragma once

#include <string>

#include "daemon/base/codes.h"

namespace svd {

struct Problem {
	Id id;
	std::string what;
	std::string next = {};		// the command to type
	std::string pool = {};		// empty: of a device that belongs to no pool that can be named
	std::string volume = {};
	std::string device = {};
};

}	// namespace svd

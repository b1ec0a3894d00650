// SPDX-License-Identifier: GPL-2.0
// The errors of io.svctl.varlink: one for each of svctl's exit codes.
#pragma once

#include "daemon/api/varlink.h"
#include "daemon/base/result.h"

namespace svd {

Reply error_reply(const Error &error);

}	// namespace svd

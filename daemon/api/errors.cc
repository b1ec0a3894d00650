// SPDX-License-Identifier: GPL-2.0
// See errors.h.
#include "daemon/api/errors.h"

namespace svd {

// What is no code of its own in the interface is Failed.
static const char *error_name(Code code)
{
	switch (code) {
	case Code::kUsage:
		return "io.svctl.InvalidArgument";
	case Code::kNotFound:
		return "io.svctl.NotFound";
	case Code::kPermission:
		return "io.svctl.PermissionDenied";
	case Code::kBusy:
		return "io.svctl.Busy";
	case Code::kNoSpace:
		return "io.svctl.NoSpace";
	case Code::kNeedsCheck:
		return "io.svctl.NeedsCheck";
	case Code::kMissingFeature:
		return "io.svctl.Unsupported";
	case Code::kTimeout:
		return "io.svctl.Timeout";
	default:
		return "io.svctl.Failed";
	}
}

Reply error_reply(const Error &error)
{
	const char *const name = error_name(error.code);
	// Of svd's own connections, if it had any: not what svctl's 20 says.
	const int code = error.code == Code::kUnreachable ? static_cast<int>(Code::kFailure) : error.exit_code();
	return {name, {{"code", code}, {"id", code_of(error.id())}, {"message", error.message()},
		       {"attempted", error.attempted}, {"object", error.object}, {"cause", error.cause}, {"hint", error.hint}}};
}

}	// namespace svd

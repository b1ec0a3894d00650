// SPDX-License-Identifier: GPL-2.0
// What both kernels share: names of commands and the meaning of their errors.
#include "daemon/kernel/kernel.h"

#include <cerrno>
#include <cstring>

#include <fmt/core.h>

namespace svd {

const char *op_name(uint32_t op)
{
	static const char *const kNames[] = {"?", "HELLO", "ATTACH", "STATE", "MEMBERS", "JOURNAL", "EXTENTS",
		"PARTIALS", "VOLUME_CREATE", "VOLUME_RESIZE", "VOLUME_DROP", "VOLUMES", "MAP", "GRANT", "ACTIVATE",
		"COMMIT", "TRIM", "LIST_FREED", "RECYCLE", "POLICY", "WAIT", "DUMP_EXTENTS", "DUMP_PARTIALS",
		"DUMP_MAP", "HISTOGRAMS", "SNAPSHOT", "OWN", "FREE", "FOLD", "SHARE", "DUMP_NEWER", "MOVE", "CLOSE"};
	static_assert(std::size(kNames) == SV_OP_CLOSE + 1);
	return op < std::size(kNames) ? kNames[op] : "?";
}

static Code code_of(int error)
{
	switch (error) {
	case EPERM:
	case EACCES:
		return Code::kPermission;
	case EBUSY:
	case EEXIST:
		return Code::kBusy;
	case ENOENT:
	case ENODEV:
		return Code::kNotFound;
	case ENOSPC:
		return Code::kNoSpace;
	case EOPNOTSUPP:
		return Code::kMissingFeature;
	default:
		return Code::kFailure;
	}
}

Error command_error(uint32_t op, int error)
{
	return Error{code_of(error), "carry out", fmt::format("kernel command {}", op_name(op)), strerror(error), ""};
}

static Error no_debug_io()
{
	return Error{Code::kMissingFeature, "access", "volume", "only svd --sim reads and writes volumes itself",
		     "use the volume's device"};
}

Result<void> KernelPool::read(uint32_t, uint64_t, std::span<uint8_t>) { return no_debug_io(); }
Result<void> KernelPool::write(uint32_t, uint64_t, std::span<const uint8_t>, bool) { return no_debug_io(); }
Result<void> KernelPool::flush(uint32_t) { return no_debug_io(); }
Result<void> KernelPool::discard(uint32_t, uint64_t, uint64_t) { return no_debug_io(); }

}	// namespace svd

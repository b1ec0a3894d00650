// SPDX-License-Identifier: GPL-2.0
// How errors read, and what errno values mean in svctl's exit codes.
#include "daemon/base/result.h"

#include <cerrno>
#include <cstring>

namespace svd {

std::string Error::message() const
{
	return hint.empty() ? without_hint() : without_hint() + " (" + hint + ")";
}

std::string Error::without_hint() const
{
	std::string text;
	if (!attempted.empty()) {
		text = "cannot " + attempted;
		if (!object.empty())
			text += " " + object;
	} else {
		text = object;
	}
	if (!cause.empty())
		text += (text.empty() ? "" : ": ") + cause;
	return text;
}

Error Error::within(std::string attempted_outer, std::string object_outer) &&
{
	std::string inner_hint = std::move(hint);
	hint.clear();
	std::string inner = message();
	Error outer(code, std::move(attempted_outer), std::move(object_outer), std::move(inner), std::move(inner_hint));
	outer.own_id = own_id;
	return outer;
}

Error Error::with(Id own) &&
{
	own_id = own;
	return std::move(*this);
}

Id Error::id() const { return own_id.value_or(id_of(code)); }

static Code code_of_errno(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
	case EROFS:
		return Code::kPermission;
	case ENOENT:
	case ENOTDIR:
	case ENODEV:
	case ENXIO:
		return Code::kNotFound;
	case ELOOP:
	case ENAMETOOLONG:
		return Code::kUsage;
	case EBUSY:
	case EEXIST:
		return Code::kBusy;
	case ENOSPC:
		return Code::kNoSpace;
	case EBADMSG:
		return Code::kNeedsCheck;
	case EOPNOTSUPP:
	case ENOSYS:
		return Code::kMissingFeature;
	case ECONNREFUSED:
		return Code::kUnreachable;
	case ETIMEDOUT:
		return Code::kTimeout;
	default:
		return Code::kFailure;
	}
}

Error errno_error(int err, std::string attempted, std::string object, std::string hint)
{
	return Error(code_of_errno(err), std::move(attempted), std::move(object), strerror(err), std::move(hint));
}

const char *code_name(Code code)
{
	switch (code) {
	case Code::kOk:
		return "ok";
	case Code::kFailure:
		return "failure";
	case Code::kUsage:
		return "usage";
	case Code::kNotFound:
		return "not-found";
	case Code::kPermission:
		return "permission";
	case Code::kBusy:
		return "busy";
	case Code::kNoSpace:
		return "no-space";
	case Code::kNeedsCheck:
		return "needs-check";
	case Code::kMissingFeature:
		return "missing-feature";
	case Code::kUnreachable:
		return "unreachable";
	case Code::kTimeout:
		return "timeout";
	}
	return "unknown";
}

Id id_of(Code code)
{
	switch (code) {
	case Code::kOk:
	case Code::kFailure:
		return Id::kFailure;
	case Code::kUsage:
		return Id::kUsage;
	case Code::kNotFound:
		return Id::kNotFound;
	case Code::kPermission:
		return Id::kPermission;
	case Code::kBusy:
		return Id::kBusy;
	case Code::kNoSpace:
		return Id::kNoSpace;
	case Code::kNeedsCheck:
		return Id::kNeedsCheck;
	case Code::kMissingFeature:
		return Id::kMissingFeature;
	case Code::kUnreachable:
		return Id::kUnreachable;
	case Code::kTimeout:
		return Id::kTimeout;
	}
	return Id::kFailure;
}

}  // namespace svd

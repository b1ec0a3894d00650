// SPDX-License-Identifier: GPL-2.0
// The one error regime of svd and svctl: a function that can fail returns Result<T>. An error says what was
// attempted, on which object, why it failed and what the user can do. Everything above kmod/core uses this.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "daemon/base/codes.h"

namespace svd {

// Also the exit codes of svctl; they never change.
enum class Code : int {
	kOk = 0,
	kFailure = 1,
	kUsage = 2,
	kNotFound = 3,
	kPermission = 4,
	kBusy = 5,  // or in conflict with what is there
	kNoSpace = 6,
	kNeedsCheck = 7,
	kMissingFeature = 8,  // kernel module or feature
	kUnreachable = 20,
	kTimeout = 21,
};

struct [[nodiscard]] Error {
	Error() = default;
	Error(Code code, std::string cause) : code(code), cause(std::move(cause)) {}
	Error(Code code, std::string attempted, std::string object, std::string cause, std::string hint = {})
		: code(code), attempted(std::move(attempted)), object(std::move(object)), cause(std::move(cause)),
		  hint(std::move(hint))
	{
	}

	Code code = Code::kFailure;
	std::string attempted;  // "open catalogue"
	std::string object;     // "/dev/sdb" or "tank/train"
	std::string cause;      // "checksum of page 7 is wrong"
	std::string hint;       // "run svctl check tank"; may be empty

	// What it is, where that has a code of its own; otherwise the code of its kind.
	Error with(Id own) &&;
	Id id() const;

	int exit_code() const { return static_cast<int>(code); }
	std::string message() const;  // "cannot ATTEMPTED OBJECT: CAUSE (HINT)"; without an attempt: "CAUSE (HINT)"
	std::string without_hint() const;  // "cannot ATTEMPTED OBJECT: CAUSE"

	// What the caller was doing when it met this error; the old attempt becomes part of the cause.
	Error within(std::string attempted_outer, std::string object_outer) &&;

	std::optional<Id> own_id;
};

// code from an errno value: EACCES and EPERM permission, ENOENT not found, EBUSY and EEXIST busy, ENOSPC no space...
Error errno_error(int err, std::string attempted, std::string object, std::string hint = {});
const char *code_name(Code code);
Id id_of(Code code);

template <typename T>
class [[nodiscard]] Result {
 public:
	Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
	Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

	bool ok() const { return state_.index() == 0; }
	explicit operator bool() const { return ok(); }
	T &value() & { return std::get<0>(state_); }
	const T &value() const& { return std::get<0>(state_); }
	T&& value() && { return std::get<0>(std::move(state_)); }
	T &operator*() & { return value(); }
	const T &operator*() const& { return value(); }
	T&& operator*() && { return std::move(*this).value(); }
	T *operator->() { return &value(); }
	const T *operator->() const { return &value(); }
	const Error &error() const& { return std::get<1>(state_); }
	Error&& error() && { return std::get<1>(std::move(state_)); }

 private:
	std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
	Result() = default;
	Result(Error error) : error_(std::move(error)) {}

	bool ok() const { return !error_; }
	explicit operator bool() const { return ok(); }
	const Error &error() const& { return *error_; }
	Error&& error() && { return *std::move(error_); }

 private:
	std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace svd

#define SV_CONCAT2(a, b) a##b
#define SV_CONCAT(a, b) SV_CONCAT2(a, b)
// SV_TRY(expr): returns the error of a Result<void> (or drops the value of another) from the enclosing function.
#define SV_TRY(...)                                                                        \
	do {                                                                               \
		if (auto sv_result_ = (__VA_ARGS__); !sv_result_)                          \
			return std::move(sv_result_).error();                              \
	} while (0)
// SV_ASSIGN(auto x, expr): x is the value, or the error is returned from the enclosing function.
#define SV_ASSIGN(decl, ...) SV_ASSIGN_(SV_CONCAT(sv_result_, __LINE__), decl, __VA_ARGS__)
#define SV_ASSIGN_(tmp, decl, ...)                                                         \
	auto tmp = (__VA_ARGS__);                                                          \
	if (!tmp)                                                                          \
		return std::move(tmp).error();                                             \
	decl = std::move(tmp).value()

// SPDX-License-Identifier: GPL-2.0
// The parameters of a call, each checked as it is taken. What is missing or malformed throws: the dispatcher answers
// with org.varlink.service.InvalidParameter.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "daemon/api/varlink.h"
#include "daemon/engine/engine.h"

namespace svd {

struct BadParameter : std::runtime_error {
	using std::runtime_error::runtime_error;
};

class Parameters {
public:
	// Refuses those that the method does not declare: a misspelt dry_run must not destroy anything.
	Parameters(const Json &json, std::string_view interface, std::string_view method);

	std::string text(const char *name) const;
	std::string text_or_empty(const char *name) const;
	std::optional<std::string> text_if_given(const char *name) const;
	uint64_t number(const char *name) const;
	bool flag(const char *name) const;				// false without it
	bool required_flag(const char *name) const;
	std::optional<bool> choice(const char *name) const;
	std::vector<std::string> texts(const char *name) const;		// none without it
	std::optional<uint64_t> number_if_given(const char *name) const;
	std::vector<TierRequest> tiers(const char *name) const;
	std::vector<SnapshotName> new_snapshots(const char *name) const;
	std::vector<SnapshotName> volumes_or_snapshots(const char *name) const;	// of a volume: snapshot is empty; none if it is left out
	SnapshotName volume_or_snapshot(const char *name) const;
	std::optional<SnapshotName> origin(const char *name) const;	// "VOLUME@SNAPSHOT"
	int fd(const char *name, const Fds &fds) const;			// a position among them
	std::vector<uint8_t> hex(const char *name) const;

private:
	bool has(const char *name) const { return json_.contains(name) && !json_[name].is_null(); }

	const Json &json_;
};

}	// namespace svd

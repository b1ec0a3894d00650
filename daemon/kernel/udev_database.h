// SPDX-License-Identifier: GPL-2.0
// What udev knows of a device that a scan must leave alone: a path of a multipath device, which looks like the member
// that the map is, before the map is there; and what udev has not finished with.
#pragma once

#include <string>

namespace svd {

// No word against it: also where no udev runs.
bool udev_says_not_ours(const std::string &path);
// Has udev been at it since it came? True where none runs.
bool udev_knows(const std::string &path);

// The rule itself. `property` looks one up; nullptr: it is not set.
template <typename Property> bool is_for_others(Property property)
{
	const auto is = [&](const char *name, const char *value) {
		const char *const found = property(name);
		return found != nullptr && std::string(found) == value;
	};
	return is("DM_MULTIPATH_DEVICE_PATH", "1") || is("SYSTEMD_READY", "0") || is("DM_UDEV_DISABLE_OTHER_RULES_FLAG", "1");
}

}	// namespace svd

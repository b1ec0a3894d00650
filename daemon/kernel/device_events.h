// SPDX-License-Identifier: GPL-2.0
// Members that come: udev's events of block devices which its rule (udev/64-svctl.rules) found to be ours. Where no
// udev runs there are none, and svd looks around by itself now and then.
#pragma once

#include <memory>

struct udev;
struct udev_monitor;

namespace svd {

// As udev says it; null where it says nothing.
bool tells_of_member(const char *action, const char *fs_type);

class DeviceEvents {
public:
	DeviceEvents();
	~DeviceEvents();
	DeviceEvents(const DeviceEvents &) = delete;
	DeviceEvents &operator=(const DeviceEvents &) = delete;

	int fd() const;		// readable: take(); negative: there will be none
	bool take();		// all that have come: was one of a member?

private:
	udev *udev_;
	udev_monitor *monitor_;
};

}	// namespace svd

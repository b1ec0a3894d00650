// SPDX-License-Identifier: GPL-2.0
// See device_events.h.
#include "daemon/kernel/device_events.h"

#include <cerrno>
#include <string_view>

#include <libudev.h>

#include "daemon/base/log.h"

namespace svd {

bool tells_of_member(const char *action, const char *fs_type)
{
	return action != nullptr && std::string_view(action) != "remove" && fs_type != nullptr &&
	       std::string_view(fs_type) == "sv_member";
}

DeviceEvents::DeviceEvents()
	: udev_(udev_new()), monitor_(udev_ == nullptr ? nullptr : udev_monitor_new_from_netlink(udev_, "udev"))
{
	if (monitor_ != nullptr && udev_monitor_filter_add_match_subsystem_devtype(monitor_, "block", nullptr) >= 0 &&
	    udev_monitor_enable_receiving(monitor_) >= 0)
		return;
	log::warning(Id::kUdevSilent, "udev's events cannot be received: members that come are noticed by svctl scan only");
	udev_monitor_unref(monitor_);
	monitor_ = nullptr;
}

DeviceEvents::~DeviceEvents()
{
	udev_monitor_unref(monitor_);
	udev_unref(udev_);
}

int DeviceEvents::fd() const
{
	return monitor_ == nullptr ? -1 : udev_monitor_get_fd(monitor_);
}

bool DeviceEvents::take()
{
	bool member = false;
	while (monitor_ != nullptr) {
		errno = 0;
		udev_device *const device = udev_monitor_receive_device(monitor_);	// does not wait
		if (device == nullptr && errno != ENOBUFS)	// that: there were more than fitted, any of them a member's
			break;
		member = member || device == nullptr ||
			 tells_of_member(udev_device_get_action(device), udev_device_get_property_value(device, "ID_FS_TYPE"));
		udev_device_unref(device);
	}
	return member;
}

}	// namespace svd

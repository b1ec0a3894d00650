// SPDX-License-Identifier: GPL-2.0
// See udev_database.h.
#include "daemon/kernel/udev_database.h"

#include <memory>

#include <libudev.h>
#include <sys/stat.h>
#include <unistd.h>

namespace svd {

namespace {

struct UdevFree {
	void operator()(udev *u) const { udev_unref(u); }
	void operator()(udev_device *d) const { udev_device_unref(d); }
};

using Context = std::unique_ptr<udev, UdevFree>;
using Device = std::unique_ptr<udev_device, UdevFree>;

// Null: no udev runs, or it is no block device.
Device look_up(const Context &context, const std::string &path)
{
	struct stat st;
	if (!context || access("/run/udev/control", F_OK) < 0 || stat(path.c_str(), &st) < 0 || !S_ISBLK(st.st_mode))
		return nullptr;
	return Device(udev_device_new_from_devnum(context.get(), 'b', st.st_rdev));
}

}	// namespace

bool udev_says_not_ours(const std::string &path)
{
	const Context context(udev_new());
	const Device device = look_up(context, path);
	if (!device)
		return false;
	// The event of one that it has not looked at yet follows, and has svd look again.
	if (udev_device_get_is_initialized(device.get()) == 0)
		return true;
	return is_for_others([&](const char *name) { return udev_device_get_property_value(device.get(), name); });
}

bool udev_knows(const std::string &path)
{
	const Context context(udev_new());
	const Device device = look_up(context, path);
	return !device || udev_device_get_is_initialized(device.get()) != 0;
}

}	// namespace svd

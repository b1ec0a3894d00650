// SPDX-License-Identifier: GPL-2.0
// Who has a block device open, in words for an administrator: a mount, a device upon it (LUKS, LVM, RAID, loop), swap,
// a process. Read from /sys and /proc; no device and no file of another file system is touched, since svd must not wait
// for a volume that it serves.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

namespace svd {

struct DeviceUser {
	std::string what;		// "held by /dev/mapper/secret (LUKS), which is mounted on /secret"
	std::vector<std::string> next;	// commands that end it, in their order: "umount /secret", "cryptsetup close secret"
	bool passing = false;		// udev, which looks into what somebody has just closed, and is done soon
};

// Of the device with that number, as those of `root`'s /sys and /proc say. `link` is one more path by which it may have
// been opened. Empty: none, or one that cannot be seen from here, as a mount in a container.
std::vector<DeviceUser> users_of_device(dev_t device, const std::string &link, const std::filesystem::path &root = "/");

// "mounted on /a and /b; open in process 812 (fio)", and "umount /a; umount /b"; the first few where there are many.
DeviceUser summary_of(const std::vector<DeviceUser> &users);

}	// namespace svd

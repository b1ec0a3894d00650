// SPDX-License-Identifier: GPL-2.0
// What is mounted, as /proc/PID/mountinfo says; and what of that lies on a device.
#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <set>
#include <string>
#include <vector>

namespace svd {

struct Mount {
	uint64_t id = 0;		// in its mount namespace
	std::string number;		// "253:1"; Btrfs has one of its own there, and names one of its devices as source
	std::string path;
	std::string source;		// "/dev/mapper/secret", or a name of the kind's own
};

// What the kernel writes where a space would end a field: "\040".
std::string unescaped(const std::string &text);
std::vector<Mount> read_mounts(std::istream &mountinfo);

// The device with that number ("253:1") and all that lies upon it: LUKS, LVM, RAID, partitions, loop devices, and so on.
std::set<std::string> devices_upon(const std::string &number, const std::filesystem::path &root = "/");

// A file system, by all that it is mounted on: where another mount covers one, its path leads elsewhere.
using FileSystem = std::vector<Mount>;
std::vector<FileSystem> file_systems_on(const std::set<std::string> &devices, const std::vector<Mount> &mounts,
					const std::filesystem::path &root = "/");

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// Looks at a device before it becomes a member: is it there, writable, unused, and empty? Called by create-pool and
// add-device; changes nothing except in wipe_signatures().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/base/result.h"

namespace svd {

struct ProbedDevice {
	std::string path;	// as named by the user
	std::string identity;	// equal for two names of one device
	std::string disk;	// of a partition, the identity of its disk
	bool whole_disk = false;	// becomes a member as a partition of itself (partition.h)
	uint64_t size = 0;	// bytes that the member will have
	std::vector<std::string> signatures;	// "ext4 filesystem", "gpt partition table" ...
};

// Equal for two names of one device. kNotFound: there is none.
Result<std::string> device_identity(const std::string &path);
// Refuses what is missing (kNotFound), read-only (kPermission), in use (kBusy), no device at all, or on a volume of
// svd's (kUsage). Regular files are devices only in the simulation.
Result<ProbedDevice> probe_device(const std::string &path, bool files_allowed);
// Are they one device, or a disk and a partition of it? What is written to one is written to the other.
bool overlap(const ProbedDevice &a, const ProbedDevice &b);
// What another has put there, as libblkid knows it: "crypto_LUKS crypto"; empty: nothing. Also of a device in use.
Result<std::string> foreign_signature(const std::string &path);
// Is it a part of what others assemble (md, LVM)? Half of a mirror looks like the member that the mirror is.
Result<bool> is_raid_part(const std::string &path);
Status wipe_signatures(const std::string &path);

}	// namespace svd

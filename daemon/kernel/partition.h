// SPDX-License-Identifier: GPL-2.0
// A whole disk becomes a member as the one partition of a GPT of ours: libblkid does not know our label, and mkfs or
// pvcreate would take the disk for blank. Partitions and stacked devices (md, LUKS, multipath ...) and the files of
// the simulation are members as they are. Called by probe.cc and the engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "daemon/base/result.h"
#include "daemon/base/unique_fd.h"

namespace svd {

inline constexpr char kPartitionType[] = "DA8107D2-CD82-48EE-8323-743684EC7DEA";
inline constexpr char kPartitionName[] = "svctl";

// Its directory in /sys; empty for what is no block device.
Result<std::filesystem::path> sysfs_of(const std::string &path);

// What sysfs says of a block device.
struct BlockFacts {
	bool partition = false;
	bool stacked = false;		// made of other devices
	bool partitionable = false;
};
BlockFacts read_block_facts(const std::string &sysfs_directory);
bool is_whole_disk(const BlockFacts &facts);
// Of a partition, "MAJOR:MINOR" of the disk that it is on; empty: it is none.
std::string disk_of_partition(const std::filesystem::path &sysfs_directory);

// Is it a volume or a pool's own device?
bool is_of_a_pool(const std::filesystem::path &sysfs_directory);
// Is it one, or does it lie on one, through LUKS for one? svd cannot have such a member: it would
// wait for itself.
bool lies_on_a_pool(const std::filesystem::path &sysfs_directory);

// Looks at the device that `path` names; false for what is no block device.
Result<bool> is_whole_disk(const std::string &path);
// Bytes of the partition that a disk of so many bytes gets; 0: the disk is too small for one.
uint64_t partition_size(uint64_t disk_bytes, uint32_t sector);

// Writes a GPT with our partition, from 1 MiB to the last whole MiB, to an open disk (or a file, in tests).
Status write_partition_table(int fd, const std::string &path);
// The same, and the kernel reads it. udev has the kernel read a table anew whenever somebody who could write to a disk
// closes it, and then the partition's node is gone for a moment, unless the partition is in use: until it is, `hold` is to
// be kept, a descriptor with a shared lock, which that reading does not get past.
struct PartitionedDisk {
	std::string partition;	// its device
	UniqueFd hold;
};
Result<PartitionedDisk> partition_disk(const std::string &path);
// Where the label is, or would be: our partition of a whole disk, or the device itself. kNeedsCheck: a table with more
// than one such partition, or with one that the kernel does not show.
Result<std::string> member_device(const std::string &path);
// Removes the table around our partition, if that is all that it holds. Anything else stays.
Status remove_partition_table(const std::string &partition);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See partition.h. The table is written by libfdisk, read by libblkid; sysfs says which device is which.
#include "daemon/kernel/partition.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <libfdisk/libfdisk.h>
#include <linux/fs.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/base/files.h"
#include "daemon/base/unique_fd.h"
#include "daemon/base/waiting.h"
#include "daemon/kernel/probe.h"
#include "daemon/kernel/udev_database.h"

namespace svd {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kAlign = 1u << 20;
constexpr uint64_t kGptEntries = 16384;	// bytes of the backup's table of entries, before the backup header
constexpr int kTries = 50;		// udev may look at the disk just now
constexpr auto kPause = std::chrono::milliseconds(100);

template <typename T, void (*Free)(T *)> struct Freer {
	void operator()(T *p) const { Free(p); }
};
template <typename T, void (*Free)(T *)> using Handle = std::unique_ptr<T, Freer<T, Free>>;
using Context = Handle<fdisk_context, fdisk_unref_context>;
using Partition = Handle<fdisk_partition, fdisk_unref_partition>;
using Type = Handle<fdisk_parttype, fdisk_unref_parttype>;
using Probe = Handle<blkid_struct_probe, blkid_free_probe>;

uint64_t number_in(const fs::path &file)
{
	uint64_t value = 0;
	std::ifstream(file) >> value;
	return value;
}

std::string node_of(const fs::path &sysfs)
{
	std::string name = sysfs.filename();
	std::replace(name.begin(), name.end(), '!', '/');
	return "/dev/" + name;
}

// The device of partition `number`; empty: the kernel does not show it.
std::string partition_node(const fs::path &disk, uint64_t number)
{
	for (const fs::path &entry : entries(disk))
		if (number_in(entry / "partition") == number)
			return node_of(entry);
	return {};
}

// What the partition table of a disk says.
struct Table {
	bool gpt = false;
	int partitions = 0;
	int ours = 0;
	int number = 0;	// of ours
};

Result<Table> read_table(const std::string &path)
{
	const Waiting waiting("the partition table of", Activity::Of::kDevice, path);
	const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!fd)
		return errno_error(errno, "open", path);
	const Probe probe(blkid_new_probe());
	if (!probe || blkid_probe_set_device(probe.get(), fd.get(), 0, 0) < 0)
		return Error{Code::kFailure, "probe", path, "libblkid cannot read it", ""};
	blkid_probe_enable_partitions(probe.get(), 1);
	Table table;
	blkid_partlist list = blkid_probe_get_partitions(probe.get());
	if (list == nullptr || blkid_partlist_get_table(list) == nullptr)
		return table;
	table.gpt = std::string(blkid_parttable_get_type(blkid_partlist_get_table(list))) == "gpt";
	table.partitions = blkid_partlist_numof_partitions(list);
	for (int i = 0; i < table.partitions; i++) {
		blkid_partition partition = blkid_partlist_get_partition(list, i);
		const char *type = blkid_partition_get_type_string(partition);
		if (type == nullptr || strcasecmp(type, kPartitionType) != 0)
			continue;
		table.ours++;
		table.number = blkid_partition_get_partno(partition);
	}
	return table;
}

// The kernel forgets the partitions that it knew and reads the table.
Status reread_table(int fd, const std::string &path)
{
	for (int i = 0; ioctl(fd, BLKRRPART) < 0; i++) {
		if (errno != EBUSY || i == kTries)
			return errno_error(errno, "have the kernel read the partition table of", path, "see lsblk " + path);
		std::this_thread::sleep_for(kPause);
	}
	return {};
}

// LOCK_EX keeps udev from looking at the disk until fd is closed, when it does so (systemd.io/BLOCK_DEVICE_LOCKING): it
// would read half a table, and its opening the partitions would keep the kernel from reading the table anew. With
// LOCK_SH it looks, but does not have the table read anew.
Status lock_disk(int fd, int how, const std::string &path)
{
	for (int i = 0; flock(fd, how | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == kTries)
			return errno_error(errno == EWOULDBLOCK ? EBUSY : errno, "lock", path, "see fuser " + path);
		std::this_thread::sleep_for(kPause);
	}
	return {};
}

// devtmpfs makes the node at once. udev is waited for, since scans leave alone what it has not seen yet.
Result<std::string> wait_for_partition(const std::string &path)
{
	SV_ASSIGN(const fs::path sysfs, sysfs_of(path));
	for (int i = 0; i < kTries; i++) {
		const std::string node = partition_node(sysfs, 1);
		if (!node.empty() && access(node.c_str(), F_OK) == 0 && udev_knows(node))
			return node;
		std::this_thread::sleep_for(kPause);
	}
	return Error{Code::kFailure, "use", path, "the partition just made does not appear", "see lsblk " + path};
}

}	// namespace

Result<fs::path> sysfs_of(const std::string &path)
{
	struct stat st;
	if (stat(path.c_str(), &st) < 0)
		return errno_error(errno, "find", path);
	std::error_code error;
	fs::path sysfs;
	if (S_ISBLK(st.st_mode))
		sysfs = fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(st.st_rdev), minor(st.st_rdev)), error);
	if (error)
		return Error{Code::kFailure, "find", path, "it is not in /sys", ""};
	return sysfs;	// empty: no block device
}

BlockFacts read_block_facts(const std::string &sysfs_directory)
{
	const fs::path sysfs(sysfs_directory);
	std::error_code error;
	BlockFacts facts;
	facts.partition = fs::exists(sysfs / "partition", error);
	facts.stacked = fs::exists(sysfs / "dm", error) || fs::exists(sysfs / "md", error) ||
			fs::directory_iterator(sysfs / "slaves", error) != fs::directory_iterator();
	facts.partitionable = number_in(sysfs / "ext_range") > 1;	// 1: a loop device without partscan, zram ...
	return facts;
}

std::string disk_of_partition(const fs::path &sysfs_directory)
{
	return read_block_facts(sysfs_directory).partition ? first_line(sysfs_directory.parent_path() / "dev") : "";
}

bool is_of_a_pool(const fs::path &sysfs_directory)
{
	return first_line(sysfs_directory / "dm/uuid").starts_with("SV-");
}

bool lies_on_a_pool(const fs::path &sysfs_directory)
{
	std::error_code error;
	const fs::path sysfs = fs::canonical(sysfs_directory, error);
	if (error)
		return false;
	if (is_of_a_pool(sysfs))
		return true;
	if (fs::exists(sysfs / "partition", error))
		return lies_on_a_pool(sysfs.parent_path());
	const std::vector<fs::path> slaves = entries(sysfs / "slaves");
	return std::any_of(slaves.begin(), slaves.end(), lies_on_a_pool);
}

bool is_whole_disk(const BlockFacts &facts)
{
	return !facts.partition && !facts.stacked && facts.partitionable;
}

Result<bool> is_whole_disk(const std::string &path)
{
	SV_ASSIGN(const fs::path sysfs, sysfs_of(path));
	return !sysfs.empty() && is_whole_disk(read_block_facts(sysfs));
}

uint64_t partition_size(uint64_t disk_bytes, uint32_t sector)
{
	const uint64_t backup = kGptEntries + sector;
	const uint64_t end = disk_bytes < backup ? 0 : (disk_bytes - backup) / kAlign * kAlign;
	return end <= kAlign ? 0 : end - kAlign;
}

Status write_partition_table(int fd, const std::string &path)
{
	const Context context(fdisk_new_context());
	const auto failed = [&](int error) { return errno_error(-error, "write a partition table to", path); };
	if (!context)
		return failed(-ENOMEM);
	fdisk_disable_dialogs(context.get(), 1);
	if (const int error = fdisk_assign_device_by_fd(context.get(), fd, path.c_str(), 0); error < 0)
		return failed(error);
	if (const int error = fdisk_create_disklabel(context.get(), "gpt"); error < 0)
		return failed(error);
	const uint64_t sector = fdisk_get_sector_size(context.get());
	const uint64_t bytes = partition_size(fdisk_get_nsectors(context.get()) * sector, static_cast<uint32_t>(sector));
	const Partition partition(fdisk_new_partition());
	const Type type(fdisk_label_parse_parttype(fdisk_get_label(context.get(), nullptr), kPartitionType));
	if (!partition || !type)
		return failed(-ENOMEM);
	fdisk_partition_set_partno(partition.get(), 0);
	fdisk_partition_set_start(partition.get(), kAlign / sector);
	fdisk_partition_set_size(partition.get(), bytes / sector);
	fdisk_partition_size_explicit(partition.get(), 1);
	fdisk_partition_set_type(partition.get(), type.get());
	fdisk_partition_set_name(partition.get(), kPartitionName);
	if (const int error = fdisk_add_partition(context.get(), partition.get(), nullptr); error < 0)
		return failed(error);
	if (const int error = fdisk_write_disklabel(context.get()); error < 0)
		return failed(error);
	fdisk_deassign_device(context.get(), 1);
	return fsync(fd) < 0 ? Status(errno_error(errno, "flush", path)) : Status();
}

Result<PartitionedDisk> partition_disk(const std::string &path)
{
	const Waiting waiting("the partitioning of", Activity::Of::kDevice, path);
	UniqueFd hold(open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!hold)
		return errno_error(errno, "open", path, "see lsblk " + path);
	SV_TRY(lock_disk(hold.get(), LOCK_EX, path));
	{
		const UniqueFd fd(open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
		if (!fd)
			return errno_error(errno, "open", path, "see lsblk " + path);
		SV_TRY(write_partition_table(fd.get(), path));
		SV_TRY(reread_table(fd.get(), path));
	}	// who holds a disk exclusively keeps others from its partitions
	SV_TRY(lock_disk(hold.get(), LOCK_SH, path));
	SV_ASSIGN(const std::string node, wait_for_partition(path));
	SV_TRY(wipe_signatures(node));	// of what began there before
	return PartitionedDisk{node, std::move(hold)};
}

Result<std::string> member_device(const std::string &path)
{
	SV_ASSIGN(const fs::path sysfs, sysfs_of(path));
	if (sysfs.empty() || !is_whole_disk(read_block_facts(sysfs)))
		return path;
	SV_ASSIGN(const Table table, read_table(path));
	if (table.ours == 0)
		return path;
	if (table.ours > 1)
		return Error{Code::kNeedsCheck, "use", path, "it has more than one partition of svctl", "name the partition"};
	std::string node = partition_node(sysfs, static_cast<uint64_t>(table.number));
	if (node.empty())
		return Error{Code::kNeedsCheck, "use", path,
			     fmt::format("the kernel does not show its partition {}", table.number),
			     "see dmesg; partprobe " + path};
	return node;
}

Status remove_partition_table(const std::string &partition)
{
	SV_ASSIGN(const fs::path sysfs, sysfs_of(partition));
	if (sysfs.empty() || !read_block_facts(sysfs).partition)
		return {};
	const std::string disk = node_of(sysfs.parent_path());
	SV_ASSIGN(const Table table, read_table(disk));
	if (!table.gpt || table.partitions != 1 || table.ours != 1)
		return {};
	const Waiting waiting("the partition table of", Activity::Of::kDevice, disk);
	const UniqueFd fd(open(disk.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
	if (!fd)
		return errno_error(errno, "open", disk, "see lsblk " + disk);
	SV_TRY(lock_disk(fd.get(), LOCK_EX, disk));
	SV_TRY(wipe_signatures(disk));
	return reread_table(fd.get(), disk);
}

}	// namespace svd

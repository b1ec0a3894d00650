// SPDX-License-Identifier: GPL-2.0
// See probe.h.
#include "daemon/kernel/probe.h"

#include <cerrno>
#include <memory>

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/base/unique_fd.h"
#include "daemon/base/waiting.h"
#include "daemon/kernel/partition.h"
#include "kmod/core/format.h"

namespace svd {

namespace {

struct ProbeFree {
	void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, ProbeFree>;

Result<Probe> open_probe(int fd, const std::string &path)
{
	Probe probe(blkid_new_probe());
	if (!probe || blkid_probe_set_device(probe.get(), fd, 0, 0) < 0)
		return Error{Code::kFailure, "probe", path, "libblkid cannot read it", ""};
	blkid_probe_enable_superblocks(probe.get(), 1);
	blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(probe.get(), 1);
	blkid_probe_set_partitions_flags(probe.get(), BLKID_PARTS_MAGIC);
	return probe;
}

std::string value_of(blkid_probe probe, const char *name)
{
	const char *value = nullptr;
	return blkid_probe_lookup_value(probe, name, &value, nullptr) == 0 && value != nullptr ? value : "";
}

std::string describe(blkid_probe probe)
{
	const std::string type = value_of(probe, "TYPE");
	if (!type.empty())
		return fmt::format("{} {}", type, value_of(probe, "USAGE"));
	return fmt::format("{} partition table", value_of(probe, "PTTYPE"));
}

Result<uint64_t> size_of(int fd, const struct stat &st, const std::string &path)
{
	uint64_t size = static_cast<uint64_t>(st.st_size);
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
		return errno_error(errno, "get the size of", path);
	return size;
}

Result<UniqueFd> open_unused(const std::string &path, const struct stat &st)
{
	const int exclusive = S_ISBLK(st.st_mode) ? O_EXCL : 0;
	UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC | exclusive));
	if (fd)
		return fd;
	if (errno == EBUSY)
		return Error{Code::kBusy, "use", path, "it is in use: mounted, or part of another device",
			     "see lsblk " + path};
	if (errno == EROFS || errno == EACCES)
		return Error{Code::kPermission, "use", path, "it is read-only", ""};
	return errno_error(errno, "open", path);
}

}	// namespace

Result<std::string> device_identity(const std::string &path)
{
	struct stat st;
	if (stat(path.c_str(), &st) < 0)
		return errno_error(errno, "find", path);
	return S_ISBLK(st.st_mode) ? fmt::format("{}:{}", major(st.st_rdev), minor(st.st_rdev)) :
				     fmt::format("f{}:{}", st.st_dev, st.st_ino);
}

bool overlap(const ProbedDevice &a, const ProbedDevice &b)
{
	return a.identity == b.identity || a.disk == b.identity || b.disk == a.identity;
}

Result<ProbedDevice> probe_device(const std::string &path, bool files_allowed)
{
	const Waiting waiting("a look at", Activity::Of::kDevice, path);
	struct stat st;
	if (stat(path.c_str(), &st) < 0)
		return errno_error(errno, "find", path);
	if (!S_ISBLK(st.st_mode) && !(files_allowed && S_ISREG(st.st_mode)))
		return Error{Code::kUsage, "use", path, "it is not a block device", ""};
	if (S_ISREG(st.st_mode) && (st.st_mode & 0222) == 0)
		return Error{Code::kPermission, "use", path, "it is read-only", ""};
	SV_ASSIGN(const auto sysfs, sysfs_of(path));
	if (!sysfs.empty() && lies_on_a_pool(sysfs))
		return Error{Code::kUsage, "use", path, "it is a volume of a pool, or lies on one: svd would wait for itself",
			     "see lsblk -s " + path};
	SV_ASSIGN(const UniqueFd fd, open_unused(path, st));
	int read_only = 0;
	if (S_ISBLK(st.st_mode) && ioctl(fd.get(), BLKROGET, &read_only) == 0 && read_only)
		return Error{Code::kPermission, "use", path, "it is read-only", ""};

	ProbedDevice device;
	device.path = path;
	SV_ASSIGN(device.identity, device_identity(path));
	device.disk = sysfs.empty() ? "" : disk_of_partition(sysfs);
	SV_ASSIGN(device.size, size_of(fd.get(), st, path));
	if (device.size == 0)
		return Error{Code::kUsage, "use", path, "it is empty", ""};
	SV_ASSIGN(device.whole_disk, is_whole_disk(path));
	int sector = SV_BLOCK_SIZE;
	if (S_ISBLK(st.st_mode) && ioctl(fd.get(), BLKSSZGET, &sector) < 0)
		return errno_error(errno, "get the sector size of", path);
	if (sector > static_cast<int>(SV_BLOCK_SIZE))
		return Error{Code::kUsage, "use", path, fmt::format("its logical blocks have {} bytes, and volumes' have 4096", sector),
			     "format it with logical blocks of 4 KiB or 512 bytes, where it can be"};
	if (device.whole_disk)
		device.size = partition_size(device.size, static_cast<uint32_t>(sector));
	SV_ASSIGN(const Probe probe, open_probe(fd.get(), path));
	while (blkid_do_probe(probe.get()) == 0)
		device.signatures.push_back(describe(probe.get()));
	return device;
}

Result<std::string> foreign_signature(const std::string &path)
{
	const Waiting waiting("a look at", Activity::Of::kDevice, path);
	UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!fd)
		return errno_error(errno, "open", path);
	SV_ASSIGN(const Probe probe, open_probe(fd.get(), path));
	return blkid_do_probe(probe.get()) == 0 ? describe(probe.get()) : std::string();
}

Result<bool> is_raid_part(const std::string &path)
{
	const Waiting waiting("a look at", Activity::Of::kDevice, path);
	UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!fd)
		return errno_error(errno, "open", path);
	SV_ASSIGN(const Probe probe, open_probe(fd.get(), path));
	while (blkid_do_probe(probe.get()) == 0)
		if (value_of(probe.get(), "USAGE") == "raid")
			return true;
	return false;
}

Status wipe_signatures(const std::string &path)
{
	const Waiting waiting("the wiping of", Activity::Of::kDevice, path);
	UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
	if (!fd)
		return errno_error(errno, "open", path);
	SV_ASSIGN(const Probe probe, open_probe(fd.get(), path));
	while (blkid_do_probe(probe.get()) == 0)
		if (blkid_do_wipe(probe.get(), 0) < 0)
			return errno_error(errno, "wipe", path);
	return fsync(fd.get()) < 0 ? Status(errno_error(errno, "flush", path)) : Status();
}

}	// namespace svd

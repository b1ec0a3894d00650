// SPDX-License-Identifier: GPL-2.0
// See label_io.h.
#include "daemon/engine/label_io.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/core.h>

#include "daemon/base/files.h"
#include "daemon/catalogue/catalogue.h"
#include "daemon/engine/kill_point.h"
#include "daemon/kernel/partition.h"

namespace svd {

namespace {

// 0, or the error of the codec with its reason.
int read_at(BlockDevice &device, uint64_t offset, sv_label *label, const char **why)
{
	AlignedBuffer buffer(SV_LABEL_SIZE);
	*why = "cannot be read";
	if (offset + SV_LABEL_SIZE > device.size() || !device.read(offset, buffer.span()).ok())
		return -EIO;
	return sv_label_decode(reinterpret_cast<const sv_label_disk *>(buffer.data()), label, why);
}

bool looks_like_label(BlockDevice &device)
{
	AlignedBuffer buffer(SV_LABEL_SIZE);
	return device.read(0, buffer.span()).ok() && std::memcmp(buffer.data(), SV_LABEL_MAGIC, 8) == 0;
}

Error unusable(const std::string &path, const char *why)
{
	return Error{Code::kNeedsCheck, "use the label of", path, why, ""};
}

bool same(const sv_label &a, const sv_label &b)
{
	sv_label_disk on_disk[2];
	sv_label_encode(&a, &on_disk[0]);
	sv_label_encode(&b, &on_disk[1]);
	return std::memcmp(&on_disk[0], &on_disk[1], sizeof(on_disk[0])) == 0;
}

// The front is sound. A change is written to the copy first, so the copy may be newer.
void compare_with_copy(BlockDevice &device, FoundMember *found)
{
	sv_label copy;
	const char *why = nullptr;
	if (read_at(device, found->label.copy_off, &copy, &why) != 0 ||
	    std::memcmp(copy.member_uuid, found->label.member_uuid, sizeof(copy.member_uuid)) != 0) {
		found->state = LabelState::kCopyBad;
	} else if (copy.generation > found->label.generation) {
		found->state = LabelState::kFrontBad;
		found->label = copy;
	} else if (!same(copy, found->label)) {
		found->state = LabelState::kCopyBad;
	}
}

}	// namespace

Result<std::optional<FoundMember>> read_label(const std::string &path)
{
	SV_ASSIGN(auto device, BlockFile::open(path, BlockFile::Mode::kReadOnly));
	FoundMember found{path, {}, LabelState::kSound, path};
	const char *why = nullptr;
	const int front = read_at(*device, 0, &found.label, &why);
	if (front == -EPROTONOSUPPORT)
		return unusable(path, why);
	if (front != 0) {
		const uint64_t copy = sv_label_copy_off(device->size());
		const char *copy_why = nullptr;
		const int error = copy == 0 ? -EINVAL : read_at(*device, copy, &found.label, &copy_why);
		if (error == -EPROTONOSUPPORT)
			return unusable(path, copy_why);
		if (error != 0)
			return looks_like_label(*device) ? Result<std::optional<FoundMember>>(unusable(path, why)) :
			       std::optional<FoundMember>();
		found.state = LabelState::kFrontBad;
	}
	if (found.label.size > device->size())
		return unusable(path, "the device is smaller than its label says");
	if (found.state == LabelState::kSound)
		compare_with_copy(*device, &found);
	return std::optional<FoundMember>(found);
}

static Status write_and_sync(BlockDevice &device, uint64_t offset, const AlignedBuffer &buffer)
{
	SV_TRY(device.write(offset, buffer.span()));
	return device.sync();
}

Status write_label(BlockDevice &device, const sv_label &label)
{
	AlignedBuffer buffer(SV_LABEL_SIZE);
	sv_label_encode(&label, reinterpret_cast<sv_label_disk *>(buffer.data()));
	SV_TRY(write_and_sync(device, label.copy_off, buffer));
	kill_point("label-copy-written");
	return write_and_sync(device, 0, buffer);
}

Status erase_label_at(BlockDevice &device, uint64_t offset)
{
	AlignedBuffer zeroes(SV_LABEL_SIZE);
	std::memset(zeroes.data(), 0, zeroes.size());
	return write_and_sync(device, offset, zeroes);
}

Status erase_label(BlockDevice &device, const sv_label &label)
{
	SV_TRY(erase_label_at(device, label.copy_off));
	return erase_label_at(device, 0);
}

void tell_udev(const std::string &path)
{
	const auto sysfs = sysfs_of(path);
	if (sysfs.ok() && !sysfs.value().empty())
		std::ofstream(sysfs.value() / "uevent") << "change" << std::flush;
}

std::string udev_properties(const FoundMember &member)
{
	const sv_label &label = member.label;
	if (!check_pool_name(label.pool_name).ok() || !check_tier_name(label.tier_name).ok())
		return "";
	const std::string pool = Uuid::from_bytes(label.pool_uuid).str();
	std::string text = "ID_FS_TYPE=sv_member\nID_FS_USAGE=raid\n";
	for (const char *name : {"ID_FS_UUID", "ID_FS_UUID_ENC"})
		text += fmt::format("{}={}\n", name, pool);
	for (const char *name : {"ID_FS_LABEL", "ID_FS_LABEL_ENC", "SV_POOL"})
		text += fmt::format("{}={}\n", name, label.pool_name);
	text += fmt::format("ID_FS_UUID_SUB={0}\nID_FS_UUID_SUB_ENC={0}\n", Uuid::from_bytes(label.member_uuid).str());
	return text + fmt::format("SV_TIER={}\nSV_MEMBER={}\n", label.tier_name, label.member);
}

namespace {

bool held_by_another(const std::filesystem::path &sysfs)
{
	const auto holders = entries(sysfs / "holders");
	return !std::all_of(holders.begin(), holders.end(), is_of_a_pool);
}

}	// namespace

// multipath takes whole disks: their partitions then are those of the map as well.
bool taken_by_another(const std::string &path)
{
	const auto sysfs = sysfs_of(path);
	if (!sysfs.ok() || sysfs.value().empty())
		return false;
	return held_by_another(sysfs.value()) ||
	       (read_block_facts(sysfs.value()).partition && held_by_another(sysfs.value().parent_path()));
}

namespace {

// dm-3 may be another one after the next boot; its name in /dev/mapper is what its owner knows.
std::string path_of(const std::filesystem::path &sysfs)
{
	std::string name = sysfs.filename();
	const std::string mapped = first_line(sysfs / "dm/name");
	std::error_code ignored;
	if (!mapped.empty() && std::filesystem::exists("/dev/mapper/" + mapped, ignored))
		return "/dev/mapper/" + mapped;
	std::replace(name.begin(), name.end(), '!', '/');
	return "/dev/" + name;
}

}	// namespace

std::vector<std::string> list_block_devices()
{
	std::vector<std::string> paths;
	for (const auto &entry : entries("/sys/class/block")) {
		uint64_t sectors = 0;
		std::ifstream(entry / "size") >> sectors;
		int suspended = 0;	// who reads such a device waits until it is resumed
		std::ifstream(entry / "dm/suspended") >> suspended;
		if (is_of_a_pool(entry) || sectors == 0 || suspended != 0)
			continue;
		paths.push_back(path_of(entry));
	}
	std::sort(paths.begin(), paths.end());
	return paths;
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See device_users.h.
#include "daemon/kernel/device_users.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include <fmt/core.h>
#include <sys/sysmacros.h>

#include "daemon/base/files.h"
#include "daemon/base/mounts.h"
#include "daemon/base/waiting.h"

namespace svd {

namespace {

namespace fs = std::filesystem;

constexpr int kDeepest = 8;	// devices upon devices
constexpr size_t kNamed = 3;	// of many users

// The group of a logical volume's device: "my-group" of "my--group-lv". svd writes a pool and a volume of it like that.
std::string group_of(const std::string &dm_name)
{
	std::string group;
	for (size_t i = 0; i < dm_name.size(); i++) {
		if (dm_name[i] == '-' && (i + 1 == dm_name.size() || dm_name[++i] != '-'))
			break;
		group += dm_name[i];
	}
	return group;
}

struct Device {
	std::string number;		// "253:1"
	std::vector<std::string> names;	// paths by which it may have been opened
	std::string dm_name;		// of a device-mapper device
	std::string dm_uuid;
	fs::path sysfs;

	const std::string &name() const { return names.back(); }
	bool is_named(const std::string &path) const { return std::find(names.begin(), names.end(), path) != names.end(); }
};

Device look_at(const fs::path &sysfs)
{
	Device device;
	device.sysfs = sysfs;
	device.number = first_line(sysfs / "dev");
	device.names.push_back("/dev/" + sysfs.filename().string());
	device.dm_name = first_line(sysfs / "dm/name");
	device.dm_uuid = first_line(sysfs / "dm/uuid");
	if (!device.dm_name.empty())
		device.names.push_back("/dev/mapper/" + device.dm_name);
	return device;
}

// What a device that lies on another one is, and how it is taken away.
DeviceUser as_holder(const Device &device)
{
	const auto held = [&](const std::string &kind, const std::string &next) {
		return DeviceUser{fmt::format("held by {}{}", device.name(), kind.empty() ? "" : " (" + kind + ")"), {next}};
	};
	const std::string &uuid = device.dm_uuid;
	std::error_code ignored;
	if (uuid.starts_with("CRYPT-"))
		return held(uuid.starts_with("CRYPT-LUKS") ? "LUKS" : "dm-crypt", "cryptsetup close " + device.dm_name);
	if (uuid.starts_with("LVM-"))
		return held("LVM", "vgchange -an " + group_of(device.dm_name));
	if (uuid.starts_with("SV-")) {	// "sv-my--pool", "sv-my--pool-volume"
		const std::string pool = group_of(device.dm_name.substr(device.dm_name.find('-') + 1));
		return held("pool " + pool, "svctl deactivate " + pool);
	}
	if (!device.dm_name.empty())
		return held("", "dmsetup remove " + device.dm_name);
	if (fs::exists(device.sysfs / "md", ignored))
		return held("RAID", "mdadm --stop " + device.name());
	return held("", "see lsblk " + device.name());
}

// Finds users; one object for one question.
class Search {
public:
	explicit Search(const fs::path &root) : root_(root) {}

	std::vector<DeviceUser> users(const Device &device, int depth)
	{
		std::vector<DeviceUser> found;
		const auto add = [&](std::vector<DeviceUser> more) { found.insert(found.end(), more.begin(), more.end()); };
		for (const fs::path &holder : entries(device.sysfs / "holders"))
			found.push_back(with_its_users(holder, as_holder(look_at_block(holder)), depth));
		add(loops(device, depth));
		add(mounts(device));
		if (found.empty())
			add(btrfs(device));
		add(swap(device));
		add(processes(device));
		return found;
	}

private:
	Device look_at_block(const fs::path &path) const { return look_at(root_ / "sys/class/block" / path.filename()); }

	DeviceUser with_its_users(const fs::path &path, DeviceUser user, int depth)
	{
		if (depth == kDeepest)
			return user;
		const std::vector<DeviceUser> above = users(look_at_block(path), depth + 1);
		if (above.empty())
			return user;
		const DeviceUser top = summary_of(above);
		user.what += ", which is " + top.what;
		user.next.insert(user.next.begin(), top.next.begin(), top.next.end());
		return user;
	}

	std::vector<DeviceUser> loops(const Device &device, int depth)
	{
		std::vector<DeviceUser> found;
		for (const fs::path &path : entries(root_ / "sys/class/block")) {
			if (!path.filename().string().starts_with("loop") ||
			    !device.is_named(first_line(path / "loop/backing_file")))
				continue;
			const std::string name = look_at_block(path).name();
			found.push_back(with_its_users(path, {"held by " + name, {"losetup -d " + name}}, depth));
		}
		return found;
	}

	// Of process 1: svd's own mounts are not the host's.
	std::vector<DeviceUser> mounts(const Device &device) const
	{
		std::vector<DeviceUser> found;
		std::ifstream file(root_ / "proc/1/mountinfo");
		for (const Mount &mount : read_mounts(file))
			if (mount.number == device.number || device.is_named(mount.source))
				found.push_back({"mounted on " + mount.path, {"umount " + mount.path}});
		return found;
	}

	// The second device of one is no mount's source.
	std::vector<DeviceUser> btrfs(const Device &device) const
	{
		std::vector<DeviceUser> found;
		std::error_code ignored;
		for (const fs::path &path : entries(root_ / "sys/fs/btrfs"))
			if (fs::exists(path / "devices" / device.sysfs.filename(), ignored))
				found.push_back({fmt::format("part of the mounted Btrfs {}", path.filename().string()),
						 {"unmount it: findmnt -t btrfs"}});
		return found;
	}

	std::vector<DeviceUser> swap(const Device &device) const
	{
		std::vector<DeviceUser> found;
		std::ifstream file(root_ / "proc/swaps");
		for (std::string line; std::getline(file, line);)
			if (const std::string path = unescaped(line.substr(0, line.find(' '))); device.is_named(path))
				found.push_back({"used as swap", {"swapoff " + path}});
		return found;
	}

	std::vector<DeviceUser> processes(const Device &device)
	{
		if (!openers_)
			openers_ = find_openers();
		std::set<std::string> pids;
		for (const std::string &name : device.names)
			if (const auto by_name = openers_->find(name); by_name != openers_->end())
				pids.insert(by_name->second.begin(), by_name->second.end());
		std::vector<DeviceUser> found;
		for (const std::string &pid : pids) {
			const std::string program = first_line(root_ / "proc" / pid / "comm");
			found.push_back({fmt::format("open in process {} ({})", pid, program), {"end process " + pid},
					 program == "(udev-worker)" || program == "systemd-udevd"});
		}
		return found;
	}

	using Openers = std::map<std::string, std::vector<std::string>>;	// process ids, by the path of what is open

	Openers find_openers() const
	{
		const Waiting waiting("a search of", Activity::Of::kOther, "/proc");
		Openers openers;
		for (const fs::path &process : entries(root_ / "proc")) {
			const std::string pid = process.filename();
			if (!std::all_of(pid.begin(), pid.end(), [](unsigned char c) { return std::isdigit(c); }))
				continue;
			for (const fs::path &file : entries(process / "fd")) {
				std::error_code error;
				const std::string opened = fs::read_symlink(file, error);
				if (!error && opened.starts_with("/dev/"))
					openers[opened].push_back(pid);
			}
		}
		return openers;
	}

	fs::path root_;
	std::optional<Openers> openers_;	// a host has many thousands of open files: once for all devices
};

}	// namespace

std::vector<DeviceUser> users_of_device(dev_t number, const std::string &link, const fs::path &root)
{
	std::error_code error;
	const fs::path sysfs = fs::canonical(root / fmt::format("sys/dev/block/{}:{}", major(number), minor(number)), error);
	if (error)
		return {};
	Device device = look_at(sysfs);
	device.names.insert(device.names.begin(), link);
	return Search(root).users(device, 0);
}

DeviceUser summary_of(const std::vector<DeviceUser> &users)
{
	DeviceUser all;
	for (size_t i = 0; i < users.size() && i < kNamed; i++) {
		all.what += (i == 0 ? "" : " and ") + users[i].what;
		for (const std::string &command : users[i].next)
			if (std::find(all.next.begin(), all.next.end(), command) == all.next.end())
				all.next.push_back(command);
	}
	if (users.size() > kNamed)
		all.what += fmt::format(" and {} more", users.size() - kNamed);
	return all;
}

}	// namespace svd

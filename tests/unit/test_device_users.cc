// SPDX-License-Identifier: GPL-2.0
// Who uses a volume: as found in a /sys and a /proc that are made up here.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include <sys/inotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "daemon/base/unique_fd.h"
#include "daemon/kernel/device_users.h"

namespace svd {
namespace {

namespace fs = std::filesystem;
using Commands = std::vector<std::string>;

constexpr const char *kLink = "/dev/sv/tank/a";

// A host with the volume tank/a, dm-1. Gone with the test.
class DeviceUsers : public testing::Test {
protected:
	DeviceUsers()
	{
		char name[] = "/tmp/sv-users-XXXXXX";
		root_ = mkdtemp(name);
		device("dm-1", 1, "sv-tank-a", "SV-0-1");
		fs::create_directories(root_ / "sys/dev/block");
		fs::create_symlink("../../class/block/dm-1", root_ / "sys/dev/block/253:1");
	}
	~DeviceUsers() override { fs::remove_all(root_); }

	void write(const fs::path &path, const std::string &text)
	{
		fs::create_directories((root_ / path).parent_path());
		std::ofstream(root_ / path) << text;
	}
	void device(const std::string &kernel_name, int minor, const std::string &name = "", const std::string &uuid = "")
	{
		const fs::path sysfs = fs::path("sys/class/block") / kernel_name;
		write(sysfs / "dev", "253:" + std::to_string(minor) + "\n");
		if (name.empty())
			return;
		write(sysfs / "dm/name", name + "\n");
		write(sysfs / "dm/uuid", uuid + "\n");
	}
	void lies_on(const std::string &upper, const std::string &lower)
	{
		write(fs::path("sys/class/block") / lower / "holders" / upper, "");
	}
	void process(const std::string &pid, const std::string &comm, const std::string &opened)
	{
		write("proc/" + pid + "/comm", comm + "\n");
		fs::create_directories(root_ / "proc" / pid / "fd");
		fs::create_symlink(opened, root_ / "proc" / pid / "fd/7");
	}
	DeviceUser user() { return summary_of(users_of_device(makedev(253, 1), kLink, root_)); }

	fs::path root_;
};

TEST_F(DeviceUsers, nobody)
{
	process("812", "fio", "/dev/dm-10");
	write("proc/1/mountinfo", "30 1 253:11 / /data rw - xfs /dev/mapper/sv-tank-ab rw\n");
	write("proc/swaps", "Filename Type Size Used Priority\n/dev/dm-11 partition 8 0 -2\n");
	EXPECT_EQ(user().what, "");
	EXPECT_EQ(user().next, Commands());
	EXPECT_TRUE(users_of_device(makedev(9, 9), kLink, root_).empty());
}

TEST_F(DeviceUsers, mounts_of_file_systems_with_and_without_a_number_of_their_own)
{
	write("proc/1/mountinfo", "30 1 253:1 / /my\\040data rw shared:1 - xfs /dev/whatever rw\n"
				  "31 1 0:40 /sub /btrfs rw shared:2 master:3 - btrfs /dev/mapper/sv-tank-a rw\n"
				  "32 1 0:41 / /other rw - tmpfs tmpfs rw\n");
	EXPECT_EQ(user().what, "mounted on /my data and mounted on /btrfs");
	EXPECT_EQ(user().next, (Commands{"umount /my data", "umount /btrfs"}));
}

TEST_F(DeviceUsers, part_of_a_btrfs_that_is_mounted_by_another_device)
{
	write("sys/fs/btrfs/0123-45/devices/dm-1", "");
	EXPECT_EQ(user().what, "part of the mounted Btrfs 0123-45");
}

TEST_F(DeviceUsers, devices_upon_devices_end_from_the_top)
{
	device("dm-2", 2, "secret", "CRYPT-LUKS2-00-secret");
	device("dm-3", 3, "my--group-lv", "LVM-xyz");
	lies_on("dm-2", "dm-1");
	lies_on("dm-3", "dm-2");
	write("proc/1/mountinfo", "30 1 253:3 / /data rw - xfs /dev/mapper/my--group-lv rw\n");
	EXPECT_EQ(user().what, "held by /dev/mapper/secret (LUKS), which is held by /dev/mapper/my--group-lv (LVM), "
			       "which is mounted on /data");
	EXPECT_EQ(user().next, (Commands{"umount /data", "vgchange -an my-group", "cryptsetup close secret"}));
}

TEST_F(DeviceUsers, a_command_for_several_is_named_once)
{
	for (int lv = 2; lv < 6; lv++) {
		device("dm-" + std::to_string(lv), lv, "vg-lv" + std::to_string(lv), "LVM-x");
		lies_on("dm-" + std::to_string(lv), "dm-1");
	}
	EXPECT_EQ(user().what, "held by /dev/mapper/vg-lv2 (LVM) and held by /dev/mapper/vg-lv3 (LVM) and held by "
			       "/dev/mapper/vg-lv4 (LVM) and 1 more");
	EXPECT_EQ(user().next, Commands{"vgchange -an vg"});
}

TEST_F(DeviceUsers, holders_of_all_kinds)
{
	device("dm-2", 2, "plain", "CRYPT-PLAIN-plain");
	lies_on("dm-2", "dm-1");
	EXPECT_EQ(user().what, "held by /dev/mapper/plain (dm-crypt)");
	device("dm-2", 2, "other", "");
	EXPECT_EQ(user().next, Commands{"dmsetup remove other"});
	device("dm-2", 2, "sv-my--pool", "SV-00");	// its member svd has open in the kernel
	EXPECT_EQ(user().what, "held by /dev/mapper/sv-my--pool (pool my-pool)");
	EXPECT_EQ(user().next, Commands{"svctl deactivate my-pool"});
	fs::remove_all(root_ / "sys/class/block/dm-1/holders");
	write("sys/class/block/md127/md/level", "raid1\n");
	lies_on("md127", "dm-1");
	EXPECT_EQ(user().what, "held by /dev/md127 (RAID)");
	EXPECT_EQ(user().next, Commands{"mdadm --stop /dev/md127"});
	fs::remove_all(root_ / "sys/class/block/dm-1/holders");
	device("bcache0", 7);
	lies_on("bcache0", "dm-1");
	EXPECT_EQ(user().next, Commands{"see lsblk /dev/bcache0"});
}

TEST_F(DeviceUsers, a_loop_device_swap_and_processes)
{
	device("loop0", 40);
	write("sys/class/block/loop0/loop/backing_file", "/dev/dm-1\n");
	device("loop1", 41);
	write("sys/class/block/loop1/loop/backing_file", "/dev/dm-11\n");
	EXPECT_EQ(user().what, "held by /dev/loop0");
	EXPECT_EQ(user().next, Commands{"losetup -d /dev/loop0"});
	fs::remove_all(root_ / "sys/class/block/loop0");
	write("proc/swaps", "Filename Type Size Used Priority\n/dev/mapper/sv-tank-a partition 8 0 -2\n");
	EXPECT_EQ(user().next, Commands{"swapoff /dev/mapper/sv-tank-a"});
	fs::remove(root_ / "proc/swaps");
	process("812", "qemu-system-x86", kLink);
	process("self", "svd", kLink);
	EXPECT_EQ(user().what, "open in process 812 (qemu-system-x86)");
	EXPECT_EQ(user().next, Commands{"end process 812"});
}

// It was read for each device of a stack, which took seconds where many files were open.
TEST_F(DeviceUsers, open_files_are_read_once_for_a_whole_stack)
{
	for (int i = 2; i < 7; i++) {
		device("dm-" + std::to_string(i), i, "d" + std::to_string(i), "");
		lies_on("dm-" + std::to_string(i), "dm-" + std::to_string(i - 1));
	}
	process("812", "fio", "/dev/mapper/d6");
	fs::create_symlink("/dev/dm-6", root_ / "proc/812/fd/8");
	const UniqueFd watch(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
	ASSERT_GE(inotify_add_watch(watch.get(), (root_ / "proc/812/fd").c_str(), IN_OPEN | IN_CLOSE | IN_ONLYDIR), 0);
	const std::string what = user().what;
	EXPECT_TRUE(what.ends_with("held by /dev/mapper/d6, which is open in process 812 (fio)")) << what;
	char events[4096];
	EXPECT_EQ(read(watch.get(), events, sizeof(events)), static_cast<ssize_t>(2 * sizeof(inotify_event)));
}

TEST_F(DeviceUsers, udev_is_only_passing)
{
	process("812", "(udev-worker)", "/dev/dm-1");
	EXPECT_TRUE(users_of_device(makedev(253, 1), kLink, root_).at(0).passing);
	process("813", "fio", "/dev/dm-1");
	EXPECT_FALSE(users_of_device(makedev(253, 1), kLink, root_).at(1).passing);
}

TEST_F(DeviceUsers, devices_in_a_circle_come_to_an_end)
{
	device("dm-2", 2, "a", "");
	lies_on("dm-2", "dm-1");
	lies_on("dm-1", "dm-2");
	EXPECT_EQ(user().next.size(), 2u);
}

}	// namespace
}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// daemon/base/mounts.h, on a /sys made up.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "daemon/base/mounts.h"

namespace fs = std::filesystem;

namespace {

using namespace svd;

class Mounts : public ::testing::Test {
 protected:
	void SetUp() override
	{
		root_ = fs::temp_directory_path() / ("svmounts-" + std::to_string(getpid()));
		fs::create_directories(root_ / "sys/dev/block");
	}
	void TearDown() override { fs::remove_all(root_); }

	fs::path device(const std::string &name, const std::string &number, const std::string &mapped = "", const fs::path &within = {})
	{
		const fs::path sysfs = root_ / "sys/devices" / within / name;
		fs::create_directories(sysfs / "holders");
		std::ofstream(sysfs / "dev") << number << "\n";
		if (!mapped.empty()) {
			fs::create_directories(sysfs / "dm");
			std::ofstream(sysfs / "dm/name") << mapped << "\n";
		}
		if (!within.empty())
			std::ofstream(sysfs / "partition") << "1\n";
		fs::create_symlink(sysfs, root_ / "sys/dev/block" / number);
		return sysfs;
	}
	void holds(const fs::path &holder, const fs::path &held) { fs::create_symlink(holder, held / "holders" / holder.filename()); }

	std::vector<std::string> paths_on(const std::string &number, const std::string &text)
	{
		std::istringstream in(text);
		std::vector<std::string> all;
		for (const FileSystem &one : file_systems_on(devices_upon(number, root_), read_mounts(in), root_)) {
			std::string paths;
			for (const Mount &mount : one)
				paths += (paths.empty() ? "" : " ") + mount.path + ":" + std::to_string(mount.id);
			all.push_back(paths);
		}
		return all;
	}

	fs::path root_;
};

using Paths = std::vector<std::string>;

TEST_F(Mounts, are_found_by_number_with_all_their_places)
{
	device("dm-3", "253:3", "sv-tank-a");
	device("dm-4", "253:4", "sv-tank-b");
	const std::string text = "36 35 253:3 / /mnt rw,noatime shared:1 master:2 - ext4 /dev/mapper/sv-tank-a rw\n"
				 "37 35 253:4 / /other rw - xfs /dev/mapper/sv-tank-b rw\n"
				 "38 35 253:3 /sub /with\\040a\\134blank rw - ext4 /dev/mapper/sv-tank-a rw\n"
				 "39 35 0:25 / /proc rw - proc proc rw\n"
				 "40 35 cut off\n";
	EXPECT_EQ(Paths{"/mnt:36 /with a\\blank:38"}, paths_on("253:3", text));
	EXPECT_EQ(Paths{"/other:37"}, paths_on("253:4", text));
	EXPECT_EQ(Paths{}, paths_on("253:9", text)) << "no such device";
	EXPECT_EQ(Paths{}, paths_on("253:3", ""));
}

TEST_F(Mounts, on_what_lies_upon_the_device_count)
{
	const fs::path volume = device("dm-3", "253:3", "sv-tank-a"), luks = device("dm-5", "253:5", "secret");
	const fs::path lv = device("dm-6", "253:6", "vg-lv");
	const fs::path part = device("dm-3p1", "259:1", "", "dm-3");
	holds(luks, volume);
	holds(lv, luks);
	EXPECT_EQ((std::set<std::string>{"253:3", "253:5", "253:6", "259:1"}), devices_upon("253:3", root_));
	EXPECT_EQ((std::set<std::string>{"253:5", "253:6"}), devices_upon("253:5", root_));
	EXPECT_EQ((Paths{"/a:1", "/p:2"}), paths_on("253:3", "1 0 253:6 / /a rw - ext4 /dev/mapper/vg-lv rw\n"
							     "2 0 259:1 / /p rw - ext4 /dev/dm-3p1 rw\n"));
}

TEST_F(Mounts, on_loop_devices_count)
{
	device("dm-3", "253:3", "sv-tank-a");
	for (const auto &[name, number, file] : {std::tuple{"loop0", "7:0", "/dev/mapper/sv-tank-a"}, {"loop1", "7:1", "/image"}}) {
		const fs::path loop = device(name, number);
		fs::create_directories(loop / "loop");
		std::ofstream(loop / "loop/backing_file") << file << "\n";
		fs::create_directories(root_ / "sys/block");
		fs::create_symlink(loop, root_ / "sys/block" / name);
	}
	EXPECT_EQ((std::set<std::string>{"253:3", "7:0"}), devices_upon("253:3", root_));
}

// Its number belongs to no device.
TEST_F(Mounts, of_btrfs_are_found_by_their_source)
{
	device("dm-3", "253:3", "sv-tank-a");
	device("sda", "8:0");
	const std::string text = "50 35 0:51 / /one rw - btrfs /dev/mapper/sv-tank-a rw,subvolid=5\n"
				 "51 35 0:51 /sub /two rw - btrfs /dev/mapper/sv-tank-a rw,subvolid=256\n"
				 "52 35 0:52 / /three rw - btrfs /dev/sda rw\n";
	EXPECT_EQ(Paths{"/one:50 /two:51"}, paths_on("253:3", text));
	EXPECT_EQ(Paths{"/three:52"}, paths_on("8:0", text));
}

}  // namespace

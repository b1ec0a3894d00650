// SPDX-License-Identifier: GPL-2.0
// Which devices get a partition table, what it looks like, and that it can be removed without a trace for libblkid.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <blkid/blkid.h>
#include <fcntl.h>

#include "daemon/base/unique_fd.h"
#include "daemon/base/units.h"
#include "daemon/kernel/partition.h"
#include "daemon/kernel/probe.h"

using namespace svd;

namespace {

// A directory as sysfs has for a block device.
class FakeSysfs {
public:
	FakeSysfs() : path_(testing::TempDir() + "/svctl-sysfs") { std::filesystem::create_directories(path_); }
	~FakeSysfs() { std::filesystem::remove_all(path_); }
	FakeSysfs &file(const std::string &name, const std::string &text)
	{
		std::ofstream(path_ + "/" + name) << text << "\n";
		return *this;
	}
	FakeSysfs &directory(const std::string &name)
	{
		std::filesystem::create_directories(path_ + "/" + name);
		return *this;
	}
	bool whole() const { return is_whole_disk(read_block_facts(path_)); }

private:
	std::string path_;
};

struct Image {
	explicit Image(uint64_t bytes) : path(testing::TempDir() + "/svctl-disk")
	{
		std::ofstream(path, std::ios::trunc);
		std::filesystem::resize_file(path, bytes);
	}
	~Image() { std::filesystem::remove(path); }
	std::string path;
};

}	// namespace

TEST(Partition, of_whole_disks_only)
{
	EXPECT_TRUE(FakeSysfs().file("ext_range", "256").directory("slaves").whole());
	EXPECT_FALSE(FakeSysfs().file("ext_range", "1").directory("slaves").whole()) << "loop device without partscan";
	EXPECT_FALSE(FakeSysfs().file("ext_range", "256").file("partition", "1").whole());
	EXPECT_FALSE(FakeSysfs().file("ext_range", "256").directory("dm").whole());
	EXPECT_FALSE(FakeSysfs().file("ext_range", "256").directory("md").whole());
	EXPECT_FALSE(FakeSysfs().file("ext_range", "256").directory("slaves/sda").whole()) << "bcache and the like";
	EXPECT_FALSE(FakeSysfs().whole());
}

TEST(Partition, of_files_never)
{
	const Image image(64 * kMiB);
	EXPECT_FALSE(is_whole_disk(image.path).value());
	EXPECT_EQ(member_device(image.path).value(), image.path);
	EXPECT_EQ(is_whole_disk(image.path + "-absent").error().code, Code::kNotFound);
}

TEST(Partition, is_whole_mebibytes_between_the_tables)
{
	EXPECT_EQ(partition_size(64 * kMiB, 512), 62 * kMiB);
	EXPECT_EQ(partition_size(64 * kMiB, 4096), 62 * kMiB);
	// The backup: 16 KiB of entries and one sector.
	EXPECT_EQ(partition_size(64 * kMiB + 16384 + 512, 512), 63 * kMiB);
	EXPECT_EQ(partition_size(64 * kMiB + 16384, 512), 62 * kMiB);
	EXPECT_EQ(partition_size(64 * kMiB + 16384 + 4096, 4096), 63 * kMiB);
	EXPECT_EQ(partition_size(64 * kMiB + 16384 + 3584, 4096), 62 * kMiB);
	for (const uint64_t tiny : {0ull, 512ull, 16896ull, 1ull << 20, 2ull << 20})
		EXPECT_EQ(partition_size(tiny, 512), 0u) << tiny;
}

TEST(Partition, table_has_one_partition_of_our_type_and_goes_without_a_trace)
{
	const Image image(64 * kMiB + 12345 * 512);
	const UniqueFd fd(open(image.path.c_str(), O_RDWR | O_CLOEXEC));
	const Status written = write_partition_table(fd.get(), image.path);
	ASSERT_TRUE(written.ok()) << written.error().message();

	blkid_probe probe = blkid_new_probe_from_filename(image.path.c_str());
	ASSERT_NE(probe, nullptr);
	blkid_partlist list = blkid_probe_get_partitions(probe);
	ASSERT_NE(list, nullptr);
	ASSERT_EQ(blkid_partlist_numof_partitions(list), 1);
	blkid_partition partition = blkid_partlist_get_partition(list, 0);
	EXPECT_EQ(blkid_partition_get_partno(partition), 1);
	EXPECT_EQ(blkid_partition_get_start(partition), 2048);
	EXPECT_EQ(static_cast<uint64_t>(blkid_partition_get_size(partition)) * 512,
		  partition_size(64 * kMiB + 12345 * 512, 512));
	EXPECT_STRCASEEQ(blkid_partition_get_type_string(partition), kPartitionType);
	EXPECT_STREQ(blkid_partition_get_name(partition), kPartitionName);
	blkid_free_probe(probe);

	EXPECT_EQ(probe_device(image.path, true)->signatures.size(), 1u);
	ASSERT_TRUE(wipe_signatures(image.path).ok());
	EXPECT_TRUE(probe_device(image.path, true)->signatures.empty());
}

// The disk was partitioned anew, its contents lost, before the partition turned out to be gone.
TEST(Partition, disk_and_its_own_partition_overlap)
{
	namespace fs = std::filesystem;
	const fs::path root = testing::TempDir() + "/svctl-overlap";
	const auto device = [&](const fs::path &name, const std::string &numbers, bool partition) {
		fs::create_directories(root / name);
		std::ofstream(root / name / "dev") << numbers << "\n";
		if (partition)
			std::ofstream(root / name / "partition") << "1\n";
		ProbedDevice probed;
		probed.identity = numbers;
		probed.disk = disk_of_partition(root / name);
		return probed;
	};
	const ProbedDevice sda = device("sda", "8:0", false), sda1 = device("sda/sda1", "8:1", true),
			   sda2 = device("sda/sda2", "8:2", true), sdb = device("sdb", "8:16", false),
			   sdb1 = device("sdb/sdb1", "8:17", true);
	for (const auto &[a, b, expected] : {std::tuple(&sda, &sda1, true), {&sda1, &sda, true}, {&sda, &sda2, true}, {&sda, &sda, true},
					     {&sda1, &sda1, true}, {&sda1, &sda2, false}, {&sda, &sdb, false}, {&sda, &sdb1, false},
					     {&sda1, &sdb1, false}, {&sda1, &sdb, false}})
		EXPECT_EQ(expected, overlap(*a, *b)) << a->identity << " " << b->identity;
	fs::remove_all(root);
}

// A pool made on a volume, or on LUKS upon one, came up after no reboot: its members were volumes that svd had to bring up.
TEST(Partition, volumes_of_pools_and_what_lies_on_them_are_known)
{
	namespace fs = std::filesystem;
	const fs::path root = testing::TempDir() + "/svctl-stack";
	fs::remove_all(root);
	const auto device = [&](const fs::path &name, const std::string &uuid, const std::vector<std::string> &slaves) {
		fs::create_directories(root / name / "slaves");
		if (!uuid.empty()) {
			fs::create_directories(root / name / "dm");
			std::ofstream(root / name / "dm/uuid") << uuid << "\n";
		}
		for (const std::string &slave : slaves)
			fs::create_directory_symlink(root / slave, root / name / "slaves" / fs::path(slave).filename());
	};
	device("sda", "", {});
	device("sda/sda1", "", {});
	std::ofstream(root / "sda/sda1/partition") << "1\n";
	device("dm-0", "SV-00000000-0000-4000-8000-000000000000", {"sda/sda1"});
	device("dm-1", "SV-00000000-0000-4000-8000-000000000000-1", {});
	device("dm-2", "CRYPT-LUKS2-00-secret", {"dm-1"});
	device("md0", "", {"sda", "dm-2"});
	device("md0/md0p1", "", {});
	std::ofstream(root / "md0/md0p1/partition") << "1\n";
	device("dm-3", "LVM-x", {"md0/md0p1"});
	device("dm-4", "LVM-x", {"sda/sda1"});
	for (const char *name : {"dm-0", "dm-1", "dm-2", "md0", "md0/md0p1", "dm-3"})
		EXPECT_TRUE(lies_on_a_pool(root / name)) << name;
	for (const char *name : {"sda", "sda/sda1", "dm-4", "absent"})
		EXPECT_FALSE(lies_on_a_pool(root / name)) << name;
	fs::remove_all(root);
}

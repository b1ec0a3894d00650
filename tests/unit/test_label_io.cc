// SPDX-License-Identifier: GPL-2.0
// Labels on devices: which of the two counts, what is refused, and that one survives a power cut at each step.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "daemon/base/memory_device.h"
#include "daemon/engine/label_io.h"

using namespace svd;

namespace {

constexpr uint64_t kSize = 8 * SV_MIB;

sv_label label_of(uint64_t generation)
{
	sv_label label{};
	std::memset(label.pool_uuid, 0x11, sizeof(label.pool_uuid));
	std::memset(label.member_uuid, 0x22, sizeof(label.member_uuid));
	std::strcpy(label.pool_name, "tank");
	std::strcpy(label.tier_name, "fast");
	label.generation = generation;
	label.nr_members = 1;
	EXPECT_EQ(0, sv_label_layout(&label, kSize, 0, 0, 0));
	return label;
}

class LabelIo : public testing::Test {
protected:
	LabelIo() : path_(testing::TempDir() + "/svctl-label") {}
	~LabelIo() override { std::filesystem::remove(path_); }

	Result<std::optional<FoundMember>> read()
	{
		std::ofstream(path_, std::ios::trunc | std::ios::binary)
			.write(reinterpret_cast<const char *>(device_.contents().data()), static_cast<std::streamsize>(device_.size()));
		std::filesystem::resize_file(path_, size_);
		return read_label(path_);
	}
	void expect(LabelState state, uint64_t generation)
	{
		const auto found = read();
		ASSERT_TRUE(found.ok()) << found.error().message();
		ASSERT_TRUE(found.value().has_value());
		EXPECT_EQ(state, found.value()->state);
		EXPECT_EQ(generation, found.value()->label.generation);
	}
	void expect_refused(const char *why)
	{
		const auto found = read();
		ASSERT_FALSE(found.ok());
		EXPECT_EQ(Code::kNeedsCheck, found.error().code);
		EXPECT_NE(std::string::npos, found.error().message().find(why)) << found.error().message();
	}
	void put(uint64_t offset, const sv_label &label)
	{
		sv_label_encode(&label, reinterpret_cast<sv_label_disk *>(device_.contents().data() + offset));
	}
	void flip(uint64_t offset) { device_.contents()[offset + 100] ^= 1; }

	std::string path_;
	MemoryDevice device_{"member", kSize};
	uint64_t size_ = kSize;
	sv_label label_ = label_of(7);
};

}	// namespace

TEST_F(LabelIo, what_is_written_is_read)
{
	EXPECT_FALSE(read().value().has_value()) << "nothing there yet";
	ASSERT_TRUE(write_label(device_, label_).ok());
	expect(LabelState::kSound, 7);
}

TEST_F(LabelIo, one_that_is_damaged_is_told_from_a_sound_one)
{
	ASSERT_TRUE(write_label(device_, label_).ok());
	flip(0);
	expect(LabelState::kFrontBad, 7);
	flip(label_.copy_off);
	expect_refused(path_.c_str());
	flip(0);
	expect(LabelState::kCopyBad, 7);
}

TEST_F(LabelIo, newer_one_counts)
{
	ASSERT_TRUE(write_label(device_, label_).ok());
	put(label_.copy_off, label_of(8));	// as an interrupted change leaves it
	expect(LabelState::kFrontBad, 8);
	put(label_.copy_off, label_of(6));
	expect(LabelState::kCopyBad, 7);
	sv_label other = label_of(9);
	other.member_uuid[0] ^= 1;
	put(label_.copy_off, other);
	expect(LabelState::kCopyBad, 7);
}

TEST_F(LabelIo, device_that_was_cut_short_is_refused)
{
	ASSERT_TRUE(write_label(device_, label_).ok());
	size_ = kSize / 2;
	expect_refused("smaller");
}

TEST_F(LabelIo, outlives_a_power_cut_at_each_step_of_a_change)
{
	for (uint64_t step = 1; step <= 5; step++)
		for (uint64_t seed = 0; seed < 6; seed++) {
			device_.heal();
			ASSERT_TRUE(write_label(device_, label_).ok());
			device_.fail_from(step);
			EXPECT_EQ(step == 5, write_label(device_, label_of(8)).ok());
			device_.crash(seed);
			const auto found = read();
			ASSERT_TRUE(found.ok() && found.value()) << step << " " << seed;
			EXPECT_GE(found.value()->label.generation, step > 2 ? 8u : 7u) << step << " " << seed;
		}
}

TEST_F(LabelIo, erased_one_is_gone_and_half_erased_one_is_still_there)
{
	ASSERT_TRUE(write_label(device_, label_).ok());
	device_.fail_from(3);
	EXPECT_FALSE(erase_label(device_, label_).ok());
	expect(LabelState::kCopyBad, 7);
	device_.heal();
	ASSERT_TRUE(erase_label(device_, label_).ok());
	EXPECT_FALSE(read().value().has_value());
}

TEST_F(LabelIo, udev_is_told_pool_and_member_and_nothing_that_it_could_take_for_more)
{
	FoundMember found{path_, label_, LabelState::kSound, path_};
	const std::string text = udev_properties(found);
	for (const char *line : {"ID_FS_TYPE=sv_member\n", "ID_FS_UUID=11111111-1111-1111-1111-111111111111\n", "ID_FS_LABEL=tank\n",
				 "ID_FS_UUID_SUB=22222222-2222-2222-2222-222222222222\n", "SV_TIER=fast\n", "SV_MEMBER=0\n"})
		EXPECT_NE(std::string::npos, text.find(line)) << line << text;
	std::strcpy(found.label.pool_name, "a\nPATH=b");
	EXPECT_EQ("", udev_properties(found));
}

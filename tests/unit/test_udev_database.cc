// SPDX-License-Identifier: GPL-2.0
// Which of udev's properties keep a scan from a device.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "daemon/kernel/udev_database.h"

namespace svd {
namespace {

bool others(const std::map<std::string, std::string> &properties)
{
	return is_for_others([&](const char *name) -> const char * {
		const auto found = properties.find(name);
		return found == properties.end() ? nullptr : found->second.c_str();
	});
}

TEST(UdevDatabase, leaves_paths_and_unready_devices_alone)
{
	EXPECT_TRUE(others({{"DM_MULTIPATH_DEVICE_PATH", "1"}}));
	EXPECT_TRUE(others({{"SYSTEMD_READY", "0"}, {"ID_FS_TYPE", "sv_member"}}));
	EXPECT_TRUE(others({{"DM_UDEV_DISABLE_OTHER_RULES_FLAG", "1"}}));
}

TEST(UdevDatabase, has_no_word_against_others)
{
	EXPECT_FALSE(others({}));
	EXPECT_FALSE(others({{"ID_FS_TYPE", "sv_member"}, {"DM_MULTIPATH_DEVICE_PATH", "0"}, {"SYSTEMD_READY", "1"}}));
	EXPECT_FALSE(others({{"DM_UDEV_DISABLE_OTHER_RULES_FLAG", ""}}));
}

TEST(UdevDatabase, knows_nothing_of_files)
{
	EXPECT_FALSE(udev_says_not_ours("/etc/passwd"));
	EXPECT_TRUE(udev_knows("/no/such/device"));
}

}	// namespace
}	// namespace svd

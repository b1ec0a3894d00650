// SPDX-License-Identifier: GPL-2.0
// Which of udev's events have svd look for members. That they come, and when: host.members_are_seen_and_noticed_by_udev.
#include "daemon/kernel/device_events.h"

#include <gtest/gtest.h>

namespace svd {
namespace {

TEST(DeviceEvents, those_of_members_that_come_or_change_are_looked_at)
{
	for (const char *action : {"add", "change", "move", "online", "bind"})
		EXPECT_TRUE(tells_of_member(action, "sv_member")) << action;
	EXPECT_FALSE(tells_of_member("remove", "sv_member"));
	for (const char *type : {"ext4", "", "sv_member2", "linux_raid_member"})
		EXPECT_FALSE(tells_of_member("change", type)) << type;
	EXPECT_FALSE(tells_of_member("change", nullptr));
	EXPECT_FALSE(tells_of_member(nullptr, "sv_member"));
}

// Whether or not this machine has udev.
TEST(DeviceEvents, nothing_has_come_where_nothing_came)
{
	DeviceEvents events;
	EXPECT_FALSE(events.take());
	EXPECT_FALSE(events.take());
}

}	// namespace
}	// namespace svd

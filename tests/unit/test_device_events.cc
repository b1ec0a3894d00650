// SPDX-License-Identifier: GPL-2.0
// Which of udev's events have svd look for members. That they come, and when: host.members_are_seen_and_noticed_by_udev.
#include "daemon/kernel/device_events.h"

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <unistd.h>

#include "daemon/base/unique_fd.h"

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

TEST(DeviceEvents, that_cannot_be_had_are_told)
{
	rlimit all{};
	testing::internal::CaptureStderr();
	getrlimit(RLIMIT_NOFILE, &all);
	const rlimit none{static_cast<rlim_t>(UniqueFd(dup(STDERR_FILENO)).get()), all.rlim_max};	// more than those there are
	setrlimit(RLIMIT_NOFILE, &none);
	DeviceEvents events;
	setrlimit(RLIMIT_NOFILE, &all);
	EXPECT_EQ("<4>udev's events cannot be received: members that come are noticed by svctl scan only [SV-UDEV-SILENT]\n",
		  testing::internal::GetCapturedStderr());
	EXPECT_EQ(-1, events.fd());
	EXPECT_FALSE(events.take());
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

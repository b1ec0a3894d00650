// SPDX-License-Identifier: GPL-2.0
// Names of devices, there and back.
#include <gtest/gtest.h>

#include "daemon/kernel/dm_kernel.h"

namespace svd {
namespace {

TEST(DmNames, go_there_and_back)
{
	for (const char *pool : {"tank", "a", "a-", "a-b", "a--b", "+.", "a.b_c-"})
		for (const char *volume : {"train", "v", "v-", "v-w", "v--w-", "_"}) {
			const auto split = split_dm_name(dm_name(pool, volume));
			ASSERT_TRUE(split) << dm_name(pool, volume);
			EXPECT_EQ(split->first, pool);
			EXPECT_EQ(split->second, volume);
		}
}

TEST(DmNames, have_127_characters_at_most)
{
	const std::string dashes(30, '-');
	EXPECT_EQ(127u, dm_name("p" + dashes, "vv" + dashes).size());
	EXPECT_TRUE(check_device_name("p" + dashes, "vv" + dashes).ok());
	const Status refused = check_device_name("p" + dashes, "vvv" + dashes);
	ASSERT_FALSE(refused.ok());
	EXPECT_EQ(Code::kUsage, refused.error().code);
	EXPECT_TRUE(check_device_name(std::string(31, 'p'), std::string(47, 'v') + "@" + std::string(31, 's')).ok());
}

TEST(DmNames, of_others_are_none)
{
	for (const char *name : {"", "sv-", "sv-tank", "sv-a--b", "sv-tank-", "vg-lv", "sv-a-b-c", "xsv-a-b"})
		EXPECT_FALSE(split_dm_name(name)) << name;
}

}	// namespace
}	// namespace svd

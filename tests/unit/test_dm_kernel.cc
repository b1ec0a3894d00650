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

TEST(DmNames, of_others_are_none)
{
	for (const char *name : {"", "sv-", "sv-tank", "sv-a--b", "sv-tank-", "vg-lv", "sv-a-b-c", "xsv-a-b"})
		EXPECT_FALSE(split_dm_name(name)) << name;
}

}	// namespace
}	// namespace svd

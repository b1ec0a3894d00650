// SPDX-License-Identifier: GPL-2.0
// Which host this is, as the labels of pools name it.
#include "daemon/engine/host.h"

#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace svd {
namespace {

TEST(ThisHost, is_the_one_that_is_chosen)
{
	const auto host = this_host("11111111-1111-4111-8111-111111111111");
	ASSERT_TRUE(host.ok());
	EXPECT_EQ("11111111-1111-4111-8111-111111111111", host.value().id.str());
	for (const char *bad : {"00000000-0000-0000-0000-000000000000", "11111111", "11111111-1111-4111-8111-11111111111g"}) {
		const auto refused = this_host(bad);
		ASSERT_FALSE(refused.ok()) << bad;
		EXPECT_EQ(Code::kUsage, refused.error().code) << bad;
	}
}

// The machine's id itself is not for others to see: machine-id(5).
TEST(ThisHost, otherwise_is_always_the_same_and_does_not_tell_the_machine_id)
{
	const auto host = this_host(""), again = this_host("");
	ASSERT_TRUE(host.ok() && again.ok());
	EXPECT_EQ(host.value().id, again.value().id);
	std::string machine, id;
	std::getline(std::ifstream("/etc/machine-id"), machine);
	for (const char c : host.value().id.str())
		if (c != '-')
			id += c;
	EXPECT_NE(machine, id);
	EXPECT_EQ(machine.size() != 32, host.value().id.is_zero());
}

}	// namespace
}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
#include <gtest/gtest.h>

#include <fstream>

#include "daemon/api/errors.h"
#include "daemon/api/interface.h"
#include "daemon/api/parameters.h"
#include "daemon/api/roles.h"

namespace svd {
namespace {

TEST(Interface, names_of_parameters_come_from_the_description)
{
	const char *const text = "interface a.b\n# method Commented(x: int)\n"
				 "method One(pool: string, tiers: []Tier, dry_run: ?bool) -> (result: string)\n"
				 "method Two(\n  a: int,\n  b: ?[]string\n) -> ()\nmethod OneMore() -> (c: int)\n";
	using Names = std::set<std::string>;
	EXPECT_EQ(declared_parameters(text, "One"), (Names{"pool", "tiers", "dry_run"}));
	EXPECT_EQ(declared_parameters(text, "Two"), (Names{"a", "b"}));
	EXPECT_EQ(declared_parameters(text, "OneMore"), Names{});
	EXPECT_EQ(declared_parameters(text, "Commented"), Names{});
}

TEST(Interface, has_the_text_of_each_interface)
{
	for (const char *name : {"io.svctl", "io.svctl.sim", "org.varlink.service"})
		EXPECT_NE(interface_description(name).find(std::string("interface ") + name + "\n"), std::string::npos);
	EXPECT_TRUE(interface_description("io.svctl.nix").empty());
	EXPECT_TRUE(interface_description("io.svctl").ends_with("\n"));
}

// The numbers never change: scripts have them (docs/commands.md).
TEST(ErrorReply, names_the_error_of_each_code)
{
	const std::tuple<Code, int, const char *, const char *> names[] = {
		{Code::kFailure, 1, "Failed", "SV-FAILURE"}, {Code::kUsage, 2, "InvalidArgument", "SV-USAGE"},
		{Code::kNotFound, 3, "NotFound", "SV-NOT-FOUND"}, {Code::kPermission, 4, "PermissionDenied", "SV-PERMISSION"},
		{Code::kBusy, 5, "Busy", "SV-BUSY"}, {Code::kNoSpace, 6, "NoSpace", "SV-NO-SPACE"},
		{Code::kNeedsCheck, 7, "NeedsCheck", "SV-NEEDS-CHECK"}, {Code::kMissingFeature, 8, "Unsupported", "SV-MISSING-FEATURE"},
		{Code::kTimeout, 21, "Timeout", "SV-TIMEOUT"},
	};
	for (const auto &[code, number, name, id] : names) {
		const Reply reply = error_reply(Error{code, "do", "it", "why", "what now"});
		EXPECT_EQ(reply.error, std::string("io.svctl.") + name);
		EXPECT_EQ(reply.parameters["code"], number);
		EXPECT_EQ(reply.parameters["id"], id);
		EXPECT_EQ(reply.parameters["message"], "cannot do it: why (what now)");
		EXPECT_NE(interface_description("io.svctl").find(std::string("error ") + name + " "),
			  std::string::npos);
	}
	EXPECT_EQ(error_reply(Error{Code::kUnreachable, "x"}).parameters["code"], 1);
}

TEST(Parameters, malformed_ones_are_named)
{
	const auto refused = [](const char *json, auto take) -> std::string {
		const Json parameters = Json::parse(json);
		try {
			take(Parameters(parameters, "io.svctl", "CreatePool"));
		} catch (const BadParameter &bad) {
			return bad.what();
		}
		return "";
	};
	const auto flag = [](const Parameters &p) { p.flag("dry_run"); };
	const auto tiers = [](const Parameters &p) { p.tiers("tiers"); };
	EXPECT_EQ(refused(R"({"dry_run": true})", flag), "");
	EXPECT_EQ(refused(R"({"dry_run": null})", flag), "");
	EXPECT_EQ(refused(R"({"dry_run": 1})", flag), "dry_run");
	EXPECT_EQ(refused(R"({"dryrun": true})", flag), "dryrun");
	EXPECT_EQ(refused(R"({"tiers": [{"name": "a", "devices": ["b"]}]})", tiers), "");
	EXPECT_EQ(refused(R"({"tiers": [{"name": "a", "devices": ["b"], "x": 1}]})", tiers), "tiers");
	EXPECT_EQ(refused(R"({"tiers": [{"name": 7, "devices": ["b"]}]})", tiers), "name");
	EXPECT_EQ(refused(R"({})", tiers), "tiers");
}

TEST(Roles, are_decided_by_user_and_groups)
{
	const RoleIds both{50, 60};
	const struct {
		uid_t uid;
		std::vector<gid_t> groups;
		RoleIds ids;
		Role role;
	} cases[] = {
		{0, {0}, {}, Role::kAdminister},	      {7, {7}, {}, Role::kAdminister},
		{1000, {50}, both, Role::kAdminister},	      {1000, {1000, 4, 50}, both, Role::kAdminister},
		{1000, {60, 50}, both, Role::kAdminister},    {1000, {60}, both, Role::kRead},
		{1000, {1000, 60}, both, Role::kRead},	      {1000, {1000}, both, Role::kNone},
		{1000, {}, both, Role::kNone},		      {1000, {0}, both, Role::kNone},
		{1000, {50, 60}, {}, Role::kNone},	      {1000, {50}, {std::nullopt, 60}, Role::kNone},
		{50, {1000}, both, Role::kNone},	      {65534, {65534}, both, Role::kNone},
	};
	for (const auto &c : cases)
		EXPECT_EQ(role_of(Peer{c.uid, 1, c.groups}, 7, c.ids), c.role) << c.uid << " " << c.groups.size();
}

TEST(Roles, nobody_takes_an_administrators_place)
{
	EXPECT_TRUE(has_room(Role::kAdminister, 255, 255));
	EXPECT_FALSE(has_room(Role::kAdminister, 256, 0));
	EXPECT_TRUE(has_room(Role::kRead, 127, 31));
	EXPECT_FALSE(has_room(Role::kRead, 128, 0));
	EXPECT_FALSE(has_room(Role::kRead, 32, 32));
	EXPECT_TRUE(has_room(Role::kNone, 15, 3));
	EXPECT_FALSE(has_room(Role::kNone, 16, 0));
	EXPECT_FALSE(has_room(Role::kNone, 4, 4));
}

TEST(Roles, groups_come_from_the_local_file)
{
	const std::string path = testing::TempDir() + "group";
	std::ofstream(path) << "root:x:0:\nsvctl-read:x:61:anna\nnonsense\nsvctl:x:51:\nsvctl-reader:x:62:\n";
	const RoleIds ids = read_groups({}, path.c_str());
	EXPECT_EQ(ids.administer, 51u);
	EXPECT_EQ(ids.read, 61u);
	const RoleIds none = read_groups({"", "nix"}, path.c_str());
	EXPECT_FALSE(none.administer || none.read);
	EXPECT_FALSE(read_groups({}, "/nonexistent").administer);
	remove(path.c_str());
}

}	// namespace
}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// What is exported, as text.
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "daemon/api/metrics.h"

namespace svd {
namespace {

EngineFacts one_pool()
{
	EngineFacts facts;
	PoolFacts &pool = facts.pools.emplace_back();
	pool.name = "tank";
	pool.uuid = "u-1";
	pool.state = "active";
	pool.nr_members = 2;
	pool.size = 3ull << 40;
	pool.kernel.emplace();
	pool.kernel->free_slots = 1 << 20;
	pool.kernel->ring_bytes = 1 << 28;
	pool.kernel->ring_used = 12345;
	pool.kernel->commits = (1ull << 53) + 1;	// a double has no such number
	pool.kernel->mode = SV_MODE_OUT_OF_SPACE;
	pool.catalogue = CatalogueSpace{4096, 1 << 25};
	pool.checkpoints = {3, 1, 4.5, 0.25, 1700000000};
	pool.members.push_back({0, "fast", "/dev/a", 1ull << 40, 1ull << 39, 0, true, true, false, true, false});
	pool.members.push_back({1, "slow", "/dev/b", 2ull << 40, 1ull << 39, 7, true, true, true, true, true});
	pool.members.push_back({2, "slow", "", 5ull << 40, 0, 0, false});
	pool.volumes.push_back({"v", 1ull << 41, 1 << 20, 2});
	return facts;
}

// The samples of a family, a line each.
std::string samples(const std::string &text, const std::string &name)
{
	std::string found;
	std::stringstream lines(text);
	for (std::string line; std::getline(lines, line);)
		if (line.starts_with(name + "{") || line.starts_with(name + " "))
			found += line.substr(name.size()) + "\n";
	return found;
}

TEST(Metrics, have_the_values_of_the_facts)
{
	SelfFacts self;
	self.version = "1.2";
	self.clients = 3;
	self.cpu_seconds = 1.5;
	const std::string text = metrics_text(one_pool(), self);
	const std::pair<const char *, const char *> expected[] = {
		{"svctl_build_info", "{version=\"1.2\"} 1\n"},
		{"svctl_clients", " 3\n"},
		{"process_cpu_seconds_total", " 1.5\n"},
		{"svctl_pool_info", "{pool=\"tank\",uuid=\"u-1\"} 1\n"},
		{"svctl_pool_size_bytes", "{pool=\"tank\"} 3298534883328\n"},
		{"svctl_pool_used_bytes", "{pool=\"tank\"} 2199023255552\n"},
		{"svctl_pool_free_bytes", "{pool=\"tank\"} 1099511627776\n"},
		{"svctl_pool_mode", "{pool=\"tank\",mode=\"write\"} 0\n{pool=\"tank\",mode=\"out-of-space\"} 1\n"
				    "{pool=\"tank\",mode=\"read-only\"} 0\n{pool=\"tank\",mode=\"fail\"} 0\n"},
		{"svctl_pool_seconds_to_full", ""},
		{"svctl_journal_used_bytes", "{pool=\"tank\"} 12345\n"},
		{"svctl_journal_commits_total", "{pool=\"tank\"} 9007199254740993\n"},
		{"svctl_catalogue_used_bytes", "{pool=\"tank\"} 4096\n"},
		{"svctl_checkpoints_total", "{pool=\"tank\"} 3\n"},
		{"svctl_checkpoint_failures_total", "{pool=\"tank\"} 1\n"},
		{"svctl_checkpoint_seconds_total", "{pool=\"tank\"} 4.5\n"},
		{"svctl_checkpoint_last_duration_seconds", "{pool=\"tank\"} 0.25\n"},
		{"svctl_checkpoint_last_success_timestamp_seconds", "{pool=\"tank\"} 1700000000\n"},
		{"svctl_tier_members", "{pool=\"tank\",tier=\"fast\"} 1\n{pool=\"tank\",tier=\"slow\"} 1\n"},
		{"svctl_tier_size_bytes", "{pool=\"tank\",tier=\"fast\"} 1099511627776\n"
					  "{pool=\"tank\",tier=\"slow\"} 2199023255552\n"},
		{"svctl_tier_used_bytes", "{pool=\"tank\",tier=\"fast\"} 549755813888\n"
					  "{pool=\"tank\",tier=\"slow\"} 1649267441664\n"},
		{"svctl_member_present", "{pool=\"tank\",tier=\"fast\",member=\"0\",device=\"/dev/a\"} 1\n"
					 "{pool=\"tank\",tier=\"slow\",member=\"1\",device=\"/dev/b\"} 1\n"
					 "{pool=\"tank\",tier=\"slow\",member=\"2\",device=\"\"} 0\n"},
		{"svctl_member_errors_total", "{pool=\"tank\",tier=\"fast\",member=\"0\",device=\"/dev/a\"} 0\n"
					      "{pool=\"tank\",tier=\"slow\",member=\"1\",device=\"/dev/b\"} 7\n"},
		{"svctl_member_journal_copy", "{pool=\"tank\",tier=\"fast\",member=\"0\",device=\"/dev/a\"} 1\n"
					      "{pool=\"tank\",tier=\"slow\",member=\"1\",device=\"/dev/b\"} 0\n"},
		{"svctl_member_catalogue_copy", "{pool=\"tank\",tier=\"fast\",member=\"0\",device=\"/dev/a\"} 1\n"
						"{pool=\"tank\",tier=\"slow\",member=\"1\",device=\"/dev/b\"} 0\n"},
		{"svctl_volume_size_bytes", "{pool=\"tank\",volume=\"v\"} 2199023255552\n"},
		{"svctl_volume_mapped_bytes", "{pool=\"tank\",volume=\"v\"} 1048576\n"},
		{"svctl_volume_unreadable_extents", "{pool=\"tank\",volume=\"v\"} 2\n"},
	};
	for (const auto &[name, lines] : expected)
		EXPECT_EQ(samples(text, name), lines) << name;
}

TEST(Metrics, latency_is_a_cumulative_histogram_of_each_class_that_was_used)
{
	EngineFacts facts = one_pool();
	EXPECT_EQ(metrics_text(facts, {}).find("svctl_volume_io_"), std::string::npos) << "it was not asked for";
	facts.latency = true;
	sv_histogram fast{}, slow{};
	fast.io_class = slow.io_class = SV_IO_WRITE;
	slow.tier = 1;
	fast.ios = 3;
	fast.buckets[0] = 2;				// below 1.024 us
	fast.buckets[4] = 1;				// from 3.072 to 4.096 us
	fast.ns = 5000;
	fast.bytes = 12288;
	slow.ios = slow.buckets[SV_HISTOGRAM_BUCKETS - 1] = 1;	// 69 s and more
	slow.ns = 70000000000;
	slow.errors = 1;
	facts.pools[0].volumes[0].latency = VolumeLatency{{fast, slow}};
	const std::string text = metrics_text(facts, {});
	const std::string with = "{pool=\"tank\",volume=\"v\",op=\"write\"";
	const std::string name = "\nsvctl_volume_io_duration_seconds";
	for (const std::string &line : {name + "_bucket" + with + ",le=\"4.096e-06\"} 3\n",
					name + "_bucket" + with + ",le=\"68.719476736\"} 3\n",
					name + "_bucket" + with + ",le=\"+Inf\"} 4\n", name + "_sum" + with + "} 70.000005\n",
					name + "_count" + with + "} 4\n", "\nsvctl_volume_io_bytes_total" + with + "} 12288\n",
					"\nsvctl_volume_io_errors_total" + with + "} 1\n"})
		EXPECT_NE(text.find(line), std::string::npos) << line << text.substr(text.find("svctl_volume_io_duration"));
	EXPECT_EQ(text.find("op=\"read\""), std::string::npos);
	facts.pools[0].volumes[0].latency.reset();	// an older module
	EXPECT_EQ(metrics_text(facts, {}).find("op="), std::string::npos);
}

TEST(Metrics, pool_that_is_down_has_what_its_labels_say)
{
	EngineFacts facts = one_pool();
	facts.pools[0].kernel.reset();
	facts.pools[0].catalogue.reset();
	facts.pools[0].volumes.clear();
	facts.pools[0].checkpoints = {};
	facts.pools[0].state = "down";
	const std::string text = metrics_text(facts, {});
	EXPECT_NE(text.find("svctl_pool_state{pool=\"tank\",state=\"down\"} 1\n"), std::string::npos);
	EXPECT_NE(text.find("svctl_pool_state{pool=\"tank\",state=\"active\"} 0\n"), std::string::npos);
	for (const char *name : {"svctl_pool_free_bytes", "svctl_pool_mode", "svctl_tier_used_bytes", "svctl_member_errors_total",
				 "svctl_member_free_bytes", "svctl_member_journal_copy", "svctl_catalogue_used_bytes",
				 "svctl_checkpoint_last_success_timestamp_seconds", "svctl_volume_size_bytes"})
		EXPECT_EQ(samples(text, name), "") << name;
	EXPECT_EQ(samples(text, "svctl_pool_size_bytes"), "{pool=\"tank\"} 3298534883328\n");
}

TEST(Metrics, problems_are_one_sample_for_equal_labels)
{
	EngineFacts facts;
	facts.problems.push_back({Id::kMemberMissing, "member 1 of 3 is missing", "", "tank"});
	facts.problems.push_back({Id::kMemberMissing, "member 2 of 3 is missing", "", "tank"});
	facts.problems.push_back({Id::kDataUnreadable, "", "", "tank", "v"});
	facts.problems.push_back({Id::kSpaceLow, "", "", "attic"});
	const std::string text = metrics_text(facts, {});
	EXPECT_EQ(samples(text, "svctl_problem"),
		  "{code=\"SV-MEMBER-MISSING\",severity=\"critical\",pool=\"tank\",volume=\"\",device=\"\"} 1\n"
		  "{code=\"SV-DATA-UNREADABLE\",severity=\"critical\",pool=\"tank\",volume=\"v\",device=\"\"} 1\n"
		  "{code=\"SV-SPACE-LOW\",severity=\"warning\",pool=\"attic\",volume=\"\",device=\"\"} 1\n");
	EXPECT_EQ(samples(text, "svctl_problems"), "{severity=\"info\"} 0\n{severity=\"warning\"} 1\n{severity=\"critical\"} 3\n");
	EXPECT_EQ(samples(metrics_text({}, {}), "svctl_problems"),
		  "{severity=\"info\"} 0\n{severity=\"warning\"} 0\n{severity=\"critical\"} 0\n");
}

// Each family: HELP, TYPE, then its samples, and nothing between.
TEST(Metrics, families_stand_together)
{
	std::stringstream lines(metrics_text(one_pool(), {}));
	const std::regex sample(R"re(([a-z_]+)(\{([a-z]+="([^"\\]|\\.)*",?)+\})? [0-9.e+-]+)re");
	std::string family;
	std::set<std::string> seen;
	std::string line;
	while (std::getline(lines, line)) {
		if (line.starts_with("# HELP ")) {
			family = line.substr(7, line.find(' ', 7) - 7);
			EXPECT_TRUE(seen.insert(family).second) << family;
			std::string type;
			std::getline(lines, type);
			const bool counter = type == "# TYPE " + family + " counter";
			EXPECT_TRUE(counter || type == "# TYPE " + family + " gauge") << type;
			EXPECT_EQ(counter, family.ends_with("_total")) << family;
			continue;
		}
		std::smatch match;
		ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
		EXPECT_EQ(match[1], family);
	}
	EXPECT_GT(seen.size(), 30u);
}

TEST(Metrics, labels_are_escaped_and_valid_utf8)
{
	const std::pair<std::string, std::string> cases[] = {
		{"/dev/sda", "/dev/sda"},
		{"a\"b\\c\nd", "a\\\"b\\\\c\\nd"},
		{"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
		{"\xff|\xc3|\xc0\x80|\xe0\x80\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xf8", "?|?|??|???|???|????|?"},
		{"\xe2\x82", "??"},
		{"", ""},
	};
	for (const auto &[given, expected] : cases)
		EXPECT_EQ(label_value(given), expected) << given;
}

TEST(Metrics, svd_knows_its_own_memory)
{
	EXPECT_GT(self_facts().resident, 1u << 20);
	EXPECT_GE(self_facts().cpu_seconds, 0);
}

}	// namespace
}	// namespace svd

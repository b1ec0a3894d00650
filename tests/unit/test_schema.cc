// SPDX-License-Identifier: GPL-2.0
// Catalogues of each earlier schema, opened by today's code.
#include <gtest/gtest.h>

#include <sstream>

#include <fmt/format.h>

#include "daemon/base/memory_device.h"
#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/database.h"
#include "daemon/catalogue/region.h"
#include "daemon/catalogue/schema.h"

namespace svd {
namespace {

const std::string kVolume = "INSERT INTO volumes (id, name, size, state, layer, owned_since, created, flags, tiers) VALUES ";

// A catalogue as the svd of that version made it, with two volumes and an extent.
struct Old {
	explicit Old(uint32_t version) : device("mem0", 32 * kMiB), uuid(Uuid::random())
	{
		auto region = Region::format(copies(), uuid);
		EXPECT_TRUE(region.ok());
		auto opened = Database::open(std::move(region).value());
		EXPECT_TRUE(opened.ok());
		Database &db = *opened.value();
		EXPECT_TRUE(upgrade_schema(db, version).ok());
		EXPECT_EQ(db.number("PRAGMA user_version").value(), version);
		std::string hex;
		for (const uint8_t byte : uuid.bytes)
			hex += fmt::format("{:02x}", byte);
		EXPECT_TRUE(db.transaction([&]() -> Status {
			for (const std::string &sql : {
				"INSERT INTO pool VALUES (1, x'" + hex + "', 'tank', 1700000000, 42, 1, 60000, 1000, 0, 0, 0, 4, 4)",
				std::string("INSERT INTO members VALUES (0, x'00112233445566778899aabbccddeeff', 0, 'fast', 100, 0)"),
				std::string("INSERT INTO layers (layer, volume, parent) VALUES (1, 1, 0), (3, 3, 0)"),
				kVolume + "(1, 'a', 1073741824, 0, 1, 1, 1700000001, 0, -1)",
				kVolume + "(3, 'gone', 1048576, 1, 3, 3, 1700000002, 0, -1)",
			})
				SV_TRY(db.exec(sql.c_str()));
			return {};
		}).ok());
		EXPECT_TRUE(db.checkpoint().ok());
		EXPECT_TRUE(db.region().set_ready().ok());
		EXPECT_TRUE(db.close().ok());
	}
	std::vector<CatalogueCopy> copies() { return {{&device, 0, device.size()}}; }
	void change(const char *sql)	// of whatever version it is
	{
		auto region = Region::open(copies(), uuid, {});
		ASSERT_TRUE(region.ok());
		auto opened = Database::open(std::move(region).value());
		ASSERT_TRUE(opened.ok());
		Database &db = *opened.value();
		const Status done = db.transaction([&] { return db.exec(sql); });
		EXPECT_TRUE(done.ok()) << done.error().message();
		EXPECT_TRUE(db.checkpoint().ok());
		EXPECT_TRUE(db.close().ok());
	}

	MemoryDevice device;
	Uuid uuid;
};

std::string dump_of(Catalogue &catalogue)
{
	std::ostringstream out;
	EXPECT_TRUE(catalogue.dump(out).ok());
	return out.str();
}

TEST(Schema, older_versions_are_upgraded)
{
	for (const uint32_t version : {1u, 2u, 3u, 4u}) {
		Old old(version);
		auto c = Catalogue::open(old.copies(), old.uuid);
		ASSERT_TRUE(c.ok()) << c.error().message();
		Catalogue &catalogue = *c.value();
		EXPECT_TRUE(catalogue.check().value().empty());
		const SnapshotWanted wanted{1, "s"};
		const auto rows = catalogue.begin_snapshots(std::span(&wanted, 1), 1);
		ASSERT_TRUE(rows.ok()) << rows.error().message();
		EXPECT_TRUE(catalogue.finish_snapshots(std::span(&rows.value()[0].id, 1)).ok());
		EXPECT_EQ(catalogue.volume(1).value().parent_layer, 1u);
		EXPECT_TRUE(catalogue.check().value().empty());
	}
}

TEST(Schema, volumes_of_version_1_come_up_with_their_pool)
{
	Old old(1);
	auto c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok()) << c.error().message();
	const auto volumes = c.value()->volumes();
	ASSERT_TRUE(volumes.ok());
	ASSERT_EQ(volumes.value().size(), 2u);
	EXPECT_TRUE(volumes.value()[0].autoactivate && volumes.value()[0].active);
	const std::string dump = dump_of(*c.value());
	EXPECT_NE(dump.find("volume 1 a 1073741824 active 1 1 1700000001 0 18446744073709551615\n"), std::string::npos) << dump;
	EXPECT_TRUE(c.value()->set_autoactivate(1, false).ok());
	EXPECT_TRUE(c.value()->check().value().empty());
	EXPECT_FALSE(c.value()->pool().value().pass_discards);
	ASSERT_TRUE(c.value()->close().ok());

	// Once is enough.
	c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok());
	EXPECT_FALSE(c.value()->volume("a").value().autoactivate);
}

TEST(Schema, snapshots_of_version_4_are_the_users_and_stay)
{
	Old old(4);
	old.change("INSERT INTO layers (layer, volume, parent) VALUES (2, 1, 1); UPDATE volumes SET layer = 2, owned_since = 2 WHERE id = 1;"
		   "INSERT INTO snapshots VALUES (2, 1, 's', 1073741824, 0, 1, 0, 1700000003, 0, 0)");
	auto c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok()) << c.error().message();
	EXPECT_FALSE(c.value()->snapshot(1, "s").value().scheduled);
	EXPECT_EQ(c.value()->volume("a").value().schedule, "none");
	EXPECT_EQ(c.value()->set_schedule(1, "5m:1h").error().code, Code::kUsage);
	EXPECT_TRUE(c.value()->set_schedule(1, "5min:1h").ok());
	EXPECT_EQ(c.value()->volume("a").value().schedule, "5min:1h");
	EXPECT_TRUE(c.value()->check().value().empty());
}

// Nobody but a damaged catalogue says so.
TEST(Schema, members_with_more_slots_than_there_can_be_are_refused)
{
	Old old(schema_version());
	old.change(fmt::format("UPDATE members SET nr_slots = {}", SV_MAX_SLOTS).c_str());
	auto c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok()) << c.error().message();
	ASSERT_TRUE(c.value()->members().ok());
	EXPECT_EQ(c.value()->members().value()[0].nr_slots, SV_MAX_SLOTS);
	ASSERT_TRUE(c.value()->close().ok());
	c.value().reset();

	old.change(fmt::format("UPDATE members SET nr_slots = {}", SV_MAX_SLOTS + 1).c_str());
	c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok()) << c.error().message();
	const auto members = c.value()->members();
	ASSERT_FALSE(members.ok());
	EXPECT_EQ(members.error().code, Code::kNeedsCheck);
	EXPECT_EQ(members.error().cause, fmt::format("member 0 has {} slots, more than there can be", SV_MAX_SLOTS + 1));
}

// Layers of a volume that has gone keep its number from being given again, like volumes and snapshots.
TEST(Schema, numbers_come_again_once_all_were_given)
{
	Old old(schema_version());
	old.change("UPDATE pool SET next_volume = 16777215;"
		   "INSERT INTO layers VALUES (2, 1, 1, 0); UPDATE volumes SET layer = 2, owned_since = 2 WHERE id = 1;"
		   "INSERT INTO snapshots VALUES (2, 1, 's', 1073741824, 0, 1, 0, 1700000003, 0, 0, 0)");
	auto c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok()) << c.error().message();
	const auto create = [&](const char *name) {
		VolumeRow wanted;
		wanted.name = name;
		wanted.size = 1 << 20;
		const auto made = c.value()->create_volume(wanted);
		EXPECT_TRUE(made.ok()) << made.error().message();
		return made.ok() ? made.value().id : 0;
	};
	EXPECT_EQ(create("last"), 16777215u);
	EXPECT_EQ(create("b"), 4u);	// 1 to 3 are a volume, a snapshot, and a volume that is being deleted
	EXPECT_EQ(create("c"), 5u);
	EXPECT_TRUE(c.value()->check().value().empty());
	EXPECT_TRUE(c.value()->begin_delete_volume(4).ok());
	EXPECT_TRUE(c.value()->delete_step(4).value().done);
	EXPECT_EQ(create("d"), 6u);	// not the one that has just become free
	ASSERT_TRUE(c.value()->close().ok());

	old.change("UPDATE policies SET value = '16777214' WHERE key = 'last number'");
	c = Catalogue::open(old.copies(), old.uuid);
	ASSERT_TRUE(c.ok());
	EXPECT_EQ(create("e"), 4u);
	const SnapshotWanted wanted{4, "s"};
	EXPECT_EQ(c.value()->begin_snapshots(std::span(&wanted, 1), 1).value()[0].id, 7u);
	EXPECT_TRUE(c.value()->check().value().empty());
}

TEST(Schema, read_only_upgrade_writes_nothing)
{
	Old old(1);
	const std::vector<uint8_t> before = old.device.contents();
	{
		Catalogue::OpenOptions options;
		options.read_only = true;
		auto c = Catalogue::open(old.copies(), old.uuid, options);
		ASSERT_TRUE(c.ok()) << c.error().message();
		EXPECT_TRUE(c.value()->volume("a").value().active);
	}
	EXPECT_TRUE(old.device.contents() == before);
}

TEST(Schema, upgrade_survives_a_power_cut_at_each_write)
{
	for (uint64_t n = 1;; n++) {
		Old old(1);
		old.device.settle();
		old.device.fail_from(n);
		const bool done = Catalogue::open(old.copies(), old.uuid).ok();
		old.device.heal();
		old.device.crash(n);
		auto c = Catalogue::open(old.copies(), old.uuid);
		ASSERT_TRUE(c.ok()) << n << ": " << c.error().message();
		EXPECT_TRUE(c.value()->volume("a").value().autoactivate);
		EXPECT_TRUE(c.value()->check().value().empty());
		if (done)
			break;
		ASSERT_LT(n, 1000u);
	}
}

}	// namespace
}	// namespace svd

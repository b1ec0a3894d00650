// SPDX-License-Identifier: GPL-2.0
// svd's use cases in one process, over the simulated kernel and image files: what each leaves behind, what it refuses and
// that a refused or dry one writes nothing; pools found anew by another engine, missing and damaged members, hosts. The
// programs themselves, and crashes, are tests/e2e.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "daemon/engine/engine.h"
#include "daemon/kernel/failing_kernel.h"
#include "daemon/kernel/sim_kernel.h"
#include "tests/support/lying_kernel.h"

namespace svd {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMib = 1 << 20;

Host host(char digit)
{
	return {*Uuid::parse(std::string(8, digit) + "-1111-4111-8111-111111111111"), std::string("host") + digit};
}

class EngineTest : public testing::Test {
protected:
	void SetUp() override
	{
		dir_ = fs::temp_directory_path() / ("svctl-engine-" + std::to_string(getpid()));
		fs::create_directories(dir_);
		start();
	}
	void TearDown() override
	{
		engine_.reset();
		kernel_.reset();
		fs::remove_all(dir_);
	}

	void start(char digit = '1')
	{
		kernel_ = std::make_unique<LyingKernel>(make_failing_kernel(make_sim_kernel()), lie_, refuse_, use_);
		engine_ = std::make_unique<Engine>(*kernel_, EngineOptions{dir_, {}, host(digit)});
		EXPECT_TRUE(engine_->scan().ok());
	}
	void stop()
	{
		engine_->shut_down();
		engine_.reset();
		kernel_.reset();
	}

	std::string disk(const std::string &name, uint64_t mib = 64)
	{
		const fs::path path = dir_ / name;
		std::ofstream(path).close();
		fs::resize_file(path, mib * kMib);
		return path;
	}
	std::string pool()
	{
		const auto created = engine_->create_pool("tank", {{"fast", {disk("a")}}, {"slow", {disk("b"), disk("c")}}}, {}, false);
		EXPECT_TRUE(created.ok()) << (created.ok() ? "" : created.error().message());
		EXPECT_TRUE(engine_->create_volume("tank", "v", 64 * kMib, false).ok());
		return (dir_ / "a").string();
	}

	static std::string contents(const fs::path &path)
	{
		std::string bytes(fs::file_size(path), 0);
		std::ifstream(path, std::ios::binary).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
		return bytes;
	}
	// Of all members.
	size_t disks() { return std::hash<std::string>()(contents(dir_ / "a") + contents(dir_ / "b") + contents(dir_ / "c")); }
	Json pools() { return engine_->list().value()["pools"]; }
	std::string state(const std::string &name = "tank")
	{
		for (const Json &pool : pools())
			if (pool["name"] == name)
				return pool["state"];
		return "none";
	}
	bool has_problem(Id id)
	{
		for (const Problem &problem : engine_->problems())
			if (problem.id == id)
				return true;
		return false;
	}

	Result<Json> check()
	{
		Jobs jobs;
		const auto job = jobs.start({"check", "tank", {}, false, {}}, [this](Job &j) { return engine_->check("tank", j); });
		while (jobs.turn())
			;
		return job.value()->result();
	}

	fs::path dir_;
	Lie lie_;
	Refuse refuse_;
	Use use_;
	std::unique_ptr<Kernel> kernel_;
	std::unique_ptr<Engine> engine_;
};

void expect(const Result<Json> &result, const char *what)
{
	ASSERT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message());
	EXPECT_EQ(what, result.value()["result"]) << result.value()["message"];
}

void refused(const Result<Json> &result, Code code, const std::string &says = {})
{
	ASSERT_FALSE(result.ok()) << (result.ok() ? result.value().dump() : "");
	EXPECT_EQ(code, result.error().code) << result.error().message();
	EXPECT_NE(std::string::npos, result.error().message().find(says)) << result.error().message();
}

TEST_F(EngineTest, repeated_commands_change_nothing)
{
	pool();
	expect(engine_->create_pool("tank", {{"fast", {dir_ / "a"}}, {"slow", {dir_ / "b", dir_ / "c"}}}, {}, false), "no change");
	expect(engine_->create_volume("tank", "v", 64 * kMib, false), "no change");
	expect(engine_->resize_volume("tank", "v", 64 * kMib, false), "no change");
	expect(engine_->activate("tank", false, false, false), "no change");
	expect(engine_->deactivate("tank", false), "deactivated");
	expect(engine_->deactivate("tank", false), "no change");
	EXPECT_EQ("down", state());
	expect(engine_->activate("tank", false, false, false), "activated");
	EXPECT_EQ("active", state());
}

TEST_F(EngineTest, dry_runs_write_nothing)
{
	pool();
	ASSERT_TRUE(engine_->deactivate("tank", false).ok());
	ASSERT_TRUE(engine_->activate("tank", false, false, false).ok());
	const std::string d = disk("d");
	const size_t before = disks();
	const Json listed = pools();
	EXPECT_TRUE(engine_->add_device("tank", {"slow", {d}}, {}, true).ok());
	EXPECT_TRUE(engine_->create_volume("tank", "w", kMib, true).ok());
	EXPECT_TRUE(engine_->resize_volume("tank", "v", 128 * kMib, true).ok());
	EXPECT_TRUE(engine_->rename_volume("tank", "v", "w", true).ok());
	const auto deletion = engine_->delete_volume("tank", "v", true);
	EXPECT_FALSE(deletion.value()["destroys"].empty());
	EXPECT_FALSE(engine_->delete_pool("tank", true).value()["destroys"].empty());
	EXPECT_TRUE(engine_->deactivate("tank", true).ok());
	EXPECT_TRUE(engine_->export_pool("tank", true).ok());
	EXPECT_EQ(before, disks());
	EXPECT_EQ(listed, pools());
	EXPECT_EQ(std::string::npos, contents(d).find_first_not_of('\0')) << "written to the device that would be added";
}

// As the command itself, with the same words; and nothing has changed.
TEST_F(EngineTest, dry_runs_refuse_what_the_command_refuses)
{
	pool();
	const std::string d = disk("d"), tiny = disk("tiny", 1);
	ASSERT_TRUE(engine_->create_snapshots("tank", {{"v", "one"}}, false).ok());
	ASSERT_TRUE(engine_->activate_snapshot("tank", {"v", "one"}, false).ok());
	ASSERT_TRUE(engine_->create_volume("tank", "w", kMib, false).ok());
	use_ = [](const std::string &volume) { return volume == "w" || volume == "v@one" ? "it is mounted on /mnt" : ""; };
	const uint64_t too_large = (64ull << 50) + 4096;
	using Command = std::function<Result<Json>(bool dry_run)>;
	const std::vector<std::pair<const char *, Command>> up = {
		{"64 PiB", [&](bool dry) { return engine_->create_volume("tank", "x", too_large, dry); }},
		{"64 PiB", [&](bool dry) { return engine_->create_clone("tank", "x", {"v", "one"}, too_large, dry); }},
		{"64 PiB", [&](bool dry) { return engine_->resize_volume("tank", "v", too_large, dry); }},
		{"shrink", [&](bool dry) { return engine_->resize_volume("tank", "v", kMib, dry); }},
		{"4 KiB", [&](bool dry) { return engine_->create_volume("tank", "x", 0, dry); }},
		{"exists", [&](bool dry) { return engine_->create_volume("tank", "v", kMib, dry); }},
		{"exists", [&](bool dry) { return engine_->rename_volume("tank", "v", "w", dry); }},
		{"mounted on /mnt", [&](bool dry) { return engine_->rename_volume("tank", "w", "x", dry); }},
		{"rename the volume of tank/v@one", [&](bool dry) { return engine_->rename_volume("tank", "v", "x", dry); }},
		{"exists", [&](bool dry) { return engine_->create_snapshots("tank", {{"v", "one"}}, dry); }},
		{"not allowed", [&](bool dry) { return engine_->create_volume("tank", "a/b", kMib, dry); }},
		{"not allowed", [&](bool dry) { return engine_->create_pool("a/b", {{"t", {d}}}, {}, dry); }},
		{"no such volume", [&](bool dry) { return engine_->resize_volume("tank", "nix", kMib, dry); }},
		{"mounted", [&](bool dry) { return engine_->delete_volume("tank", "w", dry); }},
		{"mounted", [&](bool dry) { return engine_->deactivate_volume("tank", "w", dry); }},
		{"mounted", [&](bool dry) { return engine_->deactivate_snapshot("tank", {"v", "one"}, dry); }},
		{"mounted", [&](bool dry) { return engine_->deactivate("tank", dry); }},
		{"mounted", [&](bool dry) { return engine_->export_pool("tank", dry); }},
		{"mounted", [&](bool dry) { return engine_->delete_pool("tank", dry); }},
		{"snapshot", [&](bool dry) { return engine_->delete_volume("tank", "v", dry); }},
		{"active", [&](bool dry) { return engine_->delete_snapshot("tank", {"v", "one"}, dry); }},
		{"active", [&](bool dry) { return engine_->activate("tank", true, false, dry); }},
		{"--read-only", [&](bool dry) { return engine_->activate("tank", false, true, dry); }},
		{"named twice", [&](bool dry) { return engine_->add_device("tank", {"slow", {d, d}}, {}, dry); }},
		{"No such file", [&](bool dry) { return engine_->add_device("tank", {"slow", {d, dir_ / "nix"}}, {}, dry); }},
		{"no such tier", [&](bool dry) { return engine_->add_device("tank", {"nix", {d}}, {}, dry); }},
		{"too small", [&](bool dry) { return engine_->create_pool("p", {{"t", {d, tiny}}}, {}, dry); }},
		{"member of pool tank", [&](bool dry) { return engine_->create_pool("p", {{"t", {d, dir_ / "b"}}}, {}, dry); }},
	};
	const auto try_all = [&](const std::vector<std::pair<const char *, Command>> &commands) {
		for (size_t i = 0; i < commands.size(); i++) {
			SCOPED_TRACE(i);
			const Json listed = pools();
			const auto dry = commands[i].second(true);
			EXPECT_EQ(listed, pools());
			const auto wet = commands[i].second(false);
			refused(dry, wet.ok() ? Code::kOk : wet.error().code, commands[i].first);
			EXPECT_EQ(wet.ok() ? "" : wet.error().message(), dry.ok() ? "" : dry.error().message());
			EXPECT_EQ(listed, pools());
		}
	};
	try_all(up);
	use_ = nullptr;
	stop();
	fs::rename(dir_ / "c", dir_ / "away");
	start();
	try_all({{"member 2 of 3 is missing", [&](bool dry) { return engine_->activate("tank", false, false, dry); }},
		 {"member 2 of 3 is missing", [&](bool dry) { return engine_->activate("tank", true, false, dry); }},
		 {"member 2 of 3 is missing", [&](bool dry) { return engine_->export_pool("tank", dry); }}});
	expect(engine_->activate("tank", true, true, false), "activated");
	try_all({{"without members", [&](bool dry) { return engine_->activate("tank", true, false, dry); }},
		 {"read-only", [&](bool dry) { return engine_->activate("tank", false, false, dry); }},
		 {"read-only", [&](bool dry) { return engine_->create_volume("tank", "x", kMib, dry); }}});
	expect(engine_->activate("tank", true, true, false), "no change");
	EXPECT_EQ(std::string::npos, contents(d).find_first_not_of('\0'));
}

// RECYCLE of what is on its way to its member would grant it before its discard has ended [I25]; twice, to two extents.
TEST_F(EngineTest, freed_slots_are_recycled_once_and_after_their_discard)
{
	Pool *tank = nullptr;
	std::map<uint32_t, int> recycled;
	size_t listed = 0;
	lie_ = [&](uint32_t op, void *payload, CommandResult &result) {
		const auto *freed = static_cast<const sv_freed *>(payload);
		for (uint32_t i = 0; op == SV_OP_RECYCLE && i < result.count; i++)
			recycled[freed[i].extent]++;
		listed += op == SV_OP_LIST_FREED ? result.count : 0;
	};
	pool();
	expect(engine_->set_pool("tank", true, false), "set");
	const auto volume = engine_->find_volume("tank", "v").value();
	tank = volume.first;
	const std::vector<uint8_t> data(4096, 1);
	for (uint64_t i = 0; i < 40; i++)
		ASSERT_TRUE(tank->kernel().write(volume.second.id, i * kMib, data, false).ok());
	ASSERT_TRUE(tank->checkpoint().ok());
	const size_t idle = listed;
	ASSERT_TRUE(engine_->delete_volume("tank", "v", false).ok());
	EXPECT_EQ(40u, listed - idle);
	while (tank->discarding() > 0) {
		ASSERT_TRUE(tank->checkpoint().ok());
		engine_->tick();
	}
	EXPECT_EQ(40u, recycled.size());
	for (const auto &[extent, times] : recycled)
		EXPECT_EQ(1, times) << extent;
	EXPECT_EQ(0u, tank->kernel().ask<sv_state>(SV_OP_STATE).value().freed_extents);
	lie_ = nullptr;
	expect(check(), "sound");
}

// Each try holds writes: one that failed is for later, and is not owed until then.
TEST_F(EngineTest, folds_that_the_kernel_refuses_are_not_asked_for_again_at_once)
{
	pool();
	const auto volume = engine_->find_volume("tank", "v").value();
	Pool *tank = volume.first;
	const auto block = [&](uint64_t at) {
		const std::vector<uint8_t> data(4096, static_cast<uint8_t>(at >> 16));
		ASSERT_TRUE(tank->kernel().write(volume.second.id, at, data, false).ok());
	};
	for (uint64_t extent = 0; extent < 3; extent++)	// by more fragments than an extent has
		for (uint64_t at = 0; at < kMib; at += 65536)
			block(extent * kMib + at);
	int asked = 0;
	refuse_ = [&](uint32_t op) { return op == SV_OP_FOLD && ++asked; };
	for (int turn = 0; turn < 10; turn++)
		tank->tick_with_checkpoint();
	EXPECT_EQ(1, asked);
	refuse_ = nullptr;
	expect(check(), "sound");
	stop();
	start();	// which looks for all of them
	tank = engine_->find_volume("tank", "v").value().first;
	for (int turn = 0; turn < 10; turn++)
		tank->tick_with_checkpoint();
	const auto state = tank->kernel().ask<sv_state>(SV_OP_STATE).value();
	EXPECT_EQ(3u, state.total_slots - state.free_slots);
	expect(check(), "sound");
}

// ---- maps that are taken over from another volume's ----

// What is written and discarded in it, extent by extent, with the same in each volume and snapshot as it should be.
class MapsTest : public EngineTest {
protected:
	using Contents = std::map<uint64_t, uint8_t>;	// of the first block of an extent; not there: zeroes
	static constexpr uint64_t kExtents[] = {0, 1, 7, 511, 512, 1007, 1008, 1009, 2015, 5000, 262143, 262144, 300000, 699999};

	void wide_pool()
	{
		const auto created = engine_->create_pool("tank", {{"t", {disk("a", 256)}}}, {}, false);
		ASSERT_TRUE(created.ok()) << created.error().message();
		ASSERT_TRUE(engine_->create_volume("tank", "v", 700000 * kMib, false).ok());
		volumes_["v"] = {};
	}
	Pool *tank() { return engine_->find_volume("tank", "v").value().first; }
	uint32_t id(const std::string &volume) { return engine_->find_volume("tank", volume).value().second.id; }
	uint32_t snapshot_id(const std::string &volume, const std::string &snapshot)
	{
		return tank()->catalogue().snapshot(id(volume), snapshot).value().id;
	}
	void write(const std::string &volume, uint64_t extent, uint8_t what)
	{
		const std::vector<uint8_t> data(4096, what);
		const Status done = tank()->kernel().write(id(volume), extent * kMib, data, false);
		ASSERT_TRUE(done.ok()) << done.error().message();
		volumes_[volume][extent] = what;
	}
	void discard(const std::string &volume, uint64_t extent)
	{
		ASSERT_TRUE(tank()->kernel().discard(id(volume), extent * kMib, kMib).ok());
		volumes_[volume].erase(extent);
	}
	// A volume with something in each of kExtents, and a snapshot of it.
	void written_and_snapped()
	{
		wide_pool();
		for (const uint64_t extent : kExtents)
			write("v", extent, 1);
		snapshot("v", "s");
	}
	void snapshot(const std::string &volume, const std::string &name)
	{
		const auto made = engine_->create_snapshots("tank", {{volume, name}}, false);
		ASSERT_TRUE(made.ok()) << made.error().message();
		snapshots_[{volume, name}] = volumes_[volume];
	}
	void clone(const std::string &name, const std::string &volume, const std::string &of)
	{
		const auto made = engine_->create_clone("tank", name, {volume, of}, {}, false);
		ASSERT_TRUE(made.ok()) << made.error().message();
		volumes_[name] = snapshots_[{volume, of}];
	}
	void compare(uint32_t number, const Contents &contents, const std::string &what)
	{
		std::vector<uint8_t> data(4096);
		for (const uint64_t extent : kExtents) {
			ASSERT_TRUE(tank()->kernel().read(number, extent * kMib, data).ok());
			const auto is = contents.find(extent);
			ASSERT_EQ(is == contents.end() ? 0 : is->second, data[5]) << what << " at " << extent;
		}
	}
	void compare_all()
	{
		for (const auto &[name, contents] : volumes_)
			compare(id(name), contents, name);
		for (const auto &of : shown_)
			compare(snapshot_id(of.first, of.second), snapshots_[of], of.first + "@" + of.second);
		expect(check(), "sound");
	}
	uint64_t memory() { return tank()->kernel().ask<sv_state>(SV_OP_STATE).value().memory; }
	void restart()
	{
		for (const auto &[name, contents] : volumes_)
			EXPECT_TRUE(tank()->kernel().flush(id(name)).ok());
		stop();
		start();
		shown_.clear();
	}

	std::map<std::string, Contents> volumes_;
	std::map<std::pair<std::string, std::string>, Contents> snapshots_;
	std::set<std::pair<std::string, std::string>> shown_;
};

TEST_F(MapsTest, what_is_written_while_a_map_is_taken_over_is_not_in_it)
{
	written_and_snapped();
	write("v", 7, 2);
	discard("v", 511);
	bool wrote = false;
	lie_ = [&](uint32_t op, void *payload, CommandResult &) {
		if ((op != SV_OP_SHARE || static_cast<sv_share *>(payload)->source == 0) && op != SV_OP_DUMP_NEWER)
			return;
		wrote = true;
		write("v", 0, static_cast<uint8_t>(2 + op));
		write("v", 5000, static_cast<uint8_t>(2 + op));
		write("v", 1 + op, 9);	// where the snapshot has nothing
		discard("v", op == SV_OP_SHARE ? 262144 : 1008);
		discard("v", 699999);
	};
	clone("c", "v", "s");
	lie_ = nullptr;
	EXPECT_TRUE(wrote);
	compare_all();
	restart();
	compare_all();
}

TEST_F(MapsTest, views_that_share_at_random)
{
	for (unsigned seed = 1; seed <= 3; seed++) {
		std::mt19937 random(seed);
		const auto one_of = [&](const auto &items) {
			auto at = items.begin();
			std::advance(at, static_cast<long>(random() % items.size()));
			return at->first;
		};
		wide_pool();
		int numbers = 0;
		for (int step = 0; step < 300; step++) {
			const std::string volume = one_of(volumes_);
			const uint64_t extent = kExtents[random() % std::size(kExtents)];
			switch (random() % 14) {
			case 0:
				snapshot(volume, "s" + std::to_string(numbers++));
				break;
			case 1:
				if (!snapshots_.empty() && volumes_.size() < 8) {
					const auto of = one_of(snapshots_);
					clone("c" + std::to_string(numbers++), of.first, of.second);
				}
				break;
			case 2:
				if (!snapshots_.empty()) {
					const auto of = one_of(snapshots_);
					shown_.insert(of);
					EXPECT_TRUE(engine_->activate_snapshot("tank", {of.first, of.second}, false).ok());
				}
				break;
			case 3:
				if (!snapshots_.empty()) {
					const auto of = one_of(snapshots_);
					shown_.erase(of);
					ASSERT_TRUE(engine_->deactivate_snapshot("tank", {of.first, of.second}, false).ok());
					const auto gone = engine_->delete_snapshot("tank", {of.first, of.second}, false);
					ASSERT_TRUE(gone.ok()) << gone.error().message();
					snapshots_.erase(of);
				}
				break;
			case 4:
				if (!snapshots_.empty()) {
					const auto of = one_of(snapshots_);
					const auto back = engine_->rollback_volume("tank", {of.first, of.second}, false);
					ASSERT_TRUE(back.ok()) << back.error().message();
					volumes_[of.first] = snapshots_[of];
				}
				break;
			case 5:
				if (volume != "v" && std::ranges::none_of(snapshots_, [&](const auto &s) { return s.first.first == volume; })) {
					ASSERT_TRUE(engine_->delete_volume("tank", volume, false).ok());
					volumes_.erase(volume);
				}
				break;
			case 6:
				tank()->tick_with_checkpoint();
				break;
			case 7:
				if (random() % 4 == 0)
					restart();
				compare_all();
				break;
			case 8:
			case 9:
				discard(volume, extent);
				break;
			default:
				write(volume, extent, static_cast<uint8_t>(1 + random() % 255));
			}
			if (HasFatalFailure())
				FAIL() << "seed " << seed << " step " << step;
		}
		compare_all();
		restart();
		compare_all();
		ASSERT_TRUE(engine_->deactivate("tank", false).ok());
		stop();
		fs::remove(dir_ / "a");
		volumes_.clear();
		snapshots_.clear();
		shown_.clear();
		start();
	}
}

TEST_F(MapsTest, clones_and_views_take_no_memory_for_what_they_have_in_common)
{
	wide_pool();
	for (const uint64_t extent : kExtents)
		write("v", extent, 1);
	for (uint64_t extent = 10000; extent < 260000; extent += 1250)	// a leaf for each
		write("v", extent, 1);
	snapshot("v", "s");
	const uint64_t before = memory();
	for (const char *name : {"c", "d", "e"})
		clone(name, "v", "s");
	ASSERT_TRUE(engine_->activate_snapshot("tank", {"v", "s"}, false).ok());
	EXPECT_GT(before + 40 * 4096, memory()) << "the map itself has more than 200 pages";
	write("c", 10000, 3);
	compare_all();
	const uint64_t then = memory();
	restart();
	EXPECT_GT(then, memory() - 8 * 4096) << "nor after a restart";
	compare_all();
}

TEST_F(MapsTest, what_the_kernel_will_not_share_is_loaded_whole)
{
	written_and_snapped();
	discard("v", 512);
	refuse_ = [](uint32_t op) { return op == SV_OP_SHARE; };
	clone("c", "v", "s");
	restart();
	compare_all();
	refuse_ = nullptr;
	// Nor what it gives up in the middle.
	refuse_ = [](uint32_t op) { return op == SV_OP_DUMP_NEWER; };
	clone("d", "v", "s");
	refuse_ = nullptr;
	compare_all();
	int ends = 0;
	lie_ = [&](uint32_t op, void *payload, CommandResult &result) {
		if (op == SV_OP_DUMP_NEWER && ++ends == 1)	// as if nothing were newer: the end is refused
			result.count = 0;
		else if (op == SV_OP_DUMP_NEWER)
			static_cast<sv_map_entry *>(payload)[0].index = 1 << 30;
	};
	clone("e", "v", "s");
	clone("f", "v", "s");
	lie_ = nullptr;
	EXPECT_EQ(2, ends);
	compare_all();
	restart();
	compare_all();
}

TEST_F(MapsTest, a_module_without_shared_maps_serves_clones)
{
	written_and_snapped();
	lie_ = [](uint32_t op, void *payload, CommandResult &) {
		EXPECT_NE(SV_OP_SHARE, op);
		if (op == SV_OP_HELLO)
			static_cast<sv_hello *>(payload)->features &= ~SV_FEATURE_SHARE;
	};
	restart();
	clone("c", "v", "s");
	discard("c", 512);
	compare_all();
	restart();
	compare_all();
	lie_ = nullptr;
}

TEST_F(EngineTest, module_of_another_abi_is_refused_by_name)
{
	pool();
	ASSERT_TRUE(engine_->deactivate("tank", false).ok());
	lie_ = [](uint32_t op, void *payload, CommandResult &) {
		if (op == SV_OP_HELLO)
			static_cast<sv_hello *>(payload)->abi++;
	};
	const auto refused = engine_->activate("tank", false, false, false);
	ASSERT_FALSE(refused.ok());
	EXPECT_EQ(Code::kMissingFeature, refused.error().code);
	EXPECT_EQ(Id::kModuleVersion, refused.error().id());
	EXPECT_EQ("down", state());
	stop();
	start();	// nor by itself
	EXPECT_EQ("down", state());
	lie_ = nullptr;
	EXPECT_TRUE(engine_->activate("tank", false, false, false).ok());
}

TEST_F(EngineTest, refusals_have_codes_and_change_nothing)
{
	pool();
	const Json listed = pools();
	refused(engine_->create_volume("tank", "v", kMib, false), Code::kBusy, "v");
	refused(engine_->create_volume("nothing", "v", kMib, false), Code::kNotFound, "nothing");
	refused(engine_->create_volume("tank", "a/b", kMib, false), Code::kUsage);
	refused(engine_->create_volume("tank", "w", 0, false), Code::kUsage);
	refused(engine_->create_volume("tank", "w", (64ull << 50) + 4096, false), Code::kUsage);
	refused(engine_->resize_volume("tank", "v", kMib, false), Code::kUsage, "shrink");
	refused(engine_->resize_volume("tank", "w", kMib, false), Code::kNotFound);
	refused(engine_->rename_volume("tank", "v", "..", false), Code::kUsage);
	refused(engine_->delete_volume("tank", "w", false), Code::kNotFound);
	refused(engine_->create_pool("other", {{"t", {dir_ / "a"}}}, {}, false), Code::kBusy, "tank");
	refused(engine_->create_pool("other", {{"t", {dir_ / "none"}}}, {}, false), Code::kNotFound, "none");
	refused(engine_->create_pool("other", {{"t", {disk("tiny", 1)}}}, {}, false), Code::kNoSpace);
	refused(engine_->create_pool("o", {{"t", {disk("d")}}, {"t", {disk("e")}}}, {}, false), Code::kUsage);
	refused(engine_->add_device("tank", {"fast", {dir_ / "b"}}, {}, false), Code::kBusy, "member of pool tank");
	refused(engine_->import_pool("tank", "other", false, false), Code::kBusy);
	EXPECT_EQ(listed, pools());
}

// A rename of an inactive volume was taken, and the pool stayed down from its next activation on.
TEST_F(EngineTest, names_that_no_device_can_have_are_refused)
{
	const std::string dashes(30, '-'), name = "p" + dashes, fits = "vv" + dashes, longer = "vvv" + dashes, takes = "the kernel takes 127",
			  snapshot = "s" + std::string(29, '-');
	ASSERT_TRUE(engine_->create_pool(name, {{"t", {disk("a")}}}, {}, false).ok());
	expect(engine_->create_volume(name, fits, kMib, false), "created");
	expect(engine_->create_volume(name, "v", kMib, false), "created");
	ASSERT_TRUE(engine_->create_snapshots(name, {{"v", snapshot}}, false).ok());
	const Json listed = pools();
	for (const bool dry : {true, false}) {
		refused(engine_->create_volume(name, longer, kMib, dry), Code::kUsage, takes);
		refused(engine_->create_clone(name, longer, {"v", snapshot}, {}, dry), Code::kUsage, takes);
		refused(engine_->rename_volume(name, "v", longer, dry), Code::kUsage, takes);
		refused(engine_->rename_volume(name, "v", "vvv", dry), Code::kUsage, takes);	// with its snapshot
		refused(engine_->create_snapshots(name, {{"v", "one"}, {fits, "one"}}, dry), Code::kUsage, takes);
		refused(engine_->rename_snapshot(name, {"v", snapshot}, "s" + dashes, dry), Code::kUsage, takes);
	}
	EXPECT_EQ(listed, pools());
	expect(engine_->rename_volume(name, fits, "v" + dashes, false), "renamed");

	// One that has such a name from before.
	const auto found = engine_->find_volume(name, "v").value();
	ASSERT_TRUE(found.first->catalogue().rename_volume(found.second.id, longer).ok());
	stop();
	start();
	EXPECT_EQ("active", state(name));
	const Json after = pools();
	for (const Json &volume : after[0]["volumes"])
		EXPECT_EQ(volume["name"] == longer ? "inactive" : "active", volume["state"]);
	refused(engine_->activate_volume(name, longer, false), Code::kUsage, takes);
	expect(engine_->rename_volume(name, longer, "v", false), "renamed");
	expect(engine_->activate_volume(name, "v", false), "activated");
	expect(engine_->export_pool(name, false), "exported");
	expect(engine_->import_pool(name, "tank", false, false), "imported");
	expect(engine_->rename_volume("tank", "v" + dashes, fits + "v", false), "renamed");
	expect(engine_->export_pool("tank", false), "exported");
	for (const bool dry : {true, false})
		refused(engine_->import_pool("tank", name, false, dry), Code::kUsage, takes);
	EXPECT_EQ("exported", state());
	expect(engine_->import_pool("tank", "", false, false), "imported");
}

TEST_F(EngineTest, another_engine_finds_what_the_last_one_left)
{
	pool();
	expect(engine_->rename_volume("tank", "v", "w", false), "renamed");
	expect(engine_->resize_volume("tank", "w", 256 * kMib, false), "resized");
	expect(engine_->add_device("tank", {"slow", {disk("d")}}, {}, false), "added");
	const Json listed = pools();
	stop();
	start();
	EXPECT_EQ(listed, pools());
	expect(engine_->delete_volume("tank", "w", false), "deleted");
	expect(engine_->delete_pool("tank", false), "deleted");
	stop();
	start();
	EXPECT_TRUE(pools().empty());
}

TEST_F(EngineTest, pool_waits_for_its_members)
{
	pool();
	stop();
	fs::rename(dir_ / "b", dir_ / "elsewhere");
	start();
	EXPECT_EQ("down", state());
	EXPECT_TRUE(has_problem(Id::kMemberMissing));
	refused(engine_->activate("tank", false, false, false), Code::kNotFound, "missing");
	expect(engine_->activate("tank", true, true, false), "activated");
	EXPECT_EQ("read-only", state());
	refused(engine_->create_volume("tank", "w", kMib, false), Code::kPermission);
	expect(engine_->deactivate("tank", false), "deactivated");
	fs::rename(dir_ / "elsewhere", dir_ / "b");
	expect(engine_->activate("tank", false, false, false), "activated");
	EXPECT_FALSE(has_problem(Id::kMemberMissing));
}

TEST_F(EngineTest, copies_of_a_member_keep_the_pool_down)
{
	pool();
	stop();
	fs::copy_file(dir_ / "c", dir_ / "copy");
	kernel_ = make_failing_kernel(make_sim_kernel());
	engine_ = std::make_unique<Engine>(*kernel_, EngineOptions{dir_, {dir_ / "a", dir_ / "b", dir_ / "c", dir_ / "copy"}, host('1')});
	EXPECT_TRUE(engine_->scan().ok());
	EXPECT_EQ("down", state());
	EXPECT_TRUE(has_problem(Id::kMemberDuplicate));
	refused(engine_->activate("tank", false, false, false), Code::kBusy, "copy");
}

TEST_F(EngineTest, pools_belong_to_one_host)
{
	pool();
	stop();
	start('2');
	EXPECT_EQ("foreign", state());
	refused(engine_->activate("tank", false, false, false), Code::kBusy, "host1");
	refused(engine_->import_pool("tank", "", false, false), Code::kBusy, "--force");
	stop();
	start('1');
	expect(engine_->export_pool("tank", false), "exported");
	EXPECT_EQ("exported", state());
	stop();
	start('2');
	EXPECT_EQ("exported", state());
	expect(engine_->import_pool("tank", "vault", false, false), "imported");
	EXPECT_EQ("active", state("vault"));
	stop();
	start('1');
	EXPECT_EQ("foreign", state("vault"));
}

TEST_F(EngineTest, each_refusal_of_the_kernel_leaves_a_pool_that_agrees_with_it)
{
	pool();
	for (uint64_t n = 1; n < 8; n++) {
		engine_->fail_kernel_call(n);
		(void)engine_->create_volume("tank", "w", kMib, false);
		engine_->fail_kernel_call(n);
		(void)engine_->rename_volume("tank", "w", "x", false);
		engine_->fail_kernel_call(n);
		(void)engine_->delete_volume("tank", "x", false);
		engine_->fail_kernel_call(0);
		(void)engine_->delete_volume("tank", "w", false);
		(void)engine_->delete_volume("tank", "x", false);
		const Json listed = pools();
		for (const Json &volume : listed[0]["volumes"])
			EXPECT_TRUE(volume["name"] == "v" || volume["state"] == "deleting") << n << volume.dump();
	}
	stop();
	start();
	EXPECT_EQ("active", state());
	ASSERT_EQ(1u, pools()[0]["volumes"].size()) << "what was deleted is gone";
	EXPECT_EQ("v", pools()[0]["volumes"][0]["name"]);
}

// Some of volume v written: all of its extent 0, a block of extent 3.
TEST_F(EngineTest, check_names_each_difference_between_kernel_and_catalogue)
{
	pool();
	const auto found = engine_->find_volume("tank", "v");
	ASSERT_TRUE(found.ok());
	KernelPool *const kernel = &found.value().first->kernel();
	const uint32_t volume = found.value().second.id;
	const std::vector<uint8_t> bytes(kMib, 7);
	ASSERT_TRUE(kernel->write(volume, 0, bytes, false).ok());
	ASSERT_TRUE(kernel->write(volume, 3 * kMib, std::span(bytes).first(4096), false).ok());
	ASSERT_TRUE(kernel->flush(volume).ok());
	expect(check(), "sound");

	const auto forges = [this](uint32_t op, auto forge) {
		lie_ = [op, forge](uint32_t asked, void *payload, CommandResult &result) {
			if (asked == op && result.count > 0)
				forge(payload, result);
		};
	};
	const auto differs = [this](const std::string &says) {
		const auto checked = check();
		refused(checked, Code::kNeedsCheck, says);
		EXPECT_EQ(Id::kStateDiffers, checked.ok() ? Id::kFailure : checked.error().id());
		lie_ = nullptr;
		expect(check(), "sound");
	};
	forges(SV_OP_DUMP_EXTENTS, [](void *all, CommandResult &) { static_cast<sv_extent *>(all)->slot++; });
	differs("kernel: extent 1 slot ");
	forges(SV_OP_DUMP_EXTENTS, [](void *, CommandResult &result) { result.count = 0; });
	differs("only the catalogue has extent 1 ");
	forges(SV_OP_DUMP_EXTENTS, [](void *all, CommandResult &result) { static_cast<sv_extent *>(all)[result.count++] = {102, 9, 0, 1, 0}; });
	differs("only the kernel has extent 102 ");
	forges(SV_OP_DUMP_PARTIALS, [](void *all, CommandResult &) { static_cast<sv_partial_bits *>(all)->valid[0] ^= 2; });
	differs("kernel: partial 2 valid 3 ");
	forges(SV_OP_DUMP_PARTIALS, [](void *, CommandResult &result) { result.count = 0; });
	differs("only the catalogue has partial 2 ");
	forges(SV_OP_DUMP_MAP, [](void *all, CommandResult &) { static_cast<sv_map_entry *>(all)->extent = 2; });
	differs("kernel: volume 1 index 0 extent 2, its own;");
	forges(SV_OP_DUMP_MAP, [](void *all, CommandResult &) { static_cast<sv_map_entry *>(all)->layer = 0; });
	differs("kernel: volume 1 index 0 extent 1, of an older layer; ");
	forges(SV_OP_DUMP_MAP, [](void *all, CommandResult &) { static_cast<sv_map_entry *>(all)[1].index++; });
	differs("only the catalogue has volume 1 index 3 ");
	forges(SV_OP_VOLUMES, [](void *all, CommandResult &) { static_cast<sv_volume_info *>(all)->owned_since++; });
	differs("kernel: volume 1 layer 1 owned since 2 ");
	forges(SV_OP_VOLUMES, [](void *all, CommandResult &) { static_cast<sv_volume_info *>(all)->size -= 4096; });
	differs("kernel: volume 1 layer 1 owned since 1 flags 0 size 67104768 ");
	forges(SV_OP_VOLUMES, [](void *, CommandResult &result) { result.count = 0; });
	differs("only the catalogue has volume 1 ");
	forges(SV_OP_VOLUMES, [](void *all, CommandResult &result) { static_cast<sv_volume_info *>(all)[result.count++] = {7, 1, 1, 0, 4096, 0, ~0ull}; });
	differs("only the kernel has volume 7 ");
	forges(SV_OP_MEMBERS, [](void *all, CommandResult &) { static_cast<sv_member_state *>(all)->free_slots--; });
	differs("member 0: kernel has ");
}

}	// namespace
}	// namespace svd

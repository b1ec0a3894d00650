// SPDX-License-Identifier: GPL-2.0
// svctl check finds each difference between kernel and catalogue, also where the windows end in which they are compared.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "daemon/base/memory_file.h"
#include "daemon/engine/engine.h"
#include "daemon/kernel/sim_kernel.h"
#include "tests/support/lying_kernel.h"

namespace svd {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kExtents = 40000;	// two windows of 16384, and a part of one

class Check : public testing::Test {
protected:
	void SetUp() override
	{
		dir_ = fs::temp_directory_path() / ("svctl-check-" + std::to_string(getpid()));
		fs::create_directories(dir_);
		std::ofstream(dir_ / "a").close();
		fs::resize_file(dir_ / "a", uint64_t{48} << 30);
		engine_ = std::make_unique<Engine>(kernel_, EngineOptions{dir_, {}, {Uuid::random(), "here"}});
		const auto made = engine_->create_pool("tank", {{"t", {dir_ / "a"}}}, {}, false);
		ASSERT_TRUE(made.ok()) << made.error().message();
		restore();
		const auto found = engine_->find_volume("tank", "v");
		ASSERT_TRUE(found.ok()) << found.error().message();
		pool_ = found.value().first;
	}
	void TearDown() override
	{
		engine_.reset();
		fs::remove_all(dir_);
	}

	void restore()
	{
		UniqueFd file = create_memory_file("text").value();
		{
			FdBuffer buffer(file.get());
			std::ostream text(&buffer);
			text << "svctl-dump 1\nvolume 1 v " << (uint64_t{kExtents} << 20) << " active 1 1 0 0 1\n"
			     << "map 1 0 " << kExtents << " 0 0 1 1\n";
			for (uint32_t extent = 1; extent <= kExtents; extent += 2)
				text << "partial " << extent << " " << std::string(60, '0') << "0fff\n";
			text << "end\n" << std::flush;
		}
		ASSERT_TRUE(seal_memory_file(file).ok());
		Jobs jobs;
		const auto job = jobs.start({"restore", "tank", {}, true, {}}, [&](Job &self) {
			return engine_->restore("tank", file.get(), false, self); });
		ASSERT_TRUE(job.ok());
		while (jobs.turn())
			;
		ASSERT_TRUE(job.value()->result().ok()) << job.value()->result().error().message();
	}

	std::vector<std::string> check(Lie lie)
	{
		lie_ = std::move(lie);
		auto found = pool_->check(NoPace::instance());
		lie_ = nullptr;
		EXPECT_TRUE(found.ok());
		return found.ok() ? found.value() : std::vector<std::string>{found.error().message()};
	}

	fs::path dir_;
	Lie lie_;
	Refuse refuse_;
	Use use_;
	LyingKernel kernel_{make_sim_kernel(), lie_, refuse_, use_};
	std::unique_ptr<Engine> engine_;
	Pool *pool_ = nullptr;
};

Lie on_extents(const std::vector<uint32_t> &extents, const std::function<void(sv_extent &)> &change)
{
	return [=](uint32_t op, void *payload, CommandResult &result) {
		for (uint32_t i = 0; op == SV_OP_DUMP_EXTENTS && i < result.count; i++)
			if (sv_extent &e = static_cast<sv_extent *>(payload)[i];
			    std::find(extents.begin(), extents.end(), e.extent) != extents.end())
				change(e);
	};
}

TEST_F(Check, agrees_where_all_is_the_same)
{
	EXPECT_EQ(check(nullptr), std::vector<std::string>());
}

TEST_F(Check, finds_what_differs_also_at_the_ends_of_windows)
{
	std::vector<std::string> expected;
	const std::vector<uint32_t> extents = {1, 16384, 16385, 32768, 32769, kExtents};
	for (const uint32_t e : extents) {
		const auto line = [&](int gen) {
			return "extent " + std::to_string(e) + " slot " + std::to_string(e - 1) + " member 0 gen " +
			       std::to_string(gen) + " flags " + std::to_string(e % 2 == 1 ? SV_EXTENT_PARTIAL : 0);
		};
		expected.push_back("kernel: " + line(2) + "; catalogue: " + line(1));
	}
	std::sort(expected.begin(), expected.end());
	EXPECT_EQ(check(on_extents(extents, [](sv_extent &e) { e.gen = 2; })), expected);
}

TEST_F(Check, finds_what_only_one_has)
{
	const std::vector<std::string> last = check(on_extents({kExtents}, [](sv_extent &e) { e.extent += 7; }));
	ASSERT_EQ(last.size(), 2u);
	EXPECT_TRUE(last[0].starts_with("only the catalogue has extent 40000 ")) << last[0];
	EXPECT_TRUE(last[1].starts_with("only the kernel has extent 40007 ")) << last[1];
	const std::vector<std::string> freed = check(on_extents({16384, 20000}, [](sv_extent &e) { e.flags = SV_EXTENT_FREED; }));
	ASSERT_EQ(freed.size(), 2u);
	EXPECT_TRUE(freed[0].starts_with("only the catalogue has extent 16384 ")) << freed[0];
	EXPECT_TRUE(freed[1].starts_with("only the catalogue has extent 20000 ")) << freed[1];
}

TEST_F(Check, finds_differences_of_partial_extents_and_maps)
{
	const std::vector<std::string> found = check([](uint32_t op, void *payload, CommandResult &result) {
		for (uint32_t i = 0; i < result.count; i++) {
			if (op == SV_OP_DUMP_PARTIALS && static_cast<sv_partial_bits *>(payload)[i].extent == 32769)
				static_cast<sv_partial_bits *>(payload)[i].valid[0] = 1;
			if (op == SV_OP_DUMP_MAP && static_cast<sv_map_entry *>(payload)[i].index == 16383)
				static_cast<sv_map_entry *>(payload)[i].extent = 3;
		}
	});
	ASSERT_EQ(found.size(), 2u);
	EXPECT_EQ(found[0], "kernel: partial 32769 valid 1 0 0 0; catalogue: partial 32769 valid fff 0 0 0");
	EXPECT_EQ(found[1], "kernel: volume 1 index 16383 extent 3, its own; catalogue: volume 1 index 16383 extent 16384, its own");
}

}	// namespace
}	// namespace svd

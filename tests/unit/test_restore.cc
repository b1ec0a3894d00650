// SPDX-License-Identifier: GPL-2.0
// Texts that are wrong somewhere, restored into a pool: they are refused, and it is as it was; or the kernel is loaded with
// what they say, check finds nothing, and all that is there can be deleted.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "daemon/base/memory_file.h"
#include "daemon/engine/engine.h"
#include "daemon/kernel/sim_kernel.h"

namespace svd {
namespace {

namespace fs = std::filesystem;

class Restore : public testing::Test {
protected:
	void SetUp() override
	{
		dir_ = fs::temp_directory_path() / ("svctl-restore-" + std::to_string(getpid()));
		fs::create_directories(dir_);
		std::ofstream(dir_ / "a").close();
		fs::resize_file(dir_ / "a", uint64_t{64} << 20);
		engine_ = std::make_unique<Engine>(*kernel_, EngineOptions{dir_, {}, {Uuid::random(), "here"}});
		const auto made = engine_->create_pool("tank", {{"t", {dir_ / "a"}}}, {}, false);
		ASSERT_TRUE(made.ok()) << made.error().message();
		ASSERT_TRUE(engine_->create_volume("tank", "v", 4096, false).ok());
		pool_ = engine_->find_volume("tank", "v").value().first;
		ASSERT_TRUE(engine_->delete_volume("tank", "v", false).ok());
	}
	void TearDown() override
	{
		engine_.reset();
		fs::remove_all(dir_);
	}

	Result<Json> restore(const std::string &text, bool dry_run)
	{
		UniqueFd file = create_memory_file("text").value();
		EXPECT_EQ(write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
		EXPECT_TRUE(seal_memory_file(file).ok());
		Jobs jobs;
		const auto job = jobs.start({"restore", "tank", {}, true, {}}, [&](Job &self) {
			return engine_->restore("tank", file.get(), dry_run, self); });
		while (jobs.turn())
			;
		return job.value()->result();
	}
	std::string dump()
	{
		std::ostringstream out;
		EXPECT_TRUE(pool_->catalogue().dump(out).ok());
		return out.str();
	}
	void expect_sound(const std::string &of)
	{
		const auto found = pool_->check(NoPace::instance());
		ASSERT_TRUE(found.ok()) << found.error().message() << "\n" << of;
		for (const std::string &line : found.value())
			ADD_FAILURE() << line << "\n" << of;
	}
	void delete_all(const std::string &of)
	{
		const auto volumes = pool_->catalogue().volumes().value();
		for (const VolumeRow &volume : volumes) {
			const auto snapshots = pool_->catalogue().snapshots().value();
			for (const SnapshotRow &snapshot : snapshots)
				if (snapshot.volume == volume.id && snapshot.state == SnapshotState::kDone) {
					const auto deleted = engine_->delete_snapshot("tank", {volume.name, snapshot.name}, false);
					EXPECT_TRUE(deleted.ok()) << deleted.error().message() << "\n" << of;
				}
			EXPECT_TRUE(engine_->delete_volume("tank", volume.name, false).ok()) << of;
		}
		expect_sound(of);
		EXPECT_EQ(pool_->catalogue().volumes().value().size(), 0u) << of;
		EXPECT_EQ(pool_->catalogue().snapshots().value().size(), 0u) << of;
		EXPECT_EQ(pool_->catalogue().usage().value().extents, 0u) << of;
	}

	fs::path dir_;
	std::unique_ptr<Kernel> kernel_ = make_sim_kernel();
	std::unique_ptr<Engine> engine_;
	Pool *pool_ = nullptr;
};

using Lines = std::vector<std::vector<std::string>>;

Lines good_text()
{
	static const std::string none(64, '0'), one = std::string(63, '0') + "1", fourth = std::string(51, '0') + "1" + std::string(12, '0');
	const std::string text = "pool tank x 7 42 1 60000 1000\njournal 42 9 4096 7\nnext 12 12\nmember 0 x 0 t 20 0\n"
				 "snapshot 2 1 s 8388608 done 1 1 0 0 7\nmap 2 0 4 0 0 1 1\n"
				 "snapshot 3 1 t 8388608 deleting 2 2 1 0 7\nmap 3 0 1 0 4 5 1\nhole 3 5 1\n"
				 "snapshot 5 1 half 8388608 pending 4 4 2 6 7\n"
				 "volume 1 a 16777216 active 6 6 0 0 0 over 4\nmap 1 1 2 0 5 6 1\nmap 1 9 1 0 - 8 1\n"
				 "volume 4 c 8388608 active 5 5 0 0 0 manual over 1\nmap 4 0 1 0 7 9 1\nhole 4 2 1\n"
				 "volume 7 gone 1048576 deleting 8 8 0 0 0\nmap 7 0 1 0 8 10 1\n"
				 "wanted 9 4 w 8388608 5 9 7\norphan 11 1 0 -\norphan 12 1 0 9\n"
				 "fragment 8 0 10 0\nfragment 11 3 10 1\npartial 6 " + none + " 1\npartial 7 " + none + " 12\n"
				 "partial 8 " + one + " 11\npartial 9 " + one + "\npartial 11 " + fourth + "\nfreeing 20 1\nend\n";
	Lines lines;
	std::istringstream in(text);
	for (std::string line; std::getline(in, line);) {
		std::istringstream words(line);
		lines.emplace_back(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
	}
	return lines;
}

std::string text_of(const Lines &lines)
{
	std::string text = "svctl-dump 1\n";
	for (const auto &words : lines) {
		for (const std::string &word : words)
			text += word + " ";
		text += "\n";
	}
	return text;
}

class Spoiler {
public:
	explicit Spoiler(uint64_t seed) : random_(seed) {}
	void spoil(Lines &lines)
	{
		auto &line = lines[below(lines.size())];
		auto &other = lines[below(lines.size())];
		switch (below(6)) {
		case 0:
			std::swap(line, other);
			break;
		case 1: {
			const auto copy = line;
			lines.insert(lines.begin() + static_cast<ptrdiff_t>(below(lines.size())), copy);
			break;
		}
		case 2:
			lines.erase(lines.begin() + static_cast<ptrdiff_t>(below(lines.size())));
			break;
		default:
			line[below(line.size())] = word(other);
		}
	}

private:
	size_t below(size_t n) { return random_() % n; }
	std::string word(const std::vector<std::string> &other)
	{
		static const std::vector<std::string> extremes = {
			"4294967295", "4294967294", "4294967290", "18446744073709551615", "72057594037927936", "72057594037931008",
			"16777215", "255", "300", "65535", "8388608", "4096", "deleting", "pending", "done", "active", "-"};
		const size_t kind = below(4);
		return kind == 0 ? extremes[below(extremes.size())] : kind == 1 ? other[below(other.size())] : std::to_string(below(14));
	}

	std::mt19937_64 random_;
};

TEST_F(Restore, what_it_takes_the_kernel_can_be_loaded_with)
{
	size_t taken = 0;
	for (uint64_t seed = 0; seed < 200; seed++) {
		Lines lines = good_text();
		Spoiler spoiler(seed);
		for (uint64_t i = 0; i < seed % 4; i++)
			spoiler.spoil(lines);
		const std::string text = text_of(lines), before = dump();
		const auto tried = restore(text, true);
		EXPECT_EQ(dump(), before);
		const auto done = restore(text, false);
		ASSERT_TRUE(pool_->up()) << text << (done.ok() ? done.value().dump() : done.error().message());
		ASSERT_EQ(tried.ok(), done.ok()) << text;
		if (!done.ok()) {
			ASSERT_EQ(done.error().code, Code::kUsage) << text << done.error().message();
			EXPECT_EQ(done.error().message(), tried.error().message());
			EXPECT_EQ(dump(), before);
			continue;
		}
		taken++;
		expect_sound(text);
		delete_all(text);
		ASSERT_FALSE(HasFailure());
	}
	EXPECT_GT(taken, 60u) << "of which 50 are good";
}

}	// namespace
}	// namespace svd

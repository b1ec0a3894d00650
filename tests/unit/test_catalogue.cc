// SPDX-License-Identifier: GPL-2.0
// daemon/catalogue above the region: rows, names, apply against a naive oracle, delete, check, dump and restore.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <sstream>

#include "daemon/catalogue/ancestry.h"
#include "daemon/catalogue/catalogue.h"
#include "tests/support/catalogue_bench.h"

using namespace svd;

namespace {

// What the catalogue should hold, kept in the most obvious way.
struct Oracle {
	struct Extent {
		uint32_t member, slot;
		uint16_t gen;
		std::array<uint64_t, 4> valid;
		bool operator==(const Extent &) const = default;
	};
	std::map<uint32_t, Extent> extents;
	std::map<std::pair<uint32_t, uint64_t>, uint32_t> map;  // (volume, index): extent
	bool operator==(const Oracle &) const = default;

	static bool full(const Extent &e) { return (e.valid[0] & e.valid[1] & e.valid[2] & e.valid[3]) == ~0ull; }

	void apply(const sv_rec &r)
	{
		const auto e = extents.find(r.extent);
		switch (r.type) {
		case SV_REC_MAP: {
			const uint64_t word = (r.flags & SV_MAP_PARTIAL) != 0 ? 0 : ~0ull;
			extents[r.extent] = {r.member, r.slot, r.gen, {word, word, word, word}};
			map[{r.volume, r.index}] = r.extent;
			break;
		}
		case SV_REC_VALID:
			if (e != extents.end() && e->second.gen == r.gen) {
				if ((r.flags & SV_VALID_ALL) != 0)
					e->second.valid = {~0ull, ~0ull, ~0ull, ~0ull};
				else
					e->second.valid[r.word] |= r.bits;
			}
			break;
		case SV_REC_CLEAR:
			if (e != extents.end() && e->second.gen == r.gen)
				e->second.valid[r.word] &= ~r.bits;
			break;
		case SV_REC_UNMAP:
			map.erase({r.volume, r.index});
			extents.erase(r.extent);
			break;
		case SV_REC_MOVE:
			if (e != extents.end()) {
				e->second.member = r.member;
				e->second.slot = r.slot;
				e->second.gen = r.gen;
			}
			break;
		default:
			FAIL();
		}
	}
};

Oracle read_back(Catalogue &c)
{
	Oracle o;
	std::map<uint32_t, bool> partial;
	EXPECT_TRUE(c.for_each_extent([&](std::span<const sv_extent> batch) -> Status {
		for (const sv_extent &e : batch) {
			o.extents[e.extent] = {e.member, e.slot, e.gen, {~0ull, ~0ull, ~0ull, ~0ull}};
			partial[e.extent] = (e.flags & SV_EXTENT_PARTIAL) != 0;
		}
		return {};
	}).ok());
	EXPECT_TRUE(c.for_each_partial([&](std::span<const sv_partial_bits> batch) -> Status {
		for (const sv_partial_bits &p : batch) {
			EXPECT_TRUE(partial[p.extent]) << p.extent;
			partial.erase(p.extent);
			std::copy_n(p.valid, 4, o.extents[p.extent].valid.begin());
			EXPECT_FALSE(Oracle::full(o.extents[p.extent])) << "a full extent has a partial row";
		}
		return {};
	}).ok());
	for (const auto &[extent, flag] : partial)
		EXPECT_FALSE(flag) << "extent " << extent << " is partial without bits";
	const auto volumes = c.volumes();
	for (const VolumeRow &v : *volumes)
		EXPECT_TRUE(c.for_each_map(v.id, [&](std::span<const sv_map_entry> batch) -> Status {
			for (const sv_map_entry &e : batch)
				o.map[{e.volume, e.index}] = e.extent;
			return {};
		}).ok());
	return o;
}

// Makes record streams as a kernel could: numbers and slots are used again only after trim().
class Stream {
 public:
	Stream(uint64_t seed, std::vector<VolumeRow> volumes) : random_(seed), volumes_(std::move(volumes))
	{
		for (uint32_t i = 1; i < 400; i++)
			numbers_.push_back(i * (i % 3 == 0 ? 120 : 1));  // fewer than 10 * kSlots
		for (uint32_t m = 0; m < 2; m++)
			for (uint32_t s = 0; s < 300; s++)
				slots_.push_back({m, s});
		std::shuffle(slots_.begin(), slots_.end(), random_);
		std::sort(numbers_.begin(), numbers_.end());
		numbers_.erase(std::unique(numbers_.begin(), numbers_.end()), numbers_.end());
	}

	sv_rec next()
	{
		const uint64_t what = random_() % 10;
		if (live_.empty() || (what < 3 && !numbers_.empty() && slots_.size() > 1))
			return map();
		auto it = live_.begin();
		std::advance(it, random_() % live_.size());
		if (what < 7)
			return valid(it->first, it->second.gen);
		if (what == 7)
			return bits_rec(SV_REC_CLEAR, it->first, it->second.gen, random_() % 4, random_());
		if (what == 8 && slots_.size() > 1)
			return move(it->first, it->second);
		return unmap(it);
	}

	void trim()
	{
		numbers_.insert(numbers_.end(), freed_numbers_.begin(), freed_numbers_.end());
		slots_.insert(slots_.end(), freed_slots_.begin(), freed_slots_.end());
		freed_numbers_.clear();
		freed_slots_.clear();
	}

 private:
	struct Live {
		VolumeRow volume;
		uint64_t index;
		std::pair<uint32_t, uint32_t> slot;
		uint16_t gen;
	};

	sv_rec map()
	{
		const VolumeRow &v = volumes_[random_() % volumes_.size()];
		uint64_t index = random_() % 5000;
		while (taken_.contains({v.id, index}))
			index++;
		const uint32_t n = numbers_.back();
		numbers_.pop_back();
		const auto slot = slots_.back();
		slots_.pop_back();
		const uint16_t gen = ++gens_[n];
		live_[n] = {v, index, slot, gen};
		taken_[{v.id, index}] = n;
		return map_rec(v, index, n, gen, slot.first, slot.second, random_() % 3 != 0);
	}

	sv_rec valid(uint32_t extent, uint16_t gen)
	{
		if (random_() % 8 == 0)
			gen--;  // late, of the generation before
		sv_rec r = bits_rec(SV_REC_VALID, extent, gen, random_() % 4, random_() | random_() | random_());
		if (random_() % 4 == 0) {
			r.flags = SV_VALID_ALL;
			r.word = 0;
			r.bits = ~0ull;
		}
		return r;
	}

	sv_rec move(uint32_t extent, Live &live)
	{
		freed_slots_.push_back(live.slot);
		live.slot = slots_.back();
		slots_.pop_back();
		live.gen = ++gens_[extent];
		sv_rec r = {};
		r.type = SV_REC_MOVE;
		r.extent = extent;
		r.gen = live.gen;
		r.member = live.slot.first;
		r.slot = live.slot.second;
		return r;
	}

	sv_rec unmap(std::map<uint32_t, Live>::iterator it)
	{
		const sv_rec r = unmap_rec(it->second.volume, it->second.index, it->first);
		taken_.erase({it->second.volume.id, it->second.index});
		freed_numbers_.push_back(it->first);
		freed_slots_.push_back(it->second.slot);
		live_.erase(it);
		return r;
	}

	std::mt19937_64 random_;
	std::vector<VolumeRow> volumes_;
	std::vector<uint32_t> numbers_, freed_numbers_;
	std::vector<std::pair<uint32_t, uint32_t>> slots_, freed_slots_;
	std::map<uint32_t, Live> live_;
	std::map<std::pair<uint32_t, uint64_t>, uint32_t> taken_;
	std::map<uint32_t, uint16_t> gens_;
};

}  // namespace

TEST(Names, limits_in_pairs)
{
	EXPECT_TRUE(check_pool_name(std::string(31, 'a')).ok());
	EXPECT_FALSE(check_pool_name(std::string(32, 'a')).ok());
	EXPECT_TRUE(check_volume_name(std::string(47, 'a')).ok());
	EXPECT_FALSE(check_volume_name(std::string(48, 'a')).ok());
	for (const char *good : {"a", "A.b", "x-y", "1+2", "_", "+"})
		EXPECT_TRUE(check_volume_name(good).ok()) << good;
	for (const char *bad : {"", ".", "..", "-a", ".a", "a/b", "a b", "a@b", "ä", "a\n", "a:b", "a%"}) {
		auto s = check_volume_name(bad);
		ASSERT_FALSE(s.ok()) << bad;
		EXPECT_EQ(s.error().code, Code::kUsage);
	}
	EXPECT_LT(check_volume_name(std::string(300, 'x')).error().message().size(), 300u);
}

TEST(Catalogue, keeps_pool_members_and_volumes_over_reopening)
{
	Bench b;
	const VolumeRow v = b.volume("train");
	EXPECT_EQ(v.id, 1u);
	const VolumeRow w = b.volume("weights", 4096);
	EXPECT_GT(w.layer, v.layer);
	b.reopen();
	EXPECT_EQ(*b.c->pool(), b.pool);
	EXPECT_EQ(*b.c->members(), b.members);
	EXPECT_EQ(*b.c->volumes(), (std::vector<VolumeRow>{v, w}));
	EXPECT_EQ(*b.c->volume("train"), v);
	EXPECT_EQ(b.c->volume("nothing").error().code, Code::kNotFound);
	ASSERT_TRUE(b.c->close().ok());
	b.reopen();
	EXPECT_EQ(*b.c->volume("train"), v);
}

TEST(Catalogue, refuses_bad_volumes_and_changes_nothing)
{
	Bench b;
	const VolumeRow v = b.volume("train", 8192);
	const std::string before = b.dump();
	VolumeRow w;
	w.name = "train";
	w.size = 4096;
	EXPECT_EQ(b.c->create_volume(w).error().code, Code::kBusy);
	w.name = "x";
	for (const uint64_t size : {0ull, 1ull, 4095ull, 4097ull, 1ull << 61, ~0ull}) {
		w.size = size;
		EXPECT_EQ(b.c->create_volume(w).error().code, Code::kUsage) << size;
	}
	EXPECT_EQ(b.c->resize_volume(v.id, 4096).error().code, Code::kUsage);
	EXPECT_EQ(b.c->resize_volume(77, 4096).error().code, Code::kNotFound);
	EXPECT_TRUE(b.c->take_back_growth(v.id, 8192).ok());
	EXPECT_TRUE(b.c->take_back_growth(v.id, 1 << 20).ok());
	EXPECT_EQ(b.c->rename_volume(v.id, "../x").error().code, Code::kUsage);
	EXPECT_EQ(b.c->delete_step(v.id).error().code, Code::kBusy);
	EXPECT_EQ(b.c->add_member(b.members[0]).error().code, Code::kBusy);
	EXPECT_EQ(b.dump(), before);
}

TEST(Catalogue, failed_transaction_leaves_nothing_and_a_nested_failure_only_itself)
{
	Bench b;
	b.volume("a");
	const std::string before = b.dump();
	const Status s = b.c->transaction([&]() -> Status {
		b.volume("b");
		return Error(Code::kFailure, "stop");
	});
	EXPECT_EQ(s.error().message(), "stop");
	EXPECT_EQ(b.dump(), before);
	ASSERT_TRUE(b.c->transaction([&]() -> Status {
		b.volume("c");
		VolumeRow again;
		again.name = "c";
		again.size = 4096;
		EXPECT_FALSE(b.c->create_volume(again).ok());
		b.volume("d");
		return {};
	}).ok());
	EXPECT_EQ(b.c->volumes()->size(), 3u);
}

TEST(Catalogue, numbers_are_never_used_again)
{
	Bench b;
	const VolumeRow v = b.volume("a");
	ASSERT_TRUE(b.c->begin_delete_volume(v.id).ok());
	EXPECT_EQ(b.c->volume("a").error().code, Code::kNotFound);
	const VolumeRow w = b.volume("a");  // its name is free at once
	EXPECT_TRUE(b.c->delete_step(v.id)->done);
	const VolumeRow x = b.volume("b");
	EXPECT_LT(v.id, w.id);
	EXPECT_LT(w.id, x.id);
	EXPECT_LT(w.layer, x.layer);
}

TEST(Apply, agrees_with_oracle_and_replays_to_the_same)
{
	for (uint64_t seed = 1; seed <= 12; seed++) {
		Bench b;
		const std::vector<VolumeRow> volumes = {b.volume("a"), b.volume("b"), b.volume("c")};
		Stream stream(seed, volumes);
		std::mt19937_64 random(seed);
		Oracle oracle;
		sv_ring_cursor at = {};
		for (int batch = 0; batch < 30; batch++) {
			std::vector<sv_rec> records;
			for (uint64_t n = random() % 300; n > 0; n--)
				records.push_back(stream.next());
			for (const sv_rec &r : records)
				oracle.apply(r);
			at.seq++;
			at.off += 4096;
			at.prev_crc = static_cast<uint32_t>(random());
			// Any prefix first, then all of it: as after a crash between two readings of the ring. [I31]
			if (random() % 2 == 0 && !records.empty()) {
				ASSERT_TRUE(b.c->apply_batch(std::span(records).first(random() % records.size()), at).ok());
			}
			auto stats = b.c->apply_batch(records, at);
			ASSERT_TRUE(stats.ok()) << stats.error().message();
			EXPECT_EQ(stats->records, records.size());
			ASSERT_TRUE(b.c->apply_batch(records, at).ok());
			ASSERT_EQ(read_back(*b.c), oracle) << "seed " << seed << " batch " << batch;
			if (random() % 4 == 0)
				b.reopen();
			if (random() % 3 == 0)
				stream.trim();
		}
		EXPECT_EQ(b.c->applied()->seq, at.seq);
		EXPECT_EQ(b.c->applied()->prev_crc, at.prev_crc);
		expect_sound(*b.c);
		// Free ranges are exactly the slots of no extent.
		uint64_t free = 0;
		const auto ranges = b.c->free_ranges();
		for (const FreeRange &r : *ranges) {
			free += r.count;
			for (const auto &[n, e] : oracle.extents)
				EXPECT_FALSE(e.member == r.member && e.slot >= r.first && e.slot - r.first < r.count);
		}
		EXPECT_EQ(free, 2 * kSlots - oracle.extents.size());
		EXPECT_EQ(b.c->usage()->extents, oracle.extents.size());
	}
}

TEST(Apply, refuses_records_that_the_pool_cannot_have_written)
{
	Bench b;
	const VolumeRow v = b.volume("a", 10 * kMiB);
	const std::string before = b.dump();
	std::vector<sv_rec> bad(9, map_rec(v, 3, 7, 1, 0, 5, false));
	bad[0].slot = kSlots;
	bad[1].member = 2;
	bad[2].index = 10;
	bad[3].volume = v.id + 1;
	bad[4].layer = v.layer + 1;
	bad[5].extent = 0;
	bad[6].extent = 0xffffffff;
	bad[7].type = SV_REC_FRAG;
	bad[8].flags = SV_MAP_PARENT;
	for (const sv_rec &r : bad) {
		const std::vector<sv_rec> batch = {map_rec(v, 1, 1, 1, 0, 1, false), r};
		EXPECT_FALSE(b.c->apply_batch(batch, {1, 4096, 9, 0}).ok());
		EXPECT_EQ(b.dump(), before);
	}
	const std::vector<sv_rec> good = {map_rec(v, 9, 7, 1, 1, kSlots - 1, false)};
	EXPECT_TRUE(b.c->apply_batch(good, {5, 4096, 9, 0}).ok());
	EXPECT_EQ(b.c->apply_batch(good, {4, 4096, 9, 0}).error().code, Code::kNeedsCheck);
}

TEST(Apply, ignores_records_of_volumes_deleted_since)
{
	Bench b;
	const VolumeRow v = b.volume("a");
	ASSERT_TRUE(b.c->begin_delete_volume(v.id).ok());
	ASSERT_TRUE(b.c->delete_step(v.id)->done);
	const std::vector<sv_rec> late = {map_rec(v, 3, 7, 1, 0, 5, true), bits_rec(SV_REC_VALID, 7, 1, 0, 1),
					  unmap_rec(v, 3, 7)};
	auto stats = b.c->apply_batch(late, {1, 0, 0, 0});
	ASSERT_TRUE(stats.ok());
	EXPECT_EQ(stats->ignored, 3u);
	EXPECT_EQ(b.c->usage()->extents, 0u);
}

TEST(Apply, reports_what_unmap_freed)
{
	Bench b;
	const VolumeRow v = b.volume("a");
	const std::vector<sv_rec> records = {map_rec(v, 3, 7, 2, 0, 5, true), unmap_rec(v, 3, 7)};
	auto stats = b.c->apply_batch(records, {1, 0, 0, 0});
	ASSERT_EQ(stats->freed.size(), 1u);
	EXPECT_EQ(stats->freed[0].extent, 7u);
	EXPECT_EQ(stats->freed[0].gen, 2);
}

TEST(Apply, a_tombstone_is_kept_and_maps_nothing)
{
	Bench b;
	const VolumeRow v = b.volume("a");
	sv_rec r = unmap_rec(v, 3, 0);
	r.flags = SV_UNMAP_TOMBSTONE;
	ASSERT_TRUE(b.c->apply_batch(std::span(&r, 1), {1, 0, 0, 0}).ok());
	EXPECT_TRUE(read_back(*b.c).map.empty());
	EXPECT_NE(b.dump().find(fmt::format("\nhole {} 3 1\n", v.id)), std::string::npos);
	EXPECT_EQ(*b.c->mapped(v.id), 0u);
	expect_sound(*b.c);
}

TEST(Apply, manages_200000_records_a_second)
{
	Bench b(512 * kMiB, 1 << 20);
	const VolumeRow v = b.volume("a", 100 * kTiB);
	std::vector<sv_rec> records;
	std::mt19937_64 random(1);
	for (uint32_t i = 1; i <= 50000; i++) {
		records.push_back(map_rec(v, random() % (1 << 21) * 16 + i % 16, i, 1, 0, i, true));
		records.push_back(bits_rec(SV_REC_VALID, i, 1, 0, 1));
	}
	const auto begin = std::chrono::steady_clock::now();
	for (size_t done = 0; done < records.size(); done += 50000)
		ASSERT_TRUE(b.c->apply_batch(std::span(records).subspan(done, 50000), {1 + done, 0, 0, 0}).ok());
	const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
	std::printf("random first writes over 32 TiB: %.0f records/s\n", static_cast<double>(records.size()) / seconds);

	const VolumeRow w = b.volume("b", 100 * kTiB);
	records.clear();
	for (uint32_t i = 1; i <= 500000; i++)
		records.push_back(map_rec(w, i, 300000 + i, 1, 1, i, false));
	const auto begin2 = std::chrono::steady_clock::now();
	ASSERT_TRUE(b.c->apply_batch(records, {1 << 30, 0, 0, 0}).ok());
	const double seconds2 = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin2).count();
	const double rate = static_cast<double>(records.size()) / seconds2;
	std::printf("sequential first writes: %.0f records/s\n", rate);
	EXPECT_GT(rate, 200000.0 / kSlowdown);
}

TEST(Delete, goes_in_bounded_steps_and_frees_everything)
{
	Bench b;
	const VolumeRow v = b.volume("a"), w = b.volume("b");
	std::vector<sv_rec> records;
	for (uint32_t i = 0; i < 4000; i++)
		records.push_back(map_rec(i % 4 == 0 ? w : v, i, i + 1, 3, i % 2, i, i % 5 == 0));
	ASSERT_TRUE(b.c->apply_batch(records, {1, 0, 0, 0}).ok());
	ASSERT_TRUE(b.c->begin_delete_volume(v.id).ok());
	size_t freed = 0, steps = 0;
	for (bool done = false; !done; steps++) {
		auto p = b.c->delete_step(v.id, 500);
		ASSERT_TRUE(p.ok());
		EXPECT_LE(p->freed.size(), 500u + 1008);
		freed += p->freed.size();
		done = p->done;
		expect_sound(*b.c);
		b.reopen();
	}
	EXPECT_EQ(freed, 3000u);
	EXPECT_GT(steps, 3u);
	EXPECT_EQ(b.c->volumes()->size(), 1u);
	EXPECT_EQ(*b.c->mapped(w.id), 1000u);
	EXPECT_EQ(b.c->usage()->extents, 1000u);
	EXPECT_EQ(b.c->usage()->partials, 200u);
}

TEST(Check, finds_every_inconsistency_of_space)
{
	auto findings = [](const std::vector<sv_rec> &records) {
		Bench b;
		b.volume("a", 10 * kMiB);
		EXPECT_TRUE(b.c->apply_batch(records, {1, 0, 0, 0}).ok());
		auto lines = b.c->check();
		std::string all;
		for (const std::string &line : *lines)
			all += line + "\n";
		return all;
	};
	VolumeRow v;
	v.id = v.layer = 1;
	const sv_rec base = map_rec(v, 0, 1, 1, 0, 0, false);
	EXPECT_EQ(findings({base}), "");
	EXPECT_EQ(findings({base, map_rec(v, 1, 2, 1, 0, 0, false)}),
		  "extent 2: slot 0 of member 0 belongs to another extent too\n");
	EXPECT_EQ(findings({base, map_rec(v, 0, 2, 1, 0, 1, false)}), "extent 1: no volume maps it\n");
	EXPECT_EQ(findings({base, unmap_rec(v, 5, 1)}), "layer 1 index 0: maps to extent 1, which is not there\n");
	EXPECT_EQ(findings({base, map_rec(v, 1, 1, 1, 0, 0, false)}),
		  "layer 1 index 1: extent 1 is mapped elsewhere too\n");
}

TEST(Dump, restore_and_dump_are_an_identity)
{
	for (uint64_t seed = 1; seed <= 5; seed++) {
		Bench b;
		const std::vector<VolumeRow> volumes = {b.volume("a"), b.volume("b-2", 8192 * kMiB), b.volume("c")};
		Stream stream(seed, volumes);
		std::vector<sv_rec> records;
		for (int i = 0; i < 3000; i++) {
			records.push_back(stream.next());
			if (i % 50 == 0)
				stream.trim();
		}
		for (uint32_t i = 0; i < 3; i++) {
			records.push_back(unmap_rec(volumes[1], 7000 + i, 0));
			records.back().flags = SV_UNMAP_TOMBSTONE;
		}
		ASSERT_TRUE(b.c->apply_batch(records, {9, 8192, 77, 0}).ok());
		ASSERT_TRUE(b.c->begin_delete_volume(volumes[2].id).ok());
		const Oracle content = read_back(*b.c);
		const std::string text = b.dump();
		b.create_anew();
		const Status s = b.restore(text);
		ASSERT_TRUE(s.ok()) << s.error().message();
		EXPECT_EQ(b.dump(), text);
		EXPECT_EQ(read_back(*b.c), content);
		expect_sound(*b.c);
	}
}

TEST(Dump, bad_text_is_refused_and_changes_nothing)
{
	Bench b;
	const std::string before = b.dump();
	const std::string head = "svctl-dump 1\nvolume 1 a 104857600 active 1 1 0 0 0\n";
	for (const std::string &text :
	     {std::string(), std::string("rubbish\n"), std::string("svctl-dump 2\n"), head + "map 1 0 200 0 0\n",
	      head + "map 2 0 1 0 0\n", head + "map 1 0 1 7 0\n", head + "map 1 0 1 0 5000\n", head + "map 1 0 1 0\n",
	      head + "map 1 0 1 0 0 1 1 1\n", head + "map 1 0 1 0 0\nmap 1 1 1 0 0\n",
	      head + "map 1 0 1 0 0\nmap 1 0 1 0 1\n", head + "map 1 0 -1 0 0\n", head + "map 1 0 18446744073709551616 0 0\n",
	      head + "partial 1 00\n", head + "map 1 0 1 0 0\npartial 1 " + std::string(64, 'f') + "\n",
	      head + "map 1 0 1 0 0\npartial 1 " + std::string(64, 'g') + "\n", head + "volume 2 a 4096 active 2 2 0 0 0\n",
	      head + "volume 1 b 4096 active 2 2 0 0 0\n", head + "volume 2 ../x 4096 active 2 2 0 0 0\n",
	      head + "what 1\n", std::string("svctl-dump 1\nmember 0 x 0 fast 5001 0\n"),
	      std::string("svctl-dump 1\nmember 9 x 0 fast 1 0\n")}) {
		const Status s = b.restore(text);
		ASSERT_FALSE(s.ok()) << text;
		EXPECT_EQ(s.error().code, Code::kUsage) << text << s.error().message();
		EXPECT_EQ(b.dump(), before);
	}
	b.volume("x");
	std::istringstream in(head);
	EXPECT_EQ(b.c->restore(in).error().code, Code::kBusy);
}

// What the kernel would refuse when it is loaded: kmod/core/cmd.c.
TEST(Dump, text_with_more_volumes_than_the_kernel_tells_of_is_refused)
{
	Bench b;
	std::string text = "svctl-dump 1\n";
	for (size_t n = 1; n <= kMostVolumes + 1; n++)
		text += fmt::format("volume {0} v{0} 4096 active {0} {0} 0 0 0\n", n);
	const Status s = b.restore(text + "end\n");
	ASSERT_FALSE(s.ok());
	EXPECT_NE(s.error().message().find("line 16002: a pool has 16000 volumes"), std::string::npos) << s.error().message();
}

TEST(Dump, text_that_no_kernel_can_be_loaded_with_is_refused_with_its_line)
{
	Bench b;
	const std::string bits(64, '0');
	const std::string head = "svctl-dump 1\nvolume 1 a 104857600 active 1 1 0 0 0\nmap 1 0 1 0 0 2 1\nmap 1 1 1 0 1 3 1\n"
				 "orphan 4 1 0 2\norphan 5 1 0 3\npartial 2 " + bits + " 4\n";	// 7 lines
	for (const auto &[line, says] : std::vector<std::pair<std::string, std::string>>{
		     {fmt::format("volume 2 b {} active 2 2 0 0 0", SV_VOLUME_SIZE_MAX + SV_BLOCK_SIZE), "out of range"},
		     {"volume 2 b 144115188075855872 active 2 2 0 0 0", "out of range"},
		     {"volume 2 b 4096 active 2 2 0 2 0", "no flags"},
		     {"volume 2 b 4096 active 2 2 0 255 0", "no flags"},
		     {"map 1 5 1 0 9 0 1", "from 1 to 50000"},
		     {"map 1 5 1 0 9 50001 1", "from 1 to 50000"},
		     {"map 1 5 2 0 9 50000 1", "from 1 to 50000"},
		     {"map 1 5 1 0 9 4294967290 1", "from 1 to 50000"},
		     {"map 1 5 1 0 - 4294967290 1", "from 1 to 50000"},
		     {"orphan 50001 1 0 9", "from 1 to 50000"},
		     {"freeing 50001 1", "cannot be"},
		     {"partial 3 " + bits + " 2", "which a volume writes"},
		     {"partial 4 " + bits + " 4", "own parents"},
		     {"partial 4 " + bits + " 5\npartial 5 " + bits + " 4", "own parents"},
		     {"pool tank x 7 42 1 60000 99", "commits"},
		     {"pool tank x 7 42 1 60000 60001", "from 0 to 60000"},
		     {"pool tank x 7 42 1 86400001 1000", "from 0 to 86400000"},
		     {"journal 42 1 0 0", "no such batch 1"},
		     {"journal 42 0 4096 0", "no such batch 0"},
		     {"journal 42 0 0 1", "no such batch 0"},
		     {"snapshot 2 1 s 209715200 done 7 7 0 0 7\nvolume 3 b 104857600 active 8 8 0 0 0 over 7", "smaller than layer 7"}}) {
		const Status s = b.restore(head + line + "\nend\n");
		ASSERT_FALSE(s.ok()) << line;
		EXPECT_EQ(s.error().code, Code::kUsage) << line;
		const auto number = 8 + std::ranges::count(line, '\n');
		EXPECT_NE(s.error().message().find(fmt::format("line {}:", number)), std::string::npos) << line << ": " << s.error().message();
		EXPECT_NE(s.error().message().find(says), std::string::npos) << line << ": " << s.error().message();
	}
	const Status s = b.restore(head + fmt::format("volume 2 b {} active 2 2 0 1 0\n", SV_VOLUME_SIZE_MAX) + "map 2 68719476735 1 0 9 50000 1\n"
				   "partial 4 " + bits + " 5\npool tank x 7 43 1 86400000 100\njournal 42 0 0 0\njournal 41 9 9 9\nend\n");
	ASSERT_TRUE(s.ok()) << s.error().message();
	expect_sound(*b.c);
}

// As long as the kernel follows them, and against one that counts.
TEST(Ancestry, finds_circles_and_chains_that_are_too_long)
{
	for (const bool upward : {false, true}) {
		Ancestry chain;
		for (uint32_t i = 1; i <= SV_MAX_CHAIN; i++) {
			const uint32_t n = upward ? i : SV_MAX_CHAIN + 1 - i;
			ASSERT_EQ(chain.add(n, n + 1), Ancestry::Answer::kFine) << n;
		}
		EXPECT_EQ(upward ? chain.add(SV_MAX_CHAIN + 1, SV_MAX_CHAIN + 2) : chain.add(SV_MAX_CHAIN + 2, 1),
			  Ancestry::Answer::kTooLong);
	}
	std::mt19937 random(1);
	uint32_t circles = 0;
	for (int round = 0; round < 300; round++) {
		Ancestry ancestry;
		std::map<uint32_t, uint32_t> parents;
		for (Ancestry::Answer answer = Ancestry::Answer::kFine; answer == Ancestry::Answer::kFine && parents.size() < 40;) {
			const uint32_t extent = 1 + random() % 1000, parent = 1 + random() % 60;
			if (!parents.emplace(extent, parent).second)
				continue;
			uint32_t at = parent;
			for (auto up = parents.find(at); at != extent && up != parents.end(); up = parents.find(at))
				at = up->second;
			answer = ancestry.add(extent, parent);
			ASSERT_EQ(answer == Ancestry::Answer::kCircle, at == extent);
			circles += at == extent;
		}
	}
	EXPECT_GT(circles, 10u);
}

// A dump that was cut off, at a line or within one, restored as a pool without what was behind the cut.
TEST(Dump, text_cut_anywhere_is_refused_and_changes_nothing)
{
	Bench b;
	const VolumeRow v = b.volume("a");
	const std::vector<sv_rec> records = {map_rec(v, 0, 1, 1, 0, 0, false), map_rec(v, 7, 2, 1, 0, 123, true)};
	ASSERT_TRUE(b.c->apply_batch(records, {2, 4096, 1, 0}).ok());
	const std::string text = b.dump();
	ASSERT_TRUE(text.ends_with("\nend\n")) << text;
	b.create_anew();
	const std::string before = b.dump();
	for (size_t n = 0; n < text.size(); n++) {
		std::istringstream in(text.substr(0, n));
		const Status s = b.c->restore(in);
		ASSERT_FALSE(s.ok()) << text.substr(0, n);
		EXPECT_EQ(s.error().code, Code::kUsage) << s.error().message();
		ASSERT_EQ(b.dump(), before);
	}
	for (const char *more : {"end\n", "map 1 1 1 0 1\n", "x"}) {
		std::istringstream in(text + more);
		EXPECT_FALSE(b.c->restore(in).ok()) << more;
		ASSERT_EQ(b.dump(), before);
	}
	std::istringstream in(text);
	EXPECT_TRUE(b.c->restore(in).ok());
}

TEST(Dump, ten_million_extents_restore_from_run_lines)
{
	constexpr uint32_t kCount = 10000000;
	Bench b(768 * kMiB, kCount);
	std::ostringstream text;
	text << "svctl-dump 1\nvolume 1 big " << 100 * kTiB << " active 1 1 0 0 0\n";
	for (uint32_t i = 0; i < kCount; i += 10000)
		text << "map 1 " << uint64_t{i} * 2 << " 10000 0 " << i << "\n";
	text << "end\n";
	std::istringstream in(text.str());
	const auto begin = std::chrono::steady_clock::now();
	const Status s = b.c->restore(in);
	ASSERT_TRUE(s.ok()) << s.error().message();
	const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
	std::printf("restored in %.1f s\n", seconds);
	EXPECT_LT(seconds, 60.0 * kSlowdown);
	EXPECT_EQ(b.c->usage()->extents, kCount);
	EXPECT_EQ(b.c->free_ranges()->size(), 1u);
	expect_sound(*b.c);
}

TEST(Full, region_full_is_no_space_and_deleting_makes_room)
{
	Bench b(kMiB, 1 << 20);
	const VolumeRow v = b.volume("a", 100 * kTiB);
	uint32_t n = 0;
	Status s;
	std::string before;
	while (s.ok() && n < 1 << 20) {
		std::vector<sv_rec> records;
		for (int i = 0; i < 20; i++, n++)
			records.push_back(map_rec(v, uint64_t{n} * 1008, n + 1, 1, 0, n, true));
		before = b.dump();
		if (auto r = b.c->apply_batch(records, {n, 0, 0, 0}); !r)
			s = std::move(r).error();
	}
	ASSERT_FALSE(s.ok());
	EXPECT_EQ(s.error().code, Code::kNoSpace) << s.error().message();
	EXPECT_GT(n, 50u);
	EXPECT_EQ(b.dump(), before);
	b.reopen();
	EXPECT_EQ(b.dump(), before);
	ASSERT_TRUE(b.c->begin_delete_volume(v.id).ok());
	while (!b.c->delete_step(v.id, 50)->done)
		;
	const VolumeRow w = b.volume("b", 100 * kTiB);
	std::vector<sv_rec> records = {map_rec(w, 1, 1, 2, 0, 0, false)};
	EXPECT_TRUE(b.c->apply_batch(records, {n + 100, 0, 0, 0}).ok());
	expect_sound(*b.c);
}

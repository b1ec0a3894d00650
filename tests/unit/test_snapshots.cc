// SPDX-License-Identifier: GPL-2.0
// Snapshots in the catalogue, rule by rule: how they come to be, what they show, and what is left when they go. At random:
// test_snapshots_model.cc; check(), dump and restore: test_snapshots_text.cc.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>

#include "daemon/catalogue/catalogue.h"
#include "tests/support/snapshot_bench.h"

namespace svd {

// ---- coming to be ----

TEST(Snapshots, several_are_asked_for_at_once_or_none)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a", kGiB), w = b.volume("b");
	const std::vector<SnapshotWanted> wanted = {{v.id, "s"}, {w.id, std::string(31, 's')}};
	const auto rows = b.c->begin_snapshots(wanted, 7);
	ASSERT_TRUE(rows.ok());
	EXPECT_EQ(rows->at(0), (SnapshotRow{3, v.id, "s", kGiB, SnapshotState::kPending, v.layer, 3, 7, false, false}));
	EXPECT_EQ(rows->at(1).id, 4u);
	EXPECT_EQ(rows->at(1).next_layer, 4u);
	EXPECT_EQ(*b.c->snapshots(), *rows);
	EXPECT_EQ(b.c->snapshot(v.id, "s").error().code, Code::kNotFound);  // not yet
	ASSERT_TRUE(b.c->resolve_pending().ok());
	EXPECT_TRUE(b.c->snapshots()->empty());

	const SnapshotRow s = b.snapshot(v, "s");
	ASSERT_TRUE(b.c->begin_delete_volume(w.id).ok());
	const std::string before = b.dump();
	const auto refused = [&](std::vector<SnapshotWanted> some) {
		some.insert(some.begin(), {v.id, "first"});
		const auto r = b.c->begin_snapshots(some, 7);
		EXPECT_EQ(b.dump(), before);
		return r.ok() ? Code::kOk : r.error().code;
	};
	EXPECT_EQ(refused({{v.id, "other"}}), Code::kBusy);  // of the same volume
	EXPECT_EQ(refused({{w.id, "s"}}), Code::kNotFound);  // being deleted
	EXPECT_EQ(refused({{s.id, "s"}}), Code::kNotFound);
	EXPECT_EQ(b.c->begin_snapshots(std::vector<SnapshotWanted>{{v.id, "s"}}, 7).error().code, Code::kBusy);
	for (const std::string &name : {std::string(), std::string(32, 's'), std::string("a@b"), std::string("-")})
		EXPECT_EQ(b.c->begin_snapshots(std::vector<SnapshotWanted>{{v.id, name}}, 7).error().code, Code::kUsage);
	EXPECT_EQ(b.dump(), before);
}

TEST(Snapshots, the_journal_and_svd_say_the_same_in_either_order)
{
	const auto after = [](int order) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		const SnapshotRow s = b.begin(v, "s");
		const sv_rec before = b.map(v, 0, 1);
		sv_rec late = before;  // by who had begun before LAYER
		late.index = 7;
		late.extent = late.slot = 2;
		sv_rec behind = b.map(v, 0, 3, true);
		behind.layer = s.next_layer;
		const std::vector<sv_rec> records = {before, layer_rec(s), behind, late, snapdone_rec(s)};
		if (order == 0) {
			EXPECT_TRUE(b.c->finish_snapshots(std::span(&s.id, 1)).ok());
			EXPECT_EQ(b.now(v).layer, s.next_layer);
			EXPECT_EQ(b.c->snapshot(v.id, "s")->next_layer, s.next_layer);
		}
		if (order == 1)
			b.must({before, layer_rec(s)});
		b.seq = 0;
		b.must(records);
		if (order == 2) {
			EXPECT_TRUE(b.c->finish_snapshots(std::span(&s.id, 1)).ok());
		}
		EXPECT_EQ(b.c->snapshot(v.id, "s")->next_layer, 0u);
		EXPECT_EQ(b.now(v).owned_since, s.next_layer);
		EXPECT_EQ(b.now(v).parent_layer, s.layer);
		EXPECT_EQ(b.shown(v.id), "0:3/2 7:2/1");
		EXPECT_EQ(b.shown(s.id), "0:1/1 7:2/1");
		expect_sound(*b.c);
		const std::string text = b.dump();
		return text.substr(text.find("next"));
	};
	const auto tail = [&](int order) {
		const std::string text = after(order);
		return text.substr(text.find("snapshot"));
	};
	const std::string first = tail(0);
	EXPECT_EQ(tail(1), first);
	EXPECT_EQ(tail(2), first);
}

TEST(Snapshots, one_that_was_only_begun_is_merged_back)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1)});
	const SnapshotRow s = b.begin(v, "s");
	b.must({layer_rec(s)});
	b.must({b.over(v, 0, 2, 1), b.map(v, 5, 3)});
	ASSERT_TRUE(b.c->resolve_pending().ok());
	EXPECT_EQ(b.c->snapshots()->at(0).state, SnapshotState::kDeleting);
	EXPECT_EQ(b.merge_all(), (std::vector<Owned>{{v.id, s.next_layer, s.layer}}));
	EXPECT_TRUE(b.c->snapshots()->empty());
	EXPECT_EQ(b.shown(v.id), "0:2/2 5:3/2");
	EXPECT_TRUE(b.has("orphan 1 1 0 1\n"));
	EXPECT_EQ(b.c->usage()->extents, 3u);
}

TEST(Snapshots, are_renamed_held_shown_and_deleted)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a"), w = b.volume("b");
	const SnapshotRow s = b.snapshot(v, "s"), t = b.snapshot(v, "t");
	b.snapshot(w, "s");  // of another volume
	EXPECT_EQ(b.c->rename_snapshot(s.id, "t").error().code, Code::kBusy);
	EXPECT_EQ(b.c->rename_snapshot(s.id, ".t").error().code, Code::kUsage);
	ASSERT_TRUE(b.c->rename_snapshot(s.id, "u").ok());
	ASSERT_TRUE(b.c->set_held(s.id, true).ok());
	ASSERT_TRUE(b.c->set_snapshot_active(s.id, true).ok());
	b.reopen();
	EXPECT_TRUE(b.c->snapshot(v.id, "u")->held && b.c->snapshot(v.id, "u")->active);
	EXPECT_FALSE(b.c->snapshot(t.id)->held || b.c->snapshot(t.id)->active);
	ASSERT_TRUE(b.c->begin_session().ok());
	EXPECT_TRUE(b.c->snapshot(s.id)->held && !b.c->snapshot(s.id)->active);
	ASSERT_TRUE(b.c->begin_delete_snapshot(s.id).ok());
	EXPECT_EQ(b.c->snapshot(v.id, "u").error().code, Code::kNotFound);
	EXPECT_EQ(b.c->snapshot(s.id)->state, SnapshotState::kDeleting);
	for (const Status &r : {b.c->begin_delete_snapshot(s.id), b.c->set_held(s.id, false), b.c->rename_snapshot(s.id, "x"),
				b.c->set_snapshot_active(s.id, true)})
		EXPECT_EQ(r.error().code, Code::kNotFound);
	b.snapshot(v, "u");  // its name is free again
	expect_sound(*b.c);
}

TEST(Snapshots, records_that_no_kernel_wrote_are_damage)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a"), w = b.volume("b");
	b.must({b.map(v, 0, 1)});
	const SnapshotRow done = b.snapshot(v, "done"), s = b.begin(v, "s");
	b.must({b.over(v, 0, 2, 1)});
	const std::string before = b.dump();
	std::vector<sv_rec> bad(6, layer_rec(s));
	bad[0].arg = s.id + 1;
	bad[1].arg |= 1ull << 32;
	bad[2].parent = done.layer;
	bad[3].volume = w.id;
	bad[4].layer = s.next_layer + 1;
	bad[5].layer = w.layer;
	bad.push_back(snapdone_rec(s));  // before LAYER
	bad.push_back(small_rec(SV_REC_SNAPDONE, v.id, w.layer));
	bad.push_back(small_rec(SV_REC_SNAPDONE, w.id, done.layer));
	bad.push_back(small_rec(SV_REC_OWN, v.id, w.layer));
	bad.push_back(small_rec(SV_REC_OWN, v.id, 99));
	bad.push_back(bits_rec(SV_REC_CLEAR, 2, 2, 0, 1));  // it has a parent [I5]
	bad.push_back(b.over(v, 1, 3, 3));
	bad.push_back(b.over(v, 1, 3, 0));
	bad.push_back(b.over(v, 1, 3, 1));
	bad.back().flags = SV_MAP_PARENT;
	for (const sv_rec &r : bad) {
		EXPECT_EQ(b.apply({b.map(w, 0, 4), r}).error().code, Code::kNeedsCheck) << static_cast<int>(r.type);
		EXPECT_EQ(b.dump(), before);
	}
	b.must({layer_rec(s), snapdone_rec(s), small_rec(SV_REC_OWN, v.id, s.next_layer)});
	sv_rec again = layer_rec(done);
	again.layer = 3;
	b.must({again, snapdone_rec(done)});
}

// ---- what they show ----

TEST(Snapshots, show_the_newest_entry_of_their_chain)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2), b.map(v, 5000, 3)});
	const SnapshotRow s = b.snapshot(v, "s");
	b.must({b.over(v, 0, 4, 1), b.hole(v, 1), b.map(v, 1008, 5)});
	const SnapshotRow t = b.snapshot(v, "t");
	b.must({b.map(v, 1, 6)});
	EXPECT_EQ(b.shown(s.id), "0:1/1 1:2/1 5000:3/1");
	EXPECT_EQ(b.shown(t.id), "0:4/2 1008:5/2 5000:3/1");
	EXPECT_EQ(b.shown(v.id), "0:4/2 1:6/3 1008:5/2 5000:3/1");
	EXPECT_EQ(*b.c->mapped(v.id), 4u);
	const VolumeRow clone = b.clone("c", s);
	EXPECT_EQ(b.c->volume("c")->parent_layer, s.layer);
	b.must({b.hole(clone, 0), b.over(clone, 1, 7, 2)});
	EXPECT_EQ(b.shown(clone.id), fmt::format("1:7/{} 5000:3/1", clone.layer));
	EXPECT_EQ(b.shown(v.id), "0:4/2 1:6/3 1008:5/2 5000:3/1");
	std::map<uint32_t, uint32_t> parents;
	ASSERT_TRUE(b.c->for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
		for (const sv_partial_bits &p : some)
			parents[p.extent] = p.parent;
		return {};
	}).ok());
	EXPECT_EQ(parents, (std::map<uint32_t, uint32_t>{{4, 1}, {7, 2}}));
	expect_sound(*b.c);
}

TEST(Snapshots, a_clone_is_of_a_snapshot_that_is_done_and_not_smaller)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a", 8 * kMiB);
	const SnapshotRow s = b.snapshot(v, "s"), deleting = b.snapshot(v, "d"), pending = b.begin(v, "p");
	ASSERT_TRUE(b.c->begin_delete_snapshot(deleting.id).ok());
	VolumeRow wanted;
	wanted.name = "c";
	wanted.size = 8 * kMiB;
	for (const uint32_t layer : {deleting.layer, pending.layer, pending.next_layer, 99u}) {
		wanted.parent_layer = layer;
		EXPECT_EQ(b.c->create_volume(wanted).error().code, Code::kNotFound) << layer;
	}
	wanted.parent_layer = s.layer;
	wanted.size = 8 * kMiB - 4096;
	EXPECT_EQ(b.c->create_volume(wanted).error().code, Code::kUsage);
	wanted.size = 8 * kMiB;
	EXPECT_TRUE(b.c->create_volume(wanted).ok());
}

TEST(Snapshots, a_chain_of_1000_layers_is_read_side_by_side)
{
	constexpr uint32_t kLayers = 1000, kEach = 1000;
	SnapshotBench b(256 * kMiB, 1 << 20);
	std::string text = "svctl-dump 1\n";
	for (uint32_t n = 1; n <= kLayers; n++) {
		text += fmt::format("snapshot {} 5000 s{} {} done {} {} {} 0 0\n", n, n, kTiB, n, n, n - 1);
		text += fmt::format("map {} {} {} 0 {}\n", n, uint64_t{n} * (kEach / 2), kEach, (n - 1) * kEach);
	}
	text += fmt::format("volume 5000 v {} active {} {} 0 0 0 over {}\nend\n", kTiB, kLayers + 1, kLayers + 1, kLayers);
	std::istringstream in(text);
	const Status s = b.c->restore(in);
	ASSERT_TRUE(s.ok()) << s.error().message();
	const auto begin = std::chrono::steady_clock::now();
	uint64_t index = kEach / 2, count = 0;
	ASSERT_TRUE(b.c->for_each_map(5000, [&](std::span<const sv_map_entry> some) -> Status {
		for (const sv_map_entry &e : some) {
			EXPECT_EQ(e.index, index);
			EXPECT_EQ(e.layer, std::min<uint64_t>(e.index / (kEach / 2), kLayers));
			index++;
			count++;
		}
		return {};
	}).ok());
	EXPECT_EQ(count, uint64_t{kLayers + 1} * (kEach / 2));
	const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
	std::printf("%u entries of %u layers in %.2f s\n", kLayers * kEach, kLayers, seconds);
	EXPECT_LT(seconds, 2.0 * kSlowdown);
}

// ---- going ----

TEST(Merge, each_entry_moves_up_or_goes)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	for (uint32_t i = 0; i < 8; i++)
		b.must({b.map(v, i, 1 + i)});
	const SnapshotRow below = b.snapshot(v, "below");
	b.must({b.over(v, 0, 11, 1), b.over(v, 1, 12, 2), b.over(v, 2, 13, 3), b.over(v, 3, 14, 4), b.hole(v, 4), b.hole(v, 5),
		b.hole(v, 9), b.map(v, 8, 15)});
	const SnapshotRow y = b.snapshot(v, "y");
	// Of 0: nothing; 1: a partial one over it; 2: one that became whole; 3: a hole; 4: nothing; 5: another; 8: nothing
	b.must({b.over(v, 1, 22, 12), b.over(v, 2, 23, 13), b.whole(23), b.hole(v, 3), b.map(v, 5, 25)});
	const std::string before = b.shown(v.id), others = b.shown(below.id);
	EXPECT_EQ(before, "0:11/2 1:22/3 2:23/3 5:25/3 6:7/1 7:8/1 8:15/2");
	EXPECT_EQ(b.remove(y), (std::vector<Owned>{{v.id, 3, 2}}));
	EXPECT_EQ(b.shown(v.id), "0:11/3 1:22/3 2:23/3 5:25/3 6:7/1 7:8/1 8:15/3");
	EXPECT_EQ(b.shown(below.id), others);
	EXPECT_EQ(b.freeing(), "13 14");
	EXPECT_TRUE(b.has("orphan 12 12 0 12\n"));
	EXPECT_TRUE(b.has("hole 1 3 2\n"));  // of 3 and 4; that of 9 had nothing to hide
	EXPECT_FALSE(b.has("hole 1 9 1\n"));
	EXPECT_EQ(b.now(v).owned_since, 2u);
	EXPECT_EQ(b.now(v).parent_layer, below.layer);
	EXPECT_TRUE(b.c->snapshot(y.id).error().code == Code::kNotFound);
	// And the last one below: its holes hid nothing.
	EXPECT_EQ(b.remove(below), (std::vector<Owned>{{v.id, 3, 1}}));
	EXPECT_EQ(b.now(v).owned_since, 1u);
	EXPECT_EQ(b.now(v).parent_layer, 0u);
	EXPECT_EQ(b.shown(v.id), "0:11/3 1:22/3 2:23/3 5:25/3 6:7/3 7:8/3 8:15/3");
	EXPECT_TRUE(b.has("orphan 2 2 0 2\n"));  // of an orphan
	EXPECT_EQ(b.freeing(), "13 14 3 4 5 6");
}

TEST(Merge, a_tombstone_over_another_one_goes)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2)});
	b.snapshot(v, "s");
	b.must({b.hole(v, 0)});
	b.snapshot(v, "t");
	b.must({b.hole(v, 0), b.hole(v, 1)});
	b.remove(b.snapshot(v, "u"));
	EXPECT_FALSE(b.has("hole 1 0"));
	EXPECT_TRUE(b.has("hole 1 1 1\n"));
	EXPECT_EQ(b.shown(v.id), "");
}

TEST(Merge, takes_the_lowest_number_of_all_that_went)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	std::vector<SnapshotRow> s;
	for (int n = 0; n < 4; n++)
		s.push_back(b.snapshot(v, fmt::format("s{}", n)));
	EXPECT_EQ(b.remove(s[1]), std::vector<Owned>());  // into that of s2
	EXPECT_TRUE(b.has("snapshot 4 1 s2 1099511627776 done 3 2 1 0 1700000000\n"));
	EXPECT_EQ(b.remove(s[3]), (std::vector<Owned>{{v.id, 5, 4}}));
	EXPECT_EQ(b.remove(s[2]), (std::vector<Owned>{{v.id, 5, 2}}));
	EXPECT_EQ(b.now(v).owned_since, 2u);
	for (const uint32_t owned : {4u, 2u, 3u, 5u})
		b.must({small_rec(SV_REC_OWN, v.id, owned)});
}

TEST(Merge, waits_under_several_layers_and_goes_when_one_is_left_or_none)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2)});
	const SnapshotRow s = b.snapshot(v, "s");
	const VolumeRow clone = b.clone("c", s);
	b.must({b.over(v, 0, 3, 1), b.over(clone, 0, 4, 1), b.over(clone, 1, 5, 2)});
	EXPECT_TRUE(b.remove(s).empty());
	EXPECT_TRUE(b.has("snapshot 2 1 s"));
	ASSERT_TRUE(b.c->begin_delete_volume(v.id).ok());
	EXPECT_TRUE(b.merge_all().empty());
	EXPECT_TRUE(b.c->delete_step(v.id)->done);
	EXPECT_EQ(b.merge_all(), (std::vector<Owned>{{clone.id, clone.layer, s.layer}}));
	EXPECT_EQ(b.shown(clone.id), fmt::format("0:4/{0} 1:5/{0}", clone.layer));
	EXPECT_EQ(b.freeing(), "3");  // of v, which was to get the layer; the others are parents
	EXPECT_EQ(b.c->usage()->extents, 4u);

	const SnapshotRow t = b.snapshot(clone, "t");
	ASSERT_TRUE(b.c->begin_delete_snapshot(t.id).ok());
	ASSERT_TRUE(b.c->begin_delete_volume(clone.id).ok());
	EXPECT_TRUE(b.merge_all().empty());  // not into what goes itself
	EXPECT_TRUE(b.has("snapshot "));
	EXPECT_TRUE(b.c->delete_step(clone.id)->done);
	b.merge_all();
	EXPECT_TRUE(b.c->snapshots()->empty());
	EXPECT_EQ(b.c->usage()->extents, 0u);
	EXPECT_EQ(b.freeing(), "3 4 1 5 2");
}

TEST(Merge, waits_for_the_journal_and_for_a_pending_snapshot)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	const SnapshotRow s = b.begin(v, "s");
	const sv_rec late = b.map(v, 0, 1);
	ASSERT_TRUE(b.c->finish_snapshots(std::span(&s.id, 1)).ok());
	EXPECT_TRUE(b.remove(s).empty());
	b.must({layer_rec(s), late});
	EXPECT_TRUE(b.merge_all().empty());
	b.must({snapdone_rec(s)});
	EXPECT_EQ(b.shown(v.id), "0:1/1");
	const SnapshotRow pending = b.begin(v, "p");
	EXPECT_TRUE(b.merge_all().empty());
	EXPECT_TRUE(b.has("snapshot 2 1 s"));
	ASSERT_TRUE(b.c->finish_snapshots(std::span(&pending.id, 1)).ok());
	EXPECT_TRUE(b.merge_all().empty());  // the head's number is no head's now
	EXPECT_EQ(b.shown(v.id), "0:1/2");
}

TEST(Merge, records_come_meanwhile_for_what_the_kernel_has_further_down)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2), b.map(v, 2, 3)});
	b.remove(b.snapshot(v, "s"));
	EXPECT_EQ(b.shown(v.id), "0:1/2 1:2/2 2:3/2");
	b.must({b.over(v, 0, 4, 1), b.hole(v, 1), small_rec(SV_REC_OWN, v.id, 1), b.hole(v, 2, 3)});
	EXPECT_EQ(b.shown(v.id), "0:4/2");
	EXPECT_TRUE(b.has("orphan 1 1 0 1\n"));
	EXPECT_EQ(b.freeing(), "2");  // 3 by its record
	EXPECT_EQ(b.c->usage()->extents, 2u);
	expect_sound(*b.c);
}

TEST(Merge, steps_are_bounded_and_each_ends_in_a_sound_catalogue)
{
	SnapshotBench b(32 * kMiB, 10000);
	const VolumeRow v = b.volume("a");
	std::vector<sv_rec> records;
	for (uint32_t i = 0; i < 3000; i++)
		records.push_back(b.map(v, i, i + 1, i % 5 == 0));
	b.must(records);
	const SnapshotRow s = b.snapshot(v, "s");
	records.clear();
	for (uint32_t i = 0; i < 3000; i += 3)
		records.push_back(b.over(v, i, 3001 + i, i + 1));
	b.must(records);
	const auto extents = [&] {
		std::map<uint64_t, uint32_t> map;
		EXPECT_TRUE(b.c->for_each_map(v.id, [&](std::span<const sv_map_entry> some) -> Status {
			for (const sv_map_entry &e : some)
				map[e.index] = e.extent;
			return {};
		}).ok());
		return map;
	};
	const auto before = extents();
	ASSERT_TRUE(b.c->begin_delete_snapshot(s.id).ok());
	int steps = 0;
	for (bool done = false; !done; steps++) {
		auto p = b.c->merge_step(500);
		ASSERT_TRUE(p.ok());
		done = p->done;
		b.reopen();
		expect_sound(*b.c);
		EXPECT_EQ(extents(), before);
	}
	EXPECT_GE(steps, 3);
	EXPECT_EQ(b.c->usage()->extents, 4000u);
}

TEST(Orphans, go_with_the_last_that_needs_them)
{
	const auto left = [](const std::function<std::vector<sv_rec>(SnapshotBench &, const VolumeRow &)> &last) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		b.must({b.map(v, 0, 1)});
		const SnapshotRow s = b.snapshot(v, "s");
		b.must({b.over(v, 0, 2, 1)});
		const SnapshotRow t = b.snapshot(v, "t");
		b.must({b.over(v, 0, 3, 2)});
		b.remove(s);
		b.remove(t);
		EXPECT_TRUE(b.has("orphan 1 1 0 1\norphan 2 2 0 2\n"));
		const auto records = last(b, v);
		b.must(records);
		if (!records.empty())
			b.must(records);  // and again
		expect_sound(*b.c);
		return fmt::format("{}; {} of {} partial", b.freeing(), b.c->usage()->partials, b.c->usage()->extents);
	};
	using Records = std::vector<sv_rec>;
	EXPECT_EQ(left([](auto &, auto &) { return Records(); }), "; 2 of 3 partial");
	EXPECT_EQ(left([](auto &b, auto &) { return Records{b.whole(3)}; }), "2 1; 0 of 1 partial");
	EXPECT_EQ(left([](auto &b, auto &) { return Records{b.whole(2)}; }), "1; 1 of 2 partial");
	EXPECT_EQ(left([](auto &b, auto &v) { return Records{b.hole(v, 0, 3)}; }), "2 1; 0 of 0 partial");
	EXPECT_EQ(left([](auto &b, auto &v) {
		EXPECT_TRUE(b.c->begin_delete_volume(v.id).ok());
		EXPECT_TRUE(b.c->delete_step(v.id)->done);
		return Records();
	}), "3 2 1; 0 of 0 partial");  // 3, too: the kernel may not have known that it was the volume's
}

TEST(Orphans, stay_while_another_needs_them)
{
	SnapshotBench b;
	const std::string bits(64, '0');
	std::istringstream in("svctl-dump 1\nvolume 1 a 1099511627776 active 1 1 0 0 0\nmap 1 0 2 0 0 2 2\norphan 1 1 0 9\npartial 2 " +
			      bits + " 1\npartial 3 " + bits + " 1\nend\n");
	ASSERT_TRUE(b.c->restore(in).ok());
	VolumeRow v;
	v.id = 1;
	b.must({b.whole(2)});
	EXPECT_EQ(b.c->usage()->extents, 3u);
	expect_sound(*b.c);
	b.must({b.hole(v, 1, 3)});
	EXPECT_EQ(b.freeing(), "1");
	expect_sound(*b.c);
}

// ---- rolling back ----

TEST(Rollback, gives_the_clone_the_volumes_place_and_its_snapshots)
{
	SnapshotBench b;
	VolumeRow v = b.volume("a");
	ASSERT_TRUE(b.c->set_autoactivate(v.id, false).ok());
	b.must({b.map(v, 0, 1)});
	const SnapshotRow s = b.snapshot(v, "s");
	b.must({b.map(v, 0, 2)});
	const SnapshotRow t = b.snapshot(v, "t");
	b.must({b.over(v, 0, 3, 2), b.hole(v, 5)});
	EXPECT_EQ(b.c->head_use(v.id)->extents, 1u);
	EXPECT_EQ(b.c->head_use(v.id)->holes, 1u);
	v = b.now(v);
	VolumeRow wanted = v;
	wanted.parent_layer = s.layer;
	wanted.state = VolumeState::kDeleting;
	const VolumeRow next = b.c->create_volume(wanted).value();
	EXPECT_EQ(b.c->volume("a")->id, v.id) << "not yet";
	const std::string before = b.dump();
	EXPECT_EQ(b.c->replace_volume(next.id, v.id).error().code, Code::kBusy);
	EXPECT_EQ(b.c->replace_volume(v.id, v.id).error().code, Code::kBusy);
	EXPECT_EQ(b.c->replace_volume(v.id, 99).error().code, Code::kNotFound);
	EXPECT_EQ(b.dump(), before);
	ASSERT_TRUE(b.c->replace_volume(v.id, next.id).ok());
	expect_sound(*b.c);
	const VolumeRow now = b.c->volume("a").value();
	EXPECT_EQ(now.id, next.id);
	EXPECT_FALSE(now.autoactivate);
	EXPECT_EQ(b.shown(now.id), fmt::format("0:1/{}", s.layer));
	EXPECT_EQ(b.c->snapshot(now.id, "t")->id, t.id);
	EXPECT_EQ(b.shown(t.id), fmt::format("0:2/{}", t.layer));
	while (!b.c->delete_step(v.id)->done) {
	}
	expect_sound(*b.c);
	EXPECT_EQ(b.c->usage()->extents, 2u);
	b.must({b.over(now, 0, 4, 1)});
	const SnapshotRow u = b.snapshot(now, "u");  // its records name the new number
	EXPECT_EQ(b.shown(u.id), fmt::format("0:4/{}", now.layer));
	b.remove(t);
	b.remove(s);
	b.remove(u);
	expect_sound(*b.c);
	EXPECT_EQ(b.shown(now.id).substr(0, 4), "0:4/");
}

// ---- folding ----

// Over extent 1, which is an orphan, lies 2 with these words of its own; 1 has word 0 only if it is partial.
struct FoldBench : SnapshotBench {
	explicit FoldBench(uint32_t words, bool partial = false)
	{
		v = volume("a");
		must({map(v, 0, 1, partial)});
		if (partial)
			must({bits_rec(SV_REC_VALID, 1, 1, 0, ~0ull)});
		const SnapshotRow s = snapshot(v, "s");
		must({over(v, 0, 2, 1)});
		for (uint32_t w = 0; w < words; w++)
			must({bits_rec(SV_REC_VALID, 2, 2, w, ~0ull)});
		remove(s);
		EXPECT_TRUE(has("orphan 1 1 0 1\n"));
	}
	std::string plan()
	{
		std::string text;
		const FoldStep step = c->fold_step(0).value();
		for (const sv_fold &f : all_pairs(step))
			text += fmt::format("{}/{} over {}/{} {};", f.extent, f.gen, f.parent, f.parent_gen, f.flags);
		return text;
	}
	VolumeRow v;
};

TEST(Fold, takes_the_side_that_copies_less)
{
	EXPECT_EQ(FoldBench(0).plan(), "2/2 over 1/1 1;");
	EXPECT_EQ(FoldBench(1).plan(), "2/2 over 1/1 1;");
	EXPECT_EQ(FoldBench(2).plan(), "2/2 over 1/1 0;");
	EXPECT_EQ(FoldBench(3).plan(), "2/2 over 1/1 0;");
	EXPECT_EQ(FoldBench(1, true).plan(), "2/2 over 1/1 0;") << "nothing is to be copied";
	EXPECT_EQ(FoldBench(1).c->fold_step(0)->blocks, 64u);
	EXPECT_EQ(FoldBench(3).c->fold_step(0)->blocks, 64u);
	EXPECT_EQ(FoldBench(1, true).c->fold_step(0)->blocks, 0u);
}

TEST(Fold, does_not_move_an_extent_to_a_slower_tier)
{
	for (const bool child_is_fast : {true, false}) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		sv_rec below = b.map(v, 0, 1);
		below.member = child_is_fast ? 1 : 0;
		b.must({below});
		const SnapshotRow s = b.snapshot(v, "s");
		sv_rec over = b.over(v, 0, 2, 1);
		over.member = child_is_fast ? 0 : 1;
		b.must({over});
		b.remove(s);
		const FoldStep step = b.c->fold_step(0).value();
		ASSERT_EQ(step.pairs.size(), 1u);
		EXPECT_EQ(step.pairs.begin()->first, 1ull << over.member | 1ull << below.member);
		EXPECT_EQ(step.pairs.begin()->second.at(0).flags, child_is_fast ? 0u : SV_FOLD_SWAP);
		EXPECT_EQ(step.blocks, child_is_fast ? 256u : 0u);
	}
}

TEST(Fold, puts_nothing_onto_a_member_that_is_leaving)
{
	for (const uint64_t leaving : {0, 1, 2, 3}) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		sv_rec below = b.map(v, 0, 1);
		below.member = 0;
		b.must({below});
		const SnapshotRow s = b.snapshot(v, "s");
		sv_rec over = b.over(v, 0, 2, 1);
		over.member = 1;
		b.must({over});
		b.remove(s);
		ASSERT_TRUE(b.c->set_leaving(leaving).ok());
		const FoldStep step = b.c->fold_step(0).value();
		ASSERT_EQ(step.pairs.size(), 1u);
		EXPECT_EQ(step.pairs.begin()->second.at(0).flags, (leaving & 1) != 0 ? 0u : SV_FOLD_SWAP) << leaving;
		const std::vector<uint32_t> parents{1};
		EXPECT_EQ(b.c->fold_step(parents)->pairs.begin()->second.at(0).flags, step.pairs.begin()->second.at(0).flags);
	}
}

TEST(Fold, leaves_the_extent_with_the_blocks_of_both)
{
	for (const uint8_t flags : {0, 1}) {
		FoldBench b(2);
		b.must({fold_rec(flags)});
		EXPECT_EQ(b.c->usage()->partials, 0u);
		EXPECT_EQ(b.c->usage()->extents, 1u);
		EXPECT_EQ(b.freeing(), "") << "the kernel freed it";
		EXPECT_EQ(b.plan(), "");
		EXPECT_TRUE(b.has(fmt::format("map 1 0 1 0 {} 2 2\n", flags == 1 ? 1 : 2))) << b.dump();
		expect_sound(*b.c);
	}
	FoldBench b(0, true);
	b.must({fold_rec(0)});
	EXPECT_EQ(b.c->usage()->partials, 1u);
	EXPECT_EQ(b.c->usage()->extents, 1u);
	EXPECT_TRUE(b.has("partial 2 " + std::string(48, '0') + "ffffffffffffffff\n")) << b.dump();
	expect_sound(*b.c);
}

TEST(Fold, a_parent_that_stays_is_the_snapshots)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1)});
	b.snapshot(v, "s");
	b.must({b.over(v, 0, 2, 1)});
	EXPECT_TRUE(b.c->fold_step(0)->pairs.empty());
	EXPECT_FALSE(b.apply({fold_rec(0)}).ok()) << "a layer maps it";
	EXPECT_EQ(b.c->usage()->partials, 1u);
	EXPECT_EQ(b.c->usage()->extents, 2u);
	expect_sound(*b.c);
}

// What is below it is near, or goes no further, or has no blocks of its own there.
TEST(Fold, fills_fragments_for_which_reads_would_go_far)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1)});
	std::map<uint32_t, uint32_t> filling;
	const FoldLimits limits{.filling = &filling};
	const auto plan = [&] {
		std::string text;
		filling.clear();
		for (const sv_fold &f : all_pairs(b.c->fold_step(0, limits).value()))
			text += fmt::format("{}/{} over {}/{} {:x};", f.extent, f.gen, f.parent, f.parent_gen, f.flags);
		return text;
	};
	for (uint32_t n = 2; n <= 6; n++) {
		EXPECT_EQ("", plan()) << n;
		b.snapshot(v, fmt::format("s{}", n));
		b.must({b.over(v, 0, n, n - 1), bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), 0, n == 6 ? 0xffff0001 : 1),
			bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), 3, n == 3 ? ~0ull : 1)});
	}
	EXPECT_EQ("", plan()) << "the volume writes to it";
	for (uint32_t n = 7; n <= 12; n++) {
		b.snapshot(v, fmt::format("s{}", n));
		b.must({b.over(v, 0, n, n - 1), bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), 0, 1)});
		if (n > 7)
			continue;
		EXPECT_EQ("6/6 over 5/5 10002;", plan()) << "fragment 1 is its own, 12 is in 3, and of 0 all but a block is in 1";
		filling.clear();
		EXPECT_EQ(64u, b.c->fold_step(0, limits)->blocks);
		EXPECT_EQ(0u, b.c->fold_step(0, limits)->blocks) << "that has been asked for";
	}
	EXPECT_EQ("6/6 over 5/5 10002;11/11 over 10/10 10002;", plan()) << "others are near these";
	EXPECT_TRUE(b.c->fold_step(0)->pairs.empty()) << "the kernel does not know how";
	b.must({bits_rec(SV_REC_VALID, 6, 6, 0, 0xffff)});
	EXPECT_EQ("11/11 over 10/10 10002;", plan());
	b.must({bits_rec(SV_REC_VALID, 11, 11, 0, 0xffff)});
	EXPECT_EQ("", plan());
	expect_sound(*b.c);
}

TEST(Fold, fills_nothing_over_what_is_on_a_slower_tier)
{
	for (const uint8_t base : {0, 1}) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		sv_rec first = b.map(v, 0, 1);
		first.member = base;
		b.must({first});
		for (uint32_t n = 2; n <= 7; n++) {
			b.snapshot(v, fmt::format("s{}", n));
			b.must({b.over(v, 0, n, n - 1), bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), 0, 1)});
		}
		std::map<uint32_t, uint32_t> filling;
		const auto step = b.c->fold_step(0, {.filling = &filling});
		EXPECT_EQ(base == 0 ? 1u : 0u, step->pairs.size());
		EXPECT_EQ(base == 0 ? 1u : 0u, filling.size());
	}
}

TEST(Fold, waits_while_two_need_the_parent_and_goes_on_by_families)
{
	SnapshotBench b;
	const std::string bits(64, '0');
	std::string text = "svctl-dump 1\nvolume 1 a 1099511627776 active 1 1 0 0 0\n";
	std::string more, rest;
	for (uint32_t n = 1; n <= 30; n++) {	// 100 + n over n; 50 + n too where n divides by 3
		rest += fmt::format("orphan {} 1 0 {}\n", n, n);
		text += fmt::format("map 1 {} 1 0 {} {} 1\n", n, 100 + n, 100 + n);
		if (n % 3 == 0)
			more += fmt::format("map 1 {} 1 0 {} {} 1\n", 50 + n, 50 + n, 50 + n);
	}
	for (uint32_t n = 1; n <= 30; n++)
		if (n % 3 == 0)
			rest += fmt::format("partial {} {} {}\n", 50 + n, bits, n);
	for (uint32_t n = 1; n <= 30; n++)
		rest += fmt::format("partial {} {} {}\n", 100 + n, bits, n);
	std::istringstream in(text + more + rest + "end\n");
	const Status restored = b.c->restore(in);
	ASSERT_TRUE(restored.ok()) << restored.error().message();
	std::vector<uint32_t> parents;
	uint32_t steps = 0;
	for (FoldStep step; !step.done; steps++) {
		step = b.c->fold_step(step.after, {.pairs = 4, .blocks = 1, .rows = 7}).value();
		for (const sv_fold &f : all_pairs(step))
			parents.push_back(f.parent);
	}
	EXPECT_EQ(parents.size(), 20u);
	EXPECT_TRUE(std::ranges::is_sorted(parents));
	EXPECT_TRUE(std::ranges::none_of(parents, [](uint32_t n) { return n % 3 == 0; }));
	EXPECT_GE(steps, 5u);
}

TEST(Fold, records_that_no_kernel_wrote_are_damage_and_late_ones_are_passed_over)
{
	FoldBench b(1);
	const std::string before = b.dump();
	EXPECT_FALSE(b.apply({fold_rec(0, 2, 2)}).ok());
	EXPECT_FALSE(b.apply({fold_rec(0, 1, 2)}).ok()) << "1 has no parent";
	b.seq -= 2;
	EXPECT_EQ(b.dump(), before);
	b.must({fold_rec(0)});
	b.must({fold_rec(0)});
	b.must({b.hole(b.v, 0, 2), fold_rec(0)});
	EXPECT_EQ(b.c->usage()->extents, 0u);
	expect_sound(*b.c);
}

TEST(Freeing, is_told_until_it_was_heard)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2), b.map(v, 2, 3)});
	const SnapshotRow s = b.snapshot(v, "s");
	b.must({b.hole(v, 0), b.hole(v, 1), b.hole(v, 2)});
	b.remove(s);
	b.reopen();
	EXPECT_EQ(b.freeing(), "1 2 3");
	EXPECT_EQ(b.c->freeing(2)->size(), 2u);
	EXPECT_EQ(b.c->free_ranges()->at(0), (FreeRange{0, 0, kSlots}));
	const std::vector<sv_freed> told = {{1, 1, 0}, {2, 7, 0}};  // 2 in another life
	ASSERT_TRUE(b.c->freeing_told(told).ok());
	EXPECT_EQ(b.freeing(), "2 3");
	b.must({b.map(v, 5, 3)});  // it is used again: the kernel had freed it
	EXPECT_EQ(b.freeing(), "2");
	expect_sound(*b.c);
	ASSERT_TRUE(b.c->clear_freeing().ok());
	EXPECT_EQ(b.freeing(), "");
}

TEST(Delete, of_a_clone_takes_only_what_it_wrote)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2)});
	const VolumeRow clone = b.clone("c", b.snapshot(v, "s"));
	b.must({b.over(clone, 0, 3, 1), b.map(clone, 7, 4)});
	ASSERT_TRUE(b.c->begin_delete_volume(clone.id).ok());
	const auto progress = b.c->delete_step(clone.id);
	EXPECT_TRUE(progress->done);
	EXPECT_EQ(progress->freed.size(), 2u);
	EXPECT_EQ(b.freeing(), "");  // the kernel frees them when it drops the volume
	EXPECT_EQ(b.shown(v.id), "0:1/1 1:2/1");
	expect_sound(*b.c);
}

}  // namespace svd

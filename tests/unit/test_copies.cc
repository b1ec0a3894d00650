// SPDX-License-Identifier: GPL-2.0
// What SV_FOLD_FILL copied is no change: what the catalogue keeps of that, and what `svctl diff` makes of it.
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>

#include "daemon/catalogue/catalogue.h"
#include "tests/support/snapshot_bench.h"

namespace svd {
namespace {

// The line that says how far the journal of this pool is in it.
std::string without_journal(std::string dump)
{
	const auto at = dump.find("journal ");
	return dump.erase(at, dump.find('\n', at) + 1 - at);
}

// Extents 1 to 4, each over the one before, in the layers of s1, s2, s3 and of the volume. Blocks: 1 has 0 to 7, 2 has 0, 3 has 1,
// 4 has 8.
struct CopyBench : SnapshotBench {
	explicit CopyBench(bool outgrown = false)	// 3, by 9
	{
		v = volume("a");
		must({map(v, 0, 1, true), bits(1, 0xff)});
		for (uint32_t n = 2; n <= 4; n++) {
			s[n - 1] = snapshot(v, fmt::format("s{}", n - 1));
			must({over(v, 0, n, n == 4 && outgrown ? 9 : n - 1), bits(n, n == 4 ? 0x100 : n - 1)});
			if (n == 3 && outgrown)
				must({over(v, 0, 9, 3), bits(9, 0x200)});
		}
	}
	static sv_rec bits(uint32_t extent, uint64_t valid) { return bits_rec(SV_REC_VALID, extent, static_cast<uint16_t>(extent), 0, valid); }
	static sv_fold fill(uint32_t extent) { return {extent, extent - 1, static_cast<uint16_t>(extent), static_cast<uint16_t>(extent - 1), SV_FOLD_FILL}; }
	void copy(uint32_t extent, uint64_t blocks)
	{
		const sv_fold f = fill(extent);
		EXPECT_TRUE(c->note_fills(std::span(&f, 1)).ok());
		must({bits(extent, blocks)});
		expect_sound(*c);
	}
	// Blocks, those of data.
	std::string changes(uint32_t from, uint32_t to)
	{
		std::string text;
		EXPECT_TRUE(c->for_each_change(from, to, [&](const ChangedRange &r) -> Status {
			text += fmt::format("{}{}+{}", text.empty() ? "" : " ", r.offset / SV_BLOCK_SIZE, r.length / SV_BLOCK_SIZE);
			return {};
		}).ok());
		return text;
	}
	VolumeRow v;
	SnapshotRow s[4];
};

TEST(Copies, are_no_changes)
{
	CopyBench b;
	b.copy(3, 0xfd);
	EXPECT_EQ("1+1", b.changes(b.s[2].id, b.s[3].id));
	EXPECT_EQ("0+2", b.changes(b.s[1].id, b.s[3].id));
	EXPECT_EQ("0+2 8+1", b.changes(b.s[1].id, b.v.id));
	EXPECT_EQ("0+2", b.changes(b.s[3].id, b.s[1].id));
	b.copy(3, 0xff00);	// a second time: what was copied first was not written since
	EXPECT_EQ("0+2", b.changes(b.s[1].id, b.s[3].id));
	EXPECT_TRUE(b.has("partial 3 " + std::string(60, '0') + "ffff 2 " + std::string(63, '0') + "2\n")) << b.dump();
	const std::string before = b.dump();
	b.reopen();
	EXPECT_EQ(before, b.dump());
	std::istringstream in(without_journal(before));
	SnapshotBench other;
	const Status restored = other.c->restore(in);
	ASSERT_TRUE(restored.ok()) << restored.error().message();
	EXPECT_NE(other.dump().find(before.substr(before.find("partial"))), std::string::npos);
}

TEST(Copies, are_none_where_the_parent_they_come_from_is_folded)
{
	for (const bool parent_copied : {false, true}) {
		CopyBench b;
		if (parent_copied)
			b.copy(2, 0xf0);
		b.copy(3, 0x31);
		b.remove(b.s[2]);
		b.must({fold_rec(0, 3, 2)});
		expect_sound(*b.c);
		EXPECT_EQ("0+2", b.changes(b.s[1].id, b.s[3].id)) << "0 was written in 2, 1 in 3";
		EXPECT_TRUE(b.has(fmt::format("partial 3 {:064x} 1 {:064x}\n", parent_copied ? 0xf3 : 0x33, 3))) << b.dump();
	}
	CopyBench b;	// nothing was copied into the child, which a snapshot shows
	b.copy(2, 0xf0);
	b.remove(b.s[2]);
	EXPECT_TRUE(b.has(fmt::format("partial 3 {:064x} 2 {:064x}\n", 2, 2))) << b.dump();
	b.must({fold_rec(0, 3, 2)});
	EXPECT_EQ("0+2", b.changes(b.s[1].id, b.s[3].id));
}

// It may be overwritten where it is, if its layer becomes the volume's: nothing may be said of it then.
TEST(Copies, are_not_kept_apart_in_what_was_outgrown)
{
	CopyBench b(true);
	b.copy(2, 0xf0);
	b.remove(b.s[2]);
	EXPECT_TRUE(b.has(fmt::format("partial 3 {:064x} 2\n", 2))) << b.dump();
	EXPECT_TRUE(b.has(fmt::format("partial 9 {:064x} 3\n", 0x200))) << b.dump();
	b.must({fold_rec(0, 3, 2)});
	expect_sound(*b.c);
	EXPECT_EQ("0+2 4+4 9+1", b.changes(b.s[1].id, b.s[3].id));
}

// The volume has discarded what was there, and written anew.
TEST(Copies, that_are_hidden_by_what_does_not_lie_over_them_are_forgotten)
{
	CopyBench b;
	b.copy(2, 0xf0);
	b.must({b.hole(b.v, 0, 4)});
	b.must({b.map(b.v, 0, 5, true), CopyBench::bits(5, 1)});
	const SnapshotRow s = b.snapshot(b.v, "s");
	for (const SnapshotRow &gone : {b.s[3], b.s[2]})
		b.remove(gone);
	EXPECT_TRUE(b.has(fmt::format("partial 5 {:064x}\n", 1))) << b.dump();
	std::istringstream in(without_journal(b.dump()));
	EXPECT_TRUE(SnapshotBench().c->restore(in).ok());
	EXPECT_EQ("0+1 1+7", b.changes(b.s[1].id, s.id)) << "data, and zeroes";
}

// Snapshots wait for their last records, and what comes then was written.
TEST(Copies, are_kept_apart_only_once_all_that_was_written_is_known)
{
	CopyBench b;
	b.copy(3, 0x30);
	const SnapshotRow s = b.begin(b.v, "s");
	ASSERT_TRUE(b.c->finish_snapshots(std::span(&s.id, 1)).ok());
	b.remove(b.s[3]);
	b.must({CopyBench::bits(4, 0x1000)});
	EXPECT_EQ("1+1 8+1 12+1", b.changes(b.s[2].id, s.id));
}

TEST(Copies, count_as_written_in_what_a_volume_writes)
{
	CopyBench b;	// folded into it
	b.copy(3, 0x30);
	b.remove(b.s[3]);
	b.must({fold_rec(0, 4, 3)});
	expect_sound(*b.c);
	EXPECT_EQ("1+1 4+2 8+1", b.changes(b.s[2].id, b.v.id));
	EXPECT_TRUE(b.has(fmt::format("partial 4 {:064x} 2\n", 0x132))) << b.dump();

	CopyBench moved;	// become its own
	moved.must({moved.map(moved.v, 1, 5, true), CopyBench::bits(5, 0xff)});
	const SnapshotRow below = moved.snapshot(moved.v, "below");
	moved.must({moved.over(moved.v, 1, 6, 5), CopyBench::bits(6, 1)});
	const SnapshotRow above = moved.snapshot(moved.v, "above");
	moved.copy(6, 6);
	EXPECT_EQ("256+1", moved.changes(below.id, moved.v.id));
	moved.remove(above);
	EXPECT_EQ("256+3", moved.changes(below.id, moved.v.id));
	EXPECT_TRUE(moved.has(fmt::format("partial 6 {:064x} 5\n", 7))) << moved.dump();
}

// It has no parent any more.
TEST(Copies, count_as_written_in_what_a_fold_leaves_whole)
{
	CopyBench b;
	b.must({bits_rec(SV_REC_VALID, 2, 2, 1, ~0ull), bits_rec(SV_REC_VALID, 2, 2, 2, ~0ull), bits_rec(SV_REC_VALID, 2, 2, 3, ~0ull)});
	b.copy(3, ~0ull);
	b.remove(b.s[2]);
	b.must({fold_rec(0, 3, 2)});
	expect_sound(*b.c);
	EXPECT_EQ("0+256", b.changes(b.s[1].id, b.s[3].id));
}

TEST(Copies, need_all_records_of_snapshots_and_a_parent_that_stays)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1)});
	for (uint32_t n = 2; n <= 7; n++) {
		b.snapshot(v, fmt::format("s{}", n));
		b.must({b.over(v, 0, n, n - 1)});
		for (uint16_t w = 0; w < 4; w++)
			b.must({bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), w, 0x0001000100010001)});
	}
	std::map<uint32_t, uint32_t> filling;
	FoldStep step = b.c->fold_step(0, {.filling = &filling}).value();
	ASSERT_EQ(1u, step.pairs.size());
	EXPECT_EQ(SV_FOLD_FILL | 0x7fffu << SV_FOLD_FILL_SHIFT, all_pairs(step).at(0).flags) << "all but the last: it would have no parent then";
	filling[6] = 0x7fff;
	EXPECT_TRUE(b.c->fold_step(0, {.filling = &filling})->pairs.empty());
	filling.clear();
	const SnapshotRow pending = b.begin(v, "pending");
	for (const bool begun : {false, true}) {
		step = b.c->fold_step(0, {.filling = &filling}).value();
		EXPECT_TRUE(step.wait);
		EXPECT_TRUE(step.pairs.empty());
		b.must({begun ? snapdone_rec(pending) : layer_rec(pending)});
	}
	step = b.c->fold_step(0, {.filling = &filling}).value();
	EXPECT_FALSE(step.wait);
	EXPECT_EQ(1u, step.pairs.size());
}

TEST(Copies, that_cannot_be_are_refused_and_found)
{
	CopyBench b;
	b.copy(3, 0x30);
	const std::string sound = without_journal(b.dump());
	const auto refused = [&](const std::string &from, const std::string &to, const std::string &why) {
		std::string text = sound;
		ASSERT_NE(text.find(from), std::string::npos) << text;
		text.replace(text.find(from), from.size(), to);
		std::istringstream in(text);
		SnapshotBench other;
		const Status s = other.c->restore(in);
		ASSERT_FALSE(s.ok());
		EXPECT_NE(s.error().message().find(why), std::string::npos) << s.error().message();
	};
	const std::string line = fmt::format("partial 3 {:064x} 2 {:064x}\n", 0x32, 2);
	refused(line, fmt::format("partial 3 {:064x} 2 {:064x}\n", 0x32, 4), "written and are not valid");
	refused(line, fmt::format("partial 3 {:064x} 2 2\n", 0x32), "64 hexadecimal digits");
	refused(fmt::format("partial 4 {:064x} 3\n", 0x100), fmt::format("partial 4 {:064x} 3 {:064x}\n", 0x100, 0), "a volume writes extent 4");
	b.damage("UPDATE partials SET written = zeroblob(31) || x'80' WHERE extent = 3");
	EXPECT_FALSE(b.c->check()->empty());
	b.damage("UPDATE partials SET written = zeroblob(32) WHERE extent = 4");
	const auto found = b.c->check().value();
	EXPECT_EQ(2u, found.size()) << "written and not valid; may be written";
	b.damage("UPDATE partials SET written = x'01' WHERE extent = 3");
	EXPECT_FALSE(b.c->check().ok());
}

}  // namespace
}  // namespace svd

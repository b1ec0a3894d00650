// SPDX-License-Identifier: GPL-2.0
// Extents with fragments in daemon/catalogue: their records, what is free beside them, check, dump and restore, and which of
// them are folded.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/pages.h"
#include "daemon/catalogue/used_slots.h"
#include "tests/support/catalogue_bench.h"

using namespace svd;

namespace {

uint32_t place(uint32_t slot, uint32_t part) { return slot * SV_FRAGS + part + 1; }

sv_rec fragments_rec(const VolumeRow &v, uint64_t index, uint32_t extent, uint32_t member, uint32_t parent = 0)
{
	sv_rec r = map_rec(v, index, extent, 1, member, 0, true);
	r.flags |= SV_MAP_FRAGS | (parent != 0 ? SV_MAP_PARENT : 0);
	r.parent = parent;
	return r;
}

sv_rec frag_rec(uint32_t extent, uint32_t member, uint32_t number, uint32_t at)
{
	sv_rec r = {};
	r.type = SV_REC_FRAG;
	r.extent = extent;
	r.gen = 1;
	r.word = number;
	r.member = member;
	r.arg = at;
	return r;
}

sv_rec fold_rec(uint32_t extent, uint32_t parent, uint8_t flags)
{
	sv_rec r = {};
	r.type = SV_REC_FOLD;
	r.flags = flags;
	r.gen = 1;
	r.extent = extent;
	r.parent = parent;
	return r;
}

class Fragments : public testing::Test {
protected:
	Fragments() : v_(b_.volume("v")) {}

	Status apply(std::vector<sv_rec> records)
	{
		auto reached = b_.c->applied();
		reached->seq++;
		const auto stats = b_.c->apply_batch(records, *reached);
		if (!stats.ok())
			return stats.error();
		outgrown_ = stats->outgrown;
		return {};
	}
	void applies(std::vector<sv_rec> records)
	{
		const Status s = apply(std::move(records));
		ASSERT_TRUE(s.ok()) << s.error().message();
	}
	void is_damage(std::vector<sv_rec> records)
	{
		const std::string before = b_.dump();
		const Status s = apply(std::move(records));
		ASSERT_FALSE(s.ok());
		EXPECT_EQ(Code::kNeedsCheck, s.error().code);
		EXPECT_EQ(before, b_.dump());
	}
	std::vector<std::string> findings()
	{
		auto lines = b_.c->check();
		EXPECT_TRUE(lines.ok());
		return *lines;
	}
	bool finds(const std::string &words)
	{
		const auto lines = findings();
		return std::ranges::any_of(lines, [&](const auto &line) { return line.find(words) != std::string::npos; });
	}
	sv_partial_bits partial(uint32_t extent)
	{
		sv_partial_bits found = {};
		EXPECT_TRUE(b_.c->for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
			for (const sv_partial_bits &p : some)
				if (p.extent == extent)
					found = p;
			return {};
		}).ok());
		EXPECT_EQ(extent, found.extent);
		return found;
	}
	sv_extent extent(uint32_t number)
	{
		sv_extent found = {};
		EXPECT_TRUE(b_.c->for_each_extent([&](std::span<const sv_extent> some) -> Status {
			for (const sv_extent &e : some)
				if (e.extent == number)
					found = e;
			return {};
		}).ok());
		return found;
	}
	// One with blocks 0 and 16, on member 0.
	std::vector<sv_rec> two_fragments(uint64_t index, uint32_t number, uint32_t slot, uint32_t part, uint32_t parent = 0)
	{
		return {fragments_rec(v_, index, number, 0, parent), frag_rec(number, 0, 0, place(slot, part)),
			frag_rec(number, 0, 1, place(slot, part + 1)), bits_rec(SV_REC_VALID, number, 1, 0, 1 | 1 << 16)};
	}

	Bench b_;
	VolumeRow v_;
	std::vector<uint32_t> outgrown_;
};

TEST_F(Fragments, they_move_to_another_member)
{
	const auto moved = [](uint32_t member, uint32_t first, uint64_t mask, uint32_t number = 1) {
		sv_rec r = {};
		r.type = SV_REC_MOVE;
		r.extent = number;
		r.gen = 1;
		r.member = member;
		r.slot = first;
		r.arg = mask;
		return r;
	};
	applies(two_fragments(5, 1, 7, 3));
	applies({frag_rec(1, 0, 9, place(8, 0))});	// without a valid block: it may be left behind
	applies({moved(1, place(2, 4), 3)});
	EXPECT_EQ((std::pair{1, static_cast<uint32_t>(SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS)}), (std::pair{int{extent(1).member}, extent(1).flags}));
	EXPECT_EQ(place(2, 4), partial(1).place[0]);
	EXPECT_EQ(place(2, 5), partial(1).place[1]);
	EXPECT_EQ(0u, partial(1).place[9]);
	EXPECT_EQ((std::vector<FreeRange>{{0, 0, kSlots}, {1, 0, 2}, {1, 3, kSlots - 3}}), *b_.c->free_ranges());
	expect_sound(*b_.c);
	applies({frag_rec(1, 1, 2, place(2, 6)), bits_rec(SV_REC_VALID, 1, 1, 0, 1ull << 32)});
	EXPECT_EQ(place(2, 6), partial(1).place[2]);
	applies({moved(0, place(3, 0), 7, 99)});	// it is gone
	is_damage({moved(0, place(3, 0), 3)});	// which leaves a valid block nowhere
	is_damage({moved(0, place(kSlots, 0), 7)});
	is_damage({moved(2, place(3, 0), 7)});
	applies({map_rec(v_, 6, 2, 1, 0, 0, true)});
	is_damage({moved(1, place(3, 0), 1, 2)});	// it has a slot
	applies({moved(0, 5, 0)});
	EXPECT_EQ(static_cast<uint32_t>(SV_EXTENT_PARTIAL), extent(1).flags);
	expect_sound(*b_.c);
}

TEST_F(Fragments, records_say_where_they_are)
{
	applies(two_fragments(5, 1, 7, 3));
	EXPECT_EQ(static_cast<uint32_t>(SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS), extent(1).flags);
	EXPECT_EQ(place(7, 3), partial(1).place[0]);
	EXPECT_EQ(place(7, 4), partial(1).place[1]);
	EXPECT_EQ(0u, partial(1).place[2]);
	applies({frag_rec(1, 0, 2, place(7, 5)), bits_rec(SV_REC_VALID, 1, 1, 0, 1ull << 32)});
	EXPECT_EQ(place(7, 5), partial(1).place[2]);
	expect_sound(*b_.c);
	b_.reopen();
	EXPECT_EQ(place(7, 5), partial(1).place[2]);
	// Of another generation, or of one that is gone: not of this extent.
	sv_rec late = frag_rec(1, 0, 3, place(7, 6));
	late.gen = 2;
	applies({late, frag_rec(99, 0, 3, place(7, 7))});
	EXPECT_EQ(0u, partial(1).place[3]);
}

TEST_F(Fragments, what_the_kernel_cannot_have_written_is_damage)
{
	applies(two_fragments(5, 1, 7, 3));
	applies({map_rec(v_, 6, 2, 1, 0, 9, true)});
	is_damage({frag_rec(2, 0, 0, place(7, 9))});	      // it has a slot
	is_damage({frag_rec(1, 1, 2, place(7, 9))});	      // on another member
	is_damage({frag_rec(1, 0, 2, place(kSlots, 0))});     // no such slot
	is_damage({bits_rec(SV_REC_VALID, 1, 1, 1, 1)});      // fragment 4 is nowhere
	sv_rec all = bits_rec(SV_REC_VALID, 1, 1, 0, ~0ull);
	all.flags = SV_VALID_ALL;
	is_damage({all});
}

TEST_F(Fragments, slots_with_some_are_not_free)
{
	applies(two_fragments(5, 1, 7, 3));
	applies(two_fragments(6, 2, 7, 8));
	const auto ranges = b_.c->free_ranges();
	ASSERT_TRUE(ranges.ok());
	EXPECT_EQ((std::vector<FreeRange>{{0, 0, 7}, {0, 8, kSlots - 8}, {1, 0, kSlots}}), *ranges);
	applies({unmap_rec(v_, 5, 1)});
	EXPECT_EQ(*ranges, *b_.c->free_ranges());
	applies({unmap_rec(v_, 6, 2)});
	EXPECT_EQ((std::vector<FreeRange>{{0, 0, kSlots}, {1, 0, kSlots}}), *b_.c->free_ranges());
}

TEST_F(Fragments, check_finds_what_two_have)
{
	applies(two_fragments(5, 1, 7, 3));
	applies(two_fragments(6, 2, 7, 4));
	EXPECT_TRUE(finds("slot 7 of member 0 belongs to another extent too"));
	applies({unmap_rec(v_, 6, 2)});
	expect_sound(*b_.c);
	applies({map_rec(v_, 6, 3, 1, 0, 7, false)});
	EXPECT_TRUE(finds("slot 7 of member 0 belongs to another extent too"));
}

TEST_F(Fragments, a_dump_restores_to_the_same)
{
	applies(two_fragments(5, 1, 7, 3));
	applies(two_fragments(6, 2, 7, 8));
	applies({unmap_rec(v_, 6, 2), map_rec(v_, 6, 3, 1, 1, 9, true)});
	applies(two_fragments(8, 5, 7, 10));
	sv_rec above = map_rec(v_, 5, 4, 1, 0, 20, true);	// 1 becomes an orphan
	above.flags |= SV_MAP_PARENT;
	above.parent = 1;
	applies({above});
	EXPECT_EQ(std::vector<uint32_t>{1}, outgrown_);
	applies({unmap_rec(v_, 6, 3)});
	const std::string text = b_.dump();
	EXPECT_NE(std::string::npos, text.find("\norphan 1 1 0 -\n")) << text;
	EXPECT_NE(std::string::npos, text.find("\nfragment 1 1 7 4\n")) << text;
	b_.create_anew();
	const Status s = b_.restore(text);
	ASSERT_TRUE(s.ok()) << s.error().message();
	EXPECT_EQ(text, b_.dump());
}

TEST_F(Fragments, bad_text_is_refused_and_changes_nothing)
{
	b_.create();
	const std::string before = b_.dump();
	const std::string head = "svctl-dump 1\nvolume 1 a 104857600 active 1 1 0 0 0\nmap 1 0 2 0 - 1 1\nmap 1 9 1 0 3 9 1\n";
	const std::string bits = " " + std::string(60, '0') + "0001\n", none = " " + std::string(64, '0') + "\n";
	const std::string rest = "partial 2" + none + "end\n";
	for (const auto &[text, says] : std::vector<std::pair<std::string, std::string>>{
		     {head + "fragment 1 0 7 3\npartial 1" + bits + rest, ""},
		     {head + "partial 1" + bits + rest, "nowhere"},
		     {head + "fragment 1 0 7 3\n" + rest, "no line says"},
		     {head + "fragment 1 0 7 3\nfragment 2 0 7 3\n" + rest, "used twice"},
		     {head + "fragment 1 0 3 3\n" + rest, "used twice"},
		     {head + "fragment 1 0 7 3\nfragment 1 0 7 4\n" + rest, "named twice"},
		     {head + "fragment 1 16 7 3\n" + rest, "from 0 to 15"},
		     {head + "fragment 1 0 7 16\n" + rest, "from 0 to 15"},
		     {head + "fragment 1 0 5000 1\n" + rest, "no such slots"},
		     {head + "fragment 9 0 7 3\n" + rest, "no line before it"},
		     {head + "partial 1" + none + "fragment 1 0 7 3\n" + rest, "no line before it"},
		     {head + "map 1 20 1 7 - 20 1\n" + rest, "no member 7"}}) {
		b_.create();
		const Status s = b_.restore(text);
		ASSERT_EQ(says.empty(), s.ok()) << text << (s.ok() ? "" : s.error().message());
		if (s.ok())
			continue;
		EXPECT_NE(std::string::npos, s.error().message().find(says)) << s.error().message();
		EXPECT_EQ(Code::kUsage, s.error().code);
		EXPECT_EQ(before, b_.dump());
	}
}

// ---- folding ----

class FoldFragments : public Fragments {
protected:
	// Extent 1, 2 over it in the same layer.
	void outgrow(std::vector<sv_rec> below, std::vector<sv_rec> above)
	{
		applies(std::move(below));
		above[0].flags |= SV_MAP_PARENT;
		above[0].parent = 1;
		applies(std::move(above));
	}
	std::vector<sv_fold> pairs()
	{
		const auto step = b_.c->fold_step(0);
		EXPECT_TRUE(step.ok());
		std::vector<sv_fold> all;
		for (const auto &[members, some] : step->pairs)
			all.insert(all.end(), some.begin(), some.end());
		return all;
	}
};

TEST_F(FoldFragments, one_that_was_outgrown_is_taken_over)
{
	outgrow(two_fragments(5, 1, 7, 3), {map_rec(v_, 5, 2, 1, 1, 9, true), bits_rec(SV_REC_VALID, 2, 1, 3, 1)});
	ASSERT_EQ(1u, pairs().size());
	EXPECT_EQ(0u, pairs()[0].flags);
	applies({fold_rec(2, 1, 0)});
	EXPECT_EQ(1u | 1 << 16, partial(2).valid[0]);
	EXPECT_EQ(0u, partial(2).parent);
	EXPECT_EQ(0u, extent(1).extent);
	expect_sound(*b_.c);
}

TEST_F(FoldFragments, one_goes_into_the_slot_below_it)
{
	outgrow({map_rec(v_, 5, 1, 1, 0, 9, true), bits_rec(SV_REC_VALID, 1, 1, 3, 7)}, two_fragments(5, 2, 7, 3));
	ASSERT_EQ(1u, pairs().size());
	EXPECT_EQ(SV_FOLD_SWAP, pairs()[0].flags);
	applies({fold_rec(2, 1, SV_FOLD_SWAPPED)});
	EXPECT_EQ(static_cast<uint32_t>(SV_EXTENT_PARTIAL), extent(2).flags);
	EXPECT_EQ(9u, extent(2).slot);
	EXPECT_EQ(0u, partial(2).place[0]);
	expect_sound(*b_.c);
	EXPECT_EQ((std::vector<FreeRange>{{0, 0, 9}, {0, 10, kSlots - 10}, {1, 0, kSlots}}), *b_.c->free_ranges());
}

TEST_F(FoldFragments, but_not_if_that_is_on_a_slower_tier)
{
	outgrow({map_rec(v_, 5, 1, 1, 1, 9, false)}, two_fragments(5, 2, 7, 3));
	EXPECT_TRUE(pairs().empty()) << "there is no room for what the parent has, and its slot is slower";
}

TEST_F(FoldFragments, two_that_have_them_become_one_if_it_is_not_too_many)
{
	outgrow(two_fragments(5, 1, 7, 3), {fragments_rec(v_, 5, 2, 0), frag_rec(2, 0, 1, place(8, 0)), frag_rec(2, 0, 9, place(8, 1)),
					    bits_rec(SV_REC_VALID, 2, 1, 0, 1 << 17), bits_rec(SV_REC_VALID, 2, 1, 2, 1 << 16)});
	ASSERT_EQ(1u, pairs().size());
	EXPECT_EQ(0u, pairs()[0].flags);
	is_damage({fold_rec(2, 1, 0)});		       // fragment 0 would be nowhere
	is_damage({fold_rec(2, 1, SV_FOLD_SWAPPED)});  // the parent has no slot
	applies({frag_rec(2, 0, 0, place(8, 2)), fold_rec(2, 1, 0)});
	EXPECT_EQ(1u | 1 << 16 | 1 << 17, partial(2).valid[0]);
	expect_sound(*b_.c);
}

TEST_F(FoldFragments, if_they_are_more_than_half_of_an_extent_it_gets_a_slot)
{
	std::vector<sv_rec> below{fragments_rec(v_, 5, 1, 0)};
	for (uint32_t i = 0; i < 8; i++) {
		below.push_back(frag_rec(1, 0, i, place(7, i)));
		below.push_back(bits_rec(SV_REC_VALID, 1, 1, i / 4, 1ull << (i % 4 * 16)));
	}
	outgrow(below, {fragments_rec(v_, 5, 2, 0), frag_rec(2, 0, 12, place(8, 0)), bits_rec(SV_REC_VALID, 2, 1, 3, 1)});
	ASSERT_TRUE(b_.c->set_leaving(1).ok());
	EXPECT_EQ(0u, pairs().size()) << "not on a member that is leaving";
	ASSERT_TRUE(b_.c->set_leaving(2).ok());
	ASSERT_EQ(1u, pairs().size());
	EXPECT_EQ(SV_FOLD_GROW, pairs()[0].flags);
	sv_rec move = {};
	move.type = SV_REC_MOVE;
	move.extent = 2;
	move.gen = 1;
	move.slot = 30;
	applies({move});
	EXPECT_EQ(static_cast<uint32_t>(SV_EXTENT_PARTIAL), extent(2).flags);
	EXPECT_EQ(0u, partial(2).place[12]);
	expect_sound(*b_.c);
	applies({fold_rec(2, 1, 0)});
	EXPECT_EQ(0x0001000100010001u, partial(2).valid[0]);
	EXPECT_EQ((std::vector<FreeRange>{{0, 0, 30}, {0, 31, kSlots - 31}, {1, 0, kSlots}}), *b_.c->free_ranges());
	expect_sound(*b_.c);
}

TEST(UsedSlots, what_lies_nowhere_is_refused_by_name)
{
	std::vector<MemberRow> members(2);
	members[0].nr_slots = 8;
	members[1].nr_slots = 4;
	const auto refusal = [&](const sv_extent &e, const sv_partial_bits *p = nullptr) {
		UsedSlots used(members);
		const Status extent = used.add(std::span(&e, 1));
		const Status all = extent.ok() && p != nullptr ? used.add(std::span(p, 1)) : extent;
		return all.ok() ? "" : all.error().message();
	};
	const auto says = [](const std::string &text, const char *what) { return text.find(what) != std::string::npos; };
	EXPECT_EQ("", refusal({3, 7, 0, 1, 0}));
	EXPECT_TRUE(says(refusal({3, 8, 0, 1, 0}), "extent 3 lies in slot 8 of member 0"));
	EXPECT_TRUE(says(refusal({3, 0, 2, 1, 0}), "slot 0 of member 2"));
	const uint32_t fragments = SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS;
	EXPECT_TRUE(says(refusal({UINT32_MAX, 0, 0, 1, fragments}), "the pool has no extent 4294967295"));
	sv_partial_bits bits{};
	bits.extent = 3;
	bits.place[0] = place_of(3, 0);
	EXPECT_EQ("", refusal({3, 0, 1, 1, fragments}, &bits));
	bits.place[0] = place_of(4, 0);
	EXPECT_TRUE(says(refusal({3, 0, 1, 1, fragments}, &bits), "slot 4 of member 1"));
	bits.extent = 9;
	EXPECT_TRUE(says(refusal({3, 0, 1, 1, fragments}, &bits), "extent 9 lies in"));
}

}  // namespace

// SPDX-License-Identifier: GPL-2.0
// Fragments in kmod/core: which writes take them, where they lie, how an extent outgrows them, how their space comes back,
// what their records and a loaded pool say, and FOLD of extents that have them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "tests/support/core_volumes.h"

namespace {

using sv::test::kBlocks;
using sv::test::kExtents;

constexpr uint32_t kFrag = SV_FRAG_BLOCKS;

class CoreFrag : public sv::test::CoreVolumes {
 protected:
  CoreFrag() { fragments(true); }

  sv_extent extent(uint32_t number) {
    for (const sv_extent& e : dump<sv_extent>(SV_OP_DUMP_EXTENTS))
      if (e.extent == number) return e;
    ADD_FAILURE() << "no extent " << number;
    return {};
  }
  sv_partial_bits partial(uint32_t number) {
    for (const sv_partial_bits& b : dump<sv_partial_bits>(SV_OP_DUMP_PARTIALS))
      if (b.extent == number) return b;
    ADD_FAILURE() << "no partial extent " << number;
    return {};
  }
  size_t places(uint32_t number) {
    const sv_partial_bits b = partial(number);
    return SV_FRAGS - static_cast<size_t>(std::ranges::count(b.place, 0u));
  }
  bool has_fragments(uint32_t number) { return extent(number).flags & SV_EXTENT_FRAGS; }
  uint64_t free_slots() { return p_.state().free_slots; }

  // Extents of the volume's first indexes with blocks of their own in so many fragments each.
  void scatter(sv_volume* v, uint64_t count, uint32_t per_extent, int64_t value) {
    for (uint64_t i = 0; i < count; i++)
      for (uint32_t f = 0; f < per_extent; f++) write(v, i * kBlocks + f * kFrag + 3, 1, value);
  }

  sv_fold pair_at(uint64_t index, uint32_t flags) {
    const uint32_t child = extent_at(1, index), parent = partial(child).parent;
    return {.extent = child, .parent = parent, .gen = extent(child).gen, .parent_gen = extent(parent).gen, .flags = flags};
  }

  uint64_t copied_ = 0;
  uint32_t fold(sv_fold f) {
    p_.commit();
    EXPECT_EQ(0, p_.command(SV_OP_FOLD, &f));
    copied_ = copy();
    EXPECT_EQ(0, sv_fold_steps.finish(p_.pool, 0));
    p_.commit();
    return sv_fold_steps.end(p_.pool);
  }
};

TEST_F(CoreFrag, small_writes_of_16_extents_share_a_slot) {
  const uint64_t before = free_slots();
  scatter(v_, kExtents, 2, 7);
  EXPECT_EQ(before - 1, free_slots());
  for (uint64_t i = 0; i < kExtents; i++) {
    EXPECT_TRUE(has_fragments(extent_at(1, i)));
    EXPECT_EQ(7, read(v_, i * kBlocks + 3));
    EXPECT_EQ(7, read(v_, i * kBlocks + kFrag + 3));
    EXPECT_EQ(0, read(v_, i * kBlocks + 4));
    EXPECT_EQ(0, read(v_, i * kBlocks + 5 * kFrag));
  }
  write(w_, 0, 1, 8);
  EXPECT_EQ(before - 2, free_slots());
}

TEST_F(CoreFrag, they_are_filled_in_order) {
  scatter(v_, 3, 1, 1);
  for (uint64_t i = 0; i < 3; i++) EXPECT_EQ(i + 1, partial(extent_at(1, i)).place[0]);
}

TEST_F(CoreFrag, large_writes_and_streams_take_slots) {
  write(v_, 0, 64, 1);
  EXPECT_FALSE(has_fragments(extent_at(1, 0)));
  write(v_, kBlocks, 1, 1);  // goes on where the last slot ended
  EXPECT_FALSE(has_fragments(extent_at(1, 1)));
  write(v_, 2 * kBlocks + 1, 1, 1);  // not from its beginning on
  EXPECT_TRUE(has_fragments(extent_at(1, 2)));
  write(v_, 5 * kBlocks, 63, 1);
  EXPECT_TRUE(has_fragments(extent_at(1, 5)));
  EXPECT_EQ(4u, places(extent_at(1, 5)));
}

TEST_F(CoreFrag, nothing_has_fragments_unless_svd_knows_them) {
  fragments(false);
  scatter(v_, 2, 1, 1);
  EXPECT_FALSE(has_fragments(extent_at(1, 0)));
  fragments(true);
  scatter(w_, 1, 1, 1);
  EXPECT_TRUE(has_fragments(extent_at(2, 0)));
  fragments(false);
  write(w_, 5 * kFrag, 1, 2);  // one that has them goes on
  EXPECT_EQ(2u, places(extent_at(2, 0)));
}

TEST_F(CoreFrag, a_write_over_several_fragments_is_one_piece_where_they_follow_each_other) {
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 10, 40, &piece));
  EXPECT_EQ(40u, piece.blocks);
  put(piece, 1);
  sv_write_done(v_, &piece, true);
  ASSERT_EQ(SV_PLAN_REMAP, sv_plan_read(v_, 10, 40, &piece));
  EXPECT_EQ(40u, piece.blocks);
  write(w_, 0, 1, 2);                                          // takes the place behind them
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 49, 40, &piece));  // begins in the last one that there is
  EXPECT_EQ(15u, piece.blocks);
  sv_write_done(v_, &piece, true);
  EXPECT_EQ(4u, places(extent_at(1, 0)));
}

TEST_F(CoreFrag, records_say_where_they_are) {
  write(v_, 3 * kFrag, 1, 1);
  const auto first = records();
  ASSERT_EQ(3u, first.size());
  EXPECT_EQ(std::tuple(SV_REC_MAP, SV_MAP_PARTIAL | SV_MAP_FRAGS, 0u), std::tuple(first[0].type, first[0].flags, first[0].slot));
  EXPECT_EQ(std::tuple(SV_REC_FRAG, 3u, 0u, 1u), std::tuple(first[1].type, first[1].word, first[1].member, first[1].arg));
  EXPECT_EQ(SV_REC_VALID, first[2].type);
  write(v_, 3 * kFrag + 1, 1, 1);
  EXPECT_EQ(1u, records().size()) << "VALID: the fragment has its place";
  write(v_, 9 * kFrag, 1, 1);
  const auto last = records();
  ASSERT_EQ(2u, last.size());
  EXPECT_EQ(std::tuple(SV_REC_FRAG, 9u, 2u), std::tuple(last[0].type, last[0].word, last[0].arg));
}

TEST_F(CoreFrag, an_extent_that_is_half_full_goes_on_in_a_slot_over_it) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  const uint32_t old = extent_at(1, 0);
  EXPECT_EQ(SV_FRAGS / 2, places(old));
  p_.commit();
  write(v_, 12 * kFrag, 1, 2);
  const uint32_t extent = extent_at(1, 0);
  ASSERT_NE(old, extent);
  EXPECT_FALSE(has_fragments(extent));
  EXPECT_EQ(old, partial(extent).parent);
  const auto all = records();
  EXPECT_EQ(std::tuple(SV_REC_MAP, SV_MAP_PARTIAL | SV_MAP_PARENT, old), std::tuple(all[0].type, all[0].flags, all[0].parent));
  EXPECT_EQ(1, read(v_, 3));
  EXPECT_EQ(2, read(v_, 12 * kFrag));
  write(v_, 3, 1, 3);
  EXPECT_EQ(3, read(v_, 3));
  sv_volume_info info;
  sv_volume_get_info(v_, &info);
  EXPECT_EQ(1u, info.mapped);

  const uint64_t before = free_slots();
  EXPECT_EQ(1u, fold(pair_at(0, 0)));
  EXPECT_EQ(SV_FRAGS / 2, copied_) << "what it lacks, and no more";
  for (uint32_t f = 1; f < SV_FRAGS / 2; f++) EXPECT_EQ(1, read(v_, f * kFrag + 3));
  EXPECT_EQ(3, read(v_, 3));
  EXPECT_EQ(1u, p_.checkpoint());
  EXPECT_EQ(before + 1, free_slots()) << "of the fragments";
  EXPECT_EQ(0u, partial(extent).parent);
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreFrag, what_was_outgrown_is_overwritten_where_it_is) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  write(v_, 12 * kFrag, 1, 2);
  p_.commit();
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 3, 4, &piece));
  EXPECT_EQ(std::tuple(1u, 0), std::tuple(piece.blocks, piece.resv)) << "the block needs no VALID, nor ring space for one";
  put(piece, 5);
  sv_write_done(v_, &piece, true);
  EXPECT_EQ(5, read(v_, 3));
  write(v_, 4, 1, 6);
  EXPECT_EQ(6, read(v_, 4));
  EXPECT_EQ(1u, records().size()) << "VALID of block 4";
  sv_fold f = pair_at(0, 0);
  ASSERT_EQ(0, p_.command(SV_OP_FOLD, &f));
  EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 3, 1, &piece));
  ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, ~0ull));
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  snapshot(1, 5);
  write(v_, 3, 1, 7);
  EXPECT_EQ(7, read(v_, 3));
  sv_volume* frozen = view_of(9, 1, {{.index = 0, .volume = 9, .extent = f.extent, .layer = 1, .pad = 0}},
                              SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  EXPECT_EQ(5, read(frozen, 3));
}

// A fold may bring one below an extent that was written since a snapshot. The next snapshot waits for writes to it.
TEST_F(CoreFrag, a_snapshot_waits_for_overwrites_of_what_was_outgrown) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  write(v_, 12 * kFrag, 1, 2);
  p_.commit();
  const uint32_t member = extent(partial(extent_at(1, 0)).parent).member;
  snapshot(1, 5);
  v_->tiers = member == 0 ? 0xffffffffffffff01 : 0xffffffffffffff00;
  write(v_, 13 * kFrag, 1, 3);
  p_.commit();
  ASSERT_NE(member, extent(extent_at(1, 0)).member);
  ASSERT_EQ(1u, fold(pair_at(0, 0)));
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 3, 1, &piece));
  EXPECT_EQ(member, piece.member) << "it is overwritten where it is";
  sv_volume_info info{};
  sv_volume_get_info(v_, &info);
  sv_snapshot s{.volume = 1, .layer = info.layer + 1, .job = 1};
  ASSERT_EQ(0, sv_snapshot_begin(p_.pool, &s, 1));
  uint64_t members = 0;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  EXPECT_TRUE(members >> member & 1);
  put(piece, 4);
  sv_write_done(v_, &piece, true);
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
  EXPECT_EQ(4, read(v_, 3));
}

// Over what a snapshot had: while that is folded, which only the outgrown extent is named for.
TEST_F(CoreFrag, nor_is_it_overwritten_while_it_is_folded_itself) {
  write(v_, 0, kBlocks, 9);
  p_.commit();
  snapshot(1, 5);
  scatter(v_, 1, SV_FRAGS / 2, 1);
  const uint32_t old = extent_at(1, 0);
  write(v_, 12 * kFrag, 1, 2);
  p_.commit();
  const uint32_t base = partial(old).parent;
  sv_fold f{.extent = old, .parent = base, .gen = extent(old).gen, .parent_gen = extent(base).gen, .flags = SV_FOLD_SWAP};
  ASSERT_EQ(0, p_.command(SV_OP_FOLD, &f));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 3, 1, &piece));
  ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, ~0ull));
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(1u, fold(f));
  write(v_, 3, 1, 4);
  EXPECT_EQ(4, read(v_, 3));
  EXPECT_EQ(9, read(v_, 5));
  EXPECT_EQ(2, read(v_, 12 * kFrag));
  EXPECT_EQ(1, read(v_, kFrag + 3));
}

TEST_F(CoreFrag, writes_planned_before_an_extent_is_outgrown_still_count) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  sv_piece late{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 5, 1, &late));  // a block that is not valid yet
  write(v_, 12 * kFrag, 1, 2);
  EXPECT_EQ(0, read(v_, 5));
  put(late, 4);
  sv_write_done(v_, &late, true);
  EXPECT_EQ(4, read(v_, 5)) << "through the new extent";
  EXPECT_EQ(1u, fold(pair_at(0, 0)));
  EXPECT_EQ(4, read(v_, 5));
}

TEST_F(CoreFrag, folding_leaves_a_parent_alone_that_is_being_written) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  sv_piece late{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 5, 1, &late));
  write(v_, 12 * kFrag, 1, 2);
  EXPECT_EQ(0u, fold(pair_at(0, 0)));
  put(late, 4);
  sv_write_done(v_, &late, true);
  EXPECT_EQ(1u, fold(pair_at(0, 0)));
  EXPECT_EQ(4, read(v_, 5));
}

TEST_F(CoreFrag, space_comes_back_when_the_last_16th_is_free) {
  const uint64_t before = free_slots();
  scatter(v_, 2, 1, 1);
  discard(v_, 0, kBlocks);
  p_.checkpoint();
  EXPECT_EQ(before - 1, free_slots());
  write(w_, 0, 1, 2);
  EXPECT_EQ(1u, partial(extent_at(2, 0)).place[0]) << "the gap is filled first";
  EXPECT_EQ(2, read(w_, 0));
  EXPECT_EQ(0, read(w_, 3)) << "nobody sees what lay there before";
  discard(v_, kBlocks, kBlocks);
  discard(w_, 0, kBlocks);
  p_.checkpoint();
  EXPECT_EQ(before, free_slots());
  EXPECT_EQ(0u, p_.state().partials);
}

TEST_F(CoreFrag, a_part_that_is_discarded_reads_as_zeroes) {
  scatter(v_, 1, 2, 1);
  discard(v_, 3, 1);
  EXPECT_EQ(0, read(v_, 3));
  EXPECT_EQ(1, read(v_, kFrag + 3));
  discard(v_, kFrag, kFrag);
  EXPECT_EQ(0u, extent_at(1, 0)) << "nothing is left of it";
}

TEST_F(CoreFrag, a_write_after_a_snapshot_takes_one) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  snapshot(1, 5);
  const uint64_t before = free_slots();
  for (uint32_t b = 0; b < 3; b++) write(v_, b * 100, 1, 2);
  EXPECT_EQ(before - 1, free_slots());
  EXPECT_EQ(3u, places(extent_at(1, 0)));
  EXPECT_EQ(2, read(v_, 200));
  EXPECT_EQ(1, read(v_, 201));
  EXPECT_EQ(1u, fold(pair_at(0, SV_FOLD_SWAP)));
  EXPECT_EQ(3u, copied_);
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(b % 100 ? 1 : 2, read(v_, b)) << b;
  EXPECT_FALSE(has_fragments(extent_at(1, 0)));
  p_.checkpoint();
  EXPECT_EQ(before, free_slots());
}

TEST_F(CoreFrag, two_extents_with_them_are_folded_into_one) {
  scatter(v_, 1, 3, 1);
  p_.commit();
  snapshot(1, 5);
  write(v_, 3, 1, 2);
  write(v_, 4, 1, 3);
  write(v_, 7 * kFrag, 1, 4);
  p_.commit();
  const sv_fold f = pair_at(0, 0);
  EXPECT_EQ(1u, fold(f));
  EXPECT_EQ(2u, copied_) << "fragments 1 and 2";
  EXPECT_EQ(4u, places(f.extent));
  EXPECT_EQ(2, read(v_, 3));
  EXPECT_EQ(3, read(v_, 4));
  EXPECT_EQ(1, read(v_, kFrag + 3));
  EXPECT_EQ(1, read(v_, 2 * kFrag + 3));
  EXPECT_EQ(4, read(v_, 7 * kFrag));
  EXPECT_EQ(1u, p_.checkpoint());
  EXPECT_EQ(1, read(v_, kFrag + 3));
}

TEST_F(CoreFrag, but_not_if_they_are_too_many_together_nor_into_a_parent_without_a_slot) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  p_.commit();
  snapshot(1, 5);
  write(v_, 12 * kFrag, 1, 2);
  const auto before = p_.image();
  const uint64_t free = free_slots();
  EXPECT_EQ(0u, fold(pair_at(0, 0)));
  EXPECT_EQ(0u, fold(pair_at(0, SV_FOLD_SWAP)));
  EXPECT_EQ(before.partials, p_.image().partials);
  EXPECT_EQ(free, free_slots());
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreFrag, if_they_are_too_many_a_slot_takes_what_both_have) {
  scatter(v_, 1, SV_FRAGS / 2, 1);
  p_.commit();
  snapshot(1, 5);
  write(v_, 3, 1, 2);
  write(v_, 12 * kFrag, 2, 3);
  p_.commit();
  const uint64_t before = free_slots();
  const sv_fold f = pair_at(0, SV_FOLD_GROW);
  EXPECT_EQ(1u, fold(f));
  EXPECT_EQ(SV_FRAGS / 2 + 2, copied_);
  EXPECT_EQ(before - 1, free_slots());
  EXPECT_FALSE(has_fragments(f.extent));
  EXPECT_EQ(0u, partial(f.extent).parent);
  const auto expect_all = [&] {
    EXPECT_EQ(2, read(v_, 3));
    for (uint32_t i = 1; i < SV_FRAGS / 2; i++) EXPECT_EQ(1, read(v_, i * kFrag + 3));
    EXPECT_EQ(3, read(v_, 12 * kFrag + 1));
    EXPECT_EQ(0, read(v_, 12 * kFrag + 2));
  };
  expect_all();
  EXPECT_EQ(2u, p_.checkpoint()) << "the parent, and the places that the extent had";
  EXPECT_EQ(before, free_slots()) << "10 16ths were in one slot";
  expect_all();
  write(w_, 0, 1, 9);
  p_.commit();
  EXPECT_EQ(before - 1, free_slots());
  expect_all();
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreFrag, nothing_but_fragments_grows) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  snapshot(1, 5);
  write(v_, 0, 64, 2);
  EXPECT_EQ(0u, fold(pair_at(0, SV_FOLD_GROW)));
  sv_fold f = pair_at(0, SV_FOLD_GROW | SV_FOLD_SWAP);
  EXPECT_EQ(-EINVAL, p_.command(SV_OP_FOLD, &f));
}

TEST_F(CoreFrag, what_a_fold_that_fails_has_set_aside_is_given_back) {
  scatter(v_, 1, 3, 1);
  p_.commit();
  snapshot(1, 5);
  write(v_, 7 * kFrag, 1, 4);
  p_.commit();
  sv_fold f = pair_at(0, 0);
  ASSERT_EQ(0, p_.command(SV_OP_FOLD, &f));
  sv_copy_run c;
  while (sv_fold_steps.next(p_.pool, &c)) sv_fold_steps.failed(p_.pool, c.of);
  ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, 0));
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(1u, places(f.extent));
  write(w_, 0, 1, 5);
  EXPECT_EQ(5u, partial(extent_at(2, 0)).place[0]) << "the first 16th behind those in use";
  const uint64_t free = free_slots();
  f.flags = SV_FOLD_GROW;
  ASSERT_EQ(0, p_.command(SV_OP_FOLD, &f));
  while (sv_fold_steps.next(p_.pool, &c)) sv_fold_steps.failed(p_.pool, c.of);
  ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, 0));
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(free, free_slots());
}

// A pool of one small member and a large one: when the first is full the extent goes on elsewhere.
TEST(CoreFragFull, an_extent_goes_on_on_another_member) {
  sv::test::CorePool p({{.slots = 70, .ring = true}, {.slots = 1400, .tier = 1}});
  sv_policy policy{.no_space_ms = 0, .commit_ms = 1000, .flags = SV_POLICY_FRAGMENTS, .pad = 0};
  ASSERT_EQ(0, p.command(SV_OP_POLICY, &policy));
  sv_volume* v = p.volume(1, 2000 * uint64_t{SV_EXTENT_SIZE});
  p.activate();
  sv_piece piece{};
  const auto put = [&](uint64_t block, uint32_t blocks) {
    const sv_plan plan = sv_plan_write(v, block, blocks, SV_WRITE_NORMAL, &piece);
    if (plan == SV_PLAN_REMAP) sv_write_done(v, &piece, true);
    EXPECT_EQ(0, sv_pool_refill(p.pool));
    return plan;
  };
  ASSERT_EQ(SV_PLAN_REMAP, put(0, 1));
  EXPECT_EQ(0, piece.member);
  for (uint64_t i = 1; i <= 69; i++) ASSERT_EQ(SV_PLAN_REMAP, put(i * kBlocks, kBlocks));
  for (uint64_t i = 1; i < SV_FRAGS; i++) ASSERT_EQ(SV_PLAN_REMAP, put((100 + i) * kBlocks, 1));
  EXPECT_EQ(0, piece.member) << "the last 16th of it";
  ASSERT_EQ(SV_PLAN_REMAP, put(5 * kFrag, 1));
  EXPECT_EQ(1, piece.member);
  p.commit();
  EXPECT_TRUE(sv_commit_idle(p.pool));
}

TEST(CoreFragFull, a_full_pool_still_fills_the_16ths_that_are_left) {
  sv::test::CorePool p({{.slots = 64, .ring = true}});
  sv_policy policy{.no_space_ms = 0, .commit_ms = 1000, .flags = SV_POLICY_FRAGMENTS, .pad = 0};
  ASSERT_EQ(0, p.command(SV_OP_POLICY, &policy));
  sv_volume* v = p.volume(1, 2000 * uint64_t{SV_EXTENT_SIZE});
  p.activate();
  sv_piece piece{};
  uint64_t written = 0;
  for (;; written++) {
    const uint64_t frag = written % 8, extent = written / 8;
    const sv_plan plan = sv_plan_write(v, extent * 2 * kBlocks + frag * kFrag, 1, SV_WRITE_NORMAL, &piece);
    EXPECT_EQ(0, sv_pool_refill(p.pool));
    if (plan != SV_PLAN_REMAP) {
      EXPECT_EQ(SV_PLAN_NOSPC, plan);
      break;
    }
    sv_write_done(v, &piece, true);
    p.commit();
  }
  EXPECT_EQ((64 - sv_reserve_for(64) - 1) * SV_FRAGS + 1, written) << "what is left of the last slot is for the reserve's";
  EXPECT_EQ(SV_PLAN_REMAP, sv_plan_write(v, 1999 * kBlocks, 1, SV_WRITE_META, &piece)) << "of the reserve";
  sv_write_done(v, &piece, true);
}

// Which 16ths of slots are fragments is kept in pages of the reserve, and the first one here is not there yet.
TEST_F(CoreFrag, without_a_page_for_them_small_writes_take_slots) {
  write(v_, 0, kBlocks, 1);
  while (p_.pool->nr_nodes) {
    sv_lock_flags_t f;
    sv_lock(&p_.pool->lock, f);
    sv_node* n = sv_node_take(p_.pool);
    sv_unlock(&p_.pool->lock, f);
    sv_free(n);
  }
  write(v_, 3 * kBlocks, 1, 2);
  EXPECT_FALSE(has_fragments(extent_at(1, 3)));
  EXPECT_EQ(2, read(v_, 3 * kBlocks));
  ASSERT_NE(0u, p_.pool->nr_nodes) << "filled after that write";
  write(v_, 6 * kBlocks, 1, 3);
  EXPECT_TRUE(has_fragments(extent_at(1, 6)));
  EXPECT_EQ(3, read(v_, 6 * kBlocks));
}

// More of these pages than the reserve holds.
TEST(CoreFragLoad, a_pool_with_fragments_everywhere_is_loaded) {
  constexpr uint32_t kPages = 4 * SV_NODE_RESERVE, kOfEach = SV_FRAGS_MAX;
  sv::test::CorePool p({{.slots = kPages * SV_FRAGGED, .ring = true}}, false);
  std::vector<sv_extent> extents;
  std::vector<sv_partial_bits> partials;
  for (uint32_t i = 0; i < kPages / kOfEach; i++) {
    extents.push_back({.extent = i + 1, .slot = 0, .member = 0, .gen = 1, .flags = SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS});
    partials.push_back({.extent = i + 1, .parent = 0, .valid = {}, .place = {}});
    for (uint32_t k = 0; k < kOfEach; k++) partials.back().place[k] = (i * kOfEach + k) * SV_FRAGGED * SV_FRAGS + 1;
  }
  const auto n = static_cast<uint32_t>(extents.size());
  const uint64_t before = p.state().memory;
  ASSERT_EQ(0, p.command(SV_OP_EXTENTS, extents.data(), n));
  uint32_t done = 0;
  EXPECT_EQ(0, p.command(SV_OP_PARTIALS, partials.data(), n, &done));
  EXPECT_EQ(n, done);
  EXPECT_LE(before + (kPages - SV_NODE_RESERVE) * sizeof(sv_fragged), p.state().memory);
  for (uint32_t k = 0; k < kOfEach; k++) EXPECT_FALSE(sv_frag_is_free(p.pool, 0, partials.back().place[k]));
}

// What a pool tells of itself loads into another one, which goes on by it.
TEST_F(CoreFrag, a_pool_is_loaded_as_it_was) {
  scatter(v_, 4, 3, 1);
  write(v_, 5 * kBlocks, kBlocks, 2);
  p_.commit();
  auto extents = dump<sv_extent>(SV_OP_DUMP_EXTENTS);
  auto partials = dump<sv_partial_bits>(SV_OP_DUMP_PARTIALS);
  sv::test::CorePool q({{.slots = 400, .ring = true}, {.slots = 400, .tier = 1}}, false);
  ASSERT_EQ(0, q.command(SV_OP_EXTENTS, extents.data(), static_cast<uint32_t>(extents.size())));
  ASSERT_EQ(0, q.command(SV_OP_PARTIALS, partials.data(), static_cast<uint32_t>(partials.size())));
  EXPECT_EQ(p_.image().extents, q.image().extents);
  EXPECT_EQ(p_.image().partials, q.image().partials);
  sv_grant taken{.member = 0, .first = (partials[0].place[0] - 1) / SV_FRAGS, .count = 1, .pad = 0};
  EXPECT_EQ(-EINVAL, q.command(SV_OP_GRANT, &taken)) << "fragments lie there";
  EXPECT_EQ(-EEXIST, q.command(SV_OP_PARTIALS, partials.data())) << "it has its places";
}

TEST_F(CoreFrag, what_cannot_be_is_not_loaded) {
  const auto refused = [](int error, sv_extent e, sv_partial_bits b) {
    sv::test::CorePool q({{.slots = 400, .ring = true}}, false);
    sv_extent other{.extent = 2, .slot = 7, .member = 0, .gen = 1, .flags = 0};
    EXPECT_EQ(0, q.command(SV_OP_EXTENTS, &other));
    int r = q.command(SV_OP_EXTENTS, &e);
    const auto before = q.image();
    if (!r) r = q.command(SV_OP_PARTIALS, &b);
    EXPECT_EQ(error, r);
    EXPECT_EQ(before, q.image());
  };
  const sv_extent e{.extent = 1, .slot = 0, .member = 0, .gen = 1, .flags = SV_EXTENT_PARTIAL | SV_EXTENT_FRAGS};
  const sv_partial_bits b{.extent = 1, .parent = 0, .valid = {1}, .place = {1, 2}};
  auto x = e;
  auto y = b;
  x.slot = 1;
  refused(-EINVAL, x, b);  // it has no slot
  x = e, x.flags = SV_EXTENT_FRAGS;
  refused(-EINVAL, x, b);  // what has fragments is partial
  y.valid[0] = 1ull << 32;
  refused(-EINVAL, e, y);  // a valid block without a place
  for (uint32_t i = 0; i < 9; i++) y.place[i] = i + 1;
  y.valid[0] = 0;
  refused(-EINVAL, e, y);  // too many
  y = b, y.place[1] = 1;
  refused(-EEXIST, e, y);  // twice the same
  y = b, y.place[1] = 7 * SV_FRAGS + 3;
  refused(-EEXIST, e, y);  // a slot that an extent has
  y = b, y.place[1] = 400 * SV_FRAGS + 1;
  refused(-EEXIST, e, y);  // no slot of the member
  x = e, x.flags = SV_EXTENT_PARTIAL, x.slot = 3;
  refused(-EINVAL, x, b);  // it has a slot, and places
}

}  // namespace

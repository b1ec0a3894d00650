// SPDX-License-Identifier: GPL-2.0
// FOLD in kmod/core: both sides of it, what is held meanwhile and what is not, what makes it leave an extent alone, what its
// record says. And a random run of volumes, snapshots, deletions and folding against plain copies of contents.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "tests/support/core_volumes.h"

namespace {

using sv::test::kBlocks;
using sv::test::kExtents;
using sv::test::Place;

class CoreFold : public sv::test::CoreVolumes {
 protected:
  // The volume's extent at that index over the one that it had when the snapshot was taken.
  sv_fold pair_at(uint64_t index, uint32_t flags) {
    const uint32_t extent = extent_at(1, index);
    std::vector<sv_partial_bits> partials(200);
    partials[0].extent = extent;
    uint32_t n = 0;
    EXPECT_EQ(0, p_.command(SV_OP_DUMP_PARTIALS, partials.data(), 200, &n));
    EXPECT_GT(n, 0u);
    EXPECT_EQ(extent, partials[0].extent);
    return {.extent = extent, .parent = partials[0].parent, .gen = gen_of(extent), .parent_gen = gen_of(partials[0].parent), .flags = flags};
  }

  uint16_t gen_of(uint32_t extent) { return sv_xw_gen(*sv_xt_word(p_.pool, extent)); }

  std::vector<sv_extent> extents() { return dump<sv_extent>(SV_OP_DUMP_EXTENTS); }
  std::vector<sv_partial_bits> partials() { return dump<sv_partial_bits>(SV_OP_DUMP_PARTIALS); }

  Place place_of(uint32_t extent) {
    for (const sv_extent& e : extents())
      if (e.extent == extent) return {e.member, e.slot};
    ADD_FAILURE() << "no extent " << extent;
    return {};
  }

  void free_it(sv_freed extent) { ASSERT_EQ(0, p_.command(SV_OP_FREE, &extent)); }

  int begin_folds(std::vector<sv_fold> folds) {
    p_.commit();
    return p_.command(SV_OP_FOLD, folds.data(), static_cast<uint32_t>(folds.size()));
  }

  void finish() { ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, 0)); }

  // The number folded.
  uint32_t fold(std::vector<sv_fold> folds) {
    EXPECT_EQ(0, begin_folds(std::move(folds)));
    copy();
    finish();
    p_.commit();
    return sv_fold_steps.end(p_.pool);
  }

  // A whole extent, and one above it that has blocks 7, 8 and 200 of its own.
  void overlay() {
    write(v_, 0, kBlocks, 1);
    p_.commit();
    frozen_ = flat(1);
    snapshot(1, 5);
    write(v_, 7, 2, 2);
    write(v_, 200, 1, 3);
    p_.commit();
  }

  void expect_overlay() {
    for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(b == 7 || b == 8 ? 2 : b == 200 ? 3 : 1, read(v_, b)) << b;
  }

  std::vector<sv_map_entry> frozen_;
};

TEST_F(CoreFold, fills_an_extent_from_its_parent_which_is_freed) {
  overlay();
  const sv_fold f = pair_at(0, 0);
  const Place before = place_of(f.extent);
  ASSERT_EQ(0, begin_folds({f}));
  EXPECT_EQ(kBlocks - 3, copy());
  finish();
  const auto all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_EQ(SV_REC_FOLD, all[0].type);
  EXPECT_EQ(std::tuple(0, f.extent, f.parent, f.gen), std::tuple(all[0].flags, all[0].extent, all[0].parent, all[0].gen));
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  expect_overlay();
  EXPECT_EQ(before, place_of(f.extent));
  EXPECT_EQ(0u, p_.state().partials);
  EXPECT_EQ(1u, p_.state().freed_extents);
  EXPECT_EQ(1u, p_.checkpoint());
  expect_overlay();
  write(v_, 9, 1, 4);
  EXPECT_EQ(4, read(v_, 9));
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreFold, or_moves_the_extent_into_its_parents_place) {
  overlay();
  const sv_fold f = pair_at(0, SV_FOLD_SWAP);
  const Place child = place_of(f.extent), parent = place_of(f.parent);
  ASSERT_EQ(0, begin_folds({f}));
  EXPECT_EQ(3u, copy()) << "only what the extent has of its own";
  finish();
  expect_overlay();
  EXPECT_EQ(parent, place_of(f.extent));
  EXPECT_EQ(parent, place_of(f.parent)) << "who has the old word still gets there by way of it";
  EXPECT_EQ(SV_FOLD_SWAPPED, records().at(0).flags);
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  expect_overlay();
  EXPECT_EQ(parent, place_of(f.extent));
  EXPECT_EQ(child, place_of(f.parent)) << "freed, with the place that the other one had";
  EXPECT_EQ(1u, p_.checkpoint());
  const uint64_t free = p_.state().free_slots;
  write(v_, kBlocks, kBlocks, 9);  // takes the slot that came back, or another
  EXPECT_EQ(free - 1, p_.state().free_slots);
  expect_overlay();
  p_.commit();
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreFold, a_partial_parent_hands_on_its_own_parent) {
  overlay();
  snapshot(1, 6);
  write(v_, 8, 1, 5);
  write(v_, 30, 1, 6);
  p_.commit();
  for (const uint32_t flags : {0u, SV_FOLD_SWAP + 0u}) {
    const sv_fold f = pair_at(0, flags);
    ASSERT_EQ(1u, fold({f})) << flags;
    for (uint32_t b = 0; b < kBlocks; b++)
      ASSERT_EQ(b == 7 ? 2 : b == 8 ? 5 : b == 30 ? 6 : b == 200 ? 3 : 1, read(v_, b)) << b;
    EXPECT_EQ(1u, p_.checkpoint());
    EXPECT_EQ(flags ? 0u : 1u, p_.state().partials) << "the first time the oldest one is still below it";
  }
}

// ---- FILL ----

constexpr uint32_t fill_of(uint32_t fragments) { return SV_FOLD_FILL | fragments << SV_FOLD_FILL_SHIFT; }

TEST_F(CoreFold, fragments_are_filled_and_the_parent_stays_as_it_is) {
  overlay();
  sv_volume* s = view_of(9, 1, frozen_, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  const sv_fold f = pair_at(0, fill_of(0xffff));
  ASSERT_EQ(0, begin_folds({f}));
  EXPECT_EQ(14u + 15u, copy()) << "of fragments 0 and 12, in which it has blocks";
  EXPECT_EQ(0u, sv_fold_steps.targets(p_.pool)) << "they need no flush of their own";
  finish();
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  expect_overlay();
  const auto all = records();
  ASSERT_EQ(2u, all.size());
  for (const sv_rec& r : all) EXPECT_EQ(std::tuple(SV_REC_VALID, f.extent, f.gen), std::tuple(r.type, r.extent, r.gen));
  EXPECT_EQ(0xffffu, all[0].bits);
  EXPECT_EQ(0xffffu, all[1].bits);
  for (const sv_partial_bits& b : partials()) EXPECT_EQ(f.parent, b.parent);
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(1, read(s, b)) << b;
  EXPECT_EQ(0u, p_.state().freed_extents);
  write(v_, 1, 1, 4);
  EXPECT_EQ(1, read(s, 1));
  EXPECT_EQ(4, read(v_, 1));
  p_.commit();
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
  ASSERT_EQ(0, begin_folds({f}));
  EXPECT_EQ(0u, copy()) << "there is nothing left to fill";
  finish();
  sv_fold_steps.end(p_.pool);
}

TEST_F(CoreFold, but_for_fragments_that_were_not_asked_for) {
  overlay();
  ASSERT_EQ(0, begin_folds({pair_at(0, fill_of(1 << 12 | 1 << 5))}));
  EXPECT_EQ(15u, copy());
  finish();
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  expect_overlay();
  EXPECT_EQ(3ull << 7, partials().at(0).valid[0]);
  EXPECT_EQ(0xffffull, partials().at(0).valid[3]);
}

TEST_F(CoreFold, they_are_filled_from_whichever_ancestor_has_the_blocks) {
  write(v_, 0, 1, 1);
  write(v_, 6, 1, 1);
  for (uint32_t n = 2; n < 8; n++) {
    snapshot(1, 5 + n);
    write(v_, n, 1, n);
  }
  ASSERT_EQ(0, begin_folds({pair_at(0, fill_of(1))}));
  EXPECT_EQ(15u, copy());
  finish();
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(0xffffull, partials().at(0).valid[0] | partials().back().valid[0]);
  const int64_t want[16] = {1, 0, 2, 3, 4, 5, 6, 7};
  for (uint32_t b = 0; b < 16; b++) EXPECT_EQ(want[b], read(v_, b)) << b << ": what nobody has is zeroes";
  EXPECT_EQ(0, read(v_, 16));
}

// All of a chain in one command: each is filled from what the others had before.
TEST_F(CoreFold, extents_of_one_chain_are_filled_together) {
  overlay();
  std::vector<sv_fold> all;
  for (uint32_t n = 0; n < 5; n++) {
    if (n) snapshot(1, 10 + n), write(v_, 2 * n, 1, 50 + n);
    p_.commit();
    all.push_back(pair_at(0, fill_of(0xffff)));
  }
  EXPECT_EQ(5u, fold(all));
  for (uint32_t b = 0; b < kBlocks; b++) {
    const int64_t base = b == 7 || b == 8 ? 2 : b == 200 ? 3 : 1;
    ASSERT_EQ(b % 2 == 0 && b && b < 10 ? 50 + b / 2 : base, read(v_, b)) << b;
  }
}

TEST_F(CoreFold, a_fill_that_fails_sets_no_bit) {
  overlay();
  const auto image = p_.image();
  for (const bool read_only : {false, true}) {
    ASSERT_EQ(0, begin_folds({pair_at(0, fill_of(1))}));
    copy();
    if (!read_only) sv_fold_steps.failed(p_.pool, 0);
    else sv_pool_degrade(p_.pool, SV_MODE_READ_ONLY);
    finish();
    EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
    auto after = p_.image();
    std::get<5>(after.state) = std::get<5>(image.state);
    EXPECT_EQ(image, after);
    expect_overlay();
    EXPECT_EQ(0, sv_test_reserved(p_.pool));
  }
}

TEST_F(CoreFold, writes_to_the_extent_wait_from_begin_to_end_and_nothing_else_does) {
  uint32_t layer = 5;
  for (const uint32_t flags : {0u, SV_FOLD_SWAP + 0u, fill_of(0xffff)}) {
    SetUp();
    write(v_, 0, 2 * kBlocks, 1);
    p_.commit();
    snapshot(1, layer++);
    write(v_, 7, 1, 2);
    write(v_, kBlocks, 1, 2);
    sv_piece piece{};
    const auto held = [&] {
      EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 7, 1, &piece)) << "of a valid block";
      EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 8, 1, &piece));
      EXPECT_EQ(SV_PLAN_HELD, sv_plan_discard(v_, 0, kBlocks, false, &piece));
      EXPECT_EQ(SV_PLAN_HELD, sv_plan_discard(v_, 7, 1, true, &piece));
      EXPECT_EQ(2, read(v_, 7));
      EXPECT_EQ(1, read(v_, 9));
      write(v_, kBlocks + 9, 1, 3);
      write(w_, 0, 1, 3);
    };
    ASSERT_EQ(0, begin_folds({pair_at(0, flags)}));
    held();
    copy();
    held();
    finish();
    held();
    p_.commit();
    held();
    EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
    write(v_, 7, 1, 4);
    write(v_, 9, 1, 4);
    EXPECT_EQ(4, read(v_, 7));
    EXPECT_EQ(4, read(v_, 9));
    EXPECT_EQ(1, read(v_, 10));
    discard(v_, 0, 2 * kBlocks);
  }
}

// What was planned before is waited for by the caller; an extent whose bits are then not durable is for another time.
TEST_F(CoreFold, an_extent_that_was_just_written_is_left_alone) {
  overlay();
  const sv_fold f = pair_at(0, 0);
  sv_piece early{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 50, 1, &early));
  ASSERT_EQ(0, begin_folds({f}));
  put(early, 8);
  sv_write_done(v_, &early, true);
  EXPECT_EQ(0u, copy());
  finish();
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(8, read(v_, 50));
  EXPECT_EQ(1, read(v_, 51));
  EXPECT_EQ(1u, fold({f})) << "the next time";
  EXPECT_EQ(8, read(v_, 50));
  EXPECT_EQ(1, read(v_, 51));
}

TEST_F(CoreFold, so_is_one_whose_bits_could_not_be_made_durable) {
  overlay();
  write(v_, 60, 1, 8);
  sv_fold f = pair_at(0, 0);
  ASSERT_EQ(0, p_.command(SV_OP_FOLD, &f)) << "nothing was committed";
  EXPECT_EQ(0u, copy());
  finish();
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(8, read(v_, 60));
}

TEST_F(CoreFold, one_that_becomes_whole_meanwhile_is_left_and_written_again) {
  overlay();
  const sv_fold f = pair_at(0, SV_FOLD_SWAP);
  sv_piece early{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 0, kBlocks, &early));
  ASSERT_EQ(0, begin_folds({f}));
  put(early, 8);
  sv_write_done(v_, &early, true);
  p_.commit();  // settles it while it is held
  EXPECT_EQ(0u, copy());
  finish();
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(8, read(v_, 50));
  write(v_, 50, 1, 9);
  EXPECT_EQ(9, read(v_, 50));
  EXPECT_EQ(0u, p_.state().freed_extents) << "svd learns of it by the journal";
}

TEST_F(CoreFold, a_copy_or_a_flush_that_fails_leaves_all_as_it_was) {
  overlay();
  for (const uint32_t flags : {0u, SV_FOLD_SWAP + 0u}) {
    for (const bool flush : {false, true}) {
      const sv_fold f = pair_at(0, flags);
      const auto image = p_.image();
      ASSERT_EQ(0, begin_folds({f}));
      copy();
      if (!flush) sv_fold_steps.failed(p_.pool, 0);
      EXPECT_EQ(!flush, sv_fold_steps.targets(p_.pool) == 0);
      ASSERT_EQ(0, sv_fold_steps.finish(p_.pool, flush ? sv_fold_steps.targets(p_.pool) : 0));
      EXPECT_EQ(0u, records().size());
      EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
      EXPECT_EQ(image, p_.image());
      expect_overlay();
      write(v_, 7, 2, 2);
    }
  }
}

TEST_F(CoreFold, what_is_freed_meanwhile_stays_freed) {
  for (const uint32_t flags : {0u, SV_FOLD_SWAP + 0u}) {
    for (const int when : {0, 1}) {
      overlay();
      const sv_fold f = pair_at(0, flags);
      const sv_freed child{.extent = f.extent, .gen = f.gen, .pad = 0};
      ASSERT_EQ(0, begin_folds({f}));
      copy();
      if (when == 0) free_it(child);
      finish();
      if (when == 1) free_it(child);
      p_.commit();
      EXPECT_EQ(when == 0 ? 0u : 1u, sv_fold_steps.end(p_.pool));
      EXPECT_EQ(when == 0 ? 1u : 2u, p_.checkpoint());
      free_it({.extent = f.parent, .gen = f.parent_gen, .pad = 0});
      p_.checkpoint();
      const sv_state s = p_.state();
      EXPECT_EQ(s.total_slots, s.free_slots) << "each slot came back once";
      discard(v_, 0, kBlocks);
      p_.checkpoint();
      sv_own own{.volume = 1, .owned_since = 1, .flags = 0, .layer = 5};
      sv_volume_info drop{};
      drop.id = 1;
      ASSERT_EQ(0, p_.command(SV_OP_OWN, &own));
      ASSERT_EQ(0, p_.command(SV_OP_VOLUME_DROP, &drop));
      v_ = p_.volume(1, kExtents * SV_EXTENT_SIZE);
    }
  }
}

TEST_F(CoreFold, links_of_one_chain_go_one_after_the_other) {
  overlay();
  snapshot(1, 6);
  write(v_, 8, 1, 5);
  p_.commit();
  const sv_fold top = pair_at(0, 0);
  uint32_t oldest = 0;
  for (const sv_partial_bits& b : partials())
    if (b.extent == top.parent) oldest = b.parent;
  ASSERT_NE(0u, oldest);
  const sv_fold below{.extent = top.parent, .parent = oldest, .gen = top.parent_gen, .parent_gen = gen_of(oldest), .flags = SV_FOLD_SWAP};
  EXPECT_EQ(1u, fold({top, below})) << "the second one finds its extent taken";
  EXPECT_EQ(5, read(v_, 8));
  EXPECT_EQ(2, read(v_, 7));
  EXPECT_EQ(0u, fold({below})) << "and it is gone";
  EXPECT_EQ(1u, fold({pair_at(0, SV_FOLD_SWAP)}));
  EXPECT_EQ(5, read(v_, 8));
  EXPECT_EQ(2, read(v_, 7));
  EXPECT_EQ(1, read(v_, 6));
  EXPECT_EQ(2u, p_.checkpoint());
}

TEST_F(CoreFold, what_cannot_be_is_refused_and_changes_nothing) {
  overlay();
  const sv_fold good = pair_at(0, 0);
  const auto image = p_.image();
  const auto with = [&](auto change) {
    sv_fold f = good;
    change(f);
    return f;
  };
  for (const sv_fold& f : {with([](auto& f) { f.extent = 0; }), with([](auto& f) { f.parent = 1 << 30; }),
                           with([](auto& f) { f.parent = f.extent; }), with([](auto& f) { f.flags = SV_FOLD_SWAP | fill_of(1); }),
                           with([](auto& f) { f.flags = SV_FOLD_GROW | SV_FOLD_SWAP; }), with([](auto& f) { f.flags = 8; }),
                           with([](auto& f) { f.flags = SV_FOLD_FILL; }), with([](auto& f) { f.flags = 1 << SV_FOLD_FILL_SHIFT; })})
    EXPECT_EQ(-EINVAL, begin_folds({good, f}));
  for (const sv_fold& f : {with([](auto& f) { f.gen++; }), with([](auto& f) { f.parent_gen++; }),
                           with([](auto& f) { std::swap(f.extent, f.parent), std::swap(f.gen, f.parent_gen); })}) {
    EXPECT_EQ(0u, fold({f})) << "it is not as the caller believes";
  }
  sv_pool_degrade(p_.pool, SV_MODE_READ_ONLY);
  EXPECT_EQ(-EROFS, begin_folds({good}));
  auto after = p_.image();
  std::get<5>(after.state) = std::get<5>(image.state);
  EXPECT_EQ(image, after);
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

// So that an older svd says that the journal is a newer one's, rather than damaged.
TEST_F(CoreFold, a_batch_with_its_records_says_so) {
  overlay();
  const auto flags = [&] {
    sv_commit c{};
    EXPECT_TRUE(sv_commit_batch(p_.pool, &c));
    sv_commit_written(p_.pool, &c, sv_pool_ring_members(p_.pool));
    sv_commit_done(p_.pool);
    return le32_to_cpu(static_cast<const sv_batch_disk*>(c.buf)->flags);
  };
  ASSERT_EQ(0, begin_folds({pair_at(0, 0)}));
  copy();
  finish();
  sv_commit_all(p_.pool);
  EXPECT_EQ(SV_BATCH_FOLDS, flags());
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  discard(v_, 0, kBlocks);
  sv_commit_all(p_.pool);
  EXPECT_EQ(0u, flags());
}

TEST_F(CoreFold, one_command_at_a_time) {
  overlay();
  const sv_fold f = pair_at(0, 0);
  ASSERT_EQ(0, begin_folds({f}));
  EXPECT_EQ(-EBUSY, begin_folds({f}));
  copy();
  finish();
  p_.commit();
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
}

TEST_F(CoreFold, a_stream_without_room_is_written_first) {
  overlay();
  ASSERT_EQ(0, begin_folds({pair_at(0, 0)}));
  copy();
  std::vector<uint8_t> rec(sizeof(sv_rec_small));
  sv_put_small(rec.data(), SV_REC_OWN, 0, 0, 2, 1);
  sv_lock_flags_t flags;
  sv_lock(&p_.pool->lock, flags);
  while (sv_stream_room(p_.pool, sizeof(sv_rec_small))) sv_stream_append(p_.pool, rec.data(), sizeof(sv_rec_small));
  sv_unlock(&p_.pool->lock, flags);
  EXPECT_EQ(-EAGAIN, sv_fold_steps.finish(p_.pool, 0));
  p_.commit();
  finish();
  p_.commit();
  EXPECT_EQ(1u, sv_fold_steps.end(p_.pool));
  expect_overlay();
}

TEST_F(CoreFold, a_pool_that_fails_meanwhile_lets_go) {
  overlay();
  ASSERT_EQ(0, begin_folds({pair_at(0, 0)}));
  copy();
  sv_pool_degrade(p_.pool, SV_MODE_FAIL);
  finish();
  EXPECT_EQ(0u, sv_fold_steps.end(p_.pool));
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

// A snapshot waits for the member that an extent has moved to.
TEST_F(CoreFold, a_snapshot_waits_for_writes_where_the_extent_is_now) {
  write(v_, 0, 1, 1);
  const uint32_t first = place_of(extent_at(1, 0)).first;
  p_.commit();
  snapshot(1, 5);
  sv_volume_info info{};
  v_->tiers = first == 0 ? 0xffffffffffffff01 : 0xffffffffffffff00;
  write(v_, 7, 1, 2);
  ASSERT_NE(first, place_of(extent_at(1, 0)).first);
  ASSERT_EQ(1u, fold({pair_at(0, SV_FOLD_SWAP)}));
  ASSERT_EQ(first, place_of(extent_at(1, 0)).first);
  sv_volume_get_info(v_, &info);
  ASSERT_EQ(0, begin({{.volume = 1, .layer = info.layer + 1, .job = 1}}));
  uint64_t members = 0;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  EXPECT_TRUE(members >> first & 1);
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
}

// ---- at random ----

using Contents = std::map<uint64_t, int64_t>;

class FoldRun : public CoreFold {
 protected:
  void step(uint64_t n) {
    auto it = expected_.begin();
    std::advance(it, static_cast<long>(r_() % expected_.size()));
    const uint64_t dice = r_() % 100;
    if (dice < 60) some_write(it->first, it->second, static_cast<int64_t>(n + 1));
    else if (dice < 66) some_discard(it->first, it->second, r_() % 2);
    else if (dice < 72) take(it->first, it->second);
    else if (dice < 74) clone();
    else if (dice < 82) remove();
    else if (dice < 95) fold_some();
    else p_.checkpoint();
  }

  void check_reads(uint64_t step) {
    for (int i = 0; i < 8; i++) {
      auto& all = !frozen_views_.empty() && r_() % 2 ? frozen_views_ : expected_;
      auto seen = all.begin();
      std::advance(seen, static_cast<long>(r_() % all.size()));
      const uint64_t at = r_() % (3 * kBlocks);
      const auto want = seen->second.find(at);
      ASSERT_EQ(want == seen->second.end() ? 0 : want->second, read(sv_volume_find(p_.pool, seen->first), at))
          << "step " << step << " volume " << seen->first << " block " << at;
    }
  }

  void settle() {
    for (int i = 0; i < 30; i++) fold_all(false), p_.checkpoint();
    EXPECT_EQ(0u, orphans().size());
    p_.commit();
    EXPECT_EQ(0, sv_test_reserved(p_.pool));
  }

  uint64_t folded_ = 0, swapped_ = 0, filled_ = 0;
  std::map<uint32_t, Contents> expected_{{1, {}}, {2, {}}};

 private:
  void some_write(uint32_t id, Contents& contents, int64_t value) {
    uint64_t block = r_() % (3 * kBlocks);
    uint32_t n = 1 + static_cast<uint32_t>(r_() % (r_() % 4 ? 4 : 100));
    if (r_() % 8 == 0) block -= block % kBlocks, n = kBlocks;
    n = std::min<uint32_t>(n, kBlocks - static_cast<uint32_t>(block % kBlocks));
    write(sv_volume_find(p_.pool, id), block, n, value);
    for (uint32_t i = 0; i < n; i++) contents[block + i] = value;
  }

  void some_discard(uint32_t id, Contents& contents, bool zeroes) {
    const uint64_t block = r_() % 3 * kBlocks;
    discard(sv_volume_find(p_.pool, id), block, kBlocks, zeroes);
    for (uint32_t i = 0; i < kBlocks; i++) contents.erase(block + i);
  }

  void take(uint32_t id, const Contents& contents) {
    if (frozen_views_.size() > 6) return;
    const auto map = flat(id);
    sv_volume_info info;
    sv_volume_get_info(sv_volume_find(p_.pool, id), &info);
    snapshot(id, next_layer_++);
    view_of(next_id_, info.layer, map, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
    frozen_views_[next_id_++] = contents;
  }

  void clone() {
    if (frozen_views_.empty() || expected_.size() > 3) return;
    auto from = frozen_views_.begin();
    std::advance(from, static_cast<long>(r_() % frozen_views_.size()));
    view_of(next_id_, next_layer_++, flat(from->first), SV_VOLUME_CHAINED);
    expected_[next_id_++] = from->second;
  }

  // A snapshot, or a clone. What only they needed is freed, or lives on as an orphan.
  void remove() {
    auto& all = r_() % 4 ? frozen_views_ : expected_;
    if (all.size() < (&all == &expected_ ? 3u : 1u)) return;
    auto gone = all.begin();
    std::advance(gone, static_cast<long>(r_() % all.size()));
    if (gone->first <= 2) return;
    p_.commit();
    sv_volume_info drop{};
    drop.id = gone->first;
    ASSERT_EQ(0, p_.command(SV_OP_VOLUME_DROP, &drop));
    all.erase(gone);
    free_unneeded();
  }

  std::set<uint32_t> mapped() {
    std::set<uint32_t> all;
    for (auto* views : {&expected_, &frozen_views_})
      for (auto& [id, contents] : *views)
        for (const sv_map_entry& e : flat(id)) all.insert(e.extent);
    return all;
  }

  // svd's part: by the whole state. A whole extent needs no parent.
  void free_unneeded() {
    for (bool again = true; again;) {
      again = false;
      std::set<uint32_t> needed = mapped();
      for (const sv_partial_bits& b : partials()) needed.insert(b.parent);
      for (const sv_extent& e : extents()) {
        if ((e.flags & SV_EXTENT_FREED) || needed.count(e.extent)) continue;
        sv_freed f{.extent = e.extent, .gen = e.gen, .pad = 0};
        ASSERT_EQ(0, p_.command(SV_OP_FREE, &f));
        again = true;
      }
    }
  }

  // Pairs of which nothing else needs the parent.
  std::vector<sv_fold> orphans() {
    const std::set<uint32_t> needed = mapped();
    std::map<uint32_t, int> children;
    for (const sv_partial_bits& b : partials()) children[b.parent]++;
    std::vector<sv_fold> all;
    for (const sv_partial_bits& b : partials())
      if (b.parent && !needed.count(b.parent) && children[b.parent] == 1)
        all.push_back({.extent = b.extent, .parent = b.parent, .gen = gen_of(b.extent), .parent_gen = gen_of(b.parent), .flags = 0});
    return all;
  }

  void fold_some() {
    if (r_() % 4) return fold_all(r_() % 2);
    std::vector<sv_fold> fills;
    for (const sv_partial_bits& b : partials())
      if (b.parent && r_() % 3 == 0)
        fills.push_back({.extent = b.extent, .parent = b.parent, .gen = gen_of(b.extent), .parent_gen = gen_of(b.parent),
                         .flags = fill_of(1 + static_cast<uint32_t>(r_() % 0xffff))});
    if (fills.empty()) return;
    filled_ += fold(fills);
    free_unneeded();
  }

  void fold_all(bool some) {
    p_.commit();
    free_unneeded();
    std::vector<sv_fold> pairs;
    for (sv_fold f : orphans()) {
      if (some && r_() % 2) continue;
      f.flags = r_() % 2 ? SV_FOLD_SWAP : 0;
      swapped_ += f.flags;
      pairs.push_back(f);
    }
    if (!pairs.empty()) folded_ += fold(pairs);
    free_unneeded();
  }

  std::mt19937_64 r_{5};
  std::map<uint32_t, Contents> frozen_views_;
  uint32_t next_layer_ = 100, next_id_ = 10;
};

TEST_F(FoldRun, random_histories_read_as_plain_copies_would) {
  const char* e = getenv("SV_FOLD_STEPS");
  const uint64_t steps = e ? strtoull(e, nullptr, 10) : 6000;
  for (uint64_t n = 0; n < steps && !HasFailure(); n++) {
    step(n);
    check_reads(n);
  }
  settle();
  EXPECT_GT(folded_, steps / 40);
  EXPECT_GT(swapped_, steps / 80);
  EXPECT_GT(filled_, steps / 100);
}

}  // namespace

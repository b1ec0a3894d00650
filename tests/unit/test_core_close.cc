// SPDX-License-Identifier: GPL-2.0
// CLOSE in kmod/core: nothing new gets onto a closed member, by whatever way, what lies there can be written to and moved
// off, and the pool's space is that of the others until the member is open again.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <random>
#include <set>
#include <vector>

#include "tests/support/core_volumes.h"

namespace {

using sv::test::kBlocks;
using sv::test::kExtents;

constexpr uint32_t kFrag = SV_FRAG_BLOCKS;

class CoreClose : public sv::test::CoreVolumes {
 protected:
  int close(uint32_t member, uint32_t closed = 1) {
    sv_close c{.member = member, .closed = closed};
    return p_.command(SV_OP_CLOSE, &c);
  }

  uint64_t word(uint64_t index, uint32_t volume = 1) { return *sv_xt_word(p_.pool, extent_at(volume, index)); }
  uint32_t member_at(uint64_t index, uint32_t volume = 1) { return sv_xw_member(word(index, volume)); }

  uint32_t move(uint64_t index, uint8_t member, uint8_t flags = 0) {
    p_.commit();
    sv_move m{.extent = extent_at(1, index), .gen = sv_xw_gen(word(index)), .member = member, .flags = flags};
    EXPECT_EQ(0, p_.command(SV_OP_MOVE, &m));
    sv_copy_run c;
    while (sv_move_steps.next(p_.pool, &c))
      for (uint32_t i = 0; i < c.blocks; i++) disk_[{c.to, c.to_sector + i * 8}] = disk_.at({c.from, c.from_sector + i * 8});
    sv_move_steps.hold(p_.pool);
    EXPECT_EQ(0, sv_move_steps.finish(p_.pool, 0));
    p_.commit();
    return sv_move_steps.end(p_.pool);
  }

  // Slots and 16ths of slots that anything lies in.
  std::set<std::pair<uint32_t, uint32_t>> taken(uint32_t member) {
    std::set<std::pair<uint32_t, uint32_t>> all;
    const sv_member* m = p_.pool->members[member];
    for (uint32_t slot = 0; slot < m->g.nr_slots; slot++) {
      const sv_fragged* page = m->frags[slot / SV_FRAGGED];
      const uint32_t frags = page && page->of[slot % SV_FRAGGED] ? page->of[slot % SV_FRAGGED] : 0xffff;
      for (uint32_t i = 0; sv_bit(m->live, slot) && i < SV_FRAGS; i++)
        if (frags >> i & 1) all.insert({slot, i});
    }
    return all;
  }
};

TEST_F(CoreClose, new_extents_go_elsewhere_and_old_ones_are_overwritten_in_place) {
  write(v_, 0, 2 * kBlocks, 1);
  ASSERT_EQ(0u, member_at(0)) << "by rank";
  ASSERT_EQ(0, close(0));
  write(v_, 2 * kBlocks, kBlocks, 2);
  EXPECT_EQ(1u, member_at(2)) << "a stream, too";
  write(w_, 0, 1, 3);
  EXPECT_EQ(1u, member_at(0, 2));
  write(v_, 5, 1, 4);
  EXPECT_EQ(0u, member_at(0));
  EXPECT_EQ(4, read(v_, 5));
  ASSERT_EQ(0, close(0, 0));
  write(w_, kBlocks, 1, 5);
  EXPECT_EQ(0u, member_at(1, 2));
}

TEST_F(CoreClose, no_class_of_writes_gets_in) {
  ASSERT_EQ(0, close(0));
  uint64_t index = 0;
  for (const sv_write_class c : {SV_WRITE_NORMAL, SV_WRITE_FUA, SV_WRITE_META}) {
    sv_piece piece{};
    ASSERT_EQ(SV_PLAN_REMAP, sv_plan_write(v_, index++ * kBlocks, 1, c, &piece));
    EXPECT_EQ(1u, piece.member);
    sv_write_done(v_, &piece, true);
  }
}

TEST_F(CoreClose, fragments_go_elsewhere_and_gaps_stay) {
  fragments();
  write(v_, 3, 1, 1);
  ASSERT_TRUE(word(0) & SV_XW_FRAGS);
  ASSERT_EQ(0u, member_at(0));
  const auto before = taken(0);
  ASSERT_EQ(0, close(0));
  write(v_, kBlocks + 3, 1, 2);  // the gap in the other's slot is not filled
  EXPECT_EQ(1u, member_at(1));
  const uint32_t old = extent_at(1, 0);
  write(v_, 5 * kFrag, 1, 3);  // nor does the extent get one more: another one comes over it
  EXPECT_NE(old, extent_at(1, 0));
  EXPECT_EQ(1u, member_at(0));
  EXPECT_EQ(1, read(v_, 3));
  EXPECT_EQ(3, read(v_, 5 * kFrag));
  EXPECT_EQ(before, taken(0));
  ASSERT_EQ(0, close(0, 0));
  write(w_, 3, 1, 4);
  EXPECT_EQ(0u, member_at(0, 2));
  EXPECT_EQ(before.size() + 1, taken(0).size()) << "the gap";
}

TEST_F(CoreClose, its_slots_do_not_count_until_it_is_open) {
  const auto all = p_.state();
  write(v_, 0, 3 * kBlocks, 1);
  const uint64_t reserve = p_.pool->reserve;
  ASSERT_EQ(0, close(0));
  EXPECT_EQ(all.total_slots - 400, p_.state().total_slots);
  EXPECT_EQ(400u, p_.state().free_slots);
  EXPECT_EQ(sv_reserve_for(400), p_.pool->reserve);
  ASSERT_EQ(0, close(0)) << "once more changes nothing";
  EXPECT_EQ(400u, p_.state().free_slots);
  discard(v_, 0, kBlocks);
  EXPECT_EQ(1u, p_.checkpoint());
  EXPECT_EQ(400u, p_.state().free_slots) << "what comes back there is nobody's";
  std::array<sv_member_state, 2> members{};
  uint32_t n = 0;
  ASSERT_EQ(0, p_.command(SV_OP_MEMBERS, members.data(), 2, &n));
  EXPECT_TRUE(members[0].flags & SV_MEMBER_CLOSED);
  EXPECT_FALSE(members[1].flags & SV_MEMBER_CLOSED);
  EXPECT_EQ(398u, members[0].free_slots);
  ASSERT_EQ(0, close(0, 0));
  EXPECT_EQ(all.total_slots, p_.state().total_slots);
  EXPECT_EQ(all.free_slots - 2, p_.state().free_slots);
  EXPECT_EQ(reserve, p_.pool->reserve);
}

TEST_F(CoreClose, pool_is_full_when_the_others_are) {
  ASSERT_EQ(0, close(1));
  for (uint32_t taken = 0; taken < 400 - sv_reserve_for(400); taken++) {
    EXPECT_EQ(static_cast<uint32_t>(SV_MODE_WRITE), sv_pool_mode(p_.pool));
    sv_lock_flags_t f;
    uint32_t slot = 0;
    sv_lock(&p_.pool->lock, f);
    ASSERT_TRUE(sv_slot_on(p_.pool, 0, SV_WRITE_NORMAL, &slot));
    sv_unlock(&p_.pool->lock, f);
  }
  EXPECT_EQ(static_cast<uint32_t>(SV_MODE_OUT_OF_SPACE), sv_pool_mode(p_.pool));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_NOSPC, plan_write(v_, 0, 1, &piece));
  ASSERT_EQ(0, close(1, 0));
  EXPECT_EQ(static_cast<uint32_t>(SV_MODE_WRITE), sv_pool_mode(p_.pool));
  write(v_, 0, 1, 1);
  EXPECT_EQ(1, read(v_, 0));
}

TEST_F(CoreClose, extents_move_off_and_not_on) {
  fragments();
  write(v_, 0, kBlocks, 1);
  write(v_, kBlocks + 3, 1, 2);
  ASSERT_TRUE(word(1) & SV_XW_FRAGS);
  ASSERT_EQ(0, close(1));
  EXPECT_EQ(0u, move(0, 1));
  EXPECT_EQ(0u, move(1, 1, SV_MOVE_FRAGS));
  EXPECT_TRUE(taken(1).empty());
  ASSERT_EQ(0, close(1, 0));
  ASSERT_EQ(0, close(0));
  EXPECT_EQ(1u, move(0, 1));
  EXPECT_EQ(1u, move(1, 1, SV_MOVE_FRAGS));
  EXPECT_EQ(1u, member_at(0));
  EXPECT_EQ(1u, member_at(1));
  EXPECT_EQ(1, read(v_, 7));
  EXPECT_EQ(2, read(v_, kBlocks + 3));
  p_.checkpoint();
  EXPECT_TRUE(taken(0).empty()) << "it can be taken out";
}

TEST_F(CoreClose, nothing_is_folded_into_its_space) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  snapshot(1, 5);
  const uint32_t base = extent_at(1, 0);
  ASSERT_EQ(0, close(0));
  write(v_, 9, 1, 2);
  const uint32_t child = extent_at(1, 0);
  ASSERT_EQ(1u, member_at(0));
  p_.commit();
  const auto fold = [&](uint32_t flags, const std::function<void()>& meanwhile) {
    sv_fold f{.extent = child, .parent = base, .gen = sv_xw_gen(*sv_xt_word(p_.pool, child)), .parent_gen = sv_xw_gen(*sv_xt_word(p_.pool, base)), .flags = flags};
    EXPECT_EQ(0, p_.command(SV_OP_FOLD, &f));
    copy();
    meanwhile();
    EXPECT_EQ(0, sv_fold_steps.finish(p_.pool, 0));
    p_.commit();
    return sv_fold_steps.end(p_.pool);
  };
  EXPECT_EQ(0u, fold(SV_FOLD_SWAP, [] {})) << "into the slot of what is below";
  ASSERT_EQ(0, close(0, 0));
  EXPECT_EQ(0u, fold(SV_FOLD_SWAP, [&] { ASSERT_EQ(0, close(0)); })) << "closed meanwhile";
  EXPECT_EQ(1u, member_at(0));
  EXPECT_EQ(1u, fold(0, [] {})) << "the other way round";
  EXPECT_EQ(1u, member_at(0));
  EXPECT_EQ(std::pair(int64_t{2}, int64_t{1}), std::pair(read(v_, 9), read(v_, 10)));
}

TEST_F(CoreClose, a_move_ends_where_it_was_if_its_target_is_closed_meanwhile) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  sv_move m{.extent = extent_at(1, 0), .gen = sv_xw_gen(word(0)), .member = 1, .flags = 0};
  ASSERT_EQ(0, p_.command(SV_OP_MOVE, &m));
  for (sv_copy_run c{}; sv_move_steps.next(p_.pool, &c);) continue;
  ASSERT_EQ(0, close(1));
  sv_move_steps.hold(p_.pool);
  EXPECT_EQ(0, sv_move_steps.finish(p_.pool, 0));
  EXPECT_EQ(0u, sv_move_steps.end(p_.pool));
  EXPECT_EQ(0u, member_at(0));
  EXPECT_TRUE(taken(1).empty());
}

// A free slot is owed a number and a cell (frag.c), also while nobody may take it.
TEST_F(CoreClose, what_is_owed_to_its_slots_nobody_else_takes) {
  fragments();
  ASSERT_EQ(0, close(1));
  std::vector<sv_volume*> more;
  for (uint32_t id = 3; p_.pool->numbers_free > p_.pool->free_slots + 1 || sv_pool_more_numbers(p_.pool); id++) {
    ASSERT_LT(id, 3000u);
    sv_volume* v = p_.volume(id, kExtents * SV_EXTENT_SIZE);
    for (uint64_t i = 0; i < kExtents; i++) {
      sv_piece piece{};
      if (plan_write(v, i * kBlocks + 3, 1, &piece) != SV_PLAN_REMAP) break;
      put(piece, 1);
      sv_write_done(v, &piece, true);
    }
    p_.checkpoint();
    if (!sv_slots_left(p_.pool, SV_WRITE_NORMAL)) break;
  }
  EXPECT_GE(p_.pool->numbers_free, p_.pool->free_slots);
}

TEST_F(CoreClose, what_makes_no_sense_changes_nothing) {
  EXPECT_EQ(-EINVAL, close(2));
  EXPECT_EQ(-EINVAL, close(~0u));
  EXPECT_EQ(-EINVAL, close(0, 2));
  EXPECT_EQ(800u, p_.state().free_slots);
}

TEST_F(CoreClose, nothing_gets_in_whatever_is_done) {
  fragments();
  std::mt19937_64 r(7);
  std::set<std::pair<uint32_t, uint32_t>> before;
  for (uint32_t layer = 5, i = 0; i < 300; i++) {
    const uint64_t block = r() % (kExtents * kBlocks - 1);
    const uint64_t room = kExtents * kBlocks - block;
    write(r() % 2 ? v_ : w_, block, static_cast<uint32_t>(std::min<uint64_t>(room, r() % 3 ? 1 : 1 + r() % kBlocks)), static_cast<int64_t>(i));
    if (i == 100) {
      ASSERT_EQ(0, close(0));
      before = taken(0);
    }
    if (r() % 16 == 0) p_.commit(), snapshot(1, layer++);
    if (r() % 8 == 0) p_.checkpoint();
    if (i <= 100) continue;
    for (const auto& place : taken(0)) ASSERT_TRUE(before.contains(place)) << "slot " << place.first << ", 16th " << place.second;
  }
}

}  // namespace

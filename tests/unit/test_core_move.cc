// SPDX-License-Identifier: GPL-2.0
// MOVE in kmod/core: what gets where, who waits, what makes it leave an extent where it is, and what it leaves behind. Random
// runs with crashes are in test_core_crash.cc.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <set>
#include <vector>

#include "tests/support/core_volumes.h"

namespace {

using sv::test::kBlocks;
using sv::test::Place;

class CoreMove : public sv::test::CoreVolumes {
 protected:
  uint16_t gen_of(uint32_t extent) { return sv_xw_gen(*sv_xt_word(p_.pool, extent)); }

  sv_move to(uint8_t member, uint64_t index = 0, uint8_t flags = 0, uint32_t volume = 1) {
    const uint32_t extent = extent_at(volume, index);
    return {.extent = extent, .gen = gen_of(extent), .member = member, .flags = flags};
  }

  uint32_t member_at(uint64_t index, uint32_t volume = 1) { return sv_xw_member(*sv_xt_word(p_.pool, extent_at(volume, index))); }

  int begin_moves(std::vector<sv_move> moves) {
    p_.commit();
    return p_.command(SV_OP_MOVE, moves.data(), static_cast<uint32_t>(moves.size()));
  }

  uint64_t copy_all() {
    sv_copy_run c;
    uint64_t blocks = 0;
    while (sv_move_steps.next(p_.pool, &c)) {
      for (uint32_t i = 0; i < c.blocks; i++) disk_[{c.to, c.to_sector + i * 8}] = disk_.at({c.from, c.from_sector + i * 8});
      blocks += c.blocks;
    }
    return blocks;
  }

  uint32_t end_moves(uint64_t not_flushed = 0) {
    sv_move_steps.hold(p_.pool);
    EXPECT_EQ(0, sv_move_steps.finish(p_.pool, not_flushed));
    p_.commit();
    return sv_move_steps.end(p_.pool);
  }

  uint32_t move(std::vector<sv_move> moves) {
    EXPECT_EQ(0, begin_moves(std::move(moves)));
    copy_all();
    return end_moves();
  }

  void expect_nothing_held(uint64_t index = 0) {
    EXPECT_FALSE(*sv_xt_word(p_.pool, extent_at(1, index)) & (SV_XW_HOLD | SV_XW_MOVING));
    write(v_, index * kBlocks + 5, 1, 77);
    EXPECT_EQ(77, read(v_, index * kBlocks + 5));
  }

  uint64_t free_slots() { return p_.state().free_slots; }
};

TEST_F(CoreMove, a_whole_extent_gets_another_members_slot) {
  write(v_, 0, kBlocks, 1);
  write(v_, 9, 1, 2);
  const uint64_t free = free_slots();
  ASSERT_EQ(0, begin_moves({to(1)}));
  EXPECT_EQ(kBlocks, copy_all());
  EXPECT_EQ(1ull << 1, sv_move_steps.targets(p_.pool));
  EXPECT_EQ(1ull << 0, sv_move_steps.hold(p_.pool)) << "writes there are waited for";
  ASSERT_EQ(0, sv_move_steps.finish(p_.pool, 0));
  const auto all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_EQ(SV_REC_MOVE, all[0].type);
  EXPECT_EQ(std::tuple(1u, 0ull), std::tuple(all[0].member, all[0].arg));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 3, 1, &piece)) << "until the record is durable";
  EXPECT_EQ(1u, sv_move_steps.end(p_.pool));
  EXPECT_EQ(1u, member_at(0));
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(b == 9 ? 2 : 1, read(v_, b));
  expect_nothing_held();
  EXPECT_EQ(free - 1, free_slots());
  EXPECT_EQ(1u, p_.checkpoint()) << "the old slot comes back under a number of its own";
  EXPECT_EQ(free, free_slots());
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreMove, a_partial_extent_takes_along_what_is_valid_and_its_parent) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  const auto frozen = flat(1);
  snapshot(1, 5);
  write(v_, 7, 2, 2);
  write(v_, 200, 1, 3);
  ASSERT_EQ(0, begin_moves({to(1)}));
  EXPECT_EQ(3u, copy_all());
  EXPECT_EQ(1u, end_moves());
  EXPECT_EQ(1u, member_at(0));
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(b == 7 || b == 8 ? 2 : b == 200 ? 3 : 1, read(v_, b)) << b;
  // What the snapshot shows is moved as well, under the one that names it as parent.
  sv_volume* view = view_of(9, 1, frozen, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  EXPECT_EQ(1u, move({to(1, 0, 0, 9)}));
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(1, read(view, b));
  for (uint32_t b = 0; b < kBlocks; b++) ASSERT_EQ(b == 7 || b == 8 ? 2 : b == 200 ? 3 : 1, read(v_, b)) << b;
  write(v_, 20, 1, 4);
  EXPECT_EQ(4, read(v_, 20));
  EXPECT_EQ(1, read(view, 20));
  p_.commit();
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreMove, an_extent_with_fragments_gets_a_slot) {
  fragments();
  write(v_, 3, 1, 1);
  write(v_, 40, 20, 2);
  ASSERT_TRUE(*sv_xt_word(p_.pool, extent_at(1, 0)) & SV_XW_FRAGS);
  const uint64_t free = free_slots();
  ASSERT_EQ(0, begin_moves({to(1)}));
  EXPECT_EQ(21u, copy_all());
  EXPECT_EQ(1u, end_moves());
  EXPECT_FALSE(*sv_xt_word(p_.pool, extent_at(1, 0)) & SV_XW_FRAGS);
  EXPECT_EQ(std::tuple(1, 0, 2, 0), std::tuple(read(v_, 3), read(v_, 4), read(v_, 50), read(v_, 60)));
  expect_nothing_held();
  p_.checkpoint();
  EXPECT_EQ(free, free_slots()) << "a slot was taken, and the one that had the fragments is empty";
}

TEST_F(CoreMove, an_extent_keeps_its_fragments_if_it_is_asked_to) {
  fragments();
  for (const uint64_t index : {1, 2, 3}) write(v_, index * kBlocks + 3, 1, 7);
  write(w_, 3, 1, 8);
  for (const uint32_t f : {0, 4, 2}) write(v_, f * SV_FRAG_BLOCKS + 3, 5, f + 1);
  const uint64_t free = free_slots();
  ASSERT_EQ(0, begin_moves({to(1, 0, SV_MOVE_FRAGS), to(1, 1, SV_MOVE_FRAGS), to(1, 0, SV_MOVE_FRAGS, 2)}));
  EXPECT_EQ(17u, copy_all());
  sv_move_steps.hold(p_.pool);
  ASSERT_EQ(0, sv_move_steps.finish(p_.pool, 0));
  const auto all = records();
  ASSERT_EQ(3u, all.size());
  EXPECT_EQ(std::tuple(1u, 1u, 0x15ull), std::tuple(all[0].member, all[0].slot, all[0].arg)) << "from the first place on";
  EXPECT_EQ(std::tuple(1u, 4u, 1ull), std::tuple(all[1].member, all[1].slot, all[1].arg));
  EXPECT_EQ(3u, sv_move_steps.end(p_.pool));
  const uint64_t word = *sv_xt_word(p_.pool, extent_at(1, 0));
  EXPECT_TRUE(word & SV_XW_FRAGS && word & SV_XW_PARTIAL);
  EXPECT_EQ(1u, member_at(0));
  for (const int64_t f : {0, 2, 4}) EXPECT_EQ(std::pair(f + 1, int64_t{0}), std::pair(read(v_, f * SV_FRAG_BLOCKS + 3), read(v_, f * SV_FRAG_BLOCKS + 9)));
  EXPECT_EQ(7, read(v_, kBlocks + 3));
  EXPECT_EQ(8, read(w_, 3));
  p_.checkpoint();
  EXPECT_EQ(free - 1, free_slots()) << "one slot has the fragments of all three; the other one still has those of two";
  write(v_, 6 * SV_FRAG_BLOCKS, 1, 9);
  EXPECT_EQ(1u, member_at(0));
  EXPECT_EQ(9, read(v_, 6 * SV_FRAG_BLOCKS));
  expect_nothing_held();
  EXPECT_EQ(2u, move({to(1, 2, SV_MOVE_FRAGS), to(1, 3, SV_MOVE_FRAGS)}));
  p_.checkpoint();
  EXPECT_EQ(free, free_slots());
}

// They are not torn apart: a gap that is too small is left for others.
TEST_F(CoreMove, fragments_lie_in_one_slot) {
  fragments();
  const auto scatter = [&](sv_volume* v, uint64_t index, uint32_t count, int64_t value) {
    for (uint32_t f = 0; f < count; f++) write(v, index * kBlocks + f * SV_FRAG_BLOCKS + 3, 1, value);
  };
  for (uint64_t index = 0; index < 3; index++) scatter(v_, index, 6, static_cast<int64_t>(index) + 1);
  scatter(v_, 3, 3, 4);
  EXPECT_EQ(4u, move({to(1, 0, SV_MOVE_FRAGS), to(1, 1, SV_MOVE_FRAGS), to(1, 2, SV_MOVE_FRAGS), to(1, 3, SV_MOVE_FRAGS)}));
  const auto slot_of = [&](uint64_t index) {
    return (sv_places_of(p_.pool, sv_partial_at(p_.pool, sv_xw_where(*sv_xt_word(p_.pool, extent_at(1, index)))))->at[0] - 1) / SV_FRAGS;
  };
  EXPECT_EQ(slot_of(0), slot_of(1));
  EXPECT_NE(slot_of(0), slot_of(2)) << "4 are left";
  EXPECT_EQ(slot_of(0), slot_of(3));
  for (uint64_t index = 0; index < 3; index++) EXPECT_EQ(static_cast<int64_t>(index) + 1, read(v_, index * kBlocks + 5 * SV_FRAG_BLOCKS + 3));
  EXPECT_EQ(4, read(v_, 3 * kBlocks + 2 * SV_FRAG_BLOCKS + 3));
}

// What is left of a slot is too small for another one, and there are ever more such slots.
TEST_F(CoreMove, slots_are_filled_as_far_as_fragments_fit) {
  fragments();
  std::vector<sv_move> all;
  for (sv_volume* v : {v_, w_})
    for (uint64_t index = 0; index < sv::test::kExtents; index++)
      for (uint32_t f = 0; f < 3; f++) write(v, index * kBlocks + f * SV_FRAG_BLOCKS + 3, 1, 1);
  for (uint32_t volume : {1, 2})
    for (uint64_t index = 0; index < sv::test::kExtents; index++) all.push_back(to(1, index, SV_MOVE_FRAGS, volume));
  const uint32_t before = p_.pool->members[1]->free;
  EXPECT_EQ(16u, move(all));
  EXPECT_EQ(4u, before - p_.pool->members[1]->free) << "5 of 3 in each";
  write(v_, 6 * SV_FRAG_BLOCKS, 1, 2);
  EXPECT_EQ(4u, before - p_.pool->members[1]->free) << "single ones fill what is left";
}

TEST_F(CoreMove, fragments_leave_the_numbers_that_slots_are_owed) {
  fragments();
  for (uint64_t index : {0, 1}) write(v_, index * kBlocks + 3, 1, 1);
  ASSERT_EQ(1u, move({to(1, 0, SV_MOVE_FRAGS)}));
  const uint32_t numbers = p_.pool->numbers_free;
  ASSERT_EQ(0, begin_moves({to(1, 1, SV_MOVE_FRAGS)}));
  copy_all();
  p_.pool->numbers_free = static_cast<uint32_t>(p_.pool->free_slots);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(0u, member_at(1));
  p_.pool->numbers_free = numbers;
  EXPECT_EQ(1u, move({to(1, 1, SV_MOVE_FRAGS)}));
}

TEST_F(CoreMove, places_of_what_is_written_meanwhile_are_given_back) {
  fragments();
  write(v_, 3, 1, 1);
  const uint64_t free = free_slots();
  ASSERT_EQ(0, begin_moves({to(1, 0, SV_MOVE_FRAGS)}));
  copy_all();
  EXPECT_EQ(free - 1, free_slots());
  write(v_, 3 * SV_FRAG_BLOCKS, 1, 2);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(free, free_slots());
  EXPECT_EQ(std::tuple(1, 2), std::tuple(read(v_, 3), read(v_, 3 * SV_FRAG_BLOCKS)));
  expect_nothing_held();
}

// What it has is overwritten where it is, by way of the one that lies over it.
TEST_F(CoreMove, what_is_overwritten_meanwhile_in_an_outgrown_extent_stays) {
  fragments();
  for (uint32_t i = 0; i <= SV_FRAGS_MAX; i++) write(v_, i * SV_FRAG_BLOCKS, 1, 1);
  p_.commit();
  const uint32_t old = sv_partial_at(p_.pool, sv_xw_where(*sv_xt_word(p_.pool, extent_at(1, 0))))->parent;
  ASSERT_NE(0u, old);
  const sv_move m{.extent = old, .gen = gen_of(old), .member = 1, .flags = 0};
  ASSERT_EQ(0, begin_moves({m}));
  EXPECT_EQ(SV_FRAGS_MAX, copy_all());
  write(v_, 0, 1, 5);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(5, read(v_, 0));
  EXPECT_EQ(1u, move({m})) << "if nothing is written to it";
  EXPECT_EQ(std::tuple(5, 1, 0), std::tuple(read(v_, 0), read(v_, SV_FRAG_BLOCKS), read(v_, 1)));
  expect_nothing_held();
}

// What happens while it is copied, and must leave it where it is.
TEST_F(CoreMove, what_is_written_meanwhile_stays) {
  const std::function<void()> kinds[] = {
      [&] { write(v_, 9, 1, 5); },
      [&] { discard(v_, 9, 1); },
      [&] { discard(v_, 0, kBlocks), write(v_, 0, kBlocks, 6); },
      [&] { write(v_, 250, 12, 5); },  // and the next one
      [&] {                            // planned, and not ended when writes are to wait
        sv_piece piece{};
        ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 9, 1, &piece));
        put(piece, 5);
      },
  };
  for (const auto& kind : kinds) {
    write(v_, 0, 2 * kBlocks, 1);
    const uint64_t free = free_slots();
    ASSERT_EQ(0, begin_moves({to(1)}));
    copy_all();
    kind();
    EXPECT_EQ(0u, end_moves());
    EXPECT_EQ(0u, member_at(0));
    p_.checkpoint();
    EXPECT_EQ(free, free_slots()) << "the slot that it should have had is given back";
    expect_nothing_held();
  }
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreMove, a_write_that_goes_on_into_it_is_noticed) {
  write(v_, 0, 2 * kBlocks, 1);
  p_.commit();
  ASSERT_EQ(0, begin_moves({to(1, 1)}));
  copy_all();
  write(v_, 250, 12, 5);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(5, read(v_, 260));
}

// The snapshot below goes just when a write to what it had has looked that up: now it is a write in place.
TEST_F(CoreMove, a_fragment_that_is_added_to_what_became_its_own_is_noticed) {
  fragments();
  write(v_, 3, 1, 1);
  p_.commit();
  snapshot(1, 5);
  const uint32_t extent = extent_at(1, 0);
  ASSERT_EQ(0, begin_moves({to(1)}));
  copy_all();
  static sv::test::CorePool* pool;
  pool = &p_;
  sv_other_cpu = [](sv_lock_t*) {
    sv_other_cpu = nullptr;
    sv_own own{.volume = 1, .owned_since = 1, .flags = 0, .layer = 5};
    EXPECT_EQ(0, pool->command(SV_OP_OWN, &own));
  };
  write(v_, 40, 1, 2);
  EXPECT_EQ(nullptr, sv_other_cpu);
  EXPECT_EQ(extent, extent_at(1, 0));
  p_.commit();
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(std::tuple(1, 2), std::tuple(read(v_, 3), read(v_, 40)));
}

TEST_F(CoreMove, discards_alone_are_noticed) {
  write(v_, 0, kBlocks, 1);
  ASSERT_EQ(0, begin_moves({to(1)}));
  copy_all();
  discard(v_, 9, 3);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(0, read(v_, 10));
  p_.commit();
  ASSERT_EQ(0, begin_moves({to(1)}));  // partial now
  copy_all();
  discard(v_, 20, 1);
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(std::tuple(0, 0, 1), std::tuple(read(v_, 10), read(v_, 20), read(v_, 21)));
  EXPECT_EQ(1u, move({to(1)}));
  EXPECT_EQ(std::tuple(0, 0, 1), std::tuple(read(v_, 10), read(v_, 20), read(v_, 21)));
}

TEST_F(CoreMove, held_ones_are_moved_under_writes) {
  write(v_, 0, kBlocks, 1);
  ASSERT_EQ(0, begin_moves({to(1, 0, SV_MOVE_HOLD)}));
  copy_all();
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_HELD, plan_write(v_, 9, 1, &piece));
  EXPECT_EQ(SV_PLAN_HELD, sv_plan_discard(v_, 9, 1, false, &piece));
  EXPECT_EQ(1, read(v_, 9));
  EXPECT_EQ(1u, end_moves());
  EXPECT_EQ(1u, member_at(0));
  expect_nothing_held();
}

TEST_F(CoreMove, what_is_not_durable_stays) {
  write(v_, 0, 1, 1);
  sv_move m = to(1);
  ASSERT_EQ(0, p_.command(SV_OP_MOVE, &m));  // without the commit before
  copy_all();
  EXPECT_EQ(0u, end_moves());
  EXPECT_EQ(0u, member_at(0));
  EXPECT_EQ(1u, move({to(1)}));
}

TEST_F(CoreMove, what_fails_stays) {
  for (const int kind : {0, 1, 2}) {
    write(v_, 0, kBlocks, 1);
    const uint64_t free = free_slots();
    ASSERT_EQ(0, begin_moves({to(1)}));
    copy_all();
    if (kind == 0) sv_move_steps.failed(p_.pool, 0);
    if (kind == 2) sv_pool_degrade(p_.pool, SV_MODE_READ_ONLY);
    EXPECT_EQ(0u, end_moves(kind == 1 ? 1ull << 1 : 0));
    EXPECT_EQ(0u, member_at(0));
    EXPECT_EQ(free, free_slots());
    EXPECT_EQ(1, read(v_, 9));
  }
}

TEST_F(CoreMove, without_room_it_stays) {
  write(v_, 0, kBlocks, 1);
  for (sv_member* m = p_.pool->members[1]; m->free;) {
    sv_lock_flags_t f;
    uint32_t slot;
    sv_lock(&p_.pool->lock, f);
    if (!sv_slot_on(p_.pool, 1, SV_WRITE_NORMAL, &slot)) m = nullptr;
    sv_unlock(&p_.pool->lock, f);
    if (!m) break;
  }
  EXPECT_EQ(0u, move({to(1)}));
  EXPECT_EQ(0u, member_at(0));
  expect_nothing_held();
}

TEST_F(CoreMove, the_last_slots_are_for_writes) {
  write(v_, 0, kBlocks, 1);
  p_.pool->reserve = 2;
  const auto take = [&](uint64_t left) {
    while (free_slots() > left) {
      sv_lock_flags_t f;
      uint32_t slot;
      sv_lock(&p_.pool->lock, f);
      const uint32_t member = p_.pool->members[0]->free ? 0 : 1;
      ASSERT_TRUE(sv_slot_on(p_.pool, member, SV_WRITE_META, &slot));
      sv_unlock(&p_.pool->lock, f);
    }
  };
  take(5);
  EXPECT_EQ(1u, move({to(1)})) << "one is more than twice the reserve";
  EXPECT_EQ(4u, free_slots());
  write(v_, kBlocks, 1, 2);
  EXPECT_EQ(2, read(v_, kBlocks)) << "a first write takes one of them";
  p_.checkpoint();
  take(4);
  EXPECT_EQ(0u, move({to(1, 1)}));
  expect_nothing_held();
}

TEST_F(CoreMove, many_that_were_moved_are_told) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  sv_pool_events(p_.pool);
  for (uint8_t n = 1; n <= SV_FREED_MANY; n++) {
    EXPECT_FALSE(sv_pool_events(p_.pool) & SV_EVENT_FREED) << int{n};
    EXPECT_EQ(1u, move({to(n % 2)}));
  }
  EXPECT_TRUE(sv_pool_events(p_.pool) & SV_EVENT_FREED) << "before its usual time svd is to give their slots back";
}

TEST_F(CoreMove, what_is_not_as_said_stays) {
  write(v_, 0, kBlocks, 1);
  sv_move old = to(1);
  old.gen++;
  EXPECT_EQ(0u, move({old}));
  EXPECT_EQ(1u, move({to(1), to(1)})) << "named twice";
  EXPECT_EQ(1u, member_at(0));
  for (const sv_move& bad : {sv_move{.extent = 0, .gen = 0, .member = 1, .flags = 0}, sv_move{.extent = 1, .gen = 1, .member = 2, .flags = 0},
                             sv_move{.extent = 1, .gen = 1, .member = 1, .flags = 4}, sv_move{.extent = ~0u, .gen = 1, .member = 1, .flags = 0}}) {
    sv_move m = bad;
    EXPECT_EQ(-EINVAL, p_.command(SV_OP_MOVE, &m));
  }
}

TEST_F(CoreMove, a_snapshot_waits_for_writes_to_where_it_was_moved) {
  write(v_, 0, kBlocks, 1);
  ASSERT_EQ(1u, move({to(1)}));
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}}));
  uint64_t members = 0;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  EXPECT_TRUE(members >> 1 & 1);
  p_.commit();
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
  p_.commit();
}

TEST_F(CoreMove, nothing_is_copied_in_a_read_only_pool) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  sv_pool_degrade(p_.pool, SV_MODE_READ_ONLY);
  sv_move m = to(1);
  EXPECT_EQ(-EROFS, p_.command(SV_OP_MOVE, &m));
}

TEST_F(CoreMove, not_too_many_at_once) {
  std::vector<sv_move> many(SV_MOVES_MAX + 1, {.extent = 1, .gen = 1, .member = 1, .flags = 0});
  EXPECT_EQ(-EINVAL, p_.command(SV_OP_MOVE, many.data(), SV_MOVES_MAX + 1));
}

// A word that becomes again what it was, after what was to be copied has been passed over.
TEST_F(CoreMove, what_was_not_copied_is_not_moved) {
  write(v_, 3, 1, 1);
  write(v_, 40, 1, 1);
  ASSERT_EQ(0, begin_moves({to(1)}));
  sv_copy_run c;
  ASSERT_TRUE(sv_move_steps.next(p_.pool, &c));
  uint64_t* word = sv_xt_word(p_.pool, extent_at(1, 0));
  *word ^= SV_XW_MAPPED;
  EXPECT_EQ(0u, copy_all());
  *word ^= SV_XW_MAPPED;
  EXPECT_EQ(0u, end_moves());
}

TEST_F(CoreMove, one_at_a_time) {
  write(v_, 0, 3 * kBlocks, 1);
  ASSERT_EQ(0, begin_moves({to(1)}));
  sv_move other = to(1, 1);
  EXPECT_EQ(-EBUSY, p_.command(SV_OP_MOVE, &other));
  sv_fold f{.extent = 1, .parent = 2, .gen = 1, .parent_gen = 1, .flags = 0};
  EXPECT_EQ(-EBUSY, p_.command(SV_OP_FOLD, &f));
  copy_all();
  EXPECT_EQ(1u, end_moves());
  EXPECT_EQ(2u, move({to(1, 1), to(1, 2)}));
}

TEST_F(CoreMove, freed_or_snapped_meanwhile) {
  write(v_, 0, 2 * kBlocks, 1);
  p_.commit();
  const auto frozen = flat(1);
  ASSERT_EQ(0, begin_moves({to(1), to(1, 1)}));
  snapshot(1, 5);  // it is the snapshot's from now on, and moves all the same
  copy_all();
  discard(v_, kBlocks, kBlocks);  // the entry goes: the snapshot has the extent
  write(v_, 7, 1, 2);             // to a new extent
  EXPECT_EQ(2u, end_moves());
  sv_volume* view = view_of(9, 1, frozen, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  for (const uint32_t b : {0u, 7u, 255u, 256u, 511u}) EXPECT_EQ(1, read(view, b)) << b;
  EXPECT_EQ(std::tuple(1, 2, 0), std::tuple(read(v_, 6), read(v_, 7), read(v_, kBlocks + 1)));
  ASSERT_EQ(0, begin_moves({to(0, 0, 0, 9)}));
  sv_freed gone{.extent = extent_at(9, 0), .gen = gen_of(extent_at(9, 0)), .pad = 0};
  copy_all();
  ASSERT_EQ(0, p_.command(SV_OP_FREE, &gone));
  EXPECT_EQ(0u, end_moves());
}

}  // namespace

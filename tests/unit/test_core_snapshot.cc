// SPDX-License-Identifier: GPL-2.0
// Snapshots in kmod/core: views and redirected writes, reads through chains, what discards leave behind, the steps of
// SNAPSHOT with writes between them, OWN and FREE. And a random run against plain copies of contents.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "tests/support/core_volumes.h"

namespace {

using sv::test::CorePool;
using sv::test::kBlocks;

class CoreSnapshot : public sv::test::CoreVolumes {};

TEST_F(CoreSnapshot, a_write_after_it_is_redirected_and_the_rest_shows_through) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  const auto before = flat(1);
  snapshot(1, 5);
  write(v_, 7, 1, 2);
  sv_volume* s = view_of(9, 1, before, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  EXPECT_EQ(2, read(v_, 7));
  EXPECT_EQ(1, read(v_, 6));
  EXPECT_EQ(1, read(s, 7));
  EXPECT_NE(extent_at(1, 0), extent_at(9, 0));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_ROFS, plan_write(s, 0, 1, &piece));
  ASSERT_EQ(SV_PLAN_REMAP, sv_plan_read(v_, 0, kBlocks, &piece));
  EXPECT_EQ(7u, piece.blocks) << "up to the block that lies elsewhere";
}

TEST_F(CoreSnapshot, records_say_what_was_frozen_and_what_lies_below) {
  write(v_, 3, 1, 1);
  records();
  const uint32_t old = extent_at(1, 0);
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 77}}));
  uint64_t members;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  EXPECT_EQ(1u, members) << "the member on which the volume owns extents";
  write(v_, 4, 1, 2);
  auto all = records();
  ASSERT_EQ(3u, all.size());
  EXPECT_EQ(SV_REC_LAYER, all[0].type);
  EXPECT_EQ(std::tuple(1u, 5u, 1u, 77ull), std::tuple(all[0].volume, all[0].layer, all[0].parent, all[0].arg));
  EXPECT_EQ(SV_REC_MAP, all[1].type);
  EXPECT_EQ(SV_MAP_PARTIAL | SV_MAP_PARENT, all[1].flags);
  EXPECT_EQ(std::tuple(5u, old), std::tuple(all[1].layer, all[1].parent));
  EXPECT_EQ(SV_REC_VALID, all[2].type);
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
  all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_EQ(SV_REC_SNAPDONE, all[0].type);
  EXPECT_EQ(std::pair(1u, 1u), std::pair(all[0].volume, all[0].layer));
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreSnapshot, one_that_cannot_be_flushed_is_not_done) {
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}}));
  uint64_t members;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, false));
  const auto all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_EQ(SV_REC_LAYER, all[0].type);
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

TEST_F(CoreSnapshot, a_write_under_way_belongs_to_what_it_was_planned_for) {
  write(v_, 0, 1, 1);
  sv_piece early{}, late{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 1, 1, &early));
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}}));
  const auto frozen = flat(1);
  uint64_t members;
  ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(v_, 2, 1, &late));
  put(early, 10);
  put(late, 20);
  sv_write_done(v_, &late, true);
  sv_write_done(v_, &early, true);
  p_.commit();
  ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
  sv_volume* s = view_of(9, 1, frozen, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
  EXPECT_EQ(10, read(s, 1));
  EXPECT_EQ(0, read(s, 2));
  EXPECT_EQ(10, read(v_, 1)) << "through the child";
  EXPECT_EQ(20, read(v_, 2));
}

TEST_F(CoreSnapshot, of_several_volumes_writes_wait_until_all_have_changed) {
  write(v_, 0, 1, 1);
  write(w_, 0, 1, 1);
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}, {.volume = 2, .layer = 6, .job = 2}}));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_DEFER, plan_write(v_, 0, 1, &piece)) << "of mapped blocks, too";
  EXPECT_EQ(SV_PLAN_DEFER, plan_write(w_, 700, 1, &piece));
  EXPECT_EQ(SV_PLAN_DEFER, sv_plan_discard(w_, 0, kBlocks, false, &piece));
  EXPECT_EQ(1, read(v_, 0));
  end();
  write(v_, 0, 1, 2);
  write(w_, 0, 1, 3);
  EXPECT_EQ(2, read(v_, 0));
  EXPECT_EQ(3, read(w_, 0));
}

TEST_F(CoreSnapshot, a_single_volume_is_written_all_the_time) {
  write(v_, 0, 1, 1);
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}}));
  write(v_, 0, 1, 2);
  end();
  EXPECT_EQ(2, read(v_, 0));
}

TEST_F(CoreSnapshot, a_discard_hides_what_lies_below_and_says_so) {
  write(v_, 0, 3 * kBlocks, 1);
  snapshot(1, 5);
  write(v_, kBlocks, kBlocks, 2);
  records();
  discard(v_, 0, 3 * kBlocks);
  for (uint64_t i = 0; i < 3; i++) EXPECT_EQ(0, read(v_, i * kBlocks));
  const auto all = records();
  ASSERT_EQ(3u, all.size());
  for (const sv_rec& r : all) {
    EXPECT_EQ(SV_REC_UNMAP, r.type);
    EXPECT_EQ(SV_UNMAP_TOMBSTONE, r.flags);
    EXPECT_EQ(5u, r.layer);
    EXPECT_EQ(r.index == 1, r.extent != 0) << "only its own extent is freed";
  }
  EXPECT_EQ(1u, p_.state().freed_extents);
  write(v_, 0, 1, 3);
  EXPECT_EQ(3, read(v_, 0));
  EXPECT_EQ(0, read(v_, 1)) << "nothing shows through what was discarded";
}

TEST_F(CoreSnapshot, part_of_what_has_something_below_keeps_it_or_is_zeroed_by_a_write) {
  write(v_, 0, 2 * kBlocks, 1);
  snapshot(1, 5);
  write(v_, 0, 4, 2);
  discard(v_, 0, 8);
  discard(v_, kBlocks, 8);
  EXPECT_EQ(2, read(v_, 0)) << "a discard may do nothing; it must not bring back what was there before";
  EXPECT_EQ(1, read(v_, 5));
  EXPECT_EQ(1, read(v_, kBlocks));
  discard(v_, 0, 8, true);
  discard(v_, kBlocks, 8, true);
  for (uint64_t b : {0, 5, 7}) EXPECT_EQ(0, read(v_, b)) << b;
  EXPECT_EQ(0, read(v_, kBlocks + 7));
  EXPECT_EQ(1, read(v_, 8));
  EXPECT_EQ(1, read(v_, kBlocks + 8));
}

TEST_F(CoreSnapshot, an_extent_that_has_become_whole_needs_nothing_below) {
  write(v_, 0, kBlocks, 1);
  const auto frozen = flat(1);
  snapshot(1, 5);
  write(v_, 0, kBlocks, 2);
  p_.commit();
  EXPECT_EQ(0u, p_.state().partials) << "both are whole";
  sv_freed old{.extent = frozen[0].extent, .gen = 1, .pad = 0};
  EXPECT_EQ(0, p_.command(SV_OP_FREE, &old)) << "svd: the snapshot is gone";
  EXPECT_EQ(0, p_.command(SV_OP_FREE, &old)) << "once more";
  EXPECT_EQ(1u, p_.state().freed_extents);
  EXPECT_EQ(1u, p_.checkpoint());
  EXPECT_EQ(2, read(v_, 9));
}

TEST_F(CoreSnapshot, layers_that_became_its_own_are_written_in_place_again) {
  write(v_, 0, kBlocks, 1);
  snapshot(1, 5);
  const uint32_t extent = extent_at(1, 0);
  sv_own own{.volume = 1, .owned_since = 1, .flags = 0, .layer = 5};
  ASSERT_EQ(0, p_.command(SV_OP_OWN, &own));
  write(v_, 0, 1, 2);
  EXPECT_EQ(extent, extent_at(1, 0));
  const auto all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_EQ(SV_REC_OWN, all[0].type);
  EXPECT_EQ(std::pair(1u, 1u), std::pair(all[0].volume, all[0].layer));
  discard(v_, 0, kBlocks);
  EXPECT_EQ(0u, records().at(0).flags) << "nothing is below any more";
}

TEST_F(CoreSnapshot, a_clone_owns_what_it_writes_alone) {
  write(v_, 0, 2 * kBlocks, 1);
  const auto frozen = flat(1);
  snapshot(1, 5);
  sv_volume* clone = view_of(9, 6, frozen, SV_VOLUME_CHAINED);
  write(clone, 0, 1, 3);
  write(v_, 1, 1, 2);
  EXPECT_EQ(3, read(clone, 0));
  EXPECT_EQ(1, read(clone, 1));
  EXPECT_EQ(1, read(v_, 0));
  EXPECT_EQ(2, read(v_, 1));
  p_.commit();
  sv_volume_info drop{};
  drop.id = 9;
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_DROP, &drop));
  EXPECT_EQ(1u, p_.state().freed_extents) << "its own, and nothing that others see";
  EXPECT_EQ(1, read(v_, 0));
}

TEST_F(CoreSnapshot, what_cannot_be_is_refused_and_changes_nothing) {
  const auto image = p_.image();
  EXPECT_EQ(-ENOENT, begin({{.volume = 77, .layer = 5, .job = 1}}));
  EXPECT_EQ(-EINVAL, begin({{.volume = 1, .layer = 1, .job = 1}})) << "layers grow";
  EXPECT_EQ(-EINVAL, begin({{.volume = 1, .layer = ~0u, .job = 1}}));
  EXPECT_EQ(-EINVAL, begin({{.volume = 1, .layer = 5, .job = 1}, {.volume = 1, .layer = 6, .job = 1}}));
  EXPECT_EQ(-ENOENT, begin({{.volume = 1, .layer = 5, .job = 1}, {.volume = 78, .layer = 6, .job = 1}}));
  const std::vector<sv_own> owns = {{.volume = 77, .owned_since = 1, .flags = 0, .layer = 1},
                                    {.volume = 1, .owned_since = 2, .flags = 0, .layer = 1},
                                    {.volume = 1, .owned_since = 0, .flags = 0, .layer = 1},
                                    {.volume = 1, .owned_since = 1, .flags = SV_VOLUME_READ_ONLY, .layer = 1},
                                    {.volume = 1, .owned_since = 1, .flags = 0, .layer = 2}};
  for (sv_own own : owns) EXPECT_NE(0, p_.command(SV_OP_OWN, &own));
  sv_freed nothing{.extent = 5, .gen = 1, .pad = 0}, nowhere{.extent = 1 << 30, .gen = 1, .pad = 0};
  EXPECT_EQ(0, p_.command(SV_OP_FREE, &nothing));
  EXPECT_EQ(-EINVAL, p_.command(SV_OP_FREE, &nowhere));
  sv_volume_info bad{.id = 9, .layer = 3, .owned_since = 2, .flags = SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY, .size = 1 << 20,
                     .mapped = 0, .tiers = ~0ull};
  EXPECT_EQ(-EINVAL, p_.command(SV_OP_VOLUME_CREATE, &bad));
  bad.layer = 2;
  bad.flags = SV_VOLUME_SNAPSHOT;
  EXPECT_EQ(-EINVAL, p_.command(SV_OP_VOLUME_CREATE, &bad));
  EXPECT_EQ(image, p_.image());
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_REMAP, plan_write(v_, 0, 1, &piece)) << "nothing waits";
  sv_write_done(v_, &piece, true);
}

// svd must not; but if it does nothing hangs, and nobody reads what is not his.
TEST_F(CoreSnapshot, what_svd_frees_though_it_is_mapped_is_not_there_any_more) {
  write(v_, 0, kBlocks, 1);
  p_.commit();
  sv_freed mapped{.extent = extent_at(1, 0), .gen = 1, .pad = 0};
  ASSERT_EQ(0, p_.command(SV_OP_FREE, &mapped));
  EXPECT_EQ(0, read(v_, 5));
  write(v_, 5, 1, 2);
  EXPECT_EQ(2, read(v_, 5));
  EXPECT_EQ(0, read(v_, 6));
}

TEST_F(CoreSnapshot, a_parent_that_svd_freed_is_an_error_to_read) {
  write(v_, 0, kBlocks, 1);
  snapshot(1, 5);
  sv_freed parent{.extent = extent_at(1, 0), .gen = 1, .pad = 0};
  write(v_, 0, 1, 2);
  p_.commit();
  ASSERT_EQ(0, p_.command(SV_OP_FREE, &parent));
  p_.checkpoint();
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_IOERR, sv_plan_read(v_, 1, 1, &piece));
  EXPECT_EQ(2, read(v_, 0));
}

TEST(CoreSnapshotLoad, parents_in_a_circle_are_refused) {
  CorePool p({{.slots = 40, .ring = true}}, false);
  for (uint32_t i = 1; i <= 3; i++) {
    sv_extent e{.extent = i, .slot = i, .member = 0, .gen = 1, .flags = SV_EXTENT_PARTIAL};
    ASSERT_EQ(0, p.command(SV_OP_EXTENTS, &e));
  }
  const auto parent = [&p](uint32_t extent, uint32_t of) {
    sv_partial_bits b{.extent = extent, .parent = of, .valid = {1, 0, 0, 0}, .place = {}};
    return p.command(SV_OP_PARTIALS, &b);
  };
  EXPECT_EQ(-EINVAL, parent(1, 1));
  EXPECT_EQ(-EINVAL, parent(1, 9));
  EXPECT_EQ(0, parent(1, 2));
  EXPECT_EQ(-EINVAL, parent(2, 1));
  EXPECT_EQ(0, parent(2, 3));
  EXPECT_EQ(-EINVAL, parent(3, 1));
  EXPECT_EQ(0, parent(3, 0));
}

TEST_F(CoreSnapshot, a_volume_in_the_middle_of_one_stays) {
  ASSERT_EQ(0, begin({{.volume = 1, .layer = 5, .job = 1}}));
  sv_volume_info drop{};
  drop.id = 1;
  EXPECT_EQ(-EBUSY, p_.command(SV_OP_VOLUME_DROP, &drop));
  EXPECT_EQ(-EBUSY, begin({{.volume = 2, .layer = 6, .job = 1}}));
  end();
  EXPECT_EQ(0, p_.command(SV_OP_VOLUME_DROP, &drop));
}

// Volumes with snapshots and clones, written, discarded and zeroed at random; each view against a plain copy.
TEST_F(CoreSnapshot, random_histories_read_as_plain_copies_would) {
  const char* e = getenv("SV_SNAPSHOT_STEPS");
  const uint64_t steps = e ? strtoull(e, nullptr, 10) : 20000;
  std::mt19937_64 r(4);
  using Contents = std::map<uint64_t, int64_t>;
  std::map<uint32_t, Contents> expected{{1, {}}, {2, {}}};  // volumes that are written
  std::map<uint32_t, Contents> frozen;                       // snapshots' views
  uint32_t next_layer = 100, next_id = 10;
  std::map<uint32_t, uint32_t> head{{1, 1}, {2, 1}};
  for (uint64_t step = 0; step < steps && !HasFailure(); step++) {
    auto it = expected.begin();
    std::advance(it, static_cast<long>(r() % expected.size()));
    auto& [id, contents] = *it;
    sv_volume* v = sv_volume_find(p_.pool, id);
    const uint64_t index = r() % 4;
    uint64_t block = index * kBlocks + r() % kBlocks;
    uint32_t n = 1 + static_cast<uint32_t>(r() % 64);
    if (r() % 4 == 0) block = index * kBlocks, n = kBlocks;
    n = std::min<uint32_t>(n, static_cast<uint32_t>((index + 1) * kBlocks - block));
    const uint64_t dice = r() % 100;
    if (dice < 70) {
      write(v, block, n, static_cast<int64_t>(step + 1));
      for (uint32_t i = 0; i < n; i++) contents[block + i] = static_cast<int64_t>(step + 1);
    } else if (dice < 80) {
      discard(v, block, n, true);
      for (uint32_t i = 0; i < n; i++) contents.erase(block + i);
    } else if (dice < 84) {
      discard(v, index * kBlocks, kBlocks);
      for (uint32_t i = 0; i < kBlocks; i++) contents.erase(index * kBlocks + i);
    } else if (dice < 86 && frozen.size() < 12) {
      const auto map = flat(id);
      const uint32_t layer = head[id];
      snapshot(id, head[id] = next_layer++);
      view_of(next_id, layer, map, SV_VOLUME_SNAPSHOT | SV_VOLUME_READ_ONLY);
      frozen[next_id++] = contents;
    } else if (dice < 87 && !frozen.empty() && expected.size() < 6) {
      auto from = frozen.begin();
      std::advance(from, static_cast<long>(r() % frozen.size()));
      view_of(next_id, next_layer, flat(from->first), SV_VOLUME_CHAINED);
      head[next_id] = next_layer++;
      expected[next_id++] = from->second;
    } else if (dice < 92) {
      p_.checkpoint();
    }
    for (int i = 0; i < 8; i++) {
      const bool of_snapshot = !frozen.empty() && r() % 2;
      auto& all = of_snapshot ? frozen : expected;
      auto seen = all.begin();
      std::advance(seen, static_cast<long>(r() % all.size()));
      const uint64_t at = r() % (4 * kBlocks);
      const auto want = seen->second.find(at);
      ASSERT_EQ(want == seen->second.end() ? 0 : want->second, read(sv_volume_find(p_.pool, seen->first), at))
          << "step " << step << " volume " << seen->first << " block " << at;
    }
  }
  EXPECT_EQ(12u, frozen.size());
  p_.commit();
  EXPECT_EQ(0, sv_test_reserved(p_.pool));
}

}  // namespace

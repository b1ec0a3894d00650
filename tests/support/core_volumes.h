// SPDX-License-Identifier: GPL-2.0
// Two volumes of a pool of kmod/core, with what was written to its members: for tests that read contents through snapshots.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

#include "tests/support/core_pool.h"

namespace sv::test {

constexpr uint32_t kBlocks = SV_EXTENT_BLOCKS;
constexpr uint64_t kExtents = 8;

using Place = std::pair<uint32_t, uint64_t>;  // member, sector

class CoreVolumes : public testing::Test {
 protected:
  CoreVolumes() : p_(std::vector<sv::test::MemberShape>{{.slots = 400, .ring = true}, {.slots = 400, .tier = 1}}) {
    v_ = p_.volume(1, kExtents * SV_EXTENT_SIZE);
    w_ = p_.volume(2, kExtents * SV_EXTENT_SIZE);
    p_.activate();
  }

  void fragments(bool on = true) {
    sv_policy policy{.no_space_ms = 1000, .commit_ms = 1000, .flags = on ? SV_POLICY_FRAGMENTS : 0, .pad = 0};
    EXPECT_EQ(0, p_.command(SV_OP_POLICY, &policy));
  }

  sv_plan plan_write(sv_volume* v, uint64_t block, uint32_t blocks, sv_piece* piece) {
    sv_plan plan = sv_plan_write(v, block, blocks, SV_WRITE_NORMAL, piece);
    for (int i = 0; i < 2 && plan == SV_PLAN_DEFER; i++) plan = sv_plan_write(v, block, blocks, SV_WRITE_NORMAL, piece);  // as map() and the worker do
    EXPECT_EQ(0, sv_pool_refill(p_.pool));
    return plan;
  }

  void write(sv_volume* v, uint64_t block, uint32_t blocks, int64_t value) {
    for (uint32_t n = 0; n < blocks;) {
      sv_piece piece{};
      ASSERT_EQ(SV_PLAN_REMAP, plan_write(v, block + n, blocks - n, &piece));
      put(piece, value);
      sv_write_done(v, &piece, true);
      n += piece.blocks;
    }
  }

  void put(const sv_piece& piece, int64_t value) {
    for (uint32_t i = 0; i < piece.blocks; i++) disk_[{piece.member, piece.sector + i * 8}] = value;
  }

  int64_t read(sv_volume* v, uint64_t block) {
    sv_piece piece{};
    const sv_plan plan = sv_plan_read(v, block, 1, &piece);
    if (plan == SV_PLAN_ZERO) return 0;
    EXPECT_EQ(SV_PLAN_REMAP, plan);
    return disk_.at({piece.member, piece.sector});
  }

  void discard(sv_volume* v, uint64_t block, uint32_t blocks, bool zeroes = false) {
    for (uint32_t n = 0; n < blocks;) {
      sv_piece piece{};
      const sv_plan plan = sv_plan_discard(v, block + n, blocks - n, zeroes, &piece);
      if (plan == SV_PLAN_REMAP) {
        ASSERT_TRUE(zeroes);
        put(piece, 0);
        sv_write_done(v, &piece, true);
      } else {
        ASSERT_EQ(SV_PLAN_ZERO, plan);
      }
      n += piece.blocks;
    }
  }

  int begin(std::vector<sv_snapshot> cut) { return p_.command(SV_OP_SNAPSHOT, cut.data(), static_cast<uint32_t>(cut.size())); }

  void end() {
    uint64_t members;
    ASSERT_EQ(0, sv_snapshot_switch(p_.pool, &members));
    p_.commit();
    ASSERT_EQ(0, sv_snapshot_finish(p_.pool, true));
    p_.commit();
  }

  void snapshot(uint32_t volume, uint32_t layer) {
    ASSERT_EQ(0, begin({{.volume = volume, .layer = layer, .job = 1}}));
    end();
  }

  // A snapshot's view: what its layer and those below it show, as svd would load it.
  sv_volume* view_of(uint32_t id, uint32_t layer, const std::vector<sv_map_entry>& flat, uint32_t flags) {
    sv_volume_info info{.id = id, .layer = layer, .owned_since = layer, .flags = flags, .size = kExtents * SV_EXTENT_SIZE,
                        .mapped = 0, .tiers = ~0ull};
    EXPECT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &info));
    for (sv_map_entry e : flat) {
      e.volume = id;
      EXPECT_EQ(0, p_.command(SV_OP_MAP, &e));
    }
    return sv_volume_find(p_.pool, id);
  }

  std::vector<sv_map_entry> flat(uint32_t volume) {
    std::vector<sv_map_entry> all(kExtents);
    uint32_t n = 0;
    all[0].volume = volume;
    EXPECT_EQ(0, p_.command(SV_OP_DUMP_MAP, all.data(), kExtents, &n));
    all.resize(n);
    return all;
  }

  uint32_t extent_at(uint32_t volume, uint64_t index) {
    for (const sv_map_entry& e : flat(volume))
      if (e.index == index) return e.extent;
    return 0;
  }

  // The records committed since, by the batch on its way: type and flags of each.
  std::vector<sv_rec> records() {
    std::vector<sv_rec> all;
    sv_commit_all(p_.pool);
    for (bool did = true; did;) {
      did = false;
      for (uint32_t i = 0; i < 2; i++)
        if (sv_commit_round(p_.pool, i)) sv_commit_flushed(p_.pool, i, false), did = true;
      sv_commit c{};
      if (!sv_commit_batch(p_.pool, &c)) continue;
      did = true;
      sv_rec r;
      const char* why = nullptr;
      for (uint32_t at = 0; sv_batch_next(c.buf, &at, &r, &why) == 1;) all.push_back(r);
      sv_commit_written(p_.pool, &c, sv_pool_ring_members(p_.pool));
    }
    sv_commit_done(p_.pool);
    return all;
  }

  template <typename T>
  std::vector<T> dump(uint32_t op) {
    std::vector<T> all(2000);
    uint32_t n = 0;
    EXPECT_EQ(0, p_.command(op, all.data(), 2000, &n));
    all.resize(n);
    return all;
  }

  // What a FOLD that has begun names to be copied; blocks.
  uint64_t copy() {
    sv_copy_run c;
    uint64_t blocks = 0;
    while (sv_fold_steps.next(p_.pool, &c)) {
      for (uint32_t i = 0; i < c.blocks; i++)
        disk_[{c.to, c.to_sector + i * 8}] = c.zero ? 0 : disk_.at({c.from, c.from_sector + i * 8});
      blocks += c.blocks;
    }
    return blocks;
  }

  CorePool p_;
  sv_volume* v_ = nullptr;
  sv_volume* w_ = nullptr;
  std::map<Place, int64_t> disk_;
};

}  // namespace sv::test

// SPDX-License-Identifier: GPL-2.0
// A pool of kmod/core as the tests of its parts see it: made, attached, granted and activated through the control
// channel's commands, which also tell its whole state.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <tuple>
#include <vector>

extern "C" {
#include "kmod/core/internal.h"
#include "kmod/core/internal_test.h"
}

namespace sv::test {

struct MemberShape {
  uint32_t slots;
  uint32_t tier = 0;
  bool ring = false;
};

class CorePool {
 public:
  static constexpr uint64_t kRing = 64ull << 20;

  explicit CorePool(const std::vector<MemberShape>& shape, bool grant = true) {
    std::vector<sv_member_geometry> g;
    for (const MemberShape& m : shape)
      g.push_back({.slot_off = 1 << 20, .nr_slots = m.slots, .tier = m.tier, .flags = m.ring ? SV_LABEL_HAS_RING : 0, .ring_off = 0,
                   .ring_len = m.ring ? kRing : 0});
    const uint8_t uuid[16] = {1};
    pool = sv_pool_new(uuid, 7, static_cast<uint32_t>(g.size()), g.data());
    sv_attach attach{};
    EXPECT_EQ(0, command(SV_OP_ATTACH, &attach));
    epoch = attach.epoch;
    for (uint32_t i = 0; grant && i < shape.size(); i++) {
      sv_grant all{.member = i, .first = 0, .count = shape[i].slots, .pad = 0};
      EXPECT_EQ(0, command(SV_OP_GRANT, &all));
    }
  }
  ~CorePool() { sv_pool_free(pool); }
  CorePool(const CorePool&) = delete;
  CorePool& operator=(const CorePool&) = delete;

  // 0 or -errno; done: elements applied, or answered. Of RECYCLE the first step: sv_recycle_finish() follows.
  template <typename T>
  int command(uint32_t op, T* payload, uint32_t count = 1, uint32_t* done = nullptr) {
    uint32_t n = count, applied = 0;
    uint64_t members = 0;
    const int r = sv_cmd(pool, op, epoch, payload, &n, &applied, &members);
    if (done) *done = sv_op_answers(op) ? n : applied;
    return r;
  }

  sv_volume* volume(uint32_t id, uint64_t size, uint64_t tiers = ~0ull, uint32_t flags = 0) {
    sv_volume_info v{.id = id, .layer = 1, .owned_since = 1, .flags = flags, .size = size, .mapped = 0, .tiers = tiers};
    EXPECT_EQ(0, command(SV_OP_VOLUME_CREATE, &v));
    return sv_volume_find(pool, id);
  }

  void activate() {
    sv_activate a{};
    ASSERT_EQ(0, command(SV_OP_ACTIVATE, &a));
  }

  sv_state state() {
    sv_state s{};
    EXPECT_EQ(0, command(SV_OP_STATE, &s));
    return s;
  }

  // Commits all there is, with members whose flushes succeed at once.
  void commit() {
    sv_commit_all(pool);
    for (bool did = true; did;) {
      did = false;
      for (uint32_t i = 0; i < sv_pool_nr_members(pool); i++)
        if (sv_commit_round(pool, i)) sv_commit_flushed(pool, i, false), did = true;
      sv_commit c{};
      if (sv_commit_batch(pool, &c)) sv_commit_written(pool, &c, sv_pool_ring_members(pool)), did = true;
    }
    sv_commit_done(pool);
  }

  // A checkpoint's steps: what was freed comes back, once what frees it is trimmed. Returns the number of extents.
  uint32_t checkpoint() {
    std::vector<sv_freed> freed(10000);
    uint32_t n = 0;
    EXPECT_EQ(0, command(SV_OP_LIST_FREED, freed.data(), static_cast<uint32_t>(freed.size()), &n));
    commit();
    sv_trim trim{.seq = state().committed_seq};
    EXPECT_EQ(0, command(SV_OP_TRIM, &trim));
    uint32_t done = 0;
    if (n) {
      EXPECT_EQ(0, command(SV_OP_RECYCLE, freed.data(), n, &done));
      sv_recycle_finish(pool);
    }
    EXPECT_EQ(n, done);
    uint64_t members;
    if (sv_reclaim_begin(pool, &members)) sv_reclaim_finish(pool);
    return n;
  }

  // Everything that a command could have changed, but for counters that only grow.
  struct Image {
    std::vector<std::tuple<uint32_t, uint32_t, uint16_t, uint16_t, uint32_t>> extents;
    std::vector<std::tuple<uint32_t, uint64_t, uint64_t, uint64_t, uint64_t>> partials;
    std::vector<std::tuple<uint32_t, uint64_t, uint32_t, uint32_t>> map;
    std::vector<std::tuple<uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, uint64_t, uint64_t>> volumes;
    std::vector<uint32_t> free;
    std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, uint32_t, uint32_t> state;
    bool operator==(const Image&) const = default;
  };

  Image image() {
    Image out;
    std::vector<sv_extent> extents(2000);
    std::vector<sv_partial_bits> partials(2000);
    std::vector<sv_map_entry> map(2000);
    std::vector<sv_volume_info> volumes(100);
    std::vector<sv_member_state> members(SV_MAX_MEMBERS);
    uint32_t n;
    EXPECT_EQ(0, command(SV_OP_DUMP_EXTENTS, extents.data(), 2000, &n));
    for (uint32_t i = 0; i < n; i++)
      out.extents.emplace_back(extents[i].extent, extents[i].slot, extents[i].member, extents[i].gen, extents[i].flags);
    EXPECT_EQ(0, command(SV_OP_DUMP_PARTIALS, partials.data(), 2000, &n));
    for (uint32_t i = 0; i < n; i++)
      out.partials.emplace_back(partials[i].extent, partials[i].valid[0], partials[i].valid[1], partials[i].valid[2], partials[i].valid[3]);
    uint32_t nr_volumes;
    EXPECT_EQ(0, command(SV_OP_VOLUMES, volumes.data(), 100, &nr_volumes));
    for (uint32_t v = 0; v < nr_volumes; v++) {
      const sv_volume_info& i = volumes[v];
      out.volumes.emplace_back(i.id, i.layer, i.owned_since, i.flags, i.size, i.mapped, i.tiers);
      map[0] = {.index = 0, .volume = i.id, .extent = 0, .layer = 0, .pad = 0};
      EXPECT_EQ(0, command(SV_OP_DUMP_MAP, map.data(), 2000, &n));
      for (uint32_t e = 0; e < n; e++) out.map.emplace_back(map[e].volume, map[e].index, map[e].extent, map[e].layer);
    }
    EXPECT_EQ(0, command(SV_OP_MEMBERS, members.data(), SV_MAX_MEMBERS, &n));
    for (uint32_t i = 0; i < n; i++) out.free.push_back(members[i].free_slots);
    const sv_state s = state();
    out.state = {s.free_slots, s.freed_extents, s.committed_seq, s.tail_seq, s.state, s.mode};
    return out;
  }

  sv_pool* pool = nullptr;
  uint64_t epoch = 0;
};

}  // namespace sv::test

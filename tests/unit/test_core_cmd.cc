// The control channel (kmod/core/cmd.c) with hostile payloads: random ones that are nearly right, in each state of the
// pool. A command that fails has changed nothing but what `done` counts, and none does harm (ASan watches).
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

using sv::test::CorePool;

constexpr uint32_t kOps[] = {SV_OP_JOURNAL, SV_OP_EXTENTS, SV_OP_PARTIALS, SV_OP_VOLUME_CREATE, SV_OP_VOLUME_RESIZE, SV_OP_VOLUME_DROP,
                             SV_OP_MAP, SV_OP_GRANT, SV_OP_ACTIVATE, SV_OP_TRIM, SV_OP_RECYCLE, SV_OP_POLICY, SV_OP_SNAPSHOT, SV_OP_OWN, SV_OP_FREE, SV_OP_FOLD, SV_OP_SHARE,
                             SV_OP_MOVE, SV_OP_CLOSE};

// A field's value: small, at a limit, or anything.
uint64_t nasty(std::mt19937_64& r) {
  static constexpr uint64_t kLimits[] = {0, 1, 2, 3, 7, 39, 40, 41, 255, 256, 4095, 4096, 65535, 65536, SV_EXTENT_SIZE, SV_VOLUME_SIZE_MAX,
                                         SV_VOLUME_SIZE_MAX + 4096, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, ~0ull - 1, ~0ull};
  switch (r() % 4) {
    case 0: return 1 + r() % 3;
    case 1: return r() % 64;
    case 2: return kLimits[r() % std::size(kLimits)];
    default: return r();
  }
}

template <typename T>
std::vector<uint8_t> bytes_of(const T& element, uint32_t count) {
  std::vector<uint8_t> bytes(sizeof(T) * count);
  for (uint32_t i = 0; i < count; i++) std::memcpy(&bytes[i * sizeof(T)], &element, sizeof(T));
  return bytes;
}

// What some_pool() would take.
std::vector<uint8_t> right(std::mt19937_64& r, uint32_t op, uint32_t count) {
  const uint32_t n = static_cast<uint32_t>(r() % 12);
  switch (op) {
    case SV_OP_JOURNAL: return bytes_of(sv_journal_pos{.next_seq = 1 + n, .next_off = n * 4096, .prev_crc = n, .pad = 0}, count);
    case SV_OP_EXTENTS: return bytes_of(sv_extent{.extent = 10 + n, .slot = 20 + n, .member = 1, .gen = 1, .flags = n % 2}, count);
    case SV_OP_PARTIALS: return bytes_of(sv_partial_bits{.extent = 4, .parent = 0, .valid = {n, 1, 2, 3}, .place = {}}, count);
    case SV_OP_VOLUME_CREATE:
      return bytes_of(sv_volume_info{.id = 2 + n, .layer = 1, .owned_since = 1, .flags = 0, .size = 4096ull << n, .mapped = 0, .tiers = ~0ull}, count);
    case SV_OP_VOLUME_RESIZE: case SV_OP_VOLUME_DROP:
      return bytes_of(sv_volume_info{.id = 1, .layer = 0, .owned_since = 0, .flags = 0, .size = 64ull << (20 + n), .mapped = 0, .tiers = 0}, count);
    case SV_OP_MAP: return bytes_of(sv_map_entry{.index = 20 + n, .volume = 1, .extent = n % 2 ? 0u : 3u, .layer = 1, .pad = 0}, count);
    case SV_OP_GRANT: return bytes_of(sv_grant{.member = n % 2, .first = 22 + n / 2, .count = 2, .pad = 0}, count);
    case SV_OP_TRIM: return bytes_of(sv_trim{.seq = n}, count);
    case SV_OP_RECYCLE: return bytes_of(sv_freed{.extent = 3, .gen = 5, .pad = 0}, count);
    case SV_OP_SNAPSHOT: return bytes_of(sv_snapshot{.volume = 1, .layer = 2 + n, .job = n}, count);
    case SV_OP_OWN: return bytes_of(sv_own{.volume = 1, .owned_since = 1, .flags = n % 2 ? SV_VOLUME_CHAINED : 0, .layer = 1 + n % 4}, count);
    case SV_OP_SHARE: return bytes_of(sv_share{.volume = 14, .source = n % 2, .layer = n % 2, .pad = 0}, count);
    case SV_OP_FREE: return bytes_of(sv_freed{.extent = 3 + n % 4, .gen = static_cast<uint16_t>(n % 2 ? 5 : 9), .pad = 0}, count);
    case SV_OP_FOLD:
      return bytes_of(sv_fold{.extent = 5, .parent = 6, .gen = 7, .parent_gen = 8,
                              .flags = std::array{0u, SV_FOLD_SWAP, SV_FOLD_FILL | 5u << SV_FOLD_FILL_SHIFT, SV_FOLD_GROW}[n % 4]},
                      count);
    case SV_OP_MOVE:
      return bytes_of(sv_move{.extent = 3 + n % 3, .gen = static_cast<uint16_t>(std::array{5, 9, 7}[n % 3]), .member = static_cast<uint8_t>(n / 4 % 2),
                              .flags = static_cast<uint8_t>(n / 3)},
                      count);
    case SV_OP_CLOSE: return bytes_of(sv_close{.member = n % 2, .closed = n / 2 % 2}, count);
    case SV_OP_POLICY: return bytes_of(sv_policy{.no_space_ms = n, .commit_ms = 100 + n, .flags = n % 2, .pad = 0}, count);
    default: return bytes_of(sv_activate{.read_only = n % 2, .pad = 0}, count);
  }
}

// A right one with up to two words spoiled.
std::vector<uint8_t> payload(std::mt19937_64& r, uint32_t op, uint32_t count) {
  std::vector<uint8_t> bytes = right(r, op, count);
  EXPECT_EQ(sv_op_size(op) * count, bytes.size());
  for (uint64_t spoil = r() % 3; spoil > 0; spoil--) {
    const uint64_t value = nasty(r);
    std::memcpy(&bytes[r() % (bytes.size() / 4) * 4], &value, 4);
  }
  return bytes;
}

// A pool with some of everything: two members, one half granted, a volume with a full, a partial and a freed extent, and a
// partial one upon what a deleted snapshot had.
std::unique_ptr<CorePool> some_pool(bool active) {
  auto p = std::make_unique<CorePool>(std::vector<sv::test::MemberShape>{{.slots = 40, .ring = true}, {.slots = 40, .tier = 1}}, false);
  sv_grant half{.member = 0, .first = 0, .count = 20, .pad = 0};
  EXPECT_EQ(0, p->command(SV_OP_GRANT, &half));
  sv_extent x[] = {{.extent = 3, .slot = 30, .member = 0, .gen = 5, .flags = 0}, {.extent = 4, .slot = 1, .member = 1, .gen = 9, .flags = SV_EXTENT_PARTIAL},
                   {.extent = 5, .slot = 2, .member = 1, .gen = 7, .flags = SV_EXTENT_PARTIAL}, {.extent = 6, .slot = 3, .member = 1, .gen = 8, .flags = 0}};
  EXPECT_EQ(0, p->command(SV_OP_EXTENTS, x, 4));
  sv_partial_bits bits{.extent = 5, .parent = 6, .valid = {7, 0, 0, 0}, .place = {}};
  EXPECT_EQ(0, p->command(SV_OP_PARTIALS, &bits));
  sv_volume* v = p->volume(1, 64ull << 20, ~0ull, SV_VOLUME_WHOLE);
  sv_map_entry e[] = {{.index = 2, .volume = 1, .extent = 3, .layer = 1, .pad = 0}, {.index = 5, .volume = 1, .extent = 4, .layer = 1, .pad = 0},
                      {.index = 6, .volume = 1, .extent = 5, .layer = 1, .pad = 0}};
  EXPECT_EQ(0, p->command(SV_OP_MAP, e, 3));
  sv_volume_info clone{.id = 14, .layer = 2, .owned_since = 2, .flags = SV_VOLUME_CHAINED | SV_VOLUME_WHOLE, .size = 64ull << 20, .mapped = 0, .tiers = ~0ull};
  EXPECT_EQ(0, p->command(SV_OP_VOLUME_CREATE, &clone));
  if (!active) return p;
  p->activate();
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_REMAP, sv_plan_write(v, 0, 256, SV_WRITE_NORMAL, &piece));
  sv_write_done(v, &piece, true);
  EXPECT_EQ(SV_PLAN_ZERO, sv_plan_discard(v, 512, 256, false, &piece));
  return p;
}

// The steps of a command that was taken, which its caller goes through. How many were folded.
uint32_t finish(CorePool& p, uint32_t op) {
  uint64_t members = 0;
  uint32_t folded = 0;
  if (op == SV_OP_SNAPSHOT) {
    EXPECT_EQ(0, sv_snapshot_switch(p.pool, &members));
    EXPECT_EQ(0, sv_snapshot_finish(p.pool, true));
  } else if (op == SV_OP_FOLD || op == SV_OP_MOVE) {
    const sv_relocation& steps = op == SV_OP_FOLD ? sv_fold_steps : sv_move_steps;
    for (sv_copy_run c{}; steps.next(p.pool, &c);) EXPECT_LE(c.blocks, SV_EXTENT_BLOCKS);
    if (steps.hold) steps.hold(p.pool);
    EXPECT_EQ(0, steps.finish(p.pool, 0));
    p.commit();
    folded = steps.end(p.pool);
  }
  return folded;
}

class Hostile : public testing::TestWithParam<bool> {};

TEST_P(Hostile, refused_commands_change_nothing) {
  std::mt19937_64 r(GetParam());
  int refused[64] = {}, taken[64] = {}, folded = 0;
  auto p = some_pool(GetParam());
  auto before = p->image();
  for (int i = 0; i < 40000; i++) {
    const uint32_t op = kOps[r() % std::size(kOps)];
    const uint32_t count = 1 + r() % 3;
    std::vector<uint8_t> bytes = payload(r, op, count);
    uint32_t n = count, done = 0;
    uint64_t members = 0;
    const uint64_t epoch = r() % 20 ? p->epoch : nasty(r);
    const int result = sv_cmd(p->pool, op, epoch, bytes.data(), &n, &done, &members);
    ASSERT_LE(done, count);
    if (op == SV_OP_RECYCLE && result != -EBUSY && result != -ESTALE) sv_recycle_finish(p->pool);
    if (result < 0 && done == 0) {
      refused[op]++;
      if (i % 7 == 0) {
        ASSERT_EQ(before, p->image()) << "op " << op << " refused with " << result;
      }
      continue;
    }
    taken[op]++;
    if (result == 0) folded += static_cast<int>(finish(*p, op));
    // From time to time a new pool, lest this one is only what the commands made of it.
    if (r() % 16 == 0) p = some_pool(GetParam());
    before = p->image();
  }
  for (const uint32_t op : kOps) EXPECT_GT(refused[op], 0) << "op " << op << " was never refused";
  if (GetParam()) {
    for (const uint32_t op : {SV_OP_SNAPSHOT, SV_OP_OWN, SV_OP_FREE, SV_OP_SHARE}) EXPECT_GT(taken[op], 10) << "op " << op << ": what should be right was never taken";
    EXPECT_GT(folded, 10);
  }
  for (const uint32_t op : {SV_OP_VOLUME_CREATE, SV_OP_VOLUME_RESIZE, SV_OP_GRANT, GetParam() ? SV_OP_TRIM : SV_OP_EXTENTS, SV_OP_POLICY})
    EXPECT_GT(taken[op], 10) << "op " << op << ": what should be right was never taken";
  EXPECT_EQ(before, p->image());
}

TEST_P(Hostile, counts_out_of_range_are_refused) {
  auto p = some_pool(GetParam());
  std::vector<uint8_t> bytes(4096);
  for (uint32_t op = 0; op < 64; op++) {
    for (const uint32_t count : {0u, 0x10000000u, ~0u}) {
      uint32_t n = count, done = 0;
      uint64_t members = 0;
      const int result = sv_cmd(p->pool, op, p->epoch, bytes.data(), &n, &done, &members);
      EXPECT_TRUE(result < 0 || op == SV_OP_ATTACH) << "op " << op << " with " << count;
      EXPECT_EQ(0u, done);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(CoreCmd, Hostile, testing::Bool(), [](const auto& info) { return info.param ? "active" : "loading"; });

TEST(CoreCmd, dumps_go_on_where_they_ended) {
  auto p = some_pool(true);
  const auto whole = p->image();
  std::vector<std::tuple<uint32_t, uint64_t, uint32_t, uint32_t>> map;
  sv_map_entry e{.index = 0, .volume = 1, .extent = 0, .layer = 0, .pad = 0};
  uint32_t n = 1;
  while (p->command(SV_OP_DUMP_MAP, &e, 1, &n) == 0 && n == 1) {
    map.emplace_back(e.volume, e.index, e.extent, e.layer);
    e.index++;
  }
  EXPECT_EQ(whole.map, map);
  size_t extents = 0;
  sv_extent x{};
  while (p->command(SV_OP_DUMP_EXTENTS, &x, 1, &n) == 0 && n == 1) extents++, x.extent++;
  EXPECT_EQ(whole.extents.size(), extents);
}

TEST(CoreCmd, old_sessions_are_stale) {
  auto p = some_pool(true);
  sv_attach a{};
  ASSERT_EQ(0, p->command(SV_OP_ATTACH, &a));
  sv_state s{};
  EXPECT_EQ(-ESTALE, p->command(SV_OP_STATE, &s));
  p->epoch = a.epoch;
  EXPECT_EQ(0, p->command(SV_OP_STATE, &s));
}

}  // namespace

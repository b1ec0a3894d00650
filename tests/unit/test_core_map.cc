// The radix map of a volume (kmod/core/map.c) against a std::map, at every depth, and growing under its entries.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

using sv::test::CorePool;
using Oracle = std::map<uint64_t, uint64_t>;

constexpr uint64_t kExtent = SV_EXTENT_SIZE;
constexpr uint64_t kReach[] = {1ull << 9, 1ull << 18, 1ull << 27, 1ull << 36};  // of each depth, in extents

void install(CorePool& p, sv_volume* v, Oracle& oracle, uint64_t index, uint64_t entry) {
  ASSERT_EQ(0, sv_pool_refill(p.pool));
  sv_lock_flags_t f;
  sv_lock(&p.pool->lock, f);
  const uint64_t before = p.pool->node_count;
  const uint32_t needed = sv_map_nodes_needed(v, index);
  sv_map_install(v, index, entry);
  EXPECT_EQ(before + needed, p.pool->node_count) << index;
  EXPECT_EQ(0u, sv_map_nodes_needed(v, index));
  sv_unlock(&p.pool->lock, f);
  (void)f;
  if (entry) oracle[index] = entry;
  else oracle.erase(index);
}

// The first index from there on that has an entry, or SV_MAP_END.
uint64_t next_mapped(const sv_volume* v, uint64_t from) {
  while (from != SV_MAP_END)
    if (sv_map_next(v, &from, 0)) return from;
  return from;
}

void compare(const sv_volume* v, const Oracle& oracle) {
  uint64_t from = 0;
  for (const auto& [index, entry] : oracle) {
    ASSERT_EQ(entry, sv_map_lookup(v, index)) << index;
    ASSERT_EQ(index, next_mapped(v, from)) << from;
    if (index > from) {
      ASSERT_EQ(0u, sv_map_lookup(v, index - 1)) << index - 1;
    }
    from = index + 1;
  }
  EXPECT_EQ(SV_MAP_END, next_mapped(v, from));
}

TEST(CoreMap, depth_limits_in_pairs) {
  EXPECT_EQ(1u, sv_map_depth_for(0));
  EXPECT_EQ(1u, sv_map_depth_for(1));
  for (uint32_t d = 1; d < SV_MAX_DEPTH; d++) {
    EXPECT_EQ(d, sv_map_depth_for(kReach[d - 1]));
    EXPECT_EQ(d + 1, sv_map_depth_for(kReach[d - 1] + 1));
  }
  EXPECT_EQ(SV_MAX_DEPTH, sv_map_depth_for(kReach[SV_MAX_DEPTH - 1]));
}

TEST(CoreMap, agrees_with_an_oracle_at_every_depth) {
  for (uint32_t d = 0; d < SV_MAX_DEPTH; d++) {
    CorePool p({{.slots = 16, .ring = true}});
    sv_volume* v = p.volume(1, kReach[d] * kExtent);
    std::mt19937_64 r(d);
    Oracle oracle;
    compare(v, oracle);
    for (int i = 0; i < 400; i++) {
      // Beside node boundaries as often as anywhere; some are taken away again.
      uint64_t index = r() % kReach[d];
      if (i % 2) index = std::min(kReach[d] - 1, (index >> 9 << 9) + (r() % 3) - 1 + (index < 512));
      install(p, v, oracle, index % kReach[d], i % 5 == 4 && !oracle.empty() ? 0 : sv_entry_make(1 + i, 1 + i % 7));
      if (i % 40 == 0) compare(v, oracle);
    }
    install(p, v, oracle, 0, sv_entry_make(77, 1));
    install(p, v, oracle, kReach[d] - 1, sv_entry_make(78, 1));
    compare(v, oracle);
    EXPECT_EQ(0u, sv_map_lookup(v, kReach[d])) << "beyond the tree";
    EXPECT_EQ(0u, sv_map_lookup(v, ~0ull));
  }
}

TEST(CoreMap, grows_over_every_depth_without_losing_an_entry) {
  CorePool p({{.slots = 16, .ring = true}});
  sv_volume* v = p.volume(1, kExtent);
  Oracle oracle;
  install(p, v, oracle, 0, sv_entry_make(1, 1));
  for (uint32_t d = 0; d < SV_MAX_DEPTH; d++) {
    for (const uint64_t extents : {kReach[d] - 1, kReach[d]}) {
      sv_volume_info grown{.id = 1, .layer = 0, .owned_since = 0, .flags = 0, .size = extents * kExtent, .mapped = 0, .tiers = 0};
      ASSERT_EQ(0, p.command(SV_OP_VOLUME_RESIZE, &grown));
      compare(v, oracle);
      install(p, v, oracle, extents - 1, sv_entry_make(10 + d, 1));
      compare(v, oracle);
    }
  }
}

TEST(CoreMap, empty_trees_grow_too) {
  CorePool p({{.slots = 16, .ring = true}});
  sv_volume* v = p.volume(1, kExtent);
  Oracle oracle;
  sv_volume_info grown{.id = 1, .layer = 0, .owned_since = 0, .flags = 0, .size = SV_VOLUME_SIZE_MAX, .mapped = 0, .tiers = 0};
  ASSERT_EQ(0, p.command(SV_OP_VOLUME_RESIZE, &grown));
  compare(v, oracle);
  install(p, v, oracle, kReach[3] - 1, sv_entry_make(5, 1));
  install(p, v, oracle, 3, sv_entry_make(6, 1));
  compare(v, oracle);
}

// A dump of a map of 2^36 indices that looked at each would keep a CPU for an hour.
TEST(CoreMap, dump_of_the_largest_volume_passes_over_what_is_not_there) {
  CorePool p({{.slots = 16, .ring = true}});
  sv_volume* v = p.volume(1, SV_VOLUME_SIZE_MAX);
  Oracle oracle;
  for (const uint64_t index : {uint64_t{0}, kReach[1] + 511, kReach[3] - 1}) install(p, v, oracle, index, sv_entry_make(9, 1));
  const auto image = p.image();
  ASSERT_EQ(3u, image.map.size());
  EXPECT_EQ((std::tuple<uint32_t, uint64_t, uint32_t, uint32_t>(1, kReach[3] - 1, 9, 1)), image.map[2]);
}

}  // namespace

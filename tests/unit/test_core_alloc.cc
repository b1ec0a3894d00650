// Slots and extent numbers (kmod/core/alloc.c) against sets: nothing is given twice, a volume's choice of tiers, runs of
// sequential writers, and what is kept back for file systems' logs. [I22] [I23] [I24]
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

using sv::test::CorePool;
using Slot = std::pair<uint32_t, uint32_t>;  // member, slot

bool take(CorePool& p, sv_volume* v, uint64_t index, Slot* out, sv_write_class c = SV_WRITE_META) {
  sv_lock_flags_t f;
  sv_lock(&p.pool->lock, f);
  const bool ok = sv_alloc_slot(v, index, c, &out->first, &out->second);
  sv_unlock(&p.pool->lock, f);
  (void)f;
  return ok;
}

void release(CorePool& p, Slot s) {
  sv_lock_flags_t f;
  sv_lock(&p.pool->lock, f);
  sv_slot_release(p.pool, s.first, s.second);
  sv_unlock(&p.pool->lock, f);
  (void)f;
}

TEST(CoreAlloc, agrees_with_sets_over_random_takes_and_releases) {
  const std::vector<sv::test::MemberShape> shape = {{.slots = 130, .tier = 0, .ring = true}, {.slots = 64, .tier = 1}, {.slots = 1000, .tier = 1}, {.slots = 1, .tier = 2}};
  CorePool p(shape);
  sv_volume* v[3] = {p.volume(1, 1ull << 40), p.volume(2, 1ull << 40, ~0xffull | 1), p.volume(3, 1ull << 40, ~0xffffull | 0x0002)};
  std::mt19937_64 r(1);
  std::set<Slot> free, used;
  for (uint32_t m = 0; m < shape.size(); m++)
    for (uint32_t s = 0; s < shape[m].slots; s++) free.insert({m, s});
  const auto any_in = [&](uint32_t tier) {
    for (const Slot& s : free)
      if (shape[s.first].tier == tier) return true;
    return false;
  };
  int refused = 0;
  for (int i = 0; i < 20000; i++) {
    // In waves, so that the pool is empty and full in turn.
    const bool taking = r() % 100 < (i / 2000 % 2 ? 5 : 95);
    if (taking) {
      const uint32_t n = r() % 3;
      Slot s;
      const bool ok = take(p, v[n], r() % 8 ? r() : i, &s);
      ASSERT_EQ(!free.empty(), ok);
      refused += !ok;
      if (!ok) continue;
      ASSERT_TRUE(free.count(s)) << "given twice: " << s.first << " " << s.second;
      const std::vector<uint32_t> order = n == 0 ? std::vector<uint32_t>{0, 1, 2} : n == 1 ? std::vector<uint32_t>{1} : std::vector<uint32_t>{2, 0};
      for (const uint32_t tier : order) {
        if (shape[s.first].tier == tier) break;
        ASSERT_FALSE(any_in(tier)) << "volume " << n + 1 << " passed over tier " << tier;
      }
      free.erase(s);
      used.insert(s);
    } else if (!used.empty()) {
      auto s = std::next(used.begin(), static_cast<long>(r() % used.size()));
      release(p, *s);
      free.insert(*s);
      used.erase(s);
    }
    ASSERT_EQ(free.size(), p.state().free_slots);
  }
  EXPECT_GT(refused, 100) << "the pool was never full";
}

TEST(CoreAlloc, streams_of_several_writers_do_not_interleave) {
  CorePool p({{.slots = 4096, .ring = true}});
  sv_volume* v[2] = {p.volume(1, 1ull << 40), p.volume(2, 1ull << 40)};
  Slot last[2];
  int breaks = 0;
  for (uint64_t i = 0; i < 1000; i++)
    for (int n = 0; n < 2; n++) {
      Slot s;
      ASSERT_TRUE(take(p, v[n], i, &s));
      breaks += i && s.second != last[n].second + 1;
      last[n] = s;
    }
  EXPECT_LE(breaks, 2 * 1000 / 64) << "runs are shorter than a word of 64 slots";
}

TEST(CoreAlloc, full_tier_is_no_reason_to_refuse) {
  CorePool p({{.slots = 4, .tier = 0, .ring = true}, {.slots = 4, .tier = 1}});
  sv_volume* v = p.volume(1, 1ull << 40, ~0xffull);  // tier 0 alone
  Slot s;
  for (int i = 0; i < 8; i++) {
    ASSERT_TRUE(take(p, v, 1000 - i, &s));
    EXPECT_EQ(i < 4 ? 0u : 1u, s.first);
  }
  EXPECT_FALSE(take(p, v, 0, &s));
}

TEST(CoreAlloc, shares_are_kept_for_fua_and_metadata_in_pairs) {
  constexpr uint32_t kSlots = 2048;
  CorePool p({{.slots = kSlots, .ring = true}});
  sv_volume* v = p.volume(1, 1ull << 40);
  const uint64_t reserve = sv_reserve_for(kSlots);
  ASSERT_EQ(64u, reserve);
  Slot s;
  uint64_t taken = 0;
  while (take(p, v, taken * 3, &s, SV_WRITE_NORMAL)) taken++;
  EXPECT_EQ(kSlots - reserve, taken);
  EXPECT_EQ(SV_MODE_WRITE, p.state().mode) << "not active yet";
  while (take(p, v, taken * 3, &s, SV_WRITE_FUA)) taken++;
  EXPECT_EQ(kSlots - (reserve - reserve / 4), taken) << "a quarter of the reserve is for FUA";
  EXPECT_FALSE(take(p, v, taken * 3, &s, SV_WRITE_NORMAL));
  while (take(p, v, taken * 3, &s, SV_WRITE_META)) taken++;
  EXPECT_EQ(kSlots, taken);
  release(p, s);
  EXPECT_FALSE(take(p, v, 1, &s, SV_WRITE_FUA));
  EXPECT_TRUE(take(p, v, 1, &s, SV_WRITE_META));
}

TEST(CoreAlloc, reserve_limits_in_pairs) {
  EXPECT_EQ(1023u / 64, sv_reserve_for(1023));
  EXPECT_EQ(64u, sv_reserve_for(1024));
  EXPECT_EQ(64u, sv_reserve_for(12800));
  EXPECT_EQ(65u, sv_reserve_for(13000));
  EXPECT_EQ((100ull << 20) / 200, sv_reserve_for(100ull << 20)) << "0.5 % of 100 TiB";
}

TEST(CoreAlloc, numbers_agree_with_a_set) {
  CorePool p({{.slots = 150, .ring = true}});
  std::mt19937_64 r(2);
  std::set<uint32_t> used;
  const uint32_t all = p.pool->numbers_free;
  ASSERT_LE(150u, all);
  sv_lock_flags_t f;
  sv_lock(&p.pool->lock, f);
  for (int i = 0; i < 10000; i++) {
    if (r() % 100 < (i / 2000 % 2 ? 30 : 70)) {
      const uint32_t x = sv_alloc_number(p.pool);
      ASSERT_EQ(used.size() < all, x != 0);
      if (x) {
        ASSERT_LE(x, all);
        ASSERT_TRUE(used.insert(x).second) << x << " given twice";
      }
    } else if (!used.empty()) {
      auto x = std::next(used.begin(), static_cast<long>(r() % used.size()));
      sv_number_release(p.pool, *x);
      used.erase(x);
    }
  }
  sv_unlock(&p.pool->lock, f);
  (void)f;
}

// A few slots more, so that the directory has as many pages as before.
TEST(CoreAlloc, numbers_grow_with_a_small_member) {
  CorePool p({{.slots = 100, .ring = true}});
  sv_policy policy{.no_space_ms = 0, .commit_ms = 1000, .flags = SV_POLICY_FRAGMENTS, .pad = 0};
  ASSERT_EQ(0, p.command(SV_OP_POLICY, &policy));
  for (uint32_t i = 1; i < 4; i++) {
    sv_member_geometry g{.slot_off = 1 << 20, .nr_slots = 3 * i, .tier = 0, .flags = 0, .ring_off = 0, .ring_len = 0};
    ASSERT_EQ(0, sv_pool_add_member(p.pool, &g));
    ASSERT_EQ(0, sv_pool_refill(p.pool));
    EXPECT_EQ(p.pool->max_extents, p.pool->nr_extents);
    EXPECT_EQ(p.pool->nr_extents - 1, p.pool->numbers_free);
  }
  sv_lock_flags_t f;
  sv_lock(&p.pool->lock, f);
  std::set<uint32_t> all;
  while (const uint32_t x = sv_alloc_number(p.pool)) ASSERT_TRUE(all.insert(x).second);
  sv_unlock(&p.pool->lock, f);
  (void)f;
  EXPECT_EQ(118u * SV_EXTENTS_PER_SLOT, all.size());
}

}  // namespace

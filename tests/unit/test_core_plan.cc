// The planners (kmod/core/plan.c) against a naive oracle that knows of each block where it lies, block by block: reads,
// writes that succeed and fail, discards; volumes that share a pool; what is refused in which mode.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

using sv::test::CorePool;
using Place = std::pair<uint32_t, uint64_t>;  // member, sector
constexpr uint32_t kBlocks = SV_EXTENT_BLOCKS;
constexpr uint64_t kExtents = 12;

struct Oracle {
  std::map<uint64_t, Place> slot;   // of each mapped extent: where its first block lies
  std::set<uint64_t> valid;         // blocks

  Place place(uint64_t block) const {
    const Place& s = slot.at(block / kBlocks);
    return {s.first, s.second + block % kBlocks * 8};
  }
  bool full(uint64_t extent) const {
    const auto first = valid.lower_bound(extent * kBlocks);
    return std::distance(first, valid.lower_bound((extent + 1) * kBlocks)) == kBlocks;
  }
};

class CorePlan : public testing::Test {
 protected:
  void make(std::vector<sv::test::MemberShape> shape = {{.slots = 40, .ring = true}, {.slots = 40, .tier = 1}}, int volumes = 2) {
    p_ = std::make_unique<CorePool>(shape);
    for (int i = 0; i < volumes; i++) volumes_.push_back(p_->volume(i + 1, kExtents * SV_EXTENT_SIZE));
    p_->activate();
    oracles_.resize(volumes_.size());
  }

  sv_plan plan_write(sv_volume* v, uint64_t block, uint32_t blocks, sv_piece* piece) {
    sv_plan plan;
    while ((plan = sv_plan_write(v, block, blocks, SV_WRITE_META, piece)) == SV_PLAN_DEFER) EXPECT_EQ(0, sv_pool_refill(p_->pool));
    return plan;
  }

  // Returns the length of the piece.
  uint32_t write(size_t n, uint64_t block, uint32_t blocks, bool ok) {
    Oracle& o = oracles_[n];
    sv_piece piece{};
    EXPECT_EQ(SV_PLAN_REMAP, plan_write(volumes_[n], block, blocks, &piece));
    EXPECT_LE(piece.blocks, blocks);
    for (uint32_t i = 0; i < piece.blocks; i++) {
      const uint64_t at = block + i, extent = at / kBlocks;
      const Place place{piece.member, piece.sector + i * 8};
      if (!o.slot.count(extent)) {
        const Place first{piece.member, place.second - at % kBlocks * 8};
        for (const Oracle& other : oracles_)
          for (const auto& [index, taken] : other.slot) EXPECT_NE(first, taken) << "slot in two extents [I21]";
        o.slot[extent] = first;
      }
      EXPECT_EQ(o.place(at), place) << at;
      if (ok) o.valid.insert(at);
    }
    sv_write_done(volumes_[n], &piece, ok);
    return piece.blocks;
  }

  // Each block reads from where it was written, or as zeroes; a piece ends only where it has to.
  uint32_t read(size_t n, uint64_t block, uint32_t blocks) {
    const Oracle& o = oracles_[n];
    sv_piece piece{};
    const sv_plan plan = sv_plan_read(volumes_[n], block, blocks, &piece);
    EXPECT_TRUE(plan == SV_PLAN_REMAP || plan == SV_PLAN_ZERO) << plan;
    EXPECT_GE(piece.blocks, 1u);
    EXPECT_LE(piece.blocks, blocks);
    for (uint32_t i = 0; i < piece.blocks; i++) {
      EXPECT_EQ(plan == SV_PLAN_REMAP, o.valid.count(block + i) == 1) << block + i;
      if (plan == SV_PLAN_REMAP && o.valid.count(block + i)) {
        EXPECT_EQ(o.place(block + i), Place(piece.member, piece.sector + i * 8));
      }
    }
    const uint64_t next = block + piece.blocks;
    if (piece.blocks == blocks || next % kBlocks == 0) return piece.blocks;
    EXPECT_NE(o.valid.count(next - 1), o.valid.count(next)) << "split without a reason at " << next;
    return piece.blocks;
  }

  uint32_t discard(size_t n, uint64_t block, uint32_t blocks) {
    Oracle& o = oracles_[n];
    sv_piece piece{};
    sv_plan plan;
    while ((plan = sv_plan_discard(volumes_[n], block, blocks, false, &piece)) == SV_PLAN_DEFER) EXPECT_EQ(0, sv_pool_refill(p_->pool)), p_->commit();
    EXPECT_EQ(SV_PLAN_ZERO, plan);
    for (uint32_t i = 0; i < piece.blocks; i++) o.valid.erase(block + i);
    // What is empty now is unmapped. (Only an extent that the discard touched: one whose first write failed keeps its slot.)
    for (uint64_t e = block / kBlocks; e <= (block + piece.blocks - 1) / kBlocks; e++) {
      const auto first = o.valid.lower_bound(e * kBlocks);
      if (first == o.valid.end() || *first >= (e + 1) * kBlocks) o.slot.erase(e);
    }
    return piece.blocks;
  }

  void compare() {
    for (size_t n = 0; n < volumes_.size(); n++) {
      sv_volume_info info{};
      sv_volume_get_info(volumes_[n], &info);
      EXPECT_EQ(oracles_[n].slot.size(), info.mapped);
      for (uint64_t b = 0; b < kExtents * kBlocks;) b += read(n, b, 1000);
    }
  }

  std::unique_ptr<CorePool> p_;
  std::vector<sv_volume*> volumes_;
  std::vector<Oracle> oracles_;
};

TEST_F(CorePlan, agrees_with_the_oracle_over_random_reads_writes_and_discards) {
  make();
  std::mt19937_64 r(3);
  for (int step = 0; step < 6000; step++) {
    const size_t n = r() % volumes_.size();
    const uint64_t block = r() % (kExtents * kBlocks);
    const uint32_t most = static_cast<uint32_t>(kExtents * kBlocks - block);
    const uint32_t blocks = std::min<uint32_t>(most, r() % 3 ? 1 + r() % 20 : 1 + r() % 600);
    switch (r() % 8) {
      case 0: case 1: case 2: write(n, block, blocks, r() % 10 != 0); break;
      case 3: write(n, block / kBlocks * kBlocks, kBlocks, true); break;
      case 4: discard(n, block, blocks); break;
      case 5: if (r() % 4 == 0) discard(n, block / kBlocks * kBlocks, std::min(most, 3 * kBlocks)); break;
      case 6: if (r() % 10 == 0) p_->checkpoint(); break;
      default: read(n, block, blocks); break;
    }
    ASSERT_FALSE(HasFailure()) << "step " << step;
    if (step % 500 == 0) compare();
  }
  p_->checkpoint();
  compare();
  EXPECT_EQ(0u, p_->checkpoint());
  EXPECT_EQ(80u - oracles_[0].slot.size() - oracles_[1].slot.size(), p_->state().free_slots);
  EXPECT_EQ(0, sv_test_reserved(p_->pool));
}

TEST_F(CorePlan, sequentially_written_data_is_one_piece_across_extents) {
  make({{.slots = 64, .ring = true}}, 1);
  for (uint64_t b = 0; b < kExtents * kBlocks;) b += write(0, b, kBlocks, true);
  p_->checkpoint();  // whole extents need no bits any more
  EXPECT_EQ(kExtents * kBlocks, read(0, 0, kExtents * kBlocks));
  EXPECT_EQ(kExtents * kBlocks - 7, read(0, 7, kExtents * kBlocks - 7));
  EXPECT_EQ(kExtents * kBlocks - 7, write(0, 7, kExtents * kBlocks - 7, true));
  discard(0, 3 * kBlocks + 5, 1);  // a hole: three extents in one piece, then what is before it
  EXPECT_EQ(3 * kBlocks, read(0, 0, kExtents * kBlocks));
  EXPECT_EQ(5u, read(0, 3 * kBlocks, kExtents * kBlocks));
  EXPECT_EQ(1u, read(0, 3 * kBlocks + 5, kBlocks));
}

TEST_F(CorePlan, unmapped_space_reads_as_one_piece_of_zeroes) {
  make({{.slots = 64, .ring = true}}, 1);
  EXPECT_EQ(kExtents * kBlocks, read(0, 0, kExtents * kBlocks));
  write(0, 5 * kBlocks, 1, true);
  EXPECT_EQ(5 * kBlocks, read(0, 0, kExtents * kBlocks));
  EXPECT_EQ(1u, read(0, 5 * kBlocks, 10));
}

TEST_F(CorePlan, failed_first_write_leaves_zeroes_and_no_other_volumes_bytes) {
  make({{.slots = 2, .ring = true}}, 2);
  write(0, 0, kBlocks, true);
  EXPECT_EQ(kBlocks, discard(0, 0, kBlocks));
  EXPECT_EQ(1u, p_->checkpoint());
  write(1, 0, 16, false);
  EXPECT_EQ(kBlocks, read(1, 0, kBlocks)) << "zeroes, in one piece";
  write(1, 4, 4, true);
  EXPECT_EQ(4u, read(1, 0, kBlocks));
  EXPECT_EQ(4u, read(1, 4, kBlocks));
}

TEST_F(CorePlan, extent_under_a_write_is_not_freed_by_a_discard_of_its_last_block) {
  make({{.slots = 2, .ring = true}}, 1);
  write(0, 0, 1, true);
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_REMAP, plan_write(volumes_[0], 7, 1, &piece));
  sv_piece zero{};
  ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(volumes_[0], 0, 1, false, &zero));
  EXPECT_EQ(0u, p_->state().freed_extents);
  sv_write_done(volumes_[0], &piece, true);
  oracles_[0].valid = {7};
  EXPECT_EQ(7u, read(0, 0, 7));
  EXPECT_EQ(1u, read(0, 7, 1));
  discard(0, 7, 1);
  EXPECT_EQ(1u, p_->state().freed_extents);
}

TEST_F(CorePlan, full_pool_refuses_what_needs_space_and_nothing_else) {
  make({{.slots = 3, .ring = true}}, 1);
  for (uint64_t e = 0; e < 3; e++) write(0, e * kBlocks, 3, true);
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_NOSPC, plan_write(volumes_[0], 3 * kBlocks, 1, &piece));
  EXPECT_TRUE(sv_pool_events(p_->pool) & SV_EVENT_SPACE);
  write(0, kBlocks + 100, 5, true);
  read(0, 0, 1000);
  discard(0, 0, kBlocks);
  EXPECT_EQ(SV_PLAN_NOSPC, plan_write(volumes_[0], 3 * kBlocks, 1, &piece)) << "freed is not free yet [I20]";
  EXPECT_EQ(1u, p_->checkpoint());
  write(0, 3 * kBlocks, 1, true);
  EXPECT_EQ(0, sv_test_reserved(p_->pool) % SV_RESV_VALID);
}

TEST_F(CorePlan, ring_that_is_promised_to_writes_under_way_is_waited_for) {
  make({{.slots = 8, .ring = true}}, 1);
  std::vector<sv_piece> under_way;
  sv_piece piece{};
  sv_plan plan;
  while ((plan = plan_write(volumes_[0], under_way.size() % kBlocks, 1, &piece)) == SV_PLAN_REMAP) under_way.push_back(piece);
  EXPECT_EQ(SV_PLAN_RING, plan);
  EXPECT_GT(under_way.size(), 10000u);
  EXPECT_TRUE(sv_pool_events(p_->pool) & SV_EVENT_RING);
  EXPECT_EQ(SV_PLAN_RING, plan_write(volumes_[0], kBlocks, 1, &piece)) << "nor is another extent made";
  sv_write_done(volumes_[0], &under_way.back(), true);
  under_way.pop_back();
  EXPECT_EQ(SV_PLAN_REMAP, plan_write(volumes_[0], kBlocks, 1, &piece));
  sv_write_done(volumes_[0], &piece, true);
  for (const sv_piece& p : under_way) sv_write_done(volumes_[0], &p, true);
}

TEST_F(CorePlan, ring_that_is_written_full_is_waited_for) {
  make({{.slots = 8, .ring = true}}, 1);
  write(0, 0, 1, true);
  sv_piece piece{};
  sv_plan plan;
  uint32_t writes = 0;
  for (; (plan = plan_write(volumes_[0], 1, 1, &piece)) == SV_PLAN_REMAP; writes++) {
    sv_write_done(volumes_[0], &piece, true);
    p_->commit();
    EXPECT_EQ(SV_PLAN_ZERO, sv_plan_discard(volumes_[0], 1, 1, false, &piece));
  }
  EXPECT_EQ(SV_PLAN_RING, plan) << "full is the ring, not the pool";
  EXPECT_GT(writes, 10000u);
  EXPECT_TRUE(sv_pool_events(p_->pool) & SV_EVENT_RING);
}

TEST_F(CorePlan, modes_refuse_in_order_of_degradation) {
  make({{.slots = 8, .ring = true}}, 1);
  sv_volume* ro = p_->volume(9, SV_EXTENT_SIZE, ~0ull, SV_VOLUME_READ_ONLY);
  write(0, 0, 4, true);
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_ROFS, plan_write(ro, 0, 1, &piece));
  EXPECT_EQ(SV_PLAN_ROFS, sv_plan_discard(ro, 0, 1, false, &piece));
  EXPECT_EQ(SV_PLAN_ZERO, sv_plan_read(ro, 0, 1, &piece));
  EXPECT_EQ(SV_MODE_READ_ONLY, sv_pool_degrade(p_->pool, SV_MODE_READ_ONLY));
  EXPECT_EQ(SV_PLAN_ROFS, plan_write(volumes_[0], 0, 1, &piece)) << "also a valid block";
  EXPECT_EQ(SV_PLAN_ROFS, sv_plan_discard(volumes_[0], 0, 1, false, &piece));
  read(0, 0, 4);
  EXPECT_EQ(SV_MODE_FAIL, sv_pool_degrade(p_->pool, SV_MODE_FAIL));
  EXPECT_EQ(SV_MODE_FAIL, sv_pool_degrade(p_->pool, SV_MODE_WRITE)) << "only an operator leaves a bad mode";
  EXPECT_EQ(SV_PLAN_IOERR, plan_write(volumes_[0], 0, 1, &piece));
  EXPECT_EQ(SV_PLAN_IOERR, sv_plan_read(volumes_[0], 0, 1, &piece));
  EXPECT_EQ(SV_PLAN_IOERR, sv_plan_discard(volumes_[0], 0, 1, false, &piece));
}

}  // namespace

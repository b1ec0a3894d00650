// Two CPUs in the core at once, by hand: one stands still in the middle of a call while the other one goes on. What
// the first has done by then is done here step by step, as core's own files see it (internal.h). Weaker memory
// orders than this machine's cannot be tried so; comments beside the barriers name their partners.
#include <gtest/gtest.h>

#include <functional>
#include <utility>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

// What CPU B does once CPU A wants that lock, before it gets it.
const sv_lock_t* g_lock;
std::function<void()> g_meanwhile;

void at_lock(const sv_lock_t* lock, std::function<void()> meanwhile) {
  g_lock = lock;
  g_meanwhile = std::move(meanwhile);
  sv_other_cpu = [](sv_lock_t* wanted) {
    if (wanted != g_lock) return;
    sv_other_cpu = nullptr;
    g_meanwhile();
  };
}

class CoreRaces : public testing::Test {
 protected:
  void SetUp() override {
    core_.activate();
    ASSERT_EQ(0, sv_volume_open(volume_));
  }

  void TearDown() override {
    EXPECT_EQ(nullptr, sv_other_cpu) << "nobody came to the lock";
    sv_other_cpu = nullptr;
    EXPECT_EQ(0, sv_test_reserved(pool_));
  }

  template <typename T>
  void command(uint32_t op, T* payload) {
    ASSERT_EQ(0, core_.command(op, payload)) << op;
  }

  sv_piece begin_write(uint64_t block, uint32_t blocks) {
    sv_piece piece{};
    EXPECT_EQ(SV_PLAN_REMAP, sv_plan_write(volume_, block, blocks, SV_WRITE_NORMAL, &piece));
    EXPECT_EQ(blocks, piece.blocks);
    return piece;
  }

  void write(uint64_t block, uint32_t blocks) {
    sv_piece piece = begin_write(block, blocks);
    sv_write_done(volume_, &piece, true);
  }

  void discard(uint64_t block, uint32_t blocks) {
    sv_piece piece{};
    ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(volume_, block, blocks, false, &piece));
  }

  void flush_member() {
    sv_commit_all(pool_);
    ASSERT_TRUE(sv_commit_round(pool_, 0));
    sv_commit_flushed(pool_, 0, false);
  }

  // The batch's records join those that are durable.
  void begin_batch() {
    sv_rec r;
    uint32_t at = 0;
    ASSERT_TRUE(sv_commit_batch(pool_, &batch_));
    while (sv_batch_next(batch_.buf, &at, &r, nullptr) == 1) journal_.push_back(r);
  }

  void end_batch() {
    sv_commit_written(pool_, &batch_, 1);
    EXPECT_EQ(nullptr, sv_commit_done(pool_));
  }

  void commit() {
    flush_member();
    begin_batch();
    end_batch();
  }

  // What a replay of the journal makes of a block of the extent.
  bool durably_valid(uint32_t extent, uint32_t block) {
    bool valid = false;
    for (const sv_rec& r : journal_) {
      if (r.extent != extent || (r.type != SV_REC_VALID && r.type != SV_REC_CLEAR)) continue;
      bool named = (r.flags & SV_VALID_ALL) || (r.word == block / 64 && (r.bits >> block % 64 & 1));
      if (named) valid = r.type == SV_REC_VALID;
    }
    return valid;
  }

  uint64_t* word(uint64_t index) { return sv_xt_word(pool_, sv_entry_extent(sv_map_lookup(volume_, index))); }

  sv::test::CorePool core_{{{.slots = 64, .ring = true}}};
  sv_pool* pool_ = core_.pool;
  sv_volume* volume_ = core_.volume(1, 1ull << 30);
  sv_commit batch_{};
  std::vector<sv_rec> journal_;
};

// CPU A, in sv_write_done(), has set the bit of a block that was discarded and is written again, and not yet listed the
// partial; CPU B is told that the VALID of all blocks, older than the discard, is in the journal.
TEST_F(CoreRaces, extent_is_not_settled_between_a_bit_and_its_mark) {
  write(0, SV_EXTENT_BLOCKS);
  flush_member();
  begin_batch();
  discard(5, 1);
  sv_piece again = begin_write(5, 1);
  ASSERT_NE(nullptr, again.partial);
  atomic64_or(1 << 5, &again.partial->valid[0]);  // A
  end_batch();                                    // B
  sv_write_done(volume_, &again, true);           // A goes on, and the write ends
  commit();
  EXPECT_TRUE(durably_valid(sv_entry_extent(sv_map_lookup(volume_, 0)), 5)) << "a flushed block is lost by a crash";
  EXPECT_FALSE(*word(0) & SV_XW_PARTIAL) << "settled now, by the second VALID of all";
}

// CPU A is at the end of the first write to a block; CPU B overwrites it meanwhile, and is told that its flush has ended.
TEST_F(CoreRaces, flush_covers_a_block_that_another_write_makes_valid) {
  write(0, 1);
  commit();
  uint32_t extent = sv_entry_extent(sv_map_lookup(volume_, 0));
  sv_piece first = begin_write(5, 1);
  at_lock(&pool_->members[0]->listing, [&] {
    write(5, 1);
    commit();
    EXPECT_TRUE(durably_valid(extent, 5)) << "a flushed block is lost by a crash";
  });
  sv_write_done(volume_, &first, true);
  commit();
  EXPECT_TRUE(durably_valid(extent, 5));
}

// CPU A has set the bit, and not yet marked it, in one step under a lock for which CPU B has to wait.
TEST_F(CoreRaces, round_and_fua_wait_for_the_mark_of_a_bit_that_they_found) {
  sv_lock_t* lock = &pool_->members[0]->listing;
  write(0, 1);
  commit();
  uint32_t extent = sv_entry_extent(sv_map_lookup(volume_, 0));
  for (uint32_t block : {5, 6}) {
    sv_lock_flags_t f;
    sv_piece first = begin_write(block, 1);
    sv_lock(lock, f);  // A
    atomic64_or(1 << block, &first.partial->valid[0]);
    sv_piece again = begin_write(block, 1);  // B
    EXPECT_EQ(0, again.resv) << "it overwrites what is there";
    sv_write_done(volume_, &again, true);
    at_lock(lock, [&] {  // A goes on
      sv_unlock(lock, f);
      sv_write_done(volume_, &first, true);
    });
    sv_ticket ticket{};
    if (block == 5) {
      ASSERT_TRUE(sv_fua_ticket(volume_, &again, &ticket)) << "its bit is nowhere yet";
    } else {
      ASSERT_TRUE(sv_flush_ticket(volume_, &ticket)) << "a write has ended";
    }
    ASSERT_TRUE(sv_commit_round(pool_, 0));
    sv_commit_flushed(pool_, 0, false);
    begin_batch();
    sv_commit_written(pool_, &batch_, 1);
    EXPECT_EQ(&ticket, sv_commit_done(pool_));
    EXPECT_TRUE(durably_valid(extent, block)) << "block " << block << " was flushed, and is lost by a crash";
  }
}

// CPU A has found the extent in the map. Before it loads the extent's word CPU B discards the extent, which svd then has
// recycled, up to the grace period that waits for A.
TEST_F(CoreRaces, reader_never_sees_blocks_of_a_recycled_extent_that_were_not_valid) {
  write(0, 1);
  uint64_t entry = sv_map_lookup(volume_, 0);  // A
  discard(0, SV_EXTENT_BLOCKS);
  sv_freed freed{};
  command(SV_OP_LIST_FREED, &freed);
  commit();
  sv_trim trim{.seq = pool_->next_seq - 1};
  command(SV_OP_TRIM, &trim);
  command(SV_OP_RECYCLE, &freed);  // its first step

  sv_lock_flags_t f;
  sv_lock(&pool_->lock, f);
  sv_map_install(volume_, 0, entry);  // as A sees it
  sv_unlock(&pool_->lock, f);
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_ZERO, sv_plan_read(volume_, 100, 1, &piece)) << "what another volume wrote there";
  EXPECT_EQ(SV_PLAN_REMAP, sv_plan_write(volume_, 100, 1, SV_WRITE_NORMAL, &piece));
  EXPECT_NE(sv_entry_extent(entry), sv_entry_extent(sv_map_lookup(volume_, 0))) << "a write makes an extent of its own";
  EXPECT_EQ(0u, piece.partial->parent) << "and nothing of the freed one shows through";
  sv_write_done(volume_, &piece, true);
  commit();
  sv_recycle_finish(pool_);
}

}  // namespace

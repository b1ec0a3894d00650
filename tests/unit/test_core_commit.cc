// The commit's two machines by example, where test_core_crash.cc tries orders at random: who waits for whom, what one
// flush and one batch serve, what a round takes that is larger than a flush can publish, and how all of it ends.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "kmod/core/internal_test.h"

namespace {

constexpr uint64_t kRing = 16ull << 20;
constexpr uint32_t kSlots = 12000;

// A pool whose volume n + 1 lies on tier n, which is member n, and more members in pools of more than eight.
class CoreCommit : public testing::Test {
 protected:
  void make(uint32_t members, uint32_t rings = 1) {
    std::vector<sv_member_geometry> g(members);
    for (uint32_t i = 0; i < members; i++) {
      g[i] = {.slot_off = 1 << 20, .nr_slots = kSlots, .tier = i ? 1 + (i - 1) % 7 : 0, .flags = 0, .ring_off = 0, .ring_len = 0};
      if (i < rings) g[i].flags = SV_LABEL_HAS_RING, g[i].ring_len = kRing;
    }
    uint8_t uuid[16] = {1};
    pool_ = sv_pool_new(uuid, 7, members, g.data());
    ASSERT_NE(nullptr, pool_);
    sv_attach attach{};
    command(SV_OP_ATTACH, &attach);
    for (uint32_t i = 0; i < members; i++) {
      sv_grant grant{.member = i, .first = 0, .count = kSlots, .pad = 0};
      command(SV_OP_GRANT, &grant);
      if (i > 7) continue;
      sv_volume_info v{.id = i + 1, .layer = 1, .owned_since = 1, .flags = 0, .size = 32ull << 30, .mapped = 0, .tiers = ~0xffull | i};
      command(SV_OP_VOLUME_CREATE, &v);
      volumes_.push_back(sv_volume_find(pool_, i + 1));
    }
    sv_activate activate{};
    command(SV_OP_ACTIVATE, &activate);
    for (sv_volume* v : volumes_) ASSERT_EQ(0, sv_volume_open(v));
  }

  void TearDown() override {
    EXPECT_EQ(0, sv_test_reserved(pool_));
    sv_pool_free(pool_);
  }

  template <typename T>
  void command(uint32_t op, T* payload) {
    uint32_t n = 1, done = 0;
    uint64_t members = 0;
    ASSERT_EQ(0, sv_cmd(pool_, op, epoch_, payload, &n, &done, &members)) << op;
    if (op == SV_OP_ATTACH) epoch_ = reinterpret_cast<sv_attach*>(payload)->epoch;
  }

  sv_state state() {
    sv_state s{};
    command(SV_OP_STATE, &s);
    return s;
  }

  sv_piece write(uint32_t volume, uint64_t block, uint32_t blocks = 1) {
    sv_piece piece{};
    enum sv_plan plan;
    int tries = 0;
    while ((plan = sv_plan_write(volumes_[volume], block, blocks, SV_WRITE_NORMAL, &piece)) == SV_PLAN_DEFER) {
      EXPECT_EQ(0, sv_pool_refill(pool_));
      if (++tries == 100) {
        ADD_FAILURE() << "no room in the stream, and none comes";
        return {};
      }
    }
    EXPECT_EQ(SV_PLAN_REMAP, plan);
    EXPECT_EQ(volume, piece.member ? 1u + (piece.member - 1u) % 7 : 0);
    sv_write_done(volumes_[volume], &piece, true);
    return piece;
  }

  void discard(uint32_t volume, uint64_t block) {
    sv_piece piece{};
    ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(volumes_[volume], block, 1, false, &piece));
  }

  // Writes a batch if one is wanted; its records by type.
  std::vector<sv_rec> batch(uint64_t failed = 0) {
    std::vector<sv_rec> records;
    sv_commit c{};
    if (!sv_commit_batch(pool_, &c)) return records;
    batches_++;
    uint32_t at = 0;
    sv_rec r;
    while (sv_batch_next(c.buf, &at, &r, nullptr) == 1) records.push_back(r);
    flags_ = static_cast<const sv_batch_disk*>(c.buf)->flags;
    sv_commit_written(pool_, &c, sv_pool_ring_members(pool_) & ~failed);
    return records;
  }

  std::set<sv_ticket*> done() {
    std::set<sv_ticket*> all;
    for (sv_ticket* t = sv_commit_done(pool_); t; t = t->next) all.insert(t);
    return all;
  }

  // Everything, with flushes of members that work at once. Returns the number of flushes.
  int run(uint32_t members = 8) {
    int flushes = 0;
    int rounds = 0;
    for (bool did = true; did;) {
      did = false;
      if (++rounds > 1000) {
        ADD_FAILURE() << "there is always more to commit";
        break;
      }
      for (uint32_t i = 0; i < members; i++)
        if (sv_commit_round(pool_, i)) sv_commit_flushed(pool_, i, false), flushes++, did = true;
      int before = batches_;
      batch();
      did |= batches_ != before;
    }
    return flushes;
  }

  sv_pool* pool_ = nullptr;
  uint64_t epoch_ = 0;
  std::vector<sv_volume*> volumes_;
  int batches_ = 0;
  uint32_t flags_ = 0;
};

int count(const std::vector<sv_rec>& records, uint8_t type) {
  int n = 0;
  for (auto& r : records) n += r.type == type;
  return n;
}

using Tickets = std::set<sv_ticket*>;

// To a block that is valid for long: not its own bit, but what else its volume has in the stream. [I13]
TEST_F(CoreCommit, fua_waits_for_all_records_of_its_volume_and_not_for_others) {
  make(3);
  const sv_piece old = write(0, 0);
  write(1, 0);
  sv_commit_all(pool_);
  run();
  EXPECT_EQ(Tickets(), done());
  sv_ticket t{};
  ASSERT_FALSE(sv_fua_ticket(volumes_[0], &old, &t)) << "all of it is durable";
  const sv_piece now = write(0, 0);
  write(1, SV_EXTENT_BLOCKS);
  ASSERT_FALSE(sv_fua_ticket(volumes_[0], &now, &t)) << "only another volume has records";
  write(0, SV_EXTENT_BLOCKS);
  ASSERT_TRUE(sv_fua_ticket(volumes_[0], &now, &t)) << "a MAP of its own volume is not durable";
  EXPECT_EQ(Tickets(), done());
  EXPECT_GE(count(batch(), SV_REC_MAP), 1);
  EXPECT_EQ(Tickets{&t}, done()) << "the flush of the other block's member is not its business";
  EXPECT_EQ(0, t.error);
  sv_commit_all(pool_);
  run();
}

TEST_F(CoreCommit, flush_does_not_wait_for_another_volumes_member) {
  make(3);
  sv_ticket slow{}, fast{};
  write(1, 0);
  write(2, 0);
  ASSERT_TRUE(sv_flush_ticket(volumes_[1], &slow));
  ASSERT_TRUE(sv_commit_round(pool_, 1));  // and hangs
  ASSERT_TRUE(sv_flush_ticket(volumes_[2], &fast));
  EXPECT_FALSE(sv_commit_round(pool_, 0)) << "nobody wrote there";
  ASSERT_TRUE(sv_commit_round(pool_, 2));
  EXPECT_EQ(Tickets{}, done());
  sv_commit_flushed(pool_, 2, false);
  auto records = batch();
  EXPECT_EQ(2, count(records, SV_REC_MAP));
  EXPECT_EQ(1, count(records, SV_REC_VALID)) << "the slow member's bit waits for its flush";
  EXPECT_EQ(Tickets{&fast}, done());
  sv_commit_flushed(pool_, 1, false);
  EXPECT_EQ(1, count(batch(), SV_REC_VALID));
  EXPECT_EQ(Tickets{&slow}, done());
  EXPECT_TRUE(sv_commit_idle(pool_));
}

TEST_F(CoreCommit, many_flushes_cost_one_flush_and_one_batch) {
  make(1);
  write(0, 0);
  sv_ticket first{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &first));
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  std::vector<sv_ticket> more(10);
  for (size_t i = 0; i < more.size(); i++) {
    write(0, 1 + i);
    ASSERT_TRUE(sv_flush_ticket(volumes_[0], &more[i]));
    EXPECT_FALSE(sv_commit_round(pool_, 0)) << "one flush of a member at a time";
  }
  sv_commit_flushed(pool_, 0, false);
  batch();
  EXPECT_EQ(Tickets{&first}, done()) << "the others came after the flush began";
  EXPECT_EQ(1, run());
  EXPECT_EQ(2, batches_);
  EXPECT_EQ(more.size(), done().size());
}

TEST_F(CoreCommit, who_comes_alone_begins_the_round_himself) {
  make(2);
  uint32_t member = 7;
  sv_ticket a{}, b{}, c{}, d{};
  EXPECT_FALSE(sv_flush_ticket_begin(volumes_[0], &a, &member));
  EXPECT_EQ(SV_MAX_MEMBERS, member) << "nothing to flush";
  write(0, 0);
  ASSERT_TRUE(sv_flush_ticket_begin(volumes_[0], &a, &member));
  ASSERT_EQ(0u, member);
  EXPECT_FALSE(sv_commit_round(pool_, 0)) << "it has begun";
  EXPECT_EQ(Tickets(), done());
  for (sv_ticket* t : {&b, &c}) {
    write(0, 1 + (t == &c));
    ASSERT_TRUE(sv_flush_ticket_begin(volumes_[0], t, &member));
    EXPECT_EQ(SV_MAX_MEMBERS, member) << "the round under way does not serve it";
  }
  sv_commit_flushed(pool_, 0, false);
  batch();
  EXPECT_EQ(Tickets{&a}, done());
  EXPECT_EQ(1, run());
  EXPECT_EQ((Tickets{&b, &c}), done());
  write(0, 3);
  ASSERT_TRUE(sv_flush_ticket_begin(volumes_[0], &d, &member));
  EXPECT_EQ(SV_MAX_MEMBERS, member) << "several came the last time, and may now";
  EXPECT_EQ(1, run());
  EXPECT_EQ(Tickets{&d}, done());
  write(0, 4);
  ASSERT_TRUE(sv_flush_ticket_begin(volumes_[0], &a, &member));
  EXPECT_EQ(0u, member) << "it was one";
  sv_commit_flushed(pool_, 0, true);
  EXPECT_EQ(0, run());
  EXPECT_EQ(Tickets{&a}, done());
  EXPECT_EQ(-EIO, a.error);
  write(1, 0);
  ASSERT_TRUE(sv_flush_ticket_begin(volumes_[1], &b, &member));
  EXPECT_EQ(1u, member);
  sv_commit_flushed(pool_, 1, false);
  EXPECT_EQ(0, run());
  EXPECT_EQ(Tickets{&b}, done());
  sv_commit_all(pool_);
  EXPECT_EQ(1, run()) << "what failed is owed again";
  EXPECT_EQ(Tickets(), done());
}

TEST_F(CoreCommit, short_batch_after_a_long_one_is_padded_with_zeroes) {
  make(1);
  uint64_t extent = 0;
  for (uint64_t writes : {300, 1, 40, 2}) {
    for (uint64_t x = 0; x < writes; x++) write(0, extent++ * SV_EXTENT_BLOCKS);
    sv_commit_all(pool_);
    ASSERT_TRUE(sv_commit_round(pool_, 0));
    sv_commit_flushed(pool_, 0, false);
    sv_commit c{};
    ASSERT_TRUE(sv_commit_batch(pool_, &c));
    const auto* bytes = static_cast<const uint8_t*>(c.buf);
    ASSERT_LT(c.used, c.len);
    EXPECT_EQ(SV_BATCH_HEAD + writes * (sizeof(sv_rec_map) + sizeof(sv_rec_small)), c.used);
    EXPECT_TRUE(std::all_of(bytes + c.used, bytes + c.len, [](uint8_t b) { return b == 0; })) << writes;
    sv_commit_written(pool_, &c, 1);
  }
  EXPECT_EQ(0, run());
}

TEST_F(CoreCommit, flush_with_nothing_new_rides_along_and_shares_the_fate) {
  for (bool failed : {false, true}) {
    SCOPED_TRACE(failed);
    if (pool_) sv_pool_free(pool_), volumes_.clear();
    make(1);
    write(0, 0);
    sv_ticket a{}, b{}, c{};
    ASSERT_TRUE(sv_flush_ticket(volumes_[0], &a));
    ASSERT_TRUE(sv_commit_round(pool_, 0));
    ASSERT_TRUE(sv_flush_ticket(volumes_[0], &b));
    sv_commit_flushed(pool_, 0, failed);
    EXPECT_FALSE(sv_commit_round(pool_, 0)) << "nothing is owed that was not flushed";
    ASSERT_TRUE(sv_flush_ticket(volumes_[0], &c)) << "not in the journal yet";
    batch();
    EXPECT_EQ(failed ? (Tickets{&a, &b}) : (Tickets{&a, &b, &c}), done());
    EXPECT_EQ(failed ? -EIO : 0, a.error);
    EXPECT_EQ(failed ? -EIO : 0, b.error);
    EXPECT_EQ(failed ? 1 : 0, run()) << "owed again";
    EXPECT_EQ(failed ? Tickets{&c} : Tickets{}, done());
    EXPECT_EQ(0, c.error);
  }
}

TEST_F(CoreCommit, clear_during_a_flush_wins_over_its_valid) {
  make(1);
  write(0, 0);
  write(0, 1);
  sv_ticket t{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &t));
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  discard(0, 0);
  write(0, 0);  // set again, but not flushed
  sv_commit_flushed(pool_, 0, false);
  auto records = batch();
  ASSERT_EQ(3u, records.size());
  EXPECT_EQ(SV_REC_CLEAR, records[1].type);
  EXPECT_EQ(SV_REC_VALID, records[2].type);
  EXPECT_EQ(2u, records[2].bits) << "block 1 only";
  EXPECT_EQ(Tickets{&t}, done());
  sv_commit_all(pool_);
  EXPECT_EQ(1, run());
  EXPECT_EQ(Tickets{}, done());
  EXPECT_TRUE(sv_commit_idle(pool_));
}

TEST_F(CoreCommit, round_larger_than_a_flush_can_publish_takes_several) {
  make(1);
  for (uint64_t x = 0; x < 5000; x++) write(0, x * 256);
  sv_ticket t{}, later{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &t));
  int flushes = 0, valids = 0;
  while (done().empty()) {
    if (sv_commit_round(pool_, 0)) {
      flushes++;
      // What comes all the time must not make the ticket wait for ever.
      for (uint64_t x = 0; x < 3000; x++) write(0, x * 256 + 64 + static_cast<uint64_t>(flushes));
      EXPECT_TRUE(flushes > 1 || sv_flush_ticket(volumes_[0], &later));
      sv_commit_flushed(pool_, 0, false);
    }
    valids += count(batch(), SV_REC_VALID);
    ASSERT_LT(flushes, 20);
  }
  EXPECT_LE(3, flushes);
  EXPECT_LT(valids, 5000 + 3000);
  EXPECT_GE(run(), 2) << "what came meanwhile";
  EXPECT_EQ(Tickets{&later}, done());
  EXPECT_TRUE(sv_commit_idle(pool_));
}

TEST_F(CoreCommit, failure_in_the_middle_of_a_large_round_loses_no_bit) {
  make(1);
  for (uint64_t x = 0; x < 5000; x++) write(0, x * 256);
  sv_ticket t{}, again{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &t));
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  sv_commit_flushed(pool_, 0, false);
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  sv_commit_flushed(pool_, 0, true);
  int valids = count(batch(), SV_REC_VALID);
  EXPECT_EQ(Tickets{&t}, done());
  EXPECT_EQ(-EIO, t.error);
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &again));
  while (sv_commit_round(pool_, 0)) sv_commit_flushed(pool_, 0, false);
  valids += count(batch(), SV_REC_VALID);
  EXPECT_EQ(5000, valids);
  EXPECT_EQ(Tickets{&again}, done());
  EXPECT_TRUE(sv_commit_idle(pool_));
}

TEST_F(CoreCommit, full_extent_needs_no_partial_once_that_is_durable) {
  make(1);
  write(0, 0, 256);
  EXPECT_EQ(1u, state().partials);
  sv_commit_all(pool_);
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  sv_commit_flushed(pool_, 0, false);
  EXPECT_EQ(1u, state().partials);
  batch();
  EXPECT_EQ(0u, state().partials);
  done();
}

// Else a replay of the journal would give its old owner a slot that has a new one. [I20]
TEST_F(CoreCommit, freed_extent_is_recycled_only_once_listed_committed_and_trimmed) {
  make(1);
  const auto recycle = [&] {
    sv_extent extent{};
    command(SV_OP_DUMP_EXTENTS, &extent);
    sv_freed freed{.extent = extent.extent, .gen = extent.gen, .pad = 0};
    uint32_t n = 1, done = 0;
    uint64_t members = 0;
    return sv_cmd(pool_, SV_OP_RECYCLE, epoch_, &freed, &n, &done, &members);
  };
  const auto trim = [&] {
    sv_trim trim{.seq = state().committed_seq};
    command(SV_OP_TRIM, &trim);
  };
  write(0, 0);
  sv_commit_all(pool_);
  run();
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(volumes_[0], 0, SV_EXTENT_BLOCKS, false, &piece));
  sv_commit_all(pool_);
  run();
  trim();
  EXPECT_EQ(-EBUSY, recycle());
  EXPECT_EQ(0, sv_recycle_finish(pool_));

  write(0, SV_EXTENT_BLOCKS);  // a record that comes before the listing and is not committed
  sv_freed listed{};
  command(SV_OP_LIST_FREED, &listed);
  ASSERT_EQ(1u, listed.extent);
  EXPECT_EQ(-EBUSY, recycle());
  sv_commit_all(pool_);
  run();
  EXPECT_EQ(-EBUSY, recycle());
  trim();
  EXPECT_EQ(0, recycle());
  EXPECT_EQ(0, sv_recycle_finish(pool_));
  EXPECT_EQ(0u, state().freed_extents);
}

TEST_F(CoreCommit, lost_copy_is_recorded_before_anything_passes) {
  make(2, 2);
  write(0, 0);
  sv_ticket t{}, meanwhile{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &t));
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  sv_commit_flushed(pool_, 0, false);
  batch(2);
  EXPECT_EQ(Tickets{}, done());
  EXPECT_TRUE(sv_flush_ticket(volumes_[0], &meanwhile)) << "though its records are durable";
  EXPECT_FALSE(sv_commit_idle(pool_));
  batch();
  EXPECT_TRUE(flags_ & SV_BATCH_COPY_LOST);
  EXPECT_EQ((Tickets{&t, &meanwhile}), done());
  EXPECT_EQ(1u, sv_pool_ring_members(pool_));
  EXPECT_TRUE(sv_pool_events(pool_) & SV_EVENT_COPY_LOST);
}

TEST_F(CoreCommit, failed_pool_fails_every_ticket_at_once) {
  make(2);
  write(0, 0);
  write(1, 0);
  sv_ticket journal{}, hung{}, waits{}, fua{}, all{}, late{};
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &journal));
  ASSERT_TRUE(sv_flush_ticket(volumes_[1], &hung));
  ASSERT_TRUE(sv_commit_round(pool_, 0));
  ASSERT_TRUE(sv_commit_round(pool_, 1));
  sv_piece piece = write(1, 1);
  ASSERT_TRUE(sv_flush_ticket(volumes_[1], &waits));
  ASSERT_TRUE(sv_fua_ticket(volumes_[1], &piece, &fua));
  sv_ticket_add(pool_, &all, true);
  sv_commit_flushed(pool_, 0, false);
  batch(~0ull);
  EXPECT_EQ(SV_MODE_FAIL, sv_pool_mode(pool_));
  EXPECT_EQ((Tickets{&journal, &hung, &waits, &fua, &all}), done());
  for (auto* t : {&journal, &hung, &waits, &fua, &all}) EXPECT_EQ(-EIO, t->error);
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &late)) << "a failed pool promises nothing";
  EXPECT_EQ(Tickets{&late}, done());
  EXPECT_EQ(-EIO, late.error);
  sv_commit_flushed(pool_, 1, true);  // the hung flush ends after all
  EXPECT_TRUE(sv_commit_idle(pool_));
  EXPECT_EQ(0, run());
  // Its bits stay dirty, with what they reserved: nothing will ever be written.
  EXPECT_GT(sv_test_reserved(pool_), 0);
  sv_pool_free(pool_);
  volumes_.clear();
  make(1);
}

TEST_F(CoreCommit, periodic_commit_is_one_batch_and_no_slow_member_stops_it) {
  make(3);
  for (uint32_t v : {0, 1, 2}) write(v, 0);
  sv_commit_all(pool_);
  EXPECT_EQ(3, run());
  EXPECT_EQ(1, batches_);
  done();
  EXPECT_TRUE(sv_commit_idle(pool_));
  for (uint32_t v : {0, 1, 2}) write(v, 1);
  sv_commit_all(pool_);
  ASSERT_TRUE(sv_commit_round(pool_, 1));  // and hangs
  EXPECT_EQ(2, run());
  sv_commit_all(pool_);
  write(0, 2);
  sv_commit_all(pool_);
  EXPECT_EQ(1, run());
  sv_commit_all(pool_);
  run();
  EXPECT_EQ(0u, state().ring_reserved - static_cast<uint64_t>(sv_test_reserved(pool_))) << "all records are written";
  int before = batches_;
  sv_commit_all(pool_);
  run();
  EXPECT_EQ(before, batches_) << "nothing new, nothing written";
  sv_commit_flushed(pool_, 1, false);
  run();
  done();
  EXPECT_TRUE(sv_commit_idle(pool_));
}

TEST_F(CoreCommit, ticket_for_records_waits_for_no_member) {
  make(2);
  write(1, 0);
  sv_commit_all(pool_);
  ASSERT_TRUE(sv_commit_round(pool_, 1));  // and hangs
  sv_ticket records{}, everything{};
  sv_ticket_add(pool_, &records, false);
  sv_ticket_add(pool_, &everything, true);
  EXPECT_EQ(1, count(batch(), SV_REC_MAP));
  EXPECT_EQ(Tickets{&records}, done());
  sv_commit_flushed(pool_, 1, false);
  run();
  EXPECT_EQ(Tickets{&everything}, done());
}

TEST_F(CoreCommit, hung_members_do_not_fill_the_stream) {
  make(64);
  for (uint32_t v = 1; v < 8; v++)
    for (uint64_t x = 9 * 1100; x-- > 0;) {  // downwards, so that it is no stream and goes to all members
      write(v, x * 256, 256);
      if (x % 1000 == 0) sv_commit_all(pool_), batch();
    }
  sv_commit_all(pool_);
  for (uint32_t i = 1; i < 64; i++) EXPECT_TRUE(sv_commit_round(pool_, i)) << i;  // and hangs, with all it can hold
  sv_ticket t{};
  for (uint64_t x = 0; x < 600; x++) write(0, x * 256, 256);
  ASSERT_TRUE(sv_flush_ticket(volumes_[0], &t));
  Tickets passed;
  for (int i = 0; i < 4; i++) {
    if (sv_commit_round(pool_, 0)) sv_commit_flushed(pool_, 0, false);
    batch();
    passed.merge(done());
  }
  EXPECT_EQ(Tickets{&t}, passed);
  for (uint32_t i = 1; i < 64; i++) sv_commit_flushed(pool_, i, false);
  run(64);
  sv_commit_all(pool_);
  run(64);
  done();
  EXPECT_TRUE(sv_commit_idle(pool_));
}

}  // namespace

// Every interleaving, and a crash in every state, of one block: writes and FUA writes, flushes, discards, the periodic
// commit, a checkpoint that recycles, begin and end of rounds and of journal writes, and a flush that fails. The real
// planners and commit run; their memory is copied out and back, and states seen before are not gone into again.
//
// Claim, as in test_core_crash.cc: after a crash the block reads as after some operation not older than the newest
// one acknowledged, and never as what lay in the slot before.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "kmod/core/internal.h"
}

namespace {

constexpr uint32_t kSlots = 2;
constexpr int kGarbage = -1;
constexpr int kOps = 8, kTickets = 8, kPartials = 5, kExtents = 4;

// How often each thing may happen.
struct Bounds {
  int writes, flushes, discards, alls, failures, checkpoints;
  bool neighbour;  // another block of the extent is valid, so that it is not empty without ours
};

// A slot's block on the member: what is there after a crash is durable or any of the versions since.
struct Cell {
  int durable = kGarbage, versions[kOps] = {}, nr = 0, covered = 0;
};

// What recovery would find in the journal, or the catalogue, about the block.
struct Found {
  uint32_t extent = 0, slot = 0, gen = 0;
  bool valid = false;
};

struct Ticket {
  sv_ticket t;
  int covers;
  bool waits;
};

// All that the test itself knows, so that a state is this and the core's memory.
struct Model {
  Bounds left;
  int values[kOps + 1];  // of the block, by operation; 0: zeroes
  int nr, floor, completed;
  bool in_flight, fua, flushing, writing;
  sv_freed listed[kExtents];
  uint32_t nr_listed;
  sv_piece piece;
  Cell cells[kSlots];
  Ticket tickets[kTickets];
  Found journal;
  sv_commit batch;
};

enum Action {
  kWrite, kWriteFua, kComplete, kFlush, kFlushBegin, kDiscard, kUnmap, kAll, kList, kCheckpoint, kRound, kFlushed,
  kFlushFailed, kBatch, kWritten, kActions,
};
const char* const kNames[] = {"write", "FUA", "complete", "FLUSH", "FLUSH and round", "discard", "unmap", "all", "list",
                              "checkpoint", "round", "flushed", "flush failed", "batch", "written"};

class Explorer {
 public:
  explicit Explorer(Bounds bounds) {
    boot();
    memset(static_cast<void*>(&m_), 0, sizeof(m_));
    m_.left = bounds;
    for (auto& c : m_.cells) c = Cell{};
    partials_ = sv_partial_at(pool_, pool_->pt_free);  // and those behind it come next
    add(&m_, sizeof(m_));
    add(pool_, sizeof(*pool_));
    add(pool_->members[0], sizeof(sv_member));
    add(pool_->members[0]->taken, 2 * sizeof(sv_taken));
    add(pool_->members[0]->used, 8);
    add(pool_->members[0]->live, 8);
    add(pool_->members[0]->room, 8);
    add(pool_->numbers[0], 8);
    add(pool_->xt[0], 8 * kExtents);
    add(pool_->stream, 2048);
    add(pool_->batch, 1024);
    add(pool_->batch_end, 64 * sizeof(uint32_t));
    add(volume_, sizeof(*volume_));
    add(volume_->root, sizeof(sv_root));
    add(pool_->nodes, 8);  // will be its only node
    add(partials_, kPartials * sizeof(sv_partial));
    if (bounds.neighbour) write_neighbour();
  }
  ~Explorer() { sv_pool_free(pool_); }

  // The path to a state that breaks the claim, or "".
  std::string run() {
    note_seen();
    go();
    return fault_;
  }

  size_t states() const { return seen_.size(); }
  uint64_t crashes_ = 0, acknowledged_ = 0, errors_ = 0;

 private:
  void boot() {
    sv_member_geometry g{.slot_off = 1 << 20, .nr_slots = kSlots, .tier = 0, .flags = SV_LABEL_HAS_RING, .ring_off = 0,
                         .ring_len = 1 << 20};
    uint8_t uuid[16] = {1};
    pool_ = sv_pool_new(uuid, 7, 1, &g);
    sv_attach attach{};
    command(SV_OP_ATTACH, &attach);
    epoch_ = attach.epoch;
    sv_volume_info v{.id = 1, .layer = 1, .owned_since = 1, .flags = 0, .size = 1 << 20, .mapped = 0,
                     .tiers = ~0ull};
    command(SV_OP_VOLUME_CREATE, &v);
    sv_grant grant{.member = 0, .first = 0, .count = kSlots, .pad = 0};
    command(SV_OP_GRANT, &grant);
    sv_activate activate{};
    command(SV_OP_ACTIVATE, &activate);
    volume_ = sv_volume_find(pool_, 1);
    sv_volume_open(volume_);
  }

  void write_neighbour() {
    sv_piece p;
    ASSERT_EQ(SV_PLAN_REMAP, sv_plan_write(volume_, 1, 1, SV_WRITE_NORMAL, &p));
    sv_write_done(volume_, &p, true);
    sv_commit_all(pool_);
    ASSERT_TRUE(round() && flushed(false));
    ASSERT_TRUE(act(kBatch) && written());
    done();
    ASSERT_TRUE(m_.journal.extent && sv_commit_idle(pool_));
  }

  template <typename T>
  uint32_t command(uint32_t op, T* payload) {
    uint32_t n = 1, done = 0;
    uint64_t members = 0;
    EXPECT_EQ(0, sv_cmd(pool_, op, epoch_, payload, &n, &done, &members)) << op;
    return n;
  }

  // ---- states ----

  void add(void* at, size_t bytes) {
    regions_.push_back({static_cast<uint8_t*>(at), bytes});
    bytes_ += bytes;
  }

  std::vector<uint8_t> save() const {
    std::vector<uint8_t> all(bytes_);
    size_t to = 0;
    for (auto& [at, n] : regions_) memcpy(&all[to], at, n), to += n;
    return all;
  }

  void restore(const std::vector<uint8_t>& all) {
    size_t from = 0;
    for (auto& [at, n] : regions_) memcpy(at, &all[from], n), from += n;
  }

  // A stream position, of which only what is not durable yet matters.
  uint64_t rel(uint64_t pos) const { return pos & SV_POS_TAKEN ? pos : pos > pool_->durable ? pos - pool_->durable : 0; }

  // What decides the future, without counters and positions that only grow. Equal keys: equal futures.
  // What is left out is the same in all states here: one member with one word of slots, one leaf, room everywhere.
  std::string key() const {
    std::string k;
    auto put = [&](uint64_t v) { k.append(reinterpret_cast<const char*>(&v), sizeof(v)); };
    auto byte = [&](int v) { k.push_back(static_cast<char>(v)); };
    const sv_pool& p = *pool_;
    const sv_member& mb = *p.members[0];
    const Bounds& b = m_.left;
    for (int n : {b.writes, b.flushes, b.discards, b.alls, b.failures, b.checkpoints}) byte(n);
    for (int n : {m_.nr, m_.floor, m_.completed}) byte(n);
    for (int i = 0; i <= m_.nr; i++) byte(m_.values[i]);
    for (bool f : {m_.in_flight, m_.fua, m_.flushing, m_.writing, m_.journal.valid}) byte(f);
    for (bool f : {p.writing, p.all_waits, mb.flushing, mb.more, mb.fresh}) byte(f);
    if (m_.in_flight) put(m_.piece.sector), put(m_.piece.resv), put(reinterpret_cast<uint64_t>(m_.piece.partial));
    for (auto& c : m_.cells) {
      byte(c.durable), byte(c.nr), byte(c.covered);
      for (int i = 0; i < c.nr; i++) byte(c.versions[i]);
    }
    put(m_.journal.extent), put(m_.journal.slot), put(m_.journal.gen);
    if (m_.writing) put(rel(m_.batch.batch_pos));
    for (uint32_t i = 0; i < m_.nr_listed; i++) put(m_.listed[i].extent);
    put(p.listed_seq == SV_SEQ_UNKNOWN ? 1 + rel(p.listed_pos) : 0);
    for (const sv_ticket* t = p.tickets; t; t = t->next) {
      put(t->need), put(t->riding), put(rel(t->pos)), byte(t->flush), byte(t->error);
      byte(t == &p.all ? -1 : reinterpret_cast<const Ticket*>(t)->covers);
    }
    for (uint64_t v : {rel(p.head), rel(p.wanted), p.held, p.need, uint64_t{p.mode}, p.freed}) put(v);
    for (uint64_t at = p.durable; at < p.head; at++) byte(p.stream[at % SV_STREAM_BYTES]);
    for (uint64_t v : {uint64_t{p.pt_free}, uint64_t{p.quarantine}, mb.used[0], mb.live[0]}) put(v);
    put(mb.todo), put(mb.dirty);
    for (uint32_t i = 0; i < mb.nr_taken; i++)
      put(mb.taken[i].bits[0]), put(mb.taken[i].partial), put(mb.taken[i].words);
    put(static_cast<uint64_t>(atomic64_read(&volume_->owed))), put(volume_->flushing), put(rel(volume_->rec_pos));
    put(sv_map_lookup(volume_, 0)), put(p.numbers[0][0]);
    for (int i = 1; i < kExtents; i++) put(p.xt[0][i]);
    for (int i = 0; i < kPartials; i++) {
      const sv_partial& pt = partials_[i];
      put(static_cast<uint64_t>(atomic64_read(&pt.valid[0])));
      put(static_cast<uint64_t>(atomic64_read(&pt.dirty)));
      put(pt.link), put(pt.extent), put(pt.slot), put(sv_partial_is_live(pool_, &pt) ? rel(pt.pos) : pt.pos);
    }
    return k;
  }

  // 128 bits of a hash for each state: two that meet by accident would hide one, which is as good as impossible.
  bool note_seen() {
    std::string k = key();
    size_t a = std::hash<std::string>()(k), b = std::hash<std::string>()(k += "second");
    return seen_.insert({a, b}).second;
  }

  void go() {
    check();
    if (!fault_.empty()) return;
    auto here = save();
    for (int a = 0; a < kActions && fault_.empty(); a++) {
      path_.push_back(static_cast<Action>(a));
      if (act(static_cast<Action>(a))) {
        done();
        if (note_seen()) go();
      }
      restore(here);
      path_.pop_back();
    }
  }

  // ---- steps ----

  bool act(Action a) {
    switch (a) {
      case kWrite: return submit(false);
      case kWriteFua: return submit(true);
      case kComplete: return complete();
      case kFlush: return flush(false);
      case kFlushBegin: return flush(true);
      case kDiscard: return discard(1);
      case kUnmap: return discard(SV_EXTENT_BLOCKS);
      case kAll: return take(m_.left.alls) && (sv_commit_all(pool_), true);
      case kList: return list();
      case kCheckpoint: return checkpoint();
      case kRound: return round();
      case kFlushed: return m_.flushing && flushed(false);
      case kFlushFailed: return m_.flushing && take(m_.left.failures) && flushed(true);
      case kBatch: return !m_.writing && (m_.writing = sv_commit_batch(pool_, &m_.batch));
      default: return m_.writing && written();
    }
  }

  static bool take(int& left) { return left > 0 && left--; }

  Cell& cell() { return m_.cells[(m_.piece.sector * 512 >> SV_EXTENT_SHIFT) - 1]; }

  void operation(int value) { m_.values[++m_.nr] = value; }

  bool submit(bool fua) {
    if (m_.in_flight || !take(m_.left.writes)) return false;
    if (sv_plan_write(volume_, 0, 1, fua ? SV_WRITE_FUA : SV_WRITE_NORMAL, &m_.piece) != SV_PLAN_REMAP) return false;
    m_.in_flight = true;
    m_.fua = fua;
    operation(m_.nr + 1);
    return true;
  }

  bool complete() {
    if (!m_.in_flight) return false;
    Cell& c = cell();
    if (m_.fua) c.durable = m_.values[m_.nr], c.nr = c.covered = 0;
    else c.versions[c.nr++] = m_.values[m_.nr];
    sv_write_done(volume_, &m_.piece, true);
    m_.in_flight = false;
    m_.completed = m_.nr;
    if (!m_.fua) return true;
    Ticket& t = ticket();
    t.waits = sv_fua_ticket(volume_, &m_.piece, &t.t);
    if (!t.waits) acknowledge(t);
    return true;
  }

  Ticket& ticket() {
    for (Ticket& t : m_.tickets)
      if (!t.waits) {
        t.covers = m_.completed;
        return t;
      }
    abort();
  }

  void acknowledge(const Ticket& t) {
    m_.floor = std::max(m_.floor, t.covers);
    acknowledged_++;
  }

  // With its round, where that may begin.
  bool flush(bool begin) {
    if (!take(m_.left.flushes)) return false;
    Ticket& t = ticket();
    uint32_t member = SV_MAX_MEMBERS;
    t.waits = begin ? sv_flush_ticket_begin(volume_, &t.t, &member) : sv_flush_ticket(volume_, &t.t);
    if (member == 0) begun();
    if (!t.waits) acknowledge(t);
    return true;
  }

  bool discard(uint32_t blocks) {
    sv_piece p;
    if (m_.in_flight || !m_.completed || !take(m_.left.discards)) return false;
    if (sv_plan_discard(volume_, 0, blocks, false, &p) != SV_PLAN_ZERO) return false;
    operation(0);
    m_.completed = m_.nr;
    return true;
  }

  bool round() {
    if (m_.flushing || !sv_commit_round(pool_, 0)) return false;
    begun();
    return true;
  }

  void begun() {
    for (Cell& c : m_.cells) c.covered = c.nr;
    m_.flushing = true;
  }

  bool flushed(bool failed) {
    for (Cell& c : m_.cells) {
      if (!failed && c.covered) {
        c.durable = c.versions[c.covered - 1];
        c.nr -= c.covered;
        memmove(c.versions, c.versions + c.covered, static_cast<size_t>(c.nr) * sizeof(c.versions[0]));
      }
      c.covered = 0;
    }
    m_.flushing = false;
    sv_commit_flushed(pool_, 0, failed);
    return true;
  }

  bool written() {
    m_.journal = after_batch();
    m_.writing = false;
    sv_commit_written(pool_, &m_.batch, 1);
    return true;
  }

  void done() {
    for (sv_ticket* t = sv_commit_done(pool_); t;) {
      auto* mine = reinterpret_cast<Ticket*>(t);
      t = t->next;
      if (!mine->t.error) acknowledge(*mine);
      else errors_++;
      mine->waits = false;
    }
  }

  // What svd does at any time, and later with what is committed: apply, trim, recycle. That it is not too early is the
  // core's to know.
  bool list() {
    if (m_.nr_listed || !take(m_.left.checkpoints)) return false;
    uint32_t done = 0;
    uint64_t members = 0;
    m_.nr_listed = kExtents;
    m_.listed[0] = {};
    EXPECT_EQ(0, sv_cmd(pool_, SV_OP_LIST_FREED, epoch_, m_.listed, &m_.nr_listed, &done, &members));
    return m_.nr_listed > 0;
  }

  bool checkpoint() {
    if (m_.in_flight || m_.writing || !m_.nr_listed) return false;
    uint32_t done = 0;
    uint64_t members = 0;
    sv_trim trim{.seq = pool_->next_seq - 1};
    command(SV_OP_TRIM, &trim);
    const int result = sv_cmd(pool_, SV_OP_RECYCLE, epoch_, m_.listed, &m_.nr_listed, &done, &members);
    if (result == -EBUSY) return false;
    EXPECT_EQ(0, result);
    EXPECT_EQ(0, sv_recycle_finish(pool_));
    if (sv_reclaim_begin(pool_, &members)) sv_reclaim_finish(pool_);
    for (uint32_t i = 0; i < m_.nr_listed; i++)
      if (m_.listed[i].extent == m_.journal.extent) fail("recycled what the catalogue names");
    m_.nr_listed = 0;
    return true;
  }

  // ---- crash ----

  Found after_batch() const {
    Found f = m_.journal;
    uint32_t at = 0;
    sv_rec r;
    while (sv_batch_next(m_.batch.buf, &at, &r, nullptr) == 1) {
      if (r.type == SV_REC_MAP) f = {r.extent, r.slot, r.gen, false};
      else if (r.type == SV_REC_UNMAP) f = {};
      else if (r.extent == f.extent && r.gen == f.gen && r.word == 0 && (r.bits & 1)) f.valid = r.type == SV_REC_VALID;
    }
    return f;
  }

  void check() {
    check(m_.journal);
    if (m_.writing) check(after_batch());  // its last sector may have been written, or not
    if (!m_.in_flight) check_reads();
  }

  void check(const Found& f) {
    crashes_++;
    if (!f.extent || !f.valid) return expect(0, m_.floor);
    const Cell& c = m_.cells[f.slot];
    expect(c.durable, m_.floor);
    for (int i = 0; i < c.nr; i++) expect(c.versions[i], m_.floor);
  }

  void check_reads() {
    sv_piece p;
    if (sv_plan_read(volume_, 0, 1, &p) == SV_PLAN_ZERO) return expect(0, m_.completed);
    const Cell& c = m_.cells[(p.sector * 512 >> SV_EXTENT_SHIFT) - 1];
    expect(c.nr ? c.versions[c.nr - 1] : c.durable, m_.completed);
  }

  void expect(int got, int floor) {
    for (int i = floor; i <= m_.nr; i++)
      if (m_.values[i] == got) return;
    fail("reads " + std::to_string(got) + ", operation " + std::to_string(floor) + " was acknowledged");
  }

  void fail(const std::string& what) {
    fault_ = what + ":";
    for (Action a : path_) fault_ += std::string(" > ") + kNames[a];
  }

  sv_pool* pool_ = nullptr;
  sv_volume* volume_ = nullptr;
  sv_partial* partials_ = nullptr;
  uint64_t epoch_ = 0;
  Model m_;
  std::vector<std::pair<uint8_t*, size_t>> regions_;
  size_t bytes_ = 0;
  std::set<std::pair<size_t, size_t>> seen_;
  std::vector<Action> path_;
  std::string fault_;
};

void explore(Bounds bounds, size_t at_least) {
#ifdef __SANITIZE_ADDRESS__
  bounds.flushes--;  // a smaller world, since it is several times slower
  at_least = 5000;
#endif
  Explorer e(bounds);
  EXPECT_EQ("", e.run());
  printf("%zu states, %lu crashes, %lu acknowledgements, %lu errors\n", e.states(), e.crashes_, e.acknowledged_,
         e.errors_);
  EXPECT_GE(e.states(), at_least);  // or it no longer explores
  EXPECT_GT(e.acknowledged_, 0u);
}

TEST(CoreExplore, writes_and_flushes) {
  explore({.writes = 3, .flushes = 3, .discards = 0, .alls = 1, .failures = 1, .checkpoints = 0,
           .neighbour = false},
          400000);
}
TEST(CoreExplore, discards_that_empty_the_extent) {
  explore({.writes = 2, .flushes = 2, .discards = 2, .alls = 0, .failures = 1, .checkpoints = 0,
           .neighbour = false},
          150000);
}
TEST(CoreExplore, discards_beside_a_valid_block) {
  explore({.writes = 2, .flushes = 2, .discards = 1, .alls = 1, .failures = 1, .checkpoints = 0,
           .neighbour = true},
          100000);
}
TEST(CoreExplore, numbers_used_again) {
  explore({.writes = 2, .flushes = 2, .discards = 1, .alls = 1, .failures = 0, .checkpoints = 1,
           .neighbour = false},
          100000);
}

}  // namespace

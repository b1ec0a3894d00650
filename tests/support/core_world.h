// The real commit, planners and allocator under every kind of trouble that a scheduler and a power cut can make, with
// one seed reproducing everything: writes, FUA writes, flushes and discards of several volumes, begin and end of each
// member's rounds and of the journal's writes, in random interleavings; flushes and copies of the journal that fail;
// members that lose any subset of what was not flushed; then recovery from the ring and comparison.
//
// Claim, for every block: after a crash it reads as it was after some operation not older than the newest one that a
// FLUSH or FUA acknowledged, and never as what lay in the slot before. (commit_model's claim, on the real code.)
//
// And for every snapshot, of one volume or of two at one moment: once it is acknowledged it is there after any crash, and
// whenever it is there it reads as the volumes did at its moment. Snapshots are deleted, and what only partial extents need
// then is folded into these, step by step as all the rest.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "kmod/core/internal_test.h"

namespace sv::test {

constexpr uint64_t kRing = 1ull << 20;
constexpr uint32_t kSlots = 12;
constexpr uint64_t kVolumeExtents = 6;
constexpr int64_t kGarbage = -1;
constexpr uint32_t kLooksAt[] = {0, 1, 63, 64, 200, 255};  // blocks of an extent

// A member's data area by 4 KiB block, with a volatile cache: what was written since the last flush may or may not
// be there after a crash, each version of it.
class Disk {
 public:
  void write(uint64_t block, int64_t value, bool fua) {
    auto& c = cells_[block];
    if (fua) c.versions.clear(), c.covered = 0, c.durable = value;
    else c.versions.push_back(value);
    c.latest = value;
  }
  // A flush covers what was written before it began. What comes during it may be lost still.
  void begin_flush() {
    for (auto& [block, c] : cells_) c.covered = c.versions.size();
  }
  void end_flush() {
    for (auto& [block, c] : cells_) {
      if (c.covered) c.durable = c.versions[c.covered - 1];
      c.versions.erase(c.versions.begin(), c.versions.begin() + static_cast<long>(c.covered));
      c.covered = 0;
    }
  }
  // Begins and ends at once; a flush under way then covers nothing more.
  void flush_now() {
    for (auto& [block, c] : cells_) c.durable = c.latest, c.versions.clear(), c.covered = 0;
  }
  void crash(std::mt19937_64& r) {
    for (auto& [block, c] : cells_) {
      if (!c.versions.empty()) {
        auto i = r() % (c.versions.size() + 1);
        if (i) c.durable = c.versions[i - 1];
      }
      c.versions.clear();
      c.latest = c.durable;
    }
  }
  int64_t read(uint64_t block) { return cells_[block].latest; }

 private:
  struct Cell {
    int64_t durable = kGarbage, latest = kGarbage;
    std::vector<int64_t> versions;
    size_t covered = 0;  // of them, by the flush under way
  };
  std::map<uint64_t, Cell> cells_;
};

struct Write {
  uint64_t id = 0;
  sv_piece piece{};
  uint32_t volume = 0;
  uint64_t block = 0;
  uint32_t blocks = 1;  // or a whole extent
  int64_t value = 0;
  bool fua = false;
};

using Place = std::pair<uint32_t, uint64_t>;  // volume, block or index

struct Snapshot;
struct Fold;

struct Ticket {
  sv_ticket t{};
  std::map<Place, int64_t> covers;  // what is promised once it is acknowledged
  Snapshot* snapshot = nullptr;     // that waits for it, too
  Fold* fold = nullptr;             // likewise
};

struct History {
  std::vector<int64_t> values{0};  // by operation on this block; 0 reads as zeroes
  size_t floor = 0;                // index into values
  int64_t busy = 0;
  size_t completed = 0;
};

// A snapshot on its way, or done. What it must read as is what had been planned when the views changed.
struct Snapshot {
  enum class Step { kBegun, kSwitched, kFlushing, kFinishing, kCommitting, kDone, kFailed } step = Step::kBegun;
  std::map<uint32_t, uint32_t> frozen;  // layers, by volume
  std::map<Place, int64_t> expected;
  std::set<uint64_t> waits_for;  // writes by the old views
  size_t tickets = 0;
  bool error = false;
  bool deleted = false;
};

// A FOLD or a MOVE on its way.
struct Fold {
  enum class Step { kNone, kBegun, kCopied, kFlushed, kHeld, kCommitting } step = Step::kNone;
  const sv_relocation* steps = nullptr;
  std::set<uint64_t> waits_for;  // writes planned before
  size_t tickets = 0;
  uint64_t not_flushed = 0;
};

struct Shape {
  uint32_t members = 2;
  uint32_t ring_copies = 1;
  int flush_failures = 0;  // in 1000
  int copy_failures = 0;
  uint32_t volumes = 1;
  uint32_t snapshots = 0;
  uint32_t slots = kSlots;
  bool folds = false;
  bool fragments = false;
  bool moves = false;
};

class World {
 public:
  World(uint64_t seed, Shape shape) : r_(seed), shape_(shape) { boot_first(seed); }
  ~World() {
    for (auto* t : waiting_) delete t;
    sv_pool_free(pool_);
  }

  void step() {
    if (shape_.snapshots && r_() % 12 == 0) return snapshot_step();
    if ((shape_.folds || shape_.moves) && r_() % 4 == 0) return r_() % 4 || !shape_.folds ? fold_step() : delete_snapshot();
    switch (r_() % 20) {
      case 17: checkpoint(); break;
      case 18: case 19: listed_.empty() ? list() : checkpoint(); break;
      case 0: case 1: case 2: case 3: submit(); break;
      case 4: case 5: case 6: case 7: complete(); break;
      case 8: case 9: flush(); break;
      case 10: case 11: discard(); break;
      case 12: if (r_() % 4 == 0) sv_commit_all(pool_); break;
      default: commit_step(); break;
    }
  }

  // Power cut, then recovery by the codecs alone; everything in memory is gone.
  std::string crash_and_check() {
    std::vector<Disk> disks = disks_;
    for (auto& d : disks) d.crash(r_);
    auto map = replay();
    for (auto& [place, h] : history_) {
      int64_t got = read(disks, map, place);
      bool ok = false;
      for (size_t i = h.floor; i < h.values.size(); i++) ok |= h.values[i] == got;
      if (!ok)
        return "volume " + std::to_string(place.first) + " block " + std::to_string(place.second) + " reads " + std::to_string(got) + ", acknowledged " +
               std::to_string(h.values[h.floor]);
    }
    for (auto& s : snapshots_)
      if (std::string wrong = check_snapshot(disks, map, *s); !wrong.empty()) return wrong;
    return "";
  }

  // What a reader sees now, through the planner.
  std::string check_reads() {
    for (auto& [place, h] : history_) {
      if (h.busy) continue;
      sv_piece p;
      auto plan = sv_plan_read(volumes_[place.first], place.second, 1, &p);
      int64_t got = plan == SV_PLAN_ZERO ? 0 : disks_[p.member].read(p.sector / 8);
      if (got != h.values[h.completed])
        return "live block " + std::to_string(place.second) + " reads " + std::to_string(got) + " not " +
               std::to_string(h.values[h.completed]);
    }
    return "";
  }

  void settle() {
    while (!in_flight_.empty()) complete();
    for (int i = 0; i < 3000 && !(idle() && snapshots_ended() && fold_.step == Fold::Step::kNone); i++) {
      if (!snapshots_ended()) snapshot_step();
      if (fold_.step != Fold::Step::kNone) fold_step();
      if (i % 100 == 0) sv_commit_all(pool_);
      commit_step();
    }
    EXPECT_TRUE(snapshots_ended());
    EXPECT_EQ(Fold::Step::kNone, fold_.step);
    EXPECT_TRUE(idle());
    EXPECT_TRUE(waiting_.empty());
    EXPECT_EQ(0, sv_test_reserved(pool_));
  }

 private:
  struct Ext {
    uint32_t member = 0, slot = 0;
    uint16_t gen = 0;
    uint32_t parent = 0;
    std::vector<bool> valid = std::vector<bool>(256);
    bool fragments = false;
    std::vector<uint32_t> places = std::vector<uint32_t>(SV_FRAGS);
    // In blocks from the member's first slot on.
    uint64_t at(uint64_t block) const {
      return fragments ? (places[block / SV_FRAG_BLOCKS] - 1) * uint64_t{SV_FRAG_BLOCKS} + block % SV_FRAG_BLOCKS : slot * 256ull + block;
    }
  };
  struct State {
    std::map<Place, uint32_t> map;          // by layer and index; 0 hides what is below
    std::map<uint32_t, uint32_t> below;     // layers
    std::map<uint32_t, uint32_t> head;      // by volume
    std::set<uint32_t> frozen;              // layers that are snapshots
    std::map<uint32_t, Ext> exts;
    uint64_t seq = 0, off = 0;  // applied up to here
    uint32_t crc = 0;
    bool live(uint32_t extent) const {
      for (auto [place, x] : map)
        for (; x; x = exts.at(x).parent)
          if (x == extent) return true;
      return false;
    }
    uint32_t find(uint32_t layer, uint64_t index) const {
      for (; layer; layer = below.contains(layer) ? below.at(layer) : 0)
        if (auto it = map.find({layer, index}); it != map.end()) return it->second;
      return 0;
    }
  };

  void boot_first(uint64_t seed) {
    std::vector<sv_member_geometry> g(shape_.members);
    for (uint32_t i = 0; i < shape_.members; i++) {
      g[i] = {.slot_off = 1 << 20, .nr_slots = shape_.slots, .tier = i, .flags = 0, .ring_off = 0, .ring_len = 0};
      if (i < shape_.ring_copies) g[i].tier = 0, g[i].flags = SV_LABEL_HAS_RING, g[i].ring_len = kRing;
    }
    uint8_t uuid[16] = {1};
    pool_ = sv_pool_new(uuid, 7, shape_.members, g.data());
    ASSERT_NE(nullptr, pool_);
    disks_.resize(shape_.members);
    ring_.resize(kRing);
    command(SV_OP_ATTACH, nullptr, 0, sizeof(sv_attach));
    // Each volume on one member first, which one by seed: data with the ring, and data away from it.
    const uint64_t tiers[] = {~0ull, 0xffffffffffff0001, 0xffffffffff000102};
    for (uint32_t n = 0; n < shape_.volumes; n++) {
      sv_volume_info v{.id = n + 1, .layer = n + 1, .owned_since = n + 1, .flags = 0, .size = kVolumeExtents << 20, .mapped = 0,
                       .tiers = tiers[(seed + n) % 3]};
      command(SV_OP_VOLUME_CREATE, &v, 1, sizeof(v));
      catalogue_.head[n] = n + 1;
    }
    for (uint32_t i = 0; i < shape_.members; i++) {
      sv_grant grant{.member = i, .first = 0, .count = shape_.slots, .pad = 0};
      command(SV_OP_GRANT, &grant, 1, sizeof(grant));
    }
    sv_policy policy{.no_space_ms = 1000, .commit_ms = 1000, .flags = shape_.fragments ? SV_POLICY_FRAGMENTS : 0, .pad = 0};
    command(SV_OP_POLICY, &policy, 1, sizeof(policy));
    sv_activate a{};
    command(SV_OP_ACTIVATE, &a, 1, sizeof(a));
    for (uint32_t n = 0; n < shape_.volumes; n++) {
      volumes_.push_back(sv_volume_find(pool_, n + 1));
      ASSERT_EQ(0, sv_volume_open(volumes_[n]));
    }
    rounds_.resize(shape_.members);
  }

  void command(uint32_t op, const void* payload, uint32_t count, size_t size) {
    std::vector<uint8_t> buf(size * std::max(count, 1u));
    if (payload) memcpy(buf.data(), payload, size * count);
    uint32_t n = std::max(count, 1u), done = 0;
    uint64_t members = 0;
    ASSERT_EQ(0, sv_cmd(pool_, op, epoch_, buf.data(), &n, &done, &members)) << op;
    if (op == SV_OP_ATTACH) epoch_ = reinterpret_cast<sv_attach*>(buf.data())->epoch;
  }

  uint32_t some_volume() { return static_cast<uint32_t>(r_() % shape_.volumes); }

  uint64_t some_block() {
    return (r_() % kVolumeExtents) * 256 + kLooksAt[r_() % std::size(kLooksAt)];
  }

  // The places of a write that are looked at.
  std::vector<Place> places(const Write& w) {
    std::vector<Place> all;
    for (uint32_t b : kLooksAt) {
      uint64_t block = w.block / 256 * 256 + b;
      if (block >= w.block && block < w.block + w.blocks) all.emplace_back(w.volume, block);
    }
    return all;
  }

  void to_disk(const Write& w, bool fua) {
    for (Place place : places(w)) disks_[w.piece.member].write(w.piece.sector / 8 + place.second - w.block, w.value, fua);
  }

  void submit() {
    Write w;
    w.volume = some_volume();
    w.block = some_block();
    if (r_() % 4 == 0) w.block -= w.block % 256, w.blocks = 256;
    else if (shape_.fragments && r_() % 2) w.blocks = static_cast<uint32_t>(std::min<uint64_t>(r_() % 60 + 1, 256 - w.block % 256));
    if (range_busy(w.volume, w.block, w.blocks) || in_flight_.size() > 6) return;
    w.fua = r_() % 4 == 0;
    auto plan = sv_plan_write(volumes_[w.volume], w.block, w.blocks, w.fua ? SV_WRITE_FUA : SV_WRITE_NORMAL, &w.piece);
    if (plan == SV_PLAN_DEFER) return (void)sv_pool_refill(pool_);
    if (plan != SV_PLAN_REMAP) return;
    ASSERT_TRUE(shape_.fragments ? w.piece.blocks && w.piece.blocks <= w.blocks : w.piece.blocks == w.blocks);
    w.blocks = w.piece.blocks;
    w.value = ++next_value_;
    begin_write(w);
  }

  void begin_write(Write& w) {
    w.id = ++next_write_;
    for (Place place : places(w)) {
      history_[place].busy = 1;
      history_[place].values.push_back(w.value);
    }
    if (r_() % 2) to_disk(w, false);  // reached the cache early
    in_flight_.push_back(w);
  }

  void complete() {
    if (in_flight_.empty()) return;
    size_t i = r_() % in_flight_.size();
    Write w = in_flight_[i];
    in_flight_.erase(in_flight_.begin() + static_cast<long>(i));
    to_disk(w, w.fua);
    sv_write_done(volumes_[w.volume], &w.piece, true);
    if (!snapshots_.empty()) snapshots_.back()->waits_for.erase(w.id);
    fold_.waits_for.erase(w.id);
    auto t = std::make_unique<Ticket>();
    for (Place place : places(w)) {
      auto& h = history_[place];
      h.busy = 0;
      h.completed = h.values.size() - 1;
      t->covers[place] = static_cast<int64_t>(h.completed);
    }
    if (!w.fua) return;
    if (sv_fua_ticket(volumes_[w.volume], &w.piece, &t->t)) waiting_.insert(t.release());
    else acknowledge(*t);
  }

  void acknowledge(const Ticket& t) {
    if (lost_seq_ != 0) {
      EXPECT_GT(recorded_seq_, lost_seq_) << "acknowledged before the lost copy was recorded";
    }
    for (auto [place, index] : t.covers) {
      auto& f = history_[place].floor;
      f = std::max(f, static_cast<size_t>(index));
    }
  }

  void flush() {
    if (waiting_.size() > 4) return;
    auto t = std::make_unique<Ticket>();
    uint32_t volume = some_volume();
    for (auto& [place, h] : history_)
      if (place.first == volume) t->covers[place] = static_cast<int64_t>(h.completed);
    uint32_t begun = SV_MAX_MEMBERS;
    bool waits = r_() % 2 ? sv_flush_ticket(volumes_[volume], &t->t) : sv_flush_ticket_begin(volumes_[volume], &t->t, &begun);
    if (begun < SV_MAX_MEMBERS) round_begun(begun);
    if (waits) waiting_.insert(t.release());
    else acknowledge(*t);
  }

  bool range_busy(uint32_t volume, uint64_t block, uint32_t n) {
    auto it = history_.lower_bound({volume, block});
    for (; it != history_.end() && it->first < Place(volume, block + n); ++it)
      if (it->second.busy) return true;
    return false;
  }

  void discard() {
    uint64_t block = some_block();
    uint32_t n = 1;
    if (r_() % 2) block -= block % 256, n = 256;
    uint32_t volume = some_volume();
    if (range_busy(volume, block, n)) return;
    sv_piece p{};
    auto plan = sv_plan_discard(volumes_[volume], block, n, true, &p);
    if (plan == SV_PLAN_REMAP) {
      Write w{.id = 0, .piece = p, .volume = volume, .block = block, .blocks = p.blocks, .value = 0, .fua = false};
      return begin_write(w);
    }
    if (plan != SV_PLAN_ZERO) return;
    auto it = history_.lower_bound({volume, block});
    for (; it != history_.end() && it->first < Place(volume, block + p.blocks); ++it) {
      it->second.values.push_back(0);
      it->second.completed = it->second.values.size() - 1;
    }
  }

  bool idle() {
    bool busy = writing_;
    for (bool r : rounds_) busy |= r;
    return !busy && sv_commit_idle(pool_);
  }

  // One step of one of the machines: each round and the writer are begun and ended apart from the others.
  void commit_step() {
    uint32_t i = static_cast<uint32_t>(r_() % (shape_.members + 1));
    if (i < shape_.members) rounds_[i] ? end_round(i) : begin_round(i);
    else writing_ ? end_batch() : begin_batch();
    if (r_() % 2) finish_tickets();
  }

  void begin_round(uint32_t i) {
    if (sv_commit_round(pool_, i)) round_begun(i);
  }

  void round_begun(uint32_t i) {
    disks_[i].begin_flush();
    rounds_[i] = true;
  }

  void end_round(uint32_t i) {
    bool failed = static_cast<int>(r_() % 1000) < shape_.flush_failures;
    if (!failed) disks_[i].end_flush();
    rounds_[i] = false;
    sv_commit_flushed(pool_, i, failed);
  }

  void begin_batch() {
    if (!sv_commit_batch(pool_, &c_)) return;
    writing_ = true;
    if (r_() % 2) torn_ = r_() % (c_.len / 512 + 1);
  }

  void end_batch() {
    uint64_t copies = sv_pool_ring_members(pool_), ok = copies;
    if ((copies & (copies - 1)) && static_cast<int>(r_() % 1000) < shape_.copy_failures) ok = copies & (copies - 1);
    memcpy(ring_.data() + c_.off, c_.buf, c_.len);
    auto* b = static_cast<const sv_batch_disk*>(c_.buf);
    if (b->flags & SV_BATCH_COPY_LOST) recorded_seq_ = b->seq;
    if (ok != copies) lost_seq_ = b->seq;
    torn_ = 0;
    writing_ = false;
    sv_commit_written(pool_, &c_, ok);
  }

  void finish_tickets() {
    for (sv_ticket* t = sv_commit_done(pool_); t;) {
      sv_ticket* next = t->next;
      auto* mine = reinterpret_cast<Ticket*>(t);
      if (!t->error) acknowledge(*mine);
      if (mine->snapshot) mine->snapshot->tickets--, mine->snapshot->error |= t->error != 0;
      if (mine->fold) mine->fold->tickets--;
      waiting_.erase(mine);
      delete mine;
      t = next;
    }
    uint64_t members;
    if (sv_reclaim_begin(pool_, &members) && in_flight_.empty()) sv_reclaim_finish(pool_);
  }

  // What svd does: committed records into the catalogue (durable at once here), trim, recycle what it proves dead.
  void checkpoint() {
    if (writing_) return;
    catalogue_ = replay();
    sv_trim trim{.seq = catalogue_.seq};
    if (trim.seq) command(SV_OP_TRIM, &trim, 1, sizeof(trim));
    if (shape_.folds || shape_.moves) free_unneeded();
    if (fold_.step != Fold::Step::kNone) return;  // slots are not recycled meanwhile
    if (!in_flight_.empty()) return;  // the grace periods would wait for them
    recycle();
  }

  // What was freed by now. Whether the catalogue knows it yet is for the core to know. [I20]
  void list() {
    uint32_t n = 64, done = 0;
    uint64_t members = 0;
    listed_.assign(n, {});
    ASSERT_EQ(0, sv_cmd(pool_, SV_OP_LIST_FREED, epoch_, listed_.data(), &n, &done, &members));
    listed_.resize(n);
  }

  void recycle() {
    uint32_t n = static_cast<uint32_t>(listed_.size()), done = 0;
    uint64_t members = 0;
    const int result = n ? sv_cmd(pool_, SV_OP_RECYCLE, epoch_, listed_.data(), &n, &done, &members) : -EBUSY;
    if (result == -EBUSY) return;
    ASSERT_EQ(0, result);
    ASSERT_EQ(0, sv_recycle_finish(pool_));
    for (const sv_freed& x : listed_) ASSERT_FALSE(catalogue_.live(x.extent)) << "recycled what the catalogue names";
    recycled_ += n;
    listed_.clear();
  }

  State replay() {
    std::vector<uint8_t> whole(ring_.begin() + static_cast<long>(c_.off), ring_.begin() + static_cast<long>(c_.off + c_.len));
    if (writing_ && torn_) memcpy(ring_.data() + c_.off, c_.buf, torn_ * 512);
    State s = read_ring();
    std::copy(whole.begin(), whole.end(), ring_.begin() + static_cast<long>(c_.off));
    return s;
  }

  State read_ring() {
    State s = catalogue_;
    while (next_batch(s, s.off) || (s.off && next_batch(s, 0))) {
    }
    return s;
  }

  bool next_batch(State& s, uint64_t off) {
    if (off >= kRing) return false;
    const char* why = nullptr;
    auto have = static_cast<uint32_t>(std::min<uint64_t>(kRing - off, SV_BATCH_MAX));
    if (sv_batch_check(ring_.data() + off, have, s.seq + 1, 7, s.crc, off, &why)) return false;
    apply(s, ring_.data() + off);
    s.crc = reinterpret_cast<const sv_batch_disk*>(ring_.data() + off)->crc;
    s.off = off + sv_batch_len(ring_.data() + off);
    s.seq++;
    return true;
  }

  void move_extent(Ext& x, const sv_rec_move& m) {
    x.member = m.member;
    if (!m.frag_mask) {
      x.slot = m.slot, x.fragments = false, grown_++;
      return;
    }
    ASSERT_TRUE(x.fragments);
    x.places.assign(SV_FRAGS, 0);
    for (uint32_t i = 0, place = m.slot; i < SV_FRAGS; i++)
      if (m.frag_mask >> i & 1) x.places[i] = place++;
    moved_fragments_++;
  }

  void apply(State& s, const uint8_t* batch) {
    auto* b = reinterpret_cast<const sv_batch_disk*>(batch);
    for (uint32_t at = SV_BATCH_HEAD; at < b->bytes;) {
      auto* h = reinterpret_cast<const sv_rec_head*>(batch + at);
      if (h->type == SV_REC_MAP) {
        auto* m = reinterpret_cast<const sv_rec_map*>(h);
        s.map[{m->layer, m->index_volume & ((1ull << SV_INDEX_BITS) - 1)}] = h->extent;
        Ext& x = s.exts[h->extent] = Ext();
        x.member = m->member, x.slot = m->slot, x.gen = h->gen, x.parent = m->parent;
        x.fragments = h->flags & SV_MAP_FRAGS;
        fragments_ += x.fragments, outgrown_ += x.parent && s.exts[x.parent].fragments && !x.fragments;
      } else if (h->type == SV_REC_MOVE) {
        auto* m = reinterpret_cast<const sv_rec_move*>(h);
        if (auto it = s.exts.find(h->extent); it != s.exts.end() && it->second.gen == h->gen)
          move_extent(it->second, *m);
      } else if (h->type == SV_REC_FRAG) {
        auto* f = reinterpret_cast<const sv_rec_small*>(h);
        auto it = s.exts.find(h->extent);
        if (it != s.exts.end() && it->second.gen == h->gen) {
          ASSERT_TRUE(it->second.fragments && it->second.member == f->arg >> SV_FRAG_ARG_MEMBER);
          it->second.places[f->arg >> SV_FRAG_ARG_FRAG & 0xff] = static_cast<uint32_t>(f->arg);
        }
      } else if (h->type == SV_REC_UNMAP) {
        auto* u = reinterpret_cast<const sv_rec_unmap*>(h);
        s.map.erase({u->layer, u->index});
        if (h->flags & SV_UNMAP_TOMBSTONE) s.map[{u->layer, u->index}] = 0;
      } else if (h->type == SV_REC_LAYER) {
        auto* l = reinterpret_cast<const sv_rec_layer*>(h);
        s.below[l->layer] = l->parent;
        s.head[h->extent - 1] = l->layer;
      } else if (h->type == SV_REC_FOLD) {
        fold_records(s, reinterpret_cast<const sv_rec_small*>(h));
      } else if (h->type == SV_REC_SNAPDONE) {
        s.frozen.insert(static_cast<uint32_t>(reinterpret_cast<const sv_rec_small*>(h)->arg));
      } else {
        bits(s, h);
      }
      at += sv_rec_size(h->type);
    }
  }

  void fold_records(State& s, const sv_rec_small* f) {
    const auto child = s.exts.find(f->h.extent), parent = s.exts.find(static_cast<uint32_t>(f->arg));
    if (child == s.exts.end()) return;  // nothing needs it any more, since
    ASSERT_TRUE(parent != s.exts.end());
    Ext &x = child->second, &below = parent->second;
    ASSERT_EQ(f->arg, x.parent);
    ASSERT_EQ(f->h.gen, x.gen);
    for (uint32_t i = 0; i < 256; i++) x.valid[i] = x.valid[i] || below.valid[i];
    x.parent = whole(x) ? 0 : below.parent;
    if (f->h.flags & SV_FOLD_SWAPPED) {
      ASSERT_FALSE(below.fragments);
      x.member = below.member, x.slot = below.slot, x.fragments = false;
    }
    for (uint32_t i = 0; x.fragments && i < 256; i++) ASSERT_TRUE(!x.valid[i] || x.places[i / SV_FRAG_BLOCKS]);
    s.exts.erase(parent);
  }

  static bool whole(const Ext& x) { return std::find(x.valid.begin(), x.valid.end(), false) == x.valid.end(); }

  void bits(State& s, const sv_rec_head* h) {
    auto it = s.exts.find(h->extent);
    if (it == s.exts.end() || it->second.gen != h->gen) return;
    auto* v = reinterpret_cast<const sv_rec_valid*>(h);
    uint32_t base = (h->flags & SV_VALID_WORD) * 64;
    for (uint32_t i = 0; i < 256; i++) {
      bool named = (h->flags & SV_VALID_ALL) || (i >= base && i < base + 64 && (v->bits >> (i - base) & 1));
      if (named) it->second.valid[i] = h->type == SV_REC_VALID;
    }
    if (whole(it->second)) it->second.parent = 0;  // what is whole needs nothing below, also when it is cleared later
  }

  int64_t read(std::vector<Disk>& disks, State& s, Place place) {
    return read_layer(disks, s, s.head[place.first], place.second);
  }

  int64_t read_layer(std::vector<Disk>& disks, State& s, uint32_t layer, uint64_t block) {
    for (uint32_t extent = s.find(layer, block / 256); extent; extent = s.exts[extent].parent) {
      const Ext& x = s.exts[extent];
      if (x.valid[block % 256]) return disks[x.member].read((1 << 20) / 4096 + x.at(block % 256));
    }
    return 0;
  }

  // ---- snapshots: each call is one step of the one that is on its way ----

  bool snapshots_ended() const { return snapshots_.empty() || snapshots_.back()->step >= Snapshot::Step::kDone; }

  void snapshot_step() {
    using Step = Snapshot::Step;
    if (snapshots_ended()) return begin_snapshot();
    Snapshot& s = *snapshots_.back();
    if (s.step == Step::kBegun) switch_views(s);
    else if (s.step == Step::kSwitched && s.waits_for.empty()) flush_frozen(s);
    else if (s.step == Step::kFlushing && !s.tickets) s.step = Step::kFinishing;
    else if (s.step == Step::kFinishing) finish_snapshot(s);
    else if (s.step == Step::kCommitting && !s.tickets) s.step = s.error ? Step::kFailed : Step::kDone;
  }

  void begin_snapshot() {
    if (snapshots_.size() == shape_.snapshots) return;
    auto s = std::make_unique<Snapshot>();
    std::vector<sv_snapshot> cut;
    const uint32_t only = r_() % 2 ? some_volume() : shape_.volumes;
    for (uint32_t n = 0; n < shape_.volumes; n++)
      if (only == shape_.volumes || only == n) {
        sv_volume_info info;
        sv_volume_get_info(volumes_[n], &info);
        s->frozen[n] = info.layer;
        cut.push_back({.volume = n + 1, .layer = ++next_layer_, .job = 1});
      }
    auto count = static_cast<uint32_t>(cut.size());
    uint32_t done = 0;
    uint64_t members = 0;
    ASSERT_EQ(0, sv_cmd(pool_, SV_OP_SNAPSHOT, epoch_, cut.data(), &count, &done, &members));
    snapshots_.push_back(std::move(s));
  }

  void switch_views(Snapshot& s) {
    uint64_t members;
    if (sv_snapshot_switch(pool_, &members)) return;
    for (auto& [place, h] : history_)
      if (s.frozen.count(static_cast<uint32_t>(place.first))) s.expected[place] = h.values.back();
    for (const Write& w : in_flight_)
      if (s.frozen.count(w.volume)) s.waits_for.insert(w.id);
    s.step = Snapshot::Step::kSwitched;
  }

  void flush_frozen(Snapshot& s) {
    for (auto [volume, layer] : s.frozen) {
      auto t = std::make_unique<Ticket>();
      t->snapshot = &s;
      if (!sv_flush_ticket(volumes_[volume], &t->t)) continue;
      s.tickets++;
      waiting_.insert(t.release());
    }
    s.step = Snapshot::Step::kFlushing;
  }

  void finish_snapshot(Snapshot& s) {
    if (sv_snapshot_finish(pool_, !s.error)) return;
    auto t = std::make_unique<Ticket>();
    t->snapshot = &s;
    sv_ticket_add(pool_, &t->t, false);
    s.tickets++;
    waiting_.insert(t.release());
    s.step = Snapshot::Step::kCommitting;
  }

  std::string check_snapshot(std::vector<Disk>& disks, State& state, Snapshot& s) {
    if (s.deleted) return "";
    for (auto [volume, layer] : s.frozen) {
      if (!state.frozen.count(layer)) {
        if (s.step == Snapshot::Step::kDone) return "snapshot of volume " + std::to_string(volume) + " is lost";
        continue;
      }
      for (auto [place, value] : s.expected) {
        if (place.first != volume) continue;
        const int64_t got = read_layer(disks, state, layer, place.second);
        if (got != value)
          return "snapshot of volume " + std::to_string(volume) + " block " + std::to_string(place.second) + " reads " + std::to_string(got) +
                 ", not " + std::to_string(value);
      }
      seen_snapshots_++;
    }
    return "";
  }

  // ---- deleted snapshots, and FOLD ----

  // svd's part: each of its layers goes into the one above it. The catalogue has all of it at once, and durably.
  void delete_snapshot() {
    if (writing_ || !snapshots_ended() || snapshots_.empty()) return;
    std::vector<Snapshot*> there;
    for (auto& s : snapshots_)
      if (!s->deleted && s->step == Snapshot::Step::kDone) there.push_back(s.get());
    if (there.empty()) return;
    Snapshot& s = *there[r_() % there.size()];
    catalogue_ = replay();
    for (auto [volume, layer] : s.frozen) merge_up(layer);
    s.deleted = true;
    free_unneeded();
  }

  void merge_up(uint32_t layer) {
    uint32_t above = 0;
    for (auto [upper, lower] : catalogue_.below)
      if (lower == layer) above = upper;
    ASSERT_NE(0u, above);
    for (auto it = catalogue_.map.lower_bound({layer, 0}); it != catalogue_.map.end() && it->first.first == layer;) {
      catalogue_.map.try_emplace({above, it->first.second}, it->second);
      it = catalogue_.map.erase(it);
    }
    if (catalogue_.below.contains(layer)) catalogue_.below[above] = catalogue_.below[layer];
    else catalogue_.below.erase(above);
    catalogue_.below.erase(layer);
    catalogue_.frozen.erase(layer);
  }

  // What no layer maps and no partial extent needs; the kernel may have freed it long since.
  void free_unneeded() {
    for (auto it = catalogue_.exts.begin(); it != catalogue_.exts.end();) {
      if (catalogue_.live(it->first)) {
        ++it;
        continue;
      }
      sv_freed f{.extent = it->first, .gen = it->second.gen, .pad = 0};
      command(SV_OP_FREE, &f, 1, sizeof(f));
      it = catalogue_.exts.erase(it);
    }
  }

  void fold_step() {
    using Step = Fold::Step;
    if (fold_.step == Step::kNone) begin_folds();
    else if (fold_.step == Step::kBegun && fold_.waits_for.empty()) copy_fold();
    else if (fold_.step == Step::kCopied) flush_folds();
    else if (fold_.step == Step::kFlushed) hold_folds();
    else if (fold_.step == Step::kHeld && fold_.waits_for.empty()) finish_folds();
    else if (fold_.step == Step::kCommitting && !fold_.tickets) end_folds();
  }

  void close_or_open() {
    sv_close c{.member = static_cast<uint32_t>(r_() % shape_.members), .closed = static_cast<uint32_t>(r_() % 2)};
    command(SV_OP_CLOSE, &c, 1, sizeof(c));
  }

  // By what the catalogue has, which the kernel may be ahead of.
  void begin_moves() {
    std::vector<sv_move> moves;
    if (r_() % 8 == 0) close_or_open();
    for (auto& [number, x] : catalogue_.exts)
      if (r_() % 3 == 0)
        moves.push_back({.extent = number, .gen = x.gen, .member = static_cast<uint8_t>(r_() % shape_.members), .flags = static_cast<uint8_t>(r_() % 4)});
    if (!moves.empty()) begin_steps(SV_OP_MOVE, &sv_move_steps, moves);
  }

  template <typename T>
  void begin_steps(uint32_t op, const sv_relocation* steps, std::vector<T>& elements) {
    auto n = static_cast<uint32_t>(elements.size());
    uint32_t done = 0;
    uint64_t members = 0;
    if (sv_cmd(pool_, op, epoch_, elements.data(), &n, &done, &members)) return;  // the ring is full
    fold_ = {.step = Fold::Step::kBegun, .steps = steps, .waits_for = {}, .tickets = 0, .not_flushed = 0};
    for (const Write& w : in_flight_) fold_.waits_for.insert(w.id);
  }

  void begin_folds() {
    if (shape_.moves && (!shape_.folds || r_() % 2)) return begin_moves();
    std::set<uint32_t> mapped;
    for (auto [place, x] : catalogue_.map) mapped.insert(x);
    std::map<uint32_t, int> children;
    for (auto& [number, x] : catalogue_.exts) children[x.parent] += x.parent != 0;
    std::vector<sv_fold> pairs;
    for (auto& [number, x] : catalogue_.exts) {
      if (!x.parent) continue;
      const bool orphan = !mapped.count(x.parent) && children[x.parent] == 1;
      if (!orphan && r_() % 2) continue;
      const uint32_t fill = SV_FOLD_FILL | (1 + static_cast<uint32_t>(r_() % 0xffff)) << SV_FOLD_FILL_SHIFT;
      const uint32_t flags = !orphan || r_() % 4 == 0 ? fill : x.fragments && r_() % 4 ? SV_FOLD_GROW : r_() % 2 ? SV_FOLD_SWAP : 0;
      pairs.push_back({.extent = number, .parent = x.parent, .gen = x.gen, .parent_gen = catalogue_.exts[x.parent].gen, .flags = flags});
    }
    if (!pairs.empty()) begin_steps(SV_OP_FOLD, &sv_fold_steps, pairs);
  }

  void copy_fold() {
    do {
      sv_copy_run c;
      if (!fold_.steps->next(pool_, &c)) {
        fold_.step = Fold::Step::kCopied;
        return;
      }
      for (uint64_t i = 0; i < c.blocks; i++)
        disks_[c.to].write(c.to_sector / 8 + i, c.zero ? 0 : disks_[c.from].read(c.from_sector / 8 + i), false);
      if (r_() % 32 == 0) fold_.steps->failed(pool_, c.of);
    } while (r_() % 8);
  }

  void flush_folds() {
    for (uint32_t i = 0; i < shape_.members; i++) {
      if (!(fold_.steps->targets(pool_) >> i & 1)) continue;
      if (static_cast<int>(r_() % 1000) < shape_.flush_failures) fold_.not_flushed |= 1ull << i;
      else disks_[i].flush_now();
    }
    fold_.step = Fold::Step::kFlushed;
  }

  void hold_folds() {
    if (fold_.steps->hold && fold_.steps->hold(pool_))
      for (const Write& w : in_flight_) fold_.waits_for.insert(w.id);
    fold_.step = Fold::Step::kHeld;
  }

  void finish_folds() {
    if (fold_.steps->finish(pool_, fold_.not_flushed)) return;
    auto t = std::make_unique<Ticket>();
    t->fold = &fold_;
    sv_ticket_add(pool_, &t->t, false);
    fold_.tickets++;
    waiting_.insert(t.release());
    fold_.step = Fold::Step::kCommitting;
  }

  void end_folds() {
    (fold_.steps == &sv_move_steps ? moved_ : folded_) += fold_.steps->end(pool_);
    fold_.step = Fold::Step::kNone;
  }

  std::mt19937_64 r_;
  Shape shape_;
  sv_pool* pool_ = nullptr;
  std::vector<sv_volume*> volumes_;
  uint64_t epoch_ = 0;
  std::vector<Disk> disks_;
  std::vector<uint8_t> ring_;
  std::map<Place, History> history_;
  std::vector<Write> in_flight_;
  std::set<Ticket*> waiting_;
  sv_commit c_{};
  bool writing_ = false;
  std::vector<bool> rounds_;  // members whose flush is under way
  uint64_t lost_seq_ = 0, recorded_seq_ = 0;
  uint64_t torn_ = 0;
  int64_t next_value_ = 0;
  State catalogue_;
  std::vector<sv_freed> listed_;
  std::vector<std::unique_ptr<Snapshot>> snapshots_;
  uint32_t next_layer_ = 100;
  uint64_t next_write_ = 0;
  Fold fold_;

 public:
  uint64_t recycled_ = 0;
  uint64_t seen_snapshots_ = 0;  // after crashes
  uint64_t folded_ = 0, moved_ = 0;
  // Extents with them, with a slot over those, and moved to one, or with them, in replays.
  uint64_t fragments_ = 0, outgrown_ = 0, grown_ = 0, moved_fragments_ = 0;
};

inline uint64_t runs() {
  const char* e = getenv("SV_CRASH_RUNS");
#ifdef __SANITIZE_ADDRESS__
  constexpr uint64_t kUsual = 500;  // five times slower, and what it looks for shows itself sooner
#else
  constexpr uint64_t kUsual = 1500;
#endif
  return e ? strtoull(e, nullptr, 10) : kUsual;
}

inline void explore(Shape shape, uint64_t seed0) {
  uint64_t recycled = 0, snapshots = 0, folded = 0, moved = 0, fragments = 0, outgrown = 0, grown = 0, moved_fragments = 0;
  for (uint64_t seed = seed0; seed < seed0 + runs(); seed++) {
    World w(seed, shape);
    for (int i = 0; i < (shape.folds || shape.moves ? 320 : 160); i++) {
      w.step();
      if (i % 4) continue;
      ASSERT_EQ("", w.crash_and_check()) << "seed " << seed << " step " << i;
      ASSERT_EQ("", w.check_reads()) << "seed " << seed << " step " << i;
    }
    w.settle();
    recycled += w.recycled_;
    snapshots += w.seen_snapshots_;
    folded += w.folded_;
    moved += w.moved_;
    fragments += w.fragments_;
    outgrown += w.outgrown_;
    grown += w.grown_;
    moved_fragments += w.moved_fragments_;
    ASSERT_EQ("", w.crash_and_check()) << "seed " << seed << " settled";
    ASSERT_EQ("", w.check_reads()) << "seed " << seed << " settled";
  }
  EXPECT_GT(recycled, 0u);  // or the explorer no longer tries reuse
  EXPECT_EQ(shape.snapshots > 0, snapshots > 0);
  EXPECT_EQ(shape.folds, folded > 0);
  EXPECT_EQ(shape.moves, moved > 0);
  EXPECT_EQ(shape.fragments, fragments > 0);
  EXPECT_EQ(shape.fragments, outgrown > 0);
  EXPECT_EQ((shape.fragments && shape.folds) || shape.moves, grown > 0);
  EXPECT_EQ(shape.fragments && shape.moves, moved_fragments > 0);
}

}  // namespace sv::test

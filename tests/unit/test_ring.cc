// SPDX-License-Identifier: GPL-2.0
// Walking the journal's ring: wraps, torn tails, damage, other incarnations, failing reads; and random rings against
// a naive oracle that knows what was written where and what was spoiled since.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "kmod/core/journal.h"
#include "tests/support/bytes.h"

namespace sv::test {
namespace {

constexpr uint64_t kIncarnation = 0xfeedface12345678;
constexpr uint32_t kPage = 4096;

struct Written {
  uint64_t seq;
  uint64_t off;
  uint32_t len;    // padded
  uint32_t bytes;  // with the header
  bool whole;
};

// A ring in memory with a writer that places batches as a commit does, and remembers them.
class Ring {
 public:
  explicit Ring(uint64_t len, Rng& rng, uint64_t incarnation = kIncarnation)
      : data(len), rng_(rng), incarnation_(incarnation), buf_(SV_BATCH_MAX) {}

  Bytes data;
  std::vector<Written> live;           // not overwritten, in order
  std::vector<sv_ring_cursor> before{{}};  // [s]: where reading stands behind batch s
  bool torn = false;  // as the last next() left them
  uint64_t later_seq = 0;
  int reads = 0;
  int fail_read = -1;  // countdown

  const Written& append(uint32_t bytes) { return append(bytes, {}); }

  // With `spoil` called on the sealed batch before it is written; it must reseal.
  const Written& append(uint32_t bytes, const std::function<void(Bytes&)>& spoil) {
    const sv_ring_cursor& at = before.back();
    bytes = SV_BATCH_HEAD + (bytes - SV_BATCH_HEAD) / 16 * 16;
    Written w{at.seq + 1, at.off, (bytes + kPage - 1) / kPage * kPage, bytes, true};
    if (w.len > data.size() - w.off) w.off = 0;
    Bytes b = sealed(w, at.prev_crc);
    if (spoil) spoil(b);
    overwrite(w);
    std::copy(b.begin(), b.end(), data.begin() + static_cast<long>(w.off));
    live.push_back(w);
    before.push_back({w.seq, w.off + w.len, static_cast<u32>(get_le(b, 4, 4)), 0});
    return live.back();
  }

  // Puts bytes of the last batch's place back to what was there before it was written.
  void keep_only(const Bytes& old, const std::function<bool(uint32_t sector)>& written) {
    Written& w = live.back();
    for (uint32_t s = 0; s < w.len / 512; s++)
      if (!written(s)) std::copy_n(&old[w.off + s * 512], 512, &data[w.off + s * 512]);
  }

  // The oldest batch from which on none was overwritten. (A last one of an earlier lap may outlive its successors.)
  uint64_t oldest() const {
    size_t i = live.size() - 1;
    while (i > 0 && live[i - 1].seq + 1 == live[i].seq) i--;
    return live[i].seq;
  }

  void flip(const Written& w, uint32_t at) {
    data[w.off + at] ^= 0x10;
    for (Written& x : live)
      if (x.seq == w.seq) x.whole = false;
  }

  int next(sv_ring_cursor& cur, const char** why = nullptr, uint64_t last_seq = 0) {
    sv_ring ring{data.size(), incarnation_, last_seq, read, this, buf_.data(), false, 0};
    const void* batch = nullptr;
    int ret = sv_ring_next(&ring, &cur, &batch, why);
    EXPECT_EQ(ret == 1, batch != nullptr);
    torn = ring.torn;
    later_seq = ring.later_seq;
    return ret;
  }

  int holds(const sv_ring_cursor& cur) {
    sv_ring ring{data.size(), incarnation_, 0, read, this, buf_.data(), false, 0};
    return sv_ring_holds(&ring, &cur, nullptr);
  }

  // Reads on from cur until something other than a batch is found, and answers that.
  int walk(sv_ring_cursor& cur, const char** why = nullptr, uint64_t last_seq = 0) {
    int ret;
    while ((ret = next(cur, why, last_seq)) == 1)
      EXPECT_EQ(hex(&cur, sizeof(cur)), hex(&before.at(cur.seq), sizeof(cur)));
    return ret;
  }

  int walk_from(uint64_t seq, uint64_t* reached) {
    sv_ring_cursor cur = before.at(seq);
    int ret = walk(cur);
    *reached = cur.seq;
    return ret;
  }

 private:
  static int read(void* ctx, u64 off, void* buf, u32 len) {
    Ring* ring = static_cast<Ring*>(ctx);
    EXPECT_LE(off + len, ring->data.size());
    EXPECT_LE(len, SV_BATCH_MAX);
    ring->reads++;
    if (ring->fail_read >= 0 && ring->fail_read-- == 0) return -ENODEV;
    std::copy_n(ring->data.begin() + static_cast<long>(off), len, static_cast<uint8_t*>(buf));
    return 0;
  }

  Bytes sealed(const Written& w, uint32_t prev_crc) {
    Bytes b(w.len);
    for (uint32_t at = SV_BATCH_HEAD; at < w.bytes; at += 16)
      sv_put_valid(&b[at], 1, 1 + static_cast<u32>(rng_() >> 33), at / 16 % 4, rng_());
    sv_batch_seal(b.data(), w.bytes, (w.bytes - SV_BATCH_HEAD) / 16, w.seq, incarnation_, prev_crc, 0, 1, w.off);
    return b;
  }

  void overwrite(const Written& w) {
    std::erase_if(live, [&](const Written& x) { return x.off < w.off + w.len && w.off < x.off + x.len; });
  }

  Rng& rng_;
  uint64_t incarnation_;
  Bytes buf_;
};

void reseal(Bytes& b) {
  put_le(b, 4, 4, 0);
  put_le(b, 4, 4, naive_crc32c(b.data(), get_le(b, 24, 4)));
}

uint32_t some_bytes(Rng& rng) {
  uint32_t high = between(rng, 0, 9) ? 3 * kPage : SV_BATCH_MAX / 4;
  return static_cast<uint32_t>(between(rng, SV_BATCH_HEAD + 16, high));
}

TEST(RingScan, blank_ring_is_an_empty_journal) {
  Rng rng(1);
  Ring ring(SV_RING_MIN, rng);
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(0, &reached), 0);
  EXPECT_EQ(reached, 0u);
  for (auto& byte : ring.data) byte = static_cast<uint8_t>(rng());
  EXPECT_EQ(ring.walk_from(0, &reached), 0);
}

TEST(RingScan, finds_every_batch_across_many_wraps) {
  Rng rng(2);
  Ring ring(2 * SV_RING_MIN, rng);
  for (int i = 0; i < 600; i++) {
    ring.append(some_bytes(rng));
    if (i % 20) continue;
    uint64_t reached;
    ASSERT_EQ(ring.walk_from(ring.oldest() - 1, &reached), 0);
    ASSERT_EQ(reached, ring.before.back().seq);
  }
}

TEST(RingScan, batch_that_does_not_fit_before_the_end_is_found_at_0) {
  Rng rng(3);
  Ring ring(SV_RING_MIN, rng);
  ring.append(SV_RING_MIN / 2);
  ring.append(SV_RING_MIN / 2 - kPage);
  EXPECT_EQ(ring.append(kPage + 16).off, 0u);
  EXPECT_EQ(ring.live.front().seq, 2u);
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(1, &reached), 0);
  EXPECT_EQ(reached, 3u);
}

TEST(RingScan, batch_may_end_exactly_at_the_end) {
  Rng rng(4);
  Ring ring(2 * SV_RING_MIN, rng);
  EXPECT_EQ(ring.append(SV_BATCH_MAX).off, 0u);
  EXPECT_EQ(ring.append(SV_BATCH_MAX).off, SV_BATCH_MAX);
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(0, &reached), 0);
  EXPECT_EQ(reached, 2u);
  EXPECT_EQ(ring.append(kPage).off, 0u);
  EXPECT_EQ(ring.walk_from(2, &reached), 0);
  EXPECT_EQ(reached, 3u);
}

TEST(RingScan, tail_torn_at_any_sector_is_the_end) {
  Rng rng(5);
  for (uint32_t bytes : {kPage, 2 * kPage + 528, 6 * kPage}) {
    Ring ring(SV_RING_MIN, rng);
    while (ring.before.back().off < SV_RING_MIN - 8 * kPage) ring.append(3 * kPage);
    const Bytes old = ring.data;
    ring.append(bytes);
    const Bytes whole = ring.data;
    const Written last = ring.live.back();
    for (uint32_t kept = 0; kept <= last.len / 512; kept++) {
      ring.data = whole;
      ring.keep_only(old, [&](uint32_t s) { return s < kept; });
      uint64_t reached;
      ASSERT_EQ(ring.walk_from(0, &reached), 0);
      ASSERT_EQ(reached, last.seq - (kept * 512 < last.bytes)) << kept;
    }
  }
}

TEST(RingScan, tail_with_any_subset_of_its_sectors_is_the_end) {
  Rng rng(6);
  Ring ring(SV_RING_MIN, rng);
  for (int i = 0; i < 10; i++) ring.append(2 * kPage);
  const Bytes old = ring.data;
  const Written last = ring.append(5 * kPage);
  const Bytes whole = ring.data;
  for (int i = 0; i < 100; i++) {
    ring.data = whole;
    uint64_t kept = rng() & rng();
    if (!(~kept & ((1ull << 40) - 1))) continue;
    ring.keep_only(old, [&](uint32_t s) { return kept >> s & 1; });
    uint64_t reached;
    ASSERT_EQ(ring.walk_from(0, &reached), 0);
    ASSERT_EQ(reached, last.seq - 1);
  }
}

TEST(RingScan, bad_batch_before_a_whole_one_is_damage) {
  Rng rng(7);
  Ring ring(SV_RING_MIN, rng);
  for (int i = 0; i < 12; i++) ring.append(2 * kPage);
  const Bytes whole = ring.data;
  for (uint64_t bad = 1; bad < 12; bad++) {
    for (uint32_t at : {0u, 5u, 9u, 17u, 25u, 33u, 49u, 100u, 2 * kPage - 1}) {
      ring.data = whole;
      ring.flip(ring.live[bad - 1], at);
      sv_ring_cursor cur{};
      const char* why = nullptr;
      ASSERT_EQ(ring.walk(cur, &why), -EBADMSG) << bad << " at " << at;
      ASSERT_EQ(cur.seq, bad - 1);
      ASSERT_EQ(std::string(why).substr(0, 20), "journal is damaged: ");
      ASSERT_EQ(ring.later_seq, 12u);
    }
  }
}

// Nothing behind it tells: a torn write leaves each sector old or new, never this.
TEST(RingScan, header_of_the_last_batch_with_one_wrong_field_is_damage) {
  Rng rng(19);
  for (int laps : {0, 1}) {
    Ring ring(SV_RING_MIN, rng);
    while (ring.live.size() < 3 || (laps && ring.before.back().seq < 200)) ring.append(2 * kPage);
    const Bytes whole = ring.data;
    const Written last = ring.live.back();
    for (uint32_t at : {0u, 3u, 8u, 15u, 16u, 23u, 27u, 32u, 35u, 48u, 55u}) {
      ring.data = whole;
      ring.data[last.off + at] ^= 0x80;
      uint64_t reached;
      EXPECT_EQ(ring.walk_from(last.seq - 1, &reached), -EBADMSG) << "lap " << laps << ", byte " << at;
      EXPECT_EQ(ring.later_seq, 0u);
    }
  }
}

TEST(RingScan, wrong_byte_in_a_last_batch_of_one_sector_is_damage_and_in_a_longer_one_counts_as_torn) {
  Rng rng(20);
  for (uint32_t bytes : {512u, 528u}) {
    Ring ring(SV_RING_MIN, rng);
    ring.append(kPage);
    const Written last = ring.append(bytes);
    ASSERT_EQ(last.bytes, bytes);
    const Bytes whole = ring.data;
    for (uint32_t at = SV_BATCH_HEAD; at < bytes; at++) {
      ring.data = whole;
      ring.data[last.off + at] ^= 1;
      uint64_t reached;
      ASSERT_EQ(ring.walk_from(0, &reached), bytes > 512 ? 0 : -EBADMSG) << at;
      ASSERT_EQ(reached, 1u);
      ASSERT_EQ(ring.torn, bytes > 512);
    }
  }
}

TEST(RingScan, applied_batch_is_held_until_the_ring_is_lost) {
  Rng rng(21);
  Ring ring(2 * SV_RING_MIN, rng);
  EXPECT_EQ(ring.holds({}), 1);
  for (int i = 0; i < 300; i++) {
    ring.append(static_cast<uint32_t>(between(rng, 80, SV_RING_MIN / 8)));  // as a commit limits it
    ASSERT_EQ(ring.holds(ring.before.back()), 1) << i;
  }
  ring.append(SV_RING_MIN / 8);
  sv_ring_cursor at = ring.before.back();
  Bytes whole = ring.data;
  ring.data[at.off - ring.live.back().len] ^= 1;
  EXPECT_EQ(ring.holds(at), 0);
  ring.data = Bytes(whole.size());
  EXPECT_EQ(ring.holds(at), 0);
  EXPECT_EQ(ring.holds({}), 1);
  ring.data = whole;
  at.prev_crc ^= 1;
  EXPECT_EQ(ring.holds(at), 0);
  ring.fail_read = 0;
  EXPECT_EQ(ring.holds(ring.before.back()), -EIO);
}

TEST(RingScan, one_whole_batch_anywhere_behind_a_gap_is_damage) {
  Rng rng(8);
  Ring ring(4 * SV_RING_MIN, rng);
  ring.append(kPage);
  ring.append(SV_BATCH_MAX - 4 * kPage);  // ends three pages before 1 MiB
  const Written straddles = ring.append(SV_BATCH_MAX);
  const Written last = ring.append(SV_BATCH_MAX);
  ASSERT_NE(straddles.off % SV_BATCH_MAX, 0u);
  const Bytes whole = ring.data;
  uint64_t reached;
  for (const Written& only : {straddles, last}) {
    ring.data = Bytes(whole.size());
    std::copy_n(&whole[only.off], only.len, &ring.data[only.off]);
    EXPECT_EQ(ring.walk_from(0, &reached), -EBADMSG) << only.seq;
    ring.data[only.off + only.bytes - 1] ^= 1;
    EXPECT_EQ(ring.walk_from(0, &reached), 0) << only.seq;
  }
}

TEST(RingScan, batch_behind_a_torn_one_at_0_is_found_where_it_was_written) {
  Rng rng(9);
  Ring ring(SV_RING_MIN, rng);
  ring.append(SV_RING_MIN - 2 * kPage);
  // Batch 2 did not fit, was torn at 0, and after the crash a smaller batch 2 went behind batch 1.
  Bytes before_crash = ring.data;
  ring.append(3 * kPage);
  std::copy_n(&ring.data[0], 512, &before_crash[0]);
  ring.data = before_crash;
  ring.before.pop_back();
  EXPECT_EQ(ring.append(kPage).off, SV_RING_MIN - 2 * kPage);
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(1, &reached), 0);
  EXPECT_EQ(reached, 2u);
}

TEST(RingScan, batches_of_another_incarnation_do_not_count) {
  Rng rng(10);
  Ring old(SV_RING_MIN, rng, kIncarnation ^ 1);
  for (int i = 0; i < 100; i++) old.append(2 * kPage);
  Ring ring(SV_RING_MIN, rng);
  ring.data = old.data;
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(0, &reached), 0);
  EXPECT_EQ(reached, 0u);
  for (int i = 0; i < 3; i++) ring.append(2 * kPage);
  EXPECT_EQ(ring.walk_from(0, &reached), 0);
  EXPECT_EQ(reached, 3u);
}

TEST(RingScan, batch_that_follows_another_history_is_damage) {
  Rng rng(11);
  Ring ring(SV_RING_MIN, rng);
  ring.append(kPage);
  ring.append(kPage, [](Bytes& b) {
    b[32] ^= 1;  // prev_crc
    reseal(b);
  });
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(0, &reached), -EBADMSG);
  EXPECT_EQ(reached, 1u);
}

TEST(RingScan, undecodable_record_under_a_right_crc_is_damage_even_at_the_tail) {
  Rng rng(12);
  Ring ring(SV_RING_MIN, rng);
  ring.append(kPage);
  ring.append(kPage, [](Bytes& b) {
    b[SV_BATCH_HEAD] = 99;
    reseal(b);
  });
  sv_ring_cursor cur{};
  const char* why = nullptr;
  EXPECT_EQ(ring.walk(cur, &why), -EBADMSG);
  EXPECT_STREQ(why, "record of an unknown type");
  EXPECT_EQ(cur.seq, 1u);
}

TEST(RingScan, newer_flag_is_refused_as_such) {
  Rng rng(13);
  Ring ring(SV_RING_MIN, rng);
  ring.append(kPage, [](Bytes& b) {
    put_le(b, 36, 4, 1u << 31);
    reseal(b);
  });
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(0, &reached), -EPROTONOSUPPORT);
}

TEST(RingScan, lengths_beyond_the_ring_are_not_believed) {
  Rng rng(14);
  Ring ring(SV_RING_MIN, rng);
  ring.append(SV_RING_MIN - kPage);
  Bytes& d = ring.data;
  uint64_t at = SV_RING_MIN - kPage;
  sv_batch_seal(&d[at], 64, 0, 2, kIncarnation, ring.before.back().prev_crc, 0, 1, at);
  put_le(d, at + 24, 4, 2 * kPage);
  uint64_t reached;
  EXPECT_EQ(ring.walk_from(1, &reached), -EBADMSG);
  EXPECT_EQ(reached, 1u);
}

TEST(RingScan, failing_read_is_an_error_and_moves_nothing) {
  Rng rng(15);
  Ring ring(SV_RING_MIN, rng);
  ring.append(3 * kPage);
  for (int n : {0, 1}) {
    ring.fail_read = n;
    sv_ring_cursor cur{};
    const char* why = nullptr;
    EXPECT_EQ(ring.next(cur, &why), -EIO);
    EXPECT_STREQ(why, "journal cannot be read");
    EXPECT_EQ(cur.seq + cur.off + cur.prev_crc, 0u);
    EXPECT_EQ(ring.next(cur), 1);
    ring.fail_read = n;
    EXPECT_EQ(ring.next(cur), -EIO);
    EXPECT_EQ(cur.seq, 1u);
  }
}

TEST(RingScan, known_end_costs_no_scan) {
  Rng rng(16);
  Ring ring(8 * SV_RING_MIN, rng);
  for (int i = 0; i < 3; i++) ring.append(kPage);
  sv_ring_cursor cur{};
  EXPECT_EQ(ring.walk(cur, nullptr, 3), 0);
  EXPECT_EQ(cur.seq, 3u);
  EXPECT_EQ(ring.reads, 3);
  cur = {};
  EXPECT_EQ(ring.walk(cur, nullptr, 2), 0);
  EXPECT_EQ(cur.seq, 2u);
  cur = {};
  ring.reads = 0;
  EXPECT_EQ(ring.walk(cur, nullptr, 4), -EBADMSG);
  EXPECT_EQ(cur.seq, 3u);
  EXPECT_LE(ring.reads, 5);
}

// A ring that is too long to be kept in memory: batches where a test puts them, and nothing between.
class LongRing {
 public:
  static constexpr uint64_t kLen = 1280ull << 20, kMiB = 1 << 20;

  void put(uint64_t offset, uint64_t seq, uint32_t bytes) {
    Bytes b(bytes);
    for (uint32_t at = SV_BATCH_HEAD; at < bytes; at += 16) sv_put_valid(&b[at], 1, 1, at / 16 % 4, ~0ull);
    sv_batch_seal(b.data(), bytes, (bytes - SV_BATCH_HEAD) / 16, seq, kIncarnation, 1, 0, 1, offset);
    batches_[offset] = std::move(b);
  }

  // What is answered where batch 5 ended and nothing follows there.
  int next(uint64_t offset) {
    sv_ring ring{kLen, kIncarnation, 0, read, this, buf_.data(), false, 0};
    sv_ring_cursor cur{5, offset, 7, 0};
    const void* batch = nullptr;
    bytes_read = 0;
    const int answer = sv_ring_next(&ring, &cur, &batch, nullptr);
    later_seq = ring.later_seq;
    return answer;
  }

  uint64_t bytes_read = 0;
  uint64_t later_seq = 0;

 private:
  static int read(void* ctx, u64 off, void* buf, u32 len) {
    auto* ring = static_cast<LongRing*>(ctx);
    ring->bytes_read += len;
    auto* to = static_cast<uint8_t*>(buf);
    std::fill_n(to, len, 0);
    for (auto b = ring->batches_.lower_bound(off < SV_BATCH_MAX ? 0 : off - SV_BATCH_MAX); b != ring->batches_.end() && b->first < off + len; ++b) {
      const uint64_t from = std::max(b->first, off), end = std::min(b->first + b->second.size(), off + len);
      if (from < end) std::copy_n(&b->second[from - b->first], end - from, to + (from - off));
    }
    return 0;
  }

  std::map<uint64_t, Bytes> batches_;
  Bytes buf_ = Bytes(SV_BATCH_MAX);
};

constexpr uint64_t kMiB = LongRing::kMiB;

TEST(LongRingScan, end_costs_reading_what_lies_near_and_samples) {
  LongRing ring;
  EXPECT_EQ(ring.next(12 * kPage), 0);
  EXPECT_LE(ring.bytes_read, (257 + LongRing::kLen / (32 * kMiB) + 1) * kMiB);
}

TEST(LongRingScan, batch_that_begins_within_256_mib_is_found) {
  LongRing near, wraps;
  near.put(257 * kMiB + 4 * kPage, 7, kPage);
  EXPECT_EQ(near.next(5 * kPage), -EBADMSG);
  EXPECT_EQ(near.later_seq, 7u);
  wraps.put(56 * kMiB - kPage, 7, kPage);
  EXPECT_EQ(wraps.next(LongRing::kLen - 200 * kMiB), -EBADMSG);
}

TEST(LongRingScan, what_is_longer_than_33_mib_is_found_wherever_it_begins) {
  for (const uint64_t shift : {0 * kMiB, 17 * kMiB, 255 * kMiB}) {
    LongRing ring;
    const uint64_t first = 600 * kMiB + shift + kPage;
    for (uint64_t i = 0; i < 33; i++) ring.put(first + i * kMiB, 100 + i, SV_BATCH_MAX);
    EXPECT_EQ(ring.next(0), -EBADMSG) << shift;
    EXPECT_EQ(ring.later_seq, 132u) << "the last of all";
  }
}

TEST(LongRingScan, less_than_that_behind_more_damage_than_that_is_not) {
  LongRing ring;
  ring.put(1000 * kMiB, 7, kPage);    // 8 MiB behind a sample
  EXPECT_EQ(ring.next(0), 0);
  ring.put(1024 * kMiB, 8, kPage);
  EXPECT_EQ(ring.next(0), -EBADMSG) << "but where a sample is taken";
}

TEST(RingScan, refuses_positions_that_make_no_sense) {
  Rng rng(17);
  for (uint64_t len : {SV_RING_MIN - kPage, SV_RING_MIN + 512, 0ull}) {
    Ring ring(len, rng);
    sv_ring_cursor cur{};
    EXPECT_EQ(ring.next(cur), -EINVAL) << len;
  }
  Ring ring(SV_RING_MIN, rng);
  for (uint64_t off : {512ull, SV_RING_MIN + kPage, ~0ull}) {
    sv_ring_cursor cur{0, off, 0, 0};
    EXPECT_EQ(ring.next(cur), -EINVAL) << off;
  }
  sv_ring_cursor at_end{0, SV_RING_MIN, 0, 0};
  EXPECT_EQ(ring.next(at_end), 0);
}

// What reading from behind `seq` should find, from what is known of the ring.
int oracle(const Ring& ring, uint64_t seq, uint64_t* reached) {
  auto whole = [&](uint64_t s) {
    return std::any_of(ring.live.begin(), ring.live.end(), [&](const Written& w) { return w.seq == s && w.whole; });
  };
  while (whole(seq + 1)) seq++;
  *reached = seq;
  bool damaged = std::any_of(ring.live.begin(), ring.live.end(), [&](const Written& w) {
    return w.seq == seq + 1 && !w.whole && w.bytes <= 512;
  });
  if (damaged) return -EBADMSG;
  bool later = std::any_of(ring.live.begin(), ring.live.end(),
                           [&](const Written& w) { return w.seq > seq && w.whole; });
  return later ? -EBADMSG : 0;
}

TEST(RingScan, agrees_with_the_oracle_on_random_rings) {
  Rng rng(18);
  for (int round = 0; round < 150; round++) {
    Ring ring(SV_RING_MIN * between(rng, 1, 3), rng);
    for (int i = static_cast<int>(between(rng, 0, 150)); i; i--) ring.append(some_bytes(rng));
    for (int i = static_cast<int>(between(rng, 0, 3)); i && !ring.live.empty(); i--) {
      size_t back = std::min<size_t>(ring.live.size() - 1, between(rng, 0, 5));
      const Written w = ring.live[ring.live.size() - 1 - back];
      if (w.whole) ring.flip(w, static_cast<uint32_t>(between(rng, SV_BATCH_HEAD, w.bytes - 1)));
    }
    uint64_t from = ring.live.empty() ? 0 : between(rng, ring.live.front().seq - 1, ring.before.back().seq);
    uint64_t want_reached, reached;
    int want = oracle(ring, from, &want_reached);
    ASSERT_EQ(ring.walk_from(from, &reached), want) << "round " << round;
    ASSERT_EQ(reached, want_reached) << "round " << round;
  }
}

}  // namespace
}  // namespace sv::test

// SPDX-License-Identifier: GPL-2.0
// Records and batches: golden bytes, a naive oracle, limits in pairs, damage and garbage.
#include <gtest/gtest.h>

#include <memory>

#include "kmod/core/journal.h"
#include "tests/support/bytes.h"

namespace sv::test {
namespace {

constexpr uint64_t kIncarnation = 0x1122334455667788;

struct alignas(8) Record {
  uint8_t bytes[32] = {};
};

sv_rec record(uint8_t type) {
  sv_rec r{};
  r.type = type;
  return r;
}

// One record of each type, each field with a value of its own, and its bytes written down by hand.
struct Golden {
  const char* name;
  sv_rec rec;
  const char* bytes;
};

std::vector<Golden> goldens() {
  std::vector<Golden> all;
  auto add = [&](const char* name, uint8_t type, const char* bytes) -> sv_rec& {
    all.push_back({name, record(type), bytes});
    return all.back().rec;
  };
  sv_rec* r = &add("MAP", SV_REC_MAP, "0103020114131211" "0504030201cbba0a" "2423222134333231" "444342013f000000");
  r->flags = SV_MAP_PARTIAL | SV_MAP_PARENT, r->gen = 0x0102, r->extent = 0x11121314, r->volume = 0x0abacb;
  r->index = 0x0102030405, r->layer = 0x21222324, r->parent = 0x31323334, r->slot = 0x01424344, r->member = 63;
  r = &add("FRAG", SV_REC_FRAG, "0200020114131211" "112233440d3f0000");
  r->gen = 0x0102, r->extent = 0x11121314, r->word = 13, r->member = 63, r->arg = 0x44332211;
  r = &add("MAP of fragments", SV_REC_MAP, "0107020114131211" "0504030201cbba0a" "2423222134333231" "000000003f000000");
  r->flags = SV_MAP_PARTIAL | SV_MAP_PARENT | SV_MAP_FRAGS, r->gen = 0x0102, r->extent = 0x11121314, r->volume = 0x0abacb;
  r->index = 0x0102030405, r->layer = 0x21222324, r->parent = 0x31323334, r->member = 63;
  r = &add("UNFRAG", SV_REC_UNFRAG, "0355020114131211" "1122334455667788");
  r->flags = 0x55, r->gen = 0x0102, r->extent = 0x11121314, r->arg = 0x8877665544332211;
  r = &add("VALID", SV_REC_VALID, "0402020114131211" "1122334455667788");
  r->gen = 0x0102, r->extent = 0x11121314, r->word = 2, r->bits = 0x8877665544332211;
  r = &add("VALID all", SV_REC_VALID, "0480020114131211" "ffffffffffffffff");
  r->flags = SV_VALID_ALL, r->gen = 0x0102, r->extent = 0x11121314, r->bits = ~0ull;
  r = &add("CLEAR", SV_REC_CLEAR, "0503020114131211" "1122334455667788");
  r->gen = 0x0102, r->extent = 0x11121314, r->word = 3, r->bits = 0x8877665544332211;
  r = &add("UNMAP", SV_REC_UNMAP, "06010000cbba0a00" "2423222114131211" "0504030201000000");
  r->flags = SV_UNMAP_TOMBSTONE, r->volume = 0x0abacb, r->layer = 0x21222324, r->extent = 0x11121314;
  r->index = 0x0102030405;
  r = &add("MOVE", SV_REC_MOVE, "0700020114131211" "444342013f000000" "0000000000000000");
  r->gen = 0x0102, r->extent = 0x11121314, r->slot = 0x01424344, r->member = 63;
  r = &add("MOVE of fragments", SV_REC_MOVE, "0700020114131211" "443342113f000000" "0180000000000000");
  r->gen = 0x0102, r->extent = 0x11121314, r->slot = 0x11423344, r->member = 63, r->arg = 0x8001;
  r = &add("LAYER", SV_REC_LAYER, "08000000cbba0a00" "2423222134333231" "1122334455667788");
  r->volume = 0x0abacb, r->layer = 0x21222324, r->parent = 0x31323334, r->arg = 0x8877665544332211;
  r = &add("SNAPDONE", SV_REC_SNAPDONE, "09000000cbba0a00" "2423222100000000");
  r->volume = 0x0abacb, r->layer = 0x21222324;
  r = &add("OWN", SV_REC_OWN, "0a000000cbba0a00" "2423222100000000");
  r->volume = 0x0abacb, r->layer = 0x21222324;
  r = &add("FOLD", SV_REC_FOLD, "0b0102010a090807" "1413121100000000");
  r->flags = 1, r->gen = 0x0102, r->extent = 0x0708090a, r->parent = 0x11121314;
  return all;
}

std::string text(const sv_rec& r) {
  char out[256];
  snprintf(out, sizeof(out), "type %u flags %x gen %x extent %x volume %x layer %x parent %x slot %x member %u word %u"
           " index %llx bits %llx arg %llx", r.type, r.flags, r.gen, r.extent, r.volume, r.layer, r.parent, r.slot,
           r.member, r.word, static_cast<unsigned long long>(r.index), static_cast<unsigned long long>(r.bits),
           static_cast<unsigned long long>(r.arg));
  return out;
}

uint32_t any32(Rng& rng) { return static_cast<uint32_t>(rng()); }
uint32_t extent_of(Rng& rng) { return static_cast<uint32_t>(between(rng, 1, ~0u)); }
uint32_t volume_of(Rng& rng) { return static_cast<uint32_t>(between(rng, 1, 0xffffff)); }

// A random sound record and, beside it, what docs/format.md says its bytes are.
Bytes random_record(Rng& rng, sv_rec& r) {
  static const int kSize[] = {0, 32, 16, 16, 16, 16, 24, 24, 24, 16, 16, 16};
  r = record(static_cast<uint8_t>(between(rng, 1, 11)));
  Bytes b(kSize[r.type]);
  b[0] = r.type;
  auto extent = [&] {
    put_le(b, 2, 2, r.gen = static_cast<uint16_t>(rng()));
    put_le(b, 4, 4, r.extent = extent_of(rng));
  };
  auto volume = [&] { put_le(b, 4, 4, r.volume = volume_of(rng)); };
  auto place = [&](size_t at) {
    put_le(b, at, 4, r.slot = static_cast<uint32_t>(between(rng, 0, (1u << 28) - 1)));
    put_le(b, at + 4, 4, r.member = static_cast<uint32_t>(between(rng, 0, 63)));
  };
  switch (r.type) {
    case 1:
      extent();
      do b[1] = r.flags = static_cast<uint8_t>(between(rng, 0, 7));
      while ((r.flags & SV_MAP_FRAGS) && !(r.flags & SV_MAP_PARTIAL));
      r.index = rng() >> 24;
      r.volume = volume_of(rng);
      put_le(b, 8, 5, r.index);
      put_le(b, 13, 3, r.volume);
      put_le(b, 16, 4, r.layer = any32(rng));
      put_le(b, 20, 4, r.parent = r.flags & 2 ? extent_of(rng) : 0);
      place(24);
      if (r.flags & SV_MAP_FRAGS) put_le(b, 24, 4, r.slot = 0);
      break;
    case 2:
      extent();
      put_le(b, 8, 4, r.arg = extent_of(rng));
      put_le(b, 12, 1, r.word = static_cast<uint32_t>(between(rng, 0, 15)));
      put_le(b, 13, 1, r.member = static_cast<uint32_t>(between(rng, 0, 63)));
      break;
    case 3:
      extent();
      b[1] = r.flags = static_cast<uint8_t>(rng());
      put_le(b, 8, 8, r.arg = rng());
      break;
    case 4:
    case 5:
      extent();
      b[1] = static_cast<uint8_t>(r.word = static_cast<uint32_t>(between(rng, 0, 3)));
      put_le(b, 8, 8, r.bits = rng());
      break;
    case 6:
      volume();
      b[1] = r.flags = static_cast<uint8_t>(between(rng, 0, 1));
      put_le(b, 8, 4, r.layer = any32(rng));
      put_le(b, 12, 4, r.extent = any32(rng));
      put_le(b, 16, 8, r.index = rng() >> 24);
      break;
    case 7:
      extent();
      place(8);
      if (rng() % 2) break;
      for (uint64_t n = 1 + rng() % SV_FRAGS_MAX; n; n--) r.arg |= 1ull << rng() % SV_FRAGS;
      put_le(b, 16, 8, r.arg);
      put_le(b, 8, 4, r.slot = static_cast<uint32_t>(between(rng, 0, (1u << 28) - 1) * SV_FRAGS + 1 + rng() % (SV_FRAGS - SV_FRAGS_MAX + 1)));
      break;
    case 8:
      volume();
      put_le(b, 8, 4, r.layer = any32(rng));
      put_le(b, 12, 4, r.parent = any32(rng));
      put_le(b, 16, 8, r.arg = rng());
      break;
    case 11:
      extent();
      b[1] = r.flags = static_cast<uint8_t>(between(rng, 0, 1));
      do r.parent = extent_of(rng);
      while (r.parent == r.extent);
      put_le(b, 8, 4, r.parent);
      break;
    default:
      volume();
      put_le(b, 8, 4, r.layer = any32(rng));
  }
  return b;
}

// In a heap block of its exact size, so that ASan sees a read beyond it.
int decode_exact(const Bytes& b, sv_rec* out, const char** why) {
  auto copy = std::make_unique<uint8_t[]>(b.size());
  std::copy(b.begin(), b.end(), copy.get());
  return sv_rec_decode(copy.get(), static_cast<u32>(b.size()), out, why);
}

TEST(Record, bytes_never_change) {
  for (const Golden& g : goldens()) {
    Record out;
    uint32_t size = sv_rec_encode(&g.rec, out.bytes);
    EXPECT_EQ(hex(out.bytes, size), g.bytes) << g.name;
    sv_rec back{};
    const char* why = "";
    EXPECT_EQ(sv_rec_decode(out.bytes, size, &back, &why), 0) << g.name << ": " << why;
    EXPECT_EQ(text(back), text(g.rec)) << g.name;
  }
}

TEST(Record, sizes_follow_from_the_type) {
  const uint32_t want[] = {0, 32, 16, 16, 16, 16, 24, 24, 24, 16, 16, 16};
  for (int type = 0; type < 256; type++)
    EXPECT_EQ(sv_rec_size(static_cast<u8>(type)), type < 12 ? want[type] : 0) << type;
}

TEST(Record, agrees_with_the_oracle_on_random_records) {
  Rng rng(4);
  for (int i = 0; i < 50000; i++) {
    sv_rec r, back{};
    Bytes want = random_record(rng, r);
    Record out;
    ASSERT_EQ(sv_rec_encode(&r, out.bytes), want.size());
    ASSERT_EQ(hex(out.bytes, want.size()), hex(want.data(), want.size())) << text(r);
    const char* why = "";
    ASSERT_EQ(decode_exact(want, &back, &why), 0) << why << ": " << text(r);
    ASSERT_EQ(text(back), text(r));
  }
}

TEST(Record, refuses_one_cut_off_at_any_byte) {
  for (const Golden& g : goldens()) {
    Record whole;
    uint32_t size = sv_rec_encode(&g.rec, whole.bytes);
    for (uint32_t left = 0; left < size; left++) {
      sv_rec out;
      const char* why = nullptr;
      EXPECT_EQ(decode_exact(Bytes(whole.bytes, whole.bytes + left), &out, &why), -EBADMSG) << g.name << left;
      EXPECT_STREQ(why, "record is cut off");
      EXPECT_EQ(sv_rec_check(whole.bytes, left), -EBADMSG);
    }
    EXPECT_EQ(sv_rec_check(whole.bytes, size), 0);
  }
}

TEST(Record, refuses_unknown_types) {
  for (int type : {0, 12, 13, 127, 255}) {
    Bytes b(32);
    b[0] = static_cast<uint8_t>(type);
    EXPECT_EQ(sv_rec_check(b.data(), 32), -EBADMSG) << type;
  }
}

struct Limit {
  const char* name;
  uint8_t type;  // the golden record of this type ...
  size_t at;     // ... with this many bytes at this offset
  int size;
  uint64_t good, bad;
};

const Limit kLimits[] = {
    {"MAP extent", 1, 4, 4, 1, 0},
    {"MAP flags", 1, 1, 1, 3, 11},
    {"MAP of fragments with a slot", 1, 1, 1, 3, 7},
    {"MAP of fragments that is whole", 1, 1, 1, 2, 6},
    {"MAP parent without flag", 1, 1, 1, 2, 1},
    {"MAP flag without parent", 1, 20, 4, 1, 0},
    {"MAP volume", 1, 13, 3, 1, 0},
    {"MAP slot", 1, 24, 4, (1u << 28) - 1, 1u << 28},
    {"MAP member", 1, 28, 4, 63, 64},
    {"FRAG extent", 2, 4, 4, 1, 0},
    {"FRAG flags", 2, 1, 1, 0, 1},
    {"FRAG place", 2, 8, 4, 1, 0},
    {"FRAG number", 2, 12, 1, 15, 16},
    {"FRAG member", 2, 13, 3, 63, 64},
    {"UNFRAG extent", 3, 4, 4, 1, 0},
    {"VALID extent", 4, 4, 4, 1, 0},
    {"VALID flags", 4, 1, 1, 3, 4},
    {"VALID of all without all bits", 4, 1, 1, 0, 0x80},
    {"FOLD extent", 11, 4, 4, 1, 0},
    {"FOLD flags", 11, 1, 1, 1, 2},
    {"FOLD parent", 11, 8, 4, 1, 0},
    {"FOLD parent of itself", 11, 8, 4, 1, 0x0708090a},
    {"FOLD parent out of range", 11, 12, 4, 0, 1},
    {"CLEAR extent", 5, 4, 4, 1, 0},
    {"CLEAR of all", 5, 1, 1, 3, 0x80},
    {"UNMAP flags", 6, 1, 1, 1, 2},
    {"UNMAP volume low", 6, 4, 4, 1, 0},
    {"UNMAP volume high", 6, 4, 4, 0xffffff, 0x1000000},
    {"UNMAP index", 6, 16, 8, (1ull << 40) - 1, 1ull << 40},
    {"MOVE extent", 7, 4, 4, 1, 0},
    {"MOVE flags", 7, 1, 1, 0, 1},
    {"MOVE slot", 7, 8, 4, 0, 1u << 28},
    {"MOVE member", 7, 12, 4, 63, 64},
    {"LAYER volume low", 8, 4, 4, 1, 0},
    {"LAYER volume high", 8, 4, 4, 0xffffff, 0x1000000},
    {"LAYER flags", 8, 1, 1, 0, 0x80},
    {"SNAPDONE layer", 9, 8, 8, ~0u, 1ull << 32},
    {"SNAPDONE volume", 9, 4, 4, 1, 0},
    {"OWN layer", 10, 8, 8, ~0u, 1ull << 32},
    {"OWN flags", 10, 1, 1, 0, 1},
};

TEST(Record, checks_every_field_against_its_limits) {
  for (const Limit& l : kLimits) {
    for (bool bad : {false, true}) {
      for (const Golden& g : goldens()) {
        if (g.rec.type != l.type || g.rec.flags == SV_VALID_ALL || g.rec.flags & SV_MAP_FRAGS || (l.type == SV_REC_MOVE && g.rec.arg)) continue;
        Bytes b(32);
        uint32_t size = sv_rec_encode(&g.rec, b.data());
        put_le(b, l.at, l.size, bad ? l.bad : l.good);
        sv_rec out;
        memset(&out, 0x5a, sizeof(out));
        const sv_rec before = out;
        const char* why = nullptr;
        EXPECT_EQ(sv_rec_decode(b.data(), size, &out, &why), bad ? -EBADMSG : 0) << l.name;
        if (!bad) continue;
        EXPECT_NE(why, nullptr) << l.name;
        EXPECT_EQ(text(out), text(before)) << l.name;
      }
    }
  }
}

TEST(Record, moved_fragments_lie_in_one_slot_and_are_not_too_many) {
  struct Case {
    uint32_t extent, place, member;
    uint64_t mask;
    bool good;
  };
  for (const Case& c : {Case{1, 1, 0, 1, true}, Case{1, 0, 0, 1, false}, Case{0, 1, 0, 1, false}, Case{1, 1, 63, 1, true}, Case{1, 1, 64, 1, false},
                        Case{1, 1, 0, 0xff, true}, Case{1, 1, 0, 0x1ff, false}, Case{1, 1, 0, 0x8000, true}, Case{1, 1, 0, 0x10000, false},
                        Case{1, 9, 0, 0xff, true}, Case{1, 10, 0, 0xff, false}, Case{1, 16, 0, 1, true}, Case{1, 16, 0, 3, false}, Case{1, 17, 0, 3, true},
                        Case{1, ~0u, 0, 1, true}}) {
    Bytes b(32);
    sv_rec r = record(SV_REC_MOVE);
    r.extent = c.extent, r.slot = c.place, r.member = c.member, r.arg = c.mask;
    const uint32_t size = sv_rec_encode(&r, b.data());
    const char* why = nullptr;
    EXPECT_EQ(c.good ? 0 : -EBADMSG, sv_rec_decode(b.data(), size, &r, &why)) << c.place << " " << c.mask;
  }
}

TEST(Record, decodes_garbage_without_a_fault) {
  Rng rng(5);
  for (int i = 0; i < 100000; i++) {
    Bytes b(between(rng, 0, 40));
    for (auto& byte : b) byte = static_cast<uint8_t>(rng());
    if (!b.empty()) b[0] %= 12;
    sv_rec out{};
    const char* why = nullptr;
    int ret = decode_exact(b, &out, &why);
    ASSERT_TRUE(ret == 0 || (ret == -EBADMSG && why));
    if (ret) continue;
    ASSERT_LT(out.member, SV_MAX_MEMBERS);
    ASSERT_LT(out.slot, SV_MAX_SLOTS);
    ASSERT_LE(out.volume, SV_VOLUME_ID_MAX);
    ASSERT_LT(out.word, SV_VALID_WORDS);
    ASSERT_EQ(out.index >> SV_INDEX_BITS, 0u);
  }
}

// ---- batches ----

// A batch of random records, and the records.
struct Batch {
  Bytes buf = Bytes(SV_BATCH_MAX);
  std::vector<std::string> records;
  uint32_t bytes = SV_BATCH_HEAD;
  uint32_t crc = 0;

  Batch(Rng& rng, uint32_t limit, uint64_t seq = 5, uint32_t prev_crc = 0xa1a2a3a4, uint64_t offset = 0x3000) {
    sv_rec r;
    for (Bytes b = random_record(rng, r); bytes + b.size() <= limit; b = random_record(rng, r)) {
      std::copy(b.begin(), b.end(), buf.begin() + bytes);
      bytes += static_cast<uint32_t>(b.size());
      records.push_back(text(r));
    }
    crc = sv_batch_seal(buf.data(), bytes, static_cast<u32>(records.size()), seq, kIncarnation, prev_crc, 0, 3, offset);
  }

  uint32_t padded() const { return (bytes + 4095) / 4096 * 4096; }
  void reseal() {
    put_le(buf, 4, 4, 0);
    put_le(buf, 4, 4, naive_crc32c(buf.data(), bytes));
  }
  int check(const char** why = nullptr) const {
    auto exact = std::make_unique<uint8_t[]>(padded());
    std::copy_n(buf.begin(), padded(), exact.get());
    return sv_batch_check(exact.get(), padded(), 5, kIncarnation, 0xa1a2a3a4, 0x3000, why);
  }
};

TEST(Batch, bytes_never_change) {
  alignas(8) uint8_t buf[4096];
  memset(buf, 0xee, sizeof(buf));
  uint32_t n = sv_put_valid(buf + 64, 0x0102, 0x11121314, 2, 0x8877665544332211);
  uint32_t crc = sv_batch_seal(buf, 64 + n, 1, 5, kIncarnation, 0xa1a2a3a4, SV_BATCH_COPY_LOST, 3, 0x3000);
  EXPECT_EQ(hex(buf, 80),
            "3153764adb8e16e1050000000000000088776655443322115000000001000000"
            "a4a3a2a101000000030000000000000000300000000000000000000000000000"
            "04020201141312111122334455667788");
  EXPECT_EQ(crc, 0xe1168edbu);
  for (size_t i = 80; i < sizeof(buf); i++) ASSERT_EQ(buf[i], 0xee) << "it is the caller's, at " << i;
}

TEST(Batch, gives_back_the_records_that_it_was_made_of) {
  Rng rng(6);
  for (uint32_t limit : {64u, 96u, 4096u, 4096u + 96, 70000u, SV_BATCH_MAX}) {
    Batch b(rng, limit);
    EXPECT_EQ(b.crc, [&] {
      Bytes copy = b.buf;
      put_le(copy, 4, 4, 0);
      return naive_crc32c(copy.data(), b.bytes);
    }());
    const char* why = "";
    ASSERT_EQ(b.check(&why), 0) << why;
    EXPECT_EQ(sv_batch_len(b.buf.data()), b.padded());
    std::vector<std::string> got;
    uint32_t pos = 0;
    sv_rec r;
    while (sv_batch_next(b.buf.data(), &pos, &r, &why) == 1) got.push_back(text(r));
    EXPECT_EQ(got, b.records);
  }
}

TEST(Batch, detects_every_flipped_bit) {
  Rng rng(7);
  Batch b(rng, 600);
  for (uint32_t bit = 0; bit < b.bytes * 8; bit++) {
    b.buf[bit / 8] ^= 1 << (bit % 8);
    ASSERT_EQ(b.check(), -EINVAL) << "bit " << bit;
    b.buf[bit / 8] ^= 1 << (bit % 8);
  }
  EXPECT_EQ(b.check(), 0);
}

TEST(Batch, is_valid_only_as_the_one_expected) {
  Rng rng(8);
  Batch b(rng, 600);
  const char* why = nullptr;
  auto check = [&](uint64_t seq, uint64_t inc, uint32_t prev, uint64_t off) {
    return sv_batch_check(b.buf.data(), b.padded(), seq, inc, prev, off, &why);
  };
  EXPECT_EQ(check(5, kIncarnation, 0xa1a2a3a4, 0x3000), 0);
  EXPECT_EQ(check(4, kIncarnation, 0xa1a2a3a4, 0x3000), -EINVAL);
  EXPECT_EQ(check(6, kIncarnation, 0xa1a2a3a4, 0x3000), -EINVAL);
  EXPECT_EQ(check(5, kIncarnation + 1, 0xa1a2a3a4, 0x3000), -EINVAL);
  EXPECT_EQ(check(5, kIncarnation, 0xa1a2a3a5, 0x3000), -EINVAL);
  EXPECT_STREQ(why, "batch follows another one");
  EXPECT_EQ(check(5, kIncarnation, 0xa1a2a3a4, 0x2000), -EINVAL);
}

TEST(Batch, refuses_one_of_which_too_little_was_read) {
  Rng rng(9);
  Batch b(rng, 9000);
  for (uint32_t have : {0u, 1u, 63u, 64u, 512u, 4096u, b.bytes - 1}) {
    auto exact = std::make_unique<uint8_t[]>(have + 1);
    std::copy_n(b.buf.begin(), have, exact.get());
    EXPECT_EQ(sv_batch_check(exact.get(), have, 5, kIncarnation, 0xa1a2a3a4, 0x3000, nullptr), -EINVAL) << have;
  }
  EXPECT_EQ(sv_batch_check(b.buf.data(), b.bytes, 5, kIncarnation, 0xa1a2a3a4, 0x3000, nullptr), 0);
}

TEST(Batch, refuses_lengths_out_of_range) {
  Rng rng(10);
  for (uint32_t bytes : {0u, 63u, SV_BATCH_MAX + 1, ~0u}) {
    Batch b(rng, 600);
    put_le(b.buf, 24, 4, bytes);
    EXPECT_EQ(sv_batch_check(b.buf.data(), SV_BATCH_MAX, 5, kIncarnation, 0xa1a2a3a4, 0x3000, nullptr), -EINVAL);
  }
}

TEST(Batch, tells_damage_under_a_right_crc_from_absence) {
  Rng rng(11);
  struct Case {
    const char* name;
    size_t at;
    int size;
    uint64_t value;
    int want;
  };
  for (const Case& c : {Case{"unknown type", 64, 1, 99, -EBADMSG}, Case{"too many records said", 28, 4, 999, -EBADMSG},
                        Case{"too few records said", 28, 4, 1, -EBADMSG}, Case{"trimmed beyond", 40, 8, 6, -EBADMSG},
                        Case{"trimmed up to it", 40, 8, 5, 0}, Case{"newer flag", 36, 4, 4, -EPROTONOSUPPORT},
                        Case{"reserved", 56, 8, 77, 0}}) {
    Batch b(rng, 600);
    put_le(b.buf, c.at, c.size, c.value);
    b.reseal();
    const char* why = nullptr;
    EXPECT_EQ(b.check(&why), c.want) << c.name;
    EXPECT_EQ(why != nullptr, c.want != 0) << c.name;
  }
  Batch b(rng, 600);
  b.bytes -= 8;  // the last record is cut off
  put_le(b.buf, 24, 4, b.bytes);
  b.reseal();
  EXPECT_EQ(b.check(), -EBADMSG);
}

TEST(Batch, checks_garbage_without_a_fault) {
  Rng rng(12);
  for (int i = 0; i < 3000; i++) {
    Batch b(rng, 600);
    for (int n = static_cast<int>(between(rng, 1, 6)); n; n--)
      b.buf[between(rng, 28, b.bytes - 1)] = static_cast<uint8_t>(rng());
    if (rng() & 1) put_le(b.buf, 24, 4, b.bytes = static_cast<uint32_t>(between(rng, 64, 4096)));
    b.reseal();
    b.check();
  }
}

}  // namespace
}  // namespace sv::test

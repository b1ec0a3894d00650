// SPDX-License-Identifier: GPL-2.0
// The label's codec against golden bytes and a naive oracle, its refusals, and the layout of new members.
#include <gtest/gtest.h>

#include <functional>

#include "kmod/core/label.h"
#include "tests/support/bytes.h"

namespace sv::test {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1024 * kMiB;

void fill(uint8_t (&out)[16], uint8_t from) {
  for (int i = 0; i < 16; i++) out[i] = static_cast<uint8_t>(from + i);
}

// A sound label with a different value in every field.
sv_label example() {
  sv_label l{};
  l.compat = 0x11;
  fill(l.pool_uuid, 0x10);
  fill(l.member_uuid, 0x20);
  fill(l.host_id, 0x30);
  strcpy(l.pool_name, "tank");
  strcpy(l.tier_name, "fast");
  strcpy(l.host_name, "h.example");
  l.generation = 7;
  l.incarnation = 0x1122334455667788;
  l.size = 100 * kMiB + 12288;
  l.copy_off = 100 * kMiB - 4096;
  l.ring_off = 1 * kMiB;
  l.ring_len = 3 * kMiB;
  l.cat_off = 4 * kMiB;
  l.cat_len = 5 * kMiB;
  l.slot_off = 9 * kMiB;
  l.nr_slots = 90;
  l.member = 1;
  l.nr_members = 3;
  l.tier = 2;
  l.flags = SV_LABEL_HAS_RING | SV_LABEL_HAS_CATALOGUE;
  return l;
}

Bytes encoded(const sv_label& l) {
  Bytes b(SV_LABEL_SIZE);
  sv_label_encode(&l, reinterpret_cast<sv_label_disk*>(b.data()));
  return b;
}

int decode(const Bytes& b, sv_label* out, const char** why) {
  return sv_label_decode(reinterpret_cast<const sv_label_disk*>(b.data()), out, why);
}

// Decodes and demands that a refusal gives a reason and leaves the result alone.
int decode(const Bytes& b) {
  sv_label out, before;
  memset(&out, 0x5a, sizeof(out));
  memcpy(&before, &out, sizeof(out));
  const char* why = nullptr;
  int ret = decode(b, &out, &why);
  if (ret) {
    EXPECT_NE(why, nullptr);
    EXPECT_EQ(memcmp(&out, &before, sizeof(out)), 0);
  }
  return ret;
}

void reseal(Bytes& b) {
  put_le(b, 12, 4, 0);
  put_le(b, 12, 4, naive_crc32c(b.data(), b.size()));
}

int decode_changed(const std::function<void(sv_label&)>& change) {
  sv_label l = example();
  change(l);
  return decode(encoded(l));
}

// docs/format.md, typed in once more.
Bytes oracle_encode(const sv_label& l) {
  Bytes b(4096);
  put_text(b, 0, std::string_view("svctl\0\r\n", 8));
  put_le(b, 8, 4, 1);
  put_le(b, 16, 8, l.compat);
  put_le(b, 24, 8, l.ro_compat);
  put_le(b, 32, 8, l.incompat);
  memcpy(&b[40], l.pool_uuid, 16);
  memcpy(&b[56], l.member_uuid, 16);
  memcpy(&b[72], l.host_id, 16);
  memcpy(&b[88], l.pool_name, 32);
  memcpy(&b[120], l.tier_name, 16);
  const uint64_t wide[] = {l.generation, l.incarnation, l.size,    l.copy_off, l.ring_off,
                           l.ring_len,   l.cat_off,     l.cat_len, l.slot_off};
  for (int i = 0; i < 9; i++) put_le(b, 136 + 8 * i, 8, wide[i]);
  const uint32_t narrow[] = {l.nr_slots, l.member, l.nr_members, l.tier, l.flags, 20};
  for (int i = 0; i < 6; i++) put_le(b, 208 + 4 * i, 4, narrow[i]);
  memcpy(&b[232], l.host_name, 64);
  put_le(b, 12, 4, naive_crc32c(b.data(), b.size()));
  return b;
}

void random_name(Rng& rng, char* out, size_t max) {
  static const std::string_view kFirst = "abcXYZ019_+";
  static const std::string_view kRest = "abcXYZ019_.+-";
  size_t n = between(rng, 1, max);
  for (size_t i = 0; i < n; i++) {
    std::string_view set = i ? kRest : kFirst;
    out[i] = set[between(rng, 0, set.size() - 1)];
  }
}

sv_label random_label(Rng& rng) {
  sv_label l{};
  uint32_t flags = static_cast<uint32_t>(between(rng, 0, 7));
  uint64_t ring = between(rng, 1, 4096) * kMiB, cat = between(rng, 4, 100000) * kMiB;
  uint64_t size = ring + cat + between(rng, 3, 1 << 24) * kMiB + between(rng, 0, kMiB - 1);
  EXPECT_EQ(sv_label_layout(&l, size, flags, ring, cat), 0);
  l.compat = rng();
  l.ro_compat = rng();
  for (auto* uuid : {l.pool_uuid, l.member_uuid, l.host_id})
    for (int i = 0; i < 16; i++) uuid[i] = static_cast<uint8_t>(rng() | 1);
  random_name(rng, l.pool_name, 31);
  random_name(rng, l.tier_name, 15);
  if (between(rng, 0, 3)) random_name(rng, l.host_name, 63);
  l.generation = rng();
  l.incarnation = rng();
  l.nr_members = static_cast<u32>(between(rng, 1, 64));
  l.member = static_cast<u32>(between(rng, 0, l.nr_members - 1));
  l.tier = static_cast<u32>(between(rng, 0, 7));
  return l;
}

TEST(Label, bytes_never_change) {
  const char* golden =
      "737663746c000d0a01000000f2f55d8011000000000000000000000000000000"
      "0000000000000000101112131415161718191a1b1c1d1e1f2021222324252627"
      "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f74616e6b00000000"
      "0000000000000000000000000000000000000000000000006661737400000000"
      "0000000000000000070000000000000088776655443322110030400600000000"
      "00f03f0600000000000010000000000000003000000000000000400000000000"
      "000050000000000000009000000000005a000000010000000300000002000000"
      "0300000014000000682e6578616d706c65000000000000000000000000000000"
      "0000000000000000000000000000000000000000000000000000000000000000"
      "0000000000000000";
  Bytes b = encoded(example());
  EXPECT_EQ(hex(b.data(), 296), golden);
  EXPECT_EQ(Bytes(b.begin() + 296, b.end()), Bytes(4096 - 296));
}

TEST(Label, agrees_with_the_oracle_on_random_labels) {
  Rng rng(1);
  for (int i = 0; i < 500; i++) {
    sv_label l = random_label(rng), back{};
    Bytes b = encoded(l);
    ASSERT_EQ(b, oracle_encode(l));
    const char* why = "";
    ASSERT_EQ(decode(b, &back, &why), 0) << why;
    ASSERT_EQ(oracle_encode(back), b);
  }
}

TEST(Label, detects_every_flipped_bit) {
  Bytes b = encoded(example());
  sv_label out;
  for (size_t bit = 0; bit < b.size() * 8; bit++) {
    b[bit / 8] ^= 1 << (bit % 8);
    ASSERT_EQ(decode(b, &out, nullptr), -EINVAL) << "bit " << bit;
    b[bit / 8] ^= 1 << (bit % 8);
  }
  EXPECT_EQ(decode(b), 0);
}

TEST(Label, refuses_a_zeroed_sector_and_a_blank_device) {
  const Bytes whole = encoded(example());
  for (size_t from : {0u, 512u}) {
    Bytes b = whole;
    put_le(b, 4088, 8, 1);  // a byte in the reserved part, so that its loss shows
    reseal(b);
    std::fill(b.begin() + from, b.end(), 0);
    EXPECT_EQ(decode(b), -EINVAL);
  }
  EXPECT_EQ(decode(Bytes(4096)), -EINVAL);
  EXPECT_EQ(decode(Bytes(4096, 0xff)), -EINVAL);
}

TEST(Label, ignores_reserved_bytes_that_the_crc_covers) {
  Bytes b = encoded(example());
  put_le(b, 3000, 8, 0x1234);
  EXPECT_EQ(decode(b), -EINVAL);
  reseal(b);
  EXPECT_EQ(decode(b), 0);
}

TEST(Label, survives_random_fields_with_a_right_crc) {
  Rng rng(2);
  const Bytes good = encoded(example());
  for (int i = 0; i < 20000; i++) {
    Bytes b = good;
    for (int n = static_cast<int>(between(rng, 1, 4)); n; n--) {
      uint64_t value = rng() >> between(rng, 0, 63);
      put_le(b, between(rng, 4, 56) * 4, 4, value);
    }
    reseal(b);
    sv_label out{};
    if (decode(b, &out, nullptr)) continue;
    // Whatever is accepted can be used without a further look.
    uint64_t slots_end = out.slot_off + (uint64_t{out.nr_slots} << 20);
    ASSERT_LE(slots_end, out.copy_off);
    ASSERT_LT(out.copy_off, out.size);
    ASSERT_LE(out.ring_off + out.ring_len, out.slot_off);
    ASSERT_LE(out.cat_off + out.cat_len, out.slot_off);
    ASSERT_LT(out.member, out.nr_members);
  }
}

TEST(Label, refuses_newer_versions_and_features) {
  Bytes b = encoded(example());
  put_le(b, 8, 4, 2);
  reseal(b);
  EXPECT_EQ(decode(b), -EPROTONOSUPPORT);
  put_le(b, 8, 4, 0);
  reseal(b);
  EXPECT_EQ(decode(b), -EINVAL);
  for (int bit = 0; bit < 64; bit++)
    EXPECT_EQ(decode_changed([&](sv_label& l) { l.incompat = 1ull << bit; }), -EPROTONOSUPPORT);
  EXPECT_EQ(decode_changed([](sv_label& l) { l.flags |= 1u << 3; }), -EPROTONOSUPPORT);
  EXPECT_EQ(decode_changed([](sv_label& l) { l.flags |= 1u << 31; }), -EPROTONOSUPPORT);
}

TEST(Label, allows_only_reading_with_an_unknown_ro_compat_bit) {
  sv_label l = example(), out{};
  EXPECT_FALSE(sv_label_read_only(&l));
  l.ro_compat = 1ull << 63;
  ASSERT_EQ(decode(encoded(l), &out, nullptr), 0);
  EXPECT_TRUE(sv_label_read_only(&out));
  EXPECT_EQ(decode_changed([](sv_label& x) { x.compat = ~0ull; }), 0);
}

struct Change {
  const char* name;
  int want;
  std::function<void(sv_label&)> change;
};

// Limits in pairs: the last value that is allowed and the first that is not.
const Change kChanges[] = {
    {"nothing", 0, [](sv_label&) {}},
    {"extent just fits", 0, [](sv_label& l) { l.slot_off = 10 * kMiB, l.nr_slots = 89; }},
    {"slots reach the copy's MiB", -EINVAL, [](sv_label& l) { l.nr_slots = 91; }},
    {"no slots", -EINVAL, [](sv_label& l) { l.nr_slots = 0; }},
    {"too many slots", -EINVAL, [](sv_label& l) { l.nr_slots = SV_MAX_SLOTS + 1; }},
    {"slots unaligned", -EINVAL, [](sv_label& l) { l.slot_off += 4096, l.nr_slots = 80; }},
    {"slots over the catalogue", -EINVAL, [](sv_label& l) { l.slot_off -= kMiB; }},
    {"slots overflow", -EINVAL, [](sv_label& l) { l.slot_off = ~(kMiB - 1); }},
    {"ring over the label", -EINVAL, [](sv_label& l) { l.ring_off = 0; }},
    {"ring over the catalogue", -EINVAL, [](sv_label& l) { l.ring_len += kMiB; }},
    {"ring unaligned", -EINVAL, [](sv_label& l) { l.ring_off += 4096, l.ring_len -= kMiB; }},
    {"ring length unaligned", -EINVAL, [](sv_label& l) { l.ring_len -= 4096; }},
    {"ring overflows", -EINVAL, [](sv_label& l) { l.ring_len = ~(kMiB - 1); }},
    {"ring empty", -EINVAL, [](sv_label& l) { l.ring_len = 0; }},
    {"smallest ring", 0, [](sv_label& l) { l.ring_len = SV_RING_MIN; }},
    {"ring without its flag", -EINVAL, [](sv_label& l) { l.flags &= ~SV_LABEL_HAS_RING; }},
    {"no ring", 0, [](sv_label& l) { l.flags &= ~SV_LABEL_HAS_RING, l.ring_off = l.ring_len = 0; }},
    {"flag without ring", -EINVAL, [](sv_label& l) { l.ring_off = l.ring_len = 0; }},
    {"catalogue without its flag", -EINVAL, [](sv_label& l) { l.flags &= ~SV_LABEL_HAS_CATALOGUE; }},
    {"no catalogue", 0, [](sv_label& l) { l.flags &= ~SV_LABEL_HAS_CATALOGUE, l.cat_off = l.cat_len = 0; }},
    {"smallest catalogue", 0, [](sv_label& l) { l.cat_len = SV_CATALOGUE_MIN; }},
    {"catalogue too small", -EINVAL, [](sv_label& l) { l.cat_len = SV_CATALOGUE_MIN - kMiB; }},
    {"catalogue over the ring", -EINVAL, [](sv_label& l) { l.cat_off -= kMiB; }},
    {"catalogue before the ring", -EINVAL, [](sv_label& l) { std::swap(l.cat_off, l.ring_off); }},
    {"catalogue behind the end", -EINVAL, [](sv_label& l) { l.cat_off = 1ull << 40; }},
    {"copy elsewhere", -EINVAL, [](sv_label& l) { l.copy_off -= 4096; }},
    {"size of another device", -EINVAL, [](sv_label& l) { l.size += kMiB; }},
    {"size within the last MiB", 0, [](sv_label& l) { l.size = 101 * kMiB - 1; }},
    {"size 0", -EINVAL, [](sv_label& l) { l.size = 0, l.copy_off = 0; }},
    {"size too small", -EINVAL, [](sv_label& l) { l.size = kMiB, l.copy_off = kMiB - 4096; }},
    {"last member", 0, [](sv_label& l) { l.nr_members = 64, l.member = 63; }},
    {"member beyond", -EINVAL, [](sv_label& l) { l.member = 3; }},
    {"no members", -EINVAL, [](sv_label& l) { l.nr_members = l.member = 0; }},
    {"too many members", -EINVAL, [](sv_label& l) { l.nr_members = 65; }},
    {"last tier", 0, [](sv_label& l) { l.tier = 7; }},
    {"tier beyond", -EINVAL, [](sv_label& l) { l.tier = 8; }},
    {"no pool uuid", -EINVAL, [](sv_label& l) { memset(l.pool_uuid, 0, 16); }},
    {"no member uuid", -EINVAL, [](sv_label& l) { memset(l.member_uuid, 0, 16); }},
    {"exported", 0, [](sv_label& l) { memset(l.host_id, 0, 16); }},
    {"left behind", 0, [](sv_label& l) { l.flags |= SV_LABEL_STALE; }},
    {"longest name", 0, [](sv_label& l) { memset(l.pool_name, 'x', 31); }},
    {"name without end", -EINVAL, [](sv_label& l) { memset(l.pool_name, 'x', 32); }},
    {"no name", -EINVAL, [](sv_label& l) { l.pool_name[0] = 0; }},
    {"name with a slash", -EINVAL, [](sv_label& l) { strcpy(l.pool_name, "a/b"); }},
    {"longest tier", 0, [](sv_label& l) { memset(l.tier_name, 'x', 15); }},
    {"tier without end", -EINVAL, [](sv_label& l) { memset(l.tier_name, 'x', 16); }},
    {"no host name", 0, [](sv_label& l) { memset(l.host_name, 0, 64); }},
    {"longest host name", 0, [](sv_label& l) { memset(l.host_name, 'x', 63); }},
    {"host name without end", -EINVAL, [](sv_label& l) { memset(l.host_name, 'x', 64); }},
    {"host name of control characters", -EINVAL, [](sv_label& l) { strcpy(l.host_name, "\033[2J"); }},
};

TEST(Label, checks_every_field_against_its_limits) {
  for (const Change& c : kChanges) EXPECT_EQ(decode_changed(c.change), c.want) << c.name;
}

TEST(Label, refuses_another_extent_size) {
  for (uint32_t shift : {19u, 21u, 0u, 255u}) {
    Bytes b = encoded(example());
    put_le(b, 228, 4, shift);
    reseal(b);
    EXPECT_EQ(decode(b), -EINVAL);
  }
}

TEST(Name, allows_only_the_listed_characters) {
  for (int c = 1; c < 256; c++) {
    const char name[] = {'a', static_cast<char>(c), 0};
    bool want = c < 128 && (isalnum(c) || strchr("_.+-", c));
    EXPECT_EQ(sv_name_ok(name, 31), want) << c;
  }
  for (const char* bad : {"", "-a", ".a", "..", "a b", "a/b"}) EXPECT_FALSE(sv_name_ok(bad, 31)) << bad;
  EXPECT_TRUE(sv_name_ok(std::string(31, 'n').c_str(), 31));
  EXPECT_FALSE(sv_name_ok(std::string(32, 'n').c_str(), 31));
}

TEST(Layout, places_every_region_in_order_without_gaps) {
  sv_label l = example();
  ASSERT_EQ(sv_label_layout(&l, 100 * kMiB + 12288, l.flags, 3 * kMiB, 5 * kMiB), 0);
  EXPECT_EQ(encoded(l), encoded(example()));
  ASSERT_EQ(sv_label_layout(&l, 100 * kMiB, 0, 3 * kMiB, 5 * kMiB), 0);
  EXPECT_EQ(l.slot_off, kMiB);
  EXPECT_EQ(l.nr_slots, 98u);
  EXPECT_EQ(l.ring_off + l.ring_len + l.cat_off + l.cat_len, 0u);
}

TEST(Layout, every_layout_decodes) {
  Rng rng(3);
  for (int i = 0; i < 2000; i++) ASSERT_EQ(decode(encoded(random_label(rng))), 0);
}

TEST(Layout, refuses_devices_too_small_for_one_slot) {
  const uint32_t both = SV_LABEL_HAS_RING | SV_LABEL_HAS_CATALOGUE;
  sv_label l{};
  EXPECT_EQ(sv_label_layout(&l, 3 * kMiB, 0, 0, 0), 0);
  EXPECT_EQ(l.nr_slots, 1u);
  EXPECT_EQ(sv_label_layout(&l, 3 * kMiB - 1, 0, 0, 0), -ENOSPC);
  EXPECT_EQ(sv_label_layout(&l, 0, 0, 0, 0), -ENOSPC);
  EXPECT_EQ(sv_label_layout(&l, 8 * kMiB, both, kMiB, 4 * kMiB), 0);
  EXPECT_EQ(sv_label_layout(&l, 8 * kMiB - 1, both, kMiB, 4 * kMiB), -ENOSPC);
}

TEST(Layout, refuses_lengths_that_the_format_does_not_allow) {
  sv_label l{};
  for (uint64_t ring : {uint64_t{0}, kMiB / 2, kMiB + 4096, 4 * kGiB + kMiB, ~uint64_t{0}})
    EXPECT_EQ(sv_label_layout(&l, 1 << 30, SV_LABEL_HAS_RING, ring, 0), -EINVAL) << ring;
  for (uint64_t cat : {uint64_t{0}, 3 * kMiB, 4 * kMiB + 1, ~uint64_t{0}, ~(kMiB - 1)})
    EXPECT_EQ(sv_label_layout(&l, 1 << 30, SV_LABEL_HAS_CATALOGUE, 0, cat), -EINVAL) << cat;
  EXPECT_EQ(sv_label_layout(&l, 1 << 30, 8, 0, 0), -EINVAL);
}

TEST(Layout, leaves_unused_what_lies_behind_the_last_slot) {
  sv_label l{};
  ASSERT_EQ(sv_label_layout(&l, (uint64_t{SV_MAX_SLOTS} + 2) * kMiB, 0, 0, 0), 0);
  EXPECT_EQ(l.nr_slots, SV_MAX_SLOTS);
  ASSERT_EQ(sv_label_layout(&l, (uint64_t{SV_MAX_SLOTS} + 3) * kMiB, 0, 0, 0), 0);
  EXPECT_EQ(l.nr_slots, SV_MAX_SLOTS);
}

TEST(Layout, ring_is_a_thousandth_of_the_pool_within_limits) {
  EXPECT_EQ(sv_ring_len_for(0), kMiB);
  EXPECT_EQ(sv_ring_len_for(64 * kMiB), 2 * kMiB);
  EXPECT_EQ(sv_ring_len_for(64 * kMiB - 1), 1 * kMiB);
  EXPECT_EQ(sv_ring_len_for(2 * kGiB), 64 * kMiB);
  EXPECT_EQ(sv_ring_len_for(8 * kGiB), 256 * kMiB);
  EXPECT_EQ(sv_ring_len_for(256 * kGiB), 256 * kMiB);
  EXPECT_EQ(sv_ring_len_for(257 * kGiB), 257 * kMiB);
  EXPECT_EQ(sv_ring_len_for(4096 * kGiB), 4 * kGiB);
  EXPECT_EQ(sv_ring_len_for(1ull << 55), 4 * kGiB);
}

TEST(Layout, catalogue_is_a_thousandth_of_the_pool_within_limits) {
  EXPECT_EQ(sv_cat_len_for(0), 4 * kMiB);
  EXPECT_EQ(sv_cat_len_for(64 * kMiB), 4 * kMiB);
  EXPECT_EQ(sv_cat_len_for(512 * kMiB), 32 * kMiB);
  EXPECT_EQ(sv_cat_len_for(512 * kMiB - 1), 31 * kMiB);
  EXPECT_EQ(sv_cat_len_for(32 * kGiB), 32 * kMiB);
  EXPECT_EQ(sv_cat_len_for(33 * kGiB), 33 * kMiB);
  EXPECT_EQ(sv_cat_len_for(100 * 1024 * kGiB), 100 * kGiB);
}

}  // namespace
}  // namespace sv::test

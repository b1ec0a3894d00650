// Latency histograms: the bounds of their buckets, and what svd makes of them.
#include <gtest/gtest.h>

#include "daemon/engine/latency.h"
#include "kmod/core/latency.h"

namespace {

TEST(Latency, bounds_in_pairs) {
  for (uint32_t i = 0; i < SV_HISTOGRAM_BUCKETS - 1; i++) {
    EXPECT_EQ(i, sv_latency_bucket(sv_latency_below(i) - 1));
    EXPECT_EQ(i + 1, sv_latency_bucket(sv_latency_below(i)));
  }
  EXPECT_EQ(0u, sv_latency_bucket(0));
  EXPECT_EQ(1024u, sv_latency_below(0));
  EXPECT_EQ(1536u, sv_latency_below(1));
  EXPECT_EQ(2048u, sv_latency_below(2));
  EXPECT_EQ(1ull << 36, sv_latency_below(SV_HISTOGRAM_BUCKETS - 2));
  EXPECT_EQ(SV_HISTOGRAM_BUCKETS - 1, sv_latency_bucket(~0ull));
  EXPECT_EQ(~0ull, sv_latency_below(SV_HISTOGRAM_BUCKETS - 1));
}

sv_histogram histogram(uint8_t kind, uint8_t tier, uint64_t ios, uint32_t bucket) {
  sv_histogram h{};
  h.volume = 3;
  h.io_class = kind;
  h.tier = tier;
  h.ios = ios;
  h.bytes = ios * 4096;
  h.ns = ios * 1000;
  h.errors = 1;
  h.buckets[bucket] = ios;
  return h;
}

TEST(Latency, total_is_of_all_tiers_of_a_class) {
  const svd::VolumeLatency latency{{histogram(SV_IO_READ, 0, 10, 4), histogram(SV_IO_READ, SV_TIER_NONE, 5, 0),
                                    histogram(SV_IO_WRITE, 0, 7, 4)}};
  const sv_histogram all = latency.total(SV_IO_READ);
  EXPECT_EQ(3u, all.volume);
  EXPECT_EQ(SV_TIER_NONE, all.tier);
  EXPECT_EQ(15u, all.ios);
  EXPECT_EQ(15u * 4096, all.bytes);
  EXPECT_EQ(15000u, all.ns);
  EXPECT_EQ(2u, all.errors);
  EXPECT_EQ(10u, all.buckets[4]);
  EXPECT_EQ(5u, all.buckets[0]);
  EXPECT_EQ(0u, latency.total(SV_IO_FLUSH).ios);
}

TEST(Latency, percentiles_are_bounds_of_buckets) {
  sv_histogram h = histogram(SV_IO_READ, 0, 990, 4);
  h.buckets[10] = 9;
  h.buckets[20] = 1;
  h.ios = 1000;
  EXPECT_EQ(sv_latency_below(4), svd::latency_below(h, 500));
  EXPECT_EQ(sv_latency_below(4), svd::latency_below(h, 990));
  EXPECT_EQ(sv_latency_below(10), svd::latency_below(h, 991));
  EXPECT_EQ(sv_latency_below(10), svd::latency_below(h, 999));
  EXPECT_EQ(sv_latency_below(20), svd::latency_below(h, 1000));
}

TEST(Latency, percentiles_of_few_none_and_the_slowest) {
  EXPECT_EQ(std::nullopt, svd::latency_below(sv_histogram{}, 500));
  EXPECT_EQ(sv_latency_below(7), svd::latency_below(histogram(SV_IO_READ, 0, 1, 7), 500));
  EXPECT_EQ(std::nullopt, svd::latency_below(histogram(SV_IO_READ, 0, 2, SV_HISTOGRAM_BUCKETS - 1), 1000));
  const uint64_t most = ~0ull;
  EXPECT_EQ(sv_latency_below(9), svd::latency_below(histogram(SV_IO_READ, 0, most, 9), 1000));
}

}  // namespace

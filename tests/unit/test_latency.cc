// Latency histograms: the bounds of their buckets, what is counted by class and tier, and what svd makes of it.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>
#include <vector>

#include "daemon/engine/engine.h"
#include "daemon/engine/latency.h"
#include "daemon/kernel/sim_kernel.h"
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

// ---- what the core counts ----

// A pool with a member on each of two tiers, and volume 1, open.
class CoreLatency : public testing::Test {
 protected:
  static constexpr sv_member_geometry member(uint32_t tier, bool ring) {
    return {.slot_off = 1 << 20, .nr_slots = 100, .tier = tier, .flags = ring ? SV_LABEL_HAS_RING : 0u, .ring_off = 0,
            .ring_len = ring ? 16ull << 20 : 0};
  }

  void SetUp() override {
    const sv_member_geometry g[] = {member(0, true), member(1, false)};
    const uint8_t uuid[16] = {1};
    pool_ = sv_pool_new(uuid, 7, 2, g);
    ASSERT_NE(nullptr, pool_);
    sv_attach attach{};
    ASSERT_EQ(0, command(SV_OP_ATTACH, &attach, 1).first);
    epoch_ = attach.epoch;
    sv_volume_info v{.id = 1, .layer = 1, .owned_since = 1, .flags = 0, .size = 1 << 20, .mapped = 0, .tiers = ~0ull};
    ASSERT_EQ(0, command(SV_OP_VOLUME_CREATE, &v, 1).first);
    sv_activate activate{};
    ASSERT_EQ(0, command(SV_OP_ACTIVATE, &activate, 1).first);
    volume_ = sv_volume_find(pool_, 1);
    ASSERT_EQ(0, sv_volume_open(volume_));
  }
  void TearDown() override { sv_pool_free(pool_); }

  // Result and elements answered.
  template <typename T>
  std::pair<int, uint32_t> command(uint32_t op, T* payload, uint32_t n) {
    uint32_t done = 0;
    uint64_t members = 0;
    const int result = sv_cmd(pool_, op, epoch_, payload, &n, &done, &members);
    return {result, n};
  }

  std::vector<sv_histogram> ask(uint32_t room = SV_HISTOGRAMS_MAX, uint32_t volume = 1) {
    std::vector<sv_histogram> rows(room);
    rows[0].volume = volume;
    const auto [result, n] = command(SV_OP_HISTOGRAMS, rows.data(), room);
    EXPECT_EQ(0, result);
    rows.resize(n);
    return rows;
  }

  uint64_t memory() {
    sv_state s{};
    EXPECT_EQ(0, command(SV_OP_STATE, &s, 1).first);
    return s.memory;
  }

  void count(sv_io_class c, uint32_t tier, uint64_t bytes, uint64_t ns, bool ok) {
    const sv_latency* l = sv_volume_latency(volume_);
    sv_latency_count(l, sv_latency_row_of(l, c, tier), bytes, ns, ok);
  }

  sv_pool* pool_ = nullptr;
  sv_volume* volume_ = nullptr;
  uint64_t epoch_ = 0;
};

using Keys = std::vector<std::pair<int, int>>;
Keys keys(const std::vector<sv_histogram>& rows) {
  Keys all;
  for (const sv_histogram& h : rows) all.emplace_back(h.io_class, h.tier);
  return all;
}

TEST_F(CoreLatency, counts_by_class_and_tier_in_order) {
  EXPECT_TRUE(ask().empty());
  count(SV_IO_FLUSH, SV_TIER_NONE, 0, 5000, true);
  count(SV_IO_DISCARD, SV_TIER_NONE, 1 << 20, 1, true);
  for (const uint32_t tier : {SV_TIER_NONE, 1u, 0u}) {
    count(SV_IO_WRITE, tier, 8192, 2000, true);
    count(SV_IO_READ, tier, 4096, 1000 + tier, true);
  }
  const auto rows = ask();
  EXPECT_EQ((Keys{{SV_IO_READ, 0}, {SV_IO_READ, 1}, {SV_IO_READ, SV_TIER_NONE}, {SV_IO_WRITE, 0}, {SV_IO_WRITE, 1},
                  {SV_IO_WRITE, SV_TIER_NONE}, {SV_IO_DISCARD, SV_TIER_NONE}, {SV_IO_FLUSH, SV_TIER_NONE}}), keys(rows));
  EXPECT_EQ(1001u, rows[1].ns);
  EXPECT_EQ(4096u, rows[1].bytes);
  EXPECT_EQ(1u, rows[6].ios);
  EXPECT_EQ(1u << 20, rows[6].bytes);
  EXPECT_EQ(5000u, rows[7].ns);
  for (const sv_histogram& h : rows) {
    EXPECT_EQ(1u, h.volume);
    EXPECT_EQ(0u, h.pad);
    EXPECT_EQ(1u, h.ios);
    EXPECT_EQ(1u, h.buckets[sv_latency_bucket(h.ns)]);
  }
  // A discard that wrote zeroes to a member is one all the same.
  count(SV_IO_DISCARD, 1, 4096, 1, true);
  EXPECT_EQ(2u, ask()[6].ios);
}

TEST_F(CoreLatency, failed_io_counts_without_its_bytes) {
  count(SV_IO_READ, 0, 4096, 100, true);
  count(SV_IO_READ, 0, 4096, 1ull << 40, false);
  const auto rows = ask();
  ASSERT_EQ(1u, rows.size());
  EXPECT_EQ(2u, rows[0].ios);
  EXPECT_EQ(1u, rows[0].errors);
  EXPECT_EQ(4096u, rows[0].bytes);
  EXPECT_EQ(100 + (1ull << 40), rows[0].ns);
  EXPECT_EQ(1u, rows[0].buckets[0]);
  EXPECT_EQ(1u, rows[0].buckets[SV_HISTOGRAM_BUCKETS - 1]);
}

TEST_F(CoreLatency, lives_from_first_io_to_last_close) {
  const uint64_t open = memory();
  ASSERT_EQ(0, sv_volume_open(volume_));
  EXPECT_EQ(open, memory());
  count(SV_IO_READ, 0, 4096, 100, true);
  const uint64_t counting = memory();
  EXPECT_EQ(open + 8 * 456, counting) << "of a pool of two tiers";
  count(SV_IO_WRITE, 1, 4096, 100, true);
  sv_volume_close(volume_);
  EXPECT_EQ(2u, ask().size());
  EXPECT_EQ(counting, memory());
  sv_volume_close(volume_);
  EXPECT_TRUE(ask().empty());
  EXPECT_EQ(open, memory());
  ASSERT_EQ(0, sv_volume_open(volume_));
  EXPECT_TRUE(ask().empty());
  EXPECT_EQ(open, memory());
}

TEST_F(CoreLatency, each_cpu_counts_for_itself) {
  sv_volume_close(volume_);
  sv_test_cpus = 4;
  ASSERT_EQ(0, sv_volume_open(volume_));
  const uint64_t open = memory();
  for (const uint32_t cpu : {3u, 1u, 3u}) {
    sv_test_cpu = cpu;
    count(SV_IO_READ, 0, 4096, 100, true);
  }
  EXPECT_EQ(open + 2 * 8 * 456, memory());
  const auto rows = ask();
  ASSERT_EQ(1u, rows.size());
  EXPECT_EQ(3u, rows[0].ios);
  EXPECT_EQ(3u * 4096, rows[0].bytes);
  sv_volume_close(volume_);
  sv_test_cpu = 0;
  sv_test_cpus = 1;
  ASSERT_EQ(0, sv_volume_open(volume_));
}

TEST_F(CoreLatency, without_memory_it_is_counted_later) {
  sv_test_no_memory = true;
  count(SV_IO_READ, 0, 4096, 100, true);
  EXPECT_TRUE(ask().empty());
  sv_test_no_memory = false;
  count(SV_IO_READ, 0, 8192, 100, true);
  const auto rows = ask();
  ASSERT_EQ(1u, rows.size());
  EXPECT_EQ(8192u, rows[0].bytes);
}

TEST_F(CoreLatency, tier_added_while_open_counts_as_none) {
  const sv_member_geometry same = member(1, false), later = member(2, false);
  ASSERT_EQ(0, sv_pool_add_member(pool_, &same));
  ASSERT_EQ(0, sv_pool_add_member(pool_, &later));
  count(SV_IO_WRITE, 1, 4096, 100, true);
  count(SV_IO_WRITE, 2, 4096, 100, true);
  EXPECT_EQ((Keys{{SV_IO_WRITE, 1}, {SV_IO_WRITE, SV_TIER_NONE}}), keys(ask()));
  sv_volume_close(volume_);
  ASSERT_EQ(0, sv_volume_open(volume_));
  count(SV_IO_WRITE, 2, 4096, 100, true);
  EXPECT_EQ((Keys{{SV_IO_WRITE, 2}}), keys(ask()));
}

TEST_F(CoreLatency, answers_what_there_is_room_for) {
  for (const uint32_t tier : {0u, 1u}) count(SV_IO_READ, tier, 4096, 100, true);
  EXPECT_EQ((Keys{{SV_IO_READ, 0}}), keys(ask(1)));
  EXPECT_EQ(2u, ask(2).size());
  sv_histogram other{};
  other.volume = 2;
  EXPECT_EQ(-ENOENT, command(SV_OP_HISTOGRAMS, &other, 1).first);
}

TEST_F(CoreLatency, all_rows_fit) {
  for (uint32_t tier = 2; tier < SV_MAX_TIERS; tier++) {
    const sv_member_geometry g = member(tier, false);
    ASSERT_EQ(0, sv_pool_add_member(pool_, &g));
  }
  sv_volume_close(volume_);
  ASSERT_EQ(0, sv_volume_open(volume_));
  for (uint32_t c = 0; c < SV_IO_CLASSES; c++)
    for (uint32_t m = 0; m <= SV_MAX_TIERS; m++)
      count(static_cast<sv_io_class>(c), m < SV_MAX_TIERS ? m : SV_TIER_NONE, 4096, 100, true);
  EXPECT_EQ(SV_HISTOGRAMS_MAX, ask(SV_HISTOGRAMS_MAX + 1).size());
}

// ---- what svd makes of it ----

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

// A module of before there were histograms.
class OldPool : public svd::KernelPool {
 public:
  explicit OldPool(std::unique_ptr<svd::KernelPool> inner) : inner_(std::move(inner)) {}

  svd::Result<svd::CommandResult> command(uint32_t op, void* payload, uint32_t size, uint32_t count) override {
    EXPECT_LE(op, static_cast<uint32_t>(SV_OP_DUMP_MAP)) << "not without its feature bit";
    inner_->set_epoch(epoch());
    auto result = inner_->command(op, payload, size, count);
    if (op == SV_OP_HELLO) static_cast<sv_hello*>(payload)->features &= ~SV_FEATURE_HISTOGRAMS;
    return result;
  }
  svd::Status reload(const svd::PoolSpec& spec) override { return inner_->reload(spec); }
  svd::Status remove() override { return inner_->remove(); }
  svd::Status create_volume(const svd::VolumeSpec& v) override { return inner_->create_volume(v); }
  svd::Status resize_volume(const svd::VolumeSpec& v) override { return inner_->resize_volume(v); }
  svd::Status rename_volume(const svd::VolumeSpec& v, const std::string& to) override { return inner_->rename_volume(v, to); }
  svd::Status remove_volume(const svd::VolumeSpec& v) override { return inner_->remove_volume(v); }
  svd::Result<svd::VolumeUse> volume_use(const svd::VolumeSpec& v) override { return inner_->volume_use(v); }
  svd::Result<bool> volume_exists(const svd::VolumeSpec& v) override { return inner_->volume_exists(v); }
  std::string volume_path(const svd::VolumeSpec& v) const override { return inner_->volume_path(v); }

 private:
  std::unique_ptr<svd::KernelPool> inner_;
};

class OldKernel : public svd::Kernel {
 public:
  svd::Status probe() override { return {}; }
  svd::Result<std::unique_ptr<svd::KernelPool>> open_pool(const svd::PoolSpec& spec, bool exists) override {
    auto pool = inner_->open_pool(spec, exists);
    if (!pool.ok()) return pool.error();
    return std::unique_ptr<svd::KernelPool>(std::make_unique<OldPool>(std::move(pool).value()));
  }
  svd::Result<svd::RunningPool> running(const svd::Uuid& pool) override { return inner_->running(pool); }
  bool simulated() const override { return true; }

 private:
  std::unique_ptr<svd::Kernel> inner_ = svd::make_sim_kernel();
};

// What svd shows of a new volume on that kernel.
svd::Json shown_by(svd::Kernel& kernel) {
  char dir[] = "/tmp/svctl-latency-XXXXXX";
  EXPECT_NE(nullptr, mkdtemp(dir));
  const std::string disk = std::string(dir) + "/disk";
  std::ofstream(disk).close();
  std::filesystem::resize_file(disk, 256 << 20);
  svd::Host host;
  host.id.bytes[0] = 1;
  svd::Json json;
  {
    svd::Engine engine(kernel, {dir, {disk}, host});
    const auto created = engine.create_pool("tank", {{"only", {disk}}}, {}, false);
    EXPECT_TRUE(created.ok()) << created.error().message();
    EXPECT_TRUE(engine.create_volume("tank", "v", 1 << 20, false).ok());
    auto shown = engine.show_volume("tank", "v");
    EXPECT_TRUE(shown.ok()) << shown.error().message();
    json = shown.value();
  }
  std::filesystem::remove_all(dir);
  return json;
}

TEST(Latency, does_without_with_an_older_module) {
  OldKernel old;
  const svd::Json json = shown_by(old);
  EXPECT_FALSE(json.contains("latency") || json.contains("histograms")) << json;
  const auto present = svd::make_sim_kernel();
  EXPECT_EQ(svd::Json::array(), shown_by(*present)["histograms"]);
}

}  // namespace

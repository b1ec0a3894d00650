// SPDX-License-Identifier: GPL-2.0
// The catalogue's region: power cuts at every write and sync, failing copies, damage. All through class Catalogue, so
// that SQLite's own order of writes is what is tested.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <sstream>

#include "daemon/base/memory_device.h"
#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/region.h"
#include "daemon/catalogue/schema.h"

using namespace svd;

namespace {

constexpr uint64_t kLen = kMiB;
constexpr uint64_t kOffset = 64 * 1024;

struct Mirror {
	explicit Mirror(size_t n)
	{
		for (size_t i = 0; i < n; i++)
			devices.push_back(std::make_unique<MemoryDevice>("mem" + std::to_string(i), kLen + 2 * kOffset));
		pool.uuid = Uuid::random();
		pool.name = "tank";
	}
	std::vector<CatalogueCopy> copies()
	{
		std::vector<CatalogueCopy> v;
		for (auto &d : devices)
			v.push_back({d.get(), kOffset, kLen});
		return v;
	}
	void create()
	{
		const MemberRow m = {0, Uuid::random(), 0, "fast", 100000, 0};
		auto r = Catalogue::create(copies(), pool, std::span(&m, 1));
		ASSERT_TRUE(r.ok()) << r.error().message();
		c = std::move(*r);
	}
	Result<std::unique_ptr<Catalogue>> open() { return Catalogue::open(copies(), pool.uuid); }
	void must_open()
	{
		c.reset();
		auto r = open();
		ASSERT_TRUE(r.ok()) << r.error().message();
		c = std::move(*r);
	}
	std::string dump()
	{
		std::ostringstream out;
		const Status s = c->dump(out);
		EXPECT_TRUE(s.ok()) << s.error().message();
		return out.str();
	}
	uint64_t ops()
	{
		uint64_t n = 0;
		for (auto &d : devices)
			n += d->ops();
		return n;
	}

	std::vector<std::unique_ptr<MemoryDevice>> devices;
	PoolRow pool;
	std::unique_ptr<Catalogue> c;
};

sv_rec map_rec(uint32_t volume, uint32_t layer, uint32_t n)
{
	sv_rec r = {};
	r.type = SV_REC_MAP;
	r.flags = SV_MAP_PARTIAL;
	r.gen = 1;
	r.extent = n;
	r.volume = volume;
	r.layer = layer;
	r.index = uint64_t{n} * 300;
	r.slot = n;
	return r;
}

// A little of everything, small enough to be cut at each of its writes. Calls done after each step.
Status workload(Catalogue &c, const std::function<void()> &done)
{
	VolumeRow v;
	v.size = kTiB;
	std::optional<VolumeRow> first;
	for (uint32_t i = 0; i < 3; i++) {
		v.name = "v" + std::to_string(i);
		SV_ASSIGN(const VolumeRow made, c.create_volume(v));
		if (!first)
			first = made;
		done();
		std::vector<sv_rec> records;
		for (uint32_t n = 1; n <= 30; n++)
			records.push_back(map_rec(made.id, made.layer, i * 100 + n));
		SV_TRY(c.apply_batch(records, {i + 1, 4096ull * i, i, 0}));
		done();
	}
	SV_TRY(c.begin_delete_volume(first->id));
	done();
	SV_TRY(c.delete_step(first->id));
	done();
	SV_TRY(c.close());
	done();
	return {};
}

// Runs the workload until the n-th write or sync of all devices, which and all later ones fail; then cuts the power.
// What is there afterwards must be a state between the last acknowledged and the one being written.
void cut_at(size_t nr_copies, uint64_t n, uint64_t seed, bool &finished)
{
	static std::vector<std::string> states[3];
	Mirror m(nr_copies);
	m.create();
	if (states[nr_copies].empty()) {
		states[nr_copies].push_back(m.dump());
		ASSERT_TRUE(workload(*m.c, [&] {
			if (states[nr_copies].size() < 9)
				states[nr_copies].push_back(m.dump());
		}).ok());
		m.create();
		if (testing::Test::HasFatalFailure())
			return;
	}
	// All devices count as one disk: they lose power together.
	size_t acknowledged = 0;
	std::mt19937_64 random(seed);
	const uint64_t mine = nr_copies == 1 ? n : n / 2 + random() % 2;
	m.devices[0]->fail_from(mine == 0 ? 1 : mine);
	if (nr_copies == 2)
		m.devices[1]->fail_from(n - mine == 0 ? 1 : n - mine);
	finished = workload(*m.c, [&] { acknowledged++; }).ok();
	m.c.reset();
	for (auto &d : m.devices)
		d->crash(random());
	auto r = m.open();
	ASSERT_TRUE(r.ok()) << "cut at " << n << ": " << r.error().message();
	m.c = std::move(*r);
	const size_t last = std::min(acknowledged, states[nr_copies].size() - 1);
	const size_t next = std::min(last + 1, states[nr_copies].size() - 1);
	// Not the UUIDs, which differ from run to run.
	auto norm = [&](const std::string &s) {
		const size_t member = s.find("\nmember");
		const size_t end = s.find('\n', member + 1);
		return s.substr(s.find("\njournal"), member - s.find("\njournal")) + s.substr(end);
	};
	const std::string got = norm(m.dump());
	EXPECT_TRUE(got == norm(states[nr_copies][last]) || got == norm(states[nr_copies][next]))
		<< "cut at " << n << " seed " << seed << " after step " << acknowledged << "\n" << got;
	auto lines = m.c->check();
	ASSERT_TRUE(lines.ok()) << lines.error().message();
	EXPECT_TRUE(lines->empty()) << lines->front();
	// And it goes on working.
	VolumeRow v;
	v.name = "after";
	v.size = kTiB;
	EXPECT_TRUE(m.c->create_volume(v).ok());
	const std::string later = m.dump();
	m.must_open();
	EXPECT_EQ(m.dump(), later);
}

}  // namespace

TEST(RegionCrash, one_copy_keeps_the_last_committed_transaction)
{
	bool finished = false;
	for (uint64_t n = 1; !finished; n++)
		for (uint64_t seed = 1; seed <= 4; seed++) {
			cut_at(1, n, n * 100 + seed, finished);
			if (HasFailure())
				return;
		}
}

TEST(RegionCrash, two_copies_keep_the_last_committed_transaction)
{
	bool finished = false;
	for (uint64_t n = 2; !finished; n += 2)
		for (uint64_t seed = 1; seed <= 4; seed++) {
			cut_at(2, n, n * 100 + seed, finished);
			if (HasFailure())
				return;
		}
}

TEST(RegionCrash, interrupted_creation_is_refused_not_used)
{
	for (uint64_t n = 1;; n++) {
		Mirror m(1);
		m.devices[0]->fail_from(n);
		const MemberRow member = {0, Uuid::random(), 0, "fast", 1000, 0};
		const bool created = Catalogue::create(m.copies(), m.pool, std::span(&member, 1)).ok();
		m.devices[0]->crash(n);
		auto r = m.open();
		if (r.ok()) {
			EXPECT_EQ((*r)->members()->size(), 1u);
			EXPECT_TRUE((*r)->check()->empty());
		} else {
			EXPECT_EQ(r.error().code, Code::kNeedsCheck);
			EXPECT_FALSE(created);
		}
		if (created)
			break;
	}
}

// [I32]
TEST(RegionMirror, survives_failure_of_either_copy_at_any_operation)
{
	for (size_t victim = 0; victim < 2; victim++) {
		bool untouched = false;
		for (uint64_t n = 1; !untouched; n++) {
			Mirror m(2);
			m.create();
			m.devices[victim]->fail_from(n);
			const Status s = workload(*m.c, [] {});
			ASSERT_TRUE(s.ok()) << s.error().message();
			untouched = !m.devices[victim]->failed();
			m.c.reset();
			// The failed copy comes back with what it had: it must not be believed.
			m.devices[victim]->heal();
			m.devices[0]->crash(n);
			m.devices[1]->crash(n + 1);
			m.must_open();
			EXPECT_EQ(m.c->volumes()->size(), 2u) << "victim " << victim << " operation " << n;
			EXPECT_EQ(m.c->copies_in_sync(), 3u);
			// Resynchronized: now either copy alone has everything.
			const std::string text = m.dump();
			m.c.reset();
			Mirror alone(1);
			alone.pool = m.pool;
			alone.devices[0] = std::move(m.devices[victim]);
			auto r = Catalogue::open(alone.copies(), m.pool.uuid, {true, true});
			ASSERT_TRUE(r.ok()) << r.error().message();
			alone.c = std::move(*r);
			EXPECT_EQ(alone.dump(), text);
		}
	}
}

TEST(RegionMirror, a_missing_copy_is_refused_unless_allowed_and_then_stale)
{
	Mirror m(2);
	m.create();
	ASSERT_TRUE(m.c->close().ok());
	m.c.reset();
	const CatalogueCopy first = m.copies()[0];
	auto r = Catalogue::open(std::span(&first, 1), m.pool.uuid);
	ASSERT_FALSE(r.ok());
	EXPECT_EQ(r.error().code, Code::kNeedsCheck);
	auto one = Catalogue::open(std::span(&first, 1), m.pool.uuid, {false, true});
	ASSERT_TRUE(one.ok()) << one.error().message();
	VolumeRow v;
	v.name = "alone";
	v.size = 4096;
	ASSERT_TRUE((*one)->create_volume(v).ok());
	one->reset();
	m.must_open();
	EXPECT_EQ(m.c->volumes()->size(), 1u);
	EXPECT_EQ(m.c->copies_in_sync(), 3u);
}

TEST(RegionMirror, single_failing_io_on_the_only_copy_fails_the_call_and_all_later_ones)
{
	Mirror m(1);
	m.create();
	m.devices[0]->fail_once(1);
	VolumeRow v;
	v.name = "x";
	v.size = 4096;
	EXPECT_FALSE(m.c->create_volume(v).ok());
	EXPECT_FALSE(m.c->create_volume(v).ok());
	m.devices[0]->heal();
	m.must_open();
	EXPECT_TRUE(m.c->volumes()->empty());
	EXPECT_TRUE(m.c->create_volume(v).ok());
}

TEST(RegionDamage, read_only_open_writes_nothing_and_changes_stay_in_memory)
{
	Mirror m(2);
	m.create();
	VolumeRow v;
	v.name = "x";
	v.size = 4096;
	ASSERT_TRUE(m.c->create_volume(v).ok());
	m.c.reset();  // without close: the WAL is not empty
	const uint64_t ops = m.ops();
	auto r = Catalogue::open(m.copies(), m.pool.uuid, {true, false});
	ASSERT_TRUE(r.ok()) << r.error().message();
	EXPECT_EQ((*r)->volumes()->size(), 1u);
	ASSERT_TRUE((*r)->begin_delete_volume(1).ok());
	ASSERT_TRUE((*r)->delete_step(1)->done);
	for (int i = 0; i < 200; i++) {  // a WAL that begins anew, and more blocks than are gathered before a flush
		v.name = "y" + std::to_string(i);
		v.size = kGiB * 8;
		ASSERT_TRUE((*r)->create_volume(v).ok()) << i;
		std::vector<sv_rec> records;
		for (uint32_t n = 0; n < 20; n++) {
			sv_rec map = {};
			map.type = SV_REC_MAP;
			map.gen = 1;
			map.extent = static_cast<uint32_t>(i) * 20 + n + 1;
			map.index = map.extent;
			map.volume = (*r)->volume("y0")->id;
			map.layer = (*r)->volume("y0")->layer;
			map.slot = map.extent;
			records.push_back(map);
		}
		const auto applied = (*r)->apply_batch(records, {static_cast<uint64_t>(i) + 1, 4096, 7, 0});
		ASSERT_TRUE(applied.ok()) << applied.error().message();
	}
	EXPECT_EQ((*r)->volumes()->size(), 200u);
	EXPECT_EQ((*r)->applied()->seq, 200u);
	EXPECT_TRUE((*r)->check()->empty());
	EXPECT_TRUE((*r)->close().ok());
	EXPECT_EQ(m.ops(), ops);
	m.must_open();
	EXPECT_EQ(m.c->volumes()->size(), 1u);
}

// A flip anywhere that matters in one copy is answered by the other and repaired; in an only copy it is named.
TEST(RegionDamage, bit_flips_are_repaired_or_refused_never_silent)
{
	for (const bool closed : {true, false}) {
		for (size_t nr = 1; nr <= 2; nr++) {
			size_t refused = 0, repaired = 0;
			for (uint64_t at = 0; at < kLen; at += 4096) {
				Mirror m(nr);
				m.create();
				VolumeRow v;
				v.size = kTiB;
				for (const char *name : {"a", "b"}) {
					v.name = name;
					const auto made = m.c->create_volume(v);
					const sv_rec r = map_rec(made->id, made->layer, made->id);
					ASSERT_TRUE(m.c->apply_batch(std::span(&r, 1), {made->id, 0, 0, 0}).ok());
				}
				const std::string text = m.dump();
				if (closed) {
					ASSERT_TRUE(m.c->close().ok());
				}
				m.c.reset();
				m.devices[0]->contents()[kOffset + at + (at / 4096 * 97) % 4096] ^= 0x10;
				m.devices[0]->settle();
				auto r = m.open();
				std::ostringstream out;
				const bool ok = r.ok() && (*r)->dump(out).ok() && (*r)->check().ok();
				if (ok) {
					EXPECT_EQ(out.str(), text) << "flip in block " << at / 4096;
					repaired++;
				} else {
					EXPECT_EQ(nr, 1u) << "flip in block " << at / 4096;
					EXPECT_TRUE(r.ok() || r.error().code == Code::kNeedsCheck) << r.error().message();
					refused++;
				}
			}
			EXPECT_TRUE(nr == 2 || refused > 5);
			EXPECT_GT(repaired, 100u);
		}
	}
}

TEST(RegionDamage, zeroed_truncated_and_foreign_regions_are_refused_by_name)
{
	Mirror m(1);
	m.create();
	ASSERT_TRUE(m.c->close().ok());
	m.c.reset();
	auto other = Catalogue::open(m.copies(), Uuid::random());
	EXPECT_EQ(other.error().code, Code::kNeedsCheck);
	EXPECT_NE(other.error().message().find("belongs to pool"), std::string::npos);
	CatalogueCopy shorter = m.copies()[0];
	shorter.length -= kMiB;
	EXPECT_EQ(Catalogue::open(std::span(&shorter, 1), m.pool.uuid).error().code, Code::kNeedsCheck);
	CatalogueCopy beyond = m.copies()[0];
	beyond.length += kMiB;
	EXPECT_EQ(Catalogue::open(std::span(&beyond, 1), m.pool.uuid).error().code, Code::kNeedsCheck);
	std::fill(m.devices[0]->contents().begin(), m.devices[0]->contents().end(), 0);
	m.devices[0]->settle();
	auto zeroed = m.open();
	EXPECT_EQ(zeroed.error().code, Code::kNeedsCheck);
	EXPECT_NE(zeroed.error().message().find("mem0"), std::string::npos);
}

TEST(RegionDamage, a_zeroed_copy_is_rebuilt_from_the_other)
{
	for (size_t victim = 0; victim < 2; victim++) {
		Mirror m(2);
		m.create();
		VolumeRow v;
		v.name = "a";
		v.size = 4096;
		ASSERT_TRUE(m.c->create_volume(v).ok());
		const std::string text = m.dump();
		m.c.reset();
		std::fill(m.devices[victim]->contents().begin(), m.devices[victim]->contents().end(), 0);
		m.devices[victim]->settle();
		m.must_open();
		EXPECT_EQ(m.dump(), text);
		EXPECT_EQ(m.c->copies_in_sync(), 3u);
	}
}

TEST(RegionWal, stays_bounded_over_many_transactions)
{
	Mirror m(1);
	m.create();
	VolumeRow v;
	v.size = kTiB;
	for (int i = 0; i < 2000; i++) {
		v.name = "v" + std::to_string(i);
		auto r = m.c->create_volume(v);
		ASSERT_TRUE(r.ok()) << i << ": " << r.error().message();
		ASSERT_TRUE(m.c->begin_delete_volume(r->id).ok());
		ASSERT_TRUE(m.c->delete_step(r->id).ok());
	}
}

TEST(Schema, a_newer_version_is_refused)
{
	Mirror m(1);
	m.create();
	// user_version is at byte 60 of page 1, big-endian; the block's checksum is made to fit.
	ASSERT_TRUE(m.c->close().ok());
	m.c.reset();
	RegionSuperblockDisk sb;
	std::copy_n(m.devices[0]->contents().begin() + kOffset, sizeof(sb), reinterpret_cast<uint8_t *>(&sb));
	auto *page = m.devices[0]->contents().data() + kOffset + sb.main_off;
	ASSERT_EQ(page[63], schema_version());
	page[63] = 9;
	const uint32_t sum = sv_crc32c(0, page, kBlockSize);
	std::copy_n(reinterpret_cast<const uint8_t *>(&sum), 4, m.devices[0]->contents().data() + kOffset + sb.sum_off);
	m.devices[0]->settle();
	auto r = m.open();
	ASSERT_FALSE(r.ok());
	EXPECT_EQ(r.error().code, Code::kMissingFeature) << r.error().message();
}

// SPDX-License-Identifier: GPL-2.0
// A catalogue in memory for tests, and records as a kernel writes them.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/base/memory_device.h"
#include "daemon/catalogue/catalogue.h"

namespace svd {

inline constexpr uint32_t kSlots = 5000;

// Of bounds on time.
#ifdef __SANITIZE_ADDRESS__
inline constexpr double kSlowdown = 20;
#else
inline constexpr double kSlowdown = 1;
#endif

struct Bench {
	explicit Bench(uint64_t bytes = 32 * kMiB, uint32_t slots = kSlots) : device("mem0", bytes)
	{
		pool.uuid = Uuid::random();
		pool.name = "tank";
		pool.created = 1700000000;
		pool.incarnation = 42;
		for (uint32_t i = 0; i < 2; i++)
			members.push_back({i, Uuid::random(), i, i == 0 ? "fast" : "slow", slots, 0});
		create();
	}
	void create()
	{
		c.reset();
		auto r = Catalogue::create(copies(), pool, members);
		EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().message());
		c = std::move(*r);
	}
	// As if all that it had were deleted: its journal goes on.
	void create_anew()
	{
		const auto position = c->applied();
		ASSERT_TRUE(position.ok()) << position.error().message();
		create();
		EXPECT_TRUE(c->apply_batch({}, *position).ok());
	}
	void reopen()
	{
		c.reset();
		auto r = Catalogue::open(copies(), pool.uuid);
		ASSERT_TRUE(r.ok()) << r.error().message();
		c = std::move(*r);
	}
	std::vector<CatalogueCopy> copies() { return {{&device, 0, device.size()}}; }
	std::string dump()
	{
		std::ostringstream out;
		EXPECT_TRUE(c->dump(out).ok());
		return out.str();
	}
	// What restore says, and try_restore, which says the same and changes nothing.
	Status restore(const std::string &text)
	{
		const std::string before = dump();
		std::istringstream first(text), second(text);
		const Status tried = c->try_restore(first);
		EXPECT_EQ(dump(), before);
		const Status done = c->restore(second);
		EXPECT_EQ(tried.ok(), done.ok()) << text;
		if (!tried.ok() && !done.ok()) {
			EXPECT_EQ(tried.error().message(), done.error().message());
			EXPECT_EQ(dump(), before);
		}
		return done;
	}
	VolumeRow volume(const std::string &name, uint64_t size = kTiB)
	{
		VolumeRow v;
		v.name = name;
		v.size = size;
		auto r = c->create_volume(v);
		EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().message());
		return *r;
	}

	MemoryDevice device;
	PoolRow pool;
	std::vector<MemberRow> members;
	std::unique_ptr<Catalogue> c;
};

inline sv_rec map_rec(const VolumeRow &v, uint64_t index, uint32_t extent, uint16_t gen, uint32_t member, uint32_t slot,
	       bool partial)
{
	sv_rec r = {};
	r.type = SV_REC_MAP;
	r.flags = partial ? SV_MAP_PARTIAL : 0;
	r.gen = gen;
	r.extent = extent;
	r.volume = v.id;
	r.index = index;
	r.layer = v.layer;
	r.member = member;
	r.slot = slot;
	return r;
}

inline sv_rec bits_rec(uint8_t type, uint32_t extent, uint16_t gen, uint32_t word, uint64_t bits)
{
	sv_rec r = {};
	r.type = type;
	r.extent = extent;
	r.gen = gen;
	r.word = word;
	r.bits = bits;
	return r;
}

inline sv_rec unmap_rec(const VolumeRow &v, uint64_t index, uint32_t old_extent)
{
	sv_rec r = {};
	r.type = SV_REC_UNMAP;
	r.volume = v.id;
	r.layer = v.layer;
	r.index = index;
	r.extent = old_extent;
	return r;
}

inline void expect_sound(Catalogue &c)
{
	auto lines = c.check();
	ASSERT_TRUE(lines.ok()) << lines.error().message();
	for (const std::string &line : *lines)
		ADD_FAILURE() << line;
}

}  // namespace svd

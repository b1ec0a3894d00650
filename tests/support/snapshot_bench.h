// SPDX-License-Identifier: GPL-2.0
// A catalogue in memory with snapshots, for tests that write the kernel's records by hand.
#pragma once

#include <fmt/format.h>

#include "daemon/catalogue/database.h"
#include "daemon/catalogue/region.h"
#include "tests/support/catalogue_bench.h"

namespace svd {

inline sv_rec layer_rec(const SnapshotRow &s)
{
	sv_rec r = {};
	r.type = SV_REC_LAYER;
	r.volume = s.volume;
	r.layer = s.next_layer;
	r.parent = s.layer;
	r.arg = s.id;
	return r;
}

inline sv_rec small_rec(uint8_t type, uint32_t volume, uint32_t layer)
{
	sv_rec r = {};
	r.type = type;
	r.volume = volume;
	r.layer = layer;
	return r;
}

inline sv_rec snapdone_rec(const SnapshotRow &s) { return small_rec(SV_REC_SNAPDONE, s.volume, s.layer); }

inline sv_rec fold_rec(uint8_t flags, uint32_t extent = 2, uint32_t parent = 1)
{
	sv_rec r = {};
	r.type = SV_REC_FOLD;
	r.flags = flags;
	r.extent = extent;
	r.gen = static_cast<uint16_t>(extent);
	r.parent = parent;
	return r;
}

inline std::vector<sv_fold> all_pairs(const FoldStep &step)
{
	std::vector<sv_fold> all;
	for (const auto &[members, some] : step.pairs)
		all.insert(all.end(), some.begin(), some.end());
	return all;
}

// Extent n lies in slot n of member 0 and has generation n.
struct SnapshotBench : Bench {
	using Bench::Bench;

	Status apply(std::vector<sv_rec> records)
	{
		const auto stats = c->apply_batch(records, {++seq, 0, 0, 0});
		return stats.ok() ? Status() : stats.error();
	}
	void must(std::vector<sv_rec> records)
	{
		const Status s = apply(std::move(records));
		EXPECT_TRUE(s.ok()) << (s.ok() ? "" : s.error().message());
	}
	VolumeRow now(const VolumeRow &v) { return c->volume(v.id).value(); }
	sv_rec map(const VolumeRow &v, uint64_t index, uint32_t n, bool partial = false)
	{
		return map_rec(now(v), index, n, static_cast<uint16_t>(n), 0, n, partial);
	}
	sv_rec over(const VolumeRow &v, uint64_t index, uint32_t n, uint32_t parent)
	{
		sv_rec r = map(v, index, n, true);
		r.flags |= SV_MAP_PARENT;
		r.parent = parent;
		return r;
	}
	sv_rec hole(const VolumeRow &v, uint64_t index, uint32_t old = 0)
	{
		sv_rec r = unmap_rec(now(v), index, old);
		r.flags = SV_UNMAP_TOMBSTONE;
		return r;
	}
	sv_rec whole(uint32_t n)
	{
		sv_rec r = bits_rec(SV_REC_VALID, n, static_cast<uint16_t>(n), 0, ~0ull);
		r.flags = SV_VALID_ALL;
		return r;
	}
	SnapshotRow begin(const VolumeRow &v, const std::string &name)
	{
		const SnapshotWanted wanted{v.id, name};
		auto rows = c->begin_snapshots(std::span(&wanted, 1), 1700000000);
		EXPECT_TRUE(rows.ok()) << (rows.ok() ? "" : rows.error().message());
		return rows.ok() ? rows->at(0) : SnapshotRow();
	}
	SnapshotRow snapshot(const VolumeRow &v, const std::string &name)
	{
		const SnapshotRow s = begin(v, name);
		must({layer_rec(s), snapdone_rec(s)});
		return c->snapshot(s.id).value();
	}
	VolumeRow clone(const std::string &name, const SnapshotRow &s)
	{
		VolumeRow v;
		v.name = name;
		v.size = s.size;
		v.parent_layer = s.layer;
		auto r = c->create_volume(v);
		EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().message());
		return *r;
	}
	std::vector<Owned> remove(const SnapshotRow &s)
	{
		EXPECT_TRUE(c->begin_delete_snapshot(s.id).ok());
		return merge_all();
	}
	std::vector<Owned> merge_all()
	{
		std::vector<Owned> own;
		for (bool done = false; !done;) {
			auto p = c->merge_step(1).value();
			own.insert(own.end(), p.own.begin(), p.own.end());
			done = p.done;
			expect_sound(*c);
		}
		return own;
	}
	// "0:1/1 5:2/3": indexes, extents and layers.
	std::string shown(uint32_t id)
	{
		std::string text;
		EXPECT_TRUE(c->for_each_map(id, [&](std::span<const sv_map_entry> some) -> Status {
			for (const sv_map_entry &e : some)
				text += fmt::format("{}{}:{}/{}", text.empty() ? "" : " ", e.index, e.extent, e.layer);
			return {};
		}).ok());
		return text;
	}
	std::string freeing()
	{
		std::string text;
		for (const auto all = c->freeing().value(); const sv_freed &f : all)
			text += fmt::format("{}{}", text.empty() ? "" : " ", f.extent);
		return text;
	}
	bool has(const std::string &line) { return dump().find("\n" + line) != std::string::npos; }
	void damage(const std::string &sql)
	{
		c.reset();
		auto region = Region::open(copies(), pool.uuid, {});
		auto db = Database::open(std::move(region).value());
		EXPECT_TRUE(db.value()->exec(sql.c_str()).ok());
		EXPECT_TRUE(db.value()->close().ok());
		db = Error(Code::kFailure, "closed");
		reopen();
	}

	uint64_t seq = 0;
};

}  // namespace svd

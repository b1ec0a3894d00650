// SPDX-License-Identifier: GPL-2.0
// Two models of a pool with snapshots, for random tests of the catalogue. Their blocks are the 64 that a VALID record names.
//
// LayerOracle: what the records mean, in the most obvious way: layers are never merged and nothing is ever freed.
// LayerKernel: what a correct kernel does and which records it writes; with the data, so that reading can be compared.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "daemon/catalogue/catalogue.h"

namespace svd::model {

inline constexpr uint32_t kBlocks = 4;  // of an extent
using Blocks = std::array<bool, kBlocks>;
using Name = std::pair<uint32_t, uint16_t>;  // an extent in one of its lives: number and generation; {0, 0}: none
inline constexpr Name kNone{0, 0};
inline constexpr Name kHole{0xffffffffu, 0};

inline bool any(const Blocks &b) { return b[0] || b[1] || b[2] || b[3]; }
inline bool all(const Blocks &b) { return b[0] && b[1] && b[2] && b[3]; }

class LayerOracle {
 public:
	// A volume has this head from now on, if it has not a newer one.
	void volume(uint32_t id, uint32_t layer, uint32_t parent)
	{
		heads_[id] = std::max(heads_[id], layer);
		layers_[layer].parent = parent;
	}
	uint32_t head(uint32_t volume) const { return heads_.at(volume); }

	void apply(const sv_rec &r)
	{
		switch (r.type) {
		case SV_REC_MAP:
			map(r);
			break;
		case SV_REC_VALID:
			valid(r);
			break;
		case SV_REC_CLEAR:
			extents_.at({r.extent, r.gen}).valid[r.word] = false;
			break;
		case SV_REC_UNMAP:
			layers_.at(r.layer).map[r.index] = kHole;  // here, what is below stays for ever
			break;
		case SV_REC_LAYER:
			volume(r.volume, r.layer, r.parent);
			break;
		case SV_REC_FOLD:
			fold(r);
			break;
		default:
			break;
		}
	}

	Name entry(uint32_t layer, uint64_t index) const
	{
		for (; layer != 0; layer = layers_.at(layer).parent) {
			const auto &map = layers_.at(layer).map;
			if (const auto e = map.find(index); e != map.end())
				return e->second == kHole ? kNone : e->second;
		}
		return kNone;
	}
	// The extent whose slot has the block.
	Name source(uint32_t layer, uint64_t index, uint32_t block) const
	{
		Name at = entry(layer, index);
		while (at != kNone && !extents_.at(at).valid[block])
			at = extents_.at(at).parent;
		return at;
	}

 private:
	struct Extent {
		Blocks valid{};
		Name parent = kNone;
	};
	struct Layer {
		uint32_t parent = 0;
		std::map<uint64_t, Name> map;
	};

	void map(const sv_rec &r)
	{
		const bool partial = (r.flags & SV_MAP_PARTIAL) != 0;
		Extent &e = extents_[{r.extent, r.gen}];
		e.valid.fill(!partial);
		e.parent = (r.flags & SV_MAP_PARENT) != 0 ? Name{r.parent, gen_.at(r.parent)} : kNone;
		gen_[r.extent] = r.gen;
		layers_.at(r.layer).map[r.index] = {r.extent, r.gen};
	}
	void valid(const sv_rec &r)
	{
		Extent &e = extents_.at({r.extent, r.gen});
		if ((r.flags & SV_VALID_ALL) != 0)
			e.valid.fill(true);
		else
			e.valid[r.word] = true;
		if (all(e.valid))
			e.parent = kNone;
	}

	void fold(const sv_rec &r)
	{
		Extent &e = extents_.at({r.extent, r.gen});
		const Extent &below = extents_.at({r.parent, gen_.at(r.parent)});
		for (uint32_t b = 0; b < kBlocks; b++)
			e.valid[b] = e.valid[b] || below.valid[b];
		e.parent = all(e.valid) ? kNone : below.parent;
	}

	std::map<Name, Extent> extents_;
	std::map<uint32_t, uint16_t> gen_;
	std::map<uint32_t, Layer> layers_;
	std::map<uint32_t, uint32_t> heads_;
};

class LayerKernel {
 public:
	struct Entry {
		uint32_t extent = 0;
		uint32_t label = 0;
	};
	struct View {
		uint32_t head = 0;
		uint32_t owned_since = 0;
		bool chained = false;
		std::map<uint64_t, Entry> map;
		std::set<uint64_t> written{};  // indexes of which the head has had a record
	};
	struct Extent {
		uint16_t gen = 0;
		uint32_t slot = 0;
		Blocks valid{};
		Blocks dirty{};	      // valid, and no record says so yet
		bool partial = false;  // by its records
		uint32_t parent = 0;   // by its records
	};

	explicit LayerKernel(uint32_t numbers)
	{
		for (uint32_t n = numbers; n > 0; n--) {
			free_.push_back(n);
			free_slots_.push_back(n);
		}
	}
	bool has_space() const { return !free_.empty(); }
	View &view(uint32_t id) { return views_.at(id); }
	const std::map<uint32_t, View> &views() const { return views_; }
	const std::map<uint32_t, Extent> &extents() const { return extents_; }
	std::deque<sv_rec> &stream() { return stream_; }
	uint64_t data(Name extent, uint32_t block) const { return extent == kNone ? 0 : data_.at(extent)[block]; }

	void create(uint32_t id, uint32_t layer, bool chained, std::map<uint64_t, Entry> map = {})
	{
		views_[id] = {layer, layer, chained, std::move(map)};
	}

	uint64_t read(uint32_t id, uint64_t index, uint32_t block) const
	{
		const auto &map = views_.at(id).map;
		const auto entry = map.find(index);
		uint32_t at = entry == map.end() ? 0 : entry->second.extent;
		while (at != 0 && !extents_.at(at).valid[block])
			at = extents_.at(at).parent;
		return at == 0 ? 0 : data({at, extents_.at(at).gen}, block);
	}

	bool owned(const View &v, uint64_t index) const
	{
		const auto e = v.map.find(index);
		return e != v.map.end() && e->second.label >= v.owned_since;
	}

	void write(uint32_t id, uint64_t index, uint32_t block, uint64_t value)
	{
		View &v = views_.at(id);
		if (!owned(v, index))
			install(id, v, v.head, index);
		fill(v.map[index].extent, block, value);
	}
	// By a view that was current when the write began; only where nothing is that this view would own, and nothing was done
	// by the new one: what comes later must not go below that.
	void write_late(uint32_t id, uint32_t old_head, uint64_t index, uint32_t block, uint64_t value)
	{
		install(id, views_.at(id), old_head, index);
		fill(views_.at(id).map[index].extent, block, value);
	}

	void unmap(uint32_t id, uint64_t index)
	{
		View &v = views_.at(id);
		const auto e = v.map.find(index);
		if (e == v.map.end())
			return;
		const bool own = owned(v, index);
		sv_rec r = record(SV_REC_UNMAP, id, v.head);
		r.index = index;
		r.extent = own ? e->second.extent : 0;
		r.flags = v.chained ? SV_UNMAP_TOMBSTONE : 0;
		stream_.push_back(r);
		if (own)
			release(e->second.extent);
		v.map.erase(e);
		v.written.insert(index);
	}

	// Of a block whose extent has no parent, by its records.
	bool can_clear(uint32_t id, uint64_t index) const
	{
		const View &v = views_.at(id);
		return owned(v, index) && extents_.at(v.map.at(index).extent).parent == 0;
	}
	void clear(uint32_t id, uint64_t index, uint32_t block)
	{
		const uint32_t number = views_.at(id).map.at(index).extent;
		Extent &e = extents_.at(number);
		if (!e.valid[block])
			return;
		e.valid[block] = e.dirty[block] = false;
		e.partial = true;
		stream_.push_back(bits(SV_REC_CLEAR, number, e, block));
	}

	// Records of what was written since; of all extents, or of every second one.
	void commit_bits(bool half)
	{
		bool skip = false;
		for (auto &[number, e] : extents_)
			if (!(half && (skip = !skip)))
				tell_valid(number, e);
	}

	void layer(const SnapshotRow &s)
	{
		View &v = views_.at(s.volume);
		sv_rec r = record(SV_REC_LAYER, s.volume, s.next_layer);
		r.parent = s.layer;
		r.arg = s.id;
		stream_.push_back(r);
		v.head = v.owned_since = s.next_layer;
		v.written.clear();
		v.chained = true;
	}
	// Nobody writes by the old view any more.
	void snapdone(const SnapshotRow &s, std::map<uint64_t, Entry> frozen)
	{
		commit_bits(false);
		stream_.push_back(record(SV_REC_SNAPDONE, s.volume, s.layer));
		views_[s.id] = {s.layer, s.layer, true, std::move(frozen)};
	}

	void own(const Owned &o)
	{
		View &v = views_.at(o.volume);
		if (v.head != o.layer)
			return;
		stream_.push_back(record(SV_REC_OWN, o.volume, o.owned_since));
		v.owned_since = o.owned_since;
	}

	void drop_snapshot(uint32_t id) { views_.erase(id); }
	void drop_volume(uint32_t id)
	{
		const View v = views_.at(id);
		views_.erase(id);
		for (const auto &[index, e] : v.map)
			if (e.label >= v.owned_since && extents_.contains(e.extent))
				release(e.extent);
	}

	void free(const sv_freed &f)
	{
		const auto e = extents_.find(f.extent);
		if (e == extents_.end() || e->second.gen != f.gen)
			return;
		for (const auto &[id, v] : views_)
			for (const auto &[index, entry] : v.map)
				ASSERT_NE(entry.extent, f.extent) << "freed while volume " << id << " maps it";
		for (const auto &[number, other] : extents_)
			ASSERT_NE(other.parent, f.extent) << "freed while it is the parent of " << number;
		release(f.extent);
	}

	// A FOLD of one extent. False: it is not as the caller believes, or there are blocks of which no record speaks yet.
	bool fold(const sv_fold &f)
	{
		const auto child = extents_.find(f.extent), parent = extents_.find(f.parent);
		if (child == extents_.end() || parent == extents_.end())
			return false;
		Extent &e = child->second, &below = parent->second;
		if (e.gen != f.gen || below.gen != f.parent_gen || e.parent != f.parent || any(e.dirty) || any(below.dirty) || all(e.valid))
			return false;
		sv_rec r = {};
		r.type = SV_REC_FOLD;
		r.flags = f.flags == SV_FOLD_SWAP ? SV_FOLD_SWAPPED : 0;
		r.extent = f.extent;
		r.gen = f.gen;
		r.parent = f.parent;
		stream_.push_back(r);
		for (uint32_t b = 0; b < kBlocks; b++) {
			if (!e.valid[b] && below.valid[b])
				data_.at({f.extent, f.gen})[b] = data({f.parent, f.parent_gen}, b);
			e.valid[b] = e.valid[b] || below.valid[b];
		}
		e.partial = !all(e.valid);
		e.parent = e.partial ? below.parent : 0;
		if (f.flags == SV_FOLD_SWAP)
			std::swap(e.slot, below.slot);
		free({f.parent, f.parent_gen, 0});
		return true;
	}

	// What was freed may be used again: its records are applied.
	void trim()
	{
		free_.insert(free_.begin(), freed_.begin(), freed_.end());
		freed_.clear();
		free_slots_.insert(free_slots_.begin(), freed_slots_.begin(), freed_slots_.end());
		freed_slots_.clear();
	}

	void load(Catalogue &c);

 private:
	static sv_rec record(uint8_t type, uint32_t volume, uint32_t layer)
	{
		sv_rec r = {};
		r.type = type;
		r.volume = volume;
		r.layer = layer;
		return r;
	}
	static sv_rec bits(uint8_t type, uint32_t number, const Extent &e, uint32_t word)
	{
		sv_rec r = {};
		r.type = type;
		r.extent = number;
		r.gen = e.gen;
		r.word = word;
		r.bits = ~0ull;
		return r;
	}

	void install(uint32_t id, View &v, uint32_t layer, uint64_t index)
	{
		const auto old = v.map.find(index);
		const uint32_t number = free_.back();
		free_.pop_back();
		Extent e;
		e.gen = ++gen_[number];
		e.slot = free_slots_.back();
		free_slots_.pop_back();
		e.partial = true;
		e.parent = old == v.map.end() ? 0 : old->second.extent;
		sv_rec r = record(SV_REC_MAP, id, layer);
		r.flags = static_cast<uint8_t>(SV_MAP_PARTIAL | (e.parent != 0 ? SV_MAP_PARENT : 0));
		r.extent = number;
		r.gen = e.gen;
		r.index = index;
		r.parent = e.parent;
		r.slot = e.slot;
		stream_.push_back(r);
		extents_[number] = e;
		data_[{number, e.gen}] = {};
		v.map[index] = {number, layer};
		if (layer == v.head)
			v.written.insert(index);
	}

	void fill(uint32_t number, uint32_t block, uint64_t value)
	{
		Extent &e = extents_.at(number);
		data_.at({number, e.gen})[block] = value;
		e.dirty[block] = e.dirty[block] || !e.valid[block];
		e.valid[block] = true;
	}

	void tell_valid(uint32_t number, Extent &e)
	{
		if (all(e.dirty)) {
			sv_rec r = bits(SV_REC_VALID, number, e, 0);
			r.flags = SV_VALID_ALL;
			stream_.push_back(r);
		} else {
			for (uint32_t b = 0; b < kBlocks; b++)
				if (e.dirty[b])
					stream_.push_back(bits(SV_REC_VALID, number, e, b));
		}
		e.dirty = {};
		if (all(e.valid)) {
			e.partial = false;
			e.parent = 0;
		}
	}

	void release(uint32_t number)
	{
		freed_slots_.push_back(extents_.at(number).slot);
		extents_.erase(number);
		freed_.push_back(number);
	}

	std::map<uint32_t, View> views_;
	std::map<uint32_t, Extent> extents_;
	std::vector<uint32_t> free_, freed_;  // numbers
	std::vector<uint32_t> free_slots_, freed_slots_;
	std::map<uint32_t, uint16_t> gen_;
	std::map<Name, std::array<uint64_t, kBlocks>> data_;
	std::deque<sv_rec> stream_;  // not applied
};

// Everything anew but the data: as after a crash. Generations go on, so that each life of an extent has a name.
inline void LayerKernel::load(Catalogue &c)
{
	views_.clear();
	stream_.clear();
	while (!extents_.empty())
		release(extents_.begin()->first);
	trim();
	ASSERT_TRUE(c.for_each_extent([&](std::span<const sv_extent> some) -> Status {
		for (const sv_extent &e : some) {
			Extent &x = extents_[e.extent];
			x.gen = e.gen;
			x.slot = e.slot;
			x.partial = (e.flags & SV_EXTENT_PARTIAL) != 0;
			x.valid.fill(!x.partial);
		}
		return {};
	}).ok());
	std::erase_if(free_, [&](uint32_t n) { return extents_.contains(n); });
	for (const auto &[number, e] : extents_)
		std::erase(free_slots_, e.slot);
	ASSERT_TRUE(c.for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
		for (const sv_partial_bits &p : some) {
			extents_.at(p.extent).parent = p.parent;
			for (uint32_t b = 0; b < kBlocks; b++)
				extents_.at(p.extent).valid[b] = p.valid[b] != 0;
		}
		return {};
	}).ok());
	const auto map_of = [&](uint32_t id) {
		std::map<uint64_t, Entry> map;
		EXPECT_TRUE(c.for_each_map(id, [&](std::span<const sv_map_entry> some) -> Status {
			for (const sv_map_entry &e : some)
				map[e.index] = {e.extent, e.layer};
			return {};
		}).ok());
		return map;
	};
	const auto volumes = c.volumes();
	for (const VolumeRow &v : *volumes)
		if (v.state == VolumeState::kActive)
			views_[v.id] = {v.layer, v.owned_since, v.parent_layer != 0, map_of(v.id)};
	const auto snapshots = c.snapshots();
	for (const SnapshotRow &s : *snapshots)
		if (s.state == SnapshotState::kDone)
			views_[s.id] = {s.layer, s.layer, true, map_of(s.id)};
}

}  // namespace svd::model

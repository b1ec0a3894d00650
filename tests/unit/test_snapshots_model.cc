// SPDX-License-Identifier: GPL-2.0
// A catalogue under random use by svd and a modelled kernel, against an oracle that never merges and never frees. After
// each change every volume and snapshot must show the same extents, block by block, and check() must find nothing: so
// nothing that is needed was freed, and nothing is kept that is not. SV_SNAPSHOT_STEPS=n: more steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "daemon/catalogue/catalogue.h"
#include "tests/support/catalogue_bench.h"
#include "tests/support/layer_kernel.h"

namespace svd::model {
namespace {

constexpr uint64_t kIndexes[] = {0, 1, 1008, 1009, 2016, 4000};	 // in four pages
constexpr uint32_t kNumbers = 300;
constexpr size_t kMaxVolumes = 5, kMaxSnapshots = 10;

class Pool {
 public:
	explicit Pool(uint64_t seed) : random_(seed), bench_(2 * kMiB), kernel_(kNumbers) {}
	void step();
	void settle();	// all there is to apply is applied
	void verify_reads();
	bool failed() const { return ::testing::Test::HasFailure(); }
	std::map<std::string, uint64_t> done;  // how often

 private:
	using Content = std::map<std::pair<uint64_t, uint32_t>, uint64_t>;
	struct Taking {	// a SNAPSHOT command under way
		std::vector<SnapshotRow> rows;
		std::vector<LayerKernel::View> frozen;
		int phase = 0;
	};
	struct Shown {	// by the catalogue
		std::map<uint32_t, sv_extent> extents;
		std::map<uint32_t, sv_partial_bits> partials;
	};

	Catalogue &c() { return *bench_.c; }
	std::vector<VolumeRow> volumes() { return c().volumes().value(); }
	std::vector<SnapshotRow> snapshots() { return c().snapshots().value(); }
	uint64_t below(uint64_t n) { return random_() % n; }
	uint64_t index() { return kIndexes[below(std::size(kIndexes))]; }
	uint32_t block() { return static_cast<uint32_t>(below(kBlocks)); }
	std::optional<VolumeRow> some_volume();
	std::optional<SnapshotRow> some_snapshot();
	bool taking(uint32_t volume_or_snapshot) const;

	void create();
	void write();
	void unmap();
	void clear();
	void take();
	void take_on();
	void write_late();
	void give_up_taking();
	void clone();
	void delete_snapshot();
	void delete_volume();
	void delete_step();
	void merge();
	void tell_own();
	void tell_freeing();
	void fold();
	void commit_bits() { kernel_.commit_bits(below(2) == 0); }
	void apply_some() { apply(below(kernel_.stream().size() + 1)); }
	void apply(size_t count);
	void crash();
	void dump_and_restore();
	void predict();

	void verify();
	void verify_view(const Shown &shown, uint32_t id, uint32_t layer);
	void verify_kernel();
	Shown shown();
	std::map<uint64_t, sv_map_entry> map_of(uint32_t id);
	Content content_of(uint32_t layer);
	std::map<uint32_t, uint64_t> shown_alone();
	uint64_t space_without(const std::vector<uint32_t> &snapshots);

	std::mt19937_64 random_;
	Bench bench_;
	LayerKernel kernel_;
	LayerOracle oracle_;
	std::map<uint32_t, Content> content_;  // of volumes and snapshots, as their users know it
	std::optional<Taking> taking_;
	std::set<uint32_t> deleting_;  // volumes
	std::vector<Owned> own_;       // the kernel has not heard
	size_t committed_ = 0;	       // of kernel_.stream(), at least
	uint32_t fold_after_ = 0;
	uint64_t seq_ = 0;
	uint64_t value_ = 0;
	uint64_t name_ = 0;
};

bool Pool::taking(uint32_t id) const
{
	return taking_ && std::ranges::any_of(taking_->rows, [id](const SnapshotRow &s) {
		return s.volume == id || s.id == id; });
}

std::optional<VolumeRow> Pool::some_volume()
{
	auto rows = volumes();
	std::erase_if(rows, [](const VolumeRow &v) { return v.state != VolumeState::kActive; });
	return rows.empty() ? std::nullopt : std::optional(rows[below(rows.size())]);
}

std::optional<SnapshotRow> Pool::some_snapshot()
{
	auto rows = snapshots();
	std::erase_if(rows, [this](const SnapshotRow &s) { return s.state != SnapshotState::kDone || taking(s.id); });
	return rows.empty() ? std::nullopt : std::optional(rows[below(rows.size())]);
}

// ---- what users do ----

void Pool::create()
{
	if (volumes().size() >= kMaxVolumes)
		return;
	const VolumeRow v = bench_.volume("v" + std::to_string(name_++), 8 * kGiB);
	kernel_.create(v.id, v.layer, false);
	oracle_.volume(v.id, v.layer, 0);
	content_[v.id];
	done["create"]++;
}

void Pool::write()
{
	const auto v = some_volume();
	if (!v || !kernel_.has_space())
		return;
	const uint64_t i = index();
	const uint32_t first = block(), count = below(4) == 0 ? kBlocks : 1;
	for (uint32_t n = 0; n < count; n++) {
		const uint32_t b = (first + n) % kBlocks;
		kernel_.write(v->id, i, b, ++value_);
		content_[v->id][{i, b}] = value_;
	}
	done["write"]++;
}

void Pool::unmap()
{
	const auto v = some_volume();
	if (!v)
		return;
	const uint64_t i = index();
	kernel_.unmap(v->id, i);
	for (uint32_t b = 0; b < kBlocks; b++)
		content_[v->id].erase({i, b});
	done["unmap"]++;
}

void Pool::clear()
{
	const auto v = some_volume();
	const uint64_t i = index();
	if (!v || !kernel_.can_clear(v->id, i))
		return;
	const uint32_t b = block();
	kernel_.clear(v->id, i, b);
	content_[v->id].erase({i, b});
	done["clear"]++;
}

void Pool::take()
{
	if (taking_ || snapshots().size() >= kMaxSnapshots)
		return;
	std::set<uint32_t> volumes;
	for (uint64_t n = 1 + below(2); n > 0; n--)
		if (const auto v = some_volume(); v)
			volumes.insert(v->id);
	if (volumes.empty())
		return;
	std::vector<SnapshotWanted> wanted;
	for (const uint32_t id : volumes)
		wanted.push_back({id, "s" + std::to_string(name_++)});
	auto rows = c().begin_snapshots(wanted, 1700000000);
	ASSERT_TRUE(rows.ok()) << rows.error().message();
	taking_ = Taking{*rows, {}, 0};
	verify();
}

// The next step of the command that is under way.
void Pool::take_on()
{
	if (!taking_)
		return;
	if (taking_->phase == 0) {
		for (const SnapshotRow &s : taking_->rows) {
			taking_->frozen.push_back(kernel_.view(s.volume));
			kernel_.layer(s);
			content_[s.id] = content_[s.volume];
		}
	} else if (taking_->phase == 1) {
		for (size_t n = 0; n < taking_->rows.size(); n++)
			kernel_.snapdone(taking_->rows[n], taking_->frozen[n].map);
		committed_ = kernel_.stream().size();
	} else {
		std::vector<uint32_t> ids;
		for (const SnapshotRow &s : taking_->rows) {
			ids.push_back(s.id);
			oracle_.volume(s.volume, s.next_layer, s.layer);
		}
		taking_.reset();
		ASSERT_TRUE(c().finish_snapshots(ids).ok());
		done["snapshot"]++;
		verify();
		return;
	}
	taking_->phase++;
}

// Begun before LAYER, appended after it.
void Pool::write_late()
{
	if (!taking_ || taking_->phase != 1 || !kernel_.has_space())
		return;
	const size_t n = below(taking_->rows.size());
	const SnapshotRow &s = taking_->rows[n];
	LayerKernel::View &old = taking_->frozen[n];
	const uint64_t i = index();
	if (kernel_.view(s.volume).written.contains(i) || kernel_.owned(old, i))
		return;
	const uint32_t at = block();
	kernel_.write_late(s.volume, s.layer, i, at, ++value_);
	old.map[i] = kernel_.view(s.volume).map[i];
	content_[s.volume][{i, at}] = content_[s.id][{i, at}] = value_;
	done["late write"]++;
}

// Before the kernel began.
void Pool::give_up_taking()
{
	if (!taking_ || taking_->phase != 0)
		return;
	apply(kernel_.stream().size());
	taking_.reset();
	ASSERT_TRUE(c().resolve_pending().ok());
	done["snapshot given up"]++;
	verify();
}

void Pool::clone()
{
	const auto s = some_snapshot();
	if (!s || volumes().size() >= kMaxVolumes)
		return;
	VolumeRow wanted;
	wanted.name = "c" + std::to_string(name_++);
	wanted.size = s->size + below(2) * kGiB;
	wanted.parent_layer = s->layer;
	auto v = c().create_volume(wanted);
	ASSERT_TRUE(v.ok()) << v.error().message();
	kernel_.create(v->id, v->layer, true, kernel_.view(s->id).map);
	oracle_.volume(v->id, v->layer, s->layer);
	content_[v->id] = content_[s->id];
	done["clone"]++;
	verify();
}

void Pool::delete_snapshot()
{
	const auto s = some_snapshot();
	if (!s)
		return;
	ASSERT_TRUE(c().begin_delete_snapshot(s->id).ok());
	kernel_.drop_snapshot(s->id);
	content_.erase(s->id);
	done["delete snapshot"]++;
	verify();
}

void Pool::delete_volume()
{
	const auto v = some_volume();
	const auto all = snapshots();
	if (!v || taking(v->id) || std::ranges::any_of(all, [&](const SnapshotRow &s) {
		return s.volume == v->id && s.state != SnapshotState::kDeleting; }))
		return;
	apply(kernel_.stream().size());
	ASSERT_TRUE(c().begin_delete_volume(v->id).ok());
	deleting_.insert(v->id);
	content_.erase(v->id);
	done["delete volume"]++;
}

void Pool::delete_step()
{
	if (deleting_.empty())
		return;
	const uint32_t id = *deleting_.begin();
	auto progress = c().delete_step(id, 1);
	ASSERT_TRUE(progress.ok()) << progress.error().message();
	if (progress->done) {
		kernel_.drop_volume(id);
		deleting_.erase(id);
	}
	done["delete step"]++;
	verify();
}

// ---- what svd does by itself ----

void Pool::merge()
{
	auto progress = c().merge_step(1 + below(3));
	ASSERT_TRUE(progress.ok()) << progress.error().message();
	own_.insert(own_.end(), progress->own.begin(), progress->own.end());
	done["merge"] += progress->done ? 0 : 1;
	done["own"] += progress->own.size();
	done["freed by svd"] += progress->freed;
	verify();
}

void Pool::tell_own()
{
	if (own_.empty())
		return;
	const Owned o = own_.front();
	own_.erase(own_.begin());
	if (kernel_.views().contains(o.volume))
		kernel_.own(o);
}

void Pool::tell_freeing()
{
	if (!deleting_.empty())
		return;
	const auto rows = c().freeing(static_cast<uint32_t>(1 + below(8)));
	for (const sv_freed &f : *rows)
		kernel_.free(f);
	if (below(3) != 0) {
		ASSERT_TRUE(c().freeing_told(*rows).ok());
	}
	done["freed by the kernel"] += rows->size();
}

// Pairs that the catalogue proposes, though not all of the journal may be applied. Not before the kernel has freed what the
// catalogue has. The command commits what it did.
void Pool::fold()
{
	if (!c().freeing()->empty())
		return;
	const FoldLimits limits{1 + below(3), 1 + below(300), 1 + below(20)};
	auto step = c().fold_step(fold_after_, limits);
	ASSERT_TRUE(step.ok()) << step.error().message();
	fold_after_ = step->done ? 0 : step->after;
	for (const auto &[members, pairs] : step->pairs)
		for (const sv_fold &f : pairs)
			if (kernel_.fold(f)) {
				committed_ = kernel_.stream().size();
				done[f.flags == SV_FOLD_SWAP ? "folded, swapped" : "folded"]++;
			}
	if (step->done)
		done["fold round"]++;
}

// Sometimes as after a crash between two readings of the ring: any part of it before, or all of it again [I31]. But not what
// was folded: that is applied once, with the position behind it.
void Pool::apply(size_t count)
{
	auto &stream = kernel_.stream();
	const std::vector<sv_rec> records(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(count));
	const sv_ring_cursor at{++seq_, seq_ * 4096, static_cast<uint32_t>(seq_), 0};
	const auto put = [&](size_t n) {
		auto stats = c().apply_batch(std::span(records).first(n), at);
		ASSERT_TRUE(stats.ok()) << stats.error().message();
	};
	const bool once = std::ranges::any_of(records, [](const sv_rec &r) { return r.type == SV_REC_FOLD; });
	if (!once && below(3) == 0)
		put(below(count + 1));
	put(count);
	if (!once && below(3) == 0)
		put(count);
	for (const sv_rec &r : records)
		oracle_.apply(r);
	stream.erase(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(count));
	committed_ -= std::min(committed_, count);
	if (stream.empty())
		kernel_.trim();
	done["record"] += count;
	verify();
}

// Of kernel and svd; what was not committed is lost.
void Pool::crash()
{
	apply(committed_ + below(kernel_.stream().size() - committed_ + 1));
	for (; !deleting_.empty(); deleting_.erase(deleting_.begin()))
		while (!c().delete_step(*deleting_.begin(), 1).value().done)
			;
	bench_.reopen();
	ASSERT_TRUE(c().resolve_pending().ok());
	ASSERT_TRUE(c().clear_freeing().ok());
	kernel_.load(c());
	taking_.reset();
	own_.clear();
	committed_ = 0;
	content_.clear();
	for (const VolumeRow &v : volumes())
		content_[v.id] = content_of(v.layer);
	for (const SnapshotRow &s : snapshots())
		if (s.state == SnapshotState::kDone)
			content_[s.id] = content_of(s.layer);
	done["crash"]++;
	verify();
	verify_kernel();
}

void Pool::dump_and_restore()
{
	const std::string text = bench_.dump();
	bench_.create_anew();
	const Status s = bench_.restore(text);
	ASSERT_TRUE(s.ok()) << s.error().message() << "\n" << text;
	ASSERT_EQ(bench_.dump(), text);
	done["dump"]++;
	verify();
}

// ---- what deletions would bring ----

// Of each volume and snapshot, bytes: block by block, in the most obvious way.
std::map<uint32_t, uint64_t> Pool::shown_alone()
{
	std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> by;  // extent and block: who shows it
	const Shown now = shown();
	const auto look = [&](uint32_t id) {
		for (const auto &[i, entry] : map_of(id))
			for (uint32_t b = 0; b < SV_EXTENT_BLOCKS; b++)
				for (uint32_t at = entry.extent; at != 0;) {
					const auto p = now.partials.find(at);
					if (p == now.partials.end() || (p->second.valid[b / 64] >> (b % 64) & 1) != 0) {
						by[{at, b}].push_back(id);
						break;
					}
					at = p->second.parent;
				}
	};
	for (const VolumeRow &v : volumes())
		if (v.state == VolumeState::kActive)
			look(v.id);
	for (const SnapshotRow &s : snapshots())
		if (s.state != SnapshotState::kDeleting)
			look(s.id);
	std::map<uint32_t, uint64_t> alone;
	for (const auto &[block, ids] : by)
		if (ids.size() == 1)
			alone[ids[0]] += SV_BLOCK_SIZE;
	return alone;
}

// Of a copy, in which they are deleted, and all is done that follows from it; bytes.
uint64_t Pool::space_without(const std::vector<uint32_t> &snapshots)
{
	Bench copy(2 * kMiB);
	copy.pool = bench_.pool;
	copy.members = bench_.members;
	copy.create();
	sv_ring_cursor at = c().applied().value();
	EXPECT_TRUE(copy.c->apply_batch({}, at).ok());
	const Status restored = copy.restore(bench_.dump());
	EXPECT_TRUE(restored.ok()) << restored.error().message();
	Catalogue &other = *copy.c;
	for (const VolumeRow &v : volumes())
		while (v.state == VolumeState::kDeleting && !other.delete_step(v.id).value().done)
			;
	for (const uint32_t id : snapshots)
		EXPECT_TRUE(other.begin_delete_snapshot(id).ok());
	while (!other.merge_step().value().done)
		;
	LayerKernel kernel = kernel_;  // with the data
	kernel.load(other);
	for (bool folded = true; folded;) {
		folded = false;
		const FoldStep step = other.fold_step(0, {UINT32_MAX, UINT32_MAX, UINT32_MAX}).value();
		for (const auto &[members, pairs] : step.pairs)
			for (const sv_fold &f : pairs)
				folded |= kernel.fold(f);
		const std::vector<sv_rec> records(kernel.stream().begin(), kernel.stream().end());
		kernel.stream().clear();
		EXPECT_TRUE(other.apply_batch(records, {++at.seq, at.seq * 4096, 0, 0}).ok());
	}
	uint64_t extents = 0;
	EXPECT_TRUE(other.for_each_extent([&](std::span<const sv_extent> some) -> Status {
		extents += some.size();
		return {};
	}).ok());
	return extents << SV_EXTENT_SHIFT;
}

// Nothing of it changes anything.
void Pool::predict()
{
	if (taking_)
		return;
	settle();
	std::vector<uint32_t> all, some;
	for (const SnapshotRow &s : snapshots())
		if (s.state == SnapshotState::kDone)
			all.push_back(s.id);
	std::ranges::copy_if(all, std::back_inserter(some), [this](uint32_t) { return below(2) == 0; });
	if (some.empty())
		return;
	const std::string before = bench_.dump();
	const auto told = c().snapshot_spaces(some);
	ASSERT_TRUE(told.ok()) << told.error().message();
	ASSERT_EQ(told->each.size(), some.size());
	const uint64_t now = space_without({});
	auto alone = shown_alone();
	for (const SnapshotSpace &one : told->each) {
		ASSERT_EQ(one.shown, c().mapped(one.id).value() << SV_EXTENT_SHIFT) << one.id;
		ASSERT_EQ(one.exclusive, alone[one.id]) << one.id;
		ASSERT_EQ(one.frees, now - space_without({one.id})) << one.id << " of\n" << before;
	}
	ASSERT_EQ(told->frees, now - space_without(some)) << before;
	ASSERT_EQ(bench_.dump(), before);
	done["prediction"]++;
	done["something freed"] += told->frees > 0;
}

// ---- what must be so ----

Pool::Content Pool::content_of(uint32_t layer)
{
	Content content;
	for (const uint64_t i : kIndexes)
		for (uint32_t b = 0; b < kBlocks; b++)
			if (const uint64_t value = kernel_.data(oracle_.source(layer, i, b), b); value != 0)
				content[{i, b}] = value;
	return content;
}

std::map<uint64_t, sv_map_entry> Pool::map_of(uint32_t id)
{
	std::map<uint64_t, sv_map_entry> map;
	EXPECT_TRUE(c().for_each_map(id, [&](std::span<const sv_map_entry> some) -> Status {
		for (const sv_map_entry &e : some)
			EXPECT_TRUE(e.extent != 0 && map.emplace(e.index, e).second);
		return {};
	}).ok());
	return map;
}

Pool::Shown Pool::shown()
{
	Shown shown;
	EXPECT_TRUE(c().for_each_extent([&](std::span<const sv_extent> some) -> Status {
		for (const sv_extent &e : some)
			shown.extents[e.extent] = e;
		return {};
	}).ok());
	EXPECT_TRUE(c().for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
		for (const sv_partial_bits &p : some)
			shown.partials[p.extent] = p;
		return {};
	}).ok());
	return shown;
}

void Pool::verify_view(const Shown &shown, uint32_t id, uint32_t layer)
{
	const auto map = map_of(id);
	for (const uint64_t i : kIndexes) {
		const auto entry = map.find(i);
		for (uint32_t b = 0; b < kBlocks; b++) {
			uint32_t at = entry == map.end() ? 0 : entry->second.extent;
			while (at != 0) {
				const auto p = shown.partials.find(at);
				if (p == shown.partials.end() || p->second.valid[b] != 0)
					break;
				at = p->second.parent;
			}
			const auto e = shown.extents.find(at);
			ASSERT_TRUE(at == 0 || e != shown.extents.end()) << "extent " << at << " is gone";
			const Name name = at == 0 ? kNone : Name{at, e->second.gen};
			ASSERT_EQ(name, oracle_.source(layer, i, b)) << id << " index " << i << " block " << b;
		}
	}
}

void Pool::verify()
{
	auto lines = c().check();
	ASSERT_TRUE(lines.ok()) << lines.error().message();
	for (const std::string &line : *lines)
		ADD_FAILURE() << line;
	const Shown now = shown();
	for (const VolumeRow &v : volumes())
		if (v.state == VolumeState::kActive)
			verify_view(now, v.id, oracle_.head(v.id));
	for (const SnapshotRow &s : snapshots())
		if (s.state != SnapshotState::kDeleting)
			verify_view(now, s.id, s.layer);
}

// As users know it.
void Pool::verify_reads()
{
	for (const auto &[id, content] : content_) {
		if (!kernel_.views().contains(id))
			continue;
		for (const uint64_t i : kIndexes)
			for (uint32_t b = 0; b < kBlocks; b++) {
				const auto known = content.find({i, b});
				const uint64_t value = known == content.end() ? 0 : known->second;
				ASSERT_EQ(kernel_.read(id, i, b), value) << id << " index " << i << " block " << b;
			}
	}
}

// Everything is applied: the kernel has the same, and it is what users wrote.
void Pool::verify_kernel()
{
	for (const auto &[id, view] : kernel_.views()) {
		if (deleting_.contains(id))
			continue;
		const auto map = map_of(id);
		ASSERT_EQ(map.size(), view.map.size());
		for (const auto &[i, entry] : view.map) {
			ASSERT_EQ(entry.extent, map.at(i).extent) << id << " index " << i;
			ASSERT_LE(entry.label, map.at(i).layer);
		}
		ASSERT_EQ(content_of(c().snapshot(id).ok() ? view.head : oracle_.head(id)), content_[id]) << id;
	}
	if (!deleting_.empty() || !c().freeing()->empty())
		return;
	const Shown now = shown();
	ASSERT_EQ(now.extents.size(), kernel_.extents().size());
	for (const auto &[number, e] : kernel_.extents()) {
		ASSERT_TRUE(now.extents.contains(number)) << number;
		ASSERT_EQ(now.extents.at(number).gen, e.gen);
		ASSERT_EQ(now.extents.at(number).slot, e.slot);
	}
}

void Pool::settle()
{
	kernel_.commit_bits(false);
	apply(kernel_.stream().size());
	verify_kernel();
}

void Pool::step()
{
	static constexpr std::pair<uint32_t, void (Pool::*)()> choices[] = {
		{30, &Pool::write},	 {6, &Pool::unmap},	    {3, &Pool::clear},	      {2, &Pool::create},
		{8, &Pool::take},	 {14, &Pool::take_on},	    {3, &Pool::write_late},   {1, &Pool::give_up_taking},
		{2, &Pool::clone},	 {6, &Pool::delete_snapshot}, {1, &Pool::delete_volume}, {4, &Pool::delete_step},
		{12, &Pool::merge},	 {8, &Pool::tell_own},	    {4, &Pool::tell_freeing}, {5, &Pool::commit_bits},
		{5, &Pool::apply_some},	 {2, &Pool::settle},	    {6, &Pool::fold},	      {3, &Pool::predict},
	};
	uint64_t rest = below(128);
	for (const auto &[weight, run] : choices) {
		if (rest < weight)
			return (this->*run)();
		rest -= weight;
	}
	return below(3) == 0 ? crash() : dump_and_restore();
}

}  // namespace

TEST(SnapshotModel, chains_show_the_same_whatever_is_merged_freed_and_replayed)
{
	const char *more = std::getenv("SV_SNAPSHOT_STEPS");
	const uint64_t steps = more ? std::strtoull(more, nullptr, 10) : 6000;
	constexpr uint64_t kRun = 2500;
	std::map<std::string, uint64_t> done;
	for (uint64_t seed = 0; seed * kRun < steps; seed++) {
		Pool pool(seed);
		for (uint64_t n = 0; n < kRun; n++) {
			pool.step();
			pool.verify_reads();
			ASSERT_FALSE(pool.failed()) << "seed " << seed << " step " << n;
		}
		pool.settle();
		for (const auto &[what, count] : pool.done)
			done[what] += count;
	}
	for (const auto &[what, count] : done)
		std::printf("%s: %llu\n", what.c_str(), static_cast<unsigned long long>(count));
}

}  // namespace svd::model

// SPDX-License-Identifier: GPL-2.0
// What snapshots show, what of it nothing else shows, and what their deletion would bring back: each alone, and all that are
// asked for together. Of the catalogue as it is, as if what is being deleted were gone, and all merged and folded.
//
// Index by index, over the maps of all layers of a tree side by side. Most indexes have one entry, which several views show,
// or one that was not asked for: there a deletion changes nothing, and the extent is not even looked at.
#include <map>
#include <set>
#include <unordered_map>

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layer_tree.h"

namespace svd {

namespace {

using Tiers = std::map<uint32_t, uint32_t>;  // by member

class TreeReader {
 public:
	TreeReader(Database &db, const Tiers &tiers, Pace &pace, std::vector<LayerRow> rows)
		: db_(db), pages_(db), tiers_(tiers), pace_(pace), tree_(std::move(rows)), shown_(tree_.size())
	{
	}
	// Layers of this tree that a volume or a snapshot shows, and those that are asked for.
	void show(uint32_t layer) { shown_[*tree_.find(layer)] = true; }
	void ask(uint32_t layer, uint32_t id) { asked_.push_back({*tree_.find(layer), {}, {id, 0, 0, 0}, 0}); }
	Status run(std::vector<SnapshotSpace> &out, int64_t &freed);

 private:
	struct Asked {
		size_t layer = 0;
		std::vector<Family::Merge> merges;  // if it alone goes
		SnapshotSpace space;
		int64_t freed = 0;
	};
	using Entries = std::vector<std::pair<size_t, uint32_t>>;  // of an index: layer and extent

	void plan();
	Status index(const Entries &entries);
	Result<int32_t> add(uint32_t extent);
	Status put_together(const Entries &entries);
	void tell_shown();
	void tell_freed();
	int64_t freed_by(const std::vector<Family::Merge> &merges);

	Database &db_;
	PageStore pages_;
	const Tiers &tiers_;
	Pace &pace_;
	LayerTree tree_;
	std::vector<bool> shown_;
	std::vector<Asked> asked_;

	LayerTree::Rest rest_;
	std::vector<bool> plain_;                       // an entry that is there alone is of no account
	std::vector<uint64_t> alone_;                   // how many such entries each layer has
	std::vector<std::vector<size_t>> goes_with_;    // of each layer: those of asked_ with which it goes
	std::vector<Family::Merge> together_;
	std::vector<bool> goes_together_;
	int64_t freed_ = 0;
	Family family_;
};

Error damaged(std::string why) { return Error(Code::kNeedsCheck, "read", "catalogue", std::move(why), "run 'svctl check' on the pool"); }

Error misplaced(uint32_t extent) { return damaged(fmt::format("extent {} cannot be where it is", extent)); }

uint64_t at_least_none(int64_t freed) { return freed > 0 ? static_cast<uint64_t>(freed) : 0; }

void TreeReader::plan()
{
	rest_ = tree_.settle(shown_);
	goes_with_.resize(tree_.size());
	std::vector<bool> left = shown_;
	for (size_t i = 0; i < asked_.size(); i++) {
		asked_[i].merges = merges_without(rest_, shown_, asked_[i].layer);
		for (const Family::Merge &step : asked_[i].merges)
			goes_with_[step.from].push_back(i);
		left[asked_[i].layer] = false;
	}
	const LayerTree::Rest after = tree_.settle(left);
	together_ = after.merges;
	const std::vector<uint32_t> views = tree_.count_above(shown_), others = tree_.count_above(left);
	for (size_t at = 0; at < tree_.size(); at++) {
		goes_together_.push_back(after.gone[at] && !rest_.gone[at]);
		plain_.push_back(views[at] == 0 || others[at] > 0);
	}
	alone_.resize(tree_.size());
}

// An extent and those below it.
Result<int32_t> TreeReader::add(uint32_t extent)
{
	std::vector<Family::Extent> chain;
	int32_t below = Family::kNothing;
	while (extent != 0) {
		if (const auto known = family_.find(extent)) {
			below = *known;
			break;
		}
		SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
		const auto tier = tiers_.find(entry->member);
		if (!entry->live() || tier == tiers_.end() || chain.size() == SV_MAX_CHAIN)	// perhaps they go in a circle
			return misplaced(extent);
		const Partial *partial = nullptr;
		if (entry->partial()) {
			SV_ASSIGN(partial, pages_.look(extent));
		}
		chain.push_back({extent, entry->orphan(), fold_side(*entry, partial, tier->second), Family::kNothing});
		extent = partial != nullptr ? partial->parent : 0;
	}
	for (; !chain.empty(); chain.pop_back()) {
		chain.back().parent = below;
		below = family_.add(chain.back());
	}
	return below;
}

Status TreeReader::put_together(const Entries &entries)
{
	family_.begin(tree_.size());
	std::set<int32_t> mapped;
	for (const auto &[layer, extent] : entries) {
		int32_t entry = Family::kHole;
		if (extent != kTombstone) {
			SV_ASSIGN(entry, add(extent));
			if (!family_.is_mappable(entry) || !mapped.insert(entry).second)
				return misplaced(extent);
		}
		family_.map(layer, entry);
	}
	for (const Family::Merge &step : rest_.merges)
		family_.merge(step);
	family_.fold();
	return {};
}

// Less than nothing where two extents with fragments, folded, have too many and get a slot.
int64_t TreeReader::freed_by(const std::vector<Family::Merge> &merges)
{
	const uint64_t before = family_.space();
	family_.mark();
	for (const Family::Merge &step : merges)
		family_.merge(step);
	family_.fold();
	const uint64_t after = family_.space();
	family_.back();
	return static_cast<int64_t>(before - after);
}

void TreeReader::tell_freed()
{
	std::set<size_t> each;
	bool together = false;
	for (size_t at = 0; at < tree_.size(); at++) {
		if (family_.entry(at) == Family::kNothing)
			continue;
		each.insert(goes_with_[at].begin(), goes_with_[at].end());
		together = together || goes_together_[at];
	}
	for (const size_t i : each)
		asked_[i].freed += freed_by(asked_[i].merges);
	if (together)
		freed_ += freed_by(together_);
}

void TreeReader::tell_shown()
{
	std::vector<int32_t> seen(tree_.size(), Family::kNothing), tops;
	std::vector<size_t> view(tree_.size()), of;  // where they are in tops
	for (size_t at = 0; at < tree_.size(); at++) {
		if (rest_.gone[at])
			continue;
		seen[at] = family_.entry(at);
		if (seen[at] == Family::kNothing && rest_.below[at])
			seen[at] = seen[*rest_.below[at]];
		view[at] = tops.size();
		if (shown_[at])
			tops.push_back(seen[at]);
	}
	for (const Asked &asked : asked_)
		of.push_back(view[asked.layer]);
	const std::vector<uint64_t> alone = family_.shown_alone(tops, of);
	for (size_t i = 0; i < asked_.size(); i++) {
		asked_[i].space.shown += seen[asked_[i].layer] >= 0 ? uint64_t{SV_EXTENT_SIZE} : 0;
		asked_[i].space.exclusive += alone[i] << SV_BLOCK_SHIFT;
	}
}

Status TreeReader::index(const Entries &entries)
{
	if (entries.size() == 1 && plain_[entries[0].first]) {
		alone_[entries[0].first] += entries[0].second != kTombstone;
		return {};
	}
	SV_TRY(put_together(entries));
	tell_shown();
	tell_freed();
	if (pages_.holds_much())
		pages_.forget();
	return pace_.breathe();
}

Status TreeReader::run(std::vector<SnapshotSpace> &out, int64_t &freed)
{
	plan();
	SV_ASSIGN(LayerPages maps, LayerPages::open(db_, tree_.layers()));
	std::vector<std::pair<size_t, MapPage>> some;
	Entries entries;
	while (true) {
		some.clear();
		uint64_t first = 0;
		SV_ASSIGN(const bool more, maps.next(first, [&](size_t at, const MapPage &page) -> Status {
			some.emplace_back(at, page);
			return pace_.breathe();
		}));
		if (!more)
			break;
		for (uint64_t i = 0; i < MapPage::kEntries; i++) {
			entries.clear();
			for (const auto &[at, page] : some)
				if (page.extent[i] != 0)
					entries.emplace_back(at, page.extent[i]);
			if (!entries.empty())
				SV_TRY(index(entries));
		}
		SV_TRY(pace_.breathe());
	}
	const std::vector<uint64_t> below = tree_.sum_below(alone_);
	for (Asked &asked : asked_) {
		asked.space.shown += below[asked.layer] << SV_EXTENT_SHIFT;
		asked.space.frees = at_least_none(asked.freed);
		out.push_back(asked.space);
	}
	freed += freed_;
	return {};
}

// The layers by tree, and who shows which.
class Forest {
 public:
	struct View {
		uint32_t layer = 0;
		uint32_t snapshot = 0;  // 0: a volume
	};
	struct Tree {
		std::vector<LayerRow> rows;
		std::vector<View> views;
	};
	Status read(Catalogue &catalogue, Database &db);
	std::vector<Tree> &trees() { return trees_; }

 private:
	Status show(uint32_t layer, uint32_t snapshot);

	std::vector<Tree> trees_;
	std::unordered_map<uint32_t, size_t> tree_;  // by layer
};

Status Forest::show(uint32_t layer, uint32_t snapshot)
{
	const auto tree = tree_.find(layer);
	if (tree == tree_.end())
		return damaged(fmt::format("layer {} is missing", layer));
	trees_[tree->second].views.push_back({layer, snapshot});
	return {};
}

Status Forest::read(Catalogue &catalogue, Database &db)
{
	SV_ASSIGN(const std::vector<LayerRow> rows, all_layers(db));
	for (const LayerRow &row : rows) {
		const auto below = tree_.find(row.parent);
		if (row.parent != 0 && below == tree_.end())
			return damaged(fmt::format("layer {} is missing, or not below layer {}", row.parent, row.layer));
		const size_t tree = row.parent != 0 ? below->second : trees_.size();
		if (tree == trees_.size())
			trees_.emplace_back();
		trees_[tree].rows.push_back(row);
		tree_[row.layer] = tree;
	}
	SV_ASSIGN(const std::vector<VolumeRow> volumes, catalogue.volumes());
	for (const VolumeRow &v : volumes)
		if (v.state == VolumeState::kActive)
			SV_TRY(show(v.layer, 0));
	SV_ASSIGN(const std::vector<SnapshotRow> snapshots, catalogue.snapshots());
	for (const SnapshotRow &s : snapshots)
		if (s.state != SnapshotState::kDeleting)
			SV_TRY(show(s.layer, s.id));
	return {};
}

Result<SnapshotSpaces> read_spaces(Catalogue &catalogue, Database &db, const std::set<uint32_t> &wanted, Pace &pace)
{
	Tiers tiers;
	SV_ASSIGN(const std::vector<MemberRow> members, catalogue.members());
	for (const MemberRow &m : members)
		tiers[m.member] = m.tier;
	Forest forest;
	SV_TRY(forest.read(catalogue, db));
	SnapshotSpaces out;
	int64_t freed = 0;
	for (Forest::Tree &tree : forest.trees()) {
		if (std::ranges::none_of(tree.views, [&](const auto &view) { return wanted.contains(view.snapshot); }))
			continue;
		TreeReader reader(db, tiers, pace, std::move(tree.rows));
		for (const Forest::View &view : tree.views) {
			reader.show(view.layer);
			if (wanted.contains(view.snapshot))
				reader.ask(view.layer, view.snapshot);
		}
		SV_TRY(reader.run(out.each, freed));
	}
	if (out.each.size() != wanted.size())
		return damaged("a snapshot has no layer");
	out.frees = at_least_none(freed);
	return out;
}

}  // namespace

Result<SnapshotSpaces> Catalogue::snapshot_spaces(std::span<const uint32_t> ids, Pace &pace)
{
	pace.begin({"reading the maps", 0, 0, ""});
	return read_spaces(*this, *impl_->db, {ids.begin(), ids.end()}, pace);
}

}  // namespace svd

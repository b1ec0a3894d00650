// SPDX-License-Identifier: GPL-2.0
// In which blocks two views differ, from their maps alone: no data is read.
//
// Only indexes count at which a layer has an entry that one of the views has in its chain and the other has not. There each
// view shows a chain of extents. What is at the end of both chains both show; blocks that are valid in an extent before that were
// written since, or are not there any more; but for those that SV_FOLD_FILL copied from below (Partial::written).
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/snapshots.h"

namespace svd {

namespace {

class Differ {
 public:
	using Each = std::function<Status(const ChangedRange &)>;

	Differ(Database &db, Pace &pace, const Each &each) : db_(db), pages_(db), pace_(pace), each_(each) {}
	Status run(const View &from, const View &to);

 private:
	struct Link {
		uint32_t extent = 0;
		ValidBits valid, changed;
	};
	using Links = std::vector<Link>;
	struct Side {
		uint64_t size = 0;
		std::vector<uint32_t> own;  // layers, newest first
		FlatPage page;
	};

	Status begin(const View &from, const View &to);
	Status see(size_t at, const MapPage &page);
	Status look_below();
	Status page();
	Status index(size_t i);
	Result<Links> links(uint32_t extent);
	static ValidBits all(const Links &links, ValidBits Link::*bits);
	Status put(uint64_t offset, bool data);
	Status end() { return pending_.length != 0 ? each_(pending_) : Status(); }

	Database &db_;
	PageStore pages_;
	Pace &pace_;
	const Each &each_;
	Side from_, to_;
	std::vector<uint32_t> common_;  // layers that both have
	Indexes seen_;                  // of this page: where any layer that only one has has an entry
	ChangedRange pending_;
};

Status Differ::begin(const View &from, const View &to)
{
	SV_ASSIGN(from_.own, chain_of(db_, from.layer));
	SV_ASSIGN(to_.own, chain_of(db_, to.layer));
	from_.size = from.size;
	to_.size = to.size;
	while (!from_.own.empty() && !to_.own.empty() && from_.own.back() == to_.own.back()) {
		common_.push_back(from_.own.back());
		from_.own.pop_back();
		to_.own.pop_back();
	}
	std::ranges::reverse(common_);
	return {};
}

// Of each side the newest layer comes first.
Status Differ::see(size_t at, const MapPage &page)
{
	Side &side = at < from_.own.size() ? from_ : to_;
	for (size_t i = 0; i < MapPage::kEntries; i++) {
		if (page.extent[i] == 0)
			continue;
		seen_.set(i);
		if (side.page.map.extent[i] == 0)
			side.page.map.extent[i] = page.extent[i];
	}
	return {};
}

// What is not in one's own layers is in those of both.
Status Differ::look_below()
{
	FlatPage below;
	below.first = from_.page.first;
	Indexes missing;
	for (size_t i = 0; i < MapPage::kEntries; i++)
		missing[i] = seen_[i] && (from_.page.map.extent[i] == 0 || to_.page.map.extent[i] == 0);
	bool more = missing.any();
	for (size_t i = 0; i < common_.size() && more; i++) {
		SV_ASSIGN(more, look_into(db_, common_[i], false, &missing, &below));
	}
	for (Side *side : {&from_, &to_})
		for (size_t i = 0; i < MapPage::kEntries; i++)
			if (side->page.map.extent[i] == 0)
				side->page.map.extent[i] = below.map.extent[i];
	return {};
}

Result<Differ::Links> Differ::links(uint32_t extent)
{
	Links links;
	while (extent != 0 && extent != kTombstone) {
		SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
		if (!entry->live() || links.size() == SV_MAX_CHAIN)	// perhaps they go in a circle
			return Error(Code::kNeedsCheck, "read", "catalogue", fmt::format("extent {} cannot be where it is", extent),
				     "run 'svctl check' on the pool");
		links.push_back({extent, {}, {}});
		links.back().valid.word.fill(~uint64_t{0});
		links.back().changed = links.back().valid;
		if (!entry->partial())
			break;
		SV_ASSIGN(const Partial *partial, pages_.look(extent));
		links.back().valid = partial->valid;
		links.back().changed = partial->changed();
		extent = partial->parent;
	}
	return links;
}

ValidBits Differ::all(const Links &links, ValidBits Link::*bits)
{
	ValidBits all;
	for (const Link &link : links)
		all = both(all, link.*bits);
	return all;
}

Status Differ::put(uint64_t offset, bool data)
{
	if (pending_.length != 0 && pending_.offset + pending_.length == offset && pending_.data == data) {
		pending_.length += SV_BLOCK_SIZE;
		return {};
	}
	SV_TRY(end());
	pending_ = {offset, SV_BLOCK_SIZE, data};
	return {};
}

Status Differ::index(size_t i)
{
	const uint32_t one = from_.page.map.extent[i], other = to_.page.map.extent[i];
	if (one == other)
		return {};
	SV_ASSIGN(Links was, links(one));
	SV_ASSIGN(Links is, links(other));
	const ValidBits data = all(is, &Link::valid);
	while (!was.empty() && !is.empty() && was.back().extent == is.back().extent) {
		was.pop_back();
		is.pop_back();
	}
	const ValidBits changed = both(all(was, &Link::changed), all(is, &Link::changed));
	const uint64_t first = (to_.page.first + i) << SV_EXTENT_SHIFT, end = std::max(from_.size, to_.size);
	for (uint64_t block = 0; block < SV_EXTENT_BLOCKS && first + (block << SV_BLOCK_SHIFT) < end; block++) {
		const uint64_t offset = first + (block << SV_BLOCK_SHIFT);
		if ((changed.word[block / 64] >> block % 64 & 1) != 0)
			SV_TRY(put(offset, offset < to_.size && (data.word[block / 64] >> block % 64 & 1) != 0));
	}
	return {};
}

Status Differ::page()
{
	SV_TRY(look_below());
	for (size_t i = 0; i < MapPage::kEntries; i++) {
		if (!seen_[i])
			continue;
		SV_TRY(index(i));
		SV_TRY(pace_.breathe());
	}
	if (pages_.holds_much())
		pages_.forget();
	return {};
}

Status Differ::run(const View &from, const View &to)
{
	SV_TRY(begin(from, to));
	std::vector<uint32_t> layers = from_.own;
	layers.insert(layers.end(), to_.own.begin(), to_.own.end());
	SV_ASSIGN(LayerPages maps, LayerPages::open(db_, layers));
	while (true) {
		from_.page = to_.page = FlatPage();
		seen_.reset();
		uint64_t first = 0;
		SV_ASSIGN(const bool more, maps.next(first, [&](size_t at, const MapPage &page) { return see(at, page); }));
		if (!more)
			return end();
		from_.page.first = to_.page.first = first;
		SV_TRY(page());
	}
}

}  // namespace

Status Catalogue::for_each_change(uint32_t from, uint32_t to, const std::function<Status(const ChangedRange &)> &fn, Pace &pace)
{
	SV_ASSIGN(const View one, view_of(*this, *impl_->db, from));
	SV_ASSIGN(const View other, view_of(*this, *impl_->db, to));
	pace.begin({"reading the maps", 0, 0, ""});
	return Differ(*impl_->db, pace, fn).run(one, other);
}

}  // namespace svd

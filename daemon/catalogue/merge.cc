// SPDX-License-Identifier: GPL-2.0
// Deleted snapshots go: the layer of one is merged into the only layer above it, or goes with what it maps if there is none;
// under several it waits. A page at a time, and a page that was dealt with is gone, so that each transaction ends in a
// sound catalogue from which the next one goes on: what a chain shows never changes.
//
// An entry that the layer above hides is let go: an extent, if a partial one names it as parent, lives on as an orphan.
// Another entry moves up; a tombstone only where there is something below to be hidden.
//
// Layers wait
// - for their last records: not before the journal is applied beyond their SNAPDONE (next_layer is 0 then). The layer
//   above may get records meanwhile: apply.cc knows that it may have entries which the kernel has further down;
// - while the layer above is that of a pending snapshot: what the kernel hears of owned_since is about the head;
// - while it is the head of a volume that is being deleted: soon it is gone.
//
// What moves up into a head the volume may write to, and the catalogue does not hear of each write: what was written there and what
// copied from below (SV_FOLD_FILL) is known no longer. Where an orphan has such copies, what it will be folded into keeps what was
// written there till then; but in a head, and not before the catalogue has all that was.
#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/reclaim.h"

namespace svd {

namespace {

class Merger {
 public:
	explicit Merger(Database &db) : db_(db), pages_(db), reclaim_(db, pages_) {}
	Result<MergeProgress> run(uint64_t max);

 private:
	Result<bool> choose();
	Result<bool> page();
	Status entry(uint64_t index, uint32_t extent);
	Result<const Partial *> partial(uint32_t extent);
	Status move_up(uint64_t index, uint32_t extent);
	Status keep_copies(uint32_t above, uint32_t extent);
	Result<bool> hides(uint64_t index);
	Status remove();
	Status raise();

	Database &db_;
	PageStore pages_;
	Reclaim reclaim_;
	MergeProgress progress_;
	uint64_t entries_ = 0;  // dealt with; a layer that is read counts as one
	LayerRow from_;
	uint32_t into_ = 0;  // 0: no layer is above it
	bool into_head_ = false;  // that a volume writes
	bool into_all_ = false;  // of which the catalogue has all records, as there will be no more of them
	std::optional<std::vector<uint32_t>> below_;  // from_, newest first; once it is asked for
};

// The newest one, so that an entry moves once however many layers below it go too. False: none, for now.
Result<bool> Merger::choose()
{
	SV_ASSIGN(Query q, db_.query("SELECT s.layer, c.layer, EXISTS (SELECT 1 FROM volumes v WHERE v.layer = c.layer), "
				     "EXISTS (SELECT 1 FROM snapshots o WHERE o.layer = c.layer AND o.next_layer <> 0) "
				     "FROM snapshots s LEFT JOIN layers c ON c.parent = s.layer "
				     "WHERE s.state = 2 AND s.next_layer = 0 "
				     "AND NOT EXISTS (SELECT 1 FROM snapshots o WHERE o.layer = s.layer AND o.state <> 2) "
				     "AND NOT EXISTS (SELECT 1 FROM volumes v WHERE v.layer = s.layer) "
				     "AND NOT EXISTS (SELECT 1 FROM snapshots o WHERE o.layer = c.layer AND o.state = 1) "
				     "AND NOT EXISTS (SELECT 1 FROM volumes v WHERE v.layer = c.layer AND v.state = 1) "
				     "AND (SELECT count(*) FROM layers o WHERE o.parent = s.layer) < 2 "
				     "ORDER BY s.layer DESC LIMIT 1"));
	SV_ASSIGN(const bool row, q.step());
	if (!row)
		return false;
	SV_ASSIGN(from_, layer_row(db_, q.u32(0)));
	into_ = q.u32(1);
	into_head_ = q.u64(2) != 0;
	into_all_ = !into_head_ && q.u64(3) == 0;
	below_.reset();
	return true;
}

// Does an older layer map the index?
Result<bool> Merger::hides(uint64_t index)
{
	if (!below_) {
		SV_ASSIGN(below_, chain_of(db_, from_.parent));
		entries_ += below_->size();
	}
	for (const uint32_t layer : *below_) {
		SV_ASSIGN(const uint32_t *there, pages_.map_entry(layer, index, false));
		if (*there != 0)
			return *there != kTombstone;
	}
	return false;
}

// Null: it is whole, or none.
Result<const Partial *> Merger::partial(uint32_t extent)
{
	if (extent == kTombstone)
		return nullptr;
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
	return entry->partial() ? pages_.look(extent) : Result<const Partial *>(nullptr);
}

Status Merger::move_up(uint64_t index, uint32_t extent)
{
	SV_ASSIGN(uint32_t *above, pages_.map_entry(into_, index, true));
	*above = extent;
	if (!into_head_)
		return {};
	SV_ASSIGN(const Partial *copies, partial(extent));
	if (copies == nullptr || !copies->written)
		return {};
	SV_ASSIGN(std::optional<ValidBits> *written, pages_.written(extent));
	written->reset();
	return {};
}

// That one hides the extent. If it lies over it, and not over one that it has outgrown: that may be overwritten where it is, should the
// volume get all of them.
Status Merger::keep_copies(uint32_t above, uint32_t extent)
{
	SV_ASSIGN(const Partial *copies, partial(extent));
	SV_ASSIGN(const Partial *over, partial(above));
	if (copies == nullptr || !copies->written || over == nullptr || over->parent != extent || over->written)
		return {};
	SV_ASSIGN(std::optional<ValidBits> *written, pages_.written(above));
	*written = over->valid;
	return {};
}

Status Merger::entry(uint64_t index, uint32_t extent)
{
	bool moves = false;
	uint32_t hiding = 0;
	if (into_ != 0) {
		SV_ASSIGN(const uint32_t *above, pages_.map_entry(into_, index, false));
		hiding = *above;
		moves = hiding == 0;
	}
	if (moves && extent == kTombstone) {
		SV_ASSIGN(moves, hides(index));
	}
	if (moves)
		return move_up(index, extent);
	if (extent == kTombstone)
		return {};
	if (into_all_)
		SV_TRY(keep_copies(hiding, extent));
	return reclaim_.let_go(extent);
}

// False: the layer has no page left.
Result<bool> Merger::page()
{
	uint64_t key = 0;
	MapPage page;
	SV_ASSIGN(const bool more, first_map_page(db_, from_.layer, key, page));
	if (!more)
		return false;
	SV_TRY(drop_map_page(db_, key));
	for (uint64_t i = 0; i < MapPage::kEntries; i++) {
		if (page.extent[i] == 0)
			continue;
		entries_++;
		SV_TRY(entry(first_index(key) + i, page.extent[i]));
	}
	SV_TRY(pages_.relieve());
	return true;
}

// The layer above continues what this one continued.
Status Merger::raise()
{
	SV_ASSIGN(const LayerRow above, layer_row(db_, into_));
	const uint32_t low = std::min(above.lowest(), from_.lowest());
	SV_ASSIGN(Query q, db_.query("UPDATE layers SET parent = ?, low = ? WHERE layer = ?"));
	SV_TRY(q.bind(from_.parent).bind(low).bind(into_).run());
	SV_ASSIGN(Query owner, db_.query("UPDATE volumes SET owned_since = ?1 WHERE layer = ?2 RETURNING id"));
	SV_ASSIGN(const bool head, owner.bind(low).bind(into_).step());
	if (head)
		progress_.own.push_back({owner.u32(0), into_, low});
	return {};
}

// Written before: what comes next looks into the database.
Status Merger::remove()
{
	entries_++;
	SV_TRY(pages_.flush());
	if (into_ != 0)
		SV_TRY(raise());
	SV_ASSIGN(Query layer, db_.query("DELETE FROM layers WHERE layer = ?"));
	SV_TRY(layer.bind(from_.layer).run());
	SV_ASSIGN(Query snapshot, db_.query("DELETE FROM snapshots WHERE layer = ?"));
	return snapshot.bind(from_.layer).run();
}

Result<MergeProgress> Merger::run(uint64_t max)
{
	while (entries_ < max && !progress_.done) {
		SV_ASSIGN(const bool chosen, choose());
		progress_.done = !chosen;
		bool more = chosen;
		while (more && entries_ < max) {
			SV_ASSIGN(more, page());
		}
		if (chosen && !more)
			SV_TRY(remove());
	}
	SV_TRY(pages_.flush());
	progress_.freed = reclaim_.freed();
	return std::move(progress_);
}

}  // namespace

Result<MergeProgress> Catalogue::merge_step(uint64_t max)
{
	MergeProgress progress;
	SV_TRY(impl_->large_transaction([&]() -> Status {
		SV_ASSIGN(progress, Merger(*impl_->db).run(max));
		return {};
	}));
	return progress;
}

// ---- what the kernel has to free ----

Result<std::vector<sv_freed>> Catalogue::freeing(uint32_t max)
{
	SV_ASSIGN(Query q, impl_->db->query("SELECT extent, gen FROM freeing ORDER BY turn LIMIT ?"));
	q.bind(max);
	std::vector<sv_freed> rows;
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return rows;
		rows.push_back({q.u32(0), static_cast<uint16_t>(q.u32(1)), 0});
	}
}

Status Catalogue::freeing_told(std::span<const sv_freed> told)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(Query q, impl_->db->query("DELETE FROM freeing WHERE extent = ? AND gen = ?"));
		for (const sv_freed &f : told)
			SV_TRY(q.bind(f.extent).bind(f.gen).run());
		return {};
	});
}

Status Catalogue::clear_freeing()
{
	SV_ASSIGN(const uint64_t rows, impl_->db->number("SELECT count(*) FROM freeing"));
	return rows == 0 ? Status() : transaction([&] { return impl_->db->exec("DELETE FROM freeing"); });
}

}  // namespace svd

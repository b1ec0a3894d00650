// SPDX-License-Identifier: GPL-2.0
// The catalogue as text, which restore.cc reads. One item a line, words separated by spaces, in a fixed order; '#' begins a
// comment.
//
//	svctl-dump 1
//	pool NAME UUID CREATED INCARNATION GENERATION NO_SPACE_MS COMMIT_MS [pass]
//	journal INCARNATION SEQ OFFSET CRC          how far the journal is contained; only compared with the pool's own
//	next VOLUME LAYER                           numbers not used yet
//	member INDEX UUID TIER TIER_NAME SLOTS FLAGS [leaving]
//	snapshot ID VOLUME NAME SIZE done|pending|deleting LAYER LOWEST PARENT NEXT_LAYER CREATED [held]
//	volume ID NAME SIZE active|deleting LAYER OWNED_SINCE CREATED FLAGS TIERS [manual] [over PARENT]
//	map ID INDEX COUNT MEMBER SLOT [EXTENT GEN]
//	hole ID INDEX COUNT                         hides what an older layer maps there
//	wanted ID VOLUME NAME SIZE LAYER NEXT_LAYER CREATED
//	orphan EXTENT GEN MEMBER SLOT               no layer maps it, partial ones have it as parent
//	fragment EXTENT NUMBER SLOT PART            where one of its 16 is: which 16th of a slot
//	partial EXTENT VALID [PARENT [WRITTEN]]     64 hexadecimal digits, block 0 last
//	freeing EXTENT GEN                          the kernel has not heard yet that it is free
//	end                                         the last line: a text without it was cut off
//
// pass: discards are passed down to members. leaving: it is to be emptied; that belongs to the device, as its UUID does, and restore
// passes over both. manual: the volume does not come up with its pool. Which volumes are up now is not in it: a pool that is
// restored comes up anew. A volume's line may end with schedule RULES (base/schedule.h), a snapshot's with scheduled: such a
// schedule made it.
//
// WRITTEN: the valid blocks but for those that were copied from PARENT.
//
// LAYER is what the snapshot froze or the volume writes, with all from LOWEST or OWNED_SINCE on that was merged into it; it
// lies over PARENT, the layer of a snapshot that has its line before. map and hole: what that one layer has. wanted: a
// snapshot that was asked for, and whose volume still writes the layer that is to be frozen.
//
// A map line stands for COUNT extents at consecutive indexes in consecutive slots with consecutive numbers. Where
// EXTENT is left out restore takes the numbers behind the highest one so far, and generation 1. Extents with fragments have '-'
// for SLOT, in map and orphan.
#include <fmt/format.h>

#include <ostream>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/dump.h"
#include "daemon/catalogue/layers.h"

namespace svd {

namespace {

struct Run {
	uint64_t index = 0;
	uint64_t count = 0;
	uint32_t extent = 0;  // 0: a hole
	ExtentEntry entry;

	bool continued_by(uint64_t next_index, uint32_t next_extent, const ExtentEntry &e) const
	{
		if (count == 0 || next_index != index + count)
			return false;
		if (extent == 0 || next_extent == 0)
			return extent == next_extent;
		return next_extent == extent + count && e.member == entry.member && e.gen == entry.gen &&
		       e.fragments() == entry.fragments() && (e.fragments() || e.slot == entry.slot + count);
	}
};

std::string slot_text(const ExtentEntry &e) { return e.fragments() ? "-" : fmt::format("{}", e.slot); }

class Dumper {
 public:
	Dumper(Catalogue &catalogue, Database &db, std::ostream &out, Pace &pace)
		: catalogue_(catalogue), pages_(db), db_(db), out_(out), pace_(pace)
	{
	}
	Status run();

 private:
	Status head();
	Status snapshots();
	Status snapshot(const SnapshotRow &s, const LayerRow &layer);
	void wanted(const SnapshotRow &s);
	Status volume(const VolumeRow &v);
	Status map(uint32_t id, uint32_t layer);
	Status entry(uint32_t id, uint64_t index, uint32_t extent, Run &run);
	void write_run(uint32_t id, const Run &run);
	Status orphans();
	Status fragments();
	Status partials();
	Status freeing();

	Catalogue &catalogue_;
	PageStore pages_;  // reading only
	Database &db_;
	std::ostream &out_;
	Pace &pace_;
	uint64_t entries_ = 0;
	std::vector<SnapshotRow> wanted_;
};

Status Dumper::head()
{
	SV_ASSIGN(const PoolRow p, catalogue_.pool());
	SV_ASSIGN(const sv_ring_cursor a, catalogue_.applied());
	SV_ASSIGN(const uint64_t volume, db_.number("SELECT next_volume FROM pool"));
	SV_ASSIGN(const uint64_t layer, db_.number("SELECT next_layer FROM pool"));
	out_ << kDumpHeader << '\n'
	     << fmt::format("pool {} {} {} {} {} {} {}{}\n", p.name, p.uuid.str(), p.created, p.incarnation,
			    p.generation, p.no_space_ms, p.commit_ms, p.pass_discards ? " pass" : "")
	     << fmt::format("journal {} {} {} {}\n", p.incarnation, a.seq, a.off, a.prev_crc)
	     << fmt::format("next {} {}\n", volume, layer);
	SV_ASSIGN(const std::vector<MemberRow> members, catalogue_.members());
	SV_ASSIGN(const uint64_t leaving, catalogue_.leaving());
	for (const MemberRow &m : members)
		out_ << fmt::format("member {} {} {} {} {} {}{}\n", m.member, m.uuid.str(), m.tier, m.tier_name, m.nr_slots,
				    m.flags, (leaving >> m.member & 1) != 0 ? " leaving" : "");
	return {};
}

void Dumper::write_run(uint32_t id, const Run &run)
{
	if (run.count == 0)
		return;
	if (run.extent == 0)
		out_ << fmt::format("hole {} {} {}\n", id, run.index, run.count);
	else
		out_ << fmt::format("map {} {} {} {} {} {} {}\n", id, run.index, run.count, run.entry.member,
				    slot_text(run.entry), run.extent, run.entry.gen);
}

Status Dumper::entry(uint32_t id, uint64_t index, uint32_t extent, Run &run)
{
	SV_TRY(pace_.step(++entries_ / kEntriesOfPage));
	ExtentEntry entry;
	if (extent != 0) {
		SV_ASSIGN(const ExtentEntry *found, pages_.extent(extent, false));
		if (!found->live())
			return Error(Code::kNeedsCheck, "dump", "catalogue",
				     fmt::format("volume {} maps extent {}, which is not there", id, extent),
				     "run 'svctl check' on the pool");
		entry = *found;
	}
	if (run.continued_by(index, extent, entry)) {
		run.count++;
		return {};
	}
	write_run(id, run);
	run = {index, 1, extent, entry};
	return pages_.relieve();
}

// A layer's own entries, in lines that name it by the volume.
Status Dumper::map(uint32_t id, uint32_t layer)
{
	Run run;
	SV_TRY(each_map_page(db_, layer, [&](uint64_t key, const MapPage &page) -> Status {
		for (uint64_t i = 0; i < MapPage::kEntries; i++)
			if (const uint32_t extent = page.extent[i]; extent != 0)
				SV_TRY(entry(id, first_index(key) + i, extent == kTombstone ? 0 : extent, run));
		return {};
	}));
	write_run(id, run);
	return {};
}

static const char *name_of(SnapshotState state)
{
	return state == SnapshotState::kDone ? "done" : state == SnapshotState::kPending ? "pending" : "deleting";
}

Status Dumper::snapshot(const SnapshotRow &s, const LayerRow &layer)
{
	out_ << fmt::format("snapshot {} {} {} {} {} {} {} {} {} {}{}{}\n", s.id, s.volume, s.name, s.size, name_of(s.state),
			    s.layer, layer.lowest(), layer.parent, s.next_layer, s.created, s.held ? " held" : "",
			    s.scheduled ? " scheduled" : "");
	return map(s.id, s.layer);
}

void Dumper::wanted(const SnapshotRow &s)
{
	out_ << fmt::format("wanted {} {} {} {} {} {} {}\n", s.id, s.volume, s.name, s.size, s.layer, s.next_layer,
			    s.created);
}

// A layer comes before those that lie over it.
Status Dumper::snapshots()
{
	SV_ASSIGN(const std::vector<LayerRow> rows, all_layers(db_));
	std::unordered_map<uint32_t, LayerRow> layers;
	for (const LayerRow &l : rows)
		layers[l.layer] = l;
	SV_ASSIGN(const std::vector<SnapshotRow> snapshots, catalogue_.snapshots());
	for (const SnapshotRow &s : snapshots) {
		if (s.state == SnapshotState::kPending && !layers.contains(s.next_layer))
			wanted_.push_back(s);
		else
			SV_TRY(snapshot(s, layers[s.layer]));
	}
	return {};
}

Status Dumper::volume(const VolumeRow &v)
{
	out_ << fmt::format("volume {} {} {} {} {} {} {} {} {}{}{}{}\n", v.id, v.name, v.size,
			    v.state == VolumeState::kActive ? "active" : "deleting", v.layer, v.owned_since, v.created,
			    v.flags, v.tiers, v.autoactivate ? "" : " manual",
			    v.parent_layer == 0 ? "" : fmt::format(" over {}", v.parent_layer),
			    v.schedule == "none" ? "" : " schedule " + v.schedule);
	return map(v.id, v.layer);
}

// There are none but with partial extents that have parents.
Status Dumper::orphans()
{
	SV_ASSIGN(const uint64_t any, db_.number("SELECT EXISTS (SELECT 1 FROM partials WHERE parent <> 0)"));
	if (any == 0)
		return {};
	return each_extent(db_, [this](uint32_t number, const ExtentEntry &e) -> Status {
		if (e.orphan())
			out_ << fmt::format("orphan {} {} {} {}\n", number, e.gen, e.member, slot_text(e));
		return {};
	});
}

Status Dumper::freeing()
{
	SV_ASSIGN(const std::vector<sv_freed> rows, catalogue_.freeing(UINT32_MAX));
	for (const sv_freed &f : rows)
		out_ << fmt::format("freeing {} {}\n", f.extent, f.gen);
	return {};
}

// Before the valid bits, so that these can be checked against them.
Status Dumper::fragments()
{
	return catalogue_.for_each_partial([&](std::span<const sv_partial_bits> batch) -> Status {
		for (const sv_partial_bits &p : batch)
			for (size_t i = 0; i < std::size(p.place); i++)
				if (const uint32_t place = p.place[i]; place != 0)
					out_ << fmt::format("fragment {} {} {} {}\n", p.extent, i, slot_of_place(place),
							    part_of_place(place));
		return pace_.breathe();
	});
}

template <typename Words>
std::string hex(const Words &bits)
{
	return fmt::format("{:016x}{:016x}{:016x}{:016x}", bits[3], bits[2], bits[1], bits[0]);
}

Status Dumper::partials()
{
	SV_ASSIGN(WrittenRows rows, WrittenRows::open(db_));
	return catalogue_.for_each_partial([&](std::span<const sv_partial_bits> batch) -> Status {
		for (const sv_partial_bits &p : batch) {
			SV_ASSIGN(const ValidBits *written, rows.of(p.extent));
			out_ << fmt::format("partial {} {}{}{}\n", p.extent, hex(p.valid), p.parent == 0 ? "" : fmt::format(" {}", p.parent),
					    written == nullptr ? "" : " " + hex(written->word));
		}
		return pace_.breathe();
	});
}

Status Dumper::run()
{
	SV_ASSIGN(const uint64_t pages, db_.number("PRAGMA page_count"));
	pace_.begin({"writing the dump", 0, pages, "pages"});
	SV_TRY(head());
	SV_TRY(snapshots());
	SV_ASSIGN(const std::vector<VolumeRow> volumes, catalogue_.volumes());
	for (const VolumeRow &v : volumes)
		SV_TRY(volume(v));
	for (const SnapshotRow &s : wanted_)
		wanted(s);
	SV_TRY(orphans());
	SV_TRY(fragments());
	SV_TRY(partials());
	SV_TRY(freeing());
	out_ << "end\n";
	out_.flush();
	if (!out_)
		return Error(Code::kFailure, "write", "dump", "the output cannot be written");
	return {};
}

}  // namespace

Status Catalogue::dump(std::ostream &out, Pace &pace) { return Dumper(*this, *impl_->db, out, pace).run(); }

}  // namespace svd

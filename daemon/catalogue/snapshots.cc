// SPDX-License-Identifier: GPL-2.0
// Snapshots: rows, names, and how one comes to be. It is asked for (pending), the kernel writes LAYER and SNAPDONE, and
// with the latter it is there (done). What came only half of the way is deleted like any other.
#include "daemon/catalogue/snapshots.h"

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"

namespace svd {

static constexpr char kColumns[] = "SELECT id, volume, name, size, state, layer, next_layer, created, held, active, scheduled "
				   "FROM snapshots ";

static SnapshotRow row_of(const Query &q)
{
	SnapshotRow s;
	s.id = q.u32(0);
	s.volume = q.u32(1);
	s.name = q.text(2);
	s.size = q.u64(3);
	s.state = static_cast<SnapshotState>(q.u32(4));
	s.layer = q.u32(5);
	s.next_layer = q.u32(6);
	s.created = q.u64(7);
	s.held = q.u32(8) != 0;
	s.active = q.u32(9) != 0;
	s.scheduled = q.u32(10) != 0;
	return s;
}

static Result<std::optional<SnapshotRow>> one(Query q)
{
	SV_ASSIGN(const bool row, q.step());
	return row ? std::optional(row_of(q)) : std::nullopt;
}

Result<std::optional<SnapshotRow>> snapshot_row(Database &db, uint32_t id)
{
	static const std::string sql = std::string(kColumns) + "WHERE id = ?";
	SV_ASSIGN(Query q, db.query(sql.c_str()));
	q.bind(id);
	return one(std::move(q));
}

Result<View> view_of(Catalogue &catalogue, Database &db, uint32_t id)
{
	SV_ASSIGN(const auto snapshot, snapshot_row(db, id));
	if (snapshot)
		return View{snapshot->layer, snapshot->size};
	SV_ASSIGN(const VolumeRow v, catalogue.volume(id));
	return View{v.layer, v.size};
}

Result<std::optional<SnapshotRow>> snapshot_of_layer(Database &db, uint32_t layer)
{
	static const std::string sql = std::string(kColumns) + "WHERE layer = ?";
	SV_ASSIGN(Query q, db.query(sql.c_str()));
	q.bind(layer);
	return one(std::move(q));
}

static Result<std::optional<SnapshotRow>> named(Database &db, uint32_t volume, std::string_view name)
{
	static const std::string sql = std::string(kColumns) + "WHERE volume = ? AND name = ? AND state <> 2";
	SV_ASSIGN(Query q, db.query(sql.c_str()));
	q.bind(volume).bind(name);
	return one(std::move(q));
}

static Error no_snapshot(std::string name)
{
	return Error(Code::kNotFound, "find", "snapshot " + std::move(name), "there is no such snapshot", "see svctl list");
}

static Error name_taken(std::string_view name)
{
	return Error(Code::kBusy, "use", fmt::format("snapshot name {}", name), "another snapshot of the volume has it",
		     "choose another name, or rename that snapshot first");
}

// ---- becoming ----

Status switch_head(Database &db, const SnapshotRow &s)
{
	SV_TRY(insert_layer(db, {s.next_layer, s.volume, s.layer, 0}));
	SV_ASSIGN(Query q, db.query("UPDATE volumes SET layer = ?1, owned_since = ?1 WHERE id = ?2"));
	return q.bind(s.next_layer).bind(s.volume).run();
}

Status settle_snapshot(Database &db, uint32_t id, SnapshotState state)
{
	SV_ASSIGN(Query q, db.query("UPDATE snapshots SET state = ?, next_layer = 0 WHERE id = ?"));
	return q.bind(static_cast<uint64_t>(state)).bind(id).run();
}

Status insert_snapshot(Database &db, const SnapshotRow &s)
{
	SV_ASSIGN(Query q, db.query("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
	return q.bind(s.id).bind(s.volume).bind(std::string_view(s.name)).bind(s.size)
		.bind(static_cast<uint64_t>(s.state)).bind(s.layer).bind(s.next_layer).bind(s.created).bind(s.held)
		.bind(s.active).bind(s.scheduled).run();
}

// Two at once of one volume would freeze the same layer.
static Status refuse_second(Database &db, const VolumeRow &v)
{
	SV_ASSIGN(Query q, db.query("SELECT 1 FROM snapshots WHERE volume = ? AND state = 1"));
	SV_ASSIGN(const bool under_way, q.bind(v.id).step());
	if (!under_way)
		return {};
	return Error(Code::kBusy, "create", "snapshot of " + v.name, "another snapshot of it is under way",
		     "repeat it a little later");
}

static Result<SnapshotRow> ask_for(Catalogue &catalogue, Database &db, const SnapshotWanted &wanted, uint64_t created)
{
	SV_TRY(check_name("snapshot", wanted.name, SV_SNAPSHOT_NAME_MAX));
	SV_ASSIGN(const VolumeRow v, catalogue.volume(wanted.volume));
	if (v.state != VolumeState::kActive)
		return Error(Code::kNotFound, "find", "volume " + v.name, "it is being deleted", "see svctl list");
	SV_ASSIGN(const auto taken, named(db, v.id, wanted.name));
	if (taken)
		return name_taken(wanted.name);
	SV_TRY(refuse_second(db, v));
	SnapshotRow s;
	SV_ASSIGN(const Numbers numbers, take_numbers(db, "snapshot " + wanted.name));
	s.id = numbers.volume;
	s.volume = v.id;
	s.name = wanted.name;
	s.state = SnapshotState::kPending;
	s.layer = v.layer;
	s.next_layer = numbers.layer;
	s.size = v.size;
	s.created = created;
	s.scheduled = wanted.scheduled;
	SV_TRY(insert_snapshot(db, s));
	return s;
}

Result<std::vector<SnapshotRow>> Catalogue::begin_snapshots(std::span<const SnapshotWanted> wanted, uint64_t created)
{
	std::vector<SnapshotRow> rows;
	SV_TRY(transaction([&]() -> Status {
		for (const SnapshotWanted &w : wanted) {
			SV_ASSIGN(SnapshotRow row, ask_for(*this, *impl_->db, w, created));
			rows.push_back(std::move(row));
		}
		return {};
	}));
	return rows;
}

static Status finish(Database &db, const SnapshotRow &s)
{
	if (s.state != SnapshotState::kPending)
		return {};
	SV_ASSIGN(Query layer, db.query("SELECT 1 FROM layers WHERE layer = ?"));
	SV_ASSIGN(const bool applied, layer.bind(s.next_layer).step());
	if (!applied)
		SV_TRY(switch_head(db, s));
	SV_ASSIGN(Query q, db.query("UPDATE snapshots SET state = 0 WHERE id = ?"));
	return q.bind(s.id).run();
}

Status Catalogue::finish_snapshots(std::span<const uint32_t> ids)
{
	return transaction([&]() -> Status {
		for (const uint32_t id : ids) {
			SV_ASSIGN(const SnapshotRow s, snapshot(id));
			SV_TRY(finish(*impl_->db, s));
		}
		return {};
	});
}

Status Catalogue::resolve_pending()
{
	SV_ASSIGN(const uint64_t open, impl_->db->number("SELECT count(*) FROM snapshots WHERE next_layer <> 0"));
	if (open == 0)
		return {};
	return transaction([&]() -> Status {
		SV_TRY(impl_->db->exec("DELETE FROM snapshots WHERE state = 1 AND next_layer NOT IN (SELECT layer FROM layers)"));
		SV_TRY(impl_->db->exec("UPDATE snapshots SET state = 2 WHERE state = 1"));
		return impl_->db->exec("UPDATE snapshots SET next_layer = 0");
	});
}

// ---- being there ----

Result<std::vector<SnapshotRow>> Catalogue::snapshots()
{
	static const std::string sql = std::string(kColumns) + "ORDER BY layer";
	SV_ASSIGN(Query q, impl_->db->query(sql.c_str()));
	std::vector<SnapshotRow> rows;
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return rows;
		rows.push_back(row_of(q));
	}
}

Result<SnapshotRow> Catalogue::snapshot(uint32_t id)
{
	SV_ASSIGN(std::optional<SnapshotRow> s, snapshot_row(*impl_->db, id));
	if (!s)
		return no_snapshot(fmt::format("number {}", id));
	return *std::move(s);
}

Result<SnapshotRow> Catalogue::snapshot(uint32_t volume, std::string_view name)
{
	SV_ASSIGN(std::optional<SnapshotRow> s, named(*impl_->db, volume, name));
	if (!s || s->state != SnapshotState::kDone)
		return no_snapshot(std::string(name.substr(0, 64)));
	return *std::move(s);
}

// One that is done: others cannot be changed.
static Result<SnapshotRow> done_one(Catalogue &catalogue, uint32_t id)
{
	SV_ASSIGN(SnapshotRow s, catalogue.snapshot(id));
	if (s.state != SnapshotState::kDone)
		return no_snapshot(s.name);
	return s;
}

Status Catalogue::rename_snapshot(uint32_t id, std::string_view name)
{
	SV_TRY(check_name("snapshot", name, SV_SNAPSHOT_NAME_MAX));
	return transaction([&]() -> Status {
		SV_ASSIGN(const SnapshotRow s, done_one(*this, id));
		if (s.name == name)
			return {};
		SV_ASSIGN(const auto taken, named(*impl_->db, s.volume, name));
		if (taken)
			return name_taken(name);
		SV_ASSIGN(Query q, impl_->db->query("UPDATE snapshots SET name = ?, scheduled = 0 WHERE id = ?"));
		return q.bind(name).bind(id).run();
	});
}

Status Catalogue::set_held(uint32_t id, bool on)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const SnapshotRow s, done_one(*this, id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE snapshots SET held = ? WHERE id = ?"));
		return q.bind(on).bind(s.id).run();
	});
}

Status Catalogue::set_snapshot_active(uint32_t id, bool on)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const SnapshotRow s, done_one(*this, id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE snapshots SET active = ? WHERE id = ?"));
		return q.bind(on).bind(s.id).run();
	});
}

Status Catalogue::begin_delete_snapshot(uint32_t id)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const SnapshotRow s, done_one(*this, id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE snapshots SET state = 2 WHERE id = ?"));
		return q.bind(s.id).run();
	});
}

}  // namespace svd

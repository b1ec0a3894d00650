// SPDX-License-Identifier: GPL-2.0
// Volumes: rows, names, and deletion in bounded steps.
#include <fmt/format.h>

#include "daemon/base/schedule.h"
#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"
#include "daemon/catalogue/reclaim.h"
#include "daemon/catalogue/snapshots.h"

namespace svd {

static constexpr char kColumns[] = "SELECT id, name, size, state, layer, owned_since, created, flags, tiers, autoactivate, "
				   "active, schedule, (SELECT parent FROM layers WHERE layers.layer = volumes.layer) FROM volumes ";

static VolumeRow row_of(const Query &q)
{
	VolumeRow v;
	v.id = q.u32(0);
	v.name = q.text(1);
	v.size = q.u64(2);
	v.state = static_cast<VolumeState>(q.u32(3));
	v.layer = q.u32(4);
	v.owned_since = q.u32(5);
	v.created = q.u64(6);
	v.flags = q.u32(7);
	v.tiers = q.u64(8);
	v.autoactivate = q.u32(9) != 0;
	v.active = q.u32(10) != 0;
	v.schedule = q.text(11);
	v.parent_layer = q.u32(12);
	return v;
}

Status check_volume_size(uint64_t size, std::string_view name)
{
	const std::string object = fmt::format("volume {}", name);
	if (size == 0 || size % SV_BLOCK_SIZE != 0)
		return Error(Code::kUsage, "size", object, fmt::format("{} bytes are not a multiple of 4 KiB", size),
			     "choose a size of at least 4 KiB that is a multiple of it");
	if (size > SV_VOLUME_SIZE_MAX)
		return Error(Code::kUsage, "size", object, "it is larger than a volume can be",
			     "choose at most 64 PiB");
	return {};
}

static Error no_volume(std::string name)
{
	return Error(Code::kNotFound, "find", "volume " + std::move(name), "the pool has no such volume",
		     "see svctl list");
}

static Error name_taken(std::string_view name)
{
	return Error(Code::kBusy, "use", fmt::format("volume name {}", name), "another volume has it",
		     "choose another name, or rename that volume first");
}

static Result<bool> taken(Database &db, std::string_view name)
{
	SV_ASSIGN(Query q, db.query("SELECT 1 FROM volumes WHERE name = ? AND state = 0"));
	return q.bind(name).step();
}

Status insert_volume(Database &db, const VolumeRow &v)
{
	SV_ASSIGN(Query q, db.query("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
	return q.bind(v.id).bind(std::string_view(v.name)).bind(v.size).bind(static_cast<uint64_t>(v.state)).bind(v.layer)
		.bind(v.owned_since).bind(v.created).bind(v.flags).bind(v.tiers).bind(v.autoactivate).bind(v.active)
		.bind(std::string_view(v.schedule)).run();
}

static Result<bool> number_is_used(Database &db, uint64_t number)
{
	SV_ASSIGN(Query q, db.query("SELECT 1 FROM volumes WHERE id = ?1 UNION ALL SELECT 1 FROM snapshots WHERE id = ?1 "
				    "UNION ALL SELECT 1 FROM layers WHERE volume = ?1"));
	return q.bind(number).step();
}

// All have been used. In turn come those that nothing has any more. One that was given up a moment ago may come, too: its volume
// left the kernel before its row went.
static Result<uint32_t> number_again(Database &db)
{
	SV_ASSIGN(uint64_t number, db.number("SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM policies WHERE key = 'last number'"));
	bool used = true;
	for (uint32_t tried = 0; used; tried++) {
		if (tried == SV_VOLUME_ID_MAX)
			return Error(Code::kNoSpace, "create", "volume or snapshot", "the pool has no numbers left", "delete some snapshots");
		number = number < SV_VOLUME_ID_MAX ? number + 1 : 1;
		SV_ASSIGN(used, number_is_used(db, number));
	}
	SV_ASSIGN(Query q, db.query("INSERT OR REPLACE INTO policies VALUES ('last number', ?)"));
	SV_TRY(q.bind(std::string_view(std::to_string(number))).run());
	return static_cast<uint32_t>(number);
}

static Result<uint32_t> take_volume_number(Database &db)
{
	SV_ASSIGN(const uint64_t next, db.number("SELECT next_volume FROM pool"));
	if (next > SV_VOLUME_ID_MAX)
		return number_again(db);
	SV_TRY(db.exec("UPDATE pool SET next_volume = next_volume + 1"));
	return static_cast<uint32_t>(next);
}

Result<Numbers> take_numbers(Database &db, std::string object)
{
	SV_ASSIGN(const uint64_t layer, db.number("SELECT next_layer FROM pool"));
	if (layer >= kTombstone)
		return Error(Code::kNoSpace, "create", std::move(object), "the pool has no layer numbers left",
			     "numbers of layers are never used twice: create another pool");
	SV_ASSIGN(const uint32_t volume, take_volume_number(db));
	SV_TRY(db.exec("UPDATE pool SET next_layer = next_layer + 1"));
	return Numbers{volume, static_cast<uint32_t>(layer)};
}

// A clone begins as the snapshot that it is made from.
static Status check_origin(Database &db, const VolumeRow &v)
{
	if (v.parent_layer == 0)
		return {};
	SV_ASSIGN(const auto origin, snapshot_of_layer(db, v.parent_layer));
	if (!origin || origin->state != SnapshotState::kDone)
		return Error(Code::kNotFound, "create", "volume " + v.name,
			     fmt::format("no snapshot has layer {}", v.parent_layer), "see svctl list");
	if (v.size < origin->size)
		return Error(Code::kUsage, "create", "volume " + v.name, "it is smaller than its snapshot",
			     fmt::format("choose at least {} bytes", origin->size));
	return {};
}

Result<VolumeRow> Catalogue::create_volume(const VolumeRow &wanted)
{
	SV_TRY(check_volume_name(wanted.name));
	SV_TRY(check_volume_size(wanted.size, wanted.name));
	VolumeRow v = wanted;
	SV_TRY(transaction([&]() -> Status {
		Database &db = *impl_->db;
		SV_ASSIGN(const bool exists, taken(db, v.name));
		if (exists && v.state == VolumeState::kActive)
			return name_taken(v.name);
		SV_TRY(check_origin(db, v));
		SV_ASSIGN(const Numbers numbers, take_numbers(db, "volume " + v.name));
		v.id = numbers.volume;
		v.layer = v.owned_since = numbers.layer;
		SV_TRY(insert_layer(db, {v.layer, v.id, v.parent_layer, 0}));
		return insert_volume(db, v);
	}));
	return v;
}

Status Catalogue::confirm_volume(uint32_t id)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(const bool exists, taken(*impl_->db, v.name));
		if (exists)
			return name_taken(v.name);
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET state = 0 WHERE id = ?"));
		return q.bind(id).run();
	});
}

// The snapshots' layers change hands with them: what a record says of a layer is compared with whose it is.
static Status hand_over(Database &db, const VolumeRow &from, const VolumeRow &to)
{
	SV_ASSIGN(Query layers, db.query("UPDATE layers SET volume = ?1 WHERE volume = ?2 AND layer <> ?3 AND layer IN "
					 "(SELECT layer FROM snapshots WHERE volume = ?2)"));
	SV_TRY(layers.bind(to.id).bind(from.id).bind(from.layer).run());
	SV_ASSIGN(Query snapshots, db.query("UPDATE snapshots SET volume = ? WHERE volume = ?"));
	return snapshots.bind(to.id).bind(from.id).run();
}

Status Catalogue::replace_volume(uint32_t id, uint32_t by)
{
	return transaction([&]() -> Status {
		Database &db = *impl_->db;
		SV_ASSIGN(const VolumeRow from, volume(id));
		SV_ASSIGN(const VolumeRow to, volume(by));
		if (from.state != VolumeState::kActive || to.state != VolumeState::kDeleting || from.name != to.name)
			return Error(Code::kBusy, "replace", "volume " + from.name, fmt::format("number {} was not made for that", by));
		SV_ASSIGN(Query state, db.query("UPDATE volumes SET state = ? WHERE id = ?"));
		SV_TRY(state.bind(static_cast<uint64_t>(VolumeState::kDeleting)).bind(id).run());
		SV_TRY(state.bind(static_cast<uint64_t>(VolumeState::kActive)).bind(by).run());
		return hand_over(db, from, to);
	});
}

static Status count_layer(Database &db, uint32_t layer, HeadUse &use)
{
	return each_map_page(db, layer, [&](uint64_t, const MapPage &page) -> Status {
		for (const uint32_t extent : page.extent) {
			use.extents += extent != 0 && extent != kTombstone;
			use.holes += extent == kTombstone;
		}
		return {};
	});
}

// With the layers of deleted snapshots right below the head, which are to be merged into it.
Result<HeadUse> Catalogue::head_use(uint32_t id)
{
	SV_ASSIGN(const VolumeRow v, volume(id));
	SV_ASSIGN(const auto chain, chain_of(*impl_->db, v.layer));
	HeadUse use;
	for (const uint32_t layer : chain) {
		SV_ASSIGN(const auto snapshot, snapshot_of_layer(*impl_->db, layer));
		if (snapshot && snapshot->state != SnapshotState::kDeleting)
			break;
		SV_TRY(count_layer(*impl_->db, layer, use));
	}
	return use;
}

static Result<std::vector<VolumeRow>> rows_of(Query q)
{
	std::vector<VolumeRow> rows;
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return rows;
		rows.push_back(row_of(q));
	}
}

Result<std::vector<VolumeRow>> Catalogue::volumes()
{
	static const std::string sql = std::string(kColumns) + "ORDER BY id";
	SV_ASSIGN(Query q, impl_->db->query(sql.c_str()));
	return rows_of(std::move(q));
}

Result<std::vector<VolumeRow>> Catalogue::volumes_with_schedule()
{
	static const std::string sql = std::string(kColumns) + "WHERE state = 0 AND schedule <> 'none' ORDER BY id";
	SV_ASSIGN(Query q, impl_->db->query(sql.c_str()));
	return rows_of(std::move(q));
}

Result<VolumeRow> Catalogue::volume(std::string_view name)
{
	static const std::string sql = std::string(kColumns) + "WHERE name = ? AND state = 0";
	SV_ASSIGN(Query q, impl_->db->query(sql.c_str()));
	SV_ASSIGN(const bool row, q.bind(name).step());
	if (!row)
		return no_volume(std::string(name.substr(0, 64)));
	return row_of(q);
}

Result<VolumeRow> Catalogue::volume(uint32_t id)
{
	static const std::string sql = std::string(kColumns) + "WHERE id = ?";
	SV_ASSIGN(Query q, impl_->db->query(sql.c_str()));
	SV_ASSIGN(const bool row, q.bind(id).step());
	if (!row)
		return no_volume(fmt::format("number {}", id));
	return row_of(q);
}

Status Catalogue::rename_volume(uint32_t id, std::string_view name)
{
	SV_TRY(check_volume_name(name));
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		if (v.state != VolumeState::kActive)
			return no_volume(v.name);
		if (v.name == name)
			return {};
		SV_ASSIGN(const bool exists, taken(*impl_->db, name));
		if (exists)
			return name_taken(name);
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET name = ? WHERE id = ?"));
		return q.bind(name).bind(id).run();
	});
}

Status Catalogue::resize_volume(uint32_t id, uint64_t size)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		if (v.state != VolumeState::kActive)
			return no_volume(v.name);
		SV_TRY(check_volume_size(size, v.name));
		if (size < v.size)
			return Error(Code::kUsage, "resize", "volume " + v.name, "volumes only grow",
				     "create a smaller volume and copy the files");
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET size = ? WHERE id = ?"));
		return q.bind(size).bind(id).run();
	});
}

Status Catalogue::take_back_growth(uint32_t id, uint64_t size)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET size = ? WHERE id = ? AND size > ?"));
		return q.bind(size).bind(id).bind(size).run();
	});
}

Status Catalogue::set_volume_flags(uint32_t id, uint32_t flags)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET flags = ? WHERE id = ?"));
		return q.bind(flags).bind(v.id).run();
	});
}

Status Catalogue::set_autoactivate(uint32_t id, bool on)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET autoactivate = ? WHERE id = ?"));
		return q.bind(on).bind(v.id).run();
	});
}

Status Catalogue::set_schedule(uint32_t id, std::string_view schedule)
{
	SV_TRY(parse_schedule(schedule));
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET schedule = ? WHERE id = ?"));
		SV_TRY(q.bind(schedule).bind(v.id).run());
		if (schedule != "none")
			return {};
		SV_ASSIGN(Query snapshots, impl_->db->query("UPDATE snapshots SET scheduled = 0 WHERE volume = ?"));
		return snapshots.bind(v.id).run();
	});
}

Status Catalogue::set_active(uint32_t id, bool on)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET active = ? WHERE id = ?"));
		return q.bind(on).bind(v.id).run();
	});
}

Status Catalogue::begin_session()
{
	SV_ASSIGN(const uint64_t volumes, impl_->db->number("SELECT count(*) FROM volumes WHERE active <> autoactivate"));
	SV_ASSIGN(const uint64_t snapshots, impl_->db->number("SELECT count(*) FROM snapshots WHERE active"));
	if (volumes + snapshots == 0)
		return {};
	return transaction([&]() -> Status {
		SV_TRY(impl_->db->exec("UPDATE volumes SET active = autoactivate"));
		return impl_->db->exec("UPDATE snapshots SET active = 0");
	});
}

Status Catalogue::begin_delete_volume(uint32_t id)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(const VolumeRow v, volume(id));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE volumes SET state = 1 WHERE id = ?"));
		return q.bind(v.id).run();
	});
}

// ---- deletion ----

// The kernel frees what it takes for the volume's own. It may not have heard yet that this has become more: what a layer
// that was merged into the head, or is just being, had written.
static Result<Reclaim::Kernel> kernel_of(Database &db, const VolumeRow &v)
{
	SV_ASSIGN(const LayerRow head, layer_row(db, v.layer));
	SV_ASSIGN(const auto below, snapshot_of_layer(db, head.parent));
	const bool merged = head.low != 0 || (below && below->state == SnapshotState::kDeleting);
	return merged ? Reclaim::Kernel::kMustBeTold : Reclaim::Kernel::kKnows;
}

// Frees what one page of the head's own map names. No layer is above it, so none of it is a parent.
static Status free_page(PageStore &pages, Reclaim &reclaim, Reclaim::Kernel kernel, const MapPage &page,
			DeleteProgress &out)
{
	for (const uint32_t number : page.extent) {
		if (number == 0 || number == kTombstone)
			continue;
		SV_ASSIGN(const ExtentEntry *entry, pages.extent(number, false));
		if (!entry->live())
			continue;
		out.freed.push_back({number, entry->gen, 0});
		SV_TRY(reclaim.free(number, kernel));
	}
	return {};
}

static Status drop_rows(Database &db, const VolumeRow &v)
{
	SV_ASSIGN(Query layers, db.query("DELETE FROM layers WHERE layer = ?"));
	SV_TRY(layers.bind(v.layer).run());
	SV_ASSIGN(Query volumes, db.query("DELETE FROM volumes WHERE id = ?"));
	return volumes.bind(v.id).run();
}

Result<DeleteProgress> Catalogue::delete_step(uint32_t id, uint32_t max_extents)
{
	DeleteProgress progress;
	SV_TRY(impl_->large_transaction([&]() -> Status {
		Database &db = *impl_->db;
		SV_ASSIGN(const VolumeRow v, volume(id));
		if (v.state != VolumeState::kDeleting)
			return Error(Code::kBusy, "delete", "volume " + v.name, "its deletion was not begun");
		SV_ASSIGN(const Reclaim::Kernel kernel, kernel_of(db, v));
		PageStore pages(db);
		Reclaim reclaim(db, pages);
		while (progress.freed.size() < max_extents) {
			uint64_t key = 0;
			MapPage page;
			SV_ASSIGN(const bool more, first_map_page(db, v.layer, key, page));
			if (!more) {
				progress.done = true;
				SV_TRY(drop_rows(db, v));
				break;
			}
			SV_TRY(free_page(pages, reclaim, kernel, page, progress));
			SV_TRY(drop_map_page(db, key));
			SV_TRY(pages.relieve());
		}
		return pages.flush();
	}));
	return progress;
}

}  // namespace svd

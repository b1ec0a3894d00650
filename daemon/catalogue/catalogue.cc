// SPDX-License-Identifier: GPL-2.0
// Life of a catalogue, and its rows of pool and members.
#include "daemon/catalogue/catalogue.h"

#include <cstdlib>

#include <fmt/format.h>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/region.h"
#include "daemon/catalogue/schema.h"

namespace svd {

Catalogue::Catalogue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalogue::~Catalogue() = default;

// Policies that came after version 1 of the schema have rows of their own: an older svd, which does not know them, opens the
// catalogue and does as if there were none. Such a row says what differs from the default.
static constexpr std::string_view kDiscard = "discard";
static constexpr std::string_view kPass = "pass";

static Status write_policies(Database &db, const PoolRow &pool)
{
	SV_ASSIGN(Query q, db.query(pool.pass_discards ? "INSERT OR REPLACE INTO policies VALUES (?, ?)" :
							 "DELETE FROM policies WHERE key = ?"));
	q.bind(kDiscard);
	return pool.pass_discards ? q.bind(kPass).run() : q.run();
}

static Result<bool> passes_discards(Database &db)
{
	SV_ASSIGN(Query q, db.query("SELECT value FROM policies WHERE key = ?"));
	q.bind(kDiscard);
	SV_ASSIGN(const bool row, q.step());
	return row && q.text(0) == kPass;
}

// The members that are to be emptied, as a mask in hexadecimal digits.
static constexpr std::string_view kLeaving = "leaving";

Result<uint64_t> Catalogue::leaving()
{
	SV_ASSIGN(Query q, impl_->db->query("SELECT value FROM policies WHERE key = ?"));
	q.bind(kLeaving);
	SV_ASSIGN(const bool row, q.step());
	return row ? std::strtoull(q.text(0).c_str(), nullptr, 16) : 0;
}

Status Catalogue::set_leaving(uint64_t members)
{
	return transaction([&]() -> Status {
		SV_ASSIGN(Query q, impl_->db->query(members != 0 ? "INSERT OR REPLACE INTO policies VALUES (?, ?)" :
								   "DELETE FROM policies WHERE key = ?"));
		q.bind(kLeaving);
		const std::string text = fmt::format("{:x}", members);
		return members != 0 ? q.bind(std::string_view(text)).run() : q.run();
	});
}

static Status insert_pool(Database &db, const PoolRow &pool)
{
	SV_TRY(write_policies(db, pool));
	SV_ASSIGN(Query q, db.query("INSERT INTO pool VALUES (1, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 1, 1)"));
	return q.bind(std::span<const uint8_t>(pool.uuid.bytes)).bind(std::string_view(pool.name)).bind(pool.created)
		.bind(pool.incarnation).bind(pool.generation).bind(pool.no_space_ms).bind(pool.commit_ms).run();
}

Result<std::unique_ptr<Catalogue>> Catalogue::create(std::span<const CatalogueCopy> copies, const PoolRow &pool,
						     std::span<const MemberRow> members)
{
	SV_TRY(check_pool_name(pool.name));
	SV_ASSIGN(std::unique_ptr<Region> region, Region::format(copies, pool.uuid));
	SV_ASSIGN(std::unique_ptr<Database> db, Database::open(std::move(region)));
	SV_TRY(upgrade_schema(*db));
	std::unique_ptr<Catalogue> c(new Catalogue(std::make_unique<Impl>(std::move(db))));
	SV_TRY(c->transaction([&]() -> Status {
		SV_TRY(insert_pool(*c->impl_->db, pool));
		for (const MemberRow &m : members)
			SV_TRY(c->add_member(m));
		return {};
	}));
	SV_TRY(c->impl_->db->checkpoint());
	SV_TRY(c->impl_->db->region().set_ready());
	return c;
}

Result<std::unique_ptr<Catalogue>> Catalogue::open(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid,
						   const OpenOptions &options)
{
	SV_ASSIGN(std::unique_ptr<Region> region, Region::open(copies, pool_uuid, options));
	SV_ASSIGN(std::unique_ptr<Database> db, Database::open(std::move(region)));
	SV_TRY(upgrade_schema(*db));
	std::unique_ptr<Catalogue> c(new Catalogue(std::make_unique<Impl>(std::move(db))));
	SV_ASSIGN(const PoolRow row, c->pool());
	if (row.uuid != pool_uuid)
		return Error(Code::kNeedsCheck, "open", "catalogue", "it belongs to pool " + row.uuid.str());
	return c;
}

Status Catalogue::keep_repairs() { return impl_->db->region().sync(); }
Status Catalogue::close(Pace &pace)
{
	ToTheEnd paced(pace);
	const PacedRegion region(impl_->db->region(), paced);
	return impl_->db->close();
}
uint32_t Catalogue::copies_in_sync() const { return impl_->db->region().in_sync(); }

// ---- transactions ----

static constexpr uint64_t kWalSoft = 1 << 20;  // emptied before the next transaction when larger

Status Catalogue::Impl::small_transaction(const std::function<Status()> &fn)
{
	const Region &region = db->region();
	const uint64_t limit = std::min(kWalSoft, region.capacity(Region::File::kWal) / 4);
	if (!db->in_transaction() && region.size(Region::File::kWal) > limit)
		SV_TRY(db->checkpoint());
	return db->transaction(fn);
}

Status Catalogue::Impl::large_transaction(const std::function<Status()> &fn)
{
	if (!db->in_transaction())
		SV_TRY(db->checkpoint());
	return db->transaction(fn);
}

Status Catalogue::transaction(const std::function<Status()> &fn) { return impl_->small_transaction(fn); }

// ---- pool ----

Result<PoolRow> Catalogue::pool()
{
	SV_ASSIGN(Query q, impl_->db->query("SELECT uuid, name, created, incarnation, generation, no_space_ms, commit_ms "
					    "FROM pool"));
	SV_ASSIGN(const bool row, q.step());
	if (!row || q.blob(0).size() != 16)
		return Error(Code::kNeedsCheck, "read", "catalogue", "it has no row for the pool");
	PoolRow pool;
	pool.uuid = Uuid::from_bytes(q.blob(0).data());
	pool.name = q.text(1);
	pool.created = q.u64(2);
	pool.incarnation = q.u64(3);
	pool.generation = q.u64(4);
	pool.no_space_ms = q.u32(5);
	pool.commit_ms = q.u32(6);
	SV_ASSIGN(pool.pass_discards, passes_discards(*impl_->db));
	return pool;
}

Status Catalogue::set_pool(const PoolRow &pool)
{
	SV_TRY(check_pool_name(pool.name));
	return transaction([&]() -> Status {
		SV_TRY(write_policies(*impl_->db, pool));
		SV_ASSIGN(Query q, impl_->db->query("UPDATE pool SET name = ?, incarnation = ?, generation = ?, "
						    "no_space_ms = ?, commit_ms = ?"));
		return q.bind(std::string_view(pool.name)).bind(pool.incarnation).bind(pool.generation)
			.bind(pool.no_space_ms).bind(pool.commit_ms).run();
	});
}

// ---- members ----

static Status check_member(const MemberRow &m)
{
	if (m.member >= SV_MAX_MEMBERS || m.nr_slots == 0 || m.nr_slots > SV_MAX_SLOTS || m.tier >= SV_MAX_TIERS)
		return Error(Code::kUsage, "add", fmt::format("member {}", m.member),
			     fmt::format("{} slots in tier {} are out of range", m.nr_slots, m.tier));
	return check_tier_name(m.tier_name);
}

Result<std::vector<MemberRow>> Catalogue::members()
{
	SV_ASSIGN(Query q, impl_->db->query("SELECT member, uuid, tier, tier_name, nr_slots, flags FROM members "
					    "ORDER BY member"));
	std::vector<MemberRow> rows;
	while (true) {
		SV_ASSIGN(const bool row, q.step());
		if (!row)
			return rows;
		MemberRow m;
		m.member = q.u32(0);
		if (q.blob(1).size() != 16)
			return Error(Code::kNeedsCheck, "read", "catalogue",
				     fmt::format("member {} has no UUID", m.member));
		m.uuid = Uuid::from_bytes(q.blob(1).data());
		m.tier = q.u32(2);
		m.tier_name = q.text(3);
		m.nr_slots = q.u32(4);
		m.flags = q.u32(5);
		if (m.nr_slots > SV_MAX_SLOTS)
			return Error(Code::kNeedsCheck, "read", "catalogue",
				     fmt::format("member {} has {} slots, more than there can be", m.member, m.nr_slots));
		rows.push_back(std::move(m));
	}
}

Status Catalogue::add_member(const MemberRow &m)
{
	SV_TRY(check_member(m));
	return transaction([&]() -> Status {
		SV_ASSIGN(const uint64_t next, impl_->db->number("SELECT count(*) FROM members"));
		if (m.member != next)
			return Error(Code::kBusy, "add", fmt::format("member {}", m.member),
				     fmt::format("the pool has {} members, the next one is {}", next, next));
		SV_ASSIGN(Query q, impl_->db->query("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?)"));
		return q.bind(m.member).bind(std::span<const uint8_t>(m.uuid.bytes)).bind(m.tier)
			.bind(std::string_view(m.tier_name)).bind(m.nr_slots).bind(m.flags).run();
	});
}

Status Catalogue::update_member(const MemberRow &m)
{
	SV_TRY(check_member(m));
	return transaction([&]() -> Status {
		SV_ASSIGN(Query q, impl_->db->query("UPDATE members SET uuid = ?, tier = ?, tier_name = ?, nr_slots = ?, "
						    "flags = ? WHERE member = ?"));
		SV_TRY(q.bind(std::span<const uint8_t>(m.uuid.bytes)).bind(m.tier).bind(std::string_view(m.tier_name))
			       .bind(m.nr_slots).bind(m.flags).bind(m.member).run());
		if (impl_->db->changes() == 0)
			return Error(Code::kNotFound, "change", fmt::format("member {}", m.member),
				     "the pool has no such member");
		return {};
	});
}

}  // namespace svd

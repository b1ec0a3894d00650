// SPDX-License-Identifier: GPL-2.0
// SQLite calls. Settings that durability rests on are in open(); see region.h for the other half.
#include "daemon/catalogue/database.h"

#include <malloc.h>

#include <fmt/format.h>

#include "daemon/base/log.h"

namespace svd {

Query &Query::bind(uint64_t v)
{
	sqlite3_bind_int64(stmt_, next_++, static_cast<sqlite3_int64>(v));
	return *this;
}

Query &Query::bind(std::string_view v)
{
	sqlite3_bind_text(stmt_, next_++, v.data(), static_cast<int>(v.size()), SQLITE_STATIC);
	return *this;
}

Query &Query::bind(std::span<const uint8_t> v)
{
	sqlite3_bind_blob(stmt_, next_++, v.empty() ? "" : static_cast<const void *>(v.data()), static_cast<int>(v.size()), SQLITE_STATIC);
	return *this;
}

Result<bool> Query::step()
{
	const int rc = sqlite3_step(stmt_);
	if (rc == SQLITE_ROW)
		return true;
	if (rc == SQLITE_DONE)
		return false;
	return db_.error(rc);
}

Status Query::run()
{
	auto r = step();
	reset();
	if (!r)
		return std::move(r).error();
	return {};
}

void Query::reset()
{
	if (stmt_) {
		sqlite3_reset(stmt_);
		sqlite3_clear_bindings(stmt_);
	}
	next_ = 1;
}

std::string Query::text(int column) const
{
	const unsigned char *p = sqlite3_column_text(stmt_, column);
	return p ? std::string(reinterpret_cast<const char *>(p), static_cast<size_t>(sqlite3_column_bytes(stmt_, column)))
		 : std::string();
}

std::span<const uint8_t> Query::blob(int column) const
{
	const auto *p = static_cast<const uint8_t *>(sqlite3_column_blob(stmt_, column));
	return {p, p ? static_cast<size_t>(sqlite3_column_bytes(stmt_, column)) : 0};
}

Error Database::error(int rc)
{
	const std::optional<Error> cause = vfs_.take_error();
	Code code = Code::kFailure;
	std::string hint;
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return Error(Code::kNoSpace, "write", "catalogue", "its region is full",
			     "delete volumes that are not needed");
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return Error(Code::kNeedsCheck, "use", "catalogue", db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(rc),
			     "run 'svctl check' on the pool").with(Id::kCatalogueDamaged);
	case SQLITE_READONLY:
		code = Code::kPermission;
		break;
	case SQLITE_CONSTRAINT:
		code = Code::kBusy;
		break;
	case SQLITE_NOMEM:
		hint = "svd has no memory left";
		break;
	case SQLITE_IOERR:
		if (cause)
			return *cause;
		break;
	default:
		break;
	}
	return Error(code, "use", "catalogue", db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(rc), hint);
}

// locking_mode first: SQLite then never asks the VFS for shared memory. max_page_count: a transaction that the
// database's area could not take is refused before it commits, not at the checkpoint.
Result<std::unique_ptr<Database>> Database::open(std::unique_ptr<Region> region)
{
	std::unique_ptr<Database> d(new Database(std::move(region)));
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	if (int rc = sqlite3_open_v2("main.db", &d->db_, flags, d->vfs_.name().c_str()); rc != SQLITE_OK)
		return d->error(rc);
	sqlite3_extended_result_codes(d->db_, 1);
	SV_TRY(d->exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA page_size=4096; PRAGMA temp_store=MEMORY;"
		       "PRAGMA mmap_size=0; PRAGMA cache_size=-12288; PRAGMA synchronous=FULL;"
		       "PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=OFF; PRAGMA cell_size_check=ON;"
		       "PRAGMA trusted_schema=OFF"));
	if (d->region().size(Region::File::kMain) == 0)
		SV_TRY(d->exec("PRAGMA journal_mode=MEMORY; PRAGMA journal_mode=WAL"));
	const uint64_t pages = d->region().capacity(Region::File::kMain) / kBlockSize;
	SV_TRY(d->exec(fmt::format("PRAGMA max_page_count={}", pages).c_str()));
	return d;
}

Database::~Database()
{
	finalize();
	if (db_) {
		// Not an orderly close: leave the WAL as it is.
		sqlite3_db_config(db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
		sqlite3_close_v2(db_);
	}
}

void Database::finalize()
{
	for (const auto &[sql, stmt] : statements_)
		sqlite3_finalize(stmt);
	statements_.clear();
}

Status Database::exec(const char *sql)
{
	const int rc = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
	if (rc != SQLITE_OK)
		return error(rc);
	return {};
}

Result<Query> Database::query(const char *sql)
{
	sqlite3_stmt *&stmt = statements_[sql];
	if (!stmt) {
		const int rc = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
		if (rc != SQLITE_OK)
			return error(rc);
	}
	if (!sqlite3_stmt_busy(stmt))
		return Query(*this, stmt, false);
	sqlite3_stmt *another = nullptr;
	if (const int rc = sqlite3_prepare_v3(db_, sql, -1, 0, &another, nullptr); rc != SQLITE_OK)
		return error(rc);
	return Query(*this, another, true);
}

Result<uint64_t> Database::number(const char *sql)
{
	SV_ASSIGN(Query q, query(sql));
	SV_ASSIGN(const bool row, q.step());
	return row ? q.u64(0) : 0;
}

Status Database::transaction(const std::function<Status()> &fn)
{
	const bool nested = depth_ > 0;
	SV_TRY(exec(nested ? "SAVEPOINT nested" : "BEGIN IMMEDIATE"));
	depth_++;
	Status s = fn();
	depth_--;
	if (s)
		s = exec(nested ? "RELEASE nested" : "COMMIT");
	// Some errors have rolled back already.
	if (!s && sqlite3_get_autocommit(db_) == 0)
		if (Status r = exec(nested ? "ROLLBACK TO nested; RELEASE nested" : "ROLLBACK"); !r)
			log::error(r.error().id(), "{}", r.error().message());
	return s;
}

void Database::release_memory()
{
	sqlite3_db_release_memory(db_);
	malloc_trim(0);
}

Status Database::checkpoint()
{
	if (region_->size(Region::File::kWal) == 0)
		return {};
	SV_TRY(exec("PRAGMA wal_checkpoint(TRUNCATE)"));
	return {};
}

Status Database::close()
{
	finalize();
	if (!region_->read_only()) {
		SV_TRY(checkpoint());
		SV_TRY(region_->sync());
	}
	sqlite3_db_config(db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
	const int rc = sqlite3_close(db_);
	if (rc != SQLITE_OK)
		return error(rc);
	db_ = nullptr;
	return {};
}

}  // namespace svd

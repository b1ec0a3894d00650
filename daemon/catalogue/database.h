// SPDX-License-Identifier: GPL-2.0
// A thin wrapper around one SQLite connection: statements, transactions, and errors as Error. Used by the
// catalogue only.
#pragma once

#include <sqlite3.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "daemon/catalogue/vfs.h"

namespace svd {

class Database;

// A prepared statement in use; reset when it goes out of scope. Columns and parameters count from 0 and 1.
class Query {
 public:
	// own: the statement goes with it.
	Query(Database &db, sqlite3_stmt *stmt, bool own) : db_(db), stmt_(stmt), own_(own) {}
	Query(Query &&other) noexcept
		: db_(other.db_), stmt_(std::exchange(other.stmt_, nullptr)), own_(other.own_), next_(other.next_)
	{
	}
	Query(const Query &) = delete;
	Query &operator=(const Query &) = delete;
	~Query()
	{
		reset();
		if (own_)
			sqlite3_finalize(stmt_);
	}

	Query &bind(uint64_t v);            // stored as the signed integer of the same bits
	Query &bind(std::string_view v);    // must live until the statement has run
	Query &bind(std::span<const uint8_t> v);
	Result<bool> step();                // true: there is a row
	Status run();                       // no rows expected; may be bound and run again afterwards

	uint64_t u64(int column) const { return static_cast<uint64_t>(sqlite3_column_int64(stmt_, column)); }
	uint32_t u32(int column) const { return static_cast<uint32_t>(sqlite3_column_int64(stmt_, column)); }
	std::string text(int column) const;
	std::span<const uint8_t> blob(int column) const;  // until the next step

 private:
	void reset();
	Database &db_;
	sqlite3_stmt *stmt_;
	bool own_;
	int next_ = 1;
};

class Database {
 public:
	static Result<std::unique_ptr<Database>> open(std::unique_ptr<Region> region);
	~Database();
	Database(const Database &) = delete;
	Database &operator=(const Database &) = delete;

	Status exec(const char *sql);
	// A string literal: the statement is kept by its address. One in use (a job stopped among its rows) is left to it.
	Result<Query> query(const char *sql);
	Result<uint64_t> number(const char *sql);
	Status transaction(const std::function<Status()> &fn);  // nested: a savepoint
	Status checkpoint();  // empties the WAL
	void release_memory();  // cached pages, and what the allocator keeps
	Status close();
	Region &region() { return *region_; }
	bool in_transaction() const { return depth_ > 0; }
	uint64_t changes() const { return static_cast<uint64_t>(sqlite3_changes64(db_)); }
	Error error(int rc);

 private:
	explicit Database(std::unique_ptr<Region> region) : region_(std::move(region)), vfs_(*region_) {}
	void finalize();

	std::unique_ptr<Region> region_;
	RegionVfs vfs_;
	sqlite3 *db_ = nullptr;
	std::unordered_map<const char *, sqlite3_stmt *> statements_;
	int depth_ = 0;
};

}  // namespace svd

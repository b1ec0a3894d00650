// SPDX-License-Identifier: GPL-2.0
// SQLite's view of a Region: a VFS that knows the files main.db and main.db-wal and nothing else. One per open
// catalogue. There is no shared memory (locking_mode=EXCLUSIVE is set before WAL is used), no rollback journal
// (journal_mode is MEMORY until it is WAL), and temporary files stay in memory. Used by database.cc.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "daemon/catalogue/region.h"

struct sqlite3_vfs;

namespace svd {

class RegionVfs {
 public:
	explicit RegionVfs(Region &region);  // registered with SQLite until destroyed
	~RegionVfs();
	RegionVfs(const RegionVfs &) = delete;
	RegionVfs &operator=(const RegionVfs &) = delete;

	const std::string &name() const { return name_; }
	Region &region() { return region_; }
	// What the region said when SQLite last got an error from it; SQLite's own codes say less.
	void set_error(const Error &error) { error_ = error; }
	std::optional<Error> take_error();

 private:
	Region &region_;
	std::string name_;
	std::unique_ptr<sqlite3_vfs> vfs_;
	std::optional<Error> error_;
};

}  // namespace svd

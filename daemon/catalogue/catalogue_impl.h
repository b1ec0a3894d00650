// SPDX-License-Identifier: GPL-2.0
// What the source files of class Catalogue share: catalogue.cc (life, pool, members), volumes.cc, snapshots.cc, merge.cc,
// snapshot_space.cc, apply.cc, load.cc, check.cc, check_layers.cc, dump.cc, restore.cc.
#pragma once

#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/database.h"
#include "daemon/catalogue/pages.h"
#include "daemon/catalogue/region.h"

namespace svd {

class Catalogue::Impl {
 public:
	explicit Impl(std::unique_ptr<Database> database) : db(std::move(database)) {}

	// A transaction that may touch a large part of the database: it finds the WAL empty, which then always has
	// room for it. Not within another one.
	Status large_transaction(const std::function<Status()> &fn);
	Status small_transaction(const std::function<Status()> &fn);

	std::unique_ptr<Database> db;
};

// A region with a pace, as long as this lives.
class PacedRegion {
 public:
	PacedRegion(Region &region, Pace &pace) : region_(region) { region_.set_pace(pace); }
	~PacedRegion() { region_.set_pace(NoPace::instance()); }
	PacedRegion(const PacedRegion &) = delete;
	PacedRegion &operator=(const PacedRegion &) = delete;

 private:
	Region &region_;
};

// Numbers that nothing in this pool had before. They end: kNoSpace.
struct Numbers {
	uint32_t volume = 0;
	uint32_t layer = 0;
};
Result<Numbers> take_numbers(Database &db, std::string object);

Status insert_volume(Database &db, const VolumeRow &volume);

Status each_extent_page(Database &db, const std::function<Status(uint32_t first, const ExtentPage &)> &fn);	// by number
// The live ones, by number.
Status each_extent(Database &db, const std::function<Status(uint32_t number, const ExtentEntry &)> &fn);

// Extents in a volume of so many bytes.
inline uint64_t extents_in(uint64_t size) { return (size + SV_EXTENT_SIZE - 1) >> SV_EXTENT_SHIFT; }

}  // namespace svd

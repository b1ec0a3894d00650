// SPDX-License-Identifier: GPL-2.0
// Who still needs an extent? One that a layer maps lives. One that no layer maps lives as long as a partial extent names it as
// parent: an orphan. What nothing needs is freed, and so is what only that needed, up the chain of parents. [I21]
// Used within a transaction by whatever takes an extent out of a map or a partial extent out of a chain.
#pragma once

#include "daemon/catalogue/database.h"
#include "daemon/catalogue/pages.h"

namespace svd {

class Reclaim {
 public:
	// The kernel frees by itself what its records say, and what a volume has that it drops. Of the rest it must be told.
	enum class Kernel { kKnows, kMustBeTold };

	Reclaim(Database &db, PageStore &pages) : db_(db), pages_(pages) {}

	// A map named the extent and does not now.
	Status let_go(uint32_t extent);
	// It is partial, and becomes whole or goes: its parent has one child less.
	Status drop_partial(uint32_t extent);
	Status free(uint32_t extent, Kernel kernel);
	// A partial extent named it as parent and does not now.
	Status lost_child(uint32_t extent);
	// A map names it again, or a later one with its number: the kernel is not told.
	Status revive(uint32_t extent);
	uint64_t freed() const { return freed_; }

 private:
	Result<bool> spare(uint32_t extent);
	Result<bool> take(uint32_t extent, Kernel kernel);

	Database &db_;
	PageStore &pages_;
	uint64_t freed_ = 0;
	bool looked_ = false;
	bool any_ = false;  // rows in freeing
};

}  // namespace svd

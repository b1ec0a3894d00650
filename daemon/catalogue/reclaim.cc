// SPDX-License-Identifier: GPL-2.0
// Extents that lose a reference.
#include "daemon/catalogue/reclaim.h"

namespace svd {

// Frees the extent itself. True: it was partial, and its row is still there.
Result<bool> Reclaim::take(uint32_t extent, Kernel kernel)
{
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(extent, true));
	if (kernel == Kernel::kMustBeTold) {
		SV_ASSIGN(Query q, db_.query("INSERT OR REPLACE INTO freeing (extent, gen) VALUES (?, ?)"));
		SV_TRY(q.bind(extent).bind(entry->gen).run());
		looked_ = any_ = true;
	}
	const bool partial = entry->partial();
	*entry = ExtentEntry();
	freed_++;
	return partial;
}

// An orphan without a child.
Result<bool> Reclaim::spare(uint32_t extent)
{
	if (extent == 0)
		return false;
	SV_ASSIGN(const ExtentEntry *entry, pages_.extent(extent, false));
	if (!entry->live() || !entry->orphan())
		return false;
	SV_ASSIGN(const bool needed, pages_.is_parent(extent));
	return !needed;
}

Status Reclaim::drop_partial(uint32_t extent)
{
	for (bool partial = true; partial;) {
		SV_ASSIGN(const uint32_t parent, pages_.parent(extent));
		pages_.drop_partial(extent);
		SV_ASSIGN(const bool last, spare(parent));
		if (!last)
			return {};
		SV_ASSIGN(partial, take(parent, Kernel::kMustBeTold));
		extent = parent;
	}
	return {};
}

Status Reclaim::free(uint32_t extent, Kernel kernel)
{
	SV_ASSIGN(const bool partial, take(extent, kernel));
	return partial ? drop_partial(extent) : Status();
}

Status Reclaim::lost_child(uint32_t extent)
{
	SV_ASSIGN(const bool last, spare(extent));
	return last ? free(extent, Kernel::kMustBeTold) : Status();
}

Status Reclaim::let_go(uint32_t extent)
{
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(extent, true));
	if (!entry->live())
		return {};
	SV_ASSIGN(const bool needed, pages_.is_parent(extent));
	if (!needed)
		return free(extent, Kernel::kMustBeTold);
	entry->flags |= ExtentEntry::kOrphan;
	return {};
}

Status Reclaim::revive(uint32_t extent)
{
	if (!looked_) {
		SV_ASSIGN(const uint64_t any, db_.number("SELECT EXISTS (SELECT 1 FROM freeing)"));
		looked_ = true;
		any_ = any != 0;
	}
	if (!any_)
		return {};
	SV_ASSIGN(Query q, db_.query("DELETE FROM freeing WHERE extent = ?"));
	return q.bind(extent).run();
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// Snapshots as the journal and the merging of layers see them; what the engine may do with them is in catalogue.h.
#pragma once

#include <optional>

#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/database.h"

namespace svd {

Result<std::optional<SnapshotRow>> snapshot_row(Database &db, uint32_t id);

// A volume or a snapshot.
struct View {
	uint32_t layer = 0;  // that the volume writes, or that the snapshot froze
	uint64_t size = 0;   // bytes
};
Result<View> view_of(Catalogue &catalogue, Database &db, uint32_t id);

Result<std::optional<SnapshotRow>> snapshot_of_layer(Database &db, uint32_t layer);
Status insert_snapshot(Database &db, const SnapshotRow &snapshot);
// LAYER: the volume writes a new layer above the one that it wrote.
Status switch_head(Database &db, const SnapshotRow &snapshot);
// The journal has nothing more to say about its layer.
Status settle_snapshot(Database &db, uint32_t id, SnapshotState state);

}  // namespace svd

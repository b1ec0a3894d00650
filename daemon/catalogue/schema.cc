// SPDX-License-Identifier: GPL-2.0
// One step of SQL per version, never changed after a release: a new version appends a step.
#include "daemon/catalogue/schema.h"

#include <fmt/format.h>

#include <iterator>

namespace svd {

// Keys of map_pages: layer << 31 | page, page = index / 1008. Of extent_pages: extent / 504. Blobs: pages.h.
static const char kVersion1[] = R"sql(
CREATE TABLE pool (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	uuid BLOB NOT NULL,
	name TEXT NOT NULL,
	created INTEGER NOT NULL,
	incarnation INTEGER NOT NULL,
	generation INTEGER NOT NULL,
	no_space_ms INTEGER NOT NULL,
	commit_ms INTEGER NOT NULL,
	applied_seq INTEGER NOT NULL,           -- the journal is in here up to this batch
	applied_off INTEGER NOT NULL,
	applied_crc INTEGER NOT NULL,
	next_volume INTEGER NOT NULL,           -- numbers are never used again
	next_layer INTEGER NOT NULL
);
CREATE TABLE members (
	member INTEGER PRIMARY KEY,
	uuid BLOB NOT NULL UNIQUE,
	tier INTEGER NOT NULL,
	tier_name TEXT NOT NULL,
	nr_slots INTEGER NOT NULL,
	flags INTEGER NOT NULL
);
CREATE TABLE volumes (
	id INTEGER PRIMARY KEY,
	name TEXT NOT NULL,
	size INTEGER NOT NULL,
	state INTEGER NOT NULL,                 -- 0 active, 1 deleting
	layer INTEGER NOT NULL,
	owned_since INTEGER NOT NULL,
	created INTEGER NOT NULL,
	flags INTEGER NOT NULL,
	tiers INTEGER NOT NULL
);
CREATE UNIQUE INDEX volume_names ON volumes (name) WHERE state = 0;
CREATE TABLE layers (
	layer INTEGER PRIMARY KEY,
	volume INTEGER NOT NULL,
	parent INTEGER NOT NULL                 -- 0: none
);
CREATE TABLE snapshots (
	id INTEGER PRIMARY KEY,
	volume INTEGER NOT NULL,
	name TEXT NOT NULL,
	layer INTEGER NOT NULL,
	state INTEGER NOT NULL,                 -- 0 done, 1 pending, 2 deleting
	created INTEGER NOT NULL,
	UNIQUE (volume, name)
);
CREATE TABLE policies (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
	id INTEGER PRIMARY KEY,
	kind TEXT NOT NULL,
	state INTEGER NOT NULL,
	volume INTEGER NOT NULL,
	argument BLOB
);
CREATE TABLE map_pages (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE extent_pages (page INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE partials (
	extent INTEGER PRIMARY KEY,
	parent INTEGER NOT NULL,                -- 0: none
	valid BLOB NOT NULL                     -- 32 bytes, a bit for each block
);
CREATE TABLE heat (page INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE history (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, what TEXT NOT NULL);
)sql";

// autoactivate: does the volume come up with its pool? active: since the pool came up, is it?
static const char kVersion2[] = R"sql(
ALTER TABLE volumes ADD COLUMN autoactivate INTEGER NOT NULL DEFAULT 1 CHECK (autoactivate IN (0, 1));
ALTER TABLE volumes ADD COLUMN active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1));
)sql";

// Snapshots. No earlier version wrote a row of theirs or a parent. freeing: extents that went by a decision of svd's, with
// the generation that they had, until the kernel has heard of it.
static const char kVersion3[] = R"sql(
DROP TABLE snapshots;
CREATE TABLE snapshots (
	id INTEGER PRIMARY KEY,                 -- from next_volume
	volume INTEGER NOT NULL,
	name TEXT NOT NULL,
	size INTEGER NOT NULL,                  -- the volume's, then
	state INTEGER NOT NULL,                 -- 0 done, 1 pending, 2 deleting
	layer INTEGER NOT NULL,                 -- that it froze
	next_layer INTEGER NOT NULL,            -- that the volume writes since; 0: the journal is applied beyond SNAPDONE
	created INTEGER NOT NULL,
	held INTEGER NOT NULL CHECK (held IN (0, 1)),
	active INTEGER NOT NULL CHECK (active IN (0, 1))
);
CREATE UNIQUE INDEX snapshot_names ON snapshots (volume, name) WHERE state <> 2;
CREATE INDEX snapshot_layers ON snapshots (layer);
ALTER TABLE layers ADD COLUMN low INTEGER NOT NULL DEFAULT 0;   -- lowest number merged into it; 0: its own
CREATE INDEX layer_parents ON layers (parent);
CREATE INDEX volume_layers ON volumes (layer);
CREATE INDEX partial_parents ON partials (parent) WHERE parent <> 0;
CREATE TABLE freeing (
	turn INTEGER PRIMARY KEY,               -- a partial extent comes before its parent
	extent INTEGER NOT NULL UNIQUE,
	gen INTEGER NOT NULL
);
)sql";

// Fragments: what pages.cc:encode_places() makes of them; empty for an extent in a slot.
static const char kVersion4[] = R"sql(
ALTER TABLE partials ADD COLUMN places BLOB NOT NULL DEFAULT x'';
)sql";

// Snapshots by schedule. schedule: what base/schedule.h makes of it. scheduled: it made this one, and takes it away.
static const char kVersion5[] = R"sql(
ALTER TABLE volumes ADD COLUMN schedule TEXT NOT NULL DEFAULT 'none';
ALTER TABLE snapshots ADD COLUMN scheduled INTEGER NOT NULL DEFAULT 0 CHECK (scheduled IN (0, 1));
)sql";

// written: 32 bytes, those of the valid blocks that were not copied from below (SV_FOLD_FILL); empty: all are written.
static const char kVersion6[] = R"sql(
ALTER TABLE partials ADD COLUMN written BLOB NOT NULL DEFAULT x'';
)sql";

static const char *const kSteps[] = {kVersion1, kVersion2, kVersion3, kVersion4, kVersion5, kVersion6};

uint32_t schema_version() { return static_cast<uint32_t>(std::size(kSteps)); }

static Error newer(uint64_t version)
{
	return Error(Code::kMissingFeature, "open", "catalogue",
		     fmt::format("it has schema version {}, this svd knows versions up to {}", version,
				 schema_version()),
		     "install the newer svctl");
}

Status upgrade_schema(Database &db, uint32_t to)
{
	SV_ASSIGN(const uint64_t version, db.number("PRAGMA user_version"));
	if (version > schema_version())
		return newer(version);
	for (uint64_t v = version; v < to; v++) {
		SV_TRY(db.transaction([&]() -> Status {
			SV_TRY(db.exec(kSteps[v]));
			return db.exec(fmt::format("PRAGMA user_version={}", v + 1).c_str());
		}));
	}
	return {};
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// The database's tables and how an older one becomes today's. Called when a catalogue is created or opened.
#pragma once

#include <cstdint>

#include "daemon/catalogue/database.h"

namespace svd {

uint32_t schema_version();                           // of this svd; PRAGMA user_version
// From any older version (0: empty), in one transaction each step. `to`: an older one, for tests.
Status upgrade_schema(Database &db, uint32_t to = schema_version());

}  // namespace svd

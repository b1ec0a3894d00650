// SPDX-License-Identifier: GPL-2.0
// What dump.cc and restore.cc share.
#pragma once

#include <cstdint>

namespace svd {

inline constexpr char kDumpHeader[] = "svctl-dump 1";
inline constexpr uint64_t kEntriesOfPage = 336;	 // of 1008 extents, one page of a map and two of extents are in the database

}  // namespace svd

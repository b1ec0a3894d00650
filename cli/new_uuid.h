// SPDX-License-Identifier: GPL-2.0
// Gives the file system on a clone that was just made a UUID of its own, by the file system's own tools, after its log has been
// replayed: a snapshot has what was mounted as a power cut would leave it.
#pragma once

#include <string>

#include "cli/client.h"

namespace svctl {

// The device is nobody else's yet. XFS and ext2 to ext4; anything else, or what the tools refuse, is an error, after which the
// device may have a replayed log. The answer's `uuid` is the new one.
Answer give_new_uuid(const std::string &device);

}	// namespace svctl

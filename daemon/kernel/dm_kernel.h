// SPDX-License-Identifier: GPL-2.0
// The real kernel: pools and volumes are device-mapper devices of dm-sv.ko, made through libdevmapper; commands go to
// the pool's control device by ioctl. Names: sv-POOL and sv-POOL-VOLUME with '-' in names doubled; uuids SV-<pool
// uuid> and SV-<pool uuid>-<volume id>; links /dev/sv/POOL/VOLUME, made here so that they are there without udev too.
#pragma once

#include <memory>

#include "daemon/kernel/kernel.h"

namespace svd {

std::unique_ptr<Kernel> make_dm_kernel();

// "sv-tank-my--data"
std::string dm_name(const std::string &pool, const std::string &volume);

}	// namespace svd

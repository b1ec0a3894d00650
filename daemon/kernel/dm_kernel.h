// SPDX-License-Identifier: GPL-2.0
// The real kernel: pools and volumes are device-mapper devices of dm-sv.ko, made through libdevmapper; commands go to
// the pool's control device by ioctl. Names: sv-POOL and sv-POOL-VOLUME with '-' in names doubled; uuids SV-<pool
// uuid> and SV-<pool uuid>-<volume id>; links /dev/sv/POOL/VOLUME, made here where no udev makes them (udev/64-svctl.rules).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "daemon/kernel/kernel.h"

namespace svd {

std::unique_ptr<Kernel> make_dm_kernel();

// "sv-tank-my--data"
std::string dm_name(const std::string &pool, const std::string &volume);
// Is that a name that the kernel takes? A '-' counts twice. Also asked where the kernel is simulated: pools move. `device` is
// a volume, or "train@epoch-3". kUsage: no.
Status check_device_name(const std::string &pool, const std::string &device);
// Pool and volume of such a name; of no other, nor of a pool's own.
std::optional<std::pair<std::string, std::string>> split_dm_name(const std::string &name);

}	// namespace svd

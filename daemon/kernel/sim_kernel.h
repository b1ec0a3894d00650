// SPDX-License-Identifier: GPL-2.0
// A kernel inside svd, for tests without root: kmod/core over files. It does the I/O that the core asks for and
// decides nothing: map, allocator, journal and commit are the core's. A member's writes stay in memory until it is
// flushed, as in a disk's volatile cache, so that killing svd loses what a power cut would.
#pragma once

#include <memory>

#include "daemon/kernel/kernel.h"

namespace svd {

std::unique_ptr<Kernel> make_sim_kernel();

}	// namespace svd

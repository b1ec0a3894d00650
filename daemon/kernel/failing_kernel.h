// SPDX-License-Identifier: GPL-2.0
// A kernel that refuses one call for want of memory, whichever a test names, and passes all others on. svd --sim
// serves through it, so that tests see what each command leaves when the kernel refuses any one of its steps.
#pragma once

#include "daemon/kernel/kernel.h"

namespace svd {

std::unique_ptr<Kernel> make_failing_kernel(std::unique_ptr<Kernel> inner);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// Named places at which a test has svd die by SIGKILL: SVD_KILL_AT=name in its environment. Always compiled in, so
// that what is tested is what runs; without the variable a kill point costs one comparison.
#pragma once

namespace svd {

void kill_point(const char *name);

}	// namespace svd

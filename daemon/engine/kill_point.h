// SPDX-License-Identifier: GPL-2.0
// Named places at which a test has svd die by SIGKILL, or run in a circle for ever: SVD_KILL_AT=name, SVD_SPIN_AT=name in
// its environment. Always compiled in, so that what is tested is what runs; without the variables a kill point costs two
// comparisons.
#pragma once

namespace svd {

void kill_point(const char *name);

}	// namespace svd

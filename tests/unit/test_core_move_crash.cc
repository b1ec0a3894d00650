// SPDX-License-Identifier: GPL-2.0
// As test_core_crash.cc, while extents are moved. Apart, so that mutations of MOVE are tried on its own tests alone.
#include "tests/support/core_world.h"

using sv::test::explore;

TEST(CoreMoveCrash, moves) { explore({.members = 2, .volumes = 2, .slots = 20, .moves = true}, 1100001); }
TEST(CoreMoveCrash, with_folding_and_fragments) {
  explore({.members = 3, .volumes = 2, .snapshots = 6, .slots = 60, .folds = true, .fragments = true, .moves = true}, 1200001);
}
TEST(CoreMoveCrash, while_flushes_fail) {
  explore({.members = 3, .ring_copies = 2, .flush_failures = 100, .copy_failures = 50, .volumes = 2, .snapshots = 4, .slots = 40, .folds = true,
           .fragments = true, .moves = true},
          1300001);
}

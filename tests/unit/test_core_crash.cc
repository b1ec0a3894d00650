// SPDX-License-Identifier: GPL-2.0
// Crashes of the real code in random interleavings of all that goes on: core_world.h says what is claimed.
#include "tests/support/core_world.h"

using sv::test::explore;

TEST(CoreCrash, one_member_holds_ring_and_data) { explore({.members = 1}, 1); }
TEST(CoreCrash, ring_on_fast_member_data_on_both) { explore({.members = 2, .volumes = 2}, 100001); }
TEST(CoreCrash, two_ring_copies) { explore({.members = 2, .ring_copies = 2, .copy_failures = 200}, 200001); }
TEST(CoreCrash, flushes_fail) { explore({.members = 3, .flush_failures = 100, .volumes = 2}, 300001); }
TEST(CoreCrash, snapshots) { explore({.members = 2, .volumes = 2, .snapshots = 3, .slots = 40}, 400001); }
TEST(CoreCrash, snapshots_while_flushes_fail) {
  explore({.members = 2, .flush_failures = 100, .volumes = 2, .snapshots = 4, .slots = 40}, 500001);
}

TEST(CoreCrash, folding) { explore({.members = 2, .volumes = 2, .snapshots = 6, .slots = 60, .folds = true}, 600001); }
TEST(CoreCrash, folding_while_flushes_fail) {
  explore({.members = 2, .ring_copies = 2, .flush_failures = 100, .copy_failures = 50, .volumes = 2, .snapshots = 6, .slots = 60, .folds = true}, 700001);
}

TEST(CoreCrash, fragments) { explore({.members = 2, .volumes = 2, .fragments = true}, 800001); }
TEST(CoreCrash, fragments_under_snapshots_and_folding) {
  explore({.members = 2, .volumes = 2, .snapshots = 6, .slots = 60, .folds = true, .fragments = true}, 900001);
}
TEST(CoreCrash, fragments_on_members_that_are_full_while_flushes_fail) {
  explore({.members = 3, .ring_copies = 2, .flush_failures = 100, .copy_failures = 50, .volumes = 2, .snapshots = 3, .slots = 8, .folds = true,
           .fragments = true},
          1000001);
}

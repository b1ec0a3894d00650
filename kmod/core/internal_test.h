/* SPDX-License-Identifier: GPL-2.0 */
/* What tests may see of the core beyond its contract. */
#ifndef SV_CORE_INTERNAL_TEST_H
#define SV_CORE_INTERNAL_TEST_H

#include "journal.h"
#include "pool.h"

#ifdef __cplusplus
extern "C"
#endif
s64 sv_test_reserved(const struct sv_pool *p);	/* ring bytes promised to writes; 0 at rest */

#endif

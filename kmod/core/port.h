/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All that kmod/core asks of its surroundings. In the module these are the kernel's own; in svd and the tests
 * port_user.h gives the same names over the compiler's builtins. Core calls nothing else.
 */
#ifndef SV_CORE_PORT_H
#define SV_CORE_PORT_H

#ifdef __KERNEL__
#include "port_kernel.h"
#else
#include "port_user.h"
#endif

#endif

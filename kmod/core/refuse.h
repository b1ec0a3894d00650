/* SPDX-License-Identifier: GPL-2.0 */
/* How the codecs say why they refuse something. For label.c and journal.c. */
#ifndef SV_CORE_REFUSE_H
#define SV_CORE_REFUSE_H

#include "port.h"

/* @err, with the reason in *@why where the caller wants it. */
static inline int sv_refuse(int err, const char **why, const char *reason)
{
	if (why)
		*why = reason;
	return err;
}

#endif

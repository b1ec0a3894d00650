// SPDX-License-Identifier: GPL-2.0
/* The module's beginning and end: registers the two targets. Pools and their control devices come with tables. */
#include <linux/module.h>

#include "sv.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static int __init sv_init(void)
{
	int ret = sv_ring_init();

	if (ret)
		return ret;
	ret = dm_register_target(&sv_pool_target);
	if (ret)
		goto exit_ring;
	ret = dm_register_target(&sv_volume_target);
	if (ret)
		goto unregister_pool;
	return 0;

unregister_pool:
	dm_unregister_target(&sv_pool_target);
exit_ring:
	sv_ring_exit();
	return ret;
}

static void __exit sv_exit(void)
{
	dm_unregister_target(&sv_volume_target);
	dm_unregister_target(&sv_pool_target);
	sv_ring_exit();
	/* Grace periods end in callbacks of call_srcu() and call_rcu(). */
	rcu_barrier();
}

module_init(sv_init);
module_exit(sv_exit);

MODULE_DESCRIPTION("Thin volumes on tiered pools for device-mapper");
MODULE_AUTHOR("The svctl authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_ALIAS("dm-sv-pool");
MODULE_ALIAS("dm-sv-volume");
MODULE_SOFTDEP("pre: crc32c");

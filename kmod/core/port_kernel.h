/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's side of port.h. */
#ifndef SV_CORE_PORT_KERNEL_H
#define SV_CORE_PORT_KERNEL_H

#include <asm/local64.h>
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/build_bug.h>
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/vmalloc.h>

typedef spinlock_t sv_lock_t;
typedef unsigned long sv_lock_flags_t;

#define sv_lock_init(l)		spin_lock_init(l)
#define sv_lock(l, f)		spin_lock_irqsave((l), (f))
#define sv_unlock(l, f)		spin_unlock_irqrestore((l), (f))
#define sv_lock_assert(l)	lockdep_assert_held(l)

/* In long loops that may sleep. */
static inline void sv_breathe(void)
{
	cond_resched();
}

/* May sleep; zeroed; NULL on failure. */
static inline void *sv_zalloc(size_t bytes)
{
	return kvzalloc(bytes, GFP_KERNEL);
}

/*
 * At most a page, for a reserve that writeback draws on [I9]: fails at once where memory is short. The page allocator
 * would try for ever to get a page, and where all memory waits to be written here, only the caller's going on frees
 * any.
 */
static inline void *sv_zalloc_now(size_t bytes)
{
	return kzalloc(bytes, GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
}

/* Any context; fails at once where memory is short; zeroed. */
static inline void *sv_zalloc_atomic(size_t bytes)
{
	return kzalloc(bytes, GFP_NOWAIT | __GFP_NOWARN);
}

static inline void sv_free(void *p)
{
	kvfree(p);
}

/*
 * Pages: each has a word of its own beside its 4 KiB, 0 at first. sv_page_zalloc() as sv_zalloc(), sv_page_zalloc_now()
 * as sv_zalloc_now(). sv_page_retire() frees when nobody is in an RCU read section any more that is in one now.
 */
static inline void *sv_page_make(gfp_t gfp)
{
	unsigned long page = __get_free_page(gfp | __GFP_ZERO);

	if (page)
		set_page_private(virt_to_page((void *)page), 0);
	return (void *)page;
}

static inline void *sv_page_zalloc(void)
{
	return sv_page_make(GFP_KERNEL);
}

static inline void *sv_page_zalloc_now(void)
{
	return sv_page_make(GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
}

static inline u64 *sv_page_word(const void *page)
{
	static_assert(sizeof(page_private(virt_to_page(page))) == sizeof(u64), "64-bit machines");
	return (u64 *)&virt_to_page(page)->private;
}

static inline void sv_page_free(void *page)
{
	if (!page)
		return;
	set_page_private(virt_to_page(page), 0);
	free_page((unsigned long)page);
}

static inline void sv_page_free_retired(struct rcu_head *head)
{
	sv_page_free(page_address(container_of(head, struct page, rcu_head)));
}

static inline void sv_page_retire(void *page)	/* any context */
{
	call_rcu(&virt_to_page(page)->rcu_head, sv_page_free_retired);
}

static inline void sv_read_lock(void) { rcu_read_lock(); }
static inline void sv_read_unlock(void) { rcu_read_unlock(); }

/*
 * Counters that one CPU alone adds to, from sv_cpu_enter() to sv_cpu_leave(), where nobody sleeps: without a lock, and
 * right in any context. Others may read them meanwhile.
 */
typedef local64_t sv_counter_t;

static inline u32 sv_cpu_enter(void) { return (u32)get_cpu(); }
static inline void sv_cpu_leave(void) { put_cpu(); }
static inline u32 sv_cpu_now(void) { return raw_smp_processor_id(); }	/* it may be another one by now */
static inline void sv_counter_add(sv_counter_t *c, u64 n) { local64_add((s64)n, c); }
static inline u64 sv_counter_read(const sv_counter_t *c) { return (u64)local64_read(c); }

/* One more than the highest that sv_cpu_enter() may ever tell. */
static inline u32 sv_nr_cpus(void) { return nr_cpu_ids; }

/* CRC32C with initial value ~0 and final xor ~0, continued from @crc (0 to begin). */
static inline u32 sv_crc32c(u32 crc, const void *p, size_t n)
{
	return ~crc32c(~crc, p, n);
}

#endif

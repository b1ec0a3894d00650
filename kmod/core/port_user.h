/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The user-space side of port.h: names of the kernel over the compiler's builtins, in C11 and C++20. Locks assert
 * that they are not taken twice; whoever drives the core from several threads holds a mutex of its own around it.
 */
#ifndef SV_CORE_PORT_USER_H
#define SV_CORE_PORT_USER_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#ifndef __cplusplus
#define static_assert _Static_assert
#endif
#define __force
#define __rcu
#define __percpu
#define __must_check	__attribute__((warn_unused_result))
#ifndef __cplusplus			/* headers of C++ say noinline, too */
#define noinline __attribute__((__noinline__))
#endif
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef __always_unused
#define __always_unused	__attribute__((unused))
#endif

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "svctl runs on little-endian machines");

static inline u16 le16_to_cpu(__le16 v) { return (u16)v; }
static inline u32 le32_to_cpu(__le32 v) { return (u32)v; }
static inline u64 le64_to_cpu(__le64 v) { return (u64)v; }
static inline __le16 cpu_to_le16(u16 v) { return (__le16)v; }
static inline __le32 cpu_to_le32(u32 v) { return (__le32)v; }
static inline __le64 cpu_to_le64(u64 v) { return (__le64)v; }

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define min_t(t, a, b)	((t)(a) < (t)(b) ? (t)(a) : (t)(b))
#define max_t(t, a, b)	((t)(a) > (t)(b) ? (t)(a) : (t)(b))
#define ALIGN(x, a)	(((x) + (a) - 1) & ~((__typeof__(x))(a) - 1))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define hweight64(x)	__builtin_popcountll(x)
static inline unsigned long __ffs64(u64 x) { return (unsigned long)__builtin_ctzll(x); }
static inline int fls64(u64 x) { return x ? 64 - __builtin_clzll(x) : 0; }
#define container_of(p, t, m) ((t *)((char *)(p) - offsetof(t, m)))

#define READ_ONCE(x)	(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define smp_load_acquire(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb()	__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define smp_rmb()	__atomic_thread_fence(__ATOMIC_ACQUIRE)
#define smp_mb__after_atomic()	smp_mb()
#define rcu_dereference(p)	__atomic_load_n(&(p), __ATOMIC_CONSUME)
#define rcu_dereference_protected(p, c)	(p)
#define rcu_assign_pointer(p, v) __atomic_store_n(&(p), (v), __ATOMIC_RELEASE)
#define RCU_INIT_POINTER(p, v)	((p) = (v))
#define WARN_ON_ONCE(c)	({ bool sv_w_ = !!(c); assert(!sv_w_); sv_w_; })

#define cmpxchg(p, old, new)	({ __typeof__(*(p)) sv_o_ = (old); \
	__atomic_compare_exchange_n((p), &sv_o_, (new), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); sv_o_; })

typedef struct { s64 counter; } atomic64_t;
static inline s64 atomic64_read(const atomic64_t *a) { return __atomic_load_n(&a->counter, __ATOMIC_RELAXED); }
static inline void atomic64_set(atomic64_t *a, s64 v) { __atomic_store_n(&a->counter, v, __ATOMIC_RELAXED); }
static inline void atomic64_add(s64 v, atomic64_t *a) { __atomic_fetch_add(&a->counter, v, __ATOMIC_RELAXED); }
static inline void atomic64_sub(s64 v, atomic64_t *a) { __atomic_fetch_sub(&a->counter, v, __ATOMIC_RELAXED); }
static inline s64 atomic64_add_return(s64 v, atomic64_t *a) { return __atomic_add_fetch(&a->counter, v, __ATOMIC_SEQ_CST); }
static inline void atomic64_or(s64 v, atomic64_t *a) { __atomic_fetch_or(&a->counter, v, __ATOMIC_RELAXED); }
static inline void atomic64_andnot(s64 v, atomic64_t *a) { __atomic_fetch_and(&a->counter, ~v, __ATOMIC_RELAXED); }
static inline s64 atomic64_fetch_or(s64 v, atomic64_t *a) { return __atomic_fetch_or(&a->counter, v, __ATOMIC_SEQ_CST); }
static inline s64 atomic64_fetch_andnot(s64 v, atomic64_t *a) { return __atomic_fetch_and(&a->counter, ~v, __ATOMIC_SEQ_CST); }
static inline s64 atomic64_xchg(atomic64_t *a, s64 v) { return __atomic_exchange_n(&a->counter, v, __ATOMIC_SEQ_CST); }

typedef struct { bool held; } sv_lock_t;
typedef unsigned long sv_lock_flags_t;
static inline void sv_lock_init(sv_lock_t *l) { l->held = false; }
/* What another CPU does before this one gets a lock; for tests. In port_user.c. */
#ifdef __cplusplus
extern "C" void (*sv_other_cpu)(sv_lock_t *l);
#else
extern void (*sv_other_cpu)(sv_lock_t *l);
#endif
#define sv_lock(l, f)	do { if (sv_other_cpu) sv_other_cpu(l); assert(!(l)->held); (l)->held = true; (f) = 0; } while (0)
#define sv_unlock(l, f)	do { assert((l)->held); (l)->held = false; (void)(f); } while (0)
#define sv_lock_assert(l) assert((l)->held)

static inline void sv_breathe(void) {}
static inline void *sv_zalloc(size_t bytes) { return calloc(1, bytes); }
static inline void *sv_zalloc_now(size_t bytes) { return calloc(1, bytes); }
static inline void sv_free(void *p) { free(p); }

/* Pages, each with a word of its own behind it. Nobody reads while another one writes, so that a retired one goes at once. */
static inline void *sv_page_zalloc(void) { return calloc(1, 4096 + sizeof(u64)); }
static inline void *sv_page_zalloc_now(void) { return sv_page_zalloc(); }
static inline u64 *sv_page_word(const void *page) { return (u64 *)((uintptr_t)page + 4096); }
static inline void sv_page_free(void *page) { free(page); }
#ifdef __cplusplus
extern "C" {
#endif
/* For tests, which keep what a reader may still be in: instead of freeing. In port_user.c. */
extern void (*sv_page_retired)(void *page);
#ifdef __cplusplus
}
#endif
static inline void sv_page_retire(void *page)
{
	if (sv_page_retired)
		sv_page_retired(page);
	else
		sv_page_free(page);
}
static inline void sv_read_lock(void) {}
static inline void sv_read_unlock(void) {}

/* As many CPUs as a test wants; the one that it runs on. In port_user.c. */
typedef u64 sv_counter_t;
#ifdef __cplusplus
extern "C" {
#endif
extern u32 sv_test_cpus, sv_test_cpu;
extern bool sv_test_no_memory;	/* for sv_zalloc_atomic() */
#ifdef __cplusplus
}
#endif
static inline u32 sv_cpu_enter(void) { return sv_test_cpu; }
static inline void sv_cpu_leave(void) {}
static inline u32 sv_cpu_now(void) { return sv_test_cpu; }
static inline void sv_counter_add(sv_counter_t *c, u64 n) { *c += n; }
static inline u64 sv_counter_read(const sv_counter_t *c) { return *c; }
static inline u32 sv_nr_cpus(void) { return sv_test_cpus; }
static inline void *sv_zalloc_atomic(size_t bytes) { return sv_test_no_memory ? NULL : calloc(1, bytes); }

#ifdef __cplusplus
extern "C"
#endif
u32 sv_crc32c(u32 crc, const void *p, size_t n);	/* port_user.c */

#endif

// SPDX-License-Identifier: GPL-2.0
/* CRC32C for user space: by the processor's instruction where it has one, else by table. And what tests do at locks. */
#include "port_user.h"

void (*sv_other_cpu)(sv_lock_t *l);
void (*sv_page_retired)(void *page);
u32 sv_test_cpus = 1, sv_test_cpu;
bool sv_test_no_memory;

static u32 table[256];

__attribute__((constructor)) static void fill_table(void)
{
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int k = 0; k < 8; k++)
			c = (c >> 1) ^ (0x82f63b78u & (0u - (c & 1)));
		table[i] = c;
	}
}

static u32 by_table(u32 crc, const u8 *b, size_t n)
{
	while (n--)
		crc = (crc >> 8) ^ table[(crc ^ *b++) & 0xff];
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static u32 by_instruction(u32 crc, const u8 *b, size_t n)
{
	for (; n >= 8; b += 8, n -= 8) {
		u64 word;

		memcpy(&word, b, 8);
		crc = (u32)__builtin_ia32_crc32di(crc, word);
	}
	for (; n > 0; b++, n--)
		crc = __builtin_ia32_crc32qi(crc, *b);
	return crc;
}
#endif

u32 sv_crc32c(u32 crc, const void *p, size_t n)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~by_instruction(~crc, (const u8 *)p, n);
#endif
	return ~by_table(~crc, (const u8 *)p, n);
}

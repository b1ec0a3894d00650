// SPDX-License-Identifier: GPL-2.0
/* CRC32C for user space: by table, one byte at a time; the module uses the kernel's. */
#include "port_user.h"

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

u32 sv_crc32c(u32 crc, const void *p, size_t n)
{
	const u8 *b = (const u8 *)p;

	crc = ~crc;
	while (n--)
		crc = (crc >> 8) ^ table[(crc ^ *b++) & 0xff];
	return ~crc;
}

// SPDX-License-Identifier: GPL-2.0
// The processor's CRC32C, or the core's table.
#include "daemon/base/crc32c.h"

#include <cstring>

#include "kmod/core/port.h"

namespace svd {

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_instruction(std::span<const uint8_t> data)
{
	uint64_t crc = 0xffffffff;
	const uint8_t *p = data.data();
	size_t n = data.size();
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t word = 0;
		memcpy(&word, p, 8);
		crc = __builtin_ia32_crc32di(crc, word);
	}
	auto last = static_cast<uint32_t>(crc);
	for (; n > 0; p++, n--)
		last = __builtin_ia32_crc32qi(last, *p);
	return ~last;
}

uint32_t crc32c(std::span<const uint8_t> data)
{
	static const bool has_instruction = __builtin_cpu_supports("sse4.2");
	return has_instruction ? by_instruction(data) : sv_crc32c(0, data.data(), data.size());
}
#else
uint32_t crc32c(std::span<const uint8_t> data) { return sv_crc32c(0, data.data(), data.size()); }
#endif

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// CRC32C of large buffers: the same value as kmod/core's sv_crc32c(0, ...), by the processor's instruction where it
// has one. Used for the catalogue's block checksums.
#pragma once

#include <cstdint>
#include <span>

namespace svd {

uint32_t crc32c(std::span<const uint8_t> data);

}  // namespace svd

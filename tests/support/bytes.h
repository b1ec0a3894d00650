// SPDX-License-Identifier: GPL-2.0
// Bytes as the tests of the formats see them: hexadecimal text, little-endian fields at literal offsets, a CRC32C
// one bit at a time. Written without kmod/core, so that a fault there cannot hide here as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace sv::test {

using Bytes = std::vector<uint8_t>;
using Rng = std::mt19937_64;

inline std::string hex(const void* data, size_t size) {
  static const char kDigits[] = "0123456789abcdef";
  const auto* p = static_cast<const uint8_t*>(data);
  std::string text;
  for (size_t i = 0; i < size; i++) {
    text += kDigits[p[i] >> 4];
    text += kDigits[p[i] & 15];
  }
  return text;
}

inline void put_le(Bytes& b, size_t at, int size, uint64_t value) {
  for (int i = 0; i < size; i++) b.at(at + i) = static_cast<uint8_t>(value >> (8 * i));
}

inline uint64_t get_le(const Bytes& b, size_t at, int size) {
  uint64_t value = 0;
  for (int i = 0; i < size; i++) value |= static_cast<uint64_t>(b.at(at + i)) << (8 * i);
  return value;
}

inline void put_text(Bytes& b, size_t at, std::string_view text) { std::memcpy(&b.at(at), text.data(), text.size()); }

inline uint32_t naive_crc32c(const uint8_t* p, size_t n) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < n; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
  }
  return ~crc;
}

// Uniform in [low, high].
inline uint64_t between(Rng& rng, uint64_t low, uint64_t high) {
  return std::uniform_int_distribution<uint64_t>(low, high)(rng);
}

}  // namespace sv::test

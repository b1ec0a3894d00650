// SPDX-License-Identifier: GPL-2.0
// Sizes as users write and read them, and strong types so that an extent number is not taken for a slot.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/base/result.h"

namespace svd {

template <typename Tag, typename Rep>
struct Strong {
	using rep = Rep;
	Rep v = 0;

	constexpr Strong() = default;
	constexpr explicit Strong(Rep value) : v(value) {}
	constexpr auto operator<=>(const Strong&) const = default;
};

using Bytes = Strong<struct BytesTag, uint64_t>;
using ExtentNo = Strong<struct ExtentTag, uint32_t>;
using SlotNo = Strong<struct SlotTag, uint32_t>;
using MemberNo = Strong<struct MemberTag, uint32_t>;
using VolumeId = Strong<struct VolumeTag, uint32_t>;
using LayerNo = Strong<struct LayerTag, uint32_t>;

inline constexpr uint64_t kKiB = 1ull << 10;
inline constexpr uint64_t kMiB = 1ull << 20;
inline constexpr uint64_t kGiB = 1ull << 30;
inline constexpr uint64_t kTiB = 1ull << 40;

// "10G", "10GiB" and "1.5T" are powers of 1024, "10GB" is 10^9. Bare numbers, zero, negative numbers, fractions of a
// byte and what does not fit in 63 bits are refused with a message that says what to write instead.
Result<Bytes> parse_size(std::string_view text);
// "10 GiB", "1.5 TiB", "123 B": at most two decimals, exact where it can be.
std::string format_size(Bytes size);

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// 16 bytes of RFC 4122 UUID. Pools, members and hosts are named by one.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/base/result.h"

namespace svd {

struct Uuid {
	std::array<uint8_t, 16> bytes{};

	static Uuid random();  // version 4
	static Uuid from_bytes(const uint8_t *p);
	static Result<Uuid> parse(std::string_view text);  // 36 characters, any case

	bool is_zero() const { return *this == Uuid{}; }
	std::string str() const;  // lower case with dashes
	auto operator<=>(const Uuid&) const = default;
};

}  // namespace svd

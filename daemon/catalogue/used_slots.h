// SPDX-License-Identifier: GPL-2.0
// Slots that hold extents or fragments, and so all that are free: nothing else says so.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "daemon/catalogue/catalogue.h"

namespace svd {

class UsedSlots {
 public:
	explicit UsedSlots(const std::vector<MemberRow> &members);
	// As Catalogue::for_each_extent() tells them, and then as for_each_partial() does. kNeedsCheck: there is no such slot.
	Status add(std::span<const sv_extent> extents);
	Status add(std::span<const sv_partial_bits> partials);
	std::vector<FreeRange> free_ranges() const;

 private:
	static constexpr uint8_t kNone = 0xff;
	bool mark(uint32_t member, uint32_t slot);  // false: there is none
	void add_free(uint32_t member, std::vector<FreeRange> &out) const;

	struct Bits {
		std::vector<uint64_t> word;
		uint32_t slots;
		uint32_t next(uint32_t slot, bool used) const;
	};
	std::vector<Bits> used_;               // by member
	uint32_t max_extents_;                 // numbers are below it
	std::vector<uint8_t> members_;         // by extent, of those with fragments
};

}  // namespace svd

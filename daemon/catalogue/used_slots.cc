// SPDX-License-Identifier: GPL-2.0
// See used_slots.h.
#include "daemon/catalogue/used_slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "daemon/catalogue/pages.h"

namespace svd {

UsedSlots::UsedSlots(const std::vector<MemberRow> &members)
{
	uint64_t slots = 0;
	for (const MemberRow &m : members) {
		used_.push_back({std::vector<uint64_t>((m.nr_slots + 63) / 64), m.nr_slots});
		slots += m.nr_slots;
	}
	max_extents_ = sv_max_extents(slots);
}

static Error nowhere(uint32_t extent, uint32_t member, uint32_t slot)
{
	return Error(Code::kNeedsCheck, "read", "catalogue",
		     fmt::format("extent {} lies in slot {} of member {}, which is not there", extent, slot, member),
		     "run 'svctl check' on the pool");
}

bool UsedSlots::mark(uint32_t member, uint32_t slot)
{
	if (member >= used_.size() || slot >= used_[member].slots)
		return false;
	used_[member].word[slot / 64] |= 1ull << slot % 64;
	return true;
}

Status UsedSlots::add(std::span<const sv_extent> extents)
{
	for (const sv_extent &e : extents) {
		if ((e.flags & SV_EXTENT_FRAGS) == 0) {
			if (!mark(e.member, e.slot))
				return nowhere(e.extent, e.member, e.slot);
			continue;
		}
		if (e.extent >= max_extents_)
			return Error(Code::kNeedsCheck, "read", "catalogue", fmt::format("the pool has no extent {}", e.extent),
				     "run 'svctl check' on the pool");
		members_.resize(e.extent + 1, kNone);
		members_[e.extent] = static_cast<uint8_t>(e.member);
	}
	return {};
}

Status UsedSlots::add(std::span<const sv_partial_bits> partials)
{
	for (const sv_partial_bits &p : partials) {
		const uint32_t member = p.extent < members_.size() ? members_[p.extent] : kNone;
		for (const uint32_t place : p.place)
			if (place != 0 && !mark(member, slot_of_place(place)))
				return nowhere(p.extent, member, slot_of_place(place));
	}
	return {};
}

// The first slot from there on that is used, or is not.
uint32_t UsedSlots::Bits::next(uint32_t slot, bool used) const
{
	while (slot < slots) {
		const uint64_t rest = (used ? word[slot / 64] : ~word[slot / 64]) >> slot % 64;
		if (rest != 0)
			return std::min(slot + static_cast<uint32_t>(std::countr_zero(rest)), slots);
		slot = (slot / 64 + 1) * 64;
	}
	return slots;
}

void UsedSlots::add_free(uint32_t member, std::vector<FreeRange> &out) const
{
	const Bits &bits = used_[member];
	uint32_t end;
	for (uint32_t first = bits.next(0, false); first < bits.slots; first = bits.next(end, false)) {
		end = bits.next(first, true);
		out.push_back({member, first, end - first});
	}
}

std::vector<FreeRange> UsedSlots::free_ranges() const
{
	std::vector<FreeRange> ranges;
	for (uint32_t m = 0; m < used_.size(); m++)
		add_free(m, ranges);
	return ranges;
}

}  // namespace svd

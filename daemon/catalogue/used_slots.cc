// SPDX-License-Identifier: GPL-2.0
// See used_slots.h.
#include "daemon/catalogue/used_slots.h"

#include <fmt/format.h>

#include "daemon/catalogue/pages.h"

namespace svd {

UsedSlots::UsedSlots(const std::vector<MemberRow> &members)
{
	uint64_t slots = 0;
	for (const MemberRow &m : members) {
		used_.emplace_back(m.nr_slots);
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
	if (member >= used_.size() || slot >= used_[member].size())
		return false;
	used_[member][slot] = true;
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

void UsedSlots::add_free(uint32_t member, std::vector<FreeRange> &out) const
{
	const std::vector<bool> &used = used_[member];
	const auto n = static_cast<uint32_t>(used.size());
	for (uint32_t slot = 0; slot < n;) {
		if (used[slot]) {
			slot++;
			continue;
		}
		const uint32_t first = slot;
		while (slot < n && !used[slot])
			slot++;
		out.push_back({member, first, slot - first});
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

// SPDX-License-Identifier: GPL-2.0
// A pool's members that are to be emptied: what the catalogue, the kernel and evacuation.h are told. See pool.h.
//
// That a member is leaving is in the catalogue first, then the kernel closes it; so does each kernel that is loaded later, and an
// svd that finds a kernel running. A MOVE is in the journal, as everything that the kernel does: nothing is kept here.
#include <algorithm>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/base/units.h"
#include "daemon/engine/kill_point.h"
#include "daemon/engine/pool.h"
#include "kmod/core/pool.h"

namespace svd {

namespace {

constexpr uint64_t bit(uint32_t member) { return uint64_t{1} << member; }

std::string size_of(uint64_t slots) { return format_size(Bytes(slots << SV_EXTENT_SHIFT)); }

}	// namespace

Status Pool::refuse_old_module_for_evacuation() const
{
	return (features_ & SV_FEATURE_CLOSE) != 0 ? Status() : old_module("empty a device of", "pool " + name_, "moving data between devices");
}

Result<std::vector<MemberSpace>> Pool::room_elsewhere()
{
	std::vector<MemberSpace> open;
	SV_ASSIGN(const MemberStates states, members_in_kernel());
	for (const auto &[index, state] : states)
		if (!is_leaving(index))
			open.push_back({index, state.tier, state.free_slots});
	return open;
}

Status Pool::refuse_evacuation(uint32_t member)
{
	const char *const attempt = "evacuate device";
	const std::string &path = members_.at(member).path;
	SV_TRY(refuse_old_module_for_evacuation());
	SV_ASSIGN(const MemberStates states, members_in_kernel());
	if (!states.contains(member))
		return Error{Code::kBusy, attempt, path, "it was added and is not in use yet", "svctl status"};
	uint64_t slots = 0;
	uint64_t free = 0;
	uint64_t used = 0;	// what lies on it, and on others that are leaving
	for (const auto &[index, state] : states) {
		const bool leaves = index == member || is_leaving(index);
		slots += leaves ? 0 : state.nr_slots;
		free += leaves ? 0 : state.free_slots;
		used += leaves ? state.nr_slots - state.free_slots : 0;
	}
	if (slots == 0)
		return Error{Code::kNoSpace, attempt, path, "it is the only device that data can be on",
			     fmt::format("svctl add-device {} TIER=DEVICE", name_)};
	const uint64_t kept = 2 * sv_reserve_for(slots);	// which MOVE leaves to writes
	if (used + kept > free)
		return Error{Code::kNoSpace, attempt, path,
			     fmt::format("{} are to be moved, and {} can be taken on the other devices", size_of(used),
					 size_of(free - std::min(free, kept))),
			     fmt::format("svctl add-device {} TIER=DEVICE, or delete files and fstrim", name_)};
	return {};
}

Status Pool::tell_closed()
{
	if ((features_ & SV_FEATURE_CLOSE) == 0)
		return {};
	std::vector<sv_close> all;
	SV_ASSIGN(const MemberStates states, members_in_kernel());
	for (const auto &[index, state] : states)
		if (is_leaving(index) != ((state.flags & SV_MEMBER_CLOSED) != 0))
			all.push_back({index, is_leaving(index) ? 1u : 0u});
	return channel_->tell_all(SV_OP_CLOSE, all);
}

Status Pool::set_leaving(uint64_t members)
{
	SV_TRY(catalogue_->set_leaving(members));
	evacuation_.set(members, Clock::now());
	kill_point("evacuate-in-catalogue");
	SV_TRY(tell_closed());
	kill_point("evacuate-in-kernel");
	return {};
}

Status Pool::evacuate(uint32_t member, bool leaves)
{
	SV_TRY(leaves ? refuse_evacuation(member) : refuse_old_module_for_evacuation());
	const uint64_t before = evacuation_.members();
	Status done = set_leaving(leaves ? before | bit(member) : before & ~bit(member));
	if (!done.ok())
		note(set_leaving(before));
	return done;
}

bool Pool::is_leaving(uint32_t member) const { return (evacuation_.members() >> member & 1) != 0; }

Status Pool::find_leaving()
{
	SV_ASSIGN(const uint64_t members, catalogue_->leaving());
	const bool closes = (features_ & SV_FEATURE_CLOSE) != 0;
	evacuation_.set(read_only_ || !closes ? 0 : members, Clock::now());
	if (members != 0 && !closes)
		log::warning(Id::kModuleVersion, "pool {}: devices that are to be emptied are used as others: the kernel module is too old to keep "
			     "new data off them", name_);
	return {};
}

// One command: of each extent where it goes to by what is free now.
Status Pool::move_some()
{
	const auto began = Clock::now();
	SV_ASSIGN(const ExtentsOn some, catalogue_->extents_on(evacuation_.members(), evacuation_.after(), evacuation_.at_once()));
	std::vector<sv_move> moves;
	SV_ASSIGN(const auto open, room_elsewhere());
	for (const sv_extent &e : some.extents) {
		const auto place = place_for(members_.at(e.member).label.tier, open);
		if (place)
			moves.push_back({e.extent, e.gen, static_cast<uint8_t>(*place), evacuation_.flags()});
	}
	uint64_t moved = 0;
	if (!moves.empty()) {
		SV_ASSIGN(const auto result, channel_->command(SV_OP_MOVE, moves.data(), sizeof(moves[0]), static_cast<uint32_t>(moves.size())));
		moved = result.done;
	}
	kill_point("moved");
	evacuation_.stepped(some.after, some.extents.size(), moved, began, Clock::now());
	if (!some.done)
		return {};
	evacuation_.pass_ended(Clock::now());
	if (evacuation_.empty())
		for (const auto &[index, member] : members_)
			if (is_leaving(index))
				log::notice("pool {}: {} is empty", name_, member.path);
	return {};
}

void Pool::evacuate_some(Clock::time_point now)
{
	if (still_ || state_ != PoolState::kActive || !evacuation_.due(now))
		return;
	const Status done = move_some();
	note(done);
	if (!done.ok())
		evacuation_.failed(Clock::now());
}

}	// namespace svd

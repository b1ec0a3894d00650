// SPDX-License-Identifier: GPL-2.0
// See evacuation.h.
#include "daemon/engine/evacuation.h"

#include <algorithm>
#include <tuple>

namespace svd {

namespace {

constexpr auto kShort = std::chrono::milliseconds(50);		// a command that takes no longer may have more to do
constexpr auto kLong = std::chrono::milliseconds(150);
constexpr auto kLeastPause = std::chrono::milliseconds(1);
constexpr auto kAgain = std::chrono::seconds(30);		// at first, then twice as long each time
constexpr auto kAgainAtMost = std::chrono::minutes(10);

}	// namespace

std::optional<uint32_t> place_for(uint32_t tier, std::span<const MemberSpace> open)
{
	const auto rank = [tier](const MemberSpace &m) {
		const bool faster = m.tier < tier;
		const uint32_t away = faster ? tier - m.tier : m.tier - tier;
		return std::tuple(faster, away, UINT64_MAX - m.free, m.member);
	};
	const MemberSpace *best = nullptr;
	for (const MemberSpace &m : open)
		if (m.free > 0 && (best == nullptr || rank(m) < rank(*best)))
			best = &m;
	return best == nullptr ? std::nullopt : std::optional(best->member);
}

void Evacuation::set(uint64_t members, Clock::time_point now)
{
	*this = Evacuation();
	members_ = members;
	due_ = now;
}

void Evacuation::try_again(Clock::time_point now)
{
	if (stalled())
		due_ = std::min(due_, now);
}

bool Evacuation::wants_checkpoint(Clock::time_point now) const { return members_ != 0 && !on_ && !empty_ && now >= due_; }

bool Evacuation::checkpointed(Clock::time_point now)
{
	if (!wants_checkpoint(now))
		return false;
	on_ = true;
	after_ = 0;
	found_ = moved_ = 0;
	return true;
}

void Evacuation::stepped(uint32_t after, uint64_t found, uint64_t moved, Clock::time_point began, Clock::time_point now)
{
	after_ = after;
	found_ += found;
	moved_ += moved;
	if (moved != 0) {
		wait_ = {};
		failed_ = false;
	}
	const Clock::duration took = now - began;
	due_ = now + std::max<Clock::duration>(took, kLeastPause);
	if (found == 0)
		return;
	if (took < kShort && found == at_once_)
		at_once_ = std::min(2 * at_once_, kMostAtOnce);
	else if (took > kLong)
		at_once_ = std::max(at_once_ / 2, 1u);
}

void Evacuation::put_off(Clock::time_point now)
{
	wait_ = std::clamp<Clock::duration>(2 * wait_, kAgain, kAgainAtMost);
	due_ = now + wait_;
}

void Evacuation::pass_ended(Clock::time_point now)
{
	on_ = failed_ = false;
	empty_ = found_ == 0;
	if (empty_)
		wait_ = {};
	else if (moved_ == 0 && tries_ >= kHoldFrom)
		put_off(now);
	tries_ = moved_ == found_ ? tries_ : tries_ + 1;
}

void Evacuation::failed(Clock::time_point now)
{
	on_ = false;
	if (moved_ == 0 && failed_)
		put_off(now);
	else
		due_ = now + kAgain;
	failed_ = moved_ == 0;
}

}	// namespace svd

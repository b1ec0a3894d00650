// SPDX-License-Identifier: GPL-2.0
// Emptying members: which extents are asked for next, how many at once, and when. The pool (pool_evacuation.cc) asks the catalogue
// and tells the kernel; what is here knows neither, and no clock but what it is told.
//
// It goes in passes over the extents that lie on members which are leaving. A pass begins when the catalogue has all that lies
// there: after a checkpoint, since nothing new gets onto a closed member. One that finds none has shown that they are empty.
// What the kernel left where it was, because it was written to, is found again by the next pass; from the third one on writes
// wait for the copy. Passes in which nothing moves come after longer and longer pauses: there is no room, or a member has errors.
//
// Half of the time goes to it, the other half is for whoever uses the members: a pause follows each command that is as long as
// that took. And no command takes long, since it has svd's thread to itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kmod/uapi/sv.h"

namespace svd {

struct MemberSpace {
	uint32_t member = 0;
	uint32_t tier = 0;		// rank
	uint64_t free = 0;		// slots
};

// Where what lies on this tier goes best: to the member of that tier with most free slots, of the next slower one, and so on; then
// of the faster ones, the nearest first. `open`: those that take anything. None: nobody has room.
std::optional<uint32_t> place_for(uint32_t tier, std::span<const MemberSpace> open);

class Evacuation {
public:
	using Clock = std::chrono::steady_clock;
	static constexpr uint32_t kHoldFrom = 2;	// passes that left something, before writes wait
	static constexpr uint32_t kMostAtOnce = SV_MOVES_MAX / 4;

	uint64_t members() const { return members_; }	// a bit for each that is leaving
	bool empty() const { return empty_; }		// nothing lies on any of them
	bool stalled() const { return wait_ != Clock::duration(); }	// the last passes moved nothing, though there is something

	void set(uint64_t members, Clock::time_point now);	// begins anew
	void try_again(Clock::time_point now);			// there may be room now

	// A checkpoint was made: the catalogue has all. True: a new pass has begun.
	bool checkpointed(Clock::time_point now);
	bool wants_checkpoint(Clock::time_point now) const;	// for the next pass
	bool due(Clock::time_point now) const { return on_ && now >= due_; }
	Clock::time_point due_at() const { return on_ ? due_ : Clock::time_point::max(); }	// of the next step

	uint32_t after() const { return after_; }
	uint32_t at_once() const { return at_once_; }
	uint8_t flags() const { return static_cast<uint8_t>(SV_MOVE_FRAGS | (tries_ >= kHoldFrom ? SV_MOVE_HOLD : 0)); }

	// A step was taken: so many extents were found up to `after`, and so many of them have moved, from `began` to `now`.
	void stepped(uint32_t after, uint64_t found, uint64_t moved, Clock::time_point began, Clock::time_point now);
	void pass_ended(Clock::time_point now);
	void failed(Clock::time_point now);			// the pass, by an error; the second one in a row stalls

private:
	void put_off(Clock::time_point now);

	uint64_t members_ = 0;
	bool on_ = false;		// a pass is under way
	bool empty_ = false;
	uint32_t after_ = 0;
	uint32_t tries_ = 0;
	uint32_t at_once_ = 8;
	uint64_t found_ = 0;		// in this pass
	uint64_t moved_ = 0;
	bool failed_ = false;
	Clock::time_point due_{};
	Clock::duration wait_{};
};

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// The checkpoint: what the kernel committed to the journal goes into the catalogue, then the journal is trimmed, then
// what was freed becomes free again. Each step may be the last that svd does; the next session begins at the first
// that was not done [I19] [I20] [I31]. The kill points are where tests try that.
#include <algorithm>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/engine/kill_point.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr auto kCheckpointEvery = std::chrono::milliseconds(30000);
constexpr auto kCheckpointPause = std::chrono::milliseconds(500);  // at least, from one to the next that is asked for
constexpr auto kAskEvery = std::chrono::milliseconds(500);	   // a kernel that cannot wake us
constexpr uint32_t kFreedAtOnce = 8192;

}	// namespace

Status Pool::checkpoint()
{
	const auto began = Clock::now();
	const Status result = checkpoint_now();
	const double took = std::chrono::duration<double>(Clock::now() - began).count();
	checkpoints_.seconds += took;
	if (!result.ok()) {
		checkpoints_.failed++;
		return result;
	}
	checkpoints_.done++;
	checkpoints_.last_seconds = took;
	checkpoints_.last = std::time(nullptr);
	return {};
}

Status Pool::checkpoint_now()
{
	kill_point("checkpoint-begin");
	SV_ASSIGN(std::vector<sv_freed> freed, list_freed());
	kill_point("checkpoint-listed");
	SV_ASSIGN(const auto state, channel_->ask<sv_state>(SV_OP_COMMIT));
	kill_point("checkpoint-committed");
	SV_TRY(apply_journal(state.committed_seq));
	kill_point("checkpoint-applied");
	if (state.tail_seq <= state.committed_seq)
		SV_TRY(channel_->tell(SV_OP_TRIM, sv_trim{state.committed_seq}));
	kill_point("checkpoint-trimmed");
	if (!freed.empty())
		SV_TRY(channel_->tell_all(SV_OP_RECYCLE, freed));
	kill_point("checkpoint-recycled");
	SV_TRY(say_whether_full());
	last_checkpoint_ = Clock::now();
	kill_point("checkpoint-end");
	return {};
}

// Everything that was free again has been given back: what the kernel still lacks is not to be had, and writes need
// not wait for it [I24].
Status Pool::say_whether_full()
{
	SV_ASSIGN(const auto state, channel_->ask<sv_state>(SV_OP_STATE));
	const bool full = state.mode == SV_MODE_OUT_OF_SPACE && state.freed_extents == 0;
	if (full == said_full_)
		return {};
	said_full_ = full;
	SV_TRY(tell_policy());
	if (full)
		log::error(Id::kPoolFull, "pool {} is full: delete files and fstrim, delete volumes, or svctl add-device", name_);
	else
		log::notice("pool {} has space again", name_);
	return {};
}

Status Pool::tell_policy()
{
	SV_ASSIGN(const PoolRow row, catalogue_->pool());
	return channel_->tell(SV_OP_POLICY, sv_policy{said_full_ ? 0 : row.no_space_ms, row.commit_ms});
}

Status Pool::apply_journal(uint64_t committed_seq)
{
	SV_ASSIGN(sv_ring_cursor cursor, catalogue_->applied());
	Status result;
	for (uint32_t index : with_flag(SV_LABEL_HAS_RING)) {
		Member &member = members_.at(index);
		sv_ring_cursor at = cursor;
		RingReader reader(*member.file, member.label, committed_seq);
		BatchApplier applier(*catalogue_);
		const void *batch = nullptr;
		const char *why = "it ends too early";
		int more = 0;
		result = {};
		while (result.ok() && at.seq < committed_seq && (more = reader.next(&at, &batch, &why)) > 0) {
			kill_point("checkpoint-read");
			result = applier.add(batch, at);
		}
		if (result.ok() && at.seq == committed_seq) {
			kill_point("checkpoint-before-apply");
			SV_TRY(applier.finish());
			kill_point("checkpoint-after-apply");
			return {};
		}
		const bool unreadable = result.ok();
		const log::Scope scope({name_, "", member.path});
		if (unreadable)
			result = Error{Code::kNeedsCheck, "read the journal on", member.path, why, "svctl check " + name_};
		log::warning(unreadable ? Id::kJournalCopyDamaged : result.error().id(), "pool {}: {}", name_, result.error().message());
		SV_ASSIGN(cursor, catalogue_->applied());
	}
	return result;
}

// What the kernel has freed until now. Its records are in the commit that follows, so that after apply and trim these
// numbers and slots may be used again; what is freed later waits for the next checkpoint [I20].
Result<std::vector<sv_freed>> Pool::list_freed()
{
	std::vector<sv_freed> all;
	uint32_t start = 1;
	for (;;) {
		std::vector<sv_freed> some(kFreedAtOnce);
		some[0].extent = start;
		SV_ASSIGN(const auto listed, channel_->command(SV_OP_LIST_FREED, some.data(), sizeof(sv_freed),
							       kFreedAtOnce));
		all.insert(all.end(), some.begin(), some.begin() + listed.count);
		if (listed.count < kFreedAtOnce)
			return all;
		start = all.back().extent + 1;
	}
}

bool Pool::owes() const
{
	return !to_drop_.empty() || std::any_of(members_.begin(), members_.end(), [](const auto &item) {
		return !item.second.admitted; });
}

Status Pool::do_what_is_owed()
{
	if (!to_drop_.empty())
		SV_TRY(drain_deletions());
	return admit_members();
}

Pool::Clock::time_point Pool::checkpoint_due() const
{
	return last_checkpoint_ + (asked_ || owes() ? kCheckpointPause : kCheckpointEvery);
}

// A checkpoint that did not help is asked for again at once, by each write that fails for want of space: what asks
// waits for a moment, and is not even listened to (event_fd).
Pool::Clock::time_point Pool::due() const
{
	if (!up())
		return Clock::time_point::max();
	if (channel_->event_fd() < 0)
		return last_tick_ + kAskEvery;
	return std::min(look_due_, state_ == PoolState::kActive || asked_ ? checkpoint_due() : Clock::time_point::max());
}

int Pool::event_fd(Clock::time_point now) const
{
	return up() && !(asked_ && now < checkpoint_due()) ? channel_->event_fd() : -1;
}

void Pool::tell_mode(uint32_t mode) const
{
	if (mode == SV_MODE_FAIL)
		log::error(Id::kPoolFailed, "pool {}: the kernel stopped it: a journal write failed", name_);
	else
		log::notice("pool {}: the kernel changed its mode to {}", name_, mode);
}

void Pool::note_events(const sv_event &event)
{
	const uint64_t events = event.events;
	if (events & SV_EVENT_COPY_LOST)
		look_due_ = {};	// at once: that tells which
	if (events & SV_EVENT_SPACE)
		log::warning(Id::kPoolFull, "pool {}: a write found no space", name_);
	if (events & SV_EVENT_MODE)
		tell_mode(event.mode);
	asked_ = asked_ || (events & (SV_EVENT_RING | SV_EVENT_FREED | SV_EVENT_SPACE));
	// Who waits for space waits for a checkpoint.
	disturbed_ = disturbed_ || (still_ && (events & SV_EVENT_SPACE));
}

bool Pool::journal_is_half_full()
{
	const auto state = channel_->ask<sv_state>(SV_OP_STATE);
	return state.ok() && state.value().ring_used > state.value().ring_bytes / 2;
}

void Pool::tick(Clock::time_point now)
{
	if (!up())
		return;
	const log::Scope scope({name_});
	last_tick_ = now;
	channel_->tick();
	const auto event = channel_->ask<sv_event>(SV_OP_WAIT);
	const bool removed = !event.ok() && event.error().code == Code::kNotFound;
	disturbed_ = still_ && (disturbed_ || removed);
	if (removed && !still_) {
		close_all();
		problem_ = Problem{Id::kPoolRemoved, "its device was removed, and not by svctl"};
		log::error(problem_->id, "pool {}: {}", name_, problem_->what);
		return;
	}
	// A kernel that does not say what its events are stays readable: it is not listened to for a moment either.
	asked_ = asked_ || !event.ok();
	if (event.ok())
		note_events(event.value());
	if (still_)
		disturbed_ = disturbed_ || (asked_ && journal_is_half_full());
	if (still_ || now < checkpoint_due())
		return;
	last_checkpoint_ = now;
	asked_ = false;
	if (state_ != PoolState::kActive)
		return;
	Status result = checkpoint();
	if (result.ok())
		result = do_what_is_owed();
	if (!result.ok() && (!problem_ || problem_->what != result.error().message()))
		log::error(Id::kCheckpointFailed, "pool {}: checkpoint: {}", name_, result.error().message());
	set_problem(result, Id::kCheckpointFailed);
}

}	// namespace svd

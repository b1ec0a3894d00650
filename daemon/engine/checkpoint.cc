// SPDX-License-Identifier: GPL-2.0
// The checkpoint: what the kernel committed to the journal goes into the catalogue, then the journal is trimmed, then
// what was freed becomes free again. Each step may be the last that svd does; the next session begins at the first
// that was not done [I19] [I20] [I31]. The kill points are where tests try that.
#include <algorithm>
#include <cerrno>
#include <cstring>

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
constexpr uint32_t kGap = 64;		// extents not asked for that are cheaper to read than another command
constexpr uint32_t kDumpedAtOnce = 16384;

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
	trimmed_ = false;
	SV_ASSIGN(Freed freed, list_freed());
	kill_point("checkpoint-listed");
	SV_ASSIGN(const auto state, channel_->ask<sv_state>(SV_OP_COMMIT));
	kill_point("checkpoint-committed");
	SV_TRY(apply_journal(state.committed_seq));
	kill_point("checkpoint-applied");
	if (state.tail_seq <= state.committed_seq)
		SV_TRY(channel_->tell(SV_OP_TRIM, sv_trim{state.committed_seq}));
	trimmed_ = true;
	kill_point("checkpoint-trimmed");
	SV_TRY(give_back(std::move(freed)));
	SV_TRY(give_back_discarded());
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
	const bool full = state.mode == SV_MODE_OUT_OF_SPACE && state.freed_extents == 0 && !merging_ && !(fold_.on && fold_.folded != 0) &&
			  !folds_wait();
	SV_ASSIGN(const bool fragments, may_use_fragments());
	if (full == said_full_ && fragments == fragments_)
		return {};
	const bool changed = std::exchange(said_full_, full) != full;
	SV_TRY(tell_policy());
	if (!changed)
		return {};
	if (full)
		log::error(Id::kPoolFull, "pool {} is full: delete files and fstrim, delete volumes, or svctl add-device", name_);
	else
		log::notice("pool {} has space again", name_);
	return {};
}

// An extent with fragments takes as much room in the catalogue as one with a slot, and there are more of them. Without room
// there is no checkpoint, so they end while there is some for all slots.
Result<bool> Pool::may_use_fragments()
{
	if ((features_ & SV_FEATURE_FRAGMENTS) == 0)
		return false;
	SV_ASSIGN(const CatalogueSpace space, catalogue_->space());
	return space.used < (fragments_ ? space.size / 10 * 6 : space.size / 2);
}

Status Pool::tell_policy()
{
	SV_ASSIGN(const PoolRow row, catalogue_->pool());
	SV_ASSIGN(fragments_, may_use_fragments());
	const uint32_t flags = fragments_ ? SV_POLICY_FRAGMENTS : 0;
	return channel_->tell(SV_OP_POLICY, sv_policy{said_full_ ? 0 : row.no_space_ms, row.commit_ms, flags, 0});
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
			fold_outgrown(applier.outgrown());
			return {};
		}
		fold_outgrown(applier.outgrown());	// what it has applied
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
Result<Pool::Freed> Pool::list_freed()
{
	SV_ASSIGN(const PoolRow row, catalogue_->pool());
	Freed all;
	left_freed_ = false;
	uint32_t start = 1;
	for (;;) {
		std::vector<sv_freed> some(kFreedAtOnce);
		some[0].extent = start;
		SV_ASSIGN(const auto listed, channel_->command(SV_OP_LIST_FREED, some.data(), sizeof(sv_freed),
							       kFreedAtOnce));
		some.resize(listed.count);
		if (!some.empty())
			start = some.back().extent + 1;
		SV_TRY(sort_freed(std::move(some), row.pass_discards, &all));
		if (listed.count < kFreedAtOnce)
			return all;
	}
}

// What is being discarded is listed again, and left out. What neither goes to its member nor is given back stays freed, and
// is listed by the next checkpoint.
Status Pool::sort_freed(std::vector<sv_freed> some, bool discard, Freed *all)
{
	std::erase_if(some, [this](const sv_freed &one) { return discards_.has(one.extent); });
	if (!discard) {
		all->at_once.insert(all->at_once.end(), some.begin(), some.end());
		return {};
	}
	std::vector<FreedSlot> slots;
	SV_TRY(find_slots(some, &slots, &all->at_once));
	for (const FreedSlot &one : slots) {
		const auto refused = discard_errors_.find(one.member);
		if (refused != discard_errors_.end() && refused->second == EOPNOTSUPP)
			all->at_once.push_back(one.freed);
		else if (!discards_.is_open() || discards_.slots(one.member) + all->slots[one.member] >= Discards::kMostOfMember)
			left_freed_ = true;
		else if (++all->slots[one.member])
			all->to_discard.push_back(one);
	}
	return {};
}

// Both lists ascend. An extent with fragments has no slot of its own: what is beside them is others'.
Status Pool::find_slots(std::span<const sv_freed> some, std::vector<FreedSlot> *slots, std::vector<sv_freed> *without)
{
	for (size_t i = 0, end = 0; i < some.size(); i = end) {
		for (end = i + 1; end < some.size() && some[end].extent - some[end - 1].extent <= kGap &&
				  some[end].extent - some[i].extent < kDumpedAtOnce; end++) {
		}
		std::vector<sv_extent> extents(some[end - 1].extent - some[i].extent + 1);
		extents[0].extent = some[i].extent;
		SV_ASSIGN(const auto answer, channel_->command(SV_OP_DUMP_EXTENTS, extents.data(), sizeof(sv_extent),
							       static_cast<uint32_t>(extents.size())));
		size_t at = i;
		for (uint32_t e = 0; e < answer.count; e++) {
			const sv_extent &extent = extents[e];
			while (at < end && some[at].extent < extent.extent)
				at++;
			if (at == end || some[at].extent != extent.extent || some[at].gen != extent.gen ||
			    (extent.flags & SV_EXTENT_FREED) == 0)
				continue;
			if ((extent.flags & SV_EXTENT_FRAGS) != 0)
				without->push_back(some[at]);
			else
				slots->push_back({some[at], extent.member, extent.slot});
		}
	}
	return {};
}

// ---- behind TRIM ----

Status Pool::give_back(Freed freed)
{
	for (const DiscardRun &run : plan_discards(std::move(freed.to_discard)))
		if (!begin_discard(run))
			freed.at_once.insert(freed.at_once.end(), run.freed.begin(), run.freed.end());
	kill_point("checkpoint-discarding");
	if (freed.at_once.empty())
		return {};
	return channel_->tell_all(SV_OP_RECYCLE, freed.at_once);
}

bool Pool::begin_discard(const DiscardRun &run)
{
	const auto found = members_.find(run.member);
	if (found == members_.end() || !found->second.file)
		return false;
	const Member &member = found->second;
	if (run.first >= member.label.nr_slots || run.freed.size() > member.label.nr_slots - run.first)
		return false;	// the kernel will say so
	if (discards_.begin(run, member.file->fd(), member.path, member.label.slot_off))
		return true;
	note_discard({run.member, errno, {}});
	return false;
}

// What members have let go of is free space. If this fails it is found as freed again.
Status Pool::give_back_discarded()
{
	std::vector<sv_freed> freed;
	for (const Discards::Done &done : discards_.collect()) {
		note_discard(done);
		freed.insert(freed.end(), done.freed.begin(), done.freed.end());
		asked_ = asked_ || (left_freed_ && discards_.slots(done.member) < Discards::kMostOfMember / 2);
	}
	if (freed.empty())
		return {};
	kill_point("discard-done");
	SV_TRY(channel_->tell_all(SV_OP_RECYCLE, freed));
	kill_point("discard-recycled");
	return say_whether_full();
}

// A discard is advice: its failure is told once, and that is all.
void Pool::note_discard(const Discards::Done &done)
{
	int &told = discard_errors_[done.member];
	if (done.error == told || done.error == 0)
		return;
	told = done.error;
	const auto member = members_.find(done.member);
	const std::string path = member == members_.end() ? std::to_string(done.member) : member->second.path;
	const log::Scope scope({name_, "", path});
	if (done.error == EOPNOTSUPP)
		log::notice("pool {}: {} takes no discards: its space is given back without", name_, path);
	else
		log::warning(Id::kDiscardFailed, "pool {}: {} did not take a discard: {}", name_, path, strerror(done.error));
}

Status Pool::end_discards(const char *attempt, Clock::duration longest)
{
	discards_.close();
	const std::string path = discards_.wait(longest);
	if (path.empty())
		return {};
	return Error{Code::kBusy, attempt, name_, fmt::format("{} has not answered a discard yet", path),
		     "repeat it later; journalctl -k says what is wrong with the device"}.with(Id::kDeviceHangs);
}

int Pool::discards_fd() const { return up() && trimmed_ ? discards_.event_fd() : -1; }

bool Pool::owes() const
{
	return evacuation_.wants_checkpoint(Clock::now()) || !to_drop_.empty() || merging_ || fold_.on || fill_.on || folds_wait() || unresolved_ || !to_own_.empty() || std::any_of(members_.begin(), members_.end(), [](const auto &item) {
		return !item.second.admitted; });
}

Status Pool::do_what_is_owed()
{
	if (!to_drop_.empty())
		SV_TRY(drain_deletions());
	if (unresolved_)
		SV_TRY(resolve_snapshots());
	SV_TRY(merge_some());
	SV_TRY(tell_owned());
	SV_TRY(tell_freed());
	SV_TRY(admit_members());
	fold_some();
	evacuation_.checkpointed(Clock::now());
	return {};
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
	const auto moves = still_ || state_ != PoolState::kActive ? Clock::time_point::max() : evacuation_.due_at();
	if (channel_->event_fd() < 0)
		return std::min(moves, last_tick_ + kAskEvery);
	return std::min({moves, look_due_, state_ == PoolState::kActive || asked_ ? checkpoint_due() : Clock::time_point::max()});
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
	if (trimmed_)
		note(give_back_discarded());
	evacuate_some(now);
	if (still_ || now < checkpoint_due())
		return;
	discards_.open();	// what was to take the pool down came to nothing
	last_checkpoint_ = now;
	asked_ = false;
	if (state_ != PoolState::kActive)
		return;
	Status result = checkpoint();
	if (result.ok())
		result = do_what_is_owed();
	else if (result.error().code == Code::kNoSpace)
		note(merge_some());	// a full catalogue has room again when layers have gone
	if (!result.ok() && is_news(result.error()))
		log::error(Id::kCheckpointFailed, "pool {}: checkpoint: {}", name_, result.error().message());
	set_problem(result, Id::kCheckpointFailed);
}

void Pool::tick_with_checkpoint()
{
	last_checkpoint_ = {};
	tick(Clock::now());
}

}	// namespace svd

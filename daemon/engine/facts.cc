// SPDX-License-Identifier: GPL-2.0
// What is known of a pool now, and its alerts as they begin and end. See pool.h.
#include <algorithm>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/base/schedule.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr auto kLookEvery = std::chrono::seconds(5);

}	// namespace

Result<MemberStates> Pool::members_in_kernel()
{
	MemberStates by_member;
	std::vector<sv_member_state> states(SV_MAX_MEMBERS);
	SV_ASSIGN(const auto answer, channel_->command(SV_OP_MEMBERS, states.data(), sizeof(states[0]), SV_MAX_MEMBERS));
	for (uint32_t i = 0; i < answer.count; i++)
		by_member[states[i].member] = states[i];
	return by_member;
}

MemberStates Pool::member_states()
{
	const auto states = up() ? members_in_kernel() : MemberStates();
	return states.ok() ? states.value() : MemberStates();
}

PoolFacts Pool::facts(const std::string &name)
{
	PoolFacts facts;
	facts.name = name;
	facts.uuid = uuid_.str();
	facts.state = state_name(state_);
	facts.writable = state_ == PoolState::kActive;
	facts.found_up = found_up_;
	facts.nr_members = nr_members();
	facts.missing = static_cast<uint32_t>(missing().size());
	facts.checkpoints = checkpoints_;
	const auto states = member_states();
	const uint32_t in_use = up() ? catalogue_->copies_in_use() : ~0u;
	uint32_t copy = 0;	// of the catalogue, in the order that it was opened in
	for (const auto &[index, member] : members_) {
		MemberFacts &one = facts.members.emplace_back();
		one.index = index;
		one.tier = member.label.tier_name;
		one.device = member.named.empty() ? member.path : member.named;
		one.size = static_cast<uint64_t>(member.label.nr_slots) << SV_EXTENT_SHIFT;
		one.journal = (member.label.flags & SV_LABEL_HAS_RING) != 0;
		one.catalogue = (member.label.flags & SV_LABEL_HAS_CATALOGUE) != 0;
		if (one.catalogue && !(member.label.flags & SV_LABEL_STALE))
			one.catalogue_lost = (in_use >> copy++ & 1) == 0;
		facts.size += one.size;
		const auto state = states.find(index);
		if (state == states.end())
			continue;
		one.free = static_cast<uint64_t>(state->second.free_slots) << SV_EXTENT_SHIFT;
		one.errors = state->second.errors;
		one.journal_lost = (state->second.flags & SV_MEMBER_RING_LOST) != 0;
		one.leaving = is_leaving(index);
		one.stalled = one.leaving && one.free < one.size && evacuation_.stalled();
		if (one.leaving)
			facts.size -= one.free;		// nobody may take it
	}
	for (const auto &[index, row] : absent_)
		facts.members.push_back({index, row.tier_name, {}, static_cast<uint64_t>(row.nr_slots) << SV_EXTENT_SHIFT, 0, 0,
					 false});
	if (!up())
		return facts;
	if (const auto state = channel_->ask<sv_state>(SV_OP_STATE); state.ok())
		facts.kernel = state.value();
	facts.seconds_to_full = watch_.seconds_to_full();
	return facts;
}

std::vector<VolumeFacts> Pool::volume_facts(bool with_latency)
{
	std::vector<VolumeFacts> all;
	const auto volumes = catalogue_->volumes();
	const auto extents = mapped();
	for (size_t i = 0; volumes.ok() && i < volumes.value().size(); i++) {
		const VolumeRow &row = volumes.value()[i];
		const auto found = extents.find(row.id);
		if (row.state != VolumeState::kActive)
			continue;
		VolumeFacts &one = all.emplace_back(VolumeFacts{
			row.name, row.size, (found == extents.end() ? 0 : found->second) << SV_EXTENT_SHIFT, damage(row.id).extents});
		if (auto counted = with_latency ? latency(row.id) : std::optional<VolumeLatency>(); counted.ok())
			one.latency = std::move(counted).value();
	}
	return all;
}

// ---- alerts ----

std::vector<ScheduledSnapshot> as_planned(const std::vector<SnapshotRow> &rows)
{
	std::vector<ScheduledSnapshot> all;
	for (const SnapshotRow &row : rows)
		all.push_back({row.id, row.created});
	return all;
}

Result<SnapshotsByVolume> Pool::scheduled_snapshots()
{
	SV_ASSIGN(const auto all, catalogue_->snapshots());
	SnapshotsByVolume by_volume;
	for (const SnapshotRow &row : all)
		if (row.scheduled && row.state == SnapshotState::kDone)
			by_volume[row.volume].push_back(row);
	return by_volume;
}

Result<std::vector<ScheduleFacts>> Pool::schedules(uint64_t wall_clock)
{
	std::vector<ScheduleFacts> all;
	SV_ASSIGN(const auto volumes, catalogue_->volumes_with_schedule());
	if (volumes.empty())
		return all;
	SV_ASSIGN(SnapshotsByVolume taken, scheduled_snapshots());
	for (const VolumeRow &row : volumes) {
		const auto schedule = parse_schedule(row.schedule);
		all.push_back({row.id, row.name, row.schedule,
			       schedule.ok() && is_due(schedule.value(), as_planned(taken[row.id]), wall_clock)});
	}
	return all;
}

Pool::Clock::time_point Pool::look_due() const { return up() ? look_due_ : Clock::time_point::max(); }

void Pool::look(const std::string &name, const SpaceLimits &limits, Clock::time_point now, uint64_t wall_clock)
{
	look_due_ = now + kLookEvery;
	PoolFacts now_known = facts(name);
	if (auto known = schedules(wall_clock); known.ok())
		now_known.schedules = std::move(known).value();
	if (!now_known.kernel)	// status says that it is silent, and nothing is known to have ended
		return;
	tell(watch_.look(now_known, limits, now));
	for (const MemberFacts &member : now_known.members)
		if (found_up_ && member.errors > 0) {
			const log::Scope scope({name_, "", member.device});
			log::warning(Id::kMemberFailing, "pool {}: {} had {} I/O errors before svd was started", name_,
				     member.device, member.errors);
		}
	found_up_ = false;
}

// That a copy of the catalogue is lost was told, with the reason, by who lost it (catalogue/region.cc).
void Pool::tell(const std::vector<Watch::Change> &changes) const
{
	for (const auto &[began, problem] : changes) {
		const log::Scope scope({name_, problem.volume, problem.device});
		if (!began)
			log::notice(problem.id, "pool {}: it is over{}{}{}: {}", name_, problem.device.empty() && problem.volume.empty() ? "" : " of ",
				    problem.device, problem.volume, code_text(problem.id).title);
		else if (problem.id != Id::kCatalogueCopyLost && code_text(problem.id).severity == Severity::kCritical)
			log::error(problem.id, "pool {}: {}; next: {}", name_, problem.what, problem.next);
		else if (problem.id != Id::kCatalogueCopyLost)
			log::warning(problem.id, "pool {}: {}; next: {}", name_, problem.what, problem.next);
	}
}

}	// namespace svd

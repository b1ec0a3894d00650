// SPDX-License-Identifier: GPL-2.0
// What is wrong with pools now. See engine.h.
#include <algorithm>

#include <fmt/core.h>

#include "daemon/engine/engine.h"

namespace svd {

namespace {

constexpr auto kModulesAge = std::chrono::seconds(60);	// for who asks every few seconds

Json problem_json(const Problem &problem)
{
	const CodeText &text = code_text(problem.id);
	Json json = {{"id", text.code}, {"severity", severity_name(text.severity)}, {"what", problem.what},
		     {"next", problem.next}};
	if (!problem.volume.empty())
		json["volume"] = problem.volume;
	if (!problem.device.empty())
		json["device"] = problem.device;
	return json;
}

// Members that no device was found for. `name` is what commands call the pool.
void missing_members(const Pool &pool, const std::string &name, bool here, std::vector<Problem> &problems)
{
	const std::string down_first = pool.up() ? "svctl deactivate " + name + "; " : "";
	const std::string then = "; " + (here ? down_first + "svctl activate " + name : "svctl scan");
	for (const uint32_t member : pool.missing())
		problems.push_back({Id::kMemberMissing, pool.missing_text(member), "attach the device" + then});
}

// Of a pool that is up without all its members: which volumes cannot be read in full.
void unreadable_volumes(Pool &pool, std::vector<Problem> &problems)
{
	const auto volumes = pool.absent().empty() ? Result<std::vector<VolumeRow>>(std::vector<VolumeRow>()) :
						     pool.catalogue().volumes();
	for (size_t i = 0; volumes.ok() && i < volumes.value().size(); i++) {
		const VolumeRow &volume = volumes.value()[i];
		const Pool::Damage &damage = pool.damage(volume.id);
		if (damage.extents > 0)
			problems.push_back({Id::kDataUnreadable,
					    fmt::format("volume {}: {} of {} extents cannot be read", volume.name,
							damage.extents, damage.mapped),
					    fmt::format("which: svctl show {}/{}", pool.name(), volume.name), {},
					    volume.name});
	}
}

// Why the last activation or checkpoint failed.
void failed_work(const Pool &pool, const std::string &name, std::vector<Problem> &problems)
{
	if (!pool.problem() || !pool.missing().empty() || !pool.conflict().empty())
		return;
	problems.push_back(*pool.problem());
	problems.back().next = pool.next_step(name);
}

bool is_about_space(const Problem &problem)
{
	return problem.id == Id::kSpaceLow || problem.id == Id::kSpaceCritical || problem.id == Id::kFullSoon;
}

// With the alerts, of which a full pool has no more about its space.
void kernel_state(Pool &pool, std::vector<Problem> &problems)
{
	std::vector<Problem> alerts = pool.alerts();
	const auto state = pool.kernel().ask<sv_state>(SV_OP_STATE);
	if (!state.ok())
		problems.push_back({Id::kKernelSilent, state.error().message(), "dmsetup status; journalctl -k"});
	else if (state.value().mode == SV_MODE_FAIL)
		problems.push_back({Id::kPoolFailed, "the kernel stopped the pool after a journal write failed",
				    fmt::format("journalctl -k names the device; replace or reattach it; svctl deactivate {0}; "
						"svctl activate {0}", pool.name())});
	else if (state.value().mode == SV_MODE_OUT_OF_SPACE || state.value().free_slots == 0)
		problems.push_back({Id::kPoolFull, "the pool is full",
				    fmt::format("svctl add-device {} TIER=DEVICE, or delete files and fstrim", pool.name())});
	if (!problems.empty() && problems.back().id == Id::kPoolFull)
		std::erase_if(alerts, is_about_space);
	problems.insert(problems.end(), alerts.begin(), alerts.end());
}

}	// namespace

// Of what keeps a pool from coming up here, or would at the next boot.
void Engine::holder_problems(const Pool &pool, std::vector<Problem> &problems)
{
	const std::string name = reference(pool);
	const Hold hold = hold_of(pool);
	const Id id = hold == Hold::kExported ? Id::kPoolExported : Id::kPoolForeign;
	if (hold != Hold::kHere && pool.state() == PoolState::kActive)
		problems.push_back({id, "it is up here, but by its labels " + held_by(pool),
				    fmt::format("if that host uses it, at once: svctl deactivate {0}; if not: "
						"svctl import-pool {0} --force", name)});
	else if (hold != Hold::kHere)
		problems.push_back({id, (pool.up() ? "it is only read here: " : "") + held_by(pool), how_to_take(pool)});
	else if (const Pool *const other = namesake(pool); other != nullptr && pool.down())
		problems.push_back({Id::kPoolNameTwice, fmt::format("another pool has its name: {}", other->uuid().str()),
				    fmt::format("svctl import-pool {} --rename NEW", pool.uuid().str())});
	if (!pool.conflict().empty())
		problems.push_back({Id::kMemberDuplicate, pool.conflict(),
				    "take one of them away, then: svctl scan"});
}

void Engine::look(Pool &pool, Pool::Clock::time_point now)
{
	pool.look(reference(pool), options_.low_space.of(pool.name()), std::max(now, looked_ahead_), wall_clock());
}

void Engine::look_ahead(std::chrono::seconds time)
{
	looked_ahead_ = Pool::Clock::now() + time;
	for (auto &[uuid, pool] : pools_)
		if (pool->up())
			look(*pool, looked_ahead_);
}

std::vector<Problem> Engine::problems_of(Pool &pool)
{
	std::vector<Problem> problems;
	const std::string name = reference(pool);
	holder_problems(pool, problems);
	missing_members(pool, name, hold_of(pool) == Hold::kHere, problems);
	unreadable_volumes(pool, problems);
	failed_work(pool, name, problems);
	if (pool.up()) {
		look(pool, Pool::Clock::now());
		kernel_state(pool, problems);
	}
	for (Problem &problem : problems)
		problem.pool = pool.name();
	return problems;
}

std::vector<Problem> Engine::problems()
{
	std::vector<Problem> all;
	for (auto &[uuid, pool] : pools_)
		for (Problem &problem : problems_of(*pool))
			all.push_back(std::move(problem));
	machine_problems(all, std::chrono::seconds(0));
	return all;
}

// Of no pool. What is known of installed kernels may be as old as `modules_age`.
void Engine::machine_problems(std::vector<Problem> &problems, std::chrono::seconds modules_age)
{
	const auto now = Pool::Clock::now();
	if (looked_for_modules_ == Pool::Clock::time_point() || now - looked_for_modules_ >= modules_age) {
		missing_modules_ = kernel_.missing_modules();
		looked_for_modules_ = now;
	}
	for (const auto &[path, why] : bad_labels_)
		problems.push_back({Id::kLabelDamaged, why, "replace the device; svctl scan", {}, {}, path});
	for (const MissingModule &missing : missing_modules_)
		problems.push_back({Id::kModuleMissing, missing.what, missing.next});
}

EngineFacts Engine::facts(bool with_latency)
{
	EngineFacts facts;
	facts.latency = with_latency;
	for (auto &[uuid, pool] : pools_) {
		for (Problem &problem : problems_of(*pool)) {
			problem.pool = reference(*pool);
			facts.problems.push_back(std::move(problem));
		}
		PoolFacts &one = facts.pools.emplace_back(pool->facts(reference(*pool)));
		one.state = state_of(*pool);
		if (!pool->up())
			continue;
		one.volumes = pool->volume_facts(with_latency);
		if (const auto space = pool->catalogue().space(); space.ok())
			one.catalogue = space.value();
	}
	machine_problems(facts.problems, kModulesAge);
	return facts;
}

Json Engine::problems_json(Pool &pool)
{
	Json problems = Json::array();
	for (const Problem &problem : problems_of(pool))
		problems.push_back(problem_json(problem));
	return problems;
}

Result<Json> Engine::status()
{
	Json json = {{"pools", Json::array()}, {"bad_labels", Json::array()}, {"problems", Json::array()}};
	for (auto &[uuid, pool] : pools_) {
		json["pools"].push_back({{"name", pool->name()}, {"uuid", uuid.str()}, {"state", state_of(*pool)},
					 {"members", pool->nr_members()}, {"missing", pool->missing()},
					 {"problems", problems_json(*pool)}});
		if (hold_of(*pool) != Hold::kExported)
			json["pools"].back()["host"] = pool->holder().host.str();
	}
	for (const Problem &problem : problems()) {
		if (!problem.pool.empty())
			continue;
		if (problem.device.empty()) {
			json["problems"].push_back(problem_json(problem));
			continue;
		}
		json["bad_labels"].push_back(problem.device);
		json["pools"].push_back({{"name", problem.device}, {"state", "unusable"},
					 {"problems", Json::array({problem_json(problem)})}});
	}
	return json;
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// Long use cases, cut into steps between which the reactor turns: each runs on a fiber, and stops where it has paced for
// kStep. One job a turn, so that a turn takes a step and what svd does anyway.
//
// What may happen between two steps of a job: reading commands, commands on other pools, events of all pools. While a job
// runs on a pool, other changing commands on it, and other jobs, are refused with kBusy and the job's number. They do not
// queue: a queued command would be carried out after its client has gone, and against a pool that looks otherwise than
// when it was asked for. The catalogue's changes:
// - activation and restore have the pool to themselves: its state is kActivating or kRestoring, nobody looks into its catalogue,
//   its tick does nothing.
// - check, dump and show-space read a catalogue that stands still (Still): checkpoints wait for them, until half of the journal is
//   full; then they begin anew.
//
// Jobs live in memory alone. When svd dies or is stopped, a restore's transaction comes to nothing, and the next svd
// finds the pool as it was.
#pragma once

#include <chrono>
#include <ctime>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "daemon/base/fiber.h"
#include "daemon/base/log.h"
#include "daemon/base/pace.h"
#include "daemon/base/peer.h"
#include "daemon/base/socket.h"

namespace svd {

using Json = nlohmann::json;

// What a job is, before it begins.
struct JobSpec {
	std::string what;	// "restore"
	std::string pool;
	Peer who;
	bool goes_on = false;	// without its client; otherwise it is of no use then
	Fds fds = {};		// that came with the call
};

class Job : public Pace {
public:
	using Clock = std::chrono::steady_clock;
	using Work = std::function<Result<Json>(Job &)>;

	Job(uint64_t id, JobSpec spec, Work work) : id_(id), spec_(std::move(spec)), work_(std::move(work)), about_{spec_.pool} {}

	uint64_t id() const { return id_; }
	const JobSpec &spec() const { return spec_; }
	std::time_t since() const { return since_; }
	const Progress &progress() const { return progress_; }
	std::optional<uint64_t> seconds_left() const;	// of this phase, as it went so far
	bool ended() const { return result_.has_value(); }
	Clock::time_point ended_at() const { return ended_at_; }
	const Result<Json> &result() const { return *result_; }	// of one that has ended
	void cancel(std::string why);			// at its next step

	// For the work itself.
	void begin(Progress progress) override;
	Status step(uint64_t done) override;
	Status breathe() override;
	const Fds &fds() const { return spec_.fds; }
	UniqueFd file;					// a result that is no text

private:
	friend class Jobs;
	Status start();
	void run_step();
	void run();

	uint64_t id_;
	JobSpec spec_;
	Work work_;
	std::unique_ptr<Fiber> fiber_;
	log::About about_;	// of what it logs, where it stopped
	std::time_t since_ = std::time(nullptr);
	Progress progress_;
	Clock::time_point phase_began_ = Clock::now();
	std::chrono::nanoseconds step_ends_{};	// by the coarse clock
	std::optional<std::string> cancelled_;	// why
	std::optional<Result<Json>> result_;
	Clock::time_point ended_at_{};
};

class Jobs {
public:
	// Runs its first step. It may have ended then: who took no longer leaves no trace in the list.
	Result<std::shared_ptr<Job>> start(JobSpec spec, Job::Work work);
	// One step of one job. True: there is more to do.
	bool turn();
	bool running() const;
	std::shared_ptr<Job> find(uint64_t id) const;	// running, or ended a while ago
	const std::list<std::shared_ptr<Job>> &all() const { return all_; }
	void stop_all(const std::string &why);		// each runs to its end

private:
	void forget_old();

	uint64_t last_id_ = 0;
	std::list<std::shared_ptr<Job>> all_;	// the next to run comes first
};

}	// namespace svd

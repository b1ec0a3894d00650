// SPDX-License-Identifier: GPL-2.0
// See job.h.
#include "daemon/engine/job.h"

#include <algorithm>

#include <fmt/core.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr auto kStep = std::chrono::milliseconds(20);
constexpr auto kKept = std::chrono::minutes(10);
constexpr size_t kMostKept = 64;
constexpr size_t kMostRunning = 16;

// Some milliseconds behind, and a tenth of the price: it is read for each row.
std::chrono::nanoseconds coarse_now()
{
	timespec now{};
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}	// namespace

// ---- one job ----

Status Job::start()
{
	SV_ASSIGN(fiber_, Fiber::create([this] { run(); }));
	return {};
}

void Job::run()
{
	try {
		result_ = work_(*this);
	} catch (const std::exception &unexpected) {
		log::error(Id::kFailure, "{} of pool {}: {}", spec_.what, spec_.pool, unexpected.what());
		result_ = Error{Code::kFailure, spec_.what + " pool", spec_.pool, unexpected.what()};
	}
}

void Job::run_step()
{
	step_ends_ = coarse_now() + kStep;
	const log::About outer = log::swap_about(std::move(about_));
	fiber_->resume();
	about_ = log::swap_about(outer);
	if (!ended())
		return;
	ended_at_ = Clock::now();
	fiber_.reset();
	spec_.fds.clear();
	work_ = nullptr;
}

void Job::begin(Progress progress)
{
	progress_ = std::move(progress);
	phase_began_ = Clock::now();
}

Status Job::step(uint64_t done)
{
	progress_.done = done;
	return breathe();
}

Status Job::breathe()
{
	if (coarse_now() >= step_ends_)
		fiber_->suspend();
	if (cancelled_)
		return Error{Code::kFailure, spec_.what + " pool", spec_.pool, *cancelled_};
	return {};
}

void Job::cancel(std::string why)
{
	if (!cancelled_)
		cancelled_ = std::move(why);
}

std::optional<uint64_t> Job::seconds_left() const
{
	using Seconds = std::chrono::duration<double>;
	const double gone = Seconds(Clock::now() - phase_began_).count();
	if (progress_.done == 0 || progress_.done > progress_.total || gone < 1)
		return std::nullopt;
	return static_cast<uint64_t>(gone * static_cast<double>(progress_.total - progress_.done) /
				     static_cast<double>(progress_.done));
}

// ---- all of them ----

Result<std::shared_ptr<Job>> Jobs::start(JobSpec spec, Job::Work work)
{
	const auto runs = [](const auto &job) { return !job->ended(); };
	if (std::count_if(all_.begin(), all_.end(), runs) >= static_cast<ptrdiff_t>(kMostRunning))
		return Error{Code::kBusy, spec.what + " pool", spec.pool, fmt::format("{} jobs run already", kMostRunning),
			     "svctl jobs lists them"};
	const auto job = std::make_shared<Job>(last_id_ + 1, std::move(spec), std::move(work));
	SV_TRY(job->start());
	last_id_++;
	job->run_step();
	if (!job->ended())
		all_.push_back(job);
	return job;
}

bool Jobs::turn()
{
	forget_old();
	const auto next = std::find_if(all_.begin(), all_.end(), [](const auto &job) { return !job->ended(); });
	if (next == all_.end())
		return false;
	const std::shared_ptr<Job> job = *next;
	all_.splice(all_.end(), all_, next);
	job->run_step();
	return running();
}

bool Jobs::running() const
{
	return std::any_of(all_.begin(), all_.end(), [](const auto &job) { return !job->ended(); });
}

std::shared_ptr<Job> Jobs::find(uint64_t id) const
{
	const auto found = std::find_if(all_.begin(), all_.end(), [id](const auto &job) { return job->id() == id; });
	return found == all_.end() ? nullptr : *found;
}

void Jobs::stop_all(const std::string &why)
{
	for (const auto &job : all_)
		job->cancel(why);
	while (running())
		turn();
}

void Jobs::forget_old()
{
	const auto now = Job::Clock::now();
	std::erase_if(all_, [&](const auto &job) { return job->ended() && now - job->ended_at() > kKept; });
	while (all_.size() > kMostKept + kMostRunning)
		all_.erase(std::find_if(all_.begin(), all_.end(), [](const auto &job) { return job->ended(); }));
}

}	// namespace svd

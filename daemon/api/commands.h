// SPDX-License-Identifier: GPL-2.0
// The interface io.svctl: one table from method names to the engine's use cases, and to the role that each needs; who
// waits for which job. main.cc gives Service::call() to the server. What methods take and answer is declared in io.svctl.varlink. Who asks for a change, and
// what came of it, is logged.
#pragma once

#include "daemon/api/varlink.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/job.h"

namespace svd {

class Service {
public:
	Service(Engine &engine, bool simulated, RoleGroups groups)
		: engine_(engine), simulated_(simulated), groups_(std::move(groups)) {}

	// Nothing: a job was begun, or is waited for, and the reply comes by turn().
	std::optional<Reply> call(Request request);
	void closed(uint64_t client);		// that waits for a job
	// A step of a job, and what it has to say to those that wait. True: there is more to do at once.
	bool turn(VarlinkServer &server);
	void stop(VarlinkServer &server);	// jobs end, those that wait are told, and no other begins
	std::string metrics(bool with_latency);

private:
	struct Waiter {
		uint64_t client = 0;
		std::shared_ptr<Job> job;
		bool more = false;		// wants to hear how it goes
		bool asked_for_it = false;	// and not only waits
		Job::Clock::time_point reported{};
	};

	std::optional<Reply> dispatch(Request &request);
	std::optional<Reply> svctl_call(const std::string &name, Request &request);
	std::optional<Reply> start_job(const std::string &name, Request &request);
	std::optional<Reply> wait_job(uint64_t id, const Request &request);
	Json list_jobs() const;
	Reply refused(const Request &request, Role needed) const;

	Engine &engine_;
	bool simulated_;
	RoleGroups groups_;
	size_t clients_ = 0;	// at the last turn
	bool stopping_ = false;
	Jobs jobs_;
	std::vector<Waiter> waiters_;
};

}	// namespace svd

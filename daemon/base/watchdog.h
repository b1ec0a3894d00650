// SPDX-License-Identifier: GPL-2.0
// A second thread that looks at svd's own one, tells systemd's watchdog that all is well, and says in the journal and to
// `systemctl status` when svd has been waiting for long, and for what.
//
// What the watchdog asserts is that a restart would not help. It helps an svd that is stuck in a loop, and one that was
// stopped (SIGSTOP; this thread stands still then, too). It does not help an svd that waits in the kernel for a member: what
// is in such a wait does not die before the device answers, and the next svd would wait for the same flush, COMMIT or read.
// Killing it would only end what the device lets go on a moment later, and nobody could say any more what it was. So:
//
// - No wait for a device has a limit, as long as it may take: a flush within a catalogue's transaction, the kernel's COMMIT,
//   which waits for all members, udev behind a new device. Each is told (waiting.h), and the time goes on.
// - Long work of many such steps, an activation with a long journal or create-pool on many devices, needs none either: each
//   step counts, as does each turn of the reactor. (A loop that goes on using devices for ever is therefore not noticed.)
// - The thread idle in poll() says so (Idle). It need not wake up to be seen to live. Whoever sleeps elsewhere, for a lock or a
//   pipe as much as for a device, waits, and that is told.
// - What is left is a thread that runs in user space and makes no step. For that long calculations would have to be cut, but
//   there are none: jobs take steps of 20 ms (engine/job.h), the rest some hundred milliseconds.
//
// A watch by the reactor itself, with sd_notify() from its turns, would have to be told of each long wait before it begins
// (WATCHDOG_USEC=, a message to systemd for each flush), and could not say anything during it.
//
// This thread waits for systemd, if for anybody. It takes no lock that is held for longer than some assignments.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include <pthread.h>

#include "daemon/base/result.h"
#include "daemon/base/waiting.h"

namespace svd {

// The state of a thread as /proc/PID/task/TID/stat has it: 'R' runs, 'D' and 'S' sleep in the kernel; 0: unknown.
char thread_state(const std::string &stat);

// What one look after another amounts to.
class ThreadWatch {
 public:
	using Clock = std::chrono::steady_clock;
	static constexpr auto kLong = std::chrono::seconds(10);

	struct Verdict {
		bool alive = false;       // a restart would not help
		std::string status;       // for systemctl status, if `news`
		bool news = false;
		bool over = false;        // what was told before has ended
		Clock::duration lasted{};  // until now
	};

	explicit ThreadWatch(Clock::time_point now) : alive_at_(now) {}
	// `place`: where in the kernel it sleeps, for a wait that does not say for what.
	Verdict look(const Activity &activity, char state, const std::string &place, Clock::time_point now);

 private:
	uint64_t steps_ = ~0ull;
	Clock::time_point alive_at_;  // last seen to make a step, or began to wait
	Clock::duration tell_after_ = kLong;
	bool told_ = false;
};

class Watchdog {
 public:
	// Watches the thread that calls it; signals that this one blocks are blocked in the other.
	static Result<std::unique_ptr<Watchdog>> start();
	~Watchdog();
	Watchdog(const Watchdog&) = delete;
	Watchdog &operator=(const Watchdog&) = delete;

 private:
	Watchdog();
	static void *enter(void *self);
	void run();
	void look(ThreadWatch &watch);

	pid_t watched_;
	bool wanted_ = false;  // by systemd
	std::chrono::microseconds every_;
	std::mutex lock_;
	std::condition_variable wake_;
	bool ends_ = false;  // lock_
	pthread_t thread_{};
};

}  // namespace svd

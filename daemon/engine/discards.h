// SPDX-License-Identifier: GPL-2.0
// Passing discards down to a pool's members, in the background, where its setting is `pass`. Between TRIM and RECYCLE of a
// checkpoint slots belong to nobody: what freed them is applied and trimmed, and the kernel does not grant them. In that
// time they are discarded, and recycled once that has ended [I25]. The pool (checkpoint.cc) decides which; this class has the
// threads, and tells by an eventfd what is done. A discard is advice: one that fails is told, and its slots are recycled.
//
// Each member with work has a thread, which ends with its work: a member that hangs keeps its own slots only, which stay
// freed. What is on its way is in memory alone. LIST_FREED goes on listing it, and the pool leaves it out by has().
//
// A slot must not be granted, by anybody, while a discard of it may still take effect. That ends when the ioctl returns: the
// kernel returns from BLKDISCARD only when all bios of it have ended, also where a fatal signal cuts it short
// (Linux 6.1 waits without looking at signals; later ones submit no more bios then, and wait for those that there are). So:
//
// - svd killed, or gone wrong, with discards on their way: the process is not gone before its last thread is, and that one
//   is in the ioctl. Files are closed by the last thread: the lock file stays locked and the control device open until then.
//   No other svd can ATTACH, RECYCLE or bring the pool up before; the next one finds the slots by LIST_FREED, and discards
//   them once more. If the member hangs it waits for that, as it does for a flush that hangs (base/watchdog.h).
// - Killed before the discard, or between it and RECYCLE: likewise.
// - Power cut: no discard outlives that. Recovery grants all that the catalogue does not have [I20], discarded or not: what
//   was freed and not yet passed down is passed down only when it is freed again.
// - svd stopped: what has not begun is forgotten; then as killed, but that svd itself waits for what has begun.
// - The pool goes down (deactivate, export, delete, restore), after which its slots may be granted anew, by another host too:
//   close() forgets what has not begun, and the pool waits for the rest, for some seconds (wait()). Then it stays up and says
//   which device does not answer; the next checkpoint finds and begins again what was forgotten.
// - The pool's device is removed behind svd's back: it does not come up again before the last discard has ended.
// - A reader that found the slot before it was freed may read it while it is discarded, and gets what the device pleases: the
//   discard of the volume, or its deletion, was not answered before that read began.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/base/unique_fd.h"
#include "kmod/uapi/sv.h"

namespace svd {

struct FreedSlot {
	sv_freed freed{};
	uint32_t member = 0;
	uint32_t slot = 0;
};

// Neighbouring slots of one member, one call to the kernel: so many at most that svd need not wait long for its end.
struct DiscardRun {
	static constexpr uint32_t kMostSlots = 256;

	uint32_t member = 0;
	uint32_t first = 0;
	std::vector<sv_freed> freed;	// the extents that lay there, in the order of slots
};

std::vector<DiscardRun> plan_discards(std::vector<FreedSlot> freed);

// 0 or an errno. Of a file the blocks are freed.
int discard_range(int fd, uint64_t offset, uint64_t bytes);

class Discards {
public:
	using Clock = std::chrono::steady_clock;
	using Discard = std::function<int(int fd, uint64_t offset, uint64_t bytes)>;	// called by any thread
	static constexpr uint64_t kMostOfMember = 1 << 20;	// slots on their way; others stay freed for a while

	struct Done {
		uint32_t member = 0;
		int error = 0;		// an errno
		std::vector<sv_freed> freed;
	};

	explicit Discards(Discard discard = discard_range);
	~Discards();			// waits for those that have begun
	Discards(const Discards &) = delete;
	Discards &operator=(const Discards &) = delete;

	bool has(uint32_t extent) const { return extent < on_their_way_.size() && on_their_way_[extent]; }
	uint64_t slots(uint32_t member) const;		// on their way
	uint64_t slots() const;
	// False: it could not be begun (errno), and the slots are the caller's. `fd` is duplicated.
	bool begin(const DiscardRun &run, int fd, const std::string &path, uint64_t slot_off);
	std::vector<Done> collect();			// what has ended since
	int event_fd() const;				// readable: collect(); negative: nothing has begun yet

	// What has not begun is forgotten, and nothing begins until open().
	void close();
	void open() { open_ = true; }
	bool is_open() const { return open_; }
	// Until all that has begun has ended. Otherwise the path of a member that has something still.
	std::string wait(Clock::duration longest);
	void forget();					// all that has ended; nothing is on its way

private:
	struct Work {
		DiscardRun run;
		uint64_t offset = 0;
		uint64_t bytes = 0;
	};
	struct Lane {
		UniqueFd fd;		// changes only while no thread uses it
		std::string path;
		std::deque<Work> queue;
		bool running = false;	// it has a thread
	};
	// Threads hold on to it.
	struct Shared {
		Discard discard;
		UniqueFd event;
		std::mutex lock;			// of all below
		std::condition_variable ended;		// a thread
		std::map<uint32_t, Lane> lanes;		// by member; stay
		std::vector<Done> done;

		void work(uint32_t member);
		std::string running() const;
	};
	struct Start {
		std::shared_ptr<Shared> shared;
		uint32_t member;
	};

	static void *enter(void *start);
	bool start_thread(uint32_t member);
	void mark(uint32_t member, const std::vector<sv_freed> &freed, bool on);

	std::shared_ptr<Shared> shared_;
	std::vector<bool> on_their_way_;		// by extent
	std::map<uint32_t, uint64_t> slots_;		// of members
	bool open_ = true;
};

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See discards.h.
#include "daemon/engine/discards.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/base/waiting.h"
#include "daemon/engine/kill_point.h"
#include "kmod/core/format.h"

namespace svd {

namespace {

constexpr auto kTellEvery = std::chrono::milliseconds(100);
constexpr size_t kStack = 128 * 1024;	// it is locked into memory

}	// namespace

std::vector<DiscardRun> plan_discards(std::vector<FreedSlot> freed)
{
	std::sort(freed.begin(), freed.end(), [](const FreedSlot &a, const FreedSlot &b) {
		return std::pair(a.member, a.slot) < std::pair(b.member, b.slot); });
	std::vector<DiscardRun> runs;
	for (const FreedSlot &one : freed) {
		const bool goes_on = !runs.empty() && runs.back().member == one.member &&
				     runs.back().freed.size() < DiscardRun::kMostSlots &&
				     runs.back().first + runs.back().freed.size() == one.slot;
		if (!goes_on)
			runs.push_back({one.member, one.slot, {}});
		runs.back().freed.push_back(one.freed);
	}
	return runs;
}

int discard_range(int fd, uint64_t offset, uint64_t bytes)
{
	struct stat st{};
	if (fstat(fd, &st) < 0)
		return errno;
	uint64_t range[] = {offset, bytes};
	const int result = S_ISREG(st.st_mode) ? fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
							   static_cast<off_t>(offset), static_cast<off_t>(bytes)) :
						 ioctl(fd, BLKDISCARD, range);
	return result < 0 ? errno : 0;
}

// ---- the threads ----

// No log and no statics here: svd may be on its way out.
void Discards::Shared::work(uint32_t member)
{
	std::unique_lock guard(lock);
	Lane &lane = lanes.at(member);
	auto told = Clock::now();
	for (;;) {
		if (lane.queue.empty()) {
			UniqueFd last = std::move(lane.fd);	// while it is open, the member stays locked (BlockFile)
			if (!last)
				break;
			guard.unlock();		// closing may wait for the device
			last.reset();
			guard.lock();
			continue;
		}
		Work work = std::move(lane.queue.front());
		lane.queue.pop_front();
		const int fd = lane.fd.get();
		guard.unlock();
		kill_point("discard-begin");
		const int error = discard(fd, work.offset, work.bytes);
		guard.lock();
		done.push_back({member, error, std::move(work.run.freed)});
		if (lane.queue.empty() || Clock::now() - told >= kTellEvery) {
			told = Clock::now();
			eventfd_write(event.get(), 1);
		}
	}
	lane.running = false;
	ended.notify_all();
}

std::string Discards::Shared::running() const
{
	for (const auto &[member, lane] : lanes)
		if (lane.running)
			return lane.path;
	return "";
}

void *Discards::enter(void *start)
{
	const std::unique_ptr<Start> mine(static_cast<Start *>(start));
	mine->shared->work(mine->member);
	return nullptr;
}

bool Discards::start_thread(uint32_t member)
{
	auto start = std::make_unique<Start>(Start{shared_, member});
	pthread_t thread{};
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, kStack);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	const int error = pthread_create(&thread, &attributes, enter, start.get());
	pthread_attr_destroy(&attributes);
	if (error == 0)
		(void)start.release();	// the thread's
	errno = error;
	return error == 0;
}

// ---- what the pool sees ----

Discards::Discards(Discard discard) : shared_(std::make_shared<Shared>())
{
	shared_->discard = std::move(discard);
}

Discards::~Discards()
{
	close();
	wait(Clock::duration::max());
}

uint64_t Discards::slots(uint32_t member) const
{
	const auto found = slots_.find(member);
	return found == slots_.end() ? 0 : found->second;
}

uint64_t Discards::slots() const
{
	uint64_t all = 0;
	for (const auto &[member, count] : slots_)
		all += count;
	return all;
}

void Discards::mark(uint32_t member, const std::vector<sv_freed> &freed, bool on)
{
	for (const sv_freed &one : freed) {
		if (one.extent >= on_their_way_.size())
			on_their_way_.resize(one.extent + size_t{1});
		on_their_way_[one.extent] = on;
	}
	slots_[member] += on ? freed.size() : -freed.size();
}

bool Discards::begin(const DiscardRun &run, int fd, const std::string &path, uint64_t slot_off)
{
	if (!shared_->event)
		shared_->event.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (!shared_->event)
		return false;
	const std::lock_guard guard(shared_->lock);
	Lane &lane = shared_->lanes[run.member];
	if (!lane.fd)
		lane.fd.reset(fcntl(fd, F_DUPFD_CLOEXEC, 0));
	if (!lane.fd)
		return false;
	lane.path = path;
	lane.queue.push_back({run, slot_off + (static_cast<uint64_t>(run.first) << SV_EXTENT_SHIFT),
			      static_cast<uint64_t>(run.freed.size()) << SV_EXTENT_SHIFT});
	if (!lane.running && !start_thread(run.member)) {
		lane.queue.clear();
		lane.fd.reset();
		return false;
	}
	lane.running = true;
	mark(run.member, run.freed, true);
	return true;
}

int Discards::event_fd() const { return shared_->event.get(); }

std::vector<Discards::Done> Discards::collect()
{
	eventfd_t count = 0;
	if (shared_->event)
		eventfd_read(shared_->event.get(), &count);
	std::vector<Done> done;
	{
		const std::lock_guard guard(shared_->lock);
		done.swap(shared_->done);
	}
	for (const Done &one : done)
		mark(one.member, one.freed, false);
	return done;
}

void Discards::close()
{
	open_ = false;
	const std::lock_guard guard(shared_->lock);
	for (auto &[member, lane] : shared_->lanes) {
		for (const Work &work : lane.queue)
			mark(member, work.run.freed, false);
		lane.queue.clear();
	}
}

std::string Discards::wait(Clock::duration longest)
{
	std::unique_lock guard(shared_->lock);
	const std::string path = shared_->running();
	if (path.empty() || longest == Clock::duration::zero())
		return path;
	const Waiting waiting("a discard of", Activity::Of::kDevice, path);
	const auto none = [&] { return shared_->running().empty(); };
	if (longest == Clock::duration::max())
		shared_->ended.wait(guard, none);
	else
		shared_->ended.wait_for(guard, longest, none);
	return shared_->running();
}

void Discards::forget()
{
	collect();
	on_their_way_.clear();
	slots_.clear();
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See watchdog.h.
#include "daemon/base/watchdog.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/base/files.h"
#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr auto kMostRarely = std::chrono::seconds(5);
constexpr int kLooks = 4;		   // in the time that systemd waits
constexpr size_t kStack = 256 * 1024;  // it is locked into memory

std::string in_words(const Activity &activity, const std::string &place)
{
	if (activity.of != Activity::Of::kNothing)
		return fmt::format("{} {}", activity.what, activity.object);
	return fmt::format("the kernel{}", place.empty() || place == "0" ? "" : " (" + place + ")");
}

}  // namespace

// "TID (NAME) STATE ...", and the name may have anything in it.
char thread_state(const std::string &stat)
{
	const size_t end = stat.rfind(')');
	return end != std::string::npos && end + 2 < stat.size() ? stat[end + 2] : 0;
}

// In the kernel, and not for want of something to do: a lock, a pipe, a device.
static bool sleeps(const Activity &activity, char state) { return !activity.idle && (state == 'D' || state == 'S'); }

// ---- what it amounts to ----

ThreadWatch::Verdict ThreadWatch::look(const Activity &activity, char state, const std::string &place, Clock::time_point now)
{
	const bool step = activity.steps != steps_;
	const bool waits = activity.of != Activity::Of::kNothing || sleeps(activity, state);
	Verdict verdict;
	verdict.alive = step || waits || activity.idle;
	steps_ = activity.steps;
	// Idle it may make no step for an hour.
	if (step || (verdict.alive && !waits)) {
		verdict.over = told_;
		verdict.lasted = now - alive_at_;
		alive_at_ = step && activity.of != Activity::Of::kNothing ? activity.since : now;
		tell_after_ = kLong;
		told_ = false;
	}
	if (now - alive_at_ < tell_after_)
		return verdict;
	tell_after_ *= 2;
	told_ = verdict.news = true;
	verdict.lasted = now - alive_at_;
	const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(verdict.lasted).count();
	verdict.status = waits ? fmt::format("waits for {}, since {} s", in_words(activity, place), seconds) :
				 fmt::format("makes no step, and waits for nothing, since {} s", seconds);
	return verdict;
}

// ---- the thread ----

Watchdog::Watchdog() : watched_(gettid()), every_(kMostRarely)
{
	uint64_t microseconds = 0;
	wanted_ = sd_watchdog_enabled(0, &microseconds) > 0;
	if (wanted_)
		every_ = std::min<std::chrono::microseconds>(every_, std::chrono::microseconds(microseconds / kLooks));
}

Result<std::unique_ptr<Watchdog>> Watchdog::start()
{
	std::unique_ptr<Watchdog> self(new Watchdog);
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, kStack);
	const int error = pthread_create(&self->thread_, &attributes, enter, self.get());
	pthread_attr_destroy(&attributes);
	if (error == 0)
		return self;
	self->ends_ = true;  // there is nobody to wait for
	return errno_error(error, "start", "the watchdog's thread");
}

Watchdog::~Watchdog()
{
	{
		const std::lock_guard guard(lock_);
		if (ends_)
			return;
		ends_ = true;
	}
	wake_.notify_all();
	pthread_join(thread_, nullptr);
}

void *Watchdog::enter(void *self)
{
	static_cast<Watchdog *>(self)->run();
	return nullptr;
}

void Watchdog::run()
{
	ThreadWatch watch(ThreadWatch::Clock::now());
	std::unique_lock guard(lock_);
	while (!wake_.wait_for(guard, every_, [this] { return ends_; })) {
		guard.unlock();
		look(watch);
		guard.lock();
	}
}

void Watchdog::look(ThreadWatch &watch)
{
	const std::string task = fmt::format("/proc/self/task/{}/", watched_);
	const char state = thread_state(first_line(task + "stat"));
	const Activity activity = activity_now();
	const bool says_for_what = activity.of != Activity::Of::kNothing;
	const std::string place = sleeps(activity, state) && !says_for_what ? first_line(task + "wchan") : "";
	const ThreadWatch::Verdict verdict = watch.look(activity, state, place, ThreadWatch::Clock::now());
	if (verdict.alive && wanted_)
		sd_notify(0, "WATCHDOG=1");
	const auto name_of = [&](Activity::Of of) { return activity.of == of ? activity.object : std::string(); };
	const log::Scope done_for(activity.about), scope({name_of(Activity::Of::kPool), "", name_of(Activity::Of::kDevice)});
	if (verdict.news) {
		sd_notifyf(0, "STATUS=%s", verdict.status.c_str());
		if (verdict.alive)
			log::warning(Id::kDeviceHangs, "svd {}; until that ends it answers nobody", verdict.status);
		else
			log::error(Id::kSvdStuck, "svd {}{}", verdict.status, wanted_ ? "; systemd will start it anew" : "");
	} else if (verdict.over) {
		sd_notify(0, "STATUS=");
		log::notice("svd goes on, after {} s", std::chrono::duration_cast<std::chrono::seconds>(verdict.lasted).count());
	}
}

}  // namespace svd

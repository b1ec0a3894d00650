// SPDX-License-Identifier: GPL-2.0
// What svd's one thread is at while it may have to wait for a device, the kernel or udev, in words; and a count that grows
// with each of its steps. The thread itself says so, where the calls are made; the watchdog reads it (watchdog.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/base/log.h"

namespace svd {

struct Activity {
	enum class Of { kNothing, kDevice, kPool, kOther };

	uint64_t steps = 0;
	Of of = Of::kNothing;  // what the object is; it does not wait, or does not say for what
	std::string what;      // "a flush of"
	std::string object;    // "/dev/sdb"
	std::chrono::steady_clock::time_point since{};
	bool idle = false;     // it waits for something to do
	log::About about = {}; // what it is done for
};

// For as long as it lives, or until an inner one does. What it is given must live as long.
class Waiting {
 public:
	Waiting(std::string_view what, Activity::Of of, std::string_view object);
	~Waiting();  // a step
	Waiting(const Waiting&) = delete;
	Waiting &operator=(const Waiting&) = delete;

 private:
	Activity::Of outer_of_;
	std::string_view outer_what_, outer_object_;
	log::About outer_about_;
};

// Likewise while it waits in poll() for something to do. Only that is idling: whoever sleeps elsewhere waits for something.
class Idle {
 public:
	Idle();
	~Idle();
	Idle(const Idle&) = delete;
	Idle &operator=(const Idle&) = delete;
};

void made_a_step();
Activity activity_now();  // from any thread

}  // namespace svd

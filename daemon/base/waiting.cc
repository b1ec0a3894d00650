// SPDX-License-Identifier: GPL-2.0
// See waiting.h.
#include "daemon/base/waiting.h"

#include <mutex>
#include <utility>

namespace svd {

namespace {

std::mutex g_lock;  // of all below; held for some assignments or copies only
uint64_t g_steps;
Activity::Of g_of;
std::string_view g_what, g_object;
log::About g_about;
std::chrono::steady_clock::time_point g_since;
bool g_idle;

}  // namespace

Waiting::Waiting(std::string_view what, Activity::Of of, std::string_view object)
{
	const auto now = std::chrono::steady_clock::now();
	const std::lock_guard guard(g_lock);
	outer_of_ = std::exchange(g_of, of);
	outer_what_ = std::exchange(g_what, what);
	outer_object_ = std::exchange(g_object, object);
	outer_about_ = std::exchange(g_about, log::about());
	g_since = now;
}

Waiting::~Waiting()
{
	const auto now = std::chrono::steady_clock::now();
	const std::lock_guard guard(g_lock);
	g_steps++;
	g_of = outer_of_;
	g_what = outer_what_;
	g_object = outer_object_;
	g_about = std::move(outer_about_);
	g_since = now;
}

static void set_idle(bool idle)
{
	const std::lock_guard guard(g_lock);
	g_idle = idle;
}

Idle::Idle() { set_idle(true); }
Idle::~Idle() { set_idle(false); }

void made_a_step()
{
	const std::lock_guard guard(g_lock);
	g_steps++;
}

Activity activity_now()
{
	const std::lock_guard guard(g_lock);
	return {g_steps, g_of, std::string(g_what), std::string(g_object), g_since, g_idle, g_about};
}

}  // namespace svd

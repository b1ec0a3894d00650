// SPDX-License-Identifier: GPL-2.0
// A function on a stack of its own, which can stop in the middle and be resumed there: long work of one thread, cut into
// steps. A C++20 coroutine stops only in its own frame; what is long here lies deep in calls (a batch of rows in a
// callback of the catalogue), and would have to be written twice. No thread, so nothing needs a lock.
//
// It must not be suspended while it handles an exception: those that are being handled belong to the thread.
#pragma once

#include <ucontext.h>

#include <functional>
#include <memory>

#include "daemon/base/result.h"

namespace svd {

class Fiber {
 public:
	// Nothing runs yet. `body` must let no exception out.
	static Result<std::unique_ptr<Fiber>> create(std::function<void()> body);
	~Fiber();  // it has ended, or was never resumed
	Fiber(const Fiber &) = delete;
	Fiber &operator=(const Fiber &) = delete;

	void resume();   // from outside: until it suspends or ends
	void suspend();  // from within
	bool ended() const { return ended_; }

 private:
	Fiber(std::function<void()> body, void *memory) : body_(std::move(body)), memory_(memory) {}
	static void enter(unsigned high, unsigned low);
	void *stack() const;
	void arrived();  // on a stack, from the other one

	std::function<void()> body_;
	void *memory_;  // a page that nobody may touch, and the stack above it
	ucontext_t own_{};
	ucontext_t caller_{};
	bool started_ = false;
	bool ended_ = false;
	// Of the address sanitizer, which must be told which stack is in use.
	void *fake_stack_ = nullptr;
	const void *caller_stack_ = nullptr;
	size_t caller_size_ = 0;
};

}  // namespace svd

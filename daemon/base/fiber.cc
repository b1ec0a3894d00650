// SPDX-License-Identifier: GPL-2.0
// See fiber.h.
#include "daemon/base/fiber.h"

#include <cassert>
#include <cerrno>
#include <cstdint>

#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#else
static void __sanitizer_start_switch_fiber(void **, const void *, size_t) {}
static void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) {}
#endif

namespace svd {

static constexpr size_t kGuard = 4096;
static constexpr size_t kStack = 512 * 1024;

Result<std::unique_ptr<Fiber>> Fiber::create(std::function<void()> body)
{
	void *const memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (memory == MAP_FAILED)
		return errno_error(errno, "make", "a stack");
	std::unique_ptr<Fiber> fiber(new Fiber(std::move(body), memory));
	if (mprotect(memory, kGuard, PROT_NONE) < 0)
		return errno_error(errno, "guard", "a stack");
	getcontext(&fiber->own_);
	fiber->own_.uc_stack.ss_sp = fiber->stack();
	fiber->own_.uc_stack.ss_size = kStack;
	fiber->own_.uc_link = &fiber->caller_;
	const auto self = reinterpret_cast<uintptr_t>(fiber.get());
	makecontext(&fiber->own_, reinterpret_cast<void (*)()>(enter), 2, static_cast<unsigned>(self >> 32),
		    static_cast<unsigned>(self));
	return fiber;
}

Fiber::~Fiber()
{
	assert(ended_ || !started_);
	munmap(memory_, kGuard + kStack);
}

void *Fiber::stack() const { return static_cast<char *>(memory_) + kGuard; }

// makecontext() hands over ints only.
void Fiber::enter(unsigned high, unsigned low)
{
	auto *const self = reinterpret_cast<Fiber *>(static_cast<uintptr_t>(high) << 32 | low);
	self->arrived();
	self->body_();
	self->ended_ = true;
	__sanitizer_start_switch_fiber(nullptr, self->caller_stack_, self->caller_size_);
}

void Fiber::arrived() { __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_size_); }

void Fiber::resume()
{
	void *own_fake = nullptr;
	started_ = true;
	__sanitizer_start_switch_fiber(&own_fake, stack(), kStack);
	swapcontext(&caller_, &own_);
	__sanitizer_finish_switch_fiber(own_fake, nullptr, nullptr);
}

void Fiber::suspend()
{
	__sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_size_);
	swapcontext(&own_, &caller_);
	arrived();
}

}  // namespace svd

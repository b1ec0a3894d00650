// SPDX-License-Identifier: GPL-2.0
// For messages that others can cause as often as they like: journald, which takes so many from a service and then drops all
// of them for a while, is to have room for the others. Some at once, then one every kRefill; who writes one is told how many
// were left out before it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

namespace svd {

class LogBudget {
 public:
	using Clock = std::chrono::steady_clock;
	static constexpr int64_t kMost = 20;
	static constexpr auto kRefill = std::chrono::seconds(5);

	// May one more be written? Then how many were not since the last one.
	std::optional<uint64_t> take(Clock::time_point now)
	{
		const int64_t refilled = (now - since_) / kRefill;
		since_ += refilled * kRefill;
		left_ = std::min(kMost, left_ + refilled);
		if (left_ == 0) {
			left_out_++;
			return std::nullopt;
		}
		left_--;
		return std::exchange(left_out_, 0);
	}

 private:
	int64_t left_ = kMost;
	uint64_t left_out_ = 0;
	Clock::time_point since_{};	// that was refilled until then
};

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// What long work tells whoever runs it, between two of its steps: how far it is. There others get their turn, and there
// it learns that it is to stop. The caller must be in a state in which that may happen: no other use of what it works on
// can be kept away from here (engine/job.h).
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "daemon/base/result.h"

namespace svd {

struct Progress {
	std::string what;  // "reading the dump"
	uint64_t done = 0;
	uint64_t total = 0;
	std::string unit;  // "bytes"
};

class Pace {
 public:
	virtual ~Pace() = default;
	virtual void begin(Progress progress) = 0;  // a phase of it
	// An error: stop. Cheap enough for each row or line.
	virtual Status step(uint64_t done) = 0;
	virtual Status breathe() = 0;  // the same, without news
};

// For work that is done in one go.
class NoPace : public Pace {
 public:
	void begin(Progress) override {}
	Status step(uint64_t) override { return {}; }
	Status breathe() override { return {}; }
	static NoPace &instance()
	{
		static NoPace one;
		return one;
	}
};

// For the part of it that must come to its end: it is not told to stop there.
class ToTheEnd : public Pace {
 public:
	explicit ToTheEnd(Pace &pace) : pace_(pace) {}
	void begin(Progress progress) override { pace_.begin(std::move(progress)); }
	Status step(uint64_t done) override
	{
		const Status ignored = pace_.step(done);
		return {};
	}
	Status breathe() override
	{
		const Status ignored = pace_.breathe();
		return {};
	}

 private:
	Pace &pace_;
};

}  // namespace svd

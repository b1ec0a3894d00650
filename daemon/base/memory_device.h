// SPDX-License-Identifier: GPL-2.0
// A BlockDevice in memory for svd --sim and tests: it can fail its n-th operation, and crash(): of the writes that no
// sync followed each is kept, dropped or torn at 512 bytes, as a seed decides.
#pragma once

#include <functional>
#include <map>
#include <random>
#include <vector>

#include "daemon/base/block_file.h"

namespace svd {

class MemoryDevice final : public BlockDevice {
 public:
	MemoryDevice(std::string name, uint64_t size) : name_(std::move(name)), data_(size), stable_(size) {}

	const std::string &name() const override { return name_; }
	uint64_t size() const override { return data_.size(); }
	Status read(uint64_t offset, std::span<uint8_t> data) override;
	Status write(uint64_t offset, std::span<const uint8_t> data) override;
	Status sync() override;

	// The n-th operation from now on (1: the next) and all after it fail, until heal(). Reads do not count.
	void fail_from(uint64_t n) { fail_at_ = ops_ + n; }
	void fail_once(uint64_t n) { fail_at_ = ops_ + n; once_ = true; }
	void heal() { fail_at_ = 0; once_ = false; }
	uint64_t ops() const { return ops_; }  // writes and syncs until now, failed ones too
	bool failed() const { return fail_at_ != 0 && ops_ >= fail_at_; }

	// Power cut: what was not synced is kept, dropped or torn.
	void crash(uint64_t seed);
	std::vector<uint8_t> &contents() { return data_; }  // to damage them; call settle() after
	void settle();                                      // what is there now is stable

 private:
	struct Unsynced {
		uint64_t offset;
		std::vector<uint8_t> data;
	};
	Status check(const char *verb, uint64_t offset, size_t bytes, bool counts);

	std::string name_;
	std::vector<uint8_t> data_;    // what reads see
	std::vector<uint8_t> stable_;  // what a power cut leaves at least
	std::vector<Unsynced> unsynced_;
	uint64_t ops_ = 0;
	uint64_t fail_at_ = 0;
	bool once_ = false;
};

}  // namespace svd

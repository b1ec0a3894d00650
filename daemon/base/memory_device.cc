// SPDX-License-Identifier: GPL-2.0
// A disk in memory whose power can be cut.
#include "daemon/base/memory_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace svd {

static constexpr size_t kSector = 512;

Status MemoryDevice::check(const char *verb, uint64_t offset, size_t bytes, bool counts)
{
	if (offset % kBlockSize != 0 || bytes % kBlockSize != 0 || offset > data_.size() ||
	    bytes > data_.size() - offset)
		return Error(Code::kFailure, verb, name_,
			     fmt::format("{} bytes at {} are not whole blocks of it", bytes, offset));
	if (!counts)
		return {};
	ops_++;
	const bool fails = fail_at_ != 0 && (once_ ? ops_ == fail_at_ : ops_ >= fail_at_);
	if (fails)
		return Error(Code::kFailure, verb, name_, "injected I/O error");
	return {};
}

Status MemoryDevice::read(uint64_t offset, std::span<uint8_t> data)
{
	SV_TRY(check("read", offset, data.size(), false));
	std::copy_n(data_.begin() + static_cast<ptrdiff_t>(offset), data.size(), data.begin());
	return {};
}

Status MemoryDevice::write(uint64_t offset, std::span<const uint8_t> data)
{
	SV_TRY(check("write", offset, data.size(), true));
	std::copy(data.begin(), data.end(), data_.begin() + static_cast<ptrdiff_t>(offset));
	unsynced_.push_back({offset, {data.begin(), data.end()}});
	return {};
}

Status MemoryDevice::sync()
{
	SV_TRY(check("sync", 0, 0, true));
	for (const Unsynced &w : unsynced_)
		std::copy(w.data.begin(), w.data.end(), stable_.begin() + static_cast<ptrdiff_t>(w.offset));
	unsynced_.clear();
	return {};
}

void MemoryDevice::crash(uint64_t seed)
{
	std::mt19937_64 random(seed);
	for (const Unsynced &w : unsynced_) {
		const uint64_t fate = random() % 4;  // 0 dropped, 1 kept, else each sector by itself
		for (size_t at = 0; at < w.data.size(); at += kSector)
			if (fate == 1 || (fate > 1 && random() % 2 != 0))
				std::copy_n(w.data.begin() + static_cast<ptrdiff_t>(at), kSector,
					    stable_.begin() + static_cast<ptrdiff_t>(w.offset + at));
	}
	unsynced_.clear();
	data_ = stable_;
	heal();
}

void MemoryDevice::settle()
{
	unsynced_.clear();
	stable_ = data_;
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// A block device or image file as svd reads and writes it: whole 4 KiB blocks, synchronous, past the page cache.
// BlockDevice is the seam at the edge of the process: BlockFile is the real one, MemoryDevice (memory_device.h) the
// one of the tests, which loses unsynced data and fails on demand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "daemon/base/result.h"
#include "daemon/base/unique_fd.h"
#include "daemon/base/units.h"

namespace svd {

inline constexpr size_t kBlockSize = 4096;

class BlockDevice {
 public:
	virtual ~BlockDevice() = default;
	virtual const std::string &name() const = 0;
	virtual uint64_t size() const = 0;
	// Offset and length are multiples of kBlockSize; memory of any alignment.
	virtual Status read(uint64_t offset, std::span<uint8_t> data) = 0;
	virtual Status write(uint64_t offset, std::span<const uint8_t> data) = 0;
	virtual Status sync() = 0;  // what was written before is on stable storage
};

class BlockFile final : public BlockDevice {
 public:
	// kExclusive: read-write, O_EXCL on block devices. Who may write locks the file, so that there is only one by the
	// same node of it: another svd gets kBusy. The lock is not flock()'s, at which udev would leave a device alone for as long.
	enum class Mode { kReadOnly, kReadWrite, kExclusive };

	static Result<std::unique_ptr<BlockFile>> open(const std::string &path, Mode mode);

	const std::string &name() const override { return path_; }
	uint64_t size() const override { return size_; }
	Status read(uint64_t offset, std::span<uint8_t> data) override;
	Status write(uint64_t offset, std::span<const uint8_t> data) override;
	Status sync() override;
	int fd() const { return fd_.get(); }

 private:
	BlockFile(std::string path, UniqueFd fd, uint64_t size);
	Status check_range(const char *verb, uint64_t offset, size_t bytes) const;

	std::string path_;
	UniqueFd fd_;
	uint64_t size_;
	bool direct_ = true;
};

// A buffer that O_DIRECT accepts.
class AlignedBuffer {
 public:
	explicit AlignedBuffer(size_t bytes);
	std::span<uint8_t> span() const { return {data_.get(), size_}; }
	uint8_t *data() const { return data_.get(); }
	size_t size() const { return size_; }

 private:
	struct Free {
		void operator()(uint8_t *p) const;
	};
	std::unique_ptr<uint8_t[], Free> data_;
	size_t size_;
};

}  // namespace svd

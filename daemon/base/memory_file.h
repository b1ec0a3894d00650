// SPDX-License-Identifier: GPL-2.0
// Text too long for a message travels between svd and svctl as a memory file (memfd) passed over the socket. The one
// who wrote it seals it: the other side can then read it without waiting for anybody, and it cannot change meanwhile.
// A file or pipe of the caller's would do neither, and might lie on a volume that svd itself serves.
#pragma once

#include <streambuf>
#include <string>
#include <vector>

#include "daemon/base/result.h"
#include "daemon/base/unique_fd.h"

namespace svd {

Result<UniqueFd> create_memory_file(const char *name);
Status seal_memory_file(const UniqueFd &file);
bool is_sealed_memory_file(int fd);

// A stream over a file descriptor: reads from its beginning, or writes at its end. The descriptor must outlive it.
class FdBuffer : public std::streambuf {
 public:
	explicit FdBuffer(int fd) : fd_(fd), buffer_(65536) {}
	~FdBuffer() override { sync(); }

 protected:
	int_type underflow() override;
	int_type overflow(int_type c) override;
	int sync() override;  // -1: what was written did not all get there

 private:
	int fd_;
	std::vector<char> buffer_;
	off_t read_ = 0;
};

}  // namespace svd

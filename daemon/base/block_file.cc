// SPDX-License-Identifier: GPL-2.0
// BlockFile: O_DIRECT where the file system or device takes it, so that svd never waits for other people's
// writeback and reads what is on the medium.
#include "daemon/base/block_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "daemon/base/waiting.h"

namespace svd {

static constexpr size_t kMaxTransfer = 1 << 20;

AlignedBuffer::AlignedBuffer(size_t bytes)
	: data_(static_cast<uint8_t *>(aligned_alloc(kBlockSize, (bytes + kBlockSize - 1) / kBlockSize * kBlockSize))),
	  size_(bytes)
{
	if (!data_)
		throw std::bad_alloc();
	memset(data_.get(), 0, bytes);
}

void AlignedBuffer::Free::operator()(uint8_t *p) const { free(p); }

static Result<uint64_t> size_of(const std::string &path, int fd)
{
	struct stat st = {};
	if (fstat(fd, &st) < 0)
		return errno_error(errno, "read the size of", path);
	if (S_ISREG(st.st_mode))
		return static_cast<uint64_t>(st.st_size);
	if (!S_ISBLK(st.st_mode))
		return Error(Code::kUsage, "open", path, "it is neither a block device nor a file");
	uint64_t bytes = 0;
	if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return errno_error(errno, "read the size of", path);
	return bytes;
}

static Status lock(const std::string &path, int fd)
{
	struct flock whole = {};
	whole.l_type = F_WRLCK;
	whole.l_whence = SEEK_SET;
	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return {};
	if (errno == EAGAIN || errno == EACCES)
		return Error(Code::kBusy, "open", path, "another process has locked it: another svd, or a virtual machine", "see lsof " + path);
	return errno_error(errno, "lock", path);
}

Result<std::unique_ptr<BlockFile>> BlockFile::open(const std::string &path, Mode mode)
{
	int flags = O_CLOEXEC | (mode == Mode::kReadOnly ? O_RDONLY : O_RDWR);
	struct stat st = {};
	// O_EXCL without O_CREAT means something for block devices only.
	if (mode == Mode::kExclusive && stat(path.c_str(), &st) == 0 && S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	bool direct = true;
	const Waiting waiting("the opening of", Activity::Of::kDevice, path);
	UniqueFd fd(::open(path.c_str(), flags | O_DIRECT));
	if (!fd && errno == EINVAL) {  // tmpfs
		direct = false;
		fd.reset(::open(path.c_str(), flags));
	}
	if (!fd)
		return errno_error(errno, "open", path,
				   errno == EBUSY ? "something else uses it: see lsblk and mount" : "");
	if (mode != Mode::kReadOnly)
		SV_TRY(lock(path, fd.get()));
	SV_ASSIGN(const uint64_t size, size_of(path, fd.get()));
	std::unique_ptr<BlockFile> file(new BlockFile(path, std::move(fd), size));
	file->direct_ = direct;
	return file;
}

BlockFile::BlockFile(std::string path, UniqueFd fd, uint64_t size)
	: path_(std::move(path)), fd_(std::move(fd)), size_(size)
{
}

Status BlockFile::check_range(const char *verb, uint64_t offset, size_t bytes) const
{
	if (offset % kBlockSize != 0 || bytes % kBlockSize != 0)
		return Error(Code::kFailure, verb, path_,
			     fmt::format("{} bytes at {} are not whole blocks", bytes, offset));
	if (offset > size_ || bytes > size_ - offset)
		return Error(Code::kFailure, verb, path_,
			     fmt::format("{} bytes at {} lie behind its end at {}", bytes, offset, size_),
			     "the device may have shrunk");
	return {};
}

// One transfer, repeated until all of it is done. op is pread or pwrite; returns 0 or an errno value.
template <typename Op>
static int transfer_all(Op op, uint8_t *data, size_t bytes, uint64_t offset)
{
	while (bytes > 0) {
		const ssize_t n = op(data, bytes, static_cast<off_t>(offset));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		data += n;
		bytes -= static_cast<size_t>(n);
		offset += static_cast<uint64_t>(n);
	}
	return 0;
}

static bool aligned(const void *p) { return reinterpret_cast<uintptr_t>(p) % kBlockSize == 0; }

Status BlockFile::read(uint64_t offset, std::span<uint8_t> data)
{
	SV_TRY(check_range("read", offset, data.size()));
	const Waiting waiting("a read from", Activity::Of::kDevice, path_);
	auto op = [this](uint8_t *p, size_t n, off_t at) { return pread(fd_.get(), p, n, at); };
	int err = 0;
	if (!direct_ || aligned(data.data())) {
		err = transfer_all(op, data.data(), data.size(), offset);
	} else {
		AlignedBuffer bounce(std::min(data.size(), kMaxTransfer));
		for (size_t done = 0; done < data.size() && err == 0; done += bounce.size()) {
			const size_t n = std::min(bounce.size(), data.size() - done);
			err = transfer_all(op, bounce.data(), n, offset + done);
			memcpy(data.data() + done, bounce.data(), n);
		}
	}
	if (err != 0)
		return errno_error(err, fmt::format("read {} bytes at {} of", data.size(), offset), path_);
	return {};
}

Status BlockFile::write(uint64_t offset, std::span<const uint8_t> data)
{
	SV_TRY(check_range("write", offset, data.size()));
	const Waiting waiting("a write to", Activity::Of::kDevice, path_);
	auto op = [this](const uint8_t *p, size_t n, off_t at) { return pwrite(fd_.get(), p, n, at); };
	int err = 0;
	if (!direct_ || aligned(data.data())) {
		err = transfer_all(op, const_cast<uint8_t *>(data.data()), data.size(), offset);
	} else {
		AlignedBuffer bounce(std::min(data.size(), kMaxTransfer));
		for (size_t done = 0; done < data.size() && err == 0; done += bounce.size()) {
			const size_t n = std::min(bounce.size(), data.size() - done);
			memcpy(bounce.data(), data.data() + done, n);
			err = transfer_all(op, bounce.data(), n, offset + done);
		}
	}
	if (err != 0)
		return errno_error(err, fmt::format("write {} bytes at {} of", data.size(), offset), path_);
	return {};
}

Status BlockFile::sync()
{
	const Waiting waiting("a flush of", Activity::Of::kDevice, path_);
	if (fdatasync(fd_.get()) < 0)
		return errno_error(errno, "sync", path_);
	return {};
}

}  // namespace svd

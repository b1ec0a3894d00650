// SPDX-License-Identifier: GPL-2.0
// See memory_file.h.
#include "daemon/base/memory_file.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace svd {

static constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

Result<UniqueFd> create_memory_file(const char *name)
{
	UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (!fd)
		return errno_error(errno, "create memory file", name);
	return fd;
}

Status seal_memory_file(const UniqueFd &file)
{
	if (fcntl(file.get(), F_ADD_SEALS, kSeals) < 0)
		return errno_error(errno, "seal", "memory file");
	return {};
}

bool is_sealed_memory_file(int fd)
{
	const int seals = fcntl(fd, F_GET_SEALS);
	return seals >= 0 && (seals & kSeals) == kSeals;
}

FdBuffer::int_type FdBuffer::underflow()
{
	ssize_t n;
	do
		n = pread(fd_, buffer_.data(), buffer_.size(), read_);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		throw std::ios_base::failure("read error");  // the stream's badbit
	if (n == 0)
		return traits_type::eof();
	read_ += n;
	setg(buffer_.data(), buffer_.data(), buffer_.data() + n);
	return traits_type::to_int_type(*gptr());
}

FdBuffer::int_type FdBuffer::overflow(int_type c)
{
	if (sync() < 0)
		return traits_type::eof();
	setp(buffer_.data(), buffer_.data() + buffer_.size());
	if (traits_type::eq_int_type(c, traits_type::eof()))
		return traits_type::not_eof(c);
	return sputc(traits_type::to_char_type(c));
}

int FdBuffer::sync()
{
	for (const char *p = pbase(); p < pptr();) {
		const ssize_t n = ::write(fd_, p, static_cast<size_t>(pptr() - p));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
	}
	setp(pbase(), epptr());
	return 0;
}

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// UUIDs to and from text, and random ones.
#include "daemon/base/uuid.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace svd {

Uuid Uuid::random()
{
	Uuid u;
	size_t have = 0;
	while (have < u.bytes.size()) {
		const ssize_t n = getrandom(u.bytes.data() + have, u.bytes.size() - have, 0);
		if (n > 0)
			have += static_cast<size_t>(n);
		else if (errno != EINTR)
			abort();  // a kernel without getrandom() cannot run svd at all
	}
	u.bytes[6] = static_cast<uint8_t>((u.bytes[6] & 0x0f) | 0x40);
	u.bytes[8] = static_cast<uint8_t>((u.bytes[8] & 0x3f) | 0x80);
	return u;
}

Uuid Uuid::from_bytes(const uint8_t *p)
{
	Uuid u;
	memcpy(u.bytes.data(), p, u.bytes.size());
	return u;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool dash_at(size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

Result<Uuid> Uuid::parse(std::string_view text)
{
	const Error bad(Code::kUsage, "read UUID", "'" + std::string(text.substr(0, 64)) + "'",
			"it is not of the form 01234567-89ab-cdef-0123-456789abcdef");
	if (text.size() != 36)
		return bad;
	Uuid u;
	size_t n = 0;
	for (size_t i = 0; i < text.size();) {
		if (dash_at(i)) {
			if (text[i++] != '-')
				return bad;
			continue;
		}
		const int high = hex_digit(text[i]);
		const int low = hex_digit(text[i + 1]);
		if (high < 0 || low < 0)
			return bad;
		u.bytes[n++] = static_cast<uint8_t>(high << 4 | low);
		i += 2;
	}
	return u;
}

std::string Uuid::str() const
{
	static const char digits[] = "0123456789abcdef";
	std::string text;
	for (const uint8_t b : bytes) {
		if (dash_at(text.size()))
			text += '-';
		text += digits[b >> 4];
		text += digits[b & 15];
	}
	return text;
}

}  // namespace svd

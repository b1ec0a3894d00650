// SPDX-License-Identifier: GPL-2.0
// Sizes to and from text. Integers only: a size that a user wrote is never rounded.
#include "daemon/base/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace svd {

static constexpr std::string_view kPrefixes = "KMGTPE";
static constexpr uint64_t kMaxSize = INT64_MAX;

static Error bad_size(std::string_view text, std::string cause, std::string hint)
{
	return Error(Code::kUsage, "read size", fmt::format("'{}'", text.substr(0, 64)), std::move(cause),
		     std::move(hint));
}

// Bytes in one unit: "G" and "GiB" 2^30, "GB" 10^9, "B" 1; 0 if there is no such unit.
static uint64_t unit_bytes(std::string_view unit)
{
	std::string upper;
	for (const char c : unit)
		upper += static_cast<char>(toupper(static_cast<unsigned char>(c)));
	if (upper == "B")
		return 1;
	const size_t power = upper.empty() ? std::string_view::npos : kPrefixes.find(upper[0]);
	if (power == std::string_view::npos)
		return 0;
	const std::string_view rest = std::string_view(upper).substr(1);
	if (rest != "" && rest != "B" && rest != "IB")
		return 0;
	const uint64_t base = rest == "B" ? 1000 : 1024;
	uint64_t bytes = 1;
	for (size_t i = 0; i <= power; i++)
		bytes *= base;
	return bytes;
}

static bool all_digits(std::string_view s)
{
	return std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// whole * unit + fraction of it, exactly; false if it does not fit or leaves a fraction of a byte.
static Result<uint64_t> scale(std::string_view text, std::string_view whole, std::string_view fraction, uint64_t unit)
{
	using Wide = unsigned __int128;
	const Error too_large = bad_size(text, "it is too large", fmt::format("at most {} bytes", kMaxSize));
	Wide value = 0;
	for (const char c : whole) {
		value = value * 10 + static_cast<unsigned>(c - '0');
		if (value > kMaxSize)
			return too_large;
	}
	value *= unit;
	if (value > kMaxSize)
		return too_large;
	if (fraction.size() > 18)
		return bad_size(text, "it has too many decimals", "at most 18");
	Wide numerator = 0;
	Wide denominator = 1;
	for (const char c : fraction) {
		numerator = numerator * 10 + static_cast<unsigned>(c - '0');
		denominator *= 10;
	}
	if (numerator * unit % denominator != 0)
		return bad_size(text, "it is not a whole number of bytes", "write it in a smaller unit");
	value += numerator * unit / denominator;
	if (value > kMaxSize)
		return too_large;
	return static_cast<uint64_t>(value);
}

Result<Bytes> parse_size(std::string_view text)
{
	static const char kExamples[] = "write for example 10G or 10GiB for 10 * 2^30 bytes, 10GB for 10 * 10^9";
	if (text.empty())
		return bad_size(text, "it is empty", kExamples);
	if (text[0] == '-')
		return bad_size(text, "a size cannot be negative", kExamples);
	const size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
	const std::string_view number = text.substr(0, end);
	std::string_view unit = text.substr(end);
	if (!unit.empty() && unit[0] == ' ')
		unit.remove_prefix(1);
	const size_t dot = std::min(number.find('.'), number.size());
	const std::string_view whole = number.substr(0, dot);
	const std::string_view fraction = dot < number.size() ? number.substr(dot + 1) : std::string_view();
	if (whole.empty() || !all_digits(fraction) || (dot < number.size() && fraction.empty()))
		return bad_size(text, "it is not a number with a unit", kExamples);
	if (unit.empty())
		return bad_size(text, "it has no unit", kExamples);
	const uint64_t bytes_each = unit_bytes(unit);
	if (bytes_each == 0)
		return bad_size(text, fmt::format("there is no unit '{}'", unit.substr(0, 16)), kExamples);
	SV_ASSIGN(const uint64_t bytes, scale(text, whole, fraction, bytes_each));
	if (bytes == 0)
		return bad_size(text, "a size cannot be zero", kExamples);
	return Bytes(bytes);
}

std::string format_size(Bytes size)
{
	static const std::array<const char *, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	size_t i = 0;
	while (i + 1 < kUnits.size() && size.v >> (10 * (i + 1)) != 0)
		i++;
	const uint64_t unit = 1ull << (10 * i);
	if (size.v % unit == 0)
		return fmt::format("{} {}", size.v / unit, kUnits[i]);
	// Rounded down, so that what is shown is there.
	const uint64_t hundredths = static_cast<uint64_t>(static_cast<unsigned __int128>(size.v % unit) * 100 / unit);
	std::string text = fmt::format("{}.{:02}", size.v / unit, hundredths);
	if (text.back() == '0')
		text.pop_back();
	return text + " " + kUnits[i];
}

}  // namespace svd

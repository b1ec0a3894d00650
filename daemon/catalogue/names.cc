// SPDX-License-Identifier: GPL-2.0
// The rules of names, and what to say when one is broken.
#include <fmt/format.h>

#include <algorithm>

#include "daemon/catalogue/catalogue.h"

namespace svd {

static bool allowed(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
	       c == '+' || c == '-';
}

// What a user typed, short and printable.
static std::string quoted(std::string_view name)
{
	std::string text = "'";
	for (const char c : name.substr(0, 64))
		text += c >= ' ' && c < 0x7f ? c : '?';
	return text + (name.size() > 64 ? "...'" : "'");
}

Status check_name(std::string_view what, std::string_view name, size_t max)
{
	auto bad = [&](std::string cause) {
		return Error(Code::kUsage, "use", fmt::format("{} as name of a {}", quoted(name), what), std::move(cause),
			     fmt::format("1 to {} characters of A-Z a-z 0-9 _ . + -, not beginning with - or .", max));
	};
	if (name.empty())
		return bad("it is empty");
	if (name.size() > max)
		return bad(fmt::format("it has {} characters", name.size()));
	if (name[0] == '-' || name[0] == '.')
		return bad(fmt::format("it begins with '{}'", name[0]));
	const auto c = std::find_if_not(name.begin(), name.end(), allowed);
	if (c != name.end())
		return bad(*c >= ' ' && *c < 0x7f ? fmt::format("'{}' is not allowed", *c)
						  : std::string("it contains an unprintable character"));
	return {};
}

Status check_pool_name(std::string_view name) { return check_name("pool", name, SV_POOL_NAME_MAX); }
Status check_volume_name(std::string_view name) { return check_name("volume", name, SV_VOLUME_NAME_MAX); }
Status check_tier_name(std::string_view name) { return check_name("tier", name, SV_TIER_NAME_MAX); }

}  // namespace svd

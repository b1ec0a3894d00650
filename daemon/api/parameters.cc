// SPDX-License-Identifier: GPL-2.0
// See parameters.h.
#include "daemon/api/parameters.h"

#include "daemon/api/interface.h"

namespace svd {

namespace {

std::string text_in(const Json &object, const char *name)
{
	if (!object.contains(name) || !object[name].is_string())
		throw BadParameter(name);
	return object[name].get<std::string>();
}

std::vector<std::string> texts_in(const Json &array, const char *name)
{
	std::vector<std::string> all;
	if (!array.is_array())
		throw BadParameter(name);
	for (const Json &item : array) {
		if (!item.is_string())
			throw BadParameter(name);
		all.push_back(item.get<std::string>());
	}
	return all;
}

}	// namespace

Parameters::Parameters(const Json &json, std::string_view interface, std::string_view method) : json_(json)
{
	const auto known = declared_parameters(interface_description(interface), method);
	for (const auto &[name, value] : json.items())
		if (!known.contains(name))
			throw BadParameter(name);
}

std::string Parameters::text(const char *name) const { return text_in(json_, name); }
std::string Parameters::text_or_empty(const char *name) const { return has(name) ? text(name) : std::string(); }

std::optional<std::string> Parameters::text_if_given(const char *name) const
{
	return has(name) ? std::optional<std::string>(text(name)) : std::nullopt;
}

uint64_t Parameters::number(const char *name) const
{
	if (!has(name) || !json_[name].is_number_unsigned() || json_[name].get<uint64_t>() > INT64_MAX)
		throw BadParameter(name);
	return json_[name].get<uint64_t>();
}

bool Parameters::flag(const char *name) const
{
	if (!has(name))
		return false;
	if (!json_[name].is_boolean())
		throw BadParameter(name);
	return json_[name].get<bool>();
}

bool Parameters::required_flag(const char *name) const
{
	if (!has(name))
		throw BadParameter(name);
	return flag(name);
}

std::optional<bool> Parameters::choice(const char *name) const
{
	return has(name) ? std::optional<bool>(flag(name)) : std::nullopt;
}

std::vector<std::string> Parameters::texts(const char *name) const
{
	return has(name) ? texts_in(json_[name], name) : std::vector<std::string>();
}

std::vector<TierRequest> Parameters::tiers(const char *name) const
{
	if (!has(name) || !json_[name].is_array())
		throw BadParameter(name);
	std::vector<TierRequest> tiers;
	for (const Json &item : json_[name]) {
		if (!item.is_object() || item.size() != 2 || !item.contains("devices"))
			throw BadParameter(name);
		tiers.push_back({text_in(item, "name"), texts_in(item["devices"], "devices")});
	}
	return tiers;
}

std::optional<uint64_t> Parameters::number_if_given(const char *name) const
{
	return has(name) ? std::optional<uint64_t>(number(name)) : std::nullopt;
}

std::vector<SnapshotName> Parameters::new_snapshots(const char *name) const
{
	if (!has(name) || !json_[name].is_array())
		throw BadParameter(name);
	std::vector<SnapshotName> all;
	for (const Json &item : json_[name]) {
		if (!item.is_object() || item.size() != 2)
			throw BadParameter(name);
		all.push_back({text_in(item, "volume"), text_in(item, "name")});
	}
	return all;
}

std::optional<SnapshotName> Parameters::origin(const char *name) const
{
	if (!has(name))
		return std::nullopt;
	const std::string text = this->text(name);
	const size_t at = text.find('@');
	if (at == std::string::npos)
		throw BadParameter(name);
	return SnapshotName{text.substr(0, at), text.substr(at + 1)};
}

static SnapshotName split(const std::string &text, const char *name)
{
	const size_t at = text.find('@');
	if (at == text.size() - 1 || text.empty())
		throw BadParameter(name);
	return {text.substr(0, at), at == std::string::npos ? "" : text.substr(at + 1)};
}

SnapshotName Parameters::volume_or_snapshot(const char *name) const { return split(text(name), name); }

std::vector<SnapshotName> Parameters::volumes_or_snapshots(const char *name) const
{
	std::vector<SnapshotName> all;
	const std::vector<std::string> given = texts(name);
	if (has(name) && given.empty())	// a script whose list came out empty does not mean everything
		throw BadParameter(name);
	for (const std::string &text : given)
		all.push_back(split(text, name));
	return all;
}

int Parameters::fd(const char *name, const Fds &fds) const
{
	const uint64_t position = number(name);
	if (position >= fds.size())
		throw BadParameter(name);
	return fds[position].get();
}

std::vector<uint8_t> Parameters::hex(const char *name) const
{
	const std::string digits = text(name);
	std::vector<uint8_t> bytes;
	if (digits.size() % 2 || digits.find_first_not_of("0123456789abcdef") != std::string::npos)
		throw BadParameter(name);
	for (size_t i = 0; i < digits.size(); i += 2)
		bytes.push_back(static_cast<uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
	return bytes;
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See list.h.
#include "cli/list.h"

#include <algorithm>

#include <fmt/chrono.h>
#include <fmt/core.h>

namespace svctl {

namespace {

using nlohmann::json;
using Kind = Column::Kind;

constexpr Column kColumns[] = {
	{"name"}, {"state"}, {"size", Kind::kBytes}, {"used", Kind::kBytes}, {"free", Kind::kBytes}, {"device"},
	{"type", Kind::kText, false}, {"pool", Kind::kText, false}, {"tier", Kind::kText, false},
	{"percent", Kind::kPercent, false}, {"members", Kind::kNumber, false}, {"problems", Kind::kNumber, false},
	{"autoactivate", Kind::kText, false}, {"schedule", Kind::kText, false}, {"id", Kind::kNumber, false}, {"uuid", Kind::kText, false},
	{"created", Kind::kText, false}, {"held", Kind::kText, false}, {"scheduled", Kind::kText, false},
};
constexpr const char *kTypes[] = {"pool", "tier", "volume", "snapshot", "device"};

// A row of `type`: what svd says of it, and under which names it is found.
json row_of(const json &object, const char *type, const std::string &pool, const std::string &name)
{
	json row = object;
	row["type"] = type;
	row["pool"] = pool;
	row["leaf"] = (pool == name ? "" : "  ") + object.value("name", name);
	row["name"] = name;
	const uint64_t size = row.value("size", uint64_t(0));
	if (row.contains("used") && size > 0)
		row["percent"] = static_cast<uint64_t>(static_cast<unsigned __int128>(row["used"].get<uint64_t>()) * 1000 /
						       size);
	return row;
}

json pool_row(const json &pool, const std::string &name)
{
	json row = row_of(pool, "pool", name, name);
	row["members"] = pool.value("devices", json::array()).size();
	row["problems"] = pool.value("problems", json::array()).size();
	return row;
}

// Pool names have no ':'.
json tier_row(const json &tier, const std::string &pool)
{
	const std::string name = tier.value("name", "");
	json row = row_of(tier, "tier", pool, pool + ":" + name);
	row["tier"] = name;
	row["leaf"] = "  [" + name + "]";
	row["state"] = fmt::format("{} device(s)", tier.value("members", 0));
	return row;
}

json device_row(const json &device, const std::string &pool)
{
	const std::string nowhere = fmt::format("member {}", device.value("member", 0));
	json row = row_of(device, "device", pool, device.value("path", nowhere));
	row["id"] = device.value("member", 0);
	const bool leaving = device.value("leaving", false);
	row["state"] = device.value("missing", false) ? "missing" : !leaving ? "present" : device.value("used", uint64_t(1)) == 0 ? "empty" : "leaving";
	return row;
}

// Of a volume: below it in the tree.
void add_snapshots(const json &pool, const json &volume, std::vector<json> &rows)
{
	const std::string name = pool.value("name", "");
	const std::string of = volume.value("name", "");
	for (const json &snapshot : pool.value("snapshots", json::array())) {
		if (snapshot.value("volume", "") != of)
			continue;
		const std::string own = snapshot.value("name", "");
		json row = row_of(snapshot, "snapshot", name, name + "/" + of + "@" + own);
		row["leaf"] = "    @" + own;
		row["created"] = fmt::format("{:%F %T}", fmt::localtime(snapshot.value("created", std::time_t{0})));
		row["held"] = snapshot.value("held", false) ? "yes" : "no";
		row["scheduled"] = snapshot.value("scheduled", false) ? "yes" : "no";
		if (row["state"] == "inactive")
			row.erase("device");
		rows.push_back(std::move(row));
	}
}

std::vector<json> rows_of(const json &pool)
{
	const std::string name = pool.value("name", "");
	std::vector<json> rows = {pool_row(pool, name)};
	for (const json &tier : pool.value("tiers", json::array()))
		rows.push_back(tier_row(tier, name));
	for (const json &device : pool.value("devices", json::array()))
		rows.push_back(device_row(device, name));
	for (const json &volume : pool.value("volumes", json::array())) {
		rows.push_back(row_of(volume, "volume", name, name + "/" + volume.value("name", "")));
		add_snapshots(pool, volume, rows);
	}
	for (json &row : rows)
		row["pool_uuid"] = pool.value("uuid", "");
	return rows;
}

bool wanted_type(const json &row, const Selection &selection)
{
	if (selection.types.empty())
		return row["type"] != "device";
	return std::find(selection.types.begin(), selection.types.end(), row["type"]) != selection.types.end();
}

// Its own name, or that of the pool or volume that it is in; for the pool's its UUID will do, also in UUID/VOLUME.
bool is_named(const json &row, const std::string &name)
{
	const std::string own = row["name"];
	if (row["type"] == "snapshot" && own.starts_with(name + "@"))
		return true;
	const std::string pool = row["pool"];
	const std::string uuid = row["pool_uuid"];
	return name == own || name == pool || name == uuid ||
	       (own.starts_with(pool) && name == uuid + own.substr(pool.size()));
}

std::vector<json> select(const std::vector<json> &all, const Selection &selection)
{
	std::vector<bool> chosen(all.size(), selection.names.empty());
	for (const std::string &name : selection.names) {
		bool found = false;
		for (size_t i = 0; i < all.size(); i++)
			if (is_named(all[i], name))
				found = chosen[i] = true;
		if (!found)
			throw NotFoundError(fmt::format("there is no {}: see svctl list", name));
	}
	std::vector<json> rows;
	for (size_t i = 0; i < all.size(); i++)
		if (chosen[i] && wanted_type(all[i], selection))
			rows.push_back(all[i]);
	return rows;
}

}	// namespace

std::span<const Column> list_columns() { return kColumns; }
std::span<const char *const> list_types() { return kTypes; }

std::vector<std::string> choose_types(const std::string &list)
{
	const std::vector<std::string> types = split(list);
	for (const std::string &type : types)
		if (std::find(std::begin(kTypes), std::end(kTypes), type) == std::end(kTypes))
			throw UsageError(fmt::format("there is no type '{}'; there are pool, tier, volume, snapshot, device", type));
	return types;
}

std::string pool_name(const json &pool, const json &all)
{
	const std::string name = pool.value("name", "");
	const auto named = std::count_if(all.begin(), all.end(), [&](const json &other) {
		return other.value("name", "") == name; });
	return named > 1 ? fmt::format("{} ({})", name, pool.value("uuid", "")) : name;
}

std::string format_list(const json &answer, const View &view, const Selection &selection)
{
	std::vector<json> all;
	const json pools = answer.value("pools", json::array());
	for (const json &pool : pools)
		for (json &row : rows_of(pool)) {
			if (row["type"] == "pool")
				row["leaf"] = pool_name(pool, pools);
			all.push_back(std::move(row));
		}
	std::vector<json> rows = select(all, selection);
	const bool tree = view.header && view.sort == nullptr && selection.types.empty() && selection.names.empty();
	for (json &row : rows)
		row["name"] = row[tree ? "leaf" : "name"];
	return all.empty() && view.header ? "no pools\n" : format_table(std::move(rows), view);
}

}	// namespace svctl

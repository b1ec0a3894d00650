// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "cli/commands.h"

#include <fstream>
#include <iostream>
#include <sstream>

#include <fmt/core.h>

#include "daemon/base/memory_file.h"
#include "daemon/base/units.h"

namespace svctl {

namespace {

json split_volume(const std::string &name)
{
	const size_t slash = name.find('/');
	if (slash == std::string::npos || slash == 0 || slash + 1 == name.size())
		throw UsageError(fmt::format("'{}' does not name a volume: write POOL/VOLUME", name));
	return {{"pool", name.substr(0, slash)}, {"volume", name.substr(slash + 1)}};
}

uint64_t size_argument(const std::string &text)
{
	const auto bytes = svd::parse_size(text);
	if (!bytes.ok())
		throw UsageError(bytes.error().message());
	return bytes.value().v;
}

// "fast=/dev/a,/dev/b" as {"name": "fast", "devices": [...]}
json tier_argument(const std::string &text)
{
	const size_t equals = text.find('=');
	if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
		throw UsageError(fmt::format("--tier {}: write NAME=DEVICE[,DEVICE...]", text));
	json devices = json::array();
	std::stringstream list(text.substr(equals + 1));
	for (std::string device; std::getline(list, device, ',');)
		devices.push_back(device);
	return {{"name", text.substr(0, equals)}, {"devices", devices}};
}

template <typename T> T must(svd::Result<T> result)
{
	if (!result.ok())
		throw UsageError(result.error().message());
	return std::move(result).value();
}

// The file's text as svd takes it.
svd::UniqueFd file_argument(const std::string &path)
{
	std::ifstream file;
	if (path != "-")
		file.open(path);
	svd::UniqueFd copy = must(svd::create_memory_file("svctl-restore"));
	{
		svd::FdBuffer buffer(copy.get());
		std::ostream out(&buffer);
		// An empty file sets failbit: svd says what is wrong with it.
		out << (path == "-" ? std::cin.rdbuf() : file.rdbuf()) << std::flush;
		if (!file || out.bad())
			throw UsageError(fmt::format("{}: cannot be read", path));
	}
	const auto sealed = svd::seal_memory_file(copy);
	if (!sealed.ok())
		throw UsageError(sealed.error().message());
	return copy;
}

void add_pool_commands(CLI::App &app, Arguments &a, Request &request)
{
	auto *create = app.add_subcommand("create-pool", "make a pool of devices");
	create->add_option("NAME", a.name)->required();
	create->add_option("--tier", a.tiers, "once for each tier, fastest first")
		->type_name("TIER=DEVICE[,DEVICE...]")->required()->expected(1)->take_all();
	create->add_option("--wipe", a.wipe, "device whose present contents may be destroyed")
		->type_name("DEVICE")->expected(1)->take_all();
	create->callback([&] {
		json tiers = json::array();
		for (const std::string &tier : a.tiers)
			tiers.push_back(tier_argument(tier));
		request = {"create-pool", "CreatePool", {{"pool", a.name}, {"tiers", tiers}, {"wipe", a.wipe}},
			   !a.wipe.empty()};
	});

	auto *add = app.add_subcommand("add-device", "add a device to a tier of a pool");
	add->add_option("POOL", a.name)->required();
	add->add_option("TIER=DEVICE", a.tier)->required();
	add->add_option("--wipe", a.wipe, "device whose present contents may be destroyed")
		->type_name("DEVICE")->expected(1)->take_all();
	add->callback([&] {
		const json tier = tier_argument(a.tier);
		request = {"add-device", "AddDevice", {{"pool", a.name}, {"tier", tier["name"]},
			   {"devices", tier["devices"]}, {"wipe", a.wipe}}, !a.wipe.empty()};
	});

	auto *remove = app.add_subcommand("delete-pool", "destroy a pool and all its volumes");
	remove->add_option("POOL", a.name)->required();
	remove->callback([&] { request = {"delete-pool", "DeletePool", {{"pool", a.name}}, true}; });

	auto *activate = app.add_subcommand("activate", "bring a pool up");
	activate->add_option("POOL", a.name)->required();
	activate->add_flag("--read-only", a.read_only, "write nothing to its devices; volumes are read-only");
	activate->add_flag("--missing", a.missing, "with --read-only: go on without devices that are missing; what lies on them cannot be read");
	activate->callback([&] {
		request = {"activate", "Activate", {{"pool", a.name}, {"read_only", a.read_only},
			   {"missing", a.missing}}};
	});

	auto *deactivate = app.add_subcommand("deactivate", "take a pool down; its data stays");
	deactivate->add_option("POOL", a.name)->required();
	deactivate->callback([&] { request = {"deactivate", "Deactivate", {{"pool", a.name}}}; });

	auto *check = app.add_subcommand("check", "compare the kernel's state with the catalogue");
	check->add_option("POOL", a.name)->required();
	check->callback([&] { request = {"check", "Check", {{"pool", a.name}}}; });

	auto *dump = app.add_subcommand("dump", "print a pool's catalogue as text");
	dump->add_option("POOL", a.name)->required();
	dump->callback([&] { request = {"dump", "Dump", {{"pool", a.name}}}; });

	auto *restore = app.add_subcommand("restore", "fill the catalogue of a pool just created from a dump");
	restore->add_option("POOL", a.name, "must be up, without volumes")->required();
	restore->add_option("FILE", a.file, "what dump printed; - for standard input")->required();
	restore->callback([&] {
		request = {"restore", "Restore", {{"pool", a.name}, {"fd", 0}}};
		request.fds.push_back(file_argument(a.file));
	});
}

void add_volume_commands(CLI::App &app, Arguments &a, Request &request)
{
	auto *create = app.add_subcommand("create-volume", "make a thin volume");
	create->add_option("POOL/VOLUME", a.name)->required();
	create->add_option("--size", a.size, "10G is 10 GiB, 10GB is 10^9 bytes")->type_name("SIZE")->required();
	create->callback([&] {
		request = {"create-volume", "CreateVolume", split_volume(a.name)};
		request.parameters["size"] = size_argument(a.size);
	});

	auto *resize = app.add_subcommand("resize-volume", "grow a volume, also while it is mounted");
	resize->add_option("POOL/VOLUME", a.name)->required();
	resize->add_option("--size", a.size, "the new size")->type_name("SIZE")->required();
	resize->callback([&] {
		request = {"resize-volume", "ResizeVolume", split_volume(a.name)};
		request.parameters["size"] = size_argument(a.size);
	});

	auto *rename = app.add_subcommand("rename-volume", "give a volume another name");
	rename->add_option("POOL/VOLUME", a.name)->required();
	rename->add_option("NEW", a.to, "the new name, without the pool's")->required();
	rename->callback([&] {
		request = {"rename-volume", "RenameVolume", split_volume(a.name)};
		request.parameters["to"] = a.to;
	});

	auto *remove = app.add_subcommand("delete-volume", "destroy a volume");
	remove->add_option("POOL/VOLUME", a.name)->required();
	remove->callback([&] { request = {"delete-volume", "DeleteVolume", split_volume(a.name), true}; });
}

void add_query_commands(CLI::App &app, Arguments &a, Request &request)
{
	auto *list = app.add_subcommand("list", "pools, tiers and volumes");
	list->callback([&] { request = {"list", "List"}; });

	auto *status = app.add_subcommand("status", "what is wrong, and the command that helps");
	status->callback([&] { request = {"status", "Status"}; });

	auto *scan = app.add_subcommand("scan", "look for members of pools now");
	scan->callback([&] { request = {"scan", "Scan"}; });

	auto *show = app.add_subcommand("show", "all that is known of a pool or a volume");
	show->add_option("POOL[/VOLUME]", a.name)->required();
	show->callback([&] {
		if (a.name.find('/') == std::string::npos)
			request = {"show", "Show", {{"pool", a.name}}};
		else
			request = {"show", "Show", split_volume(a.name)};
	});
}

}	// namespace

void add_options(CLI::App &app, Options &options)
{
	app.add_option("--socket", options.socket, "socket of svd; also SVCTL_SOCKET in the environment")
		->envname("SVCTL_SOCKET")->type_name("PATH")->capture_default_str();
	app.add_option("--timeout", options.timeout, "how long to wait for svd; 300 without it")
		->check(CLI::Range(1u, 86400u))->type_name("SECONDS");
	app.add_flag("--json", options.json, "answer in JSON, sizes as integer bytes");
	app.add_flag("--dry-run", options.dry_run, "say what would be done, change nothing");
	app.add_flag("--yes", options.yes, "do not ask before something is destroyed");
}

void add_commands(CLI::App &app, Arguments &arguments, Request &request)
{
	app.require_subcommand(1);
	app.fallthrough();
	add_pool_commands(app, arguments, request);
	add_volume_commands(app, arguments, request);
	add_query_commands(app, arguments, request);
}

}	// namespace svctl

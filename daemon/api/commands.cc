// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "daemon/api/commands.h"

#include <functional>
#include <map>
#include <stdexcept>

#include <fmt/core.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr const char *kVersion = "0.1.0";
constexpr uint64_t kMostDebugBytes = 256 * 1024;

constexpr const char *kServiceDescription = R"(interface org.varlink.service
method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)
error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
)";

constexpr const char *kSvctlDescription = R"(# Pools and thin volumes. Sizes are bytes. code in errors is svctl's exit code.
interface io.svctl
type Tier (name: string, devices: []string)
method CreatePool(pool: string, tiers: []Tier, wipe: ?[]string, dry_run: ?bool) -> (result: string, message: string)
method AddDevice(pool: string, tier: string, devices: []string, wipe: ?[]string, dry_run: ?bool) -> (result: string, message: string)
method DeletePool(pool: string, dry_run: ?bool) -> (result: string, message: string)
method Activate(pool: string, read_only: ?bool, missing: ?bool, dry_run: ?bool) -> (result: string, message: string)
method Deactivate(pool: string, dry_run: ?bool) -> (result: string, message: string)
method ExportPool(pool: string, dry_run: ?bool) -> (result: string, message: string)
# pool: name or UUID. force: also a pool that another host holds; if that one still uses it, all its data is lost.
method ImportPool(pool: string, rename: ?string, force: ?bool, dry_run: ?bool) -> (result: string, message: string)
method CreateVolume(pool: string, volume: string, size: int, dry_run: ?bool) -> (result: string, message: string)
method ResizeVolume(pool: string, volume: string, size: int, dry_run: ?bool) -> (result: string, message: string)
method RenameVolume(pool: string, volume: string, to: string, dry_run: ?bool) -> (result: string, message: string)
method DeleteVolume(pool: string, volume: string, dry_run: ?bool) -> (result: string, message: string)
method List() -> (pools: []object)
method Show(pool: string, volume: ?string) -> (name: string)
method Status() -> (pools: []object)
method Scan() -> (pools: []object)
method Check(pool: string) -> (result: string, message: string)
# fd: position among the descriptors that go with the message (SCM_RIGHTS) of a memfd, sealed against all changes.
method Dump(pool: string) -> (fd: int)
method Restore(pool: string, fd: int, dry_run: ?bool) -> (result: string, message: string)
error Failed (code: int, id: string, message: string, attempted: string, object: string, cause: string, hint: string)
error BadMessage (code: int, message: string)
)";

constexpr const char *kSimDescription = R"(# I/O on volumes by svd --sim itself, for tests. data is hexadecimal.
interface io.svctl.sim
method Read(pool: string, volume: string, offset: int, bytes: int) -> (data: string)
method Write(pool: string, volume: string, offset: int, data: string, fua: ?bool) -> ()
method Flush(pool: string, volume: string) -> ()
method Discard(pool: string, volume: string, offset: int, bytes: int) -> ()
method Checkpoint(pool: string) -> ()
# The kernel refuses the call-th call from now on for want of memory. 0: none. waiting: one was still to be refused.
method FailCall(call: int) -> (waiting: bool)
)";

struct BadParameter : std::runtime_error {
	using std::runtime_error::runtime_error;
};

// The parameters of a call, each checked as it is taken.
class Parameters {
public:
	explicit Parameters(const Json &json) : json_(json) {}

	std::string text(const char *name) const
	{
		if (!json_.contains(name) || !json_[name].is_string())
			throw BadParameter(name);
		return json_[name].get<std::string>();
	}
	std::string text_or_empty(const char *name) const { return has(name) ? text(name) : std::string(); }
	uint64_t number(const char *name) const
	{
		if (!json_.contains(name) || !json_[name].is_number_unsigned() ||
		    json_[name].get<uint64_t>() > INT64_MAX)
			throw BadParameter(name);
		return json_[name].get<uint64_t>();
	}
	int fd(const char *name, const Fds &fds) const
	{
		const uint64_t position = number(name);
		if (position >= fds.size())
			throw BadParameter(name);
		return fds[position].get();
	}
	bool flag(const char *name) const
	{
		if (!has(name))
			return false;
		if (!json_[name].is_boolean())
			throw BadParameter(name);
		return json_[name].get<bool>();
	}
	std::vector<std::string> texts(const char *name) const { return has(name) ? strings(json_[name], name) :
								 std::vector<std::string>(); }
	std::vector<TierRequest> tiers(const char *name) const
	{
		if (!json_.contains(name) || !json_[name].is_array())
			throw BadParameter(name);
		std::vector<TierRequest> tiers;
		for (const Json &item : json_[name]) {
			if (!item.is_object() || !item.contains("devices"))
				throw BadParameter(name);
			tiers.push_back({Parameters(item).text("name"), strings(item["devices"], "devices")});
		}
		return tiers;
	}

private:
	bool has(const char *name) const { return json_.contains(name) && !json_[name].is_null(); }

	static std::vector<std::string> strings(const Json &array, const char *name)
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

	const Json &json_;
};

using Method = std::function<Result<Json>(Engine &, const Parameters &, const Fds &)>;

const std::map<std::string, Method> kMethods = {
	{"CreatePool", [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_pool(p.text("pool"), p.tiers("tiers"), p.texts("wipe"), p.flag("dry_run")); }},
	{"AddDevice", [](Engine &e, const Parameters &p, const Fds &) {
		return e.add_device(p.text("pool"), {p.text("tier"), p.texts("devices")}, p.texts("wipe"),
				    p.flag("dry_run")); }},
	{"DeletePool", [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_pool(p.text("pool"), p.flag("dry_run")); }},
	{"Activate", [](Engine &e, const Parameters &p, const Fds &) {
		return e.activate(p.text("pool"), p.flag("read_only"), p.flag("missing"), p.flag("dry_run")); }},
	{"Deactivate", [](Engine &e, const Parameters &p, const Fds &) {
		return e.deactivate(p.text("pool"), p.flag("dry_run")); }},
	{"ExportPool", [](Engine &e, const Parameters &p, const Fds &) {
		return e.export_pool(p.text("pool"), p.flag("dry_run")); }},
	{"ImportPool", [](Engine &e, const Parameters &p, const Fds &) {
		return e.import_pool(p.text("pool"), p.text_or_empty("rename"), p.flag("force"), p.flag("dry_run")); }},
	{"CreateVolume", [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }},
	{"ResizeVolume", [](Engine &e, const Parameters &p, const Fds &) {
		return e.resize_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }},
	{"RenameVolume", [](Engine &e, const Parameters &p, const Fds &) {
		return e.rename_volume(p.text("pool"), p.text("volume"), p.text("to"), p.flag("dry_run")); }},
	{"DeleteVolume", [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_volume(p.text("pool"), p.text("volume"), p.flag("dry_run")); }},
	{"List", [](Engine &e, const Parameters &, const Fds &) { return e.list(); }},
	{"Show", [](Engine &e, const Parameters &p, const Fds &) { return e.show(p.text("pool"), p.text_or_empty("volume")); }},
	{"Status", [](Engine &e, const Parameters &, const Fds &) { return e.status(); }},
	{"Scan", [](Engine &e, const Parameters &, const Fds &) { return e.scan(); }},
	{"Check", [](Engine &e, const Parameters &p, const Fds &) { return e.check(p.text("pool")); }},
	{"Restore", [](Engine &e, const Parameters &p, const Fds &fds) {
		return e.restore(p.text("pool"), p.fd("fd", fds), p.flag("dry_run")); }},
};

// ---- io.svctl.sim ----

std::string to_hex(std::span<const uint8_t> bytes)
{
	std::string text;
	for (const uint8_t byte : bytes)
		text += fmt::format("{:02x}", byte);
	return text;
}

std::vector<uint8_t> from_hex(const std::string &text, const char *name)
{
	std::vector<uint8_t> bytes;
	if (text.size() % 2 || text.find_first_not_of("0123456789abcdef") != std::string::npos)
		throw BadParameter(name);
	for (size_t i = 0; i < text.size(); i += 2)
		bytes.push_back(static_cast<uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
	return bytes;
}

Result<Json> empty_reply(Status status)
{
	return status.ok() ? Result<Json>(Json::object()) : Result<Json>(std::move(status).error());
}

Result<Json> sim_io(Engine &engine, const std::string &method, const Parameters &p)
{
	SV_ASSIGN(const auto found, engine.find_volume(p.text("pool"), p.text("volume")));
	KernelPool &kernel = found.first->kernel();
	const uint32_t id = found.second.id;
	if (method == "Read") {
		std::vector<uint8_t> data(std::min(p.number("bytes"), kMostDebugBytes));
		SV_TRY(kernel.read(id, p.number("offset"), data));
		return Json{{"data", to_hex(data)}};
	}
	if (method == "Write")
		return empty_reply(kernel.write(id, p.number("offset"), from_hex(p.text("data"), "data"),
						p.flag("fua")));
	if (method == "Flush")
		return empty_reply(kernel.flush(id));
	if (method == "Checkpoint")
		return empty_reply(found.first->checkpoint());
	return empty_reply(kernel.discard(id, p.number("offset"), p.number("bytes")));
}

bool is_sim_method(const std::string &name)
{
	return name == "Read" || name == "Write" || name == "Flush" || name == "Discard" || name == "Checkpoint";
}

// ---- org.varlink.service ----

Reply get_info(bool simulated)
{
	Json interfaces = {"org.varlink.service", "io.svctl"};
	if (simulated)
		interfaces.push_back("io.svctl.sim");
	return {"", {{"vendor", "svctl"}, {"product", "svd"}, {"version", kVersion}, {"url", ""},
		     {"interfaces", interfaces}}};
}

Reply get_description(bool simulated, const Json &parameters)
{
	const std::string name = Parameters(parameters).text("interface");
	if (name == "org.varlink.service")
		return {"", {{"description", kServiceDescription}}};
	if (name == "io.svctl")
		return {"", {{"description", kSvctlDescription}}};
	if (name == "io.svctl.sim" && simulated)
		return {"", {{"description", kSimDescription}}};
	return {"org.varlink.service.InterfaceNotFound", {{"interface", name}}};
}

Reply reply_of(Result<Json> result)
{
	if (result.ok())
		return {"", std::move(result).value()};
	const Error &error = result.error();
	return {"io.svctl.Failed", {{"code", error.exit_code()}, {"id", code_of(error.id())}, {"message", error.message()},
				    {"attempted", error.attempted}, {"object", error.object},
				    {"cause", error.cause}, {"hint", error.hint}}};
}

Reply dump(Engine &engine, const Parameters &p)
{
	auto file = engine.dump(p.text("pool"));
	if (!file.ok())
		return reply_of(file.error());
	Reply reply{"", {{"fd", 0}}};
	reply.fds.push_back(std::move(file).value());
	return reply;
}

Reply call(Engine &engine, bool simulated, const std::string &method, const Json &parameters, const Fds &fds)
{
	if (method == "org.varlink.service.GetInfo")
		return get_info(simulated);
	if (method == "org.varlink.service.GetInterfaceDescription")
		return get_description(simulated, parameters);
	const size_t dot = method.rfind('.');
	const std::string interface = dot == std::string::npos ? "" : method.substr(0, dot);
	const std::string name = dot == std::string::npos ? method : method.substr(dot + 1);
	if (method == "io.svctl.sim.FailCall" && simulated)
		return {"", {{"waiting", engine.fail_kernel_call(Parameters(parameters).number("call"))}}};
	if (interface == "io.svctl.sim" && simulated && is_sim_method(name))
		return reply_of(sim_io(engine, name, Parameters(parameters)));
	if (interface != "io.svctl")
		return {"org.varlink.service.InterfaceNotFound",
			{{"interface", interface}, {"code", 2}, {"message", "no interface " + interface}}};
	if (name == "Dump")
		return dump(engine, Parameters(parameters));
	const auto found = kMethods.find(name);
	if (found == kMethods.end())
		return {"org.varlink.service.MethodNotFound",
			{{"method", method}, {"code", 2}, {"message", "no method " + method}}};
	return reply_of(found->second(engine, Parameters(parameters), fds));
}

}	// namespace

Reply dispatch(Engine &engine, bool simulated, const std::string &method, const Json &parameters, const Fds &fds)
{
	try {
		return call(engine, simulated, method, parameters, fds);
	} catch (const BadParameter &bad) {
		return {"org.varlink.service.InvalidParameter",
			{{"parameter", bad.what()}, {"code", 2},
			 {"message", fmt::format("parameter {} of {} is missing or malformed", bad.what(), method)}}};
	} catch (const std::exception &unexpected) {
		log::error("{}: {}", method, unexpected.what());
		return {"io.svctl.Failed", {{"code", 1}, {"id", code_of(Id::kFailure)}, {"message", unexpected.what()}}};
	}
}

}	// namespace svd

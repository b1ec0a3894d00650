// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "daemon/api/commands.h"

#include <functional>
#include <map>

#include <fmt/core.h>

#include "daemon/api/interface.h"
#include "daemon/api/parameters.h"
#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr const char *kVersion = "0.1.0";
constexpr uint64_t kMostDebugBytes = 256 * 1024;

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
	{"ShowPool", [](Engine &e, const Parameters &p, const Fds &) { return e.show_pool(p.text("pool")); }},
	{"ShowVolume", [](Engine &e, const Parameters &p, const Fds &) {
		return e.show_volume(p.text("pool"), p.text("volume")); }},
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
		return empty_reply(kernel.write(id, p.number("offset"), p.hex("data"), p.flag("fua")));
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

Reply get_description(bool simulated, const Parameters &p)
{
	const std::string name = p.text("interface");
	const std::string_view text = interface_description(name);
	if (text.empty() || (name == "io.svctl.sim" && !simulated))
		return {"org.varlink.service.InterfaceNotFound", {{"interface", name}}};
	return {"", {{"description", text}}};
}

Reply service_call(bool simulated, const std::string &name, const Json &parameters)
{
	const Parameters p(parameters, "org.varlink.service", name);
	if (name == "GetInfo")
		return get_info(simulated);
	if (name == "GetInterfaceDescription")
		return get_description(simulated, p);
	return {"org.varlink.service.MethodNotFound", {{"method", "org.varlink.service." + name}}};
}

// ---- answers ----

// What is no code of its own in the interface is Failed.
const char *error_name(Code code)
{
	switch (code) {
	case Code::kUsage:
		return "io.svctl.InvalidArgument";
	case Code::kNotFound:
		return "io.svctl.NotFound";
	case Code::kPermission:
		return "io.svctl.PermissionDenied";
	case Code::kBusy:
		return "io.svctl.Busy";
	case Code::kNoSpace:
		return "io.svctl.NoSpace";
	case Code::kNeedsCheck:
		return "io.svctl.NeedsCheck";
	case Code::kMissingFeature:
		return "io.svctl.Unsupported";
	case Code::kTimeout:
		return "io.svctl.Timeout";
	default:
		return "io.svctl.Failed";
	}
}

Reply reply_of(Result<Json> result)
{
	return result.ok() ? Reply{"", std::move(result).value()} : error_reply(result.error());
}

Reply dump(Engine &engine, const Parameters &p)
{
	auto file = engine.dump(p.text("pool"));
	if (!file.ok())
		return error_reply(file.error());
	Reply reply{"", {{"fd", 0}}};
	reply.fds.push_back(std::move(file).value());
	return reply;
}

Reply sim_call(Engine &engine, const std::string &name, const Json &parameters)
{
	const Parameters p(parameters, "io.svctl.sim", name);
	if (name == "FailCall")
		return {"", {{"waiting", engine.fail_kernel_call(p.number("call"))}}};
	if (!is_sim_method(name))
		return {"org.varlink.service.MethodNotFound", {{"method", "io.svctl.sim." + name}}};
	return reply_of(sim_io(engine, name, p));
}

Reply svctl_call(Engine &engine, const std::string &name, const Json &parameters, const Fds &fds)
{
	const auto found = kMethods.find(name);
	if (found == kMethods.end() && name != "Dump")
		return {"org.varlink.service.MethodNotFound", {{"method", "io.svctl." + name}}};
	const Parameters p(parameters, "io.svctl", name);
	return name == "Dump" ? dump(engine, p) : reply_of(found->second(engine, p, fds));
}

Reply call(Engine &engine, bool simulated, const std::string &method, const Json &parameters, const Fds &fds)
{
	const size_t dot = method.rfind('.');
	const std::string interface = dot == std::string::npos ? "" : method.substr(0, dot);
	const std::string name = dot == std::string::npos ? method : method.substr(dot + 1);
	if (interface == "org.varlink.service")
		return service_call(simulated, name, parameters);
	if (interface == "io.svctl.sim" && simulated)
		return sim_call(engine, name, parameters);
	if (interface == "io.svctl")
		return svctl_call(engine, name, parameters, fds);
	return {"org.varlink.service.InterfaceNotFound", {{"interface", interface}}};
}

}	// namespace

Reply error_reply(const Error &error)
{
	const char *const name = error_name(error.code);
	// Of svd's own connections, if it had any: not what svctl's 20 says.
	const int code = error.code == Code::kUnreachable ? static_cast<int>(Code::kFailure) : error.exit_code();
	return {name, {{"code", code}, {"id", code_of(error.id())}, {"message", error.message()},
		       {"attempted", error.attempted}, {"object", error.object}, {"cause", error.cause}, {"hint", error.hint}}};
}

Reply dispatch(Engine &engine, bool simulated, const std::string &method, const Json &parameters, const Fds &fds)
{
	try {
		return call(engine, simulated, method, parameters, fds);
	} catch (const BadParameter &bad) {
		return {"org.varlink.service.InvalidParameter", {{"parameter", bad.what()}}};
	} catch (const std::exception &unexpected) {
		log::error("{}: {}", method, unexpected.what());
		return error_reply(Error{Code::kFailure, "carry out", method, unexpected.what()});
	}
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "daemon/api/commands.h"

#include <functional>
#include <map>

#include <fmt/core.h>

#include "daemon/api/errors.h"
#include "daemon/api/interface.h"
#include "daemon/api/parameters.h"
#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr const char *kVersion = "0.1.0";
constexpr uint64_t kMostDebugBytes = 256 * 1024;
constexpr size_t kMostAudited = 512;	// characters of the parameters

using Function = std::function<Result<Json>(Engine &, const Parameters &, const Fds &)>;

// What a method does, and so who may call it: readers may look; what works at length, and what changes something, is for
// administrators; changes are logged.
enum class Kind { kLooks, kWorks, kChanges };

struct Method {
	Kind kind;
	Function run;
};

const std::map<std::string, Method> kMethods = {
	{"CreatePool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_pool(p.text("pool"), p.tiers("tiers"), p.texts("wipe"), p.flag("dry_run")); }}},
	{"AddDevice", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.add_device(p.text("pool"), {p.text("tier"), p.texts("devices")}, p.texts("wipe"),
				    p.flag("dry_run")); }}},
	{"DeletePool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_pool(p.text("pool"), p.flag("dry_run")); }}},
	{"Activate", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.activate(p.text("pool"), p.flag("read_only"), p.flag("missing"), p.flag("dry_run")); }}},
	{"Deactivate", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.deactivate(p.text("pool"), p.flag("dry_run")); }}},
	{"ExportPool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.export_pool(p.text("pool"), p.flag("dry_run")); }}},
	{"ImportPool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.import_pool(p.text("pool"), p.text_or_empty("rename"), p.flag("force"), p.flag("dry_run")); }}},
	{"CreateVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }}},
	{"ResizeVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.resize_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }}},
	{"RenameVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.rename_volume(p.text("pool"), p.text("volume"), p.text("to"), p.flag("dry_run")); }}},
	{"DeleteVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_volume(p.text("pool"), p.text("volume"), p.flag("dry_run")); }}},
	{"List", {Kind::kLooks, [](Engine &e, const Parameters &, const Fds &) { return e.list(); }}},
	{"ShowPool", {Kind::kLooks, [](Engine &e, const Parameters &p, const Fds &) { return e.show_pool(p.text("pool")); }}},
	{"ShowVolume", {Kind::kLooks, [](Engine &e, const Parameters &p, const Fds &) {
		return e.show_volume(p.text("pool"), p.text("volume")); }}},
	{"Status", {Kind::kLooks, [](Engine &e, const Parameters &, const Fds &) { return e.status(); }}},
	{"Scan", {Kind::kChanges, [](Engine &e, const Parameters &, const Fds &) { return e.scan(); }}},
	{"Check", {Kind::kWorks, [](Engine &e, const Parameters &p, const Fds &) { return e.check(p.text("pool")); }}},
	{"Restore", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &fds) {
		return e.restore(p.text("pool"), p.fd("fd", fds), p.flag("dry_run")); }}},
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

Reply refused(const Service &service, const Request &request, Role needed)
{
	Reply reply = error_reply(role_error(request.peer, needed, service.groups));
	reply.parameters["group"] = needed == Role::kRead ? service.groups.read : service.groups.administer;
	return reply;
}

// Who asked for what; once more with what came of it, since svd may die in between.
void audit(const Request &request, const std::string &text)
{
	log::notice("{}: {} {}{}", request.peer.str(), request.call.method,
		    request.call.parameters.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, kMostAudited), text);
}

Reply audited(const Request &request, const std::function<Reply()> &run)
{
	audit(request, "");
	Reply reply = run();
	audit(request, ": " + reply.parameters.value(reply.error.empty() ? "result" : "message", reply.error));
	return reply;
}

Reply svctl_call(Service &service, const std::string &name, const Request &request)
{
	const auto found = kMethods.find(name);
	const Kind kind = found == kMethods.end() ? Kind::kWorks : found->second.kind;
	const Role needed = kind == Kind::kLooks ? Role::kRead : Role::kAdminister;
	if (request.role < needed)
		return refused(service, request, needed);
	if (found == kMethods.end() && name != "Dump")
		return {"org.varlink.service.MethodNotFound", {{"method", "io.svctl." + name}}};
	const Parameters p(request.call.parameters, "io.svctl", name);
	if (name == "Dump")
		return dump(service.engine, p);
	const auto run = [&] { return reply_of(found->second.run(service.engine, p, request.fds)); };
	return kind == Kind::kChanges && !p.flag("dry_run") ? audited(request, run) : run();
}

Reply call(Service &service, const Request &request)
{
	const std::string &method = request.call.method;
	const size_t dot = method.rfind('.');
	const std::string interface = dot == std::string::npos ? "" : method.substr(0, dot);
	const std::string name = dot == std::string::npos ? method : method.substr(dot + 1);
	if (interface == "org.varlink.service")
		return service_call(service.simulated, name, request.call.parameters);
	if (interface == "io.svctl")
		return svctl_call(service, name, request);
	if (interface == "io.svctl.sim" && service.simulated)
		return request.role < Role::kAdminister ? refused(service, request, Role::kAdminister) :
							  sim_call(service.engine, name, request.call.parameters);
	return {"org.varlink.service.InterfaceNotFound", {{"interface", interface}}};
}

}	// namespace

Reply dispatch(Service &service, const Request &request)
{
	try {
		return call(service, request);
	} catch (const BadParameter &bad) {
		return {"org.varlink.service.InvalidParameter", {{"parameter", bad.what()}}};
	} catch (const std::exception &unexpected) {
		log::error("{}: {}", request.call.method, unexpected.what());
		return error_reply(Error{Code::kFailure, "carry out", request.call.method, unexpected.what()});
	}
}

}	// namespace svd

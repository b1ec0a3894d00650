// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "daemon/api/commands.h"

#include <algorithm>
#include <functional>
#include <map>

#include <fmt/core.h>

#include "daemon/api/errors.h"
#include "daemon/api/interface.h"
#include "daemon/api/metrics.h"
#include "daemon/api/parameters.h"
#include "daemon/base/log.h"

namespace svd {

namespace {

constexpr uint64_t kMostDebugBytes = 256 * 1024;
constexpr size_t kMostAudited = 512;	// characters of the parameters
constexpr auto kReportEvery = std::chrono::seconds(1);

using Function = std::function<Result<Json>(Engine &, const Parameters &, const Fds &)>;

// What a method does, and so who may call it: readers may look; what works at length, and what changes something, is for
// administrators; changes are logged.
enum class Kind { kLooks, kWorks, kChanges };

struct Method {
	Kind kind;
	Function run;
};

std::optional<bool> pass_discards(const Parameters &p)
{
	const std::string discard = p.text_or_empty("discard");
	if (discard != "" && discard != "pass" && discard != "keep")
		throw BadParameter("discard");
	return discard.empty() ? std::nullopt : std::optional<bool>(discard == "pass");
}

SnapshotName snapshot_of(const Parameters &p) { return {p.text("volume"), p.text("snapshot")}; }

const std::map<std::string, Method> kMethods = {
	{"CreatePool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_pool(p.text("pool"), p.tiers("tiers"), p.texts("wipe"), p.flag("dry_run"),
				     pass_discards(p)); }}},
	{"AddDevice", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.add_device(p.text("pool"), {p.text("tier"), p.texts("devices")}, p.texts("wipe"),
				    p.flag("dry_run")); }}},
	{"EvacuateDevice", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.evacuate_device(p.text("pool"), p.text("device"), p.flag("undo"), p.flag("dry_run")); }}},
	{"DeletePool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_pool(p.text("pool"), p.flag("dry_run")); }}},
	{"Deactivate", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.deactivate(p.text("pool"), p.flag("dry_run")); }}},
	{"ExportPool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.export_pool(p.text("pool"), p.flag("dry_run")); }}},
	{"CreateVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		if (const auto from = p.origin("from"))
			return e.create_clone(p.text("pool"), p.text("volume"), *from, p.number_if_given("size"), p.flag("dry_run"));
		return e.create_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }}},
	{"ResizeVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.resize_volume(p.text("pool"), p.text("volume"), p.number("size"), p.flag("dry_run")); }}},
	{"RenameVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.rename_volume(p.text("pool"), p.text("volume"), p.text("to"), p.flag("dry_run")); }}},
	{"DeleteVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_volume(p.text("pool"), p.text("volume"), p.flag("dry_run"), p.number_if_given("id")); }}},
	{"ActivateVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.activate_volume(p.text("pool"), p.text("volume"), p.flag("dry_run")); }}},
	{"DeactivateVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.deactivate_volume(p.text("pool"), p.text("volume"), p.flag("dry_run")); }}},
	{"SetVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.set_volume(p.text("pool"), p.text("volume"), {p.choice("autoactivate"), p.text_if_given("schedule")},
				    p.flag("dry_run")); }}},
	{"SetPool", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.set_pool(p.text("pool"), pass_discards(p), p.flag("dry_run")); }}},
	{"CreateSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.create_snapshots(p.text("pool"), p.new_snapshots("snapshots"), p.flag("dry_run")); }}},
	{"DeleteSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.delete_snapshot(p.text("pool"), snapshot_of(p), p.flag("dry_run")); }}},
	{"RollbackVolume", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.rollback_volume(p.text("pool"), snapshot_of(p), p.flag("dry_run")); }}},
	{"RenameSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.rename_snapshot(p.text("pool"), snapshot_of(p), p.text("to"), p.flag("dry_run")); }}},
	{"HoldSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.hold_snapshot(p.text("pool"), snapshot_of(p), p.required_flag("held"), p.flag("dry_run")); }}},
	{"ActivateSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.activate_snapshot(p.text("pool"), snapshot_of(p), p.flag("dry_run")); }}},
	{"DeactivateSnapshot", {Kind::kChanges, [](Engine &e, const Parameters &p, const Fds &) {
		return e.deactivate_snapshot(p.text("pool"), snapshot_of(p), p.flag("dry_run")); }}},
	// Every minute, and mostly for nothing: what it does the engine logs.
	{"RunSchedules", {Kind::kWorks, [](Engine &e, const Parameters &p, const Fds &) {
		return e.run_schedules(p.flag("dry_run")); }}},
	{"ShowSnapshot", {Kind::kLooks, [](Engine &e, const Parameters &p, const Fds &) {
		return e.show_snapshot(p.text("pool"), snapshot_of(p)); }}},
	{"List", {Kind::kLooks, [](Engine &e, const Parameters &, const Fds &) { return e.list(); }}},
	{"ShowPool", {Kind::kLooks, [](Engine &e, const Parameters &p, const Fds &) { return e.show_pool(p.text("pool")); }}},
	{"ShowVolume", {Kind::kLooks, [](Engine &e, const Parameters &p, const Fds &) {
		return e.show_volume(p.text("pool"), p.text("volume")); }}},
	{"Status", {Kind::kLooks, [](Engine &e, const Parameters &, const Fds &) { return e.status(); }}},
	{"Scan", {Kind::kChanges, [](Engine &e, const Parameters &, const Fds &) { return e.scan(); }}},
};

// What takes long. Its parameters are looked at before the job begins.
using JobWork = std::function<Job::Work(Engine &, const Parameters &, const Fds &)>;

struct JobMethod {
	Kind kind;
	const char *what;
	bool goes_on;	// when its client leaves: its result can be asked for
	JobWork make;
};

const std::map<std::string, JobMethod> kJobMethods = {
	{"Activate", {Kind::kChanges, "activate", true, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool"), read_only = p.flag("read_only"), missing = p.flag("missing"),
			dry_run = p.flag("dry_run")](Job &job) { return e.activate(pool, read_only, missing, dry_run, &job); }; }}},
	{"ImportPool", {Kind::kChanges, "import", true, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool"), rename = p.text_or_empty("rename"), force = p.flag("force"),
			dry_run = p.flag("dry_run")](Job &job) { return e.import_pool(pool, rename, force, dry_run, &job); }; }}},
	{"Check", {Kind::kWorks, "check", true, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool")](Job &job) { return e.check(pool, job); }; }}},
	{"Dump", {Kind::kWorks, "dump", false, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool")](Job &job) { return e.dump(pool, job); }; }}},
	{"Diff", {Kind::kWorks, "diff", false, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool"), from = p.volume_or_snapshot("from"), to = p.volume_or_snapshot("to")](Job &job) {
			return e.diff(pool, from, to, job); }; }}},
	{"ShowSpace", {Kind::kWorks, "show-space", false, [](Engine &e, const Parameters &p, const Fds &) -> Job::Work {
		return [&e, pool = p.text("pool"), of = p.volumes_or_snapshots("of")](Job &job) {
			return e.show_space(pool, of, job); }; }}},
	{"Restore", {Kind::kChanges, "restore", true, [](Engine &e, const Parameters &p, const Fds &fds) -> Job::Work {
		return [&e, pool = p.text("pool"), fd = p.fd("fd", fds), dry_run = p.flag("dry_run")](Job &job) {
			return e.restore(pool, fd, dry_run, job); }; }}},
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

// A volume, or VOLUME@SNAPSHOT, by the number that the kernel has for it.
Result<std::pair<Pool *, uint32_t>> find_device(Engine &engine, const Parameters &p)
{
	if (p.text("volume").find('@') != std::string::npos) {
		SV_ASSIGN(const auto found, engine.find_snapshot(p.text("pool"), *p.origin("volume")));
		return std::pair(found.pool, found.snapshot.id);
	}
	SV_ASSIGN(const auto found, engine.find_volume(p.text("pool"), p.text("volume")));
	return std::pair(found.first, found.second.id);
}

Result<Json> sim_io(Engine &engine, const std::string &method, const Parameters &p)
{
	SV_ASSIGN(const auto found, find_device(engine, p));
	KernelPool &kernel = found.first->kernel();
	const uint32_t id = found.second;
	if (method == "Read") {
		std::vector<uint8_t> data(std::min(p.number("bytes"), kMostDebugBytes));
		SV_TRY(kernel.read(id, p.number("offset"), data));
		return Json{{"data", to_hex(data)}};
	}
	if (method == "Write")
		return empty_reply(kernel.write(id, p.number("offset"), p.hex("data"), p.flag("fua")));
	if (method == "Flush")
		return empty_reply(kernel.flush(id));
	if (method == "Checkpoint") {
		SV_TRY(found.first->checkpoint());
		found.first->tick_with_checkpoint();	// and what else is due with one
		return Json::object();
	}
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
	return {"", {{"vendor", "svctl"}, {"product", "svd"}, {"version", SV_VERSION}, {"url", ""},
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

Reply sim_call(Engine &engine, const std::string &name, const Json &parameters)
{
	const Parameters p(parameters, "io.svctl.sim", name);
	if (name == "FailCall")
		return {"", {{"waiting", engine.fail_kernel_call(p.number("call"))}}};
	if (name == "Look") {
		engine.look_ahead(std::chrono::seconds(p.number("seconds")));
		return {"", Json::object()};
	}
	if (name == "MoveClock") {
		engine.move_clock(static_cast<int64_t>(p.number("seconds")) * (p.flag("back") ? -1 : 1));
		return {"", Json::object()};
	}
	if (!is_sim_method(name))
		return {"org.varlink.service.MethodNotFound", {{"method", "io.svctl.sim." + name}}};
	return reply_of(sim_io(engine, name, p));
}

// Who asked for what; once more with what came of it, since svd may die in between.
void audit(const Peer &who, const std::string &what, const std::string &outcome)
{
	log::notice("{}: {}{}", who.str(), what, outcome.empty() ? "" : ": " + outcome);
}

std::string outcome_of(const Reply &reply)
{
	return reply.parameters.value(reply.error.empty() ? "result" : "message", reply.error);
}

// What is logged while the call is carried out is about what it names.
log::About subject_of(const Json &parameters)
{
	const auto text = [](const Json &json) {
		return json.is_string() ? json.get<std::string>().substr(0, kMostAudited) : std::string();
	};
	const Json devices = parameters.value("devices", Json());
	return {text(parameters.value("pool", Json())), text(parameters.value("volume", Json())),
		devices.is_array() && devices.size() == 1 ? text(devices[0]) : ""};
}

std::string described(const Call &call)
{
	return call.method + " " + call.parameters.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, kMostAudited);
}

// ---- jobs ----

Json progress_json(const Job &job)
{
	const Progress &progress = job.progress();
	Json json = {{"job", job.id()}, {"what", progress.what}, {"done", std::min(progress.done, progress.total)},
		     {"total", progress.total}, {"unit", progress.unit}, {"goes_on", job.spec().goes_on}};
	if (const auto left = job.seconds_left())
		json["eta_s"] = *left;
	return json;
}

Json job_json(const Job &job)
{
	const JobSpec &spec = job.spec();
	Json json = {{"id", job.id()}, {"what", spec.what}, {"pool", spec.pool}, {"uid", spec.who.uid},
		     {"pid", spec.who.pid}, {"since", job.since()}, {"state", "running"}};
	if (!job.ended()) {
		json["progress"] = progress_json(job);
		return json;
	}
	json["state"] = job.result().ok() ? "done" : "failed";
	json["code"] = job.result().ok() ? 0 : job.result().error().exit_code();
	if (!job.result().ok())
		json["message"] = job.result().error().message();
	return json;
}

// To the client that asked for it: with the file that only one can have.
Reply reply_of(Job &job)
{
	Reply reply = reply_of(job.result());
	if (job.file)
		reply.fds.push_back(std::move(job.file));
	return reply;
}

// To those that wait for it.
Reply waited_reply(const Job &job)
{
	if (!job.result().ok())
		return error_reply(job.result().error());
	const Json &json = job.result().value();
	return {"", {{"result", json.value("result", "done")},
		     {"message", json.value("message", fmt::format("{} of pool {}: done", job.spec().what, job.spec().pool))}}};
}

}	// namespace

// The job's parameters are the request's, which lives no longer than this; its descriptors it takes along.
std::optional<Reply> Service::start_job(const std::string &name, Request &request)
{
	const JobMethod &method = kJobMethods.at(name);
	const Parameters p(request.call.parameters, "io.svctl", name);
	if (stopping_)
		return error_reply(Error{Code::kBusy, method.what + std::string(" pool"), p.text("pool"), "svd is being stopped",
					 "repeat the command once it runs again"});
	Job::Work work = method.make(engine_, p, request.fds);
	const bool changes = method.kind == Kind::kChanges && !p.flag("dry_run");
	if (changes) {
		const std::string what = described(request.call);
		audit(request.peer, what, "");
		work = [inner = std::move(work), who = request.peer, what](Job &job) {
			Result<Json> result = inner(job);
			audit(who, what, outcome_of(reply_of(result)));
			return result;
		};
	}
	const bool goes_on = method.goes_on && !p.flag("dry_run");
	const auto started = jobs_.start({method.what, p.text("pool"), request.peer, goes_on, std::move(request.fds)},
					 std::move(work));
	if (!started.ok())
		return error_reply(started.error());
	const std::shared_ptr<Job> &job = started.value();
	if (job->ended())
		return reply_of(*job);
	waiters_.push_back({request.client, job, request.call.more, true});
	return std::nullopt;
}

std::optional<Reply> Service::wait_job(uint64_t id, const Request &request)
{
	const auto job = jobs_.find(id);
	if (!job)
		return error_reply(Error{Code::kNotFound, "wait for job", std::to_string(id),
					 "there is none, or it ended long ago, or under another svd", "see svctl jobs"});
	if (job->ended())
		return waited_reply(*job);
	waiters_.push_back({request.client, job, request.call.more, false});
	return std::nullopt;
}

Json Service::list_jobs() const
{
	std::vector<std::shared_ptr<Job>> sorted(jobs_.all().begin(), jobs_.all().end());
	std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) { return a->id() < b->id(); });
	Json json = {{"jobs", Json::array()}};
	for (const auto &job : sorted)
		json["jobs"].push_back(job_json(*job));
	return json;
}

// Nobody could do anything with what it reads.
void Service::closed(uint64_t client)
{
	for (const Waiter &waiter : waiters_)
		if (waiter.client == client && waiter.asked_for_it && !waiter.job->spec().goes_on)
			waiter.job->cancel("the client that asked for it has gone");
	std::erase_if(waiters_, [client](const Waiter &waiter) { return waiter.client == client; });
}

bool Service::turn(VarlinkServer &server)
{
	const bool more = jobs_.turn();
	clients_ = server.clients();
	const auto now = Job::Clock::now();
	for (size_t i = 0; i < waiters_.size();) {
		Waiter &waiter = waiters_[i];
		if (waiter.job->ended()) {
			server.answer(waiter.client, waiter.asked_for_it ? reply_of(*waiter.job) : waited_reply(*waiter.job));
			waiters_.erase(waiters_.begin() + static_cast<ptrdiff_t>(i));
			continue;
		}
		if (waiter.more && now - waiter.reported >= kReportEvery &&
		    server.report(waiter.client, {{"progress", progress_json(*waiter.job)}}))
			waiter.reported = now;
		i++;
	}
	return more;
}

void Service::stop(VarlinkServer &server)
{
	stopping_ = true;
	jobs_.stop_all("svd is being stopped; nothing was changed");
	turn(server);
}

std::string Service::metrics(bool with_latency)
{
	SelfFacts self = self_facts();
	self.version = SV_VERSION;
	self.clients = clients_;
	self.jobs = static_cast<uint64_t>(std::count_if(jobs_.all().begin(), jobs_.all().end(), [](const auto &job) {
		return !job->ended(); }));
	return metrics_text(engine_.facts(with_latency), self);
}

// ---- calls ----

Reply Service::refused(const Request &request, Role needed) const
{
	Reply reply = error_reply(role_error(request.peer, needed, groups_));
	reply.parameters["group"] = needed == Role::kRead ? groups_.read : groups_.administer;
	return reply;
}

std::optional<Reply> Service::svctl_call(const std::string &name, Request &request)
{
	const auto found = kMethods.find(name);
	const bool own = name == "Jobs" || name == "WaitJob" || name == "Metrics";	// not the engine's
	const bool looks = own || (found != kMethods.end() && found->second.kind == Kind::kLooks);
	if (const Role needed = looks ? Role::kRead : Role::kAdminister; request.role < needed)
		return refused(request, needed);
	if (kJobMethods.contains(name))
		return start_job(name, request);
	if (found == kMethods.end() && !own)
		return Reply{"org.varlink.service.MethodNotFound", {{"method", "io.svctl." + name}}};
	const Parameters p(request.call.parameters, "io.svctl", name);
	if (name == "Jobs")
		return Reply{"", list_jobs()};
	if (name == "WaitJob")
		return wait_job(p.number("job"), request);
	if (name == "Metrics")
		return Reply{"", {{"text", metrics(p.flag("latency"))}}};
	if (found->second.kind != Kind::kChanges || p.flag("dry_run"))
		return reply_of(found->second.run(engine_, p, request.fds));
	audit(request.peer, described(request.call), "");
	Reply reply = reply_of(found->second.run(engine_, p, request.fds));
	audit(request.peer, described(request.call), outcome_of(reply));
	return reply;
}

std::optional<Reply> Service::dispatch(Request &request)
{
	const std::string &method = request.call.method;
	const log::Scope scope(subject_of(request.call.parameters));
	const size_t dot = method.rfind('.');
	const std::string interface = dot == std::string::npos ? "" : method.substr(0, dot);
	const std::string name = dot == std::string::npos ? method : method.substr(dot + 1);
	if (interface == "org.varlink.service")
		return service_call(simulated_, name, request.call.parameters);
	if (interface == "io.svctl")
		return svctl_call(name, request);
	if (interface == "io.svctl.sim" && simulated_)
		return request.role < Role::kAdminister ? refused(request, Role::kAdminister) :
							  sim_call(engine_, name, request.call.parameters);
	return Reply{"org.varlink.service.InterfaceNotFound", {{"interface", interface}}};
}

std::optional<Reply> Service::call(Request request)
{
	try {
		return dispatch(request);
	} catch (const BadParameter &bad) {
		return Reply{"org.varlink.service.InvalidParameter", {{"parameter", bad.what()}}};
	} catch (const std::exception &unexpected) {
		log::error(Id::kFailure, "{}: {}", request.call.method, unexpected.what());
		return error_reply(Error{Code::kFailure, "carry out", request.call.method, unexpected.what()});
	}
}

}	// namespace svd

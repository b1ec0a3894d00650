// SPDX-License-Identifier: GPL-2.0
// svctl: parses the command line, sends one call to svd, prints the answer. It has no state and decides nothing; what it
// does by itself is to ask before something is destroyed, to freeze file systems, and to give those on clones new UUIDs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/complete.h"
#include "cli/diff.h"
#include "cli/freeze.h"
#include "cli/interrupt.h"
#include "cli/new_uuid.h"
#include "cli/parse.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/style.h"
#include "daemon/base/man.h"
#include "daemon/base/memory_file.h"
#include "daemon/base/mounts.h"

namespace {

using namespace svctl;
constexpr auto kFrozenFor = std::chrono::seconds(10);

int report(const Options &options, const Request &request, const Answer &answer)
{
	if (options.json) {
		json out = answer.exit == kExitOk ? answer.parameters : json::object();
		out["schema"] = kSchema;
		if (answer.exit != kExitOk) {
			out["error"] = {{"code", answer.exit}, {"id", answer.id}, {"message", answer.message}};
			for (const char *more : {"problems", "destroys"})
				if (answer.parameters.contains(more))
					out[more] = answer.parameters[more];
		}
		fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
	} else if (answer.exit != kExitOk) {
		fmt::print(stderr, "{} {} [{}]\n", coloured("svctl:", Colour::kRed, colours(STDERR_FILENO)), answer.message,
			   answer.id);
		for (const json &problem : answer.parameters.value("problems", json::array()))
			fmt::print(stderr, "  {}\n", problem.get<std::string>());
	} else {
		try {
			fmt::print("{}", format_answer(request, answer.parameters));
		} catch (const NotFoundError &e) {
			return report(options, request, failed(kExitNotFound, e.what()));
		} catch (const json::exception &) {
			return report(options, request, failed(kExitFailure, "svd's answer makes no sense: are "
									     "svd and svctl of one version?"));
		}
	}
	return answer.exit;
}

// Exit code 0: what the plan says may be destroyed.
Answer confirm(const Options &options, const json &plan)
{
	const bool asks = isatty(STDIN_FILENO);
	if (asks || !options.json) {
		fmt::print(stderr, "This destroys:\n");
		for (const json &item : plan["destroys"])
			fmt::print(stderr, "  {}\n", item.get<std::string>());
	}
	std::string line;
	if (asks) {
		const InterruptNotice notice("svctl: nothing was changed");
		fmt::print(stderr, "Type yes to go on: ");
		std::getline(std::cin, line);
	}
	if (line == "yes")
		return {};
	Answer refusal = failed(kExitUsage, asks ? "nothing was changed: the answer was not yes" :
						   "nothing was changed: repeat with --yes");
	refusal.parameters["destroys"] = plan["destroys"];
	return refusal;
}

// The dump is text, also with --json.
int print_text(int fd)
{
	svd::FdBuffer buffer(fd);
	std::cout << &buffer << std::flush;
	if (!std::cout)
		throw std::runtime_error("the dump cannot be written");
	return kExitOk;
}

std::string interrupted(const Options &options, const Request &request)
{
	// Those that go on without their client (docs/api.md), if svd has begun: then it has said so, and its number.
	if (request.long_work && !options.dry_run && !request.leaves_nothing)
		return fmt::format("svctl: {}: interrupted; svd may still carry it out: see svctl jobs and svctl status", request.command);
	if (!request.changes || options.dry_run)
		return fmt::format("svctl: {}: interrupted", request.command);
	return fmt::format("svctl: {}: interrupted; svd may still carry it out: see svctl status", request.command);
}

Answer ask(const Options &options, const Request &request)
{
	json parameters = request.parameters;
	if (options.dry_run && request.changes)
		parameters["dry_run"] = true;
	if (request.long_work) {
		ProgressDisplay display(request.command, interrupted(options, request), options.json);
		return call(options.socket, "io.svctl." + request.method, parameters, request.fds,
			    std::chrono::seconds(options.timeout), [&](const json &progress) { display.show(progress); });
	}
	const InterruptNotice notice(interrupted(options, request));
	return call(options.socket, "io.svctl." + request.method, parameters, request.fds,
		    std::chrono::seconds(options.timeout));
}

// What has no device is not active, and nothing is mounted from it.
std::vector<svd::FileSystem> mounted_from(const std::vector<std::string> &devices)
{
	std::set<std::string> numbers;
	for (const std::string &device : devices) {
		struct stat st {};
		if (stat(device.c_str(), &st) == 0 && S_ISBLK(st.st_mode))
			numbers.merge(svd::devices_upon(fmt::format("{}:{}", major(st.st_rdev), minor(st.st_rdev))));
	}
	std::ifstream in("/proc/self/mountinfo");
	if (!in)
		throw std::runtime_error("--freeze: /proc/self/mountinfo, which says what is mounted, cannot be read");
	return svd::file_systems_on(numbers, svd::read_mounts(in));
}

void tell_frozen(const std::vector<svd::FileSystem> &all, Answer &answer)
{
	json frozen = json::array();
	std::string paths;
	for (const svd::FileSystem &one : all) {
		frozen.push_back(one.front().path);
		paths += (paths.empty() ? "; frozen meanwhile: " : ", ") + one.front().path;
	}
	answer.parameters["frozen"] = frozen;
	answer.parameters["message"] = answer.parameters.value("message", "") + paths;
}

Answer ask_frozen(const Options &options, const Request &request)
{
	const std::vector<svd::FileSystem> all = mounted_from(request.freeze);
	const auto limit = std::min(kFrozenFor, std::chrono::seconds(options.timeout));
	Freezer freezer(Freezer::Clock::now() + limit);
	if (Answer refused = freezer.freeze(all); refused.exit != kExitOk)
		return refused;
	Options limited = options;
	if (!all.empty())
		limited.timeout = static_cast<unsigned>(limit.count());
	Answer answer = ask(limited, request);
	if (Answer early = freezer.thaw(); early.exit != kExitOk && answer.exit == kExitOk)
		return early;
	if (answer.exit == kExitTimeout && !all.empty())
		answer.message += "; a snapshot that it still makes has what a power cut would leave";
	if (answer.exit == kExitOk)
		tell_frozen(all, answer);
	return answer;
}

// A clone that cannot have what was asked for is taken back, if it is still that one and nobody has it open.
Answer with_new_uuid(const Options &options, const Request &request, Answer answer)
{
	const std::string name = request.parameters["pool"].get<std::string>() + "/" + request.parameters["volume"].get<std::string>();
	if (answer.parameters.value("result", "") != "created")
		return failed(kExitBusy, fmt::format("volume {} exists: which UUID its file system has was not looked at (delete-volume, or "
						     "xfs_admin -U generate, tune2fs -U random)", name));
	const InterruptNotice notice(fmt::format("svctl: create-volume: interrupted; {} is there, and its file system may have the UUID of the "
						 "snapshot's: svctl delete-volume {}", name, name));
	Answer renewed = give_new_uuid(answer.parameters.value("device", ""));
	if (renewed.exit == kExitOk) {
		answer.parameters["new_uuid"] = renewed.parameters["uuid"];
		answer.parameters["message"] = fmt::format("{}; its file system has the UUID {}", answer.parameters.value("message", ""),
							   renewed.parameters["uuid"].get<std::string>());
		return answer;
	}
	const Answer back = call(options.socket, "io.svctl.DeleteVolume", {{"pool", request.parameters["pool"]}, {"volume",
				 request.parameters["volume"]}, {"id", answer.parameters.value("id", 0)}}, {},
				 std::chrono::seconds(options.timeout));
	renewed.message += back.exit == kExitOk ? "; there is no clone" : fmt::format("; the clone {} is left: {}", name, back.message);
	return renewed;
}

int run(const Options &options, const Request &request)
{
	if (options.json && request.view.chosen)
		return report(options, request, failed(kExitUsage, "--json has every row and column, exactly: leave out "
								   "what selects them"));
	if (options.dry_run && request.command == "scan")
		return report(options, request, failed(kExitUsage, "--dry-run is not for scan, which brings up what it finds: "
								   "svctl status says what is known"));
	if (request.method.empty())	// svctl knows the answer
		return report(options, request, {kExitOk, "", "", request.parameters, {}});
	if (request.destructive && !options.yes && !options.dry_run) {
		Options plan_only = options;
		plan_only.dry_run = true;
		const Answer plan = ask(plan_only, request);
		if (plan.exit != kExitOk)
			return report(options, request, plan);
		const json destroys = plan.parameters.value("destroys", json::array());
		const Answer allowed = destroys.empty() ? Answer() : confirm(options, plan.parameters);
		if (allowed.exit != kExitOk)
			return report(options, request, allowed);
	}
	const bool freezes = !request.freeze.empty() && !options.dry_run;
	Answer answer = freezes ? ask_frozen(options, request) : ask(options, request);
	if (request.new_uuid && answer.exit == kExitOk && !options.dry_run)
		answer = with_new_uuid(options, request, std::move(answer));
	if (answer.exit == kExitOk && !answer.fds.empty() && request.command == "diff") {
		svd::FdBuffer lines(answer.fds[0].get());
		print_diff(std::cout, lines, answer.parameters, options.json, request.view.header);
		return kExitOk;
	}
	if (answer.exit == kExitOk && !answer.fds.empty())
		return print_text(answer.fds[0].get());
	return report(options, request, answer);
}

// Whatever goes wrong must not disturb the line that is being typed.
int print_completions(const CLI::App &app, const std::vector<std::string> &words)
{
	try {
		fmt::print("{}", complete(app, words));
		return kExitOk;
	} catch (const std::exception &) {
		return kExitFailure;
	}
}

bool print_for_the_build(const CLI::App &app, const std::vector<std::string> &words)
{
	const char *script = words.size() == 2 && words[0] == "--completion" ? completion_script(words[1]) : nullptr;
	const bool man = words.size() == 1 && words[0] == "--man";
	fmt::print("{}", script != nullptr ? script : man ? svd::man_sections(app) : "");
	return script != nullptr || man;
}

std::string what_is_wrong(const CLI::App &app, const CLI::ParseError &e)
{
	const CLI::App *at = &app;	// the command, or the noun whose verb is not there
	while (!at->get_subcommands().empty())
		at = at->get_subcommands().front();
	const std::vector<std::string> rest = app.remaining(true);
	if (!rest.empty() && rest.front().starts_with('-'))
		return fmt::format("there is no option {}: --help says what there is", rest.front());
	if (!at->get_subcommands([](const CLI::App *) { return true; }).empty() && !rest.empty())
		return fmt::format("there is no command {}: svctl --help lists them", rest.front());
	return fmt::format("{} (--help says what there is)", e.what());
}

// Also where the command line is wrong, so that it is not parsed to its end.
bool asks_for_json(int argc, char **argv)
{
	for (int i = 1; i < argc && std::string(argv[i]) != "--"; i++)
		if (std::string(argv[i]) == "--json")
			return true;
	return false;
}

int parse_and_run(int argc, char **argv, Options &options)
{
	Values values;
	Request request;
	CLI::App app("svctl: thin volumes on pools of fast and slow devices", "svctl");
	build_parser(app, options, values, request);
	if (argc >= 2 && std::string(argv[1]) == "--complete")
		return print_completions(app, {argv + 2, argv + argc});
	if (argc >= 2 && print_for_the_build(app, {argv + 1, argv + argc}))
		return kExitOk;
	try {
		app.parse(argc, argv);
	} catch (const CLI::ParseError &e) {
		if (e.get_exit_code() == 0)	// --help
			return app.exit(e);
		return report(options, request, failed(kExitUsage, what_is_wrong(app, e)));
	} catch (const UsageError &e) {
		return report(options, request, failed(kExitUsage, e.what()));
	}
	return run(options, request);
}

}	// namespace

// What could not be written in full has not been said: that is a failure also where svd did its part.
int main(int argc, char **argv)
{
	int code = kExitFailure;
	Options options;
	options.json = asks_for_json(argc, argv);
	try {
		code = parse_and_run(argc, argv, options);
		if (fflush(stdout) != 0 || ferror(stdout) != 0)
			throw std::runtime_error("the answer cannot be written to standard output");
		return code;
	} catch (const std::exception &e) {
		code = code == kExitOk ? kExitFailure : code;
		if (options.json && std::cout && ferror(stdout) == 0)
			return report(options, {}, failed(code, e.what()));
		fputs(fmt::format("svctl: {} [{}]\n", e.what(), failed(code, "").id).c_str(), stderr);
		return code;
	}
}

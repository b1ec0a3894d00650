// SPDX-License-Identifier: GPL-2.0
// svd: reads its options, protects itself, makes sure that it is alone, and turns the reactor: one thread, which
// serves the socket and gives the engine its ticks. Others only look at it (base/watchdog.h)
// and make discards (engine/discards.h).
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/core.h>
#include <malloc.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/api/commands.h"
#include "daemon/api/http.h"
#include "daemon/api/metrics.h"
#include "daemon/api/varlink.h"
#include "daemon/base/journal_socket.h"
#include "daemon/base/log.h"
#include "daemon/base/man.h"
#include "daemon/base/waiting.h"
#include "daemon/base/watchdog.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/host.h"
#include "daemon/engine/label_io.h"
#include "daemon/kernel/dm_kernel.h"
#include "daemon/kernel/failing_kernel.h"
#include "daemon/kernel/module.h"
#include "daemon/kernel/sim_kernel.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace {

using namespace svd;

constexpr auto kLongestSleep = std::chrono::hours(1);
constexpr auto kLastAnswers = std::chrono::milliseconds(300);

struct Options {
	bool sim = false;
	std::string socket = "/run/svctl/svd.sock";
	std::string state_dir = "/run/svctl";
	std::vector<std::string> devices;
	std::string host_id;
	RoleGroups groups;
	std::string metrics = "off";
	std::vector<std::string> low_space;
};

// svd serves the disks that its own pages might have to be written to: it must not wait for itself.
void protect()
{
	mallopt(M_MMAP_THRESHOLD, 256 << 10);	// what is larger goes back when it is freed: trimming spares locked pages
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log::warning(Id::kUnprotected, "cannot lock memory: {}", strerror(errno));
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log::warning(Id::kUnprotected, "cannot become an I/O flusher: {}", strerror(errno));
	std::ofstream score("/proc/self/oom_score_adj");
	score << "-1000" << std::flush;
	if (!score)
		log::warning(Id::kUnprotected, "cannot opt out of the OOM killer");
}

Result<UniqueFd> lock_state(const std::string &directory)
{
	mkdir(directory.c_str(), 0755);
	const std::string path = directory + "/svd.lock";
	UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	const int error = errno;
	if (!fd)
		return errno_error(error, "open", path, (error == ENOSPC ? "df -h -i " : "findmnt -T ") + directory);
	if (flock(fd.get(), LOCK_EX | LOCK_NB) < 0)
		return Error{Code::kBusy, "start svd", directory, "another svd is running", "stop it first"};
	return fd;
}

UniqueFd termination_fd()
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, nullptr);
	return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

bool asked_to_stop(const UniqueFd &fd)
{
	signalfd_siginfo info;
	return read(fd.get(), &info, sizeof(info)) == sizeof(info);
}

// For poll(): rounded up, lest it return a moment too early, again and again.
std::chrono::milliseconds until(std::chrono::steady_clock::time_point due)
{
	const auto now = std::chrono::steady_clock::now();
	if (due <= now)
		return std::chrono::milliseconds(0);
	return std::chrono::ceil<std::chrono::milliseconds>(std::min<std::chrono::nanoseconds>(due - now, kLongestSleep));
}

Status print_udev_properties(const std::string &path)
{
	SV_ASSIGN(const auto member, read_label(path));
	if (member)
		fmt::print("{}", udev_properties(*member));
	return {};
}

int print_kernels_without_module()
{
	const auto problems = kernels_without_module();
	for (const MissingModule &problem : problems)
		fmt::print("svctl: {} [{}]\nsvctl: next: {}\n", problem.what, code_of(Id::kModuleMissing), problem.next);
	return problems.empty() ? 0 : static_cast<int>(Code::kMissingFeature);
}

// What --metrics says: no server for "off".
Result<std::optional<HttpServer>> metrics_server(const std::string &where, Service &service)
{
	if (where == "off")
		return std::optional<HttpServer>();
	SV_ASSIGN(HttpAddress address, HttpAddress::parse(where));
	return std::optional<HttpServer>(std::in_place, std::move(address), kMetricsType, [&] { return service.metrics(true); });
}

// Serves what is ready, and calls the engine's clock if it is due. `busy`: with jobs.
void turn(VarlinkServer &server, std::optional<HttpServer> &metrics, Engine &engine, const UniqueFd &stop, bool busy)
{
	std::vector<pollfd> fds = {{stop.get(), POLLIN, 0}};
	for (const int fd : engine.event_fds())
		fds.push_back({fd, POLLIN, 0});
	const size_t own = fds.size();
	auto due = engine.due();
	if (metrics) {
		const auto http = metrics->fds();
		fds.insert(fds.end(), http.begin(), http.end());
		due = std::min(due, metrics->due());
	}
	server.turn(busy ? std::chrono::milliseconds(0) : until(due), fds);
	const auto now = std::chrono::steady_clock::now();
	if (metrics)
		metrics->serve(std::span(fds).subspan(own), now);
	const bool woken = std::any_of(fds.begin(), fds.begin() + static_cast<ptrdiff_t>(own), [](const pollfd &fd) {
		return fd.revents != 0; });
	if (woken || engine.due() <= now)
		engine.tick();
}

Status serve(const Options &options)
{
	std::signal(SIGPIPE, SIG_IGN);	// whoever reads what svd prints may go
	const UniqueFd stop = termination_fd();	// first: who is stopped while it starts ends as well as any other
	if (leads_to_journal(STDERR_FILENO, getenv("JOURNAL_STREAM")))
		log::use_journal(kJournalSocket);
	SV_ASSIGN(const LowSpace low_space, LowSpace::parse(options.low_space));
	SV_ASSIGN(const UniqueFd lock, lock_state(options.state_dir));
	const auto kernel = options.sim ? make_failing_kernel(make_sim_kernel()) : make_dm_kernel();
	SV_ASSIGN(const Host host, this_host(options.host_id));
	Engine engine(*kernel, {options.state_dir, options.devices, host, low_space});
	Service service(engine, options.sim, options.groups);
	SV_ASSIGN(std::optional<HttpServer> metrics, metrics_server(options.metrics, service));
	VarlinkServer::Handler handler;
	handler.call = [&](Request request) { return service.call(std::move(request)); };
	handler.closed = [&](uint64_t client) { service.closed(client); };
	handler.role = [&](const Peer &peer) { return role_of(peer, geteuid(), read_groups(options.groups)); };
	const bool activated = sd_listen_fds(1) > 0;
	SV_ASSIGN(VarlinkServer server, activated ? VarlinkServer::take(UniqueFd(SD_LISTEN_FDS_START), handler) :
						    VarlinkServer::listen(options.socket, handler));
	if (!options.sim)
		protect();
	SV_ASSIGN(const auto watchdog, Watchdog::start());
	log::notice("svd serves {}{}", options.socket, options.sim ? ", with a simulated kernel" : "");
	// Pools may take long to come up. Nothing that boots waits for that: mounts wait for their devices.
	sd_notify(0, "READY=1");
	if (metrics)
		metrics->open(std::chrono::steady_clock::now());
	bool busy = false;
	while (!asked_to_stop(stop)) {
		turn(server, metrics, engine, stop, busy);
		busy = service.turn(server);
		made_a_step();
	}
	sd_notify(0, "STOPPING=1");
	service.stop(server);
	server.finish(kLastAnswers);
	engine.shut_down();
	if (!activated)
		unlink(options.socket.c_str());
	return {};
}

}	// namespace

int main(int argc, char **argv)
{
	Options options;
	CLI::App app("svd: serves pools of thin volumes to svctl", "svd");
	app.add_flag("--sim", options.sim, "simulate the kernel; devices are files; no root needed");
	app.add_option("--socket", options.socket, "where svctl finds svd")->type_name("PATH")->capture_default_str();
	app.add_option("--state-dir", options.state_dir, "lock file and other things that may be lost")
		->type_name("DIRECTORY")->capture_default_str();
	app.add_option("--devices", options.devices, "look for members here only; otherwise on all block devices")
		->type_name("DEVICE[,DEVICE...]")->delimiter(',');
	app.add_option("--host-id", options.host_id, "this host, as labels of pools name it; otherwise of /etc/machine-id")
		->type_name("UUID");
	app.add_option("--admin-group", options.groups.administer, "who is in this local group may do everything, as root may")
		->type_name("GROUP")->capture_default_str();
	app.add_option("--read-group", options.groups.read, "who is in this one may look")
		->type_name("GROUP")->capture_default_str();
	app.add_option("--metrics", options.metrics, "serve metrics for Prometheus there, at http://ADDRESS:PORT/metrics: "
		       "a loopback address, or off")
		->type_name("ADDRESS:PORT")->capture_default_str()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
	app.add_option("--low-space", options.low_space, "how many percent of a pool are used when a warning and a critical "
		       "alert begin (80,95); of POOL alone; may be repeated")
		->type_name("[POOL=]PERCENT,PERCENT")->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
	std::string udev_device;
	std::string udev_volume;
	app.add_option("--udev", udev_device, "only print what udev is to know of this device, if it is a member")
		->type_name("DEVICE");
	app.add_option("--udev-volume", udev_volume, "likewise of a volume, by its device-mapper name")
		->type_name("NAME");
	bool kernels = false;
	app.add_flag("--kernels", kernels, "only say which installed kernels lack the module, and what to do (exit code 8)");
	if (argc == 2 && std::string(argv[1]) == "--man") {	// for the build
		fmt::print("{}", man_sections(app));
		return 0;
	}
	try {
		app.parse(argc, argv);
	} catch (const CLI::ParseError &e) {
		if (e.get_exit_code() == 0)	// --help
			return app.exit(e);
		log::error(Id::kUsage, "{} (--help says what there is)", e.what());
		return static_cast<int>(Code::kUsage);
	}
	if (kernels)
		return print_kernels_without_module();
	if (!udev_volume.empty()) {
		if (const auto volume = split_dm_name(udev_volume))
			fmt::print("SV_POOL={}\nSV_VOLUME={}\n", volume->first, volume->second);
		return 0;
	}
	const Status result = udev_device.empty() ? serve(options) : print_udev_properties(udev_device);
	if (result.ok())
		return 0;
	log::error(result.error().id(), "{}", result.error().message());
	return result.error().exit_code();
}

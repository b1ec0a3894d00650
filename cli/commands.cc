// SPDX-License-Identifier: GPL-2.0
// See commands.h.
#include "cli/commands.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "cli/explain.h"
#include "cli/print.h"
#include "daemon/base/memory_file.h"
#include "daemon/base/units.h"

namespace svctl {

namespace {

using Kind = Parameter::Kind;

json split_volume(const std::string &name)
{
	const size_t slash = name.find('/');
	if (slash == std::string::npos || slash == 0 || slash + 1 == name.size())
		throw UsageError(fmt::format("'{}' does not name a volume: write POOL/VOLUME", name));
	return {{"pool", name.substr(0, slash)}, {"volume", name.substr(slash + 1)}};
}

// "tank/train@epoch-3"
json split_snapshot(const std::string &name)
{
	const size_t at = name.find('@');
	if (at == std::string::npos || at + 1 == name.size())
		throw UsageError(fmt::format("'{}' does not name a snapshot: write POOL/VOLUME@SNAPSHOT", name));
	json parts = split_volume(name.substr(0, at));
	parts["snapshot"] = name.substr(at + 1);
	return parts;
}

uint64_t size_argument(const std::string &text)
{
	const auto bytes = svd::parse_size(text);
	if (!bytes.ok())
		throw UsageError(bytes.error().message());
	return bytes.value().v;
}

// svd's working directory is another one. A symlink stays what it is: it may be the name that lasts.
std::string device_argument(const std::string &path)
{
	if (path.empty())
		throw UsageError("the name of a device is empty");
	std::error_code error;
	const std::filesystem::path absolute = std::filesystem::absolute(path, error);
	if (error)
		throw UsageError(fmt::format("{}: the working directory is gone ({}): write the whole path", path, error.message()));
	return absolute;
}

json wipe_argument(const Values &v)
{
	json devices = json::array();
	for (const std::string &device : v.all("wipe"))
		devices.push_back(device_argument(device));
	return devices;
}

// "fast=/dev/a,/dev/b" as {"name": "fast", "devices": [...]}
json tier_argument(const std::string &text)
{
	const size_t equals = text.find('=');
	const std::vector<std::string> names = split(equals == std::string::npos ? "" : text.substr(equals + 1));
	if (equals == 0 || std::find(names.begin(), names.end(), "") != names.end() || names.empty())
		throw UsageError(fmt::format("'{}' does not name a tier and its devices, with one comma between two: write "
					     "TIER=DEVICE[,DEVICE...]", text));
	json devices = json::array();
	for (const std::string &name : names)
		devices.push_back(device_argument(name));
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
	const svd::UniqueFd file(path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!file)
		throw UsageError(fmt::format("{}: cannot be read: {}", path, strerror(errno)));
	svd::UniqueFd copy = must(svd::create_memory_file("svctl-restore"));
	svd::FdBuffer out(copy.get());
	char buffer[65536];
	ssize_t n;
	while ((n = read(file.get(), buffer, sizeof(buffer))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			throw UsageError(fmt::format("{}: cannot be read: {}", path, strerror(errno)));
		if (out.sputn(buffer, n) != n)
			throw UsageError(fmt::format("{}: there is no memory for its text", path));
	}
	if (out.pubsync() != 0)
		throw UsageError(fmt::format("{}: there is no memory for its text", path));
	const auto sealed = svd::seal_memory_file(copy);
	if (!sealed.ok())
		throw UsageError(sealed.error().message());
	return copy;
}

// ---- requests that take more than a line ----

Request long_work(Request request)
{
	request.long_work = true;
	return request;
}

// What svd ends when svctl is gone: nobody would read what it finds.
Request long_look(Request request)
{
	request.leaves_nothing = true;
	return long_work(std::move(request));
}

void add_discard(const Values &v, Request &request)
{
	const std::string &discard = v.text("discard");
	if (discard.empty())
		return;
	if (discard != "pass" && discard != "keep")
		throw UsageError(fmt::format("--discard {}: write pass or keep", discard));
	request.parameters["discard"] = discard;
}

Request create_pool(const Values &v, const std::string &)
{
	json tiers = json::array();
	for (const std::string &tier : v.all("tier"))
		tiers.push_back(tier_argument(tier));
	Request request{"CreatePool", {{"pool", v.text("NAME")}, {"tiers", tiers}, {"wipe", wipe_argument(v)}},
			!v.all("wipe").empty()};
	add_discard(v, request);
	return request;
}

Request set_pool(const Values &v, const std::string &)
{
	Request request{"SetPool", {{"pool", v.text("POOL")}}};
	add_discard(v, request);
	return request;
}

Request add_device(const Values &v, const std::string &)
{
	const json tier = tier_argument(v.text("TIER=DEVICE"));
	return {"AddDevice", {{"pool", v.text("POOL")}, {"tier", tier["name"]},
		{"devices", tier["devices"]}, {"wipe", wipe_argument(v)}}, !v.all("wipe").empty()};
}

Request evacuate_device(const Values &v, const std::string &)
{
	return {"EvacuateDevice", {{"pool", v.text("POOL")}, {"device", device_argument(v.text("DEVICE"))}, {"undo", v.flag("undo")}}};
}

Request restore(const Values &v, const std::string &)
{
	Request request{"Restore", {{"pool", v.text("POOL")}, {"fd", 0}}};
	request.fds.push_back(file_argument(v.text("FILE")));
	return long_work(std::move(request));
}

Request wait(const Values &v, const std::string &)
{
	const std::string &number = v.text("JOB");
	uint64_t job = 0;
	const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), job);
	if (error != std::errc() || end != number.data() + number.size())
		throw UsageError(fmt::format("'{}' is no job's number: svctl jobs lists them", number));
	return long_work({"WaitJob", {{"job", job}}});
}

Request create_volume(const Values &v, const std::string &)
{
	Request request{"CreateVolume", split_volume(v.text("POOL/VOLUME"))};
	const std::string &from = v.text("from");
	if (from.empty() && v.text("size").empty())
		throw UsageError("--size is missing: a volume has one; a clone has that of its snapshot: --from VOLUME@SNAPSHOT");
	if (!v.text("size").empty())
		request.parameters["size"] = size_argument(v.text("size"));
	request.new_uuid = v.flag("new-uuid");
	if (from.empty() && request.new_uuid)
		throw UsageError("--new-uuid is for clones: a new volume has no file system");
	if (from.find('/') != std::string::npos)
		throw UsageError(fmt::format("--from {}: write VOLUME@SNAPSHOT, of the same pool", from));
	if (!from.empty()) {
		split_snapshot("pool/" + from);
		request.parameters["from"] = from;
	}
	return request;
}

Request create_snapshot(const Values &v, const std::string &)
{
	Request request{"CreateSnapshot", {{"snapshots", json::array()}}};
	for (const std::string &name : v.all("POOL/VOLUME@NEW")) {
		const json parts = split_snapshot(name);
		if (request.parameters.value("pool", parts["pool"]) != parts["pool"])
			throw UsageError("a snapshot at one moment is of volumes of one pool");
		request.parameters["pool"] = parts["pool"];
		request.parameters["snapshots"].push_back({{"volume", parts["volume"]}, {"name", parts["snapshot"]}});
		if (v.flag("freeze"))
			request.freeze.push_back("/dev/sv/" + name.substr(0, name.find('@')));
	}
	return request;
}

Request of_snapshot(const Values &v, const char *method, bool destructive = false)
{
	return {method, split_snapshot(v.text("POOL/VOLUME@SNAPSHOT")), destructive};
}

template <bool kHeld> Request hold(const Values &v, const std::string &)
{
	Request request = of_snapshot(v, "HoldSnapshot");
	request.parameters["held"] = kHeld;
	return request;
}

Request rename_snapshot(const Values &v, const std::string &)
{
	Request request = of_snapshot(v, "RenameSnapshot");
	request.parameters["to"] = v.text("NEW");
	return request;
}

Request resize_volume(const Values &v, const std::string &)
{
	Request request{"ResizeVolume", split_volume(v.text("POOL/VOLUME"))};
	request.parameters["size"] = size_argument(v.text("size"));
	return request;
}

Request rename_volume(const Values &v, const std::string &)
{
	Request request{"RenameVolume", split_volume(v.text("POOL/VOLUME"))};
	request.parameters["to"] = v.text("NEW");
	return request;
}

// The method `verb` of a pool, a volume or a snapshot, as the name and the command's noun want it.
Request of_any(const Values &v, const std::string &noun, const std::string &verb, const std::string &of_pool)
{
	const std::string &name = v.text("POOL[/VOLUME[@SNAPSHOT]]");
	if (noun == "snapshot" || (noun.empty() && name.find('@') != std::string::npos))
		return {verb + "Snapshot", split_snapshot(name)};
	return noun == "volume" || (noun.empty() && name.find('/') != std::string::npos) ?
		Request{verb + "Volume", split_volume(name)} : Request{of_pool, {{"pool", name}}};
}

Request activate(const Values &v, const std::string &noun)
{
	Request request = of_any(v, noun, "Activate", "Activate");
	const bool of_pool = request.method == "Activate";
	for (const char *option : {"read-only", "missing"})
		if (v.flag(option) && !of_pool)
			throw UsageError(fmt::format("--{} is for a pool: a volume is as its pool is, a snapshot is read-only", option));
	if (of_pool) {
		request.parameters["read_only"] = v.flag("read-only");
		request.parameters["missing"] = v.flag("missing");
		request.long_work = true;
	}
	return request;
}

Request deactivate(const Values &v, const std::string &noun)
{
	return of_any(v, noun, "Deactivate", "Deactivate");
}

bool yes_or_no(const std::string &option, const std::string &text)
{
	if (text != "yes" && text != "no")
		throw UsageError(fmt::format("{} {}: write yes or no", option, text));
	return text == "yes";
}

Request set_volume(const Values &v, const std::string &)
{
	Request request{"SetVolume", split_volume(v.text("POOL/VOLUME"))};
	if (!v.text("autoactivate").empty())
		request.parameters["autoactivate"] = yes_or_no("--autoactivate", v.text("autoactivate"));
	if (!v.text("schedule").empty()) {
		request.parameters["schedule"] = v.text("schedule");
		request.destructive = true;	// of snapshots that it does not keep
	}
	return request;
}

Request show(const Values &v, const std::string &noun)
{
	Request request = of_any(v, noun, "Show", "ShowPool");
	request.view.bytes = v.flag("bytes");
	return request;
}

Request list(const Values &v, const std::string &noun)
{
	Request request{"List"};
	request.view.bytes = v.flag("bytes");
	const std::string &types = v.text("type");
	request.selection = {choose_types(types.empty() ? noun : types), v.all("POOL[/VOLUME[@SNAPSHOT]]")};
	request.view.chosen = request.view.bytes || !types.empty() || !request.selection.names.empty();
	return request;
}

Request diff(const Values &v, const std::string &)
{
	const std::string &from = v.text("POOL/VOLUME@SNAPSHOT"), &to = v.text("POOL/VOLUME[@SNAPSHOT]");
	const std::string volume = from.substr(0, from.find('@')), other = to.empty() ? volume : to;
	const json one = split_snapshot(from);
	const json two = other.find('@') == std::string::npos ? split_volume(other) : split_snapshot(other);
	if (one["pool"] != two["pool"])
		throw UsageError("what is compared is of one pool");
	const auto without_pool = [](const std::string &name) { return name.substr(name.find('/') + 1); };
	Request request = long_look({"Diff", {{"pool", one["pool"]}, {"from", without_pool(from)}, {"to", without_pool(other)}}});
	request.view.header = !v.flag("no-header");
	return request;
}

Request show_space(const Values &v, const std::string &)
{
	Request request = long_look({"ShowSpace"});
	request.view.bytes = request.view.chosen = v.flag("bytes");
	bool all = false;
	json of = json::array();
	for (const std::string &name : v.all("POOL[/VOLUME[@SNAPSHOT]]")) {
		const size_t slash = name.find('/');
		const std::string pool = name.substr(0, slash);
		if (request.parameters.value("pool", pool) != pool)
			throw UsageError("what is shown together is of one pool");
		request.parameters["pool"] = pool;
		all = all || slash == std::string::npos;
		if (name.find('@') != std::string::npos)
			split_snapshot(name);
		else if (slash != std::string::npos)
			split_volume(name);
		if (slash != std::string::npos)
			of.push_back(name.substr(slash + 1));
	}
	if (all && !of.empty())
		throw UsageError("a pool's name stands for all that it has: leave out the others");
	if (!all)
		request.parameters["of"] = of;
	return request;
}

// ---- the table ----

const Parameter kWipe = {"--wipe", "DEVICE", "device whose present contents may be destroyed; may be repeated",
			     Kind::kOptions, false};

const Parameter kDiscard = {"--discard", "pass|keep", "pass: what is freed is discarded on the pool's devices before it is used "
			    "again, in the background; keep: they are told nothing. A new pool keeps", Kind::kOption, false};

const Parameter kBytes = {"-b,--bytes", "", "exact numbers, in bytes", Kind::kFlag, false};

// What each command takes that shows a table.
std::vector<Parameter> table_options(std::span<const Column> columns)
{
	return {
		{"-o,--columns", "COLUMN[,COLUMN...]", "these columns; +COLUMN adds to the usual ones: " + column_names(columns),
		 Kind::kOption, false},
		{"-s,--sort", "COLUMN", "by this column, upwards", Kind::kOption, false},
		{"-r,--reverse", "", "with --sort: downwards", Kind::kFlag, false},
		{"-H,--no-header", "", "for scripts: no header, a tab between columns, exact numbers", Kind::kFlag, false},
	};
}

void choose(const Values &v, std::span<const Column> columns, View &view)
{
	view.columns = choose_columns(columns, v.text("columns"));
	view.sort = v.text("sort").empty() ? nullptr : find_column(columns, v.text("sort"));
	view.reverse = v.flag("reverse");
	view.header = !v.flag("no-header");
	view.chosen = view.chosen || !v.text("columns").empty() || view.sort != nullptr || !view.header;
	if (view.reverse && view.sort == nullptr)
		throw UsageError("--reverse goes with --sort COLUMN");
}

std::vector<Command> pool_commands()
{
	return {
		{"create-pool", "create", {"pool"}, "make a pool of devices",
		 {{"NAME", "", "of the new pool"},
		  {"--tier", "TIER=DEVICE[,DEVICE...]", "once for each tier, fastest first", Kind::kOptions},
		  kWipe, kDiscard},
		 "create-pool tank --tier fast=/dev/nvme0n1 --tier slow=/dev/sdb,/dev/sdc",
		 "5: a device is in use or holds something; 6: a device is too small", create_pool},
		{"add-device", "add", {"device"}, "add a device to a tier of a pool",
		 {{"POOL", "", ""}, {"TIER=DEVICE", "", "a tier that the pool has, and the device; or several, separated by commas"}, kWipe},
		 "add-device tank slow=/dev/sdd", "5: the device is in use or holds something", add_device},
		{"evacuate-device", "evacuate", {"device"}, "move all data off a device, while everything on it is in use",
		 {{"POOL", "", ""}, {"DEVICE", "", "of the pool; nothing new is put on it, also after a restart"},
		  {"--undo", "", "have it used as before; what has moved stays where it is", Kind::kFlag, false}},
		 "evacuate-device tank /dev/sdb", "6: the other devices have no room for it", evacuate_device},
		{"set-pool", "set", {"pool"}, "change a pool's settings, while it is up",
		 {{"POOL", "", ""}, kDiscard}, "set-pool tank --discard pass", "2: nothing is to be set", set_pool},
		{"delete-pool", "delete", {"pool"}, "destroy a pool and all its volumes",
		 {{"POOL", "", ""}}, "delete-pool tank", "5: a volume is in use",
		 [](const Values &v, const std::string &) -> Request {
			 return {"DeletePool", {{"pool", v.text("POOL")}}, true}; }},
		{"activate", "activate", {"pool", "volume", "snapshot"}, "bring a pool up, or one volume or snapshot of a pool that is up",
		 {{"POOL[/VOLUME[@SNAPSHOT]]", "", "a pool comes up with the volumes that set-volume --autoactivate does not keep down; a "
		   "snapshot gets a read-only device"},
		  {"--read-only", "", "write nothing to its devices; volumes are read-only", Kind::kFlag, false},
		  {"--missing", "", "with --read-only: go on without devices that are missing; what lies on them cannot be read",
		   Kind::kFlag, false}},
		 "activate tank", "3: a member is missing; 7: a member or the catalogue is damaged", activate},
		{"deactivate", "deactivate", {"pool", "volume", "snapshot"},
		 "take a pool down, or one volume until its pool comes up again, or a snapshot; data stays",
		 {{"POOL[/VOLUME[@SNAPSHOT]]", "", ""}}, "deactivate tank", "5: a volume is in use", deactivate},
		{"export-pool", "export", {"pool"}, "take a pool down and give it up, for another host to import",
		 {{"POOL", "", ""}}, "export-pool tank", "5: a volume is in use",
		 [](const Values &v, const std::string &) -> Request {
			 return {"ExportPool", {{"pool", v.text("POOL")}}}; }},
		{"import-pool", "import", {"pool"}, "have this host hold a pool that came from another, and bring it up",
		 {{"POOL|UUID", "", "as scan shows it"},
		  {"--rename", "NEW", "under this name from now on", Kind::kOption, false},
		  {"--force", "", "also if another host holds it: if that one uses it still, all data is lost", Kind::kFlag, false}},
		 "import-pool tank", "3: a member is missing; 5: another host holds it, or its name is taken here",
		 [](const Values &v, const std::string &) -> Request {
			 return long_work({"ImportPool", {{"pool", v.text("POOL|UUID")}, {"rename", v.text("rename")},
				 {"force", v.flag("force")}}, v.flag("force")}); }},
		{"check", "check", {"pool"}, "compare the kernel's state with the catalogue",
		 {{"POOL", "", ""}}, "check tank", "7: they differ, or the catalogue is damaged in both copies",
		 [](const Values &v, const std::string &) -> Request {
			 return long_work({"Check", {{"pool", v.text("POOL")}}}); }, false},
		{"dump", "dump", {"pool"}, "print a pool's catalogue as text",
		 {{"POOL", "", ""}}, "dump tank > tank.dump", "",
		 [](const Values &v, const std::string &) -> Request {
			 return long_look({"Dump", {{"pool", v.text("POOL")}}}); }, false},
		{"restore", "restore", {"pool"}, "fill the catalogue of a pool just created from a dump",
		 {{"POOL", "", "must be up, without volumes"},
		  {"FILE", "", "what dump printed; - for standard input"}},
		 "restore tank tank.dump", "2: a line of the text is wrong; 5: the pool has volumes", restore},
	};
}

std::vector<Command> volume_commands()
{
	return {
		{"create-volume", "create", {"volume"}, "make a thin volume, or a clone of a snapshot",
		 {{"POOL/VOLUME", "", ""},
		  {"--size", "SIZE", "10G is 10 GiB, 10GB is 10^9 bytes; of a clone at least what its snapshot has, which is usual", Kind::kOption,
		   false},
		  {"--from", "VOLUME@SNAPSHOT", "a clone: it begins as this snapshot of the same pool, and takes space for what is written then",
		   Kind::kOption, false},
		  {"--new-uuid", "", "with --from: gives the XFS or ext4 in it a UUID of its own, so that both can be mounted; its log is replayed for that",
		   Kind::kFlag, false}},
		 "create-volume tank/train --size 20T", "5: there is one of another size", create_volume},
		{"resize-volume", "resize", {"volume"}, "grow a volume, also while it is mounted",
		 {{"POOL/VOLUME", "", ""}, {"--size", "SIZE", "the new size", Kind::kOption}},
		 "resize-volume tank/train --size 30T", "2: smaller than it is: volumes do not shrink", resize_volume},
		{"rename-volume", "rename", {"volume"}, "give a volume another name",
		 {{"POOL/VOLUME", "", ""}, {"NEW", "", "the new name, without the pool's"}},
		 "rename-volume tank/train train-2", "5: that name is taken, or something has the volume open", rename_volume},
		{"set-volume", "set", {"volume"}, "change a volume's properties",
		 {{"POOL/VOLUME", "", ""},
		  {"--autoactivate", "yes|no", "does it come up with its pool, at boot for one? Now it stays as it is", Kind::kOption, false},
		  {"--schedule", "SCHEDULE", "snapshots by themselves: INTERVAL:KEEP, or several with commas between them; units are min, h, d and "
		   "w. none: no more", Kind::kOption, false}},
		 "set-volume tank/train --schedule 5min:1h,1h:3d,1d:30d", "2: nothing is to be set", set_volume},
		{"rollback-volume", "rollback", {"volume"}, "make a volume what one of its snapshots is; all its snapshots stay",
		 {{"POOL/VOLUME@SNAPSHOT", "", "the volume keeps its size and its name"}}, "rollback-volume tank/train@epoch-3",
		 "5: it is in use",
		 [](const Values &v, const std::string &) -> Request { return of_snapshot(v, "RollbackVolume", true); }},
		{"delete-volume", "delete", {"volume"}, "destroy a volume",
		 {{"POOL/VOLUME", "", ""}}, "delete-volume tank/train", "5: it is in use",
		 [](const Values &v, const std::string &) -> Request {
			 return {"DeleteVolume", split_volume(v.text("POOL/VOLUME")), true}; }},
	};
}

std::vector<Command> snapshot_commands()
{
	const Parameter snapshot = {"POOL/VOLUME@SNAPSHOT", "", ""};
	return {
		{"create-snapshot", "create", {"snapshot"}, "keep what a volume has now; nobody waits for it",
		 {{"POOL/VOLUME@NEW", "", "several volumes of a pool at one moment", Kind::kWords},
		  {"--freeze", "", "freeze file systems that are mounted from them meanwhile: they need no repair or replay then; not frozen in 10 s, there is no snapshot",
		   Kind::kFlag}},
		 "create-snapshot tank/train@epoch-3", "5: the volume has a snapshot of that name", create_snapshot},
		{"rename-snapshot", "rename", {"snapshot"}, "give a snapshot another name",
		 {snapshot, {"NEW", "", "the new name, without pool and volume"}}, "rename-snapshot tank/train@epoch-3 best",
		 "5: that name is taken, or the snapshot is active", rename_snapshot},
		{"hold", "hold", {"snapshot"}, "keep a snapshot from being deleted", {snapshot}, "hold tank/train@best", "", hold<true>},
		{"release", "release", {"snapshot"}, "let a held snapshot be deleted", {snapshot}, "release tank/train@best", "", hold<false>},
		{"delete-snapshot", "delete", {"snapshot"}, "destroy a snapshot; volumes that were created from it stay",
		 {snapshot}, "delete-snapshot tank/train@epoch-3", "5: it is held or active",
		 [](const Values &v, const std::string &) -> Request { return of_snapshot(v, "DeleteSnapshot", true); }},
		{"run-schedules", "run", {"schedules"}, "make the snapshots that volumes' schedules want now, and delete those that "
		 "are no longer kept; a systemd timer does that every minute", {}, "run-schedules", "5: a pool is busy",
		 [](const Values &, const std::string &) -> Request { return {"RunSchedules"}; }},
	};
}

std::vector<Command> query_commands()
{
	return {
		{"list", "list", {"pool", "volume", "snapshot", "device"}, "pools, tiers, volumes and snapshots",
		 {kBytes,
		  {"POOL[/VOLUME[@SNAPSHOT]]", "", "only these; of a pool all that is in it, of a volume its snapshots, too", Kind::kWords, false},
		  {"-t,--type", "TYPE[,TYPE...]", "only pool, tier, volume, snapshot, device", Kind::kOption, false}},
		 "list -H -o name,size,used -t volume", "3: nothing has that name", list, false, list_columns()},
		{"status", "status", {"pool"}, "what is wrong, and the command that helps",
		 {}, "status -H -o pool,severity,id", "",
		 [](const Values &, const std::string &) -> Request { return {"Status"}; }, false, problem_columns()},
		{"explain", "explain", {"code"}, "what a code means and what to do; without a code, all of them",
		 {{"CODE", "", "of a problem, a message in the journal, or an error", Kind::kWords, false}},
		 "explain SV-POOL-FULL", "2: there is no such code",
		 [](const Values &v, const std::string &) -> Request { return {"", explain(v.all("CODE"))}; }, false},
		{"metrics", "metrics", {"pool"}, "what monitoring wants to know, in Prometheus's text format",
		 {{"--latency", "", "also how long I/O took, a histogram for each volume and class of I/O", Kind::kFlag, false}},
		 "metrics > /var/lib/prometheus/node-exporter/svctl.prom", "",
		 [](const Values &v, const std::string &) -> Request { return {"Metrics", {{"latency", v.flag("latency")}}}; }, false},
		{"scan", "scan", {"device"}, "look for members of pools now", {},
		 "scan -H -o name,uuid,state", "",
		 [](const Values &, const std::string &) -> Request { return {"Scan"}; }, true, scan_columns()},
		{"show-space", "show", {"space"}, "of snapshots: the space that they have alone, and what deleting them frees",
		 {kBytes,
		  {"POOL[/VOLUME[@SNAPSHOT]]", "", "of a pool all snapshots, of a volume all that it has; of one pool", Kind::kWords}},
		 "show-space tank/train@epoch-1 tank/train@epoch-2", "3: nothing has that name", show_space, false, space_columns()},
		{"diff", "diff", {"snapshot"}, "what has changed since a snapshot: ranges of bytes, found without reading data",
		 {{"POOL/VOLUME@SNAPSHOT", "", ""},
		  {"POOL/VOLUME[@SNAPSHOT]", "", "up to when; without it, up to now in the snapshot's volume", Kind::kWord, false},
		  {"-H,--no-header", "", "for scripts: no header and no sum, a tab between columns", Kind::kFlag, false}},
		 "diff tank/train@epoch-1 tank/train@epoch-2", "3: nothing has that name", diff, false},
		{"show", "show", {"pool", "volume", "snapshot"}, "all that is known of a pool, a volume or a snapshot",
		 {{"POOL[/VOLUME[@SNAPSHOT]]", "", ""}, kBytes}, "show tank/train", "", show, false},
	};
}

std::vector<Command> job_commands()
{
	return {
		{"jobs", "list", {"job"}, "long commands: those that run, and how others ended",
		 {}, "jobs -H -o id,state", "",
		 [](const Values &, const std::string &) -> Request { return {"Jobs"}; }, false, job_columns()},
		{"wait", "wait", {"job"}, "follow a job to its end, and end as it does",
		 {{"JOB", "", "its number, by jobs"}}, "wait 7", "3: there is no such job", wait, false},
	};
}

}	// namespace

std::string Parameter::key() const
{
	const std::string all = name;
	return kind == Kind::kWord || kind == Kind::kWords ? all : all.substr(all.rfind("--") + 2);
}

std::vector<std::string> Command::aliases() const
{
	std::vector<std::string> all;
	for (const std::string &noun : nouns)
		if (verb + "-" + noun != name)
			all.push_back(verb + "-" + noun);
	return all;
}

const std::vector<Command> &commands()
{
	static const std::vector<Command> all = [] {
		std::vector<Command> table = pool_commands();
		for (auto part : {volume_commands(), snapshot_commands(), query_commands(), job_commands()})
			table.insert(table.end(), part.begin(), part.end());
		for (Command &command : table)
			if (!command.columns.empty())
				for (Parameter &option : table_options(command.columns))
					command.parameters.push_back(std::move(option));
		return table;
	}();
	return all;
}

Request Command::asked(const Values &v, const std::string &noun) const
{
	Request asked = request(v, noun);
	asked.command = name;
	asked.changes = changes;
	if (!columns.empty())
		choose(v, columns, asked.view);
	return asked;
}

const Command *command_called(const std::string &noun, const std::string &word)
{
	for (const Command &command : commands())
		if (noun.empty() ? command.name == word :
				   command.verb == word && std::count(command.nouns.begin(), command.nouns.end(), noun) > 0)
			return &command;
	return nullptr;
}

}	// namespace svctl

// SPDX-License-Identifier: GPL-2.0
// Finding pools: their members among the devices, the pool that a command names, and which of them come up by
// themselves: those that this host holds, and no second one of a name. See engine.h.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include <fmt/core.h>

#include "daemon/base/files.h"
#include "daemon/base/log.h"
#include "daemon/engine/engine.h"
#include "daemon/kernel/partition.h"
#include "daemon/kernel/probe.h"
#include "daemon/kernel/udev_database.h"

namespace svd {

namespace {

constexpr auto kScanEvery = std::chrono::seconds(5);
constexpr auto kScanPause = std::chrono::milliseconds(200);	// at least, from one to the next

}	// namespace

// ---- pools that were deactivated ----

namespace {

constexpr char kKeptDown[] = "down-";	// and a UUID: an empty file of the state directory

}	// namespace

Engine::Engine(Kernel &kernel, EngineOptions options) : kernel_(kernel), options_(std::move(options))
{
	for (const auto &path : entries(options_.state_dir)) {
		const std::string name = path.filename();
		if (!name.starts_with(kKeptDown))
			continue;
		if (const auto uuid = Uuid::parse(name.substr(std::strlen(kKeptDown))); uuid.ok())
			kept_down_.insert(uuid.value());
	}
	read_paths();
}

void Engine::keep_down(const Uuid &pool, bool down)
{
	const std::string path = options_.state_dir + "/" + kKeptDown + pool.str();
	std::error_code error;
	if (!down) {
		kept_down_.erase(pool);
		std::filesystem::remove(path, error);
		return;
	}
	kept_down_.insert(pool);
	if (!std::ofstream(path))
		log::warning(Id::kStateUnwritable, "{} cannot be made: the pool will come up when svd is started anew", path);
}

// ---- where members were ----

namespace {

constexpr char kPaths[] = "/paths";	// lines: UUID of the pool, member, path

}	// namespace

void Engine::read_paths()
{
	std::ifstream file(options_.state_dir + kPaths);
	std::string uuid, path;
	uint32_t index = 0;
	while (file >> uuid >> index && std::getline(file >> std::ws, path))
		if (const auto pool = Uuid::parse(uuid); pool.ok())
			paths_[pool.value()][index] = path;
}

// Only what help a user gets hangs on that file, which is gone after a reboot where the state directory is.
void Engine::note_paths()
{
	const auto before = paths_;
	for (const auto &[uuid, pool] : pools_) {
		for (const auto &[index, member] : pool->members())
			paths_[uuid][index] = member.named.empty() ? member.path : member.named;
		pool->set_last_paths(paths_[uuid]);
	}
	if (paths_ != before)
		write_paths();
}

void Engine::write_paths() const
{
	const std::string path = options_.state_dir + kPaths;
	{
		std::ofstream file(path + ".new");
		for (const auto &[uuid, members] : paths_)
			for (const auto &[index, where] : members)
				file << uuid.str() << " " << index << " " << where << "\n";
		if (file.flush())
			return void(std::rename((path + ".new").c_str(), path.c_str()));
	}
	log::warning(Id::kStateUnwritable, "{} cannot be written: a member that is missing may not be told by its last path", path);
}

void Engine::forget_paths(const Uuid &pool)
{
	if (paths_.erase(pool) != 0)
		write_paths();
}

// ---- scans ----

std::vector<std::string> Engine::places() const
{
	std::set<std::string> paths(options_.devices.begin(), options_.devices.end());
	std::ifstream known(options_.state_dir + "/devices");
	for (std::string path; std::getline(known, path);)
		if (kernel_.simulated())
			paths.insert(path);
	if (options_.devices.empty() && !kernel_.simulated())
		for (std::string &path : list_block_devices())
			paths.insert(std::move(path));
	return {paths.begin(), paths.end()};
}

// The simulation's members are files, which no scan would find again.
void Engine::remember(const std::string &path)
{
	const auto known = places();
	if (!kernel_.simulated() || std::find(known.begin(), known.end(), path) != known.end())
		return;
	std::ofstream(options_.state_dir + "/devices", std::ios::app) << path << "\n";
}

namespace {

// Its bytes are those of the device that is made of it. One that was made something else later has lost the label at its
// front: that is not looked away from, but told (Pool::refuse_reused).
bool is_half_of_a_mirror(const FoundMember &member)
{
	const auto raid = is_raid_part(member.path);
	return member.state != LabelState::kFrontBad && raid.ok() && raid.value();
}

}	// namespace

void Engine::note_label(const std::string &path)
{
	const auto others = [](const std::string &device) { return taken_by_another(device) || udev_says_not_ours(device); };
	if (others(path))	// before anything is read: a path of a multipath device may not answer
		return;
	const auto device = member_device(path);
	const std::string &where = device.ok() ? device.value() : path;	// one entry for a disk and its partition
	if (where != path && others(where))
		return;
	const auto label = device.ok() ? read_label(where) : device.error();
	if (!label.ok() && label.error().code == Code::kNeedsCheck)
		bad_labels_[where] = label.error().message();
	if (label.ok() && label.value() && !is_half_of_a_mirror(*label.value()))
		note_member(*label.value(), path);
}

void Engine::note_member(FoundMember member, const std::string &named)
{
	const Uuid uuid = Uuid::from_bytes(member.label.pool_uuid);
	auto &pool = pools_[uuid];
	if (!pool)
		pool = std::make_unique<Pool>(kernel_, uuid, member.label.pool_name);
	member.named = named;
	pool->found(member);
}

void Engine::rescan()
{
	bad_labels_.clear();	// also those of devices that have gone
	for (auto &[uuid, pool] : pools_)
		pool->begin_scan();
	for (const std::string &path : places())
		note_label(path);
	std::erase_if(pools_, [](const auto &item) { return item.second->members().empty() && item.second->job() == nullptr; });
	std::erase_if(left_down_, [this](const auto &item) { return !pools_.contains(item.first) || !pools_[item.first]->down(); });
	note_paths();
	last_scan_ = Pool::Clock::now();
	came_ = false;
}

// Once, and again where it is for another reason.
void Engine::tell_left_down(const Pool &pool)
{
	std::vector<Problem> problems;
	holder_problems(pool, problems);
	for (const Problem &problem : problems) {
		if (!left_down_[pool.uuid()].insert(problem.what).second)
			continue;
		const std::string text = fmt::format("pool {} ({}): {}; next: {}", pool.name(), pool.uuid().str(), problem.what, problem.next);
		if (code_text(problem.id).severity == Severity::kInfo)
			log::notice(problem.id, "{}", text);
		else
			log::warning(problem.id, "{}", text);
	}
}

// Each attempt closes members that were open for writing, of which udev makes events: one that failed is repeated now
// and then, or when there are other members, and not for each event.
void Engine::activate_complete(bool all)
{
	const auto now = Pool::Clock::now();
	for (auto &[uuid, pool] : pools_) {
		if (!pool->down() || kept_down(*pool) || (!all && !pool->worth_a_try(now)))
			continue;
		const log::Scope scope({pool->name()});
		if (!may_come_up(*pool)) {
			tell_left_down(*pool);
			continue;
		}
		const std::optional<Problem> before = pool->problem();
		const Status result = pool->activate({});
		if (!result.ok() && (!before || before->what != pool->problem()->what))
			log::warning(pool->problem()->id, "{}", result.error().message());
	}
}

bool Engine::wants_scan() const
{
	return pools_.empty() || std::any_of(pools_.begin(), pools_.end(), [this](const auto &item) {
		const Pool &pool = *item.second;
		return pool.down() && !kept_down(pool) && hold_of(pool) == Hold::kHere;
	});
}

Pool::Clock::time_point Engine::scan_due() const
{
	if (came_)
		return last_scan_ + kScanPause;
	return wants_scan() ? last_scan_ + kScanEvery : Pool::Clock::time_point::max();
}

Result<Json> Engine::scan()
{
	rescan();
	activate_complete(true);
	return status();
}

// ---- which pool ----

Engine::Hold Engine::hold_of(const Pool &pool) const
{
	const Holder holder = pool.holder();
	if (holder.rival)
		return Hold::kDisputed;
	if (holder.host.id.is_zero())
		return Hold::kExported;
	return holder.host.id == options_.host.id ? Hold::kHere : Hold::kElsewhere;
}

// What the kernel serves is ours whatever its labels say: it went on while svd was gone.
Status Engine::refuse_holder(const char *attempt, const Pool &pool)
{
	const Hold hold = hold_of(pool);
	if (hold == Hold::kHere)
		return {};
	const auto running = kernel_.running(pool.uuid());
	if (running.ok() && running.value().exists)
		return {};
	return Error{Code::kBusy, attempt, pool.name(), held_by(pool), how_to_take(pool)};
}

std::string Engine::held_by(const Pool &pool) const
{
	const Holder holder = pool.holder();
	switch (hold_of(pool)) {
	case Hold::kDisputed:
		return fmt::format("two hosts took it at the same moment: {} and {}", holder.host.str(), holder.rival->str());
	case Hold::kExported:
		return "it is exported: no host holds it";
	case Hold::kElsewhere:
		return fmt::format("host {} holds it; this is host {}", holder.host.str(), options_.host.str());
	default:
		return "this host holds it";
	}
}

// The command that has this host hold it.
std::string Engine::how_to_take(const Pool &pool) const
{
	const std::string name = reference(pool);
	if (options_.host.id.is_zero())
		return kHostNeedsId;
	const std::string import = "svctl import-pool " + name + (namesake(pool) != nullptr ? " --rename NEW" : "");
	switch (hold_of(pool)) {
	case Hold::kExported:
		return import;
	case Hold::kElsewhere:
		return fmt::format("there: svctl export-pool {}, then here: {}; or, if that host will not use it again or "
				   "was this one before its machine-id changed: {} --force", pool.name(), import, import);
	default:
		return import + " --force";
	}
}

// How a command names it: by its UUID where other pools have its name.
std::string Engine::reference(const Pool &pool) const
{
	const auto named = std::count_if(pools_.begin(), pools_.end(), [&](const auto &item) {
		return item.second->name() == pool.name(); });
	return named > 1 ? pool.uuid().str() : pool.name();
}

// Another pool that has the name, and is up or may come up here.
const Pool *Engine::namesake(const Pool &pool, const std::string &name) const
{
	for (const auto &[uuid, other] : pools_)
		if (other.get() != &pool && other->name() == name && (!other->down() || hold_of(*other) == Hold::kHere))
			return other.get();
	return nullptr;
}

// Of two pools of one name that are down neither comes up by itself: a mount from /etc/fstab must not find today one of
// them and tomorrow the other, as their devices come.
bool Engine::may_come_up(const Pool &pool)
{
	if (hold_of(pool) == Hold::kHere && namesake(pool) == nullptr)
		return true;
	const auto running = kernel_.running(pool.uuid());
	return running.ok() && running.value().exists;
}

Result<Pool *> Engine::choose_pool(const std::string &name, std::vector<Pool *> all) const
{
	std::string uuids;
	for (const Pool *pool : all)
		uuids += (uuids.empty() ? "" : ", ") + pool->uuid().str();
	if (all.empty())
		return Error{Code::kNotFound, "find pool", name, "there is none", "see svctl list"};
	if (all.size() > 1)
		return Error{Code::kBusy, "find pool", name, "several pools have that name", "name one by its UUID: " + uuids}
			.with(Id::kPoolNameTwice);
	return all[0];
}

std::vector<Pool *> Engine::pools_named(const std::string &name, const std::function<bool(const Pool &)> &wanted) const
{
	std::vector<Pool *> all;
	for (const auto &[uuid, pool] : pools_)
		if ((pool->name() == name || uuid.str() == name) && wanted(*pool))
			all.push_back(pool.get());
	return all;
}

// A name means the pool that is up, else the one that this host holds, else any.
Result<Pool *> Engine::find_pool(const std::string &name)
{
	if (!Uuid::parse(name).ok())
		SV_TRY(check_pool_name(name));
	const std::function<bool(const Pool &)> preferences[] = {
		[](const Pool &pool) { return !pool.down(); },
		[this](const Pool &pool) { return hold_of(pool) == Hold::kHere; },
	};
	for (const auto &preferred : preferences)
		if (const auto some = pools_named(name, preferred); some.size() == 1)
			return some[0];
	return choose_pool(name, pools_named(name, [](const Pool &) { return true; }));
}

}	// namespace svd

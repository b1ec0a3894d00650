// SPDX-License-Identifier: GPL-2.0
// See dm_kernel.h.
#include "daemon/kernel/dm_kernel.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <libdevmapper.h>
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/base/log.h"
#include "daemon/base/unique_fd.h"
#include "daemon/base/waiting.h"
#include "daemon/kernel/device_events.h"
#include "daemon/kernel/device_users.h"
#include "daemon/kernel/module.h"

namespace svd {

namespace {

constexpr uint64_t kSector = 512;
constexpr int kLookTries = 20;
constexpr auto kLookPause = std::chrono::milliseconds(50);
constexpr int kOpenTries = 50;
constexpr auto kOpenPause = std::chrono::milliseconds(100);

std::string doubled(const std::string &name)
{
	std::string out;
	for (const char c : name)
		out.append(c == '-' ? 2 : 1, c);
	return out;
}

struct TaskFree {
	void operator()(dm_task *task) const { dm_task_destroy(task); }
};
using Task = std::unique_ptr<dm_task, TaskFree>;

// Empty where libdevmapper, whose log says why, does not take what it is told: run() fails then. `tell` tells it more.
template <typename Tell> Task new_task(int type, const std::string &name, Tell tell)
{
	Task task(dm_task_create(type));
	if (task && !(dm_task_set_name(task.get(), name.c_str()) && tell(task.get())))
		task.reset();
	return task;
}

Task new_task(int type, const std::string &name)
{
	return new_task(type, name, [](dm_task *) { return true; });
}

Task task_of_uuid(int type, const std::string &uuid)
{
	Task task(dm_task_create(type));
	if (task && !dm_task_set_uuid(task.get(), uuid.c_str()))
		task.reset();
	return task;
}

Status run(const Task &task, const char *what, const std::string &name)
{
	const std::string described = fmt::format("device-mapper to {}", what);
	const Waiting waiting(described, Activity::Of::kOther, name);
	if (!task)
		return Error{Code::kFailure, what, name, "libdevmapper does not take it", "journalctl -u svd says why"};
	if (dm_task_run(task.get()))
		return {};
	const int error = dm_task_get_errno(task.get());
	return errno_error(error ? error : EIO, what, name, "the kernel log says why: dmesg");
}

// With a cookie where udev is to have made or removed the nodes before we go on.
Status run_and_settle(const Task &task, const char *what, const std::string &name, uint16_t udev_flags = 0)
{
	uint32_t cookie = 0;
	if (task && !dm_task_set_cookie(task.get(), &cookie, udev_flags))
		return Error{Code::kFailure, what, name, "no udev cookie", ""};
	const Status result = run(task, what, name);
	const Waiting waiting("udev, behind", Activity::Of::kOther, name);
	dm_udev_wait(cookie);
	return result;
}

Result<dm_info> run_info(const Task &task, const std::string &name)
{
	SV_TRY(run(task, "look at device", name));
	dm_info info{};
	if (!dm_task_get_info(task.get(), &info))
		return Error{Code::kFailure, "look at device", name, "no information", ""};
	return info;
}

Result<dm_info> info_of(const std::string &name)
{
	return run_info(new_task(DM_DEVICE_INFO, name), name);
}

struct Table {
	std::string target;
	std::string parameters;
	uint64_t sectors = 0;
	bool read_only = false;
	uint16_t udev_flags = 0;
};

// A pool's own device holds no data, and says so by an error to who reads it: udev need not.
constexpr uint16_t kUdevLeaveAlone = DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG |
				     DM_UDEV_DISABLE_OTHER_RULES_FLAG;

bool tell_table(dm_task *task, const Table &table)
{
	return dm_task_add_target(task, 0, table.sectors, table.target.c_str(), table.parameters.c_str()) &&
	       (!table.read_only || dm_task_set_ro(task));
}

Status create_device(const std::string &name, const std::string &uuid, const Table &table)
{
	const Task task = new_task(DM_DEVICE_CREATE, name, [&](dm_task *t) {
		return dm_task_set_uuid(t, uuid.c_str()) && tell_table(t, table); });
	return run_and_settle(task, "create device", name, table.udev_flags);
}

// The tables are swapped with the I/O that there is: a freeze would write back all that is dirty, and what waits for space
// would fail rather than wait on.
bool swap_quietly(dm_task *task) { return dm_task_no_flush(task) && dm_task_skip_lockfs(task); }

Status reload_device(const std::string &name, const Table &table)
{
	const Task load = new_task(DM_DEVICE_RELOAD, name, [&](dm_task *t) { return tell_table(t, table); });
	SV_TRY(run(load, "load the table of", name));
	const Status resumed = run_and_settle(new_task(DM_DEVICE_RESUME, name, swap_quietly), "resume", name, table.udev_flags);
	if (resumed.ok())
		return {};
	// Suspended it must not stay: who opens it would hang. Where the old table is still the live one, with that.
	const Status cleared = run(new_task(DM_DEVICE_CLEAR, name), "clear the table of", name);
	const Status again = run_and_settle(new_task(DM_DEVICE_RESUME, name), "resume", name, table.udev_flags);
	for (const Status *result : {&cleared, &again})
		if (!result->ok())
			log::error(result->error().id(), "{}", result->error().message());
	return resumed;
}

Status remove_device(const std::string &name)
{
	SV_ASSIGN(const dm_info info, info_of(name));
	if (!info.exists)
		return {};
	const Task task = new_task(DM_DEVICE_REMOVE, name, dm_task_retry_remove);
	return run_and_settle(task, "remove device", name);
}

Status rename_device(const std::string &from, const std::string &to)
{
	const Task task = new_task(DM_DEVICE_RENAME, from, [&](dm_task *t) { return dm_task_set_newname(t, to.c_str()); });
	return run_and_settle(task, "rename device", from);
}

struct Existing {
	std::string name;	// empty: there is none
	uint64_t sectors = 0;
};

Result<Existing> find_by_uuid(const std::string &uuid)
{
	const Task task = task_of_uuid(DM_DEVICE_STATUS, uuid);
	SV_TRY(run(task, "look for device", uuid));
	dm_info info{};
	if (!dm_task_get_info(task.get(), &info))
		return Error{Code::kFailure, "look for device", uuid, "no information", ""};
	Existing existing;
	if (!info.exists)
		return existing;
	uint64_t start = 0;
	char *target = nullptr;
	char *parameters = nullptr;
	dm_get_next_target(task.get(), nullptr, &start, &existing.sectors, &target, &parameters);
	existing.name = dm_task_get_name(task.get());
	return existing;
}

// ---- links ----

std::string link_of(const std::string &pool, const std::string &volume)
{
	return fmt::format("/dev/sv/{}/{}", pool, volume);
}

void make_link(const std::string &pool, const std::string &volume)
{
	std::error_code error;
	const std::filesystem::path link = link_of(pool, volume);
	std::filesystem::create_directories(link.parent_path(), error);
	const std::filesystem::path target = "/dev/mapper/" + dm_name(pool, volume);
	const std::filesystem::path there = std::filesystem::canonical(link, error);
	if (!error && there == std::filesystem::canonical(target, error))	// udev's, or ours of an earlier time
		return;
	std::filesystem::remove(link, error);
	std::filesystem::create_symlink(target, link, error);
	if (error)
		log::warning(Id::kLinkMissing, "{}: {}", link.string(), error.message());
}

void remove_link(const std::string &pool, const std::string &volume)
{
	std::error_code error;
	std::filesystem::remove(link_of(pool, volume), error);
	std::filesystem::remove("/dev/sv/" + pool, error);	// if it is empty
}

// ---- control device ----

void make_node(const std::string &name)
{
	std::string numbers;
	std::ifstream("/sys/class/misc/" + name + "/dev") >> numbers;
	unsigned int major = 0;
	unsigned int minor = 0;
	if (sscanf(numbers.c_str(), "%u:%u", &major, &minor) == 2)
		mknod(("/dev/" + name).c_str(), S_IFCHR | 0600, makedev(major, minor));
}

// udev may be slow with the node, and an svd that was killed may hold it for a moment longer.
Result<UniqueFd> open_control(const Uuid &uuid)
{
	const std::string name = "svctl-" + uuid.str();
	const Waiting waiting("the control device", Activity::Of::kOther, name);
	for (int i = 0;; i++) {
		UniqueFd fd(open(("/dev/" + name).c_str(), O_RDWR | O_CLOEXEC));
		if (fd)
			return fd;
		if ((errno != ENOENT && errno != EBUSY) || i == kOpenTries)
			return errno_error(errno, "open control device", "/dev/" + name,
					   errno == EBUSY ? "another svd has it" : "");
		if (errno == ENOENT && i == kOpenTries / 2)
			make_node(name);
		std::this_thread::sleep_for(kOpenPause);
	}
}

class DmPool : public KernelPool {
public:
	DmPool(PoolSpec spec, UniqueFd control) : spec_(std::move(spec)), control_(std::move(control)) {}

	static Table table_of(const PoolSpec &spec)
	{
		Table table{"sv-pool", fmt::format("{} {}", spec.uuid.str(), spec.members.size()),
			    spec.size / kSector, spec.read_only, kUdevLeaveAlone};
		for (const MemberSpec &member : spec.members)
			table.parameters += member.path.empty() ? fmt::format(" -:{}", member.slots) : " " + member.path;
		return table;
	}

	Result<CommandResult> command(uint32_t op, void *payload, uint32_t size, uint32_t count) override
	{
		sv_cmd cmd{};
		cmd.op = op;
		cmd.size = size;
		cmd.count = count;
		cmd.epoch = epoch();
		cmd.addr = reinterpret_cast<uintptr_t>(payload);
		const std::string described = fmt::format("the kernel's {} of pool", op_name(op));
		const Waiting waiting(described, Activity::Of::kPool, spec_.name);
		int result;
		do
			result = ioctl(control_.get(), SV_IOC_CMD, &cmd);
		while (result < 0 && errno == EINTR);
		if (result < 0)
			return command_error(op, errno);
		return CommandResult{cmd.count, cmd.done};
	}

	int event_fd() const override { return control_.get(); }

	Status reload(const PoolSpec &spec) override
	{
		const std::string name = dm_name(spec.name, "");
		const Status done = reload_device(name, table_of(spec));
		if (done.ok())
			spec_ = spec;
		else if (const Status back = reload_device(name, table_of(spec_)); !back.ok())
			log::error(back.error().id(), "{}", back.error().message());
		return done;
	}

	Status remove() override
	{
		SV_TRY(remove_device(dm_name(spec_.name, "")));
		control_.reset();
		return {};
	}

	Status create_volume(const VolumeSpec &volume) override
	{
		const std::string name = dm_name(spec_.name, volume.name);
		SV_ASSIGN(const Existing existing, find_by_uuid(uuid_of(volume)));
		if (existing.name.empty())
			SV_TRY(create_device(name, uuid_of(volume), volume_table(volume)));
		else
			SV_TRY(catch_up(existing, volume, name));
		make_link(spec_.name, volume.name);
		return {};
	}

	Status resize_volume(const VolumeSpec &volume) override
	{
		return reload_device(dm_name(spec_.name, volume.name), volume_table(volume));
	}

	Status rename_volume(const VolumeSpec &volume, const std::string &to) override
	{
		SV_TRY(rename_device(dm_name(spec_.name, volume.name), dm_name(spec_.name, to)));
		make_link(spec_.name, to);
		remove_link(spec_.name, volume.name);
		return {};
	}

	Status remove_volume(const VolumeSpec &volume) override
	{
		SV_ASSIGN(const Existing existing, find_by_uuid(uuid_of(volume)));
		if (!existing.name.empty())
			SV_TRY(remove_device(existing.name));
		remove_link(spec_.name, volume.name);
		return {};
	}

	// After an unmount udev looks into the volume: nobody is to be told to end that. Who is not found may have just gone,
	// or is one whom no search finds.
	Result<VolumeUse> volume_use(const VolumeSpec &volume) override
	{
		SV_ASSIGN(const Existing existing, find_by_uuid(uuid_of(volume)));
		if (existing.name.empty())
			return VolumeUse{};
		const std::string &name = existing.name;
		const Waiting waiting("who uses", Activity::Of::kOther, name);
		bool nobody = false;
		for (int i = 0;; i++) {
			SV_ASSIGN(const dm_info info, info_of(name));
			if (!info.exists || info.open_count <= 0)
				return VolumeUse{};
			if (nobody)
				return VolumeUse{true, "", ""};
			const auto users = users_of_device(makedev(info.major, info.minor), volume_path(volume));
			nobody = users.empty();
			const auto passing = [](const DeviceUser &user) { return user.passing; };
			if (std::all_of(users.begin(), users.end(), passing) && i < kLookTries) {
				std::this_thread::sleep_for(kLookPause);
				continue;
			}
			const DeviceUser all = summary_of(users);
			return VolumeUse{true, all.what, fmt::format("{}", fmt::join(all.next, "; "))};
		}
	}

	Result<bool> volume_exists(const VolumeSpec &volume) override
	{
		SV_ASSIGN(const Existing existing, find_by_uuid(uuid_of(volume)));
		return !existing.name.empty();
	}

	std::string volume_path(const VolumeSpec &volume) const override { return link_of(spec_.name, volume.name); }

private:
	std::string uuid_of(const VolumeSpec &volume) const { return fmt::format("SV-{}-{}", spec_.uuid.str(), volume.id); }

	Table volume_table(const VolumeSpec &volume) const
	{
		return {"sv-volume", fmt::format("{} {}", spec_.uuid.str(), volume.id), volume.size / kSector,
			volume.read_only};
	}

	// svd died in the middle of a rename or a resize.
	Status catch_up(const Existing &existing, const VolumeSpec &volume, const std::string &name)
	{
		if (existing.name != name)
			SV_TRY(rename_device(existing.name, name));
		return existing.sectors < volume.size / kSector ? reload_device(name, volume_table(volume)) : Status();
	}

	PoolSpec spec_;
	UniqueFd control_;
};

class DmKernel : public Kernel {
public:
	DmKernel() { dm_log_with_errno_init(log_from_libdm_with_errno); }

	Status probe() override
	{
		if (has_target())
			return {};
		SV_TRY(load_module());
		if (has_target())
			return {};
		return Error{Code::kMissingFeature, "use", "kernel module dm-sv", "modprobe does not load it",
			     "modprobe -v dm-sv says why"};
	}

	Result<std::unique_ptr<KernelPool>> open_pool(const PoolSpec &spec, bool exists) override
	{
		SV_ASSIGN(const RunningPool pool, running(spec.uuid));
		if (pool.exists != exists)
			return Error{Code::kBusy, "open pool", spec.name, exists ? "its device was removed meanwhile" :
				     "somebody made its device meanwhile", "svctl activate " + spec.name};
		if (!pool.exists)
			SV_TRY(create_device(dm_name(spec.name, ""), "SV-" + spec.uuid.str(), DmPool::table_of(spec)));
		auto control = open_control(spec.uuid);
		if (control.ok())
			return std::unique_ptr<KernelPool>(std::make_unique<DmPool>(spec, std::move(control).value()));
		const Status removed = pool.exists ? Status() : remove_device(dm_name(spec.name, ""));
		if (!removed.ok())
			log::error(removed.error().id(), "{}", removed.error().message());
		return control.error();
	}

	Result<RunningPool> running(const Uuid &pool) override
	{
		const Task task = task_of_uuid(DM_DEVICE_INFO, "SV-" + pool.str());
		SV_ASSIGN(const dm_info info, run_info(task, pool.str()));
		return RunningPool{info.exists != 0, info.exists != 0 && info.read_only != 0};
	}

	bool simulated() const override { return false; }
	std::vector<MissingModule> missing_modules() override { return kernels_without_module(); }
	int device_fd() const override { return devices_.fd(); }
	bool devices_came() override { return devices_.take(); }

private:
	static void log_from_libdm_with_errno(int level, const char *file, int line, int error, const char *format, ...)
		__attribute__((format(printf, 5, 6)));

	static bool has_target()
	{
		const Task task(dm_task_create(DM_DEVICE_LIST_VERSIONS));
		if (!task || !dm_task_run(task.get()))
			return false;
		const auto *version = static_cast<dm_versions *>(dm_task_get_versions(task.get()));
		while (version != nullptr) {
			if (std::strcmp(version->name, "sv-pool") == 0)
				return true;
			if (version->next == 0)
				return false;
			version = reinterpret_cast<const dm_versions *>(reinterpret_cast<const char *>(version) +
									version->next);
		}
		return false;
	}

	DeviceEvents devices_;
};

void DmKernel::log_from_libdm_with_errno(int level, const char *, int, int, const char *format, ...)
{
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if ((level & 0x7) <= 4)	// warnings and worse
		log::warning(Id::kFailure, "libdevmapper: {}", line);
}

}	// namespace

std::string dm_name(const std::string &pool, const std::string &volume)
{
	return volume.empty() ? "sv-" + doubled(pool) : "sv-" + doubled(pool) + "-" + doubled(volume);
}

Status check_device_name(const std::string &pool, const std::string &device)
{
	const size_t length = dm_name(pool, device).size();
	if (length < DM_NAME_LEN)
		return {};
	return Error{Code::kUsage, "use", "the name " + pool + "/" + device,
		     fmt::format("its device would have a name of {} characters, and the kernel takes {}", length, DM_NAME_LEN - 1),
		     "choose a shorter one, or one with fewer '-', which count twice"};
}

std::optional<std::pair<std::string, std::string>> split_dm_name(const std::string &name)
{
	std::string parts[2];
	size_t part = 0;
	if (!name.starts_with("sv-"))
		return std::nullopt;
	for (size_t i = 3; i < name.size(); i++) {
		const bool twice = name[i] == '-' && i + 1 < name.size() && name[i + 1] == '-';
		if (name[i] != '-' || twice) {
			parts[part] += name[i];
			i += twice;
		} else if (++part == 2) {
			return std::nullopt;
		}
	}
	if (part != 1 || parts[0].empty() || parts[1].empty())
		return std::nullopt;
	return std::pair(parts[0], parts[1]);
}

std::unique_ptr<Kernel> make_dm_kernel()
{
	return std::make_unique<DmKernel>();
}

}	// namespace svd

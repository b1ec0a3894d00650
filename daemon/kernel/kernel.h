// SPDX-License-Identifier: GPL-2.0
// The kernel as svd sees it: pools and volumes as devices, and one control channel for each pool (uapi/sv.h). Two
// implementations: dm_kernel (device-mapper and dm-sv.ko) and sim_kernel (kmod/core in this process). The engine
// owns the objects and is the only caller; all calls are made from the reactor thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "daemon/base/result.h"
#include "daemon/base/uuid.h"
#include "kmod/uapi/sv.h"

namespace svd {

struct MemberSpec {
	std::string path;	// empty: it is missing, and what lies on it cannot be read
	uint32_t slots = 0;
};

// What a pool's device is made of: members by index.
struct PoolSpec {
	std::string name;
	Uuid uuid;
	std::vector<MemberSpec> members;
	bool read_only = false;	// members are only read; the only way without all of them
	uint64_t size = 0;	// bytes of all slots; for show only
};

// A pool that the kernel serves already.
struct RunningPool {
	bool exists = false;
	bool read_only = false;
};

struct VolumeSpec {
	uint32_t id = 0;
	std::string name;
	uint64_t size = 0;	// bytes
	bool read_only = false;
};

// An installed kernel that pools will not come up with, and what to do about it.
struct MissingModule {
	std::string what;
	std::string next;
};

// Whether somebody has a volume open. In words: by whom, and what ends it; empty where that cannot be seen.
struct VolumeUse {
	bool in_use = false;
	std::string by;
	std::string next;
};

// Commands that answered: how many elements came back, or how many were applied.
struct CommandResult {
	uint32_t count = 0;
	uint32_t done = 0;
};

class KernelPool {
public:
	virtual ~KernelPool() = default;

	// One control command. `payload` is `count` elements of `size` bytes, read or written as the op says. An
	// error has the op's name in it; its cause is the kernel's errno.
	virtual Result<CommandResult> command(uint32_t op, void *payload, uint32_t size, uint32_t count) = 0;

	// A member was added: `spec` has it at its end.
	virtual Result<void> reload(const PoolSpec &spec) = 0;
	// Removes the pool's device; kBusy while volumes are open.
	virtual Result<void> remove() = 0;

	virtual Result<void> create_volume(const VolumeSpec &volume) = 0;	// success if it is there
	virtual Result<void> resize_volume(const VolumeSpec &volume) = 0;
	virtual Result<void> rename_volume(const VolumeSpec &volume, const std::string &to) = 0;
	virtual Result<void> remove_volume(const VolumeSpec &volume) = 0;	// success if it is not there
	virtual Result<VolumeUse> volume_use(const VolumeSpec &volume) = 0;
	virtual Result<bool> volume_exists(const VolumeSpec &volume) = 0;
	virtual std::string volume_path(const VolumeSpec &volume) const = 0;	// where users find it

	// Readable while SV_OP_WAIT has events to report; negative: there is none, ask.
	virtual int event_fd() const { return -1; }

	// What the kernel does by itself when time passes; only the simulation needs to be told.
	virtual void tick() {}

	// Debugging I/O by the daemon itself; only the simulation can.
	virtual Result<void> read(uint32_t volume, uint64_t offset, std::span<uint8_t> to);
	virtual Result<void> write(uint32_t volume, uint64_t offset, std::span<const uint8_t> from, bool fua);
	virtual Result<void> flush(uint32_t volume);
	virtual Result<void> discard(uint32_t volume, uint64_t offset, uint64_t bytes);

	uint64_t epoch() const { return epoch_; }
	void set_epoch(uint64_t epoch) { epoch_ = epoch; }

	// ---- typed commands ----
	template <typename T> Result<T> ask(uint32_t op, T in = {})
	{
		auto result = command(op, &in, sizeof(T), 1);
		if (!result.ok())
			return result.error();
		return in;
	}
	template <typename T> Result<void> tell(uint32_t op, const T &one)
	{
		T copy = one;
		auto result = command(op, &copy, sizeof(T), 1);
		if (!result.ok())
			return result.error();
		return {};
	}
	// Sends all in payloads that the kernel takes.
	template <typename T> Result<void> tell_all(uint32_t op, std::vector<T> &all) { return tell_all(op, std::span<T>(all)); }
	template <typename T> Result<void> tell_all(uint32_t op, std::span<T> all)
	{
		constexpr size_t kMost = SV_CMD_MAX / sizeof(T);
		for (size_t i = 0; i < all.size(); i += kMost) {
			const auto n = static_cast<uint32_t>(std::min(kMost, all.size() - i));
			auto result = command(op, &all[i], sizeof(T), n);
			if (!result.ok())
				return result.error();
		}
		return {};
	}

private:
	uint64_t epoch_ = 0;
};

class Kernel {
public:
	virtual ~Kernel() = default;

	// Can this kernel serve pools? kMissingFeature with what to do, if not.
	virtual Result<void> probe() = 0;
	// The pool's device and its control channel. `exists`: what running() said of it; otherwise it is made. kBusy where that holds no
	// longer, or another process has the channel.
	virtual Result<std::unique_ptr<KernelPool>> open_pool(const PoolSpec &spec, bool exists) = 0;
	virtual Result<RunningPool> running(const Uuid &pool) = 0;
	virtual bool simulated() const = 0;
	virtual std::vector<MissingModule> missing_modules() { return {}; }

	// Readable once members may have come; negative: nobody says so.
	virtual int device_fd() const { return -1; }
	virtual bool devices_came() { return false; }	// since it was last asked

	// The n-th call from now on fails for want of memory; 0: none will. Was one still to fail? Only the
	// simulation can.
	virtual bool fail_call(uint32_t) { return false; }
};

const char *op_name(uint32_t op);
// What an errno of the control channel means for the command that caused it.
Error command_error(uint32_t op, int error);

}	// namespace svd

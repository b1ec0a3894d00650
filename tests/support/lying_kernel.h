// SPDX-License-Identifier: GPL-2.0
// A kernel whose answers to control commands a test may change. What svd does with it is otherwise what it does with the
// one inside.
#pragma once

#include <cerrno>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "daemon/kernel/kernel.h"

namespace svd {

// Of each answer: op, elements, how many.
using Lie = std::function<void(uint32_t op, void *payload, CommandResult &result)>;
// Whether that one is not even asked of the kernel inside, which has no memory for it.
using Refuse = std::function<bool(uint32_t op)>;
// Whether somebody has that volume open, in words.
using Use = std::function<std::string(const std::string &volume)>;

class LyingPool : public KernelPool {
public:
	LyingPool(std::unique_ptr<KernelPool> honest, const Lie &lie, const Refuse &refuse, const Use &use)
		: honest_(std::move(honest)), lie_(lie), refuse_(refuse), use_(use)
	{
	}

	Result<CommandResult> command(uint32_t op, void *payload, uint32_t size, uint32_t count) override
	{
		if (refuse_ && refuse_(op))
			return command_error(op, ENOMEM);
		honest_->set_epoch(epoch());
		auto result = honest_->command(op, payload, size, count);
		if (result.ok() && lie_)
			lie_(op, payload, result.value());
		return result;
	}
	Status reload(const PoolSpec &spec) override { return honest_->reload(spec); }
	Status remove() override { return honest_->remove(); }
	Status create_volume(const VolumeSpec &v) override { return honest_->create_volume(v); }
	Status resize_volume(const VolumeSpec &v) override { return honest_->resize_volume(v); }
	Status rename_volume(const VolumeSpec &v, const std::string &to) override { return honest_->rename_volume(v, to); }
	Status remove_volume(const VolumeSpec &v) override { return honest_->remove_volume(v); }
	Result<VolumeUse> volume_use(const VolumeSpec &v) override
	{
		const std::string by = use_ ? use_(v.name) : "";
		return by.empty() ? honest_->volume_use(v) : VolumeUse{true, by, "umount"};
	}
	Result<bool> volume_exists(const VolumeSpec &v) override { return honest_->volume_exists(v); }
	std::string volume_path(const VolumeSpec &v) const override { return honest_->volume_path(v); }
	int event_fd() const override { return honest_->event_fd(); }
	void tick() override { honest_->tick(); }
	Status write(uint32_t volume, uint64_t offset, std::span<const uint8_t> from, bool fua) override
	{
		return honest_->write(volume, offset, from, fua);
	}
	Status read(uint32_t volume, uint64_t offset, std::span<uint8_t> to) override { return honest_->read(volume, offset, to); }
	Status flush(uint32_t volume) override { return honest_->flush(volume); }
	Status discard(uint32_t volume, uint64_t offset, uint64_t bytes) override { return honest_->discard(volume, offset, bytes); }

private:
	std::unique_ptr<KernelPool> honest_;
	const Lie &lie_;
	const Refuse &refuse_;
	const Use &use_;
};

// All may be set and taken back at any time.
class LyingKernel : public Kernel {
public:
	LyingKernel(std::unique_ptr<Kernel> honest, const Lie &lie, const Refuse &refuse, const Use &use)
		: honest_(std::move(honest)), lie_(lie), refuse_(refuse), use_(use)
	{
	}

	Status probe() override { return honest_->probe(); }
	Result<std::unique_ptr<KernelPool>> open_pool(const PoolSpec &spec, bool exists) override
	{
		SV_ASSIGN(auto pool, honest_->open_pool(spec, exists));
		return std::unique_ptr<KernelPool>(std::make_unique<LyingPool>(std::move(pool), lie_, refuse_, use_));
	}
	Result<RunningPool> running(const Uuid &pool) override { return honest_->running(pool); }
	bool simulated() const override { return honest_->simulated(); }
	bool fail_call(uint32_t n) override { return honest_->fail_call(n); }

private:
	std::unique_ptr<Kernel> honest_;
	const Lie &lie_;
	const Refuse &refuse_;
	const Use &use_;
};

}	// namespace svd

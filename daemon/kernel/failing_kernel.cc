// SPDX-License-Identifier: GPL-2.0
// See failing_kernel.h.
#include "daemon/kernel/failing_kernel.h"

#include <cerrno>

namespace svd {

namespace {

// Calls until one fails; 0: none will.
struct Countdown {
	uint32_t left = 0;
	bool expired() { return left > 0 && --left == 0; }
};

Error no_memory(const char *what, const std::string &name)
{
	return errno_error(ENOMEM, what, name);
}

class FailingPool : public KernelPool {
public:
	FailingPool(std::unique_ptr<KernelPool> inner, Countdown &countdown, std::string name)
		: inner_(std::move(inner)), countdown_(countdown), name_(std::move(name))
	{
	}

	Result<CommandResult> command(uint32_t op, void *payload, uint32_t size, uint32_t count) override
	{
		if (countdown_.expired())
			return command_error(op, ENOMEM);
		inner_->set_epoch(epoch());
		return inner_->command(op, payload, size, count);
	}

	Status reload(const PoolSpec &spec) override
	{
		return countdown_.expired() ? no_memory("load the table of", name_) : inner_->reload(spec);
	}

	Status remove() override { return countdown_.expired() ? no_memory("remove device", name_) : inner_->remove(); }

	Status create_volume(const VolumeSpec &volume) override
	{
		return countdown_.expired() ? no_memory("create device", volume.name) : inner_->create_volume(volume);
	}

	Status resize_volume(const VolumeSpec &volume) override
	{
		return countdown_.expired() ? no_memory("load the table of", volume.name) : inner_->resize_volume(volume);
	}

	Status rename_volume(const VolumeSpec &volume, const std::string &to) override
	{
		return countdown_.expired() ? no_memory("rename device", volume.name) : inner_->rename_volume(volume, to);
	}

	Status remove_volume(const VolumeSpec &volume) override
	{
		return countdown_.expired() ? no_memory("remove device", volume.name) : inner_->remove_volume(volume);
	}

	Result<VolumeUse> volume_use(const VolumeSpec &volume) override
	{
		if (countdown_.expired())
			return no_memory("look at device", volume.name);
		return inner_->volume_use(volume);
	}

	Result<bool> volume_exists(const VolumeSpec &volume) override
	{
		if (countdown_.expired())
			return no_memory("look at device", volume.name);
		return inner_->volume_exists(volume);
	}

	std::string volume_path(const VolumeSpec &volume) const override { return inner_->volume_path(volume); }
	int event_fd() const override { return inner_->event_fd(); }
	void tick() override { inner_->tick(); }

	Status read(uint32_t volume, uint64_t offset, std::span<uint8_t> to) override
	{
		return inner_->read(volume, offset, to);
	}
	Status write(uint32_t volume, uint64_t offset, std::span<const uint8_t> from, bool fua) override
	{
		return inner_->write(volume, offset, from, fua);
	}
	Status flush(uint32_t volume) override { return inner_->flush(volume); }
	Status discard(uint32_t volume, uint64_t offset, uint64_t bytes) override
	{
		return inner_->discard(volume, offset, bytes);
	}

private:
	std::unique_ptr<KernelPool> inner_;
	Countdown &countdown_;
	std::string name_;
};

class FailingKernel : public Kernel {
public:
	explicit FailingKernel(std::unique_ptr<Kernel> inner) : inner_(std::move(inner)) {}

	Status probe() override { return inner_->probe(); }
	std::vector<MissingModule> missing_modules() override { return inner_->missing_modules(); }

	Result<std::unique_ptr<KernelPool>> open_pool(const PoolSpec &spec, bool exists) override
	{
		if (countdown_.expired())
			return no_memory("create device", spec.name);
		SV_ASSIGN(auto pool, inner_->open_pool(spec, exists));
		return std::unique_ptr<KernelPool>(std::make_unique<FailingPool>(std::move(pool), countdown_, spec.name));
	}

	Result<RunningPool> running(const Uuid &pool) override
	{
		if (countdown_.expired())
			return no_memory("look at device", pool.str());
		return inner_->running(pool);
	}

	bool simulated() const override { return inner_->simulated(); }

	bool fail_call(uint32_t n) override
	{
		const bool waiting = countdown_.left > 0;
		countdown_.left = n;
		return waiting;
	}

private:
	std::unique_ptr<Kernel> inner_;
	Countdown countdown_;
};

}	// namespace

std::unique_ptr<Kernel> make_failing_kernel(std::unique_ptr<Kernel> inner)
{
	return std::make_unique<FailingKernel>(std::move(inner));
}

}	// namespace svd

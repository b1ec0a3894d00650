// SPDX-License-Identifier: GPL-2.0
// See sim_kernel.h.
#include "daemon/kernel/sim_kernel.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include "daemon/base/unique_fd.h"
#include "kmod/core/port.h"
extern "C" {
#include "kmod/core/label.h"
#include "kmod/core/latency.h"
#include "kmod/core/pool.h"
}

namespace svd {

namespace {

constexpr int kMaxDeferrals = 1000;

// A file with a volatile write cache of 4 KiB blocks. One that is missing has no file, and cannot be read.
class Member {
public:
	static Member missing() { return Member(UniqueFd()); }

	static Result<Member> open(const std::string &path, bool read_only)
	{
		UniqueFd fd(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
		if (!fd)
			return errno_error(errno, "open", path);
		return Member(std::move(fd));
	}

	bool read(uint64_t offset, uint8_t *to, size_t bytes)
	{
		for (; bytes > 0; offset += SV_BLOCK_SIZE, to += SV_BLOCK_SIZE, bytes -= SV_BLOCK_SIZE) {
			const auto cached = cache_.find(offset);
			if (cached != cache_.end())
				std::memcpy(to, cached->second.data(), SV_BLOCK_SIZE);
			else if (pread(fd_.get(), to, SV_BLOCK_SIZE, static_cast<off_t>(offset)) != SV_BLOCK_SIZE)
				return false;
		}
		return true;
	}

	bool write(uint64_t offset, const uint8_t *from, size_t bytes)
	{
		for (; bytes > 0; offset += SV_BLOCK_SIZE, from += SV_BLOCK_SIZE, bytes -= SV_BLOCK_SIZE)
			cache_[offset].assign(from, from + SV_BLOCK_SIZE);
		return true;
	}

	bool flush()
	{
		for (const auto &[offset, block] : cache_)
			if (pwrite(fd_.get(), block.data(), block.size(), static_cast<off_t>(offset)) !=
			    static_cast<ssize_t>(block.size()))
				return false;
		cache_.clear();
		return true;
	}

	// Durable at once, past the cache.
	bool write_through(uint64_t offset, const void *from, size_t bytes)
	{
		return pwrite(fd_.get(), from, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
	}

	// Or its copy: a damaged label is not repaired while the pool is read-only.
	Result<sv_label> label() const
	{
		sv_label_disk disk;
		sv_label label;
		const char *why = "cannot be read";
		const off_t end = lseek(fd_.get(), 0, SEEK_END);
		for (const off_t at : {off_t{0}, static_cast<off_t>(sv_label_copy_off(static_cast<u64>(end)))})
			if (pread(fd_.get(), &disk, sizeof(disk), at) == sizeof(disk) &&
			    sv_label_decode(&disk, &label, &why) == 0)
				return label;
		return Error{Code::kNeedsCheck, "read", "label", why, ""};
	}

private:
	explicit Member(UniqueFd fd) : fd_(std::move(fd)) {}

	UniqueFd fd_;
	std::map<uint64_t, std::vector<uint8_t>> cache_;
};

sv_member_geometry geometry_of(const sv_label &label)
{
	return {label.slot_off, label.nr_slots, label.tier, label.flags, label.ring_off, label.ring_len};
}

struct PoolDeleter {
	void operator()(sv_pool *pool) const { sv_pool_free(pool); }
};

class SimPool : public KernelPool {
public:
	static Result<std::unique_ptr<SimPool>> open(const PoolSpec &spec)
	{
		std::unique_ptr<SimPool> pool(new SimPool(spec));
		uint64_t incarnation = 0;
		for (const MemberSpec &member : spec.members) {
			auto added = pool->open_member(member, &incarnation);
			if (!added.ok())
				return added.error();
		}
		pool->pool_.reset(sv_pool_new(spec.uuid.bytes.data(), incarnation,
					      static_cast<u32>(pool->geometry_.size()), pool->geometry_.data()));
		if (!pool->pool_ || sv_pool_refill(pool->pool_.get()) < 0)
			return Error{Code::kFailure, "make pool", spec.name, "no memory, or members that do not fit together", ""};
		if (spec.read_only)
			sv_pool_degrade(pool->pool_.get(), SV_MODE_READ_ONLY);
		return pool;
	}

	~SimPool() override
	{
		for (uint32_t id : open_volumes_)
			if (sv_volume *volume = sv_volume_find(pool_.get(), id))
				sv_volume_close(volume);
	}

	Result<CommandResult> command(uint32_t op, void *payload, uint32_t size, uint32_t count) override
	{
		if (size != sv_op_size(op))
			return command_error(op, EINVAL);
		if (op == SV_OP_COMMIT || op == SV_OP_ATTACH || op == SV_OP_FOLD || op == SV_OP_MOVE)
			commit(true);
		CommandResult result{count, 0};
		u64 members = 0;
		int error = sv_cmd(pool_.get(), op, epoch(), payload, &result.count, &result.done, &members);
		// Nothing is in flight between two commands: no grace to wait for.
		if (error == 0 && op == SV_OP_RECYCLE)
			sv_recycle_finish(pool_.get());
		if (error == 0 && op == SV_OP_SNAPSHOT)
			error = take_snapshot();
		if (error == 0 && (op == SV_OP_FOLD || op == SV_OP_MOVE))
			result.done = relocate(op == SV_OP_FOLD ? sv_fold_steps : sv_move_steps);
		sv_pool_refill(pool_.get());
		if (error < 0)
			return command_error(op, -error);
		return result;
	}

	Result<void> reload(const PoolSpec &spec) override
	{
		uint64_t incarnation = 0;
		for (size_t i = members_.size(); i < spec.members.size(); i++) {
			auto added = open_member(spec.members[i], &incarnation);
			if (!added.ok())
				return added.error();
			if (sv_pool_add_member(pool_.get(), &geometry_.back()) < 0)
				return Error{Code::kFailure, "add", spec.members[i].path, "the pool does not take it", ""};
		}
		return {};
	}

	Result<void> remove() override
	{
		if (!open_volumes_.empty())
			return Error{Code::kBusy, "remove pool", spec_.name, "it has active volumes", ""};
		commit(true);
		for (Member &member : members_)
			if (!member.flush())
				return Error{Code::kFailure, "remove pool", spec_.name, "a member cannot be flushed", ""};
		return {};
	}

	Result<void> create_volume(const VolumeSpec &spec) override
	{
		if (open_volumes_.contains(spec.id))
			return {};
		sv_volume *volume = sv_volume_find(pool_.get(), spec.id);
		if (volume == nullptr)
			return Error{Code::kNotFound, "open volume", spec.name, "it is not in the kernel", ""};
		if (sv_volume_open(volume) < 0)
			return Error{Code::kBusy, "open volume", spec.name, "it is open already", ""};
		open_volumes_.insert(spec.id);
		return {};
	}

	Result<void> resize_volume(const VolumeSpec &) override { return {}; }
	Result<void> rename_volume(const VolumeSpec &, const std::string &) override { return {}; }

	Result<void> remove_volume(const VolumeSpec &spec) override
	{
		if (open_volumes_.erase(spec.id) > 0)
			sv_volume_close(sv_volume_find(pool_.get(), spec.id));
		return {};
	}

	Result<VolumeUse> volume_use(const VolumeSpec &) override { return VolumeUse{}; }
	Result<bool> volume_exists(const VolumeSpec &spec) override { return open_volumes_.contains(spec.id); }

	std::string volume_path(const VolumeSpec &spec) const override
	{
		return fmt::format("sim:{}/{}", spec_.name, spec.name);
	}

	void tick() override { commit(true); }

	Result<void> read(uint32_t id, uint64_t offset, std::span<uint8_t> to) override
	{
		return each_piece(SV_IO_READ, id, offset, to.size(), [&](sv_volume *v, u64 block, u32 blocks, sv_piece *piece) {
			const enum sv_plan plan = sv_plan_read(v, block, blocks, piece);
			uint8_t *at = to.data() + ((block << SV_BLOCK_SHIFT) - offset);
			if (plan == SV_PLAN_ZERO)
				std::memset(at, 0, static_cast<size_t>(piece->blocks) << SV_BLOCK_SHIFT);
			else if (plan == SV_PLAN_REMAP && !members_[piece->member].read(piece->sector * 512, at,
					static_cast<size_t>(piece->blocks) << SV_BLOCK_SHIFT))
				return SV_PLAN_IOERR;
			return plan;
		});
	}

	Result<void> write(uint32_t id, uint64_t offset, std::span<const uint8_t> from, bool fua) override
	{
		const enum sv_write_class kind = fua ? SV_WRITE_FUA : SV_WRITE_NORMAL;
		return each_piece(SV_IO_WRITE, id, offset, from.size(), [&](sv_volume *v, u64 block, u32 blocks, sv_piece *piece) {
			const enum sv_plan plan = sv_plan_write(v, block, blocks, kind, piece);
			if (plan == SV_PLAN_REMAP)
				return carry_out(v, piece, from.data() + ((block << SV_BLOCK_SHIFT) - offset), fua);
			return plan;
		});
	}

	Result<void> discard(uint32_t id, uint64_t offset, uint64_t bytes) override
	{
		return each_piece(SV_IO_DISCARD, id, offset, bytes, [](sv_volume *v, u64 block, u32 blocks, sv_piece *piece) {
			return sv_plan_discard(v, block, blocks, false, piece);
		});
	}

	Result<void> flush(uint32_t id) override
	{
		sv_volume *volume = sv_volume_find(pool_.get(), id);
		if (volume == nullptr || !open_volumes_.contains(id))
			return not_in_kernel(id);
		const auto start = Clock::now();
		sv_ticket ticket{};
		if (sv_flush_ticket(volume, &ticket))
			commit(false);
		count(volume, SV_IO_FLUSH, SV_TIER_NONE, 0, start, ticket.error == 0);
		return ticket.error == 0 ? Status() : errno_error(EIO, "flush", fmt::format("volume {}", id));
	}

private:
	int take_snapshot()
	{
		u64 members = 0;
		int error = 0;
		while ((error = sv_snapshot_switch(pool_.get(), &members)) == -EAGAIN)
			commit(false);
		for (u32 i = 0; error == 0 && sv_snapshot_volume(pool_.get(), i) != nullptr; i++) {
			sv_ticket ticket{};
			if (sv_flush_ticket(sv_snapshot_volume(pool_.get(), i), &ticket))
				commit(false);
			error = ticket.error;
		}
		while (sv_snapshot_finish(pool_.get(), error == 0) == -EAGAIN)
			commit(false);
		sv_ticket records{};
		sv_ticket_add(pool_.get(), &records, false);
		commit(false);
		return error != 0 ? error : records.error;
	}

	bool copy(const sv_copy_run &c)
	{
		std::vector<uint8_t> bytes(static_cast<size_t>(c.blocks) << SV_BLOCK_SHIFT);
		return (c.zero || members_[c.from].read(c.from_sector * 512, bytes.data(), bytes.size())) &&
		       members_[c.to].write(c.to_sector * 512, bytes.data(), bytes.size());
	}

	u32 relocate(const sv_relocation &steps)
	{
		sv_copy_run c;
		while (steps.next(pool_.get(), &c))
			if (!copy(c))
				steps.failed(pool_.get(), c.of);
		u64 not_flushed = steps.targets(pool_.get());
		for (size_t i = 0; i < members_.size(); i++)
			if ((not_flushed >> i & 1) && members_[i].flush())
				not_flushed &= ~(1ull << i);
		if (steps.hold)
			steps.hold(pool_.get());
		while (steps.finish(pool_.get(), not_flushed) == -EAGAIN)
			commit(false);
		commit(true);
		return steps.end(pool_.get());
	}

	using PieceFunction = std::function<enum sv_plan(sv_volume *, u64 block, u32 blocks, sv_piece *)>;
	using Clock = std::chrono::steady_clock;

	static void count(sv_volume *volume, sv_io_class kind, u32 tier, uint64_t bytes, Clock::time_point start, bool ok)
	{
		const sv_latency *l = sv_volume_latency(volume);
		sv_latency_count(l, sv_latency_row_of(l, kind, tier), bytes,
				 static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - start).count()), ok);
	}

	explicit SimPool(const PoolSpec &spec) : spec_(spec) {}

	Result<void> open_member(const MemberSpec &spec, uint64_t *incarnation)
	{
		if (spec.path.empty()) {
			geometry_.push_back({0, spec.slots, 0, 0, 0, 0});
			members_.push_back(Member::missing());
			return {};
		}
		auto member = Member::open(spec.path, spec_.read_only);
		if (!member.ok())
			return member.error();
		auto label = member.value().label();
		if (!label.ok())
			return label.error();
		if (label.value().flags & SV_LABEL_HAS_RING)
			*incarnation = label.value().incarnation;
		geometry_.push_back(geometry_of(label.value()));
		members_.push_back(std::move(member).value());
		return {};
	}

	enum sv_plan carry_out(sv_volume *v, sv_piece *piece, const uint8_t *from, bool fua)
	{
		const size_t bytes = static_cast<size_t>(piece->blocks) << SV_BLOCK_SHIFT;
		Member &member = members_[piece->member];
		const bool ok = member.write(piece->sector * 512, from, bytes) && (!fua || member.flush());
		sv_write_done(v, piece, ok);
		sv_ticket ticket{};
		if (ok && fua && sv_fua_ticket(v, piece, &ticket))
			commit(false);
		return ok && ticket.error == 0 ? SV_PLAN_REMAP : SV_PLAN_IOERR;
	}

	Result<void> each_piece(sv_io_class kind, uint32_t id, uint64_t offset, uint64_t bytes,
				const PieceFunction &function)
	{
		sv_volume *volume = sv_volume_find(pool_.get(), id);
		if (volume == nullptr || !open_volumes_.contains(id))
			return not_in_kernel(id);
		if (bytes == 0 || offset % SV_BLOCK_SIZE || bytes % SV_BLOCK_SIZE ||
		    offset > sv_volume_size(volume) || bytes > sv_volume_size(volume) - offset)
			return Error{Code::kUsage, "access", fmt::format("volume {}", id),
				     "not whole 4 KiB blocks within the volume", ""};
		const auto start = Clock::now();
		u32 tier = SV_TIER_NONE;
		const u64 block = offset >> SV_BLOCK_SHIFT;
		Result<void> done = carry_out_pieces(volume, block, block + (bytes >> SV_BLOCK_SHIFT), function, &tier);
		count(volume, kind, tier, bytes, start, done.ok());
		return done;
	}

	// Plans and carries out one piece after the other until all is done or one cannot be. *tier: of the last one's member.
	Result<void> carry_out_pieces(sv_volume *volume, u64 block, u64 end, const PieceFunction &function, u32 *tier)
	{
		int deferrals = 0;
		while (block < end) {
			sv_piece piece{};
			const enum sv_plan plan = function(volume, block, static_cast<u32>(std::min<u64>(end - block,
						      1u << 20)), &piece);
			if ((plan == SV_PLAN_DEFER || plan == SV_PLAN_RING) && deferrals++ < kMaxDeferrals) {
				sv_pool_refill(pool_.get());
				commit(true);
				continue;
			}
			if (plan != SV_PLAN_REMAP && plan != SV_PLAN_ZERO)
				return plan_error(plan);
			if (plan == SV_PLAN_REMAP)
				*tier = geometry_[piece.member].tier;
			block += piece.blocks;
		}
		return {};
	}

	static Error not_in_kernel(uint32_t id)
	{
		return Error{Code::kNotFound, "access", fmt::format("volume {}", id), "it is not in the kernel", ""};
	}

	static Error plan_error(enum sv_plan plan)
	{
		switch (plan) {
		case SV_PLAN_NOSPC:
		case SV_PLAN_RING:
			return Error{Code::kNoSpace, "write", "volume", "no space left in the pool", ""};
		case SV_PLAN_ROFS:
			return Error{Code::kPermission, "write", "volume", "the pool or the volume is read-only", ""};
		default:
			return Error{Code::kFailure, "access", "volume", "input/output error", ""};
		}
	}

	uint64_t write_batch(const sv_commit &c)
	{
		uint64_t ok = sv_pool_ring_members(pool_.get());
		for (size_t i = 0; i < members_.size(); i++)
			if ((ok >> i & 1) && !members_[i].write_through(geometry_[i].ring_off + c.off, c.buf, c.len))
				ok &= ~(1ull << i);
		return ok;
	}

	// One step of each of the commit's machines that has one to make.
	bool commit_step()
	{
		bool did = false;
		for (u32 i = 0; i < members_.size(); i++)
			if (sv_commit_round(pool_.get(), i)) {
				sv_commit_flushed(pool_.get(), i, !members_[i].flush());
				did = true;
			}
		sv_commit c{};
		if (sv_commit_batch(pool_.get(), &c)) {
			sv_commit_written(pool_.get(), &c, write_batch(c));
			did = true;
		}
		return did;
	}

	// Until no ticket waits: who waits looks at its own when this returns.
	void commit(bool all)
	{
		if (all && !sv_commit_idle(pool_.get()))
			sv_commit_all(pool_.get());
		while (commit_step()) {
		}
		sv_commit_done(pool_.get());
		u64 members = 0;
		if (sv_reclaim_begin(pool_.get(), &members))
			sv_reclaim_finish(pool_.get());
	}

	PoolSpec spec_;
	std::vector<Member> members_;
	std::vector<sv_member_geometry> geometry_;
	std::unique_ptr<sv_pool, PoolDeleter> pool_;
	std::set<uint32_t> open_volumes_;
};

class SimKernel : public Kernel {
public:
	Result<void> probe() override { return {}; }
	Result<std::unique_ptr<KernelPool>> open_pool(const PoolSpec &spec, bool) override
	{
		auto pool = SimPool::open(spec);
		if (!pool.ok())
			return pool.error();
		return std::unique_ptr<KernelPool>(std::move(pool).value());
	}
	Result<RunningPool> running(const Uuid &) override { return RunningPool(); }
	bool simulated() const override { return true; }
};

}	// namespace

std::unique_ptr<Kernel> make_sim_kernel()
{
	return std::make_unique<SimKernel>();
}

}	// namespace svd

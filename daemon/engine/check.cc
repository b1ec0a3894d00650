// SPDX-License-Identifier: GPL-2.0
// Compares what the kernel serves with what the catalogue says, after a checkpoint has made them meet.
#include <algorithm>
#include <cstring>
#include <istream>
#include <iterator>
#include <ostream>

#include <fmt/format.h>
#include <sys/stat.h>

#include "daemon/base/memory_file.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr uint32_t kAtOnce = 16384;
constexpr size_t kMostProblems = 100000;
constexpr int kMostTries = 3;

std::string text(const sv_extent &e)
{
	return fmt::format("extent {} slot {} member {} gen {} flags {}", e.extent, e.slot, e.member, e.gen, e.flags);
}

std::string text(const sv_partial_bits &p)
{
	const bool places = std::ranges::any_of(p.place, [](uint32_t place) { return place != 0; });
	return fmt::format("partial {} valid {:x} {:x} {:x} {:x}{}", p.extent, p.valid[0], p.valid[1], p.valid[2], p.valid[3],
			   places ? fmt::format(" places {}", fmt::join(p.place, " ")) : "");
}

std::string text(const sv_map_entry &m)
{
	return fmt::format("volume {} index {} extent {}, {}", m.volume, m.index, m.extent, m.layer != 0 ? "its own" : "of an older layer");
}

bool is_freed(const sv_extent &e) { return (e.flags & SV_EXTENT_FREED) != 0; }
template <typename T> bool is_freed(const T &) { return false; }

// What a DUMP command answers, in its order, but for freed extents; a window of it is held. `advance` makes the start of
// the next window from the last element of one.
template <typename T, typename Advance> class KernelSide {
public:
	KernelSide(KernelPool &kernel, uint32_t op, T start, Advance advance, Pace &pace)
		: kernel_(kernel), op_(op), start_(start), advance_(advance), pace_(pace)
	{
	}

	Result<const T *> first()	// nullptr: there are no more
	{
		while (at_ == window_.size() && !ended_)
			SV_TRY(fill());
		return at_ == window_.size() ? nullptr : &window_[at_];
	}
	void drop_first() { at_++; }
	T comparable(T e) const		// without what need not be the same
	{
		if constexpr (requires { advance_.reduce(e); })
			advance_.reduce(e);
		return e;
	}

private:
	Status fill()
	{
		SV_TRY(pace_.breathe());
		constexpr auto kMost = static_cast<uint32_t>(std::min<size_t>(kAtOnce, SV_CMD_MAX / sizeof(T)));
		window_.resize(kMost);
		window_[0] = start_;
		SV_ASSIGN(const auto result, kernel_.command(op_, window_.data(), sizeof(T), kMost));
		window_.resize(result.count);
		at_ = 0;
		ended_ = result.count < kMost;
		if (!ended_)
			start_ = advance_(window_.back());
		std::erase_if(window_, [](const T &e) { return is_freed(e); });
		for (T &e : window_)
			e = comparable(e);
		return {};
	}

	KernelPool &kernel_;
	uint32_t op_;
	T start_;
	Advance advance_;
	Pace &pace_;
	std::vector<T> window_;
	size_t at_ = 0;
	bool ended_ = false;
};

// Layers that were merged have one number in the catalogue and many in the kernel's map: what counts is whether the volume
// owns an entry.
struct MapOrder {
	uint32_t owned_since;

	sv_map_entry operator()(const sv_map_entry &last) const { return {last.index + 1, last.volume, 0, 0, 0}; }
	void reduce(sv_map_entry &e) const { e.layer = e.layer >= owned_since; }
};

void add(std::vector<std::string> *problems, std::string problem)
{
	if (problems->size() < kMostProblems)
		problems->push_back(std::move(problem));
}

// Both sorted. What only one has is a problem of its own. `for_each_known` hands on what the catalogue has.
template <typename T, typename Advance, typename ForEach, typename Less>
Status compare(KernelSide<T, Advance> kernel, ForEach for_each_known, Less less, Pace &pace,
	       std::vector<std::string> *problems)
{
	const T *has = nullptr;		// the kernel's first
	const auto drop = [&]() -> Status {
		kernel.drop_first();
		SV_ASSIGN(has, kernel.first());
		return {};
	};
	SV_ASSIGN(has, kernel.first());
	SV_TRY(for_each_known([&](std::span<const T> some) -> Status {
		for (const T &one : some) {
			const T known = kernel.comparable(one);
			while (has != nullptr && less(*has, known)) {
				add(problems, "only the kernel has " + text(*has));
				SV_TRY(drop());
			}
			if (has == nullptr || less(known, *has)) {
				add(problems, "only the catalogue has " + text(known));
				continue;
			}
			if (std::memcmp(has, &known, sizeof(T)) != 0)
				add(problems, "kernel: " + text(*has) + "; catalogue: " + text(known));
			SV_TRY(drop());
		}
		return pace.breathe();
	}));
	while (has != nullptr) {
		add(problems, "only the kernel has " + text(*has));
		SV_TRY(drop());
	}
	return {};
}

}	// namespace

// As long as it lives, checkpoints leave the catalogue alone. Its steps fail once they cannot wait any longer.
class Still : public Pace {
public:
	Still(Pool &pool, Pace &pace) : pool_(pool), pace_(pace)
	{
		pool_.still_ = true;
		pool_.disturbed_ = false;
	}
	~Still() override { pool_.still_ = false; }
	void begin(Progress progress) override { pace_.begin(std::move(progress)); }
	Status step(uint64_t done) override
	{
		SV_TRY(pace_.step(done));
		return undisturbed();
	}
	Status breathe() override
	{
		SV_TRY(pace_.breathe());
		return undisturbed();
	}

private:
	Status undisturbed() const
	{
		if (!pool_.disturbed_)
			return {};
		return Error{Code::kBusy, "read the catalogue of pool", pool_.name_,
			     "its journal fills faster than that is done", "repeat it when less is written"};
	}

	Pool &pool_;
	Pace &pace_;
};

// Behind a checkpoint, in which catalogue and journal meet. Begun anew if it was disturbed.
Status Pool::once_still(Pace &pace, const std::function<Status(Pace &)> &work)
{
	for (int tries = 1;; tries++) {
		if (state_ == PoolState::kActive)
			SV_TRY(settle_what_is_owed(pace));
		Still still(*this, pace);
		const Status result = work(still);
		if (result.ok() || !disturbed_ || tries == kMostTries)
			return result;
	}
}

// All but what only the kernel counts, and whether its map is one that others may share: an older svd may have loaded it.
std::string text_of_volume(const sv_volume_info &v)
{
	return fmt::format("volume {} layer {} owned since {} flags {} size {} tiers {:x}", v.id, v.layer, v.owned_since,
			   v.flags & ~SV_VOLUME_WHOLE, v.size, v.tiers);
}

Status Pool::compare_volumes(const std::vector<VolumeRow> &volumes, const std::vector<VolumeSpec> &snapshots,
			     std::vector<std::string> *problems)
{
	std::map<uint32_t, std::string> here, there;
	std::map<uint32_t, uint64_t> sizes;
	for (const VolumeRow &volume : volumes) {
		here[volume.id] = text_of_volume(volume_info(volume));
		sizes[volume.id] = volume.size;
	}
	SV_ASSIGN(auto infos, volumes_in_kernel());
	for (sv_volume_info &info : infos) {
		if (std::ranges::any_of(snapshots, [&](const VolumeSpec &s) { return s.id == info.id; }))
			continue;
		if (const auto size = sizes.find(info.id); size != sizes.end())
			info.size = std::min<uint64_t>(info.size, size->second);	// it grows before its device, which may fail
		there[info.id] = text_of_volume(info);
	}
	for (const auto &[id, text] : here)
		if (const auto found = there.find(id); found == there.end())
			problems->push_back("only the catalogue has " + text);
		else if (found->second != text)
			problems->push_back("kernel: " + found->second + "; catalogue: " + text);
	for (const auto &[id, text] : there)
		if (!here.contains(id))
			problems->push_back("only the kernel has " + text);
	return {};
}

// Where nothing is on its way back: else the catalogue has more.
Status Pool::compare_space(std::vector<std::string> *problems)
{
	std::map<uint32_t, uint64_t> free;
	SV_ASSIGN(const auto ranges, catalogue_->free_ranges());
	for (const FreeRange &range : ranges)
		free[range.member] += range.count;
	const auto states = member_states();
	SV_ASSIGN(const auto state, channel_->ask<sv_state>(SV_OP_STATE));
	for (const auto &[member, now] : states)
		if (state.freed_extents == 0 && now.free_slots != free[member])
			problems->push_back(fmt::format("member {}: kernel has {} free slots; catalogue: {}", member, now.free_slots,
							free[member]));
	return {};
}

Result<std::vector<std::string>> Pool::differences(Pace &pace)
{
	std::vector<std::string> problems;
	const auto by_extent = [](const auto &a, const auto &b) { return a.extent < b.extent; };
	pace.begin({"comparing extents", 0, 0, "extents"});
	SV_TRY(compare(KernelSide(*channel_, SV_OP_DUMP_EXTENTS, sv_extent{}, [](const sv_extent &last) {
		return sv_extent{last.extent + 1, 0, 0, 0, 0}; }, pace),
		[&](const auto &fn) { return catalogue_->for_each_extent(fn); }, by_extent, pace, &problems));
	SV_TRY(compare(KernelSide(*channel_, SV_OP_DUMP_PARTIALS, sv_partial_bits{}, [](const sv_partial_bits &last) {
		return sv_partial_bits{last.extent + 1, 0, {}, {}}; }, pace),
		[&](const auto &fn) { return catalogue_->for_each_partial(fn); }, by_extent, pace, &problems));

	std::map<uint32_t, uint32_t> maps;	// owned_since, by number
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes)
		maps[volume.id] = volume.owned_since;
	SV_ASSIGN(const auto snapshots, active_snapshots());
	for (const VolumeSpec &snapshot : snapshots)
		maps[snapshot.id] = UINT32_MAX;
	SV_TRY(compare_volumes(volumes, snapshots, &problems));
	if (state_ == PoolState::kActive)
		SV_TRY(compare_space(&problems));
	pace.begin({"comparing volumes", 0, maps.size(), "volumes"});
	uint64_t done = 0;
	for (const auto &[id, owned_since] : maps) {
		SV_TRY(pace.step(done++));
		sv_map_entry start{};
		start.volume = id;
		SV_TRY(compare(KernelSide(*channel_, SV_OP_DUMP_MAP, start, MapOrder{owned_since}, pace),
			       [&, id = id](const auto &fn) { return catalogue_->for_each_map(id, fn); },
			       [](const auto &a, const auto &b) { return a.index < b.index; }, pace, &problems));
	}
	return problems;
}

// The kernel goes on while it is looked at: what it did since the checkpoint is a difference, too. One that is a mistake
// is there again when all is compared once more, behind another checkpoint.
Result<std::vector<std::string>> Pool::check(Pace &pace)
{
	std::vector<std::string> damage;
	std::vector<std::string> lasting;
	for (int pass = 1; pass == 1 || (!lasting.empty() && pass <= kMostTries); pass++) {
		std::vector<std::string> found;
		SV_TRY(once_still(pace, [&](Pace &still) -> Status {
			if (pass == 1) {
				SV_ASSIGN(damage, catalogue_->check(still));
			}
			SV_ASSIGN(found, differences(still));
			return {};
		}));
		std::sort(found.begin(), found.end());
		std::vector<std::string> both;
		std::set_intersection(found.begin(), found.end(), lasting.begin(), lasting.end(), std::back_inserter(both));
		lasting = pass == 1 ? found : both;
		if (lasting.empty() && found.size() >= kMostProblems)	// perhaps others would have lasted
			return Error{Code::kBusy, "check pool", name_, "too much is written meanwhile",
				     "repeat it when less is written"};
	}
	damage.insert(damage.end(), lasting.begin(), lasting.end());
	return damage;
}

Result<UniqueFd> Pool::dump(Pace &pace)
{
	UniqueFd file;
	SV_TRY(once_still(pace, [&](Pace &still) -> Status {
		SV_ASSIGN(file, create_memory_file("svctl-dump"));
		FdBuffer buffer(file.get());
		std::ostream text(&buffer);
		return catalogue_->dump(text, still);
	}));
	SV_TRY(seal_memory_file(file));
	return file;
}

Result<SnapshotSpaces> Pool::snapshot_spaces(std::span<const uint32_t> ids, Pace &pace)
{
	SnapshotSpaces spaces;
	SV_TRY(once_still(pace, [&](Pace &still) -> Status {
		SV_ASSIGN(spaces, catalogue_->snapshot_spaces(ids, still));
		return {};
	}));
	return spaces;
}

Result<Changes> Pool::diff(uint32_t from, uint32_t to, Pace &pace)
{
	Changes changes;
	SV_TRY(once_still(pace, [&](Pace &still) -> Status {
		changes = Changes();
		SV_ASSIGN(changes.text, create_memory_file("svctl-diff"));
		FdBuffer buffer(changes.text.get());
		std::ostream text(&buffer);
		SV_TRY(catalogue_->for_each_change(from, to, [&](const ChangedRange &range) -> Status {
			changes.ranges++;
			changes.bytes += range.length;
			text << range.offset << '\t' << range.length << '\t' << (range.data ? "data" : "zeroes") << '\n';
			return {};
		}, still));
		return text.flush() ? Status() : Error(Code::kFailure, "compare", name_, "the list of changes cannot be written", "");
	}));
	SV_TRY(seal_memory_file(changes.text));
	return changes;
}

static Status read_text(int text, Pace &pace, const std::function<Status(std::istream &)> &fn)
{
	struct stat about{};
	fstat(text, &about);
	pace.begin({"reading the dump", 0, static_cast<uint64_t>(about.st_size), "bytes"});
	FdBuffer buffer(text);
	std::istream in(&buffer);
	return fn(in);
}

Status Pool::try_restore(int text, Pace &pace)
{
	return read_text(text, pace, [&](std::istream &in) { return catalogue_->try_restore(in, pace); });
}

// The kernel has to forget its free space, so the pool goes down first. Until it is up again it is nobody else's. What is
// in the catalogue is done: should the pool not come up now, it does with the engine's next attempt.
Status Pool::restore(int text, Pace &pace)
{
	SV_TRY(end_discards("restore pool"));
	SV_TRY(checkpoint());
	SV_TRY(channel_->remove());
	channel_.reset();
	state_ = PoolState::kRestoring;
	const Status restored = read_text(text, pace, [&](std::istream &in) { return catalogue_->restore(in, pace); });
	ToTheEnd rest(pace);
	rest.begin({restored.ok() ? "loading the kernel" : "undoing it", 0, 0, ""});
	const Status closed = catalogue_->close(rest);
	close_all();
	state_ = PoolState::kRestoring;
	note(activate({}, rest));
	return restored.ok() ? closed : restored;
}

}	// namespace svd

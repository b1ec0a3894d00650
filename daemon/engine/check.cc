// SPDX-License-Identifier: GPL-2.0
// Compares what the kernel serves with what the catalogue says, after a checkpoint has made them meet.
#include <algorithm>
#include <cstring>
#include <istream>
#include <iterator>
#include <ostream>

#include <fmt/core.h>
#include <sys/stat.h>

#include "daemon/base/memory_file.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr uint32_t kAtOnce = 16384;
constexpr size_t kMostProblems = 100000;
constexpr int kMostTries = 3;

// Everything that a DUMP command answers. `advance` makes the start of the next request from the last element.
template <typename T, typename Advance>
Result<std::vector<T>> dump_all(KernelPool &kernel, uint32_t op, T start, Advance advance, Pace &pace)
{
	std::vector<T> all;
	for (;;) {
		SV_TRY(pace.breathe());
		std::vector<T> some(kAtOnce);
		some[0] = start;
		SV_ASSIGN(const auto result, kernel.command(op, some.data(), sizeof(T), kAtOnce));
		all.insert(all.end(), some.begin(), some.begin() + result.count);
		if (result.count < kAtOnce)
			return all;
		start = advance(all.back());
	}
}

std::string text(const sv_extent &e)
{
	return fmt::format("extent {} slot {} member {} gen {} flags {}", e.extent, e.slot, e.member, e.gen, e.flags);
}

std::string text(const sv_partial_bits &p)
{
	return fmt::format("partial {} valid {:x} {:x} {:x} {:x}", p.extent, p.valid[0], p.valid[1], p.valid[2],
			   p.valid[3]);
}

std::string text(const sv_map_entry &m)
{
	return fmt::format("volume {} index {} extent {} layer {}", m.volume, m.index, m.extent, m.layer);
}

// Both sorted. What only one has is a problem of its own.
template <typename T, typename Less>
Status compare(const std::vector<T> &kernel, const std::vector<T> &catalogue, Less less, Pace &pace,
	       std::vector<std::string> *problems)
{
	size_t k = 0;
	size_t c = 0;
	while ((k < kernel.size() || c < catalogue.size()) && problems->size() < kMostProblems) {
		if (c == catalogue.size() || (k < kernel.size() && less(kernel[k], catalogue[c]))) {
			problems->push_back("only the kernel has " + text(kernel[k++]));
		} else if (k == kernel.size() || less(catalogue[c], kernel[k])) {
			problems->push_back("only the catalogue has " + text(catalogue[c++]));
		} else {
			if (std::memcmp(&kernel[k], &catalogue[c], sizeof(T)) != 0)
				problems->push_back("kernel: " + text(kernel[k]) + "; catalogue: " + text(catalogue[c]));
			k++;
			c++;
		}
		if (k % kAtOnce == 0)
			SV_TRY(pace.breathe());
	}
	return {};
}

template <typename T> auto collect_into(std::vector<T> &all, Pace &pace)
{
	return [&all, &pace](std::span<const T> some) -> Status {
		all.insert(all.end(), some.begin(), some.end());
		return pace.breathe();
	};
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
			SV_TRY(checkpoint());
		Still still(*this, pace);
		const Status result = work(still);
		if (result.ok() || !disturbed_ || tries == kMostTries)
			return result;
	}
}

Result<std::vector<std::string>> Pool::differences(Pace &pace)
{
	std::vector<std::string> problems;
	const auto by_extent = [](const auto &a, const auto &b) { return a.extent < b.extent; };
	pace.begin({"comparing extents", 0, 0, "extents"});
	SV_ASSIGN(auto extents, dump_all(*channel_, SV_OP_DUMP_EXTENTS, sv_extent{}, [](sv_extent last) {
		return sv_extent{last.extent + 1, 0, 0, 0, 0}; }, pace));
	std::erase_if(extents, [](const sv_extent &e) { return e.flags & SV_EXTENT_FREED; });
	std::vector<sv_extent> known_extents;
	SV_TRY(catalogue_->for_each_extent(collect_into(known_extents, pace)));
	SV_TRY(compare(extents, known_extents, by_extent, pace, &problems));

	SV_ASSIGN(const auto partials, dump_all(*channel_, SV_OP_DUMP_PARTIALS, sv_partial_bits{}, [](sv_partial_bits last) {
		return sv_partial_bits{last.extent + 1, 0, {}}; }, pace));
	std::vector<sv_partial_bits> known_partials;
	SV_TRY(catalogue_->for_each_partial(collect_into(known_partials, pace)));
	SV_TRY(compare(partials, known_partials, by_extent, pace, &problems));

	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	pace.begin({"comparing volumes", 0, volumes.size(), "volumes"});
	for (size_t i = 0; i < volumes.size(); i++) {
		SV_TRY(pace.step(i));
		sv_map_entry start{};
		start.volume = volumes[i].id;
		SV_ASSIGN(const auto map, dump_all(*channel_, SV_OP_DUMP_MAP, start, [](sv_map_entry last) {
			return sv_map_entry{last.index + 1, last.volume, 0, 0, 0}; }, pace));
		std::vector<sv_map_entry> known_map;
		SV_TRY(catalogue_->for_each_map(volumes[i].id, collect_into(known_map, pace)));
		SV_TRY(compare(map, known_map, [](const auto &a, const auto &b) { return a.index < b.index; }, pace,
			       &problems));
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

// The kernel has to forget its free space, so the pool goes down first. Until it is up again it is nobody else's. What is
// in the catalogue is done: should the pool not come up now, it does with the engine's next attempt.
Status Pool::restore(int text, Pace &pace)
{
	SV_TRY(checkpoint());
	SV_TRY(channel_->remove());
	channel_.reset();
	state_ = PoolState::kRestoring;
	struct stat about{};
	fstat(text, &about);
	pace.begin({"reading the dump", 0, static_cast<uint64_t>(about.st_size), "bytes"});
	FdBuffer buffer(text);
	std::istream in(&buffer);
	const Status restored = catalogue_->restore(in, pace);
	ToTheEnd rest(pace);
	rest.begin({restored.ok() ? "loading the kernel" : "undoing it", 0, 0, ""});
	const Status closed = catalogue_->close(rest);
	close_all();
	state_ = PoolState::kRestoring;
	note(activate({}, rest));
	return restored.ok() ? closed : restored;
}

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// Compares what the kernel serves with what the catalogue says, after a checkpoint has made them meet.
#include <cstring>
#include <istream>

#include <fmt/core.h>

#include "daemon/base/memory_file.h"
#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr uint32_t kAtOnce = 16384;
constexpr size_t kMostProblems = 100;

// Everything that a DUMP command answers. `advance` makes the start of the next request from the last element.
template <typename T, typename Advance>
Result<std::vector<T>> dump_all(KernelPool &kernel, uint32_t op, T start, Advance advance)
{
	std::vector<T> all;
	for (;;) {
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
void compare(const std::vector<T> &kernel, const std::vector<T> &catalogue, Less less,
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
	}
}

template <typename T> auto collect_into(std::vector<T> &all)
{
	return [&all](std::span<const T> some) -> Status {
		all.insert(all.end(), some.begin(), some.end());
		return {};
	};
}


}	// namespace

Result<std::vector<std::string>> Pool::check()
{
	if (state_ == PoolState::kActive)
		SV_TRY(checkpoint());
	SV_ASSIGN(std::vector<std::string> problems, catalogue_->check());

	const auto by_extent = [](const auto &a, const auto &b) { return a.extent < b.extent; };
	SV_ASSIGN(auto extents, dump_all(*channel_, SV_OP_DUMP_EXTENTS, sv_extent{},
					 [](sv_extent last) { return sv_extent{last.extent + 1, 0, 0, 0, 0}; }));
	std::erase_if(extents, [](const sv_extent &e) { return e.flags & SV_EXTENT_FREED; });
	std::vector<sv_extent> known_extents;
	SV_TRY(catalogue_->for_each_extent(collect_into(known_extents)));
	compare(extents, known_extents, by_extent, &problems);

	SV_ASSIGN(const auto partials, dump_all(*channel_, SV_OP_DUMP_PARTIALS, sv_partial_bits{},
						[](sv_partial_bits last) {
							return sv_partial_bits{last.extent + 1, 0, {}};
						}));
	std::vector<sv_partial_bits> known_partials;
	SV_TRY(catalogue_->for_each_partial(collect_into(known_partials)));
	compare(partials, known_partials, by_extent, &problems);

	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		sv_map_entry start{};
		start.volume = volume.id;
		SV_ASSIGN(const auto map, dump_all(*channel_, SV_OP_DUMP_MAP, start, [](sv_map_entry last) {
			return sv_map_entry{last.index + 1, last.volume, 0, 0, 0};
		}));
		std::vector<sv_map_entry> known_map;
		SV_TRY(catalogue_->for_each_map(volume.id, collect_into(known_map)));
		compare(map, known_map, [](const auto &a, const auto &b) { return a.index < b.index; }, &problems);
	}
	return problems;
}

// The kernel has to forget its free space, so the pool goes down first.
Status Pool::restore(int text)
{
	SV_TRY(checkpoint());
	SV_TRY(channel_->remove());
	channel_.reset();
	FdBuffer buffer(text);
	std::istream in(&buffer);
	const Status restored = catalogue_->restore(in);
	const Status closed = catalogue_->close();
	close_all();
	SV_TRY(activate({}));
	return restored.ok() ? closed : restored;
}

}	// namespace svd

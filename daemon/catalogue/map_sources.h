// SPDX-License-Identifier: GPL-2.0
// Of the volumes whose maps the kernel has, which one's is nearest to another that it is to get: two of one family differ in what
// lies above the youngest layer that both have.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "daemon/catalogue/layers.h"

namespace svd {

struct MapSource {
	uint32_t volume = 0;
	uint32_t layer = 0;  // the youngest that both have
};

class MapSources {
 public:
	// kNeedsCheck: the layers are not as chain_of() takes them.
	static Result<MapSources> open(Database &db, const std::vector<LayerRow> &layers);

	void add(uint32_t volume, uint32_t layer, uint64_t size);  // bytes
	// Nothing: all of it is less than what differs, or none can be shared by a volume of this size.
	Result<std::optional<MapSource>> nearest(uint32_t layer, uint64_t size);

 private:
	struct Candidate {
		uint32_t volume;
		uint32_t layer;
		uint32_t depth;
	};
	struct Place {
		uint32_t parent = 0;
		uint32_t root = 0;  // of its family
	};
	explicit MapSources(Database &db) : db_(db) {}
	uint32_t youngest_of_both(uint32_t a, uint32_t b) const;  // of one family
	Result<uint64_t> pages(uint32_t layer);
	// Of the maps of this layer and those below it, without the other and those below that; about, where that is more than most.
	Result<uint64_t> pages_above(uint32_t layer, uint32_t other, uint64_t most);

	Database &db_;
	std::unordered_map<uint32_t, Place> places_;  // of each layer
	std::unordered_map<uint32_t, uint64_t> pages_;
	std::map<uint32_t, std::vector<Candidate>> candidates_;  // by root
};

}  // namespace svd

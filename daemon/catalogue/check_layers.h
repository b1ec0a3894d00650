// SPDX-License-Identifier: GPL-2.0
// Half of Catalogue::check(): rows of volumes, layers and snapshots, and what the other half, about extents, needs of them.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/catalogue/catalogue.h"
#include "daemon/catalogue/database.h"

namespace svd {

// Lines for the user; very many of them help nobody.
class Findings {
 public:
	void add(std::string line);
	std::vector<std::string> lines() &&;

 private:
	std::vector<std::string> lines_;
	uint64_t more_ = 0;
};

struct LayerFacts {
	uint64_t extents = ~uint64_t{0};  // indexes that its volume had
	bool head = false;
};

using LayerTable = std::unordered_map<uint32_t, LayerFacts>;

Result<LayerTable> check_layers(Catalogue &catalogue, Database &db, Findings &findings);

}  // namespace svd

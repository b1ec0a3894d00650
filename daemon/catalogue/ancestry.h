// SPDX-License-Identifier: GPL-2.0
// Which extents lie above which, as it is told one parent after the other, in any order: no circle, and no chain that is
// longer than the kernel follows. Each step takes next to no time however long the chains are (union-find), and a node
// 8 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace svd {

class Ancestry {
 public:
	enum class Answer { kFine, kCircle, kTooLong };

	// Of each extent once. After another answer than kFine nothing may be asked any more.
	Answer add(uint32_t extent, uint32_t parent);

 private:
	struct Node {
		uint32_t up = 0;    // one of those above it; 0: it is the top
		uint32_t hops = 0;  // to that one; of a top: the most that any below it has to it
	};
	static constexpr uint32_t kNodes = 512;

	Node &node(uint32_t extent);
	Node top_of(uint32_t extent);  // and the hops to it

	std::unordered_map<uint32_t, std::unique_ptr<std::array<Node, kNodes>>> pages_;
};

}  // namespace svd

// SPDX-License-Identifier: GPL-2.0
// See ancestry.h.
#include "daemon/catalogue/ancestry.h"

#include <algorithm>

#include "kmod/core/format.h"

namespace svd {

Ancestry::Node &Ancestry::node(uint32_t extent)
{
	auto &page = pages_[extent / kNodes];
	if (!page)
		page = std::make_unique<std::array<Node, kNodes>>();
	return (*page)[extent % kNodes];
}

// Whoever was asked on the way knows its top then.
Ancestry::Node Ancestry::top_of(uint32_t extent)
{
	Node top{extent, 0};
	for (Node at = node(extent); at.up != 0; at = node(at.up))
		top = {at.up, top.hops + at.hops};
	for (Node way = top; extent != top.up;) {
		Node &at = node(extent);
		const Node next = at;
		at = way;
		way.hops -= next.hops;
		extent = next.up;
	}
	return top;
}

Ancestry::Answer Ancestry::add(uint32_t extent, uint32_t parent)
{
	const Node top = top_of(parent);
	if (top.up == extent)
		return Answer::kCircle;
	Node &below = node(extent);
	Node &above = node(top.up);
	const uint32_t hops = top.hops + 1;
	above.hops = std::max(above.hops, hops + below.hops);
	below = {top.up, hops};
	return above.hops <= SV_MAX_CHAIN ? Answer::kFine : Answer::kTooLong;
}

}  // namespace svd

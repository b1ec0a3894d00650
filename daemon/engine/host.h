// SPDX-License-Identifier: GPL-2.0
// Hosts as the labels of pools name them: which of them holds a pool.
#pragma once

#include <string>

#include "daemon/base/result.h"
#include "daemon/base/uuid.h"
#include "kmod/core/label.h"

namespace svd {

inline constexpr char kHostNeedsId[] = "systemd-machine-id-setup; systemctl restart svd";

struct Host {
	Uuid id;		// zero: none
	std::string name;	// for messages; may be empty
	std::string str() const;	// "db1 (4b30c1dc-...)"
};

// Of /etc/machine-id, unless a UUID is chosen; without either the id is zero, and this host can hold no pool.
Result<Host> this_host(const std::string &chosen);

Host host_in(const sv_label &label);
void set_host(sv_label *label, const Host &host);

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// The texts that describe svd's interfaces: the *.varlink files beside this one, as they were when svd was built. They
// are what clients are told, and what calls are held against (tests/e2e/varlink_types.py does so with the answers).
#pragma once

#include <set>
#include <string>
#include <string_view>

namespace svd {

// Of io.svctl, io.svctl.sim or org.varlink.service; of another one empty.
std::string_view interface_description(std::string_view interface);

// The names of a method's parameters by such a text.
std::set<std::string> declared_parameters(std::string_view description, std::string_view method);

}	// namespace svd

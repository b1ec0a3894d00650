// SPDX-License-Identifier: GPL-2.0
// Who may do what: decided by user and groups of the process at the other end of the socket, which everybody may connect
// to, so that svd itself can say who may. Pure but for read_groups(); varlink.cc asks for a client's role when it connects.
#pragma once

#include <optional>
#include <string>

#include "daemon/base/peer.h"

namespace svd {

// What a method needs, and what a role allows; each includes those before it.
enum class Role { kNone, kRead, kAdminister };

struct RoleGroups {
	std::string administer = "svctl";
	std::string read = "svctl-read";
};

// Their numbers in a file like /etc/group; those that are not there give no role. Not by NSS: svd must not wait for a
// directory service, which may be reached over what svd serves or not at all. So the groups are local ones; who is in
// them is what the client's process has, wherever that came from.
struct RoleIds {
	std::optional<gid_t> administer, read;
};
RoleIds read_groups(const RoleGroups &names, const char *path = "/etc/group");

// root and the user that svd runs as administer.
Role role_of(const Peer &peer, uid_t svd, const RoleIds &ids);

// May one more connect, with so many of its role there, and so many of its user? Administrators have places of their own:
// nobody else can keep them out.
bool has_room(Role role, size_t of_role, size_t of_user);

// For who has not got `needed`.
Error role_error(const Peer &peer, Role needed, const RoleGroups &groups);

}	// namespace svd

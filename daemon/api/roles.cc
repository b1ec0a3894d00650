// SPDX-License-Identifier: GPL-2.0
// See roles.h.
#include "daemon/api/roles.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include <fmt/format.h>
#include <grp.h>

namespace svd {

RoleIds read_groups(const RoleGroups &names, const char *path)
{
	RoleIds ids;
	const std::unique_ptr<FILE, int (*)(FILE *)> file(fopen(path, "re"), fclose);
	while (const group *one = file ? fgetgrent(file.get()) : nullptr) {
		if (names.administer == one->gr_name)
			ids.administer = one->gr_gid;
		if (names.read == one->gr_name)
			ids.read = one->gr_gid;
	}
	return ids;
}

Role role_of(const Peer &peer, uid_t svd, const RoleIds &ids)
{
	const auto in = [&](const std::optional<gid_t> &id) {
		return id && std::find(peer.groups.begin(), peer.groups.end(), *id) != peer.groups.end();
	};
	if (peer.uid == 0 || peer.uid == svd || in(ids.administer))
		return Role::kAdminister;
	return in(ids.read) ? Role::kRead : Role::kNone;
}

bool has_room(Role role, size_t of_role, size_t of_user)
{
	switch (role) {
	case Role::kAdminister:
		return of_role < 256;
	case Role::kRead:
		return of_role < 128 && of_user < 32;
	default:
		return of_role < 16 && of_user < 4;
	}
}

Error role_error(const Peer &peer, Role needed, const RoleGroups &groups)
{
	const bool reading = needed == Role::kRead;
	return Error{Code::kPermission, reading ? "look" : "change", reading ? "at pools" : "pools",
		     fmt::format("user {} is not in group {}{}", peer.uid, groups.administer,
				 reading ? ", nor in " + groups.read : ""),
		     fmt::format("run svctl as root, or add the user to {}", reading ? groups.read : groups.administer)};
}

}	// namespace svd

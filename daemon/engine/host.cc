// SPDX-License-Identifier: GPL-2.0
// See host.h.
#include "daemon/engine/host.h"

#include <algorithm>
#include <cstring>

#include <fmt/core.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

// docs/format.md. Never changes: every pool would be another host's.
constexpr sd_id128_t kApplication = SD_ID128_MAKE(4b, 30, c1, dc, 64, bb, 4e, c7, b9, e3, 4a, 3a, 49, cf, 3a, 4e);

Uuid of_machine_id()
{
	sd_id128_t id;
	const int error = sd_id128_get_machine_app_specific(kApplication, &id);
	if (error >= 0)
		return Uuid::from_bytes(id.bytes);
	log::warning(Id::kHostUnknown, "/etc/machine-id: {}: this host can hold no pool", strerror(-error));
	return {};
}

// As much of it as a label takes.
std::string of_kernel()
{
	char text[SV_HOST_NAME_MAX + 1] = "";
	gethostname(text, sizeof(text) - 1);
	return sv_name_ok(text, SV_HOST_NAME_MAX) ? text : "";
}

}	// namespace

std::string Host::str() const
{
	if (id.is_zero())
		return name.empty() ? "without an id" : name + " (no id)";
	return name.empty() ? id.str() : fmt::format("{} ({})", name, id.str());
}

Result<Host> this_host(const std::string &chosen)
{
	if (chosen.empty())
		return Host{of_machine_id(), of_kernel()};
	SV_ASSIGN(const Uuid id, Uuid::parse(chosen));
	if (id.is_zero())
		return Error{Code::kUsage, "use host id", chosen, "zero stands for no host", ""};
	return Host{id, of_kernel()};
}

Host host_in(const sv_label &label)
{
	return {Uuid::from_bytes(label.host_id), label.host_name};
}

void set_host(sv_label *label, const Host &host)
{
	std::memcpy(label->host_id, host.id.bytes.data(), sizeof(label->host_id));
	std::memset(label->host_name, 0, sizeof(label->host_name));
	std::memcpy(label->host_name, host.name.data(), std::min(host.name.size(), sizeof(label->host_name) - 1));
}

}	// namespace svd

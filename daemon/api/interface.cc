// SPDX-License-Identifier: GPL-2.0
// See interface.h. The assembler puts the files into the program (daemon/rules.mk names them as what this depends on).
#include "daemon/api/interface.h"

#define SV_EMBED(symbol, file)                                                  \
	asm(".pushsection .rodata\n" #symbol ":\n.incbin \"" file "\"\n" #symbol \
	    "_end:\n.popsection\n");                                            \
	extern "C" const char symbol[];                                         \
	extern "C" const char symbol##_end[]

SV_EMBED(svd_io_svctl, "daemon/api/io.svctl.varlink");
SV_EMBED(svd_io_svctl_sim, "daemon/api/io.svctl.sim.varlink");
SV_EMBED(svd_org_varlink_service, "daemon/api/org.varlink.service.varlink");

namespace svd {

std::string_view interface_description(std::string_view interface)
{
	if (interface == "io.svctl")
		return {svd_io_svctl, svd_io_svctl_end};
	if (interface == "io.svctl.sim")
		return {svd_io_svctl_sim, svd_io_svctl_sim_end};
	if (interface == "org.varlink.service")
		return {svd_org_varlink_service, svd_org_varlink_service_end};
	return {};
}

// Types of parameters are names or arrays of them, without parentheses of their own: what a ':' follows is a name.
std::set<std::string> declared_parameters(std::string_view description, std::string_view method)
{
	const std::string head = "\nmethod " + std::string(method) + "(";
	const size_t found = description.find(head);
	std::set<std::string> names;
	if (found == std::string_view::npos)
		return names;
	std::string word;
	for (const char c : description.substr(found + head.size())) {
		if (c == ')')
			break;
		if (c == ':')
			names.insert(word);
		if (std::string_view(" \t\n,:?[]").find(c) != std::string_view::npos)
			word.clear();
		else
			word += c;
	}
	return names;
}

}	// namespace svd

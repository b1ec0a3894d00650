// SPDX-License-Identifier: GPL-2.0
// The module dm-sv on this machine: loading it, why that failed, and which installed kernels lack it. What is decided
// (facts -> what is said) is apart from finding the facts.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/base/result.h"
#include "daemon/kernel/kernel.h"

namespace svd {

// One kernel and what there is for it.
struct InstalledKernel {
	std::string release;	// as `uname -r` says
	bool module = false;	// dm-sv is in its modules.dep
	bool headers = false;	// modules can be built for it
	bool dkms = false;	// DKMS has dm-sv's source
};

// Facts, from below `root`.
InstalledKernel look_at_kernel(const std::filesystem::path &root, const std::string &release);
// Of each kernel, by release; not the leftovers of removed ones.
std::vector<InstalledKernel> installed_kernels(const std::filesystem::path &root);

// Decisions.
std::optional<MissingModule> missing_module(const InstalledKernel &kernel);
std::vector<MissingModule> kernels_without_module(const std::filesystem::path &root = "/");
// dm-sv could not be loaded into the kernel that runs; `error` is the kernel's errno, ENOENT: there is no such module.
Error module_error(const InstalledKernel &running, int error);

// Loads dm-sv and what it depends on, as modprobe does.
Status load_module();

}	// namespace svd

// SPDX-License-Identifier: GPL-2.0
// See module.h.
#include "daemon/kernel/module.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <cstdarg>
#include <fstream>
#include <memory>

#include <fmt/core.h>
#include <libkmod.h>
#include <sys/utsname.h>

#include "daemon/base/files.h"

namespace svd {

namespace {

namespace fs = std::filesystem;

constexpr const char *kModule = "dm-sv";

// By its modules.dep, whose lines are "updates/dkms/dm-sv.ko.xz: kernel/lib/libcrc32c.ko.xz ...", and which may be older than
// what is there.
bool has_module(const fs::path &directory)
{
	std::error_code error;
	std::ifstream file(directory / "modules.dep");
	for (std::string line; std::getline(file, line);) {
		const std::string path = line.substr(0, line.find(':'));
		const std::string name = path.substr(path.rfind('/') + 1);	// whole, where there is no '/'
		if (name.starts_with(std::string(kModule) + ".ko") && fs::exists(directory / path, error))
			return true;
	}
	return false;
}

bool has_dkms_source(const fs::path &root)
{
	const std::vector<fs::path> sources = entries(root / "usr/src");
	return std::any_of(sources.begin(), sources.end(), [](const fs::path &source) {
		std::error_code ignored;
		return source.filename().string().starts_with(std::string(kModule) + "-") &&
		       fs::exists(source / "dkms.conf", ignored);
	});
}

// What brings the module to a kernel that lacks it.
std::string how_to_get(const InstalledKernel &kernel)
{
	const std::string headers = "linux-headers-" + kernel.release;
	if (!kernel.dkms)
		return fmt::format("apt install dm-sv-dkms {}", headers);
	if (!kernel.headers)
		return fmt::format("apt install {}; dkms autoinstall -k {}", headers, kernel.release);
	return fmt::format("dkms autoinstall -k {}; why it does not build is in /var/lib/dkms/dm-sv/*/build/make.log",
			   kernel.release);
}

const char *why_absent(const InstalledKernel &kernel)
{
	if (!kernel.dkms)
		return "it is not installed";
	return kernel.headers ? "DKMS has not built it" : "it cannot be built without that kernel's headers";
}

struct KmodFree {
	void operator()(kmod_ctx *context) const { kmod_unref(context); }
	void operator()(kmod_list *list) const { kmod_module_unref_list(list); }
	void operator()(kmod_module *module) const { kmod_module_unref(module); }
};

// 0 or an errno.
int insert_module()
{
	const std::unique_ptr<kmod_ctx, KmodFree> context(kmod_new(nullptr, nullptr));
	if (!context)
		return ENOMEM;
	kmod_set_log_fn(context.get(), [](void *, int, const char *, int, const char *, const char *, va_list) {}, nullptr);
	kmod_list *found = nullptr;
	const int looked = kmod_module_new_from_lookup(context.get(), kModule, &found);
	const std::unique_ptr<kmod_list, KmodFree> list(found);
	if (looked < 0 || !list)
		return looked < 0 ? -looked : ENOENT;
	const std::unique_ptr<kmod_module, KmodFree> module(kmod_module_get_module(list.get()));
	const int result = kmod_module_probe_insert_module(module.get(), KMOD_PROBE_IGNORE_LOADED, nullptr, nullptr,
							   nullptr, nullptr);
	return result < 0 ? -result : 0;
}

}	// namespace

InstalledKernel look_at_kernel(const fs::path &root, const std::string &release)
{
	const fs::path directory = root / "lib/modules" / release;
	std::error_code error;
	InstalledKernel kernel{release};
	kernel.module = has_module(directory);
	kernel.headers = fs::exists(directory / "build" / "include", error);
	kernel.dkms = has_dkms_source(root);
	return kernel;
}

std::vector<InstalledKernel> installed_kernels(const fs::path &root)
{
	std::vector<InstalledKernel> kernels;
	for (const fs::path &directory : entries(root / "lib/modules")) {
		std::error_code ignored;
		// The kernel's own package brings this list, and takes it along.
		if (fs::exists(directory / "modules.builtin", ignored))
			kernels.push_back(look_at_kernel(root, directory.filename()));
	}
	std::sort(kernels.begin(), kernels.end(), [](const auto &a, const auto &b) {
		return strverscmp(a.release.c_str(), b.release.c_str()) < 0;
	});
	return kernels;
}

std::optional<MissingModule> missing_module(const InstalledKernel &kernel)
{
	if (kernel.module)
		return std::nullopt;
	return MissingModule{fmt::format("pools will not come up with kernel {}: it has no module dm-sv: {}", kernel.release,
				   why_absent(kernel)),
		       how_to_get(kernel)};
}

std::vector<MissingModule> kernels_without_module(const fs::path &root)
{
	std::vector<MissingModule> missing;
	for (const InstalledKernel &kernel : installed_kernels(root))
		if (const auto one = missing_module(kernel))
			missing.push_back(*one);
	return missing;
}

Error module_error(const InstalledKernel &running, int error)
{
	const auto refused = [](Id id, const std::string &cause, const std::string &hint) {
		return Error{Code::kMissingFeature, "use", "kernel module dm-sv", cause, hint}.with(id);
	};
	switch (error) {
	case ENOENT:
		if (!running.module)
			return refused(Id::kModuleMissing, fmt::format("kernel {} has none: {}", running.release, why_absent(running)),
				       how_to_get(running));
		return refused(Id::kModuleMissing, "a symbol that it needs is missing: it was built for another kernel",
			       fmt::format("dkms install --force dm-sv/VERSION -k {}; journalctl -k", running.release));
	case ENOEXEC:
		return refused(Id::kModuleMissing, fmt::format("it was built for another kernel than {}", running.release),
			       fmt::format("dkms install --force dm-sv/VERSION -k {}; journalctl -k", running.release));
	case EKEYREJECTED:
	case ENOKEY:
		return refused(Id::kModuleRefused, "the kernel takes only modules signed with a key that it knows (Secure Boot or "
			       "module.sig_enforce), and dm-sv is not",
			       "enrol the key that DKMS signs with: mokutil --import /var/lib/dkms/mok.pub, reboot, "
			       "and confirm it there");
	case EPERM:
		return refused(Id::kModuleRefused, "the kernel allows nobody to load modules (kernel.modules_disabled), or only "
			       "signed ones (lockdown)",
			       "sysctl kernel.modules_disabled: 1 ends with a reboot; cat /sys/kernel/security/lockdown: then "
			       "mokutil --import /var/lib/dkms/mok.pub, reboot, and confirm the key there");
	default:
		return refused(Id::kMissingFeature, strerror(error), "journalctl -k says why");
	}
}

Status load_module()
{
	utsname name;
	const int error = insert_module();
	if (error == 0 || uname(&name) < 0)
		return {};
	return module_error(look_at_kernel("/", name.release), error);
}

}	// namespace svd

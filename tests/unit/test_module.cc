// SPDX-License-Identifier: GPL-2.0
// What svd says of kernels that lack the module, and of a module that the kernel does not take.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "daemon/kernel/module.h"

namespace svd {
namespace {

namespace fs = std::filesystem;

constexpr const char *kRelease = "6.1.0-9-amd64";

// A root directory of kernels, gone with the test.
class Modules : public testing::Test {
protected:
	Modules()
	{
		char name[] = "/tmp/sv-modules-XXXXXX";
		root_ = mkdtemp(name);
	}
	~Modules() override { fs::remove_all(root_); }

	void write(const std::string &path, const std::string &text = "")
	{
		fs::create_directories((root_ / path).parent_path());
		std::ofstream(root_ / path) << text;
	}
	void kernel(const std::string &release, const std::string &modules_dep)
	{
		write("lib/modules/" + release + "/modules.builtin");
		write("lib/modules/" + release + "/modules.dep", modules_dep);
	}
	bool has_module(const std::string &modules_dep)
	{
		kernel(kRelease, modules_dep);
		for (size_t from = 0, colon; (colon = modules_dep.find(':', from)) != std::string::npos;
		     from = modules_dep.find('\n', colon) + 1)
			write(std::string("lib/modules/") + kRelease + "/" + modules_dep.substr(from, colon - from));
		return look_at_kernel(root_, kRelease).module;
	}

	fs::path root_;
};

TEST_F(Modules, are_found_wherever_they_lie_and_however_packed)
{
	for (const char *line : {"updates/dkms/dm-sv.ko: kernel/drivers/md/dm-mod.ko\n", "updates/dm-sv.ko.xz:\n",
				 "extra/dm-sv.ko.zst: a b\n", "kernel/a.ko: kernel/b.ko\ndm-sv.ko:\n"})
		EXPECT_TRUE(has_module(line)) << line;
}

TEST_F(Modules, of_other_names_are_not_taken_for_it)
{
	for (const char *line : {"", "kernel/dm-svx.ko:\n", "kernel/xdm-sv.ko:\n", "kernel/a.ko: updates/dm-sv.ko\n",
				 "dm-sv/other.ko:\n"})
		EXPECT_FALSE(has_module(line)) << line;
}

TEST_F(Modules, that_are_listed_and_gone_are_not_there)
{
	EXPECT_TRUE(has_module("updates/dm-sv.ko:\n"));
	fs::remove(root_ / "lib/modules" / kRelease / "updates/dm-sv.ko");
	EXPECT_FALSE(look_at_kernel(root_, kRelease).module);
}

TEST_F(Modules, leftovers_of_removed_kernels_are_no_kernels)
{
	kernel("6.1.0-9-amd64", "");
	kernel("6.1.0-10-amd64", "");
	write("lib/modules/5.10.0-1-amd64/updates/dkms/other.ko");
	fs::create_directories(root_ / "lib/modules/4.19.0-1-amd64/build");
	const auto kernels = installed_kernels(root_);
	ASSERT_EQ(kernels.size(), 2u);
	EXPECT_EQ(kernels[0].release, "6.1.0-9-amd64");		// as versions, not as text
	EXPECT_EQ(kernels[1].release, "6.1.0-10-amd64");
}

TEST_F(Modules, no_kernels_at_all_are_no_problem)
{
	EXPECT_TRUE(kernels_without_module(root_).empty());
}

TEST_F(Modules, headers_and_the_source_of_dkms_are_found)
{
	kernel(kRelease, "");
	EXPECT_FALSE(look_at_kernel(root_, kRelease).headers);
	EXPECT_FALSE(look_at_kernel(root_, kRelease).dkms);
	// As the package of the headers leaves it: a link, which may point to nothing.
	fs::create_symlink(root_ / "usr/src/headers", root_ / "lib/modules" / kRelease / "build");
	EXPECT_FALSE(look_at_kernel(root_, kRelease).headers);
	fs::create_directories(root_ / "usr/src/headers/include");
	fs::create_directories(root_ / "usr/src/dm-sv-0.1.0");
	EXPECT_TRUE(look_at_kernel(root_, kRelease).headers);
	EXPECT_FALSE(look_at_kernel(root_, kRelease).dkms);
	write("usr/src/dm-sv-0.1.0/dkms.conf");
	EXPECT_TRUE(look_at_kernel(root_, kRelease).dkms);
}

TEST(KernelProblems, say_what_to_do)
{
	const struct {
		InstalledKernel kernel;
		const char *what, *next;
	} kCases[] = {
		{{kRelease, false, false, false}, "not installed", "apt install dm-sv-dkms linux-headers-6.1.0-9-amd64"},
		{{kRelease, false, true, false}, "not installed", "apt install dm-sv-dkms"},
		{{kRelease, false, false, true}, "headers", "apt install linux-headers-6.1.0-9-amd64"},
		{{kRelease, false, true, true}, "not built", "make.log"},
	};
	for (const auto &c : kCases) {
		const auto problem = missing_module(c.kernel);
		ASSERT_TRUE(problem);
		EXPECT_NE(problem->what.find(kRelease), std::string::npos);
		EXPECT_NE(problem->what.find(c.what), std::string::npos) << problem->what;
		EXPECT_NE(problem->next.find(c.next), std::string::npos) << problem->next;
	}
	EXPECT_FALSE(missing_module({kRelease, true, false, false}));
}

TEST(ModuleErrors, tell_apart_why_it_is_not_there)
{
	const InstalledKernel built{kRelease, true, true, true};
	const struct {
		InstalledKernel kernel;
		int error;
		const char *cause, *hint, *code;
	} kCases[] = {
		{{kRelease, false, false, false}, ENOENT, "not installed", "apt install dm-sv-dkms", "SV-MODULE-MISSING"},
		{{kRelease, false, false, true}, ENOENT, "headers", "apt install linux-headers-6.1.0-9-amd64", "SV-MODULE-MISSING"},
		{{kRelease, false, true, true}, ENOENT, "not built", "dkms autoinstall -k 6.1.0-9-amd64", "SV-MODULE-MISSING"},
		{built, ENOENT, "symbol", "journalctl -k", "SV-MODULE-MISSING"},
		{built, ENOEXEC, "another kernel", "dkms install --force", "SV-MODULE-MISSING"},
		{built, EKEYREJECTED, "Secure Boot", "mokutil --import /var/lib/dkms/mok.pub", "SV-MODULE-REFUSED"},
		{built, ENOKEY, "Secure Boot", "mokutil --import /var/lib/dkms/mok.pub", "SV-MODULE-REFUSED"},
		{built, EPERM, "lockdown", "modules_disabled", "SV-MODULE-REFUSED"},
		{built, EPERM, "modules_disabled", "mokutil --import", "SV-MODULE-REFUSED"},
		{built, ENOMEM, "Cannot allocate memory", "journalctl -k", "SV-MISSING-FEATURE"},
	};
	for (const auto &c : kCases) {
		const Error error = module_error(c.kernel, c.error);
		EXPECT_EQ(error.code, Code::kMissingFeature);
		EXPECT_STREQ(code_of(error.id()), c.code);
		EXPECT_NE(error.cause.find(c.cause), std::string::npos) << error.message();
		EXPECT_NE(error.hint.find(c.hint), std::string::npos) << error.message();
	}
}

}	// namespace
}	// namespace svd

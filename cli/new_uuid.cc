// SPDX-License-Identifier: GPL-2.0
// See new_uuid.h.
#include "cli/new_uuid.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/base/unique_fd.h"

namespace svctl {

namespace {

struct FileSystemOn {
	std::string type;
	std::string uuid;
};

FileSystemOn look_at(const std::string &device)
{
	const std::unique_ptr<blkid_struct_probe, decltype(&blkid_free_probe)> probe(
		blkid_new_probe_from_filename(device.c_str()), blkid_free_probe);
	FileSystemOn found;
	if (!probe)
		return found;
	blkid_probe_enable_superblocks(probe.get(), 1);
	blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID);
	if (blkid_do_safeprobe(probe.get()) != 0)
		return found;
	const char *value = nullptr;
	if (blkid_probe_lookup_value(probe.get(), "TYPE", &value, nullptr) == 0)
		found.type = value;
	if (blkid_probe_lookup_value(probe.get(), "UUID", &value, nullptr) == 0)
		found.uuid = value;
	return found;
}

struct Ended {
	int status = -1;	// exit code; -1: it did not run, or was killed
	std::string said;	// the last line of what it printed
};

std::string last_line(const std::string &text)
{
	const size_t end = text.find_last_not_of("\n ");
	const size_t begin = end == std::string::npos ? end : text.rfind('\n', end);
	return end == std::string::npos ? "" : text.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin + 1) + 1);
}

std::string read_all(int fd)
{
	std::string text;
	char buffer[4096];
	ssize_t n;
	while ((n = read(fd, buffer, sizeof(buffer))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			text.append(buffer, static_cast<size_t>(n));
	return text;
}

// Its output, in English, is what the error will quote.
Ended run_tool(const std::vector<std::string> &words)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		return {-1, strerror(errno)};
	svd::UniqueFd in(ends[0]), out(ends[1]);
	std::vector<char *> argv;
	for (const std::string &word : words)
		argv.push_back(const_cast<char *>(word.c_str()));
	argv.push_back(nullptr);
	char language[] = "LC_ALL=C", path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	char *environment[] = {language, path, nullptr};
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out.get(), STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out.get(), STDERR_FILENO);
	pid_t pid = 0;
	const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environment);
	posix_spawn_file_actions_destroy(&actions);
	out.reset();
	if (error != 0)
		return {-1, error == ENOENT ? "it is not installed" : strerror(error)};
	Ended ended;
	ended.said = last_line(read_all(in.get()));
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	return ended;
}

Answer refused(const std::string &device, const std::string &why, int exit = kExitFailure)
{
	return failed(exit, fmt::format("cannot give the file system on {} a new UUID: {}", device, why));
}

// Empty: it did.
std::string tool(const std::vector<std::string> &words, int most = 0)
{
	const Ended ended = run_tool(words);
	if (ended.status >= 0 && ended.status <= most)
		return "";
	return fmt::format("{}: {}", words[0], ended.said.empty() ? fmt::format("exit code {}", ended.status) : ended.said);
}

// Mounting does it. Nobody else sees that: the mounts are this process's own from here on. They still follow the host's, or what
// it unmounts meanwhile would stay busy.
std::string replay_xfs_log(const std::string &device)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
		return fmt::format("no mount namespace: {}", strerror(errno));
	std::string at = "/run/svctl-XXXXXX";
	if (mkdtemp(at.data()) == nullptr)
		return fmt::format("no directory in /run: {}", strerror(errno));
	std::string why;
	if (mount(device.c_str(), at.c_str(), "xfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "nouuid") != 0)
		why = fmt::format("its log cannot be replayed: mount: {}", strerror(errno));
	else if (umount(at.c_str()) != 0)
		why = fmt::format("umount: {}", strerror(errno));
	rmdir(at.c_str());
	return why;
}

std::string renew(const std::string &device, const std::string &type)
{
	if (type == "xfs") {
		const std::string why = replay_xfs_log(device);
		return why.empty() ? tool({"xfs_admin", "-U", "generate", device}) : why;
	}
	if (!type.starts_with("ext"))
		return type.empty() ? "there is none that is known" : fmt::format("svctl knows how for XFS and ext4, and this is {}", type);
	const std::string why = tool({"e2fsck", "-f", "-p", device}, 1);	// 1: it has mended something, such as the log
	return why.empty() ? tool({"tune2fs", "-U", "random", device}) : why;
}

}	// namespace

Answer give_new_uuid(const std::string &device)
{
	const bool there = svd::UniqueFd(open(device.c_str(), O_RDWR | O_CLOEXEC)).get() >= 0;	// no longer: who mounts wants to be alone
	if (!there)
		return refused(device, strerror(errno), errno == EACCES || errno == EPERM ? kExitPermission : kExitFailure);
	const FileSystemOn before = look_at(device);
	if (const std::string why = renew(device, before.type); !why.empty())
		return refused(device, why);
	const FileSystemOn after = look_at(device);
	if (after.type != before.type || after.uuid.empty() || after.uuid == before.uuid)
		return refused(device, "its tool has succeeded, and it has the old one");
	Answer answer;
	answer.parameters["uuid"] = after.uuid;
	return answer;
}

}	// namespace svctl

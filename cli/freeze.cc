// SPDX-License-Identifier: GPL-2.0
// See freeze.h.
#include "cli/freeze.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace svctl {

namespace {

constexpr char kFrozen = 'f', kThawed = 't', kTooLate = 'l';	// else: an errno
constexpr auto kForTheAnswer = std::chrono::seconds(1);

int left(Freezer::Clock::time_point until)
{
	using std::chrono::milliseconds;
	const auto ms = std::chrono::ceil<milliseconds>(until - Freezer::Clock::now()).count();
	return static_cast<int>(std::clamp<long long>(ms, 0, 3600 * 1000));
}

uint64_t mount_of(int fd)
{
	std::ifstream in(fmt::format("/proc/self/fdinfo/{}", fd));
	for (std::string word; in >> word;)
		if (uint64_t id = 0; word == "mnt_id:" && in >> id)
			return id;
	return 0;
}

// -errno: none of its mounts can be reached.
int open_one(const svd::FileSystem &one)
{
	int error = ENOENT;
	for (const svd::Mount &mount : one) {
		const int fd = open(mount.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && mount_of(fd) == mount.id)
			return fd;
		error = fd < 0 ? errno : error;
		if (fd >= 0)
			close(fd);
	}
	return -error;
}

void say(int pipe, char word)
{
	std::ignore = send(pipe, &word, 1, MSG_NOSIGNAL);	// svctl may have gone
}

// Of the process that has one file system frozen.
[[noreturn]] void guard(const svd::FileSystem &one, int pipe, Freezer::Clock::time_point deadline)
{
	for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT})
		std::signal(signal, SIG_IGN);
	const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
		dup2(nowhere, stream);	// nobody who reads svctl's output waits for this process
	const int fd = open_one(one);
	if (fd < 0 || ioctl(fd, FIFREEZE, 0) != 0) {
		say(pipe, static_cast<char>(fd < 0 ? -fd : errno));
		_exit(1);
	}
	say(pipe, kFrozen);
	pollfd waits = {pipe, POLLIN, 0};
	int got = poll(&waits, 1, left(deadline));
	while (got < 0 && errno == EINTR)
		got = poll(&waits, 1, left(deadline));
	ioctl(fd, FITHAW, 0);
	say(pipe, got > 0 ? kThawed : kTooLate);
	_exit(0);
}

Answer cannot_freeze(const std::string &path, int error)
{
	const std::string what = fmt::format("cannot freeze the file system on {}: ", path);
	const std::string without = "without --freeze the snapshot has what a power cut would leave";
	if (error == EPERM || error == EACCES)
		return failed(kExitPermission, what + "that takes root; " + without);
	if (error == EBUSY)
		return failed(kExitBusy, what + "somebody else has frozen it; thaw it (fsfreeze -u), or leave out --freeze");
	if (error == EOPNOTSUPP || error == ENOTTY)
		return failed(kExitUsage, what + "its kind cannot be frozen; " + without);
	return failed(kExitFailure, what + std::strerror(error) + "; " + without);
}

}	// namespace

Answer Freezer::start(const svd::FileSystem &one)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return cannot_freeze(one.front().path, errno);
	svd::UniqueFd mine(ends[0]), theirs(ends[1]);
	const pid_t child = fork();
	if (child < 0)
		return cannot_freeze(one.front().path, errno);
	if (child == 0) {
		for (Guard &other : guards_)
			other.pipe.reset();	// or the others would not hear that svctl has gone
		mine.reset();
		guard(one, theirs.get(), deadline_);
	}
	guards_.push_back({one.front().path, std::move(mine)});
	return {};
}

char Freezer::word_of(const Guard &guard, Clock::time_point until) const
{
	pollfd waits = {guard.pipe.get(), POLLIN, 0};
	int got = poll(&waits, 1, left(until));
	while (got < 0 && errno == EINTR)
		got = poll(&waits, 1, left(until));
	char word = 0;
	return got > 0 && recv(guard.pipe.get(), &word, 1, MSG_DONTWAIT) == 1 ? word : '\0';
}

Answer Freezer::freeze(const std::vector<svd::FileSystem> &all)
{
	for (const svd::FileSystem &one : all)
		if (Answer started = start(one); started.exit != kExitOk) {
			guards_.clear();
			return started;
		}
	for (const Guard &guard : guards_) {
		const char word = word_of(guard, deadline_);
		if (word == kFrozen)
			continue;
		Answer refused = word != 0 ? cannot_freeze(guard.path, word) :
			failed(kExitTimeout, fmt::format("the file system on {} did not freeze in time: its device may hang, or much is "
							 "still to be written; no snapshot was made", guard.path));
		guards_.clear();
		return refused;
	}
	return {};
}

Answer Freezer::thaw()
{
	std::string early;
	for (const Guard &guard : guards_)
		say(guard.pipe.get(), kThawed);
	for (const Guard &guard : guards_)
		if (word_of(guard, Clock::now() + kForTheAnswer) != kThawed)
			early = guard.path;
	guards_.clear();
	if (early.empty())
		return {};
	return failed(kExitTimeout, fmt::format("the snapshot was made, but the file system on {} was thawed before, at its deadline: "
						"the snapshot has what a power cut would leave", early));
}

}	// namespace svctl

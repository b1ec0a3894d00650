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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace svctl {

namespace {

using Clock = Freezer::Clock;
using Word = Freezer::Word;
using What = Word::What;

constexpr auto kForOthers = std::chrono::seconds(1);	// who may have been frozen meanwhile, when one cannot be
constexpr auto kForTheThaw = std::chrono::seconds(60);	// it writes, to a device that may be busy

int left(Clock::time_point until)
{
	using std::chrono::milliseconds;
	const auto ms = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
	return static_cast<int>(std::clamp<long long>(ms, 0, 3600 * 1000));
}

// True: there is something to read, or the other end was closed.
bool wait_for(int pipe, Clock::time_point until)
{
	pollfd waits = {pipe, POLLIN, 0};
	int got = poll(&waits, 1, left(until));
	while (got < 0 && errno == EINTR)
		got = poll(&waits, 1, left(until));
	return got > 0;
}

uint64_t mount_of(int fd)
{
	std::ifstream in(fmt::format("/proc/self/fdinfo/{}", fd));
	for (std::string word; in >> word;)
		if (uint64_t id = 0; word == "mnt_id:" && in >> id)
			return id;
	return 0;
}

// -errno: none of its mounts can be reached. ENOTUNIQ: others cover them.
int open_one(const svd::FileSystem &one)
{
	int error = ENOTUNIQ;
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

// ---- the process that has one file system frozen ----

void say(int pipe, What what, int error = 0)
{
	const Word word = {what, error};
	std::ignore = send(pipe, &word, sizeof(word), MSG_NOSIGNAL);	// svctl may have gone
}

void leave_session(int pipe)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, nullptr);
	setsid();
	prctl(PR_SET_NAME, "svctl-thaw");
	std::ignore = chdir("/");
	const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
		dup2(nowhere, stream);	// nobody who reads svctl's output waits for this process,
	if (pipe > STDERR_FILENO + 1)	// nor for a lock that it has inherited
		close_range(STDERR_FILENO + 1, static_cast<unsigned>(pipe) - 1, 0);
	close_range(static_cast<unsigned>(pipe) + 1, ~0u, 0);
}

// What is still to be written first: whoever writes waits from FIFREEZE on.
int freeze_in_time(int fd, int pipe, Clock::time_point deadline)
{
	if (fd < 0)
		return -fd;
	if (syncfs(fd) != 0)
		return errno;
	if (wait_for(pipe, Clock::now()) || left(deadline) == 0)
		return ETIMEDOUT;
	return ioctl(fd, FIFREEZE, 0) == 0 ? 0 : errno;
}

[[noreturn]] void guard(const svd::FileSystem &one, int pipe, Clock::time_point deadline) noexcept
{
	leave_session(pipe);
	const int fd = open_one(one);
	if (const int error = freeze_in_time(fd, pipe, deadline); error != 0) {
		say(pipe, What::kFailed, error);
		_exit(1);
	}
	say(pipe, What::kFrozen);
	const bool told = wait_for(pipe, deadline);
	if (ioctl(fd, FITHAW, 0) == 0)
		say(pipe, told ? What::kThawed : What::kTooLate);
	else if (errno == EINVAL)	// somebody else has thawed it, whenever that was
		say(pipe, What::kTooLate);
	else
		say(pipe, What::kFailed, errno);
	_exit(0);
}

// ---- svctl ----

Word word_of(int pipe, Clock::time_point until)
{
	Word word;
	if (!wait_for(pipe, until) || recv(pipe, &word, sizeof(word), MSG_DONTWAIT) != sizeof(word))
		return {};
	return word;
}

Answer cannot_freeze(const std::string &path, int error)
{
	const std::string what = fmt::format("cannot freeze the file system on {}: ", path);
	const std::string without = "without --freeze the snapshot has what a power cut would leave";
	switch (error) {
	case EPERM:
	case EACCES:
		return failed(kExitPermission, what + "that takes root; " + without);
	case EBUSY:
		return failed(kExitBusy, what + "somebody has frozen it, perhaps another svctl: try again; if it stays so, fsfreeze -u " + path);
	case EOPNOTSUPP:
	case ENOTTY:
		return failed(kExitUsage, what + "its kind cannot be frozen; " + without);
	case ENOTUNIQ:
		return failed(kExitBusy, what + "other mounts cover it; " + without);
	case ETIMEDOUT:
		return failed(kExitTimeout, fmt::format("the file system on {} did not freeze in time: its device may hang, or much is still "
							"to be written (sync -f {}); no snapshot was made", path, path));
	default:
		return failed(kExitFailure, what + std::strerror(error) + "; " + without);
	}
}

}	// namespace

Answer Freezer::start(const svd::FileSystem &one)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return cannot_freeze(one.front().path, errno);
	svd::UniqueFd mine(ends[0]), theirs(ends[1]);
	const pid_t child = fork();
	if (child < 0)
		return cannot_freeze(one.front().path, errno);
	if (child == 0)
		guard(one, theirs.get(), deadline_);	// which closes all but that
	guards_.push_back({one, std::move(mine)});
	return {};
}

// The others are thawed, and have been, if they can be soon: who tries again should not meet them.
Answer Freezer::give_up(Answer refusal)
{
	for (const Guard &guard : guards_)
		shutdown(guard.pipe.get(), SHUT_WR);
	const auto until = Clock::now() + kForOthers;
	for (const Guard &guard : guards_)
		while (word_of(guard.pipe.get(), until).what == What::kFrozen)
			;
	guards_.clear();
	return refusal;
}

Answer Freezer::freeze(const std::vector<svd::FileSystem> &all)
{
	for (const svd::FileSystem &one : all)
		if (Answer started = start(one); started.exit != kExitOk)
			return give_up(std::move(started));
	for (const Guard &guard : guards_) {
		const Word word = word_of(guard.pipe.get(), deadline_);
		if (word.what != What::kFrozen)
			return give_up(cannot_freeze(guard.path(), word.what == What::kFailed ? word.error : ETIMEDOUT));
	}
	return {};
}

Answer Freezer::thawed(const Guard &guard)
{
	const Word word = word_of(guard.pipe.get(), Clock::now() + kForTheThaw);
	if (word.what == What::kThawed)
		return {};
	if (word.what == What::kTooLate)
		return failed(kExitTimeout, fmt::format("the snapshot was made, but the file system on {} was thawed before, at its deadline or "
							"by somebody else: it has what a power cut would leave; delete it and try "
							"again", guard.path()));
	const int fd = open_one(guard.of);	// killed, or it could not
	const bool thawed = fd >= 0 && (ioctl(fd, FITHAW, 0) == 0 || errno == EINVAL);
	if (fd >= 0)
		close(fd);
	return failed(kExitFailure, fmt::format("the snapshot was made; who had the file system on {} frozen has ended early: {}", guard.path(),
						thawed ? "it is thawed, but may have been before" :
							 "it may still be frozen: fsfreeze -u " + guard.path()));
}

Answer Freezer::thaw()
{
	for (const Guard &guard : guards_)
		shutdown(guard.pipe.get(), SHUT_WR);
	Answer all;
	for (const Guard &guard : guards_)
		if (Answer one = thawed(guard); one.exit != kExitOk)
			all = std::move(one);
	guards_.clear();
	return all;
}

}	// namespace svctl

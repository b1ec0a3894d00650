// Preloaded into fio. fio asks for a job's resource usage right before its first I/O and right after its last: each time
// the clock and the CPU's idle time are noted, so that the start of programs is not measured. Shared memory is touched as
// it is attached, or the first I/O of each buffer would be billed with zeroing it.
//     BENCH_STAMPS=FILE LD_PRELOAD=stamp.so fio ...      lines "PID CLOCK_BEFORE CLOCK_AFTER IDLE", in ns
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// Of CPU 0, which is the only one. 0 where the kernel keeps none.
static long long idle(void)
{
	static char text[1 << 16];
	const char *at;
	ssize_t have = 0, got;
	int fd = open("/proc/timer_list", O_RDONLY);

	while ((got = read(fd, text + have, sizeof(text) - 1 - have)) > 0)
		have += got;
	close(fd);
	text[have] = 0;
	at = strstr(text, ".idle_sleeptime");
	at = at ? strchr(at, ':') : NULL;
	return at ? atoll(at + 1) : 0;
}

// Seen by functions.c. They do nothing: nopl with an offset that nobody else has.
#define MARK_BEGIN() __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 'b', 'B', 'v', 's'" ::: "memory")
#define MARK_END() __asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 'e', 'B', 'v', 's'" ::: "memory")

static void stamp(void)
{
	long long before = now(), slept = idle(), after = now();
	int fd = open(getenv("BENCH_STAMPS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
	char line[100];
	int length = snprintf(line, sizeof(line), "%d %lld %lld %lld\n", getpid(), before, after, slept);

	if (write(fd, line, length) != length)
		abort();
	close(fd);
}

int getrusage(int who, struct rusage *usage)
{
	static int calls;

	if (calls++) {
		MARK_END();
		stamp();
	} else {
		stamp();
		MARK_BEGIN();
	}
	return syscall(SYS_getrusage, who, usage);
}

void *shmat(int id, const void *at, int flags)
{
	char *memory = (char *)syscall(SYS_shmat, id, at, flags);
	struct shmid_ds about;

	if (memory == (char *)-1 || shmctl(id, IPC_STAT, &about))
		return memory;
	for (size_t i = 0; i < about.shm_segsz; i += 4096)
		*(volatile char *)(memory + i) |= 0;
	return memory;
}

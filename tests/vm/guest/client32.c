// A 32-bit client of the control device, without libc, so that no 32-bit libraries are needed. Built and run by
// t_edges.py, with DEVICE. Exit code 0, or the number of the step that failed.
#include "uapi/sv.h"

enum { SYS_EXIT = 1, SYS_OPEN = 5, SYS_IOCTL = 54, MINUS_EFAULT = -14, MINUS_ENOTTY = -25 };

static int call(int number, unsigned long a, unsigned long b, unsigned long c)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

static int run(void)
{
	struct sv_hello hello = {};
	struct sv_cmd cmd = {
		.op = SV_OP_HELLO, .size = sizeof(hello), .count = 1, .addr = (unsigned long)&hello,
	};
	int fd = call(SYS_OPEN, (unsigned long)DEVICE, 0, 0);

	if (fd < 0)
		return 1;
	if (call(SYS_IOCTL, fd, SV_IOC_CMD, (unsigned long)&cmd))
		return 2;
	if (cmd.count != 1 || hello.abi != SV_ABI_VERSION)
		return 3;
	cmd.addr |= 1ull << 40;		/* not one of ours */
	if (call(SYS_IOCTL, fd, SV_IOC_CMD, (unsigned long)&cmd) != MINUS_EFAULT)
		return 4;
	if (call(SYS_IOCTL, fd, SV_IOC_CMD + 1, (unsigned long)&cmd) != MINUS_ENOTTY)
		return 5;
	return 0;
}

void _start(void)
{
	call(SYS_EXIT, run(), 0, 0);
}

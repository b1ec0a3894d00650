"""First writes to a device, 4 KiB each and each with a flush, while svd is stopped and cannot empty the journal.

    fill_ring.py DEVICE SECONDS

Writes until no first write ends any more: it waits, or fails for want of space and is tried again. Then what needs
no space must still work: it reads all back, overwrites all, and prints "full after COUNT". Once first writes go on,
which they must SECONDS after svd goes on, it writes an eighth more, verifies all and ends. Used by t_trouble.py.
"""

import errno
import mmap
import os
import sys
import threading
import time

BLOCK = 4096
STUCK = 3  # seconds without a first write


def contents(n, version):
    return (b"%15d\n" % (n * 1000 + version)) * (BLOCK // 16)


class Device:
    """One thread's way to the device: O_DIRECT wants aligned memory, which is not shared."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.page = mmap.mmap(-1, BLOCK)

    def write(self, n, version, flush=True):
        self.page[:] = contents(n, version)
        os.pwrite(self.fd, self.page, n * BLOCK)
        if flush:
            os.fdatasync(self.fd)

    def verify(self, first, end, version):
        for n in range(first, end):
            os.preadv(self.fd, [self.page], n * BLOCK)
            if self.page[:] != contents(n, version):
                sys.exit(f"block {n} is not as written")


class FirstWrites(threading.Thread):
    """Writes block after block until told how many; tries again where there is no space."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.device, self.done, self.enough = Device(path), 0, 1 << 62

    def run(self):
        while self.done < self.enough:
            try:
                self.device.write(self.done, 1)
                self.done += 1
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                time.sleep(0.1)

    def wait_until_stuck(self):
        before = -1
        while before != self.done:
            before = self.done
            time.sleep(STUCK)
        return before


def main():
    writer, device = FirstWrites(sys.argv[1]), Device(sys.argv[1])
    writer.start()
    count = writer.wait_until_stuck()
    writer.enough = enough = count + count // 8
    device.verify(0, count, 1)
    for n in range(count):
        device.write(n, 2, flush=n % 16 == 0)
    device.verify(0, count, 2)
    if writer.done > count:
        sys.exit(f"first writes went on by themselves, from {count} to {writer.done}")
    print(f"full after {count}", flush=True)
    before, since = -1, time.monotonic()
    while writer.is_alive() and before != writer.done:
        before = writer.done
        writer.join(int(sys.argv[2]))
    if writer.done < enough:
        sys.exit(f"first writes do not go on: {writer.done} of {enough}")
    print(f"{enough - count} more took {time.monotonic() - since:.1f} s", flush=True)
    device.verify(0, count, 2)
    device.verify(count, enough, 1)


main()

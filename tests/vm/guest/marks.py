"""Marks the first block of each of N megabytes of a device, past the page cache, or reads the marks: prints how many
are there, and how many are read errors. Anything else than its mark is a fault. 256 KiB are written, so that each megabyte
takes a slot of its own.

usage: marks.py write|read DEVICE N"""
import errno
import mmap
import os
import sys

MIB = 1 << 20


def main():
    verb, device, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fd = os.open(device, (os.O_RDWR if verb == "write" else os.O_RDONLY) | os.O_DIRECT)
    block, slot = mmap.mmap(-1, 4096), mmap.mmap(-1, 256 << 10)  # aligned, as O_DIRECT wants it
    there = gone = 0
    for i in range(count):
        mark = f"mark {i}".encode().ljust(4096, b"\0")
        if verb == "write":
            slot[:4096] = mark
            os.pwrite(fd, slot, i * MIB)
            continue
        try:
            os.preadv(fd, [block], i * MIB)
            if block[:] != mark:
                sys.exit(f"megabyte {i} has {block[:16]}")
            there += 1
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            gone += 1
    if verb == "write":
        os.fsync(fd)
    else:
        print(there, gone)


main()

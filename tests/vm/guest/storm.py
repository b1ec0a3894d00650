#!/usr/bin/python3
"""What a thousand clones of a volume show, past the page cache.

usage: storm.py clones POOL VOLUME@SNAPSHOT COUNT    makes POOL/c1 and so on, by one connection to svd
       storm.py write POOL COUNT                     to each of these a block of its own, elsewhere than to the others
       storm.py read POOL COUNT                      is that so?
"""

import mmap
import os
import sys

from api import Svd

BLOCK, EXTENT, STRIDE = 4096, 1 << 20, 1021  # extents from one clone's block to the next one's


def opened(pool, device):
    return os.open(f"/dev/sv/{pool}/{device}", os.O_RDWR | os.O_DIRECT)


def transfer(pool, device, call, *arguments):
    fd = opened(pool, device)
    try:
        return call(fd, *arguments)
    finally:
        os.close(fd)


def clones(pool, snapshot, count):
    svd = Svd()
    for i in range(1, int(count) + 1):
        svd.call("CreateVolume", pool=pool, volume=f"c{i}", **{"from": snapshot})


def block_of(i):
    return f"number {i}\n".encode().ljust(BLOCK, b".")


def write(pool, count):
    buffer = mmap.mmap(-1, BLOCK)
    for i in range(1, int(count) + 1):
        buffer[:] = block_of(i)
        transfer(pool, f"c{i}", os.pwritev, [buffer], i * STRIDE * EXTENT)


def read(pool, count):
    """Of each clone its block, and where its neighbours have theirs."""
    buffer = mmap.mmap(-1, BLOCK)
    for i in range(1, int(count) + 1):
        for place in (i - 1, i, i + 1):
            assert transfer(pool, f"c{i}", os.preadv, [buffer], place * STRIDE * EXTENT) == BLOCK
            assert (buffer[:] == block_of(i)) == (place == i), f"clone {i} at {place}: {buffer[:20]}"


if __name__ == "__main__":
    {f.__name__: f for f in (clones, write, read)}[sys.argv[1]](*sys.argv[2:])

"""In the guest: null_blk disks, and what the block layer counts of them."""

import mmap
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "vm"))

import sv_ioctl  # noqa: E402 (its directory is known only now)

BLOCK = 4096
CONFIG = "/sys/kernel/config/nullb"
# The same for all. Of a disk without a cache flushes are not counted, and 1 MiB requests must not be split.
SETTINGS = {"blocksize": 4096, "memory_backed": 1, "cache_size": 4096, "max_sectors": 8192, "discard": 1,
            "submit_queues": os.cpu_count()}
QUEUE = {"max_sectors_kb": 4096, "scheduler": "none", "wbt_lat_usec": 0}
# Fields of Linux's Documentation/block/stat, from 0.
COUNTS = {"reads": 0, "read_sectors": 2, "writes": 4, "write_sectors": 6, "flushes": 15}


def write(path, value):
    with open(path, "w", encoding="ascii") as f:
        f.write(str(value))


class Disk:
    """Takes memory only where it is written."""

    def __init__(self, name, mib):
        self.dev = "/dev/" + name
        self.config = os.path.join(CONFIG, name)
        os.mkdir(self.config)
        for key, value in {**SETTINGS, "size": mib, "power": 1}.items():
            write(os.path.join(self.config, key), value)
        for key, value in QUEUE.items():
            write(f"/sys/block/{name}/queue/{key}", value)

    def counts(self):
        fields = sv_ioctl.io_stat(self.dev)
        return {name: fields[at] for name, at in COUNTS.items()}

    def touch_end(self):
        """null_blk looks for a page in its cache, and then in a tree as tall as its last page needs. Afterwards the one is
        empty and the other as tall as any, wherever on the disk a target has its data."""
        block = mmap.mmap(-1, BLOCK)
        disk = os.open(self.dev, os.O_RDWR | os.O_DIRECT)
        last = os.lseek(disk, -BLOCK, os.SEEK_END)
        os.preadv(disk, [block], last)
        os.pwritev(disk, [block], last)
        os.fsync(disk)
        os.close(disk)

    def remove(self):
        write(os.path.join(self.config, "power"), 0)
        os.rmdir(self.config)

#!/usr/bin/python3
"""Reads a disk's log of writes and rebuilds what a power cut could have left.

The log is in dm-log-writes' format, written by QEMU's blklogwrites driver (disk
backend "logged") or by the dm-log-writes target. A rebuilt image holds every
write that a later flush covered, every FUA write, and of the rest a seeded
choice, in which writes may be torn between atoms.

usage: blklog.py list LOG
       blklog.py rebuild LOG IMAGE SIZE [--upto N] [--seed N] [--atom BYTES]
"""

import argparse
import os
import random
import struct
from collections import namedtuple

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")

# Byte positions; `data` is where in the log the contents are.
Entry = namedtuple("Entry", "offset length flags data")


def read_super(f):
    """(number of entries, sector size)"""
    magic, version, entries, sector = SUPER.unpack(f.read(SUPER.size))
    if magic != MAGIC or version != 1:
        raise ValueError(f"{f.name}: not a log of writes")
    return entries, sector


def count(path):
    """The number of entries so far."""
    with open(path, "rb") as f:
        return read_super(f)[0]


class Log:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            entries, self.sector = read_super(f)
            self.entries = list(self._read(f, entries))

    def _read(self, f, count):
        position = self.sector
        for _ in range(count):
            f.seek(position)
            sector, sectors, flags, data_len = ENTRY.unpack(f.read(ENTRY.size))
            position += self.sector
            if flags & MARK:
                yield Entry(0, 0, flags, position)
                position += -(-data_len // self.sector) * self.sector
                continue
            length = sectors * self.sector
            yield Entry(sector * self.sector, length, flags, position)
            if not flags & DISCARD:
                position += length

    def durable(self, upto):
        """How many of the first `upto` entries a flush among them covers."""
        for i in range(upto, 0, -1):
            if self.entries[i - 1].flags & FLUSH:
                return i - 1
        return 0

    def rebuild(self, image, size, upto=None, seed=0, atom=512, base=None):
        """Writes to `image` a state that a power cut after the first `upto`
        entries could leave on a disk that began as `base` (or zeroes)."""
        upto = len(self.entries) if upto is None else upto
        rng = random.Random(seed)
        durable = self.durable(upto)
        with open(self.path, "rb") as log, open(image, "wb") as out:
            if base:
                copy_sparse(base, out)
            out.truncate(size)
            for i, entry in enumerate(self.entries[:upto]):
                if i < durable or entry.flags & FUA:
                    apply(log, out, entry)
                else:
                    apply_some(log, out, entry, rng, atom)


def copy_sparse(path, out):
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            if block.count(0) == len(block):
                out.seek(len(block), os.SEEK_CUR)
            else:
                out.write(block)


def apply(log, out, entry):
    if entry.flags & MARK or not entry.length:
        return
    out.seek(entry.offset)
    if entry.flags & DISCARD:
        write_zeroes(out, entry.length)
        return
    log.seek(entry.data)
    out.write(log.read(entry.length))


def write_zeroes(out, length):
    block = bytes(1 << 20)
    while length:
        length -= out.write(block[:length])


def apply_some(log, out, entry, rng, atom):
    """Unflushed: all of it, nothing of it, or some atoms of it."""
    fate = rng.randrange(3)
    if fate == 0:
        return
    for start in range(0, entry.length, atom):
        if fate == 1 or rng.random() < 0.5:
            length = min(atom, entry.length - start)
            apply(log, out, Entry(entry.offset + start, length, entry.flags, entry.data + start))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list").add_argument("log")
    rebuild = verbs.add_parser("rebuild")
    rebuild.add_argument("log")
    rebuild.add_argument("image")
    rebuild.add_argument("size", type=int)
    rebuild.add_argument("--upto", type=int)
    rebuild.add_argument("--seed", type=int, default=0)
    rebuild.add_argument("--atom", type=int, default=512)
    args = parser.parse_args()
    log = Log(args.log)
    if args.verb == "rebuild":
        log.rebuild(args.image, args.size, args.upto, args.seed, args.atom)
        return
    for i, entry in enumerate(log.entries):
        names = [n for n, bit in (("flush", FLUSH), ("fua", FUA), ("discard", DISCARD), ("mark", MARK))
                 if entry.flags & bit]
        print(i, entry.offset, entry.length, ",".join(names) or "write")


if __name__ == "__main__":
    main()

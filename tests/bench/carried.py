"""Pools with many extents, made on this host by svctl restore, and carried into a guest: what svd wrote to their disk."""

import contextlib
import os
import struct
import subprocess
import sys

import vm

sys.path.insert(0, os.path.join(vm.REPO, "tests/e2e"))

MAKE_DUMP = os.path.join(vm.REPO, "tests/support/make_dump.py")
PIECE = 1 << 20


def disk_mib(extents):
    """Of the disk, which has 6 % more slots than extents, and room for journal and catalogue."""
    return extents * 17 // 16 + 8192


def data_of(fd):
    """(offset, length) of what is no hole."""
    at = 0
    with contextlib.suppress(OSError):      # behind the last one
        while True:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
            yield at, end - at
            at = end


def pack(disk, path):
    """Each piece of the disk that holds something, after its offset and length: targets.py unpacks it."""
    with open(disk, "rb") as source, open(path, "wb") as out:
        for offset, length in data_of(source.fileno()):
            source.seek(offset)
            while length:
                data = source.read(min(length, PIECE))
                if data.strip(b"\0"):
                    out.write(struct.pack("<QQ", offset, len(data)) + data)
                offset, length = offset + len(data), length - len(data)


def make(path, pool, extents, slots, options):
    import harness  # needs what only this needs
    with harness.Host(pool) as host:
        disk, dump = host.disk("disk", disk_mib(slots)), os.path.join(host.dir, "dump")
        with open(dump, "wb") as out:
            subprocess.run([sys.executable, MAKE_DUMP, str(extents), "1", str(slots), *options], check=True, stdout=out)
        host.options = ["--devices", disk]
        host.start()
        host.svctl("create-pool", pool, "--tier", "only=" + disk)
        subprocess.run([harness.BIN + "/svctl", "--socket", host.socket, "restore", pool, dump], check=True, stdout=subprocess.DEVNULL)
        host.svctl("deactivate", pool)
        host.svctl("export-pool", pool)
        host.stop()
        pack(disk, path + ".new")
    os.rename(path + ".new", path)


def packed(pool, extents, slots, *options):
    """The path of a packed disk with a pool of so many extents, made when needed, on a disk for so many and some more.
    options: of make_dump.py."""
    path = os.path.join(vm.BUILD, "bench", "pools", "_".join([pool, str(extents), str(slots), *options]))
    with vm.locked(path + ".lock"):
        if not vm.is_newer(path, __file__, MAKE_DUMP, os.path.join(vm.BUILD, "bin/svd")):
            make(path, pool, extents, slots, options)
    return path

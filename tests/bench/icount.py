"""Instructions and device I/O per user I/O, in guests whose clock counts instructions."""

import os
import subprocess
import time

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = "icount"
TARGETS = ["raw", "linear", "thin64", "thin64nz", "thin1m", "thin1mnz", "sv"]

# A string instruction counts once for each byte: the copy that null_blk makes of 1 MiB would be a million of them, and hide
# what is added to it. Without these two features of the CPU the kernel copies and zeroes words. They stay for 4 KiB.
WORDS = "clearcpuid=erms,fsrm"
# (kernel's command line, workloads) of each guest
GUESTS = [("", ["randread4k", "overwrite4k", "randread4k-uring", "overwrite4k-uring", "overwrite4k-fsync",
                "firstwrite4k", "firstwrite4k-fsync", "firstwrite4k-fsync8"]),
          (WORDS, ["seqread1m", "seqwrite1m", "firstwrite1m"])]
WORKLOADS = [workload for _, workloads in GUESTS for workload in workloads]

PREPARE = """modprobe null_blk nr_devices=0; modprobe dm-thin-pool
mount -t configfs none /sys/kernel/config 2>/dev/null || mountpoint -q /sys/kernel/config
echo 96 > /proc/sys/vm/nr_hugepages
"""


def stamp_library():
    """Compiled when needed."""
    source, library = os.path.join(HERE, "stamp.c"), os.path.join(vm.BUILD, "bench", "stamp.so")
    with vm.locked(library + ".lock"):
        if not vm.is_newer(library, source):
            subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library + ".new", source], check=True)
            os.rename(library + ".new", library)
    return library


def prepare(guest):
    guest.load_sv()
    guest.run(PREPARE, timeout=300)


def boot(bench, cmdline=""):
    return bench.boot(icount=True, mem="6G", boot_timeout=300, cmdline=cmdline)


def measure(bench, results, targets, workloads):
    for cmdline, of_guest in GUESTS:
        wanted = [w for w in of_guest if w in workloads]
        if wanted:
            with boot(bench, cmdline) as guest:
                prepare(guest)
                for target in targets:
                    measure_target(guest, results, target, wanted)


def measure_target(guest, results, target, workloads):
    started = time.monotonic()
    out = guest.run(f"exec python3 {HERE}/guest.py {stamp_library()} {target} {','.join(workloads)}", timeout=1800)
    for line in out.splitlines():
        results.add(SUITE, *line.split("\t"))
    print(f"measured {target}: {', '.join(workloads)} ({time.monotonic() - started:.0f} s)", flush=True)

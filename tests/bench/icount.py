"""Instructions and device I/O per user I/O, in guests whose clock counts instructions."""

import os
import subprocess
import time

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE = "icount"
TARGETS = ["raw", "linear", "thin64", "thin64nz", "thin1m", "thin1mnz", "sv"]

# A string instruction counts once for each byte: the copy that null_blk makes of 1 MiB would be a million of them, and
# hide what is added to it, and so would the four of a page that its cache makes of a write and a flush. Without these
# features of the CPU the kernel copies and zeroes words.
WORDS = "clearcpuid=erms,fsrm,395"     # the last is FSRS, which has no name there
# (kernel's command line, workloads) of each guest
GUESTS = [("", ["randread4k", "overwrite4k", "randread4k-uring", "overwrite4k-uring", "firstwrite4k",
                "snapwrite4k", "snapread4k-1", "snapread4k-8", "snapread4k-64", "snapread4k-64-at-once"]),
          (WORDS, ["seqread1m", "seqwrite1m", "seqread1m-512k", "seqwrite1m-512k", "overwrite4k-fsync", "firstwrite4k-fsync", "firstwrite4k-fsync8",
                   "firstwrite1m"])]
WORKLOADS = [workload for _, workloads in GUESTS for workload in workloads]

PREPARE = """modprobe null_blk nr_devices=0; modprobe dm-thin-pool
mount -t configfs none /sys/kernel/config 2>/dev/null || mountpoint -q /sys/kernel/config
echo 96 > /proc/sys/vm/nr_hugepages
"""


def library(name):
    """NAME.so of NAME.c, compiled when needed."""
    source, target = os.path.join(HERE, name + ".c"), os.path.join(vm.BUILD, "bench", name + ".so")
    with vm.locked(target + ".lock"):
        if not vm.is_newer(target, source):
            subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", target + ".new", source], check=True)
            os.rename(target + ".new", target)
    return target


def prepare(guest):
    guest.load_sv()
    guest.run(PREPARE, timeout=300)


def boot(bench, **options):
    return bench.boot(icount=True, mem="10G", boot_timeout=300, **options)


def cmdline_of(workload):
    return next(cmdline for cmdline, workloads in GUESTS if workload in workloads)


def measure(bench, results, targets, workloads, settings=""):
    """settings: further words of the kernel's command line."""
    for cmdline, of_guest in GUESTS:
        wanted = [w for w in of_guest if w in workloads]
        if wanted:
            with boot(bench, cmdline=f"{cmdline} {settings}") as guest:
                prepare(guest)
                for target in targets:
                    measure_target(guest, results, target, wanted)


def run_guest(guest, target, workloads):
    """The lines of guest.py, in words."""
    script = f"exec python3 {HERE}/guest.py {library('stamp')} {target} {','.join(workloads)}"
    return [line.split("\t") for line in guest.run(script, timeout=1800).splitlines()]


def measure_target(guest, results, target, workloads):
    started = time.monotonic()
    for words in run_guest(guest, target, workloads):
        results.add(SUITE, *words)
    print(f"measured {target}: {', '.join(workloads)} ({time.monotonic() - started:.0f} s)", flush=True)

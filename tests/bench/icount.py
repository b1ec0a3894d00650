"""Instructions and device I/O per user I/O, in a guest whose clock counts instructions."""

import collections
import os
import subprocess

import vm

HERE = os.path.dirname(os.path.abspath(__file__))
TARGETS = ["raw", "linear", "thin64", "thin64nz", "thin1m", "thin1mnz", "sv"]
WORKLOADS = ["randread4k", "overwrite4k", "randread4k-uring", "overwrite4k-uring", "seqread1m", "seqwrite1m",
             "firstwrite4k", "firstwrite4k-fsync", "firstwrite1m"]
REPEATS = 2

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


def measure(bench, targets, workloads):
    """{(target, workload, metric): [value, ...]}"""
    library = stamp_library()
    results = collections.defaultdict(list)
    with bench.boot(icount=True, mem="6G", boot_timeout=300) as guest:
        guest.load_sv()
        guest.run(PREPARE, timeout=300)
        for target in targets.split(","):
            out = guest.run(f"exec python3 {HERE}/guest.py {library} {REPEATS} {target} {workloads}", timeout=1800)
            for line in out.splitlines():
                *key, value = line.split("\t")
                results[tuple(key)].append(float(value))
    return results

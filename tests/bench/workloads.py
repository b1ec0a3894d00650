"""What fio does, by name. `on`: "mapped" data, written sequentially before; a "fresh" volume; one that is "snapped", all of it
mapped; or one with a Chain of so many snapshots, before each of which 1 % of its blocks was written at random, and svd has
done what it does for long chains, or, at once, has been stopped when the last was made."""

import collections

# ios: of each job. scale: of `ios`, for targets that take very long for each. tolerance: how much of the instructions
# two measurements may differ by; where several threads wake each other, the order in which they run differs.
Workload = collections.namedtuple("Workload", "on size ios options scale jobs tolerance", defaults=({}, 1, 0.002))

Chain = collections.namedtuple("Chain", "snapshots at_once", defaults=(False,))

MAPPED = "64m"
FRESH = "4g"  # as many extents of 1 MiB as firstwrite4k has writes
SNAPPED = "512m"
SLOW = {"thin1m": 0.1, "thin1mnz": 0.25}

COMMON = ("--name=x --direct=1 --invalidate=0 --mem=shmhuge --ioengine=libaio --iodepth=32 --randrepeat=1 "
          "--output-format=json --group_reporting --io_size=1t")
FSYNC = "--bs=4k --rw=randwrite --iodepth=1 --fsync=1"
RANDOM_4K = "--bs=4k --norandommap --rw="

ALL = {
    "randread4k": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randread"),
    "overwrite4k": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randwrite"),
    "randread4k-uring": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randread --ioengine=io_uring"),
    "overwrite4k-uring": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randwrite --ioengine=io_uring"),
    "seqread1m": Workload("mapped", MAPPED, 256, "--bs=1m --rw=read"),
    "seqwrite1m": Workload("mapped", MAPPED, 256, "--bs=1m --rw=write"),
    "seqread1m-512k": Workload("mapped", "32m", 256, "--bs=1m --rw=read --offset=512k"),
    "seqwrite1m-512k": Workload("mapped", "32m", 256, "--bs=1m --rw=write --offset=512k"),
    "overwrite4k-fsync": Workload("mapped", MAPPED, 1000, "--norandommap " + FSYNC, tolerance=0.03),
    "firstwrite4k": Workload("fresh", FRESH, 4096, "--bs=4k --rw=randwrite", SLOW, tolerance=0.005),
    "firstwrite4k-fsync": Workload("fresh", FRESH, 1000, FSYNC, SLOW, tolerance=0.03),
    "firstwrite4k-fsync8": Workload("fresh", FRESH, 125, FSYNC + " --thread --numjobs=8", SLOW, jobs=8, tolerance=0.1),
    "snapwrite4k": Workload("snapped", SNAPPED, 1000, RANDOM_4K + "randwrite", SLOW, tolerance=0.005),
    "snapread4k-1": Workload(Chain(1), MAPPED, 10000, RANDOM_4K + "randread"),
    "snapread4k-8": Workload(Chain(8), MAPPED, 10000, RANDOM_4K + "randread"),
    "snapread4k-64": Workload(Chain(64), MAPPED, 10000, RANDOM_4K + "randread"),
    "snapread4k-64-at-once": Workload(Chain(64, at_once=True), MAPPED, 10000, RANDOM_4K + "randread"),
    "firstwrite1m": Workload("fresh", FRESH, 128, "--bs=1m --rw=write", tolerance=0.005),
}


def tolerance(name, target):
    """dm-thin's first writes cost more when its commit of each second falls among them."""
    workload = ALL.get(name)
    if not workload:        # of another suite
        return Workload._field_defaults["tolerance"]
    return max(workload.tolerance, 0.02 if target.startswith("thin") and workload.on in ("fresh", "snapped") else 0)


def ios(name, target):
    """Of each job."""
    workload = ALL[name]
    return int(workload.ios * workload.scale.get(target, 1))

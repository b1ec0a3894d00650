"""What fio does, by name. `on`: "mapped" data, written sequentially before, or a "fresh" volume."""

import collections

# scale: of `ios`, for targets that take very long for each.
Workload = collections.namedtuple("Workload", "on size ios options scale", defaults=({},))

MAPPED = "64m"
FRESH = "4g"  # as many extents of 1 MiB as firstwrite4k has writes
SLOW = {"thin1m": 0.1, "thin1mnz": 0.25, "thin64": 0.25, "thin64nz": 0.5}

COMMON = ("--name=x --direct=1 --invalidate=0 --mem=shmhuge --ioengine=libaio --iodepth=32 --randrepeat=1 "
          "--output-format=json --io_size=1t")
RANDOM_4K = "--bs=4k --norandommap --rw="

ALL = {
    "randread4k": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randread"),
    "overwrite4k": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randwrite"),
    "randread4k-uring": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randread --ioengine=io_uring"),
    "overwrite4k-uring": Workload("mapped", MAPPED, 10000, RANDOM_4K + "randwrite --ioengine=io_uring"),
    "seqread1m": Workload("mapped", MAPPED, 256, "--bs=1m --rw=read"),
    "seqwrite1m": Workload("mapped", MAPPED, 256, "--bs=1m --rw=write"),
    "firstwrite4k": Workload("fresh", FRESH, 4096, "--bs=4k --rw=randwrite", SLOW),
    "firstwrite4k-fsync": Workload("fresh", FRESH, 500, "--bs=4k --rw=randwrite --iodepth=1 --fsync=1", {"thin1m": 0.2, "thin64": 0.5}),
    "firstwrite1m": Workload("fresh", FRESH, 128, "--bs=1m --rw=write"),
}


def ios(name, target):
    workload = ALL[name]
    return int(workload.ios * workload.scale.get(target, 1))

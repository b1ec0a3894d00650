#!/usr/bin/python3
"""In a guest whose clock counts instructions: what pools with many extents cost in memory, at their activation and at rest,
and what random I/O on them costs. Prints lines "target workload metric value unit".

usage: guest_pool.py STAMP_LIBRARY ROWS
       ROWS: a file of JSON, a list of pools; of each "name", "packed" (carried.py), "mib" of its disk, "extents", in how many
       "volumes", and whether it is "random", to be read and written at random. The first one is small and has none: what
       it takes is not counted
"""

import json
import os
import re
import sys
import time

import guest
import targets
import workloads
from disks import Disk
from targets import run

TIB = 1 << 20  # extents
IOS = 10000


def say(target, workload, metric, value, unit):
    print(target, workload, metric, repr(value), unit, sep="\t", flush=True)


def busy_during(action):
    start, slept = time.monotonic_ns(), guest.idle_ns()
    action()
    return (time.monotonic_ns() - start - (guest.idle_ns() - slept)) / 1e9


def tasks(pid, file):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/{file}", encoding="ascii") as f:
            yield f.read()


def cpu_seconds(pid):
    return sum(int(text.split()[0]) for text in tasks(pid, "schedstat")) / 1e9


def wake_ups(pid):
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)[1]) for text in tasks(pid, "status"))


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^VmRSS:\s*(\d+)", f.read(), re.M)[1]) << 10


def activate():
    run("svctl", "deactivate", "tank")
    guest.wait_idle()
    return busy_during(lambda: run("svctl", "activate", "tank"))


def activation():
    """The shortest of three times, in which nothing else happened."""
    return min(activate() for _ in range(3))


class Big(targets.Carried):
    def __init__(self, row):
        super().__init__({"tank": (row["packed"], row["mib"])})
        self.device = "/dev/sv/tank/v1"

    def memory(self):
        return self.show()["kernel_memory_bytes"]


class Small:
    """What a small pool takes that has nothing in it: the start of svctl is in its activation, and 256 MiB of journal."""

    def __init__(self, row):
        pool = Big(row)
        self.memory, self.rss, self.activation = pool.memory(), resident(pool.svd.pid), activation()
        pool.tear_down()


def once(device, kind, size, stamps):
    guest.compact_memory()
    guest.wait_idle()
    done = guest.fio(device, f"{workloads.RANDOM_4K}{kind} --size={size} --number_ios={IOS}", stamps)
    return {"instr": guest.busy_ns(1) / done}


def measure_first_reads(name, pool, size, stamps):
    """Those right after activation, next to the same ones again."""
    activate()
    first, again = (once(pool.device, "randread", size, stamps)["instr"] for _ in range(2))
    say("sv", name, "first_reads", first / again, "times later ones")


def measure_random(name, target, disk, device, size, stamps):
    """Of the same blocks, which have been written before, so that the disk has memory for them."""
    once(device, "randwrite", size, stamps)
    disk.touch_end()
    for workload, kind in (("randread4k", "randread"), ("overwrite4k", "randwrite")):
        for values in guest.repeated(lambda kind=kind: once(device, kind, size, stamps),
                                      workloads.tolerance(workload, target)):
            say(target, f"{workload}-{name}", "instr", values["instr"], "instructions")


def measure_raw(name, row, size, stamps):
    disk = Disk("raw", row["mib"])
    measure_random(name, "raw", disk, disk.dev, size, stamps)
    disk.remove()


def measure_rest(name, pid):
    switched, spent = wake_ups(pid), cpu_seconds(pid)
    time.sleep(60)
    say("sv", name, "svd_wake_ups", (wake_ups(pid) - switched) / 60, "per s")
    say("sv", name, "svd_at_rest", (cpu_seconds(pid) - spent) / 60 * 1e6, "us of CPU per s")


def measure(row, small, stamps):
    name, extents, size = row["name"], row["extents"], f"{row['extents'] // row['volumes']}m"
    pool = Big(row)
    say("sv", name, "kernel_memory", (pool.memory() - small.memory) / extents * TIB / 2**20, "MiB per TiB")
    say("sv", name, "activation", (activation() - small.activation) / extents * 1e6, "s per million extents")
    measure_first_reads(name, pool, size, stamps)
    guest.wait_idle()
    say("sv", name, "svd_rss", resident(pool.svd.pid) / extents * TIB / 2**20, "MiB per TiB")
    say("sv", name, "svd_rss_added", (resident(pool.svd.pid) - small.rss) / extents * TIB / 2**20, "MiB per TiB")
    measure_rest(name, pool.svd.pid)
    if row["random"]:
        measure_random(name, "sv", pool.disks[0], pool.device, size, stamps)
    pool.tear_down()
    if row["random"]:
        measure_raw(name, row, size, stamps)


def main(stamps, rows):
    with open(rows, encoding="ascii") as f:
        first, *pools = json.load(f)
    small = Small(first)
    for row in pools:
        measure(row, small, stamps)


if __name__ == "__main__":
    main(*sys.argv[1:])

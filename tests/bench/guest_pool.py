#!/usr/bin/python3
"""In a guest whose clock counts instructions: what a pool with many extents costs in memory and at its activation, what a
checkpoint costs svd, and svd at rest. Prints lines "target workload metric value unit".

usage: guest_pool.py EXTENTS EVERY=DUMP...     each DUMP a text for svctl restore, of which every EVERYth extent is partial
"""

import os
import re
import sys
import time

import guest
import targets
import workloads
from targets import run

TIB = 1 << 20  # extents
POOL = "sv"


def say(workload, metric, value, unit):
    print(POOL, workload, metric, f"{value:.4f}", unit, sep="\t", flush=True)


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


def cycle():
    """The time of an activation, in which nothing else happens."""
    run("svctl", "deactivate", "tank")
    guest.wait_idle()
    return busy_during(lambda: run("svctl", "activate", "tank"))


class BigPool(targets.Sv):
    def disk(self, mib=None):
        return super().disk(mib or self.mib)

    def set_up(self):
        super().set_up()
        os.close(self.scratch)
        self.pool.close()
        run("svctl", "--yes", "delete-volume", "tank/v1")

    def restore(self, dump):
        run("svctl", "restore", "tank", dump)

    def tear_down(self):
        run("svctl", "--yes", "delete-pool", "tank")
        self.svd.terminate()
        self.svd.wait()
        targets.Target.tear_down(self)


def measure_pool(extents, every, dump):
    """At `every` partial extents. `name` of what is measured: the share of partial ones."""
    share = f"partial{100 // every if every else 0}"
    BigPool.mib = extents * 5 // 4 + 8192
    pool = BigPool(POOL)
    empty_memory, empty_rss, empty_time = pool.show()["kernel_memory_bytes"], resident(pool.svd.pid), cycle()
    pool.restore(dump)
    memory = pool.show()["kernel_memory_bytes"] - empty_memory
    say(share, "kernel_memory", memory / extents * TIB / 2**20, "MiB per TiB")
    say(share, "activation", (cycle() - empty_time) / extents * 1e6, "s per million extents")
    guest.wait_idle()
    say(share, "svd_rss", (resident(pool.svd.pid) - empty_rss) / extents * TIB / 2**20, "MiB per TiB")
    say(share, "svd_rss_empty", empty_rss / 2**20, "MiB")
    switched, spent = wake_ups(pool.svd.pid), cpu_seconds(pool.svd.pid)
    time.sleep(60)
    say(share, "svd_wake_ups", (wake_ups(pool.svd.pid) - switched) / 60, "per s")
    say(share, "svd_at_rest", (cpu_seconds(pool.svd.pid) - spent) / 60 * 1e6, "us of CPU per s")
    pool.tear_down()


def measure_checkpoint(writes):
    """Scattered first writes, then the checkpoint that follows."""
    pool = targets.make(POOL)
    device = pool.fresh(workloads.FRESH)
    pool.settle()
    before = pool.state()["records"]
    guest.fio(device, f"--bs=4k --rw=randwrite --size={workloads.FRESH} --number_ios={writes}")
    spent, started = cpu_seconds(pool.svd.pid), time.monotonic()
    pool.settle()
    records = pool.state()["records"] - before
    at_rest = 0.00005 * (time.monotonic() - started)
    say("checkpoint", "record", (cpu_seconds(pool.svd.pid) - spent - at_rest) / records * 1e6, "us of svd's CPU")
    pool.tear_down()


def main(extents, *dumps):
    measure_checkpoint(16384)
    for dump in dumps:
        every, _, path = dump.partition("=")
        measure_pool(int(extents), int(every), path)


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/python3
"""In a guest whose clock counts instructions: what a pool with many extents costs in memory and at its activation,
what a checkpoint costs svd, and svd at rest. Prints lines "target workload metric value unit".

usage: guest_pool.py STAMP_LIBRARY EXTENTS TIB_DUMP EVERY=DUMP...
       each DUMP is a text for svctl restore, of EXTENTS extents of which every EVERYth is partial; TIB_DUMP has 2^20
"""

import os
import re
import signal
import sys
import time

import guest
import targets
import workloads
from targets import run

TIB = 1 << 20  # extents
POOL = "sv"
WRITES = 16384
READ = "--bs=4k --norandommap --rw=randread --size=64m --number_ios=60000"


def say(workload, metric, value, unit):
    print(POOL, workload, metric, repr(value), unit, sep="\t", flush=True)


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


def activation():
    """The shortest of three times, in which nothing else happened."""
    times = []
    for _ in range(3):
        run("svctl", "deactivate", "tank")
        guest.wait_idle()
        times.append(busy_during(lambda: run("svctl", "activate", "tank")))
    return min(times)


class BigPool(targets.Sv):
    """Without a volume, for restore; it had one, though."""

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
        targets.SvPool.tear_down(self)


def measure_pool(extents, every, dump, fixed):
    """`fixed`: the memory of a pool of no size. Rows are named after the share of partial extents."""
    share = f"partial{100 // every if every else 0}"
    BigPool.mib = extents * 17 // 16 + 4096
    pool = BigPool(POOL)
    empty_rss, empty_time = resident(pool.svd.pid), activation()
    pool.restore(dump)
    memory = pool.show()["kernel_memory_bytes"] - fixed
    say(share, "kernel_memory", memory / extents * TIB / 2**20, "MiB per TiB")
    say(share, "activation", (activation() - empty_time) / extents * 1e6, "s per million extents")
    guest.wait_idle()
    say(share, "svd_rss", (resident(pool.svd.pid) - empty_rss) / extents * TIB / 2**20, "MiB per TiB")
    say(share, "svd_rss_empty", empty_rss / 2**20, "MiB")
    switched, spent = wake_ups(pool.svd.pid), cpu_seconds(pool.svd.pid)
    time.sleep(60)
    say(share, "svd_wake_ups", (wake_ups(pool.svd.pid) - switched) / 60, "per s")
    say(share, "svd_at_rest", (cpu_seconds(pool.svd.pid) - spent) / 60 * 1e6, "us of CPU per s")
    pool.tear_down()


def measure_tib(dump):
    """svd keeps pages of the catalogue up to a limit that smaller pools do not reach: a TiB takes less than four quarters."""
    BigPool.mib = TIB * 17 // 16 + 4096
    pool = BigPool(POOL)
    empty_rss, empty_time = resident(pool.svd.pid), activation()
    pool.restore(dump)
    say("tib", "activation", (activation() - empty_time) / TIB * 1e6, "s per million extents")
    guest.wait_idle()
    say("tib", "svd_rss", (resident(pool.svd.pid) - empty_rss) / 2**20, "MiB per TiB")
    pool.tear_down()


def read_during(device, stamps, action):
    """The seconds of work from a reader's first I/O to its last, between which `action` is done."""
    with guest.running_fio(device, READ, stamps) as reader:
        targets.wait_until(lambda: os.path.exists(guest.STAMPS), 60)
        action()
        reader.stdout.read()
    return guest.busy_ns(1) / 1e9


def measure_fixed():
    BigPool.mib = 4096
    pool = BigPool(POOL)
    memory = pool.show()["kernel_memory_bytes"]
    say("empty", "kernel_memory", memory / 2**20, "MiB")
    pool.tear_down()
    return memory


def measure_checkpoint(stamps):
    """Scattered first writes, and the checkpoint that follows while somebody reads: svd, whose time for it has come, is held
    until then. What the reader pays is the work of all less svd's."""
    pool = targets.make(POOL)
    data, device, pid = guest.fill(pool), pool.fresh(workloads.FRESH), pool.svd.pid
    pool.settle()
    alone = read_during(data, stamps, lambda: None)
    pool.settle()
    before = pool.state()["records"]
    pool.svd.send_signal(signal.SIGSTOP)
    guest.fio(device, f"--bs=4k --rw=randwrite --size={workloads.FRESH} --number_ios={WRITES}")
    time.sleep(40)
    state, spent = pool.state(), cpu_seconds(pid)
    disturbed = read_during(data, stamps, lambda: pool.svd.send_signal(signal.SIGCONT))
    spent = cpu_seconds(pid) - spent
    if pool.state()["tail_seq"] <= state["committed_seq"]:
        raise ValueError("the reader ended before the checkpoint did")
    say("checkpoint", "record", spent / (state["records"] - before) * 1e6, "us of svd's CPU")
    say("checkpoint", "reader", (disturbed - spent) / alone, "times a reader alone")
    pool.tear_down()


def main(stamps, extents, tib, *dumps):
    measure_checkpoint(stamps)
    fixed = measure_fixed()
    for dump in dumps:
        every, _, path = dump.partition("=")
        measure_pool(int(extents), int(every), path, fixed)
    measure_tib(tib)


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/python3
"""In a guest whose clock counts instructions: what a checkpoint costs svd, and who reads or overwrites meanwhile. Prints
lines "target workload metric value unit".

usage: guest_checkpoint.py STAMP_LIBRARY
"""

import os
import sys
import time

import guest
import targets
import workloads
from guest_pool import cpu_seconds, say

WRITES = 16384
USERS = {"reader": "randread", "overwriter": "randwrite"}


def during(device, kind, stamps, action):
    """The seconds of work from fio's first I/O to its last, between which `action` is done."""
    options = f"{workloads.RANDOM_4K}{kind} --size={workloads.MAPPED} --number_ios=60000"
    with guest.running_fio(device, options, stamps) as user:
        targets.wait_until(lambda: os.path.exists(guest.STAMPS), 60)
        action()
        user.stdout.read()
    return guest.busy_ns(1) / 1e9


def measure(pool, data, fresh, name, kind, stamps):
    """svd, whose time for the checkpoint has come, is held until somebody reads or overwrites. What that one pays is the
    work of all less svd's."""
    pid = pool.svd.pid
    pool.settle()
    alone = during(data, kind, stamps, lambda: None)
    pool.settle()
    before = pool.state()["records"]
    pool.hold()
    guest.fio(fresh, f"--bs=4k --rw=randwrite --size={workloads.FRESH} --number_ios={WRITES}")
    time.sleep(40)
    state, spent = pool.state(), cpu_seconds(pid)
    disturbed = during(data, kind, stamps, pool.release)
    spent = cpu_seconds(pid) - spent
    if pool.state()["tail_seq"] <= state["committed_seq"]:
        raise ValueError("it ended before the checkpoint did")
    say("sv", "checkpoint", "record", spent / (state["records"] - before) * 1e6, "us of svd's CPU")
    say("sv", "checkpoint", name, (disturbed - spent) / alone, "times one alone")


def main(stamps):
    pool = targets.make("sv")
    data = guest.fill(pool)
    for name, kind in USERS.items():
        measure(pool, data, pool.fresh(workloads.FRESH), name, kind, stamps)
    pool.tear_down()


if __name__ == "__main__":
    main(*sys.argv[1:])

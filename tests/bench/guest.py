#!/usr/bin/python3
"""Measures targets in a guest, one after the other, and prints lines "target workload metric value", tab between: each
metric as often as it was measured.

usage: guest.py STAMP_LIBRARY REPEATS TARGET[,TARGET...] WORKLOAD[,WORKLOAD...]
"""

import json
import os
import subprocess
import sys
import time

import targets
import workloads

STAMPS = "/tmp/stamps"
SETTLED = 3  # seconds after which what a target does a moment later has been done: sv and thin commit each second


def idle_ns():
    with open("/proc/timer_list", encoding="ascii") as f:
        return next((int(line.split(":")[1].split()[0]) for line in f if "idle_sleeptime" in line), 0)


def wait_idle():
    """Until less than 2 % of half a second is work."""
    for _ in range(100):
        start, slept = time.monotonic_ns(), idle_ns()
        time.sleep(0.5)
        if idle_ns() - slept > 0.98 * (time.monotonic_ns() - start):
            return
    raise TimeoutError("the guest does not become idle")


def fio(device, options, stamps=None):
    command = ["fio", *workloads.COMMON.split(), "--filename=" + device, *options.split()]
    environment = dict(os.environ)
    if stamps:
        if os.path.exists(STAMPS):
            os.unlink(STAMPS)
        environment.update(LD_PRELOAD=stamps, BENCH_STAMPS=STAMPS)
    job, = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)["jobs"]
    return sum(job[kind]["total_ios"] for kind in ("read", "write"))


def busy_ns():
    """Between fio's first and last I/O: the time less the idle time."""
    with open(STAMPS, encoding="ascii") as f:
        stamps = [[int(word) for word in line.split()] for line in f]
    if len(stamps) != 2:
        raise ValueError(f"fio asked {len(stamps)} times for its usage: {stamps}")
    (_, _, start, slept), (_, end, _, slept_then) = stamps
    return end - start - (slept_then - slept)


def fill(target):
    """A volume with data. Written twice: what the first pass still owes is paid before the second, which leaves all of it in
    the disk's cache."""
    device = target.fresh("256m")
    options = f"--bs=1m --rw=write --size={workloads.MAPPED} --io_size={workloads.MAPPED} "
    fio(device, options + "--end_fsync=1")
    target.settle()
    fio(device, options)
    return device


def measure(target, name, device, stamps):
    workload, ios = workloads.ALL[name], workloads.ios(name, target.name)
    target.settle()
    wait_idle()
    before = target.counts()
    done = fio(device, f"{workload.options} --size={workload.size} --number_ios={ios}", stamps)
    if done != ios:
        raise ValueError(f"fio did {done} I/Os instead of {ios}")
    time.sleep(SETTLED)
    after = target.counts()
    yield "instr", busy_ns() / ios
    for key, value in after.items():
        yield key, (value - before[key]) / ios


def run_target(name, wanted, repeats, stamps):
    target = targets.make(name)
    mapped = fill(target) if any(workloads.ALL[w].on == "mapped" for w in wanted) else None
    for workload in sorted(wanted, key=lambda w: workloads.ALL[w].on != "mapped"):
        for _ in range(repeats):
            fresh = workloads.ALL[workload].on == "fresh"
            device = target.fresh(workloads.FRESH) if fresh else mapped
            for metric, value in measure(target, workload, device, stamps):
                print(name, workload, metric, f"{value:.4f}", sep="\t", flush=True)
    target.tear_down()


def main(stamps, repeats, names, wanted):
    for name in names.split(","):
        run_target(name, wanted.split(","), int(repeats), stamps)


if __name__ == "__main__":
    main(*sys.argv[1:])

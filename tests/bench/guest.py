#!/usr/bin/python3
"""Measures targets in a guest, one after the other, and prints lines "target workload metric value", tab between: each
metric as often as it was measured.

usage: guest.py STAMP_LIBRARY TARGET[,TARGET...] WORKLOAD[,WORKLOAD...]
"""

import contextlib
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


def compact_memory():
    """So that taking a page costs the same each time."""
    with open("/proc/sys/vm/compact_memory", "w", encoding="ascii") as f:
        f.write("1")


def wait_idle():
    """Until less than 2 % of half a second is work."""
    for _ in range(100):
        start, slept = time.monotonic_ns(), idle_ns()
        time.sleep(0.5)
        if idle_ns() - slept > 0.98 * (time.monotonic_ns() - start):
            return
    raise TimeoutError("the guest does not become idle")


@contextlib.contextmanager
def running_fio(device, options, stamps=None):
    """fio, which has ended when the block is left; with the library `stamps` it notes in STAMPS when it began and ended."""
    if os.path.exists(STAMPS):
        os.unlink(STAMPS)
    command = ["fio", *workloads.COMMON.split(), "--filename=" + device, *options.split()]
    environment = {**os.environ, **({"LD_PRELOAD": stamps, "BENCH_STAMPS": STAMPS} if stamps else {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        yield process
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def run_fio(device, options, stamps=None):
    """What fio says of its job, or of all as one."""
    with running_fio(device, options, stamps) as process:
        said = process.stdout.read()
    return json.loads(said)["jobs"][0]


def fio(device, options, stamps=None):
    """The number of I/Os."""
    job = run_fio(device, options, stamps)
    return sum(job[kind]["total_ios"] for kind in ("read", "write"))


def busy_ns(jobs):
    """From the first I/O of the first of fio's jobs to the last of the last: the time less the idle time."""
    with open(STAMPS, encoding="ascii") as f:
        stamps = sorted([int(word) for word in line.split()[1:]] for line in f)
    if len(stamps) != 2 * jobs:
        raise ValueError(f"fio asked {len(stamps)} times for its usage: {stamps}")
    _, start, slept = stamps[0]
    end, _, slept_then = stamps[-1]
    return end - start - (slept_then - slept)


def fill(target, size="256m", mapped=workloads.MAPPED):
    """A volume with data."""
    device = target.fresh(size)
    fio(device, f"--bs=1m --rw=write --size={mapped} --io_size={mapped} --end_fsync=1")
    return device


def snapped(target):
    device = fill(target, workloads.SNAPPED, workloads.SNAPPED)
    target.snapshot(device, 1)
    return device


def chained(target, chain):
    device = fill(target)
    blocks = targets.parse_size(workloads.MAPPED) // 4096 // 100
    for number in range(chain.snapshots):
        fio(device, f"{workloads.RANDOM_4K}randwrite --size={workloads.MAPPED} --number_ios={blocks} --end_fsync=1 "
                    f"--randrepeat=0 --randseed={number + 1}")     # other blocks each time: with randrepeat the seed is ignored
        target.snapshot(device, number)
    if chain.at_once:
        target.hold()
    target.settle()
    time.sleep(1)
    wait_idle()     # what svd does for long chains is done, unless it is held
    return device


def measure(target, name, device, stamps):
    workload, each = workloads.ALL[name], workloads.ios(name, target.name)
    ios = each * workload.jobs
    compact_memory()
    wait_idle()
    target.touch_ends()
    target.settle()
    before = target.counts()
    done = fio(device, f"{workload.options} --size={workload.size} --number_ios={each}", stamps)
    if done != ios:
        raise ValueError(f"fio did {done} I/Os instead of {ios}")
    time.sleep(SETTLED)
    after = target.counts()
    yield "instr", busy_ns(workload.jobs) / ios
    for key, value in after.items():
        yield key, (value - before[key]) / ios
    if isinstance(workload.on, workloads.Chain):
        yield from target.chains().items()


def agree(one, other, tolerance):
    return abs(one["instr"] - other["instr"]) <= tolerance * min(one["instr"], other["instr"])


def repeated(measure_once, tolerance):
    """The first two measurements that agree; after four, all of them."""
    done = []
    while len(done) < 4:
        done.append(measure_once())
        for earlier in done[:-1]:
            if agree(earlier, done[-1], tolerance):
                return [earlier, done[-1]]
    return done


def run_target(name, wanted, stamps):
    target = targets.make(name)
    made = {}

    def device_for(on):
        if on == "fresh":
            return target.fresh(workloads.FRESH)
        if on == "snapped":
            return snapped(target)
        if on not in made:
            made[on] = fill(target) if on == "mapped" else chained(target, on)
        return made[on]

    def turn(workload):
        """What has svd stopped comes last."""
        on = workloads.ALL[workload].on
        return (on != "mapped", getattr(on, "at_once", False))

    for workload in sorted(wanted, key=turn):
        def once():
            return dict(measure(target, workload, device_for(workloads.ALL[workload].on), stamps))

        for values in repeated(once, workloads.tolerance(workload, name)):
            for metric, value in values.items():
                print(name, workload, metric, repr(value), sep="\t", flush=True)
    target.tear_down()


def main(stamps, names, wanted):
    for name in names.split(","):
        run_target(name, wanted.split(","), stamps)


if __name__ == "__main__":
    main(*sys.argv[1:])

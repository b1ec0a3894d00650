#!/usr/bin/python3
"""In a guest with two CPUs: random reads of mapped data, devices taking turns, first in one order and then in the other. Prints
lines "target workload metric value": the median of all turns.

usage: guest_realtime.py TURNS jobs             linear and sv, by one job and by two
       guest_realtime.py TURNS range POOLS      linear and sv over 10 GiB and over 10 TiB, mapped at random; POOLS: a file of
                                                JSON, "10g" and "10t": "packed" (carried.py), "mib" of its disk, "extents"
"""

import json
import statistics
import sys

import guest
import targets
import workloads

READ = workloads.RANDOM_4K + "randread --time_based --runtime=1 --ramp_time=0.3"


def measure(device, size, jobs=1):
    """I/Os a second, and how many times the median latency the 99th percentile is."""
    read = guest.run_fio(device, f"{READ} --size={size} --numjobs={jobs}")["read"]
    percentile = read["clat_ns"]["percentile"]
    return read["iops"], percentile["99.000000"] / percentile["50.000000"]


def in_turn(number, keys, measure_one):
    """{key: what was measured}, within seconds; which comes first changes with each turn."""
    return {key: measure_one(key) for key in (keys if number % 2 else list(reversed(keys)))}


def jobs(turns):
    """How much two jobs do more than one, and how much more of that sv keeps than linear."""
    devices = {name: guest.fill(targets.make(name)) for name in ("linear", "sv")}
    keys = [(name, count) for name in devices for count in (1, 2)]
    for number in range(turns):
        done = in_turn(number, keys, lambda key: measure(devices[key[0]], "64m", key[1]))
        scaling = {name: done[name, 2][0] / done[name, 1][0] for name in devices}
        for name in devices:
            yield name, "randread4k", "scaling", scaling[name]
            yield name, "randread4k", "tail", done[name, 1][1]
            yield name, "randread4k", "tail2", done[name, 2][1]
        yield "sv", "randread4k", "scaling_of_linear", scaling["sv"] / scaling["linear"]
        yield "sv", "randread4k", "iops_of_linear", done["sv", 1][0] / done["linear", 1][0]


def over_range(turns, path):
    """How many times fewer reads are done over 10 TiB than over 10 GiB."""
    with open(path, encoding="ascii") as f:
        rows = json.load(f)
    pools = targets.Carried({f"tank{name}": (row["packed"], row["mib"]) for name, row in rows.items()})
    linear = targets.Linear("linear")
    mib = max(row["mib"] for row in rows.values())
    disk = linear.disk(mib)
    linear.volumes = 1
    targets.run("dmsetup", "create", "v1", "--table", f"0 {mib * 2048} linear {disk.dev} 0")
    devices = {("linear", name): "/dev/mapper/v1" for name in rows} | {("sv", name): f"/dev/sv/tank{name}/v1" for name in rows}
    for number in range(turns):
        done = in_turn(number, list(devices), lambda key: measure(devices[key], f"{rows[key[1]]['extents']}m")[0])
        slower = {name: done[name, "10g"] / done[name, "10t"] for name in ("linear", "sv")}
        for name, times in slower.items():
            yield name, "randread4k-10t", "slower_than_10g", times
        yield "sv", "randread4k-10t", "slower_than_linear", slower["sv"] / slower["linear"]
    linear.tear_down()
    pools.tear_down()


def main(turns, what, *rest):
    values = {}
    for target, workload, metric, value in {"jobs": jobs, "range": over_range}[what](int(turns), *rest):
        values.setdefault((target, workload, metric), []).append(value)
    for key, measured in values.items():
        print(*key, f"{statistics.median(measured):.4f}", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/python3
"""In a guest with two CPUs: random reads of mapped data by one job and by two, targets taking turns. Prints lines "target
workload metric value": of medians.

usage: guest_realtime.py TURNS TARGET[,TARGET...]
"""

import statistics
import sys

import guest
import targets

READ = "--bs=4k --norandommap --rw=randread --size=64m --time_based --runtime=2 --ramp_time=0.3 --numjobs="


def measure(device, jobs):
    """I/Os a second, and how many times the median latency the 99th percentile is."""
    read = guest.run_fio(device, READ + str(jobs))["read"]
    percentile = read["clat_ns"]["percentile"]
    return read["iops"], percentile["99.000000"] / percentile["50.000000"]


def main(turns, names):
    names = names.split(",")
    devices = {name: guest.fill(targets.make(name)) for name in names}
    measured = {(name, jobs): [] for name in names for jobs in (1, 2)}
    for _ in range(int(turns)):
        for (name, jobs), values in measured.items():
            values.append(measure(devices[name], jobs))
    iops, tails = ({key: statistics.median(v[i] for v in values) for key, values in measured.items()} for i in (0, 1))
    for name in names:
        rows = {"scaling": iops[name, 2] / iops[name, 1], "tail": tails[name, 1], "tail2": tails[name, 2],
                "iops_of_" + names[0]: iops[name, 1] / iops[names[0], 1]}
        for metric, value in rows.items():
            print(name, "randread4k", metric, f"{value:.4f}", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])

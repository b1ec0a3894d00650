#!/usr/bin/python3
"""In a guest with two CPUs: random reads of mapped data by one job and by two, targets taking turns. Prints lines
"target workload metric value": the median of all turns.

usage: guest_realtime.py TURNS TARGET[,TARGET...]
"""

import statistics
import sys

import guest
import targets

READ = "--bs=4k --norandommap --rw=randread --size=64m --time_based --runtime=1 --ramp_time=0.3 --numjobs="


def measure(device, jobs):
    """I/Os a second, and how many times the median latency the 99th percentile is."""
    read = guest.run_fio(device, READ + str(jobs))["read"]
    percentile = read["clat_ns"]["percentile"]
    return read["iops"], percentile["99.000000"] / percentile["50.000000"]


def turn(devices):
    """{(target, metric): value}; what is compared was measured within seconds."""
    values = {}
    for name, device in devices.items():
        (one, tail), (two, tail2) = measure(device, 1), measure(device, 2)
        values.update({(name, "iops"): one, (name, "scaling"): two / one, (name, "tail"): tail, (name, "tail2"): tail2})
    first = next(iter(devices))
    for name in devices:
        for metric in ("iops", "scaling"):
            values[name, f"{metric}_of_{first}"] = values[name, metric] / values[first, metric]
    return {key: value for key, value in values.items() if key[1] != "iops"}


def main(turns, names):
    devices = {name: guest.fill(targets.make(name)) for name in names.split(",")}
    measured = [turn(devices) for _ in range(int(turns))]
    for name, metric in measured[0]:
        median = statistics.median(values[name, metric] for values in measured)
        print(name, "randread4k", metric, f"{median:.4f}", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])

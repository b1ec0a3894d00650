"""The figures that are to be reached, each with what it is measured by."""

import collections
import math

import workloads

# value and limit: functions of the results
Figure = collections.namedtuple("Figure", "text value limit unit")

INSTR = "instructions"
MIB = 1 << 20


def added(text, workload, limit):
    return Figure(text + ", added to raw", lambda r: r.added("sv", workload), limit, INSTR)


def times_linear(factor, workload):
    return lambda r: factor * r.added("linear", workload)


def times_libaio(factor, workload):
    return lambda r: factor * r.added("sv", workload)


def fixed(number):
    return lambda r: number


def whole(text, workload, limit):
    return Figure(text, lambda r: r.get("sv", workload), limit, INSTR)


def count(text, workload, metric, limit, value=None):
    return Figure(text, value or (lambda r: r.get("sv", workload, metric)), fixed(limit), "per I/O")


def space(text, workload):
    """No more than thin64; but the fragments of the last slot that was begun may not all be in use yet."""
    slot = MIB / workloads.ALL[workload].ios

    def limit(r):
        return math.ceil(r.get("thin64", workload, "space_bytes") / slot) * slot
    return Figure(text + ", in whole slots", lambda r: r.get("sv", workload, "space_bytes"), limit, "bytes")


def data_writes(r):
    """What is no journal, in blocks."""
    return (r.get("sv", "firstwrite4k", "write_sectors") * 512 - r.get("sv", "firstwrite4k", "journal_bytes")) / 4096


def of_pool(text, workload, metric, limit, unit):
    return Figure(text, lambda r: r.get("sv", workload, metric, "pool"), fixed(limit), unit)


def added_of_pool(workload, row):
    return lambda r: r.get("sv", f"{workload}-{row}", "instr", "pool") - r.get("raw", f"{workload}-{row}", "instr", "pool")


def times_10g(workload, row):
    return Figure(f"{workload} on {row}, added to raw; at most 1.1 times what 10 GiB add", added_of_pool(workload, row),
                  lambda r: 1.1 * added_of_pool(workload, "10g")(r), INSTR)


def gain_of_linear(r):
    return 1 / r.get("sv", "randread4k", "scaling_of_linear", "realtime")


FIGURES = [
    added("4 KiB random read of mapped data, libaio", "randread4k", times_linear(1.25, "randread4k")),
    added("4 KiB random overwrite, libaio", "overwrite4k", times_linear(1.25, "overwrite4k")),
    added("4 KiB random read, io_uring", "randread4k-uring", times_libaio(1.05, "randread4k")),
    added("4 KiB random overwrite, io_uring", "overwrite4k-uring", times_libaio(1.05, "overwrite4k")),
    added("1 MiB sequential read", "seqread1m", fixed(2800)),
    added("1 MiB sequential write", "seqwrite1m", fixed(2800)),
    count("device reads of a 1 MiB read", "seqread1m", "reads", 1),
    count("device writes of a 1 MiB write", "seqwrite1m", "writes", 1),
    added("1 MiB sequential read across extents", "seqread1m-512k", fixed(2800)),
    added("1 MiB sequential write across extents", "seqwrite1m-512k", fixed(2800)),
    count("device reads of a 1 MiB read across extents", "seqread1m-512k", "reads", 1),
    count("device writes of a 1 MiB write across extents", "seqwrite1m-512k", "writes", 1),
    whole("4 KiB random first write, whole cost", "firstwrite4k", fixed(22000)),
    count("data writes of a first write", "firstwrite4k", "writes", 1, data_writes),
    count("journal bytes of a first write", "firstwrite4k", "journal_bytes", 80),
    space("space of a first write, of what thin64 takes", "firstwrite4k"),
    whole("4 KiB first write and fsync, QD 1", "firstwrite4k-fsync", fixed(60000)),
    count("its journal sectors", "firstwrite4k-fsync", "write_sectors", 16,
          lambda r: r.get("sv", "firstwrite4k-fsync", "write_sectors") - 8),
    count("its flushes", "firstwrite4k-fsync", "flushes", 2),
    count("journal writes of an fsync, 8 at once", "firstwrite4k-fsync8", "journal_writes", 0.5),
    whole("4 KiB random write after a snapshot, whole cost", "snapwrite4k", fixed(25000)),
    count("sectors that it reads", "snapwrite4k", "read_sectors", 0),
    count("sectors that it writes, 8 of them its own", "snapwrite4k", "write_sectors", 8.8),
    space("its space, of what thin64 takes", "snapwrite4k"),
    *[Figure(f"4 KiB random read through {n} snapshots, of what it costs without", lambda r, n=n: r.get("sv", f"snapread4k-{n}"),
             lambda r: 1.05 * r.get("sv", "randread4k"), INSTR) for n in (1, 8, 64)],
    Figure("the same through 64, at once", lambda r: r.get("sv", "snapread4k-64-at-once"), lambda r: 1.25 * r.get("sv", "randread4k"), INSTR),
    whole("1 MiB sequential first write", "firstwrite1m", lambda r: 1.1 * r.get("linear", "firstwrite1m")),
    Figure("linear's gain of 2 jobs on 2 CPUs, over sv's", gain_of_linear, fixed(1 / 0.97), "ratio"),
    Figure("slowdown over 10 TiB on 2 CPUs, of linear's", lambda r: r.get("sv", "randread4k-10t", "slower_than_linear", "realtime"),
           fixed(1.3), "ratio"),
    *[times_10g(workload, row) for row in ("1t", "10t") for workload in ("randread4k", "overwrite4k")],
    # A byte for each of the 2^20 extents of a TiB is 1 MiB.
    *[of_pool(f"kernel memory, {row}: 20 MiB per TiB{more}", row, "kernel_memory", 20 + bytes_each, "MiB per TiB")
      for row, bytes_each, more in (("partial0", 0, ""), ("1t", 0, ""), ("10t", 0, ""), ("partial10", 6.4, " and 64 bytes for each that is partial"),
                                    ("partial100", 64, " and 64 bytes for each"), ("fragments", 192, " and 192 bytes for each"))],
    *[of_pool(f"activation, {row}", row, "activation", 0.5, "s per million extents") for row in ("1t", "10t")],
    *[of_pool(f"first reads after it, {row}", row, "first_reads", 1.02, "times later ones") for row in ("1t", "10t")],
    of_pool("checkpoint: svd's CPU for a record", "checkpoint", "record", 5, "us"),
    *[of_pool(f"and {who} meanwhile", "checkpoint", who, 1.02, "times") for who in ("reader", "overwriter")],
    of_pool("svd: resident, more than with a small pool, 1t", "1t", "svd_rss_added", 20, "MiB per TiB"),
    of_pool("svd: resident, 10t", "10t", "svd_rss", 20, "MiB per TiB"),
    of_pool("svd at rest: wake-ups", "10t", "svd_wake_ups", 1, "per s"),
]


def judge(results):
    """(text, value, limit, unit, reached) of each figure that was measured."""
    for figure in FIGURES:
        try:
            value, limit = figure.value(results), figure.limit(results)
        except KeyError:
            continue
        yield figure.text, value, limit, figure.unit, value <= limit * (1 + 1e-6)


def shortcomings(results, all_of_them):
    """Of the figures those that were missed; and, of all of them, those that were not measured."""
    judged = {text: reached for text, _, _, _, reached in judge(results)}
    for figure in FIGURES:
        if figure.text not in judged and all_of_them:
            yield f"not measured: {figure.text}"
        elif not judged.get(figure.text, True):
            yield f"missed: {figure.text}"

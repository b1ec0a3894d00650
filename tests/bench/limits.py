"""The figures that are to be reached, each with what it is measured by. One whose measurement is missing is left out."""

import collections

# value and limit: functions of the results
Figure = collections.namedtuple("Figure", "text value limit unit")

INSTR = "instructions"


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


def data_writes(r):
    """What is no journal, in blocks."""
    return (r.get("sv", "firstwrite4k", "write_sectors") * 512 - r.get("sv", "firstwrite4k", "journal_bytes")) / 4096


def of_pool(text, workload, metric, limit, unit):
    return Figure(text, lambda r: r.get("sv", workload, metric, "pool"), fixed(limit), unit)


def partial_bytes(r):
    """1 MiB for each of the 2^20 extents of a TiB is a byte each."""
    return r.get("sv", "partial100", "kernel_memory", "pool") - r.get("sv", "partial0", "kernel_memory", "pool")


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
    whole("4 KiB random first write, whole cost", "firstwrite4k", fixed(22000)),
    count("data writes of a first write", "firstwrite4k", "writes", 1, data_writes),
    count("journal bytes of a first write", "firstwrite4k", "journal_bytes", 80),
    Figure("space of a first write, of what thin64 takes", lambda r: r.get("sv", "firstwrite4k", "space_bytes"),
           lambda r: r.get("thin64", "firstwrite4k", "space_bytes"), "bytes"),
    whole("4 KiB first write and fsync, QD 1", "firstwrite4k-fsync", fixed(60000)),
    count("its journal sectors", "firstwrite4k-fsync", "write_sectors", 16,
          lambda r: r.get("sv", "firstwrite4k-fsync", "write_sectors") - 8),
    count("its flushes", "firstwrite4k-fsync", "flushes", 2),
    count("journal writes of an fsync, 8 at once", "firstwrite4k-fsync8", "journal_writes", 0.5),
    whole("4 KiB random write after a snapshot, whole cost", "snapwrite4k", fixed(25000)),
    count("sectors that it reads", "snapwrite4k", "read_sectors", 0),
    count("sectors that it writes, 8 of them its own", "snapwrite4k", "write_sectors", 8.8),
    Figure("its space, of what thin64 takes", lambda r: r.get("sv", "snapwrite4k", "space_bytes"),
           lambda r: r.get("thin64", "snapwrite4k", "space_bytes"), "bytes"),
    *[Figure(f"4 KiB random read through {n} snapshots, of what it costs without", lambda r, n=n: r.get("sv", f"snapread4k-{n}"),
             lambda r: 1.05 * r.get("sv", "randread4k"), INSTR) for n in (1, 8, 64)],
    whole("1 MiB sequential first write", "firstwrite1m", lambda r: 1.1 * r.get("linear", "firstwrite1m")),
    Figure("linear's gain of 2 jobs on 2 CPUs, over sv's", gain_of_linear, fixed(1 / 0.97), "ratio"),
    of_pool("kernel memory of full extents", "partial0", "kernel_memory", 20, "MiB per TiB"),
    Figure("and of each that is partial", partial_bytes, fixed(64), "bytes"),
    of_pool("activation", "tib", "activation", 0.5, "s per million extents"),
    of_pool("checkpoint: svd's CPU for a record", "checkpoint", "record", 5, "us"),
    of_pool("and a reader meanwhile", "checkpoint", "reader", 1.02, "times"),
    of_pool("svd: resident", "tib", "svd_rss", 20, "MiB per TiB"),
    of_pool("svd at rest: wake-ups", "partial0", "svd_wake_ups", 1, "per s"),
]


def judge(results):
    """(text, value, limit, unit, reached) of each figure that was measured."""
    for figure in FIGURES:
        try:
            value, limit = figure.value(results), figure.limit(results)
        except KeyError:
            continue
        yield figure.text, value, limit, figure.unit, value <= limit * (1 + 1e-6)

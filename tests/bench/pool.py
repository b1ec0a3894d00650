"""What a pool costs beside its I/O: memory, activation, checkpoints, svd at rest; and random I/O on one of 10 TiB."""

import collections
import json
import time

import carried
import icount

SUITE = "pool"
QUARTER, TIB = 1 << 18, 1 << 20  # extents

# options: of make_dump.py. random: is read and overwritten at random.
Row = collections.namedtuple("Row", "name extents options volumes random", defaults=(4, False))
ROWS = [Row("partial0", QUARTER, ["0"]), Row("partial10", QUARTER, ["10"]), Row("partial100", QUARTER, ["1"]),
        Row("fragments", QUARTER, ["1", "--fragments"]), Row("10g", 10 << 10, ["0"], 1, True),
        Row("1t", TIB, ["0"], 1, True), Row("10t", 10 * TIB, ["0"], 1, True)]


def carry(row, pool="tank"):
    """What guest_pool.py wants to know of a pool."""
    options = [*row.options, "--volumes", str(row.volumes)]
    return {"name": row.name, "extents": row.extents, "volumes": row.volumes, "random": row.random,
            "mib": carried.disk_mib(row.extents), "packed": carried.packed(pool, row.extents, row.extents, *options)}


def carry_small():
    return {"name": "small", "mib": carried.disk_mib(0), "packed": carried.packed("tank", 0, 0, "0")}


def measure(bench, results, rows=None):
    """In one guest after another, so that a pool of 10 TiB has the memory for itself."""
    chosen = [row for row in ROWS if rows is None or row.name in rows]
    run(bench, results, "checkpoint", "guest_checkpoint.py", None)
    run(bench, results, "small pools", "guest_pool.py", [row for row in chosen if row.extents < 10 * TIB])
    run(bench, results, "10 TiB", "guest_pool.py", [row for row in chosen if row.extents >= 10 * TIB])


def run(bench, results, what, script, rows):
    started = time.monotonic()
    if rows is not None and not rows:
        return
    pools = json.dumps([carry_small(), *map(carry, rows or [])])
    with icount.boot(bench, cmdline=icount.WORDS) as guest:
        icount.prepare(guest)
        names = guest.put("pools.json", pools) if rows else ""
        out = guest.run(f"exec python3 {icount.HERE}/{script} {icount.library('stamp')} {names}", timeout=2400)
    for line in out.splitlines():
        results.add(SUITE, *line.split("\t"))
    print(f"measured {SUITE}: {what} ({time.monotonic() - started:.0f} s)", flush=True)

"""Real time on two CPUs. The machine may be busy with other things, so linear and sv take turns, and only ratios of what
was measured within seconds count: their medians."""

import json
import time

import icount
import pool

SUITE = "realtime"
TURNS = {"jobs": 30, "range": 16}


def measure(bench, results):
    rows = {row.name: pool.carry(row, "tank" + row.name) for row in pool.ROWS if row.name in ("10g", "10t")}
    for what, turns in TURNS.items():
        started = time.monotonic()
        with bench.boot(cpus=2, mem="6G", boot_timeout=300) as guest:
            icount.prepare(guest)
            rest = guest.put("pools.json", json.dumps(rows)) if what == "range" else ""
            out = guest.run(f"exec python3 {icount.HERE}/guest_realtime.py {turns} {what} {rest}", timeout=1800)
        for line in out.splitlines():
            results.add(SUITE, *line.split("\t"), "ratio")
        print(f"measured {SUITE}: {what} ({time.monotonic() - started:.0f} s)", flush=True)

"""Real time on two CPUs. The machine may be busy with other things, so linear and sv take turns, and only ratios of what
was measured within seconds count: their medians."""

import time

import icount

SUITE = "realtime"
TARGETS = ["linear", "sv"]
TURNS = 9


def measure(bench, results):
    started = time.monotonic()
    with bench.boot(cpus=2, mem="4G", boot_timeout=300) as guest:
        icount.prepare(guest)
        out = guest.run(f"exec python3 {icount.HERE}/guest_realtime.py {TURNS} {','.join(TARGETS)}", timeout=1200)
    for line in out.splitlines():
        results.add(SUITE, *line.split("\t"), "ratio")
    print(f"measured {SUITE}: {', '.join(TARGETS)} ({time.monotonic() - started:.0f} s)", flush=True)

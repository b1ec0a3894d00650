"""What a pool costs beside its I/O: memory, activation, checkpoints, svd at rest."""

import os
import subprocess
import sys
import time

import icount
import vm

SUITE = "pool"
EXTENTS = 1 << 18
EVERY = [0, 10, 1]  # none, 10 % and all of them are partial


def dump_of(guest, extents, every, name):
    """A text for svctl restore; its path in the guest."""
    make = os.path.join(vm.REPO, "tests/support/make_dump.py")
    text = subprocess.run([sys.executable, make, str(extents), "1", str(extents), str(every)], check=True,
                          stdout=subprocess.PIPE).stdout
    return guest.put(name, text)


def measure(bench, results, extents=EXTENTS):
    started = time.monotonic()
    with icount.boot(bench) as guest:
        icount.prepare(guest)
        dumps = [f"{every}={dump_of(guest, extents, every, f'dump{every}')}" for every in EVERY]
        tib = dump_of(guest, 1 << 20, 0, "tib")
        out = guest.run(f"exec python3 {icount.HERE}/guest_pool.py {icount.library('stamp')} {extents} {tib} {' '.join(dumps)}",
                        timeout=2400)
    for line in out.splitlines():
        results.add(SUITE, *line.split("\t"))
    print(f"measured {SUITE} ({time.monotonic() - started:.0f} s)", flush=True)

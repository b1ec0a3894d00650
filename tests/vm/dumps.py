"""Dumps of pools with many extents: what a job that lasts restores."""

import subprocess

import vm

WIDE_EXTENTS = 200000
WIDE_SIZE = f"{WIDE_EXTENTS // 1024 + 20}G"  # of the disk of a pool that has room for them


def put_wide(guest):
    """As /share/wide: of one volume."""
    return guest.put("wide", subprocess.run([f"{vm.REPO}/tests/support/make_dump.py", str(WIDE_EXTENTS), "1", str(WIDE_EXTENTS)],
                                            stdout=subprocess.PIPE, check=True).stdout)


# begin_restore FILE: begins to restore it into pool wide, in the background, as $client; its output is in /tmp/restored.
BEGIN_RESTORE = """is_restoring() { svctl jobs -H -o what,pool,state | grep -qE 'restore.wide.running'; }
begin_restore() { svctl restore wide $1 > /tmp/restored 2>&1 & client=$!
for i in $(seq 300); do is_restoring && return; kill -0 $client; sleep 0.1; done; }
"""

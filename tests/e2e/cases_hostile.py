"""Clients that mean harm, and what becomes of svd when those it relies on go."""

import json
import os
import signal
import socket
import subprocess

import harness


def test_reader_of_stderr_that_goes_does_not_take_svd_along(host):
    """As in `svd --sim | less`, or when a supervisor that reads the log dies."""
    reader, writer = os.pipe()
    log, host.log = host.log, os.fdopen(writer, "ab")
    host.used_pool()
    os.close(reader)
    with host.unchanged():
        host.refused(2, "resize-volume", "tank/v", "--size", "1M")   # is logged
        host.svctl("list")
    host.stop()
    host.log.close()
    host.log = log


def test_deeply_nested_messages_are_refused(host):
    """Copied by recursion, half a million levels are more than svd's stack."""
    host.used_pool()
    with host.unchanged():
        for levels in (520000, 17):
            with host.connect() as s:
                text = b"[" * (levels - 2) + b"]" * (levels - 2)
                s.sendall(b'{"method": "io.svctl.List", "parameters": {"x": ' + text + b"}}\0")
                reply = json.loads(harness.receive(s))
                assert reply["error"] == "io.svctl.BadMessage" and "nested" in reply["parameters"]["message"], reply


def test_job_asked_for_while_svd_stops_is_refused(host):
    """By a client that connected before, and is looked at once svd has been told to stop: nobody would carry it on."""
    extents, members = 100000, 4
    slots = extents // members
    with open(f"{host.dir}/text", "wb") as out:
        subprocess.run([f"{harness.ROOT}/tests/support/make_dump.py", str(extents), str(members), str(slots)], check=True, stdout=out)
    host.start()
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(host.disk(f"d{i}", slots + 16384) for i in range(members)))
    before = host.dump()
    memory = os.memfd_create("text", os.MFD_ALLOW_SEALING)
    with open(f"{host.dir}/text", "rb") as f:
        os.sendfile(memory, f.fileno(), 0, os.path.getsize(f"{host.dir}/text"))
    harness.seal(memory)
    host.wait_idle()        # so that it sees the client and the signal at once
    os.kill(host.svd.pid, signal.SIGSTOP)
    with host.connect() as s:
        socket.send_fds(s, [b'{"method": "io.svctl.Restore", "parameters": {"pool": "tank", "fd": 0}}\0'], [memory])
        os.kill(host.svd.pid, signal.SIGTERM)
        os.kill(host.svd.pid, signal.SIGCONT)
        reply = json.loads(harness.receive(s))
    os.close(memory)
    assert reply["error"] == "io.svctl.Busy" and "svd is being stopped" in reply["parameters"]["message"], reply
    assert host.svd.wait(20) == 0
    host.start()
    assert [line for line in host.dump().splitlines() if not line.startswith("journal")] == \
        [line for line in before.splitlines() if not line.startswith("journal")]
    host.svctl("restore", "tank", f"{host.dir}/text")

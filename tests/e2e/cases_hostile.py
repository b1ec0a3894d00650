"""Clients that mean harm, and what becomes of svd when those it relies on go."""

import json
import os

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

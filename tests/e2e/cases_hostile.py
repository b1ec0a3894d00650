"""Clients that mean harm, and what becomes of svd when those it relies on go."""

import os


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

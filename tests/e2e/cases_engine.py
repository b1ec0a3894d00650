"""What svd remembers, and what it forgets: over scans, and over restarts of its own."""

import os


def problems(host, pool="tank"):
    return [p["id"] for p in host.json("show", pool)["problems"]]


def test_damaged_label_is_forgotten_with_its_device(host):
    """It was reported for ever, also once another disk stood in its place."""
    host.pool()
    bad = host.disk("bad")
    with open(bad, "r+b") as f:
        f.write(b"svctl\0\r\n" + os.urandom(64))
    known = f"{host.dir}/devices"
    with open(known, encoding="utf-8") as f:
        devices = f.read()
    with open(known, "a", encoding="utf-8") as f:
        f.write(bad + "\n")
    assert bad in host.svctl("scan")
    assert bad in host.svctl("status")
    with open(known, "w", encoding="utf-8") as f:   # as sysfs does not list what has gone
        f.write(devices)
    assert bad not in host.svctl("scan")
    assert bad not in host.svctl("status")

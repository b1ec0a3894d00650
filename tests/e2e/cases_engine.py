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


def test_deactivated_pool_stays_down_until_it_is_activated(host):
    """Over restarts of svd, and while its devices are away: it came up by itself."""
    disks = host.used_pool()
    before = host.dump()

    def state():
        return [pool["state"] for pool in host.json("list")["pools"]]

    host.svctl("deactivate", "tank")
    for end in (host.stop, host.kill):
        end()
        host.start()
        assert "down" in host.svctl("scan") and state() == ["down"]
    for disk in disks:
        os.rename(disk, disk + ".away")
    host.svctl("scan")
    assert state() == []
    for disk in disks:
        os.rename(disk + ".away", disk)
    host.svctl("scan")
    assert state() == ["down"]
    os.rename(disks[0], disks[0] + ".away")
    host.refused(3, "activate", "tank")
    os.rename(disks[0] + ".away", disks[0])
    host.svctl("scan")      # a command that failed has changed nothing
    assert state() == ["down"]
    host.svctl("activate", "tank")
    host.stop()
    host.start()
    assert state() == ["active"] and host.dump() == before
    host.svctl("deactivate", "tank")
    host.svctl("export-pool", "tank")
    host.svctl("import-pool", "tank")
    host.svctl("deactivate", "tank")
    host.svctl("delete-pool", "tank", "--yes")
    assert not [name for name in os.listdir(host.dir) if name.startswith("down-")]

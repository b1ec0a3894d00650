"""What svd remembers, and what it forgets: over scans, and over restarts of its own."""

import os

import cases_jobs
import harness


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


def test_unreadable_volumes_are_told_when_the_catalogue_cannot_be_read(host):
    """A status, and each scrape, read the whole map of a volume that lacks a member, and failed with it."""
    extents = 6000      # one to a page of the map: more than SQLite keeps
    disks = [host.disk(name, 32 << 10) for name in ("a", "b")]
    host.start()
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(disks))
    text = f"{host.dir}/text"
    with open(text, "w", encoding="ascii") as f:
        f.write(f"svctl-dump 1\nvolume 1 v {extents * 1008 << 20} active 1 1 0 0 1\n")
        f.writelines(f"map 1 {i * 1008} 1 {i % 2} {i // 2}\n" for i in range(extents))
        f.write("end\n")
    host.svctl("restore", "tank", text)
    host.stop()
    os.rename(disks[1], disks[1] + ".away")
    host.start()
    host.svctl("activate", "tank", "--read-only", "--missing")
    os.truncate(disks[0], 0)
    host.checked = False
    for _ in range(2):
        assert f"volume v: {extents // 2} of {extents} extents cannot be read" in host.svctl("status")
    assert "svctl_problem" in host.svctl("metrics")


def test_check_needs_no_memory_for_what_it_compares(host):
    """It kept all extents, and each volume's map, twice; svd's memory is locked."""
    text = cases_jobs.big_text(host)
    cases_jobs.big_pool(host)
    host.svctl("restore", "tank", text)
    host.stop()
    host.start(**harness.MEASURED)

    def memory(what):
        with open(f"/proc/{host.svd.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) // 1024 for line in f if line.startswith(what + ":"))

    with open(f"/proc/{host.svd.pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")    # the peak begins anew
    before = memory("VmRSS")
    host.svctl("check", "tank")
    more = memory("VmHWM") - before
    print(f"     check of {cases_jobs.EXTENTS} extents took {more} MiB above {before}")
    assert more < 25, more

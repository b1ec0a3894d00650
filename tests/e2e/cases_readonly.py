"""activate --read-only [--missing]: nothing is written, what is there is read, the rest is an error and is listed."""

import hashlib
import itertools
import os

import harness

MIB = 1 << 20
EXTENTS = 140


def sums(paths):
    return {path: hashlib.sha256(open(path, "rb").read()).hexdigest() for path in paths if os.path.exists(path)}


def block(index):
    return bytes([index + 1]) * 4096


def hide(disk):
    os.rename(disk, disk + ".away")


def bring_back(disk):
    os.rename(disk + ".away", disk)


def striped(host):
    """A pool of three members of one tier, one block in each of 140 extents, and svd killed with a full journal."""
    disks = [host.disk(name, 64) for name in ("a", "b", "c")]
    host.start()
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(disks))
    host.svctl("create-volume", "tank/v", "--size", "200M")
    host.svctl("create-volume", "tank/doomed", "--size", "200M")
    for index in range(EXTENTS // 2):
        host.write("tank/v", index * MIB, block(index).ljust(harness.SLOT, b"\0"))
    host.write("tank/doomed", 0, block(0))
    host.flush("tank/v")
    host.checkpoint("tank/v")
    for index in range(EXTENTS // 2, EXTENTS):
        host.write("tank/v", index * MIB, block(index).ljust(harness.SLOT, b"\0"))
    host.flush("tank/v")
    host.kill()
    return disks


def where(dump):
    """member of each index of v, by a dump."""
    members = {}
    for words in (line.split() for line in dump.splitlines()):
        if words[:2] == ["map", "1"]:
            members.update((i, int(words[4])) for i in range(int(words[2]), int(words[2]) + int(words[3])))
    return members


def start_down(host, gone):
    """svd with the pool known, down, and to stay so."""
    hide(gone)
    host.start()
    host.svctl("deactivate", "tank")
    bring_back(gone)


def read_all(host, lost=()):
    for index in range(EXTENTS):
        try:
            assert host.read("tank/v", index * MIB, 4096) == block(index), index
            assert index not in lost, index
        except harness.Refused as refused:
            assert index in lost and refused.code == 1 and "input/output error" in refused.text, (index, refused)
    assert host.read("tank/v", 190 * MIB, 4096) == bytes(4096)


def refuses_changes(host):
    for words in (("create-volume", "tank/w", "--size", "1M"), ("resize-volume", "tank/v", "--size", "1G"),
                  ("rename-volume", "tank/v", "w"), ("delete-volume", "tank/v", "--yes"), ("delete-pool", "tank", "--yes"),
                  ("add-device", "tank", f"t={host.disk('more')}"), ("restore", "tank", "/dev/null")):
        host.refused(4, *words, says="read-only")
    try:
        host.write("tank/v", 0, block(7))
        raise AssertionError("a read-only pool was written to")
    except harness.Refused as refused:
        assert refused.code == 4, refused


def test_read_only_activation_writes_nothing(host):
    disks = striped(host)
    host.start(SVD_KILL_AT="delete-volume-in-catalogue")
    host.refused(20, "delete-volume", "tank/doomed", "--yes")
    host.wait_killed()
    with open(disks[2], "r+b") as f:
        f.write(bytes(4096))
    before = sums(disks)
    start_down(host, disks[0])
    host.svctl("activate", "tank", "--read-only")
    pool = host.json("list")["pools"][0]
    assert pool["state"] == "read-only" and not pool["problems"], pool
    read_all(host)
    host.flush("tank/v")
    refuses_changes(host)
    host.svctl("check", "tank")
    dump = host.svctl("dump", "tank")
    assert len(where(dump)) == EXTENTS
    host.refused(5, "activate", "tank", says="read-only")
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank", "--read-only", "--missing")
    assert host.svctl("dump", "tank") == dump
    host.stop()
    assert sums(disks) == before
    host.start()
    read_all(host)
    host.svctl("check", "tank")
    assert sums(disks) != before  # the label, at least


def test_missing_member_is_read_around(host):
    disks = striped(host)
    host.start()
    members = where(host.svctl("dump", "tank"))
    assert len(members) == EXTENTS and set(members.values()) == {0, 1, 2}, members
    host.stop()
    before = sums(disks)
    for gone in range(3):
        lost = {index for index, member in members.items() if member == gone}
        hide(disks[gone])
        host.start()
        host.refused(3, "activate", "tank", says="--read-only --missing")
        host.refused(3, "activate", "tank", "--read-only", says=f"member {gone} of 3 is missing")
        host.refused(2, "activate", "tank", "--missing", says="goes with --read-only")
        said = host.svctl("activate", "tank", "--read-only", "--missing")
        assert f"member {gone} of 3 is missing" in said, said
        assert f"volume v: {len(lost)} of {EXTENTS} extents cannot be read" in said, said
        read_all(host, lost)
        refuses_changes(host)
        host.svctl("check", "tank")
        shown = host.json("show", "tank/v")
        ranges = [(r["offset"] // MIB, r["length"] // MIB) for r in shown["damaged"]]
        assert {i for first, n in ranges for i in range(first, first + n)} == lost and shown["damaged_extents"] == len(lost)
        devices = host.json("show", "tank")["devices"]
        assert [d["member"] for d in devices if d.get("missing")] == [gone], devices
        doomed = host.json("show", "tank/doomed")["damaged_extents"]
        assert host.svctl("status").count("problem:") == 2 + doomed <= 3
        assert host.codes() == ["SV-DATA-UNREADABLE"] * (1 + doomed) + ["SV-MEMBER-MISSING"]
        # Back, but only deactivate and activate take it.
        bring_back(disks[gone])
        host.svctl("scan")
        assert host.json("list")["pools"][0]["state"] == "read-only"
        host.svctl("deactivate", "tank")
        assert sums(disks) == before
        host.svctl("activate", "tank", "--read-only", "--missing")
        assert host.json("list")["pools"][0]["problems"] == []
        read_all(host)
        host.stop()
        assert sums(disks) == before
    host.start()
    read_all(host)
    host.write("tank/v", 0, block(0), fua=True)
    host.svctl("check", "tank")


def test_journal_and_catalogue_are_needed(host):
    disks = striped(host)
    for pair in itertools.combinations(disks, 2):
        for disk in pair:
            hide(disk)
        host.start()
        if disks[2] in pair:
            host.svctl("activate", "tank", "--read-only", "--missing")
            host.svctl("check", "tank")
        else:
            host.refused(3, "activate", "tank", "--read-only", "--missing", says="catalogue")
        host.stop()
        for disk in pair:
            bring_back(disk)
    # The journal is in the fastest tier alone.
    fast, slow = host.disk("fast", 64), host.disk("slow", 64)
    host.start()
    host.svctl("create-pool", "other", "--tier", f"f={fast}", "--tier", f"s={slow}")
    host.stop()
    hide(fast)
    host.start()
    host.refused(3, "activate", "other", "--read-only", "--missing", says="journal")

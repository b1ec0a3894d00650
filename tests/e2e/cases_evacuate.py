"""Devices that are emptied while they are used."""

import os
import time

import harness

MIB = 1 << 20


def devices(host):
    return {d["path"]: d for d in host.json("show", "tank")["devices"]}


def state(host, disk):
    rows = [line.split("\t") for line in host.svctl("list", "-H", "-t", "device", "-o", "name,state,used").splitlines()]
    return next((row[1], int(row[2])) for row in rows if row[0] == disk)


def wait_empty(host, disk, seconds=30):
    deadline = time.monotonic() + seconds
    while state(host, disk) != ("empty", 0):
        assert time.monotonic() < deadline, (state(host, disk), host.svctl("status"))
        time.sleep(0.1)


def fill(host, volume, at):
    """A whole extent, in pieces that take no fragments."""
    for quarter in range(4):
        host.write(volume, at * MIB + quarter * harness.SLOT, os.urandom(harness.SLOT))


def data(host):
    return [host.read("tank/v", at * MIB, MIB) for at in range(64)]


def test_device_is_emptied_while_it_is_used(host):
    fast, slow1, slow2 = host.used_pool()
    for i in range(20):
        fill(host, "tank/v", i * 3 + 1)
    host.svctl("create-snapshot", "tank/v@one")
    host.write("tank/v", 3 * MIB + 4096, os.urandom(4096))
    host.flush("tank/v")
    before, size = data(host), host.json("list")["pools"][0]["size"]
    assert state(host, fast)[0] == "present" and state(host, fast)[1] > 20 * MIB
    assert "nothing new is put on" in host.svctl("evacuate-device", "tank", fast)
    wait_empty(host, fast)
    assert data(host) == before
    assert host.json("list")["pools"][0]["size"] == size - devices(host)[fast]["size"]
    assert "no change" in host.svctl("evacuate-device", "tank", fast)
    assert " leaving\n" in host.dump()
    host.svctl("create-volume", "tank/w", "--size", "64M")
    for restarted in (False, True):
        if restarted:
            host.stop()
            host.start()
        host.write("tank/w", 0 if restarted else MIB, b"x" * harness.SLOT, fua=True)
        assert state(host, fast) == ("empty", 0)
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    host.write("tank/w", 2 * MIB, b"x" * harness.SLOT, fua=True)
    assert state(host, fast) == ("empty", 0)
    host.svctl("check", "tank")
    host.svctl("evacuate-device", "tank", fast, "--undo")
    assert state(host, fast) == ("present", 0) and host.json("list")["pools"][0]["size"] == size
    host.write("tank/w", 3 * MIB, b"x" * harness.SLOT, fua=True)
    assert state(host, fast) == ("present", MIB), "the fastest tier comes first again"
    assert data(host) == before
    host.svctl("check", "tank")


def test_small_writes_take_no_more_space_on_the_others(host):
    """Fragments stay such: 64 extents of one block each take four slots here, and there."""
    fast, slow1, slow2 = host.pool()
    for i in range(64):
        host.write("tank/v", i * MIB + 8192, os.urandom(4096))
    host.flush("tank/v")
    before = data(host)
    assert state(host, fast) == ("present", 4 * MIB)
    host.svctl("evacuate-device", "tank", fast)
    wait_empty(host, fast)
    assert state(host, slow1)[1] + state(host, slow2)[1] <= 6 * MIB
    assert data(host) == before


def test_evacuation_that_cannot_be_is_refused(host):
    fast, slow1, slow2 = host.used_pool()
    host.checkpoint("tank/v")
    with host.unchanged():
        host.refused(3, "evacuate-device", "tank", host.disk("other"), says="has no such device")
        host.refused(3, "evacuate-device", "nix", fast)
        host.refused(2, "evacuate-device", "tank", "")
        assert "would" not in host.svctl("evacuate-device", "tank", fast, "--dry-run")
        assert state(host, fast)[0] == "present"
        assert "no change" in host.svctl("evacuate-device", "tank", fast, "--undo")
        host.svctl("deactivate", "tank")
        host.refused(5, "evacuate-device", "tank", fast)
        host.svctl("activate", "tank", "--read-only")
        host.refused(4, "evacuate-device", "tank", fast)
        host.svctl("deactivate", "tank")
        host.svctl("activate", "tank")
    host.svctl("create-volume", "tank/large", "--size", "1G")
    for i in range(500):
        host.write("tank/large", i * MIB, b"x" * harness.SLOT)
    host.checkpoint("tank/v")
    with host.unchanged():
        for dry in ([], ["--dry-run"]):
            said = host.refused(6, "evacuate-device", "tank", fast, *dry, says="can be taken on the other devices")
            assert "svctl add-device tank TIER=DEVICE" in said
    host.svctl("delete-volume", "tank/large", "--yes")


def test_the_last_device_is_not_emptied(host):
    disk = host.disk("one")
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={disk}")
    host.refused(6, "evacuate-device", "tank", disk, says="it is the only device")


def test_evacuation_survives_sigkill_at_each_step(host):
    fast, slow1, slow2 = host.used_pool()
    for i in range(20):
        fill(host, "tank/v", i * 3 + 1)
    host.flush("tank/v")
    before = data(host)
    for point, begun in (("evacuate-in-catalogue", True), ("evacuate-in-kernel", True), ("moved", True)):
        host.stop()
        host.start(SVD_KILL_AT=point)
        if point == "moved":
            host.svctl("evacuate-device", "tank", fast)
        else:
            host.refused(20, "evacuate-device", "tank", fast)
        host.wait_killed()
        host.start()
        assert (state(host, fast)[0] != "present") == begun, point
        wait_empty(host, fast)
        assert data(host) == before, point
        host.svctl("check", "tank")
        host.svctl("evacuate-device", "tank", fast, "--undo")
        host.svctl("evacuate-device", "tank", slow1)
        host.svctl("evacuate-device", "tank", slow2)
        for disk in (slow1, slow2):
            wait_empty(host, disk)
        for disk in (slow1, slow2):
            host.svctl("evacuate-device", "tank", disk, "--undo")
        assert state(host, fast)[1] > 0
        assert data(host) == before, point


def test_refusals_of_the_kernel_change_nothing(host):
    fast, _, _ = host.used_pool()
    host.checkpoint("tank/v")
    before = host.dump()
    for number in range(1, 30):
        host.fail_call(number)
        try:
            host.svctl("evacuate-device", "tank", fast)
            break
        except harness.Refused as why:
            assert why.code == 1, why
        host.fail_call(0)
        assert state(host, fast)[0] == "present" and host.dump() == before
    host.fail_call(0)
    assert number > 3, "MEMBERS twice, and CLOSE"
    wait_empty(host, fast)


def test_a_device_that_does_not_become_empty_is_told(host):
    disks = [host.disk(name, 96) for name in ("one", "two")]
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={','.join(disks)}")
    host.svctl("create-volume", "tank/v", "--size", "256M")
    free = host.json("list")["pools"][0]["free"] // MIB
    for i in range(free // 2 - 8):
        host.write("tank/v", i * MIB, os.urandom(harness.SLOT))
    host.flush("tank/v")
    used = [state(host, disk)[1] for disk in disks]
    leaves = disks[used.index(max(used))]
    host.svctl("evacuate-device", "tank", leaves)
    for i in range(free // 2 - 8, free // 2 + 10):      # of what it needs some is taken
        try:
            host.write("tank/v", i * MIB, os.urandom(harness.SLOT))
        except harness.Refused:
            break
    before = [host.read("tank/v", at * MIB, MIB) for at in range(free // 2 - 8)]
    deadline = time.monotonic() + 40
    while "SV-EVACUATION-STALLED" not in host.codes():
        assert time.monotonic() < deadline, (state(host, leaves), host.svctl("show", "tank"))
        host.call("io.svctl.sim.Look", seconds=0)
        time.sleep(0.2)
    assert "add-device tank TIER=DEVICE" in host.svctl("status")
    assert host.logged("is to be emptied, and")
    host.svctl("add-device", "tank", f"t={host.disk('three')}")
    wait_empty(host, leaves)
    host.call("io.svctl.sim.Look", seconds=0)
    assert "SV-EVACUATION-STALLED" not in host.codes()
    assert [host.read("tank/v", at * MIB, MIB) for at in range(free // 2 - 8)] == before

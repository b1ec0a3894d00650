"""Discards that are passed down to members: image files, whose blocks are freed then."""

import os
import random
import time

import harness

MIB = harness.MIB
CHUNK = harness.SLOT

KILL_POINTS = ["checkpoint-trimmed", "checkpoint-discarding", "discard-begin", "discard-done", "discard-recycled"]


def blocks(disks):
    """Bytes that image files take on the host."""
    return sum(os.stat(disk).st_blocks * 512 for disk in disks)


def fill(host, volume, mib, seed=1):
    """A slot for each MiB, with something in it."""
    data = random.Random(seed)
    for offset in range(0, mib * MIB, MIB):
        host.write(volume, offset, data.randbytes(CHUNK))
    host.flush(volume)


def filled_with(host, volume, mib, seed=1):
    data = random.Random(seed)
    return all(host.read(volume, offset, CHUNK) == data.randbytes(CHUNK) for offset in range(0, mib * MIB, MIB))


def used(host):
    return host.json("show", "tank")["used"]


def wait_for(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.05)


def small_pool(host, *words, **environment):
    disk = host.disk("d", 64)
    host.start(**environment)
    host.svctl("create-pool", "tank", "--tier", f"t={disk}", *words)
    host.svctl("create-volume", "tank/v", "--size", "64M")
    return disk


def test_pool_is_told_to_pass_discards_down(host):
    disks = host.used_pool()
    assert host.json("show", "tank")["discard"] == "keep"
    before = host.dump()
    with host.unchanged():
        assert "from then on" in host.svctl("set-pool", "tank", "--discard", "pass", "--dry-run")
        assert "no change" in host.svctl("set-pool", "tank", "--discard", "keep")
        host.refused(2, "set-pool", "tank", says="nothing is to be set")
        host.refused(2, "set-pool", "tank", "--discard", "yes", says="pass or keep")
        host.refused(3, "set-pool", "other", "--discard", "pass")
        try:
            host.call("io.svctl.SetPool", pool="tank", discard="yes")
            raise AssertionError("a word that is neither is taken")
        except harness.Refused as refused:
            assert refused.error == "org.varlink.service.InvalidParameter", refused
    assert "passes discards down" in host.svctl("set-pool", "tank", "--discard", "pass")
    assert "no change" in host.svctl("pool", "set", "tank", "--discard", "pass")
    assert host.json("show", "tank")["discard"] == "pass" and "discard: pass" in host.svctl("show", "tank")
    assert "no change" in host.svctl("create-pool", "tank", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}")
    host.refused(5, "create-pool", "tank", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}", "--discard",
                 "keep", says="set-pool")
    host.kill()
    host.start()
    assert host.json("show", "tank")["discard"] == "pass"
    # As text, and back into another pool.
    passing = host.dump()
    assert passing != before and passing.replace(" pass\n", "\n") == before
    with open(f"{host.dir}/dump", "w", encoding="ascii") as f:
        f.write(passing)
    host.svctl("delete-pool", "tank", "--yes")
    host.svctl("create-pool", "tank", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}")
    with open(f"{host.dir}/bad", "w", encoding="ascii") as f:
        f.write(passing.replace(" pass\n", " past\n"))
    host.refused(2, "restore", "tank", f"{host.dir}/bad", says="'past'")
    host.svctl("restore", "tank", f"{host.dir}/dump")
    assert host.json("show", "tank")["discard"] == "pass"
    host.svctl("set-pool", "tank", "--discard", "keep")
    assert " pass\n" not in host.dump()
    host.svctl("deactivate", "tank")
    host.refused(5, "set-pool", "tank", "--discard", "pass", says="svctl activate tank")
    host.svctl("activate", "tank", "--read-only")
    host.refused(4, "set-pool", "tank", "--discard", "pass", says="read-only")
    assert host.json("show", "tank")["discard"] == "keep"


def test_pool_is_made_to_pass_discards_down(host):
    small_pool(host, "--discard", "pass")
    assert host.json("show", "tank")["discard"] == "pass"
    host.refused(2, "create-pool", "p", "--tier", f"t={host.disk('e')}", "--discard", "maybe", says="pass or keep")


def test_freed_space_of_members_is_given_back_to_the_host(host):
    disks = host.pool()
    host.svctl("create-volume", "tank/w", "--size", "64M")
    fill(host, "tank/w", 8, seed=2)
    for setting, fewer in (("keep", False), ("pass", True)):
        host.svctl("set-pool", "tank", "--discard", setting)
        fill(host, "tank/v", 24)
        host.checkpoint("tank/v")
        before = blocks(disks)
        host.discard("tank/v", 0, 12 * MIB)
        host.checkpoint("tank/v")
        wait_for(lambda: used(host) == 20 * MIB)
        assert (before - blocks(disks) > 11 * CHUNK) == fewer, (setting, before, blocks(disks))
        host.svctl("delete-volume", "tank/v", "--yes")
        wait_for(lambda: used(host) == 8 * MIB)
        assert (before - blocks(disks) > 22 * CHUNK) == fewer, (setting, before, blocks(disks))
        host.svctl("create-volume", "tank/v", "--size", "64M")
    assert filled_with(host, "tank/w", 8, seed=2)
    host.svctl("check", "tank")
    host.kill()
    host.start()
    assert filled_with(host, "tank/w", 8, seed=2)
    host.svctl("check", "tank")


def test_survives_sigkill_while_slots_are_discarded(host):
    """Whatever was granted twice, or discarded once it was granted again, is not what was written."""
    small_pool(host, "--discard", "pass")
    host.svctl("create-volume", "tank/w", "--size", "64M")
    fill(host, "tank/w", 8, seed=2)
    for seed, point in enumerate(KILL_POINTS):
        fill(host, "tank/v", 16, seed)
        host.kill()
        host.start(SVD_KILL_AT=point)
        try:
            host.discard("tank/v", 0, 8 * MIB)
            host.checkpoint("tank/v")
        except (EOFError, ConnectionError):
            pass
        host.wait_killed()
        host.start()
        wait_for(lambda: used(host) == 16 * MIB)
        host.svctl("check", "tank")
        assert host.read("tank/v", 0, CHUNK) == bytes(CHUNK), point
        assert filled_with(host, "tank/w", 8, seed=2), point
        # Nearly all that is free is used.
        fill(host, "tank/v", 40, seed + 100)
        assert filled_with(host, "tank/v", 40, seed + 100), point
        assert filled_with(host, "tank/w", 8, seed=2), point
        host.svctl("check", "tank")
        host.discard("tank/v", 16 * MIB, 48 * MIB)
        host.checkpoint("tank/v")
        wait_for(lambda: used(host) == 24 * MIB)


def test_full_is_not_said_while_slots_are_discarded(host):
    """A member that does not answer: its slots stay freed. svd's thread for it runs in a circle here."""
    disk = small_pool(host, "--discard", "pass", SVD_SPIN_AT="discard-begin")
    for offset in range(0, 64 * MIB, MIB):
        try:
            host.write("tank/v", offset, bytes([offset // MIB + 1]) * CHUNK)
        except harness.Refused as refused:
            assert refused.code == 6, refused
            break
    host.discard("tank/v", 0, 4 * MIB)
    for _ in range(3):      # found once, though it is listed each time
        host.checkpoint("tank/v")
        assert host.json("show", "tank")["discarding_bytes"] == 4 * MIB
    host.svctl("check", "tank")
    host.log_from = os.path.getsize(f"{host.dir}/log")     # before the discard it was full, and svd may have said so
    try:
        host.write("tank/v", 0, b"x" * 4096)
        raise AssertionError("a slot was granted before its discard had ended")
    except harness.Refused as refused:
        assert refused.code == 6, refused
    host.checkpoint("tank/v")
    assert not host.logged("is full")
    # The pool stays up: its slots must not be granted anew.
    assert disk in host.refused(5, "deactivate", "tank", says="has not answered a discard")
    assert host.json("show", "tank")["state"] == "active"
    assert host.read("tank/v", 5 * MIB, 4096) == bytes([6]) * 4096
    host.flush("tank/v")
    host.kill()
    host.start()
    host.write("tank/v", 0, b"x" * 4096)
    host.svctl("check", "tank")
    host.svctl("deactivate", "tank")


def test_full_pool_has_space_as_soon_as_slots_are_discarded(host):
    small_pool(host, "--discard", "pass")
    for offset in range(0, 64 * MIB, MIB):
        try:
            host.write("tank/v", offset, bytes(CHUNK))
        except harness.Refused as refused:
            assert refused.code == 6, refused
            break
    host.checkpoint("tank/v")
    assert host.logged("is full")
    host.discard("tank/v", 0, 2 * MIB)
    host.checkpoint("tank/v")
    wait_for(lambda: "discarding_bytes" not in host.json("show", "tank"), 5)
    host.write("tank/v", 0, b"x" * 4096)
    host.svctl("check", "tank")


def test_stopped_svd_leaves_freed_slots_to_the_next(host):
    disk = small_pool(host, "--discard", "pass")
    fill(host, "tank/v", 16)
    host.checkpoint("tank/v")
    before = blocks([disk])
    host.discard("tank/v", 0, 8 * MIB)
    host.stop()     # its last checkpoint begins none
    assert before - blocks([disk]) < 4 * CHUNK
    host.start()
    assert used(host) == 8 * MIB
    host.svctl("check", "tank")


def test_member_that_takes_no_discard_is_told_once(host):
    """It has neither journal nor catalogue, so that nothing else fails; its space is free all the same."""
    bad = harness.FailingDisk(host, "bad", 64)
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={host.disk('a', 64)},{host.disk('b', 64)},{bad.path}", "--discard", "pass")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    fill(host, "tank/v", 30)
    host.checkpoint("tank/v")
    bad.fail()
    for half in (0, 15):
        host.discard("tank/v", half * MIB, 15 * MIB)
        host.checkpoint("tank/v")
        wait_for(lambda: "discarding_bytes" not in host.json("show", "tank"))
    assert used(host) == 0
    told = [line for line in host.lines() if line.endswith("[SV-DISCARD-FAILED]")]
    assert len(told) == 1 and told[0].startswith(f"<4>pool tank: {bad.path} did not take a discard: "), told

"""Pools and volumes from creation to deletion, through restarts and crashes of svd."""

import random
import resource

import harness

KIB = 1 << 10
MIB = 1 << 20

KILL_POINTS = ["begin", "listed", "committed", "read", "before-apply", "after-apply", "applied", "trimmed", "recycled",
               "end"]


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


def test_creates_lists_and_deletes(host):
    host.pool()
    pool = host.json("list")["pools"][0]
    assert pool["name"] == "tank" and pool["state"] == "active"
    assert [tier["name"] for tier in pool["tiers"]] == ["fast", "slow"]
    assert pool["volumes"][0]["size"] == 64 * MIB and pool["volumes"][0]["used"] == 0
    assert "tank" in host.svctl("list") and "tank: active" in host.svctl("status")
    host.svctl("delete-volume", "tank/v", "--yes")
    assert host.json("list")["pools"][0]["volumes"] == []
    host.svctl("delete-pool", "tank", "--yes")
    assert host.json("list")["pools"] == []


def test_create_pool_that_cannot_label_a_device_leaves_no_pool(host):
    disks = [host.disk("a"), host.disk("b")]
    failing = harness.FailingDisk(host, "c")    # neither journal nor catalogue go there: its label is the first that is written to it
    host.options = ["--devices", ",".join([*disks, failing.path])]
    host.start()
    failing.fail()
    host.refused(4, "create-pool", "tank", "--tier", "t=" + ",".join([*disks, failing.path]), says=failing.path)
    assert host.json("list")["pools"] == [] and host.json("scan")["pools"] == []
    host.stop()
    host.start()
    assert host.json("list")["pools"] == []
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(disks))
    host.svctl("check", "tank")


def test_create_pool_killed_before_it_has_labels_is_told_and_begun_anew(host):
    disks = [host.disk(name) for name in "abc"]
    host.options = ["--devices", ",".join(disks)]
    create = ["create-pool", "tank", "--tier", "t=" + ",".join(disks)]
    for point in ("create-pool-partitioned", "label-copy-written"):
        host.start(SVD_KILL_AT=point)
        host.refused(20, *create)
        host.wait_killed()
        host.start()
        if point == "create-pool-partitioned":  # images have no table: nothing is there yet
            assert host.json("list")["pools"] == []
        else:
            assert host.json("list")["pools"][0]["state"] == "down"
            host.refused(5, *create, says="svctl show tank")
            assert "member 1 of 3 is missing" in host.svctl("status")
            host.svctl("delete-pool", "tank", "--yes")
        host.svctl(*create)
        host.svctl("check", "tank")
        host.svctl("delete-pool", "tank", "--yes")
        host.stop()


def test_repeating_a_command_is_no_change(host):
    disks = host.pool()
    assert "no change" in host.svctl("create-pool", "tank", "--tier", f"fast={disks[0]}", "--tier",
                                     f"slow={disks[1]},{disks[2]}")
    assert "no change" in host.svctl("create-volume", "tank/v", "--size", "64M")
    assert "no change" in host.svctl("activate", "tank")
    assert "no change" in host.svctl("resize-volume", "tank/v", "--size", "64M")
    host.svctl("rename-volume", "tank/v", "w")
    assert "no change" in host.svctl("rename-volume", "tank/v", "w")
    host.svctl("deactivate", "tank")
    assert "no change" in host.svctl("deactivate", "tank")


def test_reads_what_was_written(host):
    host.pool()
    data = pattern(1, 64 * KIB)
    host.write("tank/v", 3 * MIB + 8 * KIB, data)
    assert host.read("tank/v", 3 * MIB + 8 * KIB, len(data)) == data
    assert host.read("tank/v", 0, 4 * KIB) == bytes(4 * KIB)
    assert host.read("tank/v", 3 * MIB, 8 * KIB) == bytes(8 * KIB)


def test_flushed_data_survives_sigkill(host):
    host.pool()
    data = pattern(2, 128 * KIB)
    host.write("tank/v", MIB, data)
    host.flush("tank/v")
    host.kill()
    host.start()
    assert host.read("tank/v", MIB, len(data)) == data
    host.svctl("check", "tank")


def test_fua_data_survives_sigkill(host):
    host.pool()
    data = pattern(3, 4 * KIB)
    host.write("tank/v", 9 * MIB, data, fua=True)
    host.kill()
    host.start()
    assert host.read("tank/v", 9 * MIB, len(data)) == data


def test_data_survives_clean_restart(host):
    host.pool()
    data = pattern(4, 256 * KIB)
    host.write("tank/v", 5 * MIB, data)
    host.flush("tank/v")
    host.stop()
    host.start()
    assert host.read("tank/v", 5 * MIB, len(data)) == data
    host.svctl("check", "tank")


def test_data_survives_deactivate_and_activate(host):
    host.pool()
    data = pattern(5, 64 * KIB)
    host.write("tank/v", 0, data)
    host.svctl("deactivate", "tank")
    assert host.json("list")["pools"][0]["state"] == "down"
    host.svctl("activate", "tank")
    assert host.read("tank/v", 0, len(data)) == data
    host.svctl("check", "tank")


def test_survives_sigkill_at_each_step_of_a_checkpoint(host):
    host.pool()
    expected = {}
    for number, point in enumerate(KILL_POINTS):
        host.kill()
        host.start(SVD_KILL_AT=f"checkpoint-{point}")
        for i in range(4):
            offset = (number * 4 + i) % 16 * 3 * MIB + 4 * KIB * number
            expected[offset] = pattern(offset, 8 * KIB)
            host.write("tank/v", offset, expected[offset])
        host.flush("tank/v")
        try:
            host.checkpoint("tank/v")
            raise AssertionError(f"svd passed checkpoint-{point} alive")
        except (EOFError, ConnectionError):
            pass
        host.wait_killed()
        host.start()
        for offset, data in expected.items():
            assert host.read("tank/v", offset, len(data)) == data, (point, offset)
        host.svctl("check", "tank")


def test_survives_sigkill_between_catalogue_and_kernel(host):
    host.pool()
    data = pattern(11, 4 * KIB)
    host.write("tank/v", 0, data, fua=True)
    for step, command, volumes in (("create", ["create-volume", "tank/w", "--size", "1M"], {"v": 64, "w": 1}),
                                   ("resize", ["resize-volume", "tank/w", "--size", "2M"], {"v": 64, "w": 2}),
                                   ("rename", ["rename-volume", "tank/w", "x"], {"v": 64, "x": 2}),
                                   ("delete", ["delete-volume", "tank/x", "--yes"], {"v": 64})):
        host.kill()
        host.start(SVD_KILL_AT=f"{step}-volume-in-catalogue")
        host.refused(20, *command)
        host.wait_killed()
        host.start()
        assert {v["name"]: v["size"] // MIB for v in host.json("list")["pools"][0]["volumes"]} == volumes
        assert host.read("tank/v", 0, len(data)) == data
        host.svctl("check", "tank")


def test_random_writes_and_crashes_keep_what_was_flushed(host):
    host.pool()
    rng = random.Random(6)
    flushed = bytearray(8 * MIB)
    for _ in range(6):
        for _ in range(40):
            offset = rng.randrange(2047) * 4 * KIB
            data = rng.randbytes(4 * KIB * rng.randint(1, 8))[:8 * MIB - offset]
            host.write("tank/v", offset, data)
            flushed[offset:offset + len(data)] = data
        host.flush("tank/v")
        host.kill()
        host.start()
        for at in range(0, 8 * MIB, 256 * KIB):
            assert host.read("tank/v", at, 256 * KIB) == flushed[at:at + 256 * KIB], at
    host.svctl("check", "tank")


def test_discard_gives_space_back(host):
    host.pool()
    for i in range(8):
        host.write("tank/v", i * MIB, pattern(i, 256 * KIB))
    host.flush("tank/v")
    host.checkpoint("tank/v")
    full = host.json("list")["pools"][0]
    host.discard("tank/v", 0, 8 * MIB)
    assert host.read("tank/v", 0, 64 * KIB) == bytes(64 * KIB)
    host.checkpoint("tank/v")
    assert host.json("list")["pools"][0]["free"] == full["free"] + 8 * MIB
    host.svctl("check", "tank")
    host.kill()
    host.start()
    assert host.read("tank/v", 0, 64 * KIB) == bytes(64 * KIB)
    host.svctl("check", "tank")


def test_deleting_a_volume_gives_space_back(host):
    host.pool()
    empty = host.json("list")["pools"][0]["free"]
    for i in range(8):
        host.write("tank/v", i * MIB, pattern(i, 64 * KIB))
    host.svctl("delete-volume", "tank/v", "--yes")
    assert host.json("list")["pools"][0]["free"] == empty
    host.svctl("check", "tank")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    assert host.read("tank/v", 0, 64 * KIB) == bytes(64 * KIB)


def test_grows_and_keeps_data(host):
    host.pool()
    data = pattern(7, 64 * KIB)
    host.write("tank/v", 0, data)
    host.svctl("resize-volume", "tank/v", "--size", "1G")
    assert host.json("show", "tank/v")["size"] == 1 << 30
    host.write("tank/v", 900 * MIB, data)
    assert host.read("tank/v", 0, len(data)) == data
    host.refused(2, "resize-volume", "tank/v", "--size", "1M", says="do not shrink")


def test_renames(host):
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1M")
    host.refused(5, "rename-volume", "tank/v", "w", says="exists")
    host.svctl("rename-volume", "tank/v", "x-y")
    assert {v["name"] for v in host.json("list")["pools"][0]["volumes"]} == {"w", "x-y"}


def test_adds_a_device(host):
    host.pool()
    before = host.json("list")["pools"][0]["size"]
    new = host.disk("slow3")
    host.svctl("add-device", "tank", f"slow={new}")
    assert host.json("list")["pools"][0]["size"] > before
    assert "no change" in host.svctl("add-device", "tank", f"slow={new}")
    host.svctl("check", "tank")
    host.kill()
    host.start()
    assert len(host.json("show", "tank")["devices"]) == 4
    host.svctl("check", "tank")


def pool_of(host):
    (pool,) = host.json("list")["pools"]
    return pool


ADD_POINTS = ["partitioned", "label-copy-written", "labelled", "in-catalogue", "in-kernel", "granted"]


def test_survives_sigkill_at_each_step_of_adding_devices(host):
    """Two at a time, of which svd dies with the first: it is in the pool with all its space, or not at all. Repeating the
    command adds the rest. A member that has only the copy of its label is found by who looks there (--devices)."""
    spare = [host.disk(f"more{i}", 64) for i in range(2 * len(ADD_POINTS))]
    host.options = ["--devices", ",".join([*(f"{host.dir}/{name}" for name in ("fast", "slow1", "slow2")), *spare])]
    host.pool()
    expected = {at: pattern(at, 8 * KIB) for at in range(0, 40 * MIB, 5 * MIB)}
    for i, point in enumerate(ADD_POINTS):
        add = ["add-device", "tank", "slow=" + ",".join(spare[2 * i:2 * i + 2])]
        before = pool_of(host)
        host.stop()
        host.start(SVD_KILL_AT=point if point == "label-copy-written" else f"add-device-{point}")
        for at, data in expected.items():
            host.write("tank/v", at, data)
        host.flush("tank/v")
        used = pool_of(host)["used"]
        host.refused(20, *add)
        host.wait_killed()
        host.start()
        host.svctl("check", "tank")
        after = pool_of(host)
        gained = after["size"] - before["size"]
        if point == "partitioned":
            assert gained == 0 and len(after["devices"]) == len(before["devices"]), point
        else:
            assert gained > 50 * MIB and len(after["devices"]) == len(before["devices"]) + 1, (point, gained)
        assert after["used"] == used and after["free"] == after["size"] - used, (point, after)
        assert "added" in host.svctl(*add)
        assert "no change" in host.svctl(*add)
        done = pool_of(host)
        assert len(done["devices"]) == len(before["devices"]) + 2, point
        assert done["free"] == done["size"] - used and done["size"] - after["size"] > (1 if gained else 2) * 50 * MIB, (point, done)
        for at, data in expected.items():
            assert host.read("tank/v", at, len(data)) == data, (point, at)
        host.svctl("check", "tank")
        assert host.json("status")["pools"][0]["problems"] == [], host.svctl("status")
    host.kill()
    host.start()
    assert len(pool_of(host)["devices"]) == 3 + len(spare)
    host.svctl("check", "tank")


def test_dump_and_restore(host):
    host.pool()
    host.write("tank/v", 0, pattern(8, 64 * KIB))
    host.write("tank/v", 30 * MIB, pattern(9, 4 * KIB))
    dump = host.svctl("dump", "tank")
    assert dump == host.svctl("dump", "tank")
    path = f"{host.dir}/dump"
    with open(path, "w", encoding="utf-8") as f:
        f.write(dump)
    host.refused(5, "restore", "tank", path, "--yes", says="it has volumes")
    host.svctl("delete-volume", "tank/v", "--yes")
    host.svctl("restore", "tank", path, "--yes")
    assert host.read("tank/v", 0, 64 * KIB) == pattern(8, 64 * KIB)
    host.svctl("check", "tank")


def test_read_only_activation_refuses_writes(host):
    host.pool()
    data = pattern(10, 4 * KIB)
    host.write("tank/v", 0, data)
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank", "--read-only")
    assert host.read("tank/v", 0, 4 * KIB) == data
    try:
        host.write("tank/v", 0, data)
        raise AssertionError("a read-only pool took a write")
    except Exception as e:
        assert "read-only" in str(e), e


def test_label_that_cannot_be_taken_back_is_told(host):
    """What lies beyond 200 MiB cannot be written: of the label the copy, neither now nor as zeroes."""
    host.popen = {"restore_signals": False}    # SIGXFSZ stays ignored, as Python has it
    host.pool()
    disk = host.disk("other")
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (200 * MIB, resource.RLIM_INFINITY))
    host.refused(1, "create-pool", "other", "--tier", f"t={disk}", says=disk)
    assert host.logged(f"{disk} may have a label of pool other from now on: ") and host.logged("[SV-LABEL-LEFT]")
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    host.svctl("scan")
    assert [pool["name"] for pool in host.json("list")["pools"]] == ["tank"]
    host.svctl("create-pool", "other", "--tier", f"t={disk}")

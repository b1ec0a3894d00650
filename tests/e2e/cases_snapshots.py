"""Snapshots and clones, as commands make them: what they show, what is refused, what svd's death leaves, what deletion gives back."""

import os
import random
import time

import harness

MIB = harness.MIB
BLOCK = 4096

CREATE_POINTS = ["create-snapshot-in-catalogue", "create-snapshot-in-kernel"]
ROLLBACK_POINTS = ["rollback-in-catalogue", "rollback-in-kernel", "rollback-device-removed", "rollback-replaced", "rollback-shown"]
CLONE_POINTS = ["create-clone-in-catalogue", "map-shared", "create-clone-in-kernel", "create-clone-confirmed"]


def test_clone_whose_file_system_cannot_get_a_uuid_is_taken_back(host):
    """svd --sim has no devices; in a guest: snapshots.clones_get_new_uuids."""
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    assert "would be created" in host.svctl("create-volume", "tank/c", "--from", "v@one", "--new-uuid", "--dry-run")
    assert "there is no clone" in host.refused(1, "create-volume", "tank/c", "--from", "v@one", "--new-uuid")
    assert [v["name"] for v in host.json("list")["pools"][0]["volumes"] if v["state"] != "deleting"] == ["v"]
    host.refused(2, "create-volume", "tank/c", "--size", "1M", "--new-uuid", says="clones")
    host.svctl("create-volume", "tank/c", "--from", "v@one")
    host.refused(5, "create-volume", "tank/c", "--from", "v@one", "--new-uuid", says="exists")
    host.svctl("show", "tank/c")


def snapshots(host):
    return [s["volume"] + "@" + s["name"] for s in host.json("list")["pools"][0]["snapshots"]]


PIECE = harness.SLOT    # a message has 1 MiB at most


def read(host, volume, offset=0, length=MIB):
    return b"".join(host.read(volume, at, min(PIECE, offset + length - at)) for at in range(offset, offset + length, PIECE))


def write(host, volume, offset, data):
    for at in range(0, len(data), PIECE):
        host.write(volume, offset + at, data[at:at + PIECE])


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)


def used(host):
    return host.json("show", "tank")["used"]


def extents(host):
    return host.json("show", "tank")["catalogue"]["extents"]


def merged(host, count, slots=None):
    """Waits until so many extents are left, in the catalogue and in the kernel; with fragments they take fewer slots."""
    def both():
        host.checkpoint("tank/v")
        return extents(host) == count and used(host) == (slots or count) * MIB
    wait_for(both)


class Shadow:
    """What volumes and snapshots must read as."""

    def __init__(self, host):
        self.host = host
        self.all = {}       # name: bytearray

    def write(self, volume, offset, data):
        write(self.host, volume, offset, data)
        self.all[volume][offset:offset + len(data)] = data

    def discard(self, volume, offset, length):
        self.host.discard(volume, offset, length)
        self.all[volume][offset:offset + length] = bytes(length)

    def check(self):
        for name, data in self.all.items():
            for offset in range(0, len(data), MIB):
                assert read(self.host, name, offset) == bytes(data[offset:offset + MIB]), (name, offset)


def test_snapshot_keeps_what_the_volume_had(host):
    host.used_pool()
    before = read(host, "tank/v", 0, MIB)
    assert "created" in host.svctl("create-snapshot", "tank/v@one")
    write(host, "tank/v", 0, os.urandom(BLOCK))
    write(host, "tank/v", 700 * 1024, os.urandom(BLOCK))
    now = read(host, "tank/v", 0, MIB)
    assert now != before
    assert "read-only" in host.svctl("activate", "tank/v@one")
    assert "no change" in host.svctl("activate", "tank/v@one")
    assert read(host, "tank/v@one", 0, MIB) == before
    assert read(host, "tank/v", 0, MIB) == now
    assert host.json("show", "tank/v@one")["state"] == "read-only"
    assert host.svctl("list", "-H", "-t", "snapshot", "-o", "name,state,held") == "tank/v@one\tread-only\tno\n"
    assert "@one" in host.svctl("list")
    host.svctl("check", "tank")
    # It is there after a restart, and inactive.
    host.kill()
    host.start()
    assert snapshots(host) == ["v@one"]
    assert host.json("show", "tank/v@one")["state"] == "inactive"
    assert read(host, "tank/v", 0, MIB) == now
    host.svctl("snapshot", "activate", "tank/v@one")
    assert read(host, "tank/v@one", 0, MIB) == before
    assert "inactive" in host.svctl("deactivate", "tank/v@one")
    assert "no change" in host.svctl("snapshot", "deactivate", "tank/v@one")
    host.svctl("check", "tank")


def test_writes_to_a_snapshot_are_refused(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    host.svctl("activate", "tank/v@one")
    try:
        write(host, "tank/v@one", 0, bytes(BLOCK))
        raise AssertionError("a snapshot is written")
    except harness.Refused as refused:
        assert refused.code in (1, 4), refused


def test_clone_begins_as_its_snapshot_and_is_a_volume(host):
    host.used_pool()
    before = read(host, "tank/v", 0, MIB)
    host.svctl("create-snapshot", "tank/v@one")
    write(host, "tank/v", 0, os.urandom(BLOCK))
    mine = read(host, "tank/v", 0, MIB)
    was = used(host)
    assert "created from" in host.svctl("create-volume", "tank/c", "--from", "v@one")
    assert "no change" in host.svctl("create-volume", "tank/c", "--from", "v@one")
    assert used(host) == was
    assert host.json("show", "tank/c")["size"] == host.json("show", "tank/v")["size"]
    assert read(host, "tank/c", 0, MIB) == before
    data = os.urandom(BLOCK)
    write(host, "tank/c", 8192, data)
    assert used(host) == was    # a fragment, in a slot that has some
    assert read(host, "tank/c", 0, MIB) == before[:8192] + data + before[8192 + BLOCK:]
    assert read(host, "tank/v", 0, MIB) == mine
    host.svctl("create-volume", "tank/larger", "--from", "v@one", "--size", "1G")
    assert read(host, "tank/larger", 0, MIB) == before
    assert read(host, "tank/larger", 1000 * MIB, BLOCK) == bytes(BLOCK)
    # A clone of a clone, and all of it after a restart.
    host.svctl("create-snapshot", "tank/c@two")
    host.svctl("create-volume", "tank/d", "--from", "c@two")
    host.svctl("check", "tank")
    host.kill()
    host.start()
    for volume in ("tank/c", "tank/d"):
        assert read(host, volume, 0, MIB) == before[:8192] + data + before[8192 + BLOCK:]
    host.svctl("check", "tank")
    # The clone goes, what it was made from stays.
    host.svctl("delete-volume", "tank/d", "--yes")
    host.svctl("delete-volume", "tank/larger", "--yes")
    assert read(host, "tank/c", 0, MIB) == before[:8192] + data + before[8192 + BLOCK:]
    assert read(host, "tank/v", 0, MIB) == mine
    host.svctl("check", "tank")


def test_rollback_makes_a_volume_what_its_snapshot_is(host):
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(4 * MIB)
    was = {}
    for name in "abc":
        for i in range(3):
            shadow.write("tank/v", random.Random(name + str(i)).randrange(1000) * BLOCK, os.urandom(4 * BLOCK))
        host.svctl("create-snapshot", f"tank/v@{name}")
        was[name] = bytearray(shadow.all["tank/v"])
    shadow.write("tank/v", 0, os.urandom(MIB))
    host.discard("tank/v", MIB, MIB)
    host.svctl("set-volume", "tank/v", "--autoactivate", "no")
    host.checkpoint("tank/v")
    before = host.dump()
    lost = host.json("rollback-volume", "tank/v@b", "--dry-run")["destroys"][0]
    assert ": 1 MiB in extents of 1 MiB, and 1 MiB unmapped" in lost, lost
    host.refused(2, "rollback-volume", "tank/v@b")          # nobody can be asked
    host.refused(3, "rollback-volume", "tank/v@nothing", "--yes")
    host.refused(3, "rollback-volume", "tank/x@b", "--yes")
    host.refused(2, "rollback-volume", "tank/v", "--yes")
    assert host.dump() == before
    for name in "bcacb":
        host.svctl("rollback-volume", f"tank/v@{name}", "--yes")
        shadow.all["tank/v"] = bytearray(was[name])
        shadow.check()
        assert "no change" in host.svctl("volume", "rollback", f"tank/v@{name}", "--yes")
        assert snapshots(host) == ["v@a", "v@b", "v@c"]
        host.svctl("check", "tank")
        shadow.write("tank/v", random.randrange(1000) * BLOCK, os.urandom(4 * BLOCK))
    for name in "abc":
        host.svctl("activate", f"tank/v@{name}")
        assert read(host, f"tank/v@{name}", 0, 4 * MIB) == bytes(was[name]), name
        host.svctl("deactivate", f"tank/v@{name}")
    assert host.json("show", "tank/v")["autoactivate"] is False
    host.flush("tank/v")
    host.kill()
    host.start()
    host.svctl("activate", "tank/v")
    shadow.check()
    for name in "cab":
        host.svctl("delete-snapshot", f"tank/v@{name}", "--yes")
    shadow.check()
    wait_for(lambda: (host.checkpoint("tank/v"), extents(host))[1] <= 4)
    shadow.check()
    host.svctl("check", "tank")
    assert used(host) <= 4 * MIB


def test_rollback_keeps_the_size_that_a_volume_has_grown_to(host):
    host.pool()
    write(host, "tank/v", 0, b"a" * MIB)
    host.svctl("create-snapshot", "tank/v@small")
    host.svctl("resize-volume", "tank/v", "--size", "128M")
    write(host, "tank/v", 100 * MIB, b"b" * MIB)
    write(host, "tank/v", 0, b"c" * MIB)
    host.svctl("rollback-volume", "tank/v@small", "--yes")
    assert host.json("show", "tank/v")["size"] == 128 * MIB
    assert read(host, "tank/v", 0, MIB) == b"a" * MIB
    assert read(host, "tank/v", 100 * MIB, MIB) == bytes(MIB)
    host.svctl("check", "tank")


def test_svd_killed_while_it_rolls_back(host):
    host.used_pool()
    old = read(host, "tank/v", 0, MIB)
    host.svctl("create-snapshot", "tank/v@old")
    for point in ROLLBACK_POINTS:
        new = os.urandom(BLOCK)
        write(host, "tank/v", 0, new)
        host.flush("tank/v")
        host.kill()
        host.start(SVD_KILL_AT=point)
        host.refused(20, "rollback-volume", "tank/v@old", "--yes")
        host.wait_killed()
        host.start()
        back = ROLLBACK_POINTS.index(point) >= ROLLBACK_POINTS.index("rollback-replaced")
        assert read(host, "tank/v", 0, MIB) == (old if back else new + old[BLOCK:]), point
        assert snapshots(host) == ["v@old"]
        host.checkpoint("tank/v")
        host.svctl("check", "tank")
        assert len([line for line in host.dump().splitlines() if line.startswith("volume ")]) == 1, point
    host.svctl("rollback-volume", "tank/v@old", "--yes")
    assert read(host, "tank/v", 0, MIB) == old
    host.svctl("check", "tank")


def test_several_volumes_are_cut_at_one_moment(host):
    host.used_pool()
    host.svctl("create-volume", "tank/w", "--size", "16M")
    write(host, "tank/w", 0, b"w" * BLOCK)
    assert "and 1 more" in host.svctl("create-snapshot", "tank/v@cut", "tank/w@cut")
    assert snapshots(host) == ["v@cut", "w@cut"]
    write(host, "tank/w", 0, b"x" * BLOCK)
    host.svctl("activate", "tank/w@cut")
    assert read(host, "tank/w@cut", 0, BLOCK) == b"w" * BLOCK
    # One that cannot be made: none is.
    before = host.dump()
    host.refused(5, "create-snapshot", "tank/v@new", "tank/w@cut", says="exists")
    host.refused(3, "create-snapshot", "tank/v@new", "tank/x@new")
    host.refused(2, "create-snapshot", "tank/v@new", "tank/v@newer", says="twice")
    assert host.dump() == before


def test_deleted_snapshot_gives_its_space_back_and_copies_nothing(host):
    host.pool()
    for i in range(20):
        write(host, "tank/v", i * MIB, os.urandom(MIB))
    host.svctl("create-snapshot", "tank/v@one")
    for i in range(10):
        write(host, "tank/v", i * MIB, os.urandom(MIB))      # whole extents: the old ones are the snapshot's alone
    host.checkpoint("tank/v")
    assert used(host) == 30 * MIB
    now = [read(host, "tank/v", i * MIB, MIB) for i in range(20)]
    assert "background" in host.svctl("delete-snapshot", "tank/v@one", "--yes")
    assert snapshots(host) == []
    merged(host, 20)
    assert [read(host, "tank/v", i * MIB, MIB) for i in range(20)] == now
    host.svctl("check", "tank")
    # The volume owns again what the snapshot had: an overwrite takes no space.
    write(host, "tank/v", 15 * MIB, os.urandom(BLOCK))
    assert used(host) == 20 * MIB
    host.svctl("check", "tank")


def test_what_only_part_of_was_overwritten_is_folded(host):
    host.pool()
    for blocks in (1, 200):     # moved into the older extent's place, or filled from it
        write(host, "tank/v", 0, os.urandom(MIB))
        host.svctl("create-snapshot", "tank/v@one")
        write(host, "tank/v", 8192, os.urandom(blocks * BLOCK))
        now = read(host, "tank/v", 0, MIB)
        host.svctl("delete-snapshot", "tank/v@one", "--yes")
        merged(host, 1)
        assert read(host, "tank/v", 0, MIB) == now
        host.svctl("check", "tank")
        host.flush("tank/v")
        host.kill()
        host.start()
        assert read(host, "tank/v", 0, MIB) == now
        write(host, "tank/v", 0, now[:BLOCK])
        assert used(host) == MIB
        host.svctl("check", "tank")


def test_rolling_snapshots_take_no_more_space_than_what_they_have(host):
    """A block of each extent is written between any two; as many are kept as there are."""
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(4 * MIB)
    for index in range(4):
        shadow.write("tank/v", index * MIB, os.urandom(MIB))
    for i in range(12):
        host.svctl("create-snapshot", f"tank/v@{i}")
        for index in range(4):
            shadow.write("tank/v", index * MIB + i * 7 * BLOCK, os.urandom(BLOCK))
        if i >= 3:
            host.svctl("delete-snapshot", f"tank/v@{i - 3}", "--yes")
            merged(host, 4 + 3 * 4, slots=4 + 1)
            shadow.check()
            host.svctl("check", "tank")
    for i in range(9, 12):
        host.svctl("delete-snapshot", f"tank/v@{i}", "--yes")
    merged(host, 4)
    shadow.check()
    host.svctl("check", "tank")


def fragments(host):
    """How many blocks are valid in each fragment that extents of the pool have, of those that are partly valid or wholly."""
    words = [line.split() for line in host.svctl("dump", "tank").splitlines() if line.startswith("partial ")]
    lanes = [int(bits[at:at + 4], 16).bit_count() for _, _, bits, *_ in words for at in range(0, 64, 4)]
    return sorted(lane for lane in lanes if lane)


def test_fragments_far_from_what_is_below_them_are_filled(host):
    """With 11 snapshots that all stay: the fragment of the 5th extent over the whole one, and of the 5th over that. That takes no
    space."""
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(MIB)
    shadow.write("tank/v", 0, os.urandom(MIB))
    for i in range(11):
        host.svctl("create-snapshot", f"tank/v@{i}")
        host.svctl("activate", f"tank/v@{i}")
        shadow.all[f"tank/v@{i}"] = bytearray(shadow.all["tank/v"])
        shadow.write("tank/v", i * BLOCK, os.urandom(BLOCK))
    before = used(host)
    wait_for(lambda: fragments(host) == 9 * [1] + 2 * [16], seconds=60)
    assert used(host) == before
    shadow.check()
    host.svctl("check", "tank")
    shadow.write("tank/v", 14 * BLOCK, os.urandom(BLOCK))    # over what was filled
    host.flush("tank/v")
    host.kill()
    host.start()
    for i in range(11):
        host.svctl("activate", f"tank/v@{i}")
    shadow.check()
    host.svctl("check", "tank")


def test_discards_do_not_bring_back_what_a_snapshot_has(host):
    host.pool()
    write(host, "tank/v", 0, b"a" * (2 * MIB))
    host.svctl("create-snapshot", "tank/v@one")
    host.discard("tank/v", 0, MIB)
    assert read(host, "tank/v", 0, MIB) == bytes(MIB)
    host.checkpoint("tank/v")
    host.kill()
    host.start()
    assert read(host, "tank/v", 0, MIB) == bytes(MIB)
    host.svctl("activate", "tank/v@one")
    assert read(host, "tank/v@one", 0, 2 * MIB) == b"a" * (2 * MIB)
    host.svctl("deactivate", "tank/v@one")
    host.svctl("delete-snapshot", "tank/v@one", "--yes")
    merged(host, 1)
    assert read(host, "tank/v", 0, MIB) == bytes(MIB)
    assert read(host, "tank/v", MIB, MIB) == b"a" * MIB
    host.svctl("check", "tank")


def test_snapshots_between_two_go_and_clones_outlive_theirs(host):
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(4 * MIB)
    for name in "abcd":
        for i in range(6):
            shadow.write("tank/v", random.Random(name + str(i)).randrange(1024) * BLOCK, os.urandom(BLOCK))
        host.svctl("create-snapshot", f"tank/v@{name}")
        shadow.all[f"tank/v@{name}"] = bytearray(shadow.all["tank/v"])
        host.svctl("activate", f"tank/v@{name}")
    host.svctl("create-volume", "tank/c", "--from", "v@b")
    shadow.all["tank/c"] = bytearray(shadow.all["tank/v@b"])
    shadow.write("tank/c", 0, os.urandom(BLOCK))
    for name in "cbad":
        host.svctl("deactivate", f"tank/v@{name}")
        host.svctl("delete-snapshot", f"tank/v@{name}", "--yes")
        del shadow.all[f"tank/v@{name}"]
        for _ in range(4):
            host.checkpoint("tank/v")
        shadow.check()
        shadow.write("tank/v", 123 * BLOCK, os.urandom(BLOCK))
        shadow.write("tank/c", 321 * BLOCK, os.urandom(BLOCK))
        shadow.check()
        host.svctl("check", "tank")
    host.flush("tank/v")
    host.flush("tank/c")
    host.kill()
    host.start()
    shadow.check()
    host.svctl("delete-volume", "tank/c", "--yes")
    del shadow.all["tank/c"]
    shadow.check()
    host.svctl("check", "tank")


def test_what_is_needed_is_not_deleted(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    assert "cannot be deleted" in host.svctl("hold", "tank/v@one")
    assert "no change" in host.svctl("snapshot", "hold", "tank/v@one")
    before = host.dump()
    host.refused(5, "delete-snapshot", "tank/v@one", "--yes", says="held")
    assert host.dump() == before
    assert "can be deleted" in host.svctl("release", "tank/v@one")
    host.svctl("activate", "tank/v@one")
    host.refused(5, "delete-snapshot", "tank/v@one", "--yes", says="active")
    host.refused(5, "rename-snapshot", "tank/v@one", "two", says="active")
    host.refused(5, "delete-volume", "tank/v", "--yes", says="snapshot")
    host.svctl("deactivate", "tank/v@one")
    before = host.dump()
    assert "would be deleted" in host.svctl("delete-snapshot", "tank/v@one", "--dry-run")
    assert host.dump() == before
    host.svctl("create-volume", "tank/c", "--from", "v@one")
    data = read(host, "tank/c", 0, MIB)
    host.svctl("delete-snapshot", "tank/v@one", "--yes")      # a clone outlives it
    assert read(host, "tank/c", 0, MIB) == data
    host.svctl("delete-volume", "tank/v", "--yes")            # and the volume
    host.checkpoint("tank/c")
    assert read(host, "tank/c", 0, MIB) == data
    host.svctl("check", "tank")


def test_check_finds_nothing_while_a_deletion_goes_on(host):
    host.pool()
    for i in range(6):
        write(host, "tank/v", i * MIB, os.urandom(MIB))
    host.svctl("create-snapshot", "tank/v@one")
    write(host, "tank/v", 0, os.urandom(BLOCK))
    host.svctl("delete-snapshot", "tank/v@one", "--yes")
    host.svctl("check", "tank")
    write(host, "tank/v", 0, os.urandom(MIB))       # and what it leaves is freed by the journal
    host.flush("tank/v")
    host.svctl("check", "tank")
    assert extents(host) == 6


def test_pool_with_snapshots_is_deleted_unless_one_is_held(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    host.svctl("hold", "tank/v@one")
    before = host.dump()
    host.refused(5, "delete-pool", "tank", "--yes", says="held")
    assert host.dump() == before
    host.svctl("release", "tank/v@one")
    assert "snapshot tank/v@one" in str(host.json("delete-pool", "tank", "--dry-run"))
    host.svctl("delete-pool", "tank", "--yes")


def test_bad_names_and_missing_things_are_refused(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    before = host.dump()
    host.refused(5, "create-snapshot", "tank/v@one", says="exists")
    host.refused(3, "create-snapshot", "tank/x@one")
    host.refused(3, "create-snapshot", "pond/v@one")
    for name in ("a" * 32, "a/b", "..", "-a", "a b", "a@b"):
        host.refused(2, "create-snapshot", "tank/v@" + name)
    for words in (["create-snapshot", "tank/v"], ["create-snapshot", "tank/v@"], ["create-snapshot", "tank@one"],
                  ["create-snapshot"], ["create-snapshot", "tank/v@x", "pond/v@x"], ["delete-snapshot", "tank/v", "--yes"],
                  ["create-volume", "tank/c", "--from", "v"], ["create-volume", "tank/c", "--from", "tank/v@one"],
                  ["create-volume", "tank/c"], ["create-volume", "tank/c", "--from", "v@one", "--size", "4M"],
                  ["activate", "tank/v@one", "--read-only"], ["rename-snapshot", "tank/v@one", "a/b"]):
        host.refused(2, *words)
    for words in (["delete-snapshot", "tank/v@two", "--yes"], ["hold", "tank/v@two"], ["release", "tank/w@one"],
                  ["rename-snapshot", "tank/v@two", "three"], ["activate", "tank/v@two"], ["show", "tank/v@two"],
                  ["create-volume", "tank/c", "--from", "v@two"], ["create-volume", "tank/c", "--from", "w@one"]):
        host.refused(3, *words)
    host.refused(5, "create-volume", "tank/v", "--from", "v@one", says="exists")
    assert host.dump() == before


def test_snapshots_of_what_is_not_up(host):
    host.used_pool()
    host.svctl("deactivate", "tank/v")
    host.svctl("create-snapshot", "tank/v@inactive")        # needs no device
    assert snapshots(host) == ["v@inactive"]
    before = host.dump()
    host.svctl("deactivate", "tank")
    host.refused(5, "create-snapshot", "tank/v@down")
    host.refused(5, "activate", "tank/v@inactive")
    host.svctl("activate", "tank")
    assert host.dump() == before
    host.svctl("export-pool", "tank")
    host.refused(5, "create-snapshot", "tank/v@exported", says="import-pool")
    host.svctl("import-pool", "tank")
    assert host.dump() == before
    host.svctl("check", "tank")


def test_snapshot_is_renamed(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    assert "is now tank/v@two" in host.svctl("rename-snapshot", "tank/v@one", "two")
    assert "no change" in host.svctl("rename-snapshot", "tank/v@one", "two")
    host.svctl("create-snapshot", "tank/v@one")
    host.refused(5, "rename-snapshot", "tank/v@one", "two")
    host.svctl("rename-volume", "tank/v", "w")
    assert snapshots(host) == ["w@two", "w@one"]


def test_svd_killed_while_it_makes_a_snapshot(host):
    host.used_pool()
    data = read(host, "tank/v", 0, MIB)
    for point in CREATE_POINTS:
        host.kill()
        host.start(SVD_KILL_AT=point)
        host.refused(20, "create-snapshot", f"tank/v@{point}")
        host.wait_killed()
        host.start()
        there = f"v@{point}" in snapshots(host)
        assert there == (point == "create-snapshot-in-kernel"), point
        assert read(host, "tank/v", 0, MIB) == data
        data = os.urandom(BLOCK) + data[BLOCK:]
        write(host, "tank/v", 0, data[:BLOCK])
        host.svctl("check", "tank")
        host.svctl("create-snapshot", f"tank/v@after{CREATE_POINTS.index(point)}")
        host.checkpoint("tank/v")
        host.svctl("check", "tank")


def test_svd_killed_while_it_makes_a_clone(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    data = read(host, "tank/v", 0, MIB)
    for point in CLONE_POINTS:
        host.kill()
        host.start(SVD_KILL_AT=point)
        host.refused(20, "create-volume", "tank/c", "--from", "v@one")
        host.wait_killed()
        host.start()
        there = any(v["name"] == "c" for v in host.json("list")["pools"][0]["volumes"])
        assert there == (point == "create-clone-confirmed"), point
        if there:
            assert read(host, "tank/c", 0, MIB) == data
        else:
            host.svctl("create-volume", "tank/c", "--from", "v@one")
        assert read(host, "tank/c", 0, MIB) == data
        host.svctl("check", "tank")
        host.svctl("delete-volume", "tank/c", "--yes")
        host.svctl("check", "tank")


def test_svd_killed_while_it_deletes_a_snapshot(host):
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(6 * MIB)
    for i, point in enumerate(("delete-snapshot-in-catalogue", "merge-in-catalogue", "merge-owned", "merge-freed",
                               "folded")):
        for index in range(6):
            shadow.write("tank/v", index * MIB, os.urandom(MIB))
        host.svctl("create-snapshot", f"tank/v@s{i}")
        shadow.write("tank/v", i * MIB, os.urandom(MIB))
        shadow.write("tank/v", 5 * MIB, os.urandom(BLOCK))
        host.flush("tank/v")
        host.checkpoint("tank/v")
        host.kill()
        host.start(SVD_KILL_AT=point)
        try:
            host.svctl("delete-snapshot", f"tank/v@s{i}", "--yes")
        except harness.Refused:
            assert point == "delete-snapshot-in-catalogue"
        host.wait_killed()
        host.start()
        assert snapshots(host) == []
        shadow.check()
        merged(host, 6)
        shadow.check()
        host.svctl("check", "tank")


def test_dump_and_restore_have_snapshots(host):
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(4 * MIB)
    for name in "ab":
        for index in range(4):
            shadow.write("tank/v", index * MIB + ord(name) * BLOCK, os.urandom(BLOCK))
        host.svctl("create-snapshot", f"tank/v@{name}")
    host.svctl("create-volume", "tank/c", "--from", "v@a")
    shadow.all["tank/c"] = bytearray(read(host, "tank/c", 0, 4 * MIB))
    shadow.write("tank/c", 0, os.urandom(BLOCK))
    host.checkpoint("tank/v")
    shadow.check()
    path = os.path.join(host.dir, "text")
    with open(path, "w", encoding="ascii") as out:
        out.write(host.dump())
    disks = [host.disk(name) for name in ("a", "b", "c")]
    host.svctl("create-pool", "pond", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}")
    host.svctl("restore", "pond", path)
    own = ("pool", "journal", "member")
    kept = [[line for line in host.dump(pool).splitlines() if line.split()[0] not in own] for pool in ("tank", "pond")]
    assert kept[0] == kept[1]
    assert any(line.startswith("snapshot ") for line in kept[1])
    host.svctl("check", "pond")


def test_full_pool_takes_snapshots(host):
    host.pool()
    host.svctl("create-volume", "tank/full", "--size", "1G")
    offset = 0
    try:
        while offset < 1024 * MIB:
            write(host, "tank/full", offset, os.urandom(PIECE))
            offset += MIB
        raise AssertionError("the pool is not full")
    except harness.Refused:
        pass
    host.svctl("create-snapshot", "tank/full@one")
    host.svctl("activate", "tank/full@one")
    assert read(host, "tank/full@one", 0, BLOCK) == read(host, "tank/full", 0, BLOCK)
    host.svctl("check", "tank")


def test_small_writes_share_slots(host):
    """64 KiB of space for a block, in all that svd does with a pool; an extent that has much takes a slot."""
    host.pool()
    shadow = Shadow(host)
    shadow.all["tank/v"] = bytearray(12 * MIB)
    for index in range(12):
        shadow.write("tank/v", index * MIB + 5 * BLOCK, os.urandom(BLOCK))
    assert used(host) == MIB
    host.svctl("check", "tank")
    assert host.svctl("dump", "tank").count("\nfragment ") == 12
    host.flush("tank/v")
    host.kill()
    host.start()
    shadow.check()
    assert used(host) == MIB
    for index in range(4):      # these go on where they are
        shadow.write("tank/v", index * MIB + 200 * BLOCK, os.urandom(BLOCK))
    assert used(host) == MIB
    for at in range(0, MIB, 16 * BLOCK):
        shadow.write("tank/v", at, os.urandom(BLOCK))
    merged(host, 12, slots=2)
    shadow.check()
    host.svctl("check", "tank")
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    shadow.check()
    host.discard("tank/v", 0, 12 * MIB)
    host.checkpoint("tank/v")
    wait_for(lambda: used(host) == 0)
    host.svctl("check", "tank")

"""show-space: what it says of snapshots comes true when they are deleted."""

import os
import random
import time

import harness
from cases_snapshots import BLOCK, MIB, Shadow, write

KIB64 = 64 << 10


def allocated(host):
    """Bytes that extents have by the catalogue: a slot each, or fragments."""
    slots = fragments = 0
    for line in host.svctl("dump", "tank").splitlines():
        word, *rest = line.split()
        if word == "map":
            slots += int(rest[2]) * (rest[4] != "-")
        elif word == "orphan":
            slots += rest[3] != "-"
        fragments += word == "fragment"
    return slots * MIB + fragments * KIB64


def at_rest(host):
    """What is allocated once all is merged and folded: nothing has changed for so many checkpoints."""
    seen = []
    while len(seen) < 8 or len(set(seen[-8:])) > 1:
        host.checkpoint("tank/v")
        seen.append(host.svctl("dump", "tank").split("\nsnapshot", 1)[-1])
        assert len(seen) < 300, seen[-2:]
        time.sleep(0.02)
    return allocated(host)


def space(host, *names):
    answer = host.json("show-space", *names)
    return {f"{one['volume']}@{one['name']}": one for one in answer["snapshots"]}, answer["frees"]


def test_space_of_a_snapshot_is_what_nothing_else_shows(host):
    host.pool()
    for index in range(4):
        write(host, "tank/v", index * MIB, os.urandom(MIB))
    host.svctl("create-snapshot", "tank/v@one")
    write(host, "tank/v", 0, os.urandom(MIB))               # all of an extent
    write(host, "tank/v", MIB + 8 * BLOCK, os.urandom(BLOCK))
    host.discard("tank/v", 2 * MIB, MIB)
    host.svctl("create-snapshot", "tank/v@two")
    host.svctl("create-volume", "tank/c", "--from", "v@one")
    host.checkpoint("tank/v")
    each, frees = space(host, "tank")
    assert each["v@one"]["used"] == 4 * MIB and each["v@two"]["used"] == 3 * MIB
    assert [each[name][what] for name in each for what in ("exclusive", "frees")] == [0] * 4, "the clone and the volume show it, too"
    assert frees == 0
    host.svctl("delete-volume", "tank/c", "--yes")
    at_rest(host)
    each, frees = space(host, "tank/v")
    assert each["v@one"]["exclusive"] == 2 * MIB + BLOCK
    assert each["v@one"]["frees"] == 2 * MIB + KIB64, "the block that was overwritten had taken a fragment"
    assert each["v@two"]["frees"] == 0 == each["v@two"]["exclusive"]
    assert space(host, "tank/v@one")[1] == 2 * MIB + KIB64 == frees
    text = host.svctl("show-space", "tank/v")
    assert text.splitlines()[0].split() == ["NAME", "USED", "EXCLUSIVE", "FREES"] and "tank/v@one" in text
    assert text.splitlines()[-1] == "deleting these 2 frees 2M"
    assert host.svctl("show-space", "-H", "-o", "name,frees", "tank/v@one") == f"tank/v@one\t{2 * MIB + KIB64}\n"
    assert host.svctl("space", "show", "-b", "tank/v@one").splitlines()[-1] == f"deleting it frees {2 * MIB + KIB64}"
    before = at_rest(host)
    host.svctl("delete-snapshot", "tank/v@one", "--yes")
    assert before - at_rest(host) == 2 * MIB + KIB64
    host.svctl("check", "tank")


def test_space_that_deletions_free_is_what_was_told(host):
    """Random writes of all sizes, discards, snapshots and clones, so that extents have slots and fragments, and long chains."""
    host.pool()
    r = random.Random(7)
    for round_ in range(4):
        shadow = Shadow(host)
        shadow.all["tank/v"] = bytearray(8 * MIB)
        volumes, names = ["tank/v"], []
        for step in range(10):
            for _ in range(12):
                volume = r.choice(volumes)
                length = r.choice([1, 1, 2, 16, 64, 256]) * BLOCK
                at = r.randrange(8 * MIB // length) * length
                if r.random() < 0.1:
                    host.discard(volume, at // MIB * MIB, MIB)
                else:
                    write(host, volume, at, os.urandom(length))
            names.append(f"{r.choice(volumes)}@{round_}-{step}")
            host.svctl("create-snapshot", names[-1])
            if r.random() < 0.2 and len(volumes) < 3:
                volumes.append(f"tank/c{len(volumes)}")
                host.svctl("create-volume", volumes[-1], "--from", names[-1].removeprefix("tank/"))
        while names:
            some = r.sample(names, min(len(names), r.choice([1, 2, 3])))
            before = at_rest(host)
            each, frees = space(host, *some)
            assert len(each) == len(some)
            for name in some:
                host.svctl("delete-snapshot", name, "--yes")
                names.remove(name)
            after = at_rest(host)
            assert max(before - after, 0) == frees, (round_, some, before, after, each)
            if len(some) == 1:
                assert each[some[0].removeprefix("tank/")]["frees"] == frees
        host.svctl("check", "tank")
        for volume in volumes[1:]:
            host.svctl("delete-volume", volume, "--yes")
        host.discard("tank/v", 0, 8 * MIB)


def test_space_of_what_is_not_there_is_refused(host):
    host.pool()
    host.svctl("create-pool", "pond", "--tier", f"t={host.disk('other')}")
    assert host.svctl("show-space", "tank") == "no snapshots\n"
    assert host.json("show-space", "tank") == {"schema": 1, "snapshots": [], "frees": 0}
    host.refused(3, "show-space", "tank/v@one", says="no such snapshot")
    host.refused(3, "show-space", "tank/w", says="no such volume")
    host.refused(3, "show-space", "lake", says="lake")
    host.refused(2, "show-space", "tank/v", "pond", says="of one pool")
    host.refused(2, "show-space", "tank/v@", says="POOL/VOLUME@SNAPSHOT")
    host.refused(2, "show-space", "tank", "tank/v", says="leave out the others")
    host.refused(2, "show-space")
    for of in ([], [""], ["v@"]):
        try:
            host.call("io.svctl.ShowSpace", pool="tank", of=of)
            assert False, of
        except harness.Refused as refused:
            assert refused.error == "org.varlink.service.InvalidParameter", refused
    host.svctl("deactivate", "tank")
    host.refused(5, "show-space", "tank")

"""diff: what it says has changed is what was written, and nothing else."""

import os
import random
import time

import harness
from cases_snapshots import BLOCK, MIB, write

BLOCKS = MIB // BLOCK
FRAGMENT = 16       # blocks


def diff(host, *names):
    """By block what there is now, data or zeroes, of those that changed."""
    answer = host.json("diff", *names)
    blocks, behind = {}, -1
    for one in answer["ranges"]:
        assert one["offset"] % BLOCK == one["length"] % BLOCK == 0 < one["length"], one
        assert one["offset"] > behind or (one["offset"] == behind and one["kind"] != kind), "in order, and merged"
        behind, kind = one["offset"] + one["length"], one["kind"]
        for block in range(one["offset"] // BLOCK, behind // BLOCK):
            blocks[block] = one["kind"]
    assert answer["bytes"] == len(blocks) * BLOCK
    return blocks


class Writes:
    """Of each volume and snapshot, which write each of its blocks is of; 0: none."""

    def __init__(self, host, volume, blocks):
        self.host, self.number = host, 0
        self.all = {volume: [0] * blocks}

    def write(self, volume, block, count):
        write(self.host, volume, block * BLOCK, os.urandom(count * BLOCK))
        self.number += 1
        self.all[volume][block:block + count] = [self.number] * count

    def discard(self, volume, extent):
        self.host.discard(volume, extent * MIB, MIB)
        self.all[volume][extent * BLOCKS:(extent + 1) * BLOCKS] = [0] * BLOCKS

    def at_random(self, r, volume):
        blocks = len(self.all[volume])
        count = r.choice([1, 1, 2, 16, 64, 256])
        if r.random() < 0.1:
            self.discard(volume, r.randrange(blocks // BLOCKS))
        else:
            self.write(volume, r.randrange(blocks // count) * count, count)

    def snapshot(self, volume, name):
        self.host.svctl("create-snapshot", f"{volume}@{name}")
        self.all[f"{volume}@{name}"] = list(self.all[volume])

    def clone(self, name, snapshot):
        self.host.svctl("create-volume", name, "--from", snapshot.removeprefix("tank/"))
        self.all[name] = list(self.all[snapshot])

    def changed(self, one, other):
        return {block: "data" if now else "zeroes" for block, (was, now) in enumerate(zip(self.all[one], self.all[other])) if was != now}

    def snapshots(self):
        return [name for name in self.all if "@" in name]


def test_changes_are_exact_at_random(host):
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    host.pool()
    for round_ in range(3):
        volume = f"tank/r{round_}"
        host.svctl("create-volume", volume, "--size", "8M")
        writes = Writes(host, volume, 8 * BLOCKS)
        volumes = [volume]
        for step in range(8):
            for _ in range(10):
                writes.at_random(r, r.choice(volumes))
            names = writes.snapshots()
            what = r.random()
            if what < 0.5 and len(names) < 4:   # no longer chains: nothing is filled
                writes.snapshot(r.choice(volumes), f"s{step}")
            elif what < 0.65 and names and len(volumes) < 3:
                volumes.append(f"tank/c{round_}{step}")
                writes.clone(volumes[-1], r.choice(names))
            elif what < 0.8 and names:
                back = r.choice(names)
                host.svctl("rollback-volume", back, "--yes")
                writes.all[back.split("@")[0]] = list(writes.all[back])
            elif names:
                gone = r.choice(names)
                host.svctl("delete-snapshot", gone, "--yes")
                del writes.all[gone]
            names = writes.snapshots()
            for one in names:
                other = r.choice(list(writes.all))
                assert diff(host, one, other) == writes.changed(one, other), (round_, step, one, other)
        for name in writes.snapshots():
            host.svctl("delete-snapshot", name, "--yes")
        for name in volumes:
            host.svctl("delete-volume", name, "--yes")
    host.svctl("check", "tank")


def copied(host):
    """Blocks that are valid in an extent because they were copied there from below."""
    blocks = 0
    for line in host.svctl("dump", "tank").splitlines():
        words = line.split()
        if words[0] == "partial" and len(words) == 5:
            assert int(words[4], 16) & ~int(words[2], 16) == 0, line
            blocks += (int(words[2], 16) & ~int(words[4], 16)).bit_count()
    return blocks


def settle(host):
    for _ in range(30):
        host.checkpoint("tank/v")
        time.sleep(0.02)


def some_block(r):
    """In the first 12 of the 16 fragments: no extent becomes whole, which would tell all of it."""
    return r.randrange(8) * BLOCKS + r.randrange(12 * FRAGMENT)


def long_chain(host, r):
    host.pool()
    writes = Writes(host, "tank/v", 8 * BLOCKS)
    for extent in range(8):
        writes.write("tank/v", extent * BLOCKS, BLOCKS)
    for step in range(16):
        writes.snapshot("tank/v", f"s{step}")
        for _ in range(30):
            writes.write("tank/v", some_block(r), 1)
        host.checkpoint("tank/v")
    writes.snapshot("tank/v", "last")
    writes.write("tank/v", 5, 1)
    settle(host)
    assert copied(host) > 100, "no chain was long enough: this shows nothing"
    return writes


def all_exact(host, writes, r):
    for one in writes.snapshots():
        for other in ("tank/v", r.choice(list(writes.all))):
            assert diff(host, one, other) == writes.changed(one, other), (one, other)


def test_changes_of_long_chains_are_exact(host):
    """Though they were shortened, and snapshots go from their midst, and clones are written."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    writes = long_chain(host, r)
    all_exact(host, writes, r)
    writes.clone("tank/c", "tank/v@s9")
    for step in range(12):
        gone = r.choice([name for name in writes.snapshots() if name not in ("tank/v@last", "tank/v@s9")])
        host.svctl("delete-snapshot", gone, "--yes")
        del writes.all[gone]
        for _ in range(10):
            writes.write(r.choice(["tank/v", "tank/c"]), some_block(r), 1)
        if step == 6:
            writes.snapshot("tank/c", "own")
        settle(host)
        all_exact(host, writes, r)
    host.svctl("check", "tank")
    assert copied(host) > 0
    host.svctl("rollback-volume", "tank/v@s9", "--yes")
    writes.all["tank/v"] = list(writes.all["tank/v@s9"])
    for _ in range(30):
        writes.write("tank/v", some_block(r), 1)
    all_exact(host, writes, r)


def test_what_was_copied_into_what_a_volume_writes_is_told_as_written(host):
    """The newest snapshots are deleted, and so what was copied becomes the volume's own, or goes into what is: nobody hears of each write
    there. Then others of the 64 KiB may be told, and never less than was written."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
    print(f"seed {seed}")
    r = random.Random(seed)
    writes = long_chain(host, r)
    for name in ["last"] + [f"s{n}" for n in range(15, 8, -1)]:
        host.svctl("delete-snapshot", f"tank/v@{name}", "--yes")
        del writes.all[f"tank/v@{name}"]
        settle(host)
        for _ in range(20):
            writes.write("tank/v", some_block(r), 1)
        for one in writes.snapshots():
            told, written = diff(host, one, "tank/v"), writes.changed(one, "tank/v")
            assert written.items() <= told.items(), one
            ever = {block // FRAGMENT for block in range(8 * BLOCKS) if writes.all["tank/v"][block] > 8}
            assert all(block // FRAGMENT in ever for block in told), one
        older = writes.snapshots()
        for one in older:
            other = r.choice(older)
            assert diff(host, one, other) == writes.changed(one, other), (one, other)
    host.svctl("check", "tank")


def test_output_of_diff(host):
    host.pool()
    host.svctl("create-snapshot", "tank/v@none")
    assert host.svctl("diff", "tank/v@none") == host.svctl("snapshot", "diff", "tank/v@none", "tank/v") == "nothing has changed\n"
    assert host.svctl("diff", "-H", "tank/v@none") == ""
    assert host.json("diff", "tank/v@none") == {"schema": 1, "bytes": 0, "ranges": []}
    write(host, "tank/v", MIB, bytes(MIB))
    write(host, "tank/v", 2 * MIB, os.urandom(BLOCK))
    host.svctl("create-snapshot", "tank/v@all")
    host.discard("tank/v", MIB, MIB)
    lines = host.svctl("diff", "tank/v@none", "tank/v@all").splitlines()
    assert lines[0].split() == ["OFFSET", "LENGTH", "KIND"]
    assert lines[1].split() == [str(MIB), str(MIB + BLOCK), "data"]
    assert lines[2:] == ["1M in 1 range"]
    assert host.svctl("diff", "-H", "tank/v@all", "tank/v") == f"{MIB}\t{MIB}\tzeroes\n"
    assert host.svctl("diff", "-H", "tank/v@all", "tank/v@none") == f"{MIB}\t{MIB + BLOCK}\tzeroes\n", "backwards"
    host.svctl("resize-volume", "tank/v", "--size", "300M")
    write(host, "tank/v", 290 * MIB, os.urandom(BLOCK))
    assert host.json("diff", "tank/v@all")["ranges"] == [{"offset": MIB, "length": MIB, "kind": "zeroes"},
                                                         {"offset": 290 * MIB, "length": BLOCK, "kind": "data"}]
    # Of another volume, which has nothing in common with it.
    host.svctl("create-volume", "tank/w", "--size", "4M")
    assert host.svctl("diff", "-H", "tank/v@all", "tank/w") == f"{MIB}\t{MIB + BLOCK}\tzeroes\n"


def test_diff_refuses_what_makes_no_sense(host):
    host.pool()
    host.svctl("create-snapshot", "tank/v@one")
    before = host.svctl("dump", "tank")
    host.refused(3, "diff", "tank/v@two", says="no such snapshot")
    host.refused(3, "diff", "tank/v@one", "tank/w", says="w")
    host.refused(3, "diff", "pond/v@one", says="pond")
    host.refused(2, "diff", "tank/v@one", "pond/v", says="one pool")
    host.refused(2, "diff", "tank/v", says="@")
    host.refused(2, "diff", "tank", says="@")
    host.refused(2, "diff", "tank/v@one", "tank/v@", says="@")
    host.svctl("deactivate", "tank")
    host.refused(5, "diff", "tank/v@one", says="down")
    host.svctl("activate", "tank")
    assert host.svctl("dump", "tank") == before
    # A reader may list; what reads whole maps is for administrators, as show-space.
    for arguments in ({"from": "v@", "to": "v"}, {"from": "v@one", "to": ""}):
        try:
            host.call("io.svctl.Diff", pool="tank", **arguments)
            raise AssertionError(arguments)
        except harness.Refused as refused:
            assert "InvalidParameter" in str(refused), refused

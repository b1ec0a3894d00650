"""Damage to a pool's members while svd is down: recovered from the copy or refused by name, never taken silently. Once
it is undone or recovered, the pool is as it was."""

import collections
import contextlib
import os
import re
import shutil
import struct
import subprocess
import time

import harness

KIB = 1 << 10
MIB = 1 << 20
BLOCK = 4096

Place = collections.namedtuple("Place", "path offset length")
CHECKSUMS = 64 * KIB  # docs/format-catalogue.md: where they begin; before them are superblocks
HEADER = 64           # of a batch


def regions(disk):
    """What the label says: size, ring and catalogue."""
    with open(disk, "rb") as f:
        label = f.read(BLOCK)
    size, _, ring_off, ring_len, cat_off, cat_len = struct.unpack_from("<6Q", label, 152)
    return {"label": Place(disk, 0, BLOCK), "copy": Place(disk, size - BLOCK, BLOCK),
            "journal": Place(disk, ring_off, ring_len), "catalogue": Place(disk, cat_off, cat_len)}


def read(place):
    with open(place.path, "rb") as f:
        f.seek(place.offset)
        return f.read(place.length)


def write(place, data, at=0):
    with open(place.path, "r+b") as f:
        f.seek(place.offset + at)
        f.write(data)


def flip(place, at):
    byte = read(place)[at]
    write(place, bytes([byte ^ 0x10]), at)


def restore(place, data):
    """Writes what differs."""
    now = read(place)
    for at in range(0, len(data), MIB):
        if now[at:at + MIB] != data[at:at + MIB]:
            write(place, data[at:at + MIB], at)


@contextlib.contextmanager
def undone(host, *places):
    """Undoes what is done to these places, with svd down."""
    before = [read(place) for place in places]
    yield
    host.kill()
    for place, data in zip(places, before):
        restore(place, data)


def batches(place):
    """Offset, seq and bytes of the journal's batches, in order of seq."""
    ring, found = read(place), []
    for at in range(0, place.length, BLOCK):
        magic, _, seq, _, size, _, _, _, _, offset = struct.unpack_from("<IIQQIIIIQQ", ring, at)
        if magic == 0x4a765331 and offset == at:
            found.append((at, seq, size))
    return sorted(found, key=lambda batch: batch[1])


def is_down(host, code, *says):
    pool = host.json("list")["pools"][0]
    assert pool["state"] == "down", pool
    answer = host.refused(code, "activate", "tank")
    for word in says:
        assert word in answer and word in host.svctl("status"), (word, answer)


def is_up(host, logged=""):
    assert host.json("list")["pools"][0]["state"] == "active", host.log_tail()
    host.svctl("check", "tank")
    assert host.logged(logged), f"no {logged!r} in the log:\n{host.log_tail()}"


# ---- members ----

@contextlib.contextmanager
def without_last_member(host, disks):
    """svd is started anew without it; it is back when the block is left."""
    host.stop()
    os.rename(disks[2], disks[2] + ".away")
    host.start()
    is_down(host, 3, "member 2 of 3 is missing")
    yield
    os.rename(disks[2] + ".away", disks[2])


def test_pool_waits_for_a_missing_member(host):
    disks = host.used_pool()
    with host.unchanged():
        with without_last_member(host, disks):
            host.refused(3, "show", "tank/v", says="member 2")
        host.svctl("scan")
        is_up(host)


def test_pool_comes_up_when_its_member_appears(host):
    """Nobody types anything meanwhile."""
    disks = host.used_pool()
    with host.unchanged():
        with without_last_member(host, disks):
            pass
        deadline = time.monotonic() + 30
        while not host.logged("pool tank is up"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_swapped_members_are_found_by_their_labels(host):
    disks = host.used_pool()
    with host.unchanged():
        host.stop()
        os.rename(disks[0], disks[0] + ".tmp")
        os.rename(disks[1], disks[0])
        os.rename(disks[0] + ".tmp", disks[1])
        host.start()
        is_up(host)


def test_truncated_member_is_refused_by_name(host):
    disks = host.used_pool()
    with host.unchanged():
        host.stop()
        whole = read(Place(disks[2], 0, -1))
        os.truncate(disks[2], 100 * MIB)
        host.start()
        is_down(host, 3, "member 2 of 3 is missing")
        assert disks[2] + ": the device is smaller than its label says" in host.svctl("status")
        host.kill()
        write(Place(disks[2], 0, 0), whole)
        host.start()
        is_up(host)


# ---- labels ----

def spoil(place, how):
    if how == "flipped":
        flip(place, 160)
    elif how == "cut off":
        write(place, bytes(BLOCK - 100), 100)
    else:
        write(place, bytes(BLOCK))


def test_damaged_label_is_recovered_from_its_copy(host):
    for disk in host.used_pool():
        places = regions(disk)
        sound = read(places["label"])
        for how in ("zeroed", "cut off", "flipped"):
            with host.unchanged():
                host.kill()
                spoil(places["label"], how)
                host.start()
                is_up(host, f"label of {disk} is damaged; written anew from its copy [SV-LABEL-REPAIRED]")
                assert read(places["label"]) == sound, how


def test_damaged_copy_of_a_label_is_written_anew(host):
    disk = host.used_pool()[1]
    places = regions(disk)
    for how in ("zeroed", "cut off", "flipped"):
        with host.unchanged():
            host.kill()
            spoil(places["copy"], how)
            host.start()
            is_up(host, f"label of {disk} is damaged in its copy; copy written anew [SV-LABEL-REPAIRED]")
            assert read(places["copy"]) == read(places["label"]), how


def test_label_and_copy_damaged_is_refused_by_name(host):
    disk = host.used_pool()[1]
    places = regions(disk)
    with host.unchanged():
        for how in ("cut off", "flipped"):
            host.kill()
            with undone(host, places["label"], places["copy"]):
                for place in ("label", "copy"):
                    spoil(places[place], how)
                host.start()
                is_down(host, 3, "member 1 of 3 is missing")
                assert disk in host.svctl("status"), how
        # Nothing says then that it was a member: it is missing by what the others know.
        host.kill()
        with undone(host, places["label"], places["copy"]):
            for place in ("label", "copy"):
                spoil(places[place], "zeroed")
            host.start()
            is_down(host, 3, "member 1 of 3 is missing", "tier slow, UUID ")
            assert f"last seen as {disk}, where no label of it can be read now" in host.svctl("status")
        host.start()
        is_up(host)


# ---- catalogue ----

def catalogues(disks):
    return [regions(disk)["catalogue"] for disk in disks[:2]]


def try_catalogue(host, disks, spoil_one):
    """In one copy it is recovered from the other, in both it is refused by name; undone, all is as it was."""
    places = catalogues(disks)
    for place in places:
        with host.unchanged():
            host.kill()
            spoil_one(place)
            host.start()
            is_up(host, place.path)
    with host.unchanged():
        host.stop()
        with undone(host, *places):
            for place in places:
                spoil_one(place)
            host.start()
            is_down(host, 7, "catalogue")
        host.start()
        is_up(host)


def test_zeroed_catalogue(host):
    try_catalogue(host, host.used_pool(), lambda place: write(place, bytes(place.length)))


def test_truncated_catalogue(host):
    try_catalogue(host, host.used_pool(), lambda place: write(place, bytes(place.length - CHECKSUMS), CHECKSUMS))


def superblock(place):
    """Of slot 0: offset and size of the database and of its WAL."""
    fields = struct.unpack_from("<8Q", read(place), 72)
    _, main_off, _, wal_off, _, main_size, wal_size = fields[:7]
    return main_off, main_size, wal_off, wal_size


def test_bit_flipped_catalogue(host):
    """A bit in every block that the catalogue uses: superblocks, checksums, database, WAL."""
    disks = host.used_pool()

    def flip_all(place):
        main_off, main_size, wal_off, wal_size = superblock(place)
        used = [*range(0, 2 * BLOCK, BLOCK), CHECKSUMS, *range(main_off, main_off + main_size, BLOCK),
                *range(wal_off, wal_off + wal_size, BLOCK)]
        for at in used:
            flip(place, at + 57)
    try_catalogue(host, disks, flip_all)


def test_each_flipped_block_of_the_catalogue_is_recovered_or_refused(host):
    """All blocks, each in one copy: from the other one. One block at a time in both copies: it is not needed, or the pool stays down,
    or, if only the dump reads it, dump and check refuse."""
    disks = host.used_pool()
    places = catalogues(disks)
    main_off, main_size, wal_off, wal_size = superblock(places[0])
    used = [0, BLOCK, CHECKSUMS, *range(main_off, main_off + main_size, BLOCK), *range(wal_off, wal_off + min(wal_size, 8 * BLOCK), BLOCK)]
    dump = host.dump()
    host.kill()
    for first in (0, 1):
        with undone(host, *places):
            for n, at in enumerate(used):
                flip(places[(first + n) % 2], at + 57)
            host.start()
            assert host.dump() == dump
            is_up(host, "[SV-CATALOGUE-REPAIRED]")
            assert not host.logged("[SV-CATALOGUE-DAMAGED]")
    damaged = False
    for at in used:
        with undone(host, *places):
            for place in places:
                flip(place, at + 57)
            host.start()
            if host.json("list")["pools"][0]["state"] != "active":
                is_down(host, 7, "catalogue")
                continue
            try:
                assert host.dump() == dump, at
                host.svctl("check", "tank")
            except harness.Refused as refused:
                assert refused.code == 7 and "svctl check" in refused.text, refused
                assert "[SV-CATALOGUE-DAMAGED]" in host.refused(7, "check", "tank", says="catalogue")
                damaged = damaged or host.logged("[SV-CATALOGUE-DAMAGED]")
    assert damaged, "no block that was read is damaged"
    host.start()
    assert host.dump() == dump
    is_up(host)


# ---- journal ----

def with_journal(host, copies):
    """A pool that was killed, with batches in its journal that the catalogue does not have. Its dump, its
    journals and catalogues, its journals, and those batches, the last of them longer than a sector."""
    disks = [host.disk(name, 64) for name in ("fast1", "fast2", "slow")[2 - copies:]]
    host.start()
    fast, slow = disks[:-1], disks[-1]
    host.svctl("create-pool", "tank", "--tier", f"fast={','.join(fast)}", "--tier", f"slow={slow}")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    for i in range(0, 64, 2):
        host.write("tank/v", i * MIB, b"old%d" % (i % 10) * 1024)
    host.flush("tank/v")
    host.checkpoint("tank/v")
    # The simulated kernel commits by itself, too, between any two calls: each of these makes one batch.
    for i in (1, 3, 5):
        host.write("tank/v", i * MIB, b"new%d" % i * 1024)
        host.flush("tank/v")
    host.discard("tank/v", 0, 48 * MIB)     # with a record for each extent
    host.flush("tank/v")
    host.kill()
    rings = [regions(disk)["journal"] for disk in fast]
    metadata = rings + catalogues(disks)
    with undone(host, *metadata):
        host.start()
        dump = host.dump()
    applied = int(re.search(r"^journal \d+ (\d+)", dump, re.M)[1])
    new = [batch for batch in batches(rings[0]) if applied - 4 < batch[1] <= applied]
    assert len(new) == 4 and max(size for _, _, size in new[:3]) < 512 < new[-1][2], (new, applied)
    return dump, metadata, rings, new


def damages(new):
    """Each kind of damage to what the catalogue has not applied of the journal: name, and function of a ring."""
    first, second, last = new[0][0], new[1][0], new[-1][0]
    yield "zeroed", lambda ring: write(ring, bytes(ring.length))
    yield "zeroed from the first batch on but for the last", lambda ring: write(ring, bytes(last - first), first)
    yield "one batch zeroed", lambda ring: write(ring, bytes(BLOCK), second)
    for name, batch in (("first", new[0]), ("middle", new[2]), ("last", new[-1])):
        for at in (0, 8, 16, 32, 48):
            yield f"bit {at} of the {name} header", lambda ring, at=at, batch=batch: flip(ring, batch[0] + at)
    for at in (4, 24, 36, HEADER, HEADER + 20):
        yield f"bit {at} of the first", lambda ring, at=at: flip(ring, first + at)
        yield f"bit {at} of the second", lambda ring, at=at: flip(ring, second + at)


def test_damage_of_the_only_journal_is_refused_by_name(host):
    dump, metadata, (ring,), new = with_journal(host, copies=1)
    for name, spoil_it in damages(new):
        with undone(host, ring):
            spoil_it(ring)
            host.start()
            is_down(host, 7, "journal on " + ring.path, "[SV-JOURNAL-DAMAGED]")
    host.start()
    assert host.dump() == dump
    is_up(host)


def test_damage_of_one_journal_is_recovered_from_the_other(host):
    dump, metadata, rings, new = with_journal(host, copies=2)
    for number, (name, spoil_it) in enumerate(damages(new)):
        with undone(host, *metadata):
            spoil_it(rings[number % 2])
            host.start()
            assert host.dump() == dump, name
            is_up(host, f"journal on {rings[number % 2].path}: ")
            assert host.logged("[SV-JOURNAL-COPY-DAMAGED]"), name
    host.start()
    assert host.dump() == dump


def test_journals_damaged_in_both_copies_are_refused_by_name(host):
    dump, metadata, rings, new = with_journal(host, copies=2)
    for name, spoil_it in damages(new):
        with undone(host, *rings):
            for ring in rings:
                spoil_it(ring)
            host.start()
            is_down(host, 7, *("journal on " + ring.path for ring in rings))
    host.start()
    assert host.dump() == dump


def test_shorter_journal_does_not_stand_in_for_a_damaged_longer_one(host):
    dump, metadata, rings, new = with_journal(host, copies=2)
    with undone(host, *rings):
        write(rings[0], bytes(rings[0].length - new[2][0]), new[2][0])  # sound, and ends early
        flip(rings[1], new[1][0] + HEADER)                              # has all the rest behind the damage
        host.start()
        is_down(host, 7, "journal on " + rings[1].path)
    host.start()
    assert host.dump() == dump


def test_torn_tail_of_the_journal_is_the_end_and_is_told(host):
    """What a power cut leaves of a batch that was not acknowledged, and what truncation makes of one that was: with one
    copy nobody can tell them apart, so svd says it."""
    dump, metadata, (ring,), new = with_journal(host, copies=1)
    at, seq, size = new[-1]
    for kept in range(512, size, 512):
        with undone(host, *metadata):
            write(ring, bytes(size - kept), at + kept)
            host.start()
            is_up(host, f"its last batch, {seq}, is torn")
            assert host.logged("[SV-JOURNAL-TORN]")
            assert host.dump() != dump
    host.start()
    assert host.dump() == dump


def test_truncated_journal_is_recovered_from_the_other(host):
    dump, metadata, rings, new = with_journal(host, copies=2)
    for cut in (new[0][0], new[1][0], new[-1][0], new[-1][0] + 512):
        for ring in rings:
            with undone(host, *metadata):
                write(ring, bytes(ring.length - cut), cut)
                lacks = len([at for at, *_ in new if at >= cut])
                host.start()
                assert host.dump() == dump, cut
                is_up(host, f"{ring.path}: it ends {lacks} batches before the other copy" if lacks > 1 else "")
                assert lacks > 1 or not host.logged("before the other copy"), cut
                assert batches(rings[0]) == batches(rings[1])
    host.start()
    assert host.dump() == dump


def test_reused_member_is_left_alone(host):
    """Something else was made of a member: only the copy of its label, at its end, is left."""
    disks = host.used_pool()
    with host.unchanged():
        host.svctl("deactivate", "tank")
        host.stop()
        with open(disks[2], "r+b") as f:
            label = f.read(4096)
            f.seek(0)
            f.write((b"LUKS\xba\xbe" + (1).to_bytes(2, "big") + b"aes".ljust(32, b"\0")).ljust(4096, b"\0"))
            reused = f.seek(0) or f.read(1 << 20)
        host.start()
        assert "[SV-MEMBER-REUSED]" in host.refused(7, "activate", "tank", says="crypto_LUKS")
        assert host.codes() == ["SV-MEMBER-REUSED"]
        with open(disks[2], "r+b") as f:
            assert f.read(1 << 20) == reused
        # The other of the two that the next step names: it was a mistake.
        subprocess.run(["wipefs", "-qa", disks[2]], check=True)
        host.svctl("activate", "tank")
        with open(disks[2], "rb") as f:
            assert f.read(4096) == label, "written anew"


def test_volume_whose_deletion_may_have_happened_has_no_device(host):
    """The catalogue's last copy fails while a volume is deleted: nobody writes to what the next start may find deleted."""
    disk = harness.FailingDisk(host, "only")
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={disk.path}")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    host.write("tank/v", 0, b"x" * 65536)
    host.flush("tank/v")
    host.checkpoint("tank/v")
    disk.fail()
    said = host.refused(4, "delete-volume", "tank/v", "--yes", says="whether it was done is known")    # EPERM: it is sealed
    assert "systemctl restart svd" in said, said
    host.svd.kill()
    host.svd.wait()
    disk.replace()
    host.start()
    assert host.read("tank/v", 0, 65536) == b"x" * 65536, "here it was not done"
    host.svctl("check", "tank")


def test_member_of_another_copy_of_the_pool_is_refused(host):
    """All disks but the newest were put back to what they were before that was added, and another one took its place."""
    disks = host.used_pool()
    host.stop()
    for disk in disks:
        shutil.copy(disk, disk + ".before")
    first, second = host.disk("first", 64), host.disk("second", 64)
    host.start()
    host.svctl("add-device", "tank", f"slow={first}")
    host.stop()
    for disk in disks:
        os.rename(disk + ".before", disk)
    os.rename(first, first + ".away")
    host.start()
    host.svctl("add-device", "tank", f"slow={second}")
    with host.unchanged():
        host.stop()
        os.rename(second, second + ".away")
        os.rename(first + ".away", first)
        host.start()
        is_down(host, 7, "member 3 is not the device that the catalogue knows", "[SV-MEMBER-WRONG]")
        assert host.codes() == ["SV-MEMBER-WRONG"]
        host.stop()
        os.remove(first)
        os.rename(second + ".away", second)
        host.start()
        is_up(host)


def test_kernel_stops_a_pool_whose_only_journal_fails(host):
    """Nothing is acknowledged any more."""
    disk = harness.FailingDisk(host, "only")
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={disk.path}")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    host.write("tank/v", 0, b"x" * 65536, fua=True)
    disk.fail()
    host.discard("tank/v", 0, MIB)
    try:
        host.flush("tank/v")
        raise AssertionError("a flush was acknowledged")
    except harness.Refused as refused:
        assert refused.code == 1, refused
    assert "SV-POOL-FAILED" in host.codes()
    assert 'svctl_problem{code="SV-POOL-FAILED"' in host.svctl("metrics")
    host.wait_logged("[SV-POOL-FAILED]")
    host.kill()
    disk.replace()
    host.start()
    is_up(host)
    assert host.read("tank/v", 0, 65536) == b"x" * 65536

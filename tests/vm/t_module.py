"""dm-sv.ko by itself: pools and volumes driven through the control device, without svd."""

import json
import random
import re
import types

import sv_ioctl
import svctl
import vm

SV = f"python3 {vm.HERE}/sv_ioctl.py"
UUID = "11111111-2222-3333-4444-555555555555"


def sv(guest, command, **options):
    """Output of sv_ioctl.py, decoded where there is any."""
    out = guest.run(f"{SV} {command}", **options)
    return json.loads(out) if out.strip() else None


def pool_up(bench_guest, disks, ring=16):
    bench_guest.load_sv()
    sv(bench_guest, f"--ring {ring} up " + " ".join(disks))


def two_tiers(bench, size="512M", **options):
    return [bench.disk("fast", size, **options), bench.disk("slow", size, **options)]


def devs(disks):
    return [f"{d.dev}={i}" for i, d in enumerate(disks)]


def test_loads_and_unloads(bench):
    with bench.boot() as guest:
        guest.load_sv()
        assert "sv-volume" in guest.run("dmsetup targets")
        guest.run("rmmod dm_sv")


LIMITS = {
    "logical_block_size": "4096", "physical_block_size": "4096",
    "minimum_io_size": "4096",          # mkfs.xfs would pad its log to more
    "optimal_io_size": "1048576",       # an extent
    "discard_granularity": "4096", "discard_max_bytes": str(64 << 30), "write_zeroes_max_bytes": str(64 << 30),
    "write_cache": "write back", "fua": "1",     # a flush is what makes first writes durable
}


def queue_of(guest, dev, *names):
    """What /sys says of a device's queue."""
    queue = f"/sys/dev/block/$(stat -Lc '%Hr:%Lr' {dev})/queue"
    return dict(zip(names, guest.run("; ".join(f"cat {queue}/{name}" for name in names)).splitlines()))


def limits_are_the_volumes_own(guest, disks):
    """Not its members', but for whether they rotate: where one does, so does the volume."""
    assert queue_of(guest, "/dev/mapper/v1", *LIMITS) == LIMITS
    for disk in disks:
        members = queue_of(guest, disk.dev, *LIMITS)
        assert not {"logical_block_size", "optimal_io_size", "discard_max_bytes", "fua"} & {n for n in LIMITS if members[n] == LIMITS[n]}
    rotational = {}
    for number, rotates in ((2, ""), (3, disks[1].dev)):
        guest.run(f"for d in {disks[0].dev} {disks[1].dev}; do echo $([[ $d != '{rotates}' ]]; echo $?) > "
                  "/sys/block/$(basename $(readlink -f $d))/queue/rotational; done")
        sv(guest, f"create {number} 1G")
        rotational[number] = queue_of(guest, f"/dev/mapper/v{number}", "rotational")["rotational"]
        guest.run(f"dmsetup remove v{number}")
    assert rotational == {2: "0", 3: "1"}, rotational


def status_says_what_the_pool_says(guest):
    """Each field of the pool's line."""
    guest.run("for i in 1 2 3; do dd if=/dev/zero of=/dev/mapper/v1 bs=4k seek=$((i * 256 + 5000)) count=1 oflag=direct status=none; done\n"
              "blkdiscard -l 4M /dev/mapper/v1")
    sv(guest, "commit")
    state, members = sv(guest, "state"), [m["free_slots"] for m in sv(guest, "members")]
    fields = [state["committed_seq"], f"{state['ring_used']}/{state['ring_bytes']}", f"{state['free_slots']}/{state['total_slots']}",
              state["freed_extents"], state["partials"], 2, *members]
    assert guest.run("dmsetup status pool").split() == ["0", "2048", "sv-pool", "write", "active", *map(str, fields)], fields
    assert fields[3] == 4 and fields[4] >= 3 and sum(members) == state["free_slots"] and members[0] != members[1], fields
    assert guest.run("dmsetup status v1").split()[3:] == ["7", "write", "rw"]


def test_pool_and_volume_come_and_go(bench):
    disks = two_tiers(bench)
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks))
        numbers = guest.run("stat -Lc %Hr:%Lr " + " ".join(d.dev for d in disks)).split()
        assert guest.run("dmsetup table pool") == f"0 2048 sv-pool {UUID} 2 {' '.join(numbers)}\n"
        assert guest.run("dmsetup status pool").split()[3:5] == ["write", "active"]
        sv(guest, "create 1 1G")
        assert guest.run("dmsetup table v1") == f"0 {(1 << 30) // 512} sv-volume {UUID} 1\n"
        assert guest.run("dmsetup status v1") == f"0 {(1 << 30) // 512} sv-volume 0 write rw\n"
        limits_are_the_volumes_own(guest, disks)
        guest.run("dd if=/dev/zero of=/dev/mapper/v1 bs=1M count=8 oflag=direct status=none")
        assert guest.run("dmsetup status v1").split()[3] == "8"
        status_says_what_the_pool_says(guest)
        assert len(guest.run("dmsetup deps v1").split("dependencies")[1].split("(")) == 3
        guest.run("dmsetup remove v1; dmsetup remove pool; refused ls /dev/svctl-*; rmmod dm_sv")


def test_fio_verifies(bench):
    disks = two_tiers(bench)
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks))
        sv(guest, "create 1 256M")
        guest.run("fio --name=v --filename=/dev/mapper/v1 --rw=randwrite --bsrange=4k-512k --bs_unaligned=0 "
                  "--blockalign=4k --ioengine=libaio --iodepth=16 --direct=1 --size=256M --io_size=192M "
                  "--verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 --norandommap=0 >/dev/null", timeout=150)
        print(guest.run("dmsetup status"), sv(guest, "state"))


# Extents go to and fro between two members until told to stop. Where writes are not held few are moved under fio's, but some.
MOVE = f"""
import collections, os, random, sys
sys.path.insert(0, {vm.HERE!r})
import sv_ioctl as sv
pool, r = sv.Pool(), random.Random({{seed}})
pool.attach()
asked, moved = collections.Counter(), collections.Counter()
while not os.path.exists("/tmp/stop"):
    extents = [x for x in pool.dump("DUMP_EXTENTS") if not x["flags"] & sv.EXTENT_FREED]
    flags = r.randrange(4)   # with or without writes that wait, and fragments that stay such
    some = [{{{{"extent": x["extent"], "gen": x["gen"], "member": 1 - x["member"], "flags": flags}}}}
            for x in r.sample(extents, min(len(extents), r.choice([1, 4, 24])))]
    if some:
        moved[flags & 1] += pool.count("MOVE", some)
        asked[flags & 1] += len(some)
    pool.recycle()
print("moved", dict(moved), "of", dict(asked), "with writes held (1) or not")
assert moved[0] > 20 and moved[1] > 20, "this shows nothing"
"""
# What is used are the slots of extents, and those that have fragments of some: what was left behind is free again. (Nothing folds
# here, so extents that have outgrown their fragments take more than one.)
USED = f"""
import sys
sys.path.insert(0, {vm.HERE!r})
import sv_ioctl as sv
pool = sv.Pool()
pool.attach()
pool.recycle()
pool.recycle()
extents = {{x["extent"]: x for x in pool.dump("DUMP_EXTENTS") if not x["flags"] & sv.EXTENT_FREED}}
slots = {{(x["member"], x["slot"]) for x in extents.values() if not x["flags"] & sv.EXTENT_FRAGS}}
places = [(p["extent"], p[f"p{{i}}"]) for p in pool.dump("DUMP_PARTIALS") for i in range(16) if p[f"p{{i}}"]]
fragments = {{(extents[number]["member"], (at - 1) // 16) for number, at in places}}
used = sum(m["nr_slots"] - m["free_slots"] for m in pool.call("MEMBERS", [], 2))
print(f"{{used}} slots used, {{len(slots)}} by extents and {{len(fragments)}} by {{len(places)}} fragments")
assert not slots & fragments and used == len(slots) + len(fragments)
"""
# One member is emptied.
EMPTY = f"""
import sys
sys.path.insert(0, {vm.HERE!r})
import sv_ioctl as sv
pool = sv.Pool()
pool.attach()
pool.ask_nothing("CLOSE", member=0, closed=1)
turns = []
while there := [x for x in pool.dump("DUMP_EXTENTS") if x["member"] == 0 and not x["flags"] & sv.EXTENT_FREED]:
    flags = 2 | (len(turns) >= 2)
    moves = [{{"extent": x["extent"], "gen": x["gen"], "member": 1, "flags": flags}} for x in there[:256]]
    turns.append((len(there), pool.count("MOVE", moves)))
    pool.recycle()
    assert len(turns) < 20, turns
pool.recycle()
pool.recycle()
one, other = pool.call("MEMBERS", [], 2)
print("left of how many:", turns, one, other)
assert turns and one["free_slots"] == one["nr_slots"], one
assert pool.ask("STATE")["total_slots"] == other["nr_slots"]
"""


@vm.limit(240)
def test_extents_move_under_load(bench):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    disks = two_tiers(bench)
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks))
        sv(guest, "create 1 128M")
        sv(guest, "policy 1000 1000 1")
        path = guest.put("move.py", MOVE.format(seed=seed))
        moves = guest.start(f"python3 {path}")
        guest.run("fio --name=v --filename=/dev/mapper/v1 --rw=randwrite --bsrange=4k-512k --blockalign=4k --ioengine=libaio --iodepth=8 "
                  "--direct=1 --size=128M --io_size=192M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 >/dev/null", timeout=150)
        guest.run("head -c 128M /dev/urandom > /tmp/data; dd if=/tmp/data of=/dev/mapper/v1 bs=1M oflag=direct conv=fsync status=none\n"
                  "for i in 1 2 3; do cmp /tmp/data /dev/mapper/v1; echo 3 > /proc/sys/vm/drop_caches; done; touch /tmp/stop")
        print(moves.wait(60))
        guest.run("cmp /tmp/data /dev/mapper/v1")
        path = guest.put("used.py", USED)
        print(guest.run(f"python3 {path}", timeout=60))
        fio = guest.start("fio --name=v --filename=/dev/mapper/v1 --rw=randwrite --bsrange=4k-256k --blockalign=4k --ioengine=libaio --iodepth=4 "
                          "--direct=1 --size=128M --io_size=96M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=32 >/dev/null")
        path = guest.put("empty.py", EMPTY)
        print(guest.run(f"python3 {path}", timeout=60))
        fio.wait(120)


@vm.full
def test_file_systems_live_on_volumes(bench):
    disks = two_tiers(bench, "1G")
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks))
        sv(guest, "create 1 600M")
        sv(guest, "create 2 600M")
        guest.run("mkfs.ext4 -q /dev/mapper/v1; mkfs.xfs -q /dev/mapper/v2; mkdir -p /a /b; mount /dev/mapper/v1 /a;"
                  "mount /dev/mapper/v2 /b; for d in /a /b; do cp -r /usr/share/perl/* $d; sync -f $d;"
                  "(cd $d; find . -type f | sort | xargs sha256sum) > /tmp/sums; umount $d; mount "
                  "$([ $d = /a ] && echo /dev/mapper/v1 || echo /dev/mapper/v2) $d;"
                  "(cd $d; sha256sum --quiet -c /tmp/sums); done", timeout=150)
        mapped = int(guest.run("dmsetup status v2").split()[3])
        guest.run("rm -rf /b/*; sync -f /b; fstrim -v /b")
        after = int(guest.run("dmsetup status v2").split()[3])
        print(f"mapped {mapped}, after fstrim {after}")
        assert after < mapped
        assert sv(guest, "checkpoint") > 0
        guest.run("umount /a /b; fsck.ext4 -fn /dev/mapper/v1 >/dev/null; xfs_repair -n /dev/mapper/v2 2>/dev/null")


def script(guest, text, timeout=60):
    """Runs Python in the guest with sv_ioctl at hand; `pool` is the attached writer."""
    path = guest.put("script.py", "import errno, os, sys, time\n" f"sys.path.insert(0, {vm.HERE!r})\n"
                     "import sv_ioctl as sv\n\n" + text)
    return guest.run(f"python3 {path}", timeout=timeout)


def test_flush_reaches_only_members_that_the_volume_wrote(bench):
    disks = two_tiers(bench, "128M")
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        script(guest, f"""
def flushes(dev):
    return sv.io_stat(dev)[15]

def write(fd, off):
    os.pwrite(fd, b"x" * 4096, off)
    os.fsync(fd)

pool = sv.Pool()
pool.attach()
tier = lambda t: (1 << 64) - 1 & ~0xff | t
for number in (1, 2):
    pool.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=sv.MIB * 64, tiers=tier(number - 1))
    sv.dmsetup("create", f"v{{number}}", table=sv.volume_table(number, sv.MIB * 64))
fast, slow = {[d.dev for d in disks]!r}
v1, v2 = (os.open(f"/dev/mapper/v{{n}}", os.O_RDWR) for n in (1, 2))
pool.ask("COMMIT")
before, seq = flushes(slow), pool.ask("STATE")["committed_seq"]
write(v1, 0)
assert pool.ask("STATE")["committed_seq"] > seq, "a first write and fsync commit"
assert flushes(slow) == before, "v1 never wrote to the slow member"
write(v2, 0)
assert flushes(slow) > before
counts, seq = (flushes(fast), flushes(slow)), pool.ask("STATE")["committed_seq"]
os.fsync(v1)
os.fsync(v2)
assert (flushes(fast), flushes(slow)) == counts, "nothing is owed"
write(v2, 0)
assert flushes(slow) > counts[1] and flushes(fast) == counts[0], "an overwrite owes a flush and no record"
assert pool.ask("STATE")["committed_seq"] == seq
time.sleep(2.5)
assert pool.ask("STATE")["committed_seq"] == seq, "idle pools do not write"
write(v1, 4096 * 100)
os.pwrite(v1, b"y" * 4096, 4096 * 200)
fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
import mmap
buf = mmap.mmap(-1, 4096)
seq = pool.ask("STATE")["committed_seq"]
os.pwrite(fd, buf, 4096 * 50)
assert pool.ask("STATE")["committed_seq"] > seq, "FUA and a flush, as O_DSYNC makes them of a new block, commit"
""")


def test_commits_without_volatile_caches(bench):
    disks = two_tiers(bench, "64M", write_cache=False)
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        sv(guest, "create 1 32M")
        sv(guest, "policy 1000 60000")      # by itself it would commit in a minute
        assert queue_of(guest, disks[0].dev, "write_cache")["write_cache"] == "write through"
        cache = {name: LIMITS[name] for name in ("write_cache", "fua")}
        assert queue_of(guest, "/dev/mapper/v1", *cache) == cache
        before = sv(guest, "state")["committed_seq"]
        script(guest, f"""
pool = sv.Pool(write=False)     # it has no session, each of which begins with a commit
fd = os.open("/dev/mapper/v1", os.O_RDWR)
os.pwrite(fd, b"x" * 4096, 0)
assert pool.ask("STATE")["committed_seq"] == {before}
os.fsync(fd)
assert pool.ask("STATE")["committed_seq"] > {before}
""")


# Fills a pool by first writes of one class after another, and prints how many slots each of them left.
FILL_BY_CLASS = """
import mmap
pool = sv.Pool()
pool.attach()
index = iter(range(1024))
for flags in (0, os.O_DSYNC):                   # the second is FUA
    fd = os.open("/dev/mapper/v2", os.O_WRONLY | os.O_DIRECT | flags)
    try:
        while True:
            os.pwrite(fd, mmap.mmap(-1, 4096), next(index) * sv.MIB)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    print(pool.ask("STATE")["free_slots"])
"""


def reserves_are_for_fua_and_metadata(guest):
    """A full pool's last slots: a part of them is for FUA writes, all of them for what a file system says is metadata."""
    total = sv(guest, "state")["total_slots"]
    reserve = total // 64
    sv(guest, "create 2 1G")
    sv(guest, "create 3 1G")
    # Without a journal, so that its blocks are written where they lie; inode tables lie 2 MiB apart and more.
    guest.run("mkfs.ext4 -q -O ^has_journal,^flex_bg -E lazy_itable_init=1 /dev/mapper/v3; mount /dev/mapper/v3 /mnt; sync -f /mnt")
    assert guest.run("dmsetup status pool").split()[3] == "write"
    left = [int(n) for n in script(guest, FILL_BY_CLASS).split()]
    assert left == [reserve, reserve - reserve // 4] and left[0] - left[1] >= 2, (left, reserve)
    assert guest.run("dmsetup status pool").split()[3:5] == ["out-of-space", "active"]
    assert guest.run("dmsetup status v2").split()[4] == "out-of-space" and sv(guest, "state")["mode"] == OUT_OF_SPACE
    assert "mode is now out-of-space (was write)" in guest.run("dmesg")
    assert ("sv_mode", {"from": 0, "to": OUT_OF_SPACE}) in trace(guest)
    guest.run("mkdir /mnt/d{1..3}; sync -f /mnt; umount /mnt; echo 3 > /proc/sys/vm/drop_caches; mount /dev/mapper/v3 /mnt\n"
              "ls -d /mnt/d{1..3}; umount /mnt; fsck.ext4 -fn /dev/mapper/v3")
    assert sv(guest, "state")["free_slots"] < left[1], "metadata took none of what FUA may not"
    guest.run("for v in v2 v3; do blkdiscard /dev/mapper/$v; dmsetup remove $v; done")
    sv(guest, "checkpoint")
    assert guest.run("dmsetup status pool").split()[3] == "write" and sv(guest, "state")["free_slots"] == total
    assert ("sv_mode", {"from": OUT_OF_SPACE, "to": 0}) in trace(guest)


def test_full_pool(bench):
    large, small = bench.disk("large", "540M"), bench.disk("a", "64M")
    with bench.boot([large, small]) as guest:
        pool_up(guest, [large.dev], ring=4)
        sv(guest, "policy 0 1000")
        trace(guest)
        reserves_are_for_fua_and_metadata(guest)
        guest.run("dmsetup remove pool")
        # Of a pool this small nothing is kept back.
        sv(guest, f"--ring 4 up {small.dev}")
        sv(guest, "create 1 1G")
        sv(guest, "policy 0 1000")
        fill = "dd if=/dev/urandom of=/dev/mapper/v1 bs=1M count=100 oflag=direct status=none"
        out = guest.run(fill + " 2>&1", check=False)
        assert "No space left" in out, out
        assert guest.run("dmsetup status pool").split()[3] == "out-of-space"
        # What is there can be read and overwritten, and flushed.
        guest.run("dd if=/dev/zero of=/dev/mapper/v1 bs=1M count=4 oflag=direct conv=fsync status=none")
        guest.run("dd if=/dev/mapper/v1 of=/dev/null bs=1M iflag=direct count=100 status=none")
        guest.run("blkdiscard -o 0 -l 8M /dev/mapper/v1")
        assert sv(guest, "checkpoint") == 8
        guest.run("dd if=/dev/zero of=/dev/mapper/v1 bs=1M seek=500 count=8 oflag=direct status=none")
        # A write that waits for space goes on when there is some.
        sv(guest, "policy 60000 1000")
        write = "dd if=/dev/zero of=/dev/mapper/v1 bs=1M seek={} count=1 oflag=direct status=none"
        waiting = guest.start(write.format(600))
        guest.run("sleep 2; blkdiscard -o 500M -l 8M /dev/mapper/v1")
        assert sv(guest, "checkpoint") == 8
        waiting.wait(20)
        # Suspend ends it: with --noflush it comes back on resume, otherwise it fails.
        guest.run("dd if=/dev/zero of=/dev/mapper/v1 bs=1M seek=601 count=7 oflag=direct status=none")
        waiting = guest.start(write.format(700))
        guest.run("sleep 1; timeout 20 dmsetup suspend --noflush v1; dmsetup resume v1")
        guest.run("sleep 1; blkdiscard -o 601M -l 1M /dev/mapper/v1")
        sv(guest, "checkpoint")
        waiting.wait(20)
        waiting = guest.start(write.format(701))
        guest.run("sleep 1; timeout 20 dmsetup suspend --nolockfs v1; dmsetup resume v1")
        out = waiting.wait(20, check=False)
        assert waiting.code == 1 and "No space left on device" in out, (waiting.code, out)


def test_discard_and_zeroes(bench):
    disks = two_tiers(bench, "128M")
    for disk in disks:      # so that no slot is zero
        with open(disk.path, "r+b") as f:
            f.write(b"\xff" * disk.size)
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        sv(guest, "create 1 64M")
        guest.run("head -c 16M /dev/urandom > /tmp/d; dd if=/tmp/d of=/dev/mapper/v1 bs=1M oflag=direct status=none\n"
                  # Parts of extents, and whole ones.
                  "blkdiscard -o 8k -l 12k /dev/mapper/v1; blkdiscard -z -o 3M -l 2560k /dev/mapper/v1\n"
                  "dd if=/dev/zero of=/tmp/d bs=4k seek=2 count=3 conv=notrunc status=none\n"
                  "dd if=/dev/zero of=/tmp/d bs=4k seek=768 count=640 conv=notrunc status=none\n"
                  "echo 3 > /proc/sys/vm/drop_caches; cmp -n 16M /tmp/d /dev/mapper/v1")
        assert guest.run("dmsetup status v1").split()[3] == "14"
        guest.run("blkdiscard /dev/mapper/v1; cmp -n 64M /dev/mapper/v1 /dev/zero")
        assert guest.run("dmsetup status v1").split()[3] == "0"
        sv(guest, "checkpoint")
        for flags in (0, FRAGMENTS):
            first_writes_leave_zeroes_around(guest, flags)


FRAGMENTS = 1   # SV_POLICY_FRAGMENTS
WRITE_A_LITTLE = """rm -f /tmp/d; truncate -s 24M /tmp/d
for at in 0 700 1023 3000 3001 3840 6143; do
    for to in /tmp/d /dev/mapper/v1; do dd if=/tmp/pattern of=$to bs=4k skip=$at seek=$at count=1 conv=notrunc,fsync status=none; done
done
echo 3 > /proc/sys/vm/drop_caches; cmp -n 24M /tmp/d /dev/mapper/v1
blkdiscard /dev/mapper/v1
"""


def first_writes_leave_zeroes_around(guest, flags):
    """In slots that were full of a pattern, were freed, and have come back."""
    sv(guest, f"policy 1000 1000 {flags}")
    guest.run("head -c 24M /dev/zero | tr '\\0' x > /tmp/pattern; dd if=/tmp/pattern of=/dev/mapper/v1 bs=1M oflag=direct status=none\n"
              "cmp -n 24M /tmp/pattern /dev/mapper/v1; blkdiscard /dev/mapper/v1")
    assert sv(guest, "checkpoint") == 24
    guest.run(WRITE_A_LITTLE)
    sv(guest, "checkpoint")


def test_control_device_refuses_bad_commands(bench):
    disks = [bench.disk("a", "64M")]
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        guest.run(f"refused setpriv --bounding-set=-sys_admin cat /dev/svctl-{UUID} 2> /tmp/said; grep 'Operation not permitted' /tmp/said")
        bad_commands = f"python3 {vm.HERE}/guest/bad_commands.py {UUID}"
        guest.run(bad_commands, timeout=120)
        print(guest.run(bad_commands + " live", timeout=120))
        guest.run("dmsetup remove pool; rmmod dm_sv")


URING = """
import ctypes, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)

class Uring:
    def __init__(self):
        params = bytearray(120)
        self.fd = libc.syscall(425, 8, (ctypes.c_char * 120).from_buffer(params))
        assert self.fd >= 0, ctypes.get_errno()
        self.sq = dict(zip("head tail mask entries flags dropped array".split(), struct.unpack_from("7I", params, 40)))
        self.cq = dict(zip("head tail mask entries overflow cqes".split(), struct.unpack_from("6I", params, 80)))
        self.ring = mmap.mmap(self.fd, 4096, offset=0)
        self.sqes = mmap.mmap(self.fd, 4096, offset=0x10000000)

    def word(self, off):
        return struct.unpack_from("I", self.ring, off)[0]

    def submit(self, file, cmd_op, addr, user_data):
        tail = self.word(self.sq["tail"])
        index = tail & self.word(self.sq["mask"])
        struct.pack_into("BBHiQQIIQ", self.sqes, index * 64, 46, 0, 0, file, cmd_op, addr, 0, 0, user_data)
        struct.pack_into("I", self.ring, self.sq["array"] + 4 * index, index)
        struct.pack_into("I", self.ring, self.sq["tail"], tail + 1)
        assert libc.syscall(426, self.fd, 1, 0, 0, None, 0) == 1, ctypes.get_errno()

    def wait(self):
        libc.syscall(426, self.fd, 0, 1, 1, None, 0)
        head = self.word(self.cq["head"])
        assert head != self.word(self.cq["tail"])
        at = self.cq["cqes"] + 16 * (head & self.word(self.cq["mask"]))
        struct.pack_into("I", self.ring, self.cq["head"], head + 1)
        return struct.unpack_from("Qi", self.ring, at)
"""


@vm.not_on("6.1")  # has no io_uring commands for modules
def test_commands_by_io_uring(bench):
    disks = [bench.disk("a", "64M")]
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        script(guest, URING + """
pool = sv.Pool()
pool.attach()
pool.ask("WAIT")        # what is pending already
ring = Uring()

def command(name, size, buf):
    return ctypes.create_string_buffer(sv.CMD.pack(sv.OP[name], size, 1, 0, pool.epoch, ctypes.addressof(buf), 0, 0), 48)

state, event = ctypes.create_string_buffer(120), ctypes.create_string_buffer(sv.EVENT.pack({"timeout_ms": 60000}), 16)
wait, ask = command("WAIT", 16, event), command("STATE", 120, state)
ring.submit(pool.fd, sv.SV_IOC_CMD, ctypes.addressof(wait), 1)
ring.submit(pool.fd, sv.SV_IOC_CMD, ctypes.addressof(ask), 2)
assert ring.wait() == (2, 0), "a command overtakes one that waits"
assert sv.STATE.unpack(state, 1)[0]["total_slots"] > 0
ring.submit(pool.fd, 12345, ctypes.addressof(ask), 3)
assert ring.wait() == (3, -errno.ENOTTY)
# An event ends the wait: a write that finds no space.
pool.ask_nothing("POLICY", no_space_ms=0, commit_ms=1000)
sv.add_volume(pool, 1, 1 << 30)
fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 1 << 20)
try:
    for i in range(100):
        os.pwrite(fd, buf, i << 20)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
assert ring.wait() == (1, 0)
assert sv.EVENT.unpack(event, 1)[0]["events"] & sv.EVENT_SPACE
# One that still waits when its ring is closed must not keep the process.
event2 = ctypes.create_string_buffer(sv.EVENT.pack({"timeout_ms": 600000}), 16)
wait2 = command("WAIT", 16, event2)
pool.ask("WAIT")
ring.submit(pool.fd, sv.SV_IOC_CMD, ctypes.addressof(wait2), 4)
time.sleep(0.5)
os.close(fd)
""", timeout=60)


@vm.full
def test_pool_grows_and_outlives_its_device(bench):
    disks = [bench.disk(n, "64M") for n in "abc"]
    with bench.boot(disks) as guest:
        first, more, other = [d.dev for d in disks]
        pool_up(guest, [first], ring=4)
        sv(guest, "create 1 256M")
        guest.run("dd if=/dev/urandom of=/dev/mapper/v1 bs=1M count=40 oflag=direct status=none")
        before = guest.run("sha256sum < /dev/mapper/v1")
        script(guest, f"""
label = sv.label_devices(["{more}"], nr_members=2, first=1)[0]
sv.dmsetup("reload", "pool", table=sv.pool_table(["{first}", "{more}"]))
sv.dmsetup("suspend", "pool")
sv.dmsetup("resume", "pool")
pool = sv.Pool()
pool.attach()
assert len(pool.call("MEMBERS", room=4)) == 2
pool.call("GRANT", [dict(member=1, count=label["nr_slots"])])
""")
        guest.run("dd if=/dev/urandom of=/dev/mapper/v1 bs=1M seek=40 count=40 oflag=direct status=none")
        grown = guest.run("sha256sum < /dev/mapper/v1")
        assert grown != before
        # Another order, a foreign device, a device too few: refused, and nothing changed.
        for bad in (f"{more} {first}", f"{first} {other}", f"{first} {first}"):
            out = guest.run(f"dmsetup reload pool --table '0 2048 sv-pool {UUID} 2 {bad}' 2>&1 && echo WRONG || true")
            assert "WRONG" not in out, out
        guest.run(f"refused dmsetup reload pool --table '0 2048 sv-pool {UUID} 1 {first}' 2>/dev/null\n"
                  f"refused dmsetup create again --table '0 2048 sv-pool {UUID} 2 {first} {more}' 2>/dev/null\n"
                  f"refused dmsetup create again --table '0 2048 sv-volume {UUID} 1' 2>/dev/null\n"
                  f"refused dmsetup create again --table '0 2048 sv-volume {UUID} 77' 2>/dev/null")
        # The pool's device goes, the volume stays, and the device comes back to the same pool.
        guest.run("dmsetup remove pool; dd if=/dev/zero of=/dev/mapper/v1 bs=1M seek=90 count=4 oflag=direct conv=fsync "
                  "status=none")
        guest.run(f"dmsetup create pool --table '0 2048 sv-pool {UUID} 2 {first} {more}'")
        assert guest.run("sha256sum < /dev/mapper/v1") == grown
        assert guest.run("dmsetup status v1").split()[3] == "84"
        # Grows online.
        script(guest, """
pool = sv.Pool()
pool.attach()
pool.ask_nothing("VOLUME_RESIZE", id=1, size=300 * sv.MIB)
sv.dmsetup("reload", "v1", table=sv.volume_table(1, 300 * sv.MIB))
sv.dmsetup("suspend", "v1")
sv.dmsetup("resume", "v1")
assert sv.device_size("/dev/mapper/v1") == 300 * sv.MIB
# What the map reaches is no less afterwards.
pool.ask_nothing("VOLUME_RESIZE", id=1, size=sv.MIB)
assert [v["size"] for v in pool.call("VOLUMES", room=8)] == [300 * sv.MIB]
""")
        guest.run("dmsetup remove v1; dmsetup remove pool; rmmod dm_sv")


def test_bad_labels_are_refused_by_name(bench):
    disks = two_tiers(bench, "64M")
    with bench.boot(disks, expect=["label"]) as guest:
        guest.load_sv()
        names = [d.dev for d in disks]
        create = f"dmsetup create pool --table '0 2048 sv-pool {{}} 2 {' '.join(names)}' 2>&1"
        assert "WRONG" not in guest.run(create.format(UUID) + " && echo WRONG || true")
        sv(guest, "--ring 4 label " + " ".join(devs(disks)))
        assert "WRONG" not in guest.run(create.format(UUID[::-1]) + " && echo WRONG || true")
        assert "WRONG" not in guest.run(create.format(UUID.replace("1", "9")) + " && echo WRONG || true")
        assert "belongs to another pool" in guest.run("dmesg | tail -5")
        guest.run(f"refused dmsetup create pool --table '0 2048 sv-pool {UUID} 1 {names[0]}' 2>/dev/null")
        # The first label is damaged: its copy serves.
        guest.run(f"dd if=/dev/urandom of={names[0]} bs=4k count=1 oflag=direct status=none")
        guest.run(create.format(UUID) + "; dmsetup remove pool")
        assert "using its copy" in guest.run("dmesg | tail -5")


def test_member_errors(bench):
    disks = two_tiers(bench, "128M")
    with bench.boot(disks, expect=["Buffer I/O", "I/O error"]) as guest:
        names = [d.dev for d in disks]
        size = (128 << 20) // 512
        guest.run(f"dmsetup create ok0 --table '0 {size} linear {names[0]} 0'\n"
                  f"dmsetup create ok1 --table '0 {size} linear {names[1]} 0'")
        pool_up(guest, ["/dev/mapper/ok0=0", "/dev/mapper/ok1=1"], ring=4)
        script(guest, """
pool = sv.Pool()
pool.attach()
pool.ask_nothing("VOLUME_CREATE", id=1, layer=1, owned_since=1, size=64 * sv.MIB, tiers=(1 << 64) - 256)
pool.ask_nothing("VOLUME_CREATE", id=2, layer=1, owned_since=1, size=64 * sv.MIB, tiers=(1 << 64) - 255)
for number in (1, 2):
    sv.dmsetup("create", f"v{number}", table=sv.volume_table(number, 64 * sv.MIB))
""")
        write = "dd if=/dev/zero of=/dev/mapper/{} bs=64k count=16 oflag=direct conv=fsync status=none"
        guest.run(write.format("v1") + "; " + write.format("v2"))
        # A flush of the slow member fails, in its last sectors, which nobody writes; the pool goes on.
        trace(guest)
        guest.run(f"modprobe dm-flakey; dmsetup suspend --noflush ok1; printf '0 {size - 8} linear {names[1]} 0\\n{size - 8} 8 flakey "
                  f"{names[1]} {size - 8} 0 60 1 error_writes\\n' | dmsetup load ok1; dmsetup resume ok1\n"
                  "refused " + write.format("v2") + " 2>&1")
        events = trace(guest)
        assert ("sv_flush", {"member": 1, "failed": 1}) in events and "sv_mode" not in [name for name, _ in events], events
        # It fails as a whole: its volume gets errors, the other does not notice.
        guest.run(f"dmsetup suspend --noflush ok1; dmsetup load ok1 --table '0 {size} error'; dmsetup resume ok1")
        guest.run("refused " + write.format("v2") + " 2>/dev/null; " + write.format("v1"))
        assert sv(guest, "members")[1]["errors"] > 0
        assert guest.run("dmsetup status v1").split()[4] == "write"
        trace(guest)
        # The only copy of the journal fails: so does the pool, and says so.
        guest.run(f"dmsetup suspend --noflush ok0; dmsetup load ok0 --table '0 {size} error'; dmsetup resume ok0")
        guest.run("refused dd if=/dev/zero of=/dev/mapper/v1 bs=64k seek=40 count=1 oflag=direct conv=fsync 2>/dev/null")
        assert guest.run("dmsetup status pool").split()[3:5] == ["fail", "active"] and sv(guest, "state")["mode"] == FAIL
        assert ("sv_mode", {"from": 0, "to": FAIL}) in trace(guest)
        assert "mode is now fail (was write)" in guest.run("dmesg")
        # For every volume, whatever is mapped, until somebody makes the pool anew.
        for volume in ("v1", "v2"):
            assert guest.run(f"dmsetup status {volume}").split()[4] == "fail"
            guest.run(f"refused dd if=/dev/zero of=/dev/mapper/{volume} bs=64k seek=40 count=1 conv=fsync 2>&1\n"
                      f"refused dd if=/dev/mapper/{volume} of=/dev/null bs=64k count=1 iflag=direct 2>&1")
        guest.run(f"dmsetup suspend --noflush ok0; dmsetup load ok0 --table '0 {size} linear {names[0]} 0'; dmsetup resume ok0\n"
                  "refused dd if=/dev/mapper/v1 of=/dev/null bs=64k count=1 iflag=direct 2>&1")
        assert guest.run("dmsetup status pool").split()[3] == "fail"
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool")


def test_a_lost_journal_copy_is_dropped(bench):
    disks = [bench.disk(n, "128M") for n in "ab"]
    with bench.boot(disks, expect=["Buffer I/O", "I/O error"]) as guest:
        size = (128 << 20) // 512
        for i, disk in enumerate(disks):
            guest.run(f"dmsetup create ok{i} --table '0 {size} linear {disk.dev} 0'")
        pool_up(guest, ["/dev/mapper/ok0", "/dev/mapper/ok1"], ring=4)
        # First writes go to the member with most room; only the journal must need the one that fails.
        sv(guest, "create 1 64M")
        write = "dd if=/dev/zero of=/dev/mapper/v1 bs=4k seek={} count=1 oflag=direct conv=fsync status=none"
        guest.run(write.format(0))
        used = [m["nr_slots"] - m["free_slots"] for m in sv(guest, "members")]
        assert sorted(used) == [0, 1], used
        lost = used.index(0)
        trace(guest)
        guest.run(f"dmsetup suspend --noflush ok{lost}; dmsetup load ok{lost} --table '0 {size} error';"
                  f"dmsetup resume ok{lost}")
        guest.run(write.format(1))
        members = sv(guest, "members")
        assert [bool(m["flags"] & sv_ioctl.RING_LOST) for m in members] == [not lost, bool(lost)], members
        assert guest.run("dmsetup status v1").split()[4] == "write"
        assert {fields["ok"] for name, fields in trace(guest) if name == "sv_batch"} == {1 << (1 - lost)}


def test_nowait_is_accepted_where_blocks_are_mapped(bench):
    disks = [bench.disk("a", "64M")]
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        sv(guest, "create 1 32M")
        script(guest, """
import mmap
fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 4096)
buf[:4] = b"here"
assert os.pwritev(fd, [buf], 8192) == 4096
for i in range(50):
    assert os.preadv(fd, [buf], 8192, os.RWF_NOWAIT) == 4096 and buf[:4] == b"here"
    assert os.pwritev(fd, [buf], 8192, os.RWF_NOWAIT) == 4096
assert os.preadv(fd, [buf], 1 << 20, os.RWF_NOWAIT) == 4096 and buf[:4] == bytes(4)
""")


TWO_VOLUMES = """
tier = lambda t: (1 << 64) - 1 & ~0xff | t
pool = sv.Pool()
pool.attach()
for number in (1, 2):
    pool.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=sv.MIB * 64, tiers=tier(number - 1))
    sv.dmsetup("create", f"v{number}", table=sv.volume_table(number, sv.MIB * 64))
v1, v2 = (os.open(f"/dev/mapper/v{n}", os.O_RDWR) for n in (1, 2))
"""


def test_commit_costs_a_flush_a_member_and_a_fua_write(bench):
    disks = two_tiers(bench, "128M")
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        print(script(guest, f"DISKS = {[d.dev for d in disks]}\n" + TWO_VOLUMES + """
def stat(dev):
    fields = sv.io_stat(dev)
    return fields[6] // 8, fields[15]      # blocks written, flushes

def cost(action):
    before = [stat(d) for d in DISKS]
    action()
    return [tuple(b - a for a, b in zip(x, y)) for x, y in zip(before, [stat(d) for d in DISKS])]

def write(fd, off):
    os.pwrite(fd, b"x" * 4096, off)
    os.fsync(fd)

pool.ask("COMMIT")
# These disks have no FUA: the block layer makes it a write and a flush. On the ring's member that is data, flush,
# and batch with its flush; on another one data and flush.
faults = []
def expect(what, action, want):
    got = cost(action)
    print(what, got)
    if got != want:
        faults.append(f"{what}: {got}, not {want}")

for off in (0, 8192, sv.MIB):
    expect("ring's own member", lambda: write(v1, off), [(2, 2), (0, 0)])
    expect("another member", lambda: write(v2, off), [(1, 1), (1, 1)])
expect("overwrite, no record", lambda: write(v1, 0), [(1, 1), (0, 0)])
expect("overwrite on another member", lambda: write(v2, 0), [(0, 0), (1, 1)])
expect("nothing is owed", lambda: os.fsync(v1), [(0, 0), (0, 0)])
assert not faults, faults
"""))
        bios_and_commits_are_traced(guest)
        print(script(guest, MANY_WRITERS.format(disks=[d.dev for d in disks])))


def test_hung_member_holds_up_only_its_own_volume(bench):
    disks = two_tiers(bench, "128M")
    with bench.boot(disks) as guest:
        size = (128 << 20) // 512
        guest.run(f"dmsetup create slow --table '0 {size} linear {disks[1].dev} 0'")
        pool_up(guest, [f"{disks[0].dev}=0", "/dev/mapper/slow=1"], ring=4)
        print(script(guest, f"DISKS = {[d.dev for d in disks]}\n" + TWO_VOLUMES + """
import mmap, threading
def direct(number, off, flags=0):
    fd = os.open(f"/dev/mapper/v{number}", os.O_RDWR | os.O_DIRECT | flags)
    os.pwrite(fd, mmap.mmap(-1, 4096), off)
    os.close(fd)

def flushes():
    return [sv.io_stat(d)[15] for d in DISKS]

direct(2, 0)
os.fsync(v2)
direct(2, 0)            # nothing that the periodic commit would flush the member for
sv.dmsetup("suspend", "--noflush", "slow")
ended, before = [], flushes()[1]
waiting = [threading.Thread(target=lambda: ended.append(os.fsync(v2)), daemon=True) for _ in range(16)]
for t in waiting:
    t.start()
time.sleep(1)
began = time.monotonic()
for i in range(20):
    os.pwrite(v1, b"x" * 4096, i * 8192)
    os.fsync(v1)
direct(1, 20 * sv.MIB, os.O_DSYNC)
sv.subprocess.run(["blkdiscard", "-o", "4096", "-l", "4096", "/dev/mapper/v1"], check=True)
os.fsync(v1)
print("the other volume:", time.monotonic() - began, "s")
# By itself, too: the periodic commit does not wait for the hung member.
direct(1, 30 * sv.MIB)
seq = pool.ask("STATE")["committed_seq"]
time.sleep(4)
assert pool.ask("STATE")["committed_seq"] > seq
seq = pool.ask("STATE")["committed_seq"]
time.sleep(3)
assert pool.ask("STATE")["committed_seq"] == seq, "nothing new, nothing written"
assert not ended and all(t.is_alive() for t in waiting), "its own volume waits"
batches = pool.ask("STATE")["commits"]
sv.dmsetup("resume", "slow")
for t in waiting:
    t.join(20)
assert ended == [None] * 16, ended
cost = flushes()[1] - before
assert cost == 1, f"{cost} flushes: all of them ride on one of the member"
assert pool.ask("STATE")["commits"] == batches, "there was nothing to record"
"""))
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool; dmsetup remove slow; rmmod dm_sv")


# As many threads as a busy database has, each with a new block and an fsync of its own, again and again.
MANY_WRITERS = """
import threading
def flushes_so_far():
    return [sv.io_stat(d)[15] for d in {disks}]

fd = os.open("/dev/mapper/v1", os.O_RDWR)
pool = sv.Pool()
pool.attach()
pool.ask("COMMIT")
THREADS, EACH = 16, 20

def load(number):
    for i in range(EACH):
        os.pwrite(fd, b"x" * 4096, (8 + number) * sv.MIB + i * 8192)
        os.fsync(fd)

before, state = flushes_so_far(), pool.ask("STATE")
threads = [threading.Thread(target=load, args=(n,)) for n in range(THREADS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
after = pool.ask("STATE")
flushes = [now - b for now, b in zip(flushes_so_far(), before)]
fsyncs, batches = THREADS * EACH, after["commits"] - state["commits"]
written = after["journal_bytes"] - state["journal_bytes"]
print(f"{{fsyncs}} fsyncs: {{flushes}} flushes, {{batches}} batches of {{written}} bytes")
# One at a time costs two flushes and a batch, of 4 KiB: see above.
assert batches < fsyncs and flushes[0] < fsyncs and flushes[1] == 0 and written < fsyncs * 4096
"""


def trace(guest):
    """The module's events since the last call, as (name, fields); the first call begins with them."""
    text = guest.run("cd /sys/kernel/tracing; test -d events || mount -t tracefs none .; cat trace; echo 1 > events/sv/enable\n"
                     "echo > trace")
    found = re.findall(r": (sv_\w+): (.*)$", text, re.M)
    return [(name, {k: int(v, 0) for k, v in (f.split("=") for f in fields.split())}) for name, fields in found]


OUT_OF_SPACE, FAIL = 1, 3   # enum sv_mode
REMAP, ZERO = 0, 1      # enum sv_plan
READ, WRITE, DISCARD = 0, 1, 3


def bios_and_commits_are_traced(guest):
    """One step each, and what it leaves in the trace."""
    def step(text):
        script(guest, f"fd = os.open('/dev/mapper/v2', os.O_RDWR | os.O_DIRECT)\nimport mmap\nbuf = mmap.mmap(-1, 8192)\n{text}")
        events = trace(guest)
        print(text, events)
        return events

    def of(name, events, *leave):
        return [{k: v for k, v in fields.items() if k not in leave} for n, fields in events if n == name]

    slot = script(guest, "pool = sv.Pool(write=False)\nprint(max(e['slot'] for e in pool.dump('DUMP_EXTENTS') if e['member'] == 1))")
    trace(guest)
    block, at = 5 * 256 + 3, (sv_ioctl.layout(128 << 20, 0, 0)["slot_off"] >> 9) + 3 * 8
    write = {"volume": 2, "op": WRITE, "block": block, "blocks": 2, "plan": REMAP, "member": 1}
    events = step(f"os.pwrite(fd, buf, {block} * 4096); os.fsync(fd)")
    sectors = [fields.pop("sector") for name, fields in events if name == "sv_map"]
    assert sectors[-1] % 2048 == at % 2048 and sectors[-1] > at and of("sv_map", events)[-1] == write, (slot, sectors)
    flushes = of("sv_flush", events)
    assert {"member": 1, "failed": 0} in flushes and all(f["failed"] == 0 for f in flushes)
    first, = of("sv_batch", events)
    assert first["ok"] == 1 and first["len"] == 4096 and first["off"] % 4096 == 0 and first["off"] < 4 << 20
    # An overwrite has no record, and a read nothing but its own.
    events = step(f"os.pwrite(fd, buf, {block} * 4096); os.fsync(fd); os.preadv(fd, [buf], {block} * 4096)")
    assert of("sv_map", events) == [{**write, "op": op, "sector": sectors[-1]} for op in (WRITE, READ)]
    assert of("sv_flush", events) == [{"member": 1, "failed": 0}] and not of("sv_batch", events)
    # Beside it nothing was ever written; a discard goes to the worker.
    events = step(f"os.preadv(fd, [buf], {block + 2} * 4096)")
    assert of("sv_map", events, "member", "sector") == [{**{k: v for k, v in write.items() if k != "member"}, "op": READ,
                                                         "block": block + 2, "plan": ZERO}]
    events = step(f"sv.subprocess.run(['blkdiscard', '-f', '-o', '{block * 4096}', '-l', '4096', '/dev/mapper/v2'], check=True); os.fsync(fd)")
    assert of("sv_defer", events) == [{"volume": 2, "op": DISCARD, "sector": block * 8, "bytes": 4096}]
    asked, = of("sv_map", events, "member", "sector")
    assert asked == {"volume": 2, "op": DISCARD, "block": block, "blocks": 1, "plan": ZERO}
    second, = of("sv_batch", events)
    assert second["off"] == first["off"] + first["len"]


def linear(guest, names, disks, size):
    for name, disk in zip(names, disks):
        guest.run(f"dmsetup create {name} --table '0 {size} linear {disk.dev} 0'")


@vm.full
def test_a_hung_journal_copy_is_given_up(bench):
    disks = [bench.disk(n, "128M") for n in "ab"]
    with bench.boot(disks, expect=["hangs, its copy is given up"]) as guest:
        size = (128 << 20) // 512
        linear(guest, ("ok0", "ok1"), disks, size)
        pool_up(guest, ["/dev/mapper/ok0", "/dev/mapper/ok1"], ring=4)
        sv(guest, "create 1 64M")
        guest.run("modprobe dm-delay; echo 2000 > /sys/module/dm_sv/parameters/journal_timeout_ms")
        print(script(guest, f"""
size, under = {size}, {[d.dev for d in disks]!r}
pool = sv.Pool()
pool.attach()
v1 = os.open("/dev/mapper/v1", os.O_RDWR)
def timed(off):
    began = time.monotonic()
    os.pwrite(v1, b"x" * 4096, off)
    os.fsync(v1)
    return time.monotonic() - began

timed(0)
used = [m["nr_slots"] - m["free_slots"] for m in pool.call("MEMBERS", room=4)]
assert sorted(used) == [0, 1], used
lost = used.index(0)            # holds no data: only the journal needs it
pool.ask("COMMIT")
pool.ask("WAIT")
# Reads go on there, writes take 25 s.
table = f"0 {{size}} delay {{under[lost]}} 0 0 {{under[lost]}} 0 25000"
sv.dmsetup("reload", f"ok{{lost}}", table=table)
sv.dmsetup("suspend", "--noflush", f"ok{{lost}}")
sv.dmsetup("resume", f"ok{{lost}}")
seq = pool.ask("STATE")["committed_seq"]
first, second = timed(4096), timed(8192)
print("first", first, "second", second)
assert 1.9 < first < 15, first
assert second < 1.9, "the copy is not written any more"
assert pool.ask("STATE")["committed_seq"] >= seq + 3, "the loss has a batch of its own, before the acknowledgement"
assert pool.ask("WAIT")["events"] & sv.EVENT_COPY_LOST
members = pool.call("MEMBERS", room=4)
assert [bool(m["flags"] & sv.RING_LOST) for m in members] == [not lost, bool(lost)], members
os.close(v1)
"""))
        # The pool does not wait for the write; its member waits, and so does the module.
        guest.run("dmsetup remove v1; dmsetup remove pool; refused rmmod dm_sv 2>/dev/null")
        again = f"dmsetup create pool --table '0 2048 sv-pool {UUID} 2 /dev/mapper/ok0 /dev/mapper/ok1'"
        guest.run(f"refused {again} 2>/dev/null; dmesg | grep -q 'has not ended yet'")
        guest.run("for i in $(seq 60); do dmesg | grep -q 'given up has ended' && exit; sleep 1; done; exit 1", timeout=70)
        guest.run(again + "; dmsetup remove pool; dmsetup remove ok0; dmsetup remove ok1; rmmod dm_sv")


COPIES = """copies() { svctl metrics | sed -nE 's/^svctl_member_journal_copy.*member="([01])".* ([01])$/\\1:\\2/p' | sort | xargs; }
"""


def a_lost_journal_copy_is_told(s, index):
    """In svd's log, by status and in the metrics, until the pool is brought up anew, with both copies."""
    one = " ".join(f"{i}:{int(i != index)}" for i in (0, 1))
    code, lost = "SV-JOURNAL-COPY-LOST", f"one copy of the journal is lost: /dev/mapper/ok{index}"
    s.run(COPIES + f"""test "$(copies)" = "0:1 1:1"; refused grep {code} /run/svctl/log; svctl status > /tmp/status; refused grep {code} /tmp/status
size=$(blockdev --getsz /dev/mapper/ok{index}); dmsetup table ok{index} > /tmp/table
dmsetup suspend --noflush ok{index}; dmsetup load ok{index} --table "0 $size error"; dmsetup resume ok{index}
dd if=/dev/urandom of=/dev/sv/tank/a bs=4k seek=20 count=1 oflag=direct conv=fsync status=none
for i in $(seq 100); do grep -q {code} /run/svctl/log && break; sleep 0.1; done; grep '{lost}.*\\[{code}]' /run/svctl/log
svctl status | tee /tmp/status; grep '{lost}' /tmp/status; test "$(copies)" = "{one}"
dmsetup suspend --noflush ok{index}; dmsetup load ok{index} < /tmp/table; dmsetup resume ok{index}
svctl deactivate tank; svctl activate tank; test "$(copies)" = "0:1 1:1"; svctl status > /tmp/status; refused grep '{lost}' /tmp/status
""")


@vm.full
def test_pool_comes_back_after_a_hung_journal_copy(bench):
    disks = [bench.disk(n, "256M") for n in "ab"]
    with bench.boot(disks, expect=["hangs, its copy is given up"]) as guest:
        linear(guest, ("ok0", "ok1"), disks, (256 << 20) // 512)
        members = [types.SimpleNamespace(dev=f"/dev/mapper/ok{i}") for i in (0, 1)]
        s = svctl.Svctl(guest, members)
        s.run(f"svctl create-pool tank --tier a={members[0].dev},{members[1].dev}; svctl create-volume tank/a --size 64M\n"
              "echo 2000 > /sys/module/dm_sv/parameters/journal_timeout_ms")
        # All in one extent: the other member has the journal, and no data, of what follows.
        write = "dd if=/dev/urandom of=/dev/sv/tank/a bs=4k seek={} count=1 oflag=direct conv=fsync status=none"
        s.run(write.format(0))
        free = [int(n) for n in guest.run("dmsetup status sv-tank").split()[-2:]]
        hung = free.index(max(free))
        s.kill()  # no checkpoint: the journal alone knows of what follows
        s.run(f"dmsetup suspend --noflush ok{hung}")
        s.run("; ".join(write.format(i) for i in range(1, 6)), timeout=60)
        before = guest.run("sha256sum < /dev/sv/tank/a")
        assert "given up" in guest.run("dmesg")
        s.run(f"dmsetup resume ok{hung}; sleep 1; dmesg | grep 'given up has ended'")
        s.run("dmsetup remove sv-tank-a; dmsetup remove sv-tank")
        s.start()
        s.run("svctl check tank; cat /run/svctl/log")
        assert guest.run("sha256sum < /dev/sv/tank/a") == before
        s.run(write.format(9))
        a_lost_journal_copy_is_told(s, hung)
        print(s.run("svctl check tank; svctl list; svctl deactivate tank; pkill -x svd; rmmod dm_sv; cat /run/svctl/log"))

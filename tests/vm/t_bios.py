"""Bios that dm-sv sends more than once, and pools at their limits: what only the real block layer shows."""

import vm
from t_module import TWO_VOLUMES, UUID, pool_up, queue_of, script, sv


def test_pieces_that_a_member_splits_end_once(bench):
    """A write over two extents waits for space, so the worker sends it in two pieces; the member splits both."""
    disk = bench.disk("a", "64M")
    with bench.boot([disk]) as guest:
        guest.run(f"echo 64 > /sys/block/$(basename $(realpath {disk.dev}))/queue/max_sectors_kb")
        pool_up(guest, [disk.dev], ring=4)
        sv(guest, "create 1 1G")
        sv(guest, "policy 0 1000")
        guest.run("dd if=/dev/zero of=/dev/mapper/v1 bs=1M oflag=direct status=none 2>/dev/null || true")
        sv(guest, "policy 60000 1000")
        script(guest, """
import mmap, threading
pool = sv.Pool()
pool.attach()
half = sv.MIB // 2
fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT)
ended = []

def write(index, data):
    buf = mmap.mmap(-1, sv.MIB)
    buf[:] = data
    ended.append(os.pwrite(fd, buf, index * sv.MIB + half))

for turn in range(4):
    data, index = os.urandom(sv.MIB), 600 + 3 * turn
    waiting = threading.Thread(target=write, args=(index, data), daemon=True)
    waiting.start()
    time.sleep(1)
    assert len(ended) == turn, "there is space already"
    sv.subprocess.run(["blkdiscard", "-o", f"{2 * turn}M", "-l", "2M", "/dev/mapper/v1"], check=True)
    assert pool.recycle() == 2
    waiting.join(30)
    assert ended == [sv.MIB] * (turn + 1), ended
    back = mmap.mmap(-1, sv.MIB)
    os.preadv(fd, [back], index * sv.MIB + half)
    assert back[:] == data
""", timeout=100)
        extents_that_follow_each_other_are_one_bio(guest, disk)
        guest.run("dmsetup remove v1; dmsetup remove pool; rmmod dm_sv")


def extents_that_follow_each_other_are_one_bio(guest, disk):
    """Volume and member seen side by side: how many I/Os of the member a bio of 4 MiB becomes, and what it carries."""
    queue = f"/sys/block/$(basename $(realpath {disk.dev}))/queue"
    guest.run(f"echo 4096 > {queue}/max_sectors_kb; echo 2 > {queue}/nomerges; echo 16 > /proc/sys/vm/nr_hugepages; blkdiscard /dev/mapper/v1")
    script(guest, f"DISK = {disk.dev!r}\n" + """
import mmap
HUGE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000          # few segments, so that the member does not split it
pool = sv.Pool()
pool.attach()
pool.recycle()
fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT)
held = [os.urandom(sv.MIB) for _ in range(10)]

def ios():
    fields = sv.io_stat(DISK)
    return [fields[i] for i in (0, 2, 4, 6)]       # reads, sectors of them, writes, sectors of them

def cost(action, off):
    before = ios()
    assert action(fd, [big], off) == len(big)
    return [b - a for a, b in zip(before, ios())]

def write(index):
    buf = mmap.mmap(-1, sv.MIB)
    buf[:] = held[index]
    os.pwrite(fd, buf, index * sv.MIB)

def slots():
    lies = {e["extent"]: e["slot"] for e in pool.dump("DUMP_EXTENTS")}
    return [lies[m["extent"]] for m in pool.dump("DUMP_MAP", "index", volume=1)]

def read(first, want):
    big[:] = b"x" * len(big)
    got = cost(os.preadv, first * sv.MIB)
    assert got == want, f"{first}: {got}, not {want}"
    assert big[:] == b"".join(held[first:first + 4]).ljust(len(big), bytes(1)), first

big = mmap.mmap(-1, 4 * sv.MIB, flags=HUGE)
for i in range(10):
    write(i)
os.fsync(fd)
pool.ask("COMMIT")
where = slots()
assert where == list(range(where[0], where[0] + 10)), where
assert not pool.dump("DUMP_PARTIALS"), "all of each was written"
read(0, [1, 8192, 0, 0])
read(1, [1, 8192, 0, 0])
# The last two of these are not mapped: one bio, and zeroes.
read(8, [1, 4096, 0, 0])
# Written over in place, in one.
for i in range(2, 6):
    held[i] = os.urandom(sv.MIB)
big[:] = b"".join(held[2:6])
got = cost(os.pwritev, 2 * sv.MIB)
assert got == [0, 0, 1, 8192], got
# Extent 6 goes elsewhere: a bio ends before it, and another after it.
sv.subprocess.run(["blkdiscard", "-o", "6M", "-l", "1M", "/dev/mapper/v1"], check=True)
write(6)
os.fsync(fd)
pool.ask("COMMIT")
where = slots()
assert [where[i] - where[0] for i in range(10) if i != 6] == [i for i in range(10) if i != 6] and where[6] - where[0] != 6, where
read(2, [1, 8192, 0, 0])
read(3, [2, 8192, 0, 0])
read(4, [3, 8192, 0, 0])
read(6, [2, 8192, 0, 0])
""")


@vm.full
def test_pool_of_64_members(bench):
    """As many members as there may be, all of them written and flushed."""
    size = 16 << 11
    disk = bench.disk("a", "1G")
    with bench.boot([disk]) as guest:
        guest.run(f"for i in $(seq 0 63); do dmsetup create m$i --table \"0 {size} linear {disk.dev} $((i * {size}))\"; done")
        pool_up(guest, [f"/dev/mapper/m{i}" for i in range(64)], ring=4)
        script(guest, """
pool = sv.Pool()
pool.attach()
sv.add_volume(pool, 1, 1 << 30)
fd = os.open("/dev/mapper/v1", os.O_RDWR)
for i in range(200):            # not one behind the other: each goes to the member with the most room
    os.pwrite(fd, bytes([i]) * 4096, i * 2 * sv.MIB)
os.fsync(fd)
used = [m["nr_slots"] - m["free_slots"] for m in pool.call("MEMBERS", room=64)]
assert len(used) == 64 and used[63] and used[62], used
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
for i in range(200):
    assert os.pread(fd, 4096, i * 2 * sv.MIB) == bytes([i]) * 4096, i
os.close(fd)
""", timeout=100)
        guest.run("dmsetup remove v1; dmsetup remove pool; for i in $(seq 0 63); do dmsetup remove m$i; done; rmmod dm_sv",
                  timeout=100)


@vm.full
def test_pool_that_cannot_stop_holds_up_no_other(bench):
    """Its last commit waits for a member whose flush takes long."""
    disks = [bench.disk(n, "64M") for n in "ab"]
    other = "99999999-2222-3333-4444-555555555555"
    with bench.boot(disks) as guest:
        size = (64 << 20) // 512
        guest.run(f"modprobe dm-delay; dmsetup create slow --table '0 {size} linear {disks[0].dev} 0'")
        pool_up(guest, ["/dev/mapper/slow"], ring=4)
        sv(guest, "policy 1000 60000")
        sv(guest, "create 1 32M")
        at = f"{disks[0].dev} 0"
        guest.run(f"dmsetup reload slow --table '0 {size} delay {at} 0 {at} 0 {at} 25000'; dmsetup suspend slow;"
                  "dmsetup resume slow; dd if=/dev/zero of=/dev/mapper/v1 bs=4k count=1 oflag=direct status=none;"
                  "dmsetup remove v1")
        removing = guest.start("dmsetup remove pool; echo removed")
        print(script(guest, f"""
time.sleep(2)
began = time.monotonic()
labels = sv.label_devices(["{disks[1].dev}"], "{other}", 4)
sv.dmsetup("create", "other", table=sv.pool_table(["{disks[1].dev}"], "{other}"))
pool = sv.Pool("{other}")
pool.load_empty(labels)
pool.create_volume(1, 32 * sv.MIB)
sv.dmsetup("create", "o1", table=sv.volume_table(1, 32 * sv.MIB, "{other}"))
with open("/dev/mapper/o1", "r+b") as f:
    f.write(b"x" * 4096)
    os.fsync(f.fileno())
pool.close()
sv.dmsetup("remove", "o1")
sv.dmsetup("remove", "other")
print("the other pool:", time.monotonic() - began, "s")
"""))
        assert "removed" not in removing.output, "too slow a machine to tell"
        again = f"dmsetup create again --table '0 2048 sv-pool {UUID} 1 /dev/mapper/slow'"
        guest.run(f"refused {again} 2>/dev/null; dmesg | grep -q 'being stopped'")
        removing.wait(60)
        guest.run(again + "; dmsetup remove again; dmsetup remove slow; rmmod dm_sv")


@vm.full
def test_slot_is_not_used_again_under_a_slow_read(bench):
    """[I2] RECYCLE waits for a read that has found the slot, and nobody else does."""
    disks = [bench.disk(n, "64M") for n in "ab"]
    with bench.boot(disks) as guest:
        size = (64 << 20) // 512
        guest.run(f"modprobe dm-delay; dmsetup create slow --table '0 {size} linear {disks[1].dev} 0'")
        pool_up(guest, [disks[0].dev, "/dev/mapper/slow=1"], ring=4)
        script(guest, f"""
import mmap, threading
size, under = {size}, {disks[1].dev!r}
pool = sv.Pool()
pool.attach()
tier = lambda t: (1 << 64) - 1 & ~0xff | t
fds = []
for number in (1, 2):
    pool.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=sv.MIB * 30, tiers=tier(2 - number))
    sv.dmsetup("create", f"v{{number}}", table=sv.volume_table(number, sv.MIB * 30))
    fds.append(os.open(f"/dev/mapper/v{{number}}", os.O_RDWR | os.O_DIRECT))
slow, fast = fds
def write(fd, index, byte):
    buf = mmap.mmap(-1, sv.MIB)
    buf[:] = byte * sv.MIB
    assert os.pwrite(fd, buf, index * sv.MIB) == sv.MIB

write(slow, 3, b"a")
write(fast, 0, b"f")
os.fsync(slow)
sv.dmsetup("reload", "slow", table=f"0 {{size}} delay {{under}} 0 6000 {{under}} 0 0")   # reads take 6 s
sv.dmsetup("suspend", "--noflush", "slow")
sv.dmsetup("resume", "slow")
got = mmap.mmap(-1, sv.MIB)
read = threading.Thread(target=lambda: os.preadv(slow, [got], 3 * sv.MIB), daemon=True)
began = time.monotonic()
read.start()
time.sleep(1)
sv.subprocess.run(["blkdiscard", "-o", "3M", "-l", "1M", "/dev/mapper/v1"], check=True)
freed = pool.dump("LIST_FREED")
pool.ask_nothing("TRIM", seq=pool.ask("COMMIT")["committed_seq"])
recycle = threading.Thread(target=lambda: pool.send("RECYCLE", freed), daemon=True)
recycle.start()
time.sleep(0.5)
write(fast, 1, b"g")            # space, a commit and the other member: none of them waits
os.fsync(fast)
assert time.monotonic() - began < 5.5, "too slow a machine to tell"
assert read.is_alive() and recycle.is_alive(), "the slot is free while a read of it is under way"
recycle.join(30)
read.join(1)
assert not read.is_alive() and not recycle.is_alive()
assert got[:] == b"a" * sv.MIB
assert not pool.dump("LIST_FREED")
for fd in fds:
    os.close(fd)
""", timeout=100)
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool; dmsetup remove slow; rmmod dm_sv")


@vm.full
def test_member_that_blocks_holds_up_no_bios_of_others(bench):
    """One whose queue is full, so that even submitting blocks. Discards of the other one go through the same worker."""
    disks = [bench.disk("fast", "64M"), bench.disk("under", "256M")]
    with bench.boot(disks) as guest:
        guest.load_sv()
        guest.run(f"mkfs.ext4 -q {disks[1].dev}; mkdir -p /under; mount {disks[1].dev} /under; truncate -s 64M /under/slow;"
                  "modprobe loop; losetup /dev/loop0 /under/slow; echo 4 > /sys/block/loop0/queue/nr_requests")
        print(script(guest, f"""
import mmap, threading
devices = ["{disks[0].dev}=0", "/dev/loop0=1"]
labels = sv.label_devices(devices, ring_mib=4)
sv.dmsetup("create", "pool", table=sv.pool_table(devices))
pool = sv.Pool()
pool.attach()
pool.ask_nothing("JOURNAL", next_seq=1)
later = labels[1]["nr_slots"] - 4
pool.call("GRANT", [dict(member=0, count=labels[0]["nr_slots"]), dict(member=1, count=later)])
pool.ask_nothing("ACTIVATE")
tier = lambda t: (1 << 64) - 1 & ~0xff | t
fds = []
for number in (1, 2):
    pool.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=1 << 30, tiers=tier(2 - number))
    sv.dmsetup("create", f"v{{number}}", table=sv.volume_table(number, 1 << 30))
    fds.append(os.open(f"/dev/mapper/v{{number}}", os.O_RDWR | os.O_DIRECT))
slow, fast = fds
buf = mmap.mmap(-1, sv.MIB)
pool.ask_nothing("POLICY", no_space_ms=0, commit_ms=60000)
os.pwrite(fast, buf, 0)
for fd in (slow, fast):
    try:
        for i in range(1, 200):
            os.pwrite(fd, buf, i * sv.MIB)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    os.fsync(fd)
pool.ask("COMMIT")
pool.ask_nothing("POLICY", no_space_ms=60000, commit_ms=60000)

def begin(index, off, size):
    t = threading.Thread(target=lambda: os.pwrite(slow, memoryview(buf)[:size], index * sv.MIB + off), daemon=True)
    t.start()
    return t

sv.subprocess.run(["fsfreeze", "-f", "/under"], check=True)
waiting = [begin(i, 8192 * i, 4096) for i in range(1, 5)]       # all requests of the queue
time.sleep(1)
waiting.append(begin(900, 0, 4096))
time.sleep(1)
pool.call("GRANT", [dict(member=1, first=later, count=4)])      # the worker sends it, to the full queue
time.sleep(1)
began = time.monotonic()
discard = sv.subprocess.Popen(["blkdiscard", "-o", "0", "-l", "4096", "/dev/mapper/v2"])
try:
    assert discard.wait(10) == 0
    assert all(t.is_alive() for t in waiting), "nothing blocks"
    print("discard on the other member:", time.monotonic() - began, "s")
finally:
    sv.subprocess.run(["fsfreeze", "-u", "/under"], check=True)
for t in waiting:
    t.join(20)
    assert not t.is_alive()
os.fsync(slow)
for fd in fds:
    os.close(fd)
""", timeout=90))
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool; losetup -d /dev/loop0; umount /under; rmmod dm_sv")


@vm.full
def test_zeroes_written_by_hand_hold_up_no_bios_of_others(bench):
    """To a member that does not answer, and has lost its WRITE ZEROES: dm-delay has none. Discards of the other one go through the same
    worker."""
    disks = [bench.disk("a", "128M"), bench.disk("b", "128M")]
    with bench.boot(disks) as guest:
        sectors = f"0 $(blockdev --getsz {disks[1].dev})"
        guest.run(f"modprobe dm-delay; dmsetup create slow --table \"{sectors} linear {disks[1].dev} 0\"")
        pool_up(guest, [f"{disks[0].dev}=0", "/dev/mapper/slow=1"], ring=4)
        script(guest, f"DISKS = {[d.dev for d in disks]}\n" + TWO_VOLUMES + """
for fd in (v1, v2):
    os.pwrite(fd, b"x" * sv.MIB, 0)
    os.fsync(fd)
pool.ask_nothing("SNAPSHOT", volume=2, layer=2, job=1)
""")
        guest.run(f"dmsetup reload slow --table \"{sectors} delay {disks[1].dev} 0 0 {disks[1].dev} 0 3600000 {disks[1].dev} 0 0\"\n"
                  "dmsetup suspend --nolockfs slow; dmsetup resume slow")
        assert [queue_of(guest, f"/dev/mapper/{dev}", "write_zeroes_max_bytes")["write_zeroes_max_bytes"] != "0" for dev in ("v2", "slow")] == [True, False]
        zeroes = guest.start("blkdiscard -z -o 8192 -l 12288 /dev/mapper/v2; xs() { head -c $1 /dev/zero | tr '\\0' x; }\n"
                             "dd if=/dev/mapper/v2 bs=1M count=1 iflag=direct status=none | cmp - <(xs 8192; head -c 12288 /dev/zero; xs 1028096)")
        has_it = "test $(dmsetup status slow | awk '{ print $5 }') -ge 1"
        guest.run(f"until {has_it}; do sleep 0.1; done")
        guest.run("blkdiscard -o 0 -l 4096 /dev/mapper/v1; cmp -n 4096 /dev/mapper/v1 /dev/zero", timeout=20)
        assert zeroes.code is None and not zeroes.output, "they do not wait"
        guest.run(f"{has_it}; dmsetup suspend --nolockfs slow; dmsetup resume slow")
        zeroes.wait(30)
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool; dmsetup remove slow; rmmod dm_sv")


@vm.full
def test_writes_under_way_that_have_the_ring_are_waited_for(bench):
    """Each has 4 KiB of it until it ends, and gives most of that back: that is no want of space, however soon that fails."""
    disk = bench.disk("a", "64M")
    with bench.boot([disk]) as guest:
        guest.load_sv()
        guest.run(f"modprobe dm-delay; dmsetup create slow --table \"0 $(blockdev --getsz {disk.dev}) delay {disk.dev} 0 0 {disk.dev} 0 400\"")
        sv(guest, "--ring 4 up /dev/mapper/slow")
        sv(guest, "create 1 16M")
        sv(guest, "policy 0 1000")
        print(guest.run("fio --name=x --filename=/dev/mapper/v1 --direct=1 --ioengine=libaio --iodepth=3000 --bs=4k --rw=randwrite --size=16M "
                        "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse", timeout=120)[:200])


@vm.full
def test_a_hung_member_that_has_the_ring_stops_no_suspend(bench):
    """Writes of another volume wait for the ring; a suspend of that one ends them, by requeuing."""
    disks = [bench.disk("a", "64M"), bench.disk("b", "64M")]
    with bench.boot(disks) as guest:
        guest.run(f"dmsetup create slow --table \"0 $(blockdev --getsz {disks[1].dev}) linear {disks[1].dev} 0\"")
        pool_up(guest, [f"{disks[0].dev}=0", "/dev/mapper/slow=1"], ring=4)
        script(guest, f"DISKS = {[d.dev for d in disks]}\n" + TWO_VOLUMES)      # one on each member
        sv(guest, "policy 0 1000")
        write = "fio --name=x --filename=/dev/mapper/v{} --direct=1 --ioengine=libaio --iodepth={} --bs=4k --rw=randwrite --size=16M --number_ios={} --output-format=terse"
        guest.run("dmsetup suspend --noflush --nolockfs slow")
        hung = guest.start(write.format(2, 3000, 3000))
        under_way = "until test $(awk '{ print $2 }' /sys/block/$(dmsetup info -c --noheadings -o blkdevname %s)/inflight) = %d; do sleep 0.1; done\n"
        guest.run(under_way % ("v2", 3000))
        waiting = guest.start(write.format(1, 4, 400))
        guest.run(under_way % ("v1", 4) + "sleep 2\n" + under_way % ("v1", 4))
        guest.run("timeout 20 dmsetup suspend --noflush --nolockfs v1; dmsetup resume v1")
        assert waiting.code is None and hung.code is None, "neither could go on"
        guest.run("dmsetup resume slow")
        waiting.wait(60), hung.wait(60)

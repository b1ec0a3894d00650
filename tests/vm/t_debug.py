"""On the kernel of check-debug only: allocation failures, leaks, and whether that kernel notices what it is for."""

import re

import vm
from svctl import Svctl
from t_module import devs, pool_up, script, sv

HERE = vm.HERE
FAILING = f"sys.path.insert(0, {HERE + '/guest'!r})\nimport failing, subprocess\nfailing.prepare()\n"
# The kernel's own word on an allocation that failed comes with a stack.
NO_MEMORY = {"cmdline": "kmemleak=on", "expect": ["page allocation failure", "vmalloc error"]}


def no_leaks(guest):
    """What nobody points at any more. kmemleak looks at objects of 5 s or older, and twice before it says so."""
    guest.run("sleep 6; for i in 1 2; do echo scan > /sys/kernel/debug/kmemleak; done", timeout=120)
    found = guest.run("cat /sys/kernel/debug/kmemleak")
    if found.strip():
        raise vm.Failure("leaked:\n" + found)


# What a refused table or command must leave as it was. `pool` is the attached writer where there is one.
STATE = """
dm = failing.DeviceMapper()

def nodes():
    return sorted(n for n in os.listdir("/dev") if n.startswith("svctl-"))

def unused(devices):
    for device in devices:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))

def counts(pool):
    state = pool.ask("STATE")
    return ({k: state[k] for k in ("total_slots", "free_slots", "freed_extents", "partials", "state", "mode")},
            pool.call("VOLUMES", room=64), pool.call("MEMBERS", room=64))

def contents(pool):
    return (counts(pool), pool.dump("DUMP_EXTENTS"), pool.dump("DUMP_PARTIALS"),
            [pool.dump("DUMP_MAP", "index", volume=v["id"]) for v in pool.call("VOLUMES", room=64)])
"""


@vm.debug
@vm.limit(120)
def test_tables_without_memory(bench):
    disks = [bench.disk(n, "128M") for n in "abc"]
    with bench.boot(disks, cpus=1, **NO_MEMORY) as guest:
        guest.load_sv()
        print(script(guest, FAILING + STATE + f"devices = {[d.dev for d in disks]!r}\n" + """
def check_down():
    unused(devices)
    return dm.tables(), nodes()

labels = sv.label_devices(devices[:2], ring_mib=4)
two, three = sv.pool_table(devices[:2]), sv.pool_table(devices)
failing.Trial("pool", lambda: dm.create("pool", two), check_down, lambda: dm.remove("pool")).run()

dm.create("pool", two)
pool = sv.Pool()
pool.load_empty(labels)
pool.create_volume(1, 1 << 29)
check_up = lambda: (dm.tables(), nodes(), contents(pool))
table = sv.volume_table(1, 1 << 29)
failing.Trial("volume", lambda: dm.create("v1", table), check_up, lambda: dm.remove("v1")).run()

dm.create("v1", table)
failing.Trial("volume again", lambda: dm.load("v1", table), check_up, lambda: dm.clear("v1")).run()

sv.label_devices(devices[2:], nr_members=3, first=2)
failing.Trial("longer pool", lambda: dm.load("pool", three), check_up, lambda: dm.clear("pool")).run()
""", timeout=110))
        no_leaks(guest)
        guest.run("dmsetup remove v1; dmsetup remove pool; rmmod dm_sv")


@vm.debug
@vm.limit(120)
def test_adding_a_member_without_memory(bench):
    """A member that was added stays: so one of many is added for each allocation."""
    disks = [bench.disk("first", "64M"), bench.disk("more", "512M")]
    with bench.boot(disks, cpus=1, **NO_MEMORY) as guest:
        pool_up(guest, devs(disks[:1]), ring=4)
        sv(guest, "create 1 64M")
        print(script(guest, FAILING + STATE + f"first, more = {[d.dev for d in disks]!r}\n" + """
pool = sv.Pool()
pool.attach()
members = [first]

def piece(n):
    dm.create(f"piece{n}", f"0 {8 * 2048} linear {more} {n * 8 * 2048}")
    for name in os.listdir("/sys/block"):
        if name.startswith("dm-") and failing.read_text(f"/sys/block/{name}/dm/name") == f"piece{n}":
            return "/dev/" + name

refused = 0
for n in range(1, 60):
    members.append(piece(n))
    sv.label_devices(members[-1:], nr_members=len(members), first=len(members) - 1)
    dm.load("pool", sv.pool_table(members))
    dm.suspend("pool")
    before = contents(pool)
    with failing.counted() as failures:
        ok = failing.attempt(lambda: dm.resume("pool"), n)
    if not ok:
        refused += 1
        assert contents(pool) == before, n
        dm.resume("pool")
    assert len(pool.call("MEMBERS", room=64)) == len(members)
    pool.call("GRANT", [dict(member=len(members) - 1, count=4)])
    if not failures.count:
        break
else:
    sys.exit("still fails")
print(f"adding a member: {n - 1} allocations, {refused} times refused")
assert refused
fd = os.open("/dev/mapper/v1", os.O_RDWR)
os.pwrite(fd, b"x" * (48 << 20), 0)
os.fsync(fd)
""", timeout=110))
        no_leaks(guest)


@vm.debug
@vm.limit(120)
def test_commands_without_memory(bench):
    disks = [bench.disk("a", "8G"), bench.disk("b", "64M")]
    with bench.boot(disks, cpus=1, **NO_MEMORY) as guest:
        guest.load_sv()
        print(script(guest, FAILING + STATE + f"devices = {[d.dev for d in disks]!r}\n" + """
labels = sv.label_devices(devices[:1], ring_mib=8)
sv.dmsetup("create", "pool", table=sv.pool_table(devices[:1]))
pool = sv.Pool()
pool.attach()

def trial(name, operation, undo=lambda: None):
    failing.Trial(name, operation, lambda: counts(pool), undo).run()

# Loading: more partial extents and map nodes than are kept in reserve, so that there is something to allocate. Every
# other call gets memory for its payload and a little more, or none at all.
def load(op, elements, spare=(1 << 16, 64)):
    left = elements
    refused = 0
    while left:
        with failing.failing(spare=spare):
            code, _, done = raw(op, left)
        assert code in (0, errno.ENOMEM), errno.errorcode[code]
        left = left[done:]
        if code:
            refused += 1
            code, _, done = raw(op, left)
            assert not code and done
            left = left[done:]
    print(f"{op}: {len(elements)} elements, {refused} times refused", flush=True)
    assert refused

def raw(op, elements):
    kind = sv.TYPES[op]
    step = elements[:500]
    buffer = sv.ctypes.create_string_buffer(b"".join(kind.pack(e) for e in step))
    code, count, done = pool.raw(sv.OP[op], kind.size, len(step), sv.ctypes.addressof(buffer))
    return code, count, done if code else len(step)

extents = [dict(extent=i + 1, slot=i, gen=1, flags=sv.EXTENT_PARTIAL) for i in range(6000)]
load("EXTENTS", extents)
load("PARTIALS", [dict(extent=i + 1, v0=i + 1) for i in range(6000)], spare=(0, 0))
volume = dict(layer=1, owned_since=1, tiers=(1 << 64) - 1)
pool.ask_nothing("VOLUME_CREATE", id=1, size=1 << 50, **volume)
maps = [dict(index=i << 10, volume=1, extent=i + 1, layer=1) for i in range(1000)]
load("MAP", maps)
assert pool.dump("DUMP_EXTENTS") == [{**e, "member": 0} for e in extents]
assert [(m["index"], m["extent"]) for m in pool.dump("DUMP_MAP", "index", volume=1)] == [
    (m["index"], m["extent"]) for m in maps]
pool.ask_nothing("JOURNAL", next_seq=1)
slots = labels[0]["nr_slots"]
pool.call("GRANT", [dict(count=slots - 6000, first=6000)])
pool.ask_nothing("ACTIVATE")

# A running pool: the same command until it passes. All that it has is compared at the end: it is much.
before = contents(pool)
for op in ("HELLO", "STATE", "MEMBERS", "VOLUMES", "WAIT", "COMMIT", "DUMP_EXTENTS", "DUMP_PARTIALS", "LIST_FREED"):
    trial(op, lambda: pool.call(op, room=100))
trial("POLICY", lambda: pool.ask_nothing("POLICY", no_space_ms=1000, commit_ms=1000))
assert contents(pool) == before
trial("VOLUME_CREATE", lambda: pool.ask_nothing("VOLUME_CREATE", id=2, size=1 << 30, **volume),
      lambda: pool.ask_nothing("VOLUME_DROP", id=2))
pool.ask_nothing("VOLUME_CREATE", id=2, size=1 << 20, **volume)

def small_again():
    pool.ask_nothing("VOLUME_DROP", id=2)
    pool.ask_nothing("VOLUME_CREATE", id=2, size=1 << 20, **volume)
    order = [v["id"] for v in pool.call("VOLUMES", room=64)]
    assert sorted(order) == [1, 2]

trial("VOLUME_RESIZE", lambda: pool.ask_nothing("VOLUME_RESIZE", id=2, size=1 << 50), small_again)
trial("VOLUME_DROP", lambda: pool.ask_nothing("VOLUME_DROP", id=2),
      lambda: pool.ask_nothing("VOLUME_CREATE", id=2, size=1 << 20, **volume))
pool.ask_nothing("VOLUME_DROP", id=2)
assert contents(pool) == before
pool.ask_nothing("VOLUME_CREATE", id=2, size=1 << 20, **volume)

sv.dmsetup("create", "v2", table=sv.volume_table(2, 1 << 20))
fd = os.open("/dev/mapper/v2", os.O_RDWR)

def freed_extent():
    os.pwrite(fd, b"x" * 4096, 0)
    os.fsync(fd)
    subprocess.run(["blkdiscard", "/dev/mapper/v2"], check=True)
    pool.ask_nothing("TRIM", seq=pool.ask("COMMIT")["committed_seq"])

# Not the same number nor the same slot again: only the counts must come out even.
freed_extent()
failing.Trial("RECYCLE", lambda: pool.call("RECYCLE", pool.dump("LIST_FREED")),
              lambda: pool.ask("STATE")["freed_extents"], freed_extent).run()
os.close(fd)
pool.recycle()
assert pool.ask("STATE")["freed_extents"] == 0
""", timeout=110))
        guest.run("dmsetup remove v2; dmsetup remove pool")
        no_leaks(guest)
        guest.run("rmmod dm_sv")


@vm.debug
@vm.limit(120)
def test_io_without_memory(bench):
    """[I9]: while no allocation of the module succeeds, nothing fails. First writes go on until the reserves are used
    up, and then wait for memory; everything else goes on without."""
    disks = [bench.disk(n, "4G") for n in "ab"]
    with bench.boot(disks, **NO_MEMORY) as guest:
        pool_up(guest, devs(disks), ring=16)
        sv(guest, "create 1 6G")
        print(script(guest, FAILING + """
import mmap, random, threading

BLOCK, RESERVE = 4096, 2048
page = lambda n, version: (b"%15d\\n" % (n * 1000 + version)) * (BLOCK // 16)

class Device:
    def __init__(self):
        self.fd = os.open("/dev/mapper/v1", os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, BLOCK)

    def write(self, extent, version, flush):
        self.buffer[:] = page(extent, version)
        os.pwrite(self.fd, self.buffer, extent * sv.MIB)
        if flush:
            os.fdatasync(self.fd)

    def read(self, extent):
        os.preadv(self.fd, [self.buffer], extent * sv.MIB)
        return self.buffer[:]

def blkdiscard(*args):
    subprocess.run(["blkdiscard", *args, "/dev/mapper/v1"], check=True)

class FirstWrites(threading.Thread):
    def __init__(self, first, end):
        super().__init__(daemon=True)
        self.device, self.first, self.end, self.done, self.error = Device(), first, end, 0, None

    def run(self):
        try:
            for extent in range(self.first, self.end):
                self.device.write(extent, 1, extent % 16 == 0)
                self.done += 1
        except OSError as error:
            self.error = error

device, rng = Device(), random.Random(1)
for extent in range(100):
    device.write(extent, 1, False)
with failing.failing() as failures:
    writer = FirstWrites(100, 5000)
    writer.start()
    before = -1
    while writer.done != before:
        before = writer.done
        time.sleep(5)
    assert not writer.error, writer.error
    # As many as the reserve had, give or take what a chunk and the first 100 took.
    assert RESERVE // 4 < writer.done < 2 * RESERVE, writer.done
    for i in range(300):
        extent = rng.randrange(100 + writer.done)
        version = 2 + i
        device.write(extent, version, i % 4 == 0)
        assert device.read(extent) == page(extent, version)
    assert device.read(5500) == bytes(BLOCK)
    blkdiscard("-o", "0", "-l", "8M")
    blkdiscard("-z", "-o", "8M", "-l", "8M")
    blkdiscard("-z", "-o", str(20 * sv.MIB), "-l", "4096")
    for extent in (0, 7, 8, 15, 20):
        assert device.read(extent) == bytes(BLOCK), extent
    assert not writer.error and writer.is_alive()
    stuck = writer.done
print(f"{failures.count} allocations failed; first writes waited after {stuck}")
assert failures.count > 1
writer.join(300)
assert not writer.is_alive() and not writer.error, (writer.done, writer.error)
for extent in range(100 + stuck, 5000):
    assert device.read(extent) == page(extent, 1), extent
""", timeout=110))
        guest.run("dmsetup remove v1; dmsetup remove pool")
        no_leaks(guest)
        guest.run("rmmod dm_sv")


@vm.debug
@vm.limit(120)
def test_fio_with_failing_allocations(bench):
    """A third of all allocations fail, also those of the layers below that serve the module's own I/O."""
    disks = [bench.disk(n, "512M") for n in "ab"]
    with bench.boot(disks, **NO_MEMORY) as guest:
        pool_up(guest, devs(disks), ring=4)
        sv(guest, "create 1 256M")
        print(script(guest, FAILING + """
pool = sv.Pool()
pool.attach()
fio = ("fio --name=v --filename=/dev/mapper/v1 --rw=randwrite --bsrange=4k-256k --blockalign=4k --ioengine=libaio "
       "--iodepth=8 --direct=1 --size=256M --io_size=64M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=16 "
       "--minimal").split()
with failing.failing(percent=33) as failures:
    for i in range(2):
        subprocess.run(fio, stdout=subprocess.DEVNULL, check=True)
        subprocess.run(["blkdiscard", "/dev/mapper/v1"], check=True)
        while True:
            try:
                pool.recycle()
                break
            except OSError as error:
                assert error.errno == errno.ENOMEM, error
print(f"{failures.count} allocations failed")
assert failures.count > 20
""", timeout=110))
        guest.run("dmsetup remove v1; dmsetup remove pool")
        no_leaks(guest)
        guest.run("rmmod dm_sv")


@vm.debug
@vm.limit(180)
def test_svctl_with_failing_allocations(bench):
    """Single allocations of the module fail under svd's feet: its commands pass or are refused, and then nothing has
    changed."""
    disks = [bench.disk("fast", "256M"), bench.disk("slow", "512M")]
    with bench.boot(disks, cpus=1, **NO_MEMORY) as guest:
        s = Svctl(guest, disks)
        s.run(f"svctl create-pool tank --tier fast={disks[0].dev} --tier slow={disks[1].dev}\n"
              "svctl create-volume tank/kept --size 64M; svctl create-volume tank/other --size 64M\n"
              "dd if=/dev/urandom of=/dev/sv/tank/kept bs=1M count=8 oflag=direct conv=fsync status=none\n"
              "sha256sum /dev/sv/tank/kept > /tmp/sums")
        path = guest.put("svctl.py", f"import sys\n{FAILING}" + """
from api import Svd
svd = Svd()

def svctl(*words):
    done = subprocess.run(["svctl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout

# Numbers that were given out are not used again, and undoing is journalled too.
def dump():
    if svd.call("List")["pools"][0]["state"] == "down":
        return "down"
    svd.call("Check", pool="tank")
    return [line for line in svd.dump("tank").splitlines() if line.split()[0] not in ("journal", "next")]

def create(volume):
    svd.call("CreateVolume", pool="tank", volume=volume, size=64 << 20)

def trial(words, undo=lambda: None):
    refused = passed = 0
    space, (code, output) = failing.consumption(lambda: svctl(*words))
    assert not code, output
    undo()
    for i in range(failing.STEPS):
        before = dump()
        with failing.failing(spare=[n * i // failing.STEPS for n in space], times=1) as failures:
            code, output = svctl(*words)
        if code:
            refused += 1
            assert failures.count, output
            assert dump() == before, f"{words} was refused but changed the pool: {output}"
        else:
            passed += failures.count > 0
            undo()
    print(f"{' '.join(words)}: {refused} times refused, {passed} times done all the same; last said: {output.strip()}", flush=True)
    return refused

down, up = (lambda: svd.call("Deactivate", pool="tank")), (lambda: svd.call("Activate", pool="tank"))
refused = [trial(["create-volume", "tank/new", "--size", "64M"], lambda: svd.call("DeleteVolume", pool="tank", volume="new")),
           trial(["deactivate", "tank"], up),
           trial(["delete-volume", "tank/other", "--yes"], lambda: create("other")),
           trial(["check", "tank"]), trial(["show", "tank"])]
kept = dump()
down()
refused.append(trial(["activate", "tank"], down))
assert all(refused[i] for i in (0, 3, 5)), refused
up()
assert dump() == kept, "activations that were refused changed the pool"
""")
        print(s.run(f"python3 {path}; svctl check tank; sha256sum -c /tmp/sums", timeout=160))
        no_leaks(guest)


LKDTM = "/sys/kernel/debug/provoke-crash/DIRECT"


@vm.debug
def test_module_loads_or_does_not(bench):
    """Any allocation while the module is loaded, the kernel's own included."""
    # Tracing says so where it cannot make the files of a tracepoint, and the module is loaded without them.
    expect = NO_MEMORY["expect"] + ["WARNING: .* at kernel/trace/"]
    with bench.boot(cpus=1, **{**NO_MEMORY, "expect": expect}) as guest:
        guest.load_sv()
        guest.run("rmmod dm_sv")
        print(script(guest, FAILING + f"module = {guest.sv_module()!r}\n" + """
failing.prepare(stack=("0", "0xffffffffffffffff"))
libc = sv.ctypes.CDLL(None, use_errno=True)
FINIT_MODULE, DELETE_MODULE = 313, 176
fd = os.open(module, os.O_RDONLY)

def load():
    if libc.syscall(FINIT_MODULE, fd, b"", 0):
        raise OSError(sv.ctypes.get_errno(), "finit_module")

def unload():
    assert not libc.syscall(DELETE_MODULE, b"dm_sv", 0)

def targets():
    return subprocess.run(["dmsetup", "targets"], stdout=subprocess.PIPE, text=True, check=True).stdout

load()
unload()
before, refused, n = targets(), 0, 1
while True:
    with failing.counted() as failures:
        failing.fail_nth(n)
        try:
            load()
            ok = True
        except OSError as error:
            assert error.errno in (errno.ENOMEM, errno.EIO), error
            ok = False
        finally:
            failing.fail_nth(0)
    if ok:
        unload()
    refused += not ok
    assert targets() == before, n
    if not failures.count:
        break
    n += 1 + n // 50
assert ok and refused
print(f"{n - 1} allocations, {refused} times refused")
""", timeout=110))
        no_leaks(guest)


@vm.debug
def test_debug_kernel_notices(bench):
    """KASAN, UBSAN and lists must bark, and lockdep be awake, or all tests on this kernel say nothing."""
    for what, said in (("READ_AFTER_FREE", "KASAN: slab-use-after-free"), ("ARRAY_BOUNDS", "UBSAN: array-index"),
                       ("CORRUPT_LIST_ADD", "list_add corruption")):
        try:
            with bench.boot() as guest:
                guest.run(f"echo {what} > {LKDTM}", check=False)
        except vm.Failure as failure:
            assert said in str(failure), failure
            continue
        raise vm.Failure(f"{what} went unnoticed")
    with bench.boot() as guest:
        assert re.search(r"debug_locks:\s+1", guest.run("cat /proc/lockdep_stats"))

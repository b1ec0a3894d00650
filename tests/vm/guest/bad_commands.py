"""Bad commands to a pool's control device: each has its error, and what the pool says of itself stays.

    bad_commands.py UUID
    bad_commands.py UUID live

Used by t_module.py on a bare pool, and by t_trouble.py on one that svd serves. With "live" the commands name what there is, and the
pool is lost: FREE and RECYCLE are taken at their word. No command is answered by what no command may answer, and the module goes on.
"""

import errno
import mmap
import os
import random
import re
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import sv_ioctl as sv

ROOM = 1 << 20
NOT_AT_RANDOM = ("ATTACH", "WAIT", "VOLUME_CREATE", "VOLUME_DROP", "POLICY", "SNAPSHOT", "OWN", "FREE")  # these may succeed, and change something


def named_cases(pool, at):
    """What, op size count address, other fields, error."""
    op, state = sv.OP, (sv.OP["STATE"], sv.STATE.size, 1, at)
    return [
        ("unknown op", (0, 8, 1, at), {}, errno.EOPNOTSUPP),
        ("unknown op", (999, 8, 1, at), {}, errno.EOPNOTSUPP),
        ("no element", (op["STATE"], 120, 0, at), {}, errno.EINVAL),
        ("no size", (op["STATE"], 0, 1, at), {}, errno.EINVAL),
        ("too long", (op["GRANT"], 16, 0x10001, at), {}, errno.EINVAL),
        ("overflow", (op["GRANT"], 0xffffffff, 0xffffffff, at), {}, errno.EINVAL),
        ("bad address", (op["GRANT"], 16, 1, 0xdead0000000), {}, errno.EFAULT),
        ("kernel address", (op["GRANT"], 16, 1, 0xffff888000000000), {}, errno.EFAULT),
        ("flags", state, {"flags": 1}, errno.EINVAL),
        ("reserved", state, {"reserved": 1}, errno.EINVAL),
        ("old session", state, {"epoch": pool.epoch - 1}, errno.ESTALE),
        ("loading op", (op["EXTENTS"], 16, 1, at), {}, errno.EBUSY),
        ("granted twice", (op["GRANT"], 16, 1, at), {}, errno.EINVAL),
    ]


def try_named(pool, buf, at):
    for what, args, more, want in named_cases(pool, at):
        sv.ctypes.memmove(at, sv.GRANT.pack({"count": 1}), 16)
        got = pool.raw(*args, **more)[0]
        assert got == want, f"{what}: {errno.errorcode.get(got, got)} instead of {errno.errorcode[want]}"
    # A newer client's longer element: fine while the tail is zero.
    buf[:] = bytes(ROOM)
    sv.ctypes.memmove(at, sv.POLICY.pack({"no_space_ms": 1, "commit_ms": 1000}), 8)
    assert pool.raw(sv.OP["POLICY"], 24, 1, at)[0] == 0
    buf[20] = b"x"
    assert pool.raw(sv.OP["POLICY"], 24, 1, at)[0] == errno.E2BIG


def try_short(pool, buf, at):
    """An older client's shorter element: what it does not have is zero, and what it has no room for stays away."""
    whole = pool.ask("STATE")
    buf[:128] = b"x" * 128
    assert pool.raw(sv.OP["STATE"], 8, 1, at)[:2] == (0, 1)
    assert bytes(buf[:128]) == whole["committed_seq"].to_bytes(8, "little") + b"x" * 120
    buf[:256] = b"x" * 256
    assert pool.raw(sv.OP["MEMBERS"], 4, 2, at)[0] == 0
    assert bytes(buf[:4]) == bytes(4) and bytes(buf[8:256]) == b"x" * 248, "two elements of 4 bytes each"
    for what, name, fields, size, want in (
            ("without commit_ms, which is 100 at least", "POLICY", {"no_space_ms": 1, "commit_ms": 1000}, 4, errno.EINVAL),
            ("half of commit_ms, which is 1000 by that", "POLICY", {"no_space_ms": 1, "commit_ms": 1000 | 1 << 31}, 6, 0),
            ("without count, which is 1 at least", "GRANT", {"count": 1}, 8, errno.EINVAL),
            ("without size", "VOLUME_CREATE", {"id": 77, "layer": 1, "owned_since": 1, "size": sv.MIB, "tiers": ~0 & (1 << 64) - 1},
             16, errno.EINVAL),
            ("half an id, which no volume has", "VOLUME_DROP", {"id": 0x12 << 16 | 0x3456}, 2, errno.ENOENT)):
        buf[:128] = b"\xff" * 128          # what is not sent is not looked at
        sv.ctypes.memmove(at, sv.TYPES[name].pack(fields), size)
        got = pool.raw(sv.OP[name], size, 1, at)[0]
        assert got == want, f"{name} {what}: {errno.errorcode.get(got, got)} instead of {errno.errorcode.get(want, want)}"


def try_misaligned(pool, buf, at):
    """Nothing in a command has to be aligned, and it is answered as if it were."""
    whole = sv.STATE.pack(pool.ask("STATE"))
    for off in (1, 2, 4, 7, 4093):
        buf[:8192] = b"x" * 8192
        assert pool.raw(sv.OP["STATE"], sv.STATE.size, 1, at + off)[0] == 0
        assert bytes(buf[:8192]) == b"x" * off + whole + b"x" * (8192 - off - len(whole)), off
        sv.ctypes.memmove(at + off, sv.POLICY.pack({"no_space_ms": 1, "commit_ms": 1000}), 8)
        assert pool.raw(sv.OP["POLICY"], 8, 1, at + off)[0] == 0
        sv.ctypes.memmove(at + off, sv.POLICY.pack({"no_space_ms": 1, "commit_ms": 1}), 8)
        assert pool.raw(sv.OP["POLICY"], 8, 1, at + off)[0] == errno.EINVAL
    libc = sv.ctypes.CDLL(None, use_errno=True)
    for off in (1, 3, 4091):
        answer = at + 16384
        sv.ctypes.memmove(at + off, sv.CMD.pack(sv.OP["STATE"], sv.STATE.size, 1, 7, pool.epoch, answer, 0, 0), sv.CMD.size)
        assert libc.ioctl(pool.fd, sv.ctypes.c_ulong(sv.SV_IOC_CMD), sv.ctypes.c_void_p(at + off)) == 0
        assert bytes(buf[16384:16384 + len(whole)]) == whole
        assert sv.CMD.unpack(bytes(buf[off:off + sv.CMD.size]))[2:4] == (1, 0), "count and done"


ANSWERS = {0, errno.EINVAL, errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ENOSPC, errno.EOPNOTSUPP, errno.E2BIG}


def try_random(pool, buf, at):
    random.seed(1)
    answers = set()
    for _ in range(500):
        name = random.choice([n for n in sv.OPS if n not in NOT_AT_RANDOM])
        size = random.choice([1, 4, 8, sv.TYPES[name].size, 16, 32, 4096])
        buf[:65536] = random.randbytes(65536)
        answers.add(pool.raw(sv.OP[name], size, random.choice([1, 2, 3, 100, 3000]), at + random.randrange(64))[0])
    assert answers <= ANSWERS, [errno.errorcode[a] for a in answers - ANSWERS]
    assert len(answers) > 3, answers


def try_reader(reader, at):
    for name in ("GRANT", "ATTACH", "COMMIT", "WAIT", "SNAPSHOT", "OWN", "FREE", "FOLD"):
        assert reader.raw(sv.OP[name], sv.TYPES[name].size, 1, at)[0] == errno.EPERM, name


class Live:
    """What a pool has, of which commands are made that are nearly right."""

    def __init__(self, pool):
        self.extents, self.partials = pool.dump("DUMP_EXTENTS"), pool.dump("DUMP_PARTIALS")
        self.freed, self.state = pool.dump("LIST_FREED"), pool.ask("STATE")
        self.volumes = pool.call("VOLUMES", room=1000)
        self.gens = {e["extent"]: e["gen"] for e in self.extents}

    def right(self, name):
        """An element that could be taken."""
        volume, extent = random.choice(self.volumes), random.choice(self.extents)
        partial = random.choice(self.partials or [{"extent": 1, "parent": 1}])
        return {**volume, **extent, "volume": volume["id"], "index": random.randrange(20), "job": 1, "seq": self.state["committed_seq"],
                "first": random.randrange(60), "count": 1, **({"extent": partial["extent"], "parent": partial["parent"]} if name == "FOLD" else {}),
                **self.gens_of(partial if name == "FOLD" else extent), **self.of(name, volume, extent)}

    def gens_of(self, extent):
        return {"gen": self.gens.get(extent["extent"], 0), "parent_gen": self.gens.get(extent.get("parent"), 0)}

    def of(self, name, volume, extent):
        if name == "SNAPSHOT":
            return {"layer": volume["layer"] + 1}
        if name == "FOLD":
            return {"flags": random.choice((0, 1, 2 | random.randrange(1, 1 << 16) << 16, 4))}
        if name == "RECYCLE":
            return random.choice(self.freed or [extent])
        if name == "VOLUME_CREATE":
            return {"id": len(self.volumes) + 2, "layer": 1, "owned_since": 1, "flags": 0}
        return {}


NOT_LIVE = ("ATTACH", "WAIT", "POLICY")     # another session, and what waits long
SOMETIMES = (0, 1, 2, 3, 255, 256, 65535, (1 << 31) - 1, (1 << 32) - 1, (1 << 64) - 1)


def element(kind, fields):
    """Up to two of its fields spoiled."""
    for field in random.sample(kind.fields, min(len(kind.fields), random.randrange(3))):
        fields[field] = random.choice(SOMETIMES)
    sizes = {"B": 1, "H": 2, "I": 4, "Q": 8}
    letters = "".join(c * int(n or 1) for n, c in re.findall(r"(\d*)([BHIQ])", kind.struct.format))
    return kind.struct.pack(*[fields.get(f, 0) & (1 << 8 * sizes[c]) - 1 for f, c in zip(kind.fields, letters)])


def keep_busy(dev, ended):
    """I/O of a volume whose extents go; it may fail."""
    fd = os.open(dev, os.O_RDWR | os.O_DIRECT)
    buf = mmap.mmap(-1, 8192)
    while not ended.is_set():
        for call in (os.preadv, os.pwritev):
            try:
                call(fd, [buf], random.randrange(16 * 256 - 1) * 4096)
            except OSError as error:
                assert error.errno in (errno.EIO, errno.ENOSPC), error
    os.close(fd)


def try_live(pool, buf, at):
    """Right commands, and such with a field or two spoiled, while the volume is read and written."""
    pool.ask_nothing("POLICY", no_space_ms=0, commit_ms=1000, flags=1)
    sv.add_volume(pool, 1, 16 * sv.MIB)
    dev = "/dev/mapper/v1"
    fill(dev, 16)
    pool.ask_nothing("SNAPSHOT", volume=1, layer=2, job=1)
    answers, taken, ended = set(), dict.fromkeys(sv.OPS, 0), threading.Event()
    load = threading.Thread(target=keep_busy, args=(dev, ended))
    load.start()
    names = [n for n in sv.OPS if n not in NOT_LIVE and n != "HELLO"]
    random.seed(2)
    for i in range(600):
        if i % 10 == 0:
            live = Live(pool)
            pool.raw(sv.OP["TRIM"], 8, 1, put(at, live.state["committed_seq"].to_bytes(8, "little")))
        name = random.choice(names)
        count = random.choice((1, 1, 1, 2, 3))
        kind = sv.TYPES[name]
        elements = b"".join(element(kind, live.right(name)) for _ in range(count))
        code, _, done = pool.raw(sv.OP[name], kind.size, count, put(at, elements))
        answers.add(code)
        taken[name] += code == 0
    ended.set()
    load.join()
    assert answers <= ANSWERS | {errno.EROFS}, [errno.errorcode[a] for a in answers - ANSWERS]
    never = [n for n in ("SNAPSHOT", "OWN", "FREE", "FOLD", "TRIM", "VOLUME_CREATE", "VOLUME_RESIZE") if not taken[n]]
    assert len(never) < 4, f"never taken: {never} of {taken}"     # each hits by chance; most must, or they are not nearly right
    print(taken)


def put(at, data):
    sv.ctypes.memmove(at, data, len(data))
    return at


def fill(dev, mib):
    """What it wrote."""
    data = random.randbytes(sv.MIB)
    with open(dev, "r+b", buffering=0) as f:
        for _ in range(mib):
            f.write(data)
        os.fsync(f.fileno())
    return data


def still_works(pool):
    """All that is left is freed, and is as much as there ever was; a volume is made, written and read."""
    sv.dmsetup("remove", "v1")
    volumes = pool.call("VOLUMES", room=1000)
    pool.send("VOLUME_DROP", volumes)
    pool.send("FREE", pool.dump("DUMP_EXTENTS"))
    pool.recycle()
    state = pool.ask("STATE")
    assert state["free_slots"] == state["total_slots"] and state["partials"] == 0, state
    number = max(v["id"] for v in volumes) + 1
    sv.add_volume(pool, number, 4 * sv.MIB)
    data = fill(f"/dev/mapper/v{number}", 4)
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3")
    with open(f"/dev/mapper/v{number}", "rb") as f:
        assert f.read() == data * 4
    sv.dmsetup("remove", f"v{number}")
    pool.ask_nothing("VOLUME_DROP", id=number)
    assert pool.recycle() >= 4


def main():
    if sys.argv[2:] == ["live"]:
        pool = sv.Pool(sys.argv[1])
        pool.attach()
        buf = sv.ctypes.create_string_buffer(ROOM)
        try_live(pool, buf, sv.ctypes.addressof(buf))
        still_works(pool)
    else:
        try_nothing_may_change()


def try_nothing_may_change():
    pool = sv.Pool(sys.argv[1])
    try:
        sv.Pool(sys.argv[1])
        sys.exit("opened twice for writing")
    except OSError as error:
        assert error.errno == errno.EBUSY, error
    reader = sv.Pool(sys.argv[1], write=False)
    pool.attach()
    before = pool.ask("STATE")
    assert reader.ask("STATE")["total_slots"] == before["total_slots"]
    buf = sv.ctypes.create_string_buffer(ROOM)
    at = sv.ctypes.addressof(buf)
    try_named(pool, buf, at)
    try_short(pool, buf, at)
    try_misaligned(pool, buf, at)
    try_reader(reader, at)
    try_random(pool, buf, at)
    after = pool.ask("STATE")
    for field in ("free_slots", "state", "mode"):
        assert after[field] == before[field], (field, before, after)


main()

"""Bad commands to a pool's control device: each has its error, and what the pool says of itself stays.

    bad_commands.py UUID

Used by t_module.py on a bare pool, and by t_trouble.py on one that svd serves.
"""

import errno
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import sv_ioctl as sv

ROOM = 1 << 20
NOT_AT_RANDOM = ("ATTACH", "WAIT", "VOLUME_CREATE", "VOLUME_DROP", "POLICY")  # these may succeed, and change something


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
    for name in ("GRANT", "ATTACH", "COMMIT", "WAIT"):
        assert reader.raw(sv.OP[name], sv.TYPES[name].size, 1, at)[0] == errno.EPERM, name


def main():
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

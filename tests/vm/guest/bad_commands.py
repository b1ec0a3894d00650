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


def try_random(pool, buf, at):
    random.seed(1)
    for _ in range(500):
        name = random.choice([n for n in sv.OPS if n not in NOT_AT_RANDOM])
        size = random.choice([1, 4, 8, sv.TYPES[name].size, 16, 32, 4096])
        buf[:65536] = random.randbytes(65536)
        pool.raw(sv.OP[name], size, random.choice([1, 2, 3, 100, 3000]), at + random.randrange(64))


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
    try_reader(reader, at)
    try_random(pool, buf, at)
    after = pool.ask("STATE")
    for field in ("free_slots", "state", "mode"):
        assert after[field] == before[field], (field, before, after)


main()

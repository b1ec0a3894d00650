"""Makes allocations of the kernel fail, those with dm-sv.ko on their stack. For t_debug.py, on the debug kernel.

An operation is repeated with its first allocation failing, then its second, and so on until it passes without one
(alone); and with everything failing from some byte on (from_byte), without which nothing fails that has a second way
to its memory, as kvzalloc() has.
"""

import contextlib
import errno
import fcntl
import os
import struct

KINDS = ("failslab", "fail_page_alloc")
# Where modules are loaded (x86-64, no KASLR); on the debug kernel there is no other module.
MODULES = ("0xffffffffa0000000", "0xffffffffff000000")
MANY = 1 << 30
MAX_ALLOCATIONS = 400
STEPS = 24


def setting(kind, name, value):
    with open(f"/sys/kernel/debug/{kind}/{name}", "w", encoding="ascii") as f:
        f.write(f"{value}\n")


def value(kind, name):
    with open(f"/sys/kernel/debug/{kind}/{name}", encoding="ascii") as f:
        return int(f.read())


def notes_of_kmemleak():
    """The function that allocates kmemleak's note of each allocation. It can do without, so there is nothing to try."""
    with open("/proc/kallsyms", encoding="ascii") as f:
        symbols = sorted((int(line.split()[0], 16), line.split()[2]) for line in f)
    at = next(i for i, (_, name) in enumerate(symbols) if name == "__alloc_object")
    return hex(symbols[at][0]), hex(symbols[at + 1][0])


def prepare(stack=MODULES):
    notes = notes_of_kmemleak()
    for kind in KINDS:
        # Not only what may not sleep, and without a word on the console.
        for name, to in (("probability", 0), ("ignore-gfp-wait", "N"), ("verbose", 0), ("interval", 1),
                         ("stacktrace-depth", 32), ("require-start", stack[0]), ("require-end", stack[1]),
                         ("reject-start", notes[0]), ("reject-end", notes[1])):
            setting(kind, name, to)
    setting("fail_page_alloc", "ignore-gfp-highmem", "N")
    setting("fail_page_alloc", "min-order", 0)


class Failures:
    """How many there were; known once the failing is over."""
    count = 0


@contextlib.contextmanager
def counted(times=MANY):
    failures = Failures()
    for kind in KINDS:
        setting(kind, "times", times)
    try:
        yield failures
    finally:
        for kind in KINDS:
            setting(kind, "probability", 0)
        failures.count = sum(times - value(kind, "times") for kind in KINDS)


@contextlib.contextmanager
def failing(percent=100, spare=(0, 0), times=MANY):
    """Allocations of all tasks fail, once that many bytes (failslab) and pages (fail_page_alloc) were given; at most
    `times` of each kind."""
    with counted(times) as failures:
        for kind, space in zip(KINDS, spare):
            setting(kind, "space", space)
            setting(kind, "probability", percent)
        yield failures


def consumption(operation):
    """Bytes and pages that an operation takes, and its result."""
    with failing(spare=(MANY, MANY)) as failures:
        result = operation()
    assert not failures.count
    return tuple(MANY - value(kind, "space") for kind in KINDS), result


def fail_nth(n):
    """The n-th allocation of the calling thread from now on. 0: none."""
    try:
        with open("/proc/thread-self/fail-nth", "w", encoding="ascii") as f:
            f.write(str(n))
    except OSError as error:
        if n or error.errno != errno.ENOMEM:
            raise
        fail_nth(0)     # it was this one: there is no other


class DeviceMapper:
    """Its ioctls without dmsetup: starting a program thousands of times takes the debug kernel hours."""

    HEAD = struct.Struct("<3I2IIiIIIQ128s129s7x")
    SPEC = struct.Struct("<QQiI16s")
    REMOVE, CREATE, SUSPEND, LOAD, CLEAR, TABLES = 4, 3, 6, 9, 10, 12
    SUSPENDED, TABLE = 1 << 1, 1 << 4

    def __init__(self):
        self.fd = os.open("/dev/mapper/control", os.O_RDWR)

    def call(self, number, name, flags=0, table=None):
        """Returns what was answered behind the head. A table is a line as dmsetup takes it."""
        body = self.spec(table) if table else b""
        size = 16384
        head = self.HEAD.pack(4, 0, 0, size, self.HEAD.size, bool(table), 0, flags, 0, 0, 0, name.encode(), b"")
        buffer = bytearray((head + body).ljust(size, b"\0"))
        fcntl.ioctl(self.fd, 3 << 30 | self.HEAD.size << 16 | 0xfd << 8 | number, buffer)
        return buffer[self.HEAD.size:]

    def spec(self, table):
        start, length, target, parameters = table.split(" ", 3)
        text = parameters.encode() + b"\0"
        text += bytes(-len(text) % 8)
        return self.SPEC.pack(int(start), int(length), 0, self.SPEC.size + len(text), target.encode()) + text

    def create(self, name, table):
        """As dmsetup create: one that cannot be finished is taken back."""
        self.call(self.CREATE, name)
        try:
            self.call(self.LOAD, name, table=table)
            self.resume(name)
        except OSError:
            disarm()
            self.remove(name)
            raise

    def load(self, name, table):
        self.call(self.LOAD, name, table=table)

    def resume(self, name):
        self.call(self.SUSPEND, name)

    def suspend(self, name):
        self.call(self.SUSPEND, name, self.SUSPENDED)

    def clear(self, name):
        self.call(self.CLEAR, name)

    def remove(self, name):
        self.call(self.REMOVE, name)

    def table(self, name):
        """Parameters of the table's one target."""
        return bytes(self.call(self.TABLES, name, self.TABLE)[self.SPEC.size:]).split(b"\0")[0].decode()

    def tables(self):
        names = [read_text(f"/sys/block/{n}/dm/name") for n in os.listdir("/sys/block") if n.startswith("dm-")]
        return {name: self.table(name) for name in sorted(names)}


def read_text(path):
    with open(path, encoding="ascii") as f:
        return f.read().strip()


def disarm():
    fail_nth(0)
    for kind in KINDS:
        setting(kind, "probability", 0)


def attempt(operation, n=0):
    """True where it succeeded, False where it said that there is no memory. n: of its allocations the n-th fails."""
    if n:
        fail_nth(n)
    try:
        operation()
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return False
    finally:
        fail_nth(0)
    return True


class Trial:
    """An operation under failures. `same` returns what a failed one must leave as it was; `undo` prepares the next."""

    def __init__(self, name, operation, same, undo=lambda: None):
        self.name, self.operation, self.same, self.undo = name, operation, same, undo
        self.failed = self.passed = 0
        self.before = same()

    def once(self, context, n=0):
        with context as failures:
            ok = attempt(self.operation, n)
        if ok:
            self.passed += failures.count > 0
            self.undo()
        else:
            self.failed += 1
            assert failures.count, f"{self.name}: no memory, though no allocation failed"
        after = self.same()
        assert after == self.before, f"{self.name}, {'' if ok else 'not '}done, changed\n{self.before}\nto\n{after}"
        return ok, failures.count

    def alone(self):
        for n in range(1, MAX_ALLOCATIONS):
            ok, failures = self.once(counted(), n)
            if not failures:
                assert ok
                return n - 1
        raise AssertionError(f"{self.name}: still fails after {MAX_ALLOCATIONS} allocations")

    def from_byte(self):
        spare, _ = consumption(self.operation)
        self.undo()
        for i in range(STEPS):
            self.once(failing(spare=[s * i // STEPS for s in spare]))
        return spare

    def run(self):
        allocations, spare = self.alone(), self.from_byte()
        print(f"{self.name}: {allocations} allocations, {spare[0]} bytes, {spare[1]} pages; "
              f"{self.failed} times refused, {self.passed} times done all the same", flush=True)
        assert self.failed, f"{self.name}: never failed"

#!/usr/bin/python3
"""dm-sv's control device from Python, and hand-made labels: for tests of the module without svd.

Standard library only, since it runs in guests. As a program:

    sv_ioctl.py label [--uuid UUID] [--ring MIB] DEVICE[=TIER]...
    sv_ioctl.py up [--uuid UUID] DEVICE...       label, pool device, ATTACH, GRANT, ACTIVATE
    sv_ioctl.py create ID SIZE                   a volume and its device /dev/mapper/vID
    sv_ioctl.py state | members | volumes | freed
    sv_ioctl.py commit | checkpoint | policy NO_SPACE_MS COMMIT_MS [FLAGS]
    sv_ioctl.py flushes ID                       how many a volume has had
    sv_ioctl.py serve                            keeps the writing side open; one command a line on stdin
"""

import argparse
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import uuid as uuid_module

UUID = "11111111-2222-3333-4444-555555555555"
MIB = 1 << 20
SV_CMD_MAX = 1 << 20
SV_IOC_CMD = 3 << 30 | 48 << 16 | 0xb5 << 8 | 1
CMD = struct.Struct("<IIIIQQQQ")

HAS_RING, HAS_CATALOGUE, STALE = 1, 2, 4
RING_LOST = 1 << 32
EXTENT_PARTIAL, EXTENT_FREED, EXTENT_FRAGS = 1, 2, 4
IO_FLUSH = 3    # enum sv_io_class
EVENT_RING, EVENT_SPACE, EVENT_MODE, EVENT_FREED, EVENT_COPY_LOST = 1, 2, 4, 8, 16

OPS = ("HELLO ATTACH STATE MEMBERS JOURNAL EXTENTS PARTIALS VOLUME_CREATE VOLUME_RESIZE VOLUME_DROP VOLUMES MAP "
       "GRANT ACTIVATE COMMIT TRIM LIST_FREED RECYCLE POLICY WAIT DUMP_EXTENTS DUMP_PARTIALS DUMP_MAP HISTOGRAMS "
       "SNAPSHOT OWN FREE FOLD SHARE DUMP_NEWER MOVE CLOSE").split()
OP = {name: i + 1 for i, name in enumerate(OPS)}


def io_stat(dev):
    """What the block layer has counted of a disk, by whatever name: the fields of Linux's Documentation/block/stat, from 0."""
    with open(f"/sys/block/{os.path.basename(os.path.realpath(dev))}/stat", encoding="ascii") as f:
        return [int(field) for field in f.read().split()]


class Struct:
    """A struct of the ABI: format and names of its fields."""

    def __init__(self, fmt, fields):
        self.struct, self.fields = struct.Struct("<" + fmt), fields.split()
        self.size = self.struct.size

    def pack(self, values):
        return self.struct.pack(*[values.get(f, 0) for f in self.fields])

    def unpack(self, data, count):
        return [dict(zip(self.fields, self.struct.unpack_from(data, i * self.size))) for i in range(count)]


HELLO = Struct("IIQ16s", "abi pad features pool_uuid")
ATTACH = Struct("QQII", "epoch committed_seq state mode")
STATE = Struct("14Q2I", "committed_seq tail_seq ring_bytes ring_used ring_reserved total_slots free_slots "
               "freed_extents partials commits records journal_bytes events memory state mode")
MEMBER = Struct("4I2Q", "member tier nr_slots free_slots errors flags")
JOURNAL = Struct("QQII", "next_seq next_off prev_crc pad")
EXTENT = Struct("IIHHI", "extent slot member gen flags")
PARTIAL = Struct("II4Q16I", "extent parent v0 v1 v2 v3 " + " ".join(f"p{i}" for i in range(16)))
VOLUME = Struct("4I3Q", "id layer owned_since flags size mapped tiers")
MAP = Struct("Q4I", "index volume extent layer pad")
GRANT = Struct("4I", "member first count pad")
ACTIVATE = Struct("II", "read_only pad")
TRIM = Struct("Q", "seq")
FREED = Struct("IHH", "extent gen pad")
POLICY = Struct("4I", "no_space_ms commit_ms flags pad")
EVENT = Struct("QII", "events timeout_ms mode")
HISTOGRAM = Struct("IBBH58Q", "volume io_class tier pad ios bytes ns errors " + " ".join(f"b{i}" for i in range(54)))
SNAPSHOT = Struct("IIQ", "volume layer job")
OWN = Struct("4I", "volume owned_since flags layer")
SHARE = Struct("4I", "volume source layer pad")
FOLD = Struct("IIHHI", "extent parent gen parent_gen flags")
MOVE = Struct("IHBB", "extent gen member flags")
CLOSE = Struct("2I", "member closed")
LABEL = Struct("8sII3Q16s16s16s32s16s9Q6I", "magic version crc compat ro_compat incompat pool_uuid member_uuid "
               "host_id pool_name tier_name generation incarnation size copy_off ring_off ring_len cat_off cat_len "
               "slot_off nr_slots member nr_members tier flags extent_shift")

TYPES = {"HELLO": HELLO, "ATTACH": ATTACH, "STATE": STATE, "MEMBERS": MEMBER, "JOURNAL": JOURNAL, "EXTENTS": EXTENT,
         "PARTIALS": PARTIAL, "VOLUME_CREATE": VOLUME, "VOLUME_RESIZE": VOLUME, "VOLUME_DROP": VOLUME,
         "VOLUMES": VOLUME, "MAP": MAP, "GRANT": GRANT, "ACTIVATE": ACTIVATE, "COMMIT": STATE, "TRIM": TRIM,
         "LIST_FREED": FREED, "RECYCLE": FREED, "POLICY": POLICY, "WAIT": EVENT, "DUMP_EXTENTS": EXTENT,
         "DUMP_PARTIALS": PARTIAL, "DUMP_MAP": MAP, "HISTOGRAMS": HISTOGRAM, "SNAPSHOT": SNAPSHOT, "OWN": OWN, "FREE": FREED,
         "FOLD": FOLD, "SHARE": SHARE, "DUMP_NEWER": MAP, "MOVE": MOVE, "CLOSE": CLOSE}


def crc32c_table():
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ 0x82f63b78 * (i & 1)
        yield i


CRC_TABLE = list(crc32c_table())


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


# Labels

def layout(size, ring_len, cat_len):
    """Offsets of a member's regions, as sv_label_layout() puts them."""
    label = {"size": size // MIB * MIB, "ring_len": ring_len, "cat_len": cat_len}
    at = MIB
    for region in ("ring", "cat"):
        label[region + "_off"] = at if label[region + "_len"] else 0
        at += label[region + "_len"]
    label["slot_off"] = at
    label["nr_slots"] = label["size"] // MIB - at // MIB - 1
    label["copy_off"] = label["size"] - 4096
    return label


def encode_label(fields):
    data = LABEL.pack({**fields, "magic": b"svctl\0\r\n", "version": 1, "extent_shift": 20}).ljust(4096, b"\0")
    return data[:12] + struct.pack("<I", crc32c(data)) + data[16:]


def device_size(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def write_label(path, label):
    data = encode_label(label)
    fd = os.open(path, os.O_RDWR)
    try:
        for off in (0, label["copy_off"]):
            os.pwrite(fd, data, off)
        os.fsync(fd)
    finally:
        os.close(fd)


def label_devices(devices, uuid=UUID, ring_mib=16, nr_members=None, first=0):
    """Labels for devices PATH or PATH=TIER; ring and catalogue on the first two of the fastest tier."""
    parsed = [(d.split("=")[0], int(d.split("=")[1]) if "=" in d else 0) for d in devices]
    fastest, rings, labels = min(t for _, t in parsed), 0, []
    for i, (path, tier) in enumerate(parsed):
        ring = first == 0 and tier == fastest and rings < 2
        rings += ring
        label = layout(device_size(path), ring_mib * MIB if ring else 0, 4 * MIB if ring else 0)
        label.update(pool_uuid=uuid_module.UUID(uuid).bytes, member_uuid=uuid_module.uuid4().bytes, pool_name=b"t",
                     host_id=b"", tier_name=b"t%d" % tier, generation=1, incarnation=7, member=first + i,
                     nr_members=nr_members or len(parsed), tier=tier, flags=(HAS_RING | HAS_CATALOGUE) * ring)
        write_label(path, label)
        labels.append(label)
    return labels


# The control device

class Pool:
    """An open control device. Failures are OSError with the ABI's errno."""

    def __init__(self, uuid=UUID, write=True):
        self.uuid, self.epoch = uuid, 0
        self.fd = os.open(self.device_node(), os.O_RDWR if write else os.O_RDONLY)

    def device_node(self):
        """Without udev nothing but devtmpfs made it."""
        return f"/dev/svctl-{self.uuid}"

    def close(self):
        os.close(self.fd)

    def raw(self, op, size, count, addr, epoch=None, flags=0, reserved=0):
        """One SV_IOC_CMD as given. Returns (errno, elements answered, done)."""
        cmd = bytearray(CMD.pack(op, size, count, 0, self.epoch if epoch is None else epoch, addr, flags, reserved))
        code = 0
        try:
            fcntl.ioctl(self.fd, SV_IOC_CMD, cmd)
        except OSError as error:
            code = error.errno
        _, _, count, done, *_ = CMD.unpack(cmd)
        return code, count, done

    def call(self, name, elements=(), room=0):
        """Sends elements (dicts), returns those answered."""
        return self.carry_out(name, elements, room)[0]

    def count(self, name, elements):
        """Sends elements, returns how many the kernel says it has done."""
        return self.carry_out(name, elements)[1]

    def carry_out(self, name, elements, room=0):
        kind = TYPES[name]
        count = max(len(elements), room)
        buffer = ctypes.create_string_buffer(max(count * kind.size, 1))
        for i, element in enumerate(elements):
            ctypes.memmove(ctypes.addressof(buffer) + i * kind.size, kind.pack(element), kind.size)
        code, answered, done = self.raw(OP[name], kind.size, count, ctypes.addressof(buffer))
        if code:
            raise OSError(code, f"{name}: {os.strerror(code)} after {done} elements")
        return kind.unpack(buffer, answered), done

    def send(self, name, elements):
        """Any number of elements, in as many commands as that takes."""
        step = SV_CMD_MAX // TYPES[name].size
        for i in range(0, len(elements), step):
            self.call(name, elements[i:i + step])

    def ask(self, name, **element):
        return self.call(name, [element] if element else [], 1)[0]

    def attach(self):
        answer = self.ask("ATTACH")
        self.epoch = answer["epoch"]
        return answer

    def dump(self, name, key="extent", **start):
        """All elements of a DUMP op or LIST_FREED."""
        out, at = [], {key: 0, **start}
        while True:
            got = self.call(name, [at], 4096)
            out += got
            if len(got) < 4096:
                return out
            at = {**start, key: got[-1][key] + 1}

    def load_empty(self, labels):
        """A pool that was just made: grants everything, activates."""
        self.attach()
        self.ask_nothing("JOURNAL", next_seq=1)
        self.call("GRANT", [{"member": l["member"], "count": l["nr_slots"]} for l in labels])
        self.ask_nothing("ACTIVATE")

    def ask_nothing(self, name, **element):
        self.call(name, [element])

    def create_volume(self, number, size, **fields):
        self.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=size, tiers=(1 << 64) - 1, **fields)

    def recycle(self):
        """What a checkpoint does with freed extents, without a catalogue: list, commit, trim, recycle."""
        freed = self.dump("LIST_FREED")
        state = self.ask("COMMIT")
        if state["committed_seq"] >= state["tail_seq"]:
            self.ask_nothing("TRIM", seq=state["committed_seq"])
        self.send("RECYCLE", freed)
        return len(freed)


def dmsetup(*args, table=None):
    subprocess.run(["dmsetup", *args] + (["--table", table] if table else []), check=True,
                   env={**os.environ, "DM_DISABLE_UDEV": "1"})


def pool_table(devices, uuid=UUID):
    return f"0 2048 sv-pool {uuid} {len(devices)} {' '.join(d.split('=')[0] for d in devices)}"


def volume_table(number, size, uuid=UUID):
    return f"0 {size // 512} sv-volume {uuid} {number}"


def parse_size(text):
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


def bring_up(devices, uuid=UUID, ring_mib=16):
    """A new pool on blank devices; returns it open."""
    labels = label_devices(devices, uuid, ring_mib)
    dmsetup("create", "pool", table=pool_table(devices, uuid))
    pool = Pool(uuid)
    pool.load_empty(labels)
    return pool


def add_volume(pool, number, size):
    pool.create_volume(number, size)
    dmsetup("create", f"v{number}", table=volume_table(number, size, pool.uuid))


def printable(value):
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in value.items()}


def run_command(pool, words):
    """A command of the command line on an attached pool; returns what to print."""
    name, args = words[0], words[1:]
    if name == "create":
        add_volume(pool, int(args[0]), parse_size(args[1]))
    elif name in ("state", "commit"):
        return printable(pool.ask(name.upper()))
    elif name in ("members", "volumes"):
        return pool.call(name.upper(), room=64)
    elif name == "freed":
        return len(pool.dump("LIST_FREED"))
    elif name == "checkpoint":
        return pool.recycle()
    elif name == "policy":
        pool.ask_nothing("POLICY", **dict(zip(("no_space_ms", "commit_ms", "flags"), map(int, args))))
    elif name == "flushes":
        counts = pool.call("HISTOGRAMS", [{"volume": int(args[0])}], 20)
        return sum(h["ios"] for h in counts if h["io_class"] == IO_FLUSH)
    else:
        raise ValueError(f"no command {name}")
    return None


def serve(pool):
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(run_command(pool, line.split())), flush=True)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uuid", default=UUID)
    parser.add_argument("--ring", type=int, default=16, help="MiB")
    parser.add_argument("words", nargs="+", metavar="COMMAND")
    args = parser.parse_args(argv)
    name = args.words[0]
    if name == "label":
        label_devices(args.words[1:], args.uuid, args.ring)
        return 0
    if name == "up":
        bring_up(args.words[1:], args.uuid, args.ring).close()
        return 0
    looks_only = name == "flushes"      # without a session, each of which begins with a commit
    pool = Pool(args.uuid, write=not looks_only)
    if not looks_only:
        pool.attach()
    if name == "serve":
        serve(pool)
        return 0
    answer = run_command(pool, args.words)
    if answer is not None:
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        print(f"sv_ioctl: {error}", file=sys.stderr)
        sys.exit(100 if error.errno is None else min(error.errno, 99))

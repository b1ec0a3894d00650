"""In the guest: what is measured. A target makes volumes, all alike, on disks of its own."""

import json
import mmap
import os
import signal
import struct
import subprocess
import time

from disks import HERE, Disk, sv_ioctl

BIN = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "bin")
DISK_MIB = 32768
SECTOR = 512


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_until(condition, seconds, pause=0.2):
    """Of the guest's time, which flies while it has nothing to do."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(pause)


def parse_size(text):
    return sv_ioctl.parse_size(text.upper())


class Target:
    """raw: a volume is a disk."""

    def __init__(self, name):
        self.name, self.disks, self.volumes = name, [], 0
        self.set_up()

    def set_up(self):
        pass

    def disk(self, mib=DISK_MIB):
        self.disks.append(Disk(f"{self.name}-{len(self.disks)}", mib))
        return self.disks[-1]

    def fresh(self, size):
        """A new volume's path; it reads as zeroes."""
        self.volumes += 1
        return self.make_volume(f"v{self.volumes}", parse_size(size))

    def make_volume(self, name, size):
        return self.disk().dev

    def snapshot(self, device, number):
        """Of a volume; nothing, where there is no such thing."""

    def chains(self):
        """How long they are, where there are any."""
        return {}

    def hold(self):
        """The target does nothing by itself from now on."""

    def settle(self):
        """What the target does by itself is done, and of that nothing is due at once."""

    def touch_ends(self):
        for disk in self.disks:
            disk.touch_end()

    def counts(self):
        total = {}
        for disk in self.disks:
            for key, value in disk.counts().items():
                total[key] = total.get(key, 0) + value
        return total

    def tear_down(self):
        for disk in self.disks:
            disk.remove()


class Linear(Target):
    def make_volume(self, name, size):
        run("dmsetup", "create", name, "--table", f"0 {size // SECTOR} linear {self.disk().dev} 0")
        return "/dev/mapper/" + name

    def tear_down(self):
        for number in range(self.volumes):
            run("dmsetup", "remove", f"v{number + 1}")
        super().tear_down()


class Thin(Target):
    """thin64, thin1m: chunks of 64 KiB and of 1 MiB; with nz behind it, not zeroed."""

    def set_up(self):
        self.chunk = 2048 if self.name.startswith("thin1m") else 128
        features = "1 skip_block_zeroing" if self.name.endswith("nz") else "0"
        data, metadata = self.disk(), self.disk(256)
        self.written = 0
        run("dmsetup", "create", "pool", "--table",
            f"0 {DISK_MIB * 2048} thin-pool {metadata.dev} {data.dev} {self.chunk} 0 {features}")

    def make_volume(self, name, size):
        run("dmsetup", "message", "/dev/mapper/pool", "0", f"create_thin {self.volumes}")
        run("dmsetup", "create", name, "--table", f"0 {size // SECTOR} thin /dev/mapper/pool {self.volumes}")
        return "/dev/mapper/" + name

    def snapshot(self, device, number):
        name = os.path.basename(device)
        run("dmsetup", "suspend", name)
        run("dmsetup", "message", "/dev/mapper/pool", "0", f"create_snap {1000 * int(name[1:]) + number} {name[1:]}")
        run("dmsetup", "resume", name)

    def settle(self):
        """dm-thin commits each second, where there is something to commit: right after it did."""
        if not self.written:
            self.scratch = os.open(self.fresh("1g"), os.O_RDWR | os.O_DIRECT)
        before = self.disks[1].counts()["writes"]
        os.pwritev(self.scratch, [mmap.mmap(-1, 4096)], self.written * sv_ioctl.MIB)
        self.written += 1
        wait_until(lambda: self.disks[1].counts()["writes"] > before, 10, 0.02)
        time.sleep(0.1)

    def counts(self):
        """Of the pool's data, without the metadata's own space."""
        chunks = int(run("dmsetup", "status", "pool").split()[5].split("/")[0])
        return {**super().counts(), "space_bytes": chunks * self.chunk * SECTOR}

    def tear_down(self):
        if self.written:
            os.close(self.scratch)
        for name in [f"v{number + 1}" for number in range(self.volumes)] + ["pool"]:
            run("dmsetup", "remove", name)
        super().tear_down()


class Svd(Target):
    """svd, of these disks."""

    held = False

    def start_svd(self, disks):
        os.environ["PATH"] = BIN + ":" + os.environ["PATH"]
        os.makedirs("/run/svctl", exist_ok=True)
        with open("/run/svctl/log", "ab") as log:
            self.svd = subprocess.Popen(["svd", "--devices", ",".join(disk.dev for disk in disks)], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log)
        wait_until(lambda: subprocess.run(["svctl", "list"], capture_output=True, check=False).returncode == 0, 600)

    def hold(self):
        self.svd.send_signal(signal.SIGSTOP)
        self.held = True

    def release(self):
        self.svd.send_signal(signal.SIGCONT)
        self.held = False

    def show(self, pool="tank"):
        return json.loads(run("svctl", "--json", "show", pool))

    def tear_down(self):
        self.svd.terminate()
        self.svd.wait()
        super().tear_down()


class Sv(Svd):
    """A pool with one member, made by svctl, and its volumes."""

    def set_up(self):
        disk = self.disk()
        self.start_svd([disk])
        run("svctl", "create-pool", "tank", "--tier", "only=" + disk.dev)
        self.pool = sv_ioctl.Pool(self.show()["uuid"], write=False)
        self.scratch = os.open(self.fresh("1g"), os.O_RDWR)
        self.written = 0

    def state(self):
        return self.pool.ask("STATE")

    def settle(self):
        """svd checkpoints every 30 s: right after it did."""
        if self.held:
            return
        os.pwrite(self.scratch, bytes(4096), self.written * sv_ioctl.MIB)
        self.written += 1
        os.fsync(self.scratch)
        wait_until(lambda: self.state()["tail_seq"] > self.state()["committed_seq"], 60)

    def counts(self):
        state = self.state()
        return {**super().counts(), "space_bytes": (state["total_slots"] - state["free_slots"]) * sv_ioctl.MIB,
                "journal_bytes": state["journal_bytes"], "journal_writes": state["commits"]}

    def make_volume(self, name, size):
        run("svctl", "create-volume", "tank/" + name, "--size", f"{size >> 20}M")
        return "/dev/sv/tank/" + name

    def snapshot(self, device, number):
        run("svctl", "create-snapshot", f"tank/{os.path.basename(device)}@s{number}")

    def chains(self):
        """Of one extent and those below it, the most: what a read of it may go through."""
        below = {partial["extent"]: partial["parent"] for partial in self.pool.dump("DUMP_PARTIALS")}

        def length(extent):
            count = 0
            while extent:
                extent, count = below.get(extent, 0), count + 1
            return count
        return {"deepest_chain": max(map(length, below), default=1)}

    def tear_down(self):
        self.release()
        os.close(self.scratch)
        self.pool.close()
        run("svctl", "--yes", "delete-pool", "tank")
        super().tear_down()


class Carried(Svd):
    """Pools by name, each from a packed disk (carried.py): as another host made them."""

    def __init__(self, packed):
        self.packed = packed
        super().__init__("carried")

    def set_up(self):
        for path, mib in self.packed.values():
            unpack(path, self.disk(mib).dev)
        self.start_svd(self.disks)
        for pool in self.packed:
            run("svctl", "import-pool", pool)

    def tear_down(self):
        for pool in self.packed:
            run("svctl", "deactivate", pool)
        super().tear_down()


def unpack(path, dev):
    with open(path, "rb") as packed, open(dev, "wb") as disk:
        while head := packed.read(16):
            offset, length = struct.unpack("<QQ", head)
            disk.seek(offset)
            disk.write(packed.read(length))
        disk.flush()
        os.fsync(disk.fileno())


KINDS = {"raw": Target, "linear": Linear, "thin64": Thin, "thin64nz": Thin, "thin1m": Thin, "thin1mnz": Thin, "sv": Sv}


def make(name):
    return KINDS[name](name)

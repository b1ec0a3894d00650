"""Test guests: disks that can lose power, and QEMU around them.

A test is a function test_*(bench) in tests/vm/t_*.py:

    def test_survives_power_cut(bench):
        disk = bench.disk("a", "1G", backend="volatile")
        with bench.boot([disk]) as guest:
            guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync")
            guest.power_cut()
        with bench.boot([disk]) as guest:
            ...

README.md beside this file says the rest.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import blklog
import initramfs

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(REPO, "build")
GUEST_ROOT = os.path.join(BUILD, "guest-root")

# What a healthy kernel never prints; a guest that printed it has failed its test.
KERNEL_TROUBLE = re.compile(
    r"WARNING:|BUG:|Oops|hung task|blocked for more than|INFO: possible|INFO: rcu|INFO: trying"
    r"|KASAN|UBSAN|ODEBUG|BUG \S+ \(|general protection|segfault at|traps: \S+\[\d+\]|Call Trace|Kernel panic|soft lockup|refcount_t:|kmemleak: [1-9]")

# Lines at most from a headline of the kernel, registers included, to its stack.
STACK_AFTER = 40

# What udev would load for QEMU's chipset: half a minute of reading and unpacking under TCG.
NOT_NEEDED = ("ahci,kvm_amd,kvm_intel,i2c_i801,lpc_ich,iTCO_wdt,pcspkr,psmouse,button,aesni_intel,ghash_clmulni_intel,"
              "crct10dif_pclmul,crc32_pclmul,sha512_ssse3,sha256_ssse3,sha1_ssse3,qemu_fw_cfg,evdev,joydev")

# Factor on all time limits, of the runner: for a machine or a kernel that is slower than a usual one.
SLACK = 1.0


# Of each script. `! command` alone never fails, not even under set -e: hence refused. ends CODE COMMAND: what it says is shown, and
# in /tmp/said.
PRELUDE = """set -euo pipefail
refused() { if "$@"; then echo "not refused: $*" >&2; exit 1; fi; }
ends() { local want=$1 code=0; shift; "$@" > /tmp/said 2>&1 || code=$?; cat /tmp/said
  if test $code != $want; then echo "exit code $code, not $want: $*" >&2; exit 1; fi; }
"""


class Skip(Exception):
    """A test cannot run here for want of something that make deps or make would have made. Fails it unless MAY_SKIP=1."""


class Failure(AssertionError):
    """A test found a fault."""


class GuestDied(Failure):
    """QEMU ended while the test still wanted its guest."""


class CommandFailed(Failure):
    """A script in the guest ended with an exit code other than 0."""

    def __init__(self, script, code, output):
        self.code, self.output = code, output
        super().__init__(f"exit code {code} from: {script.strip()[:300]}\n{output[-3000:]}")


# Marks on test functions, read by the runner.

def full(function):
    """The test belongs to check-full only."""
    function.full = True
    return function


def debug(function):
    """The test needs the kernel of check-debug (mk/debug.config)."""
    function.debug = True
    return function


def not_on(*kernels):
    """The test is none of these kernels', which lack what it tries."""
    def mark(function):
        function.not_on = kernels
        return function
    return mark


def limit(seconds):
    """The test's time limit; without it DEFAULT_LIMIT of the runner holds."""
    def mark(function):
        function.limit = seconds
        return function
    return mark


def parse_size(size):
    """Bytes of "512", "64K", "1G", ..."""
    if isinstance(size, int):
        return size
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(size[:-1]) << units[size[-1]] if size[-1] in units else int(size)


@contextlib.contextmanager
def locked(path):
    """One builder at a time of something that tests share."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def is_newer(target, *sources):
    return os.path.exists(target) and all(
        os.path.getmtime(target) >= os.path.getmtime(s) for s in sources)


class Kernel:
    """A guest kernel, as mk/deps.sh unpacked or mk/debug-kernel.sh built it."""

    def __init__(self, kver):
        self.dir = os.path.join(BUILD, "kernels", kver)
        try:
            with open(os.path.join(self.dir, "release"), encoding="ascii") as f:
                self.release = f.read().strip()
        except FileNotFoundError:
            raise Skip(f"no kernel {kver}: make deps KVER={kver}") from None
        self.image = os.path.join(self.dir, "boot", "vmlinuz-" + self.release)
        self.modules = os.path.join(self.dir, "lib", "modules")

    def initrd(self, full=False):
        path = os.path.join(self.dir, "initramfs-full.cpio" if full else "initramfs.cpio")
        with locked(os.path.join(BUILD, "vm", ".initramfs.lock")):
            sources = [os.path.join(HERE, "guest/initramfs-init"), os.path.join(HERE, "initramfs.py"), self.image]
            if not is_newer(path, *sources):
                initramfs.build(os.path.join(self.modules, self.release), path, ["crc32c_generic", "ext4"] if full else [])
        return path


def accelerator(kernel):
    """"kvm" where a guest gets to its first process with it, else "tcg". /dev/kvm
    alone proves nothing: there are machines where stock kernels hang under it."""
    cache = os.path.join(BUILD, "vm", "accel")
    with locked(cache + ".lock"):
        if not os.path.exists(cache):
            accel = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and boots_with_kvm(kernel) else "tcg"
            with open(cache, "w", encoding="ascii") as f:
                f.write(accel)
        with open(cache, encoding="ascii") as f:
            return f.read().strip()


def boots_with_kvm(kernel):
    """The initramfs finds no root and powers off, within a second or so."""
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
               "-accel", "kvm", "-cpu", "host", "-m", "256", "-serial", "stdio",
               "-kernel", kernel.image, "-initrd", kernel.initrd(), "-append", "console=ttyS0 quiet panic=-1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=8, check=False)
    except subprocess.TimeoutExpired:
        return False
    return b"initramfs: cannot mount the root" in done.stdout


def volatile_plugin():
    """The nbdkit plugin behind backend="volatile", compiled when needed."""
    source, plugin = os.path.join(HERE, "volatile.c"), os.path.join(BUILD, "vm", "volatile.so")
    with locked(plugin + ".lock"):
        if not is_newer(plugin, source):
            subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", plugin + ".new", source], check=True)
            os.rename(plugin + ".new", plugin)
    return plugin


class Disk:
    """A disk that outlives guests. Backends:

    file      a sparse file through the host's page cache: keeps every write
    volatile  a write cache of its own: a power cut loses what was not flushed
    logged    as file, with every write and flush in a log for Bench.crash_disk()

    write_cache=False is a disk without a volatile cache: every acknowledged write
    is kept. `early` percent of the sectors written to a volatile disk reach the
    medium at once, in an order of their own (`seed`), as caches of real disks do;
    its cache holds `cache` bytes. `paths` SCSI adapters lead to the same disk, instead of one of virtio.
    """

    def __init__(self, directory, name, size, backend="file", *, serial=None, write_cache=True,
                 readonly=False, logical=512, physical=4096, early=0, seed=1, cache="64M", paths=0):
        if backend not in ("file", "volatile", "logged"):
            raise ValueError(f"no disk backend {backend}")
        self.name, self.backend, self.size = name, backend, parse_size(size)
        self.serial = serial or name
        self.write_cache, self.readonly = write_cache, readonly
        self.logical, self.physical = logical, physical
        self.early, self.seed, self.cache, self.paths = early, seed, cache, paths
        self.path = os.path.join(directory, name + ".img")
        self.log = os.path.join(directory, name + ".log")
        self.server = None
        with open(self.path, "wb") as f:
            f.truncate(self.size)

    @property
    def dev(self):
        """The disk's path in a guest."""
        return f"/dev/disk/by-id/virtio-{self.serial}"

    def start(self, directory):
        """Called before each boot: starts the server, prepares the log."""
        if self.backend == "volatile":
            self._start_server(directory)
        if self.backend == "logged" and not os.path.exists(self.log):
            with open(self.log, "wb"):
                pass

    def _start_server(self, directory):
        # In the run directory, whose name is short: socket addresses are.
        self.socket = os.path.join(directory, self.name + ".sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", self.socket, volatile_plugin(),
                   "file=" + self.path, f"early={self.early}", f"seed={self.seed}", f"cache={self.cache}"]
        self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.seed += 1
        wait_until(lambda: os.path.exists(self.socket) or self.server.poll() is not None, 10, "nbdkit")
        if self.server.poll() is not None:
            raise Failure("nbdkit ended: " + " ".join(command))

    def kill(self):
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None

    def remove(self):
        for path in (self.path, self.log):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def qemu_args(self, index):
        node = f"disk{index}"
        if self.paths:
            return self._blockdevs(node) + self._scsi(node, index)
        device = (f"virtio-blk-pci,drive={node},serial={self.serial},discard=on,write-zeroes=on"
                  f",write-cache={'on' if self.write_cache else 'off'}"
                  f",logical_block_size={self.logical},physical_block_size={self.physical}")
        return self._blockdevs(node) + ["-device", device]

    def _scsi(self, node, index):
        """One name, by which multipathd knows that it is one disk."""
        args = []
        for path in range(self.paths):
            args += ["-device", f"virtio-scsi-pci,id={node}-{path}",
                     "-device", f"scsi-hd,bus={node}-{path}.0,drive={node},share-rw=on,serial={self.serial}"
                                f",wwn={0x5000000000000000 + index},logical_block_size={self.logical}"
                                f",physical_block_size={self.physical}"]
        return args

    def _blockdevs(self, node):
        common = f",discard=unmap,read-only={'on' if self.readonly else 'off'}"
        # The host outlives every test: its own flushes would only take time.
        file = f"driver=file,filename={self.path},locking=off,cache.no-flush=on"
        if self.backend == "volatile":
            return ["-blockdev", f"driver=nbd,node-name={node},server.type=unix,server.path={self.socket}{common}"]
        if self.backend == "file" or self.readonly:
            return ["-blockdev", f"driver=raw,node-name={node}{common}," + nested("file", file + ",discard=unmap")]
        # Synchronous super block updates: a killed QEMU leaves a complete log.
        mode = "log-append=on" if os.path.getsize(self.log) else "log-sector-size=512"
        return ["-blockdev", f"driver=raw,node-name={node}-data,discard=unmap," + nested("file", file + ",discard=unmap"),
                "-blockdev", f"driver=file,node-name={node}-log,filename={self.log},locking=off,cache.no-flush=on",
                "-blockdev", f"driver=blklogwrites,node-name={node},file={node}-data,log={node}-log"
                             f",{mode},log-super-update-interval=1{common}"]


def nested(prefix, options):
    """"a=1,b=2" as options of the child node `prefix`."""
    return ",".join(f"{prefix}.{o}" for o in options.split(","))


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds * SLACK
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"no {what} after {seconds} s")
        time.sleep(0.01)


class Command:
    """A script that runs in a guest."""

    def __init__(self, guest, number, script):
        self.guest, self.number, self.script = guest, number, script
        self.code = None

    @property
    def output(self):
        """What it has printed so far; also after a power cut."""
        try:
            with open(self.guest.share_path(f"{self.number}.out"), encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def wait(self, timeout=60, check=True):
        """The output, once the script has ended."""
        deadline = time.monotonic() + timeout * SLACK
        while self.code is None:
            self.guest.receive(deadline, self.script)
        if check and self.code:
            raise CommandFailed(self.script, self.code, self.output)
        return self.output


class Guest:
    """A booted guest. Ends by shutdown() or power_cut(); leaving its `with` block
    shuts it down, and then its console is searched for kernel trouble.

    With `system`, a disk with an ext4 file system, it is a full guest: systemd and
    udev on a Debian root of its own (mk/guest-root.sh), whose changes that disk
    keeps.

    With `icount` its clock goes by instructions, and leaps over what it idles: for measuring. With `own_time` its clock
    goes by instructions and waits are real: a host that is busy does not run its time limits out. Both have one CPU."""

    def __init__(self, bench, disks, directory, *, cpus=2, mem="1G", icount=False, own_time=False, cmdline="",
                 system=None, expect=(), kernel=None, accel=None, boot_timeout=60, qemu_args=()):
        self.bench, self.disks, self.dir = bench, disks, directory
        self.cpus, self.mem, self.cmdline, self.system = 1 if icount or own_time else cpus, mem, cmdline, system
        self.icount = "shift=0,sleep=off" if icount else "shift=0,sleep=on" if own_time else ""
        self.kernel = kernel or bench.kernel
        self.qemu_args = list(qemu_args)
        self.accel = accel or ("tcg" if self.icount else accelerator(self.kernel))
        self.expect = [re.compile(e) for e in expect]
        self.commands, self.qemu, self.port, self.received = {}, None, None, b""
        self.at_end = []  # functions: what must hold when the block is left, while the guest still runs
        os.makedirs(self.share_path(""))
        if system:
            for name in ("agent", "serve"):
                shutil.copy(os.path.join(HERE, "guest", name), self.share_path(name))
        self.console, self.qemu_log = os.path.join(directory, "console"), os.path.join(directory, "qemu")
        try:
            started = time.monotonic()
            self._start()
            self.receive_ready(time.monotonic() + boot_timeout * SLACK)
            self.boot_seconds = time.monotonic() - started
        except BaseException as failure:
            self.__exit__(type(failure), failure, None)
            raise

    def share_path(self, name):
        """Host path of /share/NAME in the guest."""
        return os.path.join(self.dir, "share", name)

    # Starting

    def _start(self):
        for disk in self.disks:
            disk.start(self.bench.run_dir)
        # The connected socket is inherited: no address, and nobody to accept.
        self.port, theirs = socket.socketpair()
        command = self._qemu_command(theirs.fileno())
        with open(self.qemu_log, "w", encoding="utf-8") as log:
            log.write(" ".join(command) + "\n")
            log.flush()
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         pass_fds=[theirs.fileno()])
        theirs.close()

    def _qemu_command(self, port_fd):
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-machine", "q35", "-m", self.mem, "-smp", str(self.cpus)]
        command += self._accel_args()
        command += ["-kernel", self.kernel.image, "-initrd", self.kernel.initrd(self.system), "-append", self._cmdline(),
                    "-serial", "file:" + self.console, "-device", "virtio-rng-pci",
                    "-chardev", f"socket,id=agent,fd={port_fd}", "-device", "virtio-serial-pci",
                    "-device", "virtserialport,chardev=agent,name=sv.agent"]
        for tag, path, readonly in (("root", GUEST_ROOT if self.system else "/", "on"), ("modules", self.kernel.modules, "on"),
                                    ("share", self.share_path(""), "off")):
            command += ["-fsdev", f"local,id={tag},path={path},security_model=none,readonly={readonly},multidevs=remap",
                        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        for index, disk in enumerate(self.disks):
            command += disk.qemu_args(index)
        return command + self.qemu_args

    def _accel_args(self):
        if self.accel == "kvm":
            return ["-accel", "kvm", "-cpu", "host"]
        if self.icount:
            return ["-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-icount", self.icount]
        return ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]

    def _cmdline(self):
        # Oopses and panics end the guest; on_warn does not, so that the rest is seen as well. The other CPUs start once
        # the machine is set up: QEMU's translator does not survive PCI's address spaces being moved under a second CPU.
        full = ["sv.full=1", "sv.upper=" + self.system.serial, "modprobe.blacklist=" + NOT_NEEDED] if self.system else []
        words = ["console=ttyS0", "maxcpus=1", "ignore_loglevel", "panic=-1", "oops=panic", "mitigations=off", "init_on_alloc=0",
                 "tsc=reliable", "hostname=sv-guest", "sv.init=" + os.path.join(HERE, "guest/init"), *full, self.cmdline,
                 "no_timer_check",      # that it ticks within its first 40 ms, on a host that has others to run
                 "lpj=10000000"]        # measuring it on the second CPU takes 2.6 s of a boot; only delay loops go by it
        return " ".join(words)

    # Talking to it

    def receive_ready(self, deadline):
        while self.receive_line(deadline, "boot") != "READY":
            pass

    def receive(self, deadline, what):
        """Takes one DONE message."""
        words = self.receive_line(deadline, what).split()
        if len(words) == 3 and words[0] == "DONE":
            self.commands[int(words[1])].code = int(words[2])

    def receive_line(self, deadline, what):
        while b"\n" not in self.received:
            self.port.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.port.recv(4096)
            except TimeoutError:
                raise Failure(f"time limit in guest: {what.strip()[:300]}\n{self.tail()}") from None
            except ConnectionError:
                data = b""
            if not data:
                self.qemu.wait(10)
                raise GuestDied(f"guest ended during: {what.strip()[:300]}\n{self.tail()}")
            self.received += data
        line, self.received = self.received.split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def start(self, script):
        """Starts a bash script in the guest without waiting for it."""
        number = len(self.commands) + 1
        command = self.commands[number] = Command(self, number, script)
        with open(self.share_path(f"{number}.sh"), "w", encoding="utf-8") as f:
            f.write(PRELUDE + script)
        self.port.settimeout(10)
        self.port.sendall(f"RUN {number}\n".encode())
        return command

    def run(self, script, timeout=60, check=True):
        """Runs a bash script (with -euo pipefail) in the guest and returns what it
        printed; raises CommandFailed on an exit code other than 0."""
        return self.start(script).wait(timeout, check)

    def put(self, name, contents):
        """Makes /share/NAME in the guest."""
        with open(self.share_path(name), "wb") as f:
            f.write(contents if isinstance(contents, bytes) else contents.encode())
        return "/share/" + name

    def get(self, name):
        """The contents of /share/NAME."""
        with open(self.share_path(name), "rb") as f:
            return f.read()

    def sv_module(self):
        """Path of the project's module."""
        module = os.path.join(BUILD, "kmod", self.kernel.release, "dm-sv.ko")
        if not os.path.exists(module):
            raise Skip(f"no dm-sv.ko for {self.kernel.release}: make kmod KVER={self.bench.kver}")
        return module

    def load_sv(self, params=""):
        """Loads the project's module and what it depends on."""
        module = self.sv_module()
        self.run(f"for m in $(modinfo -F depends {module} | tr , ' '); do modprobe $m; done\n"
                 f"insmod {module} {params}")

    # Ending it

    @property
    def running(self):
        return self.qemu is not None and self.qemu.poll() is None

    def kill(self):
        if self.running:
            self.qemu.kill()
        if self.qemu:
            self.qemu.wait()
        for disk in self.disks:
            disk.kill()
        if self.port:
            self.port.close()

    def power_cut(self):
        """Ends guest and disks at once: what no flush covered is lost (backend
        "volatile"). QEMU stands still before the servers go: neither does it
        reach them while it dies, nor does the guest see errors of theirs."""
        self.qemu.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.qemu.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for disk in self.disks:
            disk.kill()
        self.kill()
        self.check_console()

    def shutdown(self, timeout=60):
        """Syncs and resets the guest; file systems are not unmounted."""
        if not self.running:
            return
        self.port.settimeout(10)
        self.port.sendall(b"HALT\n")
        try:
            self.qemu.wait(timeout * SLACK)
        except subprocess.TimeoutExpired:
            raise Failure(f"guest did not shut down in {timeout} s\n{self.tail()}") from None
        finally:
            self.kill()
        self.check_console()

    # Its console

    def console_text(self):
        """What the kernel printed; where QEMU did not start, why."""
        path = self.console if os.path.exists(self.console) else self.qemu_log
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().replace("\r", "")

    def tail(self, lines=25):
        return "\n".join(self.console_text().splitlines()[-lines:])

    def check_console(self):
        """Fails on kernel trouble that the test did not expect."""
        lines = self.console_text().splitlines()
        for i, line in enumerate(lines):
            if KERNEL_TROUBLE.search(line) and not self._expected(lines, i):
                raise Failure("kernel trouble in guest:\n" + "\n".join(lines[max(0, i - 3):i + 40]))

    def _expected(self, lines, i):
        """A stack is expected with the nearest headline above it."""
        if "Call Trace:" in lines[i]:
            above = range(i - 1, max(0, i - STACK_AFTER), -1)
            i = next((k for k in above if KERNEL_TROUBLE.search(lines[k]) or self._said(lines[k])), i)
        return self._said(lines[i])

    def _said(self, line):
        return any(e.search(line) for e in self.expect)

    def end_well(self):
        try:
            for check in self.at_end if self.running else ():
                check()
        except BaseException:
            self.kill()
            raise
        self.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is None:
            self.end_well()
            return
        self.kill()
        # What the kernel said first explains what the test saw then.
        if not issubclass(kind, Skip):
            self.check_console()


class Bench:
    """What a test gets: a directory for its logs, disks and guests."""

    def __init__(self, directory, kver="6.12"):
        self.dir, self.kver = directory, kver
        self.kernel = Kernel(kver)
        # For socket addresses, which must be short.
        self.run_dir = tempfile.mkdtemp(prefix="svvm-")
        self.disks, self.guests, self.boots = [], [], 0

    def disk(self, name, size, backend="file", **options):
        disk = Disk(self.dir, name, size, backend, **options)
        self.disks.append(disk)
        return disk

    def crash_disk(self, name, logged, upto=None, seed=0, atom=512, serial=None):
        """A disk as a power cut could have left the logged one, after the first
        `upto` entries of its log (default: all)."""
        disk = self.disk(name, logged.size, serial=serial or logged.serial, logical=logged.logical,
                         physical=logged.physical, write_cache=logged.write_cache)
        blklog.Log(logged.log).rebuild(disk.path, disk.size, upto, seed, atom)
        return disk

    def boot(self, disks=(), **options):
        self.boots += 1
        guest = Guest(self, list(disks), os.path.join(self.dir, f"boot{self.boots}"), **options)
        self.guests.append(guest)
        return guest

    def close(self, keep_disks=False):
        for guest in self.guests:
            guest.kill()
        if not keep_disks:
            for disk in self.disks:
                disk.remove()
        shutil.rmtree(self.run_dir, ignore_errors=True)

"""A host of its own for each test: a directory with image files as disks, svd --sim, and svctl."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import next_step
import varlink_types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("BIN_DIR", os.path.join(ROOT, "build", "bin"))
SLOT = 256 * 1024      # a write of this size takes a slot for itself; smaller ones share some
MIB = 1 << 20
HOST = "11111111-1111-4111-8111-111111111111"
OTHER_HOST = "22222222-2222-4222-8222-222222222222"


# Where svd's memory is measured: under ASan what it frees is really free. Otherwise nobody reads it.
MEASURED = {"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"}


class Skip(Exception):
    """What the test needs is not to be had here; the message says what."""


def takes_root(test):
    """For a test with other users. `make check` runs as root; elsewhere tests/e2e/run skips it."""
    test.takes_root = True
    return test


class Refused(Exception):
    """By svctl with an exit code, or by svd with an error and its parameters."""

    def __init__(self, code, text, error="", parameters=None):
        super().__init__(f"exit code {code}: {error} {text}")
        self.code, self.text, self.error, self.parameters = code, text, error, parameters or {}


class Host:
    def __init__(self, name):
        self.name = name
        self.svd = None
        self.host_id = HOST
        self.options = []   # of svd
        self.prefix = []    # and what runs it
        self.popen = {}     # how it is started
        self.checked = True     # the pools, at the end

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="svctl-e2e-")
        self.socket = f"{self.dir}/svd.sock"
        self.log = open(f"{self.dir}/log", "ab")
        return self

    def __exit__(self, *_):
        if self.svd and self.svd.poll() is None:
            self.svd.kill()
            self.svd.wait()
        self.log.close()
        shutil.rmtree(self.dir)

    def check_at_end(self):
        """svd has not crashed, what is wrong has a next step, and of each pool that is up the kernel's state is what catalogue and
        journal say."""
        ended = self.svd.poll() if self.svd else 0
        assert ended is None or ended >= 0 or -ended in (signal.SIGTERM, signal.SIGKILL), f"svd ended with {ended}"
        if ended is None and self.checked:
            self.check_next_steps()
            for pool in self.json("list")["pools"]:
                if pool["state"] in ("active", "read-only"):
                    self.svctl("check", pool["name"])

    def check_next_steps(self):
        status = self.call("io.svctl.Status")
        for problem in sum((one["problems"] for one in [status, *status["pools"]]), []):
            next_step.check(problem["next"])

    def log_tail(self):
        with open(f"{self.dir}/log", encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-15:])

    def logged(self, words):
        """Did svd log that since it was last started?"""
        with open(f"{self.dir}/log", encoding="utf-8", errors="replace") as f:
            f.seek(self.log_from)
            return words in f.read()

    def lines(self):
        """All that svd and those before it have logged."""
        with open(f"{self.dir}/log", encoding="utf-8", errors="replace") as f:
            return f.read().splitlines()

    def wait_logged(self, words, seconds=20):
        deadline = time.monotonic() + seconds
        while not any(words in line for line in self.lines()):
            assert time.monotonic() < deadline, f"not logged: {words}"
            time.sleep(0.1)

    # ---- disks ----

    def disk(self, name, mib=256):
        path = f"{self.dir}/{name}"
        with open(path, "wb") as f:
            f.truncate(mib * MIB)
        return path

    # ---- svd ----

    def start(self, **environment):
        self.svd = self.spawn(**environment)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                self.call("org.varlink.service.GetInfo")
                return
            except OSError:
                assert self.svd.poll() is None, f"svd ended with {self.svd.returncode}"
                time.sleep(0.02)
        raise AssertionError("svd does not answer")

    def spawn(self, **environment):
        self.log_from = os.path.getsize(f"{self.dir}/log")
        return subprocess.Popen([*self.prefix, f"{BIN}/svd", "--sim", "--socket", self.socket, "--state-dir", self.dir,
                                 *(["--host-id", self.host_id] if self.host_id else []), *self.options],
                                stdout=self.log, stderr=self.log, env={**os.environ, **environment}, **self.popen)

    def kill(self):
        self.svd.kill()
        self.svd.wait()

    def stop(self):
        self.svd.send_signal(signal.SIGTERM)
        assert self.svd.wait(20) == 0

    def wait_idle(self):
        """Until svd waits for something to do."""
        deadline = time.monotonic() + 20
        while pathlib.Path(f"/proc/{self.svd.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_killed(self):
        assert self.svd.wait(30) == -signal.SIGKILL, self.svd.returncode

    # ---- svctl ----

    def svctl(self, *words):
        done = subprocess.run([f"{BIN}/svctl", "--socket", self.socket, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Refused(done.returncode, done.stderr or done.stdout)
        if words[-1:] == ("status",):
            self.check_next_steps()
        return done.stdout

    def json(self, *words):
        answer = json.loads(self.svctl("--json", *words))
        assert answer["schema"] == 1
        return answer

    def codes(self):
        """Of what is wrong now."""
        return sorted(problem["id"] for pool in self.json("status")["pools"] for problem in pool["problems"])

    def refused(self, code, *words, says=""):
        try:
            out = self.svctl(*words)
        except Refused as refused:
            assert refused.code == code, refused
            assert says in refused.text, refused
            return refused.text
        raise AssertionError(f"svctl {' '.join(words)} succeeded: {out}")

    def dump(self, pool="tank"):
        return self.svctl("dump", pool)

    @contextlib.contextmanager
    def unchanged(self, pool="tank"):
        """What is tried within leaves the pool as it was, its volume's data included: `svctl dump` is the same before
        and after."""
        before = self.dump(pool)
        assert re.search(r"^volume .* v .*^map ", before, re.M | re.S), f"no volume with data in {before}"
        data = self.read(f"{pool}/v", 0, MIB)
        yield
        assert self.dump(pool) == before
        assert self.read(f"{pool}/v", 0, MIB) == data

    # ---- the socket ----

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(self.socket)
        return s

    def call(self, method, *descriptors, **parameters):
        with self.connect() as s:
            text = json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"
            if descriptors:
                socket.send_fds(s, [text[:1]], descriptors)
            s.sendall(text[1:] if descriptors else text)
            reply = json.loads(receive(s))
        varlink_types.check_reply(method, reply)
        if "error" in reply:    # those of Varlink itself have no code
            parameters = reply["parameters"]
            raise Refused(parameters.get("code", 2), parameters.get("message", ""), reply["error"], parameters)
        return reply["parameters"]

    def write(self, volume, offset, data, fua=False):
        pool, name = volume.split("/")
        self.call("io.svctl.sim.Write", pool=pool, volume=name, offset=offset, data=data.hex(), fua=fua)

    def read(self, volume, offset, length):
        pool, name = volume.split("/")
        return bytes.fromhex(self.call("io.svctl.sim.Read", pool=pool, volume=name, offset=offset,
                                       bytes=length)["data"])

    def flush(self, volume):
        pool, name = volume.split("/")
        self.call("io.svctl.sim.Flush", pool=pool, volume=name)

    def discard(self, volume, offset, length):
        pool, name = volume.split("/")
        self.call("io.svctl.sim.Discard", pool=pool, volume=name, offset=offset, bytes=length)

    def checkpoint(self, volume):
        pool, name = volume.split("/")
        self.call("io.svctl.sim.Checkpoint", pool=pool, volume=name)

    def fail_call(self, number):
        """The kernel refuses svd's number-th call from now on; 0: none. True: one was still to be refused."""
        return self.call("io.svctl.sim.FailCall", call=number)["waiting"]

    # ---- what most tests begin with ----

    def pool(self, name="tank", **environment):
        """svd, a pool of one fast and two slow disks, and a volume of 64 MiB."""
        disks = [self.disk("fast"), self.disk("slow1"), self.disk("slow2")]
        self.start(**environment)
        self.svctl("create-pool", name, "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}")
        self.svctl("create-volume", f"{name}/v", "--size", "64M")
        return disks


    def used_pool(self, **environment):
        """With data in its volume."""
        disks = self.pool(**environment)
        for i in range(8):
            self.write("tank/v", i * 5 * MIB, os.urandom(8192))
            self.flush("tank/v")
        return disks


class FailingDisk:
    """A disk that fails: an image in memory, which the kernel seals, so that each write to it fails from then on; what was
    written can be read. `path` is a link to it, and later to what takes its place."""

    def __init__(self, host, name, mib=256):
        self.path = f"{host.dir}/{name}"
        self.memory = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        os.truncate(self.memory, mib * MIB)
        os.symlink(f"/proc/{os.getpid()}/fd/{self.memory}", self.path)

    def fail(self):
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

    def replace(self):
        """By a new disk with the old one's bytes."""
        with open(self.path, "rb") as old, open(self.path + ".new", "wb") as new:
            size = os.path.getsize(self.path)
            for at in range(0, size, MIB):
                if any(some := old.read(MIB)):
                    new.seek(at)
                    new.write(some)
            new.truncate(size)
        os.rename(self.path + ".new", self.path)
        os.close(self.memory)


def seal(memory):
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


def receive(s):
    text = b""
    while not text.endswith(b"\0"):
        some = s.recv(65536)
        if not some:
            raise EOFError("svd closed the connection")
        text += some
    return text[:-1]

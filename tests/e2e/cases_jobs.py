"""Long commands are jobs: others go on meanwhile, and whoever stops, leaves or dies does no harm."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time

import harness
import varlink_types

EXTENTS = int(os.environ.get("JOB_EXTENTS", "1000000"))
MEMBERS = 4
LOADING = r"(loading the kernel|loading (partial )?extents: \d+ % of \d+ extents|loading maps: \d+ % of \d+ volumes)(, \d+ (s|min|h) left)?"
MIB = harness.MIB


def big_text(host, extents=EXTENTS, members=MEMBERS):
    path = f"{host.dir}/text"
    with open(path, "wb") as out:
        subprocess.run([f"{harness.ROOT}/tests/support/make_dump.py", str(extents), str(members), str(-(-extents // members))],
                       check=True, stdout=out)
    return path


def big_pool(host):
    """tank with room for the text's volumes, and another pool."""
    host.start()
    slots = -(-EXTENTS // MEMBERS)
    disks = [host.disk(f"d{i}", slots + slots // 32 + 16384) for i in range(MEMBERS)]
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(disks))
    host.svctl("create-pool", "other", "--tier", "t=" + host.disk("o"))


class Svctl:
    """svctl with a terminal of its own as standard error: what it shows there says what it knows."""

    def __init__(self, host, *words, stdout=subprocess.DEVNULL):
        self.terminal, theirs = os.openpty()
        self.shown = ""
        self.process = subprocess.Popen([f"{harness.BIN}/svctl", "--socket", host.socket, *words], stdin=subprocess.DEVNULL,
                                        stdout=stdout, stderr=theirs, preexec_fn=os.setpgrp)
        os.close(theirs)

    def read_until(self, text, seconds=20):
        """None: until it has ended."""
        deadline = time.monotonic() + seconds
        while text is None or text not in self.shown:
            assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            try:
                some = os.read(self.terminal, 65536)
            except OSError:     # EIO: it has ended
                some = b""
            if not some:
                assert text is None, self.shown
                return
            self.shown += some.decode()

    def wait(self, seconds):
        self.read_until(None, seconds)
        os.close(self.terminal)
        return self.process.wait(seconds)

    def interrupt(self):
        """What it says then."""
        self.process.send_signal(signal.SIGINT)
        before = len(self.shown)
        assert self.wait(20) == -signal.SIGINT, self.shown
        return self.shown[before:]


def begin(host, *words):
    """Runs as a job, and svctl knows it."""
    svctl = Svctl(host, *words)
    svctl.read_until("\033[K")
    (job,) = running(host)
    return svctl, job["id"]


def running(host):
    return [job for job in host.call("io.svctl.Jobs")["jobs"] if job["state"] == "running"]


@contextlib.contextmanager
def slowed(host):
    """svd gets some milliseconds of each second, so that a job's phases take long and it tells how much is left, on however
    fast a machine. Until the event that the block gets is set."""
    enough = threading.Event()

    def hold():
        while not enough.is_set():
            host.svd.send_signal(signal.SIGSTOP)
            enough.wait(1.1)
            host.svd.send_signal(signal.SIGCONT)
            enough.wait(0.03)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield enough
    finally:
        enough.set()
        holder.join()


def test_list_answers_while_a_million_extents_are_restored(host):
    text = big_text(host)
    big_pool(host)
    svctl, job = begin(host, "restore", "tank", text)
    worst, seen = 0, []
    while running(host):
        start = time.monotonic()
        pools = host.call("io.svctl.List")["pools"]
        worst = max(worst, time.monotonic() - start)
        seen.append(next(p["state"] for p in pools if p["name"] == "tank"))
        if len(seen) == 1:
            for words in (["create-volume", "tank/v", "--size", "1M"], ["deactivate", "tank"], ["check", "tank"],
                          ["activate", "tank"], ["export-pool", "tank"], ["import-pool", "tank"],
                          ["delete-pool", "tank", "--yes"]):
                host.refused(5, *words, says=f"svctl wait {job}")
            host.svctl("create-volume", "other/v", "--size", "1M")
            assert "restore" in host.svctl("jobs")
    assert svctl.wait(60) == 0, svctl.shown
    print(f"     restore of {EXTENTS} extents: list took at most {worst * 1000:.0f} ms of {len(seen)} times")
    assert worst < 1 and "restoring" in seen, (worst, seen)
    assert "restored" in host.svctl("wait", str(job))
    host.svctl("check", "tank")
    for what in ("dump", "check"):      # and meanwhile the pool is read
        with slowed(host):
            svctl, job = begin(host, what, "tank")
            host.svctl("show", "tank")
            host.refused(5, "create-volume", "tank/v", "--size", "1M", says=f"job {job} ({what})")
        assert svctl.wait(60) == 0, svctl.shown


def test_interrupted_svctl_leaves_a_restore_or_check_running(host):
    text = big_text(host)
    big_pool(host)
    svctl, job = begin(host, "restore", "tank", text)
    assert f"svctl wait {job}" in svctl.interrupt(), svctl.shown
    assert "restored" in host.svctl("wait", str(job))
    with slowed(host):
        svctl, job = begin(host, "check", "tank")
        assert f"svctl wait {job}" in svctl.interrupt(), svctl.shown
        waiting = Svctl(host, "wait", str(job))     # whoever waits leaves it alone, too
        waiting.read_until("\033[K")
        assert f"svctl wait {job}" in waiting.interrupt(), waiting.shown
        assert f"{job} " in host.svctl("jobs")
    assert "agree" in host.svctl("wait", str(job))
    # A dump is of no use without its client.
    svctl, job = begin(host, "dump", "tank")
    svctl.interrupt()
    host.refused(1, "wait", str(job), says="has gone")
    host.svctl("create-volume", "tank/v", "--size", "1M")
    host.refused(3, "wait", "12345", says="there is none")


def test_svd_stopped_or_killed_in_the_middle_of_a_restore_changes_nothing(host):
    text = big_text(host)
    big_pool(host)
    before = host.dump()
    for end, status, code in ((signal.SIGTERM, 0, 1), (signal.SIGKILL, -signal.SIGKILL, 20)):
        with slowed(host):
            svctl, _ = begin(host, "restore", "tank", text)
            host.svd.send_signal(end)
        assert host.svd.wait(20) == status
        assert svctl.wait(20) == code
        host.start()
        assert [line for line in host.dump().splitlines() if not line.startswith("journal")] == \
            [line for line in before.splitlines() if not line.startswith("journal")]
        host.svctl("check", "tank")


def state_of(host, pool="tank"):
    return next(p["state"] for p in host.call("io.svctl.List")["pools"] if p["name"] == pool)


def test_activation_of_a_million_extents_is_a_job(host):
    text = big_text(host)
    big_pool(host)
    host.svctl("restore", "tank", text)
    before = host.dump()
    host.svctl("deactivate", "tank")
    with slowed(host) as enough:
        svctl, job = begin(host, "activate", "tank")
        assert state_of(host) == "activating"
        for words in (["create-volume", "tank/v", "--size", "1M"], ["activate", "tank"], ["import-pool", "tank"], ["show", "tank/v1"]):
            host.refused(5, *words, says=f"svctl wait {job}")
        host.svctl("scan")
        assert state_of(host) == "activating"
        assert f"svctl wait {job}" in svctl.interrupt(), svctl.shown
        enough.set()
        host.svctl("create-volume", "other/v", "--size", "1M")
    assert "is active" in host.svctl("wait", str(job))
    host.svctl("check", "tank")
    assert host.dump() == before

    # An svd that is stopped leaves it down; one that is killed, its successor brings it up.
    for end, status, code, state in ((signal.SIGTERM, 0, 1, "down"), (signal.SIGKILL, -signal.SIGKILL, 20, "active")):
        host.svctl("deactivate", "tank")
        with slowed(host):
            svctl, _ = begin(host, "activate", "tank")
            host.svd.send_signal(end)
        assert host.svd.wait(20) == status
        assert svctl.wait(20) == code
        host.start()
        assert state_of(host) == state
        host.svctl("activate", "tank")
        host.svctl("check", "tank")
    host.svctl("deactivate", "tank")
    lines, printed = on_terminal(host, "activate", "tank")
    assert printed.startswith("pool tank is active\n")
    assert lines and all(re.fullmatch(LOADING, line) for line in lines), lines
    host.svctl("export-pool", "tank")
    lines, printed = on_terminal(host, "import-pool", "tank")
    assert "imported" in printed and lines and all(re.fullmatch(LOADING, line) for line in lines), lines
    assert [line for line in host.dump().splitlines() if not line.startswith("pool ")] == \
        [line for line in before.splitlines() if not line.startswith("pool ")]


def replies(s):
    """Of one call, as they come."""
    received = b""
    while True:
        received += s.recv(65536)
        *whole, received = received.split(b"\0")
        for one in map(json.loads, whole):
            yield one
            if "continues" not in one:
                return


def test_progress_is_streamed_to_who_wants_it(host):
    text = big_text(host)
    big_pool(host)
    memory = os.memfd_create("text", os.MFD_ALLOW_SEALING)
    with open(text, "rb") as f:
        os.sendfile(memory, f.fileno(), 0, os.path.getsize(text))
    harness.seal(memory)
    message = {"method": "io.svctl.Restore", "parameters": {"pool": "tank", "fd": 0}, "more": True}
    reports = []
    with contextlib.closing(host.connect()) as s, slowed(host) as enough:
        began = time.monotonic()
        socket.send_fds(s, [json.dumps(message).encode() + b"\0"], [memory])
        for reply in replies(s):
            varlink_types.check_reply("io.svctl.Restore", reply)
            if "continues" not in reply:
                break
            (progress,) = reply["parameters"].values()
            reports.append((time.monotonic() - began, progress))
            if "eta_s" in progress:
                enough.set()
    os.close(memory)
    assert reply["parameters"]["result"] == "restored", reply
    assert reports and all(0 <= p["done"] <= p["total"] for _, p in reports), reports
    # As the phase went so far; it has gone on for a second, and began after the call.
    told = [(gone, p, (p["total"] - p["done"]) / p["done"]) for gone, p in reports if "eta_s" in p]
    assert told, reports
    for gone, p, left in told:
        assert left - 1 <= p["eta_s"] <= left * gone, (gone, p)


def on_terminal(host, *words, enough=None):
    """What svctl shows on a terminal while it waits, line by line, each of which takes the place of the last one; and what
    it prints. `enough` is set once it shows how much is left."""
    with open(f"{host.dir}/printed", "wb") as printed:
        svctl = Svctl(host, *words, stdout=printed)
    if enough:
        svctl.read_until(" left", 60)
        enough.set()
    assert svctl.wait(60) == 0, svctl.shown
    before, *lines = svctl.shown.split("\r\033[K")
    assert before == "" and (lines == [] or lines[-1] == ""), svctl.shown     # nothing is left of them
    with open(f"{host.dir}/printed", encoding="ascii") as f:
        return lines[:-1], f.read()


def test_progress_is_shown_on_a_terminal(host):
    text = big_text(host)
    big_pool(host)
    size = f"{os.path.getsize(text) / MIB:.1f}".removesuffix(".0")
    with slowed(host) as enough:
        lines, printed = on_terminal(host, "restore", "tank", text, enough=enough)
    assert printed == "pool tank restored\n"
    reading = [re.fullmatch(rf"reading the dump: (\d+) % of {size}M(, \d+ (s|min|h) left)?", line) for line in lines]
    percent = [int(m[1]) for m in reading if m]
    assert percent == sorted(percent) and percent[-1] <= 100, lines
    assert any(m and m[2] for m in reading), lines
    assert all(m or re.fullmatch(LOADING, line) for m, line in zip(reading, lines)), lines
    lines, printed = on_terminal(host, "dump", "tank")
    assert printed == host.dump()
    assert lines and all(re.fullmatch(r"writing the dump: \d+ % of \d+ pages(, \d+ (s|min|h) left)?", line) for line in lines), lines
    lines, printed = on_terminal(host, "check", "tank")
    assert "agree" in printed
    known = r"(reading the catalogue: \d+ % of \d+ blocks|comparing extents|comparing volumes: \d+ % of \d+ volumes)(, \d+ (s|min|h) left)?"
    assert lines and all(re.fullmatch(known, line) for line in lines), lines
    # Who reads JSON, or has no terminal, is not disturbed.
    assert on_terminal(host, "--json", "check", "tank")[0] == []
    done = subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, "check", "tank"], capture_output=True, check=True)
    assert done.stderr == b""

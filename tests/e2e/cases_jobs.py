"""Long commands are jobs: others go on meanwhile, and whoever stops, leaves or dies does no harm."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import harness
import varlink_types

EXTENTS = int(os.environ.get("JOB_EXTENTS", "1000000"))
MEMBERS = 4


def big_text(host):
    path = f"{host.dir}/text"
    with open(path, "wb") as out:
        subprocess.run([f"{harness.ROOT}/tests/support/make_dump.py", str(EXTENTS), str(MEMBERS),
                        str(-(-EXTENTS // MEMBERS))], check=True, stdout=out)
    return path


def big_pool(host):
    """tank with room for the text's volumes, and another pool."""
    host.start()
    slots = -(-EXTENTS // MEMBERS)
    disks = [host.disk(f"d{i}", slots + slots // 32 + 16384) for i in range(MEMBERS)]
    host.svctl("create-pool", "tank", "--tier", "t=" + ",".join(disks))
    host.svctl("create-pool", "other", "--tier", "t=" + host.disk("o"))


def begin(host, *words):
    svctl = subprocess.Popen([f"{harness.BIN}/svctl", "--socket", host.socket, *words], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, preexec_fn=os.setpgrp)
    deadline = time.monotonic() + 20
    while not (jobs := running(host)):
        assert time.monotonic() < deadline and svctl.poll() is None, "it was no job, or was too fast"
        time.sleep(0.01)
    return svctl, jobs[0]["id"]


def running(host):
    return [job for job in host.call("io.svctl.Jobs")["jobs"] if job["state"] == "running"]


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
    assert svctl.wait(60) == 0, svctl.stderr.read()
    print(f"     restore of {EXTENTS} extents: list took at most {worst * 1000:.0f} ms of {len(seen)} times")
    assert worst < 1 and "restoring" in seen, (worst, seen)
    assert "restored" in host.svctl("wait", str(job))
    host.svctl("check", "tank")
    for what in ("dump", "check"):      # and meanwhile the pool is read
        svctl, job = begin(host, what, "tank")
        host.svctl("show", "tank")
        host.refused(5, "create-volume", "tank/v", "--size", "1M", says=f"job {job} ({what})")
        assert svctl.wait(60) == 0, svctl.stderr.read()


def test_interrupted_svctl_leaves_a_restore_running(host):
    text = big_text(host)
    big_pool(host)
    svctl, job = begin(host, "restore", "tank", text)
    svctl.send_signal(signal.SIGINT)
    said = svctl.communicate(timeout=20)[1]
    assert svctl.returncode == -signal.SIGINT and f"svctl wait {job}" in said, (svctl.returncode, said)
    assert "restored" in host.svctl("wait", str(job))
    host.svctl("check", "tank")
    # A dump is of no use without its client.
    svctl, job = begin(host, "dump", "tank")
    svctl.send_signal(signal.SIGINT)
    assert svctl.wait(20) == -signal.SIGINT
    host.refused(1, "wait", str(job), says="has gone")
    host.svctl("create-volume", "tank/v", "--size", "1M")
    host.refused(3, "wait", "12345", says="there is none")


def test_svd_stopped_or_killed_in_the_middle_of_a_restore_changes_nothing(host):
    text = big_text(host)
    big_pool(host)
    before = host.dump()
    for stop, code in ((host.stop, 1), (host.kill, 20)):
        svctl, _ = begin(host, "restore", "tank", text)
        stop()
        assert svctl.wait(20) == code
        host.start()
        assert [line for line in host.dump().splitlines() if not line.startswith("journal")] == \
            [line for line in before.splitlines() if not line.startswith("journal")]
        host.svctl("check", "tank")


def test_progress_is_streamed_to_who_wants_it(host):
    text = big_text(host)
    big_pool(host)
    memory = os.memfd_create("text", os.MFD_ALLOW_SEALING)
    with open(text, "rb") as f:
        os.sendfile(memory, f.fileno(), 0, os.path.getsize(text))
    harness.seal(memory)
    message = {"method": "io.svctl.Restore", "parameters": {"pool": "tank", "fd": 0}, "more": True}
    with contextlib.closing(host.connect()) as s:
        socket.send_fds(s, [json.dumps(message).encode() + b"\0"], [memory])
        received = b""
        while some := s.recv(65536):
            received += some
            if received.endswith(b"\0") and b'"result"' in received:
                break
    replies = [json.loads(r) for r in received.split(b"\0")[:-1]]
    for reply in replies:
        varlink_types.check_reply("io.svctl.Restore", reply)
    assert replies[-1]["parameters"]["result"] == "restored" and "continues" not in replies[-1], replies[-1]
    assert len(replies) > 1 and all(r["continues"] and 0 <= r["parameters"]["progress"]["done"] <=
                                    r["parameters"]["progress"]["total"] for r in replies[:-1]), replies
    os.close(memory)

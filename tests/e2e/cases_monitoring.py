"""Alerts: when they begin and end."""

import contextlib
import os
import re
import resource
import subprocess
import time

import harness

MIB = harness.MIB
DOCS = os.path.join(harness.ROOT, "docs")


def codes(host):
    return sorted(line.split("\t")[0] for line in host.svctl("status", "-H", "-o", "id").splitlines())


def lines(host):
    with open(f"{host.dir}/log", encoding="utf-8") as f:
        return f.read().splitlines()


def count(host, words):
    return sum(words in line for line in lines(host))


def wait_logged(host, words, seconds=20):
    deadline = time.monotonic() + seconds
    while not count(host, words):
        assert time.monotonic() < deadline, f"not logged: {words}"
        time.sleep(0.1)


def test_low_space_begins_and_ends(host):
    """svd notices by itself, says so once in the journal and in status, and says when it is over."""
    host.options = ["--low-space", "80,95", "--low-space", "tank=5,10"]
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    total = host.json("list")["pools"][0]["size"]
    for i in range(total * 7 // 100 // MIB):
        host.write("tank/w", i * MIB, b"x" * 4096)
    wait_logged(host, "[SV-SPACE-LOW]")
    for _ in range(3):
        assert codes(host) == ["SV-SPACE-LOW"]
    problem = host.json("status")["pools"][0]["problems"][0]
    assert problem["next"].startswith("svctl add-device tank ") and problem["severity"] == "warning", problem
    for i in range(total * 7 // 100 // MIB, total * 11 // 100 // MIB):
        host.write("tank/w", i * MIB, b"x" * 4096)
    assert codes(host) == ["SV-SPACE-CRITICAL"]
    host.svctl("delete-volume", "tank/w", "--yes")
    assert codes(host) == []
    said = [line for line in lines(host) if "[SV-SPACE-" in line]
    for line, pattern in zip(said, (r"<4>pool tank: \S+ % of its space is used, .*; next: svctl add-device tank .*\[SV-SPACE-LOW\]",
                                    r"<3>pool tank: 1\d\.\d % of its space is used, .*\[SV-SPACE-CRITICAL\]",
                                    r"<5>pool tank: it is over: a pool's space runs low \[SV-SPACE-LOW\]",
                                    r"<5>pool tank: it is over: a pool is nearly full \[SV-SPACE-CRITICAL\]"), strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_full_pool_has_one_problem(host):
    host.options = ["--low-space", "50,60"]
    disk = host.disk("d", 128)
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={disk}")
    host.svctl("create-volume", "tank/v", "--size", "1G")
    with contextlib.suppress(harness.Refused):
        for i in range(200):
            host.write("tank/v", i * MIB, b"x" * 4096)
    assert codes(host) == ["SV-POOL-FULL"]


def test_alerts_end_with_the_pool(host):
    host.options = ["--low-space", "5,99"]
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    for i in range(60):
        host.write("tank/w", i * MIB, b"x" * 4096)
    assert codes(host) == ["SV-SPACE-LOW"]
    host.svctl("deactivate", "tank")
    assert codes(host) == []
    assert count(host, "it is over: a pool's space runs low") == 1
    host.svctl("activate", "tank")
    assert codes(host) == ["SV-SPACE-LOW"]


def test_failing_member_is_named(host):
    """svd may not write beyond 200 MiB of a file for a while: flushes of what lies there fail, journal and catalogue go on."""
    host.popen = {"restore_signals": False}    # SIGXFSZ stays ignored, as Python has it
    disks = host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    host.flush("tank/v")
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (200 * MIB, resource.RLIM_INFINITY))
    for i in range(220):
        host.write("tank/w", i * MIB, b"x" * 4096)
    with contextlib.suppress(harness.Refused):
        host.flush("tank/w")
    assert "SV-MEMBER-FAILING" in codes(host)
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    host.flush("tank/w")
    (problem,) = [p for p in host.json("status")["pools"][0]["problems"] if p["id"] == "SV-MEMBER-FAILING"]
    assert problem["device"] == disks[0] and problem["severity"] == "critical", problem
    assert problem["next"].startswith(f"smartctl -a {disks[0]}"), problem
    errors = [d["errors"] for d in host.json("list")["pools"][0]["devices"]]
    assert errors[0] > 0 and errors[1] == errors[2] == 0, errors
    assert count(host, "[SV-MEMBER-FAILING]") == 1


def test_each_alert_is_explained(_):
    for code in ("SV-SPACE-LOW", "SV-SPACE-CRITICAL", "SV-FULL-SOON", "SV-MEMBER-FAILING", "SV-JOURNAL-PRESSURE",
                 "SV-JOURNAL-COPY-LOST", "SV-CATALOGUE-COPY-LOST"):
        done = subprocess.run([f"{harness.BIN}/svctl", "explain", code], check=True, capture_output=True, text=True)
        assert done.stdout.startswith(code) and "What to do:" in done.stdout
        with open(f"{DOCS}/operations/monitoring.md", encoding="utf-8") as f:
            assert code in f.read(), f"docs/operations/monitoring.md does not name {code}"

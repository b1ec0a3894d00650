"""Metrics by HTTP and by svctl, and alerts."""

import contextlib
import os
import re
import resource
import socket
import subprocess
import time

import cases_hosts
import harness

MIB = harness.MIB
DOCS = os.path.join(harness.ROOT, "docs")
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SAMPLE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def samples(text):
    """(name, labels, value) of each sample."""
    found = [SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    return [(m[1], dict(LABEL.findall(m[2] or "")), m[3]) for m in found]


def families(text):
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def value(text, name, **labels):
    found = [v for n, l, v in samples(text) if n == name and labels.items() <= l.items()]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


# ---- HTTP ----

def with_metrics(host):
    host.options = ["--metrics", "127.0.0.1:0"]
    disks = host.used_pool()
    return disks, port_of(host)


def port_of(host):
    with open(f"{host.dir}/log", encoding="utf-8") as f:
        return int(re.findall(r"metrics are served at 127.0.0.1:0, port (\d+)", f.read())[-1])


def connect(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=30)
    return s


def read_all(s):
    text = b""
    while True:
        some = s.recv(1 << 16)
        if not some:
            return text
        text += some


def ask(port, request=REQUEST):
    """Status and body."""
    with connect(port) as s:
        s.sendall(request)
        head, _, body = read_all(s).partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert headers["Connection"] == "close"
    if not request.startswith(b"HEAD"):
        assert int(headers["Content-Length"]) == len(body)
    return int(head.split()[1]), body.decode(), headers


def scrape(port):
    status, body, headers = ask(port)
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
    return body


def test_metrics_are_served_by_http(host):
    disks, port = with_metrics(host)
    text = scrape(port)
    assert value(text, "svctl_pool_info", pool="tank") == 1
    assert value(text, "svctl_pool_state", pool="tank", state="active") == 1
    assert value(text, "svctl_volume_mapped_bytes", pool="tank", volume="v") == 8 * MIB
    pool = host.json("list")["pools"][0]
    for name, field in (("svctl_pool_size_bytes", "size"), ("svctl_pool_used_bytes", "used"), ("svctl_pool_free_bytes", "free")):
        assert value(text, name, pool="tank") == pool[field], name
    for tier in pool["tiers"]:
        assert value(text, "svctl_tier_free_bytes", pool="tank", tier=tier["name"]) == tier["free"]
    assert [l["device"] for n, l, _ in samples(text) if n == "svctl_member_errors_total"] == disks
    journal = host.json("show", "tank")["journal"]
    assert value(text, "svctl_journal_size_bytes", pool="tank") == journal["size"]
    assert 0 < value(text, "svctl_journal_commits_total", pool="tank") <= journal["commits"]
    assert ask(port, REQUEST.replace(b"GET", b"HEAD"))[:2] == (200, "")
    # The same by svctl, but for what goes on.
    assert families(host.svctl("metrics")) == families(text)
    assert host.json("metrics")["text"].startswith("# HELP svctl_build_info")


def test_requests_that_are_none_get_their_status(host):
    _, port = with_metrics(host)
    with host.unchanged():
        for request, status in ((REQUEST.replace(b"/metrics", b"/"), 404), (REQUEST.replace(b"GET", b"DELETE"), 405),
                                (REQUEST.replace(b"127.0.0.1", b"example.org"), 421), (b"\0\xff\xfe garbage\r\n\r\n", 400),
                                (b"GET /metrics HTTP/1.1\r\n\r\n", 400), (REQUEST.replace(b"1.1", b"3.0"), 505),
                                (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, 431), (b"x" * 9000, 431),
                                (REQUEST.replace(b"GET", b"POST")[:-2] + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000, 405)):
            assert ask(port, request)[0] == status, request[:60]
        assert "Allow" in ask(port, REQUEST.replace(b"GET", b"PUT"))[2]
        scrape(port)


def memory(host):
    with open(f"/proc/{host.svd.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) >> 10


def descriptors(host):
    return len(os.listdir(f"/proc/{host.svd.pid}/fd"))


def test_hostile_scrapers_disturb_nobody(host):
    """Some send nothing, some half a request, one asks and does not read, one goes on sending, one resets, and there are
    more of them than svd takes: it scrapes and answers svctl as before, and lets all of them go in time."""
    _, port = with_metrics(host)
    for i in range(300):
        host.call("io.svctl.CreateVolume", pool="tank", volume=f"a-volume-with-a-long-name-{i}", size=MIB)
    before, open_before = memory(host), descriptors(host)
    with host.unchanged(), contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(20)]
        half = [stack.enter_context(connect(port)) for _ in range(20)]
        for s in half:
            s.sendall(REQUEST[:20])
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(REQUEST)
        sender = stack.enter_context(connect(port))
        sender.sendall(REQUEST + b"x" * 65536)
        dying = connect(port)
        dying.sendall(REQUEST)
        dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        dying.close()
        for s in [stack.enter_context(connect(port)) for _ in range(100)]:
            s.sendall(b"G")
        for _ in range(5):
            begin = time.monotonic()
            assert len(scrape(port)) > 50000
            assert "tank" in host.svctl("list")
            assert time.monotonic() - begin < 5
        assert descriptors(host) <= open_before + 40
        assert memory(host) < before + 24
        # Those that send nothing have been let go, or are told so in time.
        begin = time.monotonic()
        for s in silent[-1:] + half[-1:]:
            with contextlib.suppress(ConnectionResetError):
                answer = read_all(s)
                assert not answer or answer.startswith(b"HTTP/1.1 408 "), answer
        assert time.monotonic() - begin < 20
    deadline = time.monotonic() + 5
    while descriptors(host) > open_before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descriptors(host) <= open_before, (descriptors(host), open_before)


def test_half_a_request_ends_in_time(host):
    _, port = with_metrics(host)
    with host.unchanged(), connect(port) as s:
        begin = time.monotonic()
        s.sendall(REQUEST[:20])
        assert read_all(s).startswith(b"HTTP/1.1 408 ")
        assert 4 < time.monotonic() - begin < 9


def test_request_in_pieces_is_answered(host):
    _, port = with_metrics(host)
    with connect(port) as s:
        for byte in REQUEST:
            s.sendall(bytes([byte]))
        s.shutdown(socket.SHUT_WR)
        assert read_all(s).startswith(b"HTTP/1.1 200 ")


def test_scrapes_write_nothing(host):
    disks, port = with_metrics(host)
    host.checkpoint("tank/v")
    host.stop()
    host.start()
    port = port_of(host)
    host.checkpoint("tank/v")

    def state():
        committed = host.json("show", "tank")["journal"]["commits"]
        return committed, [os.stat(d).st_mtime_ns for d in disks]

    before = state()
    for _ in range(2):
        scrape(port)
        host.svctl("metrics")
        time.sleep(1.1)    # another page
    assert state() == before


def test_metrics_address_must_be_of_this_host(host):
    for bad in ("0.0.0.0:9763", "10.1.2.3:9763", "[::]:9763", "9763", "localhost:9763"):
        host.options = ["--metrics", bad]
        svd = host.spawn()
        assert svd.wait(20) == 2, bad
        assert host.logged("127.0.0.1:9763"), bad
    for bad in ("80", "95,80", "tank=1,2"):
        host.options = ["--low-space", bad]
        svd = host.spawn()
        assert svd.wait(20) == 2 and host.logged("--low-space 80,95"), bad


def test_taken_port_keeps_no_pool_down(host):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host.options = ["--metrics", "off", "--metrics", f"127.0.0.1:{taken.getsockname()[1]}"]    # the last counts
        host.pool()
        assert host.logged("[SV-METRICS-UNAVAILABLE]")
        assert "tank" in host.svctl("list")
        port = taken.getsockname()[1]
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            assert "svctl_build_info" in scrape(port)
            return
        time.sleep(0.3)
    raise AssertionError("svd did not try again")


def tcp_sockets(host):
    """svd's."""
    own = {os.readlink(f"/proc/{host.svd.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{host.svd.pid}/fd")}
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{host.svd.pid}/net/{table}", encoding="ascii") as f:
            found += [line for line in f.readlines()[1:] if f"socket:[{line.split()[9]}]" in own]
    return found


def test_without_the_option_nothing_listens(host):
    host.pool()
    assert not tcp_sockets(host)
    assert value(host.svctl("metrics"), "svctl_pool_info", pool="tank") == 1
    host.stop()
    host.options = ["--metrics", "127.0.0.1:0"]
    host.start()
    assert [line.split()[1].split(":")[0] for line in tcp_sockets(host)] == ["0100007F"]


def test_two_pools_of_one_name_are_two_in_metrics(host):
    cases_hosts.two_pools_of_one_name(host)
    text = host.svctl("metrics")
    names = [(l["pool"], l["uuid"]) for n, l, _ in samples(text) if n == "svctl_pool_info"]
    assert len(names) == 2 and all(name == uuid for name, uuid in names), names
    keys = [(n, tuple(sorted(l.items()))) for n, l, _ in samples(text)]
    assert len(keys) == len(set(keys))


# ---- alerts ----

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
    """svd notices by itself, says so once in the journal, in status and in the metrics, and says when it is over."""
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
    text = host.svctl("metrics")
    assert value(text, "svctl_problem", code="SV-SPACE-LOW", pool="tank", severity="warning") == 1
    assert value(text, "svctl_problems", severity="warning") == 1
    for i in range(total * 7 // 100 // MIB, total * 11 // 100 // MIB):
        host.write("tank/w", i * MIB, b"x" * 4096)
    assert codes(host) == ["SV-SPACE-CRITICAL"]
    host.svctl("delete-volume", "tank/w", "--yes")
    assert codes(host) == []
    assert value(host.svctl("metrics"), "svctl_problems", severity="warning") == 0
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
    text = host.svctl("metrics")
    errors = [(l["device"], int(v)) for n, l, v in samples(text) if n == "svctl_member_errors_total"]
    assert errors[0][1] > 0 and errors[1][1] == errors[2][1] == 0, errors
    assert value(text, "svctl_problem", code="SV-MEMBER-FAILING", pool="tank", device=disks[0]) == 1
    assert [d["errors"] for d in host.json("list")["pools"][0]["devices"]] == [n for _, n in errors]
    assert count(host, "[SV-MEMBER-FAILING]") == 1


def test_each_alert_is_explained(_):
    for code in ("SV-SPACE-LOW", "SV-SPACE-CRITICAL", "SV-FULL-SOON", "SV-MEMBER-FAILING", "SV-JOURNAL-PRESSURE",
                 "SV-JOURNAL-COPY-LOST", "SV-CATALOGUE-COPY-LOST", "SV-METRICS-UNAVAILABLE"):
        done = subprocess.run([f"{harness.BIN}/svctl", "explain", code], check=True, capture_output=True, text=True)
        assert done.stdout.startswith(code) and "What to do:" in done.stdout
        with open(f"{DOCS}/operations/monitoring.md", encoding="utf-8") as f:
            assert code in f.read(), f"docs/operations/monitoring.md does not name {code}"


# ---- docs ----

def test_documented_metrics_are_the_exported_ones(host):
    """docs/operations/monitoring.md has a row for each family, with its type, its labels and its unit."""
    host.used_pool()
    with open(f"{DOCS}/operations/monitoring.md", encoding="utf-8") as f:
        rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|([^|]*)\| .+ \|$", f.read(), re.M)
    text = host.svctl("metrics")
    assert len(rows) == len({row[0] for row in rows})
    assert {name: kind for name, kind, _, _ in rows} == families(text)
    documented = {name: set(re.findall(r"\w+", labels)) for name, _, labels, _ in rows}
    for name, of, _ in samples(text):
        assert set(of) == documented[name], name
    for name, _, _, unit in rows:
        base = name.removesuffix("_total")
        expected = "bytes" if base.endswith("_bytes") else "seconds" if base.endswith("_seconds") or "_seconds_" in base else None
        assert expected is None or unit.strip() == expected, (name, unit)

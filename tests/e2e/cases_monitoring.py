"""Metrics by HTTP and by svctl, alerts, and what Prometheus, Grafana and Zabbix are given."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import time

import yaml

import cases_damage
import cases_hosts
import harness

MIB = harness.MIB
DOCS = os.path.join(harness.ROOT, "docs")
HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(harness.ROOT, "build", "tools")
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SAMPLE = re.compile(r'^([a-z_]+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def tool(name):
    path = os.path.join(TOOLS, name)
    if not os.access(path, os.X_OK):
        raise harness.Skip(f"there is no {path}: make deps")
    return path


def samples(text):
    """(name, labels, value) of each sample."""
    found = [SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#")]
    return [(m[1], dict(LABEL.findall(m[2] or "")), m[3]) for m in found]


def families(text):
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def family_of(sample):
    return re.sub(r"_(bucket|sum|count)$", "", sample)


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
    assert families(host.svctl("metrics", "--latency")) == families(text)
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


def count(host, words):
    return sum(words in line for line in host.lines())


def test_low_space_begins_and_ends(host):
    """svd notices by itself, says so once in the journal, in status and in the metrics, and says when it is over."""
    host.options = ["--low-space", "80,95", "--low-space", "tank=5,10"]
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    total = host.json("list")["pools"][0]["size"]
    for i in range(total * 7 // 100 // MIB):
        host.write("tank/w", i * MIB, b"x" * harness.SLOT)
    host.wait_logged("[SV-SPACE-LOW]")
    for _ in range(3):
        assert codes(host) == ["SV-SPACE-LOW"]
    problem = host.json("status")["pools"][0]["problems"][0]
    assert problem["next"].startswith("svctl add-device tank ") and problem["severity"] == "warning", problem
    text = host.svctl("metrics")
    assert value(text, "svctl_problem", code="SV-SPACE-LOW", pool="tank", severity="warning") == 1
    assert value(text, "svctl_problems", severity="warning") == 1
    for i in range(total * 7 // 100 // MIB, total * 11 // 100 // MIB):
        host.write("tank/w", i * MIB, b"x" * harness.SLOT)
    assert codes(host) == ["SV-SPACE-CRITICAL"]
    host.svctl("delete-volume", "tank/w", "--yes")
    assert codes(host) == []
    assert value(host.svctl("metrics"), "svctl_problems", severity="warning") == 0
    said = [line for line in host.lines() if "[SV-SPACE-" in line]
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
            host.write("tank/v", i * MIB, b"x" * harness.SLOT)
    assert codes(host) == ["SV-POOL-FULL"]


def test_alerts_end_with_the_pool(host):
    host.options = ["--low-space", "5,99"]
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    for i in range(60):
        host.write("tank/w", i * MIB, b"x" * harness.SLOT)
    assert codes(host) == ["SV-SPACE-LOW"]
    host.svctl("deactivate", "tank")
    assert codes(host) == []
    assert count(host, "it is over: a pool's space runs low") == 1
    host.svctl("activate", "tank")
    assert codes(host) == ["SV-SPACE-LOW"]


def write_beyond_200_mib_in_vain(host):
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (200 * MIB, resource.RLIM_INFINITY))
    for i in range(220):
        host.write("tank/w", i * MIB, b"x" * harness.SLOT)
    with contextlib.suppress(harness.Refused):
        host.flush("tank/w")


def test_failing_member_is_named(host):
    """svd may not write beyond 200 MiB of a file for a while: flushes of what lies there fail, journal and catalogue go on."""
    host.popen = {"restore_signals": False}    # SIGXFSZ stays ignored, as Python has it
    disks = host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    host.flush("tank/v")
    write_beyond_200_mib_in_vain(host)
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


def assert_told(host, code, severity, device, *words, said=1):
    """In status, in its JSON, in metrics, and in the log, once."""
    assert code in codes(host)
    (problem,) = [p for p in host.json("status")["pools"][0]["problems"] if p["id"] == code]
    assert problem["severity"] == severity and problem.get("device", "") == device, problem
    for word in words:
        assert word in problem["what"] or word in problem["next"], problem
    assert f"[{code}]" in host.svctl("status")
    assert value(host.svctl("metrics"), "svctl_problem", code=code, severity=severity, pool="tank", device=device) == 1
    level = {"critical": "<3>", "warning": "<4>"}[severity]
    logged = [line for line in host.lines() if line.endswith(f"[{code}]") and not line.startswith("<5>")]
    assert len(logged) == said and all(line.startswith(level) and device in line for line in logged), logged


def copies(host, what):
    return [int(v) for n, _, v in samples(host.svctl("metrics")) if n == f"svctl_member_{what}_copy"]


def test_lost_copies_of_journal_and_catalogue_are_told(host):
    """Of two members that have both, one fails. What it lost is stale when the disk is there again, and is written anew."""
    good, bad = host.disk("good"), harness.FailingDisk(host, "bad")
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"fast={good},{bad.path}", "--tier", f"slow={host.disk('slow')}")
    host.svctl("create-volume", "tank/v", "--size", "64M")
    for at in (0, MIB):
        host.write("tank/v", at, b"x" * 65536)
    host.flush("tank/v")
    host.checkpoint("tank/v")
    assert codes(host) == [] and copies(host, "journal") == copies(host, "catalogue") == [1, 1]
    bad.fail()

    host.svctl("create-volume", "tank/w", "--size", "64M")
    assert codes(host) == ["SV-CATALOGUE-COPY-LOST"]
    assert_told(host, "SV-CATALOGUE-COPY-LOST", "critical", bad.path, f"is lost: {bad.path}", "replace the device")
    assert copies(host, "catalogue") == [1, 0] and copies(host, "journal") == [1, 1]

    host.discard("tank/v", 0, MIB)
    host.flush("tank/v")
    host.wait_logged("[SV-JOURNAL-COPY-LOST]")     # by itself
    assert codes(host) == ["SV-CATALOGUE-COPY-LOST", "SV-JOURNAL-COPY-LOST"]
    assert_told(host, "SV-JOURNAL-COPY-LOST", "critical", bad.path, f"is lost: {bad.path}", "replace the device")
    assert copies(host, "catalogue") == copies(host, "journal") == [1, 0]
    assert value(host.svctl("metrics"), "svctl_problems", severity="critical") == 2
    host.checkpoint("tank/v")
    host.svctl("check", "tank")
    dump = host.dump()

    host.svctl("deactivate", "tank")
    assert codes(host) == [] and copies(host, "journal") == copies(host, "catalogue") == []
    for what in ("a pool writes its journal to one member only", "one copy of a catalogue is no longer used"):
        assert count(host, f"it is over of {bad.path}: {what}") == 1, what
    bad.replace()
    host.svctl("activate", "tank", "--read-only")
    assert codes(host) == ["SV-CATALOGUE-COPY-STALE"]
    assert_told(host, "SV-CATALOGUE-COPY-STALE", "warning", bad.path, f"out of date: {bad.path}", "writes it anew")
    assert copies(host, "catalogue") == [1, 0]
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    assert codes(host) == [] and copies(host, "journal") == copies(host, "catalogue") == [1, 1]
    assert count(host, f"catalogue on {bad.path} at ") == 2     # lost, and found stale
    assert count(host, "(older): copying the other one to it [SV-CATALOGUE-COPY-STALE]") == 1
    assert host.dump() == dump
    host.svctl("check", "tank")


def test_pool_that_will_be_full_is_told(host):
    """Two hours of a MiB each minute, which go by in a moment."""
    host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    free = host.json("list")["pools"][0]["free"]

    def minutes(some, fill):
        for minute in some:
            if fill:
                host.write("tank/w", minute * MIB, b"x" * harness.SLOT)
            host.call("io.svctl.sim.Look", seconds=60 * minute)

    minutes(range(50), True)
    assert codes(host) == [] and "\nsvctl_pool_seconds_to_full{" not in host.svctl("metrics")
    minutes(range(50, 125), True)
    assert codes(host) == ["SV-FULL-SOON"]
    assert_told(host, "SV-FULL-SOON", "warning", "", "it will be full in 9 hours", "svctl add-device tank TIER=DEVICE")
    left = value(host.svctl("metrics"), "svctl_pool_seconds_to_full", pool="tank")
    expected = (free / MIB - 125) * 60
    assert 0.95 * expected < left < 1.05 * expected, (left, expected)
    minutes(range(125, 140), False)
    assert codes(host) == ["SV-FULL-SOON"]
    minutes(range(140, 165), False)
    assert codes(host) == [] and "\nsvctl_pool_seconds_to_full{" not in host.svctl("metrics")
    assert count(host, "pool tank: it is over: ") == 1


def fill_journal(host, until):
    """With commits of one block, each on its own, until so much is used."""
    call = {"method": "io.svctl.sim.Write", "parameters": {"pool": "tank", "volume": "v", "data": "00" * 4096, "fua": True}}
    with host.connect() as s:
        block = 0
        while host.json("show", "tank")["journal"]["used"] < until:
            for block in range(block, block + 256):
                call["parameters"]["offset"] = block % 16000 * 4096
                s.sendall(json.dumps(call).encode() + b"\0")
                assert "error" not in json.loads(harness.receive(s))


def test_journal_that_is_not_emptied_is_told(host):
    """A batch of the only journal is damaged, so that no checkpoint gets beyond it."""
    disk = host.pool()[0]
    ring = cases_damage.regions(disk)["journal"]
    half = ring.length // 2
    host.checkpoint("tank/v")
    host.write("tank/v", 0, b"x" * 4096, fua=True)
    at, _, size = cases_damage.batches(ring)[-1]
    batch = cases_damage.Place(disk, ring.offset + at, size)
    sound = cases_damage.read(batch)
    cases_damage.flip(batch, cases_damage.HEADER)
    try:
        host.checkpoint("tank/v")
        raise AssertionError("the batch had been applied already")
    except harness.Refused as refused:
        assert refused.code == 7, refused
    fill_journal(host, half)
    host.wait_logged("[SV-CHECKPOINT-FAILED]")
    for seconds in (0, 30):
        host.call("io.svctl.sim.Look", seconds=seconds)
        assert "SV-JOURNAL-PRESSURE" not in codes(host)
    host.call("io.svctl.sim.Look", seconds=61)
    assert codes(host) == ["SV-CHECKPOINT-FAILED", "SV-JOURNAL-PRESSURE"]
    assert host.json("status")["pools"][0]["problems"][0]["next"] == "svctl check tank"
    assert_told(host, "SV-JOURNAL-PRESSURE", "warning", "", "% of its journal is used, and it is not emptied", "svctl show tank")
    text = host.svctl("metrics")
    assert value(text, "svctl_journal_used_bytes", pool="tank") > half
    assert value(text, "svctl_checkpoint_failures_total", pool="tank") > 0
    cases_damage.write(batch, sound)
    host.checkpoint("tank/v")
    assert "SV-JOURNAL-PRESSURE" not in codes(host)
    assert count(host, "it is over: a pool's journal fills faster than it is emptied [SV-JOURNAL-PRESSURE]") == 1
    host.svctl("check", "tank")


def test_each_alert_is_explained(_):
    for code in ("SV-SPACE-LOW", "SV-SPACE-CRITICAL", "SV-FULL-SOON", "SV-MEMBER-FAILING", "SV-JOURNAL-PRESSURE",
                 "SV-JOURNAL-COPY-LOST", "SV-CATALOGUE-COPY-LOST", "SV-METRICS-UNAVAILABLE"):
        done = subprocess.run([f"{harness.BIN}/svctl", "explain", code], check=True, capture_output=True, text=True)
        assert done.stdout.startswith(code) and "What to do:" in done.stdout
        with open(f"{DOCS}/operations/monitoring.md", encoding="utf-8") as f:
            assert code in f.read(), f"docs/operations/monitoring.md does not name {code}"


# ---- Prometheus, Grafana, docs ----

def checked(*words, text=None):
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    assert done.returncode == 0 and not re.search(r"FAILED|error", done.stderr), done
    return done.stdout + done.stderr


def test_promtool_finds_no_fault(host):
    _, port = with_metrics(host)
    host.svctl("create-pool", "broken", "--tier", f"t={host.disk('d')}")
    host.svctl("deactivate", "broken")
    promtool = tool("promtool")
    assert checked(promtool, "check", "metrics", text=scrape(port)) == ""
    assert checked(promtool, "check", "metrics", text=host.svctl("metrics")) == ""
    checked(promtool, "check", "rules", f"{DOCS}/monitoring/svctl.rules.yml")
    checked(promtool, "test", "rules", f"{HERE}/monitoring/rules_test.yml")
    # It does find faults.
    assert subprocess.run([promtool, "check", "metrics"], input="# TYPE a_total gauge\na_total 1\n", text=True,
                          capture_output=True).returncode != 0


def names_in(expression):
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:svctl|process)_[a-z_]+\b", bare))


def test_rules_and_dashboard_name_what_is_exported(host):
    host.used_pool()
    text = host.svctl("metrics", "--latency")
    exported = families(text)
    exported.update({name: exported[family_of(name)] for name, _, _ in samples(text)})
    labels = {}
    for name, of, _ in samples(text):
        labels.setdefault(name, set()).update(of)
    with open(f"{DOCS}/monitoring/svctl.rules.yml", encoding="utf-8") as f:
        rules = [rule["expr"] for group in yaml.safe_load(f)["groups"] for rule in group["rules"]]
    with open(f"{DOCS}/monitoring/grafana-svctl.json", encoding="utf-8") as f:
        dashboard = json.load(f)
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(rules) > 3 and len(panels) > 15 and variables
    for expression in rules + panels + variables:
        names = names_in(expression)
        assert names or expression.startswith("up{"), expression
        assert names <= set(exported), (expression, names - set(exported))
        for name, selector in re.findall(r"\b((?:svctl|process)_[a-z_]+)\{([^}]*)\}", expression):
            known = labels.get(name, {"pool"}) | {"instance", "job"}
            if name == "svctl_problem":    # there is none now
                known |= {"code", "severity", "volume", "device"}
            assert set(re.findall(r"(\w+)=~?\"", selector)) <= known, expression
        counters = [name for name in names if exported[name] in ("counter", "histogram")]
        assert all(re.search(rf"(?:rate|increase)\({name}\b", expression) for name in counters), expression
    # What the legend of a panel names is a label of its metrics.
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert all(label in labels.get(name, {"pool"}) | {"instance"} for name in names_in(target["expr"])), target
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_panels_do_not_overlap(_):
    with open(f"{DOCS}/monitoring/grafana-svctl.json", encoding="utf-8") as f:
        cells = [(x, y) for panel in json.load(f)["panels"] for at in [panel["gridPos"]]
                 for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_promtool_parses_each_expression_of_the_dashboard(host):
    with open(f"{DOCS}/monitoring/grafana-svctl.json", encoding="utf-8") as f:
        expressions = [target["expr"] for panel in json.load(f)["panels"] for target in panel["targets"]]
    replaced = [e.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$pool", ".*") for e in expressions]
    rules = {"groups": [{"name": "panels", "rules": [{"record": f"r:{i}", "expr": e} for i, e in enumerate(replaced)]}]}
    path = f"{host.dir}/panels.yml"
    with open(path, "w", encoding="utf-8") as f:
        yaml.safe_dump(rules, f)
    assert f"{len(expressions)} rules found" in checked(tool("promtool"), "check", "rules", path)


def test_documented_metrics_are_the_exported_ones(host):
    """docs/operations/monitoring.md has a row for each family, with its type, its labels and its unit."""
    host.used_pool()
    with open(f"{DOCS}/operations/monitoring.md", encoding="utf-8") as f:
        rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|([^|]*)\| .+ \|$", f.read(), re.M)
    text = host.svctl("metrics", "--latency")
    short = families(host.svctl("metrics"))
    assert {name: kind for name, kind in families(text).items() if "_volume_io_" not in name} == short
    assert len(rows) == len({row[0] for row in rows})
    assert {name: kind for name, kind, _, _ in rows} == families(text)
    documented = {name: set(re.findall(r"\w+", labels)) for name, _, labels, _ in rows}
    for name, of, _ in samples(text):
        assert set(of) - {"le"} == documented[family_of(name)], name
    for name, _, _, unit in rows:
        base = name.removesuffix("_total")
        expected = "bytes" if base.endswith("_bytes") else "seconds" if base.endswith("_seconds") or "_seconds_" in base else None
        assert expected is None or unit.strip() == expected, (name, unit)


# ---- Zabbix ----
# What Zabbix's server does to what the agent sends, as far as the template uses it.

def prometheus_samples(text, pattern):
    """Of Zabbix's pattern: NAME{LABEL="VALUE",...} == VALUE."""
    m = re.fullmatch(r'([a-z_]+)(?:\{(.*)\})?(?: == (\S+))?', pattern)
    assert m, f"not understood: {pattern}"
    wanted = dict(LABEL.findall(m[2] or ""))
    return [(name, labels, number) for name, labels, number in samples(text)
            if name == m[1] and wanted.items() <= labels.items() and (m[3] is None or float(number) == float(m[3]))]


class Failed(Exception):
    pass


def preprocessed(step, text):
    assert step["type"] == "PROMETHEUS_PATTERN", step
    pattern, how, output = step["parameters"]
    malformed = [line for line in text.splitlines() if not line.startswith("#") and not SAMPLE.match(line)]
    found = [] if malformed else prometheus_samples(text, pattern)
    if len(found) != 1:
        if step["error_handler"] == "CUSTOM_VALUE":
            return step["error_handler_params"]
        raise Failed(f"{pattern}: {len(found)} samples")
    return found[0][2] if how == "value" else found[0][1][output]


def discovered(rule, text):
    """The macros of each thing that a rule finds."""
    (step,) = rule["preprocessing"]
    assert step["type"] == "PROMETHEUS_TO_JSON"
    objects = [{"name": n, "labels": l, "value": v} for n, l, v in prometheus_samples(text, *step["parameters"])]

    def at(thing, path):
        m = re.fullmatch(r"\$\.labels\.(\w+)", path)
        assert m, f"not understood: {path}"
        return thing["labels"][m[1]]

    return [{one["lld_macro"]: at(thing, one["path"]) for one in rule["lld_macro_paths"]} for thing in objects]


def filled_in(text, macros):
    for macro, word in macros.items():
        text = text.replace(macro, word)
    assert "{#" not in text, text
    return text


def template():
    with open(f"{DOCS}/monitoring/zabbix-template-svctl.yaml", encoding="utf-8") as f:
        return yaml.safe_load(f)["zabbix_export"]


def agent(host, key, *, environment=()):
    """What zabbix-agent2 answers with the keys that are shipped."""
    config = f"{host.dir}/agent.conf"
    with open(config, "w", encoding="utf-8") as f:
        f.write(f"Server=127.0.0.1\nHostname=test\nLogType=console\nControlSocket={host.dir}/agent.sock\n"
                f"PluginSocket={host.dir}/plugin.sock\nTimeout=3\nInclude={DOCS}/monitoring/zabbix-agent2-svctl.conf\n")
    path = f"{harness.BIN}:{os.environ['PATH']}"
    done = subprocess.run([tool("zabbix_agent2"), "-c", config, "-t", key], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PATH": path, "SVCTL_SOCKET": host.socket, **dict(environment)})
    m = re.search(rf"^{re.escape(key)}\s+\[([smu])\|(.*)\]\s*\Z", done.stdout, re.S | re.M)
    assert m, done
    return m[1], m[2]


def test_zabbix_template_finds_all_by_a_real_agent(host):
    disks = host.used_pool()
    host.svctl("create-pool", "attic", "--tier", f"t={host.disk('d')}")
    host.svctl("create-volume", "attic/a-b.c", "--size", "1G")
    for volume in ("tank/v", "attic/a-b.c"):
        host.checkpoint(volume)
    kind, text = agent(host, "svctl.metrics")
    assert kind == "s" and families(text) == families(host.svctl("metrics"))
    found = template()["templates"][0]
    for item in found["items"]:
        if item.get("type") == "DEPENDENT":
            assert preprocessed(item["preprocessing"][0], text), item["key"]
    rules = {rule["key"]: rule for rule in found["discovery_rules"]}
    things = {key: discovered(rule, text) for key, rule in rules.items()}
    assert {t["{#POOL}"] for t in things["svctl.pool.discovery"]} == {"tank", "attic"}
    assert {(t["{#POOL}"], t["{#TIER}"]) for t in things["svctl.tier.discovery"]} == {("tank", "fast"), ("tank", "slow"), ("attic", "t")}
    assert {t["{#DEVICE}"] for t in things["svctl.member.discovery"]} == {*disks, f"{host.dir}/d"}
    assert {(t["{#POOL}"], t["{#VOLUME}"]) for t in things["svctl.volume.discovery"]} == {("tank", "v"), ("attic", "a-b.c")}
    values, absent = {}, set()
    for key, rule in rules.items():
        for macros in things[key]:
            for item in rule["item_prototypes"]:
                step = {**item["preprocessing"][0]}
                step["parameters"] = [filled_in(p, macros) for p in step["parameters"]]
                name = filled_in(item["key"], macros)
                assert name not in values, name
                try:
                    values[name] = preprocessed(step, text)
                except Failed:
                    absent.add(item["key"])
                filled_in(item["name"], macros)
    assert absent == {"svctl.pool.seconds_to_full[{#POOL}]"}, absent
    assert values["svctl.pool.state[tank]"] == "active" and values["svctl.pool.mode[tank]"] == "write"
    assert values["svctl.volume.mapped[tank,v]"] == str(8 * MIB) and values["svctl.member.errors[tank,0]"] == "0"
    assert values["svctl.volume.size[attic,a-b.c]"] == str(1 << 30)


def test_zabbix_sees_problems_and_a_dead_svd(host):
    disks = host.pool()
    host.stop()
    os.rename(disks[1], disks[1] + ".away")
    host.start()
    kind, status = agent(host, "svctl.status")
    assert kind == "s" and "critical\tSV-MEMBER-MISSING\ttank\t" in status, status
    items = {item["key"]: item for item in template()["templates"][0]["items"]}
    _, text = agent(host, "svctl.metrics")
    assert preprocessed(items["svctl.problems[critical]"]["preprocessing"][0], text) == "1"
    assert preprocessed(items["svctl.up"]["preprocessing"][0], text) == "1"
    host.kill()
    _, text = agent(host, "svctl.metrics")
    assert "SV-UNREACHABLE" in text, text
    assert preprocessed(items["svctl.up"]["preprocessing"][0], text) == "0"    # it is an error's text


class Unknown(Exception):
    """Of an expression whose items have no values: its trigger stays as it is."""


class Zabbix:
    """A server with the template: values of its items, as the agent and preprocessing give them, and which triggers fire."""

    def __init__(self, host):
        self.host = host
        self.values = {}
        export = template()
        (self.template,) = export["templates"]
        items = self.template["items"]
        self.triggers = {t["name"]: t["expression"] for t in export["triggers"] + [t for i in items for t in i.get("triggers", [])]}

    def keep(self, item, text, macros):
        step, *more = item["preprocessing"]
        if more:    # a rate, by which no trigger goes: its values would be missing here
            return
        filled = {**step, "parameters": [filled_in(p, macros) for p in step["parameters"]]}
        try:
            value_now = preprocessed(filled, text)
        except Failed:
            assert step["error_handler"] == "DISCARD_VALUE", item
            return
        self.values.setdefault(filled_in(item["key"], macros), []).append(value_now)

    def ask(self):
        for key in ("svctl.metrics", "svctl.status"):
            kind, text = agent(self.host, key)
            assert kind == "s", (key, kind, text)
            self.values.setdefault(key, []).append(text)
        text = self.values["svctl.metrics"][-1]
        for item in self.template["items"]:
            if item.get("type") == "DEPENDENT":
                self.keep(item, text, {})
        for rule in self.template["discovery_rules"]:
            for macros in discovered(rule, text) if SAMPLE.match(text.splitlines()[-1]) else []:
                for item in rule["item_prototypes"]:
                    self.keep(item, text, macros)
                    self.triggers.update({filled_in(t["name"], macros): filled_in(t["expression"], macros)
                                          for t in item.get("trigger_prototypes", [])})

    def function(self, name, key, last):
        values = self.values.get(key, [])[-int(last or 1):] if name != "change" else self.values.get(key, [])[-2:]
        if not values or name == "change" and len(values) < 2:
            raise Unknown
        if name == "last":
            return values[-1]
        numbers = [float(one) for one in values]
        return numbers[-1] - numbers[0] if name == "change" else {"max": max, "min": min}[name](numbers)

    def true(self, expression):
        """As far as the template's expressions go: comparisons of a function with a number, and `and`."""
        for part in expression.split(" and "):
            m = re.fullmatch(r"(length\()?(last|max|min|change)\(/svctl/([a-z._]+(?:\[[^\]]*\])?)(?:,#(\d+))?\)(?(1)\))(>|>=|=)(\d+)", part)
            assert m, f"not understood: {part}"
            found = self.function(m[2], m[3], m[4])
            number = len(found) if m[1] else float(found)
            if not {">": number > int(m[6]), ">=": number >= int(m[6]), "=": number == int(m[6])}[m[5]]:
                return False
        return True

    def firing(self):
        fires = set()
        for name, expression in self.triggers.items():
            with contextlib.suppress(Unknown):
                if self.true(expression):
                    fires.add(name)
        return fires

    def after(self, times):
        for _ in range(times):
            self.ask()
        return self.firing()


def test_each_trigger_of_zabbix_fires_for_its_condition_alone(host):
    """With what a real agent has of a real svd."""
    host.popen = {"restore_signals": False}    # SIGXFSZ stays ignored, as Python has it
    host.options = ["--low-space", "tank=50,95"]
    disks = host.pool()
    host.svctl("create-volume", "tank/w", "--size", "1G")
    zabbix = Zabbix(host)
    errors = f"svctl: {disks[0]} of pool tank has I/O errors"
    assert zabbix.after(3) == set() and len(zabbix.triggers) == 3 + len(disks)

    total = host.json("list")["pools"][0]["size"] // MIB
    for i in range(total * 55 // 100):
        host.write("tank/w", i * MIB, b"x" * harness.SLOT)
    host.flush("tank/w")
    host.checkpoint("tank/w")
    assert host.codes() == ["SV-SPACE-LOW"]
    assert zabbix.after(2) == set()
    assert zabbix.after(1) == {"svctl: warnings"}
    host.discard("tank/w", 0, 1 << 30)
    host.checkpoint("tank/w")
    assert zabbix.after(1) == set()

    host.kill()
    assert zabbix.after(2) == set()
    assert zabbix.after(1) == {"svctl: svd does not answer"}
    os.rename(disks[2], disks[2] + ".away")
    host.start()
    assert host.codes() == ["SV-MEMBER-MISSING"]
    assert zabbix.after(1) == {"svctl: critical problems"}
    os.rename(disks[2] + ".away", disks[2])
    host.svctl("scan")
    assert zabbix.after(1) == set()

    write_beyond_200_mib_in_vain(host)
    resource.prlimit(host.svd.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert zabbix.after(1) == {errors, "svctl: critical problems"}
    assert zabbix.after(1) == {"svctl: critical problems"}    # SV-MEMBER-FAILING, for a day


def test_zabbix_template_is_whole(_):
    """UUIDs are of version 4 and there once, keys too, each item has its master, each trigger's keys are items."""
    export = template()
    assert export["version"] == "6.0"
    found = export["templates"][0]
    uuids, keys = [], []

    def walk(node):
        if isinstance(node, dict):
            uuids.extend([node["uuid"]] if "uuid" in node else [])
            keys.extend([node["key"]] if "uuid" in node and "key" in node else [])
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            walk(child)

    walk(export)
    assert len(uuids) == len(set(uuids)) > 40 and len(keys) == len(set(keys))
    for one in uuids:
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", one), one
    with open(f"{DOCS}/monitoring/zabbix-agent2-svctl.conf", encoding="utf-8") as f:
        user_parameters = set(re.findall(r"^UserParameter=([a-z.]+),", f.read(), re.M))
    prototypes = [item for rule in found["discovery_rules"] for item in rule["item_prototypes"]]
    for item in found["items"] + found["discovery_rules"] + prototypes:
        if item.get("type") == "DEPENDENT":
            assert item["master_item"]["key"] in user_parameters and item["delay"] == "0", item["key"]
        else:
            assert item["key"] in user_parameters, item["key"]
    triggers = export["triggers"] + [t for i in found["items"] for t in i.get("triggers", [])]
    prototypes_of = [t for i in prototypes for t in i.get("trigger_prototypes", [])]
    assert len(triggers) == 3 and prototypes_of
    for one in triggers + prototypes_of:
        named = re.findall(r"\(/svctl/([a-z._]+(?:\[[^\]]*\])?)", one["expression"])
        assert named and set(named) <= set(keys), one

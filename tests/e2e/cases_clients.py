"""Who may do what, and that no client disturbs another. Other users are real ones: setpriv, which takes root."""

import contextlib
import grp
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import threading
import time

import harness

MIB = harness.MIB
ADMIN, READ = "games", "audio"      # groups that every Debian has, for svctl and svctl-read
LIST = b'{"method": "io.svctl.List"}\0'


def switch(groups, uid=4242):
    """To a user in these groups, who need not have a name."""
    numbers = ",".join(str(grp.getgrnam(name).gr_gid) for name in groups)
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={numbers}" if groups else "--clear-groups"]


def as_user(host, groups, *words, uid=4242):
    """svctl by a user in these groups; exit code and what it said."""
    done = subprocess.run([*switch(groups, uid), f"{harness.BIN}/svctl", "--socket", host.socket, *words], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout + done.stderr


def with_roles(host):
    os.chmod(host.dir, 0o755)
    host.options = ["--admin-group", ADMIN, "--read-group", READ]
    host.used_pool()


@harness.takes_root
def test_roles_come_from_groups(host):
    with_roles(host)
    for groups in ([READ], ["mail", READ]):
        for words in (["list"], ["status"], ["show", "tank"], ["show", "tank/v"], ["metrics"]):
            code, said = as_user(host, groups, *words)
            assert code == 0, said
    with host.unchanged():
        for groups, needed in (([READ], ADMIN), ([], ADMIN), (["mail"], ADMIN)):
            for words in (["delete-volume", "tank/v", "--yes"], ["create-volume", "tank/w", "--size", "1M"], ["scan"],
                          ["delete-pool", "tank", "--yes"], ["delete-volume", "tank/v", "--dry-run"], ["check", "tank"],
                          ["dump", "tank"], ["restore", "tank", "/dev/null"], ["deactivate", "tank"]):
                code, said = as_user(host, groups, *words)
                assert code == 4 and "user 4242" in said and f"add the user to {needed}" in said, (words, said)
        code, said = as_user(host, [], "list")
        assert code == 4 and ADMIN in said and f"add the user to {READ}" in said, said
    assert as_user(host, [ADMIN], "create-volume", "tank/w", "--size", "1M")[0] == 0
    assert as_user(host, [READ, ADMIN], "delete-volume", "tank/w", "--yes")[0] == 0


@harness.takes_root
def test_refusals_name_the_group(host):
    with_roles(host)
    script = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
              "s.sendall(b'{\"method\": \"io.svctl.sim.Flush\", \"parameters\": {}}\\0'); print(s.recv(9999)[:-1].decode())")
    done = subprocess.run([*switch([]), "/usr/bin/python3", "-c", script, host.socket], check=True, capture_output=True, text=True)
    reply = json.loads(done.stdout)
    assert reply["error"] == "io.svctl.PermissionDenied" and reply["parameters"]["group"] == ADMIN, reply


@harness.takes_root
def test_changes_are_logged_with_who_asked(host):
    with_roles(host)
    assert as_user(host, [ADMIN], "create-volume", "tank/w", "--size", "1M")[0] == 0
    assert as_user(host, [ADMIN], "resize-volume", "tank/w", "--size", "1K")[0] == 2
    assert as_user(host, [ADMIN], "delete-volume", "tank/w", "--dry-run")[0] == 0
    assert as_user(host, [ADMIN], "list")[0] == 0
    with open(f"{host.dir}/log", encoding="utf-8") as f:
        lines = [line for line in f if "<5>user 4242, pid " in line]
    assert len(lines) == 4, lines
    assert all('io.svctl.CreateVolume {"pool":"tank","size":1048576,"volume":"w"}' in line for line in lines[:2]), lines
    assert lines[1].endswith(": created\n") and "do not shrink" in lines[3], lines


@harness.takes_root
def test_strangers_keep_nobody_out(host):
    """Who has no role, or may only look, takes no place of an administrator's, and few of the others'."""
    with_roles(host)
    script = ("import socket, sys, time\nmany = []\nfor _ in range(300):\n s = socket.socket(socket.AF_UNIX)\n"
              " s.connect(sys.argv[1])\n many.append(s)\nprint('there', flush=True)\ntime.sleep(60)")
    with host.unchanged(), contextlib.ExitStack() as stack:
        for group in ("mail", READ):
            crowd = stack.enter_context(subprocess.Popen([*switch([group], 4343), "/usr/bin/python3", "-c", script, host.socket],
                                                         stdout=subprocess.PIPE))
            stack.callback(crowd.kill)
            assert crowd.stdout.readline() == b"there\n"
        assert "tank" in host.svctl("list")
        code, said = as_user(host, [READ], "list")
        assert code == 0, said
        code, said = as_user(host, [READ], "list", uid=4343)
        assert code == 5 and "too many clients" in said, (code, said)


@harness.takes_root
def test_socket_that_was_closed_to_others_is_told(host):
    """svd leaves it open to all, and says itself who may do what. Where somebody has closed it, or its directory, svctl
    says so."""
    with_roles(host)
    assert stat.S_IMODE(os.stat(host.socket).st_mode) == 0o666
    with host.unchanged():
        for path, mode in ((host.socket, 0o600), (host.socket, 0o444), (host.dir, 0o600)):
            before = stat.S_IMODE(os.stat(path).st_mode)
            assert as_user(host, [ADMIN], "list", uid=65534)[0] == 0
            os.chmod(path, mode)
            for words in (["list"], ["create-volume", "tank/w", "--size", "1M"], ["delete-volume", "tank/v", "--yes"]):
                code, said = as_user(host, [ADMIN], *words, uid=65534)
                assert code == 4 and said.startswith(f"svctl: no permission to use {host.socket}: "), (code, said)
                assert "as root" in said and "systemctl restart svd.socket" in said and "[SV-PERMISSION]" in said, said
            code, said = as_user(host, [ADMIN], "--json", "status", uid=65534)
            assert code == 4 and json.loads(said)["error"]["id"] == "SV-PERMISSION", said
            assert "tank" in host.svctl("list")
            os.chmod(path, before)


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f)


@harness.takes_root
def test_simulation_needs_no_root(host):
    """svd --sim of a user without groups and capabilities, who has a directory, and nothing else."""
    os.chown(host.dir, 4242, 4242)
    disks = [host.disk(name) for name in ("fast", "slow")]
    for disk in disks:
        os.chown(disk, 4242, 4242)
    host.prefix = switch([])
    host.start()
    status = status_of(host.svd.pid)
    assert set(status["Uid"].split() + status["Gid"].split()) == {"4242"}, status
    assert status["Groups"].split() == [] and int(status["CapEff"], 16) == 0, status

    def svctl(*words):
        code, said = as_user(host, [], *words)
        assert code == 0, said
        return said

    svctl("create-pool", "tank", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]}")
    svctl("create-volume", "tank/v", "--size", "64M")
    host.write("tank/v", 0, b"x" * 65536, fua=True)
    host.checkpoint("tank/v")
    dump = svctl("dump", "tank")
    assert "\nvolume " in dump and "\nmap " in dump, dump
    host.stop()
    host.start()
    assert svctl("status") == "tank: active\n" and svctl("dump", "tank") == dump
    svctl("check", "tank")
    # Its user administers, and root does; others do not.
    assert "tank" in host.svctl("list")
    assert as_user(host, [], "list", uid=4343)[0] == 4
    with open(f"{host.dir}/log", encoding="utf-8") as f:
        assert not [line for line in f if line.startswith(("<3>", "<4>"))]


def latency(host):
    begin = time.monotonic()
    host.svctl("list")
    return time.monotonic() - begin


def test_two_hundred_clients_are_served(host):
    host.used_pool()
    with host.unchanged():
        many = [host.connect() for _ in range(200)]
        for s in many:
            s.sendall(LIST * 3)
        assert latency(host) < 5
        for s in many:
            answers = b""
            while answers.count(b"\0") < 3:
                some = s.recv(65536)
                assert some
                answers += some
            assert all(json.loads(a)["parameters"]["pools"] for a in answers.split(b"\0")[:3])
            s.close()


def memory(host):
    with open(f"/proc/{host.svd.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) >> 10


def test_slow_clients_disturb_nobody(host):
    """One never reads large answers and goes on asking for them, one sends byte by byte, one dies in the middle."""
    host.used_pool(**harness.MEASURED)
    for i in range(300):
        host.call("io.svctl.CreateVolume", pool="tank", volume=f"a-volume-with-a-long-name-{i}", size=MIB)
    with host.unchanged():
        deaf = host.connect()
        deaf.setblocking(False)
        try:
            while True:
                deaf.send(LIST * 1000)
        except BlockingIOError:
            pass
        before = memory(host)
        slow = host.connect()
        for i, byte in enumerate(LIST[:-1]):
            slow.sendall(bytes([byte]))
            assert i % 8 or latency(host) < 2
        slow.sendall(LIST[-1:])
        assert len(json.loads(harness.receive(slow))["parameters"]["pools"][0]["volumes"]) == 301
        dying = host.connect()
        dying.sendall(LIST * 10)
        dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        dying.close()
        assert memory(host) < before + 16, (before, memory(host))
        deaf.close()
        slow.close()


def listening(host):
    """A socket as systemd has it for svd: it outlives each svd, and clients wait there meanwhile."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(host.socket)
    listener.listen(128)
    return listener


def start_on(host, listener):
    """svd as systemd starts it: the socket is descriptor 3, and LISTEN_PID its own pid. (dash knows descriptors up to 9 only.)"""
    command = (f"exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec {harness.BIN}/svd --sim --socket {host.socket} "
               f"--state-dir {host.dir} --host-id {host.host_id}")
    return subprocess.Popen(["bash", "-c", command], pass_fds=[listener.fileno()], stdout=host.log, stderr=host.log)


def test_nobody_is_refused_while_svd_is_restarted(host):
    """svd ends at any moment of a client's: before it connects, before it has sent its call, before the answer."""
    failures, asked, over = [], [0] * 6, threading.Event()

    def ask(k):
        while not over.is_set():
            try:
                host.svctl("list")
                asked[k] += 1
            except harness.Refused as refused:
                failures.append(str(refused))

    with listening(host) as listener:
        clients = [threading.Thread(target=ask, args=(k,)) for k in range(len(asked))]
        for client in clients:
            client.start()
        try:
            for _ in range(25):
                host.svd = start_on(host, listener)
                time.sleep(0.06)
                host.svd.terminate()
                assert host.svd.wait(20) in (0, -signal.SIGTERM)  # by the signal itself: it had not begun yet
            host.svd = start_on(host, listener)
        finally:
            over.set()
            for client in clients:
                client.join()
    assert not failures, failures
    assert all(asked), asked


def test_call_that_svd_has_not_taken_is_refused_as_a_whole(host):
    """Once svd ends, each call is carried out and answered, or its sender is told by EPIPE that it was not."""
    host.pool()
    with host.connect() as early, host.connect() as late:
        late.sendall(LIST[:5])
        host.svctl("list")  # both are clients now
        os.kill(host.svd.pid, signal.SIGSTOP)
        early.sendall(LIST)
        os.kill(host.svd.pid, signal.SIGTERM)
        os.kill(host.svd.pid, signal.SIGCONT)
        assert b"tank" in harness.receive(early)
        assert late.recv(1) == b""
        try:
            late.sendall(LIST[5:])
            raise AssertionError("a call was taken by nobody")
        except BrokenPipeError:
            pass
    assert host.svd.wait(20) == 0


def test_client_without_a_descriptor_of_svds_waits_for_one(host):
    """Nobody who is connected notices."""
    host.used_pool()
    with host.unchanged(), host.connect() as there:
        there.sendall(LIST)
        harness.receive(there)
        open_now = {int(fd) for fd in os.listdir(f"/proc/{host.svd.pid}/fd")}
        before = resource.prlimit(host.svd.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(host.svd.pid, resource.RLIMIT_NOFILE, (min(set(range(4096)) - open_now), before[1]))
        with host.connect() as late:
            late.sendall(LIST)
            host.wait_logged("cannot take another client: Too many open files [SV-CLIENT-REFUSED]")
            there.sendall(LIST)
            assert b"tank" in harness.receive(there)
            resource.prlimit(host.svd.pid, resource.RLIMIT_NOFILE, before)
            assert b"tank" in harness.receive(late)


@harness.takes_root
def test_svd_without_rights_is_told_to_be_unprotected(host):
    """The one that serves real pools; it looks at no device here."""
    os.chmod(host.dir, 0o755)
    os.mkdir(f"{host.dir}/own")
    os.chown(f"{host.dir}/own", 4242, 4242)
    host.log_from = 0
    host.svd = subprocess.Popen(["prlimit", "--memlock=65536", *switch([]), f"{harness.BIN}/svd", "--devices", f"{host.dir}/none",
                                 "--socket", f"{host.dir}/own/sock", "--state-dir", f"{host.dir}/own", "--host-id", harness.HOST], stdout=host.log, stderr=host.log)
    host.checked = False
    for what in ("cannot lock memory: Cannot allocate memory", "cannot become an I/O flusher: Operation not permitted",
                 "cannot opt out of the OOM killer"):
        host.wait_logged(f"<4>{what} [SV-UNPROTECTED]")
    host.stop()

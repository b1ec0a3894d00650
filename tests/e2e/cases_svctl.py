"""svctl itself: what it prints, and how it ends."""

import contextlib
import socket
import subprocess

import harness


def run(host, *words, **how):
    return subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, *words], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False, **how)


def test_output_that_cannot_be_written_is_a_failure(host):
    """`svctl list > file` on a full file system ended with 0, and metrics with SIGABRT."""
    host.pool()
    with open("/dev/full", "w", encoding="ascii") as full:
        for words in (["list"], ["metrics"], ["--json", "list"], ["dump", "tank"], ["explain"], ["--help"],
                      ["create-volume", "tank/w", "--size", "1M"]):
            done = run(host, *words, stdout=full)
            assert done.returncode == 1 and "cannot" in done.stderr, (words, done)
        done = run(host, "--json", "show", "absent", stdout=full)
        assert done.returncode == 3, done
    assert "tank/w" in host.svctl("list", "-H", "-o", "name")   # what svd did is done


def test_dry_run_leaves_reading_commands_alone(host):
    """They were refused: svd does not take the parameter dry_run, or it is missing."""
    host.pool()
    for words in (["list", "-H"], ["status"], ["show", "tank"], ["jobs"], ["dump", "tank"], ["check", "tank"], ["explain"]):
        assert host.svctl("--dry-run", *words) == host.svctl(*words), words
    assert "svctl_pool_info" in host.svctl("--dry-run", "metrics")
    host.refused(2, "--dry-run", "scan", says="not for scan")


def test_list_takes_a_pools_uuid(host):
    """As all commands do, and as it advises where two pools share a name; it ended with 3."""
    host.pool()
    host.svctl("create-pool", "other", "--tier", "t=" + host.disk("d"))
    uuid = host.json("show", "tank")["uuid"]
    for of_name in (["tank"], ["tank/v"], ["tank:fast"], ["tank", "-t", "device"]):
        of_uuid = [of_name[0].replace("tank", uuid), *of_name[1:]]
        assert host.svctl("list", "-H", *of_uuid) == host.svctl("list", "-H", *of_name), of_name
    host.refused(3, "list", uuid[:-1], says=uuid[:-1])


def test_svd_that_takes_no_calls_has_not_answered_in_time(host):
    """Once as many waited as the kernel keeps, svctl asked whether svd runs, with 20."""
    with contextlib.ExitStack() as stack:
        svd = stack.enter_context(socket.socket(socket.AF_UNIX))
        svd.bind(host.socket)
        svd.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(host.socket)
            except BlockingIOError:
                break
        said = host.refused(21, "--timeout", "1", "list", says="svd took no call within 1 s")
        assert said.endswith("[SV-TIMEOUT]\n"), said

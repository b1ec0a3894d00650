"""Bad input: a clear message, the right exit code, nothing changed."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess

import harness

MIB = 1 << 20


def create(host, *devices, name="p"):
    return ["create-pool", name, "--tier", "t=" + ",".join(devices)]


def sums(*paths):
    return [hashlib.file_digest(open(path, "rb"), "sha256").digest() for path in paths]


def test_refuses_missing_tiny_duplicate_and_read_only_devices(host):
    """Alone, behind a good one and before it, by create-pool and add-device: no byte of a device is written, no pool is made."""
    disks = host.used_pool()
    good, tiny, read_only = host.disk("good"), host.disk("tiny", 1), host.disk("ro")
    for path in (good, tiny, read_only):    # of no known format
        with open(path, "r+b") as f:
            f.write(b"what the user has there" * 1000)
    os.chmod(read_only, 0o444)
    os.symlink(good, f"{host.dir}/other-name")
    os.symlink("loop", f"{host.dir}/loop")
    host.svctl("create-pool", "other", "--tier", f"t={host.disk('o')}")
    before = sums(good, tiny, read_only)
    bad = ((3, f"{host.dir}/absent", "absent"), (6, tiny, "too small"), (2, f"{host.dir}/other-name", "named twice"),
           (4, read_only, "read-only"), (2, host.dir, "not a block device"), (3, f"{good}/under", "Not a directory"),
           (2, f"{host.dir}/loop", "symbolic links"), (2, f"{host.dir}/{'x' * 300}", "too long"),
           (5, disks[1], "member of pool tank"), (5, f"{host.dir}/o", "member of pool other"))
    with host.unchanged():
        for code, path, says in bad:
            for devices in ([path], [good, path], [path, good]):
                if says == "named twice" and len(devices) == 1:
                    devices = [good, good]
                host.refused(code, *create(host, *devices), says=says)
                if path != disks[1]:
                    host.refused(code, "add-device", "tank", "slow=" + ",".join(devices), says=says)
        host.refused(5, "add-device", "tank", f"fast={good},{disks[1]}", says="member of pool tank")
        assert sums(good, tiny, read_only) == before
        assert [pool["name"] for pool in host.json("list")["pools"]] in (["other", "tank"], ["tank", "other"])


def test_refuses_foreign_signatures_unless_named(host):
    host.used_pool()
    foreign = host.disk("foreign")
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", foreign], check=True)
    before = sums(foreign)
    with host.unchanged():
        host.refused(5, *create(host, foreign), says="ext4")
        host.refused(5, "add-device", "tank", f"slow={foreign}", says="ext4")
        text = host.refused(2, *create(host, foreign), "--wipe", foreign, says="--yes")
        assert foreign in text and "ext4" in text
        # By name: what is not named is refused as before, and so is a name that is not among the devices.
        other = host.disk("other")
        shutil.copy(foreign, other)
        for command in (create(host, foreign, other), ["add-device", "tank", f"slow={foreign},{other}"]):
            text = host.refused(5, *command, "--wipe", foreign, "--yes", says="ext4")
            assert other in text and f"--wipe {other}" in text
        for command in (create(host, foreign), ["add-device", "tank", f"slow={foreign}"]):
            host.refused(2, *command, "--wipe", foreign, says="--yes")
            host.refused(2, *command, "--wipe", foreign, "--wipe", other, "--yes", says="not among the devices")
    assert sums(foreign, other) == before * 2
    host.svctl(*create(host, foreign), "--wipe", foreign, "--yes")
    assert {p["name"] for p in host.json("list")["pools"]} == {"tank", "p"}


def lock(file):
    """Until it is closed, whoever else of this process opens and closes it."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def test_refuses_devices_that_another_process_has_locked(host):
    """As QEMU does with its disks: also what is to be wiped, and what looks blank."""
    host.used_pool()
    blank, foreign = host.disk("blank"), host.disk("foreign")
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", foreign], check=True)
    before = sums(blank, foreign)
    with host.unchanged(), open(blank, "r+b") as one, open(foreign, "r+b") as other:
        lock(one), lock(other)
        for dry_run in ([], ["--dry-run"]):
            for words, wipe in ((blank, []), (foreign, ["--wipe", foreign, "--yes"])):
                for command in (create(host, words), ["add-device", "tank", f"slow={words}"]):
                    host.refused(5, *command, *wipe, *dry_run, says="another svd, or a virtual machine")
        assert sums(blank, foreign) == before
        one.close()
        host.refused(5, "add-device", "tank", f"slow={blank},{foreign}", "--wipe", foreign, "--yes", says=foreign)
        assert sums(blank, foreign) == before
    host.svctl("add-device", "tank", f"slow={blank}")


def test_refuses_members_of_a_pool(host):
    disks = host.used_pool()
    with host.unchanged():
        host.refused(5, *create(host, disks[1]), says="member of pool tank")
        host.refused(5, *create(host, disks[1]), "--wipe", disks[1], "--yes", says="member of pool tank")
        host.refused(5, *create(host, host.disk("new"), name="tank"), says="exists")


def test_refuses_unknown_names(host):
    host.used_pool()
    new = host.disk("new")
    dump = f"{host.dir}/dump"
    with open(dump, "w", encoding="utf-8") as f:
        f.write(host.dump())
    with host.unchanged():
        for command in (["show", "nix"], ["delete-pool", "nix", "--yes"], ["activate", "nix"], ["deactivate", "nix"],
                        ["check", "nix"], ["dump", "nix"], ["restore", "nix", dump, "--yes"],
                        ["add-device", "nix", f"slow={new}"], ["create-volume", "nix/v", "--size", "1G"],
                        ["delete-volume", "nix/v", "--yes"]):
            host.refused(3, *command, says="nix")
        for command in (["show", "tank/nix"], ["delete-volume", "tank/nix", "--yes"],
                        ["resize-volume", "tank/nix", "--size", "1G"], ["rename-volume", "tank/nix", "w"]):
            host.refused(3, *command, says="nix")
        host.refused(3, "add-device", "tank", f"nix={new}", says="no such tier")
    assert not any(open(new, "rb").read(1 << 20))


def test_refuses_bad_names(host):
    host.used_pool()
    with host.unchanged():
        for name, says in (("a b", "' ' is not allowed"), ("..", "begins with '.'"), (".x", "begins with '.'"), ("-x", "begins with '-'"),
                           ("x" * 300, "has 300 characters"), ("a/b", "'/' is not allowed"), ("", "is empty"),
                           ("ü", "unprintable"), ("a\nb", "unprintable")):
            host.refused(2, "create-volume", "--size", "1M", "--", f"tank/{name}", says=says if name else "POOL/VOLUME")
            host.refused(2, "rename-volume", "--", "tank/v", name, says=says)
            if "/" not in name and name:   # of a tier, the first '=' ends it
                host.refused(2, "create-pool", "p", f"--tier={name}={host.disk('d')}", says=says)
            # there the parser takes -- for the end of --tier's values
            host.refused(2, "create-pool", f"--tier=t={host.disk('d')}", "--", name, says="there is no option -x" if name == "-x" else says)
        host.refused(2, "create-volume", "tank/" + "x" * 48, "--size", "1M", says="has 48 characters")
        host.refused(2, "create-volume", "tank", "--size", "1M", says="POOL/VOLUME")
        host.refused(2, "create-pool", "p", "--tier", "x" * 16 + f"={host.disk('d')}", says="has 16 characters")
    host.svctl("create-volume", "tank/" + "x" * 47, "--size", "1M")
    host.svctl("create-pool", "p", "--tier", "x" * 15 + f"={host.disk('d')}")


def test_refuses_bad_sizes(host):
    host.used_pool()
    with host.unchanged():
        for size, says in (("0", "no unit"), ("0G", "cannot be zero"), ("-1G", "cannot be negative"), ("10", "no unit"),
                           ("99999999999999999999G", "too large"), ("16E", "too large"), ("1X", "no unit 'X'"), ("", "SIZE missing"),
                           ("G", "not a number"), ("1e3G", "no unit 'e3G'")):
            host.refused(2, "create-volume", "tank/w", f"--size={size}", says=says)
            host.refused(2, "resize-volume", "tank/v", f"--size={size}", says=says)


def test_refuses_growing_beyond_limits(host):
    host.used_pool()
    host.svctl("resize-volume", "tank/v", "--size", "64PiB")
    with host.unchanged():
        for size in ("65PiB", "1000P"):
            host.refused(2, "resize-volume", "tank/v", f"--size={size}", says="64 PiB")
            host.refused(2, "create-volume", "tank/w", f"--size={size}", says="64 PiB")
        host.svctl("deactivate", "tank")
        host.svctl("activate", "tank")


def test_destructive_commands_ask(host):
    host.used_pool()
    with host.unchanged():
        assert "tank/v" in host.refused(2, "delete-volume", "tank/v", says="--yes")
        assert "tank/v" in host.refused(2, "delete-pool", "tank", says="--yes")
        host.svctl("delete-volume", "tank/v", "--dry-run")
        host.svctl("delete-pool", "tank", "--dry-run")
        host.svctl("create-volume", "tank/w", "--size", "1G", "--dry-run")


def test_second_svd_says_so(host):
    host.used_pool()
    with host.unchanged():
        second = host.spawn()
        assert second.wait(20) == 5
        assert host.logged("another svd")
        assert host.json("list")["pools"][0]["state"] == "active"


def test_second_svd_elsewhere_leaves_the_members_alone(host):
    """One with another directory and socket, which could not know of the first but by the members themselves."""
    disks = host.used_pool()
    with harness.Host("second") as second:
        second.options = ["--devices", ",".join(disks)]
        with host.unchanged():
            before = sums(*disks)
            second.start()
            assert second.json("list")["pools"][0]["state"] == "down"
            second.refused(5, "activate", "tank", says="another svd, or a virtual machine")
            assert "another svd, or a virtual machine" in second.svctl("status")
            second.refused(5, "delete-pool", "tank", "--yes", says="another svd, or a virtual machine")
            second.refused(5, "create-pool", "p", "--tier", f"t={disks[0]}", "--wipe", disks[0], "--yes", says="another svd, or a virtual machine")
            assert sums(*disks) == before
        dump = host.dump()
        host.stop()     # and once it has ended, the other one may
        second.svctl("activate", "tank")
        assert re.sub("^journal .*", "", second.dump(), flags=re.M) == re.sub("^journal .*", "", dump, flags=re.M)


def test_svctl_without_svd(host):
    host.refused(20, "list", says="is it running")
    host.used_pool()
    with host.unchanged():
        host.stop()
        for command in (["list"], ["show", "tank"], ["dump", "tank"], ["delete-volume", "tank/v", "--yes"],
                        ["create-volume", "tank/w", "--size", "1M"]):
            host.refused(20, *command, says="is it running")
        host.start()


def test_usage_errors(host):
    host.refused(2, says="subcommand")
    host.refused(2, "no-such-command", says="no-such-command")
    host.refused(2, "create-pool", "p", says="--tier")
    for tier in ("no-equals-sign", "=/a", "t=", "t=/a,,/b", "t=,/a", "t=/a,"):
        host.refused(2, "create-pool", "p", "--tier", tier, says="write TIER=DEVICE")
        host.refused(2, "add-device", "p", tier, says="write TIER=DEVICE")
    host.refused(2, "create-pool", "p", "--tier", "t=/a", "--wipe", "", says="is empty")
    host.refused(2, "list", "-o", "name,", says="there is no column ''")


NOT_UTF8 = os.fsdecode(b"\xff")


def test_what_is_not_utf8_is_refused(host):
    host.used_pool()
    os.symlink(host.disk("d"), f"{host.dir}/{NOT_UTF8}")
    with host.unchanged():
        for words in (["show", f"tank/{NOT_UTF8}"], ["create-volume", f"tank/{NOT_UTF8}", "--size", "1M"],
                      ["rename-volume", "tank/v", NOT_UTF8], create(host, f"{host.dir}/{NOT_UTF8}"), ["check", NOT_UTF8]):
            host.refused(2, *words, says="not UTF-8")


def test_json_errors_have_schema_and_code(host):
    """And nothing else is printed."""
    host.used_pool()
    with host.unchanged():
        for code, *words in ((3, "show", "nix"), (2, "delete-volume", "tank/v"), (2, "no-such-command"), (2,), (2, "volume", "fly"),
                             (2, "create-pool", "p"), (2, "create-pool", "p", "--tier", "t"), (2, "list", "-H"), (2, "list", "--nix"),
                             (2, "scan", "--dry-run"), (2, "show", NOT_UTF8), (2, "explain", "SV-NIX"), (2, "list", "--timeout", "x"),
                             (2, "restore", "tank", f"{host.dir}/absent"), (5, "create-volume", "tank/v", "--size", "1G"),
                             (20, "--socket", f"{host.dir}/absent", "list"), (2, "--socket", "x" * 200, "list")):
            done = subprocess.run([f"{harness.BIN}/svctl", "--json", *words], stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, env={**os.environ, "SVCTL_SOCKET": host.socket})
            answer = json.loads(done.stdout)
            assert done.returncode == code and answer["schema"] == 1 and not done.stderr, (words, done)
            assert answer["error"]["code"] == code and answer["error"]["id"] and answer["error"]["message"], (words, done)
            assert (words[0:1] == ["delete-volume"]) == ("destroys" in answer), (words, done)


def test_relative_paths_are_those_of_svctl(host):
    host.disk("d")
    os.symlink("d", f"{host.dir}/link")
    os.mkdir(f"{host.dir}/sub")
    host.start()
    for directory, words in ((host.dir, ["create-pool", "tank", "--tier", "t=link", "--wipe", "link", "--yes"]),
                             (f"{host.dir}/sub", ["create-pool", "tank", "--tier", "t=../d"])):
        subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, *words], cwd=directory, check=True)
    assert [d["path"] for d in host.json("show", "tank")["devices"]] == [f"{host.dir}/link"]
    host.disk("sub/e")
    subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, "add-device", "tank", "t=e"], cwd=f"{host.dir}/sub", check=True)
    assert [d["path"] for d in host.json("show", "tank")["devices"]][1] == f"{host.dir}/sub/e"


def try_hostile_clients(host):
    half = host.connect()
    half.sendall(b'{"method": "io.svctl.List"')
    for junk in (b"\xff\xfe\0", b"[]\0", b"{}\0", b'{"method": 7}\0', b"\0", b"{" * 100000 + b"\0"):
        with host.connect() as s:
            s.sendall(junk)
            assert "error" in json.loads(harness.receive(s))
    with host.connect() as s:
        try:
            for _ in range(100):
                s.sendall(b"x" * MIB)
            raise AssertionError("svd read 100 MB")
        except (BrokenPipeError, ConnectionResetError):
            pass
    many = [host.connect() for _ in range(100)]
    assert host.json("list")["pools"][0]["name"] == "tank"
    for method, parameters in (("io.svctl.Nix", {}), ("x", {}), ("io.svctl.ShowPool", {}), ("io.svctl.ShowPool", {"pool": 1}),
                               ("io.svctl.CreateVolume", {"pool": "tank", "volume": "w", "size": -1}),
                               ("io.svctl.CreatePool", {"pool": "q", "tiers": [1]})):
        try:
            host.call(method, **parameters)
            raise AssertionError(f"{method} {parameters} was accepted")
        except harness.Refused as refused:
            assert refused.code == 2, refused
    for s in many + [half]:
        s.close()


def test_hostile_clients_do_no_harm(host):
    host.used_pool()
    with host.unchanged():
        try_hostile_clients(host)
    assert host.logged("[SV-CLIENT-CLOSED]")


def test_describes_itself(host):
    host.start()
    info = host.call("org.varlink.service.GetInfo")
    assert "io.svctl" in info["interfaces"]
    text = host.call("org.varlink.service.GetInterfaceDescription", interface="io.svctl")["description"]
    assert "method CreatePool" in text

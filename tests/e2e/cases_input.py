"""Bad input: a clear message, the right exit code, nothing changed."""

import json
import os
import subprocess

import harness

MIB = 1 << 20


def create(host, *devices, name="p"):
    return ["create-pool", name, "--tier", "t=" + ",".join(devices)]


def unchanged(host, dump):
    assert host.svctl("dump", "tank") == dump


def test_refuses_missing_tiny_duplicate_and_read_only_devices(host):
    host.pool()
    dump = host.svctl("dump", "tank")
    host.refused(3, *create(host, f"{host.dir}/absent"), says="absent")
    host.refused(6, *create(host, host.disk("tiny", 1)), says="too small")
    twice = host.disk("twice")
    host.refused(2, *create(host, twice, twice), says="named twice")
    os.symlink(twice, f"{host.dir}/other-name")
    host.refused(2, *create(host, twice, f"{host.dir}/other-name"), says="named twice")
    read_only = host.disk("ro")
    os.chmod(read_only, 0o444)
    host.refused(4, *create(host, read_only), says="read-only")
    host.refused(2, *create(host, host.dir), says="not a block device")
    unchanged(host, dump)


def test_refuses_foreign_signatures_unless_named(host):
    host.pool()
    foreign = host.disk("foreign")
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", foreign], check=True)
    host.refused(5, *create(host, foreign), says="ext4")
    text = host.refused(2, *create(host, foreign), "--wipe", foreign, says="--yes")
    assert foreign in text and "ext4" in text
    host.svctl(*create(host, foreign), "--wipe", foreign, "--yes")
    assert {p["name"] for p in host.json("list")["pools"]} == {"tank", "p"}


def test_refuses_members_of_a_pool(host):
    disks = host.pool()
    dump = host.svctl("dump", "tank")
    host.refused(5, *create(host, disks[1]), says="member of pool tank")
    host.refused(5, *create(host, disks[1]), "--wipe", disks[1], "--yes", says="member of pool tank")
    host.refused(5, *create(host, host.disk("new"), name="tank"), says="exists")
    unchanged(host, dump)


def test_refuses_unknown_names(host):
    host.pool()
    host.refused(3, "show", "nix")
    host.refused(3, "show", "tank/nix")
    host.refused(3, "delete-volume", "tank/nix", "--yes")
    host.refused(3, "delete-pool", "nix", "--yes")
    host.refused(3, "resize-volume", "tank/nix", "--size", "1G")
    host.refused(3, "activate", "nix")
    host.refused(3, "check", "nix")


def test_refuses_bad_names(host):
    host.pool()
    dump = host.svctl("dump", "tank")
    for name in ("a b", "..", ".x", "-x", "x" * 300, "a/b", "", "ü", "a\nb"):
        host.refused(2, "create-volume", "--size", "1M", "--", f"tank/{name}")
        host.refused(2, "create-pool", "--tier", f"t={host.disk('d')}", "--", name)
    host.refused(2, "create-volume", "tank/" + "x" * 48, "--size", "1M")
    host.refused(2, "create-volume", "tank", "--size", "1M", says="POOL/VOLUME")
    unchanged(host, dump)
    host.svctl("create-volume", "tank/" + "x" * 47, "--size", "1M")


def test_refuses_bad_sizes(host):
    host.pool()
    dump = host.svctl("dump", "tank")
    for size in ("0", "0G", "-1G", "10", "99999999999999999999G", "16E", "1X", "", "G", "1e3G"):
        host.refused(2, "create-volume", "tank/w", f"--size={size}")
        host.refused(2, "resize-volume", "tank/v", f"--size={size}")
    unchanged(host, dump)


def test_refuses_growing_beyond_limits(host):
    host.pool()
    host.svctl("resize-volume", "tank/v", "--size", "64PiB")
    dump = host.svctl("dump", "tank")
    for size in ("65PiB", "1000P"):
        host.refused(2, "resize-volume", "tank/v", f"--size={size}", says="64 PiB")
        host.refused(2, "create-volume", "tank/w", f"--size={size}", says="64 PiB")
    unchanged(host, dump)
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    unchanged(host, dump)


def test_destructive_commands_ask(host):
    host.pool()
    dump = host.svctl("dump", "tank")
    assert "tank/v" in host.refused(2, "delete-volume", "tank/v", says="--yes")
    assert "tank/v" in host.refused(2, "delete-pool", "tank", says="--yes")
    host.svctl("delete-volume", "tank/v", "--dry-run")
    host.svctl("delete-pool", "tank", "--dry-run")
    host.svctl("create-volume", "tank/w", "--size", "1G", "--dry-run")
    unchanged(host, dump)


def test_pool_waits_for_a_missing_member(host):
    disks = host.pool()
    host.stop()
    os.rename(disks[2], disks[2] + ".away")
    host.start()
    pool = host.json("list")["pools"][0]
    assert pool["state"] == "down" and "member 2 of 3 is missing" in pool["problems"][0]["what"]
    host.refused(3, "activate", "tank", says="member 2")
    host.refused(3, "show", "tank/v", says="member 2")
    os.rename(disks[2] + ".away", disks[2])
    host.svctl("scan")
    assert host.json("list")["pools"][0]["state"] == "active"


def test_swapped_members_are_found_by_their_labels(host):
    disks = host.pool()
    host.write("tank/v", 0, b"x" * 4096)
    host.flush("tank/v")
    host.stop()
    os.rename(disks[0], disks[0] + ".tmp")
    os.rename(disks[1], disks[0])
    os.rename(disks[0] + ".tmp", disks[1])
    host.start()
    assert host.read("tank/v", 0, 4096) == b"x" * 4096
    host.svctl("check", "tank")


def damage(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def test_damaged_label_is_recovered_from_its_copy(host):
    disks = host.pool()
    host.write("tank/v", 0, b"y" * 4096)
    host.flush("tank/v")
    for junk in (bytes(4096), b"\xff" * 16):
        host.kill()
        damage(disks[1], 0, junk)
        host.start()
        assert host.json("list")["pools"][0]["state"] == "active"
        assert host.read("tank/v", 0, 4096) == b"y" * 4096


def test_truncated_member_is_refused_by_name(host):
    disks = host.pool()
    host.stop()
    os.truncate(disks[2], 100 * MIB)
    host.start()
    assert host.json("list")["pools"][0]["state"] == "down"
    assert "slow2" in host.svctl("status")


def test_second_svd_says_so(host):
    host.pool()
    second = host.spawn()
    assert second.wait(20) == 5
    assert "another svd" in host.log_tail()
    assert host.json("list")["pools"][0]["state"] == "active"


def test_svctl_without_svd(host):
    host.refused(20, "list", says="is it running")


def test_usage_errors(host):
    host.refused(2)
    host.refused(2, "no-such-command")
    host.refused(2, "create-pool", "p")
    host.refused(2, "create-pool", "p", "--tier", "no-equals-sign")


def test_json_errors_have_schema_and_code(host):
    host.start()
    done = subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, "--json", "show", "nix"],
                          capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert done.returncode == 3 and answer["schema"] == 1 and answer["error"]["code"] == 3


def test_hostile_clients_do_no_harm(host):
    host.pool()
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
    for method, parameters in (("io.svctl.Nix", {}), ("x", {}), ("io.svctl.Show", {}), ("io.svctl.Show", {"pool": 1}),
                               ("io.svctl.CreateVolume", {"pool": "tank", "volume": "w", "size": -1}),
                               ("io.svctl.CreatePool", {"pool": "q", "tiers": [1]})):
        try:
            host.call(method, **parameters)
            raise AssertionError(f"{method} {parameters} was accepted")
        except harness.Refused as refused:
            assert refused.code == 2, refused
    for s in many + [half]:
        s.close()


def test_describes_itself(host):
    host.start()
    info = host.call("org.varlink.service.GetInfo")
    assert "io.svctl" in info["interfaces"]
    text = host.call("org.varlink.service.GetInterfaceDescription", interface="io.svctl")["description"]
    assert "method CreatePool" in text

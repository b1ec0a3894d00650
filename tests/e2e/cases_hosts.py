"""Pools that go from host to host: svd of one host id, then of another, on the same disks."""

import os
import shutil

import harness
from harness import HOST, MIB, OTHER_HOST

TAKE = ["import-pool", "tank", "--force", "--yes"]


def on(host, host_id, **environment):
    """svd of that host from now on."""
    if host.svd.poll() is None:
        host.stop()
    host.host_id = host_id
    host.start(**environment)


def states(host):
    return {pool["uuid"]: (pool["name"], pool["state"]) for pool in host.json("list")["pools"]}


def state(host):
    (one,) = states(host).values()
    return one


def problems(host):
    return [(p["what"], p["next"]) for pool in host.json("status")["pools"] for p in pool["problems"]]


def dies(host, *words):
    host.refused(20, *words)
    host.wait_killed()


def test_exported_pool_is_imported_elsewhere(host):
    host.used_pool()
    before, data = host.dump(), host.read("tank/v", 0, MIB)
    host.svctl("export-pool", "tank", "--dry-run")
    assert state(host) == ("tank", "active")
    assert "exported" in host.svctl("export-pool", "tank")
    assert "no change" in host.svctl("export-pool", "tank")
    assert state(host) == ("tank", "exported")
    for words in (["create-volume", "tank/w", "--size", "1M"], ["activate", "tank"], ["dump", "tank"]):
        host.refused(5, *words, says="svctl import-pool tank")
    for host_id in (HOST, OTHER_HOST):      # neither brings it up by itself
        on(host, host_id)
        assert state(host) == ("tank", "exported")
        assert problems(host) == [("it is exported: no host holds it", "svctl import-pool tank")]
        assert host.codes() == ["SV-POOL-EXPORTED"]
        assert "3 of 3" in host.svctl("scan")
    host.svctl("import-pool", "tank", "--dry-run")
    assert state(host) == ("tank", "exported")
    assert "active" in host.svctl("import-pool", "tank")
    assert "no change" in host.svctl("import-pool", "tank")
    assert host.dump() == before and host.read("tank/v", 0, MIB) == data
    host.svctl("check", "tank")
    on(host, OTHER_HOST)
    assert state(host) == ("tank", "active")


def test_pool_of_another_host_is_refused(host):
    disks = host.used_pool()
    before = host.dump()
    on(host, OTHER_HOST)
    assert state(host) == ("tank", "foreign")
    (what, next_command), = problems(host)
    assert HOST in what and OTHER_HOST in what
    assert "svctl export-pool tank" in next_command and "svctl import-pool tank --force" in next_command
    assert host.codes() == ["SV-POOL-FOREIGN"] and 'code="SV-POOL-FOREIGN"' in host.svctl("metrics")
    assert host.logged(f"{what}; next: {next_command}")
    for words in (["import-pool", "tank"], ["export-pool", "tank"], ["activate", "tank"], ["delete-pool", "tank", "--yes"],
                  ["create-volume", "tank/w", "--size", "1M"], ["create-pool", "tank", "--tier", f"t={host.disk('d')}"],
                  ["create-pool", "p", "--tier", f"t={disks[0]}"]):
        host.refused(5, *words, says=HOST)
    assert HOST in host.svctl("scan")
    on(host, HOST)
    assert state(host) == ("tank", "active") and host.dump() == before


def test_force_takes_a_pool_and_says_what_it_risks(host):
    host.used_pool()
    before = host.dump()
    on(host, OTHER_HOST)
    text = host.refused(2, "import-pool", "tank", "--force", says="--yes")
    assert "all data of pool tank" in text and HOST in text
    host.svctl("import-pool", "tank", "--force", "--dry-run")
    assert state(host) == ("tank", "foreign")
    host.svctl(*TAKE)
    assert host.dump() == before
    on(host, HOST)      # was dead, they say: it must not write to it any more
    assert state(host) == ("tank", "foreign")
    host.refused(5, "import-pool", "tank", says=OTHER_HOST)


def test_pool_that_does_not_come_up_is_given_back(host):
    """The kernel refuses its activation: by its labels it is the old host's again, or nobody's, under its old name."""
    host.used_pool()
    before = host.dump()
    on(host, OTHER_HOST)
    for call in range(1, 6):
        host.fail_call(call)
        host.refused(1, *TAKE, says="memory")
        assert state(host) == ("tank", "foreign"), call
    assert host.logged("is given back: to host ")
    on(host, HOST)
    assert state(host) == ("tank", "active") and host.dump() == before
    host.svctl("export-pool", "tank")
    on(host, OTHER_HOST)
    host.fail_call(1)
    host.refused(1, "import-pool", "tank", "--rename", "vault", says="memory")
    assert state(host) == ("tank", "exported") and host.logged("is given back: exported")
    on(host, HOST)
    host.svctl("import-pool", "tank")
    assert host.dump() == before
    host.svctl("check", "tank")


def test_foreign_pool_is_read_without_taking_it(host):
    disks = host.used_pool()
    data = host.read("tank/v", 0, MIB)
    on(host, OTHER_HOST)
    before = [os.stat(disk).st_mtime_ns for disk in disks]
    assert HOST in host.svctl("activate", "tank", "--read-only")
    assert host.read("tank/v", 0, MIB) == data
    host.refused(5, *TAKE, says="deactivate")
    host.svctl("deactivate", "tank")
    assert [os.stat(disk).st_mtime_ns for disk in disks] == before


def test_missing_member_keeps_a_pool_from_changing_hosts(host):
    disks = host.used_pool()
    data = host.read("tank/v", 0, MIB)
    host.svctl("deactivate", "tank")
    os.rename(disks[2], disks[2] + ".away")
    host.refused(3, "export-pool", "tank", says="member 2 of 3 is missing")
    os.rename(disks[2] + ".away", disks[2])
    host.svctl("activate", "tank")
    host.svctl("export-pool", "tank")
    on(host, OTHER_HOST)
    os.rename(disks[2], disks[2] + ".away")
    host.refused(3, "import-pool", "tank", says="member 2 of 3 is missing")
    host.refused(3, *TAKE, says="member 2 of 3 is missing")
    assert "2 of 3" in host.svctl("scan")
    assert any(what.startswith("member 2 of 3 is missing") and then == "attach the device; svctl scan" for what, then in problems(host))
    host.svctl("activate", "tank", "--read-only", "--missing")
    host.svctl("deactivate", "tank")
    os.rename(disks[2] + ".away", disks[2])
    host.svctl("import-pool", "tank")
    assert host.read("tank/v", 0, MIB) == data


def test_export_of_a_pool_that_is_down(host):
    host.used_pool()
    before = host.dump()
    host.svctl("deactivate", "tank")
    host.svctl("export-pool", "tank")
    on(host, OTHER_HOST)
    host.svctl("import-pool", "tank")
    assert host.dump() == before
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank", "--read-only")
    host.refused(4, "export-pool", "tank", says="read-only")


EXPORT_POINTS = {"export-down": "active", "label-copy-written": "exported", "hand-over-0": "exported",
                 "hand-over-1": "exported", "hand-over-2": "exported"}


def test_export_survives_sigkill_at_each_step(host):
    """What a restart finds says whether the first label was written; repeating it here, or importing it here or
    elsewhere, goes on from there."""
    host.used_pool()
    before = host.dump()
    here, there = HOST, OTHER_HOST
    for point, found in EXPORT_POINTS.items():
        for importer in (here, there):
            host.svctl("check", "tank")
            host.stop()
            host.start(SVD_KILL_AT=point)
            dies(host, "export-pool", "tank")
            host.start()
            assert state(host) == ("tank", found), point
            if importer == there and found == "exported":   # labels left behind do not matter
                on(host, there)
                host.svctl("import-pool", "tank")
                here, there = there, here
            else:
                assert ("no change" in host.svctl("export-pool", "tank")) == (point == "hand-over-2"), point
                assert "no change" in host.svctl("export-pool", "tank")
                host.svctl("import-pool", "tank")
            assert host.dump() == before, point
            on(host, here)
            assert state(host) == ("tank", "active"), point


IMPORT_POINTS = ("label-copy-written", "hand-over-0", "hand-over-1", "hand-over-2", "import-held")


def test_import_survives_sigkill_at_each_step(host):
    """With the first label written the new host holds the pool, and brings it up when svd is back; the old one is
    refused, and can take over by force."""
    host.used_pool()
    before = host.dump()
    for point in IMPORT_POINTS:
        for goes_on in (OTHER_HOST, HOST):
            host.svctl("export-pool", "tank")
            on(host, OTHER_HOST, SVD_KILL_AT=point)
            dies(host, "import-pool", "tank")
            on(host, goes_on)
            if goes_on == OTHER_HOST:
                assert state(host) == ("tank", "active"), point
                assert "no change" in host.svctl("import-pool", "tank")
            else:
                host.refused(5, "import-pool", "tank", says=OTHER_HOST)
                host.svctl(*TAKE)
            assert host.dump() == before, point
            host.svctl("check", "tank")
            on(host, goes_on)
            assert state(host) == ("tank", "active"), point
            hosts = {pool["host"] for pool in host.json("scan")["pools"]}
            assert len(hosts) == 1 and goes_on in hosts.pop()


def test_rename_survives_sigkill_at_each_step(host):
    host.used_pool()
    before = host.dump()
    for point in IMPORT_POINTS:
        assert host.dump() == before
        host.svctl("deactivate", "tank")
        host.stop()
        host.start(SVD_KILL_AT=point)       # brings the pool up
        host.svctl("export-pool", "tank") if point == "import-held" else host.svctl("deactivate", "tank")
        dies(host, "import-pool", "tank", "--rename", "vault")
        host.start()
        assert "no change" in host.svctl("import-pool", "tank", "--rename", "vault")
        assert state(host) == ("vault", "active"), point
        assert host.dump("vault") == before.replace("pool tank ", "pool vault "), point
        host.refused(5, "import-pool", "vault", "--rename", "tank", says="it is up")
        host.svctl("export-pool", "vault")
        host.svctl("import-pool", "vault", "--rename", "tank")


def two_pools_of_one_name(host):
    """One made while the other's disk was away. UUIDs of the one that is up, and of the other."""
    host.used_pool()
    host.svctl("export-pool", "tank")
    (other,) = states(host)
    devices = open(f"{host.dir}/devices").read()
    os.remove(f"{host.dir}/devices")
    host.svctl("create-pool", "tank", "--tier", f"t={host.disk('second')}")
    (up,) = states(host)
    with open(f"{host.dir}/devices", "a", encoding="utf-8") as f:
        f.write(devices)
    host.svctl("scan")
    return up, other


def test_second_pool_of_a_name_is_renamed(host):
    up, other = two_pools_of_one_name(host)
    assert states(host) == {up: ("tank", "active"), other: ("tank", "exported")}
    assert other in host.svctl("list") and other in host.svctl("status")
    assert ("it is exported: no host holds it", f"svctl import-pool {other} --rename NEW") in problems(host)
    for name in ("tank", other):
        host.refused(5, "import-pool", name, says=f"svctl import-pool {other} --rename NEW")
    host.refused(5, "import-pool", other, "--rename", "tank", says="another pool named tank")
    host.refused(2, "import-pool", other, "--rename", "a/b")
    host.svctl("create-volume", "tank/w", "--size", "1M")      # the name means the one that is up
    host.svctl("import-pool", other, "--rename", "vault")
    assert states(host) == {up: ("tank", "active"), other: ("vault", "active")}
    host.svctl("check", "vault")
    host.stop()
    host.start()
    assert states(host) == {up: ("tank", "active"), other: ("vault", "active")}


def test_of_two_pools_of_a_name_here_neither_comes_up(host):
    """Which of them did would depend on which devices came first."""
    up, other = two_pools_of_one_name(host)
    host.stop()
    os.rename(f"{host.dir}/second", f"{host.dir}/away")
    host.start()
    host.svctl("import-pool", "tank")
    assert states(host) == {other: ("tank", "active")}
    os.rename(f"{host.dir}/away", f"{host.dir}/second")
    host.svctl("scan")
    assert states(host) == {up: ("tank", "down"), other: ("tank", "active")}        # who is there keeps the name
    host.refused(5, "activate", up, says=f"svctl import-pool {up} --rename NEW")
    host.stop()
    host.start()
    assert states(host) == {up: ("tank", "down"), other: ("tank", "down")}
    assert (f"another pool has its name: {up}", f"svctl import-pool {other} --rename NEW") in problems(host)
    assert host.codes() == ["SV-POOL-NAME-TWICE"] * 2
    assert "[SV-POOL-NAME-TWICE]" in host.refused(5, "activate", "tank", says=up)
    for this, that in ((up, other), (other, up)):
        assert host.logged(f"tank ({this}): another pool has its name: {that}; next: svctl import-pool {this} --rename NEW")
    host.refused(5, "create-pool", "tank", "--tier", f"t={host.disk('third')}", says=other)
    host.svctl("import-pool", up, "--rename", "second")
    assert states(host)[up] == ("second", "active")
    host.svctl("scan")
    assert states(host)[other] == ("tank", "active")


def test_copy_of_a_member_is_refused(host):
    """While the pool is up it is told, and does no harm."""
    disks = host.used_pool()
    host.svctl("deactivate", "tank")
    shutil.copy(disks[1], f"{host.dir}/copy")
    host.svctl("activate", "tank")
    with open(f"{host.dir}/devices", "a", encoding="utf-8") as f:
        f.write(f"{host.dir}/copy\n")
    with host.unchanged():
        host.svctl("scan")
        (what, _), = problems(host)
        assert disks[1] in what and f"{host.dir}/copy" in what
        assert host.codes() == ["SV-MEMBER-DUPLICATE"]
        host.svctl("deactivate", "tank")
        for words in (["activate", "tank"], ["export-pool", "tank"]):
            text = host.refused(5, *words, says="[SV-MEMBER-DUPLICATE]")
            assert disks[1] in text and f"{host.dir}/copy" in text
        os.remove(f"{host.dir}/copy")
        host.svctl("activate", "tank")
    assert problems(host) == []


def make_md_half(member, path):
    """A copy of it, as one half of a mirror whose superblock lies at the end (metadata 1.0)."""
    size = os.path.getsize(member) + MIB
    shutil.copy(member, path)
    superblock = bytearray(4096)
    at = (size // 512 - 16) & ~7
    superblock[0:8] = (0xa92b4efc).to_bytes(4, "little") + (1).to_bytes(4, "little")
    superblock[16:32] = os.urandom(16)
    superblock[72:76] = (1).to_bytes(4, "little")
    superblock[144:152] = at.to_bytes(8, "little")
    checksum = sum(int.from_bytes(superblock[i:i + 4], "little") for i in range(0, 256, 4))
    checksum = (checksum & 0xffffffff) + (checksum >> 32)
    superblock[216:220] = (checksum & 0xffffffff).to_bytes(4, "little")
    with open(path, "r+b") as f:
        f.truncate(size)
        f.seek(at * 512)
        f.write(superblock)


def test_half_of_a_mirror_is_no_member(host):
    disks = host.used_pool()
    host.svctl("deactivate", "tank")
    half = f"{host.dir}/half"
    make_md_half(disks[0], half)
    with open(f"{host.dir}/devices", "a", encoding="utf-8") as f:
        f.write(half + "\n")
    host.svctl("activate", "tank")
    os.rename(disks[0], disks[0] + ".away")
    host.stop()
    host.start()
    host.refused(3, "activate", "tank", says="member 0 of 3 is missing")


def test_host_id_that_is_none_is_refused(host):
    for host.host_id in ("no-uuid", "00000000-0000-0000-0000-000000000000"):
        assert host.spawn().wait(20) == 2
        assert host.logged("host id") or host.logged("UUID")


def test_unknown_pools_are_neither_exported_nor_imported(host):
    host.used_pool()
    with host.unchanged():
        for name in ("nix", "33333333-3333-4333-8333-333333333333"):
            host.refused(3, "import-pool", name, says=name)
            host.refused(3, "import-pool", name, "--rename", "new", says=name)
            host.refused(3, "export-pool", name, says=name)
        for name in ("..", "a b", "x" * 300):
            host.refused(2, "import-pool", name)
            host.refused(2, "import-pool", "tank", "--rename", name)
            host.refused(2, "export-pool", name)
        assert "no change" in host.svctl("import-pool", "tank")


WITHOUT_ID = ["unshare", "--mount", "sh", "-c", "mount --bind /dev/null /etc/machine-id; exec \"$@\"", "sh"]


@harness.takes_root
def test_host_without_an_id_holds_no_pool(host):
    """/etc/machine-id is empty."""
    host.prefix, host.host_id = WITHOUT_ID, None
    host.start()
    assert host.logged("this host can hold no pool [SV-HOST-UNKNOWN]")
    host.refused(8, "create-pool", "tank", "--tier", f"t={host.disk('d')}", says="[SV-HOST-UNKNOWN]")
    host.stop()
    host.prefix, host.host_id = [], HOST
    host.used_pool()
    host.svctl("export-pool", "tank")
    host.stop()
    host.prefix, host.host_id = WITHOUT_ID, None
    host.start()
    said = host.refused(8, "import-pool", "tank", says="[SV-HOST-UNKNOWN]")
    assert "systemd-machine-id-setup; systemctl restart svd" in said
    assert state(host) == ("tank", "exported")


def test_directory_of_svd_that_cannot_be_written_to_is_told(host):
    """What it was to keep is not known any more to the next svd."""
    os.mkdir(f"{host.dir}/paths.new")
    host.used_pool()
    assert host.logged("/paths cannot be written: a member that is missing may not be told by its last path [SV-STATE-UNWRITABLE]")
    (uuid,) = states(host)
    with host.unchanged():
        os.makedirs(f"{host.dir}/down-{uuid}/full")
        host.svctl("deactivate", "tank")
        assert host.logged(f"/down-{uuid} cannot be made: the pool will come up when svd is started anew [SV-STATE-UNWRITABLE]")
        host.svctl("activate", "tank")

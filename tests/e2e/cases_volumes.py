"""Volumes that are up or not: one by one, and with their pool."""

import harness

MIB = harness.MIB


def volumes(host):
    """name: (state, autoactivate)"""
    return {v["name"]: (v["state"], v["autoactivate"]) for v in host.json("list")["pools"][0]["volumes"]}


def test_volume_comes_up_with_its_pool_unless_told_not_to(host):
    host.used_pool()
    host.svctl("create-volume", "tank/w", "--size", "1M")
    assert volumes(host) == {"v": ("active", True), "w": ("active", True)}
    before = host.dump()
    assert "from now on" in host.svctl("set-volume", "tank/w", "--autoactivate", "no")
    assert "no change" in host.svctl("volume", "set", "tank/w", "--autoactivate", "no")
    assert volumes(host) == {"v": ("active", True), "w": ("active", False)}     # what is up stays up
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    assert volumes(host) == {"v": ("active", True), "w": ("inactive", False)}
    host.refused(3, "show", "tank/x")
    assert host.json("show", "tank/w")["state"] == "inactive"
    assert host.svctl("list", "-H", "-t", "volume", "-o", "name,state,autoactivate") == "tank/v\tactive\ttrue\ntank/w\tinactive\tfalse\n"

    # As after a boot: svd --sim's kernel ends with it.
    host.kill()
    host.start()
    assert volumes(host) == {"v": ("active", True), "w": ("inactive", False)}
    host.svctl("set-volume", "tank/w", "--autoactivate", "yes")
    assert host.dump() == before
    assert volumes(host)["w"] == ("inactive", True)
    host.stop()
    host.start()
    assert volumes(host)["w"] == ("active", True)
    host.svctl("check", "tank")


def test_volume_is_activated_and_deactivated_by_itself(host):
    host.used_pool()
    data = host.read("tank/v", 0, MIB)
    assert "until its pool comes up" in host.svctl("deactivate", "tank/v")
    assert "no change" in host.svctl("deactivate-volume", "tank/v")
    assert "no change" in host.svctl("volume", "deactivate", "tank/v")
    assert volumes(host) == {"v": ("inactive", True)}
    try:
        host.read("tank/v", 0, 4096)
        raise AssertionError("an inactive volume is read")
    except harness.Refused as refused:
        assert refused.code == 3, refused
    assert "is active" in host.svctl("activate", "tank/v")
    assert "no change" in host.svctl("activate-volume", "tank/v")
    assert host.read("tank/v", 0, MIB) == data
    # Whatever is done to it while it is down.
    host.svctl("deactivate", "tank/v")
    host.svctl("resize-volume", "tank/v", "--size", "128M")
    host.svctl("rename-volume", "tank/v", "w")
    host.svctl("check", "tank")
    host.svctl("volume", "activate", "tank/w")
    assert host.read("tank/w", 0, MIB) == data
    assert host.read("tank/w", 127 * MIB, 4096) == bytes(4096)
    host.svctl("deactivate", "tank/w")
    host.svctl("delete-volume", "tank/w", "--yes")
    assert volumes(host) == {}
    host.svctl("check", "tank")


def test_volume_survives_sigkill_between_its_device_and_the_catalogue(host):
    host.used_pool()
    data = host.read("tank/v", 0, MIB)
    for point, prepare, command in (("deactivate-volume-removed", None, ["deactivate", "tank/v"]),
                                    ("activate-volume-in-catalogue", ["deactivate", "tank/v"], ["activate", "tank/v"])):
        host.kill()
        host.start(SVD_KILL_AT=point)
        if prepare:
            host.svctl(*prepare)
        host.refused(20, *command)
        host.wait_killed()
        host.start()
        assert volumes(host) == {"v": ("active", True)}, point
        assert host.read("tank/v", 0, MIB) == data
        host.svctl("check", "tank")


def test_volumes_of_a_read_only_pool_come_up_one_by_one(host):
    host.used_pool()
    data = host.read("tank/v", 0, MIB)
    before = host.dump()
    host.svctl("set-volume", "tank/v", "--autoactivate", "no")
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank", "--read-only")
    assert volumes(host) == {"v": ("inactive", False)}
    host.refused(4, "set-volume", "tank/v", "--autoactivate", "yes", says="read-only")
    host.svctl("activate", "tank/v")
    assert volumes(host) == {"v": ("read-only", False)}
    assert host.read("tank/v", 0, MIB) == data
    host.svctl("deactivate", "tank/v")
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    assert volumes(host) == {"v": ("inactive", False)}
    host.svctl("set-volume", "tank/v", "--autoactivate", "yes")
    assert host.dump() == before


def test_manual_volumes_are_dumped_and_restored(host):
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--autoactivate", "no")
    before = host.dump()
    assert " manual\n" in before
    host.kill()
    for disk in ("fast", "slow1", "slow2"):
        host.disk(disk)
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"fast={host.dir}/fast", "--tier", f"slow={host.dir}/slow1,{host.dir}/slow2")
    with open(f"{host.dir}/dump", "w", encoding="ascii") as f:
        f.write(before)
    host.svctl("restore", "tank", f"{host.dir}/dump")
    assert volumes(host) == {"v": ("inactive", False)}

    def lines(dump):
        return [line for line in dump.splitlines() if line.split()[0] in ("volume", "map", "partial")]

    assert lines(host.dump()) == lines(before)
    host.svctl("check", "tank")


def test_refuses_what_cannot_be_set_or_activated(host):
    host.used_pool()
    with host.unchanged():
        host.refused(2, "set-volume", "tank/v", says="nothing is to be set")
        for value in ("maybe", "1", "Yes", ""):
            host.refused(2, "set-volume", "tank/v", "--autoactivate", value)
        host.refused(2, "set-volume", "tank", "--autoactivate", "no", says="POOL/VOLUME")
        host.refused(3, "set-volume", "tank/w", "--autoactivate", "no", says="no such volume")
        host.refused(3, "set-volume", "other/v", "--autoactivate", "no")
        for command in ("activate", "deactivate"):
            host.refused(3, command, "tank/w", says="no such volume")
            host.refused(3, command, "other/v")
            host.refused(2, command, "tank/a b")
            host.refused(2, "volume", command, "tank")
        host.refused(2, "activate", "tank/v", "--read-only", says="a pool")
        host.refused(2, "activate", "tank/v", "--missing", says="a pool")
        for words in (["set-volume", "tank/v", "--autoactivate", "no"], ["deactivate", "tank/v"]):
            assert "would" in host.svctl(*words, "--dry-run") or "from then on" in host.svctl(*words, "--dry-run")
        assert volumes(host) == {"v": ("active", True)}
        try:
            host.call("io.svctl.SetVolume", pool="tank", volume="v", autoactivate="no")
            raise AssertionError("a text is taken for a truth value")
        except harness.Refused as refused:
            assert refused.error == "org.varlink.service.InvalidParameter", refused
    host.svctl("deactivate", "tank")
    for command in ("activate", "deactivate"):
        host.refused(5, command, "tank/v", says="svctl activate tank")


def test_pool_has_so_many_volumes_and_no_more(host):
    """A rollback, which has one more for a moment, still goes."""
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={host.disk('d')}")
    with open(f"{host.dir}/text", "w", encoding="ascii") as f:
        f.write("svctl-dump 1\n")
        f.writelines(f"volume {i} v{i} {MIB} active {i} {i} 0 0 {(1 << 64) - 1}\n" for i in range(1, 16000))
        f.write("end\n")
    host.svctl("restore", "tank", f"{host.dir}/text")
    host.svctl("create-snapshot", "tank/v1@one")
    host.svctl("create-volume", "tank/last", "--size", "1M")
    before = host.dump()
    for words in (["create-volume", "tank/more", "--size", "1M"], ["create-volume", "tank/more", "--from", "v1@one"],
                  ["activate", "tank/v1@one"]):
        host.refused(6, *words, says="16000 volumes and active snapshots")
        host.refused(6, *words, "--dry-run", says="16000 volumes and active snapshots")
    assert host.dump() == before
    host.svctl("rollback-volume", "tank/v1@one", "--yes")
    host.svctl("delete-volume", "tank/v2", "--yes")
    host.svctl("activate", "tank/v1@one")

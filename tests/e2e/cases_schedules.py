"""Snapshots by schedule: what the timer's command makes and takes away, whatever the clock does, and what says that it does not."""

import time

import harness

MIB = harness.MIB
POINTS = ["create-snapshot-in-catalogue", "create-snapshot-in-kernel", "delete-snapshot-in-catalogue"]


def snapshots(host, volume="v"):
    """The names of those that a schedule made, the oldest first."""
    rows = [s for s in host.json("list")["pools"][0]["snapshots"] if s["volume"] == volume and s["scheduled"]]
    return [s["name"] for s in sorted(rows, key=lambda s: s["id"])]


def later(host, seconds):
    host.call("io.svctl.sim.MoveClock", seconds=abs(seconds), back=seconds < 0)


def turns(host, count, seconds):
    for _ in range(count):
        later(host, seconds)
        host.svctl("run-schedules")


def test_schedule_makes_and_takes_away(host):
    host.used_pool()
    host.svctl("create-volume", "tank/w", "--size", "64M")
    assert "no snapshot is due" in host.svctl("run-schedules")
    assert "5min:1h,1h:4h" in host.svctl("set-volume", "tank/v", "--schedule", "1h:4h,5min:60min")
    assert "no change" in host.svctl("set-volume", "tank/v", "--schedule", "5min:1h,1h:4h")
    assert "1 would be created" in host.svctl("run-schedules", "--dry-run")
    assert not snapshots(host)
    first = host.json("run-schedules")
    assert first["result"] == "done" and first["created"] == [f"tank/v@{snapshots(host)[0]}"] and first["deleted"] == [], first
    data = host.read("tank/v", 0, MIB)
    assert host.json("schedules", "run")["result"] == "no change"
    later(host, 300)
    host.write("tank/v", 0, bytes(8192))
    host.flush("tank/v")
    host.svctl("run-schedules")
    two = snapshots(host)
    assert len(two) == 2 and two[0] < two[1], two
    host.svctl("activate", f"tank/v@{two[0]}")
    assert host.read(f"tank/v@{two[0]}", 0, MIB) == data     # what the volume had then, and not now
    host.svctl("deactivate", f"tank/v@{two[0]}")
    turns(host, 8 * 12, 300)
    # The last twelve, and the last of each of the last four hours, one or two of which are among them.
    kept = snapshots(host)
    assert 12 + 2 <= len(kept) <= 12 + 3, kept
    assert not set(two) & set(kept), kept
    assert host.svctl("list", "-H", "-t", "volume", "-o", "name,schedule") == "tank/v\t5min:1h,1h:4h\ntank/w\tnone\n"
    assert host.svctl("list", "-H", "-t", "snapshot", "-o", "scheduled").split() == ["yes"] * len(kept)
    assert "stay" in host.svctl("set-volume", "tank/v", "--schedule", "none")
    later(host, 3600)
    assert host.json("run-schedules")["result"] == "no change"
    assert not snapshots(host) and len(host.json("list")["pools"][0]["snapshots"]) == len(kept)


def test_scheduled_snapshots_of_a_pool_are_made_together(host):
    host.used_pool()
    for name in ("w", "x"):
        host.svctl("create-volume", f"tank/{name}", "--size", "64M")
    for name in ("v", "w"):
        host.svctl("set-volume", f"tank/{name}", "--schedule", "1h:2h")
    created = host.json("run-schedules")["created"]
    assert len(created) == 2 and len({name.partition("@")[2] for name in created}) == 1, created
    assert all(host.logged(f"volume tank/{name}: by its schedule snapshot auto-") for name in ("v", "w"))
    assert not snapshots(host, "x")


def test_schedule_leaves_alone_what_the_user_keeps(host):
    """Held, active, renamed, and made by hand."""
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1min:1min")
    host.svctl("create-snapshot", "tank/v@mine")
    host.svctl("run-schedules")
    held, = snapshots(host)
    host.svctl("hold", f"tank/v@{held}")
    turns(host, 1, 60)
    active = snapshots(host)[-1]
    host.svctl("activate", f"tank/v@{active}")
    turns(host, 1, 60)
    host.svctl("rename-snapshot", f"tank/v@{snapshots(host)[-1]}", "kept")
    turns(host, 3, 60)
    last = snapshots(host)
    assert last[:2] == [held, active] and len(last) == 3, last
    shown = host.json("show", "tank/v@kept")
    assert shown["scheduled"] is False and shown["held"] is False, shown
    host.svctl("show", "tank/v@mine")
    host.svctl("release", f"tank/v@{held}")
    host.svctl("deactivate", f"tank/v@{active}")
    assert host.json("run-schedules")["deleted"] == [f"tank/v@{name}" for name in (held, active)]
    assert snapshots(host) == last[2:]


def test_schedule_outlives_clocks_that_jump(host):
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1h:4h")
    turns(host, 6, 3600)
    before = snapshots(host)
    assert len(before) == 4, before
    later(host, 10 * 365 * 86400)
    host.svctl("run-schedules")
    assert snapshots(host)[:3] == before[1:], "a clock that jumped has cost more than one"
    later(host, -10 * 365 * 86400)
    host.svctl("run-schedules")
    now = snapshots(host)
    assert len(now) == 4 and now[:2] == before[1:3], now    # the new one takes the place of before[3], of the same hour
    turns(host, 1, 3600)
    assert len(snapshots(host)) == 4 and now[3] in snapshots(host), "the newest was taken for the oldest"


def test_schedule_goes_with_its_volume(host):
    """Over a restart and a rollback, and in a dump; a clone has none."""
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1h:2h,1d:7d", "--autoactivate", "no")
    host.svctl("run-schedules")
    first, = snapshots(host)
    host.svctl("create-volume", "tank/c", "--from", f"v@{first}")
    host.kill()
    host.start()
    host.svctl("activate", "tank/v")
    host.write("tank/v", 0, bytes(8192))
    host.flush("tank/v")
    host.svctl("deactivate", "tank/v")
    host.svctl("rollback-volume", f"tank/v@{first}", "--yes")
    assert host.svctl("list", "-H", "-t", "volume", "-o", "name,schedule") == "tank/c\tnone\ntank/v\t1h:2h,1d:7d\n"
    assert snapshots(host) == [first]
    assert host.json("run-schedules")["result"] == "no change"
    host.call("io.svctl.sim.Checkpoint", pool="tank", volume="v")
    before = host.dump()
    assert " manual" in before and " schedule 1h:2h,1d:7d\n" in before and " scheduled\n" in before, before
    host.kill()
    for disk in ("fast", "slow1", "slow2"):
        host.disk(disk)
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"fast={host.dir}/fast", "--tier", f"slow={host.dir}/slow1,{host.dir}/slow2")
    for bad in ("schedule 5m:1h", "schedule", "scheduled"):
        with open(f"{host.dir}/dump", "w", encoding="ascii") as f:
            f.write(before.replace("schedule 1h:2h,1d:7d", bad))
        host.refused(2, "restore", "tank", f"{host.dir}/dump")
    with open(f"{host.dir}/dump", "w", encoding="ascii") as f:
        f.write(before)
    host.svctl("restore", "tank", f"{host.dir}/dump")

    def lines(dump):
        return [line for line in dump.splitlines() if line.split()[0] in ("volume", "snapshot")]

    assert lines(host.dump()) == lines(before)


def test_late_snapshots_are_told(host):
    host.used_pool()
    assert "SV-SNAPSHOT-LATE" not in host.svctl("status")
    host.svctl("set-volume", "tank/v", "--schedule", "5min:1h")

    looked = 0

    def late(after):
        """So many seconds later, by every clock."""
        nonlocal looked
        looked += after
        later(host, after)
        host.call("io.svctl.sim.Look", seconds=looked)
        return "SV-SNAPSHOT-LATE" in [p["id"] for p in host.json("status")["pools"][0]["problems"]]

    # The first one is due at once.
    assert not late(0) and not late(9 * 60)
    assert late(2 * 60)
    assert "svctl-schedule.timer" in host.svctl("status")
    assert "SV-SNAPSHOT-LATE" in host.svctl("metrics")
    assert host.logged("[SV-SNAPSHOT-LATE]") and not host.logged("it is over of v")
    host.svctl("run-schedules", "--dry-run")
    assert late(0)
    host.svctl("run-schedules")
    assert not late(0) and host.logged("it is over of v")
    # However long its interval: ten minutes from when one is due, which is noticed within half a minute.
    host.svctl("set-volume", "tank/v", "--schedule", "1d:30d")
    host.svctl("run-schedules")
    assert not late(60)
    assert not late(86400) and late(10 * 60)
    host.svctl("set-volume", "tank/v", "--schedule", "none")
    assert not late(60)


def test_volume_that_fails_keeps_no_other_from_its_snapshot(host):
    """Its snapshots' devices would have names that are too long, since its pool was renamed."""
    host.start()
    long, pool = "v" + 46 * "-", "t" * 16
    host.svctl("create-pool", "tank", "--tier", f"fast={host.disk('fast')}")
    for name in ("v", "w"):
        host.svctl("create-volume", f"tank/{name}", "--size", "64M")
        host.svctl("set-volume", f"tank/{name}", "--schedule", "1h:2h")
    host.svctl("rename-volume", "tank/v", long)
    host.svctl("export-pool", "tank")
    host.svctl("import-pool", "tank", "--rename", pool)
    host.refused(2, "run-schedules", says="@auto-")
    assert not snapshots(host, long) and len(snapshots(host, "w")) == 1
    host.refused(2, "run-schedules")
    host.svctl("set-volume", f"{pool}/{long}", "--schedule", "none")
    host.refused(2, "set-volume", f"{pool}/{long}", "--schedule", "1h:2h", says="@auto-")
    host.svctl("rename-volume", f"{pool}/{long}", "v")
    host.svctl("set-volume", f"{pool}/v", "--schedule", "1h:2h")
    host.svctl("run-schedules")
    assert len(snapshots(host)) == 1 and len(snapshots(host, "w")) == 1
    host.refused(2, "rename-volume", f"{pool}/v", long, says="@auto-")


def test_cut_that_fails_is_made_one_by_one(host):
    """Whichever call to the kernel fails first: in the end each volume has its snapshot, in the same turn or the next one."""
    host.used_pool()
    for name in ("w", "x"):
        host.svctl("create-volume", f"tank/{name}", "--size", "64M")
    for name in ("v", "w", "x"):
        host.svctl("set-volume", f"tank/{name}", "--schedule", "1h:100h")
    alone = 0
    for call in range(1, 12):
        later(host, 3600)
        host.call("io.svctl.sim.FailCall", call=call)
        try:
            host.svctl("run-schedules")
        except harness.Refused:
            alone += 1
        host.call("io.svctl.sim.FailCall", call=0)
        host.svctl("run-schedules")
        assert [len(snapshots(host, name)) for name in ("v", "w", "x")] == [call] * 3, call
    print(f"     {alone} of 11 turns failed for a volume")
    host.svctl("check", "tank")


def test_schedule_that_keeps_less_asks_first(host):
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1h:9h")
    turns(host, 9, 3600)
    host.write("tank/v", 0, bytes(8192))
    host.flush("tank/v")
    before = snapshots(host)
    with host.unchanged():
        told = host.refused(2, "set-volume", "tank/v", "--schedule", "1h:3h", says="repeat with --yes")
        assert [name in told for name in before] == [True] * 6 + [False] * 3, told
        assert len(host.json("set-volume", "tank/v", "--schedule", "1h:3h", "--dry-run")["destroys"]) == 6
        assert host.json("set-volume", "tank/v", "--schedule", "1h:10h", "--dry-run")["destroys"] == []
    host.svctl("set-volume", "tank/v", "--schedule", "1h:3h", "--yes")
    assert snapshots(host) == before
    assert len(host.json("run-schedules")["deleted"]) == 6
    # What there is when a schedule ends is the user's, whatever comes later.
    host.svctl("set-volume", "tank/v", "--schedule", "none")
    assert not snapshots(host)
    host.svctl("set-volume", "tank/v", "--schedule", "1h:1h")
    turns(host, 2, 3600)
    assert len(host.json("list")["pools"][0]["snapshots"]) == 3 + 1
    host.refused(5, "delete-volume", "tank/v", "--yes", says="--schedule none")


def test_names_of_a_second_that_comes_again_are_told_apart(host):
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1min:10min")
    for ahead in range(20):
        name = time.strftime("auto-%Y%m%dT%H%M%SZ", time.gmtime(time.time() + ahead))
        host.svctl("create-snapshot", f"tank/v@{name}")
    host.svctl("run-schedules")
    name, = snapshots(host)
    assert name.startswith("auto-") and name.endswith("Z-2"), name


def test_svd_dies_while_it_runs_schedules(host):
    host.used_pool()
    host.svctl("set-volume", "tank/v", "--schedule", "1min:2min")
    turns(host, 2, 60)
    for i, point in enumerate(POINTS):
        host.kill()
        host.start(SVD_KILL_AT=point)
        later(host, (i + 1) * 3600)     # its clock begins anew
        host.refused(20, "run-schedules")
        host.wait_killed()
        host.start()
        later(host, (i + 1) * 3600)
        host.svctl("check", "tank")
        host.svctl("run-schedules")
        assert len(snapshots(host)) == 2, point
        host.svctl("check", "tank")


def test_refuses_what_is_no_schedule(host):
    host.used_pool()
    with host.unchanged():
        for text in ("5m:1h", "5min", "1h:5min", "1min:1000h", "daily", "5min:1h,,1h:1d", "5min:1h,5min:2h", "0min:1h", "-1h:1d", "1h:1d "):
            host.refused(2, "set-volume", "tank/v", f"--schedule={text}", says="schedule")
        host.refused(2, "set-volume", "tank/v", "--schedule", "")
        host.refused(3, "set-volume", "tank/w", "--schedule", "1h:1d")
        host.refused(2, "set-volume", "tank", "--schedule", "1h:1d")
        assert "from then on" in host.svctl("set-volume", "tank/v", "--schedule", "1h:1d", "--dry-run")
        host.refused(2, "run-schedules", "tank")
    host.svctl("set-volume", "tank/v", "--schedule", "1h:1d")
    host.svctl("deactivate", "tank")
    host.refused(5, "set-volume", "tank/v", "--schedule", "none", says="svctl activate tank")
    assert host.json("run-schedules")["result"] == "no change"
    host.svctl("activate", "tank", "--read-only")
    assert host.json("run-schedules")["result"] == "no change"
    assert not snapshots(host)

"""The kernel refuses one of svd's calls, each in turn: a command is done or has changed nothing, and what a done one
still owes follows by itself."""

import itertools
import time

from harness import MIB, Refused


class Trial:
    """One command with its first call refused, then its second, until none is left that could be. `pool` is watched,
    and the data of its volume v."""

    def __init__(self, host, pool="tank"):
        self.host, self.pool = host, pool
        self.data = host.read(f"{pool}/v", 0, MIB)

    def seen(self):
        """What users see: no numbers that are given out once only."""
        pools = self.host.json("list")["pools"]
        for pool in pools:
            pool.pop("uuid")
            if pool["state"] == "down":     # why it did not come up, the last time
                pool.pop("problems")
            for one in pool.get("volumes", []) + pool.get("snapshots", []):
                one.pop("id")
                one.pop("created", None)
        return sorted(pools, key=lambda pool: pool["name"])

    def everything(self):
        """Numbers that were given out are not given out again, and undoing is journalled too."""
        seen = self.seen()
        dumps = {}
        for name in [pool["name"] for pool in seen if pool["state"] == "active"]:
            self.host.svctl("check", name)
            dumps[name] = [line for line in self.host.dump(name).splitlines() if line.split()[0] not in ("journal", "next")]
        if self.pool in dumps:
            assert self.host.read(f"{self.pool}/v", 0, MIB) == self.data
        return seen, dumps

    def settle(self, wanted):
        """What is owed is done within moments."""
        deadline = time.monotonic() + 20
        while (found := self.seen()) != wanted:
            assert time.monotonic() < deadline, f"{found}\ninstead of\n{wanted}"
            time.sleep(0.1)

    def run(self, words, undo=(), hurry=()):
        """Returns how often it was refused and how often it was done all the same. With `hurry` what a done one owes is
        waited for once; then that command has it done at once."""
        start = self.seen()
        self.host.svctl(*words)
        end = self.seen()
        refused = done = call = 0
        waiting = False
        while not waiting:
            for u in undo:
                self.host.svctl(*u)
            self.settle(start)
            before = self.everything()
            call += 1
            self.host.fail_call(call)
            refusal = self.refusal(words)
            waiting = self.host.fail_call(0)
            if refusal:
                assert "memory" in refusal.text and "[SV-FAILURE]" in refusal.text, refusal.text
                refused += 1
                now = self.everything()
                assert now == before, f"{words}, call {call}: {refusal.text}{now}\ninstead of\n{before}"
                self.host.svctl(*words)
            else:
                done += not waiting
            if hurry and done > 1:
                self.host.svctl(*hurry)
            self.settle(end)
            self.everything()
        return refused, done

    def refusal(self, words):
        try:
            self.host.svctl(*words)
        except Refused as refused:
            return refused
        return None


def test_kernel_refuses_calls_of_volume_commands(host):
    host.used_pool()
    host.svctl("create-volume", "tank/w", "--size", "8M")
    host.write("tank/w", 0, b"w" * 65536, fua=True)
    trial = Trial(host)
    create, delete = ["create-volume", "tank/x", "--size", "1M"], ["delete-volume", "tank/x", "--yes"]
    refused, _ = trial.run(create, [delete])
    assert refused >= 2
    refused, done = trial.run(delete, [create])
    assert refused >= 2 and done and host.logged("kernel command VOLUME_DROP")
    up, down = ["activate", "tank/w"], ["deactivate", "tank/w"]
    refused, _ = trial.run(down, [up])
    assert refused == 2
    refused, _ = trial.run(up, [down])
    assert refused == 1
    host.svctl(*up)
    refused, _ = trial.run(["rename-volume", "tank/w", "z"], [["rename-volume", "tank/z", "w"]])
    assert refused == 2     # whether it is open, and its new name
    anew = [["delete-volume", "tank/x", "--yes"], create]
    host.svctl(*create)
    refused, _ = trial.run(["resize-volume", "tank/x", "--size", "2M"], anew)
    assert refused == 2


def test_kernel_refuses_calls_of_snapshot_commands(host):
    host.used_pool()
    trial = Trial(host)
    create, delete = ["create-snapshot", "tank/v@one"], ["delete-snapshot", "tank/v@one", "--yes"]
    refused, _ = trial.run(create, [delete])
    assert refused >= 1
    trial.run(delete, [create])
    host.svctl(*create)
    up, down = ["activate", "tank/v@one"], ["deactivate", "tank/v@one"]
    refused, _ = trial.run(up, [down])
    assert refused >= 2
    refused, _ = trial.run(down, [up])
    assert refused >= 2
    clone, gone = ["create-volume", "tank/c", "--from", "v@one"], ["delete-volume", "tank/c", "--yes"]
    refused, _ = trial.run(clone, [gone])
    assert refused >= 3
    trial.run(gone, [clone])


def test_kernel_refuses_calls_of_a_rollback(host):
    host.used_pool()
    host.svctl("create-snapshot", "tank/v@one")
    host.write("tank/v", 2 << 20, b"w" * 65536, fua=True)
    host.svctl("create-snapshot", "tank/v@two")
    back, forth = (["rollback-volume", f"tank/v@{name}", "--yes"] for name in ("one", "two"))
    refused, _ = Trial(host).run(back, [forth])
    assert refused >= 4


def test_kernel_refuses_calls_of_pool_commands(host):
    host.used_pool()
    host.svctl("create-volume", "tank/w", "--size", "8M")
    trial = Trial(host)
    down, up = ["deactivate", "tank"], ["activate", "tank"]
    refused, _ = trial.run(down, [up])
    assert refused >= 5
    host.svctl(*up)
    for words in (["check", "tank"], ["dump", "tank"], ["show", "tank"]):
        refused, _ = trial.run(words)
        assert refused, words
    host.svctl(*down)
    refused, _ = trial.run(up, [down])
    assert refused >= 8


def test_kernel_refuses_calls_while_pools_are_made_and_deleted(host):
    host.used_pool()
    trial = Trial(host)
    disk = host.disk("other")
    create, delete = ["create-pool", "p", "--tier", f"t={disk}"], ["delete-pool", "p", "--yes"]
    refused, _ = trial.run(create, [delete])
    assert refused >= 5
    refused, _ = trial.run(delete, [create])
    assert refused >= 2


def test_kernel_refuses_calls_while_a_pool_is_exported_and_imported(host):
    host.used_pool()
    trial = Trial(host)
    out, back = ["export-pool", "tank"], ["import-pool", "tank"]
    refused, _ = trial.run(out, [back])
    assert refused >= 5, refused
    refused, _ = trial.run(back, [out])
    assert refused >= 8, refused
    host.svctl(*out)
    undo = [["export-pool", "vault"], ["import-pool", "vault", "--rename", "tank"], out]
    refused, _ = trial.run([*back, "--rename", "vault"], undo)
    assert refused >= 8, refused


def test_kernel_refuses_calls_while_a_pool_is_restored(host):
    host.used_pool()
    text = f"{host.dir}/text"
    with open(text, "w", encoding="ascii") as f:
        f.write(host.dump())
    disks = [host.disk(f"p{i}") for i in range(3)]
    host.svctl("create-pool", "p", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]},{disks[2]}")
    trial = Trial(host)
    restore, undo = ["restore", "p", text], ["delete-volume", "p/v", "--yes"]
    refused, done = trial.run(restore, [undo], hurry=["scan"])
    assert refused >= 4 and done >= 8, (refused, done)
    host.svctl(*undo)
    host.fail_call(refused + 1)
    said = host.svctl(*restore)
    assert "pool p restored; it is not up yet: " in said and "memory" in said and "svctl status" in said, said
    assert "SV-ACTIVATION-FAILED" in host.svctl("status")


def test_kernel_that_does_not_answer_is_told(host):
    """One of the calls that a look at the pool takes is for its state; svd makes others by itself meanwhile."""
    host.used_pool()
    deadline = time.monotonic() + 20
    for call in itertools.cycle(range(1, 10)):
        host.fail_call(call)
        if "[SV-KERNEL-SILENT]" in host.svctl("status"):
            break
        assert time.monotonic() < deadline
    host.fail_call(0)
    assert host.codes() == []


def test_kernel_refuses_calls_while_a_device_is_added(host):
    """Its label makes it a member: what the kernel refuses follows by itself."""
    host.used_pool()
    for call in range(1, 50):
        disk = host.disk(f"more{call}", 64)
        free = host.json("list")["pools"][0]["free"]
        host.fail_call(call)
        host.svctl("add-device", "tank", f"slow={disk}")
        waiting = host.fail_call(0)
        deadline = time.monotonic() + 20
        while host.json("list")["pools"][0]["free"] < free + 50 * MIB:
            assert time.monotonic() < deadline, call
            time.sleep(0.1)
        host.svctl("check", "tank")
        if waiting:
            break
    assert 2 < call < 49
    assert host.logged("[SV-MEMBER-PENDING]")
    host.stop()
    host.start()
    pool = host.json("list")["pools"][0]
    assert pool["state"] == "active" and len(pool["devices"]) == 3 + call
    host.svctl("check", "tank")

"""Latency histograms of volumes: what fio did is what they counted, where it belongs, whatever happens to tables and svd."""

import json
import types

import vm
from svctl import Svctl
from t_module import devs, pool_up, script, two_tiers

SIZE = (512 << 20) // 512
FIO = "fio --name=x --filename=/dev/sv/tank/a --ioengine=psync --direct=1 --bs=4k --invalidate=0 --output-format=json "


def fio(s, options):
    return json.loads(s.run(FIO + options))["jobs"][0]


def shown(s):
    """(histograms by class, summary lines by class) of tank/a."""
    answer = json.loads(s.run("svctl --json show tank/a"))
    assert all(sum(b["ios"] for b in h["buckets"]) == h["ios"] for h in answer["histograms"]), answer
    kinds = [h["class"] for h in answer["histograms"]]
    assert len(set(kinds)) == len(kinds), "everything lies on one tier"
    return {h["class"]: h for h in answer["histograms"]}, {line["class"]: line for line in answer["latency"]}


@vm.full
@vm.limit(240)
def test_counts_equal_what_fio_did(bench):
    disk = bench.disk("a", "512M")
    with bench.boot([disk]) as guest:
        guest.run(f"modprobe dm-delay; dmsetup create under --table '0 {SIZE} linear {disk.dev} 0'")
        s = Svctl(guest, [types.SimpleNamespace(dev="/dev/mapper/under")])
        s.run("svctl create-pool tank --tier only=/dev/mapper/under; svctl create-volume tank/a --size 64M")
        assert not shown(s)[0], "nobody has used it yet"

        wrote = fio(s, "--rw=write --size=4M --fsync=128")
        histograms, _ = shown(s)
        assert {kind: h["ios"] for kind, h in histograms.items()} == {
            "write": wrote["write"]["total_ios"], "flush": wrote["sync"]["total_ios"]}, histograms
        assert histograms["write"]["ios"] == 1024 and histograms["write"]["bytes"] == 4 << 20
        assert histograms["write"]["tier"] == "only" and "tier" not in histograms["flush"]
        # The kernel's clock runs within fio's.
        assert 0 < histograms["write"]["total_ns"] < wrote["write"]["lat_ns"]["mean"] * 1024 * 1.001

        # A delay of 8 ticks of 4 ms, of which some may have been late when it began: those of a busy guest come in bunches. A
        # read of 28.4 ms by fio was one of less than 25.2 in the kernel.
        s.run(f"dmsetup reload under --table '0 {SIZE} delay {disk.dev} 0 32 {disk.dev} 0 0'\n"
              "dmsetup suspend under; dmsetup resume under")
        read = fio(s, "--rw=randread --size=4M --number_ios=60")
        histograms, lines = shown(s)
        reads = histograms["read"]
        assert reads["ios"] == read["read"]["total_ios"] == 60
        assert min(b["from_ns"] for b in reads["buckets"]) >= 2 << 23, "16.8 ms: most of the delay"
        assert reads["total_ns"] < read["read"]["lat_ns"]["mean"] * 60 * 1.001
        assert max(b["from_ns"] for b in reads["buckets"]) <= read["read"]["lat_ns"]["max"]
        assert lines["read"]["ios"] == 60 and 3 << 23 < lines["read"]["p50_below_ns"] <= lines["read"]["all_below_ns"]
        assert lines["write"]["p50_below_ns"] < 3 << 23, "writes were not delayed"
        s.run(f"dmsetup reload under --table '0 {SIZE} linear {disk.dev} 0'; dmsetup suspend under; dmsetup resume under")

        # Discards and zeroes. Without -f, blkdiscard would look what is there.
        s.run("blkdiscard -f -o 0 -l 1M /dev/sv/tank/a; blkdiscard -f -z -o 1M -l 1M /dev/sv/tank/a")
        assert shown(s)[0]["discard"]["ios"] == 2 and shown(s)[0]["discard"]["bytes"] == 2 << 20

        # The same, through tables and daemons.
        before = shown(s)
        s.run("dmsetup table sv-tank-a | dmsetup reload sv-tank-a; dmsetup suspend sv-tank-a; dmsetup resume sv-tank-a\n"
              "svctl resize-volume tank/a --size 128M")
        assert shown(s) == before
        s.kill()
        s.start()
        assert shown(s) == before
        text = s.run("svctl show tank/a")
        print(text)
        assert "\nlatency:\n  read: 60 ios, p50 < " in text
        s.run("svctl check tank; svctl deactivate tank; svctl activate tank")
        assert not shown(s)[0], "a device made anew counts from 0"


def test_counts_go_by_tier(bench):
    disks = two_tiers(bench, "64M")
    with bench.boot(disks) as guest:
        pool_up(guest, devs(disks), ring=4)
        script(guest, """
import mmap

def rows(volume):
    out = pool.call("HISTOGRAMS", [{"volume": volume}], 20)
    for h in out:
        assert h["ios"] == sum(h[f"b{i}"] for i in range(54)) and not h["errors"] and h["volume"] == volume
    return {(h["io_class"], h["tier"]): (h["ios"], h["bytes"]) for h in out}

READ, WRITE, DISCARD, FLUSH, NONE = 0, 1, 2, 3, 255
pool = sv.Pool()
pool.attach()
for number in (1, 2):
    pool.ask_nothing("VOLUME_CREATE", id=number, layer=1, owned_since=1, size=sv.MIB * 64,
                     tiers=(1 << 64) - 1 & ~0xff | number - 1)
    assert rows(number) == {}, "no device"
    idle = pool.ask("STATE")["memory"]
    sv.dmsetup("create", f"v{number}", table=sv.volume_table(number, sv.MIB * 64))
    assert pool.ask("STATE")["memory"] == idle, "a CPU gets a volume's rows with the first I/O that ends on it"
v1, v2 = (os.open(f"/dev/mapper/v{n}", os.O_RDWR | os.O_DIRECT) for n in (1, 2))
block = mmap.mmap(-1, 4096)
assert rows(1) == rows(2) == {}
for i in range(10):
    os.pwrite(v1, block, i * 4096)
for i in range(7):
    os.pwrite(v2, block, i * 4096)
for i in range(12):             # 2 of them of what was never written
    os.preadv(v1, [block], i * 4096)
os.preadv(v2, [block], 0)
os.fsync(v2)
assert 0 < pool.ask("STATE")["memory"] - idle < 4 * 64 << 10, "two volumes, two CPUs"
assert rows(1) == {(WRITE, 0): (10, 40960), (READ, 0): (10, 40960), (READ, NONE): (2, 8192)}, rows(1)
assert rows(2) == {(WRITE, 1): (7, 28672), (READ, 1): (1, 4096), (FLUSH, NONE): (1, 0)}, rows(2)
# A write that would have to wait for space and may not is not counted: who sent it will send it again.
wrote = 17
try:
    for i in range(128):
        os.pwritev((v1, v2)[i % 2], [block], i // 2 * sv.MIB, os.RWF_NOWAIT)
        wrote += 1
    raise AssertionError("the pool is not full")
except BlockingIOError:
    pass
assert wrote > 100 and sum(ios for v in (1, 2) for (c, _), (ios, _) in rows(v).items() if c == WRITE) == wrote
for bad in (3, 0):
    try:
        rows(bad)
        raise AssertionError(bad)
    except OSError as error:
        assert error.errno == errno.ENOENT, error
os.close(v1)
os.close(v2)
""")
        guest.run("dmsetup remove v1; dmsetup remove v2; dmsetup remove pool; rmmod dm_sv")

"""Snapshots on the real module: what they show stays what it was, while their volume is written, while svd dies, and after power
cuts; several volumes are cut at one moment."""

import os

import vm
from svctl import Svctl, pool_of

HERE = os.path.dirname(os.path.abspath(__file__))
DEPENDENT = f"python3 -S -E {HERE}/guest/dependent.py"


def digest(s, device):
    """Of a snapshot, past the page cache."""
    return s.run(f"dd if=/dev/sv/tank/{device} bs=1M iflag=direct status=none | sha256sum").split()[0]


@vm.limit(300)
def test_snapshots_stay_what_they_were_under_load(bench):
    disks = [bench.disk(name, "1G") for name in ("fast", "slow")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}", size="32M")
        load = guest.start("fio --name=w --filename=/dev/sv/tank/a --rw=randwrite --bsrange=4k-64k --direct=1 --ioengine=libaio "
                           "--iodepth=16 --verify=crc32c --do_verify=1 --loops=3 --fsync=64 --output-format=terse")
        digests = {}
        for i in range(5):
            s.run(f"sleep 1; svctl create-snapshot tank/a@s{i}; svctl activate tank/a@s{i}")
            digests[f"a@s{i}"] = digest(s, f"a@s{i}")
            if i == 2:      # svd dies; the snapshots that are active are served on
                s.kill()
                assert digest(s, "a@s1") == digests["a@s1"]
                s.start()
            if i == 3:      # one in the middle goes
                s.run("svctl deactivate tank/a@s1; svctl delete-snapshot tank/a@s1 --yes")
                del digests["a@s1"]
        load.wait(200)
        for name, was in digests.items():
            assert digest(s, name) == was, name
        s.run("svctl create-volume tank/c --from a@s2; svctl check tank")
        assert digest(s, "c") == digests["a@s2"]
        # All of them go: the volume stays, and the pool has only what it needs.
        now = digest(s, "a")
        s.run("svctl delete-volume tank/c --yes\n" + "".join(
            f"svctl deactivate tank/{name}; svctl delete-snapshot tank/{name} --yes\n" for name in digests))
        s.run("sleep 5; svctl check tank")
        assert digest(s, "a") == now
        # What is left in part of older extents goes once all is overwritten.
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=32 oflag=direct status=none; sync /dev/sv/tank/a\n"
              "for i in $(seq 60); do test $(svctl list -H -t pool -o used) -le $((32 << 20)) && exit; sleep 1; done; svctl show tank; exit 1")
        s.run("svctl check tank; svctl list")


@vm.limit(240)
def test_snapshots_survive_power_cuts(bench):
    disks = [bench.disk(name, "512M", backend="volatile") for name in ("fast", "slow")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}", size="128M")
        s.run("mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; cp -r /usr/include/linux /mnt; sync -f /mnt\n"
              "svctl create-snapshot tank/a@one; svctl activate tank/a@one")
        was = digest(s, "a@one")
        s.run("rm -r /mnt/linux; dd if=/dev/urandom of=/mnt/new bs=1M count=24 status=none; sync -f /mnt\n"
              "svctl create-snapshot tank/a@two; svctl create-volume tank/c --from a@one")
        guest.power_cut()
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        s.run("svctl activate tank/a@one; svctl activate tank/a@two")
        assert digest(s, "a@one") == was
        assert digest(s, "c") == was
        s.run("mount -o ro,noload /dev/sv/tank/a@two /mnt; test -s /mnt/new -a ! -e /mnt/linux; umount /mnt\n"
              "mount /dev/sv/tank/a /mnt; test -s /mnt/new; umount /mnt; fsck.ext4 -fn /dev/sv/tank/a\n"
              "mount /dev/sv/tank/c /mnt; diff -r /usr/include/linux /mnt/linux; umount /mnt; svctl check tank")


@vm.limit(180)
def test_volumes_are_cut_at_one_moment(bench):
    disks = [bench.disk("fast", "512M")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", size="16M")
        s.run("svctl create-volume tank/b --size 16M")
        load = guest.start(f"{DEPENDENT} write /dev/sv/tank/a /dev/sv/tank/b")
        vm.wait_until(lambda: int(s.run(f"{DEPENDENT} read /dev/sv/tank/b")) > 0, 60, "the first numbers")
        last = 0
        for i in range(12):
            s.run(f"sleep 0.2; svctl create-snapshot tank/a@{i} tank/b@{i}; svctl activate tank/a@{i}; svctl activate tank/b@{i}")
            first, second = map(int, s.run(f"{DEPENDENT} read /dev/sv/tank/a@{i} /dev/sv/tank/b@{i}").split())
            print(first, second)
            assert second <= first <= second + 1, (first, second)
            assert second >= last, (second, last)
            last = second
        assert last > 100, "the writer did not go on"
        s.run("pkill -f dependent.py")
        load.wait(20, check=False)
        s.run("svctl check tank")

"""Rarely taken ways: flushes that fail, a pool that is full when svd restarts, read-only pools, 32-bit clients."""

import vm
from svctl import ROOT, Svctl, pool_of
from t_trouble import refused


class Named:
    """A device of the guest in place of a disk."""

    def __init__(self, dev):
        self.dev = dev


def with_faulty(guest, disks, faulty):
    """Svctl on these disks; the faulty one lies under a device that switch() makes fail writes and flushes."""
    guest.run(f"dmsetup create faulty --table \"0 $(blockdev --getsz {faulty.dev}) linear {faulty.dev} 0\"")
    return Svctl(guest, [Named("/dev/mapper/faulty") if disk is faulty else disk for disk in disks])


def switch(faulty, flushes):
    """Flushes fail, since they fail in the device's last sectors, which nobody writes; or all is well again."""
    return (f"size=$(blockdev --getsz {faulty.dev}); first=$((size - 8))\n"
            "dmsetup suspend --noflush --nolockfs faulty\n"
            f"printf \"0 $first linear {faulty.dev} 0\\n$first 8 {{}} {faulty.dev} $first{{}}\\n\" | dmsetup load faulty\n"
            "dmsetup resume faulty\n").format(*(("linear", "") if flushes else ("flakey", " 0 60 1 error_writes")))


WRITE = "dd if=/tmp/{} of=/dev/sv/tank/a bs=64k seek={} count=1 oflag=direct conv=notrunc status=none\n"


@vm.limit(240)
def test_a_failed_flush_fails_fsync_and_promises_nothing(bench):
    disks = fast1, fast2, slow = [bench.disk("fast1", "128M"), bench.disk("fast2", "128M"), bench.disk("slow", "512M")]
    with bench.boot(disks, expect=["Buffer I/O", "I/O error"]) as guest:
        s = with_faulty(guest, disks, slow)
        # Both fast members hold journal and catalogue; once they are full, first writes go to the slow one.
        pool_of(s, f"fast={fast1.dev},{fast2.dev}", "slow=/dev/mapper/faulty")
        s.run("svctl create-volume tank/fill --size 1G; for f in one two; do head -c 64k /dev/urandom > /tmp/$f; done\n"
              "dd if=/dev/zero of=/dev/sv/tank/fill bs=1M count=200 oflag=direct conv=fsync\n"
              "svctl show tank; modprobe dm-flakey 2>/dev/null || true")
        # Written, the flush fails, the device is well again, fsync succeeds: it is there.
        s.run(switch(slow, False) + WRITE.format("one", 0) + "refused sync /dev/sv/tank/a\n" +
              switch(slow, True) + "sync /dev/sv/tank/a; dmsetup status")
        # Written, and no flush ever succeeded: it was never promised, though this disk happens to keep it.
        # Nor by a commit of its own between the write and the first flush that failed: none has passed since.
        s.run(switch(slow, False) + WRITE.format("two", 16) +
              "for i in 1 2 3; do refused sync /dev/sv/tank/a; done; cp /tmp/one /share/\n"
              "dmsetup status | grep sv-tank-a; cmp -n 65536 /dev/sv/tank/a /tmp/one")
        one = guest.get("one")
        guest.power_cut()
    with bench.boot(disks, expect=["Buffer I/O", "I/O error"]) as guest:
        s = with_faulty(guest, disks, slow)
        guest.put("one", one)
        print(s.run("cmp -n 65536 /dev/sv/tank/a /share/one\n"
                    "dd if=/dev/sv/tank/a bs=64k skip=16 count=1 status=none | cmp -n 65536 - /dev/zero\n"
                    "svctl check tank; svctl show tank"))


FULL = "dd if=/dev/zero of=/dev/sv/tank/a bs=1M seek={} count=1 oflag=direct conv=notrunc status=none"
# A write that finds no space waits 60 s, unless svd has said that there is none.
FAILS_FAST = "begin=$SECONDS; refused " + FULL.format(300) + "; test $((SECONDS - begin)) -lt 30\n"


@vm.full
@vm.limit(240)
def test_full_is_said_by_each_svd_and_taken_back(bench):
    disk = bench.disk("a", "96M")
    with bench.boot([disk], expect=["I/O error", "no space", "Buffer I/O"]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"slow={disk.dev}")
        s.run("refused dd if=/dev/zero of=/dev/sv/tank/a bs=1M count=200 oflag=direct status=none\n"
              "grep -c 'pool tank is full' /run/svctl/log | grep -x 1; svctl status | grep 'is full'\n" + FAILS_FAST)
        # The next svd takes it back, finds that it is still so, and says it again.
        s.kill()
        s.start()
        s.run(FAILS_FAST + "grep -c 'pool tank is full' /run/svctl/log | grep -x 2; svctl check tank")
        # Space that came while no svd ran: its word ends with the old one's, and the write waits until it is there.
        s.kill()
        s.run("blkdiscard -l 16M /dev/sv/tank/a")
        s.start()
        s.run(FULL.format(200) + "; svctl status > /tmp/status; refused grep 'is full' /tmp/status; svctl check tank")
        # And without a restart.
        s.run("refused dd if=/dev/zero of=/dev/sv/tank/a bs=1M count=200 oflag=direct status=none\n" + FAILS_FAST +
              "blkdiscard -l 8M /dev/sv/tank/a\n"
              "for i in $(seq 60); do grep -q 'has space again' /run/svctl/log && break; sleep 1; done\n"
              "grep 'has space again' /run/svctl/log; " + FULL.format(201) + "; svctl check tank")


@vm.limit(180)
def test_many_freed_extents_are_told_and_given_back(bench):
    """Without the event they would wait for the checkpoint after 30 s; FREED comes with the 64th."""
    disk = bench.disk("a", "512M")
    with bench.boot([disk]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"slow={disk.dev}")
        print(s.run("dd if=/dev/zero of=/dev/sv/tank/a bs=1M count=300 oflag=direct conv=fsync status=none\n"
                    "svctl check tank; blkdiscard -l 300M /dev/sv/tank/a; begin=$SECONDS\n"
                    "for i in $(seq 100); do svctl --json list | grep -q '\"used\": *0,' && break; sleep 0.2; done\n"
                    "svctl list; test $((SECONDS - begin)) -lt 25; svctl check tank"))


DISCARDED = "awk '{{print $14}}' /sys/class/block/$(basename $(readlink -f {}))/stat"   # sectors
# Written, removed and trimmed; then svd has given it back.
TRIM = """head -c 64M /dev/urandom > /mnt/gone; sync; rm /mnt/gone; sync; before=$({discarded})
used=$(svctl list -H -b -t pool -o used); fstrim /mnt
for i in $(seq 150); do test $(svctl list -H -b -t pool -o used) -lt $((used - 50000000)) && break; sleep 0.2; done
test $(svctl list -H -b -t pool -o used) -lt $((used - 50000000)); sectors=$(($({discarded}) - before)); echo discarded: $sectors
"""


@vm.full
@vm.limit(360)
def test_discards_are_passed_down_where_the_pool_says_so(bench):
    """And a member that does not answer one: its slots stay freed, the pool stays up, and no other svd takes over before it
    has answered."""
    disks = one, two, slow = [bench.disk("one", "96M"), bench.disk("two", "96M"), bench.disk("slow", "512M")]
    with bench.boot(disks) as guest:
        guest.run(f"dmsetup create slow --table \"0 $(blockdev --getsz {slow.dev}) linear {slow.dev} 0\"")
        s = Svctl(guest, [one, two, Named("/dev/mapper/slow")])
        pool_of(s, f"t={one.dev},{two.dev},/dev/mapper/slow")
        # The one with the most space is written to first.
        trim = TRIM.format(discarded=DISCARDED.format(slow.dev))
        print(s.run("mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; head -c 16M /dev/urandom > /mnt/f\n"
                    "sha256sum /mnt/f > /tmp/sums; svctl show tank | grep -x 'discard: keep'\n" +
                    trim + "test $sectors = 0; svctl set-pool tank --discard pass\n" +
                    trim + "test $sectors -gt 100000; svctl show tank > /tmp/shown; refused grep discarding /tmp/shown\n"
                    "umount /mnt; sync; echo 3 > /proc/sys/vm/drop_caches; mount /dev/sv/tank/a /mnt; sha256sum -c /tmp/sums\n"
                    "umount /mnt; fsck.ext4 -fn /dev/sv/tank/a; svctl check tank"))
        s.run("svctl create-volume tank/h --size 64M; dd if=/dev/zero of=/dev/sv/tank/h bs=1M oflag=direct status=none || true\n"
              "sync /dev/sv/tank/h; sleep 3; dmsetup suspend --noflush --nolockfs slow; svctl delete-volume tank/h --yes\n"
              "svctl show tank | grep discarding_bytes")
        refused(s, 5, "svctl deactivate tank", "/dev/mapper/slow has not answered a discard")
        print(s.run("svctl list; kill -9 $(pidof svd); sleep 2; refused flock -n /run/svctl/svd.lock true\n"
                    "dmsetup resume slow; flock -w 20 /run/svctl/svd.lock true"))
        s.start()
        print(s.run("for i in $(seq 100); do svctl show tank > /tmp/shown; grep discarding /tmp/shown || break; sleep 0.2; done\n"
                    "refused grep discarding /tmp/shown; svctl check tank; mount /dev/sv/tank/a /mnt; sha256sum -c /tmp/sums\n"
                    "umount /mnt; svctl deactivate tank; cat /run/svctl/log"))


@vm.limit(180)
def test_read_only_pool_has_read_only_volumes(bench):
    disk = bench.disk("a", "128M")
    with bench.boot([disk], expect=["I/O error", "Buffer I/O", "read-only"]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"slow={disk.dev}")
        s.run("mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; head -c 8M /dev/urandom > /mnt/f\n"
              "sha256sum /mnt/f > /tmp/sums; umount /mnt; svctl dump tank > /tmp/before; svctl deactivate tank\n"
              "svctl activate tank --read-only; test $(blockdev --getro /dev/sv/tank/a) = 1; dmsetup status\n"
              "dmsetup status sv-tank | grep -q ' sv-pool read-only active '; dmsetup status sv-tank-a | grep -qE ' sv-volume [1-9][0-9]* read-only rw$'\n"
              "refused dd if=/dev/zero of=/dev/sv/tank/a bs=4k count=1 oflag=direct status=none\n"
              "refused blkdiscard /dev/sv/tank/a; refused blkdiscard -z -l 1M /dev/sv/tank/a\n"
              "refused mkfs.ext4 -q -F /dev/sv/tank/a\n"
              "mount -o ro /dev/sv/tank/a /mnt; sha256sum -c /tmp/sums; umount /mnt")
        refused(s, 4, "svctl create-volume tank/b --size 1G", "read-only")
        s.run("svctl check tank; svctl deactivate tank; svctl activate tank\n"
              "test $(blockdev --getro /dev/sv/tank/a) = 0; svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after\n"
              "mount /dev/sv/tank/a /mnt; touch /mnt/g; umount /mnt")


BUILD_32 = (f"gcc -m32 -nostdlib -static -ffreestanding -fno-stack-protector -no-pie -O1 -I{ROOT}/kmod "
            "-I/usr/include/x86_64-linux-gnu")


@vm.full
def test_a_32_bit_client_is_served(bench):
    disk = bench.disk("a", "64M")
    with bench.boot([disk]) as guest:
        guest.load_sv()
        guest.run(f"python3 {vm.HERE}/sv_ioctl.py --ring 4 up {disk.dev}\n"
                  f"{BUILD_32} -DDEVICE=\"\\\"$(echo /dev/svctl-*)\\\"\" -o /tmp/client {vm.HERE}/guest/client32.c\n"
                  "file /tmp/client 2>/dev/null || true; /tmp/client")

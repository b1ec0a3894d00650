"""What goes wrong around a pool: busy and missing devices; full pools; svd killed or stopped."""

import os
import random
import re

import vm
from svctl import BIN, Svctl, pool_of

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 1 << 30)


def refused(s, code, command, *words):
    """The command ends with that exit code and a message of these words."""
    answer = s.run(f"ends {code} {command}")
    print(f"$ {command}\n{answer}", end="")
    for word in words:
        assert word in answer, f"no {word!r} in the answer to {command}"


@vm.limit(120)
def test_busy_and_mounted_devices_are_refused(bench):
    member, mounted, linear, swap, blank = disks = [
        bench.disk(name, "128M") for name in ("member", "mounted", "linear", "swap", "blank")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, [member])
        pool_of(s, f"slow={member.dev}")
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=4 oflag=direct conv=fsync status=none\n"
              f"mkfs.ext4 -q {mounted.dev}; mount {mounted.dev} /mnt; cp /etc/passwd /mnt/; sync -f /mnt\n"
              f"dmsetup create held --table '0 2048 linear {linear.dev} 0'\n"
              f"mkswap -q {swap.dev}; swapon {swap.dev}; svctl dump tank > /tmp/before; grep -q ^map /tmp/before\n"
              f"sha256sum {linear.dev} {blank.dev} > /tmp/sums")
        for disk in (mounted, linear, swap):
            for wipe in ("", f" --wipe {disk.dev} --yes"):
                in_use = (disk.dev, "in use", "lsblk " + disk.dev)
                refused(s, 5, f"svctl create-pool other --tier a={blank.dev},{disk.dev}" + wipe, *in_use)
                refused(s, 5, f"svctl add-device tank slow={disk.dev}" + wipe, *in_use)
        refused(s, 5, f"svctl create-pool other --tier a={member.dev} --wipe {member.dev} --yes", member.dev, "in use")
        s.run(f"svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after; sha256sum --quiet -c /tmp/sums\n"
              f"swapoff {swap.dev}; cmp /mnt/passwd /etc/passwd; umount /mnt; fsck.ext4 -fn {mounted.dev}\n"
              f"dmsetup remove held; svctl check tank")
        refused(s, 5, f"svctl add-device tank slow={mounted.dev}", "ext4", "--wipe " + mounted.dev)
        s.run(f"svctl add-device tank slow={mounted.dev} --wipe {mounted.dev} --yes; svctl check tank")


# The front label of the only member is spoilt, which svd mends when it brings the pool up: not while another process has the
# device by which the kernel is told what to do.
ALONE = """part=$(readlink -f {dev})1; dump() {{ svctl dump tank | grep -v ^journal; }}
dump > /tmp/before; grep -q ^map /tmp/before; kill -9 $(pidof svd); flock -w 10 /run/svctl/svd.lock true
exec 5<> /dev/svctl-*; dd if=/dev/zero of=$part bs=4k count=1 oflag=direct conv=fsync status=none
svd --devices {dev} 2>> /run/svctl/log 5<&- < /dev/null > /dev/null & for i in $(seq 300); do grep -q 'another svd has it' /run/svctl/log && break; sleep 0.1; done
ends 5 svctl activate tank; grep 'another svd has it' /tmp/said
head -c 4096 $part | cmp -n 4096 - /dev/zero; exec 5>&-
svctl activate tank; grep 'label of .* is damaged; written anew from its copy' /run/svctl/log; dump > /tmp/after; cmp /tmp/before /tmp/after
"""


@vm.full
def test_who_has_the_control_device_is_alone_with_the_pool(bench):
    disk = bench.disk("a", "256M")
    with bench.boot([disk]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"t={disk.dev}")
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=4 oflag=direct conv=fsync status=none\n" + ALONE.format(dev=disk.dev))


FIO = """cd /tmp; while [ ! -e /tmp/stop ]; do
fio --name=v --filename=/dev/sv/tank/a --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=16k --size=32M \
    --randrepeat=0 --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal >/dev/null
echo round; blkdiscard /dev/sv/tank/a
done"""
# A process that exits is out of pidof's sight before it lets go of its files: killed ends with svd's lock, died with
# the process itself.
KILL = f"""export PATH={BIN}:$PATH; ulimit -c 0
launch() {{ rm -f /run/svd-exit; env SVD_KILL_AT=$1 svd --devices $DEVICES 2>>/run/svctl/log </dev/null >/dev/null & svd=$!; }}
killed() {{ kill -9 $svd; flock -w 10 /run/svctl/svd.lock true; }}
died() {{ local code=0; wait $svd || code=$?; ((code == 128 + 9)); }}
"""
# A MiB of b; what it must be is kept.
WRITE_B = """mkdir -p /run/b; write_b() { head -c 1M /dev/urandom > /run/b/$1; dd if=/run/b/$1 of=/dev/sv/tank/b bs=1M seek=$1 count=1 oflag=direct conv=fsync status=none; }
"""
READ_B = """for n in $(ls /run/b); do dd if=/dev/sv/tank/b bs=1M skip=$n count=1 iflag=direct status=none | cmp - /run/b/$n; done
ls /run/b | wc -l
"""
# Most while svd starts, and some while it serves.
KILL_AT_RANDOM = KILL + WRITE_B + """RANDOM=$SEED; svd=$(pidof svd)
for n in $(seq 50); do
    pause=0.$((RANDOM % 8 + 1)); ((n % 4)) || { write_b $((16 + n / 4)); pause=$((RANDOM % 2 + 2)).$((RANDOM % 10)); }
    sleep $pause; killed; launch none  # fails if svd ended by itself
done; sleep 1; kill -0 $svd
test $(grep -c 'pool tank is up' /run/svctl/log) -gt 5    # and not each of them before it served the pool"""
# With the kernel serving the pool, svd makes a checkpoint as soon as it starts.
KILL_AT_STEP = KILL + WRITE_B + """svd=$(pidof svd); n=0
for step in begin listed committed read before-apply after-apply applied trimmed recycled end; do
    killed; n=$((n + 1))
    write_b $n
    launch checkpoint-$step; died; echo died at $step; launch none; sleep 0.5
done"""


@vm.limit(300)  # 60 kills: three minutes on two busy cores
def test_svd_killed_under_fio(bench):
    print(f"seed {SEED}")
    disks = [bench.disk("fast", "256M"), bench.disk("slow", "512M")]
    devices = f"DEVICES={','.join(d.dev for d in disks)} SEED={SEED}\n"
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}")
        s.run("svctl create-volume tank/b --size 32M")
        fio = guest.start(FIO)
        s.run(devices + KILL_AT_RANDOM, timeout=190)
        print(s.run(devices + KILL_AT_STEP))
        guest.run("touch /tmp/stop")
        rounds = fio.wait(60)
        print(rounds)
        assert rounds.count("round") > 1, "there was I/O between the first kill and the last"
        s.run("for i in $(seq 50); do svctl list >/dev/null && break; sleep 0.1; done; svctl check tank; svctl list")
        assert s.run(READ_B) == "22\n"


@vm.full
@vm.limit(180)
def test_bad_control_commands_change_nothing(bench):
    """Sent to a pool with data, between two sessions of svd."""
    disks = members(bench)
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev},{disks[2].dev}")
        s.run("mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; head -c 8M /dev/urandom > /mnt/f; sync\n"
              "sha256sum /mnt/f > /tmp/sums; umount /mnt; svctl dump tank > /tmp/before; grep -q ^map /tmp/before")
        s.kill()
        s.run(f"uuid=$(echo /dev/svctl-*); python3 {HERE}/guest/bad_commands.py ${{uuid#/dev/svctl-}}")
        s.start()
        s.run("svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after; svctl check tank\n"
              "echo 3 > /proc/sys/vm/drop_caches; mount /dev/sv/tank/a /mnt; sha256sum -c /tmp/sums; umount /mnt")


@vm.limit(480)  # 16,000 commits: two to four minutes under TCG
def test_stopped_svd_on_a_64_mib_ring(bench):
    disk = bench.disk("a", "2050M")  # a ring is a 32nd of a small pool; 2 MiB are the partition table's
    with bench.boot([disk]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"slow={disk.dev}")
        s.run("svctl dump tank > /dev/null; svctl --json show tank | grep '\"size\": *67108864'; kill -STOP $(pidof svd)")
        writer = guest.start(f"python3 {HERE}/guest/fill_ring.py /dev/sv/tank/a {int(60 * vm.SLACK)}")
        vm.wait_until(lambda: writer.output or writer.code, 360, "full ring")
        print(writer.output)
        assert int(writer.output.split()[-1]) > 15000, "each commit takes 4 KiB of the ring, so that was not 64 MiB"
        s.run("kill -CONT $(pidof svd)")
        print(writer.wait(80))
        print(s.run("svctl check tank; svctl show tank"))


def members(bench):
    return [bench.disk("fast", "128M"), bench.disk("slow1", "128M"), bench.disk("slow2", "128M")]


def with_file(s):
    fast, slow1, slow2 = (d.dev for d in s.disks)
    pool_of(s, f"fast={fast}", f"slow={slow1},{slow2}")
    s.run("mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; head -c 8M /dev/urandom > /mnt/f\n"
          "sha256sum /mnt/f > /tmp/sums; umount /mnt; svctl dump tank > /tmp/before; grep -q ^map /tmp/before\n"
          "svctl deactivate tank; rm /run/svctl/down-*")     # as a reboot does
    s.kill()


def has_file(s):
    s.run("svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after\n"
          "mount -o ro,noload /dev/sv/tank/a /mnt; sha256sum -c /tmp/sums; umount /mnt; svctl check tank\n"
          "svctl deactivate tank; rm /run/svctl/down-*")     # as a reboot does
    s.kill()


@vm.limit(120)
def test_members_missing_swapped_and_damaged(bench):
    disks = members(bench)
    fast, slow1, slow2 = (d.dev for d in disks)
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        with_file(s)

        s.run(f"mv {slow2} /tmp/slow2")
        s.start()
        refused(s, 3, "svctl activate tank", "member 2 of 3 is missing")
        answer = s.run("svctl status; test ! -e /dev/sv/tank/a")
        assert "member 2 of 3 is missing" in answer, answer
        s.run(f"mv /tmp/slow2 {slow2}; svctl scan; test -b /dev/sv/tank/a")
        has_file(s)

        s.disks = [disks[2], disks[1], disks[0]]
        s.run(f"mv {fast} /tmp/x; mv {slow1} {fast}; mv /tmp/x {slow1}")
        s.start()
        has_file(s)

        part = s.run(f"echo $(readlink -f {fast})1").strip()
        s.run(f"dd if={part} of=/tmp/label bs=4k count=1 status=none\n"
              f"dd if=/dev/zero of={part} bs=4k count=1 conv=fsync status=none")
        s.start()
        s.run(f"grep 'label of {part} is damaged' /run/svctl/log; blockdev --flushbufs {part}\n"
              f"cmp -n 4096 {part} /tmp/label")
        has_file(s)


@vm.full
@vm.limit(240)
def test_missing_member_is_read_around(bench):
    extents = 160
    disks = members(bench)
    fast, slow1, slow2 = (d.dev for d in disks)
    marks = f"python3 -S -E {HERE}/guest/marks.py {{}} /dev/sv/tank/a {extents}\n"
    read = marks.format("read")
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={fast}", f"slow={slow1},{slow2}", size="300M")
        s.run(marks.format("write"))
        guest.power_cut()
    with bench.boot(disks) as guest:
        guest.run(f"sha256sum {fast} {slow1} {slow2} > /tmp/sums; mv {slow2} /tmp/slow2")
        s = Svctl(guest, disks)
        refused(s, 3, "svctl activate tank", "member 2 of 3 is missing", "--read-only --missing")
        said = s.run("svctl activate tank --read-only --missing; svctl show tank/a; dmsetup table sv-tank; dmsetup status")
        assert " -:" in said and "read-only active" in said, said
        lost = int(re.search(r"volume a: (\d+) of (\d+) extents cannot be read", said)[1])
        assert 0 < lost < extents, said
        there, gone = map(int, s.run(read).split())
        assert (there, gone) == (extents - lost, lost), (there, gone, lost)
        s.run("refused dd if=/dev/zero of=/dev/sv/tank/a bs=4k count=1 oflag=direct 2>&1; test -r /dev/sv/tank/a\n"
              "test $(blockdev --getro /dev/sv/tank/a) = 1; svctl check tank")
        refused(s, 4, "svctl create-volume tank/b --size 1G", "read-only")
        # svd comes back over a pool that is read-only and lacks a member.
        s.kill()
        s.start()
        again = s.run("svctl list; svctl status")
        assert "read-only" in again and f"{lost} of {extents} extents" in again, again
        assert s.run(read).split() == [str(there), str(gone)]
        # The member is back, and the whole pool may be looked at before it is written to.
        s.run(f"mv /tmp/slow2 {slow2}; svctl deactivate tank; svctl activate tank --read-only")
        assert s.run(read).split() == [str(extents), "0"]
        s.run("svctl deactivate tank; for d in " + f"{fast} {slow1} {slow2}" + "; do blockdev --flushbufs $d; done\n"
              "sha256sum --quiet -c /tmp/sums; svctl activate tank; svctl check tank\n"
              "dd if=/dev/zero of=/dev/sv/tank/a bs=1M count=1 seek=200 oflag=direct status=none")
        assert s.run(read).split() == [str(extents), "0"]
        # A table for writing must name every member.
        s.run("svctl deactivate tank; uuid=$(svctl show tank | sed -n 's/^uuid: //p')\n"
              f"two=\"sv-pool $uuid 3 $(readlink -f {fast})1 $(readlink -f {slow1})1\"\n"
              "dmsetup create good -r --table \"0 8 $two -:100\"; dmsetup remove good\n"
              "refused dmsetup create bad --table \"0 8 $two -:100\" 2>&1\n"
              "for bad in - -: -:0 -:x -:999999999; do refused dmsetup create bad -r --table \"0 8 $two $bad\" 2>&1; done\n"
              "refused dmsetup create bad -r --table \"0 8 sv-pool $uuid 3 -:9 -:9 -:9\" 2>&1")


@vm.full
@vm.limit(60)
def test_read_only_devices_are_refused(bench):
    member, readonly, blank = disks = [bench.disk("member", "128M"), bench.disk("readonly", "128M", readonly=True),
                                       bench.disk("blank", "128M")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, [member])
        pool_of(s, f"slow={member.dev}")
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=4 oflag=direct conv=fsync status=none\n"
              f"svctl dump tank > /tmp/before; grep -q ^map /tmp/before; sha256sum {readonly.dev} {blank.dev} > /tmp/sums")
        refused(s, 4, f"svctl add-device tank slow={readonly.dev}", readonly.dev, "read-only")
        refused(s, 4, f"svctl create-pool other --tier a={blank.dev},{readonly.dev}", readonly.dev, "read-only")
        refused(s, 4, f"svctl create-pool other --tier a={blank.dev},{readonly.dev} --wipe {readonly.dev} --yes", "read-only")
        s.run("svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after; sha256sum --quiet -c /tmp/sums; svctl check tank")


FILL_XFS = """mkfs.xfs -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; head -c 8M /dev/urandom > /tmp/base
for i in $(seq 200); do
    (echo $i; cat /tmp/base) | dd of=/mnt/f$i bs=1M iflag=fullblock conv=fsync status=none 2> /tmp/error || break
    (echo $i; cat /tmp/base) | sha256sum | sed "s,-,/mnt/f$i," >> /tmp/sums
done
test $i -gt 10 -a $i -lt 100; grep 'No space left on device' /tmp/error; svctl status | grep 'the pool is full'; echo the pool was full at file $i
"""
READ_XFS = "echo 3 > /proc/sys/vm/drop_caches; findmnt /mnt; sha256sum --quiet -c /tmp/sums\n"
# Slots that fstrim freed are on their way: the first write waits for them.
WRITE_XFS = "dd if=/tmp/base of=/mnt/again bs=1M conv=fsync status=none; cmp /tmp/base /mnt/again\n"


# Frozen, so that the file system itself writes nothing meanwhile.
REFUSED_WRITE = """fsfreeze -f /mnt; svctl dump tank > /tmp/before; grep -q ^map /tmp/before
refused dd if=/tmp/base of=/dev/sv/tank/b bs=1M count=1 oflag=direct 2> /tmp/error; grep 'No space left on device' /tmp/error
svctl dump tank > /tmp/after; fsfreeze -u /mnt; cmp /tmp/before /tmp/after; svctl check tank
"""


@vm.limit(400)
def test_full_pool_keeps_xfs_mounted(bench):
    disk = bench.disk("a", "384M")
    with bench.boot([disk]) as guest:
        s = Svctl(guest, [disk])
        pool_of(s, f"slow={disk.dev}", size="2G")
        s.run("svctl create-volume tank/b --size 1G")
        print(s.run(FILL_XFS, timeout=200))
        print(s.run(REFUSED_WRITE))
        print(s.run(READ_XFS + "svctl status"))
        # Not sync -f: syncfs() tells once more of the write that found no space.
        s.run("for i in 2 3 4 5 6 7; do rm /mnt/f$i; sed -i \"/f$i$/d\" /tmp/sums; done; sync; fstrim /mnt")
        print(s.run(WRITE_XFS + READ_XFS + "umount /mnt; xfs_repair -n /dev/sv/tank/a 2>&1\n"
                    "svctl check tank; svctl list"))

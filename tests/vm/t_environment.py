"""What goes wrong on the host around svd: clocks that jump, file systems that are full or read-only."""

import json
import time

import vm
from dumps import BEGIN_RESTORE, WIDE_SIZE, put_wide
from host import Machine
from svctl import BIN, Svctl, pool_of

VERIFIED_LOAD = """cd /tmp; while [ ! -e /tmp/stop ]; do
fio --name=v --filename=/dev/sv/tank/a --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bs=16k --size=32M \\
    --randrepeat=0 --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal >/dev/null
blkdiscard /dev/sv/tank/a; svctl check tank; svctl dump tank > /dev/null
done"""
WRITER = """for n in $(seq 1000); do test ! -e /tmp/enough || exit 0
dd if=/dev/zero of=/dev/sv/tank/a bs=4k seek=$n count=1 oflag=direct,dsync status=none; sleep 1; done"""
# svd stands still, so a write that finds no space waits for up to 60 s for what svd may free.
FILL = "cd /tmp; dd if=/dev/zero of=/dev/sv/tank/b bs=1M count=210 oflag=direct 2>&1\n"
JUMP_AND_FREE = """for i in $(seq 600); do dmsetup status sv-tank | grep -q ' out-of-space ' && break; sleep 0.1; done
for jump in '+1 year' '-2 years' '+1 year'; do date -s "$jump"; sleep 2; done
pidof dd; blkdiscard -l 96M /dev/sv/tank/b; kill -CONT $(pidof svd)
"""


# A job that lasts: it goes on to its end.
JUMP_IN_JOB = """svctl create-pool wide --tier t={disk}; begin_restore /share/wide
date -s '+1 year'; is_restoring; for jump in '-2 years' '+1 year'; do svctl jobs; sleep 0.2; date -s "$jump"; done
wait $client; cat /tmp/restored; svctl jobs; svctl jobs -H -o what,pool,state | grep -E 'restore.wide.done'; svctl check wide; svctl deactivate wide
"""


def tail_of(s):
    return json.loads(s.run("svctl --json show tank"))["journal"]["tail_seq"]


def checkpoint_follows(s, seconds=75):
    """One every 30 s; twice that, and what a busy host takes."""
    before = tail_of(s)
    deadline = time.monotonic() + seconds * vm.SLACK
    while tail_of(s) == before:
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(1)


@vm.full
@vm.limit(400)
def test_a_clock_that_jumps_changes_nothing(bench):
    disk, wide = bench.disk("a", "192M"), bench.disk("wide", WIDE_SIZE)
    with bench.boot([disk, wide]) as guest:
        s = Svctl(guest, [disk, wide])
        pool_of(s, f"t={disk.dev}", size="64M")
        s.run("svctl create-volume tank/b --size 256M")
        put_wide(guest)
        print(s.run(BEGIN_RESTORE + JUMP_IN_JOB.format(disk=wide.dev), timeout=150))
        load = guest.start(f"export PATH={BIN}:$PATH\n" + VERIFIED_LOAD)
        s.run("for jump in '+1 year' '-2 years' '-20 years' '+21 years'; do date -s \"$jump\"; sleep 4; done; touch /tmp/stop")
        load.wait(90)
        # A checkpoint every 30 s, of so little that nothing else calls for one.
        writer = guest.start(WRITER)
        for jump in ("+1 year", "-1 year"):
            s.run(f"date -s '{jump}'")
            checkpoint_follows(s)
        s.run("touch /tmp/enough")
        writer.wait(30)
        # Neither does a write that waits think that its time is over.
        s.run("kill -STOP $(pidof svd)")
        full = guest.start(FILL)
        s.run(JUMP_AND_FREE)
        print(full.wait(60))
        s.run("svctl check tank; svctl list")


ALIVE = """svctl dump tank > /dev/shm/after; cmp /dev/shm/before /dev/shm/after; svctl create-volume tank/new --size 64M; svctl resize-volume tank/new --size 96M; svctl rename-volume tank/new newer
dd if=/tmp/data of=/dev/sv/tank/newer bs=1M oflag=direct conv=fsync status=none; cmp -n 8388608 /tmp/data /dev/sv/tank/newer
svctl check tank; svctl delete-volume tank/newer --yes; svctl deactivate tank; svctl activate tank
svctl dump tank > /dev/shm/before; svctl status
"""
# svd's directory, with its log, and the one for temporary files: not a byte and no file more fits.
FULL = """for d in /run/svctl /var/tmp; do dd if=/dev/zero of=$d/filler bs=4k status=none 2>/dev/null || true; done
for i in $(seq 100); do : 2>/dev/null > /run/svctl/many$i || break; done; refused touch /run/svctl/more 2>&1
refused sh -c 'head -c 8192 /dev/zero > /var/tmp/more' 2>&1
"""
START = """ends {code} timeout 10 svd --devices {dev} < /dev/null; grep -F '{words}' /tmp/said
"""


@vm.full
@vm.limit(150)
def test_full_and_read_only_file_systems_of_the_host(bench):
    disk, host = bench.disk("a", "192M"), bench.disk("host", "32M")
    mount = f"mount -o errors=remount-ro {host.dev} /run/svctl\n"
    with bench.boot([disk, host]) as guest:
        guest.run(f"mkfs.ext4 -q -m 0 -N 64 {host.dev}; mkdir -p /run/svctl; {mount} mount -t tmpfs -o size=1M small /var/tmp")
        s = Svctl(guest, [disk])
        pool_of(s, f"t={disk.dev}", size="64M")
        s.run("head -c 8M /dev/urandom > /tmp/data; dd if=/tmp/data of=/dev/sv/tank/a bs=1M oflag=direct conv=fsync status=none\n"
              "svctl dump tank > /dev/shm/before; grep -q ^map /dev/shm/before")
        s.run(FULL + ALIVE)
        # A new svd does without more space, as long as its files are there; without those it says which.
        s.kill()
        s.start()
        s.run(ALIVE)
        s.kill()
        s.run("rm /run/svctl/svd.lock; : > /run/svctl/other\n" +
              START.format(dev=disk.dev, code=6, words="/run/svctl/svd.lock: No space left on device (df -h -i /run/svctl"))
        s.run("rm /run/svctl/many* /run/svctl/filler; sync -f /run/svctl")     # or it fails with the disk
        s.start()
        # As when the system's disk fails.
        s.run(f"echo 1 > /sys/fs/ext4/$(basename $(readlink -f {host.dev}))/trigger_fs_error; mount -o remount,ro /\n"
              "refused touch /run/svctl/more 2>&1; refused touch /more 2>&1\n" + ALIVE)
        guest.run("mount -o remount,rw /; kill -9 $(pidof svd); for i in $(seq 100); do umount /run/svctl && break; sleep 0.1; done\n"
                  f"mount -o ro,noload {host.dev} /run/svctl")
        s.run(START.format(dev=disk.dev, code=4, words="/run/svctl/svd.lock: Read-only file system (findmnt -T /run/svctl"))
        s.run(f"umount /run/svctl; {mount}")
        s.start()
        s.run("svctl check tank; cmp -n 8388608 /tmp/data /dev/sv/tank/a")


# Who follows the job sees what is left of it, by a clock that does not jump: seconds or minutes.
FOLLOWED = """svctl create-pool wide --tier t={disk}; begin_restore /share/wide; job=$(svctl jobs -H -o id)
script -qfec "svctl wait $job" /tmp/waited > /dev/null & waiting=$!
until grep -aqE '[0-9]+ % .* left' /tmp/waited; do kill -0 $waiting; sleep 0.1; done
for jump in '+1 year' '-2 years' '+1 year'; do date -s "$jump"; svctl jobs; n=$(grep -ao ' left' /tmp/waited | wc -l)
    until test $(grep -ao ' left' /tmp/waited | wc -l) -gt $n || ! is_restoring; do sleep 0.1; done; done
wait $client; wait $waiting; tr '\\r' '\\n' < /tmp/waited | grep -a ' left' > /tmp/left; tail -3 /tmp/left; refused grep -a ' h left' /tmp/left
svctl jobs -H -o what,pool,state | grep -E 'restore.wide.done'; svctl check wide; svctl delete-pool wide --yes
"""
SERVES = """serves() { dump > /dev/shm/after; cmp /dev/shm/before /dev/shm/after; svctl create-volume tank/new --size 64M; svctl resize-volume tank/new --size 96M
    svctl create-snapshot tank/new@s; svctl delete-snapshot tank/new@s --yes; dd if=/dev/shm/data of=/dev/sv/tank/new bs=1M oflag=direct conv=fsync status=none
    cmp -n 8388608 /dev/shm/data /dev/sv/tank/new; svctl check tank; svctl delete-volume tank/new --yes; cmp -n 8388608 /dev/shm/data /dev/sv/tank/a
    test $(systemctl show -P NRestarts svd) = 0; systemctl is-active svd; dump > /dev/shm/before; }
dump() { svctl dump tank | sed '/^journal /d'; }
"""
HOST_FULL = """head -c 8M /dev/urandom > /dev/shm/data; dd if=/dev/shm/data of=/dev/sv/tank/a bs=1M oflag=direct conv=fsync status=none; dump > /dev/shm/before; grep -q ^map /dev/shm/before
dd if=/dev/zero of=/filler bs=64k 2> /dev/null || true; dd if=/dev/zero of=/filler2 bs=4k 2> /dev/null || true
refused sh -c 'head -c 64K /dev/zero 2> /dev/null > /var/log/journal/more'; serves; systemctl restart svd; serves
rm /filler*; journalctl --sync; svctl create-volume tank/told --size 16M; journalctl --sync; journalctl -b SV_VOLUME=told -o cat | grep CreateVolume; dump > /dev/shm/before
"""
# As the kernel makes them for SysRq U: all that are on disks, whoever has files of them open.
HOST_READ_ONLY = """echo u > /proc/sysrq-trigger; until ! touch /more 2> /dev/null; do sleep 0.1; done; refused touch /var/log/journal/more 2>&1
serves; systemctl restart svd; serves; systemctl is-active systemd-journald; svctl deactivate tank; svctl activate tank; serves
"""


@vm.full
@vm.limit(500)
def test_the_host_of_a_unit_is_in_trouble(bench):
    """The journal is on the file system that is full, then read-only."""
    disk, wide = bench.disk("a", "192M"), bench.disk("wide", WIDE_SIZE)
    machine = Machine(bench, [disk, wide])
    # ext4's own, where pages of it are dirty then.
    with machine.boot(expect=[r"WARNING: .* ext4_journal_check_start"]) as guest:
        machine.install(guest)
        put_wide(guest)
        print(guest.run(BEGIN_RESTORE + FOLLOWED.format(disk=wide.dev), timeout=200))
        guest.run(f"svctl create-pool tank --tier t={disk.dev}; svctl create-volume tank/a --size 64M")
        print(guest.run(SERVES + HOST_FULL, timeout=150))
        print(guest.run(SERVES + HOST_READ_ONLY, timeout=150))

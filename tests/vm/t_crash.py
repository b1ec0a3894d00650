"""Power cuts while files are written with fsync: real ones, and states rebuilt from logs of what reached the disks. And one at
once after a write that alone was to make itself durable."""

import os
import random
import signal
import time

import blklog
import vm
from svctl import BIN, Svctl, pool_of

HERE = os.path.dirname(os.path.abspath(__file__))
CUTS = int(os.environ.get("SOAK_CUTS", "12"))  # make soak does more
STATES = 10  # of which one guest verifies all
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 1 << 30)


class Appender:
    """Files that the guest appends to, and how many lines of each a power cut must leave."""

    def __init__(self):
        self.there = {name: 0 for name in "abc"}

    def script(self, verb):
        files = " ".join(f"{name}={lines}" for name, lines in self.there.items() if verb == "append" or lines)
        return f"python3 -S -E {HERE}/guest/append.py {verb} /mnt {files}"

    def acknowledged(self, output):
        for line in output.split("\n")[:-1]:  # the last may be a part of one
            name, lines = line.split()
            self.there[name] = int(lines)

    def begin_anew(self, name):
        self.there[name] = 0
        return f"rm -f /mnt/{name}"


MOUNT = "mount -o discard /dev/sv/tank/a /mnt\n"
CHECK = "umount /mnt; fsck.ext4 -fn /dev/sv/tank/a; svctl check tank\n"


@vm.limit(300 + 30 * CUTS)  # a cut takes 20 to 35 s, by what else the host does
def test_power_cuts_under_fsync_load(bench):
    print(f"seed {SEED}, {CUTS} cuts")
    rng = random.Random(SEED)
    disks = [bench.disk(name, "256M", backend="volatile", early=rng.choice((0, 20, 50, 80)),
                        seed=rng.randrange(1 << 20)) for name in ("fast", "slow")]
    appender = Appender()
    for cut in range(CUTS + 1):
        with bench.boot(disks) as guest:
            s = Svctl(guest, disks)
            if cut == 0:
                pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}", size="300M")
                s.run("mkfs.ext4 -q /dev/sv/tank/a; " + MOUNT)
            else:
                s.run(MOUNT + appender.script("verify") + "\n" + CHECK + MOUNT +
                      appender.begin_anew(rng.choice("abc")))
            if cut == CUTS:
                break
            load = guest.start(appender.script("append"))
            vm.wait_until(lambda load=load: load.output, 30, "first acknowledged append")
            time.sleep(rng.uniform(0.1, 1.5))
            guest.power_cut()
            appender.acknowledged(load.output)
            print(f"cut {cut + 1} after {load.output.count(chr(10))} appends, lines {appender.there}")


# Checkpoints come and go meanwhile: a new svd begins with one. And space is freed and taken again.
CHURN = """while :; do
    sleep 0.5; kill -9 $(pidof svd); flock -w 10 /run/svctl/svd.lock true
    svd --devices $DEVICES 2>>/run/svctl/log </dev/null >/dev/null &
    head -c 3M /dev/urandom > /mnt/gone; sync /mnt/gone; rm /mnt/gone; echo round >> /share/churned
done"""


SV = f"python3 -S -E {HERE}/sv_ioctl.py"
# No svd, and no commit by itself within a minute: only what is asked for is made durable.
ALONE = f"""kill -9 $(pidof svd); flock -w 10 /run/svctl/svd.lock true
for node in /dev/svctl-*; do {SV} --uuid ${{node#/dev/svctl-}} commit > /dev/null; {SV} --uuid ${{node#/dev/svctl-}} policy 1000 60000 1; done
head -c 1M /dev/urandom > /share/new
"""
# What a database does: FUA, and no flush, since the block was there. The snapshot has it, so that the overwrite has a record.
FUA_ALONE = f"""uuid=$(dmsetup table sv-tank | awk '{{ print $4 }}'); before=$({SV} --uuid $uuid flushes 1)
dd if=/share/new of=/mnt/f bs=4k count=1 seek=7 oflag=direct,dsync conv=notrunc status=none
after=$({SV} --uuid $uuid flushes 1); echo $before flushes, then $after; test $after = $before
"""


@vm.limit(120)
def test_a_write_with_fua_or_fsync_survives_a_power_cut_at_once(bench):
    """FUA on members with a volatile cache, and fsync on one without."""
    disks = cached, through = [bench.disk("cached", "512M", backend="volatile"),
                               bench.disk("through", "128M", backend="volatile", write_cache=False)]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"t={cached.dev}", size="512M")
        s.run(f"svctl create-pool through --tier t={through.dev}; svctl create-volume through/b --size 64M\n"
              # XFS covers its log with a flush 30 s after it is mounted: where that is set before, an hour after.
              "mkfs.xfs -q /dev/sv/tank/a; modprobe xfs; echo 360000 > /proc/sys/fs/xfs/xfssyncd_centisecs\n"
              "mount -o noatime /dev/sv/tank/a /mnt; head -c 1M /dev/urandom > /mnt/f\n"
              "sync /mnt/f; sync; svctl create-snapshot tank/a@s")
        guest.run(ALONE)
        guest.run("dd if=/share/new of=/dev/sv/through/b bs=4k count=1 conv=fsync status=none\n" + FUA_ALONE)
        new = guest.get("new")
        guest.power_cut()
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        guest.put("new", new)
        s.run("cmp -n 4096 /dev/sv/through/b /share/new; mount /dev/sv/tank/a /mnt\n"
              "dd if=/mnt/f bs=4k skip=7 count=1 status=none | cmp -n 4096 - /share/new; umount /mnt")


class Cut:
    """A moment of a running guest: what was acknowledged, and how much of each disk's log there was."""

    def __init__(self, guest, load):
        guest.qemu.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, guest.qemu.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.appender = Appender()
        self.appender.acknowledged(load.output)
        self.entries = [blklog.count(disk.log) for disk in guest.disks]
        guest.qemu.send_signal(signal.SIGCONT)

    def rebuild(self, bench, number, disks):
        return [bench.crash_disk(f"{disk.name}{number}", disk, entries, seed=SEED + number, serial=f"{disk.name}{number}")
                for disk, entries in zip(disks, self.entries)]


def verify(s, appender):
    """A pool that was deactivated stays down, also with the disks of another state: they have its UUID."""
    s.run("svctl activate tank\n" + MOUNT + appender.script("verify") + "\n" + CHECK + "svctl deactivate tank")
    s.kill()


@vm.full
@vm.limit(240)
def test_states_rebuilt_from_logs(bench):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    disks = [bench.disk(name, "256M", backend="logged") for name in "ab"]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev},{disks[1].dev}", size="300M")
        s.run("mkfs.ext4 -q /dev/sv/tank/a; " + MOUNT)
        load = guest.start(Appender().script("append"))
        guest.start(f"export PATH={BIN}:$PATH DEVICES={','.join(d.dev for d in disks)}; cd /tmp\n" + CHURN)
        vm.wait_until(lambda: load.output, 30, "first acknowledged append")
        cuts = []
        for _ in range(STATES):
            time.sleep(rng.uniform(0.3, 2))
            cuts.append(Cut(guest, load))
            print(cuts[-1].entries, cuts[-1].appender.there)
        churned = len(guest.get("churned").split())
        print(f"{churned} rounds of svd's death and space that came back")
        assert churned > 2
        guest.power_cut()
    states = [cut.rebuild(bench, number, disks) for number, cut in enumerate(cuts)]
    with bench.boot(sum(states, [])) as guest:
        s = Svctl(guest, states[0])
        verify(s, cuts[0].appender)
        for cut, s.disks in zip(cuts[1:], states[1:]):
            s.start()
            verify(s, cut.appender)

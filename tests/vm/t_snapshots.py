"""Snapshots on the real module: what they show stays what it was, while their volume is written, while svd dies, and after power
cuts; several volumes are cut at one moment."""

import os
import subprocess
import types

import vm
from svctl import Svctl, pool_of

HERE = os.path.dirname(os.path.abspath(__file__))
FOLD_CUTS = int(os.environ.get("SOAK_CUTS", "20")) // 10  # make soak does more
DEPENDENT = f"python3 -S -E {HERE}/guest/dependent.py"


def digest(s, device):
    """Of a snapshot, past the page cache."""
    return s.run(f"dd if=/dev/sv/tank/{device} bs=1M iflag=direct status=none | sha256sum").split()[0]


def only_what_the_volume_has(s, mib):
    s.run(f"for i in $(seq 60); do test $(svctl list -H -t pool -o used) -le $(({mib} << 20)) && exit; sleep 1; done\n"
          "svctl show tank; exit 1", timeout=90)


# A loop device upon tmpfs says that it has WRITE ZEROES, refuses the first, and has said since that it has none.
# The pool's free slots are full of a pattern.
ZEROES = """svctl set-pool tank --discard keep; free=$(svctl list -H -t pool -o free); svctl create-volume tank/b --size 128M
head -c $((free / 10 * 9)) /dev/zero | tr '\\0' x | dd of=/dev/sv/tank/b bs=1M iflag=fullblock oflag=direct status=none
svctl delete-volume tank/b --yes; until test $(svctl list -H -t pool -o free) = $free; do sleep 0.2; done
has() { cat /sys/block/loop0/queue/write_zeroes_max_bytes; }
head -c 8M /dev/urandom > /tmp/now; cp /tmp/now /tmp/then; dd if=/tmp/now of=/dev/sv/tank/a bs=1M oflag=direct conv=fsync status=none
svctl create-snapshot tank/a@s; svctl activate tank/a@s
zero() { blkdiscard -z -o $(($1 * 4096)) -l $(($2 * 4096)) /dev/sv/tank/a; dd if=/dev/zero of=/tmp/now bs=4k seek=$1 count=$2 conv=notrunc status=none; }
same() { sync /dev/sv/tank/a; echo 3 > /proc/sys/vm/drop_caches; cmp -n 8M /tmp/now /dev/sv/tank/a; cmp -n 8M /tmp/then /dev/sv/tank/a@s; }
test $(has) != 0; zero 2 3; same; test $(has) = 0
# A block at each end of an extent, parts of two and what is between them, and what has been written since.
zero 256 1; zero 511 1; zero 700 837; same
dd if=/tmp/then of=/dev/sv/tank/a bs=4k count=40 seek=1790 oflag=direct conv=notrunc status=none
dd if=/tmp/then of=/tmp/now bs=4k count=40 seek=1790 conv=notrunc status=none; zero 1780 30; zero 2047 1; same
svctl check tank; svctl deactivate tank; svctl activate tank; svctl activate tank/a@s; same
"""


CLONES = 1000
TIB = 1 << 20  # extents

# What the kernel has taken, in KiB, but for pages, of which svd tells. Free memory is no measure: each CPU keeps tens of MiB. Linear
# devices are the measure of what any device takes; docs/performance.md says what a clone takes more.
STORM = """taken() { sync; echo 3 > /proc/sys/vm/drop_caches; awk '/^(Slab|PageTables|Percpu|VmallocUsed):/ { sum += $2 } END { print sum }' /proc/meminfo; }
map() { svctl show tank --json | grep -o '"kernel_memory_bytes": *[0-9]*' | grep -o '[0-9]*$'; }
svctl create-pool tank --tier t=@DISK; svctl restore tank /share/dump; svctl create-snapshot tank/v1@s; svctl create-volume tank/warm --from v1@s
before=$(taken)
for i in $(seq @CLONES); do printf 'linear%d,,,rw,0 8 linear @OTHER 0;' $i; done > /tmp/table; dmsetup create --concise "$(cat /tmp/table)"
linear=$(($(taken) - before)); before=$(taken); map=$(map)
python3 @HERE/guest/storm.py clones tank v1@s @CLONES
clones=$(($(taken) - before)); map=$(($(map) - map))
echo "@CLONES clones: $clones KiB, and $map bytes by svctl show; as many linear devices: $linear KiB"
for i in $(seq @CLONES); do echo linear$i; done | xargs dmsetup remove
((map < 256 * @CLONES)); ((clones - linear < 16 * @CLONES))
python3 @HERE/guest/storm.py write tank @CLONES; python3 @HERE/guest/storm.py read tank @CLONES
"""


@vm.full
@vm.limit(1500)
def test_a_thousand_clones_share_a_map(bench):
    """Of a mapped TiB, all active at once, each with a block of its own."""
    disk, other = bench.disk("wide", "1200G"), bench.disk("other", "16M")
    dump = subprocess.run([f"{vm.REPO}/tests/support/make_dump.py", str(TIB), "1", str(TIB), "0", "--volumes", "1"], stdout=subprocess.PIPE,
                          check=True).stdout
    with bench.boot([disk, other], mem="3G") as guest:
        s = Svctl(guest, [disk])
        guest.put("dump", dump)
        script = STORM.replace("@DISK", disk.dev).replace("@OTHER", other.dev).replace("@CLONES", str(CLONES)).replace("@HERE", HERE)
        print(s.run(script, timeout=1200))
        guest.pools_checked = False     # a thousand maps of a TiB: storm.py has read what matters


@vm.full
def test_zeroes_are_written_where_a_member_has_no_command_for_them(bench):
    with bench.boot() as guest:
        guest.run("modprobe loop; truncate -s 128M /tmp/member; losetup -P /dev/loop0 /tmp/member")
        s = Svctl(guest, [types.SimpleNamespace(dev="/dev/loop0")])
        pool_of(s, "t=/dev/loop0", size="16M")
        print(s.run(ZEROES))


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
        only_what_the_volume_has(s, 32)
        assert digest(s, "a") == now
        s.run("svctl check tank; svctl list")


@vm.full
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


# What a command says on standard error is in /tmp/said, too.
CODE = """code() { local got=0; "$@" 2> /tmp/said || got=$?; cat /tmp/said; echo "exit code $got"; return $got; }
"""
# A clone's file system and the first one: what they are called, that both can be mounted, and that nothing is wrong with them.
BOTH = """id() { blkid -p -s UUID -o value /dev/sv/tank/$1; }; test -n "$(id c$1)" -a "$(id c$1)" != "$(id $1)"
svctl --json show tank/c$1 | grep active; mkdir -p /m/c$1; mount /dev/sv/tank/c$1 /m/c$1; diff -r /usr/include/linux /m/c$1/linux
test ! -e /m/c$1/later; umount /m/c$1
"""


@vm.full
@vm.limit(240)
def test_clones_get_new_uuids(bench):
    """Of file systems that are mounted and being written; what they had is in the clones."""
    disks = [bench.disk("fast", "1G")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", size="320M")
        s.run("for v in b empty; do svctl create-volume tank/$v --size 320M; done; mkdir -p /m/a /m/b\n"
              "mkfs.xfs -q /dev/sv/tank/a; mkfs.ext4 -q /dev/sv/tank/b\n"
              "for v in a b; do mount /dev/sv/tank/$v /m/$v; cp -r /usr/include/linux /m/$v; sync -f /m/$v; done\n"
              "svctl create-snapshot tank/a@one tank/b@one tank/empty@one\n"
              "for v in a b; do cp -r /usr/include/linux /m/$v/later; done", timeout=120)
        for v in "ab":
            said = s.run(f"svctl create-volume tank/c{v} --from {v}@one --new-uuid")
            assert "has the UUID" in said, said
            s.run(f"both() {{ {BOTH}}}; both {v}")
        print(s.run(CODE + "xfs_repair -n /dev/sv/tank/ca 2>&1 | tail -3; fsck.ext4 -fn /dev/sv/tank/cb; refused compgen -G '/run/svctl-*'\n"
                    "is() { local wanted=$1 got=0; shift; code \"$@\" || got=$?; test $got = $wanted; }\n"
                    "is 1 svctl create-volume tank/cempty --from empty@one --new-uuid; grep 'none that is known' /tmp/said\n"
                    "is 3 svctl show tank/cempty; is 5 svctl create-volume tank/ca --from a@one --new-uuid\n"
                    "umount /m/a /m/b; svctl check tank"))


# Otherwise the kernel writes in the background after the mount, which a dump shows.
AT_ONCE = "-Elazy_itable_init=0,lazy_journal_init=0"
# As /tmp/before has it, but for how far the journal is applied.
UNCHANGED = "svctl dump tank > /tmp/after; sed -i '/^journal /d' /tmp/before /tmp/after; cmp /tmp/before /tmp/after\n"
# frozen() freezes it for a moment itself. Who has it frozen for svctl sleeps interruptibly only once it has.
FREEZE = CODE + """frozen() { ! fsfreeze -f $1 2> /dev/null || { fsfreeze -u $1; return 1; }; }
thaws() { for i in $(seq 120); do frozen $1 || return 0; sleep 0.1; done; return 1; }
freezes() { for i in $(seq 120); do ps -o s= -p "$(pgrep -nx svctl-thaw)" 2> /dev/null | grep -q S && break; sleep 0.1; done; frozen $1; }
needs_replay() { dumpe2fs -h $1 2> /dev/null | grep -q needs_recovery; }
"""


@vm.full
@vm.limit(180)
def test_frozen_file_systems_need_no_replay(bench):
    """Frozen for the moment of the snapshot only, whatever happens to svd, svctl or the device."""
    disks = [bench.disk("fast", "1G")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", size="64M")
        s.run("for v in b x; do svctl create-volume tank/$v --size 400M; done; mkdir -p /mnt/a /mnt/b /mnt/x /mnt/bind\n"
              "dmsetup create upon --table \"0 $(blockdev --getsz /dev/sv/tank/b) linear $(readlink -f /dev/sv/tank/b) 0\"\n"
              f"mkfs.ext4 -q {AT_ONCE} /dev/sv/tank/a; mkfs.ext4 -q {AT_ONCE} /dev/mapper/upon; mkfs.xfs -q /dev/sv/tank/x\n"
              "mount /dev/sv/tank/a /mnt/a; mount --bind /mnt/a /mnt/bind; mount -t tmpfs none /mnt/a\n"   # one place is covered
              "mount /dev/mapper/upon /mnt/b; mount /dev/sv/tank/x /mnt/x\n")
        load = guest.start("while test ! -e /tmp/stop; do for d in bind b x; do echo $RANDOM >> /mnt/$d/log; mkdir -p /mnt/$d/$RANDOM; done; done")
        s.run(FREEZE + "sleep 1; svctl create-snapshot tank/{a,b,x}@running; svctl create-snapshot tank/{a,b,x}@quiet --freeze\n"
              "for v in a b x; do svctl activate tank/$v@running; svctl activate tank/$v@quiet; done\n"
              "needs_replay /dev/sv/tank/a@running; needs_replay /dev/sv/tank/b@running\n"
              "refused needs_replay /dev/sv/tank/a@quiet; refused needs_replay /dev/sv/tank/b@quiet\n"
              "fsck.ext4 -fn /dev/sv/tank/a@quiet; fsck.ext4 -fn /dev/sv/tank/b@quiet\n"
              "mkdir /snap; mount -o ro,norecovery,nouuid /dev/sv/tank/x@quiet /snap; test -s /snap/log; umount /snap\n"
              "was=$(stat -c %s /mnt/bind/log /mnt/b/log /mnt/x/log); sleep 1; test \"$was\" != \"$(stat -c %s /mnt/bind/log /mnt/b/log /mnt/x/log)\"\n"
              "touch /tmp/stop\n")
        load.wait(30)
        print(s.run(FREEZE + "sync; svctl dump tank > /tmp/before; fsfreeze -f /mnt/b; code svctl create-snapshot tank/a@other tank/b@other --freeze || test $? = 5\n"
                    "grep 'on /mnt/b: somebody' /tmp/said; thaws /mnt/bind; fsfreeze -u /mnt/b\n" + UNCHANGED))
        # svd does not answer: the file system goes on at the deadline. svctl dies: at once.
        print(s.run(FREEZE + "pkill -STOP -x svd; code svctl --timeout 2 create-snapshot tank/a@late --freeze || test $? = 21\n"
                    "thaws /mnt/bind; echo on > /mnt/bind/on; svctl create-snapshot tank/a@dead --freeze & freezes /mnt/bind\n"
                    "kill -9 $!; thaws /mnt/bind; echo on >> /mnt/bind/on; pkill -CONT -x svd; sleep 1; svctl list\n"
                    "for n in late dead; do svctl delete-snapshot tank/a@$n --yes || true; done; sleep 2; svctl check tank"))
        # Neither ^Z nor SIGKILL to svctl's group keeps it frozen; nor does killing who has it frozen, while svctl lives.
        print(s.run(FREEZE + "pkill -STOP -x svd; setsid bash -c 'echo $$ > /tmp/group; exec svctl --timeout 8 create-snapshot tank/a@z --freeze' &\n"
                    "freezes /mnt/bind; kill -TSTP -$(cat /tmp/group); thaws /mnt/bind; kill -KILL -$(cat /tmp/group); wait $! || true\n"
                    "setsid bash -c 'echo $$ > /tmp/group; exec svctl create-snapshot tank/a@g --freeze' & freezes /mnt/bind\n"
                    "kill -KILL -$(cat /tmp/group); thaws /mnt/bind; wait $! || true\n"
                    "code svctl --timeout 8 create-snapshot tank/a@k --freeze > /tmp/code 2>&1 & freezes /mnt/bind; pkill -KILL -x svctl-thaw; frozen /mnt/bind\n"
                    "wait $! || true; thaws /mnt/bind; cat /tmp/code; pkill -CONT -x svd; sleep 1; svctl list\n"
                    "for n in z g k; do svctl delete-snapshot tank/a@$n --yes || true; done; sleep 2; svctl check tank"))
        # FIFREEZE waits for the device: given up, and thawed once it is over.
        print(s.run(FREEZE + "echo dirty > /mnt/bind/dirty; dmsetup suspend --noflush --nolockfs sv-tank-a\n"
                    "code svctl --timeout 2 create-snapshot tank/a@hung --freeze || test $? = 21; grep 'did not freeze in time' /tmp/said\n"
                    "dmsetup resume sv-tank-a; thaws /mnt/bind; test \"$(cat /mnt/bind/dirty)\" = dirty\n"
                    "refused svctl list tank/a@hung\n"
                    "umount /mnt/a /mnt/bind /mnt/a /mnt/b /mnt/x; dmsetup remove upon; svctl create-snapshot tank/a@none --freeze\n"))


@vm.full
@vm.limit(240)
def test_mounted_volumes_are_not_rolled_back(bench):
    disks = [bench.disk("fast", "512M")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", size="256M")
        s.run(f"mkfs.ext4 -q {AT_ONCE} /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; cp -r /usr/include/linux /mnt; umount /mnt\n"
              "svctl create-snapshot tank/a@good; svctl create-snapshot tank/a@same; mount /dev/sv/tank/a /mnt; rm -r /mnt/linux; echo new > /mnt/new; sync -f /mnt")
        s.run("svctl dump tank > /tmp/before; refused svctl rollback-volume tank/a@good --yes 2> /tmp/says; grep -q /mnt /tmp/says\n"
              + UNCHANGED + "test -e /mnt/new; umount /mnt")
        s.run("svctl rollback-volume tank/a@good --dry-run; svctl rollback-volume tank/a@good --yes\n"
              "fsck.ext4 -fn /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; diff -r /usr/include/linux /mnt/linux; test ! -e /mnt/new; umount /mnt\n"
              "svctl check tank; dmsetup ls; svctl list")
        # Taken down and up again, and what is left is only what is needed.
        s.run("svctl deactivate tank; svctl activate tank; mount /dev/sv/tank/a /mnt; diff -r /usr/include/linux /mnt/linux; umount /mnt\n"
              "svctl delete-snapshot tank/a@good --yes; svctl delete-snapshot tank/a@same --yes; sleep 3; svctl check tank")


@vm.full
@vm.limit(240)
def test_rolling_snapshots_are_folded_under_load(bench):
    """What only parts of extents need of deleted snapshots goes while these extents are written, and svd dies and comes back."""
    disks = [bench.disk(name, "1G") for name in ("fast", "slow")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}", size="24M")
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=24 oflag=direct status=none")
        s.run("cd /sys/kernel/tracing; test -d events || mount -t tracefs none .; echo 1 > events/sv/sv_fold/enable")
        load = guest.start("fio --name=w --filename=/dev/sv/tank/a --rw=randwrite --bsrange=4k-16k --direct=1 --ioengine=libaio "
                           "--iodepth=8 --verify=crc32c --do_verify=1 --loops=4 --fsync=32 --rate_iops=400 --output-format=terse")
        for i in range(12):
            s.run(f"svctl create-snapshot tank/a@s{i}; sleep 1")
            if i >= 2:
                s.run(f"svctl delete-snapshot tank/a@s{i - 2} --yes")
            if i == 6:
                s.kill()
                s.start()
        load.wait(150)
        now = digest(s, "a")
        s.run("svctl delete-snapshot tank/a@s10 --yes; svctl delete-snapshot tank/a@s11 --yes")
        only_what_the_volume_has(s, 24)
        assert digest(s, "a") == now
        folded = sum(int(n) for n in s.run("sed -n 's/.*folded=\\([0-9]*\\) failed=0 .*/\\1/p' /sys/kernel/tracing/trace").split())
        print(f"{folded} extents were folded")
        assert folded > 24, folded
        s.run("svctl check tank")


@vm.full
@vm.limit(120 + 60 * FOLD_CUTS)
def test_power_cuts_while_extents_are_folded(bench):
    disks = [bench.disk(name, "512M", backend="volatile") for name in ("fast", "slow")]
    was = None
    for cut in range(FOLD_CUTS):
        with bench.boot(disks) as guest:
            s = Svctl(guest, disks)
            if cut == 0:
                pool_of(s, f"fast={disks[0].dev}", f"slow={disks[1].dev}", size="64M")
                s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=64 oflag=direct status=none")
            else:
                assert digest(s, "a") == was, f"cut {cut}"
                s.run("svctl check tank")
                only_what_the_volume_has(s, 64)
                assert digest(s, "a") == was, f"cut {cut}, folded"
            # Of each extent one block, or most of it.
            s.run(f"svctl create-snapshot tank/a@{cut}\n"
                  f"for i in $(seq 0 63); do n=$((i % 2 ? 1 : 200)); dd if=/dev/urandom of=/dev/sv/tank/a bs=4k count=$n "
                  "seek=$((i * 256 + i)) oflag=direct conv=notrunc status=none; done; sync /dev/sv/tank/a", timeout=120)
            was = digest(s, "a")
            s.run(f"svctl delete-snapshot tank/a@{cut} --yes; sleep 0.{3 + 2 * (cut % 4)}")
            guest.power_cut()
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        assert digest(s, "a") == was
        only_what_the_volume_has(s, 64)
        assert digest(s, "a") == was
        s.run("svctl check tank")


@vm.full
@vm.limit(300)
def test_what_cannot_be_read_is_folded_later(bench):
    """Of two old extents one has become unreadable: the other goes, the volume is served, check and dump are, and once it can be read
    it goes too."""
    disks = [bench.disk("a", "512M")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        sectors = int(s.run(f"blockdev --getsz {disks[0].dev}"))
        s.run(f"dmsetup create bad --table '0 {sectors} linear {disks[0].dev} 0'")
        s.run("svctl create-pool tank --tier t=/dev/mapper/bad; svctl create-volume tank/a --size 8M\n"
              "dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=2 oflag=direct status=none; svctl create-snapshot tank/a@s\n"
              "for i in 0 256; do dd if=/dev/urandom of=/dev/sv/tank/a bs=4k count=200 seek=$i oflag=direct conv=notrunc status=none; done\n"
              "sync /dev/sv/tank/a; svctl check tank")
        now = digest(s, "a")
        line = next(words for words in (text.split() for text in s.run("svctl dump tank").splitlines())
                    if words[0] == "map" and words[1] == "1")
        slot = int(line[5])     # of the snapshot's first extent
        start = int(s.run("od -An -t u8 -j 200 -N 8 /dev/mapper/bad")) // 512 + slot * 2048    # the label's slot_off
        table = (f"0 {start} linear {disks[0].dev} 0\\n{start} 2048 error\\n"
                 f"{start + 2048} {sectors - start - 2048} linear {disks[0].dev} {start + 2048}")
        s.run(f"printf '{table}' | dmsetup reload bad; dmsetup suspend bad; dmsetup resume bad; svctl delete-snapshot tank/a@s --yes")
        s.run("for i in $(seq 30); do test $(svctl list -H -t pool -o used) -le $((3 << 20)) && exit; sleep 1; done; exit 1")
        s.run("svctl check tank; svctl dump tank > /dev/null; svctl status || true")
        s.run(f"dmsetup reload bad --table '0 {sectors} linear {disks[0].dev} 0'; dmsetup suspend bad; dmsetup resume bad")
        only_what_the_volume_has(s, 2)
        assert digest(s, "a") == now
        s.run("svctl check tank")

"""At home on a Linux host: a full guest with systemd and udev, and the project installed in it."""

import json
import os

import vm
from host import VERIFY, WRITE, Machine, unmounted_before_svd_stopped

BOOTS = int(os.environ.get("SOAK_BOOTS", "3"))
ASK = "while sleep 0.1; ! test -e /run/enough; do svctl list > /dev/null; done"
# After a boot volumes are up as they were told to be; what a command changes then, svd keeps however often it is started.
STATES = """states() { test "$(svctl list -H -t volume -o name,state -s name | tr '\\t\\n' ' ;')" = "tank/data-set active;tank/manual $1;tank/off $2;"; }
states inactive active; refused test -e /dev/sv/tank/manual; svctl activate tank/manual; svctl deactivate tank/off
ends 5 svctl deactivate tank/data-set; grep 'in use' /tmp/said
"""
KEPT = """states active inactive; test -b /dev/sv/tank/manual; refused test -e /dev/sv/tank/off; refused dmsetup info sv-tank-off
"""


# Two that write until the machine goes down: a service, to files whose names are the checksums of what they hold, and what no
# unit stops, to tank/manual. It holds that open, or lvm2's blk-availability.service would take it away; every block has been
# written to before, so that it does not need svd. Each has its number, from {first} on, and /share/acked those acknowledged.
INTO_THE_REBOOT = """cat > /root/writer << 'END'
while sleep 0.1; do head -c 512K /dev/urandom > /data/written/new; sync /data/written/new
mv /data/written/new /data/written/$(sha256sum < /data/written/new | cut -c 1-64); done
END
rm -rf /data/written; mkdir /data/written; systemd-run --quiet --unit=writer -p RequiresMountsFor=/data bash /root/writer
for i in $(seq 100); do test $(ls /data/written | wc -l) -gt 2 && break; sleep 0.1; done
"""
NUMBERS = """exec 5<> /dev/sv/tank/manual; n=0; while test $n -lt 16384
do printf '%4096d' $(({first} + n)) | dd of=/dev/fd/5 bs=4k seek=$n oflag=direct conv=notrunc,nocreat status=none
echo $n >> /share/acked; n=$((n + 1)); done
"""
# udev looks at it while a table is changed, as after a program that wrote has closed it.
SUSPENDED = """dm=$(basename $(readlink -f /dev/sv/tank/data-set)); uuid=$(findmnt -no UUID /data); dmsetup suspend --noflush --nolockfs /dev/$dm
code=0; udevadm trigger --settle --action=change /dev/$dm || code=1; test -b /dev/sv/tank/data-set || code=2
test $(readlink -f /dev/disk/by-uuid/$uuid) = /dev/$dm || code=3
dmsetup resume /dev/$dm; udevadm settle; sleep 1; test $code = 0; test $(readlink -f /dev/disk/by-uuid/$uuid) = /dev/$dm; findmnt /data
"""
WRITTEN = """cd /data/written; rm -f new; ls | wc -l; ls | grep -q .; for f in *; do echo "$f  $f"; done | sha256sum --quiet -c
svctl activate tank/manual; dd if=/dev/sv/tank/manual bs=4k count={count} iflag=direct status=none | tr -s ' ' '\\n' | sed 1d | cmp - <(head -c -1 /share/numbers)
udevadm settle; svctl deactivate tank/manual; cd /
"""


def writers_run_into_the_reboot(guest, boot):
    """They change what the check at the end compares: it is made before."""
    guest.run("svctl check tank; svctl activate tank/manual; dd if=/dev/zero of=/dev/sv/tank/manual bs=1M count=64 oflag=direct status=none\n" +
              INTO_THE_REBOOT, timeout=120)
    guest.pools_checked = False
    guest.start(NUMBERS.format(first=boot * 100000))
    vm.wait_until(lambda: os.path.exists(guest.share_path("acked")) and guest.get("acked").strip(), 60, "block acknowledged")


def is_all_there(guest, before, boot):
    """What they had written when the boot `before` ended."""
    acked = int(before.get("acked").split()[-1])
    first = boot * 100000
    guest.put("numbers", "".join(f"{n}\n" for n in range(first, first + acked + 1)))
    print(f"{acked + 1} blocks were acknowledged;", guest.run(WRITTEN.format(count=acked + 1), timeout=120))


def user_partition_is_shown(guest, disk):
    """As a member, to udev and to lsblk -f; its table and its neighbour as they were."""
    print(guest.run(f"lsblk -f {disk}; properties() {{ udevadm info -q property {disk}-part$1; }}; properties 1\n"
                    "properties 1 | grep -x SV_POOL=part; properties 1 | grep -x ID_FS_TYPE=sv_member; properties 1 | grep -x ID_FS_LABEL=part\n"
                    "uuid=$(svctl --json show part | sed -n 's/.*\"uuid\": \"\\(.*\\)\".*/\\1/p' | head -1); properties 1 | grep -x ID_FS_UUID=$uuid\n"
                    f"name=$(basename $(readlink -f {disk}-part1)); lsblk -f {disk} | grep -E \"$name +sv_member .*part +$uuid\"\n"
                    f"name=$(basename $(readlink -f {disk}-part2)); lsblk -f {disk} | grep -E \"$name +ext4\"\n"
                    "properties 2 > /tmp/second; refused grep SV_POOL /tmp/second\n"
                    f"sfdisk -d {disk} | cmp - /root/table; fsck.ext4 -fn {disk}-part2; svctl show part | grep 'path: {disk}-part1'"))


@vm.full
@vm.limit(400)
def test_members_are_seen_and_noticed_by_udev(bench):
    disks = [bench.disk("whole", "128M"), bench.disk("late", "160M"), bench.disk("shared", "112M")]
    machine = Machine(bench, disks)
    late = f"dmsetup create late --table '0 262144 linear {disks[1].dev} 2048'\n"
    with machine.boot() as guest:
        machine.install(guest)
        # udev must not have the kernel read a table anew while its partition becomes a member.
        guest.run(f"for i in 1 2 3; do svctl create-pool tank --tier t={disks[0].dev}; svctl delete-pool tank --yes; done", timeout=120)
        guest.run(late + f"svctl create-pool tank --tier t={disks[0].dev}; svctl create-volume tank/a --size 1G\n"
                  "svctl create-pool archive --tier t=/dev/mapper/late; svctl create-volume archive/b --size 64M\n"
                  "dd if=/dev/urandom of=/dev/sv/archive/b bs=1M count=8 oflag=direct conv=fsync status=none\n"
                  "sha256sum /dev/sv/archive/b > /root/sums; udevadm settle")
        # A partition that the user made, beside one that svctl must leave alone.
        guest.run(f"printf 'label: gpt\\nsize=64M\\nsize=16M\\n' | sfdisk -q {disks[2].dev}; udevadm settle; mkfs.ext4 -q {disks[2].dev}-part2\n"
                  f"sfdisk -d {disks[2].dev} > /root/table; svctl create-pool part --tier t={disks[2].dev}-part1; svctl create-volume part/c --size 16M\n"
                  "dd if=/dev/urandom of=/dev/sv/part/c bs=1M count=8 oflag=direct conv=fsync status=none\n"
                  "sha256sum /dev/sv/part/c >> /root/sums; udevadm settle")
        user_partition_is_shown(guest, disks[2].dev)
        rows = [r.split() for r in guest.run("lsblk -nro FSTYPE,LABEL,UUID | grep sv_member").splitlines()]
        pools = {p["name"]: p["uuid"] for p in json.loads(guest.run("svctl --json list"))["pools"]}
        assert sorted(r[1:] for r in rows) == sorted([n, u] for n, u in pools.items()), rows
        # A second name for the same bytes, as multipath has for its paths, is not a second member.
        part = guest.run(f"readlink -f {disks[0].dev}-part1").strip()
        guest.run(f"svctl deactivate tank; dmsetup create map --table \"0 $(blockdev --getsz {part}) linear {part} 0\"\n"
                  "udevadm settle; svctl activate tank; dmsetup deps -o devname sv-tank | grep '(map)'\n"
                  "svctl deactivate tank; udevadm settle; dmsetup remove --retry map; udevadm settle; svctl activate tank")
    with machine.boot() as guest:
        # No mount waits for it: svd may be at it still.
        guest.run("for i in $(seq 100); do test -b /dev/sv/tank/a && test -b /dev/sv/part/c && break; sleep 0.1; done\n"
                  "test -b /dev/sv/tank/a; test ! -e /dev/sv/archive; svctl list\n" + late +
                  "for i in $(seq 40); do test -b /dev/sv/archive/b && break; sleep 0.1; done; sha256sum -c /root/sums")


SCHEDULED = "svctl list -H -t snapshot -o name,scheduled | awk '$2 == \"yes\" { print $1 }'"


# What systemd and journald cannot keep then is theirs; svd is started anew, and works.
HOST_FULL = """fallocate -l $(df --output=avail -B1 / | tail -1) /filler || true; dd if=/dev/zero of=/filler2 bs=64k 2> /dev/null || true
refused sh -c 'head -c 64K /dev/zero 2> /dev/null > /filler3'; systemctl restart svd; svctl create-volume tank/x --size 16M
dd if=/dev/urandom of=/dev/sv/tank/x bs=1M count=4 oflag=direct conv=fsync status=none; svctl check tank; svctl delete-volume tank/x --yes
rm /filler*; systemctl is-active svd
"""


@vm.full
@vm.limit(800)
def test_timer_makes_snapshots_by_schedule(bench):
    """By itself, also after a boot; not while svd is stopped, which it does not start; and without a line a minute in the journal."""
    disks = [bench.disk("fast", "256M")]
    machine = Machine(bench, disks)
    with machine.boot() as guest:
        machine.install(guest)
        guest.run(f"systemctl is-active svctl-schedule.timer; svctl create-pool tank --tier fast={disks[0].dev}\n"
                  "for v in a b; do svctl create-volume tank/$v --size 64M; done; svctl set-volume tank/a --schedule 1min:2min\n"
                  "dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=8 oflag=direct conv=fsync status=none; svctl create-snapshot tank/a@mine")
        vm.wait_until(lambda: len(guest.run(SCHEDULED).split()) == 2, 150, "two snapshots")
        two = guest.run(SCHEDULED).split()
    with machine.boot() as guest:
        def two_later():    # and not none, as before the pool is up
            now = set(guest.run(SCHEDULED).split())
            return len(now) == 2 and not set(two) & now

        vm.wait_until(two_later, 200, "two later ones")
        print(guest.run(f"test $({SCHEDULED} | wc -l) = 2; svctl show tank/a@mine; svctl status > /tmp/said; refused grep LATE /tmp/said\n"
                        "svctl list -H -t snapshot -o name > /tmp/said; refused grep tank/b /tmp/said; journalctl -u svctl-schedule.service --no-pager\n"
                        "test $(journalctl -q -o cat -u svctl-schedule.service | wc -l) = 0\n"
                        "journalctl -u svd -o cat --no-pager | grep 'tank/a: by its schedule snapshot auto-'"))
        # The host's clock, which everything here goes by, jumps; then its file system has no space.
        restarts = guest.run("systemctl show -P NRestarts svd")
        for jump in ("+1 year", "-2 years"):
            there = set(guest.run(SCHEDULED + f"; date -s '{jump}' > /dev/null").split())
            vm.wait_until(lambda: set(guest.run(SCHEDULED).split()) - there, 150, "one more")
        assert guest.run("systemctl show -P NRestarts svd") == restarts
        guest.run(HOST_FULL, timeout=120)
        guest.run("systemctl stop svd; sleep 65; refused systemctl is-active svd; refused systemctl is-failed svctl-schedule\n"
                  f"systemctl start svd; svctl check tank", timeout=120)


@vm.limit(300 + 200 * BOOTS)
def test_fstab_mounts_volumes_at_each_boot(bench):
    """With the guest's own time: systemd gives a device of fstab 90 s, whatever else the host has to do. A boot with all that is
    tried in it is some 18 s of that, which an emulator beside another guest needs up to 150 s for."""
    disks = [bench.disk("fast", "256M"), bench.disk("slow", "512M")]
    machine = Machine(bench, disks)
    with machine.boot(own_time=True) as guest:
        machine.install(guest)
        guest.run(f"svctl create-pool tank --tier fast={disks[0].dev} --tier slow={disks[1].dev}\n"
                  "for v in manual off; do svctl create-volume tank/$v --size 64M; done; svctl set-volume tank/manual --autoactivate no\n"
                  "svctl create-volume tank/data-set --size 1G; mkfs.xfs -q /dev/sv/tank/data-set; mkdir -p /data\n"
                  "echo '/dev/sv/tank/data-set /data xfs defaults 0 0' >> /etc/fstab\n"
                  "systemctl disable blk-availability     # lvm2's, which unmounts before systemd does: the first time down only\n"
                  "systemctl daemon-reload; mount /data; dd if=/dev/urandom of=/data/file bs=1M count=20\n"
                  "sha256sum /data/file > /root/sums; sync", timeout=180)
        writers_run_into_the_reboot(guest, 0)
    for boot in range(BOOTS):
        before = guest
        with machine.boot(own_time=True) as guest:
            print(guest.run("systemctl is-system-running; systemctl --failed --no-pager --quiet\n"
                            "findmnt /data; sha256sum -c /root/sums; svctl list; svctl check tank", timeout=120))
            print(guest.run(SUSPENDED))
            is_all_there(guest, before, boot)
            # The link is udev's, and stays so after svd is started anew. Nobody who asks meanwhile is refused, and
            # nobody who writes notices.
            guest.run(f"{STATES}{{ {WRITE}}} & {ASK} &\n"
                      "for i in 1 2 3; do readlink /dev/sv/tank/data-set | grep -E '^../../dm-[0-9]+$'\n"
                      f"systemctl restart svd; {KEPT}done; touch /run/enough; wait -n; wait -n\n{VERIFY}"
                      "systemctl stop svd; svctl list > /dev/null; systemctl is-active svd; rm /run/enough", timeout=120)
            unmounted_before_svd_stopped(guest, "data.mount")
            writers_run_into_the_reboot(guest, boot + 1)

"""svd and svctl on the real module: pools, volumes and files through reboots, power cuts and crashes of svd."""

import json

import vm
from svctl import Svctl, pool_of


class Pools(Svctl):
    """With a pool of three disks and two volumes."""

    def create(self):
        fast, slow1, slow2 = (d.dev for d in self.disks)
        return self.run(f"svctl create-pool tank --tier fast={fast} --tier slow={slow1},{slow2}\n"
                        "svctl create-volume tank/a --size 2G; svctl create-volume tank/b-c --size 2G\n"
                        "svctl list; dmsetup ls; dmsetup status")


def three_disks(bench, backend):
    return [bench.disk("fast", "512M", backend=backend), bench.disk("slow1", "1G", backend=backend),
            bench.disk("slow2", "1G", backend=backend)]


FILL = """mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt
cp -r /usr/include/linux /mnt/; dd if=/dev/urandom of=/mnt/big bs=1M count=48 status=none
cd /mnt; find . -type f ! -name .sums -print0 | sort -z | xargs -0 sha256sum > /mnt/.sums; sync -f /mnt; cd /
"""
VERIFY = "mount /dev/sv/tank/a /mnt; cd /mnt; sha256sum --quiet -c .sums; cd /; umount /mnt; fsck.ext4 -fn /dev/sv/tank/a"


@vm.full
@vm.limit(240)
def test_files_survive_a_reboot(bench):
    disks = three_disks(bench, "file")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        print(s.create())
        s.run(FILL + "umount /mnt; svctl check tank; svctl deactivate tank; svctl status")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        print(s.run(VERIFY + "; svctl check tank; svctl list"))


@vm.full
@vm.limit(240)
def test_synced_files_survive_a_power_cut(bench):
    disks = three_disks(bench, "volatile")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.create()
        s.run(FILL)
        guest.power_cut()
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.run("mount /dev/sv/tank/a /mnt; umount /mnt\n" + VERIFY + "; svctl check tank")


@vm.full
@vm.limit(240)
def test_svd_killed_and_started_again_catches_up(bench):
    disks = three_disks(bench, "file")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.create()
        s.run(FILL)
        for _ in range(3):
            s.kill()
            s.run("echo x > /mnt/while-svd-is-dead; sync")
            s.start()
            s.run("svctl check tank; cat /mnt/while-svd-is-dead; dd if=/dev/urandom of=/mnt/more bs=1M count=4; sync")
        s.run("umount /mnt; " + VERIFY)


@vm.limit(240)
def test_grows_renames_trims_and_deletes(bench):
    disks = three_disks(bench, "file")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.create()
        s.run(FILL + """
ends 5 svctl delete-volume tank/a --yes
svctl resize-volume tank/a --size 3G; resize2fs /dev/sv/tank/a; test $(df --output=size -m /mnt | tail -1) -gt 2500
ends 5 svctl rename-volume tank/a renamed; grep 'mounted on /mnt (umount /mnt)' /tmp/said
rm /mnt/big; sync; fstrim /mnt; svctl check tank; svctl list; umount /mnt; fsck.ext4 -fn /dev/sv/tank/a
svctl rename-volume tank/a renamed; test -b /dev/sv/tank/renamed; test ! -e /dev/sv/tank/a
svctl delete-volume tank/renamed --yes; svctl delete-volume tank/b-c --yes; svctl check tank; svctl list
svctl delete-pool tank --yes; test -z "$(dmsetup ls | grep sv-)"; svctl list""")


@vm.full
@vm.limit(240)
def test_svd_killed_between_catalogue_and_kernel_catches_up(bench):
    disks = three_disks(bench, "file")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.create()
        for step, command, check in (
                ("create", "create-volume tank/new --size 1G", "test -b /dev/sv/tank/new"),
                ("resize", "resize-volume tank/new --size 2G",
                 "test $(blockdev --getsize64 /dev/sv/tank/new) = 2147483648"),
                ("rename", "rename-volume tank/new other", "test -b /dev/sv/tank/other; test -b /dev/mapper/sv-tank-other"),
                ("delete", "delete-volume tank/other --yes", "test ! -e /dev/mapper/sv-tank-other")):
            s.kill()
            s.start(env=f"SVD_KILL_AT={step}-volume-in-catalogue")
            s.run(f"dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=3; svctl {command} && exit 1; flock -w 10 /run/svctl/svd.lock true")
            s.start()
            print(s.run(f"{check}; svctl check tank; svctl list; dmsetup status; cat /run/svctl/log"))


@vm.full  # until it has run to its end on a quiet machine
@vm.limit(240)
def test_svd_killed_while_it_adds_devices(bench):
    """Two at a time: each is in the pool with all its space, or not at all. Repeating the command adds the rest."""
    disks = three_disks(bench, "file")
    spare = [bench.disk(f"more{i}", "64M") for i in range(10)]
    with bench.boot(disks + spare) as guest:
        guest.run("for d in /sys/block/vd*; do echo 0 > $d/queue/rotational; done")
        s = Pools(guest, disks + spare)
        s.disks = disks
        s.create()
        s.disks = disks + spare
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=8 oflag=direct conv=fsync status=none\n"
              "sha256sum /dev/sv/tank/a > /tmp/sums")
        def pool():
            return json.loads(s.run("svctl --json list"))["pools"][0]

        # What the volume takes is what the new ones take, too.
        volume = "/sys/block/$(dmsetup info -c --noheadings -o blkdevname sv-tank-a)/queue/rotational"
        s.run(f"for d in {' '.join(disk.dev for disk in spare)}; do\n"
              "echo 1 > /sys/block/$(basename $(readlink -f $d))/queue/rotational\ndone\n"
              f"test $(< {volume}) = 0")
        for i, point in enumerate(("partitioned", "labelled", "in-catalogue", "in-kernel", "granted")):
            one, two = (disk.dev for disk in spare[2 * i:2 * i + 2])
            add = f"svctl add-device tank slow={one},{two}"
            before = pool()
            s.kill()
            s.start(env=f"SVD_KILL_AT=add-device-{point}")
            s.run(f"refused {add}; flock -w 10 /run/svctl/svd.lock true")
            s.start()
            s.run("svctl check tank")
            if point == "partitioned":
                assert pool() == before
                s.run(f"refused {add}; {add} --wipe {one} --yes; svctl check tank")
            else:
                gained = pool()["free"] - before["free"]
                assert gained > 50 << 20, (point, gained)
                s.run(f"{add}; svctl check tank")
                assert pool()["free"] == before["free"] + 2 * gained, point
            assert len(pool()["devices"]) == len(before["devices"]) + 2, point
            s.run(f"test $(< {volume}) = 1")
        s.run("svctl deactivate tank; svctl activate tank; svctl check tank; sha256sum -c /tmp/sums")
        assert len(pool()["devices"]) == 3 + len(spare)


# How often svd's threads gave up a CPU by themselves while nothing was asked of it. Each of the two wakes every 5 s by
# its clock: to look for alerts, and at the other one. Once a second, together, is what an idle machine may lose to svd.
SWITCHES = "awk '/^voluntary/ { n += $2 } END { print n }' /proc/$(pidof svd)/task/*/status"


@vm.full
@vm.limit(120)
def test_idle_svd_sleeps_and_notices_a_removed_device(bench):
    disks = three_disks(bench, "file")
    with bench.boot(disks) as guest:
        s = Pools(guest, disks)
        s.create()
        s.run("sleep 1")
        before = int(s.run(SWITCHES))
        s.run("sleep 10")
        switches = int(s.run(SWITCHES)) - before
        assert switches <= 10, f"{switches} times awake in 10 idle seconds"
        # An administrator's dmsetup, behind svd's back.
        s.run("for d in $(dmsetup ls | awk '/^sv-tank-/ { print $1 }') sv-tank; do dmsetup remove $d; done\n"
              "for i in $(seq 100); do [[ -e /dev/mapper/sv-tank ]] && break; sleep 0.1; done\n"
              "grep 'device was removed.* [[]SV-POOL-REMOVED]' /run/svctl/log; svctl check tank; test -b /dev/sv/tank/a")
        # Something in the way of the links, which svd makes itself where there is no udev.
        s.run("svctl deactivate tank/a; rm -r /dev/sv/tank; touch /dev/sv/tank; svctl activate tank/a; test -b /dev/mapper/sv-tank-a\n"
              "grep '^<4>/dev/sv/tank/a: .* [[]SV-LINK-MISSING]' /run/svctl/log; svctl deactivate tank/a\n"
              "svctl activate tank/a; test -b /dev/sv/tank/a")


TYPE = "da8107d2-cd82-48ee-8323-743684ec7dea"
# mkfs.ext4 asks only where it has a terminal; nobody there says yes.
MKFS = "refused script -qec 'mkfs.ext4 {0}' /dev/null < /dev/null 2>&1"


@vm.full
@vm.limit(240)
def test_whole_disks_get_a_partition_table_of_their_own(bench):
    disks = [bench.disk("fast", "256M"), bench.disk("slow", "256M", logical=4096), bench.disk("late", "128M")]
    fast, slow, late = (d.dev for d in disks)
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        s.run(f"svctl create-pool tank --tier fast={fast} --tier slow={slow} --dry-run\n"
              f"for d in {fast} {slow} {late}; do test -z \"$(blkid -p $d)\"; test ! -e $(readlink -f $d)1; done\n"
              f"svctl create-pool tank --tier fast={fast} --tier slow={slow}\n"
              f"svctl add-device tank slow={late}; svctl create-volume tank/a --size 1G\n"
              f"svctl create-pool tank --tier fast=$(readlink -f {fast}) --tier slow={slow},{late} | grep 'no change'\n"
              "mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt; cp /etc/passwd /mnt; umount /mnt")
        shown = s.run("svctl show tank")
        for disk in disks:
            assert f"path: {disk.dev}\n" in shown and f"device: {s.run('readlink -f ' + disk.dev).strip()}1\n" in shown, shown
            table = s.run(f"sfdisk -d {disk.dev}")
            assert f"type={TYPE.upper()}" in table and 'name="svctl"' in table, table
            part = s.run(f"blkid -p -o export $(readlink -f {disk.dev})1; lsblk {disk.dev}")  # lsblk shows it under udev
            assert f"PART_ENTRY_TYPE={TYPE}\n" in part and "PART_ENTRY_NAME=svctl\n" in part, part
            size, start = s.run(f"cd /sys/class/block/$(basename $(readlink -f {disk.dev})1); cat size start").split()
            assert int(start) == 2048 and int(size) * 512 == disk.size - (2 << 20), (start, size)
        s.run(f"svctl deactivate tank; sha256sum {fast} {slow} {late} > /tmp/sums")
        for disk in disks:  # the pool is down, and nothing is open: only the table protects them
            s.run(f"blkid -p {disk.dev} | grep -w gpt; wipefs {disk.dev} | grep -w gpt\n"
                  f"refused mkfs.xfs {disk.dev} 2>&1 | tee /dev/stderr | grep 'partition table'\n"
                  + MKFS.format(disk.dev) + " | tee /dev/stderr | grep -i 'found a gpt partition table'")
        s.run("sha256sum --quiet -c /tmp/sums")
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        s.run("mount /dev/sv/tank/a /mnt; cmp /etc/passwd /mnt/passwd; umount /mnt; svctl check tank; svctl list\n"
              "svctl delete-pool tank --yes")
        for disk in disks:
            s.run(f"test -z \"$(blkid -p {disk.dev})\"; test -z \"$(wipefs {disk.dev})\"\n"
                  f"test ! -e $(readlink -f {disk.dev})1")
        s.run(f"svctl create-pool again --tier t={fast},{slow},{late}; svctl check again")


@vm.limit(180)
def test_interrupted_create_pool_and_foreign_tables_need_wipe(bench):
    disks = [bench.disk("a", "128M"), bench.disk("b", "128M")]
    a, b = (d.dev for d in disks)
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        s.kill()
        s.start(env="SVD_KILL_AT=create-pool-partitioned")
        s.run(f"refused svctl create-pool tank --tier t={a},{b}; flock -w 10 /run/svctl/svd.lock true")
        s.start()
        create = f"svctl create-pool tank --tier t={a},{b}"
        wipe = f" --wipe {a} --wipe {b} --yes"
        s.run(f"sha256sum {a} {b} > /tmp/sums; ends 5 {create}\n"
              f"grep 'gpt partition table' /tmp/said; grep -e '--wipe {a}' /tmp/said\n"
              f"sha256sum --quiet -c /tmp/sums; {create}{wipe}; svctl check tank; svctl delete-pool tank --yes")
        # Somebody else's table, and a file system where our partition will begin.
        s.run(f"echo 'start=2048' | sfdisk -q --label dos {a}; mkfs.ext4 -q $(readlink -f {a})1\n"
              f"ends 5 {create}\n"
              f"grep 'dos partition table' /tmp/said; {create} --wipe {a} --yes; svctl check tank\n"
              f"test -z \"$(wipefs $(readlink -f {a})1)\"; svctl delete-pool tank --yes")
        # A partition that the user made is used as it is.
        s.run(f"printf 'label: gpt\\nsize=96M\\nsize=8M\\n' | sfdisk -q {b}; part=$(readlink -f {b})1\n"
              f"svctl create-pool part --tier t=$part; svctl show part | grep \"path: $part\"; svctl check part\n"
              f"svctl delete-pool part --yes; test $(sfdisk -d {b} | grep -c size=) = 2")


@vm.full
@vm.limit(120)
def test_mounts_of_svds_own_keep_no_volume_busy(bench):
    """As svd.service has it (PrivateMounts=yes): svd starts while a volume is mounted, and again before one is."""
    disk = bench.disk("a", "256M")
    with bench.boot([disk]) as guest:
        guest.run("mount --make-rshared /")  # as systemd does
        s = Svctl(guest, [disk])
        s.run(f"svctl create-pool tank --tier t={disk.dev}; svctl create-volume tank/a --size 64M\n"
              "mkfs.ext4 -q /dev/sv/tank/a; mount /dev/sv/tank/a /mnt")
        s.kill()
        s.start(env="unshare -m --propagation slave")
        s.run("test $(readlink /proc/$(pidof svd)/ns/mnt) != $(readlink /proc/self/ns/mnt)\n"
              "svctl create-volume tank/b --size 64M; test -b /dev/sv/tank/b; refused svctl deactivate tank 2>&1\n"
              "umount /mnt; mkfs.ext4 -q /dev/sv/tank/b; mount /dev/sv/tank/b /mnt; umount /mnt; svctl deactivate tank; svctl activate tank")


# state DISK: what the list of devices says of it; emptied DISK.
EVACUATE = """state() { svctl list -H -t device -o name,state,used | awk -F '\t' -v disk=$1 '$1 == disk { print $2, $3 }'; }
emptied() { for i in $(seq 300); do test "$(state $1)" = 'empty 0' && return; sleep 0.2; done; svctl list -t device; svctl status; return 1; }
"""


@vm.full
@vm.limit(300)
def test_a_device_is_emptied_under_load(bench):
    """While fio writes, verifies and calls fsync; svd is killed in the middle of it; then one is emptied onto a slower tier."""
    disks = fast, one, two = [bench.disk("fast", "128M"), bench.disk("one", "512M"), bench.disk("two", "512M")]
    with bench.boot(disks) as guest:
        s = Svctl(guest, disks)
        pool_of(s, f"fast={fast.dev}", f"slow={one.dev},{two.dev}", size="160M")
        s.run("dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=160 oflag=direct conv=fsync status=none; svctl create-snapshot tank/a@first\n"
              "sha256sum < /dev/sv/tank/a > /tmp/first; svctl list -t device")
        load = guest.start("fio --name=v --filename=/dev/sv/tank/a --rw=randwrite --bsrange=4k-256k --blockalign=4k --ioengine=libaio --iodepth=4 --direct=1 "
                           "--size=160M --io_size=120M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=32 > /tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }")
        s.run(EVACUATE + f"test \"$(state {fast.dev} | cut -d ' ' -f 1)\" = present; svctl evacuate-device tank {fast.dev}; sleep 1")
        s.kill()
        s.start()
        print(s.run(EVACUATE + f"emptied {fast.dev}; svctl list -t device; svctl check tank"))
        load.wait(150)
        print(s.run(EVACUATE + f"svctl evacuate-device tank {fast.dev} --undo; svctl evacuate-device tank {one.dev}; emptied {one.dev}; svctl list -t device; svctl check tank\n"
                    f"svctl activate tank/a@first; sha256sum < /dev/sv/tank/a@first | cmp - /tmp/first; svctl deactivate tank/a@first\n"
                    f"sha256sum < /dev/sv/tank/a > /tmp/now; svctl deactivate tank; svctl activate tank; sha256sum < /dev/sv/tank/a | cmp - /tmp/now\n"
                    f"test \"$(state {one.dev})\" = 'empty 0'; svctl evacuate-device tank {one.dev} --undo; test \"$(state {one.dev})\" = 'present 0'",
                    timeout=150))

"""svd and svctl on the real module: pools, volumes and files through reboots, power cuts and crashes of svd."""

import vm
from svctl import Svctl


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
svctl delete-volume tank/a --yes && exit 1; test $? -ne 0
svctl resize-volume tank/a --size 3G; resize2fs /dev/sv/tank/a; test $(df --output=size -m /mnt | tail -1) -gt 2500
rm /mnt/big; sync; fstrim /mnt; svctl check tank; svctl list; umount /mnt; fsck.ext4 -fn /dev/sv/tank/a
svctl rename-volume tank/a renamed; test -b /dev/sv/tank/renamed; test ! -e /dev/sv/tank/a
svctl delete-volume tank/renamed --yes; svctl delete-volume tank/b-c --yes; svctl check tank; svctl list
svctl delete-pool tank --yes; test -z "$(dmsetup ls | grep sv-)"; svctl list""")


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


# How often svd's threads gave up a CPU by themselves while nothing was asked of it.
SWITCHES = "awk '/^voluntary/ { n += $2 } END { print n }' /proc/$(pidof svd)/task/*/status"


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
        assert switches < 5, f"{switches} times awake in 10 idle seconds"
        # An administrator's dmsetup, behind svd's back.
        s.run("for d in $(dmsetup ls | awk '/^sv-tank-/ { print $1 }') sv-tank; do dmsetup remove $d; done\n"
              "for i in $(seq 100); do [[ -e /dev/mapper/sv-tank ]] && break; sleep 0.1; done\n"
              "grep 'device was removed' /run/svctl/log; svctl check tank; test -b /dev/sv/tank/a")

"""Members on md, LUKS and multipath in a full guest: found once, when what they lie on is there, at each boot."""

import vm
from host import EACH, Machine, bundle, unmounted_before_svd_stopped

# What multipathd's rules say of a path before it has made the map.
PATH_RULE = 'ATTR{serial}=="path", ENV{DM_MULTIPATH_DEVICE_PATH}="1"\n'
MAP = """modprobe dm-multipath; modprobe dm-round-robin
dmsetup create mpatha --uuid mpath-path --table "0 $(blockdev --getsz $PATH_DISK) multipath 0 0 1 1 round-robin 0 1 1 $PATH_DISK 1000"
udevadm settle
"""
UP = """up() { for i in $(seq 150); do svctl status | grep -q "^$1: active" && return; sleep 0.2; done; svctl status; return 1; }
"""
# Each device with its label, and nothing that only has the same bytes.
SEEN = """lsblk -nro FSTYPE,LABEL,UUID,KNAME,TYPE | sort -u
members() { lsblk -nro FSTYPE,LABEL,KNAME | awk '$1 == "sv_member" {print $2, $3}' | sort -u; }
test "$(members)" = "$(printf '%s\\n' "mirror $(basename $(readlink -f /dev/md/m))" "mixed $(basename $(readlink -f /dev/mapper/mpatha))" \
  "mixed $(basename $(readlink -f /dev/mapper/secret))" "deep $(basename $(readlink -f /dev/mapper/deep))" | sort)"
test "$(lsblk -dnro FSTYPE,UUID /dev/md/m)" = "sv_member $(svctl --json show mirror | sed -n 's/.*"uuid": "\\(.*\\)".*/\\1/p')"
udevadm info -q property /dev/mapper/secret | grep -x SV_POOL=mixed
"""


def create(disks):
    a, b, luks, path, _, *five = (disk.dev for disk in disks)
    return f"""export PATH_DISK={path}
mdadm --create /dev/md/m --run --metadata=1.0 --level=1 --bitmap=none --assume-clean -n 2 {a} {b}
head -c 32 /dev/urandom > /root/key; chmod 600 /root/key
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/key {luks}
echo "secret {luks} /root/key luks" > /etc/crypttab
cryptsetup open --key-file /root/key {luks} secret
printf '%s' '{PATH_RULE}' > /etc/udev/rules.d/59-path.rules
udevadm control --reload; udevadm trigger --settle {path}
{MAP}
svctl create-pool mirror --tier t=/dev/md/m
svctl create-pool mixed --tier fast=/dev/mapper/secret --tier slow=/dev/mapper/mpatha
for p in mirror mixed; do svctl create-volume $p/v --size 1G
dd if=/dev/urandom of=/dev/sv/$p/v bs=1M count=8 oflag=direct conv=fsync status=none; sha256sum /dev/sv/$p/v >> /root/sums; done
mdadm --create /dev/md/five --run --level=5 --chunk=64 --assume-clean -n 3 {" ".join(five)}
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/key /dev/md/five
echo "deep /dev/md/five /root/key luks" >> /etc/crypttab; cryptsetup open --key-file /root/key /dev/md/five deep
svctl create-pool deep --tier t=/dev/mapper/deep; svctl create-volume deep/v --size 256M; mkfs.ext4 -q /dev/sv/deep/v; mkdir /data
echo '/dev/sv/deep/v /data ext4 defaults 0 0' >> /etc/fstab; systemctl daemon-reload; mount /data
dd if=/dev/urandom of=/data/file bs=1M count=16 conv=fsync status=none; sha256sum /data/file > /root/sums-deep
udevadm settle
"""


def duplicates(copy):
    """A dd copy: told while the pool is up, refused with both names when it is not."""
    return f"""export COPY={copy}
dd if=/dev/md/m of=$COPY bs=1M conv=fsync status=none; udevadm settle; svctl scan
named() {{ for d in "$@"; do grep "both .*say that they are its member" /tmp/said | grep -qwE "$d|$(readlink -f $d)"; done; }}
svctl status > /tmp/said; named /dev/md/m $COPY
svctl deactivate mirror; refused svctl activate mirror 2> /tmp/said; named /dev/md/m $COPY
dd if=/dev/zero of=$COPY bs=1M count=64 conv=fsync status=none; udevadm settle
svctl activate mirror; sha256sum -c /root/sums
"""


@vm.full
@vm.limit(400)
def test_md_luks_and_multipath_members_come_back_complete(bench):
    disks = [bench.disk("a", "64M"), bench.disk("b", "64M"), bench.disk("luks", "96M"), bench.disk("path", "64M"),
             bench.disk("copy", "64M"), *(bench.disk(f"five{i}", "64M") for i in range(3))]
    machine = Machine(bench, disks)
    with machine.boot() as guest:
        machine.install(guest)
        print(guest.run(UP + create(disks) + SEEN, timeout=150))
        print(guest.run(duplicates(disks[4].dev), timeout=120))
    with machine.boot() as guest:
        # On LUKS on RAID 5: mounted by the boot, and at the end of the one before unmounted while all of it was there.
        print(guest.run("systemctl is-active local-fs.target; findmnt /data; sha256sum -c /root/sums-deep; cat /proc/mdstat; svctl check deep"))
        unmounted_before_svd_stopped(guest, "data.mount")
        guest.run("refused grep -E 'dm-[0-9]+.*(recovery|I/O error)' <(journalctl -b -k --no-pager -o cat)")
        # The mirror is assembled, the map is not there yet: its path is no member, and the pool waits for it.
        print(guest.run(UP + "up mirror; svctl status; svctl status | grep 'member 1 of 2 is missing'\n"
                        "refused test -e /dev/sv/mixed; svctl --json show mirror | grep '\"device\": \"/dev/md'\n", timeout=120))
        print(guest.run(UP + f"export PATH_DISK={disks[3].dev}\n" + MAP + "up mixed; dmsetup deps -o devname sv-mixed | grep mpatha\n"
                        "sha256sum -c /root/sums; udevadm settle\n" + SEEN, timeout=120))


# By multipathd, as Debian brings it: it makes the map, says which devices are its paths, and goes round one that is lost.
MULTIPATHD = """rm /etc/systemd/system/multipathd.{service,socket}
find /etc/udev/rules.d -lname /dev/null -delete
printf 'defaults {\\n find_multipaths yes\\n user_friendly_names yes\\n}\\n' > /etc/multipath.conf
systemctl daemon-reload; systemctl enable --now multipathd; udevadm control --reload; udevadm trigger --settle --subsystem-match=block
for i in $(seq 150); do test -e /dev/mapper/mpatha && break; sleep 0.2; done; udevadm settle; multipath -ll
test $(multipath -ll mpatha | grep -cw sd[a-z]) -eq 2
"""
# The map is the member, and no path is one, or can become one.
MAP_ONLY = """lsblk -nro NAME,FSTYPE,LABEL,TYPE | sort -u
test "$(lsblk -nro NAME,FSTYPE | awk '$2 == "sv_member" {print $1}' | sort -u)" = "$(printf '%s\\n' mpatha vdb1)"
svctl scan; svctl status; test $(svctl --json show both | grep -c '"device": "/dev/mapper/mpatha"') -eq 1
for words in "/dev/sda" "/dev/sdb --wipe --yes"; do ends 5 svctl create-pool other --tier t=$words; done
"""
# While files are written to.
LOSE_A_PATH = """( while test ! -e /tmp/stop; do dd if=/dev/urandom of=/data/busy bs=256k count=4 conv=fsync,notrunc status=none || exit; done ) &
sleep 1; echo 1 > /sys/block/sda/device/delete
for i in $(seq 100); do test $(multipath -ll mpatha | grep -cw sd[a-z]) -eq 1 && break; sleep 0.2; done; multipath -ll mpatha
dd if=/dev/urandom of=/data/after bs=1M count=4 conv=fsync status=none
touch /tmp/stop; wait %1; svctl check both; svctl status | grep '^both: active'
cd /data; sha256sum after busy > /root/sums; sync /root/sums
"""


@vm.full
@vm.limit(300)
def test_multipathd_makes_a_member_of_two_paths(bench):
    machine = Machine(bench, [bench.disk("twice", "96M", paths=2), bench.disk("other", "64M")])
    with machine.boot() as guest:
        machine.install(guest)
        print(guest.run(MULTIPATHD, timeout=120))
        print(guest.run(f"""svctl create-pool both --tier fast=/dev/mapper/mpatha --tier slow={machine.disks[1].dev}
svctl create-volume both/v --size 256M; mkfs.ext4 -q /dev/sv/both/v; mkdir /data
echo '/dev/sv/both/v /data ext4 defaults 0 0' >> /etc/fstab; systemctl daemon-reload; mount /data; udevadm settle
""" + UP + MAP_ONLY + LOSE_A_PATH, timeout=150))
    with machine.boot() as guest:
        # By the boot: svd was there before the map, and waited for it.
        print(guest.run(UP + EACH + "up both; each is-active local-fs.target multipathd; findmnt /data; cd /data; sha256sum -c /root/sums\n"
                        "test $(multipath -ll mpatha | grep -cw sd[a-z]) -eq 2\n" + MAP_ONLY, timeout=120))
        unmounted_before_svd_stopped(guest, "data.mount")


RAID = """mdadm --create /dev/md/five --run --metadata=1.2 --level=5 --chunk=64 --bitmap=none --assume-clean -n 3 {} 2>&1
svctl create-pool raid --tier t=/dev/md/five; svctl create-volume raid/v --size 1G; mkfs.ext4 -q /dev/sv/raid/v; mkdir /data
echo '/dev/sv/raid/v /data ext4 x-systemd.device-timeout=180s 0 0' >> /etc/fstab; systemctl daemon-reload; mount /data
dd if=/dev/urandom of=/data/file bs=1M count=16 conv=fsync status=none; sha256sum /data/file > /root/sums
"""
VERIFIED_LOAD = """n=0; : > /run/rounds; while ! test -e /run/enough; do fio --name=v --filename=/data/load --direct=1 --ioengine=psync --rw=randrw --bs=16k --size=16M \\
    --randrepeat=0 --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal > /dev/null; echo $((++n)) >> /run/rounds; done
"""
# goes_on: two rounds, one of which began and ended meanwhile. has DEVICES: those of the array that work.
ARRAY = """has() { test "$(sed -n 's/.*\\[\\([U_]*\\)\\]$/\\1/p' /proc/mdstat | tr -cd U)" = $1; }
rounds() { wc -l < /run/rounds; }
goes_on() { local n=$(rounds); until test $(rounds) -ge $((n + 2)); do kill -0 $(cat /run/load); sleep 0.2; done; }
fine() { svctl status | tee /tmp/said; grep '^raid: active' /tmp/said; refused grep SV- /tmp/said; svctl check raid; }
"""
LOST_AND_REBUILT = """goes_on; mdadm /dev/md/five --fail {lost} 2>&1; mdadm /dev/md/five --remove {lost} 2>&1; has UU; goes_on; has UU; fine
mdadm /dev/md/five --add {lost} 2>&1; goes_on; mdadm --wait /dev/md/five || true; cat /proc/mdstat; has UUU; goes_on; fine; touch /run/enough
"""
SCRUBBED = """umount /data; echo check > /sys/block/$(basename $(readlink -f /dev/md/five))/md/sync_action; mdadm --wait /dev/md/five || true
test $(cat /sys/block/$(basename $(readlink -f /dev/md/five))/md/mismatch_cnt) = 0
mount /data; echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/sums; sha256sum /data/load >> /root/sums
"""


@vm.full
@vm.limit(500)
def test_raid_5_loses_a_disk_under_fio_and_boots_without_one(bench):
    disks = [bench.disk(f"five{i}", "96M") for i in range(3)]
    machine = Machine(bench, disks)
    with machine.boot() as guest:
        machine.install(guest)
        guest.put("fio.tar", bundle([], ["/usr/bin/fio"]))
        guest.run("tar -C / --keep-directory-symlink --skip-old-files -xf /share/fio.tar; ldconfig\n" + RAID.format(" ".join(d.dev for d in disks)), timeout=120)
        load = guest.start("echo $$ > /run/load\n" + VERIFIED_LOAD)
        print(guest.run("until test -s /run/rounds; do sleep 0.2; done\n" + ARRAY + LOST_AND_REBUILT.format(lost=disks[0].dev), timeout=200))
        load.wait(60)
        print(guest.run(ARRAY + SCRUBBED + "has UUU; fine", timeout=120))
    # One that the array had when it was last up is away: mdadm waits for it half a minute, the mount for both.
    machine.disks = disks[:2]
    with machine.boot() as guest:
        print(guest.run(ARRAY + EACH + "cat /proc/mdstat; has UU; each is-active multi-user.target local-fs.target; findmnt /data; sha256sum -c /root/sums\n"
                        "dd if=/dev/urandom of=/data/more bs=1M count=8 conv=fsync status=none; fine", timeout=120))
        unmounted_before_svd_stopped(guest, "data.mount")
    machine.disks = disks
    with machine.boot() as guest:
        print(guest.run(ARRAY + "has UU; findmnt /data; sha256sum -c /root/sums\n"
                        f"mdadm /dev/md/five --add {disks[2].dev} 2>&1; mdadm --wait /dev/md/five || true; has UUU; sha256sum -c /root/sums; fine", timeout=120))

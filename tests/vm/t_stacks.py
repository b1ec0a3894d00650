"""What users put upon volumes and under pools: file systems, LUKS, LVM, md, loop devices, QEMU. docs/operations/stacks.md
has the same commands."""

import os

import vm
from host import Machine, bundle
from svctl import Svctl

HERE = os.path.dirname(os.path.abspath(__file__))

# fill DIRECTORY MIB, verify: files and their hashes. used VOLUME: bytes. in_use VOLUME WORDS: the pool stays up and says so.
STACK = """export MDADM_NO_UDEV=1
fill() { dd if=/dev/urandom of=$1/$2 bs=1M count=$2 conv=fsync status=none; sha256sum $1/$2 >> /tmp/sums; }
verify() { echo 3 > /proc/sys/vm/drop_caches; sha256sum --quiet -c /tmp/sums; }
used() { svctl list -H -t volume -o name,used | awk -v v="tank/$1" '$1 == v { print $2 }'; }
in_use() {
    local code=0 said
    said=$(svctl deactivate tank 2>&1) || code=$?
    echo "$said"
    test $code = 5; grep -qF "volume $1 is in use: $2" <<< "$said"
}
# Of a file that is removed, as much space comes back as it had: less what shares its extents.
trimmed() {
    local before after
    before=$(used $1); rm $2/$3; sed -i "\\\\,$2/$3\\$,d" /tmp/sums; sync -f $2; fstrim $2; after=$(used $1)
    echo "$1: fstrim: $before to $after bytes"; test $((before - after)) -ge $((($3 - 3) << 20))
}
larger() { test $(df --output=size -B1M $1 | tail -1) -gt $2; }
"""

FILE_SYSTEMS = """for v in ext4 xfs btrfs; do
    svctl create-volume tank/$v --size 512M; mkdir -p /$v
    mkfs.$v -q /dev/sv/tank/$v; mount -t $v /dev/sv/tank/$v /$v
    fill /$v 12; fill /$v 20; trimmed $v /$v 20
    svctl resize-volume tank/$v --size 800M
done
resize2fs /dev/sv/tank/ext4 2>&1; xfs_growfs /xfs; btrfs filesystem resize max /btrfs
for v in ext4 xfs btrfs; do larger /$v 600; fill /$v 14; in_use $v "mounted on /$v (umount /$v)"; umount /$v; done
"""
# An image in a file of a file system, and one on a volume itself; both with and without direct I/O.
LOOP = """mount /dev/sv/tank/ext4 /ext4; mkdir -p /image
truncate -s 64M /ext4/image; loop=$(losetup --show -f -b 4096 --direct-io=on /ext4/image); test $(cat /sys/block/${loop#/dev/}/loop/dio) = 1
mkfs.ext4 -q $loop; mount $loop /image; fill /image 8
in_use ext4 "mounted on /ext4 (umount /ext4)"
umount /image; losetup -d $loop; umount /ext4
"""
CLEAN = """svctl deactivate tank; svctl activate tank
fsck.ext4 -fn /dev/sv/tank/ext4 2>&1; xfs_repair -n /dev/sv/tank/xfs 2>&1 | tail -1; btrfs check /dev/sv/tank/btrfs 2>&1 | tail -1
for v in ext4 xfs btrfs; do mount /dev/sv/tank/$v /$v; done
mount -o loop /ext4/image /image; verify; umount /image; for v in ext4 xfs btrfs; do umount /$v; done
svctl check tank
"""
# 512: what was made for sectors of 512 bytes. The volume refuses it, a loop device has such sectors.
IMAGES = """svctl create-volume tank/old --size 400M; mkdir -p /old
head -c 8M /dev/urandom > /tmp/data; sha256sum < /tmp/data > /tmp/data.sum
svctl dump tank > /tmp/before; grep -q ^map /tmp/before
for direct in oflag=direct "oflag=direct seek=1"; do
    refused dd if=/tmp/data of=/dev/sv/tank/old bs=512 count=1 $direct 2> /tmp/said; grep 'Invalid argument' /tmp/said
done
refused dd if=/dev/sv/tank/old of=/dev/null bs=512 count=1 iflag=direct 2> /tmp/said; grep 'Invalid argument' /tmp/said
svctl dump tank > /tmp/after; cmp /tmp/before /tmp/after; svctl check tank

put() { rm -f /tmp/image; truncate -s 320M /tmp/image; "${@:2}"; dd if=/tmp/image of=/dev/sv/tank/old bs=1M conv=sparse,fsync status=none; }
no_mount() { dmesg -C; refused mount -t $1 /dev/sv/tank/old /old 2>&1; dmesg | grep "$2"; }
by_loop() {
    loop=$(losetup --show -f /dev/sv/tank/old); mount $loop /old; cp /tmp/data /old/; umount /old
    in_use old "held by $loop (losetup -d $loop)"
    mount $loop /old; in_use old "held by $loop, which is mounted on /old (umount /old; losetup -d $loop)"
    sha256sum < /old/data | cmp - /tmp/data.sum; umount /old; losetup -d $loop; blkdiscard /dev/sv/tank/old
}
put xfs mkfs.xfs -q -f -s size=512 /tmp/image; no_mount xfs '4096 byte sectors'; by_loop
put ext4 mkfs.ext4 -q -b 1024 /tmp/image; no_mount ext4 'bad block size 1024'; by_loop
put xfs mkfs.xfs -q -f -s size=4096 /tmp/image; mount /dev/sv/tank/old /old; umount /old
dd if=/tmp/data of=/dev/sv/tank/old bs=512 count=3 seek=5 conv=fsync status=none
dd if=/dev/sv/tank/old bs=512 count=3 skip=5 status=none | cmp -n 1536 - /tmp/data
svctl check tank
"""


# udev looks at each of these devices whenever one has closed it that could write.
@vm.full
@vm.limit(400)
def test_file_systems_and_images_with_small_sectors(bench):
    disk = bench.disk("a", "768M")
    machine = Machine(bench, [disk])
    with machine.boot() as guest:
        machine.install(guest)
        guest.run(f"svctl create-pool tank --tier t={disk.dev}")
        for part in (FILE_SYSTEMS, LOOP, CLEAN, IMAGES):
            print(guest.run(STACK + part, timeout=150))


# RAID 5 is the fast tier, LUKS on RAID 1 the slow one; LUKS on a volume, and a volume group of two.
KEY = "(umask 077; head -c 32 /dev/urandom > /root/key)\n"
LUKS = "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/key"
OPEN = "cryptsetup open --key-file /root/key"


def members_below(verb, disks):
    """md and LUKS, made or found again."""
    a, b, c, m, n = (d.dev for d in disks)
    if verb == "create":
        five = f"mdadm --create /dev/md5 --run --level=5 --chunk=64 -n 3 {a} {b} {c} 2>&1"
        one = f"mdadm --create /dev/md1 --run --level=1 --bitmap=none -n 2 {m} {n} 2>&1\n{LUKS} /dev/md1"
    else:
        five, one = f"mdadm --assemble /dev/md5 {a} {b} {c} 2>&1", f"mdadm --assemble /dev/md1 {m} {n} 2>&1"
    return f"{five}\n{one}\n{OPEN} --allow-discards /dev/md1 member\n"


ON_LUKS = f"""svctl create-volume tank/sec --size 256M; mkdir -p /sec
{LUKS} /dev/sv/tank/sec
cryptsetup luksDump /dev/sv/tank/sec | grep -E 'sector: +4096'
{OPEN} --allow-discards /dev/sv/tank/sec secret; mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/mapper/secret
mount /dev/mapper/secret /sec; fill /sec 12; fill /sec 20; trimmed sec /sec 20
svctl resize-volume tank/sec --size 320M; cryptsetup resize --key-file /root/key secret; resize2fs /dev/mapper/secret 2>&1; larger /sec 260
fill /sec 10
in_use sec "held by /dev/mapper/secret (LUKS), which is mounted on /sec (umount /sec; cryptsetup close secret)"
umount /sec; in_use sec "held by /dev/mapper/secret (LUKS) (cryptsetup close secret)"; cryptsetup close secret
"""
ON_LVM = """svctl create-volume tank/pv1 --size 256M; svctl create-volume tank/pv2 --size 256M; mkdir -p /lv
pvcreate -q /dev/sv/tank/pv1 /dev/sv/tank/pv2; vgcreate -q group /dev/sv/tank/pv1 /dev/sv/tank/pv2
lvcreate -q -i 2 -L 400M -n lv group; mkfs.xfs -q /dev/group/lv; mount /dev/group/lv /lv
fill /lv 12; fill /lv 20; before=$(($(used pv1) + $(used pv2))); rm /lv/20; sed -i '/lv.20$/d' /tmp/sums; sync -f /lv; fstrim /lv
test $((before - $(used pv1) - $(used pv2))) -ge $((14 << 20))
for v in pv1 pv2; do svctl resize-volume tank/$v --size 384M; pvresize -q /dev/sv/tank/$v; done
lvextend -q -L 600M group/lv; xfs_growfs /lv; larger /lv 500; fill /lv 10
in_use pv1 "held by /dev/mapper/group-lv (LVM), which is mounted on /lv (umount /lv; vgchange -an group)"
umount /lv; vgchange -q -an group
"""
READ_BACK = f"""{OPEN} --allow-discards /dev/sv/tank/sec secret; mount /dev/mapper/secret /sec
vgchange -q -ay group; mount /dev/group/lv /lv; verify; svctl check tank
"""
DOWN = "umount /sec /lv; cryptsetup close secret; vgchange -q -an group; svctl deactivate tank\n"
# The pool does not notice.
DEGRADED = """mdadm -q /dev/md5 --fail $(readlink -f {a}) 2>&1; mdadm -q /dev/md1 --fail $(readlink -f {m}) 2>&1
grep -A1 md[15] /proc/mdstat; verify; fill /sec 8; fill /lv 8; verify; svctl status
"""


@vm.full
@vm.limit(300)
def test_luks_lvm_and_md_below_and_above(bench):
    disks = [bench.disk(name, "128M") for name in ("a", "b", "c")] + [bench.disk(name, "256M") for name in ("m", "n")]
    # svd looks where it is told: no udev names the devices.
    class Upon:
        def __init__(self, dev):
            self.dev = dev
    upon = [Upon("/dev/md5"), Upon("/dev/mapper/member")]
    with bench.boot(disks) as guest:
        guest.run("modprobe -a raid1 raid456 dm-crypt xfs\n" + STACK + KEY + members_below("create", disks))
        s = Svctl(guest, upon)
        s.run("svctl create-pool tank --tier fast=/dev/md5 --tier slow=/dev/mapper/member")
        for part in (ON_LUKS, ON_LVM, READ_BACK + DOWN + "svctl activate tank\n" + READ_BACK,
                     DEGRADED.format(a=disks[0].dev, m=disks[3].dev), DOWN):
            print(s.run(STACK + part))
        guest.run("cp /tmp/sums /root/key /share/")
        sums, key = guest.get("sums"), guest.get("key")
    with bench.boot(disks) as guest:
        guest.put("sums", sums), guest.put("key", key)
        guest.run("cp /share/key /root/; cp /share/sums /tmp/; mkdir -p /sec /lv; modprobe -a raid1 raid456 dm-crypt xfs\n" +
                  STACK + members_below("assemble", disks))
        print(Svctl(guest, upon).run(STACK + READ_BACK + DOWN))


# A machine whose firmware reads and writes sectors of 512 bytes; blocks and discards as qemu-io makes them.
QEMU_PROGRAMS = ["/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-img", "/usr/bin/qemu-io"]
QEMU_FILES = ["/usr/share/qemu", "/usr/share/seabios"]
QEMU = f"""disk=driver=host_device,filename=/dev/sv/tank/vm,aio=io_uring,cache.direct=on,discard=unmap
cd /tmp
vm() {{ qemu-system-x86_64 -nodefaults -display none -accel tcg -m 32 -device isa-debug-exit,iobase=0xf4 \\
    -blockdev $disk,node-name=d -device virtio-blk-pci,drive=d,bootindex=0 "$@"; }}
"""
QEMU_IMAGE = """svctl create-volume tank/vm --size 64M
as --32 /share/boot-sector.S -o b.o; ld -m elf_i386 -Ttext 0x7c00 --oformat binary b.o -o boot-sector
truncate -s 16M image; dd if=boot-sector of=image conv=notrunc status=none
dd if=/dev/urandom of=image bs=512 seek=16 count=4096 conv=notrunc status=none
qemu-img convert -n -f raw --target-image-opts -t none image $disk
qemu-img compare --image-opts -T none driver=file,filename=image $disk
ends 33 vm
"""
# What the machine wrote: its sectors 16 to 79, inverted, at 81. And that it wrote nowhere else.
QEMU_WROTE = """echo 3 > /proc/sys/vm/drop_caches; python3 -S -E -c '
was, now = (open(path, "rb").read(2 << 20) for path in ("/tmp/image", "/dev/sv/tank/vm"))
def sectors(data, first, end): return data[first * 512:end * 512]
assert sectors(now, 81, 145) == bytes(byte ^ 255 for byte in sectors(was, 16, 80))
assert sectors(now, 0, 81) == sectors(was, 0, 81) and sectors(now, 145, 4096) == sectors(was, 145, 4096)'
"""
QEMU_IO = """io() { qemu-io --image-opts $disk "$@" | tee said; refused grep -q 'Pattern verification failed\\|error' said; }
io -c 'write -P 0x5a 20M 24M' -c 'write -P 0x33 20972000 1500' -c flush -c 'read -P 0x33 20972000 1500' -c 'read -P 0x5a 22M 22M'
before=$(used vm); io -c 'discard 24M 8M' -c 'write -z -u 32M 8M' -c flush
test $((before - $(used vm))) -ge $((14 << 20)); io -c 'read -P 0 24M 16M' -c 'read -P 0x5a 40M 4M'
timeout 60 qemu-img bench -w -c 400 -d 16 -s 4k -S 12k -o 20M --flush-interval=16 --image-opts $disk
svctl check tank
"""
# Grown under a machine that runs: QEMU must be told.
QEMU_GROWS = """vm -S -qmp unix:/tmp/qmp,server=on,wait=off &
for i in $(seq 300); do test -S /tmp/qmp && break; sleep 0.1; done; qemu=$(pidof qemu-system-x86_64)
svctl resize-volume tank/vm --size 96M
python3 -S -E -c '
import json, socket
s = socket.socket(socket.AF_UNIX); s.connect("/tmp/qmp"); f = s.makefile("rw"); f.readline()
def ask(command, **arguments):
    f.write(json.dumps({"execute": command, "arguments": arguments})); f.flush()
    while "return" not in (answer := json.loads(f.readline())): assert "event" in answer, answer
    return answer["return"]
ask("qmp_capabilities"); ask("block_resize", **{"node-name": "d", "size": 96 << 20})
assert ask("query-block")[0]["inserted"]["image"]["virtual-size"] == 96 << 20'
in_use vm "open in process $qemu (qemu-system-x86) (end process $qemu)"
kill $qemu; wait || true; svctl deactivate tank; svctl activate tank; svctl check tank
"""


@vm.full
@vm.limit(400)
def test_qemu_has_a_volume_as_its_disk(bench):
    disk = bench.disk("a", "256M")
    machine = Machine(bench, [disk])
    with machine.boot() as guest:
        machine.install(guest)
        guest.put("qemu.tar", bundle(QEMU_FILES, QEMU_PROGRAMS))
        guest.put("boot-sector.S", open(os.path.join(HERE, "guest/boot-sector.S"), "rb").read())
        guest.run(f"tar -C / --keep-directory-symlink --skip-old-files -xf /share/qemu.tar; ldconfig; svctl create-pool tank --tier t={disk.dev}", timeout=120)
        for part in (QEMU_IMAGE, QEMU_WROTE, QEMU_IO, QEMU_GROWS, QEMU_WROTE):
            print(guest.run(STACK + QEMU + part, timeout=150))


AT_BOOT = """for v in data secret pv btrfs; do svctl create-volume tank/$v --size 512M; done
(umask 077; head -c 32 /dev/urandom > /root/key); mkdir -p /data /secret /lv /btrfs /image /gone
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/key /dev/sv/tank/secret
cryptsetup open --key-file /root/key /dev/sv/tank/secret secret
pvcreate -q /dev/sv/tank/pv; vgcreate -q group /dev/sv/tank/pv; lvcreate -q -l 100%FREE -n lv group
mkfs.ext4 -q /dev/mapper/secret; mkfs.xfs -q /dev/group/lv; mkfs.xfs -q /dev/sv/tank/data; mkfs.btrfs -q /dev/sv/tank/btrfs
echo 'secret /dev/sv/tank/secret /root/key luks,discard' > /etc/crypttab
cat >> /etc/fstab << END
/dev/sv/tank/data  /data   xfs  defaults 0 0
/dev/mapper/secret /secret ext4 defaults 0 0
/dev/group/lv      /lv     xfs  defaults 0 0
/dev/sv/tank/btrfs /btrfs  btrfs defaults 0 0
/btrfs/image       /image  ext4 loop 0 0
/dev/sv/tank/gone  /gone   xfs  nofail,x-systemd.device-timeout=5s 0 0
END
systemctl daemon-reload; mount /data; mount /secret; mount /lv; mount /btrfs
truncate -s 64M /btrfs/image; mkfs.ext4 -q /btrfs/image; mount /image
for d in /data /secret /lv /btrfs /image; do dd if=/dev/urandom of=$d/f bs=1M count=12 conv=fsync status=none; sha256sum $d/f >> /root/sums; done
"""
# Nobody waits for udev, which looks into what was unmounted. lvm2 activates its group whenever the volume comes.
DOWN_BY_HAND = """again() { svctl activate tank; for i in $(seq 150); do test -e /dev/group/lv && break; sleep 0.1; done; }
in_use data "mounted on /data (umount /data)"
umount /data /secret /lv /image /btrfs; vgchange -q -an group; cryptsetup close secret; svctl deactivate tank; refused test -e /dev/sv/tank
for n in 1 2 3 4 5; do again; mount /data; touch /data/x; umount /data; vgchange -q -an group; svctl deactivate tank; done
again; mount /lv; mount /data; mount /btrfs; mount /image; sha256sum --quiet -c <(grep -v secret /root/sums)
"""


@vm.full
@vm.limit(600)
def test_luks_lvm_btrfs_loop_and_lines_of_lost_volumes_at_boot(bench):
    """Also: a line in /etc/fstab for a volume that is gone, with nofail and without."""
    disk = bench.disk("a", "512M")
    machine = Machine(bench, [disk])
    with machine.boot() as guest:
        machine.install(guest)
        guest.run(f"svctl create-pool tank --tier t={disk.dev}\n" + AT_BOOT, timeout=180)
    with machine.boot() as guest:
        print(guest.run("systemctl is-system-running; systemctl --failed --no-pager --quiet; systemd-analyze\n"
                        "for d in data secret lv btrfs image; do findmnt /$d; done; refused findmnt /gone; sha256sum --quiet -c /root/sums\n"
                        "lsblk; svctl check tank; refused grep -E '\\(dm-[0-9]+\\): .*recovery' <(journalctl -b -k --no-pager -o cat)", timeout=120))
        print(guest.run(STACK + DOWN_BY_HAND, timeout=120))
        # It is there again, and then the line holds.
        guest.run("svctl create-volume tank/gone --size 512M; mkfs.xfs -q /dev/sv/tank/gone; mount /gone; umount /gone\n"
                  "svctl delete-volume tank/gone --yes; sed -i 's/nofail,//' /etc/fstab")
    with machine.boot() as guest:
        # Without nofail: the emergency shell, in which svctl works.
        print(guest.run("systemctl is-active emergency.target; systemctl is-active svd; svctl list\n"
                        "journalctl -b --no-pager -o cat | grep -E 'Timed out waiting for device .*gone|Dependency failed for .*gone'\n"
                        "svctl create-volume tank/gone --size 512M; mkfs.xfs -q /dev/sv/tank/gone\n"
                        "systemctl --no-block default", timeout=120))
        print(guest.run("for i in $(seq 300); do systemctl -q is-active multi-user.target && break; sleep 0.2; done\n"
                        "systemctl is-active multi-user.target; findmnt /gone; findmnt /secret; findmnt /image; sha256sum --quiet -c /root/sums\n"
                        "svctl check tank", timeout=120))

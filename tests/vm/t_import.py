"""Disks carried from one full guest to another: which of them may use a pool, and the files on it."""

import vm
from host import Machine

MAKE = """svctl create-pool {pool} --tier t={disk}; svctl create-volume {pool}/v --size 1G
mkfs.xfs -q /dev/sv/{pool}/v; mkdir -p /mnt/{pool}; mount /dev/sv/{pool}/v /mnt/{pool}
dd if=/dev/urandom of=/mnt/{pool}/file bs=1M count=16 conv=fsync status=none
(cd /mnt; sha256sum {pool}/file >> /share/sums)
"""
# What pool `was` had when it was made; `pool` is its name now.
READ = """mkdir -p /mnt/{was}; mount /dev/sv/{pool}/v /mnt/{was}; (cd /mnt; grep ' {was}/' /share/sums | sha256sum -c)
"""
# This host had a pool of the name before the disk was put in (its driver lets go of it until then): both are here, each with
# its data, once the other one has a new name.
NAMESAKE = """disk=$(basename $(readlink -f /sys/block/$(basename $(readlink -f {exported}))/device)); cd /sys/bus/virtio/drivers/virtio_blk
echo $disk > unbind; udevadm settle; svctl scan; svctl create-pool tank --tier t={own}; svctl create-volume tank/v --size 64M
dd if=/dev/urandom of=/dev/sv/tank/v bs=1M count=8 oflag=direct conv=fsync status=none; sum() {{ dd if=/dev/sv/tank/v bs=1M count=8 iflag=direct status=none | sha256sum; }}
own=$(sum); echo $disk > bind; cd /; udevadm settle; svctl scan; svctl scan | grep '^tank *exported *1 of 1'
ends 5 svctl import-pool tank; grep -e '--rename NEW' /tmp/said
svctl import-pool tank --rename carried; udevadm settle; svctl list
for p in tank carried; do svctl list | grep "^$p *active"; readlink /dev/sv/$p/v | grep -E '^../../dm-[0-9]+$'; done
test "$(readlink -f /dev/sv/tank/v)" != "$(readlink -f /dev/sv/carried/v)"; test "$(sum)" = "$own"
"""
FOREIGN = """svctl list; svctl list | grep '^{pool} *foreign'; refused test -e /dev/sv/{pool}
ends 5 svctl import-pool {pool}; grep 'holds it; this is host ' /tmp/said
"""
# A pool that the kernel serves is served, whoever its labels or the host's id say that it belongs to.
OTHER_ID = """restart() { mount --bind $1 /etc/machine-id; systemctl restart svd; svctl list | grep '^tank *active'; }
systemd-id128 new > /root/other; restart /root/other; svctl status; svctl status | grep 'by its labels host'
svctl create-volume tank/w --size 1M; svctl delete-volume tank/w --yes; umount /etc/machine-id
restart /dev/null; ends 8 svctl create-pool other --tier t=/dev/null; grep machine-id /tmp/said
umount /etc/machine-id; systemctl restart svd; svctl status; refused grep -q problem <(svctl status | grep -A1 '^tank')
"""


@vm.full
@vm.limit(600)
def test_disks_are_carried_to_another_host(bench):
    exported, left, own = (bench.disk(name, "128M") for name in ("exported", "left", "own"))
    old, new = Machine(bench, [exported, left]), Machine(bench, [exported, left, own], "system2")
    with old.boot() as guest:
        old.install(guest)
        guest.run(MAKE.format(pool="tank", disk=exported.dev) + MAKE.format(pool="left", disk=left.dev), timeout=150)
        print(guest.run("ends 5 svctl export-pool tank; grep 'volume v is in use' /tmp/said\n"
                        "svctl list | grep '^tank *active'; umount /mnt/tank; svctl export-pool tank; svctl list\n"
                        "svctl list | grep '^tank *exported'; refused test -e /dev/sv/tank", timeout=60))
        sums = guest.get("sums")
    with new.boot() as guest:
        guest.put("sums", sums)
        new.install(guest)
        print(guest.run(NAMESAKE.format(exported=exported.dev, own=own.dev) + READ.format(was="tank", pool="carried") +
                        FOREIGN.format(pool="left"), timeout=120))
        print(guest.run("ends 2 svctl import-pool left --force; grep -- --yes /tmp/said; svctl import-pool left --force --yes\n" +
                        READ.format(was="left", pool="left") + OTHER_ID, timeout=120))
    with old.boot() as guest:
        print(guest.run("udevadm settle; svctl scan\n" + FOREIGN.format(pool="carried") + FOREIGN.format(pool="left"), timeout=60))

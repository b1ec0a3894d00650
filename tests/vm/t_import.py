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
# A disk is taken out and put in: its driver lets go of it.
HOTPLUG = """device() { basename $(readlink -f /sys/block/$(basename $(readlink -f $1))/device); }
driver() { echo $1 > /sys/bus/virtio/drivers/virtio_blk/$2; udevadm settle; svctl scan; }
"""
# This host had a pool of the name before the disk was put in: both are here, each with its data, once the other one has a new name.
NAMESAKE = """disk=$(device {exported}); driver $disk unbind; svctl create-pool tank --tier t={own}; svctl create-volume tank/v --size 64M
dd if=/dev/urandom of=/dev/sv/tank/v bs=1M count=8 oflag=direct conv=fsync status=none; sum() {{ dd if=/dev/sv/tank/v bs=1M count=8 iflag=direct status=none | sha256sum; }}
own=$(sum); driver $disk bind; svctl scan | grep '^tank *exported *1 of 1'
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
        print(guest.run(HOTPLUG + NAMESAKE.format(exported=exported.dev, own=own.dev) + READ.format(was="tank", pool="carried") +
                        FOREIGN.format(pool="left"), timeout=120))
        print(guest.run("ends 2 svctl import-pool left --force; grep -- --yes /tmp/said; svctl import-pool left --force --yes\n" +
                        READ.format(was="left", pool="left") + OTHER_ID, timeout=120))
    with old.boot() as guest:
        print(guest.run("udevadm settle; svctl scan\n" + FOREIGN.format(pool="carried") + FOREIGN.format(pool="left"), timeout=60))


# Made at home, with a line in fstab; and by another host, exported, whose disk is put in then.
TWO_TANKS = HOTPLUG + """make() { svctl create-pool tank --tier t=$1; svctl create-volume tank/v --size 1G; mkfs.ext4 -q /dev/sv/tank/v
mkdir -p /srv/tank; mount /dev/sv/tank/v /srv/tank; dd if=/dev/urandom of=/srv/tank/file bs=1M count=8 conv=fsync status=none
sha256sum < /srv/tank/file > /root/sum-$2; svctl list -H -t pool -o uuid > /root/uuid-$2; }
make $OTHER other; umount /srv/tank; svctl export-pool tank; disk=$(device $OTHER); driver $disk unbind
make $OWN own; driver $disk bind; echo '/dev/sv/tank/v /srv/tank ext4 nofail 0 0' >> /etc/fstab; sync
"""
# pool NAME UUID STATE, of svctl scan.
POOLS = HOTPLUG + """own=$(< /root/uuid-own); other=$(< /root/uuid-other); svctl scan; svctl status
pool() { svctl scan -H -o name,uuid,state | tr '\\t' ' ' | grep -x "$*"; }
is_mounted() { until findmnt $1; do ((SECONDS < 60)); sleep 0.1; done; sha256sum < $1/file | cmp - /root/sum-$2; }
"""
# Nobody holds the other one: this host's has the name, is mounted, and goes on. Then this host takes the other one while its
# own is away.
ONE_IS_ITS = POOLS + """pool tank $own active; pool tank $other exported; is_mounted /srv/tank own
svctl status | grep "svctl import-pool $other --rename NEW"; ends 5 svctl import-pool tank; grep "import-pool $other --rename NEW" /tmp/said
svctl create-volume tank/w --size 1M; svctl delete-volume tank/w --yes
umount /srv/tank; svctl deactivate $own; disk=$(device $OWN); driver $disk unbind; svctl import-pool tank; pool tank $other active
driver $disk bind; pool tank $own down; pool tank $other active; svctl status | grep "another pool has its name: $other"
"""
# Both are this host's: neither is up after a boot, which went on; until one of them has another name.
BOTH_ARE_ITS = POOLS + """systemctl is-active multi-user.target; pool tank $own down; pool tank $other down; refused test -e /dev/sv/tank; refused findmnt /srv/tank
for uuid in $own $other; do svctl status | grep "another pool has its name: $uuid"; svctl status | grep "svctl import-pool $uuid --rename NEW"; done
svctl status -H -o id,pool; test $(svctl status -H -o id | grep -cx SV-POOL-NAME-TWICE) = 2
journalctl -b -u svd -o cat --no-pager; journalctl -b SV_CODE=SV-POOL-NAME-TWICE -o cat | tee /tmp/journal; grep $own /tmp/journal; grep $other /tmp/journal
ends 5 svctl activate tank; grep $own /tmp/said; grep $other /tmp/said
svctl import-pool $other --rename carried; pool carried $other active; pool tank $own active
mkdir /srv/carried; echo '/dev/sv/carried/v /srv/carried ext4 nofail 0 0' >> /etc/fstab; systemctl daemon-reload
systemctl start srv-tank.mount srv-carried.mount; is_mounted /srv/tank own; is_mounted /srv/carried other; refused grep TWICE <(svctl status -H -o id)
"""
EACH_HAS_ITS_NAME = POOLS + """pool tank $own active; pool carried $other active; is_mounted /srv/tank own; is_mounted /srv/carried other
test -z "$(svctl status -H -o id)"
"""


@vm.full
@vm.limit(700)
def test_two_pools_of_one_name_at_boot(bench):
    own, other = bench.disk("own", "128M"), bench.disk("other", "128M")
    machine = Machine(bench, [own, other])
    disks = f"OWN={own.dev} OTHER={other.dev}\n"
    with machine.boot() as guest:
        machine.install(guest)
        guest.run(disks + TWO_TANKS, timeout=120)
    for part in (ONE_IS_ITS, BOTH_ARE_ITS, EACH_HAS_ITS_NAME):
        with machine.boot() as guest:
            print(guest.run(disks + part, timeout=120))

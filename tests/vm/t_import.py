"""Disks carried from one full guest to another: which of them may use a pool, and the files on it."""

import vm
from host import Machine

MAKE = """svctl create-pool {pool} --tier t={disk}; svctl create-volume {pool}/v --size 1G
mkfs.xfs -q /dev/sv/{pool}/v; mkdir -p /mnt/{pool}; mount /dev/sv/{pool}/v /mnt/{pool}
dd if=/dev/urandom of=/mnt/{pool}/file bs=1M count=16 conv=fsync status=none
(cd /mnt; sha256sum {pool}/file >> /share/sums)
"""
READ = """mkdir -p /mnt/{pool}; mount /dev/sv/{pool}/v /mnt/{pool}; (cd /mnt; grep ' {pool}/' /share/sums | sha256sum -c)
"""
FOREIGN = """svctl list; svctl list | grep '^{pool} *foreign'; refused test -e /dev/sv/{pool}
rc=0; svctl import-pool {pool} 2> /tmp/said || rc=$?; cat /tmp/said; test $rc = 5; grep 'holds it; this is host ' /tmp/said
"""
# A pool that the kernel serves is served, whoever its labels or the host's id say that it belongs to.
OTHER_ID = """restart() { mount --bind $1 /etc/machine-id; systemctl restart svd; svctl list | grep '^tank *active'; }
systemd-id128 new > /root/other; restart /root/other; svctl status; svctl status | grep 'by its labels host'
svctl create-volume tank/w --size 1M; svctl delete-volume tank/w --yes; umount /etc/machine-id
restart /dev/null; rc=0; svctl create-pool other --tier t=/dev/null 2> /tmp/said || rc=$?; grep machine-id /tmp/said; test $rc = 8
umount /etc/machine-id; systemctl restart svd; svctl status; refused grep -q problem <(svctl status | grep -A1 '^tank')
"""


@vm.full
@vm.limit(600)
def test_disks_are_carried_to_another_host(bench):
    exported, left = bench.disk("exported", "128M"), bench.disk("left", "128M")
    old, new = Machine(bench, [exported, left]), Machine(bench, [exported, left], "system2")
    with old.boot() as guest:
        old.install(guest)
        guest.run(MAKE.format(pool="tank", disk=exported.dev) + MAKE.format(pool="left", disk=left.dev), timeout=150)
        print(guest.run("rc=0; svctl export-pool tank 2> /tmp/said || rc=$?; cat /tmp/said; test $rc = 5; grep 'volume v is in use' /tmp/said\n"
                        "svctl list | grep '^tank *active'; umount /mnt/tank; svctl export-pool tank; svctl list\n"
                        "svctl list | grep '^tank *exported'; refused test -e /dev/sv/tank", timeout=60))
        sums = guest.get("sums")
    with new.boot() as guest:
        guest.put("sums", sums)
        new.install(guest)
        print(guest.run("udevadm settle; svctl scan; svctl scan | grep '^tank *exported *1 of 1'; svctl import-pool tank\n" +
                        READ.format(pool="tank") + FOREIGN.format(pool="left"), timeout=120))
        print(guest.run("refused svctl import-pool left --force; svctl import-pool left --force --yes\n" +
                        READ.format(pool="left") + OTHER_ID, timeout=120))
    with old.boot() as guest:
        print(guest.run("udevadm settle; svctl scan\n" + FOREIGN.format(pool="tank") + FOREIGN.format(pool="left"), timeout=60))

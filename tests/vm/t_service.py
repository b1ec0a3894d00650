"""svd as a service of systemd, in a full guest: its watchdog, its messages in the journal, and members at boot."""

import vm
from dumps import BEGIN_RESTORE, WIDE_SIZE, put_wide
from host import BOOT_UNTOUCHED, EACH, METRICS, STILL_WRITES, VERIFY, WRITE, Machine, unmounted_before_svd_stopped, with_few_modules

# A limit that a test can wait for, and long enough for a busy host, on which the guest's clock has been seen to run eight
# times too fast, so that 6 s were not; a rename runs in a circle, behind its change of the catalogue.
DROP_IN = """mkdir -p /etc/systemd/system/svd.service.d
printf '[Service]\\nWatchdogSec=20\\nTimeoutAbortSec=5\\nEnvironment=SVD_SPIN_AT=rename-volume-in-catalogue\\n' > /etc/systemd/system/svd.service.d/test.conf
systemctl daemon-reload; systemctl restart svd
"""
# A member that can be made to hang: a map that somebody suspends.
MAP = "dmsetup create under --table '0 524288 linear {dev} 2048'\n"
HELPERS = """restarts() { systemctl show -P NRestarts svd; }
until_restarted() { for i in $(seq 400); do test $(restarts) -gt $1 && svctl list | grep '^tank *active' > /dev/null && return; sleep 0.2; done
  systemctl status svd; return 1; }
pid() { systemctl show -P MainPID svd; }
written() { wc -l < /run/written; }
goes_on() { local n=$(written); for i in $(seq 100); do test $(written) -gt $n && return; sleep 0.1; done; return 1; }
told() { for i in $(seq 150); do journalctl -b $1 -o cat | grep "$2" && return; sleep 0.2; done; journalctl -u svd -b --no-pager; return 1; }
"""
LOAD = """n=0; : > /run/written
while ! test -e /run/enough; do dd if=/dev/urandom of=/run/some bs=64k count=4 status=none
dd if=/run/some of=/dev/sv/tank/a bs=64k seek=$((n % 512 * 4)) oflag=direct conv=fsync,notrunc status=none
dd if=/dev/sv/tank/a bs=64k skip=$((n % 512 * 4)) count=4 iflag=direct status=none | cmp - /run/some
n=$((n + 1)); echo $n >> /run/written; done
"""
# In a circle, and stopped: killed and started anew, and nobody who writes notices.
STUCK = HELPERS + """before=$(restarts); svctl create-volume tank/w --size 1M; udevadm settle; ends 20 svctl rename-volume tank/w x
until_restarted $before; goes_on; svctl list | grep ' x '; refused svctl show tank/w
udevadm settle; readlink /dev/sv/tank/x | grep -E '^../../dm-[0-9]+$'; refused test -e /dev/sv/tank/w
journalctl -b -u svd -o cat | grep 'Watchdog timeout'
before=$(restarts); kill -STOP $(pid); goes_on; until_restarted $before; goes_on
svctl delete-volume tank/x --yes
"""
# A write or flush of a catalogue's transaction, or a COMMIT, that hangs for longer than the limit.
HANGS = HELPERS + """before="$(restarts) $(pid)"; dmsetup suspend --noflush --nolockfs under
svctl create-volume tank/c --size 1M & client=$!
told SV_CODE=SV-DEVICE-HANGS 'svd waits for'; sleep 20; systemctl status svd --no-pager | grep 'Status: "waits for '
journalctl -b SV_CODE=SV-DEVICE-HANGS -o verbose --no-pager | tee /tmp/said | grep -E 'SV_DEVICE=/dev/(dm-|mapper/under)'; grep SV_POOL=tank /tmp/said; grep SV_VOLUME=c /tmp/said
test "$before" = "$(restarts) $(pid)"
dmsetup resume under; wait $client; svctl list | grep ' c '; goes_on; test "$before" = "$(restarts) $(pid)"
told MESSAGE_ID=$(sed -n 's/^ *MESSAGE_ID=//p' /tmp/said | sort -u) 'svd waits for'; told _SYSTEMD_UNIT=svd.service 'svd goes on, after'
"""
# perl is in each Debian; it calls svd as a client that does nothing else.
CALL = """perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => "/run/svctl/svd.sock") or die; $/ = "\\0";
for (1 .. $ARGV[0]) { print $s "{\\"method\\":\\"io.svctl.CreateVolume\\",\\"parameters\\":{\\"pool\\":\\"tank\\",\\"volume\\":\\"a\\",\\"size\\":1073741824}}\\0";
$s->flush; my $answer = <$s>; $answer =~ /no change/ or die $answer }' """
JOURNAL = HELPERS + """journalctl --sync
journalctl -b SV_POOL=tank -o cat | grep 'pool tank is up'; journalctl -b SV_POOL=tank SV_VOLUME=c -o cat | grep CreateVolume
test -z "$(journalctl -b SV_POOL=other -o cat -q)"
""" + """journald=$(systemctl show -P MainPID systemd-journald); before="$(restarts) $(pid)"; kill -STOP $journald
""" + CALL + "600; goes_on; test \"$before\" = \"$(restarts) $(pid)\"; kill -CONT $journald; journalctl --sync\n" + CALL + """2
journalctl --sync; test $(journalctl -b SYSLOG_IDENTIFIER=svd -o cat | grep -c 'CreateVolume.*"volume":"a"') -ge 1204
"""
# Reads of the member fail for a moment, in which nobody else reads or writes it.
ERRORS = """modprobe dm-flakey; table=$(dmsetup table under)
dmsetup reload under --table "0 524288 flakey {dev} 2048 0 3600 1 error_reads"; dmsetup suspend under; dmsetup resume under
refused dd if=/dev/sv/tank/a of=/dev/null bs=4k count=1 iflag=direct 2>&1
dmsetup reload under --table "$table"; dmsetup suspend under; dmsetup resume under
dd if=/dev/sv/tank/a of=/dev/null bs=4k count=1 iflag=direct status=none
svctl status | grep SV-MEMBER-FAILING; member=$(svctl --json show tank | grep -oE '/dev/(dm-[0-9]+|mapper/under)' | head -1); echo "$member"
told "SV_CODE=SV-MEMBER-FAILING SV_POOL=tank SV_DEVICE=$member" "$member had .* I/O errors"
test -z "$(journalctl -b SV_CODE=SV-MEMBER-FAILING SV_POOL=other -o cat -q)"
"""
# A restore takes a while; the socket stays, and whoever calls next has svd started again.
STOPPED = """svctl create-pool wide --tier t={disk}; svctl dump wide > /tmp/before
begin_restore /share/wide
systemctl stop svd; systemctl is-active svd.socket; refused systemctl is-active svd
ends 1 wait $client; cat /tmp/restored; grep 'svd is being stopped; nothing was changed' /tmp/restored
journalctl --sync; journalctl -b SYSLOG_IDENTIFIER=svd SV_POOL=wide -o cat | grep 'Restore.*"pool":"wide".*svd is being stopped; nothing was changed'
svctl list; systemctl is-active svd; for i in $(seq 300); do svctl list | grep '^wide *active' && break; sleep 0.1; done
svctl dump wide > /tmp/after; for f in before after; do sed -i '/^journal /d' /tmp/$f; done; cmp /tmp/before /tmp/after
svctl check wide; svctl create-volume wide/v --size 1G; svctl delete-pool wide --yes
"""


def svd_is_stopped_in_the_middle_of_a_job(guest, disk):
    """Who waits for it is told, and the pool is as it was."""
    put_wide(guest)
    print(guest.run(BEGIN_RESTORE + STOPPED.format(disk=disk), timeout=150))


@vm.full
@vm.limit(600)
def test_watchdog_and_journal(bench):
    disk, wide = bench.disk("pool", "512M"), bench.disk("wide", WIDE_SIZE)
    machine = Machine(bench, [disk, wide])
    with machine.boot() as guest:
        machine.install(guest)
        svd_is_stopped_in_the_middle_of_a_job(guest, wide.dev)
        guest.run(DROP_IN + MAP.format(dev=disk.dev) + "svctl create-pool tank --tier t=/dev/mapper/under; svctl create-volume tank/a --size 1G")
        load = guest.start(LOAD)
        print(guest.run(STUCK, timeout=200))
        print(guest.run(HANGS, timeout=150))
        print(guest.run(JOURNAL + "touch /run/enough", timeout=150))
        load.wait(60)
        print(guest.run(HELPERS + ERRORS.format(dev=disk.dev), timeout=60))
        guest.run("svctl check tank")


# A map that comes once svd is up and the mount waits, as a disk behind a slow controller does; and how things were before it came.
LATE_MAP = "dmsetup create late --table '0 262144 linear {dev} 2048'\n"
LATE = """set -e; until systemctl is-active svd && systemctl list-jobs | grep 'srv-late.mount *start *waiting'; do sleep 0.2; done
{{ svctl list -H -t pool -o name,state; findmnt /srv/late || true; }} > /run/before; until test -b {dev}; do sleep 0.2; done
""" + LATE_MAP
LATE_UNIT = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/bash /root/late
RemainAfterExit=yes
[Install]
WantedBy=sysinit.target
"""
MAKE = """svctl create-volume {pool}/v --size 1G; mkfs.ext4 -q /dev/sv/{pool}/v; mkdir -p /srv/{pool}; mount /dev/sv/{pool}/v /srv/{pool}
dd if=/dev/urandom of=/srv/{pool}/file bs=1M count=8 conv=fsync status=none; sha256sum /srv/{pool}/file > /root/sums-{pool}
echo '/dev/sv/{pool}/v /srv/{pool} ext4 {options} 0 0' >> /etc/fstab
"""
UP = EACH + "each is-active multi-user.target local-fs.target; "


@vm.full
@vm.limit(400)
def test_members_late_and_missing_at_boot(bench):
    """The late one's volume is mounted as one that needs the network is."""
    late, first, second = bench.disk("late", "160M"), bench.disk("first", "128M"), bench.disk("second", "128M")
    machine = Machine(bench, [late, first, second])
    with machine.boot() as guest:
        machine.install(guest)
        guest.put("late.service", LATE_UNIT.encode())
        guest.put("late", LATE.format(dev=late.dev).encode())
        guest.run("cp /share/late /root/; cp /share/late.service /etc/systemd/system/; systemctl daemon-reload; systemctl enable late\n" +
                  LATE_MAP.format(dev=late.dev) +
                  f"svctl create-pool late --tier t=/dev/mapper/late; svctl create-pool pair --tier t={first.dev},{second.dev}\n" +
                  MAKE.format(pool="late", options="_netdev") + MAKE.format(pool="pair", options="nofail"),
                  timeout=120)
    machine.disks = [late, first]
    with machine.boot() as guest:
        print(guest.run(UP + "systemctl list-dependencies --plain remote-fs.target | grep srv-late.mount\n"
                        "systemctl show -P After srv-late.mount | grep -w remote-fs-pre.target; systemctl show -P Before svd | grep -w remote-fs-pre.target\n"
                        "systemctl is-active remote-fs-pre.target; svctl status; findmnt /srv/late; sha256sum -c /root/sums-late; refused findmnt /srv/pair\n"
                        "cat /run/before; refused grep late /run/before\n"
                        "svctl status | grep 'member 1 of 2 is missing'; journalctl -b SV_POOL=pair -o cat | grep 'is missing'"))
    machine.disks = [late, first, second]
    with machine.boot() as guest:
        print(guest.run(UP + "for i in $(seq 100); do findmnt /srv/pair && break; sleep 0.2; done; sha256sum -c /root/sums-late /root/sums-pair"))
        unmounted_before_svd_stopped(guest, "srv-late.mount")


# The module is away, then one of another kernel, then the pool's own again: what is refused says why, and changes nothing.
# Where symbols have versions, as in Debian, the kernel does not look at the release in vermagic, but at what follows.
MODULE = """svctl create-volume tank/v --size 16M; dd if=/dev/urandom of=/dev/sv/tank/v bs=1M count=4 oflag=direct conv=fsync status=none
sha256sum /dev/sv/tank/v > /root/sums; svctl dump tank > /tmp/before; ko=$(modinfo -n dm-sv); svctl deactivate tank; rmmod dm-sv; cp $ko /root/dm-sv.ko
refuses() { ends 8 svctl activate tank; grep "$1" /tmp/said; grep "$2" /tmp/said; grep -F '[SV-MODULE-MISSING]' /tmp/said; refused test -e /dev/sv/tank; }
rm $ko; refuses 'has none: it is not installed' 'apt install dm-sv-dkms'; svctl status; svctl status | grep 'pools will not come up with kernel.* [[]SV-MODULE-MISSING]'
sed 's/\\(vermagic=[^ ]* \\)SMP/\\1UMP/' /root/dm-sv.ko > $ko; refuses 'built for another kernel' 'dkms install --force'
cp /root/dm-sv.ko $ko; svctl activate tank; sha256sum -c /root/sums
svctl dump tank > /tmp/after; for f in before after; do sed -i '/^journal /d' /tmp/$f; done; cmp /tmp/before /tmp/after
"""


@vm.full
@vm.limit(200)
def test_module_missing_or_for_another_kernel(bench):
    disk = bench.disk("pool", "256M")
    machine = Machine(bench, [disk])
    with machine.boot(kernel=with_few_modules(bench), expect=[r"dm.sv: version magic"]) as guest:
        print(machine.make_install(guest))
        print(guest.run(f"svctl create-pool tank --tier t={disk.dev}\n" + MODULE, timeout=100))


# admin is in svctl, reader in svctl-read, stranger in neither; each of them may read what is served over HTTP.
GROUPS = """for pair in admin:svctl reader:svctl-read stranger:nogroup; do useradd -M -G ${pair#*:} ${pair%:*}; done
says() { echo "$2: ${*:3}: $1"; ends $1 runuser -u $2 -- svctl "${@:3}"; }
says 0 admin create-volume tank/byadmin --size 16M; says 0 admin delete-volume tank/byadmin --yes
fsfreeze -f /data; svctl dump tank > /tmp/before
says 0 reader list; grep '^tank *active' /tmp/said; says 0 reader show tank
says 4 reader create-volume tank/no --size 16M; grep 'group svctl\\>' /tmp/said; says 4 reader deactivate tank
says 4 stranger list; grep svctl-read /tmp/said; says 4 stranger create-volume tank/no --size 16M
svctl dump tank > /tmp/after; fsfreeze -u /data
for f in before after; do sed -i '/^journal /d' /tmp/$f; done; cmp /tmp/before /tmp/after; says 0 reader list
chmod 0600 /run/svctl/svd.sock; says 4 reader list; grep "systemctl restart svd.socket" /tmp/said; systemctl restart svd.socket; says 0 reader list
"""
SCRAPED = METRICS + """export -f answer
for user in root stranger; do runuser -u $user -- bash -c answer > /tmp/page; head -1 /tmp/page; head -1 /tmp/page | grep '^HTTP/1.1 200 '
grep -F 'svctl_volume_size_bytes{pool="tank",volume="a"} 1073741824' /tmp/page; done
"""
# Who has a volume mounted does not notice; what went with it is the way to take the pool down.
UNINSTALL = """systemctl is-active svd; make -C /root/tree uninstall; refused pidof svd; refused test -e /usr/sbin/svd
refused test -e /run/svctl/svd.sock; grep -w ^dm_sv /proc/modules; findmnt /data
""" + STILL_WRITES + BOOT_UNTOUCHED + "touch /run/enough\n"


@vm.full
@vm.limit(300)
def test_what_make_install_brought_serves_and_goes(bench):
    disk = bench.disk("pool", "256M")
    machine = Machine(bench, [disk])
    with machine.boot(kernel=with_few_modules(bench)) as guest:
        print(machine.make_install(guest))
        guest.run(f"svctl create-pool tank --tier t={disk.dev}; svctl create-volume tank/a --size 1G; mkfs.ext4 -q /dev/sv/tank/a; mkdir /data\n"
                  "mount /dev/sv/tank/a /data; dd if=/dev/urandom of=/data/file bs=1M count=8 conv=fsync status=none; sha256sum /data/file > /root/sums")
        print(guest.run(GROUPS + SCRAPED, timeout=100))
        load = guest.start(WRITE)
        print(guest.run(UNINSTALL, timeout=100))
        load.wait(60)
        print(guest.run(VERIFY + "umount /data; fsck.ext4 -fn /dev/sv/tank/a 2>&1"))

"""svd as a service of systemd, in a full guest: its watchdog, its messages in the journal, and members at boot."""

import subprocess

import vm
from host import Machine, with_few_modules

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
STUCK = HELPERS + """before=$(restarts); svctl create-volume tank/w --size 1M; rc=0; svctl rename-volume tank/w x || rc=$?; test $rc = 20
until_restarted $before; goes_on; svctl list | grep ' x '; refused svctl show tank/w
journalctl -b -u svd -o cat | grep 'Watchdog timeout'
before=$(restarts); kill -STOP $(pid); goes_on; until_restarted $before; goes_on
svctl delete-volume tank/x --yes
"""
# A write or flush of a catalogue's transaction, or a COMMIT, that hangs for longer than the limit.
HANGS = HELPERS + """before="$(restarts) $(pid)"; dmsetup suspend --noflush --nolockfs under
svctl create-volume tank/c --size 1M & client=$!
told SV_CODE=SV-DEVICE-HANGS 'svd waits for'; sleep 20; systemctl status svd --no-pager | grep 'Status: "waits for '
journalctl -b SV_CODE=SV-DEVICE-HANGS -o verbose --no-pager | tee /tmp/said | grep -E 'SV_DEVICE=/dev/(dm-|mapper/under)|SV_POOL=tank'
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
# A restore of so many extents takes a while; the socket stays, and whoever calls next has svd started again.
WIDE_EXTENTS = 200000
STOPPED = """svctl create-pool wide --tier t={disk}; svctl dump wide > /tmp/before
svctl restore wide /share/wide > /tmp/restored 2>&1 & client=$!
for i in $(seq 300); do svctl jobs -H -o what,pool,state | grep -qE 'restore.wide.running' && break; kill -0 $client; sleep 0.1; done
systemctl stop svd; systemctl is-active svd.socket; refused systemctl is-active svd
rc=0; wait $client || rc=$?; cat /tmp/restored; test $rc = 1; grep 'svd is being stopped; nothing was changed' /tmp/restored
journalctl --sync; journalctl -b SYSLOG_IDENTIFIER=svd SV_POOL=wide -o cat | grep 'Restore.*"pool":"wide".*svd is being stopped; nothing was changed'
svctl list; systemctl is-active svd; for i in $(seq 300); do svctl list | grep '^wide *active' && break; sleep 0.1; done
svctl dump wide > /tmp/after; for f in before after; do sed -i '/^journal /d' /tmp/$f; done; cmp /tmp/before /tmp/after
svctl check wide; svctl create-volume wide/v --size 1G; svctl delete-pool wide --yes
"""


def svd_is_stopped_in_the_middle_of_a_job(guest, disk):
    """Who waits for it is told, and the pool is as it was."""
    guest.put("wide", subprocess.run([f"{vm.REPO}/tests/support/make_dump.py", str(WIDE_EXTENTS), "1", str(WIDE_EXTENTS)],
                                     stdout=subprocess.PIPE, check=True).stdout)
    print(guest.run(STOPPED.format(disk=disk), timeout=150))


@vm.full
@vm.limit(600)
def test_watchdog_and_journal(bench):
    disk, wide = bench.disk("pool", "512M"), bench.disk("wide", f"{WIDE_EXTENTS // 1024 + 20}G")
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
        guest.run("svctl check tank")


# A map that comes 15 s after its disk, which udev may be slow with, as a disk behind a slow controller does.
LATE_UNIT = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c 'until test -b {dev}; do sleep 0.2; done; sleep 15; dmsetup create late --table "0 262144 linear {dev} 2048"'
RemainAfterExit=yes
[Install]
WantedBy=sysinit.target
"""
MAKE = """svctl create-volume {pool}/v --size 1G; mkfs.ext4 -q /dev/sv/{pool}/v; mkdir -p /srv/{pool}; mount /dev/sv/{pool}/v /srv/{pool}
dd if=/dev/urandom of=/srv/{pool}/file bs=1M count=8 conv=fsync status=none; sha256sum /srv/{pool}/file > /root/sums-{pool}
echo '/dev/sv/{pool}/v /srv/{pool} ext4 {options} 0 0' >> /etc/fstab
"""
UP = "systemctl is-active multi-user.target local-fs.target; "


@vm.full
@vm.limit(400)
def test_members_late_and_missing_at_boot(bench):
    late, first, second = bench.disk("late", "160M"), bench.disk("first", "128M"), bench.disk("second", "128M")
    machine = Machine(bench, [late, first, second])
    with machine.boot() as guest:
        machine.install(guest)
        guest.put("late.service", LATE_UNIT.format(dev=late.dev).encode())
        guest.run("cp /share/late.service /etc/systemd/system/; systemctl daemon-reload; systemctl enable --now late\n"
                  "for i in $(seq 300); do test -b /dev/mapper/late && break; sleep 0.1; done\n"
                  f"svctl create-pool late --tier t=/dev/mapper/late; svctl create-pool pair --tier t={first.dev},{second.dev}\n" +
                  MAKE.format(pool="late", options="defaults") + MAKE.format(pool="pair", options="nofail"),
                  timeout=120)
    machine.disks = [late, first]
    with machine.boot() as guest:
        print(guest.run(UP + "svctl status; findmnt /srv/late; sha256sum -c /root/sums-late; refused findmnt /srv/pair\n"
                        "journalctl -b -o short-monotonic --no-pager | grep -E 'Mounted srv-late|pool late is up'\n"
                        "svctl status | grep 'member 1 of 2 is missing'; journalctl -b SV_POOL=pair -o cat | grep 'is missing'"))
    machine.disks = [late, first, second]
    with machine.boot() as guest:
        print(guest.run(UP + "for i in $(seq 100); do findmnt /srv/pair && break; sleep 0.2; done; sha256sum -c /root/sums-late /root/sums-pair"))


# The module is away, then one of another kernel, then the pool's own again: what is refused says why, and changes nothing.
# Where symbols have versions, as in Debian, the kernel does not look at the release in vermagic, but at what follows.
MODULE = """svctl create-volume tank/v --size 16M; dd if=/dev/urandom of=/dev/sv/tank/v bs=1M count=4 oflag=direct conv=fsync status=none
sha256sum /dev/sv/tank/v > /root/sums; svctl dump tank > /tmp/before; ko=$(modinfo -n dm-sv); svctl deactivate tank; rmmod dm-sv; cp $ko /root/dm-sv.ko
refuses() { rc=0; svctl activate tank 2> /tmp/said || rc=$?; cat /tmp/said; test $rc = 8; grep "$1" /tmp/said; grep "$2" /tmp/said; refused test -e /dev/sv/tank; }
rm $ko; refuses 'has none: it is not installed' 'apt install dm-sv-dkms'; svctl status; svctl status | grep 'pools will not come up with kernel'
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

"""svd and module of different age: uapi/sv.h promises that each serves the other, while I/O runs."""

import next
import vm
from svctl import BIN, START, Svctl

EXTENTS = 27000  # of which a next version's structs fill more than one payload where ours fill one (PARTIALS)
# First writes and discards, which change what `svctl check` compares: it is asked once this has ended.
LOAD = """while ! test -e /run/enough; do blkdiscard /dev/sv/tank/busy
fio --name=load --filename=/dev/sv/tank/busy --rw=randwrite --bs=4k --size=32M --direct=1 --iodepth=4 --ioengine=libaio \\
    --fsync=64 --verify=crc32c --minimal --output=/dev/null
done"""


class Ages(Svctl):
    """`svd` and `module` are "here" or "next"."""

    def __init__(self, guest, disks, others, module, svd):
        self.guest, self.disks = guest, disks
        svds = {"here": BIN + "/svd", "next": others[0]}
        modules = {"here": guest.sv_module(), "next": others[1]}
        self.svds = svds
        guest.run(f"for m in $(modinfo -F depends {modules[module]} | tr , ' '); do modprobe $m; done; insmod {modules[module]}")
        self.begin(svd)

    def begin(self, age):
        """With a log of its own."""
        disks = ",".join(d.dev for d in self.disks)
        self.run("rm -f /run/svctl/log\n" + START.replace("svd --devices", self.svds[age] + " --devices").format(disks=disks, env="") + "svctl list")

    def restart(self, age, signal="TERM"):
        self.guest.run(f"kill -{signal} $(pidof svd); flock -w 20 /run/svctl/svd.lock true")
        self.begin(age)

    def says(self, line):
        self.run(f"for i in $(seq 200); do grep -q '{line}' /run/svctl/log && exit; sleep 0.1; done; exit 1")


# A snapshot, a clone of it and a rollback show what they should; then what is left of them is folded, also of what is written
# to meanwhile. {n}: a number, for the names.
SNAPSHOTS = """sum() {{ dd if=/dev/sv/tank/$1 bs=1M count=8 iflag=direct status=none | sha256sum; }}
some() {{ for i in $(seq 0 256 1792); do dd if=/dev/urandom of=/dev/sv/tank/$1 bs=4k count=100 seek=$((i + $2)) oflag=direct conv=notrunc status=none; done; }}
first=$(sum v{n}); svctl create-snapshot tank/v{n}@s tank/busy@s; some v{n} 0; second=$(sum v{n}); test "$first" != "$second"
svctl create-volume tank/c{n} --from v{n}@s; test "$(sum c{n})" = "$first"; some c{n} 30
svctl create-snapshot tank/v{n}@t; some v{n} 60; svctl rollback-volume tank/v{n}@t --yes; test "$(sum v{n})" = "$second"
svctl activate tank/v{n}@s; test "$(sum v{n}@s)" = "$first"; svctl deactivate tank/v{n}@s; svctl delete-volume tank/c{n} --yes
cd /sys/kernel/tracing; test -d events || mount -t tracefs none .
cd /sys/kernel/tracing; echo > trace; echo 1 > events/sv/sv_fold/enable
for s in v{n}@t v{n}@s busy@s; do svctl delete-snapshot tank/$s --yes; done
for i in $(seq 900); do grep -q 'folded=[1-9][0-9]* failed=0 ' trace && break; sleep 0.1; done; grep 'folded=[1-9][0-9]* failed=0 ' trace
echo 0 > events/sv/sv_fold/enable; cd /; test "$(sum v{n})" = "$second"; refused grep SV-CHECKPOINT-FAILED <(svctl status)
"""


def changes(number, disk):
    """Everything that svd asks of the kernel for a pool that is up."""
    return (f"svctl create-volume tank/v{number} --size 1G; svctl resize-volume tank/v{number} --size 2G\n"
            f"dd if=/dev/urandom of=/dev/sv/tank/v{number} bs=1M count=8 oflag=direct status=none\n" + SNAPSHOTS.format(n=number) +
            f"svctl rename-volume tank/v{number} w{number}; svctl delete-volume --yes tank/w{number}\n"
            f"svctl add-device tank slow={disk.dev}; svctl scan; svctl show tank\n"
            "svctl show tank/busy | grep '^  write: [1-9]'\n")


@vm.full
@vm.limit(600)
def test_each_serves_the_other_while_io_runs(bench):
    others = next.build(bench.kernel)
    disks = [bench.disk("fast", "4G"), bench.disk("slow", "30G"), bench.disk("more0", "1G"),
             bench.disk("more1", "1G")]
    with bench.boot(disks) as guest:
        s = Ages(guest, disks, others, "here", "here")
        s.run(f"svctl create-pool tank --tier fast={disks[0].dev} --tier slow={disks[1].dev}\n"
              "svctl create-volume tank/wide --size 30G; svctl create-volume tank/busy --size 32M\n"
              "fio --name=wide --filename=/dev/sv/tank/wide --rw=write:1020k --bs=4k --direct=1 --iodepth=16 --ioengine=libaio "
              f"--number_ios={EXTENTS} --minimal --output=/dev/null; svctl list", timeout=120)
        for number, (module, old, new) in enumerate([("here", "here", "next"), ("next", "next", "here")]):
            if number:
                s = Ages(guest, disks, others, module, old)
                s.says("next svd, next module: 42 1")
                s.says("pool tank is up")
            load = guest.start(LOAD)
            s.restart(new)
            s.says("catching up")
            s.says("pool tank is up")
            if new == "next":
                s.says("next svd, present module: 0")
            s.run(changes(number, disks[2 + number]), timeout=240)
            s.restart(old, "KILL")  # and back
            s.says("pool tank is up")
            s.run("svctl list; touch /run/enough")
            load.wait(60)
            s.run("svctl check tank")
            # From nothing, by the svd of the other age.
            s.restart(new)
            s.says("pool tank is up")
            s.run("svctl deactivate tank; svctl activate tank; svctl check tank; rm /run/enough\n"
                  f"svctl --json show tank/wide | grep -E '\"used\": ?{EXTENTS << 20}'; svctl deactivate tank")
            guest.run("rm /run/svctl/down-*; kill $(pidof svd); flock -w 20 /run/svctl/svd.lock true; rmmod dm-sv")

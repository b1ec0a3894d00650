"""A guest with svd and svctl in it: what t_svctl.py, t_trouble.py and t_crash.py share."""

import os

import vm

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "build", "bin")

START = f"""export PATH={BIN}:$PATH
mkdir -p /run/svctl
{{env}} svd --devices {{disks}} 2>>/run/svctl/log </dev/null >/dev/null & disown
for i in $(seq 100); do svctl list >/dev/null 2>&1 && break; sleep 0.1; done
"""

# Where svd runs: of each pool that is up the kernel's state equals the catalogue with the journal. Nobody should write to it
# meanwhile, hence sync. An svd that was told to end may still be in sight of pidof.
CHECK_POOLS = f"""export PATH={BIN}:$PATH; cd /; timeout 60 sync
for i in $(seq 100); do
    pidof svd > /dev/null || exit 0
    pools=$(timeout 60 svctl list -H -t pool -o name,state) && break; sleep 0.1
done
while IFS=$'\\t' read -r pool state; do [[ $state != active && $state != read-only ]] || timeout 60 svctl check "$pool"; done <<< "$pools"
"""


def check_at_end(guest):
    """Leaving the guest's block checks its pools, unless the test has set guest.pools_checked to False."""
    guest.pools_checked = True

    def check():
        if guest.pools_checked:
            print("at the end:", guest.run(CHECK_POOLS, timeout=120), end="")

    guest.at_end.append(check)


class Svctl:
    """A guest with svd in it. At the end of the guest's block its pools are checked."""

    def __init__(self, guest, disks):
        self.guest = guest
        self.disks = disks
        guest.load_sv()
        self.start()
        check_at_end(guest)

    def start(self, env=""):
        try:
            self.guest.run(START.format(disks=",".join(d.dev for d in self.disks), env=env) + "svctl list")
        except vm.CommandFailed:
            print(self.guest.run("cat /run/svctl/log; dmesg | tail -20", check=False))
            raise

    def run(self, script, timeout=120):
        try:
            return self.guest.run(f"export PATH={BIN}:$PATH\n" + script, timeout=timeout)
        except vm.CommandFailed as failed:
            print(failed.output)
            print(self.guest.run("cat /run/svctl/log; dmesg | tail -30", check=False))
            raise

    def kill(self):
        """Kills svd. One that exits is out of pidof's sight before it lets go of its lock."""
        self.guest.run("kill -9 $(pidof svd); flock -w 10 /run/svctl/svd.lock true")


def pool_of(s, *tiers, size="1G"):
    s.run(f"svctl create-pool tank {' '.join('--tier ' + t for t in tiers)}; svctl create-volume tank/a --size {size}")

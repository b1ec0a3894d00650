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


class Svctl:
    """A guest with svd in it."""

    def __init__(self, guest, disks):
        self.guest = guest
        self.disks = disks
        guest.load_sv()
        self.start()

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

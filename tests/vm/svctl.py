"""A guest with svd and svctl in it: what t_svctl.py, t_trouble.py and t_crash.py share."""

import os
import sys

import vm

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "tests", "e2e"))
import next_step  # what its tests hold problems against
BIN = os.path.join(ROOT, "build", "bin")

# How svd ended is kept: who starts another one removes /run/svd-exit first.
START = f"""export PATH={BIN}:$PATH
mkdir -p /run/svctl; rm -f /run/svd-exit
{{{{ code=0; {{env}} svd --devices {{disks}} 2>>/run/svctl/log </dev/null >/dev/null || code=$?; echo $code > /run/svd-exit; }}}} &
starter=$!; disown
until timeout 60 svctl list >/dev/null 2>&1; do ((SECONDS < 60)) && kill -0 $starter 2>/dev/null || break; sleep 0.1; done
"""

# Of an svd that does not answer: how it ended, or where it is.
WHERE_IT_IS = """set +e; echo "exit code of svd: $(cat /run/svd-exit 2>&1)"; cat /run/svctl/log; ls -la /run/svctl
for pid in $(pidof svd); do for file in status wchan stack; do echo "== $file"; cat /proc/$pid/$file; echo; done; done
ps axo pid,ppid,stat,etimes,time,wchan:32,args | grep -v '\\]$'; uptime; dmesg | tail -30
"""

# Of each pool that is up the kernel's state equals the catalogue with the journal. Nobody should write to it meanwhile, hence
# sync. Where svd does not run it was told to end, or killed by a test; one that was may still be in sight of pidof.
CHECK_POOLS = f"""export PATH={BIN}:$PATH; cd /; timeout 60 sync
ended() {{
    if [[ -d /run/systemd/system ]]; then
        how=$(systemctl show -P Result svd),$(systemctl show -P ExecMainCode svd),$(systemctl show -P ExecMainStatus svd)
    else
        for i in $(seq 20); do [[ ! -s /run/svd-exit ]] || break; sleep 0.1; done
        how=$(cat /run/svd-exit 2>&1 || true)
    fi
    [[ $how =~ ^(0|137|143|success,.*|signal,2,9)$ ]] || {{ echo "svd ended by itself: $how" >&2; exit 1; }}
    exit 0
}}
listed=
while ((SECONDS < 30)); do
    pidof svd > /dev/null || ended
    pools=$(timeout 60 svctl list -H -t pool -o name,state) && listed=1 && break; sleep 0.1
done
[[ -n $listed ]] || {{ echo "svd runs and does not answer" >&2; exit 1; }}
timeout 60 svctl status -H -o id,next | while IFS=$'\\t' read -r code next; do
    [[ $next =~ (^|[^a-z])({'|'.join(sorted(next_step.OTHERS))}|svctl)[[:space:]] ]] || {{ echo "$code: no next step: $next" >&2; exit 1; }}
done
while IFS=$'\\t' read -r pool state; do [[ $state != active && $state != read-only ]] || timeout 60 svctl check "$pool"; done <<< "$pools"
"""


def tell_where_it_is(guest):
    if guest.running:
        print(guest.run(WHERE_IT_IS, check=False))


def check_at_end(guest):
    """Leaving the guest's block checks its pools, unless the test has set guest.pools_checked to False."""
    guest.pools_checked = True

    def check():
        if guest.pools_checked:
            try:
                print("at the end:", guest.run(CHECK_POOLS, timeout=120), end="")
            except vm.Failure:
                tell_where_it_is(guest)
                raise

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
            self.guest.run(START.format(disks=",".join(d.dev for d in self.disks), env=env) + "svctl list", timeout=100)
        except vm.Failure:
            tell_where_it_is(self.guest)
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

"""How others see a pool that the kernel serves, in a full guest with what `make install` brings: the Varlink API, svctl's jobs,
columns and completion, metrics, zabbix-agent2, alerts. tests/e2e has all of these in detail, against svd --sim."""

import os
import subprocess

import vm
from dumps import WIDE_SIZE, put_wide
from host import METRICS, Machine, bundle

AGENT = os.path.join(vm.BUILD, "tools/zabbix_agent2")
PROMTOOL = os.path.join(vm.BUILD, "tools/promtool")
VARLINK = "/usr/lib/python3/dist-packages/varlink"

POOLS = """systemd-sysusers; systemctl restart svd.socket svd; svctl create-pool tank --tier fast={0} --tier slow={1}; svctl create-volume tank/a --size 256M
dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=32 oflag=direct conv=fsync status=none
svctl create-pool wide --tier t={2}; useradd -M -G svctl-read zabbix; useradd -M -G svctl admin
"""
API = """at=unix:/run/svctl/svd.sock; varlink() { python3 -m varlink.cli "$@"; }
varlink info $at | grep 'io.svctl'; varlink help $at/io.svctl > /tmp/said
grep '^method CreatePool(' /tmp/said; diff <(grep -o '^method [A-Za-z]*' /tmp/said) <(grep -o '^method [A-Za-z]*' /usr/share/varlink/io.svctl.varlink)
varlink call $at/io.svctl.ShowVolume '{"pool": "tank", "volume": "a"}' | grep '"size": 268435456'
varlink call $at/io.svctl.ShowPool '{"pool": "nix"}' > /tmp/said 2>&1 || true; grep "io.svctl.NotFound" /tmp/said; grep "'code': 3" /tmp/said
runuser -u zabbix -- python3 -m varlink.cli call $at/io.svctl.CreateVolume '{"pool": "tank", "volume": "x", "size": 1048576}' > /tmp/said 2>&1 || true
grep 'io.svctl.PermissionDenied' /tmp/said
"""
# In a terminal, interrupted, while it goes on; and followed by another client.
JOBS = """script -qfec 'env --default-signal=INT svctl restore wide /share/wide' /tmp/typed > /dev/null & typing=$!
for i in $(seq 300); do svctl jobs -H -o what,pool,state | grep -q 'restore.wide.running' && break; sleep 0.1; done
pkill -INT -x svctl; ends 130 wait $typing; cat /tmp/typed; grep 'goes on: svctl wait [0-9]* follows it' /tmp/typed
job=$(sed -n 's/.*goes on: svctl wait \\([0-9]*\\) follows it.*/\\1/p' /tmp/typed)
test "$(svctl jobs -H -o id,what,pool | tr '\\t' ' ' | grep "^$job ")" = "$job restore wide"
script -qfec "runuser -u admin -- svctl wait $job" /tmp/waited > /dev/null; cat /tmp/waited; grep -aE '[0-9]+ % .* left' /tmp/waited
svctl list -H -t volume -o name | grep -c '^wide/'
python3 -m varlink.cli call --more unix:/run/svctl/svd.sock/io.svctl.Check '{"pool": "wide"}' > /tmp/said; grep -c '"progress"' /tmp/said
svctl delete-pool wide --yes
"""
# Twenty that ask, beside one that sends half a message, one that reads no answer, and some that are killed while they ask.
CLIENTS = """python3 -c '
import socket, time
half, deaf = (socket.socket(socket.AF_UNIX) for _ in range(2))
for s in (half, deaf): s.connect("/run/svctl/svd.sock")
half.send(b"{\\"method\\":"); deaf.setblocking(False)
try:
    for _ in range(100000): deaf.send(b"{\\"method\\":\\"io.svctl.List\\"}\\0" * 100)
except BlockingIOError: pass
open("/run/they-are-there", "w"); time.sleep(600)' & hostile=$!
for i in $(seq 200); do test -e /run/they-are-there && break; sleep 0.1; done; test -e /run/they-are-there
for i in $(seq 20); do timeout 10 svctl show tank > /tmp/shown.$i & pids="${pids:-} $!"; done; for i in 1 2 3 4 5; do svctl check tank > /dev/null & kill -9 $!; done; for pid in $pids; do wait $pid; done
for i in $(seq 20); do grep -q '^name: tank' /tmp/shown.$i; done; kill $hostile
"""
COMMANDS = """svctl volume create tank/b --size 16M; svctl volume list > /dev/null; svctl delete-volume tank/b --dry-run | grep tank/b
test "$(svctl list -H -t volume -o name,size | tr '\\t' ' ')" = "$(printf 'tank/a 268435456\\ntank/b 16777216')"
complete() { bash -c '. /usr/share/bash-completion/completions/svctl; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _svctl; printf "%s\\n" "${COMPREPLY[@]}"' bash "$@"; }
complete svctl show tank/ | tr -d ' ' | sort | tr '\\n' ' ' | grep 'tank/a tank/b'; complete svctl create-sn | grep create-snapshot
for page in svctl svd; do grep -i "^\\.TH $page 8" /usr/share/man/man8/$page.8; done; svctl list | cat > /tmp/said; refused grep -P '\\x1b' /tmp/said
svctl volume delete tank/b --yes
"""
SCRAPER = METRICS + """scrape() { answer | sed '1,/^\r$/d'; }
"""
# Each read is counted, by who scrapes and by the agent.
SCRAPE = SCRAPER + """reads() { awk '/^svctl_volume_io_duration_seconds_count/ && /volume="a"/ && /"read"/ { n += $NF } END { print n + 0 }' $1; }
scrape > /tmp/before; udevadm settle; scrape > /tmp/before
for i in $(seq 100); do dd if=/dev/sv/tank/a of=/dev/null bs=4k skip=$i count=1 iflag=direct status=none; done
scrape > /share/metrics; echo "reads: $(reads /tmp/before), then $(reads /share/metrics)"; test $(($(reads /share/metrics) - $(reads /tmp/before))) -ge 100
"""
ZABBIX = """printf 'Server=127.0.0.1\\nHostname=test\\nLogType=console\\nControlSocket=/tmp/agent.sock\\nPluginSocket=/tmp/plugin.sock\\nTimeout=10\\nInclude=/usr/share/svctl/zabbix-agent2-svctl.conf\\n' > /tmp/agent.conf
ask() { runuser -u zabbix -- {agent} -c /tmp/agent.conf -t $1; }
ask svctl.metrics | grep 'svctl_volume_size_bytes{pool="tank",volume="a"} 268435456'
"""
# until_said yes|no CODES: an alert of one of them, whose name is then in $code. told WORDS DEVICE: by status with what is to be
# done, by explain, the journal, metrics and the agent. The device may be empty.
TOLD = """until_said() { for i in $(seq 300); do svctl status -H -o id,pool > /tmp/said; code=$(grep -oE "^($2)" /tmp/said | head -1) || true
    if test -n "$code"; then now=yes; else now=no; fi; test $now = $1 && return; sleep 0.2; done; cat /tmp/said; return 1; }
told() { svctl status; svctl status -H -o id,pool,next | grep -P "^$code\\ttank\\t.*$1"; svctl explain $code | grep 'What to do:'
    journalctl --sync; journalctl -b SV_CODE=$code SV_POOL=tank ${2:+SV_DEVICE=$2} -o cat | grep "${2:-tank}"
    scrape | grep "^svctl_problem{.*\\"$code\\".*\\"${2-}\\""; ! declare -F ask > /dev/null || ask svctl.status | grep $code; }
over() { until_said no $1; journalctl --sync; journalctl -b SV_CODE=$1 SV_POOL=tank -o cat | grep 'it is over'; scrape > /tmp/said; refused grep "^svctl_problem{.*\\"$1\\"" /tmp/said; }
"""
# The pool fills, and is emptied.
ALERT = """svctl create-volume tank/full --size 1G; svctl status -H -o id > /tmp/said; refused grep SV-SPACE /tmp/said
free=$(svctl list -H -t pool -o name,free | awk '$1 == "tank" { print int($2 / 1048576) }')
dd if=/dev/zero of=/dev/sv/tank/full bs=1M count=$((free * 9 / 10)) oflag=direct status=none
until_said yes 'SV-SPACE-LOW|SV-SPACE-CRITICAL'; told 'add-device'
blkdiscard /dev/sv/tank/full; svctl delete-volume tank/full --yes; until_said no 'SV-SPACE-LOW|SV-SPACE-CRITICAL'
"""


@vm.full
@vm.limit(500)
def test_a_served_pool_is_seen_by_all_interfaces(bench):
    disks = [bench.disk("fast", "160M"), bench.disk("slow", "160M"), bench.disk("wide", WIDE_SIZE)]
    machine = Machine(bench, disks)
    with machine.boot() as guest:
        machine.install(guest)
        guest.put("tools.tar", bundle([VARLINK], [AGENT]))
        put_wide(guest)
        guest.run("tar -C / --keep-directory-symlink --skip-old-files -xf /share/tools.tar; ldconfig\n" + POOLS.format(*(d.dev for d in disks)), timeout=120)
        for part in (API, JOBS, CLIENTS, COMMANDS, SCRAPE, SCRAPE + ZABBIX.replace("{agent}", AGENT) + TOLD + ALERT):
            print(guest.run(part, timeout=150))
        checked = subprocess.run([PROMTOOL, "check", "metrics"], input=guest.get("metrics"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert checked.returncode == 0 and not checked.stdout, checked


# Two members with journal and catalogue, on maps.
MAPS = """for map in one:{one} two:{two}; do dmsetup create ${map%:*} --table "0 $(blockdev --getsz ${map#*:}) linear ${map#*:} 0"; done
svctl create-pool tank --tier fast=/dev/mapper/one,/dev/mapper/two; svctl create-volume tank/a --size 64M
dd if=/dev/urandom of=/dev/sv/tank/a bs=1M count=16 oflag=direct conv=fsync status=none; sha256sum /dev/sv/tank/a > /root/sums
"""
# at MAP OFFSET: a field of its label, in sectors. part MAP DISK FIRST END TARGET [WORDS]: one part of it is TARGET.
FAIL = """modprobe dm-flakey; svctl status -H -o id > /tmp/said; refused grep SV- /tmp/said
two=$(svctl --json show tank | grep -oE "/dev/mapper/two|$(readlink -f /dev/mapper/two)\\\\b" | head -1)
at() { echo $(($(od -An -t u8 -j $2 -N 8 /dev/mapper/$1) / 512)); }
remap() { dmsetup reload $1; dmsetup suspend --nolockfs $1; dmsetup resume $1; }
part() { local map=$1 disk=$2 first=$3 end=$4; shift 4
    printf '%s\\n' "0 $first linear $disk 0" "$first $((end - first)) $*" "$end $(($(blockdev --getsz $disk) - end)) linear $disk $end" | remap $map; }
whole() { echo "0 $(blockdev --getsz $2) linear $2 0" | remap $1; }
copies() { scrape | grep "^svctl_member_$1_copy{.*\\"$two\\".* $2\\$"; }
"""
LOST = """copies journal 1; copies catalogue 1; part two {two} 2048 $(at two 200) error
svctl create-volume tank/w --size 16M; until_said yes SV-CATALOGUE-COPY-LOST; told 'svctl deactivate tank' $two
dd if=/dev/urandom of=/dev/sv/tank/w bs=4k count=1 oflag=direct,dsync status=none
until_said yes SV-JOURNAL-COPY-LOST; told 'svctl deactivate tank' $two
copies journal 0; copies catalogue 0; svctl check tank; sha256sum -c /root/sums
whole two {two}; until_said yes SV-JOURNAL-COPY-LOST; svctl deactivate tank; svctl activate tank --read-only
until_said yes SV-CATALOGUE-COPY-STALE; told 'svctl activate tank' $two; svctl deactivate tank; svctl activate tank
for code in SV-CATALOGUE-COPY-STALE SV-CATALOGUE-COPY-LOST SV-JOURNAL-COPY-LOST; do over $code; done
copies journal 1; copies catalogue 1; svctl check tank; sha256sum -c /root/sums
"""
# Nobody can read the journal, so no checkpoint empties it, while one block after the other is written and committed.
PRESSED = """for map in one:{one} two:{two}; do dev=${map#*:}; map=${map%:*}; first=$(at $map 168); part $map $dev $first $((first + $(at $map 176))) flakey $dev $first 0 3600 1 error_reads; done
used() { svctl --json show tank | python3 -c 'import json, sys; j = json.load(sys.stdin)["journal"]; print(100 * j["used"] // j["size"])'; }
svctl create-volume tank/p --size 64M; for turn in $(seq 0 31); do test $(used) -le 52 || break
python3 -c 'import mmap, os, sys
fd = os.open("/dev/sv/tank/p", os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
for block in range(500): os.pwrite(fd, mmap.mmap(-1, 4096), (int(sys.argv[1]) * 500 + block) * 4096)' $turn; done
test $(used) -gt 52; until_said yes SV-CHECKPOINT-FAILED; told 'svctl check tank'
for i in 1 2 3; do until_said yes SV-JOURNAL-PRESSURE && break; done; told 'svctl jobs'
whole one {one}; whole two {two}; svctl activate tank; until_said no SV-CHECKPOINT-FAILED; over SV-JOURNAL-PRESSURE
svctl check tank; sha256sum -c /root/sums
"""


@vm.full
@vm.limit(500)
def test_alerts_of_failing_members_come_and_go(bench):
    disks = [bench.disk("one", "160M"), bench.disk("two", "160M")]
    machine = Machine(bench, disks)
    with machine.boot() as guest:
        machine.install(guest)
        for part in (MAPS, SCRAPER + TOLD + FAIL + LOST, SCRAPER + TOLD + FAIL + PRESSED):
            print(guest.run(part.replace("{one}", disks[0].dev).replace("{two}", disks[1].dev), timeout=200))

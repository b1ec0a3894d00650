"""The harness itself: what the other guest tests rest on."""

import os
import re
import subprocess
import sys
import time

import blklog
import svctl
import vm

READ = "dd if={} bs=512 count=1 skip={} status=none | tr -d '\\0'"
WRITE = "printf %-512s {} | dd of={} bs=512 seek={} count=1 iflag=fullblock oflag=direct status=none"


def write(guest, disk, word, sector=0, sync=False):
    guest.run(WRITE.format(word, disk.dev, sector) + (f"; blockdev --flushbufs {disk.dev}; sync -f {disk.dev}; "
              f"python3 -c 'import os; os.fsync(os.open(\"{disk.dev}\", os.O_RDWR))'" if sync else ""))


def read(guest, disk, sector=0):
    return guest.run(READ.format(disk.dev, sector)).strip()


def test_boots_with_kernel_modules_and_disks(bench):
    disks = [bench.disk("a", "64M"), bench.disk("b", "1G", logical=4096),
             bench.disk("c", "64M", readonly=True), bench.disk("d", "64M", write_cache=False)]
    with bench.boot(disks) as guest:
        print(f"booted in {guest.boot_seconds:.1f} s")
        assert guest.run("uname -r").strip() == bench.kernel.release
        for module in "dm-mod dm-thin-pool dm-flakey dm-log-writes dm-delay null_blk".split():
            guest.run(f"modprobe {module}")
        assert guest.run(f"blockdev --getsize64 {disks[1].dev}").strip() == str(1 << 30)
        assert guest.run(f"blockdev --getss {disks[1].dev}").strip() == "4096"
        assert guest.run(f"blockdev --getro {disks[2].dev}").strip() == "1"
        caches = guest.run("cat /sys/block/vd[ad]/queue/write_cache").split("\n")
        assert caches[:2] == ["write back", "write through"], caches
        assert guest.run("cat /sys/block/vda/queue/discard_max_bytes").strip() != "0"
        guest.run("touch /root/x /usr/lib/x")  # the overlay takes writes
    assert not os.path.exists("/usr/lib/x")


@vm.full
def test_device_mapper_works_without_udev(bench):
    disk = bench.disk("a", "64M")
    with bench.boot([disk]) as guest:
        guest.run(f"dmsetup create t --table '0 2048 linear {disk.dev} 0'\n"
                  "mkfs.ext4 -q /dev/mapper/t; mount /dev/mapper/t /mnt; echo hi > /mnt/f\n"
                  "umount /mnt; dmsetup remove t")


@vm.full
def test_runs_scripts_side_by_side(bench):
    with bench.boot() as guest:
        slow = guest.start("echo early; until test -e /tmp/go; do sleep 0.1; done; echo late")
        vm.wait_until(lambda: slow.output == "early\n", 60, "the first script's output")
        assert guest.run("echo quick; touch /tmp/go") == "quick\n"
        assert slow.wait() == "early\nlate\n"
        try:
            guest.run("echo out; false; echo never")
            raise AssertionError("a failed script was not noticed")
        except vm.CommandFailed as failed:
            assert failed.code == 1 and failed.output == "out\n", failed


@vm.full
def test_reboot_keeps_data(bench):
    disks = [bench.disk(b, "64M", backend=b) for b in ("file", "volatile", "logged")]
    with bench.boot(disks) as guest:
        for disk in disks:
            write(guest, disk, "kept")
    with bench.boot(disks) as guest:
        for disk in disks:
            assert read(guest, disk) == "kept", disk.name


def test_power_cut_loses_what_was_not_flushed(bench):
    cached = bench.disk("cached", "64M", backend="volatile")
    through = bench.disk("through", "64M", backend="volatile", write_cache=False)
    with bench.boot([cached, through]) as guest:
        write(guest, cached, "flushed", 0, sync=True)
        write(guest, cached, "unflushed", 1)
        write(guest, through, "through", 1)
        assert read(guest, cached, 1) == "unflushed"
        guest.power_cut()
    with bench.boot([cached, through]) as guest:
        assert read(guest, cached, 0) == "flushed"
        assert read(guest, cached, 1) == ""
        assert read(guest, through, 1) == "through"


def test_fua_survives_power_cut(bench):
    """A file system's journal commit is a FUA write after a flush."""
    disk = bench.disk("a", "256M", backend="volatile")
    with bench.boot([disk]) as guest:
        guest.run(f"mkfs.ext4 -q {disk.dev}; mount {disk.dev} /mnt; echo kept > /mnt/f; sync -f /mnt/f\n"
                  "echo lost > /mnt/g")
        guest.power_cut()
    with bench.boot([disk]) as guest:
        assert guest.run(f"mount {disk.dev} /mnt; cat /mnt/f; ls /mnt/g 2>&1 || true").startswith("kept\n")


@vm.full
def test_early_destaging_tears_writes(bench):
    """With early=50 about half of the sectors outlive a power cut."""
    disk = bench.disk("a", "64M", backend="volatile", early=50)
    with bench.boot([disk]) as guest:
        guest.run(f"head -c 1M /dev/zero | tr '\\0' x | dd of={disk.dev} bs=64k iflag=fullblock oflag=direct")
        guest.power_cut()
    with open(disk.path, "rb") as f:
        kept = f.read(1 << 20).count(b"x" * 512)
    assert 700 < kept < 1350, kept


@vm.full
def test_crash_image_from_log(bench):
    disk = bench.disk("a", "64M", backend="logged")
    with bench.boot([disk]) as guest:
        write(guest, disk, "flushed", 0, sync=True)
        guest.run("for i in $(seq 1 64); do " + WRITE.format("unflushed", disk.dev, "$i") + "; done")
        guest.power_cut()
    log = blklog.Log(disk.log)
    assert any(e.flags & blklog.FLUSH for e in log.entries)
    counts = set()
    for seed in range(5):
        image = bench.crash_disk(f"crash{seed}", disk, seed=seed)
        with open(image.path, "rb") as f:
            data = f.read(65 * 512)
        assert data.startswith(b"flushed")
        counts.add(data.count(b"unflushed"))
    assert len(counts) > 1 and all(0 < c < 64 for c in counts), counts
    # Bounded by the number of entries, the log gives each earlier state.
    empty = bench.crash_disk("empty", disk, upto=0)
    with open(empty.path, "rb") as f:
        assert not f.read(512).strip(b"\0")
    with bench.boot([bench.crash_disk("last", disk, seed=1)]) as guest:
        assert read(guest, disk, 0) == "flushed"


@vm.full  # make check measures nothing by it
def test_icount_repeats(bench):
    """Virtual time counts instructions: the same work takes the same time."""
    # No fork and no file: waiting for the host is the part that does not repeat.
    script = "s=${EPOCHREALTIME/./}; for ((i = 0; i < 20000; i++)); do :; done; echo $((${EPOCHREALTIME/./} - s))"
    times = []
    for _ in range(2):
        with bench.boot(icount=True) as guest:
            times.append(int(guest.run(script)))
    assert abs(times[0] - times[1]) < times[0] * 0.02, times


TROUBLE = {  # of which each must be seen by itself: level and line
    "hung task": (3, "INFO: task dd:77 blocked for more than 120 seconds."),
    "lockdep": (4, "INFO: possible recursive locking detected"),
    "unlocked": (4, "WARNING: suspicious RCU usage"),
    "stall": (3, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    "sleeping": (3, "BUG: sleeping function called from invalid context at mm/slab.h:1"),
    "KASAN": (3, "BUG: KASAN: slab-use-after-free in sv_map"),
}
FAULTS = {  # of programs, by the kernel itself
    "segfault": ("import ctypes; ctypes.string_at(0)", "segfault at 0"),
    "trap": ("import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\x0f\\x0b');"
             "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()", "trap invalid opcode"),
}


@vm.full
def test_kernel_trouble_of_each_kind_is_seen(bench):
    with bench.boot() as guest:
        said = [words for _, words in FAULTS.values()]
        for level, line in TROUBLE.values():
            guest.run(f"echo '<{level}>{line}' > /dev/kmsg")
            said.append(line)
        for program, _ in FAULTS.values():
            guest.run(f'ulimit -c 0; refused python3 -S -E -c "{program}"')
        vm.wait_until(lambda: all(line in guest.console_text() for line in said), 20, "lines on the console")
        for line in said:
            guest.expect = [re.compile(re.escape(other)) for other in said if other != line]
            try:
                guest.check_console()
            except vm.Failure as failure:
                assert line in str(failure), failure
            else:
                raise AssertionError(f"not noticed: {line}")
        guest.expect = [re.compile(re.escape(line)) for line in said]


def ended_otherwise(guest, how):
    """What the end of the block says of an svd that is not there."""
    guest.run(f"rm -f /run/svd-exit; {how}")
    try:
        guest.at_end[0]()
    except vm.CommandFailed as failed:
        return failed.output
    return ""


@vm.full
def test_an_svd_that_ends_by_itself_is_noticed(bench):
    with bench.boot() as guest:
        svctl.check_at_end(guest)
        for code in (0, 137):
            assert not ended_otherwise(guest, f"echo {code} > /run/svd-exit")
        for code in (1, 139):
            assert f"svd ended by itself: {code}" in ended_otherwise(guest, f"echo {code} > /run/svd-exit")
        assert "svd ended by itself: cat: /run/svd-exit" in ended_otherwise(guest, "true")
        guest.run("echo 0 > /run/svd-exit")


@vm.full  # waits half a minute
def test_an_svd_that_does_not_answer_is_noticed(bench):
    with bench.boot() as guest:
        svctl.check_at_end(guest)
        guest.run("cp $(which sleep) /run/svd; /run/svd 600 > /dev/null 2>&1 & disown")
        assert "svd runs and does not answer" in ended_otherwise(guest, "true")
        guest.run("kill $(pidof svd); echo 143 > /run/svd-exit")


def summary_of(bench, *suites, **environment):
    return subprocess.run([os.path.join(vm.REPO, "tests", "summary"), os.path.join(bench.dir, "summary"), *suites], text=True,
                          stdout=subprocess.PIPE, check=False, env={**without_leave(), **environment})


def without_leave():
    return {k: v for k, v in os.environ.items() if k != "MAY_SKIP"}


def test_summary_fails_where_nothing_passed_or_some_were_skipped(bench):
    good, none, some = ("echo 2 passed, 0 failed, 0 skipped", "echo 0 passed, 0 failed, 3 skipped", "echo 2 passed, 0 failed, 1 skipped")
    for suites, environment, code, last in (
            ((f"a={good}",), {}, 0, "2 passed, 0 failed, 0 skipped"),
            ((f"a={good}", f"b={none}"), {}, 1, "2 passed, 1 failed, 3 skipped"),
            ((f"a={good}", f"b={none}"), {"MAY_SKIP": "1"}, 1, "2 passed, 1 failed, 3 skipped"),
            ((f"a={some}",), {}, 1, "2 passed, 1 failed, 1 skipped"),
            ((f"a={some}",), {"MAY_SKIP": "1"}, 0, "2 passed, 0 failed, 1 skipped"),
            ((f"a={good}; false",), {}, 1, "2 passed, 1 failed, 0 skipped"),
            (("a=true",), {}, 1, "0 passed, 1 failed, 0 skipped")):
        done = summary_of(bench, *suites, **environment)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last), (suites, environment, done)


def run_fixtures(bench, *args, **environment):
    done = subprocess.run(
        [sys.executable, os.path.join(vm.HERE, "run"), "--kernel", bench.kver, *args,
         "--dir", os.path.join(vm.HERE, "fixtures"), "--out", os.path.join(bench.dir, "out")],
        stdout=subprocess.PIPE, text=True, check=False, env={**without_leave(), **environment})
    print(done.stdout)
    return done


def test_runner_reports_failures(bench):
    started = time.monotonic()
    done = run_fixtures(bench)
    assert done.returncode == 1
    assert done.stdout.endswith("0 passed, 6 failed, 0 skipped\n")
    for line in ("FAIL bad.warns: vm.Failure: kernel trouble", "FAIL bad.panics: vm.Failure: kernel trouble",
                 "FAIL bad.exit_code: vm.CommandFailed: exit code 3", "FAIL bad.hangs: time limit of 2 s",
                 "FAIL bad.hangs_in_guest: time limit of 20 s", "FAIL bad.skips: skip: for a reason (MAY_SKIP=1 lets it be skipped)"):
        assert line in done.stdout, line
    assert time.monotonic() - started < 60
    done = run_fixtures(bench, "-k", "skips", MAY_SKIP="1")
    assert (done.returncode, done.stdout) == (0, "skip bad.skips: for a reason\n0 passed, 0 failed, 1 skipped\n")

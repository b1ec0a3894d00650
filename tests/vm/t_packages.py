"""The Debian packages in a full guest: installed, upgraded, removed and purged by apt, with I/O on a volume."""

import os
import subprocess

import packages
import vm
from host import BOOT_UNTOUCHED, EACH, STILL_WRITES, VERIFY, WATCH_BOOT, WRITE, Machine, with_few_modules

UNITS = EACH + "for verb in is-enabled is-active; do each $verb svd.service svd.socket svctl-schedule.timer; done\n"

APT = "export DEBIAN_FRONTEND=noninteractive; apt-get -q -y --no-install-recommends -o APT::Sandbox::User=root"
FILES = """getent group svctl svctl-read; dpkg -L svctl | grep -E '/(man8|completions|vendor-completions|vendor_completions.d)/.' > /root/files
for name in svd.8.gz svctl.8.gz completions/svctl _svctl svctl.fish; do grep "/$name$" /root/files; done
while read -r file; do test -s $file; done < /root/files; zcat /usr/share/man/man8/svctl.8.gz | grep "create.*volume"
"""
BROKEN = "9.9.9-broken"
# What is in the kernel is what is on disk.
OWN_MODULE = "test $(cat /sys/module/dm_sv/srcversion) = $(modinfo -F srcversion dm-sv)\n"


class Packages:
    """A guest, and the packages of this version and the next in its /share."""

    def __init__(self, bench, guest, here, after):
        self.bench, self.guest = bench, guest
        for age, debs in (("here", here), ("next", after)):
            for name, path in debs.items():
                guest.put(f"{name}-{age}.deb", open(path, "rb").read())

    def bring_module(self, package, version):
        """What DKMS built elsewhere is there: its scripts take it before they compile."""
        packages.bring_module(self.guest, packages.made_by_dkms(self.bench, package), version)

    def apt(self, words, check=True, timeout=180):
        return self.guest.run(f"{APT} {words} 2>&1", timeout=timeout, check=check)

    def install(self, age, *names, timeout=180):
        return self.apt("install " + " ".join(f"/share/{name}-{age}.deb" for name in names), timeout=timeout)


def expect(text, *parts):
    for part in parts:
        assert part in text, f"not said: {part}\n{text}"


def no_words(text):
    assert "pools will not come up" not in text, text


def version_in(guest):
    return guest.run("dpkg-query -W -f '${Version}' svctl")


def running(guest):
    """srcversion of the module in the kernel, and svd's process."""
    return guest.run("cat /sys/module/dm_sv/srcversion; pidof svd").split()


def only_svd_is_another(before, guest):
    now = running(guest)
    assert before[0] == now[0] and before[1] != now[1], (before, now)
    guest.run("refused " + OWN_MODULE)


def left_behind(guest):
    """What is ours in the guest, but for what this test brought."""
    found = guest.run("find / -xdev \\( -path /share -o -path /usr/share/dm-sv-dkms -o -path /var/log -o -path /root \\) -prune -o "
                      "\\( -iname '*svctl*' -o -name 'svd*' -o -name 'dm-sv*' \\) -print; ls -d /run/svctl || true\n"
                      "find /lib/modules -name 'dm-sv*'; grep -l dm-sv /lib/modules/*/modules.dep || true; dkms status 2>&1 | grep dm-sv || true")
    return [line for line in found.splitlines() if "cannot access" not in line]


def uninstalls_from_the_tree(machine, guest):
    """`make uninstall`, of two kernels' modules and of units that are enabled."""
    machine.install(guest)
    tree = subprocess.run(["tar", "-C", vm.REPO, "-c", "Makefile", "mk"], check=True, stdout=subprocess.PIPE).stdout
    guest.put("tree.tar", tree)
    guest.run("mkdir -p /root/tree /lib/modules/0.0.1/updates; cp /lib/modules/*/updates/dm-sv.ko /lib/modules/0.0.1/updates\n"
              "touch /lib/modules/0.0.1/modules.{order,builtin}; depmod 0.0.1; grep dm-sv /lib/modules/0.0.1/modules.dep\n"
              "tar -C /root/tree -xf /share/tree.tar; make -C /root/tree uninstall", timeout=120)
    assert left_behind(guest) == [], left_behind(guest)
    guest.run("refused pidof svd")


@vm.full
@vm.limit(800)
def test_install_upgrade_remove_and_purge_under_io(bench):
    here, after = packages.build()
    disk = bench.disk("pool", "512M")
    machine = Machine(bench, [disk])
    create = f"svctl create-pool tank --tier t={disk.dev}"
    kernel = with_few_modules(bench)
    with machine.boot(kernel=kernel) as guest:
        p = Packages(bench, guest, here, after)
        release = guest.kernel.release
        guest.run(WATCH_BOOT)

        # Without headers there is no module, and that is said: by the installation, by status, by who needs it.
        said = p.install("here", "svctl", "dm-sv-dkms")
        expect(said, f"pools will not come up with kernel {release}", f"apt install linux-headers-{release}")
        expect(guest.run(UNITS + "svctl status"),
               f"pools will not come up with kernel {release}", f"apt install linux-headers-{release}")
        expect(guest.run(f"before=$(head -c 4M {disk.dev} | sha256sum); ends 8 {create}\n"
                         f"test \"$before\" = \"$(head -c 4M {disk.dev} | sha256sum)\""), f"linux-headers-{release}")

        p.bring_module(here["dm-sv-dkms"], version_in(guest))
        no_words(p.apt("install --reinstall /share/dm-sv-dkms-here.deb"))
        no_words(guest.run("svctl status"))
        print(guest.run(FILES + BOOT_UNTOUCHED))
        guest.run(f"{create}; svctl create-volume tank/a --size 1G; mkfs.ext4 -q /dev/sv/tank/a; mkdir /data\n"
                  "mount /dev/sv/tank/a /data; dd if=/dev/urandom of=/data/file bs=1M count=16 status=none\n"
                  "sha256sum /data/file > /root/sums; sync")
        load = guest.start(WRITE)

        # The module's next version does not build for the kernel that runs: that is said although DKMS has its package fail.
        packages.break_headers(guest, release)
        expect(p.apt("install /share/dm-sv-dkms-next.deb", check=False), f"pools will not come up with kernel {release}", "make.log")
        expect(guest.run("svctl status"), f"pools will not come up with kernel {release}", "[SV-MODULE-MISSING]")
        packages.mend_headers(guest, release)

        # Upgrade: another svd, the same module in the kernel, the next one on disk.
        p.bring_module(after["dm-sv-dkms"], packages.NEXT)
        before = running(guest)
        no_words(p.install("next", "svctl", "dm-sv-dkms"))
        only_svd_is_another(before, guest)
        assert version_in(guest) == packages.NEXT
        guest.run(UNITS + BOOT_UNTOUCHED)
        guest.run(f"svctl create-volume tank/b --size 1G; dkms status | grep 'dm-sv/{packages.NEXT}, {release}.*installed'")

        # A kernel for which it does not build, in dkms's hook and in the whole run.
        with open(packages.broken_kernel(os.path.join(bench.dir, "broken"), BROKEN), "rb") as f:
            guest.put("broken.deb", f.read())
        expect(p.apt("install /share/broken.deb", check=False), f"pools will not come up with kernel {BROKEN}", "make.log")
        expect(guest.run("svctl status; svd --kernels || test $? -eq 8"), f"pools will not come up with kernel {BROKEN}", "[SV-MODULE-MISSING]")
        expect(guest.run(f"/etc/kernel/postinst.d/zz-svctl {BROKEN}"), f"pools will not come up with kernel {BROKEN}")
        guest.run(f"dpkg --purge linux-image-{BROKEN} 2>&1; rm -rf /lib/modules/{BROKEN}", timeout=120)

        # Removal: what is up stays up, and that is said.
        expect(p.apt("purge svctl dm-sv-dkms"), "pools that are up stay up", "nofail")
        guest.run("test ! -e /usr/sbin/svd; refused pidof svd; grep -w ^dm_sv /proc/modules; dmsetup info -c sv-tank-a\n"
                  "refused ls /lib/modules/*/updates/dkms/dm-sv.ko*; mount | grep /data\n" + STILL_WRITES + BOOT_UNTOUCHED, timeout=60)
        p.install("next", "svctl", "dm-sv-dkms")
        guest.run("for i in $(seq 100); do svctl list | grep -q 'tank *active' && break; sleep 0.2; done\n"
                  "svctl list | grep 'tank *active'; touch /run/enough\n" + UNITS, timeout=90)
        load.wait(60)
        guest.run("svctl check tank\n" + VERIFY + "umount /data; fsck.ext4 -fn /dev/sv/tank/a")

    with machine.boot(kernel=kernel) as guest:
        guest.run(UNITS + BOOT_UNTOUCHED + "until mount /dev/sv/tank/a /data; do ((SECONDS < 60)); sleep 0.2; done\n" + OWN_MODULE +
                  f"sha256sum -c /root/sums; svctl check tank; umount /data; dkms status | grep 'dm-sv/{packages.NEXT}, {release}.*installed'", timeout=120)
        no_words(guest.run("svctl status"))
        assert version_in(guest) == packages.NEXT

    # Its key unknown to a kernel that wants signatures (module.sig_enforce=1 stands for Secure Boot).
    with machine.boot(kernel=kernel, cmdline="module.sig_enforce=1") as guest:
        guest.run(f"udevadm settle; svctl scan; head -c 64M {disk.dev} | sha256sum > /root/pool")  # no mount waits for either here
        expect(guest.run(f"ends 8 svctl create-pool other --tier t={disk.dev}"), "Secure Boot", "mokutil --import")
        expect(guest.run("svctl status"), "Secure Boot", "mokutil --import", "[SV-MODULE-REFUSED]")
        expect(guest.run("svctl status -H -o next"), "mokutil --import")
        guest.run(f"head -c 64M {disk.dev} | sha256sum | cmp - /root/pool")
        assert "stay up" not in guest.run(f"{APT} purge svctl dm-sv-dkms 2>&1", timeout=180)
        assert left_behind(guest) == [], left_behind(guest)
        guest.run(f"head -c 64M {disk.dev} | sha256sum | cmp - /root/pool")
        uninstalls_from_the_tree(machine, guest)


TANK = """svctl create-pool tank --tier t={dev}; svctl create-volume tank/a --size 1G; mkfs.ext4 -q /dev/sv/tank/a; mkdir /data
echo '/dev/sv/tank/a /data ext4 defaults 0 0' >> /etc/fstab; systemctl daemon-reload; mount /data
dd if=/dev/urandom of=/data/file bs=1M count=16 conv=fsync status=none; sha256sum /data/file > /root/sums
"""
# svd and module of different age, by what svd asks of the kernel and by starting svd anew; files are written all the while.
OTHERS_SERVE = STILL_WRITES + """svctl create-volume tank/b --size 64M
dd if=/dev/urandom of=/dev/sv/tank/b bs=1M count=8 oflag=direct conv=fsync status=none
sum() { dd if=/dev/sv/tank/$1 bs=1M count=8 iflag=direct status=none | sha256sum; }
svctl create-snapshot tank/b@s tank/a@s; first=$(sum b); dd if=/dev/zero of=/dev/sv/tank/b bs=1M count=4 oflag=direct conv=fsync status=none
svctl activate tank/b@s; test "$(sum b@s)" = "$first"; test "$(sum b)" != "$first"; svctl deactivate tank/b@s
systemctl restart svd; """ + STILL_WRITES + """svctl resize-volume tank/b --size 128M; svctl rollback-volume tank/b@s --yes; test "$(sum b)" = "$first"
for s in a b; do svctl delete-snapshot tank/$s@s --yes; done; svctl delete-volume tank/b --yes
svctl list | grep '^tank *active'; svctl status; test -z "$(svctl status -H)"
journalctl --sync; journalctl _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID svd) -o cat | tee /tmp/log | grep 'catching up'
""" + STILL_WRITES + "touch /run/enough\n"
BOOTED = UNITS + OWN_MODULE + """findmnt /data; sha256sum -c /root/sums; svctl check tank; svctl status; test -z "$(svctl status -H)"
journalctl -b -u svd -o cat > /tmp/log
"""


def changes_svd(p, age, words=""):
    """To that of the other age, under I/O; the module in the kernel stays."""
    before = running(p.guest)
    load = p.guest.start(WRITE)
    no_words(p.apt(f"install {words} /share/svctl-{age}.deb /share/dm-sv-dkms-{age}.deb"))
    only_svd_is_another(before, p.guest)
    print(p.guest.run(OTHERS_SERVE, timeout=150))
    load.wait(60)
    p.guest.run(VERIFY + "svctl check tank; rm /data/more")


@vm.full
@vm.limit(800)
def test_upgraded_and_downgraded_svd_serves_the_others_module_until_the_reboot(bench):
    here, after = packages.build()
    disk = bench.disk("pool", "512M")
    machine, kernel = Machine(bench, [disk]), with_few_modules(bench)
    with machine.boot(kernel=kernel) as guest:
        p = Packages(bench, guest, here, after)
        for debs in (here, after):
            p.bring_module(debs["dm-sv-dkms"], packages.version(debs["svctl"]))
        no_words(p.install("here", "svctl", "dm-sv-dkms"))
        guest.run(TANK.format(dev=disk.dev) + OWN_MODULE, timeout=120)
        first = running(guest)[0]
        changes_svd(p, "next")
        guest.run("grep -x 'next svd, present module: 0' /tmp/log")
    with machine.boot(kernel=kernel) as guest:
        guest.run(BOOTED + "grep -x 'next svd, next module: 42 1' /tmp/log", timeout=120)
        assert running(guest)[0] != first
        changes_svd(Packages(bench, guest, here, after), "here", "--allow-downgrades")
        guest.run("refused grep 'next svd' /tmp/log")
    with machine.boot(kernel=kernel) as guest:
        guest.run(BOOTED + "refused grep 'next svd' /tmp/log", timeout=120)
        assert running(guest)[0] == first


@vm.full
@vm.limit(3600)
def test_dkms_compiles_in_the_guest(bench):
    here, after = packages.build()
    disk = bench.disk("pool", "512M")
    with Machine(bench, [disk]).boot(kernel=with_few_modules(bench), mem="2G") as guest:
        p = Packages(bench, guest, here, after)
        headers = os.path.join(p.guest.share_path(""), "headers.tar")
        subprocess.run(["tar", "-C", guest.kernel.dir, "-cf", headers, "usr/src", "usr/lib"], check=True)
        guest.run("tar -C / --keep-directory-symlink -xf /share/headers.tar", timeout=300)
        no_words(p.install("here", "svctl", "dm-sv-dkms", timeout=2400))
        guest.run(f"dkms status | grep 'dm-sv/.*{guest.kernel.release}.*installed'\n"
                  f"svctl create-pool tank --tier t={disk.dev}; svctl create-volume tank/a --size 1G; svctl check tank")

"""A full guest with the project installed in it as `make install` does: what t_host.py boots."""

import copy
import os
import re
import shutil
import subprocess

import initramfs
import vm
from svctl import check_at_end

STAGE = os.path.join(vm.BUILD, "stage")

# Files on /data, written and compared past the page cache until /run/enough is there; VERIFY then says that they and
# what /root/sums names are on the volume.
WRITE = """while sleep 0.1; ! test -e /run/enough; do head -c 512K /dev/urandom > /run/some
dd if=/run/some of=/data/more bs=64k conv=fsync status=none; dd if=/data/more bs=64k iflag=direct status=none | cmp - /run/some
done
"""
STILL_WRITES = """before=$(sha256sum /run/some); for i in $(seq 100); do test "$(sha256sum /run/some)" != "$before" && break; sleep 0.2; done
test "$(sha256sum /run/some)" != "$before"
"""
VERIFY = "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/sums; cmp /run/some /data/more\n"

# Debian's kernels and packages make an initramfs anew by update-initramfs. These take note, and nothing else.
BOOT = """boot() { find /boot /etc/modules-load.d -type f -printf '%p %s %T@\\n' -exec sha256sum {} +; }
"""
WATCH_BOOT = BOOT + """printf '#!/bin/sh\\necho "$0" >> /root/called\\n' | tee /usr/local/sbin/{update-initramfs,mkinitramfs,dracut} > /dev/null
chmod +x /usr/local/sbin/*; mkdir -p /boot; echo initramfs > /boot/initrd.img-$(uname -r); boot > /root/boot
"""
BOOT_UNTOUCHED = BOOT + "boot | cmp - /root/boot; refused test -e /root/called\n"


# systemctl says yes to several units if one of them is so.
EACH = """each() { local verb=$1 unit; shift; for unit in "$@"; do systemctl $verb $unit; done; }
"""

# What svd answers over HTTP, head and all, whoever asks.
METRICS = """answer() { (exec 3<> /dev/tcp/127.0.0.1/9763; printf 'GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' >&3
  timeout 20 cat <&3); }
"""


def unmounted_before_svd_stopped(guest, unit):
    """At the end of the boot before this one."""
    went = guest.run(f"journalctl -b -1 --no-pager -o cat | grep -nE '^(Unmounted {unit}|Stopped svd.service)'")
    assert went.index(f"Unmounted {unit}") < went.rindex("Stopped svd.service"), went


def stage(kernel):
    """A tree of what make install installs, for the guest's kernel; as a tar file."""
    path = os.path.join(STAGE, kernel.release + ".tar")
    with vm.locked(path + ".lock"):
        tree = os.path.join(STAGE, kernel.release)
        subprocess.run(["rm", "-rf", tree], check=True)
        # Of a make that runs the tests it would inherit flags and a job server.
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
        subprocess.run(["make", "-C", vm.REPO, "install", "DESTDIR=" + tree, "INSTALL_KREL=" + kernel.release],
                       check=True, stdout=subprocess.PIPE, env=environment)
        strip(os.path.join(tree, "usr/sbin"))
        depmod(kernel, tree)
        subprocess.run(["tar", "-C", tree, "-cf", path + ".new", "."], check=True)
        os.rename(path + ".new", path)
    return path


def strip(directory):
    """Our programs, of what is for a debugger: nine tenths of what a guest would read over 9p."""
    subprocess.run(["strip", *(os.path.join(directory, name) for name in ("svd", "svctl"))], check=True)


def depmod(kernel, tree):
    """modules.dep and the like of the guest, which would read all modules over 9p for it: minutes on a busy host."""
    base = tree + ".modules"
    ours, all_of_them = (os.path.join(t, "lib/modules", kernel.release) for t in (tree, base))
    shutil.rmtree(base, ignore_errors=True)
    os.makedirs(os.path.dirname(all_of_them))
    subprocess.run(["cp", "-al", os.path.join(kernel.modules, kernel.release), all_of_them], check=True)
    subprocess.run(["cp", "-a", os.path.join(ours, "updates"), all_of_them], check=True)
    subprocess.run(["depmod", "-b", base, kernel.release], check=True)
    for name in os.listdir(all_of_them):
        if name.startswith("modules."):
            shutil.copy(os.path.join(all_of_them, name), ours)
    shutil.rmtree(base)


def bundle(files, programs):
    """A tar file of programs of this host with their libraries, and of files: for what a full guest's own root is too small."""
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", *programs], check=True, stdout=subprocess.PIPE, text=True).stdout)
    command = ["tar", "-c", "--dereference", "--hard-dereference", "-P", *files, *programs, *sorted(set(libraries))]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def with_few_modules(bench, *names):
    """The bench's kernel with those of its modules that a guest uses, and the named ones. depmod reads each module there is:
    of all of them, minutes under emulation for each step of DKMS."""
    kernel = copy.copy(bench.kernel)
    kernel.initrd(full=True)
    base = os.path.join(bench.dir, "modules")
    kernel.modules = os.path.join(base, "lib/modules")
    source, target = (os.path.join(k.modules, kernel.release) for k in (bench.kernel, kernel))
    wanted = initramfs.load_order(source, [*initramfs.MODULES, "crc32c_generic", "ext4", "dm-mod", "libcrc32c", "loop", *names])
    for path in ["build", "modules.builtin", "modules.builtin.modinfo", "modules.order", *wanted]:
        os.makedirs(os.path.dirname(os.path.join(target, path)), exist_ok=True)
        shutil.copy2(os.path.join(source, path), os.path.join(target, path), follow_symlinks=False)
    subprocess.run(["depmod", "-b", base, kernel.release], check=True)
    return kernel


class Machine:
    """A machine that is booted again and again: a disk for its system, and others for pools."""

    def __init__(self, bench, disks, name="system"):
        self.bench, self.disks = bench, disks
        if not os.path.exists(vm.GUEST_ROOT):
            raise vm.Skip("no root for full guests: mk/guest-root.sh build")
        self.system = bench.disk(name, "2G")
        subprocess.run(["mkfs.ext4", "-q", "-F", self.system.path], check=True)

    def boot(self, **options):
        guest = self.bench.boot([self.system, *self.disks], system=self.system, boot_timeout=180, **options)
        check_at_end(guest)
        guest.run("systemctl is-system-running --wait || systemctl --failed --no-pager", timeout=180, check=False)
        return guest

    def install(self, guest):
        guest.put("stage.tar", open(stage(guest.kernel), "rb").read())
        guest.run("tar -C / --keep-directory-symlink -xf /share/stage.tar; systemctl daemon-reload\n"
                  "udevadm control --reload; mkdir -p /var/log/journal; journalctl --flush", timeout=120)
        guest.run("systemctl enable --now svd; svctl list")

    def make_install(self, guest):
        """The same by `make install` itself, in the guest, of what is built here; what it must leave alone is as it was."""
        built = ["Makefile", "mk", "systemd", "udev", "daemon/api", "docs/monitoring", "build/man", "build/completion",
                 f"build/kmod/{guest.kernel.release}/dm-sv.ko"]
        programs = os.path.join(self.bench.dir, "tree")
        shutil.copytree(os.path.join(vm.BUILD, "bin"), os.path.join(programs, "build/bin"))
        strip(os.path.join(programs, "build/bin"))
        tree = ["tar", "-c", "-C", vm.REPO, *built, "-C", programs, "build/bin"]
        guest.put("tree.tar", subprocess.run(tree, check=True, stdout=subprocess.PIPE).stdout)
        return guest.run(MAKE_INSTALL, timeout=120)


# There is no compiler, and the headers that it would ask for are not used: what it makes first is there already.
MAKE_INSTALL = WATCH_BOOT + """mkdir /root/tree; tar -C /root/tree -xf /share/tree.tar; release=$(uname -r)
refused grep dm-sv /lib/modules/$release/modules.dep; refused modprobe -n dm-sv 2> /dev/null
make -C /root/tree -o daemon -o cli -o man install MAKE='make -o kmod-module' INSTALL_HEADERS=/
grep '^updates/dm-sv.ko:' /lib/modules/$release/modules.dep; modinfo -F alias dm-sv; modprobe -v dm-sv; grep -w ^dm_sv /proc/modules
""" + BOOT_UNTOUCHED + """getent group svctl svctl-read; systemctl enable --now svd; svctl list; systemctl cat svd.socket > /dev/null
"""

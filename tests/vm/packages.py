"""The Debian packages of this tree and of a next version (next.py's, of another ABI), and what DKMS makes of them: what
t_packages.py installs."""

import os
import shutil
import subprocess

import next
import vm

NEXT = "0.9.9"
# Of a make that runs the tests a build would inherit flags and a job server.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}


def run(*words, **options):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, check=False, **options)
    if done.returncode:
        raise vm.Failure(f"{' '.join(words)}\n{done.stdout[-3000:]}")
    return done.stdout


def debs(directory):
    """By package's name: {"svctl": path, "dm-sv-dkms": path}."""
    return {name.split("_")[0]: os.path.join(directory, name) for name in os.listdir(directory)
            if name.endswith(".deb") and "dbgsym" not in name}


def version(package):
    return run("dpkg-deb", "-f", package, "Version").strip()


def set_version(tree, version):
    for name in ("debian/changelog", "mk/debian/changelog"):
        path = os.path.join(tree, name)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"svctl ({version}) unstable; urgency=medium" + text[text.index("\n"):])


def build_next(built, place):
    """From make deb's own tree, whose objects are good but for those that know the version or the ABI."""
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    tree = os.path.join(place, "src")
    run("cp", "-a", os.path.join(built, "src"), tree)
    shutil.rmtree(os.path.join(tree, "debian"))
    shutil.copytree(os.path.join(tree, "mk/debian"), os.path.join(tree, "debian"))
    set_version(tree, NEXT)
    next.mutate(tree)
    run("env", "DEB_BUILD_OPTIONS=noopt noautodbgsym", "DEB_CXXFLAGS_APPEND=-w", "dpkg-buildpackage", "-b", "-nc", "-us", "-uc", "-d", cwd=tree)
    with open(os.path.join(place, "complete"), "w", encoding="ascii"):
        pass


def build():
    """(packages of this tree, packages of the next version)."""
    here, after = os.path.join(vm.BUILD, "deb"), os.path.join(vm.BUILD, "deb-next")
    with vm.locked(after + ".lock"):
        run("make", "-C", vm.REPO, "deb")
        if not vm.is_newer(os.path.join(after, "complete"), os.path.join(here, ".built"), next.__file__):
            build_next(here, after)
    return debs(here), debs(after)


def made_by_dkms(bench, package):
    """The archive of the module that DKMS built of it, for the guests' kernel."""
    with vm.locked(os.path.join(vm.BUILD, "dkms.lock")):
        return run(os.path.join(vm.REPO, "mk/dkms.sh"), vm.BUILD, bench.kver, package).splitlines()[-1]


def bring_module(guest, archive, version):
    """What DKMS built elsewhere is there: its package's scripts take it before they compile."""
    with open(archive, "rb") as f:
        there = guest.put("module.tar.gz", f.read())
    guest.run(f"mkdir -p /usr/share/dm-sv-dkms; cp {there} /usr/share/dm-sv-dkms/dm-sv-{version}.dkms.tar.gz")


# In a kernel's build/: nothing builds for it.
BROKEN_HEADERS = {"include/config/auto.conf": "", ".config": "", "Makefile": "%:\n\t@echo no such kernel; exit 2\n"}


def break_headers(guest, release):
    """Until mend_headers()."""
    build = f"/lib/modules/{release}/build"
    guest.run(f"mv {build} {build}.whole; mkdir -p {build}/include/config\n" +
              "".join(f"printf '{text.replace('%', '%%')}' > {build}/{name}\n" for name, text in BROKEN_HEADERS.items()))


def mend_headers(guest, release):
    guest.run(f"cd /lib/modules/{release}; rm -r build; mv build.whole build")


def broken_kernel(directory, release):
    """A kernel's package, with headers for which nothing builds; its scripts do what Debian's kernels do."""
    modules = os.path.join(directory, "lib/modules", release)
    files = {modules + "/modules.builtin": "", modules + "/modules.order": "", modules + "/modules.dep": "",
             **{f"{modules}/build/{name}": text for name, text in BROKEN_HEADERS.items()},
             directory + "/DEBIAN/control": f"Package: linux-image-{release}\nVersion: 1\nArchitecture: all\n"
                                            "Maintainer: nobody <nobody@localhost>\nDescription: a kernel for a test\n",
             directory + "/DEBIAN/postinst": "#!/bin/sh\nset -e\nrun-parts --report --exit-on-error "
                                             f"--arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/postinst.d\n"}
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    os.chmod(directory + "/DEBIAN/postinst", 0o755)
    run("dpkg-deb", "--root-owner-group", "--build", directory, directory + ".deb")
    return directory + ".deb"


if __name__ == "__main__":
    build()

"""Builds the test guest's initramfs: busybox, the modules that reaching the
host's root takes, and guest/initramfs-init."""

import lzma
import os
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUSYBOX = "/bin/busybox"
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay"]


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def load_order(modules_dir, names):
    """Paths of the named modules and what they depend on, dependencies first.
    A name that modules.dep lacks is built into the kernel."""
    paths, depends = {}, {}
    with open(os.path.join(modules_dir, "modules.dep"), encoding="ascii") as f:
        for line in f:
            path, deps = line.split(":")
            paths[module_name(path)] = path
            depends[path] = deps.split()
    order = []

    def add(path):
        for dep in depends[path]:
            add(dep)
        if path not in order:
            order.append(path)

    for name in names:
        if name.replace("-", "_") in paths:
            add(paths[name.replace("-", "_")])
    return order


def read_module(path):
    """A module's contents, decompressed here: busybox would be slow at it, or unable."""
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dc", path], check=True, stdout=subprocess.PIPE).stdout
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rb") as f:
        return f.read()


def write_file(path, contents, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(contents)
    os.chmod(path, mode)


def fill(tree, modules_dir, modules):
    for source, target in ((BUSYBOX, "bin/busybox"), (os.path.join(HERE, "guest/initramfs-init"), "init")):
        with open(source, "rb") as f:
            write_file(os.path.join(tree, target), f.read(), 0o755)
    names = []
    for path in load_order(modules_dir, modules):
        name = module_name(path) + ".ko"
        names.append(name)
        write_file(os.path.join(tree, "modules", name), read_module(os.path.join(modules_dir, path)))
    write_file(os.path.join(tree, "modules/order"), "".join(n + "\n" for n in names).encode())
    for name in ("dev", "proc", "sys"):
        os.mkdir(os.path.join(tree, name))


def build(modules_dir, output, more_modules=()):
    """Not compressed: the guest would spend longer on that than QEMU on loading it."""
    with tempfile.TemporaryDirectory() as tree:
        fill(tree, modules_dir, [*MODULES, *more_modules])
        names = subprocess.run(["find", ".", "-print0"], cwd=tree, check=True, stdout=subprocess.PIPE).stdout
        with open(output + ".new", "wb") as f:
            subprocess.run(["cpio", "-0", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
                           cwd=tree, check=True, input=names, stdout=f)
    os.rename(output + ".new", output)

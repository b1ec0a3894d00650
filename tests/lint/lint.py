"""What the lints share. Each takes the tree to look at as its argument (default: this one), prints a line for each
fault, and exits 1 if there was one; lints_can_fail.py tries each on a tree that has one."""

import os
import pathlib
import sys


def root():
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()


def tracked(top):
    """The tree's files, as mk/files.sh lists them."""
    found = []
    for directory, names, files in os.walk(top):
        names[:] = [n for n in names if n not in (".git", "__pycache__") and (directory, n) != (str(top), "build")]
        found += [pathlib.Path(directory) / f for f in files if f != ".git" and not f.endswith((".o", ".ko"))]
    return sorted(path for path in found if path.is_file())


def text(path):
    """The file's text, or None if it is not text."""
    data = path.read_bytes()
    return None if b"\0" in data else data.decode("utf-8", "replace")


def finish(faults):
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)

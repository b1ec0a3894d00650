"""What the lints share. Each takes the tree to look at as its argument (default: this one), prints a line for each
fault, and exits 1 if there was one; lints_can_fail.py tries each on a tree that has one."""

import pathlib
import subprocess
import sys


def root():
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()


def tracked(top):
    """Files that git tracks or would; of a tree without git, all."""
    if (top / ".git").exists():
        names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=top, check=True,
                               capture_output=True, text=True).stdout.splitlines()
        return sorted(top / name for name in set(names) if (top / name).is_file())
    return sorted(path for path in top.rglob("*") if path.is_file())


def text(path):
    """The file's text, or None if it is not text."""
    data = path.read_bytes()
    return None if b"\0" in data else data.decode("utf-8", "replace")


def finish(faults):
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)

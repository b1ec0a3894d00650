#!/usr/bin/python3
"""The kernel's checkpatch.pl --strict finds nothing in kmod/. `make lint` fetches it (mk/checkpatch.sh).

Lines go up to 120 columns here, as in the rest of the project, where checkpatch asks for 100."""

import os
import pathlib
import re
import subprocess
import tempfile

import lint

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "build/checkpatch/scripts/checkpatch.pl"

# What is not asked of some files, and why. Nothing else is.
EXCEPT = [
    (r"kmod/(core|uapi)/", ["BIT_MACRO"], "svd includes these headers, and there is no BIT() in user space"),
    (r"kmod/compat\.h", ["LINUX_VERSION_CODE", "CONSTANT_COMPARISON", "NEW_TYPEDEFS"],
     "it is the one file that tells kernels apart, and names what older ones lack"),
    (r"kmod/trace\.h", ["OPEN_ENDED_LINE", "PARENTHESIS_ALIGNMENT"], "TRACE_EVENT() is written so in all the kernel"),
    (r"kmod/core/port_kernel\.h", ["NEW_TYPEDEFS"], "names what core/port.h promises to both sides"),
]
# User space's half of core/port.h: it makes the kernel's names from C's own.
NOT_KERNEL = ("kmod/core/port_user.h", "kmod/core/port_user.c")


def remarks(path, name):
    ignored = ",".join(kind for pattern, kinds, _ in EXCEPT if re.match(pattern, name) for kind in kinds)
    command = ["perl", SCRIPT, "--no-tree", "--strict", "--terse", "--show-types", "--no-summary",
               "--max-line-length=120", "-f", path]
    with tempfile.TemporaryDirectory() as directory:  # it leaves a file where it runs
        done = subprocess.run(command + (["--ignore", ignored] if ignored else []), cwd=directory,
                              capture_output=True, text=True)
    found = [name + line.removeprefix(str(path)) for line in done.stdout.splitlines() if line.startswith(f"{path}:")]
    if done.returncode and not found:
        found = [f"{name}: checkpatch failed: {done.stdout}{done.stderr}"]
    return found


def main():
    top = lint.root()
    if not SCRIPT.exists():
        print("checkpatch.pl is not there: make lint fetches it")
        raise SystemExit(77)
    faults = []
    for path in lint.tracked(top):
        name = os.path.relpath(path, top)
        if name.startswith("kmod/") and path.suffix in (".c", ".h") and name not in NOT_KERNEL:
            faults += remarks(path, name)
    lint.finish(faults)


main()

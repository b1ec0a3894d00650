"""What svd says to do next, as somebody would type it: each word that is a command is one that there is, and svctl takes what it
is given. svctl parses the whole line before it looks for svd: where none answers, 20 says that it has understood."""

import functools
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SVCTL = os.path.join(os.environ.get("BIN_DIR", os.path.join(ROOT, "build", "bin")), "svctl")
# Of Debian's packages; not all of them need be installed where this runs.
OTHERS = {"apt", "df", "dkms", "dmsetup", "findmnt", "journalctl", "ls", "lsblk", "modprobe", "mokutil", "ps", "smartctl", "ss", "systemctl",
          "wipefs"}
ENDS = re.compile(r"[;,:()']|\.(?: |$)|\b(?:or|and|then|first|if|says|writes)\b")


@functools.lru_cache(None)
def understood(words):
    done = subprocess.run([SVCTL, "--socket", "/nowhere", "--timeout", "1", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    return done.returncode in (0, 20), done.stderr


def commands(text):
    """Those of svctl in it."""
    return [tuple(ENDS.split(rest)[0].split()) for rest in re.split(r"\bsvctl(?= [a-z-])", text)[1:]]


def check(text):
    typed = commands(text)
    assert typed or OTHERS & set(re.findall(r"[a-z]+", text)), f"no command is in {text!r}"
    for words in typed:
        fine, said = understood(words)
        assert fine, f"svctl {' '.join(words)}, of {text!r}: {said}"

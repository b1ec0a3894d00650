"""Prints an apt sources entry for bookworm-backports (or the suite named), derived
from the entry that this machine has for bookworm, so that no archive's address
is fixed here."""
import glob
import re
import sys


def deb822_entries(text):
    """The stanzas of a .sources file as dictionaries."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = {}
        key = None
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        yield fields


def one_line_entries(text):
    """The `deb` lines of a .list file, in the same shape."""
    for line in text.splitlines():
        m = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if m:
            options = dict(o.split("=", 1) for o in (m[1] or "").split() if "=" in o)
            entry = {"types": "deb", "uris": m[2], "suites": m[3]}
            if "signed-by" in options:
                entry["signed-by"] = options["signed-by"]
            yield entry


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def entries():
    for path in sorted(glob.glob("/etc/apt/sources.list.d/*.sources")):
        yield from deb822_entries(read(path))
    for path in ["/etc/apt/sources.list"] + sorted(glob.glob("/etc/apt/sources.list.d/*.list")):
        try:
            yield from one_line_entries(read(path))
        except FileNotFoundError:
            pass


def main():
    for entry in entries():
        if "bookworm" in entry.get("suites", "").split() and "deb" in entry.get("types", "").split():
            print("Types: deb")
            print("URIs: " + entry["uris"])
            print("Suites: " + (sys.argv[1:] or ["bookworm-backports"])[0])
            print("Components: main")
            if "signed-by" in entry:
                print("Signed-By: " + entry["signed-by"])
            return 0
    print("no apt source for bookworm found", file=sys.stderr)
    return 1


sys.exit(main())

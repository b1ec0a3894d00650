#!/usr/bin/python3
"""The version has one source, mk/debian/changelog. svd is told it by the build; the module, which DKMS builds from
kmod/ alone, names it itself: the two must agree."""

import re

import lint

CHANGELOG, MODULE = "mk/debian/changelog", "kmod/main.c"


def find(top, path, pattern):
    match = re.search(pattern, lint.text(top / path), re.M)
    return match[1] if match else None


def main():
    top = lint.root()
    wanted = find(top, CHANGELOG, r"\A[\w+.-]+ \(([^()]+)\)")
    module = find(top, MODULE, r'^MODULE_VERSION\("([^"]+)"\);')
    lint.finish([] if wanted and module == wanted else
                [f"{MODULE}: it says version {module}, {CHANGELOG} says {wanted}"])


main()

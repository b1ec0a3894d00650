#!/usr/bin/python3
"""No tracked file names a place of one developer's machine."""

import os
import re

import lint

# In pieces, so that this file does not name them.
PLACES = re.compile(r"(?<![\w.$}/-])/(?:" + "|".join(("work", "home", "Users")) + r")/[\w.-]+")


def main():
    top = lint.root()
    faults = []
    for path in lint.tracked(top):
        for number, line in enumerate((lint.text(path) or "").splitlines(), 1):
            for place in PLACES.findall(line):
                faults.append(f"{os.path.relpath(path, top)}:{number}: machine path {place}")
    lint.finish(faults)


main()

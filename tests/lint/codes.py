#!/usr/bin/python3
"""Each code of daemon/base/codes.cc is used somewhere in daemon/ or cli/, has a title, an explanation and a remedy, is
one of its kind, and a test names it, as SV-CODE or as Id::kCode; no source and no document names a code that is not there.
Nobody logs but by log::error() and so on. That these two are given a code, and that the table has all of the enum,
the compiler sees to."""

import os
import re

import lint

TABLE = "daemon/base/codes.cc"
ROW = re.compile(r'\{Id::(k\w+), "([^"]*)", Severity::k\w+,((?:\s*"(?:\\.|[^"\\])*",?)+)\s*\}')
USE = re.compile(r"\bId::(k\w+)")
NAMED = re.compile(r"(?<![\w-])SV-[A-Z]+(?:-[A-Z]+)*(?![\w<-])")
NOT_CODES = {"SV-POOL"}  # sv- names of device-mapper in capitals


def texts(row):
    """The row's strings, with what the compiler joins joined."""
    parts = re.findall(r'((?:"(?:\\.|[^"\\])*"\s*)+),?', row)
    return ["".join(re.findall(r'"((?:\\.|[^"\\])*)"', part)) for part in parts]


def sources(top):
    for path in lint.tracked(top):
        name = os.path.relpath(path, top)
        if name.startswith(("daemon/", "cli/", "docs/")) or name == "README.md":
            yield name, lint.text(path) or ""


def tests(top):
    """All that tests say. tests/lint, and what was written down by machines, are no tests."""
    for path in lint.tracked(top / "tests"):
        name = os.path.relpath(path, top)
        if not name.startswith(("tests/lint/", "tests/e2e/help/")):
            yield lint.text(path) or ""


def main():
    top = lint.root()
    rows = ROW.findall(lint.text(top / TABLE))
    codes = [code for _, code, _ in rows]
    files = dict(sources(top))
    tried = "\n".join(tests(top))
    tried_codes, tried_ids = set(NAMED.findall(tried)), set(USE.findall(tried))
    faults = [] if rows else [f"{TABLE}: no code was found"]
    for ident, code, row in rows:
        found = texts(row)
        if len(found) != 3 or min(map(len, found)) < 5:
            faults.append(f"{TABLE}: {code} lacks a title, an explanation or a remedy")
        if not re.fullmatch(r"SV(-[A-Z]+)+", code) or codes.count(code) > 1:
            faults.append(f"{TABLE}: {code} is malformed, or there twice")
        if not any(ident in USE.findall(text) for name, text in files.items()
                   if not name.startswith("daemon/base/codes.")):
            faults.append(f"{TABLE}: nothing uses {code}")
        if code not in tried_codes and ident not in tried_ids:
            faults.append(f"tests: none names {code}")
    for name, text in files.items():
        for code in sorted(set(NAMED.findall(text)) - set(codes) - NOT_CODES):
            faults.append(f"{name}: {code} is no code")
        if "log::write(" in text:
            faults.append(f"{name}: log::write() takes warnings and errors without a code, too: log::warning() and log::error() do not")
    lint.finish(faults)


main()

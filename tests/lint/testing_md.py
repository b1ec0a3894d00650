#!/usr/bin/python3
"""docs/testing.md has a table with a row for each kind of bad input (tests/lint/bad_inputs.txt, first column), whose
last column names in backticks the tests that try it: Suite.name of GoogleTest, file.name of a test_name() in
tests/vm/t_file.py, e2e.name of one in tests/e2e, or a file below tests/. Each must exist and not be skipped.
A phrase may instead be a bullet of the section "Not tried yet": then this lint is skipped, not passed, and names it."""

import re

import lint

SKIPS = re.compile(r"\bGTEST_SKIP\b|\braise\s+(?:vm\.)?Skip\b|\bpytest\.skip\b|\bexit\s+77\b|\bskipTest\b")
GTEST = re.compile(r"\bTEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)")
PYTEST = re.compile(r"^def test_(\w+)\(", re.M)


def pieces(pattern, text):
    """(match, text up to the next match)"""
    found = list(pattern.finditer(text))
    ends = [m.start() for m in found[1:]] + [len(text)]
    return [(m, text[m.start():end]) for m, end in zip(found, ends)]


def known_tests(top):
    """name: its source"""
    tests = {}
    for path in lint.tracked(top / "tests") if not (top / ".git").exists() else lint.tracked(top):
        if top / "tests" not in path.parents:
            continue
        source = lint.text(path) or ""
        tests[str(path.relative_to(top))] = source
        if path.suffix == ".cc":
            tests.update({f"{m.group(1)}.{m.group(2)}": code for m, code in pieces(GTEST, source)})
        if path.suffix == ".py":
            stem = "e2e" if path.parent.name == "e2e" else path.stem.removeprefix("t_")
            tests.update({f"{stem}.{m.group(1)}": code for m, code in pieces(PYTEST, source)})
    return tests


def rows(text):
    """First column, last column of every table row."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.strip().startswith("|") and len(cells) > 1 and not set(cells[0]) <= set(":- "):
            yield cells[0].replace("`", ""), cells[-1]


def check_row(what, cell, tests):
    names = re.findall(r"`([^`]+)`", cell)
    if not names:
        yield f"docs/testing.md: {what}: names no test in backticks"
    for name in names:
        if name not in tests:
            yield f"docs/testing.md: {what}: there is no test {name}"
        elif "DISABLED_" in name or SKIPS.search(tests[name]):
            yield f"docs/testing.md: {what}: test {name} is skipped"


def main():
    top = lint.root()
    doc = top / "docs/testing.md"
    if not doc.is_file():
        print("docs/testing.md is not written yet")
        raise SystemExit(77)
    table = dict(rows(doc.read_text()))
    tests = known_tests(top)
    faults, untried = [], []
    admitted = doc.read_text().partition("## Not tried yet")[2]
    for what in (top / "tests/lint/bad_inputs.txt").read_text().splitlines():
        if what in table:
            faults += check_row(what, table[what], tests)
        elif f"\n- {what}:" in admitted:
            untried.append(what)
        else:
            faults.append(f"docs/testing.md: no row for: {what}")
    if untried and not faults:
        print("not tried yet: " + ", ".join(untried))
        raise SystemExit(77)
    lint.finish(faults)


main()

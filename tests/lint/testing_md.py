#!/usr/bin/python3
"""docs/testing.md has a table with a row for each kind of bad input (tests/lint/bad_inputs.txt, first column), whose
last column names in backticks the tests that try it: Suite.name of GoogleTest, file.name of a test_name() in
tests/vm/t_file.py, e2e.name of one in tests/e2e, or a file below tests/. Each must exist and not be skipped; the
row of one that `make check` does not run (@vm.debug, @vm.full) must name the suite that does, as check-debug.
The column before says "yes" if the tests that run svd compare `svctl dump` before and after: each of them must, and
there must be one. "no: why" is believed, and so is "yes; `file.name` compares its files" of that test: another must
compare the dump.
A phrase may instead be a bullet of the section "Not tried yet": then this lint is skipped, not passed, and names it."""

import ast
import re

import lint

SKIPS = re.compile(r"\bGTEST_SKIP\b|\braise\s+(?:\w+\.)*Skip\b|\bpytest\.skip\b|\bexit\s+77\b|\bskipTest\b")
GTEST = re.compile(r"\bTEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)")
SUITES = re.compile(r"^@vm\.(debug|full)$", re.M)
# What has svd in it, and how its tests compare: Host.unchanged() of tests/e2e/harness.py, or by hand.
RUNS_SVD = ("abi.", "crash.", "debug.svctl", "e2e.", "edges.", "environment.", "host.", "import.", "interfaces.", "members.", "packages.",
            "service.", "snapshots.", "stacks.", "svctl.", "trouble.")
BUT = re.compile(r"yes; (`[^`]+`(?:,? (?:and )?`[^`]+`)*) compares? \S.*")
COMPARES = re.compile(r"host\.unchanged\(|host\.dump\(\) == dump|\bdump\(\) == before|\bcmp (/\S+)/before \1/after\b")


def pieces(pattern, text):
    """(match, text up to the next match)"""
    found = list(pattern.finditer(text))
    ends = [m.start() for m in found[1:]] + [len(text)]
    return [(m, text[m.start():end]) for m, end in zip(found, ends)]


def segment(source, node):
    """With its decorators."""
    first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
    return "\n".join(source.splitlines()[first - 1:node.end_lineno])


def python_tests(source):
    """Name: source of a test_name(), and of what it uses of its file."""
    parts = {}
    for node in ast.parse(source).body:
        targets = [node] if hasattr(node, "name") else getattr(node, "targets", [])
        names = (getattr(target, "name", getattr(target, "id", None)) for target in targets)
        parts.update({name: node for name in names if name})

    def uses(name, seen):
        seen.add(name)
        for node in ast.walk(parts[name]):
            if isinstance(node, ast.Name) and node.id in parts and node.id not in seen:
                uses(node.id, seen)
        return seen

    return {name[5:]: "\n".join(segment(source, parts[used]) for used in sorted(uses(name, set())))
            for name in parts if name.startswith("test_")}


def known_tests(top):
    """name: its source"""
    tests = {}
    for path in lint.tracked(top / "tests"):
        source = lint.text(path) or ""
        tests[str(path.relative_to(top))] = source
        if path.suffix == ".cc":
            tests.update({f"{m.group(1)}.{m.group(2)}": code for m, code in pieces(GTEST, source)})
        if path.suffix == ".py":
            stem = "e2e" if path.parent.name == "e2e" else path.stem.removeprefix("t_")
            tests.update({f"{stem}.{name}": code for name, code in python_tests(source).items()})
    return tests


def rows(text):
    """First column, last two columns of every table row."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.strip().startswith("|") and len(cells) > 1 and not set(cells[0]) <= set(":- "):
            yield cells[0].replace("`", ""), cells[-2:]


def check_dump(what, compared, names, tests):
    if compared.startswith("no: "):
        return
    but = BUT.fullmatch(compared)
    if compared != "yes" and not but:
        yield f"docs/testing.md: {what}: dump compared: must be \"yes\" or \"no: why\", not \"{compared}\""
    excused = re.findall(r"`([^`]+)`", but[1]) if but else []
    yield from [f"docs/testing.md: {what}: {name} is excused, and none of its tests" for name in excused if name not in names]
    with_svd = [name for name in names if name.startswith(RUNS_SVD) and name not in excused]
    if not with_svd:
        yield f"docs/testing.md: {what}: none of its tests runs svd, so none compares svctl dump"
    for name in with_svd:
        if not COMPARES.search(tests.get(name, "")):
            yield f"docs/testing.md: {what}: {name} does not compare svctl dump before and after"


def check_row(what, compared, cell, tests):
    names = re.findall(r"`([^`]+)`", cell)
    if not names:
        yield f"docs/testing.md: {what}: names no test in backticks"
    yield from check_dump(what, compared, names, tests)
    for name in names:
        if name not in tests:
            yield f"docs/testing.md: {what}: there is no test {name}"
        elif "DISABLED_" in name or SKIPS.search(tests[name]):
            yield f"docs/testing.md: {what}: test {name} is skipped"
        else:
            yield from [f"docs/testing.md: {what}: {name} runs in check-{suite} only, and the row does not say so"
                        for suite in SUITES.findall(tests[name]) if f"check-{suite}" not in cell]


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
            faults += check_row(what, *table[what], tests)
        elif f"\n- {what}:" in admitted:
            untried.append(what)
        else:
            faults.append(f"docs/testing.md: no row for: {what}")
    if untried and not faults:
        print("not tried yet: " + ", ".join(untried))
        raise SystemExit(77)
    lint.finish(faults)


main()

#!/usr/bin/python3
"""The man pages (make man) name each command and option that --help names, and nothing that it does not; groff takes
them without a warning; docs/commands.md names each command and option, too."""

import os
import re
import subprocess
import sys

import lint

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True)


def commands(text):
    """The names below "Commands:" of a help text, and the nouns that follow."""
    return re.findall(r"^  ([a-z][a-z-]*)  ", text.partition("\nCommands:")[2], re.M)


def options(text):
    return set(OPTION.findall(text)) - {"--help"}


def rendered(page):
    done = run("groff", "-t", "-man", "-Tascii", "-P-cbou", "-rLL=200n", "-ww", page)
    yield from (f"{page}: {line}" for line in done.stderr.splitlines())
    return done.stdout


def section(text, name):
    """The lines of a section, to the next heading at the left margin."""
    return re.search(rf"^{name}\n(.*?)(?=^\S|\Z)", text, re.M | re.S)[1]


def check_options(where, page, known):
    for option in sorted(known - options(page)):
        yield f"{where}: {option} is missing"
    for option in sorted(options(page) - known):
        yield f"{where}: {option} is no option"


def descriptions(text):
    """What a help text says of each option: behind two blanks, or on the lines below it."""
    listed = text.partition("\nOptions:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n(?=  -)", listed):
        option, _, said = re.sub(r"\n +", "  ", entry.strip()).partition("  ")
        yield option.split()[0], " ".join(said.split())


def check_descriptions(where, page, text):
    words = " ".join(page.split())
    for option, said in descriptions(text):
        if not option.startswith("-h") and said not in words:
            yield f"{where}: {option} is not told as --help does: {said}"


def check_commands(program, page):
    """Each command's part of the page, between its heading and the next, has its options and no others."""
    names = commands(run(program, "--help").stdout)
    headings = {m[1]: m.start() for m in re.finditer(r"^   ([a-z][a-z-]*)\b", page, re.M)}
    for name in sorted(set(names) ^ set(headings)):
        yield f"svctl(8): {name} is {'missing' if name in names else 'no command'}"
    ends = sorted(headings.values()) + [len(page)]
    for name in set(names) & set(headings):
        part = page[headings[name]:ends[ends.index(headings[name]) + 1]]
        text = run(program, name, "--help").stdout
        yield from check_options(f"svctl(8), {name}", part, options(text))
        for line in re.findall(r"^(?:Also:|  svctl) .*$", text, re.M):
            if line.strip() not in part:
                yield f"svctl(8), {name}: has no line {line.strip()}"


def check_markdown(top, program):
    text = lint.text(top / "docs/commands.md")
    known = options(run(program, "--help").stdout)
    for name in commands(run(program, "--help").stdout):
        known |= options(run(program, name, "--help").stdout)
        if not re.search(rf"^    (?:.*, )?{name}\b", text, re.M):
            yield f"docs/commands.md: {name} is missing"
    known -= {option for option in known if option in text}
    for option in sorted(known):
        yield f"docs/commands.md: {option} is missing"


def main():
    top = lint.root()
    build = top / "build"
    if not (build / "man/svctl.8").exists():
        print("no man pages: make man")
        sys.exit(77)
    faults = []
    for name in ("svctl", "svd"):
        program = os.fspath(build / "bin" / name)
        page = yield_all(rendered(os.fspath(build / "man" / f"{name}.8")), faults)
        text = run(program, "--help").stdout
        faults += check_options(f"{name}(8)", section(page, "OPTIONS"), options(text))
        faults += check_descriptions(f"{name}(8)", section(page, "OPTIONS"), text)
        if name == "svctl":
            faults += check_commands(program, section(page, "COMMANDS"))
            faults += check_markdown(top, program)
    lint.finish(faults)


def yield_all(generator, faults):
    """What the generator returns; what it yields are faults."""
    while True:
        try:
            faults.append(next(generator))
        except StopIteration as end:
            return end.value


main()

#!/usr/bin/python3
"""Each lint is tried on a copy of what it looks at: it passes there, and fails once the copy has the fault."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import lint

HERE = pathlib.Path(__file__).parent
TOP = HERE.parent.parent
SIM = "daemon/kernel/sim_kernel.cc"
DOC = "docs/format.md"
OF_HOSTS = "pool of another host"
TESTING = "| bad input | dump compared | test |\n|---|---|---|\n" + "".join(
    f"| {what} | {'yes; `import.e` compares its files' if what == OF_HOSTS else 'yes'} | "
    f"{'check-debug: `debug.b`' if what.startswith('allocation') else '`A.b`'} `e2e.c`"
    f"{' `import.d` `import.e`' if what == OF_HOSTS else ''} |\n"
    for what in (HERE / "bad_inputs.txt").read_text().splitlines())
GOOD_TEST = "TEST(A, b) { EXPECT_TRUE(true); }\n"
GOOD_E2E = "def body(host):\n    with host.unchanged():\n        pass\n\n\ndef test_c(host):\n    body(host)\n"
IMPORT_TEST = 'def test_d(guest):\n    guest.run("cmp /tmp/before /tmp/after")\n\n\ndef test_e(_):\n    pass\n'
DEBUG_TEST = "@vm.debug\n@vm.limit(9)\ndef test_b(bench):\n    pass\n"

# lint, file, its content from the content it has (None: has none)
FAULTS = [
    ("layering.py", "kmod/core/label.c", lambda old: old + '#include "../sv.h"\n'),
    ("layering.py", "kmod/core/label.c", lambda old: old + "#include <stdio.h>\n"),
    ("layering.py", "kmod/uapi/sv.h", lambda old: old + '#include "../core/format.h"\n'),
    ("layering.py", "daemon/base/units.h", lambda old: old + '#include "kmod/core/format.h"\n'),
    ("layering.py", "daemon/kernel/extra.h", lambda old: '#include "daemon/engine/pool.h"\n'),
    ("layering.py", "daemon/engine/pool.h", lambda old: old + '#include "daemon/api/varlink.h"\n'),
    ("layering.py", "daemon/engine/pool.h", lambda old: old + '#include "kmod/core/internal.h"\n'),
    ("layering.py", "cli/print.h", lambda old: old + '#include "daemon/engine/pool.h"\n'),
    ("layering.py", "daemon/news/x.h", lambda old: "\n"),
    ("sim_has_no_logic.py", SIM, lambda old: None),
    ("sim_has_no_logic.py", SIM, lambda old: old + "struct SlotBitmap { int x; };\n"),
    ("sim_has_no_logic.py", SIM, lambda old: old + "class Journal { int x; };\n"),
    ("sim_has_no_logic.py", SIM, lambda old: old + "int allocate_slot(int n) { return n; }\n"),
    ("sim_has_no_logic.py", SIM, lambda old: old + "int commit_all() { return 1; }\n"),
    ("sim_has_no_logic.py", SIM, lambda old: old + "int x = sv_rec_size(1);\n"),
    ("sim_has_no_logic.py", SIM, lambda old: old + '#include "kmod/core/internal.h"\n'),
    ("sim_has_no_logic.py", SIM, lambda old: old.replace("sv_plan_read(", "my_read(")),
    ("sim_has_no_logic.py", SIM, lambda old: old + "int x;\n" * 700),
    ("sim_has_no_logic.py", SIM, lambda old: old + "int f() {" + "\n1;" * 60 + "}\n"),
    ("codes.py", "daemon/base/codes.cc", lambda old: old.replace('"svctl activate POOL."', '""')),
    ("codes.py", "daemon/base/codes.cc", lambda old: old.replace('"SV-POOL-FULL"', '"SV-POOL-EMPTY"')),
    ("codes.py", "daemon/base/codes.cc", lambda old: old.replace('"SV-POOL-FULL"', '"SV-POOL-FAILED"')),
    ("codes.py", "daemon/engine/problems.cc", lambda old: old.replace("Id::kDataUnreadable", "Id::kPoolFull")),
    ("codes.py", "docs/commands.md", lambda old: old + "\nSV-NO-SUCH-CODE\n"),
    ("codes.py", "daemon/engine/job.cc", lambda old: old + 'void f() { log::write(log::Level::kError, "x"); }\n'),
    ("codes.py", "tests/e2e/cases_pool.py", lambda old: old.replace("SV-LABEL-LEFT", "")),
    ("no_paths.py", "docs/x.md", lambda old: "see /" + "home/me/notes\n"),
    ("no_paths.py", "docs/x.md", lambda old: "see '/" + "work/me'\n"),
    ("no_git.py", "mk/deb.sh", lambda old: old.replace("mk/files.sh", "git ls-files")),
    ("no_git.py", "tests/vm/x.py", lambda old: 'run(["git", "ls-files"])\n'),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("`A.b`", "`A.c`", 1)),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("`A.b` `e2e.c`", "A.b", 1)),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace(" `e2e.c`", "", 1)),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("| yes |", "| no |", 1)),
    ("testing_md.py", "tests/e2e/cases_a.py", lambda old: old.replace("host.unchanged()", "host.other()")),
    ("testing_md.py", "tests/e2e/cases_a.py", lambda old: old.replace("    body(host)\n", "    pass\n")),
    ("testing_md.py", "tests/e2e/cases_a.py", lambda old: old.replace("        pass\n", "        raise harness.Skip('why')\n")),
    ("testing_md.py", "tests/vm/t_import.py", lambda old: old.replace("cmp ", "cat ")),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("yes; `import.e` compares its files", "yes")),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("yes; `import.e` compares its files", "yes; but")),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace(" `import.e` |", " |")),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("yes; `import.e` compares", "yes; `e2e.c`, `import.d` and `import.e` compare")),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("| tiny device", "| small device")),
    ("testing_md.py", "tests/unit/test_a.cc", lambda old: "TEST(A, b) { GTEST_SKIP(); }\n"),
    ("testing_md.py", "tests/unit/test_a.cc", lambda old: "TEST(A, DISABLED_b) { }\n"),
    ("checkpatch.py", "kmod/core/label.c", lambda old: old + "int x=1;\n"),
    ("checkpatch.py", "kmod/member.c", lambda old: old + "#define X (1 << 3)\nint y;  \n"),
    ("testing_md.py", "docs/testing.md", lambda old: old.replace("check-debug: ", "")),
    ("testing_md.py", "tests/vm/t_debug.py", lambda old: old.replace("@vm.debug", "@vm.full")),
    ("version.py", "kmod/main.c", lambda old: old.replace('MODULE_VERSION("', 'MODULE_VERSION("9.')),
    ("version.py", "mk/debian/changelog", lambda old: old.replace("svctl (", "svctl (9.")),
    ("next_version.py", "kmod/core/cmd.c", lambda old: old.replace("y->commit_ms < ", "y->commit_ms + 1 <= ")),
    ("mutations.py", "kmod/core/frag.c", lambda old: old.replace("if (!(frags & run << i))", "if ((frags & run << i) == 0)")),
    ("mutations.py", "tests/model/caught", lambda old: old.replace("places_given_twice ", "places_given_once ")),
    ("format_md.py", DOC, lambda old: old.replace("| 144 | 8 |", "| 140 | 8 |")),
    ("format_md.py", DOC, lambda old: old.replace("| 152 | 8 | `size`", "| 152 | 4 | `size`")),
    ("format_md.py", DOC, lambda old: old.replace("| 296 | 3800 | `reserved` | |\n", "")),
    ("format_md.py", DOC, lambda old: old.replace("| `SV_REC_MAP` | 1 |", "| `SV_REC_MAP` | 2 |")),
    ("format_md.py", "kmod/core/format.h", lambda old: old.replace("__le32\tparent;\t", "__le32\tother;\t")),
]


MAN = "build/man/svctl.8"
if (TOP / MAN).exists():
    FAULTS += [
        ("man_pages.py", MAN, lambda old: old.replace(r"rename\-volume", r"name\-volume")),
        ("man_pages.py", MAN, lambda old: old.replace(r"\-\-dry\-run", r"\-\-try\-run", 1)),
        ("man_pages.py", MAN, lambda old: old.replace(r"[\fB\-\-missing\fR]", "").replace(r"\fB\-\-missing\fR", "")),
        ("man_pages.py", MAN, lambda old: old + ".XX\n"),
        ("man_pages.py", MAN, lambda old: old.replace("Also: pool create", "Also: pool make")),
        ("man_pages.py", "build/man/svd.8", lambda old: old.replace(r"\fB\-\-sim\fR", "")),
        ("man_pages.py", "build/man/svd.8", lambda old: old.replace("no root needed", "root needed")),
        ("man_pages.py", "docs/commands.md", lambda old: old.replace("rename-volume", "name-volume")),
        ("man_pages.py", "docs/commands.md", lambda old: old.replace("--dry-run", "--try-run")),
    ]


def make_tree(top, name):
    if name == "testing_md.py":
        files = {"docs/testing.md": TESTING, "tests/unit/test_a.cc": GOOD_TEST, "tests/e2e/cases_a.py": GOOD_E2E,
                 "tests/vm/t_debug.py": DEBUG_TEST, "tests/vm/t_import.py": IMPORT_TEST,
                 "tests/lint/bad_inputs.txt": (HERE / "bad_inputs.txt").read_text()}
        for where, content in files.items():
            (top / where).parent.mkdir(parents=True, exist_ok=True)
            (top / where).write_text(content)
        return
    if name == "checkpatch.py":  # which is slow
        for where in ("kmod/core/label.c", "kmod/member.c"):
            (top / where).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / where, top / where)
        return
    if name == "man_pages.py":
        shutil.copytree(TOP / "build/man", top / "build/man")
        (top / "build/bin").symlink_to(TOP / "build/bin")
    for part in ("kmod", "daemon", "cli", "docs", "mk", *["tests"] * (name in ("codes.py", "mutations.py"))):
        shutil.copytree(TOP / part, top / part)


def passes(name, top):
    code = subprocess.run([sys.executable, HERE / name, top], capture_output=True).returncode
    if code == 77 and name == "checkpatch.py":
        raise SystemExit("checkpatch.pl is not there: make lint fetches it")
    return code == 0


def try_one(name, where, change):
    with tempfile.TemporaryDirectory() as directory:
        top = pathlib.Path(directory)
        make_tree(top, name)
        if not passes(name, top):
            return f"{name}: fails on the tree as it is"
        path = top / where
        old = path.read_text() if path.exists() else ""
        new = change(old)
        if new == old:
            return f"{name}: {where} has changed: its fault cannot be put in any more"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if new is not None:
            path.write_text(new)
        return f"{name}: passes in spite of a fault in {where}: {new and new[-80:]!r}" if passes(name, top) else None


def main():
    lint.finish([fault for fault in (try_one(*case) for case in FAULTS) if fault])


main()

#!/usr/bin/python3
"""Nothing that builds, installs or tests runs git: a bare machine has none, and git refuses a tree of another user's."""

import re

import lint

RUNS_GIT = re.compile(r"""(?:^|[\s(|;&"'`])git["']?[,\s]+["']?(?:-C|ls-files|rev-parse|describe|log|status|diff|archive|show)\b""")


def main():
    top = lint.root()
    lint.finish([f"{path.relative_to(top)}:{number}: runs git"
                 for path in lint.tracked(top) if path.suffix != ".md"
                 for number, line in enumerate((lint.text(path) or "").splitlines(), 1)
                 if RUNS_GIT.search(line) and path.name not in ("no_git.py", "lints_can_fail.py")])


main()

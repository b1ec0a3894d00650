#!/usr/bin/python3
"""What tests/vm/next.py makes a next version of svd and module from still applies to the sources: the guests that build it are
in check-full only."""

import ast
import pathlib

import lint

NEXT = pathlib.Path(__file__).resolve().parent.parent / "vm/next.py"


def mutations():
    for node in ast.parse(NEXT.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "MUTATIONS":
            return ast.literal_eval(node.value)
    raise ValueError(f"{NEXT}: no MUTATIONS")


def main():
    top = lint.root()
    lint.finish([f"tests/vm/next.py: {path}: not there once: {text!r}" for path, text, _ in mutations()
                 if lint.text(top / path).count(text) != 1])


main()

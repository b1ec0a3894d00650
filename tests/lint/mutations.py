#!/usr/bin/python3
"""Each mutation of tests/model/run applies to the code as it is, and tests/model/caught names the test that catches it: what
the run itself says only after minutes."""

import importlib.machinery
import importlib.util

import lint


def load(path):
    loader = importlib.machinery.SourceFileLoader("model", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("model", loader))
    loader.exec_module(module)
    return module


def main():
    top = lint.root()
    model, faults = load(top / "tests/model/run"), []
    caught = model.read_caught()
    for name, file, *changes, _ in model.ALL:
        if model.mutated(lint.text(top / "kmod/core" / file), *changes) is None:
            faults.append(f"tests/model/run: {name} does not apply to kmod/core/{file} any more")
        if not caught.get(name):
            faults.append(f"tests/model/caught: no test catches {name}")
    lint.finish(faults)


main()

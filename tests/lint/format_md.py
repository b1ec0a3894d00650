#!/usr/bin/python3
"""docs/format.md is true to the headers. Under a heading that names a struct in backticks, each row

    | offset | size | `field` | ... |

must agree with offsetof and sizeof, every field must have its row, and rows must be in order. A row

    | `SV_CONSTANT` | value | ... |

must agree with the constant. The compiler decides: rows become static assertions."""

import pathlib
import re
import subprocess
import tempfile

import lint

HEADING = re.compile(r"^#+ .*`struct (\w+)`")
ANY_HEADING = re.compile(r"^#+ ")
FIELD = re.compile(r"^\|\s*(\d+)\s*\|\s*(\d+)\s*\|\s*`([\w.]+)`\s*\|")
CONSTANT = re.compile(r"^\|\s*`(SV_\w+)`\s*\|\s*([^|]+?)\s*\|")
STRUCT = re.compile(r"^struct (sv_\w+) \{[^\n]*\n(.*?)^\};", re.M | re.S)
MEMBER = re.compile(r"^\s*(?:struct\s+)?\w+\s+(\w+)(?:\[\w+\])?;", re.M)


def assertions(doc):
    """The C code, and the fields that each struct's rows name."""
    code, fields, struct, end = [], {}, None, 0
    for number, line in enumerate(doc.splitlines(), 1):
        code.append(f'#line {number} "docs/format.md"')
        if ANY_HEADING.match(line):
            heading = HEADING.match(line)
            struct, end = (heading.group(1) if heading else None), 0
            if struct:
                fields[struct] = []
        row = FIELD.match(line)
        if row and struct:
            offset, size, name = int(row.group(1)), int(row.group(2)), row.group(3)
            fields[struct].append(name)
            code.append(f'static_assert(__builtin_offsetof(struct {struct}, {name}) == {offset}, "offset of {name}");')
            code.append(f'static_assert(sizeof(((struct {struct} *)0)->{name}) == {size}, "size of {name}");')
            code.append(f'static_assert({offset} == {end}, "{name} follows the row before it");')
            end = offset + size
        constant = CONSTANT.match(line)
        if constant:
            name, value = constant.groups()
            code.append(f'static_assert(({name}) == ({value}), "value of {name}");')
    return "\n".join(code) + "\n", fields


def compile_errors(top, code):
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write('#include "kmod/core/label.h"\n#include "kmod/core/journal.h"\n' + code)
        source.flush()
        done = subprocess.run(["cc", "-std=gnu11", "-fsyntax-only", "-I", str(top), source.name],
                              capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if "error:" in line]


def main():
    top = lint.root()
    code, fields = assertions((top / "docs/format.md").read_text())
    faults = compile_errors(top, code)
    header = pathlib.Path(top / "kmod/core/format.h").read_text()
    for struct, inside in STRUCT.findall(re.sub(r"/\*.*?\*/", "", header, flags=re.S)):
        named = fields.get(struct, [])
        faults += [f"docs/format.md: struct {struct} has a field {name} without a row"
                   for name in MEMBER.findall(inside) if name not in {field.split(".")[0] for field in named}]
    lint.finish(faults)


main()

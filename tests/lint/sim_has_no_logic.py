#!/usr/bin/python3
"""The simulated kernel has no map, allocator, journal, commit or MOVE of its own: it drives kmod/core. So it calls
core's planners, commit and dispatch; touches neither records nor batches nor extent words; defines nothing named
for what core does, except that what is named for the commit must be a driver of core's; and stays small."""

import re

import lint

MAX_LINES = 600          # without blank lines and comments
MAX_FUNCTION = 50
MUST_CALL = ["sv_plan_read", "sv_plan_write", "sv_plan_discard", "sv_write_done", "sv_commit_round", "sv_commit_flushed",
             "sv_commit_batch", "sv_commit_written", "sv_commit_done", "sv_cmd"]
INTERNALS = re.compile(r"\b(sv_(?:rec|put|batch|ring|xw|partial|node|stream|root)(?:_\w+)?|"
                       r"SV_(?:REC|XW|BATCH|DIRTY|MAP)_\w+|"
                       r"sv_label_(?:encode|layout)|(?:kmod/)?core/(?:journal|internal)\.h)\b")
OWN_LOGIC = re.compile(r"(?:^|_)(alloc(?:ate|ator)?|bitmap|radix|map|unmap|lookup|extents?|slots?|journal|records?|rec|"
                       r"append|seal|crc|valid|layers?|move|recycle|trim|quarantine|reserve|replay)(?:_|$)", re.I)
DRIVERS = re.compile(r"(?:^|_)(commit|batch|ticket)(?:_|$)", re.I)
CORE_COMMIT = re.compile(r"\bsv_(?:commit|ticket|flush_ticket)")
KEYWORDS = {"if", "for", "while", "switch", "return", "catch", "sizeof", "defined"}
FUNCTION = re.compile(r"\b(\w+)\s*\(((?:[^()]|\([^()]*\))*)\)\s*(?:const|noexcept|override|final|\s)*(?::[^;{}]*)?\{")
TYPE = re.compile(r"\b(?:struct|class|union|enum(?:\s+class)?)\s+(\w+)[^;(){}]*\{")


def without_comments(source):
    """Comments and literals blanked, lines kept; includes keep theirs."""
    def blank(match):
        if match.group(0).startswith('"') and source[:match.start()].rsplit("\n", 1)[-1].startswith("#include"):
            return match.group(0)
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', blank, source, flags=re.S)


def body(code, brace):
    depth = 0
    for at in range(brace, len(code)):
        depth += {"{": 1, "}": -1}.get(code[at], 0)
        if not depth:
            return code[brace:at]
    return code[brace:]


def words(name):
    """snake_case of any name, so that SlotMap and slot_map read alike."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def check_definitions(where, code):
    for match in TYPE.finditer(code):
        if OWN_LOGIC.search(words(match.group(1))) or DRIVERS.search(words(match.group(1))):
            yield f"{where}: defines {match.group(1)}: that is kmod/core's to have"
    for match in FUNCTION.finditer(code):
        name, inside = match.group(1), body(code, match.end() - 1)
        if name in KEYWORDS:
            continue
        if OWN_LOGIC.search(words(name)):
            yield f"{where}: defines {name}(): that is kmod/core's to do"
        if DRIVERS.search(words(name)) and not CORE_COMMIT.search(match.group(2) + inside):
            yield f"{where}: defines {name}() without a call of core's commit"
        if inside.count("\n") > MAX_FUNCTION:
            yield f"{where}: {name}() is longer than {MAX_FUNCTION} lines"


def main():
    top = lint.root()
    files = [f for f in lint.tracked(top) if f.suffix in (".h", ".cc") and f.parent == top / "daemon/kernel"
             and f.name.startswith("sim")]
    code = {f"daemon/kernel/{f.name}": without_comments(lint.text(f)) for f in files}
    whole = "\n".join(code.values())
    faults = [] if files else ["daemon/kernel/sim*: there is no simulated kernel"]
    faults += [f"daemon/kernel/sim*: never calls {name}()" for name in MUST_CALL
               if files and not re.search(rf"\b{name}\s*\(", whole)]
    lines = sum(1 for line in whole.splitlines() if line.strip())
    if lines > MAX_LINES:
        faults.append(f"daemon/kernel/sim*: {lines} lines of code; above {MAX_LINES} it must have logic of its own")
    for where, text in code.items():
        faults += [f"{where}: uses {name}: core's inside" for name in sorted(set(INTERNALS.findall(text)))]
        faults += check_definitions(where, text)
    lint.finish(faults)


main()

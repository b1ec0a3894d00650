"""The results as text."""

import limits


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def align(rows):
    """Lines of equally long rows: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join([row[0].ljust(widths[0]), *[cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]])


def instructions(results):
    """A row for each target and workload: instructions, added to raw, times raw, times what linear adds."""
    yield ["instructions per I/O", "whole", "added to raw", "times raw", "times linear's"]
    for workload in results.named("workload"):
        for target in results.named("target"):
            if results.has(target, workload):
                yield [f"{workload} {target}", *costs(results, target, workload)]


def costs(results, target, workload):
    whole = results.get(target, workload)
    if not results.has("raw", workload):
        return [number(whole), "", "", ""]
    added = results.added(target, workload)
    linear = results.added("linear", workload) if results.has("linear", workload) else 0
    return [number(whole), number(added), f"{whole / results.get('raw', workload):.2f}",
            f"{added / linear:.2f}" if linear > 0 else ""]


def counts(results):
    """A row for each target and workload, a column for each count of device I/O."""
    metrics = [m for m in results.named("metric") if not m.startswith("instr")]
    yield ["per I/O", *metrics]
    for workload in results.named("workload"):
        for target in results.named("target"):
            if results.has(target, workload):
                cells = (number(results.get(target, workload, m)) if results.has(target, workload, m) else ""
                         for m in metrics)
                yield [f"{workload} {target}", *cells]


def others(results):
    """What is no instruction and no device I/O."""
    yield ["beside I/O", "", "", ""]
    for suite, target, workload, metric in results.values:
        if suite != "icount":
            yield [f"{suite} {target} {workload} {metric}", number(results.get(target, workload, metric, suite)),
                   results.units[suite, target, workload, metric], ""]


def figures(results):
    yield ["figure", "measured", "at most", "", ""]
    for text, value, limit, unit, reached in limits.judge(results):
        yield [text, number(value), number(limit), unit, "OK" if reached else "MISSED"]


def show(results):
    for table in (instructions, counts, others, figures):
        rows = list(table(results))
        if len(rows) > 1:
            print("\n".join(align(rows)), end="\n\n")

"""The results as text."""

import limits


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def align(rows):
    """Lines of equally long rows: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join([row[0].ljust(widths[0]), *[cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]])


def matrix(results, title, value):
    """A row for each workload, a column for each target; value(target, workload) raises KeyError where there is none.
    Rows of zeroes are left out."""
    targets = results.named("target")

    def cell(target, workload):
        try:
            return number(value(target, workload))
        except KeyError:
            return ""

    rows = [[workload, *[cell(target, workload) for target in targets]] for workload in results.named("workload")]
    return [[title, *targets], *[row for row in rows if set(row[1:]) - {"", "0", "0.00"}]]


def instructions(results):
    def times_raw(target, workload):
        return results.get(target, workload) / results.get("raw", workload)

    yield matrix(results, "instructions per I/O", results.get)
    yield matrix(results, "added to raw", results.added)
    yield matrix(results, "times raw", times_raw)


def counts(results):
    for metric in results.named("metric"):
        if metric != "instr":
            yield matrix(results, metric + ("" if metric == "deepest_chain" else " per I/O"), lambda t, w, m=metric: results.get(t, w, m))


def others(results):
    """What is no instruction and no device I/O."""
    rows = [[f"{suite} {target} {workload} {metric}", number(results.get(target, workload, metric, suite)),
             results.units[suite, target, workload, metric]]
            for suite, target, workload, metric in results.values if suite != "icount"]
    yield [["beside I/O", "", ""], *rows]


def figures(results):
    rows = [[text, number(value), number(limit), unit, "OK" if reached else "MISSED"]
            for text, value, limit, unit, reached in limits.judge(results)]
    yield [["figure", "measured", "at most", "", ""], *rows]


def show(results):
    for part in (instructions, counts, others, figures):
        for rows in part(results):
            if len(rows) > 1:
                print("\n".join(align(rows)), end="\n\n")

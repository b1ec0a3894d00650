"""Instructions by function of the guest's kernel: what a plugin of QEMU (functions.c) counts during a job of fio."""

import bisect
import collections
import os

import icount
import workloads
from table import align, number

SHOWN = 30
DIFFERENT = 4  # instructions per I/O from which a function is listed as such


class Symbols:
    def __init__(self, kallsyms):
        lines = (line.split() for line in kallsyms.splitlines())
        known = sorted((int(address, 16), " ".join(name)) for address, kind, *name in lines if kind in "tTwW")
        self.addresses, self.names = [address for address, _ in known], [name for _, name in known]

    def name(self, address):
        at = bisect.bisect_right(self.addresses, address) - 1
        return self.names[at] if address and at >= 0 else "user"


def last_job(path):
    """(address, instructions) of the last job."""
    with open(path, encoding="ascii") as f:
        lines = f.read().rpartition("job\n")[2].splitlines()
    return [(int(address, 16), int(count)) for address, count in (line.split() for line in lines)]


def profile(bench, target, workload):
    """{function: instructions per I/O}, the largest first."""
    counted = os.path.join(bench.dir, f"{target}-{workload}")
    plugin = f"{icount.library('functions')},out={counted}"
    with icount.boot(bench, cmdline=icount.cmdline_of(workload), qemu_args=["-plugin", plugin]) as guest:
        icount.prepare(guest)
        guest.run("cat /proc/kallsyms > /share/kallsyms")
        icount.run_guest(guest, target, [workload])
        symbols = Symbols(guest.get("kallsyms").decode())
    functions = collections.Counter()
    for address, count in last_job(counted):
        functions[symbols.name(address)] += count / workloads.ios(workload, target)
    return dict(functions.most_common())


def by_module(functions):
    modules = collections.Counter()
    for name, count in functions.items():
        modules[name.partition(" ")[2] or ("user" if name == "user" else "[kernel]")] += count
    return dict(modules.most_common())


def rows(title, profiles, names):
    """A column for each of {target: counts}, and how much more the last has than the first."""
    yield [title, *profiles, "more"]
    for name in names:
        yield [name, *with_difference([p.get(name, 0) for p in profiles.values()])]
    yield ["all", *with_difference([sum(p.values()) for p in profiles.values()])]


def with_difference(counts):
    return [number(count) for count in [*counts, counts[-1] - counts[0]]]


def largest(profiles):
    names = set().union(*profiles.values())
    return sorted(names, key=lambda name: -max(p.get(name, 0) for p in profiles.values()))[:SHOWN]


def most_different(profiles):
    first, *_, last = profiles.values()
    differences = {name: last.get(name, 0) - first.get(name, 0) for name in {**first, **last}}
    different = [name for name, difference in differences.items() if abs(difference) >= DIFFERENT]
    return sorted(different, key=lambda name: -differences[name])


def show(bench, targets, workload):
    profiles = {target: profile(bench, target, workload) for target in targets}
    modules = {target: by_module(p) for target, p in profiles.items()}
    tables = [rows("module", modules, largest(modules)),
              rows("function that differs", profiles, most_different(profiles)),
              rows("largest function", profiles, largest(profiles))]
    return "\n\n".join([f"{workload}: instructions per I/O", *["\n".join(align(list(table))) for table in tables], ""])

"""Instructions by function of the guest's kernel: what a plugin of QEMU (functions.c) counts during one of fio's jobs."""

import bisect
import collections
import os

import icount
import workloads
from table import align, number

SHOWN = 45


class Symbols:
    def __init__(self, kallsyms):
        lines = (line.split() for line in kallsyms.splitlines())
        known = sorted((int(words[0], 16), words[2] + " " + " ".join(words[3:])) for words in lines if words[1] in "tTwW")
        self.addresses, self.names = [address for address, _ in known], [name.strip() for _, name in known]

    def name(self, address):
        at = bisect.bisect_right(self.addresses, address) - 1
        return self.names[at] if address and at >= 0 else "(user space)"


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
        modules[name.partition(" ")[2] or ("user space" if name.startswith("(user") else "[kernel]")] += count
    return dict(modules.most_common())


def rows(title, profiles):
    """A column for each of {target: counts}, in the order of the last one."""
    targets = list(profiles)
    yield [title, *targets]
    names = sorted(set().union(*profiles.values()), key=lambda n: -max(p.get(n, 0) for p in profiles.values()))
    for name in names[:SHOWN]:
        yield [name, *[number(profiles[t].get(name, 0)) for t in targets]]
    yield ["all", *[number(sum(profiles[t].values())) for t in targets]]


def show(bench, targets, workload):
    profiles = {target: profile(bench, target, workload) for target in targets}
    text = [f"{workload}: instructions per I/O", ""]
    text += [*align(list(rows("module", {t: by_module(p) for t, p in profiles.items()}))), ""]
    text += [*align(list(rows("function", profiles))), ""]
    return "\n".join(text)

"""What was measured: rows of suite, target, workload, metric, value and unit, each as often as it was measured."""

import collections

import workloads

HEAD = ("suite", "target", "workload", "metric", "value", "unit")
UNITS = {"instr": "instructions", "journal_bytes": "bytes", "space_bytes": "bytes", "deepest_chain": "extents"}


class Results:
    def __init__(self):
        self.values = collections.defaultdict(list)
        self.units = {}

    def add(self, suite, target, workload, metric, value, unit=None):
        key = (suite, target, workload, metric)
        self.values[key].append(float(value))
        self.units[key] = unit or UNITS.get(metric, "per I/O")

    def has(self, target, workload, metric="instr", suite="icount"):
        return (suite, target, workload, metric) in self.values

    def get(self, target, workload, metric="instr", suite="icount"):
        """The mean."""
        values = self.values[suite, target, workload, metric] if self.has(target, workload, metric, suite) else []
        if not values:
            raise KeyError(f"{target} {workload} {metric} was not measured")
        return sum(values) / len(values)

    def added(self, target, workload, metric="instr"):
        return self.get(target, workload, metric) - self.get("raw", workload, metric)

    def named(self, field, suite="icount"):
        """All targets, workloads or metrics of a suite, in the order in which they were measured."""
        at = HEAD.index(field)
        return list(dict.fromkeys(key[at] for key in self.values if key[0] == suite))

    def unsteady(self):
        """Measurements of instructions that did not repeat, as sentences."""
        for (_, target, workload, metric), values in self.values.items():
            spread = (max(values) - min(values)) / max(min(values), 1)
            if metric == "instr" and spread > workloads.tolerance(workload, target):
                yield f"{target} {workload}: {spread:.2%} between {', '.join(f'{v:.0f}' for v in values)}"

    def write(self, path):
        with open(path, "w", encoding="ascii") as f:
            print(*HEAD, sep="\t", file=f)
            for key, values in self.values.items():
                for value in values:
                    print(*key, f"{value:.10g}", self.units[key], sep="\t", file=f)

    @classmethod
    def read(cls, path):
        results = cls()
        with open(path, encoding="ascii") as f:
            for line in f.read().splitlines()[1:]:
                results.add(*line.split("\t"))
        return results

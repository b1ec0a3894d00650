"""The bench (tests/bench): that it measures, and the coarsest of what it must find."""

import os
import sys

import vm

sys.path.insert(0, os.path.join(vm.REPO, "tests", "bench"))


@vm.full
@vm.limit(600)
def test_bench_counts_instructions_and_writes(bench):
    """Of mapped 4 KiB reads sv adds at most twice what linear does; a first write is one write of the data, and the journal's."""
    import icount
    import limits
    from results import Results
    results = Results()
    icount.measure(bench, results, ["raw", "linear", "sv"], ["randread4k", "firstwrite4k"])
    assert not list(results.unsteady()), list(results.unsteady())
    for target in ("raw", "linear", "sv"):
        assert results.get(target, "randread4k", "reads") == 1, "a read is a read"
        assert results.get(target, "randread4k", "writes") == 0, "and nothing is written for it"
    linear, sv = (results.added(target, "randread4k") for target in ("linear", "sv"))
    print(f"added to raw: linear {linear:.0f}, sv {sv:.0f}")
    assert 1000 < linear < sv < 2 * linear, (linear, sv)
    assert abs(limits.data_writes(results) - 1) < 1e-6, limits.data_writes(results)
    assert 0 < results.get("sv", "firstwrite4k", "journal_bytes") <= 80

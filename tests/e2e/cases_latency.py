"""Latency histograms of a volume, as svctl and the API show them."""

import os

import harness
from harness import MIB


def histograms(host):
    """ios by class and tier of tank/v."""
    answer = host.call("io.svctl.ShowVolume", pool="tank", volume="v")
    for h in answer["histograms"]:
        assert h["ios"] == sum(b["ios"] for b in h["buckets"]) and not h["errors"], h
        assert all(b["from_ns"] < b["below_ns"] and b["ios"] for b in h["buckets"]), h
        assert sum(b["from_ns"] * b["ios"] for b in h["buckets"]) <= h["total_ns"], h
        assert h["total_ns"] < sum(b["below_ns"] * b["ios"] for b in h["buckets"]), h
    return {(h["class"], h.get("tier")): (h["ios"], h["bytes"]) for h in answer["histograms"]}


def test_show_has_latency_histograms(host):
    host.pool()
    assert histograms(host) == {}
    assert "latency" not in host.svctl("show", "tank/v")
    for i in range(3):
        host.write("tank/v", i * MIB, os.urandom(8192))
    host.read("tank/v", 0, 4096)
    host.read("tank/v", 32 * MIB, 4096)     # never written
    host.flush("tank/v")
    host.discard("tank/v", 0, MIB)
    counted = {("read", "fast"): (1, 4096), ("read", None): (1, 4096), ("write", "fast"): (3, 24576),
               ("discard", None): (1, MIB), ("flush", None): (1, 0)}
    assert histograms(host) == counted
    summary = host.json("show", "tank/v")["latency"]
    assert [(line["class"], line["ios"]) for line in summary] == [("read", 2), ("write", 3), ("discard", 1), ("flush", 1)]
    for line in summary:
        assert line["p50_below_ns"] <= line["p99_below_ns"] == line["p999_below_ns"] == line["all_below_ns"], line
    text = host.svctl("show", "tank/v")
    assert "\nlatency:\n  read: 2 ios, p50 < " in text and "s, all < " in text and "buckets" not in text, text
    # They belong to the volume's device: a change of the volume leaves them, a new device begins anew.
    host.svctl("resize-volume", "tank/v", "--size", "128M")
    assert histograms(host) == counted
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank")
    assert histograms(host) == {}


def test_bad_requests_are_not_counted(host):
    host.pool()
    for offset in (512, 64 * MIB):
        try:
            host.read("tank/v", offset, 4096)
        except harness.Refused as refused:
            assert refused.code == 2, refused
            continue
        raise AssertionError(offset)
    assert histograms(host) == {}

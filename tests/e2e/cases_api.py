"""The Varlink API as other programs see it: python3-varlink, and the types that io.svctl.varlink declares."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import textwrap

import varlink

import cases_jobs
import harness
import varlink_types

MIB = harness.MIB


class Caller:
    """Calls methods and remembers which have answered; Host.call() holds each answer against its declared type."""

    def __init__(self, host):
        self.host, self.answered = host, set()

    def __call__(self, method, *descriptors, **parameters):
        answer = self.host.call(f"io.svctl.{method}", *descriptors, **parameters)
        self.answered.add(method)
        return answer

    def refused(self, error, code, method, **parameters):
        try:
            self(method, **parameters)
        except harness.Refused as refused:
            assert refused.error == f"io.svctl.{error}" and refused.code == code, refused
            return refused
        raise AssertionError(f"{method} {parameters} was done")


def test_answers_are_of_the_declared_types(host):
    host.start()
    call = Caller(host)
    disks = [host.disk(name) for name in ("a", "b", "c")]
    tiers = [{"name": "fast", "devices": disks[:1]}, {"name": "slow", "devices": disks[1:2]}]
    new_disk = {"tier": "slow", "devices": disks[2:], "wipe": None}
    call("CreatePool", pool="tank", tiers=tiers, dry_run=True)
    for _ in range(2):      # done, and no change
        call("CreatePool", pool="tank", tiers=tiers)
        call("CreateVolume", pool="tank", volume="v", size=64 * MIB)
    for _ in range(2):
        call("AddDevice", pool="tank", **new_disk)
    for undo in (False, False, True, True):
        call("EvacuateDevice", pool="tank", device=disks[1], undo=undo, dry_run=True)
        call("EvacuateDevice", pool="tank", device=disks[1], undo=undo)
    call("CreateVolume", pool="tank", volume="w", size=MIB, dry_run=True)
    host.write("tank/v", 0, b"x" * 65536, fua=True)
    call("ResizeVolume", pool="tank", volume="v", size=128 * MIB)
    call("RenameVolume", pool="tank", volume="v", to="w")
    for method in ("List", "Status", "Scan"):
        assert call(method)["pools"][0]["name"] == "tank"
    assert call("ShowPool", pool="tank")["journal"]["records"] > 0
    assert call("ShowVolume", pool="tank", volume="w")["used"] == MIB
    assert 'svctl_pool_info{pool="tank"' in call("Metrics")["text"]
    call("Check", pool="tank")
    call("Dump", pool="tank")
    call("SetVolume", pool="tank", volume="w", autoactivate=False, dry_run=True)
    for autoactivate in (False, True, True):
        call("SetVolume", pool="tank", volume="w", autoactivate=autoactivate)
    for schedule in ("1d:7d", "1d:7d", "none"):
        call("SetVolume", pool="tank", volume="w", schedule=schedule, dry_run=True)
        call("SetVolume", pool="tank", volume="w", schedule=schedule)
        call("RunSchedules", dry_run=True)
    call("SetPool", pool="tank", discard="pass", dry_run=True)
    for discard in ("pass", "keep", "keep"):
        call("SetPool", pool="tank", discard=discard)
    for method in ("DeactivateVolume", "ActivateVolume"):
        call(method, pool="tank", volume="w", dry_run=True)
        call(method, pool="tank", volume="w")
        call(method, pool="tank", volume="w")
    for name in ("one", "two"):
        call("CreateSnapshot", pool="tank", snapshots=[{"volume": "w", "name": name}], dry_run=True)
        call("CreateSnapshot", pool="tank", snapshots=[{"volume": "w", "name": name}])
    of = {"pool": "tank", "volume": "w", "snapshot": "one"}
    for method, more in (("HoldSnapshot", {"held": True}), ("HoldSnapshot", {"held": False}), ("ActivateSnapshot", {}),
                         ("ShowSnapshot", {}), ("DeactivateSnapshot", {}), ("RenameSnapshot", {"to": "three"})):
        if method != "ShowSnapshot":
            call(method, dry_run=True, **of, **more)
        call(method, **of, **more)
    assert call("ShowSnapshot", pool="tank", volume="w", snapshot="three")["held"] is False
    call.refused("NotFound", 3, "ShowSnapshot", **of)
    call("CreateVolume", pool="tank", volume="clone", **{"from": "w@two"})
    call("DeleteVolume", pool="tank", volume="clone")
    assert [s["name"] for s in call("ShowPool", pool="tank")["snapshots"]] == ["three", "two"]
    for of in (None, ["w@three", "w"]):
        assert [s["name"] for s in call("ShowSpace", pool="tank", of=of)["snapshots"]] == ["three", "two"]
    call("Diff", pool="tank", **{"from": "w@three", "to": "w"})
    for name in ("three", "two"):
        call("RollbackVolume", pool="tank", volume="w", snapshot=name, dry_run=True)
        call("RollbackVolume", pool="tank", volume="w", snapshot=name)
        call("DeleteSnapshot", pool="tank", volume="w", snapshot=name, dry_run=True)
        call("DeleteSnapshot", pool="tank", volume="w", snapshot=name)
    host.checkpoint("tank/w")
    call("DeleteVolume", pool="tank", volume="w", dry_run=True)
    call("DeleteVolume", pool="tank", volume="w")
    memory = os.memfd_create("text", os.MFD_ALLOW_SEALING)
    os.write(memory, b"svctl-dump 1\nend\n")
    harness.seal(memory)
    for dry_run in (True, False):
        call("Restore", memory, pool="tank", fd=0, dry_run=dry_run)
    os.close(memory)
    call("Jobs")
    call.refused("NotFound", 3, "WaitJob", job=1 << 40)
    call.answered.add("WaitJob")    # cases_jobs.py has jobs to wait for
    call("Deactivate", pool="tank", dry_run=True)
    call("Deactivate", pool="tank")
    for method in ("List", "Status"):
        assert call(method)["pools"][0]["state"] == "down"
    call("ShowPool", pool="tank")
    os.rename(disks[2], disks[2] + ".away")
    call("Activate", pool="tank", read_only=True, missing=True)
    assert [d["member"] for d in call("ShowPool", pool="tank")["devices"] if d.get("missing")] == [2]
    assert call("Status")["pools"][0]["problems"]
    call("Deactivate", pool="tank")
    os.rename(disks[2] + ".away", disks[2])
    call("Activate", pool="tank")
    call("ExportPool", pool="tank", dry_run=True)
    call("ExportPool", pool="tank")
    for method in ("List", "Status", "Scan"):
        assert call(method)["pools"][0]["state"] == "exported"
    call("ImportPool", pool="tank", rename="vault", dry_run=True)
    call("ImportPool", pool="tank", rename="vault")
    call("ImportPool", pool="vault", rename=None, force=True)
    call("DeletePool", pool="vault", dry_run=True)
    call("DeletePool", pool="vault")
    assert call.answered == varlink_types.methods("io.svctl"), call.answered ^ varlink_types.methods("io.svctl")


def test_errors_are_typed(host):
    disks = host.pool()
    call = Caller(host)
    call.refused("NotFound", 3, "ShowPool", pool="nix")
    call.refused("InvalidArgument", 2, "CreateVolume", pool="tank", volume="a/b", size=MIB)
    busy = call.refused("Busy", 5, "CreateVolume", pool="tank", volume="v", size=MIB)
    assert busy.parameters["object"] == "tank/v" and "resize-volume" in busy.parameters["hint"], busy.parameters
    call.refused("NoSpace", 6, "AddDevice", pool="tank", tier="slow", devices=[host.disk("tiny", 1)])
    host.fail_call(1)
    call.refused("Failed", 1, "CreateVolume", pool="tank", volume="w", size=MIB)
    call("Deactivate", pool="tank")
    call("Activate", pool="tank", read_only=True)
    call.refused("PermissionDenied", 4, "CreateVolume", pool="tank", volume="w", size=MIB)
    host.stop()
    for disk in disks[:2]:      # both copies of the catalogue
        with open(disk, "r+b") as f:
            f.seek(MIB)
            f.write(bytes(64 * MIB))
    host.start()
    call.refused("NeedsCheck", 7, "Activate", pool="tank")


def test_refuses_parameters_that_are_not_declared(host):
    host.used_pool()
    with host.unchanged():
        for method, parameters in (("DeletePool", {"pool": "tank", "dryrun": True}),
                                   ("DeleteVolume", {"pool": "tank", "volume": "v", "dry-run": True}),
                                   ("List", {"pool": "tank"})):
            try:
                host.call(f"io.svctl.{method}", **parameters)
                raise AssertionError(f"{method} {parameters} was done")
            except harness.Refused as refused:
                assert refused.error == "org.varlink.service.InvalidParameter", refused
                assert refused.parameters["parameter"] in parameters


def examples():
    """The Python of docs/api.md, as one program: all calls in the client's block."""
    with open(f"{harness.ROOT}/docs/api.md", encoding="utf-8") as f:
        blocks = re.findall(r"(?:^    .*\n)+", f.read(), re.M)
    first, *others = [block for block in map(textwrap.dedent, blocks) if re.match(r"import varlink|for .*svd\.", block)]
    assert others and all("_more=True" in block for block in others), others
    return first + textwrap.indent("".join(others), "    ")


# What python3-varlink brings.
TOOL = ["/usr/bin/python3", "-m", "varlink.cli"]


def test_python_examples_run_as_documented(host):
    """A pool so large that its check is a job: python3-varlink gets progress first, then what came of it."""
    text = cases_jobs.big_text(host)
    cases_jobs.big_pool(host)
    host.svctl("restore", "tank", text)
    printed = io.StringIO()
    program = examples().replace("unix:/run/svctl/svd.sock", f"unix:{host.socket}")
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "docs/api.md", "exec"), {})
    lines = printed.getvalue().splitlines()
    assert sorted(line.split()[:2] for line in lines[:2]) == [["other", "active"], ["tank", "active"]], lines
    assert "train" in [volume["name"] for pool in host.json("list")["pools"] for volume in pool["volumes"]]
    *reports, last = lines[2:]
    assert last == "pool tank: kernel and catalogue agree", lines
    reports = [ast.literal_eval(report) for report in reports]
    assert reports and all(report["job"] == 2 and report["what"] and report["goes_on"] for report in reports), lines
    # With a volume of that name and another size python3-varlink raises what svd answers.
    host.svctl("resize-volume", "tank/train", "--size", "21T")
    with contextlib.redirect_stdout(printed):
        exec(compile(program, "docs/api.md", "exec"), {})
    assert "\nio.svctl.Busy cannot create volume tank/train: " in printed.getvalue(), printed.getvalue()
    said = subprocess.run([*TOOL, "call", "--more", f"unix:{host.socket}/io.svctl.Check", json.dumps({"pool": "tank"})],
                          check=True, capture_output=True, text=True)
    assert said.stdout.count('"progress"') > 1 and "agree" in said.stdout, said


def test_python_varlink_introspects_and_calls(host):
    host.pool()
    with varlink.Client.new_with_address(f"unix:{host.socket}") as client:
        client.get_interfaces()
        with open(f"{varlink_types.API}/io.svctl.varlink", encoding="ascii") as f:
            assert client.get_interface("io.svctl").get_description() == f.read()
        with client.open("io.svctl", namespaced=True) as svd:
            assert svd.List().pools[0].tiers[1].name == "slow"
            created = svd.CreateVolume("tank", "w", MIB)
            assert created.result == "created" and created.size == MIB
            try:
                svd.ShowPool("nix")
                raise AssertionError("there is a pool nix")
            except varlink.VarlinkError as error:
                assert error.error() == "io.svctl.NotFound" and error.parameters()["code"] == 3
    said = subprocess.run([*TOOL, "call", f"unix:{host.socket}/io.svctl.ShowVolume",
                           json.dumps({"pool": "tank", "volume": "w"})], check=True, capture_output=True, text=True)
    assert json.loads(said.stdout)["size"] == MIB
    said = subprocess.run([*TOOL, "call", f"unix:{host.socket}/io.svctl.ShowPool", json.dumps({"pool": "nix"})],
                          capture_output=True, text=True)
    assert "'io.svctl.NotFound'" in said.stderr and "'code': 3" in said.stderr, said
    said = subprocess.run([*TOOL, "help", f"unix:{host.socket}/io.svctl"], check=True, capture_output=True, text=True)
    assert "method CreatePool(" in said.stdout

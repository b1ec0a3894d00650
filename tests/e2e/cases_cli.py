"""What svctl's command line offers: help, other names of commands, tables, codes, colour, what ^C says."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import harness
import next_step

HELP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "help")
UPDATE = os.environ.get("UPDATE_HELP")


def svctl(*words, **options):
    return subprocess.run([f"{harness.BIN}/svctl", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, **options)


def listed(text, heading):
    """The words of the list below a heading of a help text."""
    return re.findall(r"^  ([a-z][a-z-]*) ", text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0], re.M)


def commands():
    return listed(svctl("--help").stdout, "Commands")


def nouns():
    return listed(svctl("--help").stdout, "Commands by what they act on")


def also(name):
    """The other names of a command, as its help has them."""
    found = re.search(r"^Also: (.*)$", svctl(name, "--help").stdout, re.M)
    return found[1].split(", ") if found else []


def test_help_is_word_for_word_as_written_down(_):
    """tests/e2e/help; UPDATE_HELP=1 writes it anew, to be read before it is committed."""
    texts = {"svctl": svctl("--help"), "svd": subprocess.run([f"{harness.BIN}/svd", "--help"], capture_output=True, text=True, timeout=60)}
    texts.update({name: svctl(name, "--help") for name in commands() + nouns()})
    assert len(texts) > 15
    for name, done in texts.items():
        assert done.returncode == 0 and not done.stderr, (name, done)
        path = f"{HELP}/{name}.txt"
        if UPDATE:
            with open(path, "w", encoding="utf-8") as f:
                f.write(done.stdout)
        with open(path, encoding="utf-8") as f:
            assert f.read() == done.stdout, f"{path} is not what --help of {name} prints:\n{done.stdout}"
    assert sorted(os.listdir(HELP)) == sorted(f"{name}.txt" for name in texts)


def test_each_command_has_an_example_that_names_it(_):
    for name in commands():
        text = svctl(name, "--help").stdout
        assert re.search(rf"^Example:\n  svctl {name}\b", text, re.M), text


def body(name):
    """Of a command's help what does not depend on the name that was typed."""
    return re.sub(r"^Usage: svctl [a-z -]*", "", svctl(*name.split(), "--help").stdout, flags=re.M)


def test_each_command_answers_to_its_other_names(_):
    names = set()
    assert [name for name in commands() if not also(name)] == []
    for name in commands():
        for other in also(name):
            assert body(other) == body(name), (name, other)
            assert other not in names, f"{other} is two commands"
            names.add(other)
    for noun in nouns():
        for verb in listed(svctl(noun, "--help").stdout, "Commands"):
            assert f"{noun} {verb}" in names, (noun, verb)


def test_other_names_do_the_same(host):
    disks = [host.disk("fast"), host.disk("slow"), host.disk("more")]
    host.start()
    host.svctl("pool", "create", "tank", "--tier", f"fast={disks[0]}", "--tier", f"slow={disks[1]}")
    host.svctl("device", "add", "tank", f"slow={disks[2]}")
    host.svctl("volume", "create", "tank/v", "--size", "64M")
    host.svctl("volume", "resize", "tank/v", "--size", "1G")
    host.svctl("volume", "rename", "tank/v", "w")
    assert host.json("volume", "show", "tank/w") == host.json("show", "tank/w")
    assert host.json("pool", "show", "tank") == host.json("show-pool", "tank") == host.json("show", "tank")
    host.refused(2, "volume", "show", "tank", says="POOL/VOLUME")
    host.refused(2, "pool", "show", "tank/w")
    assert "tank/w" in host.refused(2, "volume", "delete", "tank/w", says="--yes")
    host.svctl("--yes", "volume", "delete", "tank/w")
    host.svctl("pool", "check", "tank")
    host.svctl("deactivate-pool", "tank")
    host.svctl("pool", "activate", "tank", "--json")
    host.svctl("pool", "delete", "tank", "--yes")
    assert host.json("list")["pools"] == []


def test_unknown_verbs_are_usage_errors(_):
    for words in (["volume"], ["volume", "fly"], ["device", "create"], ["pool"], ["create"], ["create", "pool"]):
        done = svctl(*words)
        assert done.returncode == 2 and not done.stdout and done.stderr, (words, done)


def test_pools_may_be_named_like_commands(host):
    host.start()
    for name in ("list", "pool", "volume"):
        host.svctl("create-pool", name, "--tier", f"t={host.disk(name)}")
        host.svctl("create-volume", f"{name}/show", "--size", "1M")
        assert host.json("show", name)["name"] == name
        assert host.json("pool", "show", name)["name"] == name
        assert host.json("volume", "show", f"{name}/show")["name"] == "show"


MIB = 1 << 20


def two_pools(host):
    host.used_pool()
    host.svctl("create-pool", "attic", "--tier", f"t={host.disk('d')}")
    host.svctl("create-volume", "attic/z", "--size", "5G")


def fields(host, *words):
    return [line.split("\t") for line in host.svctl("list", "-H", *words).splitlines()]


def test_list_shows_a_tree(host):
    two_pools(host)
    lines = host.svctl("list").splitlines()
    assert lines[0].split() == ["NAME", "STATE", "SIZE", "USED", "FREE", "DEVICE"]
    assert {line[:line.index(" ", 3)] for line in lines[1:]} == {"attic", "  [t]", "  z", "tank", "  [fast]", "  [slow]",
                                                                 "  v"}, lines


def test_list_selects_columns_and_rows(host):
    two_pools(host)
    pools = {pool["name"]: pool for pool in host.json("list")["pools"]}
    assert fields(host, "-o", "name,size,used", "-t", "volume", "-s", "name") == [
        ["attic/z", str(5 << 30), "0"], ["tank/v", str(64 * MIB), str(8 * MIB)]]
    assert fields(host, "-o", "name,uuid,members,problems", "-t", "pool", "tank") == [
        ["tank", pools["tank"]["uuid"], "3", "0"]]
    assert fields(host, "-o", "name", "tank") == [["tank"], ["tank:fast"], ["tank:slow"], ["tank/v"]]
    assert fields(host, "-o", "name,free,percent", "tank/v") == [["tank/v", "-", "12.5"]]
    devices = [[d["path"], "present", d["tier"], str(d["size"])] for d in pools["tank"]["devices"]]
    assert fields(host, "-t", "device", "-o", "name,state,tier,size", "tank") == devices
    assert host.svctl("device", "list", "-H", "-o", "pool", "attic") == "attic\n"
    assert host.svctl("volume", "list", "-H", "-o", "name", "-s", "name") == "attic/z\ntank/v\n"
    words = host.svctl("list", "-o", "+type", "tank/v").split()
    assert words[6] == "TYPE" and words[7:11] == ["tank/v", "active", "64M", "8M"] and words[-1] == "volume", words
    assert host.svctl("list", "-b", "-o", "name,size", "tank/v").split() == ["NAME", "SIZE", "tank/v", str(64 * MIB)]


def test_list_sorts_numbers_as_numbers(host):
    two_pools(host)
    up = [["tank/v", str(64 * MIB)], ["attic/z", str(5 << 30)]]
    assert fields(host, "-t", "volume", "-o", "name,size", "-s", "size") == up
    assert fields(host, "-t", "volume", "-o", "name,size", "-s", "size", "-r") == up[::-1]
    for words in ([], ["-r"]):  # what has no value comes last
        assert fields(host, "-t", "pool,volume", "-o", "name,free", "-s", "free", *words)[2:] in (
            [["attic/z", "-"], ["tank/v", "-"]], [["tank/v", "-"], ["attic/z", "-"]])


def test_list_of_nothing(host):
    host.start()
    assert host.svctl("list") == "no pools\n"
    assert host.svctl("list", "-H") == ""


def test_bad_columns_types_and_names_are_refused(host):
    two_pools(host)
    host.refused(2, "list", "-o", "name,nix", says="there is no column 'nix'; there are name, state, size")
    host.refused(2, "list", "-o", "name,,size", says="there is no column ''")
    host.refused(2, "list", "-s", "nix", says="there are name, state, size")
    host.refused(2, "list", "-r", says="--sort")
    host.refused(2, "list", "-t", "nix", says="there are pool, tier, volume, snapshot, device")
    host.refused(2, "list", "--json", "-H", says="--json")
    host.refused(3, "list", "tank", "nix", says="nix")
    host.refused(3, "list", "tank/nix", says="tank/nix")


def test_show_has_exact_numbers(host):
    host.pool()
    assert "size: 64M (67108864 bytes)\n" in host.svctl("show", "tank/v")
    assert "size: 67108864\n" in host.svctl("show", "tank/v", "-b")


def codes():
    return {line.split()[0]: line.split()[1] for line in svctl("explain").stdout.splitlines()[1:]}


def names_what_there_is(remedy):
    """Its commands of svctl have help, which has their options. What follows them need not be typed."""
    for part in re.split(r"\bsvctl (?=[a-z])", remedy)[1:]:
        name, options = re.match(r"[a-z-]+", part)[0], re.findall(r"--[a-z][a-z-]*", re.split("[;.]", part)[0])
        text = svctl(name, "--help")
        assert text.returncode == 0 and set(options) <= set(re.findall(r"--[a-z][a-z-]*", text.stdout)), (name, remedy)
    assert re.search(r"\bsvctl ", remedy) or next_step.OTHERS & set(re.findall(r"[a-z]+", remedy)), f"no command is in {remedy!r}"


def test_each_code_is_explained(_):
    """Without svd."""
    assert len(codes()) > 30
    for code, severity in codes().items():
        text = svctl("explain", code).stdout
        assert text.startswith(f"{code} ({severity}): ") and "\nWhat to do: " in text, text
        assert max(map(len, text.splitlines()[1:])) <= 80
        names_what_there_is(" ".join(text.partition("\nWhat to do: ")[2].split()))
    assert svctl("explain", "pool-full").stdout == svctl("explain", "SV-Pool-Full").stdout
    answer = json.loads(svctl("explain", "SV-POOL-FULL", "SV-USAGE", "--json").stdout)
    assert answer["schema"] == 1 and [code["id"] for code in answer["codes"]] == ["SV-POOL-FULL", "SV-USAGE"]
    done = svctl("explain", "SV-NIX")
    assert done.returncode == 2 and "SV-NIX" in done.stderr and not done.stdout


def test_errors_have_codes(host):
    host.refused(20, "list", says="[SV-UNREACHABLE]")
    host.pool()
    for words, code, own in ((["show", "nix"], 3, "SV-NOT-FOUND"), (["create-volume", "tank/v", "--size", "1G"], 5, "SV-BUSY"),
                             (["create-volume", "tank/w", "--size", "1"], 2, "SV-USAGE"),
                             (["create-pool", "p", "--tier", f"t={host.disk('tiny', 1)}"], 6, "SV-NO-SPACE")):
        host.refused(code, *words, says=f"[{own}]\n")
        done = svctl("--socket", host.socket, "--json", *words)
        assert json.loads(done.stdout)["error"]["id"] == own
    host.svctl("deactivate", "tank")
    host.svctl("activate", "tank", "--read-only")
    host.refused(4, "create-volume", "tank/w", "--size", "1M", says="[SV-POOL-READ-ONLY]")


def test_status_names_what_is_wrong_and_what_to_type(host):
    disks = host.pool()
    assert host.svctl("status") == "tank: active\n" and host.svctl("status", "-H") == ""
    uuid = re.search(r"^member 1 (\S+) ", host.dump(), re.M)[1]
    host.stop()
    os.rename(disks[1], disks[1] + ".away")
    host.start()
    text = host.svctl("status")
    known = f"tier slow, UUID {uuid}, last seen as {disks[1]}"
    assert text == (f"tank: down\n  problem: member 1 of 3 is missing ({known}) [SV-MEMBER-MISSING]\n"
                    "  next:    attach the device; svctl activate tank\n\n"
                    "What a code means: svctl explain SV-MEMBER-MISSING\n"), text
    assert host.svctl("status", "-H", "-o", "pool,severity,id") == "tank\tcritical\tSV-MEMBER-MISSING\n"
    problem = host.json("status")["pools"][0]["problems"][0]
    assert problem["id"] == "SV-MEMBER-MISSING" and problem["severity"] == "critical"
    assert host.logged(f"member 1 of 3 is missing ({known})") and host.logged("[SV-MEMBER-MISSING]")
    assert known in host.refused(3, "activate", "tank", says="[SV-MEMBER-MISSING]")
    missing = [device for device in host.json("show", "tank")["devices"] if "missing" in device]
    assert missing == [{"member": 1, "missing": True, "tier": "slow", "size": missing[0]["size"], "uuid": uuid, "path": disks[1]}]
    assert missing[0]["size"] > 200 * MIB
    host.refused(2, "status", "-o", "nix", says="pool, state, severity, id")
    os.rename(disks[1] + ".away", disks[1])
    host.svctl("scan")
    assert host.svctl("status") == "tank: active\n"
    os.truncate(disks[2], 100 * MIB)
    host.svctl("deactivate", "tank")
    host.svctl("scan")
    assert {problem["id"] for pool in host.json("status")["pools"] for problem in pool["problems"]} == {
        "SV-MEMBER-MISSING", "SV-LABEL-DAMAGED"}


def test_full_pool_has_its_code(host):
    host.start()
    host.svctl("create-pool", "tank", "--tier", f"t={host.disk('d', 64)}")
    host.svctl("create-volume", "tank/v", "--size", "1G")
    try:
        for i in range(64):
            host.write("tank/v", i * MIB, bytes(harness.SLOT))
        raise AssertionError("the pool never was full")
    except harness.Refused:
        pass
    assert "[SV-POOL-FULL]" in host.svctl("status")
    deadline = time.monotonic() + 20
    while not host.logged("[SV-POOL-FULL]"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def on_terminal(*words, **environment):
    """What svctl prints to a terminal."""
    ours, theirs = os.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen([f"{harness.BIN}/svctl", *words], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                               env={**env, "TERM": "xterm", **environment})
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # EIO: it has ended
        while some := os.read(ours, 65536):
            text += some
    os.close(ours)
    process.wait(20)
    return text.decode().replace("\r\n", "\n")


def test_colour_is_for_terminals(host):
    host.pool()
    host.svctl("deactivate", "tank")
    ask = ["--socket", host.socket, "status"]
    assert on_terminal(*ask) == "tank: \033[31mdown\033[0m\n"
    assert on_terminal(*ask, NO_COLOR="1") == on_terminal(*ask, TERM="dumb") == host.svctl("status") == "tank: down\n"
    assert on_terminal("--socket", "/nix", "status").startswith("\033[31msvctl:\033[0m svd does not answer")
    assert on_terminal("--socket", "/nix", "status", NO_COLOR="1").startswith("svctl: svd does not answer")


def interrupted(host, *words, ignored=False):
    """svctl's end and what it said, when ^C came while it waited for svd."""
    before = signal.SIG_IGN if ignored else signal.SIG_DFL
    process = subprocess.Popen([f"{harness.BIN}/svctl", "--socket", host.socket, "--timeout", "2", *words],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, before))
    with open(f"/proc/{process.pid}/syscall", encoding="ascii") as f:
        deadline = time.monotonic() + 20
        while not f.read().startswith("47 "):  # recvmsg
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
            f.seek(0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert not out
    return process.returncode, err


def test_interrupted_command_says_that_svd_goes_on(host):
    """A shell sees 130. svd, which was stopped, has carried the command out when it answers again."""
    host.pool()
    host.svd.send_signal(signal.SIGSTOP)
    code, err = interrupted(host, "create-volume", "tank/w", "--size", "1M")
    assert code == -signal.SIGINT, code
    assert err == "\nsvctl: create-volume: interrupted; svd may still carry it out: see svctl status\n", err
    assert interrupted(host, "list") == (-signal.SIGINT, "\nsvctl: list: interrupted\n")
    for words in (("dump", "tank"), ("show-space", "tank"), ("diff", "tank/v@none")):   # svd ends them with svctl
        assert interrupted(host, *words)[1] == f"\nsvctl: {words[0]}: interrupted\n"
    assert interrupted(host, "delete-volume", "tank/v", "--dry-run")[1] == "\nsvctl: delete-volume: interrupted\n"
    assert interrupted(host, "list", ignored=True)[0] == 21
    host.svd.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while len(host.json("list")["pools"][0]["volumes"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_interrupted_question_changes_nothing(host):
    host.used_pool()
    ours, theirs = os.openpty()
    with host.unchanged():
        process = subprocess.Popen([f"{harness.BIN}/svctl", "--socket", host.socket, "delete-volume", "tank/v"],
                                   stdin=theirs, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        said = b""
        while not said.endswith(b"Type yes to go on: "):
            said += os.read(process.stderr.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == (b"", b"\nsvctl: nothing was changed\n")
        assert process.returncode == -signal.SIGINT
    os.close(ours)
    os.close(theirs)

"""Completion, in the shells themselves, of commands, options, and names that svd knows."""

import os
import pty
import re
import shutil
import subprocess
import time

import cases_cli
import cases_jobs
import harness

SCRIPTS = os.path.join(os.path.dirname(harness.BIN), "completion")


def environment(host):
    return {"PATH": f"{harness.BIN}:/usr/bin:/bin", "HOME": host.dir, "TERM": "xterm", "SVCTL_SOCKET": host.socket}


def bash_words(line):
    """As readline splits a line for COMP_WORDS."""
    words = []
    for word in line.split(" "):
        words += [part for part in re.split(r"([=:]+)", word) if part] or [""]
    return words


def bash(host, line):
    script = (f"set -u; . {SCRIPTS}/svctl.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _svctl; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    done = subprocess.run(["/bin/bash", "--norc", "-c", script, "bash", *bash_words(line)], capture_output=True,
                          text=True, timeout=20, cwd=host.dir, env=environment(host))
    assert done.returncode == 0 and not done.stderr, done
    return sorted(done.stdout.split())


def fish(host, line):
    done = subprocess.run(["/usr/bin/fish", "--no-config", "-c", f"source {SCRIPTS}/svctl.fish; complete -C \"$argv\"",
                           line], capture_output=True, text=True, timeout=20, cwd=host.dir, env=environment(host))
    assert done.returncode == 0 and not done.stderr, done
    return sorted(each.split("\t")[0] for each in done.stdout.splitlines())


class Terminal:
    """An interactive shell. After TAB, ^T writes the line that is then there to a file."""

    def __init__(self, host, words, start):
        self.dir = host.dir
        ours, theirs = pty.openpty()
        self.terminal = ours
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.dir, env=environment(host),
                                        start_new_session=True)
        os.close(theirs)
        os.set_blocking(ours, False)
        os.write(ours, start.encode())
        self.wait_for("ready")

    def wait_for(self, name):
        deadline = time.monotonic() + 30
        said = b""
        while not os.path.exists(f"{self.dir}/{name}"):
            assert time.monotonic() < deadline, said
            try:
                said += os.read(self.terminal, 65536)
            except BlockingIOError:
                time.sleep(0.02)

    def line(self, typed):
        os.write(self.terminal, typed.encode() + b"\t\x14")
        self.wait_for("line")
        with open(f"{self.dir}/line", encoding="utf-8") as f:
            text = f.read().removesuffix("\n")
        os.remove(f"{self.dir}/line")
        return text

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


def zsh(host):
    os.mkdir(f"{host.dir}/zsh")
    shutil.copy(f"{SCRIPTS}/svctl.zsh", f"{host.dir}/zsh/_svctl")
    return Terminal(host, ["/usr/bin/zsh", "-f", "-i"], (
        "PROMPT=; RPROMPT=; fpath=({dir}/zsh $fpath); autoload -Uz compinit; compinit -u -D\n"
        "show() {{ print -r -- \"$BUFFER\" > {dir}/line.new; mv {dir}/line.new {dir}/line; BUFFER= }}\n"
        "zle -N show; bindkey '^T' show; unsetopt beep; : > {dir}/ready\n").format(dir=host.dir))


def interactive_bash(host):
    return Terminal(host, ["/bin/bash", "--norc", "-i"], (
        ". {scripts}/svctl.bash; complete -p svctl > {dir}/registered\n"
        "show() {{ printf '%s\\n' \"$READLINE_LINE\" > {dir}/line.new; mv {dir}/line.new {dir}/line; READLINE_LINE=; }}\n"
        "bind -x '\"\\C-t\": show'; bind 'set bell-style none'; : > {dir}/ready\n").format(scripts=SCRIPTS, dir=host.dir))


def names(host):
    host.pool()
    host.svctl("create-volume", "tank/train", "--size", "1M")
    host.svctl("create-pool", "attic", "--tier", f"t={host.disk('d')}")
    os.mkdir(f"{host.dir}/sub")


def try_words(host, complete):
    """complete(): the words that fit."""
    names(host)
    assert complete(host, "svctl volume re") == ["rename", "resize"]
    assert set(complete(host, "svctl ")) == {*cases_cli.commands(), *cases_cli.nouns()}
    assert complete(host, "svctl resize-volume --s") == ["--size", "--socket"]
    assert complete(host, "svctl deactivate ") == ["attic", "tank", "tank/train", "tank/v"]
    assert complete(host, "svctl delete-pool ") == ["attic", "tank"]
    assert complete(host, "svctl --yes --timeout 5 export-pool t") == ["tank"]
    assert complete(host, "svctl volume delete tank/") == ["tank/train", "tank/v"]
    assert complete(host, "svctl create-volume ") == ["attic/", "tank/"]
    assert complete(host, "svctl show ta") == ["tank", "tank/train", "tank/v"]
    assert complete(host, "svctl add-device tank ") == ["fast=", "slow="]
    assert complete(host, "svctl list -o name,u") == ["name,used", "name,uuid"]
    assert complete(host, "svctl status --columns se") == ["severity"]
    assert complete(host, "svctl job list -o wh") == complete(host, "svctl jobs -o wh") == ["what"]
    assert complete(host, "svctl import-pool ") == ["attic", "tank"]
    assert complete(host, "svctl explain SV-POOL-FU") == ["SV-POOL-FULL"]
    assert complete(host, "svctl deactivate tank ") == []
    assert complete(host, "svctl restore tank slow") == ["slow1", "slow2"]
    host.stop()
    assert complete(host, "svctl deactivate ") == []
    assert complete(host, "svctl deact") == ["deactivate"]


def test_bash_completes(host):
    try_words(host, bash)
    # readline replaces what stands behind the '=' only
    assert bash(host, "svctl create-pool p --tier fast=slow") == ["slow1", "slow2"]
    assert bash(host, "svctl create-pool p --tier fast=slow1,slow") == ["slow1,slow1", "slow1,slow2"]
    assert bash(host, "svctl create-pool p --tier=fast=slow1,su") == ["slow1,sub/"]
    assert bash(host, "svctl list --columns=siz") == ["size"]


def test_fish_completes(host):
    try_words(host, fish)
    assert fish(host, "svctl create-pool p --tier fast=slow1,slow") == ["fast=slow1,slow1", "fast=slow1,slow2"]


def try_keys(host, start):
    """What is there after a TAB."""
    names(host)
    shell = start(host)
    try:
        for typed, line in (("svctl deact", "svctl deactivate "), ("svctl volume ren", "svctl volume rename "),
                            ("svctl export-pool t", "svctl export-pool tank "),
                            ("svctl volume delete tank/t", "svctl volume delete tank/train "),
                            ("svctl create-volume t", "svctl create-volume tank/"),
                            ("svctl add-device tank f", "svctl add-device tank fast="),
                            ("svctl create-pool p --tier fast=slow1,slow", "svctl create-pool p --tier fast=slow1,slow"),
                            ("svctl create-pool p --tier fast=slow1,su", "svctl create-pool p --tier fast=slow1,sub/"),
                            ("svctl restore tank fas", "svctl restore tank fast "),
                            ("svctl list -o name,us", "svctl list -o name,used "),
                            ("svctl explain SV-POOL-FU", "svctl explain SV-POOL-FULL ")):
            found = shell.line(typed)
            assert found == line, (typed, found)
    finally:
        shell.end()


def test_zsh_completes_at_a_terminal(host):
    try_keys(host, zsh)


def test_bash_completes_at_a_terminal(host):
    """By what the script registers, which the other test does not look at."""
    try_keys(host, interactive_bash)
    with open(f"{host.dir}/registered", encoding="utf-8") as f:
        assert f.read() == "complete -F _svctl svctl\n"


def test_completion_offers_what_help_lists(_):
    everywhere = set(re.findall(r"--[a-z-]+", cases_cli.svctl("--help").stdout.partition("\nCommands:")[0]))
    for name in cases_cli.commands():
        offered = {line.split("\t")[0] for line in cases_cli.svctl("--complete", name, "--").stdout.splitlines()}
        listed = re.findall(r"^  (?:-\w,)?(--[a-z-]+)", cases_cli.svctl(name, "--help").stdout, re.M)
        assert offered == everywhere | set(listed), name


def test_completion_waits_for_no_svd_that_hangs(host):
    """A second at most, and says nothing."""
    host.pool()
    host.svd.send_signal(cases_cli.signal.SIGSTOP)
    begin = time.monotonic()
    done = cases_cli.svctl("--complete", "--socket", host.socket, "deactivate", "")
    host.svd.send_signal(cases_cli.signal.SIGCONT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and time.monotonic() - begin < 5


NEW = {"NAME", "NEW", "SIZE", "SECONDS", "TIER=DEVICE[,DEVICE...]"}    # what is there yet has no such value


def parameters(name):
    """Of a command, what help calls its words and its options' values: with the words that stand before the value."""
    text = cases_cli.svctl(name, "--help").stdout
    words, _, options = text.partition("\nOptions:\n")
    for word in re.findall(r"^  (\S+)(?: REQUIRED)?(?: \.\.\.)?(?: |$)", words.partition("Positionals:\n")[2], re.M):
        yield word, []
    for option, value in re.findall(r"^  (?:-\w,)?(--[a-z-]+) ([A-Z]\S*|\w+\|\w+)", options.partition("\nExample:")[0], re.M):
        yield value, [option]


def test_each_value_has_a_completion(host):
    """Of every command, in a pool that has one of everything."""
    names(host)
    host.svctl("create-snapshot", "tank/v@one")
    host.svctl("create-pool", "big", "--tier", "t=" + host.disk("big", 120000))
    host.svctl("restore", "big", cases_jobs.big_text(host, 100000, 1))     # what ends at once is no job
    seen = set()
    for name in [*cases_cli.commands(), ""]:
        given = []
        for value, option in parameters(name) if name else [("PATH", ["--socket"]), ("SECONDS", ["--timeout"])]:
            words = [name] * bool(name) + given + option + [""]
            offered = cases_cli.svctl("--complete", *words, env={**os.environ, "SVCTL_SOCKET": host.socket}).stdout
            assert (offered == "") == (value in NEW), (words, value, offered)
            seen.add(value)
            if not option:
                given.append("tank/v" if "/" in value else "tank")
    assert {"POOL", "POOL|UUID", "JOB", "COLUMN", "VOLUME@SNAPSHOT", "TIER=DEVICE", "FILE", "pass|keep", "PATH"} <= seen, seen

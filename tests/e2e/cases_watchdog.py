"""The watchdog as systemd sees it: messages on $NOTIFY_SOCKET."""

import os
import socket
import subprocess
import time

import harness


class Systemd:
    """The other end of sd_notify(), which wants a sign of life each second."""

    def __init__(self, host):
        path = f"{host.dir}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}

    def messages(self, seconds):
        """All that come within this time."""
        end = time.monotonic() + seconds
        got = []
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                got += self.socket.recv(4096).decode().splitlines()
            except TimeoutError:
                break
        return got


def test_watchdog_is_fed_while_svd_idles_and_works(host):
    systemd = Systemd(host)
    host.pool(**systemd.environment)
    systemd.messages(0.1)
    assert systemd.messages(3).count("WATCHDOG=1") >= 3
    end = time.monotonic() + 3
    while time.monotonic() < end:
        host.svctl("check", "tank")
    assert systemd.messages(0.1).count("WATCHDOG=1") >= 3
    host.stop()
    assert "STOPPING=1" in systemd.messages(0.1)


def test_watchdog_is_not_fed_by_an_svd_that_runs_in_a_circle(host):
    host.used_pool()
    dump, data = host.dump(), host.read("tank/v", 0, harness.MIB)
    host.kill()
    systemd = Systemd(host)
    host.start(SVD_SPIN_AT="rename-volume-in-catalogue", **systemd.environment)
    assert "WATCHDOG=1" in systemd.messages(2)
    with subprocess.Popen([f"{harness.BIN}/svctl", "--socket", host.socket, "rename-volume", "tank/v", "w"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        time.sleep(1)
        systemd.messages(0.1)
        assert systemd.messages(4) == []
        assert client.poll() is None
        host.wait_logged("[SV-SVD-STUCK]")
        host.kill()     # as systemd does
        assert client.wait(20) == 20
    host.start()
    host.svctl("rename-volume", "tank/w", "v")
    assert host.dump() == dump
    assert host.read("tank/v", 0, harness.MIB) == data
    host.svctl("check", "tank")


def test_watchdog_is_not_asked_for_without_systemd(host):
    systemd = Systemd(host)
    host.start(NOTIFY_SOCKET=systemd.environment["NOTIFY_SOCKET"])
    assert "WATCHDOG=1" not in systemd.messages(2)
    assert not os.environ.get("WATCHDOG_USEC")

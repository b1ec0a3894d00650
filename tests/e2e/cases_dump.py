"""dump and restore: big pools, bad texts, and what a client may hand to svd. DUMP_EXTENTS=10000000 with the word
dump_of_many runs the big one by hand, as check-full does; it prints what it took."""

import array
import json
import os
import socket
import subprocess
import time

import harness

MIB = 1 << 20
EXTENTS = int(os.environ.get("DUMP_EXTENTS", "200000"))
MEMBERS = 4


def content(path):
    """What of a dump does not belong to one pool: its volumes, maps and partial extents, line by line."""
    with open(path, encoding="ascii") as f:
        for line in f:
            if line.split(" ", 1)[0] in ("volume", "map", "hole", "partial"):
                yield line


def assert_same(one, other):
    lines = 0
    for a, b in zip(content(one), content(other), strict=True):
        assert a == b, f"{a}is not {b}"
        lines += 1
    return lines


def peak(host):
    with open(f"/proc/{host.svd.pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) // 1024 for line in f if line.startswith("VmHWM"))


def timed(host, what, *words, out=subprocess.DEVNULL):
    begin = time.monotonic()
    subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, "--timeout", "3600", *words], check=True, stdout=out)
    print(f"     {what}: {time.monotonic() - begin:.1f} s, svd's peak {peak(host)} MiB")


def new_pool(host, name, slots):
    # 3 % for journal and catalogue, 16 GiB for their least sizes.
    disks = [host.disk(f"{name}{i}", slots + slots // 32 + 16384) for i in range(MEMBERS)]
    host.svctl("create-pool", name, "--tier", "t=" + ",".join(disks))
    return disks


def restore_and_dump(host, name, text, slots):
    disks = new_pool(host, name, slots)
    timed(host, f"restore of {os.path.getsize(text) >> 20} MiB", "restore", name, text)
    host.stop()
    host.start()
    with open(f"{host.dir}/{name}.dump", "wb") as out:
        timed(host, "dump after activation", "dump", name, out=out)
    print(f"     of it the simulated kernel: {host.json('show', name)['kernel_memory_bytes'] >> 20} MiB")
    timed(host, "check", "check", name)
    host.svctl("delete-pool", name, "--yes")
    for disk in disks:
        os.unlink(disk)
    return f"{host.dir}/{name}.dump"


def test_dump_of_many_extents_restores_to_the_same(host):
    slots = -(-EXTENTS // MEMBERS)
    host.start()
    with open(f"{host.dir}/text", "wb") as out:
        subprocess.run([f"{harness.ROOT}/tests/support/make_dump.py", str(EXTENTS), str(MEMBERS), str(slots)], check=True,
                       stdout=out)
    first = restore_and_dump(host, "one", f"{host.dir}/text", slots)
    second = restore_and_dump(host, "two", first, slots)
    lines = assert_same(f"{host.dir}/text", first)
    assert lines > EXTENTS
    assert_same(first, second)


def write_lines(host, lines):
    with open(f"{host.dir}/bad", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    return f"{host.dir}/bad"


def test_bad_dumps_are_refused_with_their_line(host):
    host.pool()
    host.svctl("delete-volume", "tank/v", "--yes")
    before = host.svctl("dump", "tank")
    good = ["svctl-dump 1", "volume 1 a 1073741824 active 1 1 0 0 0"] + [f"map 1 {i} 1 0 {2 * i}" for i in range(50)]
    for bad, says in (("map 1 7 1 0 151", "mapped twice"), ("map 1 60 1 0 2", "used twice"), ("map 1 60", "too early"),
                      ("map 1 60 1 0 99999999", "no such slots"), ("map 9 0 1 0 1", "volume 9"), ("nonsense", "no item"),
                      ("x" * 5000000, "no item"), ("partial 3 " + "z" * 64, "hexadecimal"), ("map 1 60 1 0 x", "number")):
        text = host.refused(2, "restore", "tank", write_lines(host, good + ["# comment", bad] + good[2:]), says="line 54")
        assert says in text, text
        assert host.svctl("dump", "tank") == before
        host.svctl("check", "tank")
    host.refused(2, "restore", "tank", write_lines(host, good), says="cut off")
    host.refused(2, "restore", "tank", write_lines(host, good + ["end", good[2]]), says="behind the line 'end'")
    for empty in ([], ["", "# nothing"], ["svctl-dump 2"]):
        host.refused(2, "restore", "tank", write_lines(host, empty))
    host.refused(2, "restore", "tank", f"{host.dir}/absent", says="cannot be read")
    host.refused(2, "restore", "tank", host.dir, says="cannot be read")
    assert host.svctl("dump", "tank") == before
    host.svctl("restore", "tank", write_lines(host, good + ["end"]))
    assert sum(1 for line in host.svctl("dump", "tank").splitlines() if line.startswith("map 1 ")) == 50
    host.refused(5, "restore", "tank", write_lines(host, good), says="has volumes")


def test_bad_dumps_that_the_kernel_would_refuse_are_refused_with_their_line(host):
    """They were committed: "restored; it is not up yet", and the pool stayed down for good."""
    host.pool()
    host.svctl("delete-volume", "tank/v", "--yes")
    before = host.svctl("dump", "tank")
    incarnation = before.split("\npool ")[1].split()[3]
    seq, off, crc = map(int, before.split("\njournal ")[1].split()[1:4])
    none = "0" * 64
    good = ["svctl-dump 1", "volume 1 a 1073741824 active 1 1 0 0 0", "map 1 0 1 0 0 2 1", "orphan 3 1 0 1", "orphan 4 1 0 2",
            f"partial 2 {none} 3"]
    for bad, says in (("volume 2 b 144115188075855872 active 2 2 0 0 0", "out of range"),
                      ("volume 2 b 4096 active 2 2 0 255 0", "no flags"),
                      ("map 1 7 1 0 9 4294967290 1", "have numbers from 1 to"),
                      (f"partial 3 {none} 3", "own parents"),
                      (f"partial 3 {none} 4\npartial 4 {none} 3", "own parents"),
                      (f"partial 3 {none} 2", "which a volume writes"),
                      (f"journal {incarnation} {seq + 1} {off} {crc}", "no such batch"),
                      (f"journal {incarnation} {seq} {off + 4096} {crc}", "no such batch"),
                      (f"journal {incarnation} {seq} {off} {crc ^ 1}", "no such batch"),
                      (f"journal {incarnation} {(1 << 64) - 1} 0 0", "no such batch"),
                      ("pool tank x 1 1 1 60000 10", "commits"),
                      ("snapshot 2 7 s 1048576 done 2 2 0 0 0", "active volume 7"),
                      ("snapshot 2 1 s 1048576 pending 2 2 0 0 0", "layer 0 over layer 2"),
                      ("snapshot 2 1 s 2097152 done 2 2 0 0 0\nvolume 3 b 1048576 active 3 3 0 0 0 over 2", "smaller than layer 2")):
        text = write_lines(host, [*good, bad, "end"])
        for dry_run in (["--dry-run"], []):
            answer = host.refused(2, "restore", "tank", text, *dry_run, says=f"line {len(good) + len(bad.splitlines())}")
            assert says in answer, answer
            assert host.svctl("dump", "tank") == before
            assert host.json("status")["pools"][0]["state"] == "active"
        host.svctl("check", "tank")
    text = write_lines(host, [*good, f"partial 3 {none} 4", f"journal {incarnation} {seq} {off} {crc}",
                              "snapshot 2 7 s 1048576 deleting 2 2 0 0 0", "end"])
    assert "would be restored" in host.svctl("restore", "tank", text, "--dry-run")
    assert host.svctl("dump", "tank") == before
    assert host.svctl("restore", "tank", text).strip() == "pool tank restored"
    host.svctl("check", "tank")


def test_text_that_cannot_be_read_to_its_end_is_refused(host):
    """svctl took an error in the middle of a file, or of standard input, for its end."""
    host.pool()
    host.svctl("delete-volume", "tank/v", "--yes")
    before = host.dump()
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x")    # never read: svctl gets the text, then ECONNRESET
    ours.sendall(b"svctl-dump 1\nvolume 1 a 1073741824 active 1 1 0 0 0\nend\n")
    ours.close()
    with theirs:
        done = subprocess.run([f"{harness.BIN}/svctl", "--socket", host.socket, "restore", "tank", "-"], stdin=theirs,
                              capture_output=True, text=True)
    assert done.returncode == 2 and "cannot be read: Connection reset" in done.stderr, done
    host.refused(2, "restore", "tank", "/proc/self/mem", says="cannot be read")
    assert host.dump() == before


def test_restore_after_the_journal_went_on_is_what_was_dumped(host):
    host.pool()
    host.write("tank/v", 0, b"a" * 65536)
    with open(f"{host.dir}/text", "w", encoding="ascii") as f:
        f.write(host.svctl("dump", "tank"))
    for i in range(1, 20):
        host.write("tank/v", i * MIB, b"b" * 65536, fua=True)
    host.svctl("delete-volume", "tank/v", "--yes")
    host.svctl("restore", "tank", f"{host.dir}/text")
    for _ in range(2):
        with open(f"{host.dir}/again", "w", encoding="ascii") as f:
            f.write(host.svctl("dump", "tank"))
        assert assert_same(f"{host.dir}/text", f"{host.dir}/again") > 1
        host.svctl("check", "tank")
        host.kill()
        host.start()


def send(host, message, fds):
    with host.connect() as s:
        socket.send_fds(s, [json.dumps(message).encode() + b"\0"], fds)
        return json.loads(harness.receive(s))


def test_restore_takes_sealed_memory_files_only(host):
    host.pool()
    before = host.svctl("dump", "tank")
    message = {"method": "io.svctl.Restore", "parameters": {"pool": "tank", "fd": 0}}
    memory = os.memfd_create("text", os.MFD_ALLOW_SEALING)
    reader, writer = os.pipe()
    plain = os.open(write_lines(host, ["svctl-dump 1"]), os.O_RDONLY)
    for fd in (memory, reader, plain):
        answer = send(host, message, [fd])
        assert answer["parameters"]["code"] == 2 and "sealed" in answer["parameters"]["message"], answer
    for fds, position in (([], 0), ([memory], 1), ([memory], -1), ([memory], "x")):
        message["parameters"]["fd"] = position
        answer = send(host, message, fds)
        assert answer["error"].endswith("InvalidParameter"), answer
    with host.connect() as s:
        socket.send_fds(s, [b"{"], [memory] * 5)
        assert s.recv(1) == b""
    for fd in (memory, reader, writer, plain):
        os.close(fd)
    open_before = len(os.listdir(f"/proc/{host.svd.pid}/fd"))
    for _ in range(20):
        host.svctl("dump", "tank")
    assert len(os.listdir(f"/proc/{host.svd.pid}/fd")) < open_before + 10  # a client's end may not be noticed yet
    assert host.svctl("dump", "tank") == before


def test_many_dumps_at_once_come_one_by_one(host):
    host.pool()
    count = 30
    call = json.dumps({"method": "io.svctl.Dump", "parameters": {"pool": "tank"}}).encode() + b"\0"
    text, files = b"", []
    with host.connect() as s:
        s.sendall(call * count + b'{"method": "io.svctl.List"}\0')
        while text.count(b"\0") <= count:
            some, fds, _, _ = socket.recv_fds(s, 65536, 8)
            assert some and len(fds) <= 1, (text, fds)
            text += some
            files += fds
    assert len(files) == count and all(json.loads(t)["parameters"] == {"fd": 0} for t in text.split(b"\0")[:count])
    for fd in files:
        os.close(fd)


def test_a_dump_comes_as_a_sealed_memory_file(host):
    host.pool()
    with host.connect() as s:
        s.sendall(json.dumps({"method": "io.svctl.Dump", "parameters": {"pool": "tank"}}).encode() + b"\0")
        text, ancillary, _, _ = s.recvmsg(65536, socket.CMSG_SPACE(array.array("i", [0]).itemsize))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    assert json.loads(text[:-1])["parameters"] == {"fd": 0}
    with open(fds[0], "r+b") as f:
        assert f.seek(0) == 0 and f.read().decode() == host.svctl("dump", "tank")
        try:
            os.write(fds[0], b"x")
            raise AssertionError("the dump can be written to")
        except PermissionError:
            pass

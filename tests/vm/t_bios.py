"""Bios that dm-sv sends more than once, and pools at their limits: what only the real block layer shows."""

from t_module import pool_up, script, sv


def test_pool_of_64_members(bench):
    """As many members as there may be, all of them written and flushed."""
    size = 16 << 11
    disk = bench.disk("a", "1G")
    with bench.boot([disk]) as guest:
        guest.run(f"for i in $(seq 0 63); do dmsetup create m$i --table \"0 {size} linear {disk.dev} $((i * {size}))\"; done")
        pool_up(guest, [f"/dev/mapper/m{i}" for i in range(64)], ring=4)
        script(guest, """
pool = sv.Pool()
pool.attach()
sv.add_volume(pool, 1, 1 << 30)
fd = os.open("/dev/mapper/v1", os.O_RDWR)
for i in range(200):            # not one behind the other: each goes to the member with the most room
    os.pwrite(fd, bytes([i]) * 4096, i * 2 * sv.MIB)
os.fsync(fd)
used = [m["nr_slots"] - m["free_slots"] for m in pool.call("MEMBERS", room=64)]
assert len(used) == 64 and used[63] and used[62], used
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
for i in range(200):
    assert os.pread(fd, 4096, i * 2 * sv.MIB) == bytes([i]) * 4096, i
os.close(fd)
""", timeout=100)
        guest.run("dmsetup remove v1; dmsetup remove pool; for i in $(seq 0 63); do dmsetup remove m$i; done; rmmod dm_sv",
                  timeout=100)

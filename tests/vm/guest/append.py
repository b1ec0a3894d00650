"""Appends to files with fsync until the power is cut, and says what must be there afterwards.

    append.py append DIR FILE=LINES...   prints "FILE LINES" once an fsync covered that many lines of FILE
    append.py verify DIR FILE=LINES...   each FILE begins with that many lines; what follows is cut off

Used by t_crash.py. Line n of file f is always the same 16 bytes, so no record of the contents is needed.
"""

import os
import random
import sys
import threading


def lines(name, first, end):
    return b"".join(b"%s %013d\n" % (name.encode(), n) for n in range(first, end))


def append(directory, name, there):
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        end = there + random.randrange(1, 600)
        os.write(fd, lines(name, there, end))
        os.fsync(fd)
        there = end
        os.write(1, f"{name} {there}\n".encode())


def verify(directory, name, there):
    with open(f"{directory}/{name}", "r+b") as f:
        if f.read(16 * there) != lines(name, 0, there):
            sys.exit(f"{name}: the first {there} lines, which fsync covered, are not as written")
        f.truncate(16 * there)
        os.fsync(f.fileno())


def main():
    verb, directory, *files = sys.argv[1:]
    jobs = [(directory, name, int(there)) for name, there in (f.split("=") for f in files)]
    if verb == "verify":
        for job in jobs:
            verify(*job)
        return
    for job in jobs:
        threading.Thread(target=append, args=job).start()


main()

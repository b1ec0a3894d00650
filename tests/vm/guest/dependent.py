#!/usr/bin/python3
"""Dependent writes to two devices. usage: dependent.py write A B: a number to A, once that is done to B, then the next one, for
ever. dependent.py read A B: the two numbers."""

import mmap
import os
import struct
import sys

BLOCK = 4096


def main():
    verb, *paths = sys.argv[1:]
    buffer = mmap.mmap(-1, BLOCK)
    flags = os.O_DIRECT | (os.O_RDWR if verb == "write" else os.O_RDONLY)
    devices = [os.open(path, flags) for path in paths]
    if verb == "read":
        for device in devices:
            assert os.preadv(device, [buffer], 0) == BLOCK
            print(struct.unpack_from("<Q", buffer)[0])
        return
    number = 0
    while True:
        number += 1
        struct.pack_into("<Q", buffer, 0, number)
        for device in devices:
            assert os.pwritev(device, [buffer], 0) == BLOCK


main()

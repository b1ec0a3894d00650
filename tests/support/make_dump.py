#!/usr/bin/python3
"""Prints a dump (svctl restore takes it) of a pool with many extents, none of them beside its neighbour: a map line
each. Every 64th is partial, or every EVERYth; 0: none. Four volumes; extents lie round robin on members of equal size.

usage: make_dump.py EXTENTS MEMBERS SLOTS [EVERY]     SLOTS: of each member, at least EXTENTS / MEMBERS
"""
import math
import sys

VOLUMES = 4
GAP = 8  # unmapped extents behind those of a volume
ALL_TIERS = (1 << 64) - 1


def main():
    extents, members, slots, every = map(int, [*sys.argv[1:], 64][:4])
    if -(-extents // members) > slots:
        raise SystemExit("so many extents need more slots")
    stride = next(p for p in range(7919, 9000) if math.gcd(p, slots) == 1)
    out = sys.stdout
    out.write("svctl-dump 1\n")
    each = -(-extents // VOLUMES)
    i = 0
    for volume in range(1, VOLUMES + 1):
        size = (each + GAP) << 20
        out.write(f"volume {volume} v{volume} {size} active {volume} {volume} 0 0 {ALL_TIERS}\n")
        for index in range(min(each, extents - i)):
            member, turn = i % members, i // members
            i += 1
            out.write(f"map {volume} {index} 1 {member} {turn * stride % slots} {i} 1\n")
    for extent in range(1, extents + 1, every) if every else ():
        out.write(f"partial {extent} {extent:064x}\n")
    out.write("end\n")


main()

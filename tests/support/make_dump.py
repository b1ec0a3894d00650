#!/usr/bin/python3
"""Prints a dump (svctl restore takes it) of a pool with many extents, none of them beside its neighbour: a map line
each. Extents lie round robin on members of equal size, and belong to volumes v1, v2, ... of equal size."""
import argparse
import math
import sys

GAP = 8  # unmapped extents behind those of a volume
ALL_TIERS = (1 << 64) - 1


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extents", type=int)
    parser.add_argument("members", type=int)
    parser.add_argument("slots", type=int, help="of each member, at least as many as it has extents")
    parser.add_argument("every", type=int, nargs="?", default=64, help="how many are partial: every such one (64); 0: none")
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--fragments", action="store_true", help="those that are partial have a fragment instead of a slot")
    args = parser.parse_args()
    if -(-args.extents // args.members) > args.slots:
        parser.error("so many extents need more slots")
    return args


def main(args):
    stride = next(p for p in range(7919, 9000) if math.gcd(p, max(args.slots, 1)) == 1)
    out = sys.stdout
    out.write("svctl-dump 1\n")
    each = -(-args.extents // args.volumes)
    fragments = []
    i = 0
    for volume in range(1, args.volumes + 1):
        size = (each + GAP) << 20
        out.write(f"volume {volume} v{volume} {size} active {volume} {volume} 0 0 {ALL_TIERS}\n")
        for index in range(min(each, args.extents - i)):
            member, turn = i % args.members, i // args.members
            slot = turn * stride % args.slots
            if args.fragments and args.every and i % args.every == 0:
                fragments.append(f"fragment {i + 1} 0 {slot} 0\n")
                slot = "-"
            i += 1
            out.write(f"map {volume} {index} 1 {member} {slot} {i} 1\n")
    out.writelines(fragments)
    for extent in range(1, args.extents + 1, args.every) if args.every else ():
        out.write(f"partial {extent} {1 if args.fragments else extent:064x}\n")
    out.write("end\n")


main(parse())

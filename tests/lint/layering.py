#!/usr/bin/python3
"""Includes go down the layers and never up: kmod/uapi, kmod/core; then daemon's base; kernel, catalogue, tiering;
engine; api; main. cli knows api's protocol and base. kmod/core includes its own headers and uapi, and what else it
needs comes through port_kernel.h and port_user.h alone."""

import os
import re

import lint

# directory: what its files may include with quotes, besides their own directory
CORE = {"kmod/core", "kmod/uapi"}
LOW = CORE | {"daemon/base"}
MODULES = LOW | {"daemon/kernel", "daemon/catalogue", "daemon/tiering"}
ALLOWED = {
    "kmod/uapi": set(),
    "kmod/core": {"kmod/uapi"},
    "kmod": CORE,
    "daemon/base": set(),
    "daemon/kernel": LOW,
    "daemon/catalogue": LOW,
    "daemon/tiering": LOW,
    "daemon/engine": MODULES,
    "daemon/api": MODULES | {"daemon/engine"},
    "daemon": MODULES | {"daemon/engine", "daemon/api"},
    "cli": {"daemon/base", "daemon/api"},
}
CLI_API = {"protocol.h", "varlink.h"}  # all that cli may know of api
PORTS = {"port_kernel.h", "port_user.h", "port_user.c"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def target(top, path, name):
    """The file of this tree that #include "name" in path means, relative to top; None: not of this tree."""
    for base in (path.parent, top, top / "kmod" / "core"):
        found = base / name
        if found.is_file():
            return os.path.relpath(found.resolve(), top)
    return None


def check(top, path):
    here = os.path.relpath(path, top)
    layer = os.path.dirname(here)
    for quote, name in INCLUDE.findall(lint.text(path) or ""):
        if quote == "<":
            if layer == "kmod/core" and path.name not in PORTS:
                yield f"{here}: includes <{name}>: kmod/core reaches its surroundings through port.h only"
            if layer == "kmod/uapi" and not name.startswith("linux/"):
                yield f"{here}: includes <{name}>: uapi may include <linux/...> only"
            continue
        found = target(top, path, name)
        if not found:
            yield f'{here}: includes "{name}", which is not in the tree'
            continue
        other = os.path.dirname(found)
        if other != layer and other not in ALLOWED[layer]:
            yield f"{here}: includes {found}: {other} is not below {layer}"
        elif found == "kmod/core/internal.h" and layer != "kmod/core":
            yield f"{here}: includes {found}: that is for kmod/core alone"
        elif layer == "cli" and other == "daemon/api" and os.path.basename(found) not in CLI_API:
            yield f"{here}: includes {found}: cli knows only {', '.join(sorted(CLI_API))} of daemon/api"


def main():
    top = lint.root()
    faults = []
    for path in lint.tracked(top):
        layer = os.path.dirname(os.path.relpath(path, top))
        if path.suffix not in (".c", ".cc", ".h") or layer.split("/")[0] not in ("kmod", "daemon", "cli"):
            continue
        if layer in ALLOWED:
            faults += check(top, path)
        else:
            faults.append(f"{layer}: a directory that tests/lint/layering.py does not know: give it its place")
    lint.finish(faults)


main()

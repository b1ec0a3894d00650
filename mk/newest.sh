#!/bin/bash
# The newest kernel that Debian packages, in a chroot: its headers want a newer
# compiler than bookworm has. As root; makes the chroot once.
# usage: newest.sh BUILD_DIR KMOD_DIR    builds the module there, W=1 and sparse
set -euo pipefail

build=$1
kmod=$2
here=$(cd "$(dirname "$0")" && pwd)
suite=${NEWEST_SUITE:-sid}
root=$(mkdir -p "$build" && cd "$build" && pwd)/newest

# The mirror is the one that this machine uses, which may be a snapshot of some
# day: its Release files are out of date then.
make_root() {
	local source uri
	source=$(/usr/bin/python3 "$here/backports.py" "$suite")
	uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' <<< "$source")
	rm -rf "$root"
	mmdebstrap --quiet --variant=apt --aptopt='Acquire::Check-Valid-Until "false"' \
		--include=linux-headers-amd64,gcc,make,sparse "$suite" "$root" "$uri"
	touch "$root/complete"
}

# objtool wants /proc.
build_module() {
	rm -rf "$root/src"
	cp -r "$kmod" "$root/src"
	# shellcheck disable=SC2016 # variables of the inner shell
	unshare --mount bash -c 'mount -t proc proc "$1/proc" && exec env -u TMPDIR chroot "$1" \
		sh -c "make -C /usr/src/linux-headers-*-amd64 M=/src W=1 C=2 CF=-D__CHECK_ENDIAN__ modules"' - "$root"
	strings -a "$root/src/dm-sv.ko" | sed -n 's/^vermagic=//p'
}

[[ -e $root/complete ]] || make_root
build_module

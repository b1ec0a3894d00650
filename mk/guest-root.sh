#!/bin/bash
# A Debian root with systemd and udev for the guests of tests/vm/t_host.py, as a
# tree in BUILD_DIR/guest-root that they read over 9p. As root; made once for
# each version of this script.
# usage: guest-root.sh BUILD_DIR
set -euo pipefail

build=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(mkdir -p "$build" && cd "$build" && pwd)/guest-root

packages=(
	systemd-sysv udev dbus kmod dmsetup e2fsprogs xfsprogs btrfs-progs util-linux fdisk
	libsqlite3-0 libfmt9 libblkid1 libfdisk1 libdevmapper1.02.1 libkmod2
	busybox-static procps
	mdadm cryptsetup-bin lvm2 multipath-tools
	dkms libelf1 libssl3 pahole # and the compiler, to build the module: t_packages.py
)

# The mirror is the one that this machine uses, which may be a snapshot of some
# day: its Release files are out of date then.
make_root() {
	local uri list
	uri=$(/usr/bin/python3 "$here/backports.py" bookworm | sed -n 's/^URIs: *\([^ ]*\).*/\1/p')
	list=$(IFS=,; echo "${packages[*]}")
	rm -rf "$root" "$root.new"
	mmdebstrap --quiet --variant=apt --aptopt='Acquire::Check-Valid-Until "false"' \
		--include="$list" bookworm "$root.new" "$uri"
	# Nothing of it is for a machine that waits for a network or a console login.
	ln -sf /dev/null "$root.new/etc/systemd/system/getty@.service"
	ln -sf /dev/null "$root.new/etc/systemd/system/serial-getty@.service"
	ln -sf /dev/null "$root.new/etc/systemd/system/systemd-networkd-wait-online.service"
	# multipathd only where a test asks for it: its rules start a program for each disk.
	ln -sf /dev/null "$root.new/etc/systemd/system/multipathd.service"
	ln -sf /dev/null "$root.new/etc/systemd/system/multipathd.socket"
	for rules in 56-dm-mpath 56-dm-parts 60-kpartx 60-multipath 68-del-part-nodes; do
		ln -sf /dev/null "$root.new/etc/udev/rules.d/$rules.rules"
	done
	cat > "$root.new/etc/systemd/system/sv-agent.service" << UNIT
[Unit]
Description=Serves the host of this test guest
DefaultDependencies=no

[Service]
ExecStart=/bin/bash /share/agent
IgnoreSIGPIPE=no
KillMode=process

[Install]
WantedBy=sysinit.target
UNIT
	mkdir -p "$root.new/etc/systemd/system/sysinit.target.wants"
	ln -s ../sv-agent.service "$root.new/etc/systemd/system/sysinit.target.wants/"
	rm -f "$root.new/etc/resolv.conf"
	# Each guest makes its own. Without the file systemd would ask at the console.
	: > "$root.new/etc/machine-id"
	echo "$version" > "$root.new/.version"
	mv "$root.new" "$root"
}

version=$(sha256sum < "$0")
[[ $(cat "$root/.version" 2> /dev/null) == "$version" ]] || make_root

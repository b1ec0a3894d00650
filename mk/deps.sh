#!/bin/bash
# Installs what building and testing need on a bare Debian 12, as root.
# usage: deps.sh BUILD_DIR KVER...
# The kernels (6.12, 6.1, ...) are unpacked below BUILD_DIR/kernels/KVER: an
# installed linux-image would run its initramfs and boot loader hooks here.
set -euo pipefail

build=$1
shift
# shellcheck source=mk/apt.sh
. "$(dirname "$0")/apt.sh"

packages=(
	build-essential sparse pkg-config xz-utils
	libdevmapper-dev libblkid-dev uuid-dev liburing-dev libsqlite3-dev
	libfmt-dev nlohmann-json3-dev libcli11-dev libgtest-dev libgmock-dev
	libfdisk-dev libsystemd-dev libudev-dev libkmod-dev
	debhelper dh-dkms lintian
	nbdkit nbdkit-plugin-dev libnbd-bin
	busybox-static cpio kmod dmsetup e2fsprogs xfsprogs fio sqlite3
	cryptsetup-bin mdadm lvm2 btrfs-progs # what users put above and below: t_stacks.py
	python3 python3-varlink python3-yaml util-linux fdisk mmdebstrap shellcheck groff-base zsh fish
	libelf1 libssl3 pahole # the kernel's build tools
	libpcre2-8-0 libsqlite3-0 zlib1g # zabbix_agent2
)

# QEMU before 8.1 translates code while another CPU of the guest patches it: a
# kernel that boots on two CPUs dies of its own int3 once in forty times.
install_qemu() {
	local oldest=1:8.1 have candidate from=()
	have=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null || true)
	if dpkg --compare-versions "${have:-0}" ge $oldest; then
		return
	fi
	candidate=$(apt-cache policy qemu-system-x86 | awk '$1 == "Candidate:" { print $2 }')
	if dpkg --compare-versions "$candidate" lt $oldest; then
		add_backports
		from=(-t bookworm-backports)
	fi
	install "${from[@]}" qemu-system-x86 qemu-utils
}

# The newest release of kernel version $1 that has both an image and headers.
newest_release() {
	local re="${1//./\\.}\\.[0-9][0-9a-z.+-]*-amd64"
	comm -12 \
		<(apt-cache pkgnames linux-image- | sed -n "s/^linux-image-\($re\)$/\1/p" | sort) \
		<(apt-cache pkgnames linux-headers- | sed -n "s/^linux-headers-\($re\)$/\1/p" | sort) |
		grep -Ev -- '-(cloud|rt|dbg)-' | sort -V | tail -n 1
}

# The packages that building modules for release $1 takes. apt would install the
# image along with them.
header_packages() {
	echo "linux-headers-$1"
	apt-cache depends "linux-headers-$1" |
		sed -n 's/^ *Depends: \(linux-headers-.*\|linux-kbuild-.*\)$/\1/p'
}

# Unpacks the package files of directory $1 in place.
unpack() {
	local deb
	for deb in "$1"/*.deb; do
		dpkg-deb -x "$deb" "$1"
		rm "$deb"
	done
	[[ -d $1/lib/modules ]] || { mkdir -p "$1/lib"; mv "$1/usr/lib/modules" "$1/lib/"; }
}

# Unpacks image and headers of kernel version $1. The file "release" is written
# last: where it exists, the directory is complete.
fetch_kernel() {
	local kver=$1 dir=$build/kernels/$1 rel tmp
	[[ ! -e $dir/release ]] || return 0
	rel=$(newest_release "$kver")
	if [[ -z $rel ]]; then
		add_backports
		rel=$(newest_release "$kver")
	fi
	[[ -n $rel ]] || { echo "no packaged kernel $kver" >&2; return 1; }
	rm -rf "$dir" "$dir.new"
	mkdir -p "$dir.new"
	tmp=$(cd "$dir.new" && pwd)
	# shellcheck disable=SC2046 # one word per package
	download "$tmp" "linux-image-$rel" $(header_packages "$rel")
	unpack "$tmp"
	ln -s "usr/src/linux-headers-$rel" "$tmp/headers"
	# The packaged makefile names the other half by its installed path.
	# shellcheck disable=SC2016 # make's variables, not the shell's
	sed -i 's,^include /usr/src/\([^/]*\)/,include $(dir $(realpath $(lastword $(MAKEFILE_LIST))))../\1/,' \
		"$tmp/headers/Makefile"
	depmod -b "$tmp" "$rel"
	mv "$dir.new" "$dir"
	echo "$rel" > "$dir/release"
}

# promtool and zabbix_agent2, which tests run. Of their packages only these: each brings a daemon that would be started,
# and prometheus needs 100 MB.
fetch_monitoring_tools() {
	local dir=$build/tools tmp deb
	[[ ! -x $dir/promtool || ! -x $dir/zabbix_agent2 ]] || return 0
	rm -rf "$dir.new"
	mkdir -p "$dir" "$dir.new"
	tmp=$(cd "$dir.new" && pwd)
	download "$tmp" prometheus zabbix-agent2
	for deb in "$tmp"/*.deb; do
		dpkg-deb -x "$deb" "$tmp"
	done
	mv "$tmp/usr/bin/promtool" "$tmp/usr/sbin/zabbix_agent2" "$dir"
	rm -rf "$tmp"
}

main() {
	local want
	mapfile -t want < <(missing "${packages[@]}")
	apt_get update
	command -v python3 > /dev/null || install python3
	all_known "${want[@]}" || add_backports
	[[ ${#want[@]} -eq 0 ]] || install "${want[@]}"
	install_qemu
	fetch_monitoring_tools
	local kver
	for kver in "$@"; do
		fetch_kernel "$kver"
	done
}

main "$@"

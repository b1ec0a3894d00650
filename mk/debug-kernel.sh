#!/bin/bash
# Builds the kernel of check-debug from Debian's source and mk/debug.config, as
# root on Debian 12. usage: debug-kernel.sh BUILD_DIR
# The result is BUILD_DIR/kernels/debug, in the shape that mk/deps.sh gives the
# packaged ones. It is built once; another mk/debug.config builds it anew.
set -euo pipefail

build=$1
# shellcheck source=mk/apt.sh
. "$(dirname "$0")/apt.sh"

# What make was told about the module, not about this.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES

kver=6.12
config=$mk/debug.config
packages=(build-essential flex bison bc libelf-dev kmod cpio xz-utils)

fetch_source() {
	local tmp=$1
	if [[ -z $(apt-cache madison "linux-source-$kver") ]]; then
		add_backports
	fi
	download "$tmp" "linux-source-$kver"
	dpkg-deb -x "$tmp"/linux-source-*.deb "$tmp"
	tar -C "$tmp" -xf "$tmp/usr/src/linux-source-$kver.tar.xz"
	rm "$tmp"/*.deb
}

# Kconfig drops what it does not know or whose dependencies lack, without a word.
configure() {
	local lost
	make KCONFIG_ALLCONFIG="$config" allnoconfig > /dev/null
	if lost=$(grep -E '^CONFIG_' "$config" | grep -vxFf .config); then
		printf 'not in the resulting configuration:\n%s\n' "$lost" >&2
		return 1
	fi
}

# $1: where to
install_kernel() {
	local out=$1 rel
	rel=$(< include/config/kernel.release)
	mkdir -p "$out/boot"
	cp arch/x86/boot/bzImage "$out/boot/vmlinuz-$rel"
	make -s INSTALL_MOD_PATH="$out" modules_install
	rm -f "$out/lib/modules/$rel/build" "$out/lib/modules/$rel/source"
	depmod -b "$out" "$rel"
	# What building a module against it takes.
	# shellcheck disable=SC2016 # make's variable
	make -s run-command KBUILD_RUN_COMMAND='$(srctree)/scripts/package/install-extmod-build '"$out/headers"
	echo "$rel" > "$out/release.new"
}

main() {
	local dir=$build/kernels/debug tmp want
	if [[ -e $dir/release ]] && cmp -s "$config" "$dir/debug.config"; then
		return
	fi
	mapfile -t want < <(missing "${packages[@]}")
	[[ ${#want[@]} -eq 0 ]] || install "${want[@]}"
	rm -rf "$dir" "$dir.new"
	mkdir -p "$dir.new/src"
	tmp=$(cd "$dir.new" && pwd)
	fetch_source "$tmp/src"
	cd "$tmp/src/linux-source-$kver"
	configure
	echo "building the debug kernel; this takes a quarter of an hour or more, once"
	nice -n 10 make -s -j"$(nproc)" bzImage modules
	install_kernel "$tmp"
	cd /
	rm -r "$tmp/src"
	cp "$config" "$tmp/debug.config"
	mv "$tmp" "${tmp%.new}"
	# Where it exists, the directory is complete.
	mv "${tmp%.new}/release.new" "${tmp%.new}/release"
}

main

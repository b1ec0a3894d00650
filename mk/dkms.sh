#!/bin/bash
# What DKMS makes of the package PACKAGE (dm-sv-dkms) for kernel KVER: built in a
# copy of the guests' root that has the kernel's headers, as on a machine where
# they are installed. As root; for each package once.
# usage: dkms.sh BUILD_DIR KVER PACKAGE    prints where the archive is that DKMS's
#                                          own ldtarball takes
set -euo pipefail

build=$(cd "$1" && pwd)
kernel=$build/kernels/$2
package=$(realpath "$3")
release=$(< "$kernel/release")
root=$build/dkms-root
version=$(dpkg-deb -f "$package" Version)
archive=$build/dkms/$(sha256sum < "$package" | cut -c 1-16)-$release.dkms.tar.gz

# As the packages of the kernel and of its headers leave it, without the kernel.
make_root() {
	local modules=$root.new/lib/modules/$release
	rm -rf "$root" "$root.new"
	cp -a "$build/guest-root" "$root.new"
	mkdir -p "$modules"
	cp -a "$kernel/lib/modules/$release"/{build,source,modules.builtin,modules.builtin.modinfo,modules.order} "$modules"
	cp -a "$kernel"/usr/src/. "$root.new/usr/src"
	if [[ -d $kernel/usr/lib ]]; then cp -a "$kernel/usr/lib/." "$root.new/usr/lib"; fi
	echo "$want" > "$root.new/.dkms-version"
	mv "$root.new" "$root"
}

# The package's own scripts have DKMS build it. objtool wants /proc.
build_module() {
	cp "$package" "$root/root/package.deb"
	# shellcheck disable=SC2016 # variables of the inner shell
	unshare --mount bash -euc 'mount -t proc proc "$1/proc"
		exec env -u TMPDIR chroot "$1" sh -euc "dpkg --purge dm-sv-dkms; rm -rf /var/lib/dkms/dm-sv
			dpkg --install /root/package.deb
			dkms mktarball -m dm-sv -v $2 -k $3 --archive /root/made.tar.gz"' - "$root" "$version" "$release" >&2
	mkdir -p "${archive%/*}"
	mv "$root/root/made.tar.gz" "$archive"
}

want="$(cat "$build/guest-root/.version") $release"
[[ $(cat "$root/.dkms-version" 2> /dev/null) == "$want" ]] || make_root
[[ -e $archive ]] || build_module
echo "$archive"

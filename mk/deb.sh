#!/bin/bash
# Builds Debian packages into BUILD_DIR/deb, from a copy of the tree in which
# mk/debian is debian/. Unsigned.
# usage: deb.sh BUILD_DIR
set -euo pipefail

out=$(mkdir -p "$1/deb" && cd "$1/deb" && pwd)

# Objects of an earlier build are good as long as the rules are the same; make sees by their dates which are.
same_rules() {
	local path
	for path in Makefile mk daemon/rules.mk cli/rules.mk docs/man/rules.mk; do
		diff -qr -x changelog "$path" "$out/src/$path" > /dev/null 2>&1 || return 1
	done
}

copy_tree() {
	rm -rf "$out/kept"
	if same_rules; then mv "$out/src/build" "$out/kept"; fi
	rm -rf "$out"/src "$out"/*.deb "$out"/*.changes "$out"/*.buildinfo
	mkdir "$out/src"
	mk/files.sh | xargs -d '\n' cp -p --parents -t "$out/src"
	cp -rp "$out/src/mk/debian" "$out/src/debian"
	if [[ -d $out/kept ]]; then mv "$out/kept" "$out/src/build"; fi
}

copy_tree
# What make was told is not for the makes of the package's build.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
cd "$out/src"
dpkg-buildpackage -b -us -uc -j"$(nproc)"
lintian --fail-on error,warning --tag-display-limit 0 "$out"/*.changes

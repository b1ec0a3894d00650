#!/bin/bash
# Takes checkpatch.pl out of Debian's package of the kernel's source.
# usage: checkpatch.sh BUILD_DIR KVER
set -euo pipefail

out=$1/checkpatch
tmp=$out.new
rm -rf "$tmp"
mkdir -p "$tmp"
cd "$tmp"
apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "linux-source-$2"
dpkg-deb --fsys-tarfile ./linux-source-*.deb |
	tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
	tar -xJ --strip-components=1 --wildcards '*/scripts/checkpatch.pl' '*/scripts/spelling.txt' \
		'*/scripts/const_structs.checkpatch'
rm ./linux-source-*.deb
cd - > /dev/null
rm -rf "$out"
mv "$tmp" "$out"

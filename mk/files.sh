#!/bin/bash
# The files of the tree below PATHS (default: all of it), without what building
# leaves there (.gitignore says the same). Not asked of git: a bare machine has
# none, and git refuses a tree that another user owns.
# usage: files.sh [PATH...]
set -euo pipefail

cd "$(dirname "$0")/.."
[[ $# -gt 0 ]] || set -- .
find "$@" \( -path ./build -o -name .git -o -name __pycache__ \) -prune -o -type f ! -name '*.o' ! -name '*.ko' -printf '%p\n' |
	sed 's,^\./,,'

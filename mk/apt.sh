# shellcheck shell=bash
# apt, as mk/*.sh use it. Sourced.
mk=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DEBIAN_FRONTEND=noninteractive

# Waits for another apt on the machine rather than failing.
apt_get() {
	apt-get -q -y -o DPkg::Lock::Timeout=900 -o Acquire::Retries=3 "$@"
}

install() {
	apt_get install --no-install-recommends "$@"
}

# The packages among "$@" that are not installed.
missing() {
	local p
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null |
			grep -qx installed || echo "$p"
	done
}

# Whether the configured suites have each of packages "$@": python3-varlink, for
# one, is in bookworm-backports only.
all_known() {
	local p
	for p in "$@"; do
		[[ -n $(apt-cache madison "$p") ]] || return 1
	done
}

# Downloads packages "$@" to directory $1, as root without a sandbox user: the
# tree may be closed to it.
download() {
	(cd "$1" && shift && apt_get -o APT::Sandbox::User=root download "$@")
}

# Asked only where the configured suites lack something.
add_backports() {
	local out=/etc/apt/sources.list.d/svctl-backports.sources
	if apt-cache policy | grep -q 'n=bookworm-backports'; then
		return
	fi
	/usr/bin/python3 "$mk/backports.py" > "$out.new"
	mv "$out.new" "$out"
	apt_get update
}

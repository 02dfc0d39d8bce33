#!/bin/sh
# mmdebstrap's customize hook: install the first COUNT packages into a root that has the others, and see whether apt
# would install just these packages into an empty one. Usage: add.sh ROOT COUNT NEW... PACKAGE...
set -eu
root=$1 count=$2; shift 2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
number=0 new=
for name in "$@"; do
    [ "$number" -ge "$count" ] || new="$new $name"
    number=$((number + 1))
done
# shellcheck disable=SC2086 # names of packages
apt-get --yes --quiet --no-remove -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR -o DPkg::Options::=dpkg \
    -o DPkg::Chroot-Directory="$root" install $new
work=$root/tmp/farm-add
mkdir -p "$work"
: > "$work/empty"
query() { dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat="$1\n" | sort; }
# shellcheck disable=SC2016 # dpkg-query's variables
query '${Package} ${Version}' > "$work/there"
# It prints which archives it would fetch, each as NAME_VERSION_ARCHITECTURE.deb, the epoch's colon as %3a; to simulate
# the installation takes it five times as long.
mkdir -p "$work/archives/partial"
# shellcheck disable=SC2016,SC2046 # names of packages
apt-get --print-uris --yes -qq -o Dir::State::status="$work/empty" -o Dir::State::extended_states="$work/none" \
    -o Dir::Cache::archives="$work/archives/" -o APT::Sandbox::User=root install apt "$@" \
    $(query '${Package} ${Essential} ${Priority}' | awk '$2 == "yes" || $NF == "required" { print $1 }') > "$work/said"
sed -n "s/^'[^']*' \([^_ ]*\)_\([^_ ]*\)_[^_ ]*\.deb .*/\1 \2/p" "$work/said" | sed 's/%3a/:/' | sort > "$work/full"
if ! cmp -s "$work/there" "$work/full"; then
    diff "$work/full" "$work/there" | head -n 20
    echo "E: a full build would install other packages" >&2
    exit 1
fi
rm -rf "$work"

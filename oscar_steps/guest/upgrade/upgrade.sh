#!/bin/sh
# mmdebstrap's customize hook: bring packages of ROOT, and those in its pool FOLDER, to other versions. What is neither
# installed nor in the pool stays out. Usage: upgrade.sh ROOT FOLDER NAME=VERSION...
set -eu
root=$1 pool=$2; shift 2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
installed=
for each in "$@"; do
    # shellcheck disable=SC2016 # dpkg-query's variables
    state=$(dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat='${db:Status-Abbrev}\n' "${each%%=*}" \
        2> /dev/null || :)
    case $state in *ii*) installed="$installed $each" ;; esac
done
# shellcheck disable=SC2086 # names of packages
[ -z "$installed" ] || apt-get --yes --quiet --allow-downgrades -o Dir::Bin::dpkg=env \
    -o DPkg::Options::=--unset=TMPDIR -o DPkg::Options::=dpkg -o DPkg::Options::=--force-confnew \
    -o DPkg::Chroot-Directory="$root" install $installed
cd "$root$pool"
for each in "$@"; do
    for file in "${each%%=*}"_*.deb; do
        [ -e "$file" ] || continue
        rm "$file"
        apt-get --quiet -o APT::Sandbox::User=root download "$each"
    done
done
for name in *%3a*; do
    [ ! -e "$name" ] || mv "$name" "$(echo "$name" | sed 's/_[0-9]*%3a/_/')"
done
apt-ftparchive packages . > Packages
rm -f Release
apt-ftparchive release . > ../Release.new
mv ../Release.new Release

#!/bin/sh
# Let the package manager in ROOT know the pool in FOLDER, and nothing else; write the list of packages.
# Usage: finish.sh HOME ROOT FOLDER MANIFEST
set -eu
HOME=$1 root=$2 folder=$3 manifest=$4
export HOME
database=$(rpm --eval '%_dbpath')
line='%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE} %{ARCH}'
rpm --root "$root" --query --all --queryformat "$line\n" > "$HOME/packages"
find "$root$folder" -name '*.rpm' -print0 |
    xargs -0 -r rpm --dbpath "$HOME/nothing" --query --nosignature --queryformat "$line pool\n" --package >> "$HOME/packages"
grep -v '^gpg-pubkey ' "$HOME/packages" | LC_ALL=C sort > "$manifest"
# The host's rpm may write another kind of database, and elsewhere, than the guest's reads.
if [ -x "$root/usr/bin/rpmdb" ]; then
    rpmdb --root "$root" --exportdb > "$root/headers"
    chroot "$root" rpmdb --initdb
    chroot "$root" sh -c 'rpmdb --importdb < /headers'
    rm "$root/headers"
    rm -r "${root:?}$database"
fi
rm -rf "$root"/var/cache/dnf "$root"/var/cache/farm-dnf "$root"/var/lib/dnf "$root"/var/log/dnf*
for repositories in "$root/etc/yum.repos.d" "$root/etc/zypp/repos.d"; do
    [ -d "$repositories" ] || continue
    rm -f "$repositories"/*
    # Signatures were checked when the packages were downloaded.
    printf '[pool]\nname=pool\nbaseurl=file://%s\nenabled=1\ngpgcheck=0\n' "$folder" > "$repositories/pool.repo"
done
du -sh "$root" "$root$folder"

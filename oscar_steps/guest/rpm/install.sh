#!/bin/sh
# Install packages into ROOT. Usage: install.sh HOME ROOT OVERLAY RELEASE ARCHITECTURE PACKAGE...
# It runs in a namespace of its own: what is mounted here is gone when it ends.
set -eu
here=$(dirname "$0")
home=$1 root=$2 overlay=$3 release=$4 architecture=$5; shift 5
mkdir -p "$root/dev" "$root/proc" "$root/sys"
cp -a "$overlay/." "$root/"
# What scriptlets need, and no more: the host's own /dev would get the guest's owners and modes.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
sh "$here/dnf.sh" "$home" --installroot="$root" --releasever="$release" --forcearch="$architecture" install "$@"
# A package may have put its own file in the place of one of ours.
cp -a "$overlay/." "$root/"
sh "$here/kernel.sh" "$root"

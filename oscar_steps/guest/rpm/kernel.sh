#!/bin/sh
# The kernel in ROOT/boot, and its initrd, wherever its package has left them. Usage: kernel.sh ROOT
set -eu
root=$1
mkdir -p "$root/boot"
for modules in "$root"/usr/lib/modules/*/ "$root"/lib/modules/*/; do
    [ -d "$modules" ] || continue
    version=$(basename "$modules")
    kernel=$root/boot/vmlinuz-$version
    for file in vmlinuz Image; do
        [ -s "$kernel" ] || [ ! -e "$modules$file" ] || cp "$modules$file" "$kernel"
    done
    [ -s "$kernel" ] || continue
    initrd=initramfs-$version.img
    if [ ! -s "$root/boot/$initrd" ]; then
        chroot "$root" dracut --force --quiet "/boot/$initrd" "$version"
    fi
done

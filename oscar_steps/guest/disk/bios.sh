#!/bin/sh
# Make the disk: MBR; a small FAT partition from which SYSLINUX boots (its reads through the BIOS are three times as fast
# as GRUB's where the BIOS is emulated); the root file system, filled as it is made.
# Usage: disk.sh ROOT LABEL MIB MBR RAW QCOW2 FILE...   FILE: what SYSLINUX reads
set -eux
root=$1 label=$2 mib=$3 mbr=$4 raw=$5 qcow2=$6
shift 6
boot=64
start=$((1 + boot))
truncate -s "${mib}M" "$raw"
printf 'start=1MiB, size=%uMiB, type=e, bootable\nstart=%uMiB, type=83\n' "$boot" "$start" | sfdisk -q -X dos "$raw"
dd if="$mbr" of="$raw" bs=440 count=1 conv=notrunc status=none
mkfs.vfat -F 16 -n FARM-BOOT --offset 2048 "$raw" "$((boot * 1024))"
syslinux --install --offset 1048576 "$raw"
mcopy -i "$raw@@1M" "$@" ::
mkfs.ext4 -q -F -L "$label" -d "$root" -E "offset=$((start * 1048576)),lazy_itable_init=0,lazy_journal_init=0" \
    "$raw" "$(((mib - start) * 1024))k"
qemu-img convert -f raw -O qcow2 "$raw" "$qcow2"

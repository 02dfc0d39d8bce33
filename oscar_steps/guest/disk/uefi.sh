#!/bin/sh
# Make the disk: GPT; an EFI system partition from which systemd-boot starts the kernel; the root file system, filled as
# it is made. The boot loader is the image's own, for whatever machine that is: nothing is run, nothing is mounted.
# Usage: uefi.sh ROOT LABEL MIB RAW QCOW2 ENTRY FILE...   ENTRY: what systemd-boot reads; FILE: what that names
set -eux
root=$1 label=$2 mib=$3 raw=$4 qcow2=$5 entry=$6
shift 6
boot=128
start=$((1 + boot))
truncate -s "${mib}M" "$raw"
printf 'label: gpt\nstart=1MiB, size=%uMiB, type=uefi\nstart=%uMiB, type=linux\n' "$boot" "$start" | sfdisk -q "$raw"
mkfs.vfat -F 16 -n FARM-BOOT --offset 2048 "$raw" "$((boot * 1024))"
mmd -i "$raw@@1M" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
for loader in "$root"/usr/lib/systemd/boot/efi/systemd-boot*.efi; do
    name=${loader##*/systemd-boot}
    # The name by which a firmware finds it that has never seen this disk, e.g. BOOTAA64.EFI.
    mcopy -i "$raw@@1M" "$loader" "::/EFI/BOOT/BOOT$(echo "${name%.efi}" | tr "[:lower:]" "[:upper:]").EFI"
done
echo 'timeout 0' | mcopy -i "$raw@@1M" - ::/loader/loader.conf
mcopy -i "$raw@@1M" "$entry" ::/loader/entries/farm.conf
mcopy -i "$raw@@1M" "$@" ::
# The second table of a GPT takes the end of the disk.
mkfs.ext4 -q -F -L "$label" -d "$root" -E "offset=$((start * 1048576)),lazy_itable_init=0,lazy_journal_init=0" \
    "$raw" "$(((mib - start - 1) * 1024))k"
qemu-img convert -f raw -O qcow2 "$raw" "$qcow2"

#!/bin/sh
# What is left to do once all packages are there. Usage: finish.sh ROOT MACHINE-ID
set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_*
echo "$2" > "$root/etc/machine-id"
if [ -e "$root/etc/ssh/sshd_config" ]; then
    sed -i -e 's/^#\?PermitRootLogin .*/PermitRootLogin yes/' -e 's/^#\?UseDNS .*/UseDNS no/' \
        "$root/etc/ssh/sshd_config"
    grep -qx 'PermitRootLogin yes' "$root/etc/ssh/sshd_config"
fi
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf /etc/systemd/system/farm-seed.service "$root/etc/systemd/system/sysinit.target.wants/farm-seed.service"

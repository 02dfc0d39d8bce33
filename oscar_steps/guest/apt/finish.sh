#!/bin/sh
# What is left to do once all packages are there. Usage: finish ROOT FOLDER MACHINE-ID
set -eu
root=$1
rm -rf "$root"/etc/apt/sources.list.d/* "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root"/etc/ssh/ssh_host_*
echo "deb [trusted=yes] file:$2 ./" > "$root/etc/apt/sources.list"
chroot "$root" apt-get -o APT::Sandbox::User=root --quiet update
chroot "$root" apt-cache gencaches
echo "$3" > "$root/etc/machine-id"
if [ -e "$root/etc/ssh/sshd_config" ]; then
    sed -i -e 's/^#\?PermitRootLogin .*/PermitRootLogin yes/' -e 's/^#\?UseDNS .*/UseDNS no/' \
        "$root/etc/ssh/sshd_config"
    grep -qx 'PermitRootLogin yes' "$root/etc/ssh/sshd_config"
fi
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf /etc/systemd/system/farm-seed.service "$root/etc/systemd/system/sysinit.target.wants/farm-seed.service"
du -sh "$root" "$root$2"

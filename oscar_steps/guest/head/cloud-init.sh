#!/bin/sh
# What cloud-init runs first of all, before the network's services and sshd: unpack the farm's own seed over /, let root
# in by password, and let the serial console ask for a login only when sshd listens.
set -eu
place=$(mktemp -d)
mount -o ro "$(blkid -L cidata)" "$place"
tar -x -C / --no-same-owner --overwrite -f "$place/seed.tar"
umount "$place"
rmdir "$place"
hostname -F /etc/hostname
sh /root/farm/seed.sh
# Of several values sshd takes the first, and so does OSCAR's own check of this file.
sshd=/etc/ssh/sshd_config
sed -i '/^[[:space:]]*\(PermitRootLogin\|PasswordAuthentication\|UseDNS\)[[:space:]]/d' "$sshd"
{ printf 'PermitRootLogin yes\nPasswordAuthentication yes\nUseDNS no\n'; cat "$sshd"; } > "$sshd.farm"
cat "$sshd.farm" > "$sshd"
rm "$sshd.farm"
mkdir -p /etc/systemd/system/serial-getty@.service.d /tftpboot
printf '[Unit]\nAfter=ssh.service sshd.service\n' > /etc/systemd/system/serial-getty@.service.d/after-ssh.conf
systemctl daemon-reload

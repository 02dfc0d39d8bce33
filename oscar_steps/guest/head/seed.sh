#!/bin/sh
# Set root's password for this run, then forget it.
set -eu
chpasswd -c SHA512 -s 1000 < /root/farm/password
rm /root/farm/password

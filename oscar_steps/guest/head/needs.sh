#!/bin/sh
# What a head node must have before OSCAR comes. Usage: needs.sh POOL ADDRESS
# Prints a line for each thing that is missing, what it is and what to do about it, and 'end' when all has been looked at.
# POOL: the folder of packages to install from, '' where the image has none. ADDRESS: of the private network card.
# The shell does all of it itself: an emulated guest needs a tenth of a second for each process.
pool=$1 address=$2

program() { command -v "$1" >/dev/null 2>&1 || echo "has no $1; add $2 to its packages"; }

holds_address() {
    while read -r mark word _; do
        [ "$mark $word" != "|-- $address" ] || return 0
    done </proc/net/fib_trie
    return 1
}

while read -r word uid _; do
    [ "$word" != Uid: ] || [ "$uid" = 0 ] || echo "logs in the farm as user $uid; it has to be root"
done </proc/self/status
[ "${USER:-}" = root ] || echo "has '${USER:-}' in the variable USER of root's SSH sessions; its sshd has to set root"

read -r host </proc/sys/kernel/hostname
case $host in
    '' | localhost | localhost.*) echo "is called '$host'; its farm-seed.service or cloud-init has to set the seed's name" ;;
esac
while read -r number names; do
    case "$number $names " in
        "127.0.0.1 "*[\ \	]"${host%%.*}"[\ \	]*) echo "has its own name on the loopback; /etc/hosts has to be the seed's" ;;
    esac
done </etc/hosts

for file in /etc/ssh/sshd_config /usr/etc/ssh/sshd_config; do
    [ -r "$file" ] || continue
    permits=
    while read -r word value _; do
        case $word in [Pp]ermit[Rr]oot[Ll]ogin) permits=${permits:-$value} ;; esac
    done <"$file"
    [ "$permits" = yes ] || echo "has PermitRootLogin '$permits' in $file; it has to be yes"
    break
done

[ -x /sbin/ifconfig ] || echo "has no ifconfig; add net-tools to its packages"
program file file
program perl perl
program rsync rsync
program svn subversion
program tar tar
program pgrep procps
[ -r /etc/terminfo/l/linux ] || [ -r /lib/terminfo/l/linux ] || [ -r /usr/share/terminfo/l/linux ] ||
    [ -r /usr/share/terminfo/6c/linux ] || echo "does not know the terminal 'linux'; add ncurses-base to its packages"
[ ! -e /sys/fs/selinux/enforce ] || echo "has SELinux; add selinux=0 to its kernel_parameters"

if [ ! -d /tftpboot ]; then
    echo "has no folder /tftpboot; its pool_folder has to be in it"
elif [ -n "$pool" ]; then
    set -- "$pool"/*.deb "$pool"/*.rpm "$pool"/*/*.rpm
    for file; do [ ! -e "$file" ] || break; done
    [ -e "$file" ] || echo "has no package in $pool; its recipe needs a pool"
fi

n=0
until holds_address; do
    n=$((n + 1))
    [ $n -lt 10 ] || { echo "has no network card with the address $address; its recipe's network does not fit"; break; }
    sleep 1
done
echo end

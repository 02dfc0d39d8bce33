"""What is fetched from the cluster after a run, whatever its end: file names with shell wildcards (`**`: any depth)."""

from __future__ import annotations

_HEAD = (
    "{oscar_home}/oscarinstall.log*",
    "{oscar_home}/testing.log*",
    "{oscar_home}/testing/*.log",
    "/var/log/oscar/**",
    "{oscar_home}/tmp/*.clilog",
    "/root/farm/*.txt",
    "/var/log/systemimager/*",
    "/var/lib/systemimager/clients.xml",
    "/var/lib/systemimager/scripts/*.master",
    "/var/lib/systemimager/scripts/*.sh",
    "/var/lib/systemimager/scripts/hosts",
    "/etc/systemimager/rsyncd.conf",
    "/etc/dhcpd.conf",
    "/etc/dhcp3/dhcpd.conf",
    "/etc/dhcp/dhcpd.conf",
    "/var/lib/dhcp*/dhcpd.leases",
    "/var/lib/dhcp*/**/dhcpd.leases",
    "/tftpboot/pxelinux.cfg/default",
    "/tmp/oscar-install-rpmlist.*",
    "/home/oscartst/**/*.out",
    "/home/oscartst/**/*.err",
    "/etc/hosts",
    "/etc/exports",
    "/etc/oscar/*.conf",
    "/etc/os-release",
    "/etc/network/interfaces",
    "/var/log/syslog",
    "/var/log/messages",
)

NODE_GLOBS = (
    "/root/si_monitor.log",
    "/etc/fstab",
    "/etc/hosts",
    "/etc/hostname",
    "/var/log/syslog",
    "/var/log/messages",
)
"""Files of every compute node that answers. Its serial console is on the host anyway."""

HEAD_COMMANDS = (
    ("journal.txt", "journalctl --no-pager --boot --output=short-iso"),
    ("addresses.txt", "ip -brief address; ip route"),
    ("processes.txt", "ps -ef"),
    ("packages.txt", "dpkg-query -W 2>/dev/null || rpm -qa"),
    ("disks.txt", "df -h; cat /proc/mounts"),
)
"""File to write below `logs/`, and the shell line on the head node whose output goes there. None changes anything."""


def head_globs(oscar_home: str = "/opt/oscar") -> tuple[str, ...]:
    """Files of the head node. Most runs have only some of them: a glob that finds nothing is no error.

    The installer's log has had two places (below `oscar_home`, and `/var/log/oscar`); older logs carry `_N`.
    """
    return tuple(glob.replace("{oscar_home}", oscar_home.rstrip("/")) for glob in _HEAD)

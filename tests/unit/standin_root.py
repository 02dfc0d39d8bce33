"""The stand-in's command line in a throw-away root: the host's files below an overlay, in namespaces of its own.

What installs packages, starts services or speaks to nodes is replaced by stubs; the rest is the tree itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.faults import FaultBook

STANDIN = Path(__file__).resolve().parent.parent / "oscar_standin"
TREE = STANDIN / "tree"
FAULTS = FaultBook(STANDIN / "faults").faults


IFCONFIG = """#!/bin/sh
case ${1:-eth1} in
    eth1) cat <<'END'
eth1: flags=4163<UP,BROADCAST,RUNNING,MULTICAST>  mtu 1500
        inet 10.0.0.1  netmask 255.255.255.0  broadcast 10.0.0.255
        ether 52:54:00:00:00:01  txqueuelen 1000  (Ethernet)
END
    ;;
    *) echo "$1: error fetching interface information: Device not found" >&2; exit 1 ;;
esac
"""

# Writes down how it was called, then does as little as the caller can be content with.
RECORD = '#!/bin/sh\necho "${0##*/} $*" >>/out/commands\n'
STUBS = {
    "mksiimage": """
while [ $# -gt 0 ]; do
    case $1 in --path) path=$2 ;; --filename=*) list=${1#*=} ;; esac
    shift
done
if grep -vxE '#.*|[a-z0-9.-]+' "$list" || grep -q no-such-package "$list"; then
    echo "Package install failed" >&2
    exit 1
fi
mkdir -p "$path/etc" "$path/root"
""",
    "si_installpkgs": '! grep -q no-such-package "$1"\n',
    "si_install_services": """
mkdir -p /var/lib/systemimager/scripts /var/lib/sis
for name in rsyncd flamethrowerd bittorrent; do
    printf '#!/bin/sh\\nexit 0\\n' >/etc/init.d/systemimager-server-$name
    chmod 755 /etc/init.d/systemimager-server-$name
done
""",
    "mkdhcpconf": '[ "$1" = -o ]\n',
    "si_restart_dhcpd": "true\n",
    "si_mkrsyncd_conf": "true\n",
    "si_setup_pxe": "true\n",
    "si_mkautoinstallcd": "echo iso >/tmp/oscar_bootcd.iso\n",
}

SSH = r"""#!/bin/sh
while [ $# -gt 2 ]; do shift; done
mkdir -p /out/nodes
case $2 in
    hostname*mounts) echo "$1"; echo "/dev/sda6 / ext3 rw 0 0" ;;
    "cat > /etc/hosts") cat >"/out/nodes/$1.hosts" ;;
    *) sh -c "hostname() { echo $1; }; $2" ;;
esac
"""

INSIDE = r"""
set -e
mount -t tmpfs tmpfs "$SCRATCH/root"
cd "$SCRATCH/root"
mkdir upper work all
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work all
for dir in proc dev; do mount --rbind /$dir all/$dir; done
mount -t tmpfs tmpfs all/tmp
mkdir -p all/opt/oscar all/out all/root/farm
mount --bind "$SCRATCH/oscar" all/opt/oscar
mount --bind "$SCRATCH/out" all/out
rm -rf all/root/.ssh all/var/lib/sis all/var/lib/systemimager all/var/lib/oscar
cp -r "$SCRATCH/farm/." all/root/farm/
cp "$SCRATCH/ifconfig" all/usr/sbin/ifconfig
mkdir -p all/usr/local/sbin all/tftpboot/distro/debian-12-x86_64
cp "$SCRATCH/ssh" "$SCRATCH/ping" all/usr/local/sbin/
touch all/tftpboot/distro/debian-12-x86_64/bash_5.deb all/tftpboot/distro/debian-12-x86_64/gcc-12-base_12.deb
printf '127.0.0.1\tlocalhost\n10.0.0.1\theadnode.oscardomain headnode\n' >all/etc/hosts
mkdir -p all/etc/dhcp all/etc/ssh; echo 'PermitRootLogin yes' >all/etc/ssh/sshd_config
echo 12.11 >all/etc/debian_version
hostname headnode
set +e
# It is tee that writes the log, and it may outlive the installer: cat ends when tee has.
{
    env -i USER=root HOME=/root TERM=linux PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        OSCAR_STANDIN_LOOP_LIMIT=50 $EXTRA chroot all sh -c "$PRELUDE cd /opt/oscar; $COMMAND" </dev/null
    echo $? >"$SCRATCH/status"
} 2>&1 | cat
status=$(cat "$SCRATCH/status")
for path in etc/hosts etc/dhcp var/log/oscar var/lib/sis var/lib/systemimager var/lib/oscar root/.ssh; do
    [ ! -e "all/$path" ] || tar -C all -cf - "$path" | tar -C "$SCRATCH/out" -xf -
done
exit $status
"""

ANSWERS = {
    "selector.txt": "# no monitoring\nunselect ganglia\nselect maui\nselect no-such-thing\n",
    "build.txt": "# image\n1\noscarimage\n5\n/opt/oscar/oscarsamples/scsi.disk\n6\nbogus\n7\nshutdown\n8\nrubbish\n",
    "define.txt": "1\noscarimage\n2\noscardomain\n3\noscarnode\n4\n2\n5\n1\n7\n127.0.0.2\n"
    "8\n255.255.255.0\n9\n10.0.0.1\n10\n",
    "macs.txt": "# nodes\n52:54:00:00:00:01\n52:54:0:0:0:11\t# oscarnode1\n52:54:00:00:00:12\n52:54:00:00:00:12\n",
    "network.txt": "# by CD and by PXE\n3\nsystemimager-rsync\n4\n1\n/root/farm/macs.txt\n1\n8\n9\n10\n",
    "barrier": '#!/bin/sh\necho "barrier in $(pwd)"\n',
}


@dataclass(frozen=True)
class Ended:
    """What a run left: status, terminal, and the files that were copied out."""

    status: int
    terminal: str
    out: Path
    home: Path

    @property
    def log(self) -> str:
        return (self.home / "oscarinstall.log").read_text(encoding="utf-8")

    def commands(self) -> list[str]:
        path = self.out / "commands"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


Install = Callable[..., Ended]

COMMAND = (
    "./install_cluster --cli --opkgselector /root/farm/selector.txt --buildimage /root/farm/build.txt "
    "--defineclients /root/farm/define.txt --networkclients /root/farm/network.txt --bootscript /root/farm/barrier eth1"
)


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Run COMMAND (or another) in the throw-away root; answers given by name replace the good ones, None: no file."""

    def run(
        command: str = COMMAND, *, fault: str = "", extra: str = "", prelude: str = "", **answers: str | None
    ) -> Ended:
        home = tmp_path / "oscar"
        shutil.copytree(TREE, home)
        if fault:
            apply_fault(fault, home)
        for name, text in STUBS.items():
            (home / "sbin" / name).write_text(RECORD + text, encoding="utf-8")
        for name in ("out", "root", "farm"):
            (tmp_path / name).mkdir()
        replaced = {key.replace("_", "."): value for key, value in answers.items()}
        for name, answer in (ANSWERS | replaced).items():
            if answer is not None:
                (tmp_path / "farm" / name).write_text(answer, encoding="utf-8")
                (tmp_path / "farm" / name).chmod(0o755)
        for name, text in (("ifconfig", IFCONFIG), ("ssh", SSH), ("ping", "#!/bin/sh\n")):
            (tmp_path / name).write_text(text, encoding="utf-8")
            (tmp_path / name).chmod(0o755)
        environment = os.environ | {"SCRATCH": str(tmp_path), "COMMAND": command, "EXTRA": extra, "PRELUDE": prelude}
        done = subprocess.run(
            ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", INSIDE],
            env=environment,
            capture_output=True,
            timeout=100,
        )
        text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        return Ended(done.returncode, text, tmp_path / "out", home)

    return run


def apply_fault(name: str, tree: Path) -> None:
    with (STANDIN / "faults" / f"{name}.patch").open("rb") as patch:
        subprocess.run(["patch", "-p1", "--fuzz=0", "-d", str(tree)], stdin=patch, check=True, capture_output=True)

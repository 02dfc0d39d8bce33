"""A small mirror of RPM packages of our own, signed, served on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOOLS = ("rpmbuild", "rpmsign", "createrepo_c", "dnf", "gpg", "busybox")
_HEAD = "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {name}\nLicense: none\n{more}%description\n{name}\n"
_PACKAGES = {
    "filesystem": (
        "1",
        "",
        "mkdir -p %{buildroot}\ncd %{buildroot}\nmkdir -p usr/bin usr/lib etc/yum.repos.d var tmp\n"
        "ln -s usr/bin bin\nln -s usr/lib lib\n"
        "echo vendor > etc/yum.repos.d/vendor.repo\n",
        "/*\n",
    ),
    "shell": (
        "1",
        "Requires: filesystem\nProvides: /bin/sh\n",
        "mkdir -p %{buildroot}/usr/bin\ncp $(command -v busybox) %{buildroot}/usr/bin/busybox\n"
        "for name in sh cat echo test; do ln -s busybox %{buildroot}/usr/bin/$name; done\n",
        "/usr/bin/*\n",
    ),
    # It notes what its scriptlet could see. Like a real one it leaves its kernel among its modules.
    "kernel-tiny": (
        "6.0",
        "Requires: shell\n",
        "mkdir -p %{buildroot}/usr/lib/modules/6.0-1\necho the kernel > %{buildroot}/usr/lib/modules/6.0-1/vmlinuz\n",
        "/usr/lib/modules/6.0-1/vmlinuz\n%post -p /bin/sh\n"
        "test -c /dev/null && test -e /proc/self/status && cat /etc/fstab > /etc/seen-by-the-kernels-package\n",
    ),
    "dracut": (
        "1",
        "Requires: shell\n",
        "mkdir -p %{buildroot}/usr/bin\ncd %{buildroot}/usr/bin\ncat > dracut <<'END'\n#!/bin/sh\n"
        'echo "initrd $4" > "$3"\ncat /etc/dracut.conf.d/farm.conf >> "$3"\nEND\nchmod 755 dracut\n',
        "/usr/bin/dracut\n",
    ),
    "served": ("3", "Epoch: 2\nRequires: needed\n", "", ""),
    "needed": ("1", "BuildArch: noarch\n", "", ""),
}


class Mirror:
    """The mirror in a folder: `repository/` and the public `key`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository, self.key = folder, folder / "repository", folder / "key.asc"
        self._environment = {**os.environ, "GNUPGHOME": str(folder / "gnupg"), "LC_ALL": "C.UTF-8"}
        (folder / "gnupg").mkdir(mode=0o700)
        self._run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Mirror <m@example.org>", "rsa2048", "sign")
        self.key.write_text(self._run("gpg", "--armor", "--export"))
        try:
            for name, (version, more, install, files) in _PACKAGES.items():
                spec = folder / f"{name}.spec"
                head = _HEAD.format(name=name, version=version, more=more)
                spec.write_text(f"{head}%install\n{install}%files\n{files}")
                define = {"_topdir": str(folder), "_rpmdir": str(self.repository), "debug_package": "%{nil}"}
                define |= {"__os_install_post": "%{nil}", "_build_id_links": "none"}
                words = [word for key, value in define.items() for word in ("--define", f"{key} {value}")]
                self._run("rpmbuild", "-bb", "--quiet", *words, str(spec))
            packages = [str(path) for path in self.repository.rglob("*.rpm")]
            self._run(
                "rpmsign", "--define", "_gpg_name Mirror", "--define", "__gpg /usr/bin/gpg", "--addsign", *packages
            )
            self.index()
        finally:
            self._run("gpgconf", "--kill", "all")

    def index(self) -> None:
        """Make the index anew, and sign it."""
        self._run("createrepo_c", "--quiet", str(self.repository))
        repomd = self.repository / "repodata/repomd.xml"
        self._run("gpg", "--batch", "--yes", "--armor", "--detach-sign", str(repomd))
        self._run("gpgconf", "--kill", "all")

    def package(self, name: str) -> Path:
        (found,) = self.repository.rglob(f"{name}-*.rpm")
        return found

    def remove_signature(self, name: str) -> None:
        """From a package; the index knows it without, and is signed itself."""
        self._run("rpmsign", "--delsign", str(self.package(name)))
        self.index()

    def _run(self, *command: str) -> str:
        ran = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=100)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout


@contextmanager
def served(repository: Path, *, without: str = "no such name") -> Iterator[str]:
    """The address of the repository meanwhile; paths with `without` in them break off in the middle, as a mirror's
    that dies."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(repository))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if without in self.path:
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"half")
                self.close_connection = True
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Subversion by HTTPS: Apache with a certificate of an authority of our own, and the ways in which that goes wrong."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from tests.apache_head import apache_head

USER, PASSWORD, PASSPHRASE = "farm", "pass word & <%s> 'ü", "client secret %(x)s #1"
_NAMES = ("authn_core", "authn_file", "authz_user", "auth_basic", "ssl", "dav", "dav_svn")
_HOST = """\
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
SSLEngine on
SSLCertificateFile {root}/{certificate}.pem
{more}
<Location /svn>
DAV svn
SVNPath {repository}
AuthType Basic
AuthName "OSCAR's repository"
AuthUserFile {root}/users
{rule}
</Location>
</VirtualHost>
"""


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._signed(self.name, self.key, x509.CertificateBuilder(), constraint, 1)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        builder: x509.CertificateBuilder,
        constraint: x509.BasicConstraints,
        days: int,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = builder.subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).add_extension(constraint, critical=True)
        builder = builder.not_valid_before(now - datetime.timedelta(days=9))
        return builder.not_valid_after(now + datetime.timedelta(days=days)).sign(self.key, hashes.SHA256())

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *, days: int = 1) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate for a host or a person, which ends in `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = x509.CertificateBuilder().add_extension(names, critical=False)
        constraint = x509.BasicConstraints(ca=False, path_length=None)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._signed(subject, key, builder, constraint, days), key


class Apache:
    """Serves a repository in several ways, each at an address of its own: `url[WAY]`.

    'good': certificate of the authority in `authorities`, user and password. 'expired' and 'other': the certificate is
    old, or another host's. 'open': no password. 'client': only who has the certificate in `client` (PKCS#12).
    """

    def __init__(self, repository: Path) -> None:
        # Not below pytest's folders: Apache's own user may not look into them.
        self.root = Path(tempfile.mkdtemp(prefix="farm-tls-"))
        self.root.chmod(0o755)
        shutil.copytree(repository, self.root / "oscar")
        authority = Authority("an authority of this test's")
        self.authorities, self.client = self.root / "ca.pem", self.root / "client.p12"
        self.authorities.write_bytes(authority.pem())
        for name, host, days in (("good", "localhost", 1), ("expired", "localhost", -1), ("other", "other.example", 1)):
            self._keep(name, *authority.issue(host, days=days))
        certificate, key = authority.issue(USER)
        words = serialization.BestAvailableEncryption(PASSPHRASE.encode())
        self.client.write_bytes(pkcs12.serialize_key_and_certificates(b"farm", key, certificate, None, words))
        self.client.chmod(0o600)
        digest = ["openssl", "passwd", "-apr1", "-stdin"]
        hashed = subprocess.run(digest, input=f"{PASSWORD}\n".encode(), capture_output=True, check=True).stdout
        (self.root / "users").write_bytes(f"{USER}:".encode() + hashed)
        # Apache's own user reads them, whatever the umask was.
        for path in (self.root / "users", self.root / "oscar", *(self.root / "oscar").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.url: dict[str, str] = {}
        self._start()

    def _keep(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.root / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)

    def _start(self) -> None:
        ask = f"SSLVerifyClient require\nSSLCACertificateFile {self.authorities}"
        ways = {
            "good": ("good", "", "Require valid-user"),
            "expired": ("expired", "", "Require all granted"),
            "other": ("other", "", "Require all granted"),
            "open": ("good", "", "Require all granted"),
            "client": ("good", ask, "Require all granted"),
        }
        text = apache_head(self.root, *_NAMES) + "SSLSessionCache none\n"
        for way, (certificate, more, rule) in ways.items():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            self.url[way] = f"https://localhost:{port}/svn"
            text += _HOST.format(
                root=self.root, port=port, certificate=certificate, more=more, rule=rule, repository=self.root / "oscar"
            )
        (self.root / "apache.conf").write_text(text, encoding="utf-8")
        command = ["apache2", "-D", "FOREGROUND", "-f", str(self.root / "apache.conf")]
        self.process = subprocess.Popen(command, env={"PATH": f"{os.environ['PATH']}:/usr/sbin"}, cwd=self.root)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    log = self.root / "error.log"
                    raise RuntimeError(log.read_text() if log.exists() else "Apache did not start") from None
                time.sleep(0.05)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.root, ignore_errors=True)

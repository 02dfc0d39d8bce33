"""Checksums and signatures that are published beside tarballs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oscar_steps.errors import HostError
from oscar_steps.sources.tarballs.proofs import algorithm, digest_of, is_proof, published, signature_fault

NAME = "oscar-base-5.1.tar.gz"
SHA = "ab" * 32
MD5 = "cd" * 16


def test_files_with_checksums_are_known_by_their_names() -> None:
    assert algorithm(f"{NAME}.sha256", NAME) == "sha256"
    assert algorithm(f"{NAME}.md5", NAME) == "md5"
    assert algorithm("SHA256SUMS", NAME) == algorithm("sha256sum.txt", NAME) == "sha256"
    assert algorithm("MD5SUMS", NAME) == "md5"
    assert algorithm("oscar-base-5.0.tar.gz.md5", NAME) == algorithm("README", NAME) == ""
    assert is_proof(f"{NAME}.asc") and is_proof("MD5SUMS") and not is_proof(NAME)


@pytest.mark.parametrize(
    ("text", "kind", "own", "digest"),
    [
        (f"{SHA}  {NAME}\n", "sha256", False, SHA),
        (f"{SHA.upper()} *{NAME}\n", "sha256", False, SHA),
        (f"{SHA}  ./dist/{NAME}\n", "sha256", False, SHA),
        (f"SHA256 ({NAME}) = {SHA}\n", "sha256", False, SHA),
        (f"{MD5}  other.tar.gz\n{MD5[::-1]}  {NAME}\n", "md5", False, MD5[::-1]),
        (f"{MD5}\n", "md5", True, MD5),
        (f"{MD5}\n", "md5", False, ""),
        (f"{MD5}  {NAME}\n", "sha256", False, ""),
        (f"{SHA}  other.tar.gz\n", "sha256", True, ""),
        ("<html>404</html>\x00\xff", "sha256", True, ""),
    ],
)
def test_the_digest_of_a_tarball_is_found_in_every_form(text: str, kind: str, own: bool, digest: str) -> None:
    assert published(text, NAME, kind, own=own) == digest


def gpg(home: Path, *words: str) -> None:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def new_key(home: Path, who: str, keyring: Path, *, armor: bool = True) -> None:
    home.mkdir(mode=0o700)
    gpg(home, "--quick-generate-key", f"{who}@oscar.test", "ed25519", "sign", "never")
    gpg(home, *(["--armor"] if armor else []), "--output", str(keyring), "--export")


def test_a_signature_counts_only_if_it_is_of_this_file_and_of_a_key_in_the_keyring(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    new_key(ours, "release", tmp_path / "keys.asc")
    new_key(theirs, "stranger", tmp_path / "strangers.gpg", armor=False)
    file, signature = tmp_path / NAME, tmp_path / f"{NAME}.asc"
    file.write_bytes(b"the release")
    gpg(ours, "--armor", "--output", str(signature), "--detach-sign", str(file))
    assert signature_fault(file, signature, tmp_path / "keys.asc") == ""
    assert "not in the keyring" in signature_fault(file, signature, tmp_path / "strangers.gpg")
    file.write_bytes(b"another release")
    assert signature_fault(file, signature, tmp_path / "keys.asc") == "the signature is not of this file"
    signature.write_bytes(b"\x00\xffno signature")
    assert "no signature" in signature_fault(file, signature, tmp_path / "keys.asc")
    (tmp_path / "empty").write_text("")
    with pytest.raises(HostError, match=r"keyring .*/empty holds no key"):
        signature_fault(file, signature, tmp_path / "empty")


def test_digests_are_those_of_the_usual_programs(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert digest_of(tmp_path / "x", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert digest_of(tmp_path / "x", "sha256").startswith("ba7816bf8f01cfea")

"""The kind `rpm` without a mirror: what dnf is asked, and what a site has to set first. With one: tests/vm."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError, OutsideUnknown
from oscar_steps.images.build import kind_of
from oscar_steps.images.kinds import rpm
from oscar_steps.images.kinds.rpm import settings, urls
from oscar_steps.images.root import early_files
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.matrix.recipes import RpmRecipe, load_recipe

RECIPES = sorted((default_profiles() / "images").glob("*.toml"))
OF_RPM = [path for path in RECIPES if load_recipe(path).kind == "rpm"]
MIRROR = "https://mirror.example.org/linux/$releasever/"


def rpm_recipe(path: Path) -> RpmRecipe:
    recipe = load_recipe(path)
    assert isinstance(recipe, RpmRecipe)
    return recipe


def test_the_distributions_that_oscar_supports_today_have_recipes() -> None:
    names = {path.stem for path in RECIPES}
    wanted = {f"almalinux-{version}-{machine}" for version in (8, 9, 10) for machine in ("x86_64", "aarch64")}
    assert wanted | {"opensuse-15-x86_64", "opensuse-16-x86_64", "ubuntu-2004-x86_64"} <= names


@pytest.mark.parametrize("path", OF_RPM, ids=lambda path: path.stem)
def test_a_ready_recipe_is_complete_but_for_the_sites_mirror_and_says_that_it_is_unproven(path: Path) -> None:
    recipe = rpm_recipe(path)
    assert recipe.name == path.stem
    assert recipe.unproven
    assert recipe.mirror == ""
    assert 'mirror = "http' in path.read_text(), "the public mirror is named for who has none of their own"
    assert recipe.native == recipe.architecture
    assert recipe.boot == ("bios" if recipe.architecture == "x86_64" else "uefi")
    assert recipe.pool_folder == f"/tftpboot/distro/{path.stem}"
    assert "selinux=0" in recipe.kernel_parameters
    assert {"virtio_blk", "virtio_net", "ext4"} <= set(recipe.initrd_modules)
    assert set(recipe.packages) & {"kernel-core", "kernel-default-base"}
    assert len(set(recipe.pool)) == len(recipe.pool)
    assert "etc/dracut.conf.d/farm.conf" in early_files(recipe)
    kind_of(recipe).own_contents(recipe)


@pytest.mark.parametrize("path", OF_RPM, ids=lambda path: path.stem)
def test_dnf_is_asked_to_check_every_signature_and_knows_the_recipes_repositories_alone(path: Path) -> None:
    recipe = rpm_recipe(path).model_copy(update={"mirror": MIRROR})
    written = ConfigParser(interpolation=None)
    written.read_string(settings(recipe, Path("/w/dnf")))
    assert written["main"]["gpgcheck"] == "1"
    assert written["main"]["repo_gpgcheck"] == str(int(recipe.signed_metadata))
    assert written["main"]["reposdir"] == "/w/dnf/none"
    repositories = [written[name] for name in written.sections() if name != "main"]
    assert [each["baseurl"] for each in repositories] == list(urls(recipe))
    assert {each["gpgkey"] for each in repositories} == {" ".join(f"file:///w/dnf/keys/{key}" for key in recipe.keys)}
    for url in urls(recipe):
        assert url.startswith(f"https://mirror.example.org/linux/{recipe.release}/")
        assert "$" not in url


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A recipe of our own in a folder of its own."""
    images = tmp_path / "images"
    (images / "families").mkdir(parents=True)
    for name in ("almalinux-9-x86_64.toml", "families/rhel.toml"):
        shutil.copy(default_profiles() / "images" / name, images / name)
    return images / "almalinux-9-x86_64.toml"


def refused(recipe: RpmRecipe) -> list[str]:
    """What the host's check says, and the question for the image's key."""
    said = []
    for ask in (lambda: kind_of(recipe).check(recipe), lambda: asyncio.run(kind_of(recipe).outside(recipe))):
        with pytest.raises(ConfigError) as error:
            ask()
        said.append(error.value.sentence)
    return said


def test_a_recipe_without_a_mirror_says_where_to_set_it(copy: Path) -> None:
    said = refused(rpm_recipe(copy))
    assert said == 2 * [
        'the image almalinux-9-x86_64 has no mirror: set mirror = "https://..." in '
        "profiles/images/almalinux-9-x86_64.toml"
    ]


def test_a_key_travels_with_the_recipe_and_one_that_is_missing_is_named(copy: Path) -> None:
    copy.write_text(copy.read_text() + f'mirror = "{MIRROR}"\n')
    assert refused(rpm_recipe(copy)) == 2 * [
        "the image almalinux-9-x86_64 needs the public keys of its distribution: put them into profiles/images/keys "
        "as RPM-GPG-KEY-AlmaLinux-9"
    ]
    (copy.parent / "keys").mkdir()
    (copy.parent / "keys/RPM-GPG-KEY-AlmaLinux-9").write_text("a key\n")
    assert rpm_recipe(copy).key_texts == {"RPM-GPG-KEY-AlmaLinux-9": "a key\n"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('mirror = "mirror.example.org"', "mirror"),
        ('mirror = "https://mirror.example.org/a b"', "mirror"),
        ('mirror = "https://x/\\ngpgcheck=0"', "mirror"),
        ('repositories_add = ["a\\n[evil]"]', "repositories_add.0: "),
        ('module_platform = "el9"', "module_platform"),
        ("unproven = 5", "unproven"),
    ],
)
def test_what_could_change_dnfs_settings_is_refused_by_file_and_line(copy: Path, line: str, said: str) -> None:
    text = copy.read_text()
    setting = line.partition(" = ")[0]
    kept = "".join(each for each in text.splitlines(keepends=True) if not each.startswith(setting))
    copy.write_text(f"{kept}{line}\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(copy)
    number = len(copy.read_text().splitlines())
    assert error.value.sentence.startswith(f"{copy}:{number}: {said}")


def test_a_key_outside_its_folder_is_refused(copy: Path) -> None:
    copy.write_text(copy.read_text().replace('"RPM-GPG', '"../../RPM-GPG'))
    with pytest.raises(ConfigError, match="keys"):
        load_recipe(copy)


def _answering(answer: bytes, slowly: threading.Event | None = None) -> tuple[str, threading.Thread]:
    """A mirror that gives one answer, `slowly`: then a byte now and then, until that is set; and its thread."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with server, connection:
            connection.recv(4096)
            connection.sendall(answer)
            with suppress(OSError):
                while slowly and not slowly.wait(0.05):
                    connection.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{server.getsockname()[1]}", thread


def _asked(copy: Path, mirror: str) -> str:
    (copy.parent / "keys").mkdir()
    (copy.parent / "keys/RPM-GPG-KEY-AlmaLinux-9").write_text("a key\n")
    copy.write_text(copy.read_text() + f'mirror = "{mirror}"\nrepositories = ["one"]\n')
    with pytest.raises(OutsideUnknown) as error:
        asyncio.run(kind_of(rpm_recipe(copy)).outside(rpm_recipe(copy)))
    return error.value.sentence


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_a_mirror_that_answers_nonsense_is_said(copy: Path, answer: bytes) -> None:
    mirror, thread = _answering(answer)
    assert _asked(copy, mirror).startswith(f"the package index {mirror}/one/repodata/repomd.xml cannot be read: ")
    thread.join()


def test_a_mirror_with_a_port_that_is_none_is_said(copy: Path) -> None:
    assert "cannot be read: nonnumeric port" in _asked(copy, "http://127.0.0.1:port")


def test_a_mirror_that_sends_without_end_is_not_waited_for(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm, "_SECONDS", 1)
    over = threading.Event()
    mirror, thread = _answering(b"HTTP/1.0 200 OK\r\n\r\n", over)
    assert _asked(copy, mirror).endswith("cannot be read: timed out after 1 s waiting for its end")
    over.set()
    thread.join()

"""Image recipes: how the base image of a head node comes to be (`profiles/images/`).

A recipe file says what is its own; what all images of a distribution family need stands in `families/NAME.toml` beside
it. Both are put together when the file is read, so a recipe is complete wherever it goes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from oscar_steps.errors import ConfigError
from oscar_steps.guest import styles
from oscar_steps.matrix.model import Frozen
from oscar_steps.tomlfile import check_values, line_of, load_toml, mistake, read_text
from oscar_steps.words import Architecture

_NAME = r"^[a-z0-9][a-z0-9._-]*$"
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

# What programs get as words of their command lines: no word may be taken for an option, or for two words.
_Package = Annotated[str, Field(pattern=r"^[^\s,'\"-][^\s,'\"]*$")]
_Unit = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9@:_-][A-Za-z0-9@:_.\\-]*\."
        r"(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$"
    ),
]
_Parameter = Annotated[str, Field(pattern=r"^[!-~]+$")]
_Suite = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]

SEED_UNIT = "farm-seed.service"
"""What of ours in a head node takes what is personal to a run."""


class Recipe(Frozen):
    """What the recipes of all kinds say."""

    name: str = Field(pattern=_NAME)
    kind: str
    family: str = ""
    """The family file that filled it up; for people."""
    architecture: str
    """OSCAR's name of it: x86_64, i386, aarch64, ..."""
    disk_mib: int = Field(ge=512)
    console: _Parameter = "ttyS0,115200"
    """The serial console, as the kernel's parameter `console=` wants it."""
    network: str
    """How the distribution configures its network cards: a folder of `oscar_steps/guest/network/`."""
    ssh_unit: str = "ssh.service"
    unproven: bool = False
    """No run has shown yet that this image works: its cells have no labels by which they would run by themselves."""

    @classmethod
    def with_files(cls, value: dict[str, Any], _folder: Path) -> dict[str, Any]:
        """`value` with the contents of the files that it names, in the folder of the recipe: a job carries them."""
        return value

    @field_validator("network")
    @classmethod
    def _known_network(cls, value: str) -> str:
        return _one_of("network", value)


class PackageRecipe(Recipe):
    """An image that the distribution's package manager makes. `pool` is what goes, with all it depends on, into the
    local package repository of the head node, `pool_folder`, so that a run needs no network."""

    native: str
    """The distribution's own name of the architecture: amd64, arm64, ..."""
    boot: Literal["bios", "uefi"]
    """How the disk boots: a BIOS runs SYSLINUX, or UEFI systemd-boot (`oscar_steps/guest/disk/`)."""
    packages: tuple[_Package, ...]
    pool: tuple[_Package, ...] = ()
    pool_folder: str = Field(pattern=r"^/tftpboot(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$")
    masked_units: tuple[_Unit, ...] = ()
    initrd: str
    """What makes the initrd: a folder of `oscar_steps/guest/initrd/`."""
    initrd_modules: tuple[str, ...] = ()
    """Kernel modules of the small initrd; none: every module that the kernel may need."""
    kernel_parameters: tuple[_Parameter, ...] = ()

    @field_validator("masked_units")
    @classmethod
    def _not_needed(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for unit in (SEED_UNIT, info.data.get("ssh_unit")):
            if unit in value:
                raise ValueError(f"'{unit}' cannot be masked: a head node needs it; leave it out")
        return value

    @field_validator("initrd")
    @classmethod
    def _known_initrd(cls, value: str) -> str:
        return _one_of("initrd", value)


class BootstrapRecipe(PackageRecipe):
    """Debian and its like, by mmdebstrap."""

    kind: Literal["bootstrap"]
    suite: _Suite
    components: tuple[_Suite, ...] = ("main",)
    origin: str
    """What the distribution's repositories call themselves in their Release files."""
    pockets: tuple[_Suite, ...] = ("updates", "security")
    """Suites beside `suite` whose packages are newer, where the host's apt has them: `suite`-updates, ..."""


class CdromRecipe(Recipe):
    """What an installer makes that asks nothing, on a CD: it starts by itself, fills the disk, and powers off."""

    kind: Literal["cdrom"]
    architecture: Architecture
    url: str = Field(pattern=r"^(https?|file)://[^\s@]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the CD at `url`; one with another is never used."""
    memory_mib: int = Field(default=1024, ge=64)
    """What the installer has."""
    firmware: Literal["BIOS", "UEFI"] | None = None
    """None: as the architecture's machines mostly have it."""
    minutes: int = Field(default=60, ge=1)
    """How long the installer may take."""


class RpmRecipe(PackageRecipe):
    """AlmaLinux, Rocky, Fedora, openSUSE and their like, by dnf."""

    kind: Literal["rpm"]
    release: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """dnf's `$releasever`."""
    mirror: str = Field(default="", pattern=r"^$|^(https?|ftp|file)://[^\s'\"]+$")
    """The site's mirror of the distribution; '': the site has not set it yet."""
    repositories: tuple[Annotated[str, Field(pattern=r"^[^\s'\"]+$")], ...] = Field(min_length=1)
    """Folders below the mirror, or whole addresses, with dnf's `$releasever` and `$basearch`."""
    keys: tuple[Annotated[str, Field(pattern=_FILE)], ...] = Field(min_length=1)
    """Names of the files in `keys/`, beside the recipe, with the public keys that sign the packages."""
    key_texts: dict[str, str] = Field(default_factory=dict)
    """What stands in those files; not written in a recipe, but read with it."""
    signed_metadata: bool = True
    """Whether the repositories' indexes have signatures, too."""
    module_platform: str = Field(default="", pattern=r"^$|^platform:[a-z0-9]+$")
    """For a distribution with modules: which of them are its own, such as platform:el8."""

    @classmethod
    def with_files(cls, value: dict[str, Any], folder: Path) -> dict[str, Any]:
        """See `Recipe`. A key that is not there is missed when the image is built."""
        keys = value.get("keys")
        listed = keys if isinstance(keys, list) else []
        names = [name for name in listed if isinstance(name, str) and re.fullmatch(_FILE, name)]
        files = {name: folder / "keys" / name for name in names}
        return {**value, "key_texts": {name: read_text(file) for name, file in files.items() if file.is_file()}}


class CloudImageRecipe(Recipe):
    """A disk that the distribution's vendor has made for clouds: downloaded, not built. Its seed is cloud-init's."""

    kind: Literal["cloud-image"]
    network: Literal["cloud-init"] = "cloud-init"
    url: str = Field(pattern=r"^(https?|file)://[^\s@]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file at `url`; an image with another one is never used."""


ImageRecipe: TypeAlias = Annotated[
    BootstrapRecipe | CdromRecipe | CloudImageRecipe | RpmRecipe, Field(discriminator="kind")
]
"""A recipe of any kind."""

_KINDS: dict[str, type[Recipe]] = {
    "bootstrap": BootstrapRecipe,
    "cdrom": CdromRecipe,
    "cloud-image": CloudImageRecipe,
    "rpm": RpmRecipe,
}


def _one_of(style: str, value: str) -> str:
    if value not in styles(style):
        raise ValueError(f"there is no style '{value}'; there are: {', '.join(styles(style))}")
    return value


def load_recipe(path: Path) -> ImageRecipe:
    """The recipe in `path`, complete. Raises ConfigError with file and line, the family's where that is wrong."""
    text, own = load_toml(path)
    check_values(path, text, own)
    if "builder" in own:
        where = f"{path}:{line_of(text, ('builder',))}"
        raise ConfigError(f'{where}: builder: this setting is called kind now; write kind = "bootstrap"')
    value, family = own, None
    if "family" in own:
        family = _Family(path, text, own)
        value = family.merged()
    kinds = ", ".join(_KINDS)
    if "kind" not in value:
        raise ConfigError(f"{path}:1: kind: this setting is missing, and has no default; use one of {kinds}")
    if not isinstance(value["kind"], str) or value["kind"] not in _KINDS:
        file, lines = (path, text) if "kind" in own or family is None else (family.path, family.text)
        raise ConfigError(
            f"{file}:{line_of(lines, ('kind',))}: kind: there is no {value['kind']!r}; use one of {kinds}"
        )
    model = _KINDS[value["kind"]]
    value = model.with_files(value, path.parent)
    try:
        return model.model_validate(value)  # type: ignore[return-value]
    except ValidationError as error:
        location = error.errors()[0]["loc"]
        if family is not None:
            path, text, location = family.place_of(location, value)
        raise mistake(path, text, error, location) from None


_Location: TypeAlias = tuple[int | str, ...]
"""Of a setting, as pydantic gives it."""


class _Family:
    """A family file, and the recipe that it fills up."""

    def __init__(self, recipe: Path, text: str, own: dict[str, Any]) -> None:
        self._recipe, self._recipe_text, self._own = recipe, text, own
        folder = recipe.parent / "families"
        self.path = folder / f"{str(own['family'])[:100]}.toml"
        if not isinstance(own["family"], str) or "/" in own["family"] or not self.path.is_file():
            there_are = ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
            raise self._wrong(
                "family", f"there is no {own['family']!r} ({self.path} is missing); there are: {there_are}"
            )
        self.text, self._value = load_toml(self.path)
        check_values(self.path, self.text, self._value)

    def merged(self) -> dict[str, Any]:
        """Family, then what it says of the architecture, then the recipe. Lists of the first two are put together; a
        recipe replaces a list, or changes it by `LIST_add` and `LIST_remove`."""
        value = {key: item for key, item in self._value.items() if key != "architecture"}
        for key, item in self._of_architecture().items():
            value[key] = [*value[key], *item] if isinstance(item, list) and isinstance(value.get(key), list) else item
        name = str(self._own.get("name"))
        value = {key: item.replace("@NAME@", name) if isinstance(item, str) else item for key, item in value.items()}
        for key, item in self._own.items():
            target, _, verb = key.rpartition("_")
            if verb in ("add", "remove") and isinstance(value.get(target), list):
                value[target] = self._changed(key, value[target], item)
            else:
                value[key] = item
        return value

    def place_of(self, location: _Location, merged: dict[str, Any]) -> tuple[Path, str, _Location]:
        """The file that a setting of the merged recipe is from, its text, and where it stands there."""
        key = str(location[0])
        here = self._recipe, self._recipe_text
        if key in self._own or key not in merged:
            return *here, location
        more, rest = f"{key}_add", location[1:]
        added = self._own.get(more)
        added = added if isinstance(added, list) else []
        if not rest and added:
            return *here, (more,)
        if rest and isinstance(rest[0], int) and (item := merged[key][rest[0]]) in added:
            return *here, (more, added.index(item), *rest[1:])
        return self.path, self.text, location

    def _changed(self, key: str, there: list[Any], item: Any) -> list[Any]:
        if not isinstance(item, list) or not all(isinstance(each, str) for each in item):
            raise self._wrong(key, 'give a list, such as ["one", "two"]')
        if key.endswith("_add"):
            return [*there, *item]
        for each in item:
            if each not in there:
                raise self._wrong(key, f"{each!r} is not in the list of {self.path}; leave it out")
        return [each for each in there if each not in item]

    def _of_architecture(self) -> dict[str, Any]:
        known = self._value.get("architecture", {})
        if not isinstance(known, dict) or not all(isinstance(each, dict) for each in known.values()):
            what = "give a table of settings, such as [architecture.x86_64] on a line of its own and them below it"
            raise ConfigError(f"{self.path}:{line_of(self.text, ('architecture',))}: architecture: {what}")
        wanted = self._own.get("architecture")
        if wanted is None:
            raise ConfigError(f"{self._recipe}:1: architecture: this setting is missing, and has no default")
        if not isinstance(wanted, str) or wanted not in known:
            raise self._wrong(
                "architecture", f"{self.path} does not support {wanted!r}; it supports: {', '.join(known) or 'none'}"
            )
        of_it: dict[str, Any] = known[wanted]
        return of_it

    def _wrong(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self._recipe}:{line_of(self._recipe_text, (key,))}: {key}: {what}")

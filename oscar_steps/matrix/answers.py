"""The answers for OSCAR's installer (`profiles/answers/`), as a cluster definition."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from oscar_steps.errors import ConfigError, UserError
from oscar_steps.matrix.model import Frozen
from oscar_steps.oscar.answers import clilog
from oscar_steps.oscar.answers.answers import AnswerKind
from oscar_steps.tomlfile import line_of, load_toml, read_text, validate


class WrittenFile(Frozen):
    """An answer file that somebody wrote by hand: its name, for errors, and its text."""

    name: str
    text: str


class Answers(Frozen):
    """The answers for OSCAR's installer, as a cluster definition. The answer files are made from it.

    Field names follow the menus of OSCAR's command line. `selector` holds commands of the package selector, one a line.
    What is '' is not answered: OSCAR's own default stays.
    """

    oscar_home: str = "/opt/oscar"
    selector: tuple[str, ...] = ()
    image_name: str = "oscarimage"
    partition_file: str
    """Relative to `oscar_home`, or absolute."""
    ip_assignment: Literal["static", "dhcp", "replicant"] = "static"
    post_install_action: Literal["reboot", "shutdown"] = "reboot"
    install_mode: str = "systemimager-rsync"
    package_file: str = ""
    distro: str = ""
    repositories: str = ""
    uyok: bool = False
    domain: str = "oscardomain"
    base_name: str = "oscarnode"
    starting_number: int = 1
    padding: int = 0
    head_address: str = "10.0.0.1"
    first_address: str = "10.0.0.2"
    netmask: str = "255.255.255.0"
    gateway: str = ""
    """'': the head node."""
    oscar_repository: str = Field(default="", pattern=r"^$|^[a-z]+:/\S*( [^\s']+)+$")
    """What has OSCAR's packages beside its own tree, for `oscar_wizard`: 'URL SUITE COMPONENT...', as apt writes it."""
    tests: tuple[str, ...] = ("SSH ping test", "SSH server->node")
    """OSCAR's own tests that must have passed, as its output names them: one whose result is not seen is a failure."""
    files: dict[AnswerKind, WrittenFile] = Field(default_factory=dict)
    """Files that are used as they are, in place of generated ones; checked before the run."""


def load_answers(path: Path) -> Answers:
    """The answers in a TOML file, with the recordings and the files written by hand that it names (relative to it).

    `recordings = ["build.4711.clilog", ...]` gives every setting that the file itself does not; `files.network =
    "network.txt"` goes in place of a generated file. Raises ConfigError.
    """
    text, value = load_toml(path)
    recordings = value.pop("recordings", [])
    files = value.get("files", {})
    if not isinstance(recordings, list) or not all(isinstance(name, str) for name in recordings):
        raise ConfigError(f"{path}:{line_of(text, ('recordings',))}: recordings: give a list of file names")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        line = line_of(text, ("files",))
        raise ConfigError(f'{path}:{line}: files: give names of files, such as network = "network.txt"')
    try:
        read = [clilog.read_recording(str(path.parent / name), read_text(path.parent / name)) for name in recordings]
        value = clilog.definition(read, value) | value
    except UserError as error:
        raise ConfigError(error.sentence, hint=error.hint) from None
    if files:
        paths = {kind: path.parent / name for kind, name in files.items()}
        value["files"] = {kind: {"name": str(file), "text": read_text(file)} for kind, file in paths.items()}
    return validate(Answers, path, text, value)

"""OSCAR as it is installed since 2008: `make install`, `oscar-config`, `oscar_wizard`. The second flavour, as data.

It is driven by a script of the farm's, step after step, up to the wizard's first window. The script marks its steps on
the terminal, and `wizardlog` reads it. What a tree has of all this is read in the tree itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from oscar_steps.oscar import hook
from oscar_steps.oscar.answers.answers import INSTALLER_PATH
from oscar_steps.oscar.stages import InstallStage

FOLDERS = ("bin", "scripts")
"""Where the two programs are in a tree: since 2014 in `bin`, before in `scripts`."""
SCRIPT = f"{hook.DIRECTORY}/install-oscar"
SOURCE = f"{hook.DIRECTORY}/oscar-source"
"""The commit's files without what the version control has beside them."""

STEP_MARK = "@@farm-step"
NEEDS_MARK = "@@farm-needs"
"""Debian packages that OSCAR's own depend on, where no repository was named that has them."""
LONGEST_DEPENDENCY = 300
"""What is longer is no dependency that a person wrote."""
DEPENDS_MARK = "@@farm-depends"
"""What is installed before OSCAR's own files, and after it the word 'there'."""
MISSING_MARK = "@@farm-not-there"
"""A program that `make install` should have installed."""

DOING = {
    InstallStage.PREFLIGHT: "installing its own files (make install)",
    InstallStage.PLATFORM: "setting up the distribution (oscar-config --setup-distro)",
    InstallStage.WIZARD_PREP: "preparing the head node (oscar-config --bootstrap)",
    InstallStage.SELECT: "starting its wizard (oscar_wizard install)",
}
"""The stages of this flavour, in their order: what comes after them is behind the wizard's windows."""

FAILED = {
    InstallStage.PREFLIGHT: "OSCAR's own files could not be installed (make install)",
    InstallStage.PLATFORM: "OSCAR could not set up the distribution (oscar-config --setup-distro)",
    InstallStage.WIZARD_PREP: "OSCAR could not prepare the head node (oscar-config --bootstrap)",
    InstallStage.SELECT: "OSCAR's wizard did not start (oscar_wizard install)",
}
"""The first half of a failure's sentence; a colon and the cause follow."""

NEEDS_A_SCREEN = (
    "from here on this OSCAR needs a screen: `oscar_wizard install` opens a window for each step, from the selection "
    "of packages to the cluster's test, and takes no answers from files"
)
NO_SCREEN = re.compile(
    r"Your \\?\"DISPLAY\\?\" environment variable is not set|couldn't connect to display|"
    r"no display name and no \$DISPLAY"
)
SCREEN_CHECK = "display_check"
"""OSCAR's own check of the head node that asks for a screen."""

LOOPS = {
    "The password is not correct!!! Please try it again.": (
        "it asks for the root password of the database although nobody is there to answer"
    ),
}
"""Endless loops that OSCAR falls into, by a line that each repeats."""
REPEATS = 200
"""So many times, and it is certain."""

PACKAGES = {
    "AppConfig": "libappconfig-perl",
    "Tk": "perl-tk",
    "Tk/ROTextANSIColor": "libtk-textansicolor-perl",
    "XML/Simple": "libxml-simple-perl",
    "OSCAR/Database": "oda",
    "OSCAR/Database_generic": "oda",
    "OSCAR/ODA": "oda",
    "OSCAR/ODA_Defs": "oda",
    "OSCAR/oda": "oda",
    "OSCAR/PackMan": "packman",
    "OSCAR/PackManDefs": "packman",
    "OSCAR/Configurator": "oscar-configurator",
    "OSCAR/Configurator_backend": "oscar-configurator",
    "OSCAR/Configbox": "oscar-configurator",
    "OSCAR/Selector": "oscar-selector",
    "OSCAR/ORM": "orm",
    "SIS": "systeminstaller-oscar",
    "SystemInstaller": "systeminstaller-oscar",
    "SystemImager": "systemimager-common",
}
"""Perl modules (or folders of them) that come from packages beside OSCAR's own tree, and the Debian package of each."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a tree is installed in this flavour. `depends`: packages from elsewhere, as Debian's control files say."""

    makes_tarball: bool
    makes_config: bool
    verbose: bool
    depends: str


def way_of(files: Mapping[str, str]) -> Way | None:
    """The way of the tree with these `files` (path to text); None where it cannot be installed like this at all."""
    config = next((files[path] for folder in FOLDERS if (path := f"{folder}/oscar-config") in files), "")
    wizard = any(f"{folder}/oscar_wizard" in files for folder in FOLDERS)
    makefile = files.get("Makefile", "")
    if not wizard or "bootstrap" not in config or not re.search(r"^install\s*:", makefile, re.MULTILINE):
        return None
    return Way(
        # Since 2018 the modules compile only after this target has expanded the keywords in them.
        makes_tarball=re.search(r"^source_tarball\s*:", makefile, re.MULTILINE) is not None,
        makes_config="generate-config-file" in config,
        verbose=re.search(r"""["']verbose\b""", config) is not None,
        depends=", ".join(dict.fromkeys(_depends(files.get("debian/control", "")))),
    )


def _depends(control: str) -> Iterator[str]:
    """What the package `oscar` and those of its siblings that it needs depend on, but for these siblings."""
    fields: dict[str, list[str]] = {}
    for paragraph in re.split(r"\n\s*\n", control):
        name = re.search(r"^Package:\s*(\S+)", paragraph, re.MULTILINE)
        found = re.search(r"^Depends:[ \t]*(.*(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE)
        if name:
            fields[name[1]] = [" ".join(one.split()) for one in found[1].split(",")] if found else []
    wanted, seen = ["oscar"], {"oscar"}
    while wanted:
        for one in fields.get(wanted.pop(0), []):
            sibling = one.split()[0] if one else ""
            if sibling in fields:
                if sibling not in seen:
                    seen.add(sibling)
                    wanted.append(sibling)
            elif len(one) <= LONGEST_DEPENDENCY and re.fullmatch(r"[a-z0-9][a-z0-9+. ()|<>=~:-]*", one):
                yield one


def install_script(way: Way, *, oscar_home: str, distro: str, adapter: str, repository: str) -> str:
    """The script that installs this OSCAR as far as it goes without a screen. Its status is that of its last step.

    `repository`: what has OSCAR's other packages, as apt writes it ('URL SUITE COMPONENT...'); '': none.
    """
    lines = ["#!/bin/sh", "# Made by the farm: OSCAR's own way in, up to the wizard's first window."]
    steps = {
        InstallStage.PREFLIGHT: _files(way, oscar_home, repository),
        InstallStage.PLATFORM: _distribution(way, distro, adapter, repository),
        InstallStage.WIZARD_PREP: [f"{_config(way)} --bootstrap"],
        InstallStage.SELECT: ["oscar_wizard install"],
    }
    for stage, commands in steps.items():
        lines += [f"printf '\\n{STEP_MARK} {stage}\\n'", "(", "set -e", *commands, ")"]
        lines += ["status=$?", "[ $status -eq 0 ] || exit $status"]
    return "".join(f"{line}\n" for line in [*lines, "exit 0"])


def _files(way: Way, oscar_home: str, repository: str) -> list[str]:
    """OSCAR's own files, and before them what its packages depend on."""
    commands = []
    if repository:
        line = shlex.quote(f"deb [trusted=yes] {repository}")
        commands += [f"echo {DEPENDS_MARK}", f"echo {line} > /etc/apt/sources.list.d/oscar.list"]
        commands.append("apt-get --quiet update")
        if way.depends:
            commands.append(f"apt-get --quiet --yes --no-install-recommends satisfy {shlex.quote(way.depends)}")
        commands.append(f"echo {DEPENDS_MARK} there")
    elif way.depends:
        commands.append(f"echo {shlex.quote(f'{NEEDS_MARK} {way.depends}')}")
    # What Subversion keeps beside its files would go into OSCAR's tarball, too: minutes, where a machine is emulated.
    commands += [f"svn export --quiet --force {shlex.quote(oscar_home)} {SOURCE}", f"cd {SOURCE}"]
    commands += ["make source_tarball", "make -C tmp/oscar-*/ install"] if way.makes_tarball else ["make install"]
    check = f'command -v $program || {{ echo "{MISSING_MARK} $program"; exit 1; }}'
    return [*commands, f"for program in oscar-config oscar_wizard; do {check}; done"]


def _distribution(way: Way, distro: str, adapter: str, repository: str) -> list[str]:
    """OSCAR's configuration, and where the packages of its nodes' images come from."""
    commands = [f"{_config(way)} --generate-config-file"] if way.makes_config else []
    commands.append(f"sed -i 's/^OSCAR_NETWORK_INTERFACE.*/OSCAR_NETWORK_INTERFACE = {adapter}/' /etc/oscar/oscar.conf")
    pool = f" --use-oscar-repo {shlex.quote('+'.join(repository.split()))}" if repository else ""
    return [*commands, f"{_config(way)} --setup-distro {shlex.quote(distro)}{pool}"]


def _config(way: Way) -> str:
    return "oscar-config --verbose" if way.verbose else "oscar-config"


def script_command() -> str:
    """The shell line that runs the script; there is no DISPLAY, so that the wizard says where it needs one."""
    environment = {"PATH": INSTALLER_PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    environment |= {"TERM": "linux", "LC_ALL": "C", "OSCAR_VERBOSE": "5", "DEBIAN_FRONTEND": "noninteractive"}
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    return f"cd / && env -i {settings} {SCRIPT} </dev/null"

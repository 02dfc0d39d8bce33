"""The items of OSCAR's text menus, by label: what the farm answers, and the spellings under which it knows each item.

Numbers differ from one OSCAR to another (the network menu of 2006 has no 'Delete MACs', so all that follows moves up by
one); labels hardly do. So everything else here speaks of labels, and `menus` finds their numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class MenuStage(StrEnum):
    """The three steps of OSCAR's installer that have a menu."""

    BUILD = "build"
    DEFINE = "define"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Item:
    """One item. `number` is the one of June 2007; `needed`: every cluster answers it; `also`: other spellings."""

    label: str
    number: int
    takes_value: bool = False
    needed: bool = False
    also: tuple[str, ...] = ()

    @property
    def spellings(self) -> frozenset[str]:
        """All spellings, as `plain` makes them."""
        return frozenset(plain(text) for text in (self.label, *self.also))


def _value(label: str, number: int, *also: str, needed: bool = False) -> Item:
    return Item(label, number, takes_value=True, needed=needed, also=also)


def _action(label: str, number: int, *also: str, needed: bool = False) -> Item:
    return Item(label, number, needed=needed, also=also)


ITEMS: dict[MenuStage, tuple[Item, ...]] = {
    MenuStage.BUILD: (
        _value("Image name", 1, needed=True),
        _value("Package file", 2, "Package list", "RPM list"),
        _value("Distro", 3, "Distribution", "Target distribution"),
        _value("Package Repositories", 4, "Packages Directory", "Package Directory", "Package path"),
        _value("Disk Partition File", 5, "Partition file", "Disk file", needed=True),
        _value("IP Assignment Method", 6, "IP Assignment", "IP method", needed=True),
        _value("Post install action", 7, "Postinstall action", "Post installation action", needed=True),
        _action("Build Image", 8, "Build the image now", needed=True),
        _action("Quit", 9, "Exit", "Cancel"),
    ),
    MenuStage.DEFINE: (
        _value("Image Name", 1, needed=True),
        _value("Domain Name", 2, "Domain", needed=True),
        _value("Base Name", 3, "Basename", "Node base name", needed=True),
        _value("Number of Hosts", 4, "Number of clients", "Number of nodes", "Hosts", needed=True),
        _value("Starting Number", 5, "Starting host number", "Start number", needed=True),
        _value("Padding", 6, "Number padding"),
        _value("Starting IP", 7, "Starting IP address", "Start IP", "First IP", needed=True),
        _value("Subnet Mask", 8, "Netmask", "Network mask", needed=True),
        _value("Default Gateway", 9, "Gateway", needed=True),
        _action("Add Clients", 10, "Add Client", "Define Clients", needed=True),
        _action("Quit", 11, "Exit", "Cancel"),
    ),
    MenuStage.NETWORK: (
        _value("Import MACs from file", 1, "Import MACs", "Load MACs from file", "Import MAC addresses", needed=True),
        _action("Delete MACs", 2, "Delete MAC addresses"),
        _value("Installation Mode", 3, "Install mode", "Set install mode", "Set installation mode", needed=True),
        _action("Enable Install Mode", 4, "Enable installation mode", needed=True),
        _action("Dynamic DHCP update", 5, "Dynamic DHCP updates"),
        _action("Configure DHCP Server", 6, "Setup DHCP server", "Configure DHCP", needed=True),
        _action("Enable UYOK", 7, "Use your own kernel", "Enable use your own kernel"),
        _action("Build AutoInstall CD", 8, "Build auto install CD", "Build boot CD", needed=True),
        _action("Setup Network Boot", 9, "Setup PXE", "Setup PXE boot", needed=True),
        _action("Finish", 10, "Finished", "Done", needed=True),
    ),
}

ASSIGNMENT_METHODS = ("Automatically assign MACs", "Manually assign MACs", "Return to previous menu")
"""The question after an import, answered 1, 2 or 3; until February 2007 there is no 3, and all but 1 means 2."""

BY_HAND = "2"
"""'Manually': pairs of lines, a MAC address and a node's name, until a line `quit`."""

INSTALL_MODES = ("systemimager-rsync", "systemimager-multicast", "systemimager-bt")
"""Installation modes as OSCAR has spelled them until 2022; see `mode_of`."""

_OTHER_NAMES = {"flamethrower": "multicast", "bittorrent": "bt"}


def mode_of(word: str) -> str:
    """What an installation mode means, whichever OSCAR spells it: `Rsync` is systemimager-rsync. '' for no mode."""
    plain_word = word.lower().removeprefix("systemimager-")
    mode = f"systemimager-{_OTHER_NAMES.get(plain_word, plain_word)}"
    return mode if mode in INSTALL_MODES else ""


def item(stage: MenuStage, label: str) -> Item:
    """The item of `stage` with exactly this label. Raises KeyError: labels in our own code are spelled as above."""
    for one in ITEMS[stage]:
        if one.label == label:
            return one
    raise KeyError(f"{stage}: {label}")


# What follows a label in a menu's line is its value of the moment: `Image name: $vars{imgname}`, `Padding [0]`.
_LABEL_END = re.compile(r"""[:$@%\[(<=\\"';]|\.{2,}|\t|\s{3,}""")


def plain(label: str) -> str:
    """`label` as it is compared: without value, case, punctuation and articles."""
    words = re.sub(r"[^a-z0-9]+", " ", _LABEL_END.split(label.strip(), maxsplit=1)[0].lower()).split()
    text = " ".join(word for word in words if word not in ("the", "a", "an"))
    return text.replace("set up", "setup")


_BY_SPELLING = {stage: {text: one for one in items for text in one.spellings} for stage, items in ITEMS.items()}


def find(stage: MenuStage, label: str) -> Item | None:
    """The item that a menu's own text `label` stands for, if the farm knows it."""
    return _BY_SPELLING[stage].get(plain(label))


NUMBERED = re.compile(r"\s*[\[(]?(\d{1,2})\s?[\])\.:-]+\s*([^\s\d].*)")
"""A line of a menu: `3)  Distro: debian`, `3. Distro`, `[3] Distro`, `(3) Distro`, `3: Distro`, `3 - Distro`."""

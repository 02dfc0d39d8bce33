"""The checker of answer files: what OSCAR takes is clean, and whatever hangs, is dropped or shifts is a problem."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.oscar.answers.answers import AnswerKind, NodeAddress, render_answers
from oscar_steps.oscar.answers.check import AnswerFile, Expected, Problem, check_answers
from oscar_steps.oscar.answers.menuitems import ITEMS, MenuStage
from oscar_steps.oscar.answers.menus import LAYOUTS, MENUS_2007, Menu, Menus
from oscar_steps.words import NodeBoot

GOOD = {
    AnswerKind.SELECTOR: "# keep the Default set\nunselect ganglia\nselect -q torque\n\nlist all\n",
    AnswerKind.BUILD: "# image\n1\noscarimage\n5\n/opt/oscar/oscarsamples/scsi.disk\n6\nstatic\n7\nshutdown\n8\n",
    AnswerKind.DEFINE: "1\noscarimage\n2\noscardomain\n3\noscarnode\n4\n2\n5\n1\n7\n10.0.0.2\n8\n255.255.255.0\n"
    "9\n10.0.0.1\n10\n",
    AnswerKind.NETWORK: "3\nsystemimager-rsync\n4\n1\n/root/farm/macs.txt\n# all of them\n1\n8\n10\n",
    AnswerKind.MACS: "# in order\n52:54:00:00:00:11\t# oscarnode1\n52:54:0:0:0:12\n",
}


def check(changed: dict[AnswerKind, str | None], menus: Menus = MENUS_2007) -> tuple[Problem, ...]:
    texts = {kind: text for kind, text in (GOOD | changed).items() if text is not None}
    files = [AnswerFile(kind, f"{kind}.txt", text) for kind, text in texts.items()]
    return check_answers(*files, menus=menus, complete=True)


def test_the_worked_example_is_clean() -> None:
    assert check({}) == ()


IMPORT = "1\n/root/farm/macs.txt\n"
NETWORK, BUILD, DEFINE = AnswerKind.NETWORK, AnswerKind.BUILD, AnswerKind.DEFINE
SELECTOR, MACS = AnswerKind.SELECTOR, AnswerKind.MACS

HANGS: dict[str, tuple[AnswerKind, str | None, str]] = {
    "network file without Finish": (NETWORK, IMPORT + "1\n8\n", "network.txt:4: the file ends where"),
    "network file with CRLF": (
        NETWORK,
        "4\r\n10\r\n",
        "network.txt:1: there is a carr",
    ),
    "one CR in the network file": (
        NETWORK,
        IMPORT + "1\n8\n10\r\n",
        "network.txt:5: there is a carriage",
    ),
    "blank after Finish": (NETWORK, IMPORT + "1\n8\n10 \n", "network.txt:5: '10 ' has blanks"),
    "empty network file": (NETWORK, "", "network.txt:1: the file ends where a number"),
    "network file of comments": (NETWORK, "# 10\n", "network.txt:1: the file ends where a number"),
    "unknown installation mode": (NETWORK, "3\nrsync\n10\n", "network.txt:2: 'rsync' is not an installation mode"),
    "number in place of the mode": (NETWORK, "3\n4\n10\n", "network.txt:2: '4' is not an installation mode"),
    "end in place of the mode": (NETWORK, "4\n3\n", "network.txt:2: the file ends where an installation mode"),
    "unknown method": (NETWORK, IMPORT + "auto\n10\n", "network.txt:3: 'auto' is not a method"),
    "method left out": (NETWORK, IMPORT + "8\n10\n", "network.txt:3: '8' is not a method"),
    "end in place of the method": (
        NETWORK,
        IMPORT + "",
        "network.txt:2: the file ends where",
    ),
    "assignments by hand without quit": (
        NETWORK,
        IMPORT + "2\n52:54:00:00:00:11\noscarnode1\n",
        "network.txt:5: the file ends where a MAC address",
    ),
    "unknown image": (DEFINE, "1\nother\n10\n", "define.txt:2: there is no image 'other'"),
    "no selector file": (SELECTOR, None, "selector.txt:1: there is no such file: without --opkgselector"),
    "selector goes on to another file": (
        SELECTOR,
        "file /root/x\n",
        "selector.txt:1: OSCAR reads no line after",
    ),
    "no build file": (BUILD, None, "build.txt:1: there is no such file: without --buildimage"),
    "no define file": (DEFINE, None, "define.txt:1: there is no such file: without --defineclients"),
    "no network file": (NETWORK, None, "network.txt:1: there is no such file: without --networkclients"),
}


@pytest.mark.parametrize(("kind", "text", "words"), HANGS.values(), ids=HANGS.keys())
def test_every_hang_is_refused(kind: AnswerKind, text: str | None, words: str) -> None:
    problems = check({kind: text})
    assert next(str(problem)[: len(words)] for problem in problems if problem.hangs) == words


SHIFTS: dict[str, tuple[AnswerKind, str, str]] = {
    "build without 8": (BUILD, "5\n/x\n", "build.txt:2: the file ends without 8 ('Build Image')"),
    "build ends with Quit": (BUILD, "5\n/x\n9\n8\n", "build.txt:3: 'Quit' ends the step without an image"),
    "lines after Build": (BUILD, "5\n/x\n8\n7\nshutdown\n", "build.txt:4: '7' is never read"),
    "comment before a value": (BUILD, "1\n# name\noscarimage\n5\n/x\n8\n", "build.txt:2: OSCAR takes this comment"),
    "empty value": (BUILD, "5\n\n8\n", "build.txt:2: OSCAR sets 'Disk Partition File' to nothing"),
    "value left out": (BUILD, "1\n5\n/x\n8\n", "build.txt:2: 'Image name' is '5', a number: is its value missing"),
    "no value at the end": (
        BUILD,
        "5\n/x\n1\n",
        "build.txt:3: the file ends where the value of 'Image name'",
    ),
    "unknown number": (BUILD, "12\n5\n/x\n8\n", "build.txt:1: OSCAR of 2007 has no item 12"),
    "a word for a number": (BUILD, "name\n5\n/x\n8\n", "build.txt:1: 'name' stands where a number"),
    "more than a number": (
        BUILD,
        "8 now\n",
        "build.txt:1: '8 now' stands where a number of the",
    ),
    "only blanks": (BUILD, " \n5\n/x\n8\n", "build.txt:1: ' ' stands where a number"),
    "byte order mark": (BUILD, "\ufeff5\n/x\n8\n", "build.txt:1: '\ufeff5' stands where"),
    "very long number": (BUILD, "9" * 5000 + "\n5\n/x\n8\n", "build.txt:1: '999"),
    "wrong IP assignment": (BUILD, "5\n/x\n6\nbogus\n8\n", "build.txt:4: 'IP Assignment Method' is 'bogus'"),
    "wrong action": (BUILD, "5\n/x\n7\nhalt\n8\n", "build.txt:4: 'Post install action' is 'halt'"),
    "no partition file": (BUILD, "8\n", "build.txt:1: 'Disk Partition File' is not answered"),
    "relative path": (
        BUILD,
        "5\nscsi.disk\n8\n",
        "build.txt:2: 'Disk Partition File' is 'scsi.disk'; give",
    ),
    "blank in a value": (BUILD, "5\n/x\n1\nmy image\n8\n", "build.txt:4: Image name 'my image' is not one word"),
    "CRLF in build": (BUILD, "5\r\n/x\r\n8\r\n", "build.txt:1: there is a carriage return; it is garbage"),
    "no hosts": (DEFINE, "4\n0\n10\n", "define.txt:2: 'Number of Hosts' is 0; OSCAR needs 1 or more"),
    "hosts by a word": (DEFINE, "4\ntwo\n10\n", "define.txt:2: 'Number of Hosts' is 'two', which is not a number"),
    "far too many hosts": (DEFINE, f"4\n{'9' * 5000}\n10\n", "define.txt:2: 'Number of Hosts' is '999"),
    "start at 0": (DEFINE, "5\n0\n10\n", "define.txt:2: 'Starting Number' is 0"),
    "no address": (DEFINE, "7\nhere\n10\n", "define.txt:2: Starting IP is 'here', which is not an IPv4 address"),
    "no mask": (DEFINE, "8\n255.0.255.0\n10\n", "define.txt:2: Subnet Mask '255.0.255.0' is not a network mask"),
    "define ends with Quit": (DEFINE, "4\n2\n11\n", "define.txt:3: 'Quit' ends the step without a client"),
    "lines after Add Clients": (DEFINE, "4\n2\n10\n7\n10.0.0.9\n", "define.txt:4: '7' is never read"),
    "delete MACs": (NETWORK, "2\n1\n/root/farm/macs.txt\n1\n8\n10\n", "network.txt:1: 'Delete MACs' does nothing"),
    "unknown network number": (NETWORK, "11\n1\n/root/farm/macs.txt\n1\n8\n10\n", "network.txt:1: '11' is not an item"),
    "leading zero": (NETWORK, "04\n1\n/root/farm/macs.txt\n1\n8\n10\n", "network.txt:1: '04' is not an item"),
    "MAC file elsewhere": (NETWORK, "1\n/root/macs\n1\n8\n10\n", "network.txt:2: there is no '/root/macs' on the head"),
    "second import": (
        NETWORK,
        IMPORT + "1\n1\n/root/farm/macs.txt\n1\n8\n10\n",
        "network.txt:4: a sec",
    ),
    "no assignment": (NETWORK, IMPORT + "3\n8\n10\n", "network.txt:3: 'Return to previous menu' leaves"),
    "DHCP before the mode": (NETWORK, "6\n" + IMPORT + "1\n8\n10\n", "network.txt:1: OSCAR refuses and goes"),
    "no DHCP at all": (
        NETWORK,
        "5\n" + IMPORT + "1\n8\n10\n",
        "network.txt:6: with 'Dynamic DHCP update'",
    ),
    "no way to boot": (NETWORK, IMPORT + "1\n10\n", "network.txt:4: nodes have nothing to boot from"),
    "no import": (NETWORK, "4\n8\n10\n", "network.txt:3: no MAC address is imported"),
    "lines after Finish": (NETWORK, IMPORT + "1\n10\n8\n", "network.txt:5: '8' is never read"),
    "MAC by hand in lower case": (
        NETWORK,
        IMPORT + "2\n52:54:00:00:00:1a\noscarnode1\nquit\n8\n10\n",
        "network.txt:4: '52:54:00:00:00:1a' is not an unassigned MAC",
    ),
    "unknown node by hand": (
        NETWORK,
        IMPORT + "2\n52:54:00:00:00:11\nnode1\nquit\n8\n10\n",
        "network.txt:5: there is no node 'node1'",
    ),
    "half of the nodes by hand": (
        NETWORK,
        IMPORT + "2\n52:54:00:00:00:11\noscarnode1\nquit\n8\n10\n",
        "network.txt:6: only 1 of 2 nodes get a MAC address",
    ),
    "too few MACs": (MACS, "52:54:00:00:00:11\n", "macs.txt:1: 1 MAC addresses for 2 nodes: some nodes get none"),
    "too many MACs": (MACS, "52:54:0:0:0:1\n52:54:0:0:0:2\n52:54:0:0:0:3\n", "macs.txt:3: 3 MAC addresses for 2 nodes"),
    "MAC with dashes": (MACS, "52-54-00-00-00-11\n", "macs.txt:1: '52-54-00-00-00-11' is not a MAC address"),
    "MAC without colons": (MACS, "525400000011\n", "macs.txt:1: '525400000011' is not a MAC address"),
    "MAC of zeros": (MACS, "00:00:00:00:00:00\n", "macs.txt:1: 00:00:00:00:00:00 is dropped"),
    "MAC twice": (MACS, "52:54:0:0:0:11\n52:54:00:00:00:11\n", "macs.txt:2: 52:54:00:00:00:11 is in line 1 already"),
    "no MACs": (MACS, "", "network.txt:5: '/root/farm/macs.txt' has no MAC address"),
    "force quit": (SELECTOR, "\\q\n", "selector.txt:1: '\\q' makes the step fail"),
    "quit in the middle": (SELECTOR, "quit\nselect torque\n", "selector.txt:1: 'quit' has no effect in a file"),
    "unknown command": (SELECTOR, "install torque\n", "selector.txt:1: 'install torque' is not a command"),
    "two packages": (SELECTOR, "select torque maui\n", "selector.txt:1: 'select torque maui': 'select' takes one"),
    "core package": (SELECTOR, "unselect sis\n", "selector.txt:1: 'sis' is a core package"),
}


@pytest.mark.parametrize(("kind", "text", "words"), SHIFTS.values(), ids=SHIFTS.keys())
def test_what_is_dropped_silently_or_shifts_is_refused(kind: AnswerKind, text: str, words: str) -> None:
    found = [str(problem) for problem in check({kind: text})]
    assert [line for line in found if line.startswith(words)], found
    assert all("\n" not in line for line in found)


def test_a_single_file_is_judged_for_itself() -> None:
    assert check_answers(AnswerFile(DEFINE, "d", "1\nother\n10\n")) == ()
    assert check_answers(AnswerFile(NETWORK, "n", "1\n/elsewhere/macs\n1\n9\n10\n")) == ()


def test_assignments_by_hand_are_followed_to_their_end() -> None:
    by_hand = IMPORT + "2\n52:54:00:00:00:12\noscarnode1\n52:54:00:00:00:11\noscarnode2\nquit\n9\n10\n"
    assert check({NETWORK: by_hand}) == ()


EXPECTED = Expected(
    nodes=("oscarnode1", "oscarnode2"),
    macs=("52:54:00:00:00:11", "52:54:00:00:00:12"),
    first_address="10.0.0.2",
    boot="cdrom",
    image_name="oscarimage",
)


@pytest.mark.parametrize(
    ("kind", "old", "new", "words"),
    [
        (DEFINE, "4\n2\n", "4\n3\n", "define.txt:8: OSCAR would define 3 from oscarnode1 to oscarnode3; the virtual"),
        (DEFINE, "10.0.0.2", "10.0.0.7", "define.txt:12: 'Starting IP' is 10.0.0.7, but first_address says 10.0.0.2"),
        (
            MACS,
            "0:11",
            "0:19",
            "macs.txt:2: oscarnode1 would get 52:54:00:00:00:19; in the virtual cluster its",
        ),
        (NETWORK, "8\n", "9\n", "network.txt:9: nodes boot by cdrom, but nothing prepares that: add 8 ('Build Auto"),
        (BUILD, "oscarimage", "other", "build.txt:3: the image is called 'other', but image_name says 'oscarimage'"),
    ],
)
def test_files_must_be_for_the_very_cluster(kind: AnswerKind, old: str, new: str, words: str) -> None:
    def problems(texts: dict[AnswerKind, str]) -> list[str]:
        files = (AnswerFile(kind, f"{kind}.txt", text) for kind, text in texts.items())
        return [str(problem) for problem in check_answers(*files, expected=EXPECTED, complete=True)]

    assert problems(GOOD) == []
    assert old in GOOD[kind]
    found = problems(GOOD | {kind: GOOD[kind].replace(old, new, 1)})
    assert [line for line in found if line.startswith(words)], found


@st.composite
def any_menus(draw: st.DrawFn) -> Menus:
    """Menus as an OSCAR might have them: the same items, under any numbers."""

    def menu(stage: MenuStage) -> Menu:
        numbers = draw(st.permutations(range(1, 16)))
        return Menu(stage, {item.label: number for item, number in zip(ITEMS[stage], numbers, strict=False)})

    return Menus(menu(MenuStage.BUILD), menu(MenuStage.DEFINE), menu(MenuStage.NETWORK))


WORDS = st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True)


@given(
    menus=any_menus(),
    count=st.integers(1, 128),
    start=st.integers(1, 50),
    image=WORDS,
    base=WORDS,
    boot=st.sampled_from(["cdrom", "network"]),
    uyok=st.booleans(),
    optional=st.booleans(),
)
def test_what_is_rendered_for_a_valid_cluster_is_clean(
    menus: Menus,
    count: int,
    start: int,
    image: str,
    base: str,
    boot: NodeBoot,
    uyok: bool,
    optional: bool,
) -> None:
    nodes = [NodeAddress(f"{base}{n:03d}", f"52:54:00:00:00:{n:02x}") for n in range(start, start + count)]
    rendered = render_answers(
        image_name=image,
        partition_file="oscarsamples/scsi.disk",
        ip_assignment="dhcp",
        post_install_action="kexec",
        install_mode="systemimager-bt",
        domain="oscardomain",
        base_name=base,
        starting_number=start,
        padding=3,
        head_address="10.0.0.1",
        first_address="10.0.0.2",
        netmask="255.255.0.0",
        selector=("select torque",),
        nodes=nodes,
        boot=boot,
        uyok=uyok,
        package_file="oscarsamples/x.rpmlist" if optional else "",
        distro="debian-4-x86_64" if optional else "",
        repositories="/tftpboot/oscar/common-debs,/tftpboot/distro/debian-4-x86_64" if optional else "",
        menus=menus,
    )
    files = [AnswerFile(kind, f"{kind}.txt", rendered.files[kind.path()]) for kind in AnswerKind]
    expected = Expected(
        tuple(node.name for node in nodes), tuple(node.mac for node in nodes), "10.0.0.2", boot, image_name=image
    )
    assert check_answers(*files, menus=menus, expected=expected, complete=True) == ()


@given(
    kind=st.sampled_from(list(AnswerKind)),
    text=st.one_of(
        st.text(max_size=60), st.lists(st.sampled_from(["1", "2", "3", "8", "10", "quit", "", "x"])).map("\n".join)
    ),
)
def test_no_text_whatever_breaks_the_checker(kind: AnswerKind, text: str) -> None:
    for problem in check({kind: text}):
        assert problem.line >= 1


NODES_2006 = "52:54:00:00:00:11\noscarnode1\n52:54:00:00:00:12\noscarnode2\nquit\n"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (f"1\n/root/farm/macs.txt\n2\n{NODES_2006}2\nsystemimager-rsync\n3\n5\n8\n9\n", []),
        (
            "2\nsystemimager-rsync\n3\n1\n/root/farm/macs.txt\n1\n5\n8\n9\n",
            ["network.txt:6: this OSCAR assigns automatically in no order, so that nodes may swap: 2 assigns by hand"],
        ),
        (
            f"2\nsystemimager-rsync\n3\n1\n/root/farm/macs.txt\n2\n{NODES_2006}7\n9\n",
            ["network.txt:13: in this OSCAR nothing configures DHCP: add 5 before"],
        ),
    ],
    ids=["right", "automatically", "no DHCP"],
)
def test_in_the_oscar_of_2006_nodes_are_assigned_by_hand_and_dhcp_by_its_own_item(
    text: str, problems: list[str]
) -> None:
    files = [AnswerFile(kind, f"{kind}.txt", GOOD[kind]) for kind in (BUILD, DEFINE, MACS)]
    found = check_answers(*files, AnswerFile(NETWORK, "network.txt", text), menus=LAYOUTS[1])
    assert [str(problem) for problem in found] == problems

"""Recordings of interactive installations: read as labels, used again for another cluster, refused where they lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.errors import ConfigError, RecordingUnusable, UserError
from oscar_steps.matrix.answers import load_answers
from oscar_steps.oscar.answers.clilog import definition, read_recording, show

BUILD_KEY = """\
##########################################
#Select one
#-----------------------------------------
#1) Image name: oscarimage
#2) Package file: /home/oscar/oscarsamples/debian-4-x86_64.rpmlist
#3) Distro: debian-4-x86_64
#4) Package Repositories: /tftpboot/oscar/common-debs,/tftpboot/distro/debian-4-x86_64
#5) Disk Partition File: /home/oscar/oscarsamples/ide.disk
#6) IP Assignment Method: static
#7) Post install action: reboot
#8) Build Image
#9) Quit
##########################################
"""
DEFINE_KEY = """\
#1)  Image Name: oscarimage
#2)  Domain Name: oscardomain
#3)  Base Name: oscarnode
#4)  Number of Hosts: 1
#5)  Starting Number: 1
#6)  Padding: 0
#7)  Starting IP: 10.0.0.2
#8)  Subnet Mask: 255.255.255.0
#9)  Default Gateway: 10.0.0.1
#10) Add Clients
#11) Quit
"""


def mac_key(mode: str = "systemimager-rsync", first: int = 3) -> str:
    """The network menu as it is recorded; `first`: the number of 'Installation Mode' (2 in 2006)."""
    delete = "#2)  Delete MACs\n" if first == 3 else ""
    rest = ["Enable Install Mode", "Dynamic DHCP update:  true", "Configure DHCP Server", "Enable UYOK:  false"]
    rest += ["Build AutoInstall CD", "Setup Network Boot", "Finish"]
    lines = "".join(f"#{number})  {label}\n" for number, label in enumerate(rest, start=first + 1))
    return f"{'#' * 38}\n#1)  Import MACs from file\n{delete}#{first})  Installation Mode:  {mode}\n{lines}{'#' * 38}\n"


def fields(*recordings: tuple[str, str], **given: object) -> dict[str, object]:
    return definition([read_recording(name, text) for name, text in recordings], given)


def test_a_recording_is_shown_as_labels_with_what_was_kept() -> None:
    lines = show(read_recording("tmp/build.4711.clilog", f"{BUILD_KEY}1\nmyimage\n6\ndhcp\n8\n"))
    assert lines[:4] == [
        "tmp/build.4711.clilog (build)",
        "  Image name: myimage",
        "  IP Assignment Method: dhcp",
        "  Build Image",
    ]
    assert "  Disk Partition File: /home/oscar/oscarsamples/ide.disk   (the default, kept)" in lines


def test_a_build_becomes_a_definition_without_the_recorded_machine() -> None:
    assert fields(("build.1.clilog", f"{BUILD_KEY}1\nmyimage\n8\n")) == {
        "image_name": "myimage",
        "partition_file": "oscarsamples/ide.disk",
        "ip_assignment": "static",
        "post_install_action": "reboot",
    }


@pytest.mark.parametrize(
    ("typed", "field", "value"),
    [
        ("5\n\n8\n", "partition_file", "oscarsamples/ide.disk"),  # an empty answer keeps the old value
        ("6\nbogus\ndhcp\n8\n", "ip_assignment", "dhcp"),  # rejected, then corrected
        ("6\nbogus\nworse\ndhcp\n7\nshutdown\n8\n", "ip_assignment", "dhcp"),
        ("6\nbogus\nworse\ndhcp\n7\nshutdown\n8\n", "post_install_action", "shutdown"),
        ("6\nbogus\n\n8\n", "ip_assignment", "static"),  # rejected, then kept
        ("3\ndebain\ndebian-5-x86_64\n8\n", "distro", "debian-5-x86_64"),
        ("1\nfirst\n1\nsecond\n8\n", "image_name", "second"),
        ("99\nfoo\n\n1\nmyimage\n8\n", "image_name", "myimage"),  # rejected numbers
        ("2\n/srv/oscarsamples/my.rpmlist\n8\n", "package_file", "oscarsamples/my.rpmlist"),
        ("4\n/tftpboot/x,/tftpboot/y\n8\n", "repositories", "/tftpboot/x,/tftpboot/y"),
    ],
)
def test_what_was_typed_is_understood_as_the_menu_did(typed: str, field: str, value: str) -> None:
    assert fields(("build.1.clilog", BUILD_KEY + typed))[field] == value


def test_defaults_that_belong_to_the_recorded_machine_are_not_taken_over() -> None:
    found = fields(("build.1.clilog", f"{BUILD_KEY}8\n"), ("define.1.clilog", f"{DEFINE_KEY}4\n3\n10\n"))
    assert {"package_file", "distro", "repositories", "gateway"} & set(found) == set()
    assert (found["first_address"], found["starting_number"], found["padding"]) == ("10.0.0.2", 1, 0)


def test_a_definition_of_clients_leaves_their_number_to_the_cluster() -> None:
    found = fields(("define.1.clilog", f"{DEFINE_KEY}3\nn\n4\n16\n6\n2\n9\n10.0.0.9\n10\n"))
    assert (found["base_name"], found["padding"], found["gateway"]) == ("n", 2, "10.0.0.9")
    assert not {"count", "nodes"} & set(found)


def test_the_mode_that_was_not_recorded_is_read_off_the_next_menu() -> None:
    recording = mac_key() + "3\n" + mac_key("systemimager-bt") + "4\n" + mac_key("systemimager-bt") + "10\n"
    assert fields(("mac.1.clilog", recording)) == {"install_mode": "systemimager-bt"}


def test_the_numbers_are_those_of_the_recordings_own_menu() -> None:
    recording = mac_key(first=2) + "2\n" + mac_key("systemimager-bt", first=2) + "6\n" + mac_key(first=2) + "9\n"
    assert fields(("mac.1.clilog", recording)) == {"install_mode": "systemimager-bt", "uyok": True}


def test_imports_are_the_clusters_and_said_to_be_lost() -> None:
    recording = read_recording("mac.1.clilog", mac_key() + "1\n/root/macs\n" + mac_key() + "10\n")
    assert [str(one) for one in recording.answers] == [
        "Import MACs from file: /root/macs   (lost: how the MACs were assigned)",
        "Finish",
    ]
    assert definition([recording], {}) == {"install_mode": "systemimager-rsync"}


def test_kernel_toggled_twice_is_off() -> None:
    assert "uyok" not in fields(("mac.1.clilog", (mac_key() + "7\n") * 2 + mac_key() + "10\n"))


def test_the_selectors_commands_that_change_something_are_kept() -> None:
    typed = "list all\nunselect ganglia\n\nhelp\nslect torque\nselect torque\nquit\n"
    assert fields(("selector.1.clilog", typed)) == {"selector": ("unselect ganglia", "select torque")}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("build.1.clilog", "1\nx\n8\n", "build.1.clilog:1: the commented menu of the step 'build' is missing"),
        ("build.1.clilog", "", "build.1.clilog:1: the commented menu"),
        ("build.1.clilog", f"{BUILD_KEY}1\nx\n", "build.1.clilog:15: the recording ends without 'Build Image'"),
        ("build.1.clilog", f"{BUILD_KEY}9\n", "build.1.clilog:14: the recording ends without 'Build Image'"),
        ("define.1.clilog", f"{DEFINE_KEY}4\n", "define.1.clilog:12: the recording ends without 'Add Clients'"),
        ("define.1.clilog", f"{DEFINE_KEY}5\nmany\n10\n", "define.1.clilog:13: starting_number is 'many', which is no"),
        ("mac.1.clilog", mac_key() + "4\n", "mac.1.clilog:13: the recording ends without 'Finish'"),
        (
            "mac.1.clilog",
            mac_key("") + "3\n" + mac_key("") + "10\n",
            "mac.1.clilog:13: 'Installation Mode' was",
        ),
        ("selector.1.clilog", "file /root/x\n", "selector.1.clilog:1: 'file /root/x' cannot be used again"),
        ("selector.1.clilog", "\\q\n", "selector.1.clilog:1: '\\q' cannot be used again"),
        ("other.1.clilog", "x\n", "other.1.clilog: a recording is called selector, build, define or mac"),
    ],
)
def test_a_recording_that_lost_something_is_refused_with_the_reason(name: str, text: str, words: str) -> None:
    with pytest.raises(RecordingUnusable) as caught:
        fields((name, text))
    assert caught.value.sentence.startswith(words)


def test_what_was_lost_may_be_said_otherwise() -> None:
    recording = mac_key("") + "3\n" + mac_key("") + "10\n"
    assert fields(("mac.1.clilog", recording), install_mode="systemimager-bt") == {}


def test_recordings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RecordingUnusable, match=r"define\.1\.clilog:1: image_name is 'oscarimage', but build"):
        fields(("build.1.clilog", f"{BUILD_KEY}1\nmine\n8\n"), ("define.1.clilog", f"{DEFINE_KEY}10\n"))


@given(name=st.sampled_from(["selector", "build", "define", "mac"]), text=st.text(max_size=80), key=st.booleans())
def test_no_recording_whatever_breaks_the_reader(name: str, text: str, key: bool) -> None:
    keys = {"build": BUILD_KEY, "define": DEFINE_KEY, "mac": mac_key()}
    try:
        fields((f"{name}.1.clilog", (keys.get(name, "") if key else "") + text))
    except UserError as error:
        assert "\n" not in error.sentence


def test_an_answers_file_names_recordings_and_goes_before_them(tmp_path: Path) -> None:
    (tmp_path / "build.1.clilog").write_text(f"{BUILD_KEY}1\nmine\n7\nshutdown\n8\n")
    (tmp_path / "mac.1.clilog").write_text(mac_key("systemimager-bt") + "10\n")
    path = tmp_path / "answers.toml"
    path.write_text('recordings = ["build.1.clilog", "mac.1.clilog"]\nimage_name = "ours"\n')
    answers = load_answers(path)
    assert (answers.image_name, answers.post_install_action) == ("ours", "shutdown")
    assert (answers.install_mode, answers.partition_file) == ("systemimager-bt", "oscarsamples/ide.disk")


def test_an_answers_file_carries_files_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "network.txt").write_text("10\n")
    path = tmp_path / "answers.toml"
    path.write_text('partition_file = "x"\n[files]\nnetwork = "network.txt"\n')
    file = load_answers(path).files["network"]  # type: ignore[index]
    assert (file.name, file.text) == (str(tmp_path / "network.txt"), "10\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('partition_file = "x"\nrecordings = "build.1.clilog"\n', r"answers\.toml:2: recordings: give a list"),
        ('partition_file = "x"\nfiles = 3\n', r"answers\.toml:2: files: give names of files"),
        ('partition_file = "x"\n[files]\nnetwork = 3\n', r"answers\.toml:2: files: give names of files"),
        ('partition_file = "x"\n[files]\nnetz = "x.txt"\n', r"answers\.toml:\d: files\.netz.*"),
        ('partition_file = "x"\n[files]\nnetwork = "none.txt"\n', r"none\.txt: there is no such file"),
        ('recordings = ["none.clilog"]\n', r"none\.clilog: there is no such file"),
        ('recordings = ["build.2.clilog"]\n', r"build\.2\.clilog:1: the commented menu"),
    ],
)
def test_mistakes_in_an_answers_file_are_told_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "build.2.clilog").write_text("8\n")
    (tmp_path / "x.txt").write_text("\n")
    path = tmp_path / "answers.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_answers(path)

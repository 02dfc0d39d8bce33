"""A run becomes a case: nothing that tells where it was is left, and what the farm says of it stays the same."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from oscar_steps.errors import ConfigError, HostError, UserError
from oscar_steps.oscar.anonymous import LEFT_OUT, Anonymiser
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.record.rejudge import TERMINAL_FILE
from oscar_steps.testdriver.record.transcript import CASE_FILE, read_case, record
from tests.unit.testdriver.record.test_recompute import RUNS, execute, installing
from tests.unit.testdriver.record.test_transcripts import Case, cases, edited, forms, good, read, written

TELLING = (
    "--> Hostname: brunhilde",
    "--> DNS domain name: physik.uni-nirgendwo.de",
    "USER=(hagen) should not be here, /home/hagen/.ssh is",
    "Setting up mail for hagen@brunhilde.physik.uni-nirgendwo.de",
    "inet addr:141.2.3.4  Bcast:141.2.3.255  Mask:255.255.255.0",
    "Get:1 http://gunther:kr1emhild@mirror.nibelung.com:8080/secret-project/pool/x.deb bookworm",
    "HWaddr 00:1B:21:3c:4d:5e and 01-00-1b-21-3c-4d-5e",
    "mounted fe80::21b:21ff:fe3c:4d5e from /srv/worms/hoard/disks",
    "the database password: 'rheingold'",
    "GRANT ALL ON oscar.* TO oscar@localhost IDENTIFIED BY 'tarnkappe'",
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDdrache hagen@brunhilde",
    "-----BEGIN RSA PRIVATE KEY-----",
    "MIIEpAIBAAKCAQEAdrachenblut",
    "-----END RSA PRIVATE KEY-----",
    "Mon Nov 30 17:42:01 CET 2026, 2026-11-30 17:42:02, 2026-11-30T17:42:03Z, Nov 30 17:42:04",
    "BRUNHILDE says that brunhilde-eth1 is up",
)
NEVER = (
    *("brunhilde", "physik", "nirgendwo", "hagen", "141.2.3", "gunther", "kr1emhild", "nibelung", "secret-project"),
    *("1b:21", "1B:21", "1b-21", "21ff", "worms", "hoard", "rheingold", "tarnkappe", "drache", "2026", "17:42"),
)


def anonymous(lines: list[str] | tuple[str, ...], *names: str, home: str = "/opt/oscar") -> list[str]:
    one = Anonymiser(names, home)
    for line in lines:
        one.learn(line)
    return [one.line(line) for line in lines]


def test_nothing_that_tells_where_it_was_is_left() -> None:
    text = "\n".join(anonymous(TELLING))
    assert not [word for word in NEVER if word.lower() in text.lower()], text
    assert "Mask:255.255.255.0" in text and "/pool/x.deb" not in text.replace("/path1/x.deb", "")


@pytest.mark.parametrize(
    "line",
    [
        "mysqladmin -u root password 'S3cretPw'",
        "SET PASSWORD FOR root@localhost = PASSWORD('S3cretPw')",
        "mysql -u root -pS3cretPw oscar",
        "useradd --password S3cretPw oscartst",
        "Password for root: S3cretPw",
        "rootpw S3cretPw",
        "rootpw --iscrypted S3cretPw",
        "pw=S3cretPw",
        "root:abJnggxhB/yWI:14000:0:99999:7:::",
        "passwd S3cretPw",
        "curl -u bob:S3cretPw http://mirror/x",
        "pwd=S3cretPw",
        'DB_PWD="S3cretPw"',
        "SECRET_ACCESS_KEY=S3cretPw",
        "private_key: S3cretPw",
        "credentials=S3cretPw",
        "Authorization: Basic S3cretPw",
        "echo root:S3cretPw | chpasswd",
    ],
)
def test_a_line_that_may_hold_a_secret_is_left_out(line: str) -> None:
    assert anonymous([line]) == [LEFT_OUT]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("cannot read /tftpboot/pxelinux.cfg/8D020304", "cannot read /tftpboot/pxelinux.cfg/address1"),
        ("pxelinux.cfg/8D020304 is made", "pxelinux.cfg/address1 is made"),
        ("pxelinux.cfg/default and /tftpboot/pxelinux.cfg", "pxelinux.cfg/default and /tftpboot/pxelinux.cfg"),
        ("eth0_141.2.3.4", "eth0_192.0.2.1"),
        ("hwaddr 001b.213c.4d5e", "hwaddr 5254.0000.0001"),
        ("ssh brunhilde uptime", "ssh host1 uptime"),
        ("scp -q hagen@brunhilde:x y; brunhilde is up", "scp -q user1@host1:x y; host1 is up"),
        ("ssh-check.pl: ssh to the nodes, ssh oscarnode1 date", "ssh-check.pl: ssh to the nodes, ssh oscarnode1 date"),
        ("/tmp/hagen-private/x.log", "/path1/x.log"),
        ("PATH=/bin:/srv/worms/hoard", "PATH=/bin:/path1"),
        ("/tmp/oscar_bootcd.iso", "/tmp/oscar_bootcd.iso"),
        ("http://mirror/x/y.deb", "http://host1.example.org/path1/y.deb"),
        ("http://mirror.nibelung.com/x/y.deb", "http://host1.example.org/path1/y.deb"),
    ],
)
def test_what_tells_where_it_was_is_replaced_by_its_like(line: str, left: str) -> None:
    assert anonymous([line]) == [left]


@pytest.mark.parametrize("piece", ["mysql ", "mysql -", "ssh -a ", "a@", "pw ", "x:Ab", "password ", "curl -u "])
def test_a_very_long_line_takes_no_longer_than_its_length(piece: str) -> None:
    started = time.process_time()
    anonymous([piece * (60_000 // len(piece))])
    assert time.process_time() - started < 5


@given(st.permutations(TELLING), st.sets(st.integers(0, len(TELLING) - 1)))
def test_the_order_of_the_lines_gives_nothing_away(lines: list[str], gone: set[int]) -> None:
    there = [line for at, line in enumerate(TELLING) if at not in gone]
    text = "\n".join(anonymous([line for line in lines if line in there and "KEY" not in line and "MII" not in line]))
    # A host's name can be known only where some line says that it is one.
    known = [word for word in NEVER if word not in ("brunhilde", "hagen", "physik", "nirgendwo", "drache")]
    assert not [word for word in known if word.lower() in text.lower()]


OCTET = st.integers(1, 254)
ADDRESS = st.tuples(OCTET.filter(lambda n: n != 127), OCTET, OCTET, OCTET).map(lambda t: ".".join(map(str, t)))
MAC = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
HOST = st.from_regex(r"[a-z]{4,9}\.[a-z]{5,9}\.(com|org|edu|de)", fullmatch=True)
IPV6 = st.ip_addresses(v=6, network="fe80::/16").map(str)
AROUND = st.sampled_from(
    ["{}", "at {}, said", "({})", "'{}'", "host={}", "<{}>", "{}: up", "[{}]", "addr:{}", "/var/log/{}/x", "to {}."]
)


@given(st.lists(st.tuples(AROUND, ADDRESS | MAC | HOST | IPV6), min_size=1, max_size=20))
def test_no_address_and_no_full_name_is_left_and_the_same_become_the_same(told: list[tuple[str, str]]) -> None:
    said = anonymous([around.format(what) for around, what in told])
    made: dict[str, str] = {}
    for (around, what), line in zip(told, said, strict=True):
        before, after = around.split("{}")
        inner = line.removeprefix(before).removesuffix(after)
        if what != inner:  # it may be one of the documentation's own already
            assert what not in line
        assert made.setdefault(what, inner) == inner
    assert len(set(made.values())) == len(made)


@given(st.text(max_size=200))
def test_any_line_is_made_anonymous_and_stays_one_line(line: str) -> None:
    one = Anonymiser()
    one.learn(line)
    assert one.line(line).count("\n") == line.count("\n") or one.line("x") in ("x", LEFT_OUT)


@pytest.mark.parametrize(
    "line",
    [
        "Undefined subroutine &OSCAR::Env::oscar_log called at /opt/oscar/lib/OSCAR/Env.pm line 127.",
        "Can't locate SIS/DB.pm in @INC (@INC contains: /usr/lib/systeminstaller /etc/perl) at ./main_cli line 23.",
        '--> Running: "cd /opt/oscar/scripts && ./wizard_prep"',
        "ERROR: The distribution repository /tftpboot/distro/debian-12-x86_64 looks empty!",
        "Can't use 'defined(@array)' (Maybe you should just omit the defined()?) at ./wizard_prep line 421.",
        "--> Making sure there is an ODA database password",
        "Changing the password",
        "su: No passwd entry for user 'oscartst'",
        "updating /etc/passwd on the nodes",
        "[PASS]     a.apt",
        'Can\'t exec "/root/farm/hook": Permission denied at ./main_cli line 148.',
        "100 % [==========]Image build finished",
        "rapt 1.1~1gv3 all, DB::connect, HTTP/1.1, 12:30:45, 127.0.0.1 localhost localhost.localdomain",
    ],
)
def test_what_is_the_same_everywhere_stays_as_it_is(line: str) -> None:
    assert anonymous([line]) == [line]


def test_another_home_of_oscar_becomes_the_usual_one() -> None:
    assert anonymous(["at /srv/acme/oscar/lib/OSCAR/Env.pm line 3."], home="/srv/acme/oscar") == [
        "at /opt/oscar/lib/OSCAR/Env.pm line 3."
    ]


ALL = [pytest.param(case, form, id=f"{case['name']} ({form})") for case in cases() for form in forms(case)]


@pytest.mark.parametrize(("case", "form"), ALL)
def test_the_verdict_on_anonymous_lines_is_the_verdict_on_the_lines(case: Case, form: str) -> None:
    lines = written(edited(case), form)
    before, after = read(lines, case)[1], read(anonymous(lines), case)[1]
    assert (before is None) is (after is None)
    if before and after:
        assert (before.stage, before.category, before.hung) == (after.stage, after.category, after.hung)


@pytest.mark.parametrize("name", ["a good run", "the later format", "the image fails"])
def test_a_recorded_run_is_judged_as_the_run_was(tmp_path: Path, name: str) -> None:
    verdict = execute(tmp_path / "run", **RUNS[name][0])
    recording = record(tmp_path / "run", tmp_path / "cases")
    expected = read_case(recording.case)
    again = expected.judge(recording.case)
    assert again is not None
    assert expected.passes is (again.failure is None) is (verdict.oscar_stage == "")
    if again.failure:
        assert (again.failure.stage.value, again.failure.sentence) == (verdict.oscar_stage, verdict.sentence)
        assert (expected.says, expected.category) == (verdict.sentence, verdict.category)
        assert expected.shows in "\n".join(again.failure.lines)


def test_a_run_that_hung_is_recorded_with_how_it_hung(tmp_path: Path) -> None:
    lines = [*written(good(), "2007")[:40], "it stands still"]
    verdict = execute(tmp_path / "run", start_install=installing(lines, status=None, silence=1.5))
    expected = record(tmp_path / "run", tmp_path, "hung").expected
    assert expected.ends.startswith("silent ") and expected.says == verdict.sentence
    judged = expected.judge(tmp_path / "hung")
    assert judged is not None and judged.failure is not None and judged.failure.hung


def test_the_logs_of_either_place_are_taken_and_no_other_file(tmp_path: Path) -> None:
    execute(tmp_path / "run", **RUNS["the image fails"][0])
    for place in ("opt/oscar/oscarinstall.log", "var/log/oscar/oscarinstall.log_1", "var/log/oscar/oscar_wizard.log",
                  "opt/oscar/testing.log", "etc/shadow", "var/log/oscar/odd name.log"):  # fmt: skip
        file = tmp_path / "run" / "logs/head" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("--> Hostname: brunhilde\npassword: rheingold\nroot:$6$salt$abcdefghijkl:1::\n")
    recording = record(tmp_path / "run", tmp_path / "cases", "one")
    assert recording.files == (
        TERMINAL_FILE,
        "logs/head/opt/oscar/oscarinstall.log",
        "logs/head/opt/oscar/testing.log",
        "logs/head/var/log/oscar/oscar_wizard.log",
        "logs/head/var/log/oscar/oscarinstall.log_1",
    )
    (text,) = {(recording.case / file).read_text() for file in recording.files[1:]}
    assert re.fullmatch(rf"--> Hostname: host\d\n({re.escape(LEFT_OUT)}\n){{2}}", text)


def test_a_case_that_says_something_else_than_the_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(tmp_path / "run", **RUNS["the image fails"][0])
    monkeypatch.setattr(Anonymiser, "line", lambda _self, _text: "nothing")
    with pytest.raises(HostError, match="the anonymous case says something else"):
        record(tmp_path / "run", tmp_path / "cases")


def test_a_name_that_would_be_left_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(tmp_path / "run", start_install=installing(["Hostname: brunhilde"], status=1))
    monkeypatch.setattr(Anonymiser, "line", lambda _self, text: text)
    with pytest.raises(HostError, match="'brunhilde' would be left in line 1"):
        record(tmp_path / "run", tmp_path / "cases")
    assert not (tmp_path / "cases").exists()


def test_a_terminals_sequences_hide_no_address_and_no_secret(tmp_path: Path) -> None:
    execute(tmp_path / "run", **RUNS["the image fails"][0])
    terminal = tmp_path / "run" / TERMINAL_FILE
    coloured = "\x1b[32m10.11.12.13\x1b[0m\n\x1b[1m/srv/acme/x\x1b[m\n\x1b[01;31mpasswd \x1b[0m S3cretPw\n"
    terminal.write_text(coloured + terminal.read_text(encoding="utf-8"), encoding="utf-8")
    case = record(tmp_path / "run", tmp_path / "cases").case
    written = (case / TERMINAL_FILE).read_text(encoding="utf-8")
    assert not [word for word in ("10.11.12.13", "acme", "S3cretPw", "\x1b") if word in written]


def test_what_cannot_be_recorded_is_a_sentence(tmp_path: Path) -> None:
    execute(tmp_path / "run")
    with pytest.raises(UserError, match="was not started in this run"):
        record(tmp_path / "run", tmp_path)
    execute(tmp_path / "bad", **RUNS["the image fails"][0])
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists already"):
        record(tmp_path / "bad", tmp_path, "taken")
    with (tmp_path / "bad" / TERMINAL_FILE).open("r+b") as file:
        file.truncate(9 << 20)
    with pytest.raises(UserError, match="too large for a case"):
        record(tmp_path / "bad", tmp_path, "large")
    terminal = tmp_path / "bad" / TERMINAL_FILE
    terminal.unlink()
    terminal.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="there is no output of OSCAR's installer"):
        record(tmp_path / "bad", tmp_path, "another")


@pytest.mark.parametrize("text", ["", "nodes = 2", 'name = "x"\nnodes = "two"\nboot = ""\nimage = ""', "= =", "\x00"])
def test_a_broken_case_is_a_sentence_with_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / CASE_FILE).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / CASE_FILE))):
        read_case(tmp_path)


def test_the_command_says_what_it_wrote_and_what_the_farm_says(tmp_path: Path) -> None:
    execute(tmp_path / "run", **RUNS["the image fails"][0])
    words = ["transcript", str(tmp_path / "run"), "--to", str(tmp_path / "cases"), "--name", "no-image"]
    ended = CliRunner().invoke(cli, words)
    assert ended.exit_code == 0, ended.output
    assert "the farm says: OSCAR could not build the client image" in ended.output
    assert read_case(tmp_path / "cases" / "no-image").name == "no image"
    again = CliRunner().invoke(cli, words)
    assert again.exit_code == 64 and "exists already" in again.output
    for bad in ("../x", "a b", "ü"):
        assert CliRunner().invoke(cli, [*words[:-1], bad]).exit_code == 64
    assert CliRunner().invoke(cli, ["transcript", str(tmp_path / "cases")]).exit_code == 64
    shown = CliRunner().invoke(cli, ["transcript", "--help"]).output
    assert "Examples:" in shown and "tests/unit/transcripts" in shown

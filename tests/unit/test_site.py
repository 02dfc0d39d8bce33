"""farm.toml: what is wrong in it is said with file and line, what it leaves out is safe."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.site import Secrets, Site, load_site
from oscar_steps.sources.svn import PASSWORD_IN_URL

MINIMAL = """\
[repository]
url = "svn://127.0.0.1/oscar"

[[worker]]
name = "worker1"
"""


def site(directory: Path, text: str) -> Site:
    path = directory / "farm.toml"
    path.write_text(text)
    return load_site(path)


def complaint(directory: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        site(directory, text)
    return str(error.value).removeprefix(f"{directory}/")


def test_the_smallest_site_listens_on_loopback_only(tmp_path: Path) -> None:
    small = site(tmp_path, MINIMAL)
    assert small.web.address == "127.0.0.1"
    assert small.master.port.endswith("interface=127.0.0.1")
    assert small.web.base == "http://127.0.0.1:8010/"
    assert not small.web.open


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    here = site(tmp_path, 'profiles = "p"\n' + MINIMAL + '[driver]\nruns = "runs"\n[secrets]\ndirectory = "s"\n')
    assert (here.profiles, here.driver.runs, here.secrets.directory) == (
        tmp_path / "p",
        tmp_path / "runs",
        tmp_path / "s",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "[web]\nprot = 80\n", "farm.toml:7: web.prot: there is no such setting"),
        (MINIMAL + "[web]\nport = 80000\n", "farm.toml:7: web.port: Input should be less than or equal to 65535"),
        (
            MINIMAL + '[schedule]\nhour = "late"\n',
            "farm.toml:7: schedule.hour: give a whole number without quotes, such as 5",
        ),
        ('[repository]\nurl = "oscar"\n[[worker]]\nname = "w"\n', "farm.toml:2: repository.url: String should match"),
        ('[repository]\nurl = "svn://h/o"\n', "farm.toml:1: worker: this setting is missing, and has no default"),
        (
            '[[worker]]\nname = "w"\n',
            "farm.toml:1: there is nothing to test: give [repository] (Subversion) or [[git]]",
        ),
        (MINIMAL + '[[git]]\nname = "a b"\n', "farm.toml:7: git.0.name: String should match"),
        (MINIMAL + '[[git]]\nname = "a"\nurl = "svn://h/o"\n', "farm.toml:8: git.0.url: String should match"),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "https://me:secret@h/o.git"\n',
            "farm.toml:8: git.0.url: this URL must not contain a password",
        ),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "https://ghp_token@h/o.git"\n',
            "farm.toml:8: git.0.url: this URL must not contain a password or a token",
        ),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "git://h/o"\nbranches = []\n',
            "farm.toml:9: git.0.branches: give at least one value",
        ),
        *(
            (
                f'[repository]\nurl = "{url}"\n[[worker]]\nname = "w"\n',
                "farm.toml:2: repository.url: this URL has no server, or one whose name or port cannot be understood",
            )
            for url in ("https://[::1/o", "https://h:99999999/o", "svn://a\u2100b/o", "svn:///o")
        ),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "git://h/o"\nmain = "a b"\n',
            "farm.toml:9: git.0.main: 'a b' is no branch, tag or commit id of git's",
        ),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "git://h/o"\n' * 2,
            "farm.toml:10: git.1.name: there are two [[git]] called 'a'; the other is on line 7",
        ),
        (
            MINIMAL + '[[git]]\nname = "a"\nurl = "git://h/o"\n[[git]]\nname = "b"\nurl = "git://h/o/"\n',
            "farm.toml:11: git.1.url: there are two [[git]] with the url git://h/o; the other is on line 8",
        ),
        (
            MINIMAL.replace('oscar"\n', 'oscar"\nbranches = "git/x"\n'),
            "farm.toml:3: repository.branches: no folder of Subversion can be called git/x here",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "jürgen@x.org"\n',
            "farm.toml:8: mail.operator: 'j\\xfcrgen@x.org' cannot be used with every mail relay",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\ndevelopers = "a,b@x"\n',
            "farm.toml:9: mail.developers: 'a,b@x' is not a mail address: only letters",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\n[mail.people]\na = "a@x"\n"jane doe" = "jane"\n',
            "farm.toml:11: mail.people.jane doe: 'jane' is not a mail address; it has to be USER@HOST",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\ndomain = "a b"\n',
            "farm.toml:9: mail.domain: 'a b' is not a host name",
        ),
        (MINIMAL + '[[worker]]\nname = "two words"\n', "farm.toml:7: worker.1.name: String should match"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(tmp_path, text).startswith(said)


def test_two_workers_of_one_name_are_refused(tmp_path: Path) -> None:
    said = complaint(tmp_path, MINIMAL + '[[worker]]\nbuilds = 2\nname = "worker1"\n')
    assert said.startswith("farm.toml:8: worker.1.name: there are two workers called 'worker1'; the other is on line 5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[schedule]\nbranches = "trunk"\n', 'farm.toml:7: schedule.branches: give a list, such as ["one", "two"]'),
        ("[web]\naddress = 5\n", 'farm.toml:7: web.address: give text in quotes, such as "text"'),
        ('[web]\nopen = "perhaps"\n', "farm.toml:7: web.open: give true or false, without quotes"),
        ("[[web]]\nport = 1\n", "farm.toml:6: web: give a table of settings"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_an_example(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(tmp_path, MINIMAL + text).startswith(said)


def test_a_page_that_others_reach_cannot_be_open(tmp_path: Path) -> None:
    said = complaint(tmp_path, MINIMAL + '[web]\naddress = "0.0.0.0"\nopen = true\n')
    assert "open = true lets anybody force builds, so address must be 127.0.0.1, not 0.0.0.0" in said


def test_malformed_toml_and_a_missing_file_are_one_sentence(tmp_path: Path) -> None:
    assert "line 1" in complaint(tmp_path, "[repository\n")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_site(tmp_path / "nowhere.toml")


def test_a_worker_for_a_cell_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    matrix = load_matrix(default_profiles())
    with pytest.raises(ConfigError, match="names the cell 'sles-9-x86_64'"):
        site(tmp_path, MINIMAL + 'cells = ["sles-9-x86_64"]\n').check_against(matrix)


def test_the_example_site_is_valid_and_fits_the_matrix() -> None:
    root = default_profiles().parent
    load_site(root / "farm.toml").check_against(load_matrix(default_profiles()))


def test_each_default_that_the_example_shows_can_be_written_and_is_the_default(tmp_path: Path) -> None:
    text = (default_profiles().parent / "farm.toml").read_text()
    path = tmp_path / "farm.toml"
    path.write_text(text)
    plain = load_site(path)
    path.write_text(re.sub(r"(?m)^# (?=\w+ = |\[)", "", text).replace('profiles = "profiles"', ""))
    written = load_site(path)
    assert written.git and written.tarballs
    for name in ("repository", "schedule", "web", "database", "secrets", "master", "driver", "timeouts", "worker"):
        assert getattr(written, name) == getattr(plain, name), name
    assert written.mail and plain.mail
    assert written.mail.model_copy(update={"ldap": None, "people": {}}) == plain.mail


def test_a_missing_secret_says_which_file_to_create_and_how(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Secrets(directory=tmp_path / "s").read("worker-w", "password of the worker w")
    assert f"secret file {tmp_path}/s/worker-w (password of the worker w) is missing; create it: " in str(error.value)
    assert str(error.value).endswith(" -P -m oscar_steps.master.secret farm.toml worker-w")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "x").write_text("secret\n")
    (tmp_path / "x").chmod(mode)
    with pytest.raises(ConfigError, match=f"can read the secret file {tmp_path}/x .*; close it: chmod 600 "):
        Secrets(directory=tmp_path).read("x", "a test")
    (tmp_path / "x").chmod(0o600)
    assert Secrets(directory=tmp_path).read("x", "a test") == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://farm:hidden@127.0.0.1/farm",
        "postgresql+psycopg2://farm:hid/den@h/f",
        "mysql://farm@h/f?password=hidden",
        "postgresql:///f?user=farm&PASSWORD=hidden",
    ],
)
def test_a_password_in_the_address_of_the_database_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    said = complaint(tmp_path, MINIMAL + f'[database]\nurl = "{url}"\n')
    assert said.startswith("farm.toml:7: database.url: this file must not contain a password; ")
    assert "master.secret farm.toml database-password --ask" in said
    assert "hidden" not in said and "hid/den" not in said


@pytest.mark.parametrize(
    "url", ["postgresql://farm@h:5432/f", "postgresql:///f?host=/run/postgresql", "sqlite:////var/lib/a:b/state.sqlite"]
)
def test_an_address_of_a_database_without_a_password_is_taken(tmp_path: Path, url: str) -> None:
    assert site(tmp_path, MINIMAL + f'[database]\nurl = "{url}"\n').database.url == url


def test_a_password_in_the_address_of_the_repository_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = MINIMAL.replace("svn://", "https://farm:hidden@")
    assert text != MINIMAL
    said = complaint(tmp_path, text)
    assert "repository.url: this URL must not contain a password" in said
    assert "hidden" not in said
    for url in ("svn://h:3690/oscar", "svn+ssh://farm@h:22/oscar", "file:///a:b@c/oscar"):
        assert not PASSWORD_IN_URL.search(url)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[timeouts]\nsilence = nan\n", "farm.toml:7: timeouts.silence: this number cannot be used"),
        ("[timeouts]\nsilence = inf\n", "farm.toml:7: timeouts.silence: this number cannot be used"),
        ("[timeouts]\nsilence = -5\n", "farm.toml:7: timeouts.silence: Input should be greater than 0"),
        ("[timeouts]\nlease = 0\n", "farm.toml:7: timeouts.lease: Input should be greater than 0"),
        ("[driver]\nhours = inf\n", "farm.toml:7: driver.hours: this number cannot be used"),
        ("[schedule]\ntree_stable = 1e300\n", "farm.toml:7: schedule.tree_stable: this number cannot be used"),
        ("[schedule]\nagain = [-1]\n", "farm.toml:7: schedule.again.0: Input should be greater than or equal to 0"),
        ("[schedule]\nagain = [60, 1e99]\n", "farm.toml:7: schedule.again.1: this number cannot be used"),
        (f"[master]\nkeep = {'9' * 30}\n", "farm.toml:7: master.keep: this number cannot be used"),
        (f"[master]\nkeep = {'9' * 5000}\n", "farm.toml: it has a number that is too large"),
        ('[driver]\nruns = "/a\\u0000b"\n', "farm.toml:7: driver.runs: the character '\\x00' cannot be in a setting"),
        ('[driver]\ncommand = ["a", "b\\n"]\n', "farm.toml:7: driver.command.1: the character '\\n' cannot be"),
        ('[master]\ntitle = "\\u202egpj"\n', "farm.toml:7: master.title: the character '\\u202e' cannot be in"),
        ('[master]\n"ti\\ntle" = 1\n', "farm.toml:7: master.ti\\ntle: the character '\\n' cannot be in a setting"),
        ("a = " + "[" * 5000, "farm.toml: lists or tables are nested too deeply"),
    ],
)
def test_what_no_setting_can_be_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(tmp_path, MINIMAL + text).startswith(said)


def test_a_file_with_the_mark_and_the_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "farm.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_site(tmp_path / "farm.toml").worker[0].name == "worker1"


def test_a_pipe_or_a_folder_instead_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"pipe: the file cannot be read: it is not a regular file"):
        load_site(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="the file cannot be read: Is a directory"):
        load_site(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_secret_of_somebody_else_is_given_to_the_farms_user_before_it_is_closed(tmp_path: Path) -> None:
    for path in (tmp_path / "secrets", tmp_path / "secrets/x"):
        path.mkdir() if path.name == "secrets" else path.write_text("secret\n")
        path.chmod(0o750)
    secrets = Secrets(directory=tmp_path / "secrets")
    os.chown(tmp_path, 4242, 4242)
    for owner, close in ((0, "chown 4242 {0}; chmod 600 {0}"), (4242, "chmod 600 {0}")):
        os.chown(secrets.directory / "x", owner, 4242)
        with pytest.raises(ConfigError) as error:
            secrets.read("x", "p")
        assert str(error.value).endswith("; close it: " + close.format(secrets.directory / "x"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a\nb", "one line of text"),
        (b"a\0", "one line of text"),
        (b"", "is empty"),
    ],
)
def test_a_secret_that_is_no_line_of_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "worker-w").write_bytes(content)
    with pytest.raises(ConfigError, match=f"worker-w .*{said}"):
        Secrets(directory=tmp_path).read("worker-w", "password")


def test_a_secret_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "x" * 300):
        with pytest.raises(ConfigError, match="cannot be read"):
            Secrets(directory=tmp_path).read(name, "password")


def test_a_login_is_of_the_kind_of_the_repositorys_address(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"
    for url, setting, said in (
        (
            "file:///srv/oscar",
            'user = "farm"',
            "user is for svn://, http://, https://, and the url begins with file://",
        ),
        ("svn://h/oscar", 'certificate = "x"', "certificate is for https://, and the url begins with svn://"),
        ("https://h/oscar", 'ssh_key = "x"', "ssh_key is for svn+ssh://, and the url begins with https://"),
    ):
        path.write_text(f'[repository]\nurl = "{url}"\n{setting}\n[[worker]]\nname = "w"\n')
        with pytest.raises(ConfigError) as caught:
            load_site(path)
        assert said in caught.value.sentence


def test_a_login_at_the_repository_needs_its_secrets_and_files_and_says_how_to_make_them(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"
    worker = '[[worker]]\nname = "w"\n'
    path.write_text(f'[repository]\nurl = "svn://h/oscar"\nuser = "farm"\n{worker}')
    with pytest.raises(ConfigError, match=r"svn-password \(password of farm at svn://h/oscar\) is missing.* --ask"):
        load_site(path).check_svn_login()
    path.write_text(f'[repository]\nurl = "https://h/oscar"\nauthorities = "ca.pem"\n{worker}')
    with pytest.raises(ConfigError) as caught:
        load_site(path).check_svn_login()
    assert f"the file {tmp_path}/ca.pem (" in caught.value.sentence
    path.write_text(path.read_text().replace("ca.pem", ""))
    load_site(path).check_svn_login()
    path.write_text(path.read_text().replace('authorities = ""', 'authorities = "ca.pem"'))
    (tmp_path / "ca.pem").write_text("x")
    load_site(path).check_svn_login()

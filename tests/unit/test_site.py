"""farm.toml: what is wrong in it is said with file and line, what it leaves out is safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_steps.errors import ConfigError
from oscar_steps.matrix import default_profiles, load_matrix
from oscar_steps.site import Mail, Secrets, Site, load_site

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
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "jürgen@x.org"\n',
            "farm.toml:8: mail.operator: 'j\\xfcrgen@x.org' is no mail address that every relay takes",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\ndevelopers = "a,b@x"\n',
            "farm.toml:9: mail.developers: 'a,b@x' is no mail address: only letters",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\n[mail.people]\na = "a@x"\n"jane doe" = "jane"\n',
            "farm.toml:11: mail.people.jane doe: 'jane' is no mail address; it has to be USER@HOST",
        ),
        (
            MINIMAL + '[mail]\nfrom = "f@x"\noperator = "o@x"\ndomain = "a b"\n',
            "farm.toml:9: mail.domain: 'a b' is no host's name",
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


def test_a_missing_secret_says_which_file_to_create_and_how(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Secrets(directory=tmp_path / "s").read("worker-w", "password of the worker w")
    assert f"secret file {tmp_path}/s/worker-w (password of the worker w) is missing; create it: umask 077;" in str(
        error.value
    )


def test_a_secret_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret\n")
    (tmp_path / "x").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Secrets(directory=tmp_path).read("x", "a test")
    (tmp_path / "x").chmod(0o600)
    assert Secrets(directory=tmp_path).read("x", "a test") == "secret"


@pytest.mark.parametrize(
    ("login", "address"),
    [("eric", "e@x.org"), ("wesley", "wesley@oscar.org"), ("a@b.org", "a@b.org")],
)
def test_a_committers_address(login: str, address: str) -> None:
    mail = Mail.model_validate(
        {"from": "f@x.org", "operator": "o@x.org", "domain": "oscar.org", "people": {"eric": "e@x.org"}}
    )
    assert mail.address(login) == address


def test_an_unknown_login_without_a_domain_has_no_address() -> None:
    assert Mail.model_validate({"from": "f@x.org", "operator": "o@x.org"}).address("eric") is None

"""`oscar-testdriver answers`, and answer files written by hand that a cell names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oscar_steps.errors import ConfigError
from oscar_steps.job import Job, Source
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.oscar.answers.answers import AnswerKind
from oscar_steps.oscar.answers.menus import LAYOUTS, MENUS_2007
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.stages.create_image import check_job
from oscar_steps.testdriver.stages.start_install import answer_files

STANDIN = Path(__file__).parents[3] / "oscar_standin" / "tree"
CELL = "debian-12-x86_64"


def run(*words: str | Path) -> Result:
    """The command; whatever it raises but the end of the program is a bug."""
    result = CliRunner().invoke(cli, ["answers", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    return tmp_path / "profiles"


def hand_write(profiles: Path, kind: str, text: str) -> Path:
    """Let the cell name a file written by hand."""
    answers = profiles / "answers" / "debian-12.toml"
    (profiles / "answers" / f"my-{kind}.txt").write_text(text)
    answers.write_text(answers.read_text() + f'[files]\n{kind} = "my-{kind}.txt"\n')
    return profiles / "answers" / f"my-{kind}.txt"


def test_rendered_files_pass_the_check(tmp_path: Path) -> None:
    into = tmp_path / "new" / "files"
    rendered = run("render", "--cell", CELL, "--nodes", "3", "--boot", "network", "--tree", STANDIN, "--into", into)
    assert rendered.exit_code == 0, rendered.output
    assert "./install_cluster --cli --opkgselector /root/farm/selector.txt" in rendered.output
    assert (into / "hook").stat().st_mode & 0o111
    assert (into / "network.txt").read_text().split("\n")[-3:] == ["9", "10", ""]
    checked = run("check", "--complete", "--tree", STANDIN, *sorted(into.glob("*.txt")))
    assert (checked.exit_code, checked.output) == (0, "no problems in 5 files\n")


def test_problems_are_told_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "network").write_text("3\nfoo\n")
    result = run("check", tmp_path / "network")
    assert result.exit_code == 64
    first, last = result.output.splitlines()
    assert first.startswith(f"{tmp_path}/network:2: 'foo' is not an installation mode") and first.endswith("[hangs]")
    assert last == "1 problem in 1 file"


def test_a_tree_whose_installer_takes_no_answers_is_told_with_its_line(tmp_path: Path) -> None:
    shutil.copytree(STANDIN, tmp_path / "oscar")
    installer = tmp_path / "oscar" / "install_cluster"
    installer.write_text(installer.read_text().replace("'bootscript=s',", ""))
    result = run("render", "--cell", CELL, "--tree", tmp_path / "oscar", "--into", tmp_path / "files")
    assert result.exit_code == 64
    assert "this OSCAR cannot be installed by its command line: install_cluster:" in result.output
    assert not (tmp_path / "files").exists()


def test_the_installer_of_2006_is_given_its_files_as_it_reads_them(tmp_path: Path) -> None:
    shutil.copytree(STANDIN, tmp_path / "oscar")
    installer = tmp_path / "oscar" / "install_cluster"
    installer.write_text(installer.read_text() + '$build = $cwd . "/$build" if ($build !~ /$cwd/);\n')
    result = run("render", "--cell", CELL, "--tree", tmp_path / "oscar", "--into", tmp_path / "files")
    assert "--buildimage ../../root/farm/build.txt" in result.output


def test_a_recording_is_shown_and_checked(tmp_path: Path) -> None:
    recording = tmp_path / "build.1.clilog"
    recording.write_text("#1) Image name: x\n#5) Disk Partition File: /y\n#8) Build Image\n8\n")
    shown = run("show", recording)
    assert shown.output.splitlines()[1:3] == ["  Build Image", "  Image name: x   (the default, kept)"]
    assert run("check", recording).exit_code == 0
    recording.write_text("8\n")
    assert "the commented menu of the step 'build' is missing" in run("check", recording).output


def test_the_configurators_recording_is_told_and_does_not_keep_the_others_from_being_shown(tmp_path: Path) -> None:
    (tmp_path / "configurator.1.clilog").write_text("quit\n")
    (tmp_path / "selector.1.clilog").write_text("unselect ganglia\n")
    result = run("show", *sorted(tmp_path.iterdir()))
    assert result.exit_code == 0
    first, *others = result.output.splitlines()
    assert first.endswith("configurator.1.clilog: no file can answer the configurator, so its recording is not used")
    assert any("unselect ganglia" in line for line in others)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "other.txt"], "other.txt: its name does not say what it answers"),
        (["check", "none/build.txt"], "none/build.txt: there is no such file"),
        (["check", "build.txt", "build.txt"], "two files answer 'build'"),
        (["check", "--kind", "build", "build.txt", "x"], "--kind build is for one file; 2 were given"),
        (["check", "build.txt", "--tree", "none"], "none: there is no such directory"),
        (
            ["check", "build.txt", "--tree", "."],
            ".: this OSCAR cannot be installed by its command line: there is no install_cluster",
        ),
        (["show", "build.txt"], "build.txt:1: the commented menu"),
        (["render", "--cell", "none", "--into", "x"], "there is no cell 'none'"),
        (["render", "--cell", CELL, "--into", "build.txt"], "is a file"),
        (["render", "--cell", CELL, "--into", "/proc/none/x"], "cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build.txt").write_text("8\n")
    result = CliRunner().invoke(cli, ["answers", *words])
    assert result.exit_code in (2, 64)  # 2: click's own, which the entry point turns into 64
    assert said in result.output and "Traceback" not in result.output


def test_a_cell_may_name_a_file_written_by_hand(profiles: Path, tmp_path: Path) -> None:
    text = "# mine\n4\n1\n/root/farm/macs.txt\n1\n9\n8\n10\n"
    hand_write(profiles, "network", text)
    result = run("render", "--cell", CELL, "--profiles", profiles, "--into", tmp_path / "files")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "files" / "network.txt").read_text() == text


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("network", "4\n", "my-network.txt:1: the file ends where a number of the menu is expected"),
        (
            "network",
            "1\n/root/farm/macs.txt\n1\n9\n10\n",
            "my-network.txt:5: nodes boot by cdrom, but nothing",
        ),
        ("define", "1\nother\n4\n2\n10\n", "my-define.txt:2: there is no image 'other'"),
        ("define", "4\n5\n10\n", "my-define.txt:2: OSCAR would define 5 from oscarnode1 to oscarnode5; the virtual"),
        ("build", "5\n/x\n", "my-build.txt:2: the file ends without 8 ('Build Image')"),
        ("macs", "52:54:00:00:00:12\n52:54:00:00:00:11\n", "my-macs.txt:1: oscarnode1 would get 52:54:00:00:00:12"),
    ],
)
def test_a_file_that_would_hang_is_refused_before_the_run(profiles: Path, kind: str, text: str, said: str) -> None:
    hand_write(profiles, kind, text)
    result = run("render", "--cell", CELL, "--profiles", profiles, "--into", profiles / "never")
    assert result.exit_code == 64
    assert said in result.output
    assert not (profiles / "never").exists()


def test_a_file_for_another_layout_is_judged_by_the_oscar_that_is_tested(profiles: Path) -> None:
    """Before there is an OSCAR, a file that any OSCAR takes is good."""

    def the_job() -> Job:
        matrix = load_matrix(profiles)
        cell = matrix.cell(CELL)
        return Job(
            run_id="x",
            cell=CELL,
            source=Source(url="svn://x/y", revision="1"),
            image=matrix.image(cell),
            cluster_xml=matrix.cluster_xml(cell),
            answers=matrix.answers(cell),
        )

    of_2006 = LAYOUTS[1]
    network = answer_files(the_job(), check_job(the_job()), of_2006).files[AnswerKind.NETWORK.path()]
    hand_write(profiles, "network", network.removeprefix("2\nsystemimager-rsync\n"))  # the mode is the default
    job = the_job()
    profile = check_job(Job.model_validate_json(job.model_dump_json()))
    answer_files(job, profile, of_2006)
    with pytest.raises(ConfigError, match=r"my-network\.txt:2: '1' is not an installation mode"):
        answer_files(job, profile, MENUS_2007)

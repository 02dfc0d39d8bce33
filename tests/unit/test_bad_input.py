"""What somebody wrote wrong, or a host lacks: one sentence that says what, where and what would be right, soon, with
the documented exit status, and nothing is left behind. Black box: the real command lines, as processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import children
from demo.ports import LOOPBACK, free_port
from demo.repository import Repository
from oscar_steps.job import Job, Source
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.verdict import ExitStatus, Outcome, Stage, Verdict

ROOT = default_profiles().parent
CELL = "debian-12-x86_64"
SECONDS = 20.0  # soon, on a host that has something else to do as well
USAGE, INFRASTRUCTURE = ExitStatus.USAGE, ExitStatus.INFRASTRUCTURE
SITE = """\
[repository]
url = "svn://127.0.0.1/oscar"
[[worker]]
name = "worker1"
"""


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Its only complaint: one line with the program's name, and at most one more with a hint."""
        lines = self.err.splitlines()
        assert 1 <= len(lines) <= 2, self.err
        assert all(line.startswith("  ") for line in lines[1:]), self.err
        return lines[0]


@dataclass(frozen=True)
class Desk:
    """A folder to work in, with copied profiles that may be spoiled."""

    home: Path

    @property
    def profiles(self) -> Path:
        return self.home / "profiles"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def cluster(self) -> Path:
        return self.profiles / "clusters" / "head-and-two-nodes.xml"

    def files(self) -> set[Path]:
        return set(self.home.rglob("*"))

    def call(self, module: str, *words: str | Path, prefix: Sequence[str] = (), **environment: str) -> Answer:
        """What `python -m MODULE` has to say to that."""
        return self.execute(*prefix, sys.executable, "-m", module, *words, **environment)

    def execute(self, *command: str | Path, **environment: str) -> Answer:
        """The command's answer; it came soon, without a traceback, and no process of it is left."""
        environ = os.environ | {children.MARK: str(self.home)} | environment
        begun = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        seconds = time.monotonic() - begun
        answer = Answer(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in answer.out + answer.err, answer
        assert children.marked(str(self.home)) == []
        assert seconds < SECONDS, f"{command} took {seconds:.1f} s"
        return answer

    def refused(self, status: ExitStatus, *words: str | Path, **environment: str) -> str:
        """The one sentence with which the testing driver refuses; not one file was made."""
        before = self.files()
        answer = self.call("oscar_steps.testdriver", *words, **environment)
        assert answer.status == status, answer
        assert answer.out == ""
        assert self.files() == before
        assert answer.sentence.startswith("oscar-testdriver: ")
        return answer.sentence.removeprefix("oscar-testdriver: ")

    def run_words(self, url: str) -> tuple[str | Path, ...]:
        return ("run", "--cell", CELL, "--url", url, "--profiles", self.profiles, "--runs", self.runs)

    def store(self) -> tuple[str | Path, ...]:
        """For a process that is root in a namespace alone, to whom root's own store is closed."""
        folder = self.profiles.parent / "images"
        folder.mkdir()
        return ("--images", folder)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    shutil.copytree(default_profiles(), tmp_path / "profiles")
    return Desk(tmp_path)


@pytest.fixture
def dead_url() -> str:
    """A repository that is down."""
    return f"svn://{LOOPBACK}:{free_port()}/x"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The trunk of a repository with a single revision, served by svnserve."""
    directory = tmp_path_factory.mktemp("svn")
    (directory / "tree").mkdir()
    (directory / "tree" / "README").write_text("hello\n")
    repository = Repository(directory / "root", directory / "tree", users=("demo",))
    server = repository.serve(directory / "svnserve.log", os.environ)
    yield f"{repository.url}/trunk"
    server.stop(5)


def spoil(path: Path, old: str, new: str) -> int:
    """Replace the first `old` in a file; the number of its line."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


# Profiles and the matrix


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</head>", "</haed>", "this is not well-formed XML: "),
        ("<cpu>2</cpu>", "<cpus>2</cpus>", "<cpus> is not known in <profile>; it may hold: name, type, "),
        ("00:00:12", "00:00:11", "the MAC 52:54:00:00:00:11 of oscarnode2 appears twice (oscarnode1 has it)"),
        ("<memory>1024</memory>", "<memory>much</memory>", "memory is 'much'; it has to be a whole number above 0"),
        ("<type>Qemu</type>", "<type>Bochs</type>", "the type 'Bochs' is not known; there are: Qemu, Kvm, "),
    ],
)
def test_a_malformed_cluster_profile_is_told_with_file_and_line(
    desk: Desk, dead_url: str, old: str, new: str, words: str
) -> None:
    line = spoil(desk.cluster, old, new)
    place = rf"{re.escape(str(desk.cluster))}:{line}:[0-9]+: "
    assert re.match(place + re.escape(words), desk.refused(USAGE, *desk.run_words(dead_url)))


@pytest.mark.parametrize("name", ["matrix.toml", "clusters/head-and-two-nodes.xml", "answers/debian-12.toml"])
def test_a_file_that_is_no_text_is_told_with_its_line(desk: Desk, dead_url: str, name: str) -> None:
    path = desk.profiles / name
    path.write_bytes(path.read_bytes() + b"\n# caf\xe9\n")
    assert f"{path}:{path.read_bytes().count(10)}: this is not UTF-8 text" in desk.refused(
        USAGE, *desk.run_words(dead_url)
    )


def test_a_head_node_with_too_little_memory_is_refused_before_anything_boots(desk: Desk, dead_url: str) -> None:
    spoil(desk.cluster, "<memory>1024</memory>", "<memory>64</memory>")
    said = desk.refused(USAGE, *desk.run_words(dead_url))
    assert said == f"{desk.cluster}: the head node oscar-headnode has 64 MiB of memory; it needs 512"


def test_node_names_that_oscar_would_not_make_are_refused(desk: Desk, dead_url: str) -> None:
    spoil(desk.cluster, "<name>oscarnode2</name>", "<name>oscarnode3</name>")
    said = desk.refused(USAGE, *desk.run_words(dead_url))
    assert said.startswith(f"{desk.profiles}/answers/debian-12.toml for {desk.cluster}: ")
    assert said.endswith("is called 'oscarnode3', but OSCAR will call it 'oscarnode2'")


@pytest.mark.parametrize(("key", "value"), [("image", "debian-99"), ("cluster", "none"), ("answers", "fedora")])
def test_a_matrix_that_names_what_does_not_exist_is_told_with_line_and_what_there_is(
    desk: Desk, dead_url: str, key: str, value: str
) -> None:
    matrix = desk.profiles / "matrix.toml"
    old = getattr(load_matrix(desk.profiles).cells[0], key)
    line = spoil(matrix, 'version = "12"', f'{key} = "{value}", version = "12"')
    said = desk.refused(USAGE, *desk.run_words(dead_url))
    assert said.startswith(f"{matrix}:{line}: {key} '{value}' does not exist ")
    assert old in said.partition("there are: ")[2]


def test_an_unknown_cell_is_told_with_those_there_are(desk: Desk) -> None:
    said = desk.refused(USAGE, "run", "--cell", "fedora-6-i386", "--profiles", desk.profiles)
    there_are = ", ".join(cell.name for cell in load_matrix(desk.profiles).cells)
    assert said == f"there is no cell 'fedora-6-i386' in {desk.profiles}/matrix.toml; there are: {there_are}"


# The repository


def test_a_repository_that_is_down_is_the_farms_fault(desk: Desk, dead_url: str) -> None:
    said = desk.refused(INFRASTRUCTURE, *desk.run_words(dead_url))
    assert said.startswith(f"{dead_url} cannot be asked for a revision: ")
    assert "Connection refused" in said


@pytest.mark.parametrize(
    ("change", "revision", "words"),
    [
        (lambda url: url, "99", "No such revision 99"),
        (lambda url: url, "newest", "'newest' is not a Subversion revision, such as 5916"),
        (lambda url: f"{url}/none", "HEAD", "File not found: revision 1, path '/trunk/none'"),
        (lambda url: url.replace("/oscar/", "/racso/"), "HEAD", "No repository found in"),
    ],
)
def test_a_revision_path_or_repository_that_does_not_exist_is_the_users_mistake(
    desk: Desk, url: str, change: Callable[[str], str], revision: str, words: str
) -> None:
    wrong = change(url)
    said = desk.refused(USAGE, *desk.run_words(wrong), "--revision", revision)
    assert said.startswith(f"{wrong} at revision {revision}: ")
    assert words in said


@pytest.mark.parametrize("wrong", ["", "trunk", "/srv/svn/trunk"])
def test_what_is_no_url_is_refused_without_asking_subversion(desk: Desk, wrong: str) -> None:
    assert "is not the URL of a Subversion or git repository" in desk.refused(USAGE, *desk.run_words(wrong))


def test_an_empty_revision_is_refused(desk: Desk, dead_url: str) -> None:
    assert "is not a Subversion revision" in desk.refused(USAGE, *desk.run_words(dead_url), "--revision", "")


# The host


def without(program: str, directory: Path) -> str:
    """A PATH that has everything but one program."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
            link = directory / path.name
            if path.name != program and not link.is_symlink():
                link.symlink_to(path)
    return str(directory)


def only_verdict(desk: Desk) -> Verdict:
    """The verdict of the only run; it stopped before it made a disk."""
    (directory,) = desk.runs.iterdir()
    verdict = Verdict.load(directory)
    assert (verdict.outcome, verdict.stage) == (Outcome.INFRASTRUCTURE, Stage.CREATE_IMAGE)
    assert not (directory / "disks").exists()
    return verdict


def test_a_host_without_qemu_says_what_to_install(
    desk: Desk, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = without("qemu-system-x86_64", tmp_path_factory.mktemp("bin"))
    answer = desk.call("oscar_steps.testdriver", *desk.run_words(url), PATH=path)
    assert answer.status == INFRASTRUCTURE
    sentence = "this host cannot run the cluster: the program qemu-system-x86_64 is missing"
    assert f"INFRASTRUCTURE: {sentence}\n" in answer.out
    assert (only_verdict(desk).sentence, only_verdict(desk).hint) == (
        sentence,
        "install it: apt-get install qemu-system-x86",
    )


def test_a_host_without_subversion_says_what_to_install(
    desk: Desk, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = without("svn", tmp_path_factory.mktemp("bin"))
    assert desk.refused(INFRASTRUCTURE, *desk.run_words(url), PATH=path) == (
        "there is no Subversion client on this host"
    )


def test_a_host_with_too_little_memory_says_how_much_is_lacking(desk: Desk, url: str) -> None:
    spoil(desk.cluster, "<memory>1024</memory>", "<memory>2000000000</memory>")
    answer = desk.call("oscar_steps.testdriver", *desk.run_words(url))
    assert answer.status == INFRASTRUCTURE
    verdict = only_verdict(desk)
    assert verdict.sentence.startswith("the cluster needs 1953126.2 GiB of memory, this host has ")
    assert "<memory>" in verdict.hint


@pytest.fixture
def small_disk(desk: Desk) -> Callable[[str], list[str]]:
    """What runs a command with a small file system as the folder of the runs; nobody else sees the mount."""
    desk.runs.mkdir()

    def prefix(size: str) -> list[str]:
        mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
        return ["unshare", "--mount", "--map-root-user", "--user", "sh", "-c", mount, str(desk.runs)]

    tried = subprocess.run([*prefix("1m"), "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this host lets nobody mount a file system in a namespace of his own")
    return prefix


def test_a_host_with_too_little_disk_says_how_much_is_lacking(
    desk: Desk, url: str, small_disk: Callable[[str], list[str]]
) -> None:
    answer = desk.call("oscar_steps.testdriver", *desk.run_words(url), *desk.store(), prefix=small_disk("8m"))
    assert answer.status == INFRASTRUCTURE
    assert "INFRASTRUCTURE: this host cannot run the cluster: " in answer.out
    assert "MiB are free in" in answer.out
    assert "a run needs 4096 MiB" in answer.out


def test_a_disk_that_is_full_is_one_sentence(desk: Desk, url: str, small_disk: Callable[[str], list[str]]) -> None:
    answer = desk.call("oscar_steps.testdriver", *desk.run_words(url), *desk.store(), prefix=small_disk("4k"))
    assert answer.status == INFRASTRUCTURE
    assert "No space left on device" in answer.sentence


def test_a_folder_for_runs_that_cannot_be_one_is_refused(desk: Desk, url: str) -> None:
    desk.runs.write_text("a file")
    words = [word if word != desk.runs else desk.runs / "below" for word in desk.run_words(url)]
    before = desk.files()
    answer = desk.call("oscar_steps.testdriver", *words)
    assert answer.status == USAGE
    assert "cannot be made: Not a directory" in answer.sentence
    assert desk.files() == before


# Jobs and run directories


def a_job() -> Job:
    matrix = load_matrix(default_profiles())
    cell = matrix.cells[0]
    return Job(
        run_id="again",
        cell=cell.name,
        source=Source(url="svn://127.0.0.1/x", revision="1"),
        image=matrix.image(cell),
        cluster_xml=matrix.cluster_xml(cell),
        answers=matrix.answers(cell),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "the file as a whole: Invalid JSON"),
        (b"[]", "the file as a whole: Input should be an object"),
        (b"\xff\xfe", "the file as a whole: Invalid JSON"),
        (b'{"run_id": "../../etc"}', "run_id: String should match pattern"),
        (b'{"run_id": "x", "cell": "c", "surce": {}}', "source: Field required"),
    ],
)
def test_a_broken_job_is_told_with_file_and_field(desk: Desk, text: bytes, words: str) -> None:
    job = desk.home / "job.json"
    job.write_bytes(text)
    new = desk.home / "new"
    commands: list[list[str | Path]] = [["replay", job], ["stage", "create-image", "--run", new, "--job", job]]
    for command in commands:
        assert desk.refused(USAGE, *command).startswith(f"{job}: {words}")


def test_a_job_with_a_cluster_that_cannot_be_is_refused(desk: Desk) -> None:
    job = desk.home / "job.json"
    value = json.loads(a_job().model_dump_json())
    job.write_text(json.dumps(value | {"cluster_xml": value["cluster_xml"].replace("00:00:12", "00:00:11")}))
    said = desk.refused(USAGE, "replay", job, "--runs", desk.runs)
    assert said.startswith(f"the cluster profile in {job}:")
    assert "appears twice" in said


def test_a_job_file_that_is_not_there_is_told_by_name(desk: Desk) -> None:
    job = desk.home / "none.json"
    new = desk.home / "new"
    commands: list[list[str | Path]] = [["replay", job], ["stage", "create-image", "--run", new, "--job", job]]
    for command in commands:
        assert desk.refused(USAGE, *command) == f"{job}: there is no such job file"


@pytest.mark.parametrize(
    "words",
    [
        ("stage", "create-image", "--run"),
        ("stage", "wait-nodes", "--run"),
        ("stage", "teardown", "--run"),
        ("status",),
        ("verdict",),
        ("destroy",),
        ("ssh",),
        ("console",),
    ],
)
def test_a_directory_without_a_run_is_called_that_and_stays_as_it_was(desk: Desk, words: tuple[str, ...]) -> None:
    empty = desk.home / "empty"
    empty.mkdir()
    more = ("oscar-headnode",) if words == ("console",) else ()
    assert desk.refused(USAGE, *words, empty, *more) == f"{empty}: there is no run here"


@pytest.mark.parametrize("stage", ["create-image", "wait-nodes"])
def test_a_stage_of_a_directory_that_does_not_exist_makes_none(desk: Desk, stage: str) -> None:
    nowhere = desk.home / "nowhere"
    assert desk.refused(USAGE, "stage", stage, "--run", nowhere) == f"{nowhere}: there is no run here"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run",), "Missing option '--cell'"),
        (("run", "--cell", CELL, "--nodes", "0"), "0 is not in the range 1<=x<=128"),
        (("run", "--cell", CELL, "--boot", "floppy"), "'floppy' is not one of 'cdrom', 'network'"),
        (("stage", "reboot", "--run", "."), "'reboot' is not one of 'create-image', "),
        (("ssh", "/nowhere"), "Directory '/nowhere' does not exist"),
        (("console", "/nowhere", "oscarnode1"), "Directory '/nowhere' does not exist"),
        (("destroy", "/nowhere"), "Directory '/nowhere' does not exist"),
        (("instal",), "No such command 'instal'"),
    ],
)
def test_a_wrong_command_line_says_what_would_be_right(desk: Desk, words: tuple[str, ...], complaint: str) -> None:
    answer = desk.call("oscar_steps.testdriver", *words)
    assert answer.status == USAGE
    assert complaint in answer.err.splitlines()[-1]


# The demo


def test_the_demo_says_who_has_its_port(desk: Desk) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        answer = desk.call("demo", "--port", str(port))
    assert answer.status == INFRASTRUCTURE
    assert f"demo: {LOOPBACK}:{port} is in use by '" in answer.sentence
    assert f"(process {os.getpid()})" in answer.sentence
    assert f"make demo PORT={port + 10}" in answer.err


def test_the_demo_names_the_faults_there_are(desk: Desk) -> None:
    answer = desk.call("demo", "--break", "nonsense")
    assert answer.status == USAGE
    assert answer.sentence.startswith("demo: there is no fault 'nonsense'; there are: cluster-test-fails, ")


# The master


def free_ports() -> str:
    """Settings with ports that nobody on this machine has: a farm may be running here."""
    with socket.create_server((LOOPBACK, 0)) as web, socket.create_server((LOOPBACK, 0)) as master:
        ports = web.getsockname()[1], master.getsockname()[1]
    return f"[web]\nport = {ports[0]}\n[master]\nport = 'tcp:{ports[1]}:interface={LOOPBACK}'\n"


def checkconfig(desk: Desk, site: str) -> str:
    """What `buildbot checkconfig` has to say about a master with this farm.toml: one sentence, and its own status 1."""
    master = desk.home / "master"
    master.mkdir(mode=0o700)
    (master / "farm.toml").write_text(site)
    (master / "buildbot.tac").write_text(f"configfile = {str(ROOT / 'master.cfg')!r}\n")
    answer = desk.execute(Path(sys.executable).parent / "buildbot", "checkconfig", master)
    assert answer.status == 1, answer
    title, *said = answer.err.splitlines()
    assert title == "Configuration Errors:"
    assert len(said) == 1, answer.err
    assert sorted(path.name for path in master.iterdir()) == ["buildbot.tac", "farm.toml"]
    return said[0].strip()


def test_checkconfig_says_which_secret_is_missing_and_how_to_make_it(desk: Desk) -> None:
    said = checkconfig(desk, SITE + free_ports())
    secret = desk.home / "master" / "secrets" / "worker-worker1"
    assert said.startswith(f"the secret file {secret} (password of the worker worker1) is missing; create it: ")


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("[web\n", r"farm\.toml: Expected ']' .*\(at line 5, column 5\)"),
        ("[web]\nport = 'http'\n", r"farm\.toml:6: web\.port: give a whole number"),
        ("[web]\nprot = 1\n", r"farm\.toml:6: web\.prot: there is no such setting"),
        ("cells = ['fedora-6-i386']\n", r"the worker 'worker1' names the cell 'fedora-6-i386', .* there are: "),
    ],
)
def test_checkconfig_says_where_the_site_is_wrong(desk: Desk, more: str, where: str) -> None:
    ports = free_ports() if more.startswith("cells") else ""
    assert re.search(where, checkconfig(desk, SITE + more + ports))


def test_the_site_printed_by_hand_says_the_same(desk: Desk) -> None:
    site = desk.home / "farm.toml"
    site.write_text(SITE + "[web]\nprot = 1\n")
    answer = desk.call("oscar_steps.site", site)
    assert answer.status == USAGE
    assert answer.sentence == f"{site}:6: web.prot: there is no such setting"


@pytest.mark.parametrize(("module", "refused"), [("site", USAGE), ("matrix", USAGE), ("master.secret", USAGE)])
def test_each_module_that_is_a_command_explains_itself_and_refuses_what_it_does_not_know(
    desk: Desk, module: str, refused: int
) -> None:
    told = desk.call(f"oscar_steps.{module}", "--help")
    assert told.status == 0
    assert f"oscar_steps.{module}" in told.out
    assert desk.call(f"oscar_steps.{module}", "--no-such").status == refused


def test_an_image_is_not_built_of_a_recipe_that_is_missing_or_of_nothing(desk: Desk) -> None:
    missing = desk.home / "missing.toml"
    answer = desk.call("oscar_steps.testdriver", "images", "build", missing)
    assert (answer.status, answer.out, answer.err) == (64, "", f"oscar-testdriver: {missing}: there is no such file\n")
    answer = desk.call("oscar_steps.testdriver", "images", "build", "missing")
    assert answer.status == 64
    assert "there is no recipe 'missing' in" in answer.err


def test_the_earlier_way_to_build_an_image_says_what_it_is_now(desk: Desk) -> None:
    answer = desk.call("oscar_steps.images.store", "debian-12-x86_64.toml")
    said = "python -m oscar_steps.images.store is a command now: oscar-testdriver images build RECIPE\n"
    assert (answer.status, answer.err) == (1, said)


def test_an_output_that_is_full_is_not_blamed_on_the_run_directory_alone(desk: Desk) -> None:
    answer = desk.execute("/bin/sh", "-c", f"{sys.executable} -m oscar_steps.testdriver status --help >/dev/full")
    assert answer.status == INFRASTRUCTURE
    assert "standard output or the run directory cannot be written to: No space left on device" in answer.err


@pytest.mark.parametrize("module", ["testdriver", "matrix", "site", "master.secret"])
def test_an_option_that_there_is_not_ends_with_the_status_of_a_usage_error(desk: Desk, module: str) -> None:
    answer = desk.call(f"oscar_steps.{module}", "--nonsense")
    assert (answer.status, answer.out) == (USAGE, "")
    assert "--nonsense" in answer.err

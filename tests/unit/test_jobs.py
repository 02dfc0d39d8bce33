"""The same cell, revision and wishes are the same job on the farm and on a laptop; and a job of the farm's pages."""

from __future__ import annotations

import asyncio
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buildbot.process.results import SUCCESS
from click.testing import CliRunner

from demo.ports import LOOPBACK, free_port
from oscar_steps.errors import ConfigError, FarmError, HostError
from oscar_steps.job import JOB_FILE, Job
from oscar_steps.master.builders import build_plans
from oscar_steps.master.steps.results import RunIdentity
from oscar_steps.master.steps.stages import JobStep
from oscar_steps.master.watch import exact as exact_module
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.site import load_site
from oscar_steps.testdriver.cli import farm_job, run
from oscar_steps.testdriver.cli.farm_job import load_job
from oscar_steps.testdriver.cli.main import cli
from oscar_steps.testdriver.record.verdicts import replay_command
from oscar_steps.verdict import ExitStatus, Outcome, Verdict

REPOSITORY = "svn://127.0.0.1/oscar"
SITE = f"""\
[repository]
url = "{REPOSITORY}"
[timeouts]
install = 5400
node_boot = 77
[[worker]]
name = "w1"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "farm.toml"
    path.write_text(SITE)
    return path


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subversion says on both sides that it is revision 7."""

    async def on_the_farm(*_: Any) -> str:
        return "7"

    async def none(*_: Any) -> tuple[()]:
        return ()

    monkeypatch.setattr(exact_module, "externals_at", none)
    monkeypatch.setattr(exact_module, "exact_revision", on_the_farm)
    monkeypatch.setattr(run, "exact", lambda asked, _cache: asked.model_copy(update={"revision": "7"}))


def job_of_the_farm(site: Path, **properties: Any) -> Job:
    """What the job step hands to the worker for a build with these properties."""
    logs: dict[str, str] = {}

    async def nothing(*_: Any) -> None:
        pass

    async def done(command: Any) -> None:
        command.rc = 0

    async def add_log(name: str, text: str) -> None:
        logs[name] = text

    values: dict[str, Any] = {"buildnumber": 1, **properties}
    loaded = load_site(site)
    plan = build_plans(loaded, load_matrix(default_profiles()))[0]
    step: Any = SimpleNamespace(
        name="job",
        site=loaded,
        plans={plan.name: plan},
        cell=plan.name,
        oscar_names=(),
        svn=set(),
        stopped=False,
        build=SimpleNamespace(
            stopped=False, stopped_reason=None, conn=object(), executedSteps=[], getSourceStamp=lambda _name="": None
        ),
        master=SimpleNamespace(reactor=None, basedir="", botmaster=SimpleNamespace(shuttingDown=False)),
        getProperty=values.get,
        setProperty=lambda name, value, _source: values.__setitem__(name, value),
        check=nothing,
        begin=lambda *words: JobStep.begin(step, *words),
        runCommand=done,
        addCompleteLog=add_log,
        _remove_old_runs=nothing,
        _wish=lambda: JobStep._wish(step),
    )
    assert asyncio.run(JobStep.run(step)) == SUCCESS
    return Job.model_validate_json(logs[JOB_FILE])


def job_of_a_laptop(monkeypatch: pytest.MonkeyPatch, *words: str) -> Job:
    """What `oscar-testdriver WORDS` would run."""
    made: list[Job] = []
    monkeypatch.setattr(run, "_run_here", lambda job, *_: made.append(job))
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return made[0]


def without_name(job: Job) -> Job:
    """The farm also knows what it calls the branch, which changes nothing of what is tested."""
    source = job.source.model_copy(update={"branch": ""})
    return job.model_copy(update={"run_id": "x", "source": source})


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({}, ()),
        ({"nodes": 4}, ("--nodes", "4")),
        ({"boot": "network", "branch": "branches/5.1"}, ("--boot", "network")),
        ({"nodes": 3, "boot": "cdrom", "branch": "tags/a b", "revision": "7"}, ("--nodes", "3", "--boot", "cdrom")),
    ],
)
def test_the_same_cell_revision_and_wishes_are_the_same_job_on_the_farm_and_on_a_laptop(
    site: Path, monkeypatch: pytest.MonkeyPatch, properties: dict[str, Any], words: tuple[str, ...]
) -> None:
    farm = job_of_the_farm(site, **properties)
    repository = load_site(site).repository
    assert repository
    url = repository.source_url(properties.get("branch", "trunk"))
    common = ("run", "--cell", farm.cell, "--url", url, "--site", str(site))
    laptop = job_of_a_laptop(monkeypatch, *common, *words)
    assert without_name(laptop) == without_name(farm)
    assert (laptop.timeouts.install, laptop.timeouts.node_boot) == (5400, 77)
    again = shlex.split(replay_command(farm))[1:]
    assert without_name(job_of_a_laptop(monkeypatch, *again, "--site", str(site))) == without_name(farm)


def test_a_sites_profiles_are_those_of_a_run_for_it(site: Path, tmp_path: Path) -> None:
    site.write_text(f'profiles = "elsewhere"\n{SITE}')
    done = CliRunner().invoke(cli, ["run", "--cell", "c", "--url", REPOSITORY, "--site", str(site)])
    assert done.exit_code == ExitStatus.USAGE
    assert str(tmp_path / "elsewhere/matrix.toml") in done.output


@pytest.mark.usefixtures("exact")
def test_what_a_run_by_hand_says_to_type_again_is_its_own_job(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Job] = []

    def ends_at_once(directory: Path, job: Job, *_: Any, **_more: Any) -> Verdict:
        made.append(job)
        directory.mkdir(parents=True)
        job.save(directory / JOB_FILE)
        verdict = RunIdentity(job.run_id, job.cell, job.source.url, "7").verdict(Outcome.CANCELLED, "stopped")
        return verdict.model_copy(update={"replay": replay_command(job)})

    monkeypatch.setattr(run, "execute", ends_at_once)
    words = ["run", "--url", REPOSITORY, "--site", str(site), "--runs", str(tmp_path / "my runs"), "--nodes", "3"]
    done = CliRunner().invoke(cli, [*words, "--cell", load_matrix(default_profiles()).cells[0].name])
    again = done.output.splitlines()[-1].partition("again:")[2]
    CliRunner().invoke(cli, [*shlex.split(again)[1:], "--runs", str(tmp_path / "other")])
    assert without_name(made[0]) == without_name(made[1])


# A job of the farm's pages


@pytest.fixture
def page() -> Iterator[Callable[[Callable[[Any], None]], str]]:
    """The address of a server that answers each request by calling that."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Callable[[Any], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://{LOOPBACK}:{server.server_port}/plugins/runs/c-r7-b1/job.json"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def says(body: bytes, status: int = 200, reason: str = "OK", length: int | None = None) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        request.send_response(status, reason)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return answer


def drips(request: Any) -> None:
    """One byte after the other, without end: no single one keeps its reader waiting."""
    try:
        request.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        while True:
            request.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("nodes", ["many", -3, None, [4]])
def test_a_number_of_nodes_that_is_none_is_the_cells_own(site: Path, nodes: Any) -> None:
    assert without_name(job_of_the_farm(site, nodes=nodes)) == without_name(job_of_the_farm(site))


@pytest.mark.usefixtures("exact")
def test_the_address_of_a_job_on_the_farms_pages_gives_the_very_same_run(
    site: Path, monkeypatch: pytest.MonkeyPatch, page: Callable[[Callable[[Any], None]], str]
) -> None:
    farm = job_of_the_farm(site, nodes=4, boot="network", branch="branches/5.1")
    laptop = job_of_a_laptop(monkeypatch, "replay", page(says(farm.model_dump_json().encode())))
    assert without_name(laptop) == without_name(farm)
    assert laptop.run_id.startswith(f"{farm.run_id}-again-")


@pytest.mark.usefixtures("exact")
def test_a_step_of_a_search_over_packages_is_repeated_on_its_image_or_on_the_one_that_is_named(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = job_of_the_farm(site).model_copy(update={"image_key": "a" * 64, "image_versions": {"sed": "4.9"}})
    step.save(tmp_path / "step.json")
    again = job_of_a_laptop(monkeypatch, "replay", str(tmp_path / "step.json"))
    assert (again.image_key, again.image_versions) == ("a" * 64, {"sed": "4.9"})
    other = job_of_a_laptop(monkeypatch, "replay", str(tmp_path / "step.json"), "--image", "b" * 64)
    assert (other.image_key, other.image_versions) == ("b" * 64, {})


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (says(b"", 404, "Not Found"), ConfigError, "the farm has no such file"),
        (says(b"", 502, "Bad \x1b[31mGateway"), HostError, "the server answers 502 Bad  [31mGateway"),
        (says(b"<!DOCTYPE html>"), ConfigError, "the file as a whole: Invalid JSON"),
        (says(b"[" + b" " * 2000 + b"]"), HostError, "is larger than 1000 bytes"),
        (says(b'{"run_id"', length=900), HostError, "closed the connection before the last byte"),
        (says(b'{"\\u001b[31m": 1}'), ConfigError, "Field required"),
        (drips, HostError, "timed out after 2 s"),
        (lambda request: request.wfile.write(b"220 mail.x.org ESMTP\r\n"), HostError, "cannot be fetched"),
        (lambda _request: None, HostError, "cannot be fetched"),
    ],
)
def test_a_page_that_is_no_job_is_one_sentence_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
    page: Callable[[Callable[[Any], None]], str],
    answer: Callable[[Any], None],
    kind: type[FarmError],
    words: str,
) -> None:
    monkeypatch.setattr(farm_job, "SECONDS", 2)
    monkeypatch.setattr(farm_job, "MAX_BYTES", 1000)
    url = page(answer)
    with pytest.raises(kind) as told:
        load_job(url)
    assert url in told.value.sentence
    assert words in told.value.sentence
    assert told.value.explain().replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("http://127.0.0.1:{port}/job.json", HostError, "Connection refused"),
        ("http://127.0.0.1:99999999/job.json", ConfigError, "not the address of a web page"),
        ("http://[/job.json", ConfigError, "not the address of a web page"),
        ("http://h/a b", ConfigError, "not the address of a web page"),
        ("HTTP://", ConfigError, "not the address of a web page"),
        (f"http://{'x' * 70}.invalid/job.json", ConfigError, "not the address of a web page"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_sentence(url: str, kind: type[FarmError], words: str) -> None:
    with pytest.raises(kind, match=words):
        load_job(url.format(port=free_port()))

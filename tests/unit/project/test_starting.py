"""Commands start at once: none loads what only another one needs. Held on the list of loaded modules, never on time."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oscar_steps.lazygroup import LazyGroup
from oscar_steps.matrix.cells import default_profiles
from oscar_steps.testdriver.cli.main import cli as driver
from oscar_steps.v2m.cli import cli as v2m
from tests.unit.testdriver.process.test_attach import start_run
from tests.unit.testdriver.record.test_verdict import execute

COSTLY = {"asyncio", "filelock", "lxml", "paramiko", "psutil", "pydantic", "qemu", "rich"}
"""Each takes about as long to load as Python itself, or longer."""
V2M = "from oscar_steps.v2m import main"
DRIVER = "from oscar_steps.testdriver.cli.main import main"
PROFILE = str(default_profiles() / "clusters" / "head-and-two-nodes.xml")


def costly_modules(program: str, words: list[str], home: Path) -> set[str]:
    """What of `COSTLY` a program has loaded when the command line `words` is over."""
    code = (
        f"import atexit, sys\n{program}\n"
        "atexit.register(lambda: print('\\nloaded:', *sys.modules))\n"
        "sys.argv[0] = 'program'\nmain()\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(default_profiles().parent)}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, timeout=110
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return COSTLY & set(ran.stdout.rpartition("loaded: ")[2].split())


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["--version"], set()),
        (["--help"], set()),
        (["completion", "bash"], set()),
        (["no-such-command"], set()),
        (["validate", PROFILE], {"lxml"}),
        (["validate", "/dev/null"], {"lxml"}),
        (["status"], {"asyncio", "lxml"}),
        (["boot", "--help"], {"asyncio", "lxml"}),
        (["console", "--help"], {"asyncio", "lxml"}),
    ],
    ids=lambda value: " ".join(value).replace(PROFILE, "PROFILE") if isinstance(value, list) else "",
)
def test_a_command_of_v2m_loads_what_it_needs(words: list[str], loaded: set[str], tmp_path: Path) -> None:
    assert costly_modules(V2M, words, tmp_path) == loaded


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["--version"], set()),
        (["--help"], set()),
        (["no-such-command"], set()),
        (["status"], set()),
        (["status", "RUN"], {"pydantic"}),
        (["destroy", "RUN"], {"pydantic"}),
        (["verdict", "RUN", "--stored"], {"pydantic"}),
        (["console", "RUN", "no-such-machine"], set()),
        (["ssh", "RUN"], set()),
        (["stage", "--help"], set()),
        (["stage", "checkout", "--run", "RUN"], {"asyncio", "pydantic"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_of_the_driver_loads_what_it_needs(words: list[str], loaded: set[str], tmp_path: Path) -> None:
    if "RUN" in words:
        verdict, _ = execute(tmp_path / "run")
        verdict.save(tmp_path / "run")
    words = [str(tmp_path / "run") if word == "RUN" else word for word in words]
    assert costly_modules(DRIVER, words, tmp_path) == loaded


def test_a_command_attached_to_a_run_that_goes_on_needs_no_model(tmp_path: Path) -> None:
    with start_run(tmp_path, lingers=0):
        assert costly_modules(DRIVER, ["stage", "checkout", "--run", str(tmp_path)], tmp_path) == {"asyncio"}
        assert costly_modules(DRIVER, ["status", str(tmp_path)], tmp_path) == set()
        assert costly_modules(DRIVER, ["destroy", str(tmp_path)], tmp_path) == {"asyncio", "pydantic"}


@pytest.mark.parametrize("program", [pytest.param(driver, id="oscar-testdriver"), pytest.param(v2m, id="v2m")])
def test_the_help_of_a_program_lists_each_command_that_is_not_hidden(program: LazyGroup) -> None:
    context = click.Context(program)
    for name, (module, words) in program.table.items():
        command = program.get_command(context, name)
        assert command is not None
        assert command.hidden == (words == "")
        found = [each for each in vars(import_module(module)).values() if isinstance(each, click.Command)]
        below = {name for each in found if isinstance(each, click.Group) for name in each.commands}
        assert {each.name for each in found} - below <= set(program.table)
    wide = {"terminal_width": 200, "max_content_width": 200}  # each on one line
    listed = CliRunner().invoke(program, ["--help"], **wide).output.partition("Commands:\n")[2].partition("\n\n")[0]
    assert listed.splitlines() == [
        f"  {name:<{max(map(len, program.table))}}  {words}" for name, (_, words) in program.table.items() if words
    ]

"""Each external program is started with an environment of ours, not with the caller's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import oscar_steps
from oscar_steps.environment import libvirt_environment, python_environment

PACKAGE = Path(oscar_steps.__file__).parent
STARTERS = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec", "create_subprocess_shell"}
BARE = {"system", "popen", "execv", "execvp", "execl", "execlp", "posix_spawn", "spawnv", "spawnvp"}


def _without(source: str) -> list[int]:
    """Lines that start a program with the caller's environment, or copy it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "subprocess":
            found.append(node.lineno)  # such a call would go unseen
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, ast.unparse(node.func.value)
            given = {word.arg for word in node.keywords}
            starts = owner in {"subprocess", "asyncio"} and name in STARTERS and (owner, name) != ("asyncio", "run")
            if (starts and "env" not in given) or (owner == "os" and name in BARE):
                found.append(node.lineno)
            if any(word.arg == "env" and "os.environ" in ast.unparse(word.value) for word in node.keywords):
                found.append(node.lineno)
        elif (isinstance(node, ast.Dict) and None in node.keys) or isinstance(node, ast.BinOp):
            parts = node.values if isinstance(node, ast.Dict) else [node.left, node.right]
            if any(ast.unparse(part) == "os.environ" for part in parts):
                found.append(node.lineno)
    return sorted(set(found))


def test_no_program_is_started_with_the_callers_environment() -> None:
    files = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    found = {name: _without(path.read_text(encoding="utf-8")) for name, path in files.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(['a'])",
        "subprocess.run(['a'], env={**os.environ})",
        "asyncio.create_subprocess_exec('a')",
        "os.execvp('a', ['a'])",
        "environment = os.environ | {}",
        "from subprocess import run",
    ],
)
def test_the_walk_sees_each_way_to_start_a_program(line: str) -> None:
    assert _without(line) == [1]


def test_virsh_keeps_the_users_libvirt_and_our_programs_keep_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"LIBVIRT_DEFAULT_URI": "test:///default", "XAUTHORITY": "/x", "XDG_CONFIG_HOME": "/c"}
    for name, value in {**kept, "PYTHONPATH": "/p", "LC_ALL": "de_DE", "PERL5OPT": "-x"}.items():
        monkeypatch.setenv(name, value)
    virsh, python = libvirt_environment(), python_environment()
    assert kept.items() <= virsh.items() and "PYTHONPATH" not in virsh
    assert kept.items() <= python.items() and python["PYTHONPATH"] == "/p"
    assert virsh["LC_ALL"] == python["LC_ALL"] == "C.UTF-8" and "PERL5OPT" not in {**virsh, **python}

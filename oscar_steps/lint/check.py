"""Check a tree with every check of `oscar_steps.lint`, in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from oscar_steps.errors import HostError
from oscar_steps.lint.confine import Answer, Sandbox, Task
from oscar_steps.lint.kept import Kept
from oscar_steps.lint.lists.control import check_control
from oscar_steps.lint.lists.names import check_lists
from oscar_steps.lint.lists.paths import check_paths
from oscar_steps.lint.lists.recipes import check_recipes, read_makefile, script_of
from oscar_steps.lint.perl.chain import check_chain, way_of_cells
from oscar_steps.lint.perl.compile import judge_perl
from oscar_steps.lint.perl.starts import is_perl
from oscar_steps.lint.problems import Findings, Problem, Report
from oscar_steps.lint.scratch import scratch_folder
from oscar_steps.lint.texts import SHELLS, check_texts, has_conflict, is_for_two, judge_shell
from oscar_steps.lint.tree import File, Tree
from oscar_steps.oscar.answers.menus import MenuUnreadable, is_menu_file, read_menus

SECONDS = 120
"""All scripts together may take this long; what has had no turn then is a fault of the host."""


def check_tree(top: Path | Tree, seconds: float = SECONDS, cache: Path | None = None) -> Report:
    """Everything that can be said of the OSCAR tree at `top` (or one that was read already) without installing it.

    What the compilers say is kept in the folder `cache`, by content: the next tree that has much in common takes less.
    Raises SourceError for what is no tree, HostError where this host cannot compile or does not get through in time.
    """
    began = time.monotonic()
    tree = top if isinstance(top, Tree) else Tree(top)
    found = check_texts(tree)
    found.take(check_chain(tree))
    found.take(check_lists(tree))
    found.take(check_paths(tree))
    found.take(check_recipes(tree))
    found.take(check_control(tree))
    found.take(_check_menus(tree))
    for file in filter(_is_odd, tree.files.values()):
        found.leave(file.path, "its name has characters that no line can show")
    tasks = list(_tasks(tree))
    ranks = {path: rank for rank, path in enumerate(way_of_cells(tree))}
    found.take(_compile(tree, tasks, began + seconds, Kept(cache, tree), frozenset(ranks)))
    problems = tuple(sorted(replace(p, rank=ranks[p.file]) if p.file in ranks else p for p in set(found.problems)))
    looked_at = sum(not file.binary for file in tree.files.values())
    return Report(problems, tuple(sorted(set(found.left_alone))), looked_at, time.monotonic() - began)


def _is_odd(file: File) -> bool:
    return not file.path.isprintable()


def _tasks(tree: Tree) -> Iterator[Task]:
    for file in tree.files.values():
        if file.binary or _is_odd(file) or has_conflict(file):
            continue
        if read_makefile(file) is not None:
            yield Task("shell", file.path)
        elif not file.in_command_line:
            continue
        elif is_perl(file):
            yield Task("perl", file.path)
        elif file.interpreter in SHELLS and not is_for_two(file):
            yield Task("shell", file.path)


def _compile(tree: Tree, tasks: list[Task], until: float, kept: Kept, way: frozenset[str]) -> Findings:
    answers, ask = list[Answer](), list[Task]()
    for task in tasks:
        if answer := kept.answer(task):
            answers.append(answer)
        else:
            ask.append(task)
    if ask:
        new = _ask(tree, ask, until)
        for answer in new:
            kept.keep(answer)
        kept.bound()
        answers += new
    found = Findings()
    for answer in answers:
        found.take(judge_perl(answer, tree) if answer.task.kind == "perl" else judge_shell(answer))
    sure = {problem for problem in found.problems if problem.gates}
    found.problems = [replace(p, gates=p.file in way and replace(p, gates=True) in sure) for p in found.problems]
    found.problems = list(one_a_line(found.problems))
    late = sum(answer.end == "late" for answer in answers)
    if late:  # compared with a tree that was read to its end, half a report would call things new or mended
        raise HostError(f"{late} of {len(tasks)} scripts were not checked in time: this host is too busy or too slow")
    return found


def one_a_line(problems: Iterable[Problem]) -> Iterator[Problem]:
    """One mistake in a module may be said in several ways by those who load it: once is enough, what gates first."""
    seen = set[tuple[str, int]]()
    for problem in sorted(problems):
        if not problem.line or (problem.file, problem.line) not in seen:
            seen.add((problem.file, problem.line))
            yield problem


def _ask(tree: Tree, tasks: list[Task], until: float) -> list[Answer]:
    with scratch_folder() as place:
        place.chmod(0o755)
        for folder in ("tree", "checks"):
            (place / folder).mkdir()
        shells = [task.path for task in tasks if task.kind == "shell"]
        makefiles = [tree.files[path] for path in shells if read_makefile(tree.files[path]) is not None]
        tree.write_scripts(place / "tree", {file.path: script_of(file) for file in makefiles})
        return Sandbox(place / "tree", place / "checks").check(tasks, until)


def _check_menus(tree: Tree) -> Findings:
    """The answers are given by the numbers of the menus: a menu that cannot be read ends every run before it begins."""
    found = Findings()
    files = {path: file.text for path, file in tree.files.items() if not file.binary and is_menu_file(path)}
    try:
        read_menus(files)
    except MenuUnreadable as error:
        found.problems.append(_menu_problem(error, tree))
    return found


def _menu_problem(error: MenuUnreadable, tree: Tree) -> Problem:
    head, _, rest = error.sentence.partition(": ")
    file, _, line = head.rpartition(":") if head.rpartition(":")[2].isdigit() else (head, "", "0")
    if file in tree.files:
        return Problem(file, int(line), f"menu: {rest}", error.hint or "see docs/lint.md", of_answers=True)
    return Problem(
        "src/cli", 0, f"menu: {error.sentence}", error.hint or "each item stands in its menu once", of_answers=True
    )

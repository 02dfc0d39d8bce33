"""The report on a tree is kept: the tree before a commit is the one that the last commit was judged in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from oscar_steps.lint.check import check_tree
from oscar_steps.lint.entries import SPOILED, let_oldest_go, read_entry, version_of, write_entry
from oscar_steps.lint.perl.starts import READ, Load, Start
from oscar_steps.lint.problems import LeftAlone, Problem, Report
from oscar_steps.lint.tree import Tree

MAX_REPORTS = 400
MAX_SOURCES = 2000
_UNFINISHED = ("was not finished", "did not end within", "processes that stay", "needs more than")
"""Words of what a host with more time or memory may say otherwise."""
_recalled: set[str] = set()
_ROOMS = (Path(__file__).parent, Path(__file__).parent.parent / "oscar")


def report_of(tree: Tree, cache: Path | None) -> Report:
    """What `check_tree` says, or said of the very same tree; `seconds` is what that took then."""
    folder = None if cache is None else cache / "reports"
    entry = None if folder is None else folder / fingerprint(tree)
    if entry is not None and (report := _kept(entry)) is not None:
        return report
    if cache is None or folder is None or entry is None:
        return check_tree(tree)
    sources = cache / "sources"
    _recall_sources(sources)
    report = check_tree(tree, cache=cache / "compiled")
    _keep_sources(sources)
    if _is_final(report):
        write_entry(entry, asdict(report))
        let_oldest_go(folder, MAX_REPORTS)
    return report


def fingerprint(tree: Tree) -> str:
    """What the report depends on: the tree, our own program, and the compilers."""
    digest = hashlib.blake2b(_version().encode(), digest_size=24)
    for file in sorted(tree.files.values(), key=lambda file: file.path):
        # Nothing is said of what is in a tarball.
        content = b"binary" if file.binary else hashlib.blake2b(file.content, digest_size=24).digest()
        digest.update(file.path.encode("utf-8", "surrogateescape") + bytes([0, file.executable]) + content)
    for paths in (tree.folders, tree.others, tree.externals):
        digest.update("\0".join(["", *sorted(paths), ""]).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _version() -> str:
    return version_of(*_ROOMS)


def _is_final(report: Report) -> bool:
    """Whether it would be the same on a host with more time."""
    said = (*(alone.why for alone in report.left_alone), *(problem.what for problem in report.problems))
    return not any(words in what for what in said for words in _UNFINISHED)


def _recall_sources(entry: Path) -> None:
    """What the perl sources of earlier trees start and load."""
    with suppress(*SPOILED):
        data = read_entry(entry)
        if not READ and data["version"] == _version():
            for key, (loads, starts) in data["read"].items():
                READ[key] = (
                    tuple(Load(**load) for load in loads),
                    tuple(Start(**{**start, "candidates": tuple(start["candidates"])}) for start in starts),
                )
            _recalled.update(READ)


def _keep_sources(entry: Path) -> None:
    if not READ.keys() <= _recalled:
        last = dict(list(READ.items())[-MAX_SOURCES:])
        read = {key: [[asdict(each) for each in kind] for kind in found] for key, found in last.items()}
        write_entry(entry, {"version": _version(), "read": read})
        _recalled.update(READ)


def _kept(entry: Path) -> Report | None:
    try:
        data = read_entry(entry)
        problems = tuple(Problem(**problem) for problem in data["problems"])
        alone = tuple(LeftAlone(**each) for each in data["left_alone"])
        report = Report(problems, alone, int(data["files"]), float(data["seconds"]))
        os.utime(entry)
    except SPOILED:
        return None
    return report

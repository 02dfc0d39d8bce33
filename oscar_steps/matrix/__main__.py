"""`python -m oscar_steps.matrix` checks the profiles and shows the cells."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from oscar_steps.errors import FarmError
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.matrix.rows import MatrixText
from oscar_steps.matrix.show import Difference, as_value, open_matrix, table, why
from oscar_steps.words import ExitStatus

_EPILOG = """\
Exit status: 0, or 64 for a mistake in the profiles or on the command line, which one sentence explains.
docs/matrix-format.md says what can stand in matrix.toml.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the matrix. Gives the exit status."""
    parser = _parser()
    try:
        wanted = parser.parse_args(arguments)
    except SystemExit as end:  # argparse has said what is wrong, and would end with 2, as a traceback does
        return ExitStatus.USAGE if end.code else 0
    try:
        lines = _lines(wanted.profiles, wanted.why, wanted.diff, as_json=wanted.json)
    except FarmError as error:
        print(error.explain(), file=sys.stderr)
        return ExitStatus.USAGE
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; nothing is to be said at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m oscar_steps.matrix",
        description="Check the profiles and show the cells of the matrix: a table, or what an option asks for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "profiles", nargs="?", type=Path, default=default_profiles(), help="the folder of profiles (this checkout's)"
    )
    parser.add_argument("--json", action="store_true", help="for programs: JSON in place of text")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--why", metavar="CELL", help="each setting of a cell, and the line where its value comes from")
    one.add_argument(
        "--diff", metavar="OLD", type=Path, help="the cells that come, go or change; OLD: profiles, or a matrix.toml"
    )
    return parser


def _lines(profiles: Path, cell: str | None, old: Path | None, *, as_json: bool) -> Sequence[str]:
    matrix = load_matrix(profiles)
    for each in matrix.cells:  # each file is read once
        matrix.image(each)
        matrix.answers(each)
    if cell is not None:
        found = why(MatrixText(profiles / "matrix.toml"), matrix.cell(cell).name)
        if as_json:
            return [_json({setting: {"value": value, "from": origin} for setting, value, origin in found})]
        return [f"{setting:16}{value}  ({origin})" for setting, value, origin in found]
    if old is not None:
        difference = Difference(open_matrix(old), matrix)
        return [_json(difference.as_value())] if as_json else [*difference.lines()]
    if as_json:
        return [_json([{**as_value(each), "unproven": matrix.image(each).unproven} for each in matrix.cells])]
    return [table(matrix)]


def _json(value: object) -> str:
    return json.dumps(value, indent=2)


if __name__ == "__main__":
    sys.exit(main())

"""What the driver's commands have in common: how an error ends one, and what a directory on the command line is."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from oscar_steps.environment import default_runs
from oscar_steps.errors import FarmError, UserError
from oscar_steps.words import ExitStatus

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def directory(**more: Any) -> click.Path:
    """A directory as a parameter of a command."""
    return click.Path(path_type=Path, file_okay=False, **more)


class _Run(click.Path):
    """A run's directory, or the name that `status` prints of a run: in --runs, else in this user's folder of runs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with suppress(FarmError, OSError):
            if "/" not in str(value) and not Path(value).exists():
                runs = ctx.params.get("runs") if ctx else None  # no path, before click has read it
                named = (runs if isinstance(runs, Path) else default_runs()) / value
                value = str(named) if named.is_dir() else value
        return super().convert(value, param, ctx)


def existing_run() -> click.Path:
    """A run as a parameter of a command."""
    return _Run(path_type=Path, file_okay=False, exists=True)


def leave(status: ExitStatus) -> NoReturn:
    """End the program."""
    sys.stdout.flush()
    sys.exit(int(status))


def explained(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of ours are one sentence on standard error and an exit status, never a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            click.echo(f"oscar-testdriver: {error.explain()}", err=True)
            leave(ExitStatus.USAGE)
        except FarmError as error:
            click.echo(f"oscar-testdriver: {error.explain()}", err=True)
            leave(ExitStatus.INFRASTRUCTURE)
        except OSError as error:
            if error.errno not in _DISK_FAULTS and not isinstance(error.filename, str | Path):
                raise  # a bug of ours
            where = (
                f"{error.filename} cannot be used"
                if error.filename
                else "standard output or the run directory cannot be written to"
            )
            click.echo(f"oscar-testdriver: {where}: {error.strerror}", err=True)
            leave(ExitStatus.INFRASTRUCTURE)

    return wrapper

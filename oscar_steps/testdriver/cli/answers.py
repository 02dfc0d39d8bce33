"""`oscar-testdriver answers`: answer files shown, checked, and made, without a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import click

from oscar_steps.errors import UserError
from oscar_steps.job import CellPlan, Source, Timeouts
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.oscar.answers import clilog
from oscar_steps.oscar.answers.answers import AnswerKind, installer_command
from oscar_steps.oscar.answers.check import AnswerFile, check_answers
from oscar_steps.oscar.answers.menus import MENUS_2007, Menus, MenuUnreadable, is_menu_file, read_menus
from oscar_steps.oscar.flavour import FOLDERS, Flavour, FlavourName, flavour_of
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import explained, leave
from oscar_steps.testdriver.lookahead import text_of
from oscar_steps.testdriver.stages.create_image import check_job
from oscar_steps.testdriver.stages.start_install import answer_files
from oscar_steps.tomlfile import read_text
from oscar_steps.verdict import ExitStatus
from oscar_steps.words import MAX_NODES, NodeBoot

_FILE = click.Path(path_type=Path, dir_okay=False)
_tree = click.option("--tree", type=_directory(), help="OSCAR tree whose menus count [the menus of June 2007].")


@click.group()
def answers() -> None:
    """The answer files of OSCAR's installer: show recordings, check files, make files.

    \b
    Examples:
      oscar-testdriver answers show build.4711.clilog
      oscar-testdriver answers check selector.txt build.txt define.txt network.txt macs.txt
      oscar-testdriver answers check --kind network my-answers --tree ~/oscar
      oscar-testdriver answers render --cell debian-12-x86_64 --nodes 16 --into /tmp/files
    """


@answers.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@explained
def show(files: tuple[Path, ...]) -> None:
    """Show recordings of an interactive installation (STAGE.PID.clilog) as labels.

    Numbers are explained by the menu inside the recording, so it does not matter which OSCAR it is of. What a
    recording does not have (installation modes, the assignment of MACs) is marked.

    \b
    Example:
      oscar-testdriver answers show tmp/*.clilog
    """
    for file in files:
        if file.name.startswith("configurator."):
            click.echo(f"{file}: no file can answer the configurator, so its recording is not used")
            continue
        click.echo("\n".join(clilog.show(clilog.read_recording(str(file), read_text(file)))))


@answers.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--kind", type=click.Choice([kind.value for kind in AnswerKind]), help="What FILE answers [by its name].")
@click.option("--complete", is_flag=True, help="These are all the files: report those that are missing.")
@_tree
@explained
def check(files: tuple[Path, ...], kind: str | None, complete: bool, tree: Path | None) -> None:
    """Check answer files that were written by hand: each line where OSCAR would hang, or do something else silently.

    The beginning of a file's name says what it answers (selector, build, define, network, macs), or --kind does. Files
    of one installation are checked against each other: image names, number of nodes, MAC addresses. A recording
    (.clilog) is checked for whether it can be used again.

    \b
    Exit status: 0 no problem, 64 problems. Examples:
      oscar-testdriver answers check network.txt
      oscar-testdriver answers check --complete selector.txt build.txt define.txt network.txt macs.txt
    """
    if kind and len(files) > 1:
        raise UserError(f"--kind {kind} is for one file; {len(files)} were given")
    menus = read_tree(tree)[1] if tree else MENUS_2007
    recordings = [file for file in files if file.suffix == clilog.SUFFIX]
    read = [clilog.read_recording(str(file), read_text(file)) for file in recordings]
    clilog.definition(read, {})
    plain = [AnswerFile(_kind(file, kind), str(file), read_text(file)) for file in files if file not in recordings]
    twice = {file.kind for file in plain if sum(other.kind is file.kind for other in plain) > 1}
    if twice:
        raise UserError(f"two files answer '{min(twice)}'; give the files of one installation, each once")
    problems = check_answers(*plain, menus=menus, complete=complete)
    for problem in problems:
        click.echo(f"{problem}{'   [hangs]' if problem.hangs else ''}")
    click.echo(f"{_count(len(problems), 'problem')} in {_count(len(files), 'file')}")
    leave(ExitStatus.USAGE if problems else ExitStatus.PASSED)


@answers.command()
@click.option("--cell", "cell_name", required=True, help="Cell of the matrix, e.g. debian-12-x86_64.")
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), help="How many compute nodes [as the profile says].")
@click.option("--boot", type=click.Choice(get_args(NodeBoot)), help="How nodes boot [as the cluster profile says].")
@click.option("--profiles", type=_directory(), default=default_profiles, help="Folder with matrix.toml.")
@_tree
@click.option("--into", type=_directory(), required=True, help="Folder for the files; made where it does not exist.")
@explained
def render(cell_name: str, nodes: int | None, boot: str | None, profiles: Path, tree: Path | None, into: Path) -> None:
    """Make the answer files of a cell, as a run would, and say how the installer is started with them.

    The files name each other by their places on the head node, /root/farm. Without --tree the numbers are those of June
    2007; a run reads them out of the OSCAR that it tests.

    \b
    Examples:
      oscar-testdriver answers render --cell debian-12-x86_64 --into /tmp/files
      oscar-testdriver answers render --cell debian-12-x86_64 --nodes 16 --boot network --tree ~/oscar --into /tmp/files
    """
    matrix = load_matrix(profiles)
    cell = matrix.cell(cell_name)
    plan = CellPlan.of(matrix, cell, Timeouts())
    job = plan.job("answers", Source(url="file:///", revision="0"), nodes=nodes, boot=boot)
    profile = check_job(job, str(matrix.cluster_path(cell)), str(matrix.answers_path(cell)))
    flavour, menus = read_tree(tree) if tree else (Flavour(FlavourName.INSTALL_CLUSTER), MENUS_2007)
    rendered = answer_files(job, profile, menus)
    try:
        into.mkdir(parents=True, exist_ok=True)
        for path, text in rendered.files.items():
            file = into / Path(path).name
            file.write_text(text, encoding="utf-8", newline="\n")
            file.chmod(rendered.mode(path))
            click.echo(f"{file}   ({path} on the head node)")
    except OSError as error:
        raise UserError(f"{error.filename or into}: the file cannot be written: {error.strerror}") from None
    click.echo(
        installer_command(
            job.answers.oscar_home,
            rendered.arguments,
            asks_configurator=menus.asks_configurator,
            prefixes_paths=flavour.prefixes_paths,
        )
    )


def read_tree(tree: Path) -> tuple[Flavour, Menus]:
    """The flavour and the menus of an OSCAR tree on this host.

    Raises UserError, with file and line, also where its command line takes no answers.
    """
    if not tree.is_dir():
        raise UserError(f"{tree}: there is no such directory")
    texts = {}
    for folder, folders, names in os.walk(tree):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in names):
            relative = path.relative_to(tree).as_posix()
            if (
                is_menu_file(relative)
                or folder == str(tree)
                or relative.startswith(tuple(f"{one}/" for one in FOLDERS))
            ):
                texts[relative] = text_of(path)
    flavour = flavour_of(texts)
    if flavour.name is not FlavourName.INSTALL_CLUSTER:
        raise UserError(f"{tree}: this OSCAR cannot be installed by its command line: {flavour.reason}")
    try:
        return flavour, read_menus({path: text for path, text in texts.items() if is_menu_file(path)})
    except MenuUnreadable as error:
        raise UserError(f"{tree}: {error.sentence}", hint=error.hint) from None


def _kind(file: Path, kind: str | None) -> AnswerKind:
    if kind:
        return AnswerKind(kind)
    for one in AnswerKind:
        if file.name.startswith(one.value.removesuffix("s")):
            return one
    raise UserError(f"{file}: its name does not say what it answers: call it {', '.join(AnswerKind)}, or give --kind")


def _count(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"

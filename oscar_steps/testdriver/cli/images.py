"""`oscar-testdriver images`: the base images on this host, why each is as it is, and what changed between two."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from oscar_steps import manifest
from oscar_steps.environment import default_runs, default_store
from oscar_steps.errors import FarmError, OutsideUnknown, UserError
from oscar_steps.images import lease, outside, room
from oscar_steps.images.key import ImageKey
from oscar_steps.images.kind import Report
from oscar_steps.images.record import ImageRecord
from oscar_steps.images.store import ImageStore
from oscar_steps.job import Job
from oscar_steps.matrix.cells import default_profiles, load_matrix
from oscar_steps.matrix.recipes import ImageRecipe, load_recipe
from oscar_steps.testdriver.cli.common import directory as _directory
from oscar_steps.testdriver.cli.common import explained as _explained
from oscar_steps.testdriver.cli.common import leave as _leave
from oscar_steps.v3m.host import eventloop
from oscar_steps.verdict import Verdict
from oscar_steps.words import ExitStatus

_SHORT = 12
"""Characters of a key that are shown; so many are enough to name it."""

_store_option = click.option(
    "--images", "folder", type=_directory(), default=default_store, help="Store of base images [this user's]."
)
_profiles_option = click.option(
    "--profiles", type=_directory(), default=default_profiles, help="Folder with matrix.toml and images/ [the farm's]."
)


@click.group(invoke_without_command=True)
@_store_option
@click.pass_context
@_explained
def images(context: click.Context, folder: Path) -> None:
    """The base images on this host: list, explain, build, verify, prune, diff.

    An image is made of its recipe, of the distribution's packages of the day, and of files of ours; a digest of all
    three is its key. A run builds the image that it needs, or uses the one that is there. Without a command: list.

    \b
    Examples:
      oscar-testdriver images                              # what is there
      oscar-testdriver images explain debian-12-x86_64     # why a run would build another one
      oscar-testdriver images build debian-12-x86_64       # now, not in the next run
      oscar-testdriver images diff RUN1 RUN2               # what changed in the distribution
      oscar-testdriver run --image KEY ...                 # with the very image of an earlier run
    """
    if context.invoked_subcommand is None:
        _list(folder, as_json=False)
    elif context.get_parameter_source("folder") is ParameterSource.COMMANDLINE:
        context.default_map = {context.invoked_subcommand: {"folder": str(folder)}}


@images.command("list")
@_store_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_explained
def list_(folder: Path, as_json: bool) -> None:
    """List the images: name, key, age, size, when it was used last, and by whom it is in use now."""
    _list(folder, as_json=as_json)


def _list(folder: Path, *, as_json: bool) -> None:
    entries = list(reversed(room.entries(folder)))
    if as_json:
        click.echo(json.dumps([_facts(entry) for entry in entries], indent=1))
        return
    rows = [("NAME", "KEY", "AGE", "SIZE", "LAST USED", "IN USE BY"), *map(_row, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows if entries else ():
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[-1]]).rstrip())
    taken, limit = room.used_bytes(entries), room.limit_bytes(folder)
    click.echo(f"{_number_of_images(entries)}, {_gib(taken)} of {_gib(limit)} in {folder}")


def _number_of_images(entries: list[room.Entry]) -> str:
    return _count(sum(not entry.is_download for entry in entries), "image")


def _row(entry: room.Entry) -> tuple[str, ...]:
    record = entry.record
    name = f"{record.name if record else f'({entry.name})'}{' (damaged)' if entry.damaged else ''}"
    age = _ago(record.built) if record else "-"
    return name, entry.key[:_SHORT], age, _gib(entry.size), _ago(entry.last_used), ", ".join(entry.users)


def _facts(entry: room.Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "name": record.name if record else None,
        "key": entry.key,
        "damaged": entry.damaged,
        "built": record.built if record else None,
        "manifest": record.manifest if record else None,
        "bytes": entry.size,
        "last_used": entry.last_used,
        "in_use_by": list(entry.users),
    }


@images.command()
@click.argument("recipe", metavar="RECIPE")
@_profiles_option
@_store_option
@_explained
def explain(recipe: str, profiles: Path, folder: Path) -> None:
    """Say which image RECIPE needs today, whether it is there, and what differs from the last one.

    RECIPE: the name of a file in profiles/images, or the path of one.
    """
    wanted, store = _recipe(recipe, profiles), ImageStore(folder)
    outside.forget(folder)
    try:
        key = eventloop.run(store.key_of(wanted))
    except OutsideUnknown as error:
        click.echo(f"{error.sentence}; a run uses the newest image of the same recipe and code, if there is one")
        _leave(ExitStatus.INFRASTRUCTURE)
    click.echo(f"the image {wanted.name} of today has the key {key.digest}")
    for name, value in key.outside.items():
        click.echo(f"  {name}: {value[:_SHORT]}")
    click.echo(f"  its recipe, and {_count(len(key.own), 'file')} of ours")
    same = [entry for entry in room.entries(folder) if entry.record and entry.record.name == wanted.name]
    others = sorted((entry.record for entry in same if entry.record and entry.key != key.digest), key=_built)
    here = next((entry for entry in same if entry.key == key.digest and not entry.damaged), None)
    click.echo(_standing(here))
    if others:
        click.echo(_difference(key, others[-1]))
    elif here is None:
        click.echo("the store has no earlier one")


@images.command("key")
@click.argument("recipe", metavar="RECIPE")
@_profiles_option
@_store_option
@_explained
def key_(recipe: str, profiles: Path, folder: Path) -> None:
    """Print the key of the image that RECIPE needs today, without building it: one line.

    RECIPE: the name of a file in profiles/images, or the path of one, or the job.json of a run. The mirror is asked, a
    few KB; what it has said within five minutes is believed.
    """
    click.echo(eventloop.run(ImageStore(folder).key_of(_recipe(recipe, profiles))).digest)


def _standing(entry: room.Entry | None) -> str:
    if entry is None or entry.record is None:
        return "it is not in the store: the next run builds it"
    record = entry.record
    how = f"on a layer of {record.base[:_SHORT]}" if record.base else "from nothing"
    return f"it is in the store, built {_ago(record.built)} {how} in {record.seconds:.0f} s"


def _difference(key: ImageKey, last: ImageRecord) -> str:
    found = key.differences(last.image_key)
    return f"it differs from the one of {last.day}, {last.key[:_SHORT]}, in: {'; '.join(found)}"


@images.command()
@click.argument("recipes", metavar="[RECIPE]...", nargs=-1)
@_profiles_option
@_store_option
@_explained
def build(recipes: tuple[str, ...], profiles: Path, folder: Path) -> None:
    """Build images now: those of RECIPEs (names or files), or without any those that the matrix's cells use
    and that some run has proven.

    An image that is there is not built again. The path of each is printed. One that cannot be built keeps no other
    from being built.
    """
    wanted: dict[str, ImageRecipe] = {}
    if not recipes:
        matrix = load_matrix(profiles)
        wanted = {image.name: image for image in map(matrix.image, matrix.cells) if not image.unproven}
    errors: list[FarmError] = []
    for name in recipes or wanted:
        try:
            recipe = wanted.get(name) or _recipe(name, profiles)
            image = eventloop.run(ImageStore(folder).ensure(recipe, _said_by(recipe.name)))
            click.echo(image.path)
        except FarmError as error:
            errors.append(error)
            which = "" if name in error.sentence else f"{name}: "
            click.echo(f"oscar-testdriver: {which}{error.explain()}", err=True)
    if errors:
        _leave(ExitStatus.USAGE if isinstance(errors[0], UserError) else ExitStatus.INFRASTRUCTURE)


def _said_by(name: str) -> Report:
    return lambda line: click.echo(f"{name}: {line}", err=True)


@images.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@_store_option
@_explained
def verify(keys: tuple[str, ...], folder: Path) -> None:
    """Compare the files of images with what they were when the images were built; of KEYs, or of all.

    A damaged image is taken out of use: the next run that needs it builds it anew.
    """
    entries = [image_entry(folder, key) for key in keys] if keys else room.entries(folder)
    damaged = 0
    for entry in entries:
        held = None if entry.damaged or entry.is_download else lease.lease(entry.folder)
        if held is None:  # or it is being removed
            continue
        record = entry.record
        faults = record.faults(entry.folder, thorough=True) if record else []
        name = f"{entry.name} {entry.key[:_SHORT]}"
        if faults:
            damaged += 1
            click.echo(f"{name}: damaged: {'; '.join(faults)}; {_out_of_use(entry.folder, held)}")
        else:
            click.echo(f"{name}: {'ok' if record else 'nothing is known of it'}")
        held.end()
    _leave(ExitStatus.INFRASTRUCTURE if damaged else ExitStatus.PASSED)


def _out_of_use(folder: Path, held: lease.Lease) -> str:
    """Take a damaged image out of use, in words."""
    try:
        aside = room.set_aside(folder, held)
    except OSError as error:
        return f"it stays in use, because the store cannot be written: {error.strerror}"
    return f"it is out of use now: {aside}" if aside else "another process is building or removing it just now"


@images.command()
@click.option("--to", "gib", type=click.FloatRange(min=0), help="GiB that may be left [the store's limit].")
@click.option("--all", "all_", is_flag=True, help="All that no run uses: the same as --to 0.")
@_store_option
@_explained
def prune(gib: float | None, all_: bool, folder: Path) -> None:
    """Remove images until the rest fits into the limit: the least recently used first, never one in use."""
    limit = 0 if all_ else room.limit_bytes(folder) if gib is None else int(gib * (1 << 30))
    before = room.used_bytes(room.entries(folder))
    for entry in room.evict(folder, limit=limit):
        click.echo(f"removed {entry.name} {entry.key[:_SHORT]}")
    left = room.entries(folder)
    taken = room.used_bytes(left)
    click.echo(f"{_gib(before - taken)} are free now; {_number_of_images(left)}, {_gib(taken)}, are left")
    if taken > limit:
        click.echo(f"those that are left are in use, or another user's; the limit is {_gib(limit)}")


@images.command()
@click.argument("old", metavar="RUN1")
@click.argument("new", metavar="RUN2")
@click.option("--runs", type=_directory(), default=default_runs, help="Folder with the run directories.")
@_store_option
@_explained
def diff(old: str, new: str, runs: Path, folder: Path) -> None:
    """Say what changed in the distribution from RUN1's image to RUN2's, package by package.

    Each is a run (its name, or its directory, also one of an archive), the key of an image, or a list of packages.
    """
    (before, old_record), (after, new_record) = (_packages(name, runs, folder) for name in (old, new))
    found = manifest.changes(before, after)
    click.echo(manifest.summary(found).partition(":")[0])
    for change in found:
        click.echo(f"  {change}")
    if old_record and new_record and (words := new_record.image_key.differences(old_record.image_key)):
        click.echo(f"the images differ in: {'; '.join(words)}")


def _packages(name: str, runs: Path, folder: Path) -> tuple[str, ImageRecord | None]:
    """The list of packages that a word on the command line means, and the record of the image if that is here."""
    for path in (Path(name), runs / name):
        place = path / manifest.MANIFEST_FILE if path.is_dir() else path
        if path.is_dir() and not place.exists() and not (path / "events.jsonl").exists():
            continue
        if (text := manifest.read_manifest(place)) is not None:
            return text, _record_of_run(path, folder)
        if path.is_dir():
            raise UserError(f"{path}: this run has no list of packages ({manifest.MANIFEST_FILE})")
    entry = image_entry(folder, name)
    text = manifest.read_manifest(entry.folder / manifest.MANIFEST_FILE)
    if text is None:
        raise UserError(f"the image {entry.key[:_SHORT]} has no list of packages")
    return text, entry.record


def _record_of_run(path: Path, folder: Path) -> ImageRecord | None:
    with suppress(FarmError, OSError):
        image = Verdict.load(path).image
        return ImageRecord.load(folder / image.key) if image else None
    return None


def image_entry(folder: Path, key: str) -> room.Entry:
    there = (entry for entry in room.entries(folder) if not entry.is_download)
    found = [entry for entry in there if len(key) >= 4 and entry.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} images have a key that begins with {key}" if found else f"there is no run and no image {key}"
    raise UserError(f"{what}; `oscar-testdriver images --images {folder}` shows what is there")


def _recipe(name: str, profiles: Path) -> ImageRecipe:
    """The recipe that a word on the command line means."""
    path = Path(name)
    if path.suffix == ".json":
        return Job.load(path).image
    if path.suffix == ".toml" or "/" in name:
        return load_recipe(path)
    path = profiles / "images" / f"{name}.toml"
    if not path.is_file():
        there_are = ", ".join(sorted(each.stem for each in path.parent.glob("*.toml"))) or "none"
        raise UserError(f"there is no recipe '{name}' in {path.parent}; there are: {there_are}")
    return load_recipe(path)


def _built(record: ImageRecord) -> float:
    return record.built


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _ago(when: float) -> str:
    minutes = max(0.0, time.time() - when) / 60
    for unit, length in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= length:
            return f"{_count(int(minutes // length), unit)} ago"
    return "just now"

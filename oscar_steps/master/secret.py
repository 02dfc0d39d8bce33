"""`python -m oscar_steps.master.secret FARM.TOML [NAME]`: the secrets a site needs, each made with the right mode.

A secret is never an argument, which every user of the host could read in the list of processes.
"""

from __future__ import annotations

import getpass
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from oscar_steps.errors import ConfigError, FarmError, UserError
from oscar_steps.site import DATABASE_PASSWORD, GIVEN, LDAP_PASSWORD, MAIL_PASSWORD, POLL_HOOK, Site, load_site
from oscar_steps.textio import close_to_others, keep_private, write_atomically
from oscar_steps.words import ExitStatus


def needed(site: Site) -> Iterator[tuple[str, str]]:
    """Name and purpose of each secret that the site reads."""
    for worker in site.worker:
        yield f"worker-{worker.name}", f"password of the worker {worker.name}"
    for login in () if site.web.open else site.web.admins:
        yield f"web-{login}", f"web password of {login}"
    for login in site.try_.users if site.try_ else ():
        yield f"try-{login}", f"password of {login} for buildbot try"
    if site.mail and site.mail.user:
        yield MAIL_PASSWORD, f"password of {site.mail.user} at the mail relay {site.mail.relay}"
    if site.mail and site.mail.ldap and site.mail.ldap.bind:
        yield LDAP_PASSWORD, f"password of {site.mail.ldap.bind} at {site.mail.ldap.url}"
    yield from site.svn_secrets.items()
    if not site.database.url.startswith("sqlite"):
        yield DATABASE_PASSWORD, "password at the database, if it has one"


def write(site: Site, name: str, text: str) -> Path:
    """Keep `text` as the secret `name`, for the user alone whose folder holds the folder of secrets.

    Root follows no link to it: another user may have made the link, and may have it lead anywhere.
    """
    folder = site.secrets.directory
    if os.geteuid() == 0 and folder.is_symlink():
        what = f"the secret {folder / name} cannot be written: its folder is a link, which root does not follow"
        raise UserError(what, hint="name the folder itself in [secrets] directory, or type this as the master's user")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        close_to_others(folder)
        write_atomically(folder / name, f"{text}\n", mode=0o600)
        owner = folder.parent.stat()
        if os.geteuid() == 0:
            for path in (folder, folder / name):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    except OSError as error:
        raise UserError(f"the secret {folder / name} cannot be written: {error.strerror}") from None
    return folder / name


def _state(site: Site, name: str, purpose: str) -> str:
    try:
        site.secrets.read(name, purpose)
    except ConfigError as error:
        return error.sentence
    return f"{site.secrets.directory / name} ({purpose}) exists"


def _asked(name: str) -> str:
    """The secret as somebody types it, or as it comes on standard input."""
    try:
        line = getpass.getpass(f"{name}: ").encode() if sys.stdin.isatty() else sys.stdin.buffer.readline()
        text = line.decode().rstrip("\r\n")
    except UnicodeError:
        raise UserError(f"no secret was given for {name}", hint="it has to be UTF-8 text") from None
    if not text.strip() or any(character < " " for character in text):
        raise UserError(f"no secret was given for {name}", hint="it has to be one line of text")
    if text != text.strip():  # they would be left out where it is read
        raise UserError(f"no secret was given for {name}", hint="it must not begin or end with a blank")
    return text


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("farm_toml", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option(
    "--ask", is_flag=True, help="Prompt for the secret, or read it from standard input, instead of making a random one."
)
@click.option("--new", is_flag=True, help="Replace a secret that exists.")
def cli(farm_toml: Path, name: str | None, ask: bool, new: bool) -> None:
    """Create the secret NAME of the site FARM_TOML, readable only by the master's user. Without NAME, list all secrets.

    \b
    Examples:
      python -m oscar_steps.master.secret farm.toml
      python -m oscar_steps.master.secret farm.toml worker-worker1
      python -m oscar_steps.master.secret farm.toml web-admin --new
      python -m oscar_steps.master.secret farm.toml mail-password --ask

    A changed secret takes effect at the next `systemctl reload oscar-farm-master`, the password of the database at the
    next restart. Write a worker's new password into the file `password` on that worker, too, and restart the worker.
    """
    site = load_site(farm_toml)
    known = dict(needed(site))
    if name == POLL_HOOK:
        known[name] = "of commit hooks"
    if name is None:
        for each, purpose in known.items():
            click.echo(_state(site, each, purpose))
        return
    if name not in known:
        raise UserError(f"{farm_toml} needs no secret '{name}'; it needs: {', '.join(known)}")
    if os.path.lexists(site.secrets.directory / name) and not new:
        raise UserError(f"the secret {site.secrets.directory / name} exists already", hint="to replace it: --new")
    if name in GIVEN and not ask:
        raise UserError(f"the farm cannot choose the secret {name}", hint="enter the one that you were given: --ask")
    path = write(site, name, _asked(name) if ask else secrets.token_urlsafe(24))
    click.echo(f"{path} ({known[name]}) is written")


def main() -> None:
    """Entry point."""
    keep_private()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.USAGE)
    except FarmError as error:
        click.echo(error.explain(), err=True)
        sys.exit(ExitStatus.USAGE)
    except click.Abort:
        sys.exit(1)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()

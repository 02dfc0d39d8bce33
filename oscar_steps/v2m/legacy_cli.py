"""The command line of the V2M of 2007, `v2m PROFILE --WORD`, translated into today's commands."""

from __future__ import annotations

import click

OLD_WORDS: dict[str, tuple[str, ...]] = {
    "--boot-vm": ("boot",),
    "--create-vm-image-from-cdrom": ("install", "--from", "cdrom"),
    "--install-vm-with-oscar": ("install", "--from", "oscar"),
    "--migrate-vm": ("migrate",),
    "--pause-vm": ("pause",),
    "--unpause-vm": ("unpause",),
    "--status": ("status",),
    "--validate-profile": ("validate",),
}


def modern(arguments: list[str]) -> list[str]:
    """Today's words for old ones; others are left alone. Raises click.UsageError for two old words at once.

    The profile may stand on either side; what follows `--migrate-vm` is the host.
    """
    if len(arguments) == 2 and arguments[1] == "--version" and not arguments[0].startswith("-"):
        return ["--version"]
    said = [word for word in arguments if word in OLD_WORDS]
    if not said:
        return arguments
    if len(said) > 1:
        raise click.UsageError(f"'{said[0]}' and '{said[1]}' are two commands; give one of them.")
    place = arguments.index(said[0])
    if said[0] == "--migrate-vm":
        if place + 1 == len(arguments):
            raise click.UsageError("'--migrate-vm' needs the host to go to: v2m PROFILE --migrate-vm HOST")
        host = arguments[place + 1]
        rest = arguments[:place] + arguments[place + 2 :]
        return ["migrate", *rest, host]
    rest = arguments[:place] + arguments[place + 1 :]
    return [*OLD_WORDS[said[0]], *rest]

"""What a shell needs to complete `v2m`'s command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, files, machines and systems in your shell.

    \b
    Examples:
      v2m completion bash > ~/.local/share/bash-completion/completions/v2m
      v2m completion zsh > ~/.zfunc/_v2m
      v2m completion fish > ~/.config/fish/completions/v2m.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    program = click.get_current_context().find_root()
    complete = found(program.command, {}, program.info_name or "v2m", "_V2M_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())

"""`towpath completion`: the script that lets a shell complete our commands and options."""

from __future__ import annotations

import rich_click as click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: towpath completion bash > /etc/bash_completion.d/towpath
    """
    from click.shell_completion import get_completion_class

    from engine.cli import towpath

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(towpath, {}, "towpath", "_TOWPATH_COMPLETE").source())

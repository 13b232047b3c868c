"""`towpath reload`: have the daemon read its configuration again."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from engine.cli.ask import Output, ask, options, print_json


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Have the daemon read its configuration now, and try again what failed.

    Only what differs is touched. Exit code 2: the file has mistakes, and what
    was in force stays. 1: something could not be put in force.
    """
    from engine.views import Reload

    answer = ask(path, "reload", Reload)
    if output == "json":
        print_json(answer)
    else:
        click.echo(f"{answer.changed} changes")
        for problem in answer.problems:
            click.secho(f"problem: {problem.what}", fg="red", err=True)
    if answer.problems:
        raise Exit(1)

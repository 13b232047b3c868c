"""`towpath drops`: what was dropped, and why."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, options, print_json, print_table


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show every reason that has dropped packets since the start, most first."""
    from engine.views import Drops

    answer = ask(path, "drops", Drops)
    if output == "json":
        print_json(answer)
        return
    print_table(
        ("reason", "packets#", "severity", "meaning"),
        ((drop.reason, drop.packets, drop.severity, drop.meaning) for drop in answer.drops),
        nothing="nothing was dropped",
    )

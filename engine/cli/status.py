"""`towpath status`: how the daemon is, in a few lines."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from engine.cli.ask import Output, ask, options, print_fields, print_json, print_table
from engine.words import counted

if TYPE_CHECKING:
    from engine.views import Status


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show how the daemon is: state, ports, and what is not as desired.

    Exit code 0: all is as desired. 1: there are problems.
    """
    from engine.views import Status

    status = ask(path, "status", Status)
    if output == "json":
        print_json(status)
    else:
        print_fields(
            [
                ("node", status.node),
                ("state", "ready" if status.ready else "not ready"),
                ("version", f"{status.version}, process {status.pid}"),
                ("up", timedelta(seconds=int(status.uptime))),
                ("network", f"{status.mode}, {status.encapsulation}"),
                ("configuration", status.config),
                (
                    "serves",
                    f"{counted(status.pods, 'pod')}, {counted(status.peers, 'peer')}, {counted(status.routes, 'route')}",
                ),
                ("packets", f"{status.received} received, {status.sent} sent, {status.dropped} dropped"),
                ("workers", _placed(status)),
            ]
        )
        if status.ports:
            click.echo()
            print_table(
                ("port", "kind", "granted"),
                (
                    (port.name, port.kind, "; ".join(filter(None, (port.granted, port.shortcut))))
                    for port in status.ports
                ),
            )
        for problem in status.problems:
            again = f" [try {problem.attempts}, again in {problem.retry_in:.0f} s]" if problem.attempts else ""
            click.secho(f"\nproblem: {problem.what}{again}", fg="red", nl=False)
        if status.problems:
            click.echo()
    if status.problems:
        raise Exit(1)


def _placed(status: Status) -> str:
    """How many workers, and where each runs: "2, on CPU 0 (of 0-1) and 1 (of 0-1)"."""
    each = [f"{worker.cpu} (of {worker.allowed})" for worker in status.placement]
    return f"{status.workers}, on CPU {', '.join(each)}" if each else str(status.workers)

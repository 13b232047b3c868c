"""`towpath upgrade`: have the daemon start the installed version in its place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, options, print_json
from engine.errors import TowpathError, UnreachableDaemonError

PATIENCE = 120.0  # seconds: what a successor has to build its tables, and some


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Start the installed version of towpath in the daemon's place.

    No packet is lost and no connection broken. The new one is made by the old
    one, under the same service manager, with the same options. Exit code 1: it
    did not succeed, and the old one goes on; its log says why.
    """
    from engine.views import Upgrade, Version

    process = ask(path, "upgrade", Upgrade).pid
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.05)
        try:
            now = ask(path, "version", Version)
        except UnreachableDaemonError:  # between the two, a connection may be cut
            continue
        if now.pid == process:
            if output == "json":
                print_json(now)
            else:
                click.echo(f"towpath {now.version} runs as process {now.pid}")
            return
        if not os.path.exists(f"/proc/{process}"):
            break
    raise TowpathError("the new daemon did not take over; the old one goes on", remedy="see the daemon's log")

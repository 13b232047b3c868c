"""`towpath version`: the versions of this command and of the daemon."""

from __future__ import annotations

import platform
from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, options, print_fields, print_json


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show the versions of this command and, where one runs, of the daemon."""
    from engine.errors import UnreachableDaemonError
    from engine.version import version
    from engine.views import Version

    own = version()
    daemon: Version | None
    try:
        daemon = ask(path, "version", Version)
    except UnreachableDaemonError:
        daemon = None
    if output == "json":
        print_json({"command": own, "python": platform.python_version(), "daemon": daemon})
        return
    running = "none" if daemon is None else f"{daemon.version} ({daemon.build} build, process {daemon.pid})"
    print_fields([("command", own), ("python", platform.python_version()), ("daemon", running)])

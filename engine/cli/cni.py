"""`towpath cni`: puts the plugin in place for container runtimes, takes it away, and says how it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from engine.cli.ask import Output, ask, options, print_fields, print_json
from engine.errors import TowpathError, UnreachableDaemonError

_PAUSE = 0.2  # seconds between two questions whether the daemon is ready


def directories(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `bin_dir` and `conf_dir`."""
    path = click.Path(path_type=Path)
    binary = click.option(
        "--bin-dir", type=path, default="/opt/cni/bin", show_default=True, help="Where runtimes look for plugins."
    )
    configuration = click.option(
        "--conf-dir", type=path, default="/etc/cni/net.d", show_default=True, help="Where they look for networks."
    )
    return binary(configuration(function))


@click.group()
def command() -> None:
    """Serve container runtimes by CNI, the Container Network Interface."""


@command.command()
@directories
@click.option("--name", default="towpath", show_default=True, help="The name of the network.")
@click.option("--cni-version", "version", default="1.0.0", show_default=True, help="The version runtimes are to speak.")
@click.option(
    "--wait", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait for the daemon to be ready."
)
@options
def install(bin_dir: Path, conf_dir: Path, name: str, version: str, wait: float, output: Output, path: Path) -> None:
    """Install the plugin and its configuration, the latter only once the daemon is ready.

    A runtime takes the configuration for the sign that pods can be started.
    """
    from engine.cni import install as installation
    from engine.views import Cni

    known = installation.known_version(version)
    _wait_until_ready(path, wait)
    where = ask(path, "cni", Cni)
    installation.install(bin_dir, conf_dir, installation.conflist(name, known, where.socket, where.spool))
    if output == "json":
        print_json(where)
    else:
        click.echo(f"{bin_dir / installation.PLUGIN}\n{conf_dir / installation.CONFLIST}")


@command.command()
@directories
def uninstall(bin_dir: Path, conf_dir: Path) -> None:
    """Remove configuration and plugin. Containers that run keep their network until they are deleted."""
    from engine.cni import install as installation

    for file in installation.uninstall(bin_dir, conf_dir):
        click.echo(f"removed {file}")


@command.command()
@directories
@options
def status(bin_dir: Path, conf_dir: Path, output: Output, path: Path) -> None:
    """Say whether runtimes find the plugin, and whether it finds the daemon.

    Exit code 0: a pod could be started now. 1: something is missing.
    """
    from engine.cni import install as installation

    configuration = installation.read_conflist(conf_dir)
    current = installation.is_current(bin_dir)
    first = installation.first_conflist(conf_dir)
    refusal = installation.ask_status(bin_dir, configuration) if configuration and current is not None else ""
    missing = [
        *(["the plugin is not installed"] if current is None else []),
        *(["the plugin is another version's: run towpath cni install"] if current is False else []),
        *(["the configuration is not installed"] if configuration is None else []),
        *([f"runtimes take {first}, which comes first"] if first not in ("", installation.CONFLIST) else []),
        *([f"the plugin refuses: {refusal}"] if refusal else []),
    ]
    if output == "json":
        print_json({"plugin": current, "configuration": configuration is not None, "first": first, "problems": missing})
    else:
        print_fields(
            [
                ("plugin", f"{bin_dir / installation.PLUGIN}" if current is not None else "not installed"),
                ("network", configuration["name"] if configuration else "not installed"),
                ("attachments", _attachments(path)),
            ]
        )
        for problem in missing:
            click.secho(f"problem: {problem}", fg="red")
    if missing:
        raise Exit(1)


def _attachments(path: Path) -> str:
    from engine.views import Cni

    try:
        return str(ask(path, "cni", Cni).attachments)
    except UnreachableDaemonError as error:
        return f"unknown: {error.what}"


def _wait_until_ready(path: Path, seconds: float) -> None:
    from engine.views import Health

    end = time.monotonic() + seconds
    while True:
        try:
            if ask(path, "health", Health).ready:
                return
            problem = TowpathError("the daemon is not ready", where=str(path), remedy="see towpath status")
        except UnreachableDaemonError as error:
            problem = error
        if time.monotonic() >= end:
            raise problem
        time.sleep(_PAUSE)

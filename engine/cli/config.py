"""`towpath config`: check a configuration file, show what is in force, print the schema.

Owns: the words and the exit codes: 0 valid, 2 not valid.
Never: talks to a daemon or changes anything.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import rich_click as click
from click.exceptions import Exit

from engine.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.config import Loaded
    from engine.errors import ConfigError

DEFAULT_FILE = "/etc/towpath/towpath.toml"
Output = Literal["table", "json"]
_UNBOUNDED = 4096  # columns of what is no terminal: nothing is wrapped


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """What `check` and `show` have in common."""
    output = click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the answer."
    )
    settings = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key, like network.mtu=1400."
    )
    file = click.argument("file", type=click.Path(), default=DEFAULT_FILE, envvar="TOWPATH_CONFIG")
    return file(settings(output(function)))


@click.group()
def command() -> None:
    """Check, show and describe the configuration."""


@command.command()
@_options
def check(file: str, settings: tuple[str, ...], output: Output) -> None:
    """Check FILE and say every mistake, with its place and remedy.

    Exit code 0: it is valid. 2: it is not. What only the host can tell
    (is the namespace there, is the port free) is checked by `towpath run`.
    """
    loaded = _load(file, settings, output)
    config = loaded.config
    if output == "json":
        _print_json({"file": file, "valid": True, "mistakes": []})
        return
    counts = (
        counted(len(config.peers), "peer"),
        counted(len(config.pods), "pod"),
        counted(len(config.routes), "route"),
    )
    click.echo(f"{file} is valid: node {config.node.name}, {config.encapsulation}, {', '.join(counts)}")


@command.command()
@_options
def show(file: str, settings: tuple[str, ...], output: Output) -> None:
    """Print every key of FILE as it is in force, and what set it.

    A key that is left out shows what it follows from; the value is "-" when
    the daemon finds it on the host.
    """
    from engine.config.effective import rows

    found = list(rows(_load(file, settings, output)))
    if output == "json":
        _print_json([row._asdict() for row in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "value", "set by", box=None, pad_edge=False, header_style="bold")
    for row in found:
        table.add_row(row.key, _text(row.value), row.origin)
    width = None if sys.stdout.isatty() else _UNBOUNDED
    Console(markup=False, highlight=False, width=width).print(table)


@command.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors and other tools."""
    from engine.config.jsonschema import json_schema

    _print_json(json_schema())


def _load(file: str, settings: tuple[str, ...], output: Output) -> Loaded:
    """Exits with code 2, after saying why, when the file is not valid."""
    from engine.config import load
    from engine.errors import ConfigError
    from engine.source.file import read_text

    try:
        return load(
            read_text(file),
            file=file,
            hostname=socket.gethostname(),
            environment=os.environ,
            flags=dict(_setting(text) for text in settings),
        )
    except ConfigError as error:
        _refuse(file, error, output)


def _setting(text: str) -> tuple[str, str]:
    from engine.errors import ConfigError

    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f'"{text}" has no value', where="flag --set", remedy="write --set network.mtu=1400")
    return key.strip(), value.strip()


def _refuse(file: str, error: ConfigError, output: Output) -> NoReturn:
    if output == "json":
        mistakes = [
            {"where": one.where, "line": one.line, "key": one.key, "what": one.what, "remedy": one.remedy}
            for one in error.mistakes
        ]
        _print_json({"file": file, "valid": False, "mistakes": mistakes})
    else:
        for one in error.mistakes:
            place = click.style(f"{one.where}: ", bold=True)
            advice = click.style(f" ({one.remedy})", dim=True)
            click.echo(f"{place}{one.what}{advice}", err=True)
    raise Exit(error.exit_code)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

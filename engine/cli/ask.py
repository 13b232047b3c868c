"""What the commands that ask a daemon share: their options, and how answers are printed.

Owns: `-o table|json`, `--socket`, the look of tables.
Never: interprets an answer.
Invariant: JSON output is the daemon's answer as it is; a table in a pipe has
no colour and no line is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import rich_click as click

if TYPE_CHECKING:
    import msgspec

    Answer = TypeVar("Answer", bound=msgspec.Struct)

Output = Literal["table", "json"]
DEFAULT_SOCKET = "/run/towpath/control.sock"
_UNBOUNDED = 10_000  # columns


def options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `output` and `path`, the control socket."""
    output = click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print the answer."
    )
    path = click.option(
        "--socket",
        "path",
        type=click.Path(path_type=Path),
        default=DEFAULT_SOCKET,
        show_default=True,
        envvar="TOWPATH_CONTROL_SOCKET",
        help="The daemon's control socket.",
    )
    return output(path(function))


def ask(path: Path, method: str, result: type[Answer], **parameters: object) -> Answer:
    """The daemon's answer. UnreachableDaemonError when there is none."""
    from engine.control.client import Client

    with Client(path) as client:
        return client.ask(method, result, **parameters)


def print_json(answer: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str = "") -> None:
    """A header ending in "#" is of numbers, which stand to the right. `nothing` stands in the place of no rows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header.rstrip("#"), justify="right" if header.endswith("#") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    if nothing and not table.row_count:
        click.echo(nothing)
        return
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    console.print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One name and value a line."""
    present = [(name, value) for name, value in fields if value not in ("", None)]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")


def joined(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values) or "-"

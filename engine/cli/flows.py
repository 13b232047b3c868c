"""`towpath flows`: the live flows, with verdict and rule."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from engine.cli.ask import Output, ask, options, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.views import Flow, Flows

_HEADERS = (
    "protocol",
    "source",
    "destination",
    "state",
    "verdict",
    "egress by",
    "ingress by",
    "packets#",
    "bytes#",
    "idle#",
)
_PAGE = 5000
_NO_FLOWS = 'no connection is known (they are while a policy selects somebody, or always with flows.track = "always")'


@click.command()
@click.argument("within", nargs=-1)
@click.option("--protocol", default="", help="Only this one: tcp, udp, sctp, icmp or a number.")
@click.option("--port", type=click.IntRange(0, 65_535), default=None, help="Only flows with this port on either side.")
@click.option("--denied", is_flag=True, help="Only flows that a later policy denied.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@click.option("--watch", type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="Show again and again, until ^C.")
@options
def command(
    within: tuple[str, ...],
    protocol: str,
    port: int | None,
    denied: bool,
    limit: int,
    watch: float | None,
    output: Output,
    path: Path,
) -> None:
    """Show the connections that are known now.

    WITHIN names pods, addresses or prefixes, of which one side has to be;
    everything when left out. Flows are known while some policy selects
    somebody, or always with flows.track = "always".
    """
    wanted = {"within": list(within), "protocol": protocol, "port": -1 if port is None else port, "denied": denied}
    while True:
        pages = list(_pages(path, wanted, limit))
        if watch is not None and output == "table":
            click.clear()
        _print(pages, limit, output)
        if watch is None:
            return
        time.sleep(watch)


def _pages(path: Path, wanted: dict[str, object], limit: int) -> Iterator[Flows]:
    """Page after page, until there are enough."""
    from engine.views import Flows

    cursor: int | None = 0
    while cursor is not None and limit > 0:
        page = ask(path, "flows", Flows, **wanted, cursor=cursor, limit=min(limit, _PAGE))
        yield page
        cursor = page.cursor
        limit -= len(page.flows)


def _print(pages: list[Flows], limit: int, output: Output) -> None:
    from engine.views import Flows

    flows = [flow for page in pages for flow in page.flows][:limit]
    last = pages[-1]
    if output == "json":
        print_json(Flows(flows, last.cursor, last.live, last.capacity))
        return
    print_table(_HEADERS, map(_row, flows), nothing="no such flow is known" if last.live else _NO_FLOWS)
    click.echo(f"{len(flows)} of {last.live} flows shown, room for {last.capacity}", err=True)


def _row(flow: Flow) -> tuple[object, ...]:
    return (
        flow.protocol,
        _end(flow.source_name or flow.source, flow.source_port),
        _end(flow.destination_name or flow.destination, flow.destination_port),
        flow.state,
        flow.verdict,
        flow.egress or "-",
        flow.ingress or "-",
        flow.packets + flow.reply_packets,
        flow.bytes + flow.reply_bytes,
        f"{flow.idle:.0f}s",
    )


def _end(name: str, port: int) -> str:
    if not port:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

"""`towpath routes`: the routing table, or where one address goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from engine.cli.ask import Output, ask, joined, options, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.views import Hop, Route

_HEADERS = ("prefix", "via", "mtu#", "state")


@click.group(invoke_without_command=True)
@click.option("--within", default="", metavar="PREFIX", help="Only routes inside this prefix.")
@click.option("--limit", type=click.IntRange(0, 50_000), default=10_000, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many first.")
@options
@click.pass_context
def command(context: click.Context, within: str, limit: int, offset: int, output: Output, path: Path) -> None:
    """Show the routes in force."""
    if context.invoked_subcommand is not None:
        return
    from engine.views import Routes

    answer = ask(path, "routes", Routes, within=within, limit=limit, offset=offset)
    if output == "json":
        print_json(answer)
        return
    _print(answer.routes)
    if len(answer.routes) < answer.total:
        click.echo(f"{len(answer.routes)} of {answer.total} routes shown (see --limit and --offset)", err=True)


@command.command()
@click.argument("address")
@options
def get(address: str, output: Output, path: Path) -> None:
    """Show the route that a packet to ADDRESS takes.

    Exit code 1: there is none.
    """
    from engine.errors import TowpathError
    from engine.views import RouteGet

    answer = ask(path, "route_get", RouteGet, address=address)
    if output == "json":
        print_json(answer)
    elif answer.route is not None:
        _print([answer.route])
    if answer.route is None:
        raise TowpathError(f"no route to {address}", remedy="see towpath routes")


def _print(routes: Iterable[Route]) -> None:
    rows = ((route.prefix, joined(_words(hop) for hop in route.via), _mtu(route), route.state) for route in routes)
    print_table(_HEADERS, rows, nothing="no routes")


def _words(hop: Hop) -> str:
    if hop.kind == "tunnel":
        return f"{hop.peer} ({hop.remote}, {hop.target})"
    if hop.kind == "pod":
        return f"pod {hop.target}"
    if hop.kind == "host":
        return f"{hop.peer} (bare, by the host)" if hop.peer else "host"
    return hop.target


def _mtu(route: Route) -> object:
    return min((hop.mtu for hop in route.via if hop.mtu), default="-")

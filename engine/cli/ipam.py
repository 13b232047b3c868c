"""`towpath ipam`: the addresses of pods that runtimes attached."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from engine.cli.ask import Output, ask, options, print_json, print_table


@click.group()
def command() -> None:
    """Show, check and release the addresses that pods have by CNI."""


@command.command()
@options
def show(output: Output, path: Path) -> None:
    """Show the pools and how full they are, and every address in use."""
    from engine.views import Ipam

    answer = ask(path, "ipam", Ipam)
    if output == "json":
        print_json(answer)
        return
    print_table(
        ("pool", "addresses#", "blocks#", "in use#", "kept#", "state"),
        (
            (pool.prefix, pool.size, pool.blocks, pool.used, pool.kept, "has free" if pool.has_free else "full")
            for pool in answer.pools
        ),
    )
    if answer.addresses:
        click.echo()
        print_table(
            ("address", "pod", "handle", "since", "kept for"),
            (
                (entry.address, entry.pod or "-", entry.handle, _time(entry.since), entry.sticky or "-")
                for entry in answer.addresses
            ),
        )
    if answer.total > len(answer.addresses):
        click.echo(f"and {answer.total - len(answer.addresses)} more")


@command.command()
@options
def check(output: Output, path: Path) -> None:
    """Compare addresses in use with the pods that should use them.

    Exit code 0: they fit together. 1: something leaked, is missing, or is there twice.
    """
    from engine.views import IpamCheck

    answer = ask(path, "ipam_check", IpamCheck)
    if output == "json":
        print_json(answer)
    else:
        print_table(
            ("what", "address", "handle", "remedy"),
            ((leak.kind, leak.address, leak.handle, leak.remedy) for leak in answer.leaks),
            nothing="every address in use has its pod, and every pod its addresses",
        )
    if answer.leaks:
        raise Exit(1)


@command.command()
@click.argument("address")
@options
def release(address: str, output: Output, path: Path) -> None:
    """Give back ADDRESS, and forget whom it was kept for. Refused while an attached pod has it.

    With an address, or the name, of a pod whose delegated plugin does not take its addresses back: do not ask it again.
    """
    from engine.views import IpamReleased

    answer = ask(path, "ipam_release", IpamReleased, address=address)
    if output == "json":
        print_json(answer)
    else:
        click.echo(f"{answer.address}: " + (f"released from {answer.handle}" if answer.handle else "was not in use"))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

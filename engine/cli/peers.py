"""`towpath peers`: the other nodes and how much goes to them."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, joined, options, print_json, print_table


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show the other nodes: addresses, prefixes, MTU, packets sent."""
    from engine.views import Peers

    answer = ask(path, "peers", Peers)
    if output == "json":
        print_json(answer)
        return
    print_table(
        ("peer", "addresses", "prefixes", "mtu#", "packets#", "bytes#"),
        (
            (
                peer.name,
                joined(peer.addresses),
                joined(peer.prefixes),
                peer.mtu or "-",
                peer.sent_packets,
                peer.sent_bytes,
            )
            for peer in answer.peers
        ),
        nothing="this node has no peers",
    )

"""`towpath pods`: the pods of this node and whether they are attached."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, joined, options, print_json, print_table


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show the pods: namespace, addresses, MTU, packets from and to them."""
    from engine.views import Pods

    answer = ask(path, "pods", Pods)
    if output == "json":
        print_json(answer)
        return
    print_table(
        ("pod", "namespace", "device", "addresses", "mtu#", "from#", "to#", "dropped#", "state"),
        (
            (
                pod.name,
                pod.namespace,
                pod.interface,
                joined(pod.addresses),
                pod.mtu,
                pod.received_packets,
                pod.sent_packets,
                pod.dropped_packets,
                pod.state,
            )
            for pod in answer.pods
        ),
        nothing="this node has no pods",
    )

"""`towpath counters`: packets and bytes by port, sums, and events."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from engine.cli.ask import Output, ask, options, print_fields, print_json, print_table


@click.command()
@options
def command(output: Output, path: Path) -> None:
    """Show packets and bytes by port since the start, and what happened that ends no packet.

    received + created = sent + dropped, but for packets under way.
    """
    from engine.views import Counters

    answer = ask(path, "counters", Counters)
    if output == "json":
        print_json(answer)
        return
    print_table(
        ("port", "received#", "bytes#", "sent#", "bytes#", "dropped#"),
        (
            (
                port.name,
                port.received_packets,
                port.received_bytes,
                port.sent_packets,
                port.sent_bytes,
                port.dropped_packets,
            )
            for port in answer.ports
        ),
    )
    click.echo()
    sums = ("received", "created", "sent", "dropped")
    print_fields([*((name, getattr(answer, name)) for name in sums), *sorted(answer.events.items())])

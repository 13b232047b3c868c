"""`towpath checksystem`: what this machine's kernel grants, and what that means.

Owns: the words on the screen. engine/observe/system.py asks the questions.
Never: changes the system.
Invariant: exit code 0 when everything required is known to be there, 3 when not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from engine.observe.system import SystemReport


@click.command("checksystem")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to show the findings.")
def command(output: str) -> None:
    """Say what the kernel grants, and what it means.

    Looks at TUN devices and their offloads, UDP segmentation and merging, raw
    sockets, namespaces, socket buffers, nftables and the processor. Nothing is
    changed.
    Exits with 3 when something is missing that Towpath cannot run without, or could not be found out.
    """
    from engine.observe.system import examine

    report = examine()
    if output == "json":
        findings = [asdict(finding) for finding in report.findings]
        click.echo(json.dumps({"complete": not report.missing, "findings": findings}, indent=2))
    else:
        _show(report)
    sys.exit(3 if report.missing else 0)


def _show(report: SystemReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "What", "Found", "Meaning"):
        table.add_column(heading)
    for finding in report.findings:
        refused = "[red]NO[/]" if finding.required else "[yellow]no[/]"
        mark = "[green]yes[/]" if finding.granted else "[yellow]?[/]" if finding.granted is None else refused
        meaning = f"{finding.meaning}; {finding.remedy}" if finding.remedy else finding.meaning
        table.add_row(mark, finding.title, finding.value, meaning)
    console = Console()
    console.print(table)
    console.print()
    if any(finding.granted is None for finding in report.missing):
        console.print("[red]Whether Towpath can run here is not known.[/]")
    elif report.missing:
        names = ", ".join(finding.title for finding in report.missing)
        console.print(f"[red]Towpath cannot run here:[/] {names}.")
    else:
        console.print("Towpath can run here.")
